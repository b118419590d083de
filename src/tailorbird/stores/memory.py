"""Every port in memory: for tests, examples and trials. Nothing outlives the process."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from tailorbird.stores.frame import check, hash_rows
from tailorbird.stores.log import NOTHING, Entry, LogHealth, Record
from tailorbird.stores.state import Change, Expiry
from tailorbird.stores.warehouse import PEOPLE, TABLES, Rows, TableSize


class MemoryLog:
    """A log in a dict. Implements `tailorbird.stores.log.Log`.

    >>> log = MemoryLog()
    >>> log.append(1, b"seen")
    0
    >>> log.get(0)
    Record(offset=0, kind=1, payload=b'seen')
    """

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._end = 0

    @property
    def end(self) -> int:
        """Return the offset that the next record gets."""
        return self._end

    def append(self, kind: int, payload: bytes) -> int:
        """Return the offset of a new record.

        Raises:
            InvalidInputError: No frame can hold it; the same bounds as on disk.
        """
        check(kind, payload)
        offset = self._end
        self._records[offset] = Record(offset, kind, payload)
        self._end = offset + 1
        return offset

    def flush(self) -> None:
        """Do nothing: memory has no disk behind it."""

    async def durable(self) -> None:
        """Return at once: memory is as durable as it gets."""

    def when_durable(self, future: "asyncio.Future[None]") -> None:
        """Settle `future` at once."""
        future.set_result(None)

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Yield the records with `start <= offset < stop` that are there now."""
        stop = self._end if stop is None else min(stop, self._end)
        found = (self._records.get(offset) for offset in range(max(start, 0), stop))
        return (record for record in found if record is not None)

    def get(self, offset: int) -> Record | None:
        """Return the record at `offset`, or None where none is."""
        return self._records.get(offset)

    def rewrite(self, is_kept: Callable[[Record], bool], instead: Mapping[int, Entry] = NOTHING) -> int:
        """Remove what `is_kept` refuses, replace what `instead` names; return how many went."""
        for offset in instead.keys() & self._records.keys():
            self._records[offset] = Record(offset, *instead[offset])
        refused = [r.offset for r in self.read() if r.offset not in instead and not is_kept(r)]
        for offset in refused:
            del self._records[offset]
        return len(refused)

    def health(self) -> LogHealth:
        """Return where the log starts and ends; memory knows no corruption."""
        start = next(iter(self._records), self._end)
        return LogHealth(start, self._end, records_corrupt=0, bytes_quarantined=0, bytes_torn=0)

    def close(self) -> None:
        """Do nothing: there are no files."""


class MemoryState:
    """Tables in dicts. Implements `tailorbird.stores.state.StateStore`.

    A commit builds new dicts and puts them in place with one assignment, so that a reader in
    another thread sees the state before or after it, never a part of it.
    """

    def __init__(self, tables: Sequence[str]) -> None:
        self._tables: dict[str, dict[str, bytes]] = {table: {} for table in tables}
        self._offset = 0

    @property
    def offset(self) -> int:
        """Return the offset of the first record that is not folded in yet."""
        return self._offset

    def get(self, table: str, key: str) -> bytes | None:
        """Return the value of `key`, or None.

        Raises:
            ValueError: There is no such table.
        """
        return self._rows(table).get(key)

    def scan(self, table: str, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield the keys that begin with `prefix`, with their values, in key order."""
        rows = self._rows(table)
        return ((key, rows[key]) for key in sorted(rows) if key.startswith(prefix))

    def keys(self, table: str, after: str, count_max: int) -> list[str]:
        """Return the next keys of `table` behind `after`, in key order, at most `count_max`."""
        return sorted(key for key in self._rows(table) if key > after)[:count_max]

    def count(self, table: str) -> int:
        """Return how many keys `table` has."""
        return len(self._rows(table))

    def commit(self, offset: int, changes: Sequence[Change], expiries: Sequence[Expiry] = ()) -> None:
        """Apply all changes, then all expiries, and move the offset.

        Raises:
            ValueError: A table is unknown; nothing was changed.
        """
        tables = dict(self._tables)
        for name in {change.table for change in changes} | {expiry.table for expiry in expiries}:
            tables[name] = dict(self._rows(name))
        for table, key, value in changes:
            if value is None:
                tables[table].pop(key, None)
            else:
                tables[table][key] = value
        for table, before in expiries:
            tables[table] = {key: value for key, value in tables[table].items() if key >= before}
        self._tables, self._offset = tables, offset

    def digest(self) -> str:
        """Return a hash over every table, key and value, the same as on disk."""
        tables = sorted(self._tables.items())
        return hash_rows((table, key, rows[key]) for table, rows in tables for key in sorted(rows))

    def close(self) -> None:
        """Do nothing: there are no files."""

    def _rows(self, table: str) -> dict[str, bytes]:
        if table not in self._tables:
            known = ", ".join(sorted(self._tables))
            raise ValueError(f"table {table!r} is unknown; this store has {known}")
        return self._tables[table]


class MemoryWarehouse:
    """Rows in lists. Implements `tailorbird.stores.warehouse.Warehouse`."""

    def __init__(self) -> None:
        self._rows: Rows = {table: [] for table in TABLES}
        self._offset = 0
        self._newest = 0.0

    @property
    def offset(self) -> int:
        """Return the offset of the first record that is not in yet."""
        return self._offset

    @property
    def newest(self) -> float:
        """Return the largest receipt time of the log before `offset`."""
        return self._newest

    def write(self, stop: int, newest: float, rows: Rows) -> None:
        """Add the rows of records from `offset` up to before `stop`."""
        if stop <= self._offset:
            return
        for table, mine in self._rows.items():
            mine += [row for row in rows.get(table, ()) if row.offset >= self._offset]
        self._offset, self._newest = stop, newest

    def read(self, table: str) -> Iterator[Any]:
        """Yield the rows of a table in the order of the log.

        Raises:
            ValueError: There is no such table.
        """
        if table not in TABLES:
            raise ValueError(f"table {table!r} is unknown; the warehouse has {', '.join(TABLES)}")
        return iter(list(self._rows[table]))

    def count(self, profiles: Collection[str], offsets: Collection[int]) -> int:
        """Return how many rows name one of `profiles`, or are of one of the records at `offsets`."""
        return sum(
            row.offset in offsets or any(getattr(row, name) in profiles for name in PEOPLE[table])
            for table, rows in self._rows.items()
            for row in rows
        )

    def sizes(self) -> dict[str, TableSize]:
        """Return how much each table holds; memory has no files and no days."""
        return {table: TableSize(len(rows), 0, 0, None, None) for table, rows in self._rows.items()}
