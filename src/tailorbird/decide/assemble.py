"""Assembling lists: the best items of each strategy, with a share from outside the visitor's main interest.

Slots for items from outside the primary cluster are reserved, not drawn: while more slots than
outside items owed remain, a slot takes the best item of all, and the last ones take the best from
outside. So each strategy gives one list, and the probability that a slot shows an item is exactly the
sum of the probabilities of the strategies that put it there.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray


def assemble(
    scores: NDArray[np.float64],
    clusters: NDArray[np.int32],
    primary: int,
    outside_min: int,
    count: int,
) -> NDArray[np.int64]:
    """Return positions of the chosen items, shape (strategies, count), -1 where items ran out.

    Args:
        scores: Shape (strategies, items); on a tie the item that stands first goes first.
        clusters: Shape (items,): each item's cluster, -1 for none.
        primary: The visitor's primary cluster; -1 for none, which switches the share off.
        outside_min: Items owed from outside `primary`, as far as there are any.
        count: Slots.
    """
    lists = np.full((len(scores), count), -1, np.int64)
    _assemble(scores, clusters, primary, outside_min, lists)
    return lists


@njit("void(f8[:,:], i4[:], i8, i8, i8[:,:])", cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _assemble(scores, clusters, primary, outside_min, lists):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    strategies, items = scores.shape
    count = lists.shape[1]
    outside = 0
    for item in range(items):
        if clusters[item] != primary:
            outside += 1
    for strategy in range(strategies):
        taken = np.zeros(items, np.bool_)
        owed = min(outside_min, outside) if primary >= 0 else 0
        slots = min(count, items)
        for slot in range(slots):
            must_be_outside = owed >= slots - slot
            best = -1
            for item in range(items):
                if taken[item] or (must_be_outside and clusters[item] == primary):
                    continue
                if best < 0 or scores[strategy, item] > scores[strategy, best]:
                    best = item
            if best < 0:
                break
            taken[best] = True
            lists[strategy, slot] = best
            if primary >= 0 and clusters[best] != primary and owed > 0:
                owed -= 1
