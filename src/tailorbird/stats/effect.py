"""Effects: how much better one arm did than the other, from sums over units (visitors).

The idea: visitors are drawn to the arms, not decisions, so visitors are what chance acts on. The
rate of an arm is a ratio of two means over visitors (outcomes over trials), whose variance comes
from the delta method (Deng, Knoblich and Lu 2018, "Applying the Delta Method in Metric Analytics",
KDD); value per visitor is a plain mean. Both are handed to tea-tasting as aggregates, and its
conventions kept:

    difference  personalized - holdout, with Welch's t interval
    lift        personalized / holdout - 1; the interval is Welch's t on the logarithm of the ratio,
                variances divided by the squared means, and is therefore not symmetric
    pvalue      of the difference, two-sided, and the lift carries the same one: with few outcomes
                the lift's interval may hold 0 while p is below 0.05 (verdicts go by the interval)

Intervals are for one look at a fixed time; who looks every day and stops at the first good one is
misled more often than 5 % of the time.

Importing this costs 115 MB and more than a second: the server must not (see `measure.worker`).
"""

import math
from fractions import Fraction
from statistics import NormalDist
from typing import Any, Final, NamedTuple

from tea_tasting import Mean, RatioOfMeans
from tea_tasting import SampleRatio as SampleRatioMetric
from tea_tasting.aggr import Aggregates

from tailorbird.schema.placement import LearnFrom
from tailorbird.schema.readout import Estimate, Metric, SampleRatio, Trials
from tailorbird.stats.moments import UnitMoments

CONFIDENCE: Final = 0.95
MISMATCH_PVALUE: Final = 0.001
"""Below it a split is broken. As usual in the field: 0.05 would flag one sound split in twenty."""
UNITS_MIN: Final = 2
"""A variance needs two."""

_ROUNDING = 1e-9
"""A variance smaller than this part of the squared mean is what rounding leaves of zero."""
_RELATIVE_ERROR_MAX = 2.01
"""Standard error over mean past which no lift is told.

Totals that are never negative cannot exceed 2 (one visitor did it all); values of both signs can,
and then not even the sign of the mean is known.
"""

_OPTIONS: dict[str, Any] = {
    "alternative": "two-sided",
    "confidence_level": CONFIDENCE,
    "equal_var": False,
    "use_t": True,
}
_METRICS: dict[Metric, RatioOfMeans] = {
    "rate": RatioOfMeans("outcomes", "trials", **_OPTIONS),
    "value": Mean("value", **_OPTIONS),
}
_NORMAL_QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Effect(NamedTuple):
    """What the arms' difference is, or why it cannot be told."""

    lift: Estimate | None
    difference: Estimate | None
    reason: str
    """Empty where at least the difference is told, else a clause for the verdict."""


class ArmEstimate(NamedTuple):
    """The metric in one arm, with its 95 % interval; None where it cannot be computed."""

    value: float | None
    interval: tuple[float, float] | None


def trials_of(learn_from: LearnFrom, personalized: UnitMoments, holdout: UnitMoments) -> Trials:
    """Return what counts as a trial; where it is not declared, exposures once either arm reports any."""
    if learn_from != "auto":
        return learn_from
    return "exposures" if personalized.exposures or holdout.exposures else "decisions"


