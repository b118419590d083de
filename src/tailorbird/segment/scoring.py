"""How good a foretelling was: measures of probabilities and of amounts, and the difference of two models.

AUC and log loss are scikit-learn's, rank correlation is SciPy's.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from tailorbird.schema.computed import ClassifierMetrics, LossDifference, SegmentFigures, ValueMetrics
from tailorbird.segment.occurrences import Floats

GROUPS = 10
"""Of the calibration error, and of the decile lift."""

_PROBABILITY_MIN = 1e-6
_CONFIDENCE = 0.95
_NORMAL_QUANTILE = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)


def bounded(probabilities: Floats) -> Floats:
    """Return probabilities kept away from 0 and 1, so that one surprise does not cost infinitely."""
    return np.clip(probabilities, _PROBABILITY_MIN, 1.0 - _PROBABILITY_MIN)


def classifier_metrics(happened: Floats, probabilities: Floats, ranking: Floats) -> ClassifierMetrics:
    """Return the measures of probabilities, shape (n,), for what `happened` (0 or 1).

    `ranking` is what AUC goes by, the larger the likelier: a threshold's probabilities have two values,
    what it cuts has all of them.
    """
    return ClassifierMetrics(
        rows=len(happened),
        share=float(happened.mean()),
        auc=float(roc_auc_score(happened, ranking)),
        log_loss=float(log_loss(happened, bounded(probabilities))),
        brier=float(brier_score_loss(happened, probabilities)),
        calibration_error=calibration_error(happened, probabilities),
    )


def calibration_error(happened: Floats, probabilities: Floats) -> float:
    """Return the expected calibration error over ten groups of equal size (Naeini et al. 2015), 0 to 1.

    >>> calibration_error(np.array([0.0, 1.0] * 10), np.full(20, 0.75))
    0.25
    """
    groups = np.array_split(np.argsort(probabilities, kind="stable"), GROUPS)
    gaps = [
        len(group) * abs(happened[group].mean() - probabilities[group].mean())
        for group in groups
        if len(group)
    ]
    return float(sum(gaps) / len(happened))


def value_metrics(spent: Floats, expected: Floats, segments: Sequence[SegmentFigures] = ()) -> ValueMetrics:
    """Return the measures of expected amounts, shape (n,), both at least 0."""
    mean = float(spent.mean())
    strongest = np.argsort(-expected, kind="stable")[: max(len(spent) // GROUPS, 1)]
    return ValueMetrics(
        rows=len(spent),
        mean=mean,
        expected=float(expected.mean()),
        mae=float(np.abs(expected - spent).mean()),
        rmsle=float(np.sqrt(np.square(np.log1p(expected) - np.log1p(spent)).mean())),
        spearman=rank_correlation(spent, expected),
        decile_lift=float(spent[strongest].mean() / mean),
        segments=tuple(segments),
    )


def rank_correlation(left: Floats, right: Floats) -> float:
    """Return Spearman's rank correlation, 0.0 where one side is constant.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 90.0]))
    1.0
    """
    if np.ptp(left) == 0.0 or np.ptp(right) == 0.0:
        return 0.0
    return round(float(np.corrcoef(rankdata(left), rankdata(right))[0, 1]), 12)


def log_losses(happened: Floats, probabilities: Floats) -> Floats:
    """Return the log loss of each row, nats."""
    return -np.log(np.where(happened > 0.0, bounded(probabilities), 1.0 - bounded(probabilities)))


def difference(losses: Floats, baseline_losses: Floats) -> LossDifference:
    """Return the mean paired difference with its normal interval; rows are of different people."""
    gaps = losses - baseline_losses
    mean = float(gaps.mean())
    margin = _NORMAL_QUANTILE * float(gaps.std(ddof=1)) / len(gaps) ** 0.5
    return LossDifference(mean, mean - margin, mean + margin)
