"""Readouts: reads the moments of both arms, returns estimates with intervals and a plain sentence.

Pure, and as heavy to import as `stats.effect`; the server asks through `measure.worker`.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, get_args

from tailorbird.clock import format_time
from tailorbird.measure.query import PlacementMoments, ReadoutQuery
from tailorbird.schema.readout import (
    ArmReadout,
    Arms,
    Estimate,
    Metric,
    Readout,
    Readouts,
    SampleRatio,
    Trials,
)
from tailorbird.stats.effect import Effect, arm_estimate, effect, sample_ratio, trials_of
from tailorbird.stats.moments import UnitMoments


def readouts(query: ReadoutQuery) -> Readouts:
    """Return a readout of every metric of every placement that `query` asks for, in its order.

    A placement that is not among the query's moments gives no readout, not an error: whoever knows
    the placements by name says that one is unknown.
    """
    metrics: tuple[Metric, ...] = get_args(Metric) if query.metric is None else (query.metric,)
    return Readouts(
        as_of=format_time(query.as_of),
        readouts=tuple(
            _readout(moments, metric)
            for moments in query.placements
            if query.placement in (None, moments.placement)
            for metric in metrics
        ),
    )


def _readout(moments: PlacementMoments, metric: Metric) -> Readout:
    personalized, holdout = moments.personalized, moments.holdout
    trials = trials_of(moments.learn_from, personalized, holdout)
    ratio = sample_ratio(personalized.units, holdout.units, moments.holdout_share)
    told = effect(metric, trials, personalized, holdout)
    return Readout(
        placement=moments.placement,
        metric=metric,
        segment=moments.segment,
        holdout_share=moments.holdout_share,
        trials=trials,
        arms=Arms(_arm(metric, trials, personalized), _arm(metric, trials, holdout)),
        lift=told.lift,
        difference=told.difference,
        sample_ratio=ratio,
        verdict=_verdict(moments, metric, told, ratio) + _left_out(moments.left_out),
        merged_arms=moments.merged_units,
    )


def _arm(metric: Metric, trials: Trials, moments: UnitMoments) -> ArmReadout:
    rate, interval = arm_estimate(metric, trials, moments)
    return ArmReadout(
        units=moments.units,
        decisions=moments.decisions,
        exposures=moments.exposures,
        outcomes=moments.outcomes,
        outcomes_shown=moments.outcomes_shown,
        value=moments.value,
        rate=rate,
        rate_interval=interval,
    )


# --- the sentence ---------------------------------------------------------------------------------


_NAMED_MAX: Final = 5


class _Words(NamedTuple):
    """How a marketer says that a metric rose or fell."""

    verb: str
    more: str
    less: str


_WORDS: Final[dict[Metric, _Words]] = {
    "rate": _Words("reached the goal", "more often", "less often"),
    "value": _Words("brought", "more value each", "less value each"),
}


def _verdict(moments: PlacementMoments, metric: Metric, told: Effect, ratio: SampleRatio) -> str:
    if ratio.is_mismatch and ratio.pvalue is not None:
        return _distrust(moments, ratio.pvalue)
    if moments.holdout_share == 0.0 and not moments.holdout.units:
        return "Not enough data to tell: no holdout is declared, so there is nothing to compare with."
    if told.lift is not None:
        return _compare(told.lift, _WORDS[metric], _percent)
    if told.difference is not None:
        return _compare(told.difference, _WORDS[metric], _amount)
    return f"Not enough data to tell: {told.reason}."


def _left_out(placements: tuple[str, ...]) -> str:
    if not placements:
        return ""
    named = ", ".join(placements[:_NAMED_MAX]) + (" and more" if len(placements) > _NAMED_MAX else "")
    return f" Not counted here, for they have holdout shares of their own: {named}."


def _distrust(moments: PlacementMoments, pvalue: float) -> str:
    seen = f"{moments.personalized.units:,} to {moments.holdout.units:,}"
    share = 100 * moments.holdout_share
    chance = f"p = {pvalue:.2g}" if pvalue > 0.0 else "p < 1e-300"
    return (
        f"Do not trust this readout: the split is {seen} "
        f"where {100 - share:.4g} to {share:.4g} was declared ({chance})."
    )


def _compare(estimate: Estimate, words: _Words, tell: Callable[[float], str]) -> str:
    """Say an estimate: what it is where its interval leaves out 0, else how far it may lie."""
    low, high = estimate.low, estimate.high
    if low <= 0.0 <= high:
        return (
            f"Not enough data to tell: personalized visitors {words.verb} between {tell(low)} "
            f"{words.less} and {tell(high)} {words.more} than the holdout (95 % interval)."
        )
    nearest, farthest = sorted((abs(low), abs(high)))
    return (
        f"Personalized visitors {words.verb} {tell(estimate.value)} "
        f"{words.more if estimate.value > 0.0 else words.less} than the holdout "
        f"(95 % interval {tell(nearest)} to {tell(farthest)})."
    )


def _percent(share: float) -> str:
    """Return the size of a share in per cent, its sign left to the words around it.

    >>> _percent(-0.1234), _percent(0.00041), _percent(0.0)
    ('12.3 %', '0.041 %', '0.0 %')
    """
    size = 100.0 * abs(share)
    return f"{size:,.1f} %" if size >= 1.0 or size == 0.0 else f"{size:.2g} %"


def _amount(value: float) -> str:
    """Return the size of an amount, its sign left to the words around it.

    >>> _amount(-1234.5), _amount(0.00041)
    ('1,234.50', '0.00041')
    """
    size = abs(value)
    return f"{size:,.2f}" if size >= 1.0 or size == 0.0 else f"{size:.2g}"
