"""Cells that follow the surroundings of events: the same again and again in a visit, so worked out once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailorbird.features.base import Keep
from tailorbird.features.surroundings import signature
from tailorbird.schema.events import Event

Buffers = tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.float64], NDArray[np.float64]]
"""Keys, modes, values, stamps of cells that are to be written."""

_KNOWN_MAX = 4_096
"""Signatures whose encoding is remembered, some 4 MiB; then all are forgotten."""


def cell_buffers(size: int) -> Buffers:
    """Return buffers for so many cells."""
    return np.zeros(size, np.int32), np.zeros(size, np.int8), np.zeros(size), np.zeros(size)


class SurroundingCells:
    """Encodes the surroundings of events."""

    def __init__(self, keeps: tuple[Keep, ...]) -> None:
        self.keeps = keeps
        self._known: dict[tuple[Any, ...], tuple[NDArray[np.int32], NDArray[np.float64]]] = {}

    def write(self, event: Event, t: float, buffers: Buffers) -> int:
        """Write the cells of an event that has a context to the beginning of `buffers`; return how many."""
        if not self.keeps or event.context is None:
            return 0
        keys, values = self._encoded(event, t)
        size = len(keys)
        buffers[0][:size], buffers[2][:size] = keys, values
        buffers[1][:size] = self.keeps[0].mode
        buffers[3][:size] = t
        return size

    def _encoded(self, event: Event, t: float) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        assert event.context is not None, "asked for with a context only"
        told = signature(event.context, t)
        try:
            known = self._known.get(told)
        except TypeError:  # Clients may send anything as a zone or a campaign.
            return self._encode(event, t)
        if known is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            known = self._known[told] = self._encode(event, t)
        return known

    def _encode(self, event: Event, t: float) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        encoded = [(made.key, made.encode(event, t)) for made in self.keeps]
        said = [(key, value) for key, value in encoded if value is not None]
        return np.array([key for key, _ in said], np.int32), np.array(
            [value for _, value in said], np.float64
        )
