"""Features by name, and as the fixed vector that models read.

Names, for an event "Product Viewed": `product_viewed_count` (all time), `product_viewed_7d` (in the
window, exact to a tile), `product_viewed_decayed_7d` (half-life 7 d); windows 1h, 1d, 7d, 30d. Categories
likewise: `category_shoes_7d`. Short names for the commonest events: `views_7d`, `carts_7d`, `orders_7d`,
`pages_7d`, `searches_7d`. Then the scalars of `SCALARS`.

The vector's layout is fixed by `LAYOUT_VERSION`: a block of nine slots for each event of `VOCABULARY`, for
each of the hashed buckets of other events and of categories, then the scalars.
"""

import functools
import re
import zlib

import numpy as np
from numpy.typing import NDArray

from tailorbird.features.counters import COLUMNS, read
from tailorbird.features.state import (
    FIRST_SEEN,
    LAST_SEEN,
    ORDERS,
    SESSION_DEPTH,
    SESSION_GAP_SECONDS,
    SESSION_STARTED,
    SESSIONS,
    VALUE,
    State,
    counted,
    counter_rows,
    find_counter,
    read_counter,
)
from tailorbird.features.vocabulary import CATEGORY, EVENT, KINDS, Vocabulary

LAYOUT_VERSION = 1
VOCABULARY = (
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
"""Events with slots of their own: Segment's ecommerce, page and media specifications."""

OTHER_EVENT_BUCKETS = 8
CATEGORY_BUCKETS = 16
SCALARS = (
    "sessions",
    "session_depth",
    "session_seconds",
    "recency_seconds",
    "tenure_seconds",
    "value",
    "orders",
    "value_per_order",
)
ALIASES = {
    "views": "Product Viewed",
    "carts": "Product Added",
    "orders": "Order Completed",
    "pages": "Page Viewed",
    "searches": "Products Searched",
}

_BLOCK = len(COLUMNS)
_BLOCKS = len(VOCABULARY) + OTHER_EVENT_BUCKETS + CATEGORY_BUCKETS
VECTOR_SIZE = _BLOCKS * _BLOCK + len(SCALARS)
_VOCABULARY_INDEX = {name: index for index, name in enumerate(VOCABULARY)}
_NAME = re.compile(r"^(?P<stem>.+?)_(?P<column>count|(?:decayed_)?(?:1h|1d|7d|30d))$")
_SLUG = re.compile(r"[^a-z0-9]+")


def slug(name: str) -> str:
    """Return a name in lower case with `_` for all else.

    >>> slug("Product Viewed")
    'product_viewed'
    """
    return _SLUG.sub("_", name.lower()).strip("_")


def session_at(state: State, t: float) -> int:
    """Return the number of the session that an event at `t` belongs to; the first one is 1.

    A page asks for its decision before its first event is in: both are of the same visit.
    """
    sessions = state.item(SESSIONS)
    return int(sessions) + (sessions == 0.0 or t - state.item(LAST_SEEN) > SESSION_GAP_SECONDS)


def scalars(state: State, at: float) -> tuple[float, ...]:
    """Return the values of `SCALARS` as of `at`; a session that has ended has depth 0."""
    last_seen, sessions = state.item(LAST_SEEN), state.item(SESSIONS)
    value, orders = state.item(VALUE), state.item(ORDERS)
    is_in_session = at - last_seen <= SESSION_GAP_SECONDS and sessions > 0.0
    return (
        sessions,
        state.item(SESSION_DEPTH) if is_in_session else 0.0,
        max(at - state.item(SESSION_STARTED), 0.0) if is_in_session else 0.0,
        max(at - last_seen, 0.0),
        max(at - state.item(FIRST_SEEN), 0.0),
        value,
        orders,
        value / orders if orders else 0.0,
    )


def feature(state: State, vocabulary: Vocabulary, name: str, at: float) -> float | None:
    """Return one feature by name as of `at`; 0.0 for what was never seen, None for no feature."""
    parsed = _parsed(name)
    if parsed is None:
        return None
    stem, column = parsed
    if column < 0:
        return scalars(state, at)[SCALARS.index(name)]
    position = _position_of(state, vocabulary, stem)
    return float(read_counter(state, position, column, at)) if position >= 0 else 0.0


def common_features(state: State, vocabulary: Vocabulary, at: float) -> dict[str, float]:
    """Return the features that have short names, seen or not: `views_7d` is 0.0 for a newcomer."""
    table = _table(state, at)
    named: dict[str, float] = {}
    for alias, event in ALIASES.items():
        position = find_counter(state, vocabulary.find(EVENT, event))
        values = table[position].tolist() if position >= 0 else [0.0] * len(COLUMNS)
        named |= {f"{alias}_{column}": value for column, value in zip(COLUMNS, values, strict=True)}
    return named


def features(state: State, vocabulary: Vocabulary, at: float) -> dict[str, float]:
    """Return every feature of the profile by name, as of `at`."""
    named = dict(zip(SCALARS, scalars(state, at), strict=True))
    for code, values in zip(counted(state).tolist(), _table(state, at).tolist(), strict=True):
        stem = _stem_of(code % KINDS, vocabulary.name(code))
        named |= {f"{stem}_{column}": value for column, value in zip(COLUMNS, values, strict=True)}
    return named


def vector(state: State, vocabulary: Vocabulary, at: float) -> NDArray[np.float32]:
    """Return the feature vector, shape (VECTOR_SIZE,), as of `at`; never missing, zero where never seen."""
    blocks = np.zeros((_BLOCKS, _BLOCK), np.float32)
    for code, row in zip(counted(state).tolist(), _table(state, at), strict=True):
        blocks[_block_of(code % KINDS, vocabulary.name(code))] += row
    return np.concatenate([blocks.ravel(), np.array(scalars(state, at), np.float32)])


def _table(state: State, at: float) -> NDArray[np.float32]:
    """Return shape (counters, 9): the columns of every counter as of `at`."""
    last, rows = counter_rows(state)
    return read(rows, last, at)


@functools.lru_cache(maxsize=65_536)
def _stem_of(kind: int, name: str) -> str:
    return f"category_{slug(name)}" if kind == CATEGORY else slug(name)


@functools.lru_cache(maxsize=4096)
def _parsed(name: str) -> tuple[str, int] | None:
    """Return a feature's stem and column, (name, -1) for a scalar, None for no feature."""
    if name in SCALARS:
        return name, -1
    match = _NAME.match(name)
    return None if match is None else (match["stem"], COLUMNS.index(match["column"]))


_EVENTS_BY_STEM = {slug(name): name for name in VOCABULARY} | ALIASES


def _position_of(state: State, vocabulary: Vocabulary, stem: str) -> int:
    """Return the position of the counter that `stem` names, -1 where there is none."""
    event = _EVENTS_BY_STEM.get(stem)
    if event is not None:
        return int(find_counter(state, vocabulary.find(EVENT, event)))
    for position, code in enumerate(counted(state).tolist()):
        if _stem_of(code % KINDS, vocabulary.name(code)) == stem:
            return position
    return -1


def _block_of(kind: int, name: str) -> int:
    if kind == CATEGORY:
        return len(VOCABULARY) + OTHER_EVENT_BUCKETS + zlib.crc32(name.encode()) % CATEGORY_BUCKETS
    known = _VOCABULARY_INDEX.get(name)
    return len(VOCABULARY) + zlib.crc32(name.encode()) % OTHER_EVENT_BUCKETS if known is None else known
