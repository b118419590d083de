"""The skew meter: what decisions were made with, against what history says they should have been.

A sample of decisions logs the variables that it read. Each is read again from history at its place, and
compared variable by variable, bit for bit. Any difference is a fault: training would see what was never
served.
"""

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.records import KINDS, decode
from tailorbird.train.dataset import Past, Row

_DECISION = KINDS[LoggedDecision]


class VariableSkew(msgspec.Struct, frozen=True, rename="camel"):
    """How often a variable differed, and by how much at most."""

    name: str
    differed: int
    largest: float | None
    """Largest absolute difference; None where one of the two was missing."""


class SkewReport(msgspec.Struct, frozen=True, rename="camel"):
    """What was compared, and what differed."""

    compared: int
    """Decisions whose variables were read again."""
    values: int
    """Values compared."""
    skewed: list[VariableSkew]
    """Variables that differed in any decision, those first that differed most often."""
    other_layout: int
    """Decisions that were made with other definitions: not compared."""
    outrun: int
    """Decisions that were made while a record of the same person was being written: not compared."""


class SkewMeter:
    """Compares decisions with history as its rows come."""

    def __init__(self, past: Past, names: tuple[str, ...], version: str) -> None:
        """Measure against `past`, whose variables are `names` in the layout `version`."""
        self._past = past
        self._names = names
        self._version = version
        self._differed = np.zeros(len(names), np.int64)
        self._largest = np.zeros(len(names))
        self._compared = self._other_layout = self._outrun = 0

    def take(self, rows: Iterable[Row]) -> None:
        """Go over rows of history, comparing each decision that logged its variables."""
        for row in rows:
            if row["what"] == "label":
                continue
            if row["what"] == "decision":
                decision = decode(_DECISION, row["payload"].encode())
                if isinstance(decision, LoggedDecision) and decision.values:
                    self._compare(row["profile"], decision)
            self._past.take(row)

    def report(self) -> SkewReport:
        """Return what was found so far."""
        order = np.argsort(-self._differed, kind="stable")
        skewed = [
            VariableSkew(self._names[slot], int(self._differed[slot]), _told(self._largest[slot]))
            for slot in order.tolist()
            if self._differed[slot]
        ]
        values = self._compared * len(self._names)
        return SkewReport(self._compared, values, skewed, self._other_layout, self._outrun)

    def _compare(self, profile: str, decision: LoggedDecision) -> None:
        if decision.vector.split(":")[0] != self._version:
            self._other_layout += 1
            return
        person = self._past.person(profile)
        if (-1 if person is None else person.version) != decision.profile_version:
            self._outrun += 1
            return
        served: NDArray[np.float32] = np.frombuffer(decision.values, np.float32)
        again = self._past.vector(profile, decision.t, decision.context)
        is_other = (served != again) & ~(np.isnan(served) & np.isnan(again))
        self._compared += 1
        self._differed += is_other
        with np.errstate(invalid="ignore"):
            apart = np.where(is_other, np.abs(served.astype(np.float64) - again), 0.0)
        self._largest = np.maximum(self._largest, apart)


def _told(largest: float) -> float | None:
    return None if np.isnan(largest) else float(largest)
