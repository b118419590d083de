"""The state in one SQLite file: a table of keyed bytes for each name, and the offset in `meta`.

    "<table>"(key TEXT PRIMARY KEY, value BLOB)
    meta(key TEXT PRIMARY KEY, value INTEGER)      one row: 'offset'

The file is derived: what it loses is folded again from the log. Hence `synchronous=NORMAL` on a
write-ahead log: a power cut may take the last commits, never a part of one, and no commit waits for
the disk.

A commit changes hundreds of rows with one statement. The `sqlite3` module lets go of the
interpreter's lock and takes it back at every step; row by row, a worker thread beside a busy event
loop would wait for its turn, up to 5 ms, at every row.

Deleted values are overwritten with zeros (`secure_delete`), for they may be a person's.
"""

# ruff: noqa: S608  Tables' names come from our code and are checked; values are always bound.

import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from tailorbird.errors import CorruptLogError, StorageError
from tailorbird.stores.frame import hash_rows
from tailorbird.stores.state import Change, Expiry

CACHE_BYTES: Final = 16 * 1024 * 1024
ROWS_PER_STATEMENT: Final = 200  # Past some hundred, a step's fixed cost no longer shows.
FILE_MODE: Final = 0o600  # Profiles are personal data: nobody but their owner reads them.

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_META: Final = "meta"
_RESERVED_PREFIX: Final = "sqlite_"
_PRIMARY_CODE: Final = 0xFF  # The low byte of SQLite's extended error codes.
_UNREADABLE: Final = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class SqliteState:
    """Tables in an SQLite file. Implements `tailorbird.stores.state.StateStore`.

    `get`, `scan` and `count` may run in one thread while `commit` runs in another. A scan reads one
    state from beginning to end over its own connection, whatever is committed meanwhile; while it
    lasts the write-ahead log only grows, so do not leave one half done.
    """

    def __init__(self, path: Path, tables: Sequence[str], *, cache_bytes: int = CACHE_BYTES) -> None:
        """Open the state in `path`, which is made with its folder if need be.

        Args:
            path: The database file; SQLite keeps `-wal` and `-shm` beside it.
            tables: Names: small letters, digits, underscores, up to 63; no `meta`, no `sqlite_…`.
            cache_bytes: Pages kept in memory, half for reading and half for writing.

        Raises:
            ValueError: A table's name breaks the rule or is given twice.
            CorruptLogError: The file is no database or is damaged.
            StorageError: The disk refused.
        """
        self._path = path
        self._tables = _checked(tables)
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(FILE_MODE)
        except OSError as error:
            raise StorageError(f"state {path}: cannot be opened: {error}") from error
        with self._translated():
            self._writer = self._connect(cache_bytes // 2)
            try:
                self._offset = self._prepare()
                self._reader = self._connect(cache_bytes // 2)
            except BaseException:
                self._writer.close()
                raise

    @property
    def offset(self) -> int:
        """Return the offset of the first record that is not folded in yet."""
        return self._offset

    def get(self, table: str, key: str) -> bytes | None:
        """Return the value of `key`, or None.

        Raises:
            ValueError: There is no such table.
            CorruptLogError: The file is damaged.
            StorageError: The disk refused.
        """
        query = self._query(table)
        try:
            with self._reading:
                row = self._reader.execute(query, (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._translate(error) from error
        return None if row is None else row[0]

    def scan(self, table: str, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield the keys that begin with `prefix`, with their values, in key order.

        Raises:
            ValueError, CorruptLogError, StorageError: As `get`.
        """
        self._query(table)
        return self._scan(table, prefix)

    def keys(self, table: str, after: str, count_max: int) -> list[str]:
        """Return the next keys of `table` behind `after`, in key order, at most `count_max`.

        Raises:
            ValueError, CorruptLogError, StorageError: As `get`.
        """
        self._query(table)
        query = f'SELECT key FROM "{table}" WHERE key > ? ORDER BY key LIMIT ?'
        with self._translated(), self._reading:
            return [key for (key,) in self._reader.execute(query, (after, count_max)).fetchall()]

    def count(self, table: str) -> int:
        """Return how many keys `table` has. Walks the table's index: about 10 ms a million keys.

        Raises:
            ValueError, CorruptLogError, StorageError: As `get`.
        """
        self._query(table)
        with self._translated(), self._reading:
            count: int = self._reader.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]
        return count

    def commit(self, offset: int, changes: Sequence[Change], expiries: Sequence[Expiry] = ()) -> None:
        """Apply all changes, then all expiries, and move the offset, in one transaction.

        The last of several changes to one key wins.

        Raises:
            ValueError: A table is unknown; nothing was changed.
            CorruptLogError: The file is damaged; nothing was changed.
            StorageError: The disk refused; nothing was changed.
        """
        values = self._last_values(changes)
        for expiry in expiries:
            self._query(expiry.table)
        with (
            self._translated(),
            self._writing,
            self._writer,
        ):  # The connection commits or rolls back.
            self._writer.execute("BEGIN IMMEDIATE")
            for table, rows in values.items():
                self._upsert(table, [row for row in rows.items() if row[1] is not None])
                self._delete(table, [key for key, value in rows.items() if value is None])
            for table, before in expiries:
                self._writer.execute(f'DELETE FROM "{table}" WHERE key < ?', (before,))
            self._writer.execute("UPDATE meta SET value = ? WHERE key = 'offset'", (offset,))
        self._offset = offset

    def digest(self) -> str:
        """Return a hash over every table, key and value, of one state from beginning to end.

        Raises:
            CorruptLogError, StorageError: As `get`.
        """
        with self._translated(), closing(self._connect()) as connection:
            connection.execute("BEGIN")
            return hash_rows(
                (table, key, value)
                for table in sorted(self._tables)
                for key, value in connection.execute(_scan_query(table), ("",))
            )

    def close(self) -> None:
        """Let go of the files. A second call does nothing."""
        with self._reading:
            self._reader.close()
        with self._translated(), self._writing:
            self._writer.close()

    def _scan(self, table: str, prefix: str) -> Iterator[tuple[str, bytes]]:
        with self._translated(), closing(self._connect()) as connection:
            for key, value in connection.execute(_scan_query(table), (prefix,)):
                if not key.startswith(prefix):
                    return
                yield key, value

    def _last_values(self, changes: Sequence[Change]) -> dict[str, dict[str, bytes | None]]:
        """Return the value that each changed key ends with, by table."""
        values: dict[str, dict[str, bytes | None]] = {}
        for table, key, value in changes:
            if table not in values:
                self._query(table)
                values[table] = {}
            values[table][key] = value
        return values

    def _upsert(self, table: str, rows: list[tuple[str, bytes | None]]) -> None:
        for start in range(0, len(rows), ROWS_PER_STATEMENT):
            batch = rows[start : start + ROWS_PER_STATEMENT]
            marks = ",".join(["(?,?)"] * len(batch))
            self._writer.execute(
                f'INSERT INTO "{table}"(key, value) VALUES {marks} '
                "ON CONFLICT(key) DO UPDATE SET value = excluded.value",
                [part for row in batch for part in row],
            )

    def _delete(self, table: str, keys: list[str]) -> None:
        for start in range(0, len(keys), ROWS_PER_STATEMENT):
            batch = keys[start : start + ROWS_PER_STATEMENT]
            marks = ",".join("?" * len(batch))
            self._writer.execute(f'DELETE FROM "{table}" WHERE key IN ({marks})', batch)

    def _connect(self, cache_bytes: int = 1024 * 1024) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA cache_size = -{max(cache_bytes // 1024, 1)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self) -> int:
        """Set up the writing connection, make what tables are missing; return the offset."""
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = NORMAL")
        self._writer.execute("PRAGMA secure_delete = ON")
        with self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            for table in self._tables:
                self._writer.execute(
                    f'CREATE TABLE IF NOT EXISTS "{table}"'
                    "(key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL)"
                )
            self._writer.execute(
                "CREATE TABLE IF NOT EXISTS meta(key TEXT NOT NULL PRIMARY KEY, value INTEGER)"
            )
            self._writer.execute("INSERT OR IGNORE INTO meta VALUES ('offset', 0)")
        query = "SELECT value FROM meta WHERE key = 'offset'"
        offset: int = self._writer.execute(query).fetchone()[0]
        return offset

    def _query(self, table: str) -> str:
        """Return the query that gets a value of `table`, which so is known to exist."""
        query = self._tables.get(table)
        if query is None:
            known = ", ".join(sorted(self._tables))
            raise ValueError(f"table {table!r} is unknown; this store has {known}")
        return query

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._translate(error) from error

    def _translate(self, error: sqlite3.DatabaseError) -> Exception:
        """Return what `error` means to a caller; `error` itself when it is our mistake."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return error
        if code & _PRIMARY_CODE in _UNREADABLE:
            return CorruptLogError(
                f"state {self._path}: damaged or no state file ({error}); delete it with its -wal "
                "and -shm and start again: it is rebuilt from the log"
            )
        return StorageError(f"state {self._path}: the disk refused ({error})")


def _checked(tables: Sequence[str]) -> dict[str, str]:
    """Return the query that gets a value, by table."""
    for table in tables:
        if not _NAME.fullmatch(table) or table == _META or table.startswith(_RESERVED_PREFIX):
            raise ValueError(
                f"table {table!r}: a name is small letters, digits and underscores, at most 63, "
                f"begins with a letter, and is neither {_META!r} nor begins with "
                f"{_RESERVED_PREFIX!r}"
            )
    if len(set(tables)) < len(tables):
        raise ValueError(f"tables {list(tables)!r}: a name is given twice")
    return {table: f'SELECT value FROM "{table}" WHERE key = ?' for table in tables}


def _scan_query(table: str) -> str:
    # Text is compared by the bytes of its UTF-8, which is the order of Python's code points too.
    return f'SELECT key, value FROM "{table}" WHERE key >= ? ORDER BY key'
