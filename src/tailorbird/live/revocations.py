"""Revoked links: pairs of identifiers that the fold never joins, whatever events say.

A revocation holds for the whole log. The fold reads the log from its start with all of them known, so what it
gives is, to the byte, what it would give had no event ever named the two together: profiles, counters,
arms and readouts are those of two people. That is why revoking a link folds the log again, and why a
fold from the start looks for revocations before it begins.

Each pair that the state has heard of has one of three standings:

    FOLDED   the state was folded with the link revoked
    NOTED    revoked, but the state was folded without knowing: it has to be folded again
    LIFTED   not revoked any more, but the state was folded as if it were: likewise
"""

from collections.abc import Iterable, Iterator

import msgspec

from tailorbird.live.table import Table
from tailorbird.schema.records import KINDS, LinkRevoked, decode
from tailorbird.stores.log import Log

Pair = tuple[str, str]

FOLDED, NOTED, LIFTED = 1, 2, 3
_KIND = KINDS[LinkRevoked]


def pair_of(one: str, other: str) -> Pair:
    """Return two identifiers (`type:value`) in the one order in which pairs are kept."""
    return (one, other) if one < other else (other, one)


def not_apart(names: list[str], apart: frozenset[Pair]) -> list[str]:
    """Return the identifiers of one event less those that are apart from one before them.

    So an event that names two whose link is revoked counts as naming the first of them alone.
    """
    if not apart:
        return names
    kept: list[str] = []
    for name in names:
        if not any(pair_of(name, before) in apart for before in kept):
            kept.append(name)
    return kept


class Revocations:
    """The standing of each pair, over one table of the state."""

    def __init__(self, table: Table[int]) -> None:
        self._table = table
        self._standing: dict[Pair, int] = {}
        for key, standing in table.scan():
            self._standing[msgspec.json.decode(key, type=Pair)] = standing
        self.folded: frozenset[Pair] = frozenset()
        """The pairs that this fold keeps apart."""
        self._list()

    @property
    def is_stale(self) -> bool:
        """Return whether the state has to be folded again to be right."""
        return any(standing != FOLDED for standing in self._standing.values())

    def keep_apart(self, pairs: Iterable[Pair]) -> None:
        """Fold with these pairs revoked; said before the first record."""
        for pair in sorted(pairs):
            self._set(pair, FOLDED)
        self._list()

    def is_revoked(self, one: str, other: str) -> bool:
        """Return whether a link between two identifiers is revoked, as of the last record."""
        return self._standing.get(pair_of(one, other)) in (FOLDED, NOTED)

    def pairs(self) -> list[Pair]:
        """Return the pairs whose link is revoked, as of the last record."""
        return [pair for pair in self._standing if self.is_revoked(*pair)]

    def fold(self, record: LinkRevoked) -> None:
        """Take note of a record."""
        pair = pair_of(*record.identifiers)
        before = self._standing.get(pair)
        if record.is_lifted:
            if before == FOLDED:
                self._set(pair, LIFTED)
            elif before == NOTED:
                self._set(pair, None)
        elif before == LIFTED:
            self._set(pair, FOLDED)
        elif before is None:
            self._set(pair, NOTED)

    def _set(self, pair: Pair, standing: int | None) -> None:
        key = msgspec.json.encode(pair).decode()  # An identifier may hold any character.
        if standing is None:
            del self._standing[pair]
            self._table.delete(key)
        else:
            self._standing[pair] = standing
            self._table.put(key, standing)

    def _list(self) -> None:
        self.folded = frozenset(pair for pair, standing in self._standing.items() if standing != NOTED)


def revoked_in(log: Log, stop: int | None = None) -> set[Pair]:
    """Return the pairs that are revoked at the end of the log, or at `stop`."""
    revoked: set[Pair] = set()
    for record in _revocations(log, stop):
        pair = pair_of(*record.identifiers)
        if record.is_lifted:
            revoked.discard(pair)
        else:
            revoked.add(pair)
    return revoked


def _revocations(log: Log, stop: int | None) -> Iterator[LinkRevoked]:
    for record in log.read(0, stop):
        if record.kind == _KIND:
            found = decode(record.kind, record.payload)
            assert isinstance(found, LinkRevoked), "its kind says so"
            yield found
