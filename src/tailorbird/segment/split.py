"""The time split: a model learns from the past, is calibrated on what came next, and judged on the latest.

    fit cuts ……… |── horizon ──|
                               calibrate |── horizon ──|
                                                       holdout |── horizon ──| until

Every horizon of a part ends before the next part's cut, so no outcome that a model learned from lies in a
period that it is calibrated or judged on. Several cuts may teach it of the same person.
"""

from typing import NamedTuple

import numpy as np

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.limits import COMPUTED_CUTS_MAX
from tailorbird.segment.occurrences import Floats

DAY_SECONDS = 86_400.0
_ROUNDING_SECONDS = 1e-3  # Cuts are counted back from the end in floating point.


class TimeSplit(NamedTuple):
    """The cuts of the three parts, epoch seconds."""

    fit: Floats
    calibrate: float
    holdout: float


def time_split(cuts: Floats, until: float, horizon_seconds: float) -> TimeSplit:
    """Return the latest split that the cuts at hand allow.

    Args:
        cuts: When rows were taken, shape (any,), repeats allowed.
        until: All that happened by then is known.
        horizon_seconds: How far outcomes reach after a cut.

    Raises:
        InvalidInputError: The cuts do not reach back over three horizons.

    >>> time_split(np.arange(0.0, 60.0, 10.0), 60.0, 20.0)
    TimeSplit(fit=array([0.]), calibrate=20.0, holdout=40.0)
    """
    known = np.unique(cuts)
    holdout = _latest(known, until, horizon_seconds)
    calibrate = _latest(known, holdout[-1], horizon_seconds)
    fit = _latest(known, calibrate[-1], horizon_seconds)
    return TimeSplit(fit[-COMPUTED_CUTS_MAX:], float(calibrate[-1]), float(holdout[-1]))


def _latest(cuts: Floats, end: float, horizon_seconds: float) -> Floats:
    """Return the cuts whose horizon is over by `end`."""
    over = cuts[cuts + horizon_seconds <= end + _ROUNDING_SECONDS]
    if not over.size:
        days = horizon_seconds / DAY_SECONDS
        raise InvalidInputError(
            Fault("horizonDays", "there must be rows from three horizons before the end of the log", days)
        )
    return over
