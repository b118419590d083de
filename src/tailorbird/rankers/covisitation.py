"""Covisitation: what followed what, as sequential rules.

Each event on an item counts `1 / distance` from each of the visitor's last ten distinct items to it
(Ludewig and Jannach 2018, "Evaluation of session-based recommendation algorithms", sequential rules).
Simple, learned at once, and stronger than many neural models; `rankers.observed` counts. Of each item
the strongest `COVISITS_PER_ITEM_MAX` followers are kept; a new one takes the place of the weakest.
"""

import numpy as np
from numpy.typing import NDArray

from tailorbird.limits import COVISITS_PER_ITEM_MAX

STEPS_BACK = 10
_FIRST_CAPACITY = 1024


class Covisitation:
    """Followers of each item and their weights, by item index: shape (items, 64), index -1 is empty."""

    def __init__(self) -> None:
        self.followers: NDArray[np.int32] = np.full((_FIRST_CAPACITY, COVISITS_PER_ITEM_MAX), -1, np.int32)
        self.weights: NDArray[np.float32] = np.zeros((_FIRST_CAPACITY, COVISITS_PER_ITEM_MAX), np.float32)

    def reserve(self, size: int) -> None:
        """Make room for `size` items."""
        if size > len(self.followers):
            grown = max(2 * len(self.followers), size)
            more = grown - len(self.followers)
            self.followers = np.pad(self.followers, ((0, more), (0, 0)), constant_values=-1)
            self.weights = np.pad(self.weights, ((0, more), (0, 0)))
