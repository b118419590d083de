"""Moments of what each unit (visitor) did, kept as sums while it goes on.

A readout needs means, variances and covariances over units, while a unit's totals grow with every
decision and outcome. When a unit moves from `before` to `after`, the sums lose what `before` had added
and gain what `after` adds, so they always equal one pass over all units, and sums of two disjoint
sets of units add up.
"""

from typing import Protocol

import msgspec


class Totals(Protocol):
    """Anything that carries a unit's totals, such as a profile's history at a placement."""

    decisions: int
    exposures: int
    outcomes: int
    outcomes_shown: int
    value: float


class UnitTotals(msgspec.Struct):
    """What one unit has seen and done at one placement."""

    decisions: int = 0
    exposures: int = 0
    outcomes: int = 0
    value: float = 0.0
    outcomes_shown: int = 0
    """Those of decisions that were exposed: what a rate of exposures is made of."""


class UnitMoments(msgspec.Struct):
    """Sums over units of their totals and of the products that variances need.

    Counts stay exact integers; values are doubles in the order of the log.
    """

    units: int = 0
    decisions: int = 0
    exposures: int = 0
    outcomes: int = 0
    outcomes_shown: int = 0
    value: float = 0.0
    decisions_squared: int = 0
    exposures_squared: int = 0
    outcomes_squared: int = 0
    outcomes_shown_squared: int = 0
    outcomes_by_decisions: int = 0
    outcomes_shown_by_exposures: int = 0
    value_squared: float = 0.0


def add_unit(moments: UnitMoments, unit: Totals, sign: int = 1) -> None:
    """Add a unit's totals to `moments`, or take them out with `sign` -1."""
    decisions, exposures, value = unit.decisions, unit.exposures, unit.value
    outcomes, shown = unit.outcomes, unit.outcomes_shown
    moments.units += sign
    moments.decisions += sign * decisions
    moments.exposures += sign * exposures
    moments.outcomes += sign * outcomes
    moments.outcomes_shown += sign * shown
    moments.value += sign * value
    moments.decisions_squared += sign * decisions * decisions
    moments.exposures_squared += sign * exposures * exposures
    moments.outcomes_squared += sign * outcomes * outcomes
    moments.outcomes_shown_squared += sign * shown * shown
    moments.outcomes_by_decisions += sign * outcomes * decisions
    moments.outcomes_shown_by_exposures += sign * shown * exposures
    moments.value_squared += sign * value * value


def count_decision(moments: UnitMoments, unit: Totals) -> None:
    """Count one more decision of `unit`, in the unit and in the moments that hold it."""
    moments.decisions += 1
    moments.decisions_squared += 2 * unit.decisions + 1
    moments.outcomes_by_decisions += unit.outcomes
    unit.decisions += 1


def count_exposure(moments: UnitMoments, unit: Totals, *, is_rewarded: bool) -> None:
    """Count one more exposure of `unit`, of a decision whose outcome may be counted already."""
    moments.exposures += 1
    moments.exposures_squared += 2 * unit.exposures + 1
    moments.outcomes_shown_by_exposures += unit.outcomes_shown
    unit.exposures += 1
    if is_rewarded:
        _count_shown(moments, unit)


def count_outcome(moments: UnitMoments, unit: Totals, value: float, *, is_shown: bool) -> None:
    """Count one more outcome of `unit`, worth `value`, of a decision that was exposed or was not yet."""
    moments.outcomes += 1
    moments.outcomes_squared += 2 * unit.outcomes + 1
    moments.outcomes_by_decisions += unit.decisions
    moments.value += value
    moments.value_squared += (unit.value + value) ** 2 - unit.value**2
    unit.outcomes += 1
    unit.value += value
    if is_shown:
        _count_shown(moments, unit)


def _count_shown(moments: UnitMoments, unit: Totals) -> None:
    moments.outcomes_shown += 1
    moments.outcomes_shown_squared += 2 * unit.outcomes_shown + 1
    moments.outcomes_shown_by_exposures += unit.exposures
    unit.outcomes_shown += 1
