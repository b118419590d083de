"""Cells that follow the surroundings of events: the same again and again in a visit, so worked out once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailorbird.features.base import Keep
from tailorbird.features.state import KEEP_LAST
from tailorbird.features.surroundings import signature
from tailorbird.schema.events import Event

Encoded = tuple[NDArray[np.int32], NDArray[np.float64]]
"""Keys of cells, and what is kept in each."""

_KNOWN_MAX = 4_096
"""Signatures whose encoding is remembered, some 4 MiB; then all are forgotten."""


class SurroundingCells:
    """Encodes the surroundings of events."""

    def __init__(self, keeps: tuple[Keep, ...]) -> None:
        assert all(made.mode == KEEP_LAST for made in keeps), "of surroundings the latest count"
        self.keeps = keeps
        self._known: dict[tuple[Any, ...], Encoded] = {}

    def encoded(self, event: Event, t: float) -> Encoded:
        """Return what an event puts into cells, not to be changed."""
        if event.context is None or not self.keeps:
            return _NOTHING
        told = signature(event.context)
        try:
            known = self._known.get(told)
        except TypeError:  # Clients may send anything as a part of a campaign.
            return self._encode(event, t)
        if known is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            known = self._known[told] = self._encode(event, t)
        return known

    def _encode(self, event: Event, t: float) -> Encoded:
        encoded = [(made.key, made.encode(event, t)) for made in self.keeps]
        said = [(key, value) for key, value in encoded if value is not None]
        return np.array([key for key, _ in said], np.int32), np.array([value for _, value in said])


_NOTHING: Encoded = (np.zeros(0, np.int32), np.zeros(0))
