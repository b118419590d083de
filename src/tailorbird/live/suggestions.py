"""Suggested links: pairs of identifiers that may be one person's, and wait for somebody to say so.

They come from links that were declared with too little confidence, from fingerprints that two people share,
and from a batch comparison of people. Nothing acts on them before they are accepted; what was rejected is
remembered, so that it is not suggested again.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from tailorbird.clock import format_time
from tailorbird.limits import SUGGESTIONS_MAX
from tailorbird.live.revocations import Pair, pair_of
from tailorbird.live.table import Table


class Suggestion(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why two identifiers may be one person's."""

    source: str
    """Who says so: a file's name for itself, `fingerprint`, `splink`."""
    score: float
    """From 0 to 1: how likely it is, in the opinion of its source."""
    t: float
    """When it was last said; epoch seconds."""
    is_rejected: bool = False


class Suggestions:
    """All suggestions, over one table of the state."""

    def __init__(self, table: Table[Suggestion]) -> None:
        self._table = table
        self._count = sum(1 for _ in table.scan())

    def get(self, one: str, other: str) -> Suggestion | None:
        """Return what is suggested of two identifiers, None where nothing is."""
        return self._table.get(_key(one, other))

    def suggest(self, pair: Pair, suggestion: Suggestion) -> bool:
        """Note a suggestion, unless the same was rejected; return False where there is no room."""
        before = self.get(*pair)
        if before is not None and (before.is_rejected or before.score > suggestion.score):
            return True
        if before is None and self._count >= SUGGESTIONS_MAX:
            return False
        self._count += before is None
        self._table.put(_key(*pair), suggestion)
        return True

    def reject(self, pair: Pair, t: float) -> None:
        """Remember that two identifiers are two people's."""
        before = self.get(*pair)
        self._count += before is None
        known = before or Suggestion("operator", 0.0, t)
        self._table.put(_key(*pair), msgspec.structs.replace(known, is_rejected=True))

    def settle(self, one: str, other: str) -> None:
        """Forget a suggestion that was accepted."""
        if self.get(one, other) is not None:
            self._count -= 1
            self._table.delete(_key(one, other))

    def scan(self) -> Iterator[tuple[Pair, Suggestion]]:
        """Yield every pair with what is suggested of it."""
        for key, suggestion in self._table.scan():
            yield msgspec.json.decode(key, type=Pair), suggestion


def suggestion_view(suggestion: Suggestion) -> dict[str, Any]:
    """Return a suggestion as doors and exports give it."""
    return {
        "source": suggestion.source,
        "score": suggestion.score,
        "suggestedAt": format_time(suggestion.t),
        "rejected": suggestion.is_rejected,
    }


def _key(one: str, other: str) -> str:
    # As JSON, because an identifier may hold any character.
    return msgspec.json.encode(pair_of(one, other)).decode()