def effect(metric: Metric, trials: Trials, personalized: UnitMoments, holdout: UnitMoments) -> Effect:
    """Return lift and difference of `metric`, personalized against holdout.

    Nothing is concluded where an arm has fewer than two units, no trials or no variance between
    units. The lift alone is None where a ratio of the means says nothing: a mean of values that is
    not positive, or not told from zero.

    >>> personalized = UnitMoments(units=4, decisions=8, outcomes=4, decisions_squared=16,
    ...     outcomes_squared=6, outcomes_by_decisions=8)
    >>> holdout = UnitMoments(units=4, decisions=8, outcomes=2, decisions_squared=16,
    ...     outcomes_squared=2, outcomes_by_decisions=4)
    >>> told = effect("rate", "decisions", personalized, holdout)
    >>> round(told.lift.value, 6), round(told.difference.value, 6)
    (1.0, 0.25)
    """
    for name, moments in (("the personalized arm", personalized), ("the holdout", holdout)):
        reason = _why_silent(name, moments, metric, trials)
        if reason:
            return Effect(None, None, reason)
    treatment, control = _aggregates(personalized, trials), _aggregates(holdout, trials)
    if _is_ratio_told(metric, treatment) and _is_ratio_told(metric, control):
        result = _METRICS[metric].analyze_aggregates(control=control, treatment=treatment)
        return Effect(_lift(result), _difference(result), "")
    return Effect(None, _difference_of_values(control, treatment), "")


def arm_estimate(metric: Metric, trials: Trials, moments: UnitMoments) -> ArmEstimate:
    """Return the metric in one arm with its normal interval, by units and the delta method.

    A rate's interval ends at 0 and at 1, since no rate is beyond them.
    """
    if not moments.units or (metric == "rate" and not getattr(moments, trials)):
        return ArmEstimate(None, None)
    if moments.units < UNITS_MIN:
        total, count = (
            (_successes(moments, trials), getattr(moments, trials))
            if metric == "rate"
            else (moments.value, moments.units)
        )
        return ArmEstimate(total / count, None)
    mean, variance = _mean_and_variance(metric, _aggregates(moments, trials))
    if _is_zero(variance, mean):
        return ArmEstimate(mean, None)
    half = _NORMAL_QUANTILE * math.sqrt(variance / moments.units)
    if metric == "rate":
        return ArmEstimate(mean, (max(mean - half, 0.0), min(mean + half, 1.0)))
    return ArmEstimate(mean, (mean - half, mean + half))


def sample_ratio(personalized_units: int, holdout_units: int, holdout_share: float) -> SampleRatio:
    """Check that units were split as declared: exact binomial test, normal from 1,000 units on.

    Args:
        personalized_units: Units in the personalized arm, at least 0.
        holdout_units: Units in the holdout, at least 0.
        holdout_share: The declared share, 0 to 1; at 0 and 1 there is no split to check.
    """
    units = personalized_units + holdout_units
    observed = holdout_units / units if units else None
    if not units or not 0.0 < holdout_share < 1.0:
        return SampleRatio(holdout_share, observed, None, is_mismatch=False)
    metric = SampleRatioMetric((1.0 - holdout_share) / holdout_share, method="auto", correction=True)
    arms = {0: Aggregates(count_=holdout_units), 1: Aggregates(count_=personalized_units)}
    pvalue = min(_finite(metric.analyze(arms, control=0, treatment=1).pvalue), 1.0)
    return SampleRatio(holdout_share, observed, pvalue, is_mismatch=pvalue < MISMATCH_PVALUE)


def _why_silent(name: str, moments: UnitMoments, metric: Metric, trials: Trials) -> str:
    """Return why an arm allows no conclusion, or nothing where it does."""
    if moments.units < UNITS_MIN:
        return f"{name} has {moments.units or 'no'} visitor{'s' * (moments.units != 1)} yet"
    if metric == "rate" and not getattr(moments, trials):
        return f"{name} has no {trials} yet"
    mean, variance = _mean_and_variance(metric, _aggregates(moments, trials))
    if not _is_zero(variance, mean):
        return ""
    if not _successes(moments, trials):
        return f"{name} has not reached the goal yet"
    return f"all visitors of {name} did the same, so chance cannot be measured"


