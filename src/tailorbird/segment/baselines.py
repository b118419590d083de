"""What anybody says without a model: who was away for long is gone, who spent will spend the same."""

from typing import NamedTuple

import numpy as np

from tailorbird.segment.occurrences import Floats
from tailorbird.segment.scoring import log_losses

_THRESHOLDS = np.linspace(0.01, 0.99, 99)
"""Quantiles of recency that are tried."""


class RecencyThreshold(NamedTuple):
    """Away for longer than `seconds`: gone with probability `above`; else with `below`."""

    seconds: float
    below: float
    above: float

    def probabilities(self, since: Floats) -> Floats:
        """Return the probability of being gone, shape (n,), from seconds since the last time."""
        return np.where(since > self.seconds, self.above, self.below)


def fit_threshold(since: Floats, is_gone: Floats) -> RecencyThreshold:
    """Return the threshold of least log loss, with the shares of the gone on its two sides.

    Shares are (gone + 1) / (people + 2), as Laplace's rule of succession has them.
    """
    tried = [_threshold(float(seconds), since, is_gone) for seconds in np.quantile(since, _THRESHOLDS)]
    return min(tried, key=lambda one: float(log_losses(is_gone, one.probabilities(since)).mean()))


def _threshold(seconds: float, since: Floats, is_gone: Floats) -> RecencyThreshold:
    is_above = since > seconds
    return RecencyThreshold(seconds, _share(is_gone[~is_above]), _share(is_gone[is_above]))


def _share(is_gone: Floats) -> float:
    return float((is_gone.sum() + 1.0) / (len(is_gone) + 2.0))


def mean_of_past_spend(spent: Floats, tenure_seconds: Floats, horizon_seconds: float) -> Floats:
    """Return what was spent a horizon so far, shape (n,); a newcomer's tenure is taken as one horizon.

    >>> mean_of_past_spend(np.array([30.0, 30.0]), np.array([300.0, 1.0]), 100.0)
    array([10., 30.])
    """
    return spent * horizon_seconds / np.maximum(tenure_seconds, horizon_seconds)
