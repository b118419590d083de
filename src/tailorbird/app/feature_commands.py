"""The command `tailorbird features`: what is declared, features as of any past time, and the skew meter."""

import argparse
import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tailorbird.app.config import Config, load_config
from tailorbird.app.past import Opened, opened, rows_of, skew_of
from tailorbird.clock import parse_time
from tailorbird.errors import ConfigurationError, Fault, InvalidInputError
from tailorbird.features.defaults import CATALOGUES, expanded
from tailorbird.features.program import Program
from tailorbird.features.vocabulary import Vocabulary
from tailorbird.schema.feature import FeatureConfig, FeaturesPut
from tailorbird.stores.history import NAMED_LABELS
from tailorbird.train.dataset import Rows, features_as_of
from tailorbird.train.skew import SkewReport


def run_features(options: argparse.Namespace) -> int:
    """Carry out one action and print its result."""
    config = load_config(options.config, {"data": options.data})
    if options.action == "list":
        return _list(config, is_json=options.json)
    if not Path(config.data).is_dir():
        raise ConfigurationError(f"--data: there is no folder {config.data!r}")
    if options.action == "skew":
        return _skew(config, is_json=options.json)
    if options.labels is None or options.out is None:
        raise ConfigurationError("features as-of needs --labels FILE and --out FILE.parquet")
    return _as_of(config, options.labels, options.out, is_json=options.json)


# --- list -------------------------------------------------------------------------------------------


def _list(config: Config, *, is_json: bool) -> int:
    """Say what the configuration declares, by kind."""
    features = config.features or FeatureConfig(catalogues=CATALOGUES)
    put = FeaturesPut(0.0, features, expanded(features))
    program = Program(put, Vocabulary(lambda _name, _code: None))
    kinds = Counter(type(made).__struct_config__.tag for made in put.definitions)
    result = {"definitions": len(put.definitions), "variables": program.size, "kinds": dict(kinds)}
    if is_json:
        print(msgspec.json.encode(result | {"names": program.names}).decode())
        return 0
    print(f"{len(put.definitions)} definitions, {program.size} variables")
    for made in put.definitions:
        slots = program.slots_of[made.name]
        print(f"  {type(made).__struct_config__.tag:<12}{made.name:<40}{len(slots):>4} variables")
    return 0


# --- as of ------------------------------------------------------------------------------------------


def _as_of(config: Config, labels: Path, out: Path, *, is_json: bool) -> int:
    """Write the variables of each label to a Parquet file, a row a label, in the order of their times."""
    asked = _labels(labels)
    with opened(Path(config.data), gpc_opts_out=config.global_privacy_control == "opt-out") as now:
        found = now.history.profiles_named(asked)
        schema = pa.schema(
            [("label_id", pa.int64()), *((name, pa.float32()) for name in now.names)],
            metadata={"layout": now.version},
        )
        rows = 0
        with pq.ParquetWriter(out, schema, compression="zstd") as writer:
            for batch in _batches(now, found):
                columns = [pa.array(batch.label_ids), *map(pa.array, batch.matrix.T)]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
                rows += len(batch.label_ids)
    result = {"labels": len(asked), "rows": rows, "unknown": len(asked) - rows, "variables": len(now.names)}
    text = f"{rows} rows of {len(now.names)} variables; {len(asked) - rows} labels name nobody at their time"
    print(msgspec.json.encode(result).decode() if is_json else text)
    return 0


def _batches(now: Opened, labels: pa.Table) -> Iterator[Rows]:
    return features_as_of(now.past, rows_of(now.history, labels))


def _labels(file: Path) -> pa.Table:
    """Return labels of the schema `NAMED_LABELS`, numbered as they stand in the file.

    Raises:
        ConfigurationError: It cannot be read, or lacks a column.
        InvalidInputError: A time is none.
    """
    try:
        read = pq.read_table(file) if file.suffix == ".parquet" else pyarrow.csv.read_csv(file)
        identifiers, times = read["identifier"].cast(pa.string()), read["t"]
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ConfigurationError(f"--labels: {file}: needs columns identifier and t: {error}") from error
    moments = pa.array([_time(value) for value in times.to_pylist()], pa.float64())
    return pa.Table.from_arrays([pa.array(np.arange(len(read))), identifiers, moments], schema=NAMED_LABELS)


def _time(value: Any) -> float:  # noqa: ANN401
    """Return epoch seconds of a number or of an ISO 8601 time."""
    if isinstance(value, int | float):
        return float(value)
    with contextlib.suppress(ValueError):
        return float(value)
    try:
        return parse_time(value.isoformat() if hasattr(value, "isoformat") else str(value))
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(Fault("t", "epoch seconds, or an ISO 8601 time", str(value))) from error


# --- skew -------------------------------------------------------------------------------------------


def _skew(config: Config, *, is_json: bool) -> int:
    """Compare what a sample of decisions was made with to history; exit code 1 where anything differs."""
    with opened(Path(config.data), gpc_opts_out=config.global_privacy_control == "opt-out") as now:
        report = skew_of(now)
    print(msgspec.json.encode(report).decode() if is_json else _told(report))
    return 1 if report.skewed else 0


def _told(report: SkewReport) -> str:
    skewed = len(report.skewed)
    lines = [
        f"{report.compared} decisions compared, {report.values} values; {skewed} variables differ",
        f"not compared: {report.other_layout} made by other definitions, {report.outrun} outrun by a record",
    ]
    lines += [f"  {one.name:<50}{one.differed:>8} times, by up to {one.largest}" for one in report.skewed]
    return "\n".join(lines)
