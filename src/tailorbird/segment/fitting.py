"""Fitting a computed attribute: from point-in-time rows to a model with its account.

Gradient-boosted trees (Ke et al. 2017, LightGBM) on the features of a profile as it was at a cut; outcomes
from the horizon after it. Probabilities by log loss; spend by a Tweedie deviance, whose distribution has a
mass at 0 and a long tail, as spend has (Jørgensen 1987; power 1.5). The settings were chosen once and not
tuned on any holdout.

The same rows and seed give the same model: LightGBM runs with `deterministic` on.
"""

import hashlib
from typing import Any, Final, NamedTuple

import lightgbm
import numpy as np
from numpy.typing import NDArray

from tailorbird import __version__
from tailorbird.errors import Fault, InvalidInputError
from tailorbird.limits import COMPUTED_ROWS_MAX, COMPUTED_ROWS_MIN, COMPUTED_THREADS
from tailorbird.schema.computed import (
    Churn,
    ComputedAttribute,
    ComputedModel,
    Engagement,
    Importance,
    LifetimeValue,
    LossDifference,
    Metrics,
    Platt,
    Scale,
    SegmentFigures,
    Training,
    ValueMetrics,
)
from tailorbird.segment.baselines import fit_threshold, mean_of_past_spend
from tailorbird.segment.calibration import calibrated, fit_platt, fit_scale
from tailorbird.segment.occurrences import Floats, Occurrences, People
from tailorbird.segment.scoring import classifier_metrics, difference, log_losses, value_metrics
from tailorbird.segment.split import DAY_SECONDS, TimeSplit, time_split

SEED: Final = 7
ROUNDS: Final = 200
IMPORTANCES: Final = 10

_TREES: Final[dict[str, Any]] = {
    "learning_rate": 0.03,
    "num_leaves": 15,
    "min_data_in_leaf": 100,  # Leaves hold people, some of them several times.
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": COMPUTED_THREADS,
    "verbose": -1,
}

Matrix = NDArray[np.float32]


class Snapshots(NamedTuple):
    """What was known of whom and when: profiles as they were at cuts of time."""

    matrix: Matrix
    """Shape (n, d)."""
    names: tuple[str, ...]
    """Of the d features."""
    people: People
    """Index of each row's person, shape (n,)."""
    cuts: Floats
    """When each row was taken, epoch seconds, shape (n,); nothing later is in it."""

    def at(self, *cuts: float) -> "Snapshots":
        """Return the rows of these cuts."""
        return self.of(np.isin(self.cuts, cuts))

    def of(self, kept: NDArray[Any]) -> "Snapshots":
        """Return the rows that a mask or an array of indices names."""
        return Snapshots(self.matrix[kept], self.names, self.people[kept], self.cuts[kept])


class _Part(NamedTuple):
    """Rows of one part of the split, with what came of them and what the baseline goes by."""

    matrix: Matrix
    outcomes: Floats
    """1.0 where it happened, else 0.0; or what was spent."""
    known: Floats
    """Seconds since the last time; or the mean of past spend."""


class _Fitted(NamedTuple):
    """What the holdout says of a model."""

    calibration: Platt | Scale
    segment_edges: tuple[float, ...]
    metrics: Metrics
    baseline: Metrics
    difference: LossDifference


def fit(
    attribute: ComputedAttribute,
    snapshots: Snapshots,
    occurrences: Occurrences,
    until: float,
    seed: int = SEED,
) -> ComputedModel:
    """Return the model of an attribute, fitted, calibrated and judged on three parts of time.

    Args:
        attribute: What is asked.
        snapshots: Rows, of at least three horizons' cuts.
        occurrences: All of people's events that the attribute is about, and what each was worth.
        until: Epoch seconds; all that happened by then is in `occurrences`.
        seed: Of LightGBM's sampling, and of the rows left out where there are too many.

    Raises:
        InvalidInputError: Arrays do not fit one another, or the log is too short or too small.
    """
    check_layout(snapshots.matrix, snapshots.names)
    if not len(snapshots.matrix) == len(snapshots.people) == len(snapshots.cuts):
        found = [len(snapshots.matrix), len(snapshots.people), len(snapshots.cuts)]
        raise InvalidInputError(Fault("snapshots", "matrix, people and cuts must be as many", found))
    split = time_split(snapshots.cuts, until, attribute.horizon_days * DAY_SECONDS)
    learned, calibrated_on, judged_on = _parts(attribute, snapshots, occurrences, split, seed)
    booster = _boost(attribute, learned, seed)
    judge = _judge_value if isinstance(attribute, LifetimeValue) else _judge_classifier
    fitted = judge(attribute, booster, learned, calibrated_on, judged_on)
    is_accepted, reason = verdict(fitted.metrics, fitted.baseline, fitted.difference)
    return ComputedModel(
        attribute=attribute,
        features=snapshots.names,
        trees=booster.model_to_string(),
        calibration=fitted.calibration,
        segment_edges=fitted.segment_edges,
        training=Training(
            fit_cuts=tuple(split.fit.tolist()),
            calibrate_cut=split.calibrate,
            holdout_cut=split.holdout,
            fit_rows=len(learned.outcomes),
            calibrate_rows=len(calibrated_on.outcomes),
            holdout_rows=len(judged_on.outcomes),
            data_digest=_digest(learned, calibrated_on, judged_on),
            seed=seed,
        ),
        metrics=fitted.metrics,
        baseline=fitted.baseline,
        difference=fitted.difference,
        is_accepted=is_accepted,
        reason=reason,
        code_version=__version__,
        importances=_importances(booster, snapshots.names),
    )


