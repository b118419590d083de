"""The port of the log: an append-only sequence of records, each at a fixed offset.

Offsets count records from 0 and never change: erasing a record leaves a gap, so that whatever names
an offset (a checkpoint, a decision's id) goes on naming the same record.

`append` is memory only. `flush` hands what was appended to the operating system in one write, so that
it survives the death of the process. `durable` waits until it survives the death of the machine.
Records reach the disk in order: when a record is durable, so is every earlier one.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol


class Record(NamedTuple):
    """One entry of the log."""

    offset: int
    kind: int
    payload: bytes


class Entry(NamedTuple):
    """What a record says, without its place."""

    kind: int
    payload: bytes


NOTHING: Final[Mapping[int, Entry]] = MappingProxyType({})
"""No record is to be replaced."""


class LogHealth(NamedTuple):
    """What the log knows about itself."""

    start: int
    end: int
    records_corrupt: int
    bytes_quarantined: int
    bytes_torn: int


class Log(Protocol):
    """An append-only sequence of records."""

    @property
    def end(self) -> int:
        """Return the offset that the next record gets."""

    def append(self, kind: int, payload: bytes) -> int:
        """Return the offset of a new record of `kind` (0 to 255).

        Raises:
            OverloadedError: More than `PENDING_BYTES_MAX` bytes wait for the disk.
            StorageError: The last write failed and the disk still refuses.
        """

    def flush(self) -> None:
        """Hand everything appended to the operating system.

        Raises:
            StorageError: The disk refused. What could not be written is forgotten (its offsets are
                given out again), and no earlier record is harmed.
        """

    async def durable(self) -> None:
        """Return when everything appended before this call survives a power cut.

        Raises:
            StorageError: The disk refused.
        """

    def when_durable(self, future: "asyncio.Future[None]") -> None:
        """Settle `future` of the running loop as `durable` would return: None, or a StorageError.

        Raises:
            StorageError: The disk refused before; the future stays as it is.
        """

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Yield the records with `start <= offset < stop`, in order, without gaps and corrupt ones."""

    def get(self, offset: int) -> Record | None:
        """Return the record at `offset`, or None where none is."""

    def rewrite(self, is_kept: Callable[[Record], bool], instead: Mapping[int, Entry] = NOTHING) -> int:
        """Remove for good every record that `is_kept` refuses; return how many went.

        A record whose offset is in `instead` stays with that kind and payload in place of its own;
        `is_kept` has no say in it. Such records must be there: one that is not is not made.

        The bytes are gone from every file when this returns, with whatever was quarantined as corrupt.
        """

    def health(self) -> LogHealth:
        """Return what the log knows about itself."""

    def close(self) -> None:
        """Make everything durable and let go of the files."""
