"""The vocabulary: a small number for every event name and category that was ever counted.

A packed profile names events and categories by these codes, not by text: a code takes four bytes and is
compared in one step. `code % KINDS` is the kind, the rest counts up in the order of the log, so that folding
it again gives the same codes.

Anybody with the public write key can make up names, so there is an end to them: once `VOCABULARY_MAX` of a
kind are known, each further one is counted as `OTHER`. Names that an operator declares (goals, categories of
the catalogue) and those of `STANDARD_EVENTS` have their places beyond that end.

To features a name is its stem: what differs in case and punctuation alone has the same one.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Sequence

from tailorbird.limits import VOCABULARY_MAX

EVENT, CATEGORY, SERIES, FACET = 0, 1, 2, 3
KINDS = 4
"""Kinds that a code can have: an event's name, a category, what definitions of features count or keep
beside those, and a value of a facet such as `brand:Nike`."""

OTHER = "(other)"

STANDARD_EVENTS = (
    "Product Viewed",
    "Product Added",
    "Product Removed",
    "Product Clicked",
    "Product List Viewed",
    "Products Searched",
    "Cart Viewed",
    "Checkout Started",
    "Order Completed",
    "Order Refunded",
    "Page Viewed",
    "Screen Viewed",
    "Identified",
    "Decision Viewed",
    "Promotion Viewed",
    "Promotion Clicked",
    "Article Viewed",
    "Video Playback Started",
    "Signed Up",
    "Email Opened",
)
"""Events of Segment's ecommerce, page and media specifications: the vector has slots for each of them."""

_PREFIXES = ("e:", "c:", "s:", "f:")
_STEM_PREFIXES = ("", "category_", "series_", "")
_GAPS = re.compile(r"[\W_]+")


def slug(name: str) -> str:
    """Return a name in lower case with `_` for all that is no letter or digit; never empty.

    >>> slug("Product Viewed"), slug("Товар просмотрен"), slug("!")
    ('product_viewed', 'товар_просмотрен', 'name_9e6bffd3')
    """
    return _GAPS.sub("_", name.lower()).strip("_") or f"name_{zlib.crc32(name.encode()):08x}"


class Vocabulary:
    """Codes by name, and names by code."""

    def __init__(self, on_new: Callable[[str, int], None]) -> None:
        """Begin an empty vocabulary; `on_new` is told each new name, its kind before it, and its code."""
        self._on_new = on_new
        self._codes: tuple[dict[str, int], ...] = tuple({} for _ in range(KINDS))
        self._names: tuple[list[str], ...] = tuple([] for _ in range(KINDS))
        self._stems: tuple[list[str], ...] = tuple([] for _ in range(KINDS))
        self._by_stem: dict[str, list[int]] = {}

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

    def facet(self, name: str) -> int:
        """Return the code of a facet's value (`brand:Nike`), a new one where it was never counted."""
        code = self._codes[FACET].get(name)
        return self._add(FACET, name) if code is None else code

    def size(self, kind: int) -> int:
        """Return how many names of a kind are known."""
        return len(self._names[kind])

    def reserve(self, kind: int, name: str) -> int:
        """Give a name that an operator declares a code, whatever events have made up; return it."""
        code = self._codes[kind].get(name)
        return self._learn_new(kind, name) if code is None else code

    def find(self, kind: int, name: str) -> int:
        """Return the code of a name, -1 where it was never counted."""
        return self._codes[kind].get(name, -1)

    def name(self, code: int) -> str:
        """Return the name that has a code."""
        return self._names[code % KINDS][code // KINDS]

    def stem(self, code: int) -> str:
        """Return what features call the name that has a code: `product_viewed`, `category_shoes`."""
        return self._stems[code % KINDS][code // KINDS]

    def with_stem(self, stem: str) -> Sequence[int]:
        """Return the codes of all names that features call `stem`."""
        return self._by_stem.get(stem, ())

    def _add(self, kind: int, name: str) -> int:
        is_full = len(self._names[kind]) >= VOCABULARY_MAX - 1
        if is_full and name != OTHER and not (kind == EVENT and name in _STANDARD):
            known = self._codes[kind].get(OTHER)
            return self._add(kind, OTHER) if known is None else known
        return self._learn_new(kind, name)

    def _learn_new(self, kind: int, name: str) -> int:
        code = self._learn(kind, name)
        self._on_new(_PREFIXES[kind] + name, code)
        return code

    def _learn(self, kind: int, name: str) -> int:
        code = KINDS * len(self._names[kind]) + kind
        stem = _STEM_PREFIXES[kind] + slug(name)
        self._names[kind].append(name)
        self._stems[kind].append(stem)
        self._codes[kind][name] = code
        self._by_stem.setdefault(stem, []).append(code)
        return code


_STANDARD = frozenset(STANDARD_EVENTS)