def check_layout(matrix: Matrix, names: tuple[str, ...]) -> None:
    """Refuse a matrix that is not float32 of shape (n, d) with d distinct names.

    Raises:
        InvalidInputError: It is not.
    """
    if matrix.dtype != np.float32 or matrix.ndim != 2:  # noqa: PLR2004 (rows and features)
        found = f"{matrix.dtype} {matrix.shape}"
        raise InvalidInputError(Fault("matrix", "must be float32 of shape (people, features)", found))
    if len(names) != matrix.shape[1] or len(set(names)) != len(names):
        found = f"{len(set(names))} distinct names, {matrix.shape[1]} columns"
        raise InvalidInputError(Fault("names", "must name each column once", found))


def predicted(booster: lightgbm.Booster, matrix: Matrix) -> Floats:
    """Return what the trees say of each row, shape (n,), before calibration."""
    return np.asarray(booster.predict(matrix, num_threads=COMPUTED_THREADS), np.float64)


def verdict(metrics: Metrics, baseline: Metrics, found: LossDifference) -> tuple[bool, str]:
    """Return whether a model beat its baseline, and why (not) in words.

    It must lose less a row, surely (the whole 95 % interval), and rank people better.
    """
    ranks, baseline_ranks = _ranks(metrics), _ranks(baseline)
    interval = f"95 % interval {found.low:+.4g} to {found.high:+.4g}"
    if found.high >= 0.0:
        return False, f"its loss is not surely below the baseline's: {found.value:+.4g} a person, {interval}"
    if ranks <= baseline_ranks:
        return False, f"it ranks people no better than the baseline: {ranks:.4f} against {baseline_ranks:.4f}"
    return True, f"it beats the baseline by {-found.value:.4g} a person, {interval}"


def _ranks(metrics: Metrics) -> float:
    return metrics.spearman if isinstance(metrics, ValueMetrics) else metrics.auc


# --- rows and outcomes --------------------------------------------------------------------------------


def _parts(
    attribute: ComputedAttribute,
    snapshots: Snapshots,
    occurrences: Occurrences,
    split: TimeSplit,
    seed: int,
) -> tuple[_Part, _Part, _Part]:
    parts = []
    for name, cuts in (
        ("fit", tuple(split.fit)),
        ("calibrate", (split.calibrate,)),
        ("holdout", (split.holdout,)),
    ):
        part = _part(attribute, _sampled(snapshots.at(*cuts), seed), occurrences)
        _check_part(attribute, name, part)
        parts.append(part)
    return parts[0], parts[1], parts[2]


def _sampled(rows: Snapshots, seed: int) -> Snapshots:
    """Return at most `COMPUTED_ROWS_MAX` of the rows, in their order."""
    if len(rows.cuts) <= COMPUTED_ROWS_MAX:
        return rows
    generator = np.random.Generator(np.random.PCG64(seed))
    return rows.of(np.sort(generator.choice(len(rows.cuts), COMPUTED_ROWS_MAX, replace=False)))


def _part(attribute: ComputedAttribute, rows: Snapshots, occurrences: Occurrences) -> _Part:
    """Return the rows of those who ever did what is asked about, with their outcomes."""
    since = occurrences.since_last(rows.people, rows.cuts)
    is_asked = np.isfinite(since)
    asked = rows.of(is_asked)
    horizon = attribute.horizon_days * DAY_SECONDS
    ends = asked.cuts + horizon
    if isinstance(attribute, LifetimeValue):
        spent = occurrences.sums(asked.people, asked.cuts, ends)
        past = occurrences.sums(asked.people, np.full_like(ends, -np.inf), asked.cuts)
        tenure = occurrences.since_first(asked.people, asked.cuts)
        # Refunds may outweigh what was bought: nobody is expected to spend less than nothing.
        baseline = mean_of_past_spend(np.maximum(past, 0.0), tenure, horizon)
        return _Part(asked.matrix, np.maximum(spent, 0.0), baseline)
    is_back = occurrences.counts(asked.people, asked.cuts, ends) > 0
    happened = ~is_back if isinstance(attribute, Churn) else is_back
    return _Part(asked.matrix, happened.astype(np.float64), since[is_asked])


