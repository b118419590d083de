"""The vocabulary: a small number for every event name and category that was ever counted.

A packed profile names events and categories by these codes, not by text: a code takes four bytes and is
compared in one step. `code % KINDS` is the kind, the rest counts up in the order of the log, so that folding
it again gives the same codes.

Anybody with the public write key can make up names, so there is an end to them: once `VOCABULARY_MAX` of a
kind are known, each further one is counted as `OTHER`.
"""

from collections.abc import Callable, Iterable

from tailorbird.limits import VOCABULARY_MAX

EVENT, CATEGORY = 0, 1
KINDS = 4
"""Kinds that a code can have; two are free."""

OTHER = "(other)"

_PREFIXES = ("e:", "c:")


class Vocabulary:
    """Codes by name, and names by code."""

    def __init__(self, on_new: Callable[[str, int], None]) -> None:
        """Begin an empty vocabulary; `on_new` is told each new name, its kind before it, and its code."""
        self._on_new = on_new
        self._codes: tuple[dict[str, int], ...] = ({}, {})
        self._names: tuple[list[str], ...] = ([], [])

    def load(self, entries: Iterable[tuple[str, int]]) -> None:
        """Take in what is known already, in any order."""
        for key, code in sorted(entries, key=lambda entry: entry[1]):
            learned = self._learn(code % KINDS, key[2:])
            assert learned == code, "codes of a kind are given out one after the other"

    def event(self, name: str) -> int:
        """Return the code of an event, a new one where it was never counted."""
        code = self._codes[EVENT].get(name)
        return self._add(EVENT, name) if code is None else code

    def category(self, name: str) -> int:
        """Return the code of a category, a new one where it was never counted."""
        code = self._codes[CATEGORY].get(name)
        return self._add(CATEGORY, name) if code is None else code

    def find(self, kind: int, name: str) -> int:
        """Return the code of a name, -1 where it was never counted."""
        return self._codes[kind].get(name, -1)

    def name(self, code: int) -> str:
        """Return the name that has a code."""
        return self._names[code % KINDS][code // KINDS]

    def _add(self, kind: int, name: str) -> int:
        if len(self._names[kind]) >= VOCABULARY_MAX - 1 and name != OTHER:
            known = self._codes[kind].get(OTHER)
            return self._add(kind, OTHER) if known is None else known
        code = self._learn(kind, name)
        self._on_new(_PREFIXES[kind] + name, code)
        return code

    def _learn(self, kind: int, name: str) -> int:
        code = KINDS * len(self._names[kind]) + kind
        self._names[kind].append(name)
        self._codes[kind][name] = code
        return code
