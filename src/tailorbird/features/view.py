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

from tailorbird.features.counters import COLUMNS, read, read_one
from tailorbird.schema.profile import Profile

LAYOUT_VERSION = 1
SESSION_GAP_SECONDS = 1800.0
"""A visitor away for so long begins a new session (the web analytics convention)."""

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


def session_at(profile: Profile, t: float) -> int:
    """Return the number of the session that an event at `t` belongs to; the first one is 1.

    A page asks for its decision before its first event is in: both are of the same visit.
    """
    is_new = profile.sessions == 0 or t - profile.last_seen > SESSION_GAP_SECONDS
    return profile.sessions + is_new


def scalars(profile: Profile, at: float) -> tuple[float, ...]:
    """Return the values of `SCALARS` as of `at`; a session that has ended has depth 0."""
    is_in_session = at - profile.last_seen <= SESSION_GAP_SECONDS and profile.sessions > 0
    return (
        float(profile.sessions),
        float(profile.session_depth if is_in_session else 0),
        max(at - profile.session_started, 0.0) if is_in_session else 0.0,
        max(at - profile.last_seen, 0.0),
        max(at - profile.first_seen, 0.0),
        profile.value,
        float(profile.orders),
        profile.value / profile.orders if profile.orders else 0.0,
    )


def feature(profile: Profile, name: str, at: float) -> float | None:
    """Return one feature by name as of `at`; 0.0 for what was never seen, None for no feature."""
    parsed = _parsed(name)
    if parsed is None:
        return None
    stem, column = parsed
    if column < 0:
        return scalars(profile, at)[SCALARS.index(name)]
    key = _key_of(profile, stem)
    row = None if key is None else profile.counters.keys.get(key)
    if row is None:
        return 0.0
    if column == 0:
        return profile.counters.rows.item(row, 0)
    return float(read_one(profile.counters, key or "", at)[column])


def common_features(profile: Profile, at: float) -> dict[str, float]:
    """Return the features that have short names, seen or not: `views_7d` is 0.0 for a newcomer."""
    return {
        f"{alias}_{column}": float(value)
        for alias, event in ALIASES.items()
        for column, value in zip(COLUMNS, read_one(profile.counters, f"e:{event}", at), strict=True)
    }


def features(profile: Profile, at: float) -> dict[str, float]:
    """Return every feature of the profile by name, as of `at`."""
    named = dict(zip(SCALARS, scalars(profile, at), strict=True))
    table = read(profile.counters, at)
    for key, row in profile.counters.keys.items():
        stem = _stem_of(key)
        named |= {f"{stem}_{column}": float(table[row, i]) for i, column in enumerate(COLUMNS)}
    return named


def vector(profile: Profile, at: float) -> NDArray[np.float32]:
    """Return the feature vector, shape (VECTOR_SIZE,), as of `at`; never missing, zero where never seen."""
    blocks = np.zeros((_BLOCKS, _BLOCK), np.float32)
    table = read(profile.counters, at)
    for key, row in profile.counters.keys.items():
        blocks[_block_of(key)] += table[row]
    return np.concatenate([blocks.ravel(), np.array(scalars(profile, at), np.float32)])


@functools.lru_cache(maxsize=65_536)
def _stem_of(key: str) -> str:
    return slug(key[2:]) if key.startswith("e:") else f"category_{slug(key[2:])}"


@functools.lru_cache(maxsize=4096)
def _parsed(name: str) -> tuple[str, int] | None:
    """Return a feature's stem and column, (name, -1) for a scalar, None for no feature."""
    if name in SCALARS:
        return name, -1
    match = _NAME.match(name)
    return None if match is None else (match["stem"], COLUMNS.index(match["column"]))


_KEYS_BY_STEM = {slug(name): f"e:{name}" for name in VOCABULARY} | {
    alias: f"e:{name}" for alias, name in ALIASES.items()
}


def _key_of(profile: Profile, stem: str) -> str | None:
    known = _KEYS_BY_STEM.get(stem)
    if known is not None:
        return known
    return next((key for key in profile.counters.keys if _stem_of(key) == stem), None)


def _block_of(key: str) -> int:
    name = key[2:]
    if key.startswith("e:"):
        known = _VOCABULARY_INDEX.get(name)
        if known is not None:
            return known
        return len(VOCABULARY) + zlib.crc32(name.encode()) % OTHER_EVENT_BUCKETS
    return len(VOCABULARY) + OTHER_EVENT_BUCKETS + zlib.crc32(name.encode()) % CATEGORY_BUCKETS
