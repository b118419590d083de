"""The warehouse in Parquet files, by day, with a manifest that says which of them count.

    manifest.json                              the offset up to which all is in, and every file that counts
    events/day=2026-11-25/
      00000000000000000000-00000000000000004095.parquet     the first and last offset that it holds
    decisions/day=2026-11-25/…                 and so on, a folder a table

A write makes new files beside the old ones, each whole or not there (rename), and then puts a new manifest
in the place of the old one: that moment is when the rows are in. What a crash leaves that no manifest names
counts for nothing, and goes at the next `clean`.

The day is that of `known_at`, UTC. It never falls as offsets grow, so the files of a table follow one another
in time and in the log. A write every few seconds makes small files; as soon as a day has `FILES_SMALL_MAX` of
them they are merged into one. A reader of a running server's files may find one merged away: it asks again.

Files are readable by their owner only, compressed with Zstandard, in columns of Arrow types that follow from
the rows' fields.
"""

import itertools
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tailorbird.errors import CorruptLogError, StorageError
from tailorbird.limits import FILES_SMALL_MAX, ROWS_SMALL_MAX
from tailorbird.schema.decision import LoggedChoice
from tailorbird.stores.warehouse import PEOPLE, TABLES, Row, Rows, TableSize

logger = logging.getLogger("tailorbird")

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
_FILE_MODE: Final = 0o600
_DAY_SECONDS: Final = 86_400
_READ_ROWS: Final = 4_096
_SLICE_ROWS: Final = 512  # Made Arrow at a time: a fifth of a millisecond a column.
_MERGED_BYTES: Final = 16 * 1024 * 1024  # Decoded at a time while files are merged, and a row group's size.


class File(msgspec.Struct, frozen=True):
    """A file of the warehouse: its rows are of records from `first`, known at `known_at`, to `last`."""

    table: str
    day: str
    first: int
    last: int
    known_at: float
    rows: int
    bytes: int

    @property
    def path(self) -> str:
        """Return where it is in the warehouse's folder."""
        return f"{self.table}/day={self.day}/{self.first:020d}-{self.last:020d}.parquet"


class Manifest(msgspec.Struct, frozen=True):
    """Which files count, and up to which offset of the log they hold everything."""

    format: int = FORMAT
    offset: int = 0
    newest: float = 0.0
    files: tuple[File, ...] = ()


