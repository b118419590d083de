"""Calibration: what a model says, made to agree with what came of it on a time that it did not learn from.

Probabilities by Platt's sigmoid on log odds (two numbers, so that 2,000 rows are enough and the ranking
stays); amounts by one factor. That factor is drawn to 1 as far as chance explains it (James and Stein 1961,
positive part): a few large orders would move it by a third, and next month would have to pay for them.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression

from tailorbird.schema.computed import Platt, Scale
from tailorbird.segment.occurrences import Floats
from tailorbird.segment.scoring import bounded


def fit_platt(raw: Floats, happened: Floats) -> Platt:
    """Return the sigmoid of greatest likelihood; `raw` are probabilities, shape (n,), `happened` 0 or 1."""
    fitted = LogisticRegression(C=np.inf).fit(_log_odds(raw)[:, None], happened)
    return Platt(float(fitted.coef_[0, 0]), float(fitted.intercept_[0]))


def fit_scale(raw: Floats, spent: Floats) -> Scale:
    """Return the factor between what was expected and what was spent, shape (n,), as far as it is sure.

    >>> fit_scale(np.full(100, 2.0), np.full(100, 3.0))
    Scale(factor=1.5)
    """
    ratio = float(spent.sum() / raw.sum())
    error = float((spent - ratio * raw).std() / (raw.mean() * len(raw) ** 0.5))
    off = ratio - 1.0
    sure = max(0.0, 1.0 - (error / off) ** 2) if off else 0.0
    return Scale(1.0 + sure * off)


def calibrated(raw: Floats, calibration: Platt | Scale) -> Floats:
    """Return calibrated probabilities or amounts, shape (n,)."""
    if isinstance(calibration, Scale):
        return calibration.factor * raw
    return 1.0 / (1.0 + np.exp(-(calibration.slope * _log_odds(raw) + calibration.intercept)))


def _log_odds(probabilities: Floats) -> Floats:
    inside = bounded(probabilities)
    return np.log(inside / (1.0 - inside))
