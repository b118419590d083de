"""What the rankers learn from one event on one item, in one compiled step.

Popularity: `weight` at time `t`, decayed with a half-life of seven days. Covisitation: `1 / distance` from
each of the visitor's items before it.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tailorbird.rankers.covisitation import Covisitation
from tailorbird.rankers.popularity import HALF_LIFE_SECONDS, Popularity


def observe(
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
    item, t, weight = event
    _observe(
        popularity.weights,
        popularity.last,
        covisitation.followers,
        covisitation.weights,
        before,
        item,
        t,
        weight,
    )
    popularity.counted(t)


@njit("void(f8[:], f8[:], i4[:,:], f4[:,:], i4[:], i8, f8, f8)", cache=True, nogil=True)
def _observe(popular, last, followers, weights, before, item, t, amount):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0913
    newest = max(t, last[item])
    popular[item] = popular[item] * 2.0 ** (-(newest - last[item]) / HALF_LIFE_SECONDS) + amount * 2.0 ** (
        -(newest - t) / HALF_LIFE_SECONDS
    )
    last[item] = newest
    for position in range(len(before)):
        row = before[position]
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
