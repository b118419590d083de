"""Feast's side of the comparison, run by Feast's own environment: it imports nothing of Tailorbird's.

    .deps/peers/bin/python -I benchmarks/feast_side.py prepare FOLDER
    .deps/peers/bin/python -I benchmarks/feast_side.py measure FOLDER READS UPDATES SEED

FOLDER holds `feature_store.yaml` and `variables.parquet`: a row a visitor, with `visitor`, `event_timestamp`
and the variables. `prepare` declares them and materializes the file into the online store; it prints the
versions, and what the SDK then returns of every visitor. `measure` prints the nanoseconds of each

    read   `get_online_features` of a feature service with all variables, of one visitor, as a dict
    push   `push` of one visitor's row to the online store
    write  `write_to_online_store` of the same row, which need not look for the view by its source

One JSON document goes to standard output, all that Feast says to standard error.
"""

import contextlib
import gc
import importlib.metadata
import json
import platform
import random
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_source import PushMode
from feast.types import Float32

VIEW, SERVICE, SOURCE = "variables", "hundred", "pushed"
PACKAGES = ("feast", "pandas", "pyarrow", "protobuf", "fastapi", "redis")
WARM_UP = 20

_DAY = timedelta(days=1)


def prepare(folder: Path) -> dict[str, Any]:
    """Declare the variables, fill the online store, and return what it holds."""
    store, table = FeatureStore(repo_path=str(folder)), pd.read_parquet(folder / "variables.parquet")
    names = [name for name in table.columns if name not in {"visitor", "event_timestamp"}]
    visitor = Entity(name="visitor", join_keys=["visitor"], value_type=ValueType.STRING)
    file = FileSource(name="file", path=str(folder / "variables.parquet"), timestamp_field="event_timestamp")
    pushed = PushSource(name=SOURCE, batch_source=file)
    schema = [Field(name=name, dtype=Float32) for name in names]
    view = FeatureView(name=VIEW, entities=[visitor], ttl=timedelta(0), schema=schema, source=pushed)
    store.apply([visitor, file, pushed, view, FeatureService(name=SERVICE, features=[view])])
    newest = table["event_timestamp"].max().to_pydatetime()
    store.materialize(newest - _DAY, newest + _DAY)
    service = store.get_feature_service(SERVICE)
    held = store.get_online_features(
        features=service, entity_rows=[{"visitor": one} for one in table["visitor"]]
    ).to_dict()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"versions": versions | {"python": platform.python_version()}, "values": held}


def measure(folder: Path, reads: int, updates: int, seed: int) -> dict[str, list[tuple[int, int]]]:
    """Return the nanoseconds of each read and update, by the wall and of CPU."""
    store, table = FeatureStore(repo_path=str(folder)), pd.read_parquet(folder / "variables.parquet")
    service = store.get_feature_service(SERVICE)
    drawn = random.Random(seed)
    visitors = table["visitor"].tolist()
    rows = [table.iloc[[number]].copy() for number in drawn.choices(range(len(table)), k=updates)]

    def read(visitor: str) -> None:
        store.get_online_features(features=service, entity_rows=[{"visitor": visitor}]).to_dict()

    def push(row: Any) -> None:
        row["event_timestamp"] += timedelta(seconds=1)  # A row that is no newer, Redis' store leaves out.
        store.push(SOURCE, row, to=PushMode.ONLINE)

    def write(row: Any) -> None:
        row["event_timestamp"] += timedelta(seconds=1)
        store.write_to_online_store(VIEW, df=row)

    return {
        "read": timed(read, drawn.choices(visitors, k=reads)),
        "push": timed(push, rows),
        "write": timed(write, rows),
    }


def timed(act: Callable[[Any], None], arguments: list[Any]) -> list[tuple[int, int]]:
    """Return the nanoseconds of each call by the wall and of CPU, after some that are not counted.

    No garbage is collected meanwhile.
    """
    for argument in arguments[:WARM_UP]:
        act(argument)
    gc.collect()
    gc.disable()
    taken = []
    for argument in arguments:
        cpu_started, started = time.process_time_ns(), time.perf_counter_ns()
        act(argument)
        taken.append((time.perf_counter_ns() - started, time.process_time_ns() - cpu_started))
    gc.enable()
    return taken


if __name__ == "__main__":
    _, what, place, *numbers = sys.argv
    with contextlib.redirect_stdout(sys.stderr):
        found = prepare(Path(place)) if what == "prepare" else measure(Path(place), *map(int, numbers))
    print(json.dumps(found))
