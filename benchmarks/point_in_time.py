"""Features as of past times: vectors of all variables for many labels, and whether they are what was served.

    python -m benchmarks.point_in_time [--json] [--fast] [--check]

Events of a made-up shop are folded with all built-in features and kept as history; some vectors are taken as
they are served. Then, in a process of its own, whose memory is its own:

    labels, rows_per_second, cpu_us_per_row   vectors given: 100,000 over 200,000 events (`--fast`: 10,000
    over 20,000) events_per_second                         of history, folded again on the way rss_peak_mib
    of that process; interpreter, Arrow and DuckDB are some 250 MiB of it differing
    of the vectors that were taken, those that are not the same to the bit floor_rows_per_second
    the same stream of rows, read and not folded
"""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from benchmarks.report import Figures, main
from benchmarks.visitors import BEGIN, events, full_catalogue
from tailorbird.app.keeper import Keeper
from tailorbird.app.past import opened, rows_of
from tailorbird.live.profiles import by_identifier
from tailorbird.live.seen import key_of
from tailorbird.live.variables import vector
from tailorbird.live.world import TABLES, World
from tailorbird.process.worker import Fold, decode_event
from tailorbird.schema.records import encode
from tailorbird.stores.history import NAMED_LABELS
from tailorbird.stores.memory import MemoryLog
from tailorbird.stores.parquet import ParquetWarehouse
from tailorbird.stores.sqlite import SqliteState
from tailorbird.train.dataset import features_as_of

SECRET = bytes(32)
SEED = 11
DAYS = 30.0
CACHE_BYTES = 512 * 1024 * 1024
TAKEN = 500
_DIRTY_MAX = 10_000


def measure(folder: Path, *, is_fast: bool) -> Figures:
    """Return every figure."""
    count, labels = (20_000, 10_000) if is_fast else (200_000, 100_000)
    serve(folder / "data", count, visitors=count // 40)
    asking = ["ask", str(folder / "data"), str(labels), str(count // 40)]
    command = [sys.executable, "-m", "benchmarks.point_in_time", *asking]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=1_800.0)
    asked: Figures = msgspec.json.decode(done.stdout)
    return {"events": count, **asked}


def serve(folder: Path, count: int, visitors: int) -> None:
    """Fold events as a server does, keep their history, and take some vectors as they are served."""
    for name in ("state", "warehouse"):
        (folder / name).mkdir(parents=True)
    log, keeper = MemoryLog(), Keeper(ParquetWarehouse(folder / "warehouse" / "state-000001"))
    world = World(SqliteState(folder / "state" / "state-000001.db", TABLES), CACHE_BYTES)
    fold = Fold(world, SECRET, log, keeper.observer)
    declared = full_catalogue()
    fold.apply_record(log.append(*encode(declared)), declared)
    taken = []
    for place, logged in enumerate(events(count, visitors, SEED, DAYS), 1):
        event = decode_event(logged.e)
        fold.apply_event(place, logged, event, key_of(logged.m))
        if place % (count // TAKEN) == 0:
            at = logged.r + 1e-3
            profile = by_identifier(world, f"anonymous_id:{event.anonymous_id}")
            taken.append((event.anonymous_id, at, vector(world, profile, at).tobytes()))
        if world.dirty_count > _DIRTY_MAX:
            keeper.write_all(place + 1)
            world.checkpoint()
    keeper.write_all(count + 1)
    world.checkpoint()
    world.store.close()
    (folder / "taken.json").write_bytes(msgspec.json.encode(taken))


def ask(folder: Path, count: int, visitors: int) -> Figures:
    """Ask for the vectors taken and for random ones; return what that took."""
    taken = msgspec.json.decode((folder / "taken.json").read_bytes(), type=list[tuple[str, float, bytes]])
    asked = pa.Table.from_pylist(list(_labels(taken, count, visitors)), schema=NAMED_LABELS)
    differing = given = 0
    with opened(folder, gpc_opts_out=True) as now:
        labels = now.history.profiles_named(asked)
        started = time.perf_counter()
        streamed = sum(1 for _ in rows_of(now.history, labels))
        floor = time.perf_counter() - started
        started, cpu = time.perf_counter(), time.process_time()
        for batch in features_as_of(now.past, rows_of(now.history, labels)):
            given += len(batch.label_ids)
            for label, row in zip(batch.label_ids.tolist(), batch.matrix, strict=True):
                differing += label < len(taken) and row.tobytes() != taken[label][2]
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        variables = len(now.names)
    return {
        "labels": given,
        "variables": variables,
        "seconds": round(seconds, 1),
        "rows_per_second": round(given / seconds),
        "cpu_us_per_row": round(cpu / given * 1e6, 1),
        "events_per_second": round((streamed - given) / seconds),
        "floor_rows_per_second": round(streamed / floor),
        "compared": len(taken),
        "differing": differing,
        "rss_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _labels(taken: list[tuple[str, float, bytes]], count: int, visitors: int) -> Iterator[dict[str, object]]:
    generator = np.random.default_rng(SEED)
    for number, (who, at, _) in enumerate(taken):
        yield {"label_id": number, "identifier": f"anonymous_id:{who}", "t": at}
    for number in range(len(taken), count):
        at = BEGIN + generator.uniform(0.5, 1.0) * DAYS * 86400.0
        yield {"label_id": number, "identifier": f"anonymous_id:a-{generator.integers(visitors)}", "t": at}


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        print(msgspec.json.encode(ask(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))).decode())
    else:
        main("point_in_time", __doc__, measure)