def _aggregates(moments: UnitMoments, trials: Trials) -> Aggregates:
    """Return count, means, sample variances (over n - 1) and covariance of at least two units."""
    count = moments.units
    outcomes, value = _successes(moments, trials), moments.value
    if trials == "exposures":
        trial_count, trials_squared = moments.exposures, moments.exposures_squared
        outcomes_squared, product = moments.outcomes_shown_squared, moments.outcomes_shown_by_exposures
    else:
        trial_count, trials_squared = moments.decisions, moments.decisions_squared
        outcomes_squared, product = moments.outcomes_squared, moments.outcomes_by_decisions
    return Aggregates(
        count_=count,
        mean_={"trials": trial_count / count, "outcomes": outcomes / count, "value": value / count},
        var_={
            "trials": _covariance(count, trials_squared, trial_count, trial_count),
            "outcomes": _covariance(count, outcomes_squared, outcomes, outcomes),
            "value": max(_covariance(count, moments.value_squared, value, value), 0.0),
        },
        cov_={("outcomes", "trials"): _covariance(count, product, outcomes, trial_count)},
    )


def _successes(moments: UnitMoments, trials: Trials) -> int:
    """Return the outcomes of what counts as a trial: each trial has one at most, so no rate is above 1."""
    return moments.outcomes_shown if trials == "exposures" else moments.outcomes


def _covariance(count: int, product: float, left: float, right: float) -> float:
    """Return the sample covariance from a sum of products and two sums.

    (sum xy - sum x * sum y / n) / (n - 1) loses every digit where the means are large; as fractions
    nothing is lost beyond what the sums themselves had lost.
    """
    scaled = count * Fraction(product) - Fraction(left) * Fraction(right)
    return float(scaled / (count * (count - 1)))


def _mean_and_variance(metric: Metric, arm: Aggregates) -> tuple[float, float]:
    """Return an arm's metric and its variance by unit (delta method for a ratio)."""
    numerator, denominator = _METRICS[metric].numer, _METRICS[metric].denom
    mean = arm.mean(numerator) / arm.mean(denominator)
    return float(mean), float(arm.ratio_var(numerator, denominator))


def _is_zero(variance: float, mean: float) -> bool:
    return variance <= _ROUNDING * mean * mean


def _is_ratio_told(metric: Metric, arm: Aggregates) -> bool:
    """Return whether an arm's mean is positive and known well enough to divide by."""
    mean, variance = _mean_and_variance(metric, arm)
    return mean > 0.0 and math.sqrt(variance / arm.count()) <= _RELATIVE_ERROR_MAX * mean


def _difference_of_values(control: Aggregates, treatment: Aggregates) -> Estimate:
    """Return the difference of two means of values that no ratio can be made of.

    Raising both means by the same amount changes no difference, and keeps tea-tasting's logarithm
    of the ratio, which is computed along with it, away from a division by zero.
    """
    arms = (control, treatment)
    shift = max(abs(arm.mean("value")) + math.sqrt(arm.var("value")) for arm in arms)
    raised = [
        Aggregates(arm.count(), {"value": 2.0 * shift + arm.mean("value")}, {"value": arm.var("value")})
        for arm in arms
    ]
    return _difference(_METRICS["value"].analyze_aggregates(control=raised[0], treatment=raised[1]))


def _difference(result: Any) -> Estimate:  # noqa: ANN401 (tea-tasting ships no types)
    return Estimate(
        value=_finite(result.effect_size),
        low=_finite(result.effect_size_ci_lower),
        high=_finite(result.effect_size_ci_upper),
        pvalue=_finite(result.pvalue),
    )


def _lift(result: Any) -> Estimate:  # noqa: ANN401 (tea-tasting ships no types)
    return Estimate(
        value=_finite(result.rel_effect_size),
        low=_finite(result.rel_effect_size_ci_lower),
        high=_finite(result.rel_effect_size_ci_upper),
        pvalue=_finite(result.pvalue),
    )


def _finite(number: float) -> float:
    """Return a plain float; what would make it NaN or infinite has been refused before."""
    if not math.isfinite(number):
        raise ArithmeticError(f"an estimate is {number}: a degenerate arm was not refused")
    return float(number)
