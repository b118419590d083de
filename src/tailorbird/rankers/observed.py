"""What the rankers learn from one event on one item, in one compiled step.

Popularity: `weight` at time `t`, decayed with a half-life of seven days. Covisitation: `1 / distance` from
each of the visitor's items before it.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tailorbird.rankers.covisitation import Covisitation
from tailorbird.rankers.popularity import HALF_LIFE_SECONDS, Popularity


def observe_item(
    popularity: Popularity,
    covisitation: Covisitation,
    event: tuple[int, float, float],
    before: NDArray[np.int32],
) -> None:
    """Count an event.

    Args:
        popularity: Counts to add to.
        covisitation: Rules to add to.
        event: Item index, time in epoch seconds, weight.
        before: Indices of the visitor's items before it, newest first, distinct, without the item.
    """
    _count(
        popularity.weights,
        popularity.last,
        popularity.totals,
        popularity.is_changed,
        covisitation.followers,
        covisitation.weights,
        before,
        *event,
    )


@njit(
    "void(f8[::1], f8[::1], f8[::1], b1[::1], i4[:,::1], f4[:,::1], i4[::1], i8, f8, f8)",
    cache=True,
    nogil=True,
)
def _count(popular, last, totals, is_changed, followers, weights, before, item, t, amount):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0913
    is_changed[item] = True
    totals[0] += 1.0
    totals[1] = max(totals[1], t)
    newest = max(t, last[item])
    popular[item] = popular[item] * 2.0 ** (-(newest - last[item]) / HALF_LIFE_SECONDS) + amount * 2.0 ** (
        -(newest - t) / HALF_LIFE_SECONDS
    )
    last[item] = newest
    for position in range(len(before)):
        row = before[position]
        is_changed[row] = True
        share = 1.0 / (position + 1)
        weakest = 0
        for slot in range(followers.shape[1]):
            if followers[row, slot] == item:
                weights[row, slot] += share
                weakest = -1
                break
            if followers[row, slot] == -1:
                followers[row, slot] = item
                weights[row, slot] = share
                weakest = -1
                break
            if weights[row, slot] < weights[row, weakest]:
                weakest = slot
        if weakest >= 0:
            followers[row, weakest] = item
            weights[row, weakest] = share
