"""The keeper: takes the rows of history that a fold tells of to the warehouse, in order, in bounded memory.

A checkpoint writes the rows first and commits the state after them, so the warehouse is never behind the
state; when rows pile up between two checkpoints they are written without one. After a crash the fold goes on
from the state's offset and tells some rows a second time: the warehouse knows them by their offset.

The event loop hands rows over (`hand_over`), a worker thread writes them (`write_until`).
"""

import logging
from collections import deque
from collections.abc import Collection
from pathlib import Path

from tailorbird.errors import CorruptLogError
from tailorbird.limits import HISTORY_BYTES, HISTORY_BYTES_MAX
from tailorbird.process.observer import UNOBSERVED, Chronicle, Observer
from tailorbird.stores.parquet import ParquetWarehouse, discard
from tailorbird.stores.warehouse import Rows, Warehouse

logger = logging.getLogger("tailorbird")


class Keeper:
    """Keeps the history of one fold in one warehouse; without one, it keeps nothing."""

    def __init__(self, warehouse: Warehouse | None) -> None:
        self.warehouse = warehouse
        self._chronicle = Chronicle(0.0 if warehouse is None else warehouse.newest)
        self._waiting: deque[tuple[int, float, int, Rows]] = deque()
        # Two counts, for two threads: one adds to what was handed over, the other to what was written.
        self._bytes_handed_over = 0
        self._bytes_written = 0
        self._is_closed = False

    @property
    def observer(self) -> Observer:
        """Return whom the fold is to tell."""
        return UNOBSERVED if self.warehouse is None else self._chronicle

    def is_behind(self, offset: int) -> bool:
        """Return whether rows of records before `offset` are missing, which no fold from there will tell."""
        return self.warehouse is not None and self.warehouse.offset < offset

    @property
    def is_due(self) -> bool:
        """Return whether enough rows have come together to be written without a checkpoint."""
        return self._chronicle.bytes > HISTORY_BYTES

    @property
    def is_full(self) -> bool:
        """Return whether more rows wait for the disk than there is memory for."""
        waiting = self._bytes_handed_over - self._bytes_written
        return self._chronicle.bytes + waiting > HISTORY_BYTES_MAX

    def hand_over(self, stop: int) -> None:
        """Set the rows of all records before `stop`, which is what was folded so far, aside for writing."""
        if self.warehouse is not None:
            size = self._chronicle.bytes
            self._waiting.append((stop, self._chronicle.newest, size, self._chronicle.take()))
            self._bytes_handed_over += size

    def write_until(self, stop: int) -> None:
        """Write what was handed over of records before `stop`, which must be durable; in the worker thread.

        Raises:
            StorageError: The disk refused; what was not written waits for the next try.
        """
        while self._waiting and self._waiting[0][0] <= stop and not self._is_closed:
            assert self.warehouse is not None, "without one nothing is handed over"
            until, newest, size, rows = self._waiting[0]
            self.warehouse.write(until, newest, rows)
            self._waiting.popleft()
            self._bytes_written += size

    def write_all(self, stop: int) -> None:
        """Write the rows of all records before `stop`, at once; where nobody waits.

        Raises:
            StorageError: As `write_until`.
        """
        self.hand_over(stop)
        self.write_until(stop)

    def count(self, profiles: Collection[str], offsets: Collection[int]) -> int:
        """Return how many rows the warehouse has of people or records: see `Warehouse.count`."""
        return 0 if self.warehouse is None else self.warehouse.count(profiles, offsets)

    def close(self) -> None:
        """Write nothing more: another keeper goes on in another folder."""
        self._is_closed = True


def open_keeper(folder: Path, state_offset: int, log_end: int) -> Keeper:
    """Return the keeper of the warehouse in `folder`, for a state at `state_offset`.

    A warehouse that is broken, of another fold than the state, or ahead of the log, is begun anew.
    """
    try:
        warehouse = ParquetWarehouse(folder)
    except CorruptLogError as error:
        logger.error("%s; it is made again from the log", error)  # noqa: TRY400
        discard(folder)
        return Keeper(ParquetWarehouse(folder))
    if state_offset == 0 or warehouse.offset > log_end:
        # A fold from the start may know of more revoked links; what is ahead of the log never was.
        discard(folder)
        return Keeper(ParquetWarehouse(folder))
    warehouse.clean()
    return Keeper(warehouse)
