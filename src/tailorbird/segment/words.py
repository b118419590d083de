"""A cluster in words: the variables that tell it from everybody else, what they say, and a short name.

A variable's effect is the difference of the means of z inside and outside the cluster, in standard
deviations. Only those speak that are large enough, whose raw means differ the same way (a few very large
values outside can turn those around, and the sentence would contradict itself), and one of each family:
`orders_7d` and `orders_30d` say one thing.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailorbird.schema.clusters import Difference
from tailorbird.segment.space import Doubles

DIFFERENCES_MAX = 5
EFFECT_MIN = 0.2  # Cohen (1988) calls 0.2 small.
AVERAGE = "like everybody else"

_COUNT = re.compile(r"_(?:count|(?:decayed_)?\d+[mhdw])$")
_AMOUNT = re.compile(r"_(?:sum|mean|max|total)(?:_(?:decayed_)?\d+[mhdw])?$")
_PHRASES = {
    "orders": ("buys often", "buys rarely"),
    "order_completed": ("buys often", "buys rarely"),
    "carts": ("fills carts", "rarely fills carts"),
    "product_added": ("fills carts", "rarely fills carts"),
    "views": ("looks at much", "looks at little"),
    "product_viewed": ("looks at much", "looks at little"),
    "pages": ("sees many pages", "sees few pages"),
    "searches": ("searches often", "searches rarely"),
    "products_searched": ("searches often", "searches rarely"),
    "order_refunded": ("returns often", "returns rarely"),
    "sessions": ("comes often", "comes rarely"),
    "recency_seconds": ("not seen for long", "seen lately"),
    "tenure_seconds": ("known for long", "new"),
    "value": ("spends much", "spends little"),
    "revenue": ("spends much", "spends little"),
    "price_added": ("puts much money into carts", "puts little money into carts"),
    "items_bought": ("buys many items", "buys few items"),
    "category_affinity_total": ("busy in the catalogue", "quiet in the catalogue"),
    "value_per_order": ("buys dear", "buys cheap"),
}
_CATEGORY = "category_"
_SECONDS = "_seconds"
_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


class Means(NamedTuple):
    """Means of variables inside clusters and outside of them, each of shape (clusters, variables)."""

    inside: Doubles
    outside: Doubles
    inside_z: Doubles
    outside_z: Doubles
    is_flag: NDArray[np.bool_]
    """Shape (variables,): only ever 0 or 1."""


def differences(means: Means, cluster: int, variables: Sequence[str]) -> tuple[Difference, ...]:
    """Return what tells a cluster from everybody else, the largest effect first."""
    effects = means.inside_z[cluster] - means.outside_z[cluster]
    raw = means.inside[cluster] - means.outside[cluster]
    speaks = (np.abs(effects) >= EFFECT_MIN) & (np.sign(effects) == np.sign(raw))
    found: dict[str, Difference] = {}
    for column in np.argsort(-np.abs(effects), kind="stable"):
        if not speaks[column]:
            continue
        found.setdefault(
            _stem(variables[column]),
            Difference(
                variable=variables[column],
                phrase=phrase(variables[column], effects[column] > 0, is_flag=bool(means.is_flag[column])),
                inside=float(means.inside[cluster, column]),
                outside=float(means.outside[cluster, column]),
                effect=float(effects[column]),
            ),
        )
        if len(found) == DIFFERENCES_MAX:
            break
    return tuple(found.values())


def phrase(variable: str, is_more: bool, *, is_flag: bool = False) -> str:  # noqa: FBT001
    """Return in words that there is more, or less, of a variable.

    >>> phrase("orders_90d", True), phrase("category_shoes_decayed_30d", False), phrase("score", True)
    ('buys often', 'not drawn to shoes', 'high score')
    """
    stem = _stem(variable)
    words = stem.replace("_", " ")
    if stem in _PHRASES:
        more, less = _PHRASES[stem]
    elif is_flag:
        more, less = f"mostly {words}", f"rarely {words}"
    elif stem.startswith(_CATEGORY):
        more, less = (f"{drawn} to {words.partition(' ')[2]}" for drawn in ("drawn", "not drawn"))
    elif _COUNT.search(variable):
        more, less = f"{words} often", f"{words} rarely"
    else:
        more, less = f"high {words}", f"low {words}"
    return more if is_more else less


def description(found: Sequence[Difference], flags: frozenset[str]) -> str:
    """Return the sentence about a cluster; `flags` are the variables that are only ever 0 or 1.

    >>> orders = Difference("orders_90d", "buys often", 6.2, 0.8, 1.9)
    >>> description([orders, Difference("recency_seconds", "seen lately", 90000.0, 5e6, -0.7)], frozenset())
    'Buys often: orders_90d 6.2 against 0.8; seen lately: recency 25.0 hours against 57.9 days.'
    """
    if not found:
        return _sentence(AVERAGE)
    return _sentence("; ".join(f"{each.phrase}: {_compared(each, each.variable in flags)}" for each in found))


def names(found: Sequence[Sequence[Difference]], kept: dict[int, str]) -> list[str]:
    """Return the name of each cluster: a kept one, or as many phrases as make it the only one of its name.

    Where phrases run out, a number follows.
    """
    taken = set(kept.values())
    named = []
    for index, each in enumerate(found):
        name = kept[index] if index in kept else next(n for n in _proposed(each) if n not in taken)
        taken.add(name)
        named.append(name)
    return named


def _proposed(found: Sequence[Difference]) -> Iterator[str]:
    phrases = [each.phrase for each in found] or [AVERAGE]
    for count in range(1, len(phrases) + 1):
        yield _capital(", ".join(phrases[:count]))
    number = 2
    while True:
        yield f"{_capital(phrases[0])} {number}"
        number += 1


def _stem(variable: str) -> str:
    """Return what a variable is about, without its window."""
    return _AMOUNT.sub("", _COUNT.sub("", variable)) or variable


def _compared(found: Difference, is_flag: bool) -> str:  # noqa: FBT001
    if is_flag:
        return f"{found.variable} {_percent(found.inside)} against {_percent(found.outside)}"
    if found.variable.endswith(_SECONDS):
        name = found.variable.removesuffix(_SECONDS).replace("_", " ")
        return f"{name} {_duration(found.inside)} against {_duration(found.outside)}"
    return f"{found.variable} {_number(found.inside)} against {_number(found.outside)}"


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f} %"


def _duration(seconds: float) -> str:
    size, unit = next((pair for pair in _UNITS if abs(seconds) >= 1.5 * pair[0]), _UNITS[-1])
    return f"{seconds / size:.1f} {unit}"


def _number(value: float) -> str:
    if abs(value) >= 100.0:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1.0 else f"{value:.2g}"


def _sentence(text: str) -> str:
    return f"{_capital(text)}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
