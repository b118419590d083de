"""Popularity: how often items were wanted lately, decayed with a half-life of seven days.

Popularity of the last days beats far cleverer models on a global time split (see the sources in
docs/reference/rankers.md), so it is both a source of candidates and what the holdout gets.
"""

import numpy as np
from numpy.typing import NDArray

from tailorbird.limits import REFRESH_UPDATES

HALF_LIFE_SECONDS = 7 * 86400.0
_FIRST_CAPACITY = 1024


class Popularity:
    """Decayed counts by item index, with a ranking renewed every `REFRESH_UPDATES` counts.

    The renewal is counted in updates, not in time, so that folding the log again gives the same
    ranking at the same offset.
    """

    def __init__(self) -> None:
        self.weights: NDArray[np.float64] = np.zeros(_FIRST_CAPACITY)
        self.last: NDArray[np.float64] = np.zeros(_FIRST_CAPACITY)
        self.is_changed: NDArray[np.bool_] = np.zeros(_FIRST_CAPACITY, np.bool_)
        """Items whose counts changed, these or those of what followed them, since somebody last asked."""
        self.totals: NDArray[np.float64] = np.zeros(2)
        """Updates, and the time of the newest: kept where the kernel that counts can write them."""

    @property
    def updates(self) -> int:
        """Return how often anything was counted."""
        return int(self.totals.item(0))

    @property
    def newest(self) -> float:
        """Return the time of the newest count, epoch seconds."""
        return self.totals.item(1)

    @property
    def version(self) -> int:
        """Return the number of the present ranking."""
        return self.updates // REFRESH_UPDATES

    def scores(self, items: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the decayed counts of `items`, shape (len(items),), as of the newest count."""
        age = self.newest - self.last[items]
        decayed: NDArray[np.float64] = self.weights[items] * np.exp2(-age / HALF_LIFE_SECONDS)
        return decayed

    def reserve(self, size: int) -> None:
        """Make room for `size` items."""
        if size > len(self.weights):
            grown = max(2 * len(self.weights), size)
            self.weights = np.pad(self.weights, (0, grown - len(self.weights)))
            self.last = np.pad(self.last, (0, grown - len(self.last)))
            self.is_changed = np.pad(self.is_changed, (0, grown - len(self.is_changed)))
