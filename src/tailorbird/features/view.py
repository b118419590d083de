"""What every profile counts whatever is declared, by name: events and categories that it met, and scalars.

Names, for an event "Product Viewed": `product_viewed_count` (all time), `product_viewed_7d` (in the
window, exact to a tile), `product_viewed_decayed_7d` (half-life 7 d). Categories likewise:
`category_shoes_7d`, and values of facets: `brand_nike_7d`. Short names for the commonest events: `views_7d`,
`carts_7d`, `orders_7d`, `pages_7d`, `searches_7d`. Then the scalars of `SCALARS`. What an installation
declares, and the vector that models read, is in `program`.
"""

import functools
import re

import numpy as np
from numpy.typing import NDArray

from tailorbird.features.counters import COLUMNS, read
from tailorbird.features.scalars import SCALARS
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
from tailorbird.features.vocabulary import KINDS, SERIES, Vocabulary, slug

ALIASES = {
    "views": "Product Viewed",
    "carts": "Product Added",
    "orders": "Order Completed",
    "pages": "Page Viewed",
    "searches": "Products Searched",
}

_NAME = re.compile(r"^(?P<stem>.+?)_(?P<column>count|(?:decayed_)?(?:1h|1d|7d|30d)|90d)$")


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
    total = 0.0
    for code in vocabulary.with_stem(_STEMS_BY_ALIAS.get(stem, stem)):
        position = find_counter(state, code)
        if position >= 0:
            total += read_counter(state, position, column, at)
    return total


def is_counted_name(name: str) -> bool:
    """Return whether a name has the form of what is counted by name: `anything_7d`, or a scalar."""
    return _parsed(name) is not None


def common_features(state: State, vocabulary: Vocabulary, at: float) -> dict[str, float]:
    """Return the features that have short names, seen or not: `views_7d` is 0.0 for a newcomer."""
    counts = _by_stem(state, vocabulary, at)
    named: dict[str, float] = {}
    for alias, stem in _STEMS_BY_ALIAS.items():
        values = counts.get(stem, _NEVER)
        named |= {f"{alias}_{column}": value for column, value in zip(COLUMNS, values, strict=True)}
    return named


def features(state: State, vocabulary: Vocabulary, at: float) -> dict[str, float]:
    """Return every feature of the profile by name, as of `at`."""
    named = dict(zip(SCALARS, scalars(state, at), strict=True))
    for stem, values in _by_stem(state, vocabulary, at).items():
        named |= {f"{stem}_{column}": value for column, value in zip(COLUMNS, values, strict=True)}
    return named


def _table(state: State, at: float) -> NDArray[np.float32]:
    """Return shape (counters, 10): the columns of every counter as of `at`."""
    last, rows = counter_rows(state)
    return read(rows, last, at)


def _by_stem(state: State, vocabulary: Vocabulary, at: float) -> dict[str, list[float]]:
    """Return the columns of every counter by stem; those of names with the same one are added up."""
    found: dict[str, list[float]] = {}
    for code, values in zip(counted(state).tolist(), _table(state, at).tolist(), strict=True):
        if code % KINDS == SERIES:
            continue
        stem = vocabulary.stem(code)
        others = found.get(stem)
        found[stem] = values if others is None else [a + b for a, b in zip(others, values, strict=True)]
    return found


@functools.lru_cache(maxsize=4096)
def _parsed(name: str) -> tuple[str, int] | None:
    """Return a feature's stem and column, (name, -1) for a scalar, None for no feature."""
    if name in SCALARS:
        return name, -1
    match = _NAME.match(name)
    return None if match is None else (match["stem"], COLUMNS.index(match["column"]))


_STEMS_BY_ALIAS = {alias: slug(event) for alias, event in ALIASES.items()}
_NEVER = [0.0] * len(COLUMNS)
