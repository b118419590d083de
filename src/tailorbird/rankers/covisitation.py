"""Covisitation: what followed what, as sequential rules.

Each event on an item counts `1 / distance` from each of the visitor's last ten distinct items to it
(Ludewig and Jannach 2018, "Evaluation of session-based recommendation algorithms", sequential rules).
Simple, learned at once, and stronger than many neural models. Of each item the strongest
`COVISITS_PER_ITEM_MAX` followers are kept; a new one takes the place of the weakest.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tailorbird.limits import COVISITS_PER_ITEM_MAX

STEPS_BACK = 10
_FIRST_CAPACITY = 1024


class Covisitation:
    """Followers of each item and their weights, by item index: shape (items, 64), index -1 is empty."""

    def __init__(self) -> None:
        self.followers: NDArray[np.int32] = np.full(
            (_FIRST_CAPACITY, COVISITS_PER_ITEM_MAX), -1, np.int32
        )
        self.weights: NDArray[np.float32] = np.zeros(
            (_FIRST_CAPACITY, COVISITS_PER_ITEM_MAX), np.float32
        )
        self._scores: NDArray[np.float32] = np.zeros(_FIRST_CAPACITY, np.float32)

    def observe(self, before: NDArray[np.int32], item: int) -> None:
        """Count `item` after each of `before` (newest first, distinct, at most ten)."""
        self.reserve(max(item, int(before.max(initial=0))) + 1)
        _observe(self.followers, self.weights, before, item)

    def scores(self, before: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return (items, scores) of everything that follows any of `before` (newest first).

        The score of an item is the sum over `before` of `share of its followers' weight / position`.
        """
        self.reserve(int(before.max(initial=0)) + 1)
        touched = np.empty(len(before) * COVISITS_PER_ITEM_MAX, np.int32)
        found = _score(self.followers, self.weights, before, self._scores, touched)
        items = np.sort(touched[:found])
        scores = self._scores[items]
        self._scores[items] = 0.0
        return items, scores

    def origin(self, before: NDArray[np.int32], item: int) -> int:
        """Return the position in `before` of the item that `item` follows most strongly."""
        return int(_origin(self.followers, self.weights, before, item))

    def reserve(self, size: int) -> None:
        """Make room for `size` items."""
        if size > len(self.followers):
            grown = max(2 * len(self.followers), size)
            more = grown - len(self.followers)
            self.followers = np.pad(self.followers, ((0, more), (0, 0)), constant_values=-1)
            self.weights = np.pad(self.weights, ((0, more), (0, 0)))
            self._scores = np.zeros(grown, np.float32)


@njit("void(i4[:,:], f4[:,:], i4[:], i8)", cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _observe(followers, weights, before, item):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for position in range(len(before)):
        row = before[position]
        amount = 1.0 / (position + 1)
        weakest = 0
        for slot in range(followers.shape[1]):
            if followers[row, slot] == item:
                weights[row, slot] += amount
                weakest = -1
                break
            if followers[row, slot] == -1:
                followers[row, slot] = item
                weights[row, slot] = amount
                weakest = -1
                break
            if weights[row, slot] < weights[row, weakest]:
                weakest = slot
        if weakest >= 0:
            followers[row, weakest] = item
            weights[row, weakest] = amount


@njit("i8(i4[:,:], f4[:,:], i4[:], f4[:], i4[:])", cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _score(followers, weights, before, scores, touched):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    found = 0
    for position in range(len(before)):
        row = before[position]
        total = 0.0
        for slot in range(followers.shape[1]):
            total += weights[row, slot]
        if total <= 0.0:
            continue
        for slot in range(followers.shape[1]):
            item = followers[row, slot]
            if item == -1:
                break
            if scores[item] == 0.0:
                touched[found] = item
                found += 1
            scores[item] += weights[row, slot] / total / (position + 1)
    return found


@njit("i8(i4[:,:], f4[:,:], i4[:], i8)", cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _origin(followers, weights, before, item):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    best = 0
    strongest = -1.0
    for position in range(len(before)):
        row = before[position]
        total = 0.0
        mine = 0.0
        for slot in range(followers.shape[1]):
            total += weights[row, slot]
            if followers[row, slot] == item:
                mine = weights[row, slot]
        if total > 0.0 and mine / total / (position + 1) > strongest:
            strongest = mine / total / (position + 1)
            best = position
    return best
