"""What people did, as sorted arrays: the outcomes after a cut of time and the past before it.

All answers are exact and vectorised: one binary search over (person, time) a question. A person is an
index, times are epoch seconds, and an interval is open at its start and closed at its end, so that what
happens at the cut itself belongs to the past.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tailorbird.errors import Fault, InvalidInputError

Side = Literal["left", "right"]
Floats = NDArray[np.float64]
People = NDArray[np.int64]


class Occurrences:
    """Each time that somebody did what a definition asks about, with its value.

    >>> seen = Occurrences(np.array([0, 0, 1]), np.array([10.0, 20.0, 15.0]), np.array([1.0, 2.0, 4.0]))
    >>> seen.counts(np.array([0, 1]), np.array([5.0, 15.0]), np.array([20.0, 99.0]))
    array([2, 0])
    """

    def __init__(self, people: People, times: Floats, values: Floats) -> None:
        """Take shape (m,) each, in any order.

        Raises:
            InvalidInputError: There are none, the shapes differ, a time or value is not finite, or a
                person is below 0.
        """
        if not (people.size and people.shape == times.shape == values.shape):
            raise InvalidInputError(
                Fault(
                    "occurrences", "people, times and values must be as many, and at least one", people.shape
                )
            )
        if not (np.isfinite(times).all() and np.isfinite(values).all() and (people >= 0).all()):
            raise InvalidInputError(Fault("occurrences", "must be finite, with people from 0"))
        order = np.lexsort((times, people))
        self.people = people[order]
        self.times = times[order]
        self.values = values[order]
        self._moments = np.unique(times)
        self._keys = self._key(self.people, self.times, "left")

    def counts(self, people: People, start: Floats, stop: Floats) -> NDArray[np.int64]:
        """Return how often each of `people` did it in (start, stop], shape (n,)."""
        return self._until(people, stop) - self._until(people, start)

    def sums(self, people: People, start: Floats, stop: Floats) -> Floats:
        """Return the sum of values of each of `people` in (start, stop], shape (n,).

        Each is added up by itself: as a difference of running totals it would move with what others did.
        """
        bounds = np.stack([self._until(people, start), self._until(people, stop)], axis=1)
        padded = np.append(self.values, 0.0)
        totals = np.add.reduceat(padded, bounds.ravel())[::2] if len(bounds) else np.zeros(0)
        return np.where(bounds[:, 1] > bounds[:, 0], totals, 0.0)

    def since_last(self, people: People, at: Floats) -> Floats:
        """Return seconds since the last time at or before `at`, shape (n,); infinite for never."""
        return self._since(people, at, self._until(people, at) - 1)

    def since_first(self, people: People, at: Floats) -> Floats:
        """Return seconds since the first time at or before `at`, shape (n,); infinite for never."""
        return self._since(people, at, np.searchsorted(self.people, people))

    def _since(self, people: People, at: Floats, places: NDArray[np.int64]) -> Floats:
        is_theirs = self.counts(people, np.full_like(at, -np.inf), at) > 0
        return np.where(is_theirs, at - self.times[np.where(is_theirs, places, 0)], np.inf)

    def _until(self, people: People, at: Floats) -> NDArray[np.int64]:
        """Return how many occurrences are of people before, or of the same one by `at`."""
        return np.searchsorted(self._keys, self._key(people, at, "right"))

    def _key(self, people: People, times: Floats, side: Side) -> NDArray[np.int64]:
        """Return whole numbers that order by person, then by the rank of the time."""
        return people * (len(self._moments) + 1) + np.searchsorted(self._moments, times, side)