class ParquetWarehouse:
    """A warehouse in a folder. Implements `tailorbird.stores.warehouse.Warehouse`.

    One writer at a time; readers, in this process or in others, see what the manifest named when they began.
    """

    def __init__(self, folder: Path) -> None:
        """Open the warehouse in `folder`; nothing is there until the first write.

        Raises:
            CorruptLogError: The manifest cannot be read, or a file that it names is missing or cut short.
        """
        self.folder = folder
        self._manifest = read_manifest(folder)

    @property
    def offset(self) -> int:
        """Return the offset of the first record that is not in yet."""
        return self._manifest.offset

    @property
    def newest(self) -> float:
        """Return the largest receipt time of the log before `offset`."""
        return self._manifest.newest

    def write(self, stop: int, newest: float, rows: Rows) -> None:
        """Add the rows of records before `stop`, all of them or none.

        Raises:
            StorageError: The disk refused; nothing has changed.
        """
        before = self._manifest
        if stop <= before.offset:
            return
        try:
            added = [
                self._write_file(table, day, list(part))
                for table in TABLES
                for day, part in itertools.groupby(_fresh(rows.get(table, ()), before.offset), _day_of)
            ]
            files = self._merge_small([*before.files, *added], {(file.table, file.day) for file in added})
            manifest = Manifest(FORMAT, stop, newest, tuple(files))
            self._save(manifest)
            self._manifest = manifest
            for file in {*before.files, *added}.difference(files):
                (self.folder / file.path).unlink(missing_ok=True)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"warehouse {self.folder}: cannot be written: {error}") from error

    def read(self, table: str) -> Iterator[Any]:
        """Yield the rows of a table in the order of the log.

        Raises:
            ValueError: There is no such table.
            StorageError: A file cannot be read.
        """
        if table not in TABLES:
            raise ValueError(f"table {table!r} is unknown; the warehouse has {', '.join(TABLES)}")
        return self._read(table, self.paths(table))

    def count(self, profiles: Collection[str], offsets: Collection[int]) -> int:
        """Return how many rows name one of `profiles`, or are of one of the records at `offsets`.

        Raises:
            StorageError: A file cannot be read.
        """
        names, places = _array([*profiles], pa.string()), _array([*offsets], pa.int64())
        total = 0
        for table, people in PEOPLE.items():
            for batch in itertools.chain.from_iterable(map(_batches, self.paths(table))):
                is_theirs = pc.is_in(batch["offset"], places)
                for column in people:
                    is_theirs = pc.or_(is_theirs, pc.is_in(batch[column], names))
                total += is_theirs.true_count
        return total

    def sizes(self) -> dict[str, TableSize]:
        """Return how much each table holds."""
        return {
            table: _size([file for file in self._manifest.files if file.table == table]) for table in TABLES
        }

    @property
    def files(self) -> list[File]:
        """Return every file that counts, in the order of what they hold."""
        return sorted(self._manifest.files, key=lambda file: file.first)

    def paths(self, table: str) -> list[Path]:
        """Return the files of a table, in the order of the log."""
        return [self.folder / file.path for file in self.files if file.table == table]

    def clean(self) -> None:
        """Delete what a crash left that the manifest does not name; only where nobody writes.

        Raises:
            StorageError: The disk refused.
        """
        named = {self.folder / file.path for file in self._manifest.files} | {self.folder / MANIFEST}
        try:
            for path in list(self.folder.rglob("*")):
                if path.is_file() and path not in named:
                    path.unlink()
        except OSError as error:
            raise StorageError(f"warehouse {self.folder}: cannot be cleaned: {error}") from error

    # --- files --------------------------------------------------------------------------------------

    def _write_file(self, table: str, day: str, rows: Sequence[Row]) -> File:
        first, last = rows[0], rows[-1]
        file = File(table, day, first.offset, last.offset, first.known_at, len(rows), 0)
        return self._put(file, [arrow_table(table, rows)])

    def _put(self, file: File, parts: Iterable[pa.Table]) -> File:
        """Write a file whole, and return it with its size."""
        path = self.folder / file.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(".tmp")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _FILE_MODE)
        with os.fdopen(descriptor, "wb") as stream:
            with pq.ParquetWriter(stream, SCHEMAS[file.table], compression="zstd") as writer:
                for part in parts:
                    writer.write_table(part)
            stream.flush()
            os.fsync(stream.fileno())
            size = stream.tell()
        fresh.replace(path)
        _sync_folder(path.parent)
        return msgspec.structs.replace(file, bytes=size)

    def _merge_small(self, files: list[File], touched: Collection[tuple[str, str]]) -> list[File]:
        """Return the files with those of a day that are small made one, where they are many."""
        for table, day in sorted(touched):
            of_day = (file for file in files if (file.table, file.day) == (table, day))
            small = [file for file in of_day if file.rows < ROWS_SMALL_MAX]
            if len(small) >= FILES_SMALL_MAX:
                try:
                    files = [*(file for file in files if file not in small), self._merge(small)]
                except StorageError as error:
                    # What cannot be read any more must not keep anything new from being written.
                    logger.error("files were not merged: %s", error)  # noqa: TRY400
        return files

    def _merge(self, small: Sequence[File]) -> File:
        first, last = small[0], small[-1]
        rows = sum(file.rows for file in small)
        merged = msgspec.structs.replace(first, last=last.last, rows=rows)
        return self._put(merged, _grouped(self.folder / file.path for file in small))

    def _save(self, manifest: Manifest) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self.folder / f"{MANIFEST}.tmp"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _FILE_MODE)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.encode(manifest))
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(self.folder / MANIFEST)
        _sync_folder(self.folder)

    def _read(self, table: str, paths: Sequence[Path]) -> Iterator[Any]:
        kind = TABLES[table]
        for batch in itertools.chain.from_iterable(map(_batches, paths)):
            for values in batch.to_pylist():
                if "payload" in values:
                    values["payload"] = values["payload"].encode()
                if "choices" in values:
                    values["choices"] = [LoggedChoice(**choice) for choice in values["choices"]]
                yield kind(**values)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a warehouse's folder, an empty one where there is none.

    Raises:
        CorruptLogError: It cannot be read, or a file that it names is missing or cut short.
        StorageError: The disk refused.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return Manifest()
    except OSError as error:
        raise StorageError(f"warehouse {folder}: cannot be read: {error}") from error
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise CorruptLogError(f"warehouse {folder / MANIFEST}: is broken: {error}") from error
    if manifest.format != FORMAT:
        raise CorruptLogError(f"warehouse {folder}: is of format {manifest.format}, not {FORMAT}")
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file() or path.stat().st_size != file.bytes:
            raise CorruptLogError(f"warehouse {path}: is missing or cut short")
    return manifest


def discard(folder: Path) -> None:
    """Delete a warehouse.

    Raises:
        StorageError: The disk refused.
    """
    try:
        # The manifest first: without it nothing else counts, however far the rest comes.
        (folder / MANIFEST).unlink(missing_ok=True)
        if folder.is_dir():
            shutil.rmtree(folder)
    except OSError as error:
        raise StorageError(f"warehouse {folder}: cannot be deleted: {error}") from error


