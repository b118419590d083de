"""The port of the state: tables of keyed bytes, and the log offset up to which they were folded.

State is a fold of the log. A commit moves state and offset together or not at all, so a crash leaves
some earlier, whole state, and folding the log from its offset brings it up to date.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class Change(NamedTuple):
    """A key's new value, or None where the key goes."""

    table: str
    key: str
    value: bytes | None


class Expiry(NamedTuple):
    """Every key of `table` that sorts before `before` goes."""

    table: str
    before: str


class StateStore(Protocol):
    """Tables of keyed bytes with the log offset up to which they were folded.

    `get` and `scan` may be called while another thread is inside `commit`; they then see the state
    before or after it, never a part of it.
    """

    @property
    def offset(self) -> int:
        """Return the offset of the first record that is not folded in yet."""

    def get(self, table: str, key: str) -> bytes | None:
        """Return the value of `key`, or None."""

    def scan(self, table: str, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield the keys of `table` that begin with `prefix`, with their values, in key order."""

    def keys(self, table: str, after: str, count_max: int) -> list[str]:
        """Return the next keys of `table` behind `after`, in key order, at most `count_max`."""

    def count(self, table: str) -> int:
        """Return how many keys `table` has."""

    def commit(self, offset: int, changes: Sequence[Change], expiries: Sequence[Expiry] = ()) -> None:
        """Apply all changes, then all expiries, and move the offset, in one transaction.

        Raises:
            StorageError: The disk refused; nothing was changed.
        """

    def digest(self) -> str:
        """Return a hash over every table, key and value: equal for equal states, and only for them."""

    def close(self) -> None:
        """Let go of the files."""