def _check_part(attribute: ComputedAttribute, name: str, part: _Part) -> None:
    """Refuse rows too few, or all of one kind: nothing can be learned or judged from them."""
    count = len(part.outcomes)
    if count < COMPUTED_ROWS_MIN:
        rule = f"at least {COMPUTED_ROWS_MIN} people must be known at the cuts to {name}"
        raise InvalidInputError(Fault(attribute.key, rule, count))
    if np.ptp(part.outcomes) == 0.0:
        rule = f"people must differ in what came of them after the cuts to {name}"
        raise InvalidInputError(Fault(attribute.key, rule, float(part.outcomes[0])))


# --- fitting and judging ------------------------------------------------------------------------------


def _boost(attribute: ComputedAttribute, learned: _Part, seed: int) -> lightgbm.Booster:
    objective = (
        {"objective": "tweedie", "tweedie_variance_power": 1.5}
        if isinstance(attribute, LifetimeValue)
        else {"objective": "binary"}
    )
    data = lightgbm.Dataset(learned.matrix, learned.outcomes)
    return lightgbm.train({**_TREES, **objective, "seed": seed}, data, ROUNDS)


def _judge_classifier(
    attribute: ComputedAttribute,
    booster: lightgbm.Booster,
    learned: _Part,
    calibrated_on: _Part,
    judged_on: _Part,
) -> _Fitted:
    """Judge probabilities beside a threshold on recency, which says "gone": for coming back, its opposite."""
    calibration = fit_platt(predicted(booster, calibrated_on.matrix), calibrated_on.outcomes)
    happened, since = judged_on.outcomes, judged_on.known
    probabilities = calibrated(predicted(booster, judged_on.matrix), calibration)
    is_gone = not isinstance(attribute, Engagement)
    seen = np.concatenate([learned.known, calibrated_on.known])
    outcomes = np.concatenate([learned.outcomes, calibrated_on.outcomes])
    threshold = fit_threshold(seen, outcomes if is_gone else 1.0 - outcomes)
    gone = threshold.probabilities(since)
    baseline = gone if is_gone else 1.0 - gone
    return _Fitted(
        calibration=calibration,
        segment_edges=(),
        metrics=classifier_metrics(happened, probabilities, probabilities),
        baseline=classifier_metrics(happened, baseline, since if is_gone else -since),
        difference=difference(log_losses(happened, probabilities), log_losses(happened, baseline)),
    )


def _judge_value(
    attribute: ComputedAttribute,
    booster: lightgbm.Booster,
    _learned: _Part,
    calibrated_on: _Part,
    judged_on: _Part,
) -> _Fitted:
    """Judge expected spend beside the mean of what each person spent so far."""
    assert isinstance(attribute, LifetimeValue)
    raw = predicted(booster, calibrated_on.matrix)
    calibration = fit_scale(raw, calibrated_on.outcomes)
    quantiles = [segment.above for segment in attribute.segments[1:]]
    edges = np.quantile(calibrated(raw, calibration), quantiles) if quantiles else np.zeros(0)
    spent, past = judged_on.outcomes, judged_on.known
    expected = calibrated(predicted(booster, judged_on.matrix), calibration)
    held = np.searchsorted(edges, expected, side="right")
    figures = [
        _figures(segment.name, expected[held == index], spent[held == index])
        for index, segment in enumerate(attribute.segments)
    ]
    return _Fitted(
        calibration=calibration,
        segment_edges=tuple(edges.tolist()),
        metrics=value_metrics(spent, expected, figures),
        baseline=value_metrics(spent, past),
        difference=difference(np.abs(expected - spent), np.abs(past - spent)),
    )


def _figures(name: str, expected: Floats, spent: Floats) -> SegmentFigures:
    count = len(spent)
    means = (float(expected.mean()), float(spent.mean())) if count else (0.0, 0.0)
    return SegmentFigures(name, count, *means)


def _importances(booster: lightgbm.Booster, names: tuple[str, ...]) -> tuple[Importance, ...]:
    gains = np.asarray(booster.feature_importance("gain"), np.float64)
    strongest = np.argsort(-gains, kind="stable")[:IMPORTANCES]
    return tuple(
        Importance(names[index], float(gains[index] / gains.sum()))
        for index in strongest
        if gains[index] > 0.0
    )


def _digest(*parts: _Part) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        hasher.update(part.matrix.tobytes())
        hasher.update(part.outcomes.tobytes())
    return hasher.hexdigest()