# --- rows and columns -----------------------------------------------------------------------------------

_CHOICE = pa.struct(
    [("id", pa.string()), ("propensity", pa.float64()), ("score", pa.float64()), ("why", pa.string())]
)
_TYPES: Final[dict[Any, pa.DataType]] = {
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    str: pa.string(),
    str | None: pa.string(),
    bytes: pa.string(),  # JSON, so that queries can look into it.
    list[str]: pa.list_(pa.string()),
    list[float]: pa.list_(pa.float64()),
    list[LoggedChoice]: pa.list_(_CHOICE),
}


def _schema(row: type[Row]) -> pa.Schema:
    """Return the Arrow schema of a row's fields."""
    fields = msgspec.structs.fields(row)
    return pa.schema([pa.field(field.name, _TYPES[field.type]) for field in fields])


SCHEMAS: Final[dict[str, pa.Schema]] = {table: _schema(row) for table, row in TABLES.items()}
"""The Arrow schema of each table."""


def arrow_table(table: str, rows: Sequence[Row]) -> pa.Table:
    """Return rows as an Arrow table.

    In slices, for each call into Arrow keeps the interpreter's lock: the event loop waits for a slice.
    """
    schema = SCHEMAS[table]
    slices = (rows[start : start + _SLICE_ROWS] for start in range(0, len(rows), _SLICE_ROWS))
    return pa.concat_tables([_table(part, schema) for part in slices])


def _table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
    arrays = [_array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as Arrow.

    From buffers: `pa.array` imports pandas, which takes 45 MiB of the server's memory.
    """
    if pa.types.is_string(kind):
        return _texts(values)
    if pa.types.is_list(kind):
        ends = _array([0, *itertools.accumulate(map(len, values))], pa.int32())
        flat = [value for inner in values for value in inner]
        return pa.ListArray.from_arrays(ends, _array(flat, kind.value_type))
    if pa.types.is_struct(kind):
        columns = [_array([getattr(value, field.name) for value in values], field.type) for field in kind]
        return pa.StructArray.from_arrays(columns, fields=list(kind))
    numbers = (
        np.packbits(np.asarray(values, bool), bitorder="little")
        if pa.types.is_boolean(kind)
        else np.asarray(values, kind.to_pandas_dtype())
    )
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(numbers)])


def _texts(values: Sequence[str | bytes | None]) -> pa.Array:
    """Return texts as Arrow: all are str, or all are UTF-8, but for those that are None."""
    has_gaps = None in values
    whole: Sequence[Any] = [value or "" for value in values] if has_gaps else values
    if whole and isinstance(whole[0], bytes):
        joined = b"".join(whole)
    else:
        joined = "".join(whole).encode()
        if len(joined) != sum(map(len, whole)):
            whole = [value.encode() for value in whole]
    ends = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, whole), np.int32, len(values)), out=ends[1:])
    known = np.packbits([value is not None for value in values], bitorder="little") if has_gaps else None
    validity = None if known is None else pa.py_buffer(known)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(ends), pa.py_buffer(joined), validity)


def _fresh(rows: Iterable[Row], offset: int) -> Iterator[Row]:
    return (row for row in rows if row.offset >= offset)


def _day_of(row: Row) -> str:
    return str(np.datetime64(int(row.known_at // _DAY_SECONDS), "D"))


def _size(files: Sequence[File]) -> TableSize:
    days = sorted(file.day for file in files)
    rows, size = sum(file.rows for file in files), sum(file.bytes for file in files)
    return TableSize(rows, len(files), size, days[0] if days else None, days[-1] if days else None)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with _parquet(path, lambda: pq.ParquetFile(path)) as file:
        batches = file.iter_batches(_READ_ROWS)
        while (batch := _parquet(path, lambda: next(batches, None))) is not None:
            yield batch


def _whole(path: Path) -> pa.Table:
    with _parquet(path, lambda: pq.ParquetFile(path)) as file:
        return _parquet(path, file.read)


def _grouped(paths: Iterable[Path]) -> Iterator[pa.Table]:
    """Yield what files hold, in parts of some `_MERGED_BYTES` and `ROWS_SMALL_MAX` rows."""
    waiting: list[pa.Table] = []
    for path in paths:
        waiting.append(_whole(path))
        if sum(part.nbytes for part in waiting) >= _MERGED_BYTES or sum(map(len, waiting)) >= ROWS_SMALL_MAX:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _parquet(path: Path, read: Callable[[], Any]) -> Any:  # noqa: ANN401 (what pyarrow gives has no types)
    """Return what `read` reads of a file.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        return read()
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"warehouse {path}: cannot be read: {error}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
