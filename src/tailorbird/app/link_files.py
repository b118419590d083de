"""Graph files: pairs of identifiers from a third party, as CSV or Parquet, read row by row.

Columns: `one` and `other` (`type:value`), and where they are there `source`, `confidence` (0 to 1), `time`
(ISO 8601 text, or Parquet's own).
"""

import csv
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet

from tailorbird.errors import ConfigurationError

_NEEDED = ("one", "other")
_COLUMNS = (*_NEEDED, "source", "confidence", "time")
_BATCH_ROWS = 10_000


class Row(NamedTuple):
    """One row as the door takes it, with its number in the file, from 1."""

    number: int
    link: msgspec.Raw


def read_links(file: Path, source: str | None, confidence: float | None) -> Iterator[Row]:
    """Yield the rows of a file; `source` and `confidence` are of rows that do not say theirs.

    Raises:
        ConfigurationError: The file cannot be read, or lacks a column.
    """
    rows = _parquet(file) if file.suffix.lower() in (".parquet", ".pq") else _csv(file)
    for number, values in enumerate(rows, 1):
        yield Row(number, msgspec.Raw(msgspec.json.encode(_link(values, source or file.stem, confidence))))


def _link(values: dict[str, Any], source: str, confidence: float | None) -> dict[str, Any]:
    """Return a row as the door's JSON; what is wrong in it the door says."""
    link: dict[str, Any] = {"identifiers": [values["one"], values["other"]]}
    link["source"] = values.get("source") or source
    said = values.get("confidence")
    if said in (None, ""):
        said = confidence
    if said is not None:
        link["confidence"] = _number(said)
    time = values.get("time")
    if isinstance(time, datetime.datetime):
        time = (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).isoformat()
    if time not in (None, ""):
        link["at"] = time
    return link


def _number(value: Any) -> Any:  # noqa: ANN401
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _csv(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            _check_columns(file, reader.fieldnames or ())
            for row in reader:
                yield {name: row.get(name) for name in _COLUMNS}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{file}: cannot be read as CSV: {error}") from error


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with pa.parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            _check_columns(file, names)
            for batch in table.iter_batches(
                _BATCH_ROWS, columns=[name for name in _COLUMNS if name in names]
            ):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ConfigurationError(f"{file}: cannot be read as Parquet: {error}") from error


def _check_columns(file: Path, names: Any) -> None:  # noqa: ANN401
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise ConfigurationError(f"{file}: has no column {' and '.join(missing)} (it has {', '.join(names)})")
