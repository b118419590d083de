"""Readouts over many simulated experiments: intervals that hold what they say, seen splits.

Each bound is three standard errors of a share p among n experiments: sqrt(p (1 - p) / n).
"""

import math

import numpy as np
import pytest
from numpy.random import Generator

from tailorbird.measure.query import PlacementMoments, ReadoutQuery
from tailorbird.measure.readout import readouts
from tailorbird.schema.readout import Readout
from tailorbird.stats.moments import UnitMoments

pytestmark = pytest.mark.statistical

EXPERIMENTS = 400
VISITORS = 4000
HOLDOUT_SHARE = 0.2


def simulate(generator: Generator, visitors: int, lift: float = 0.0) -> UnitMoments:
    """Return the moments of visitors who differ in how often they come and how easily they buy.

    Those who come more often also buy more easily, which is what makes decisions of one visitor
    alike and a test by decisions wrong. The expected rate is proportional to 1 + `lift`.
    """
    keenness = generator.gamma(2.0, 0.5, visitors)
    decisions = 1 + generator.poisson(3.0 * keenness)
    exposures = generator.binomial(decisions, 0.9)
    chances = np.minimum(0.15 * keenness / (1.0 + keenness), 0.5) * (1.0 + lift)
    outcomes = generator.binomial(exposures, chances)
    values = outcomes * generator.lognormal(3.0, 0.6, visitors)
    return UnitMoments(
        units=visitors,
        decisions=int(decisions.sum()),
        exposures=int(exposures.sum()),
        outcomes=int(outcomes.sum()),
        value=float(values.sum()),
        decisions_squared=int((decisions**2).sum()),
        exposures_squared=int((exposures**2).sum()),
        outcomes_squared=int((outcomes**2).sum()),
        outcomes_by_decisions=int((outcomes * decisions).sum()),
        outcomes_shown=int(outcomes.sum()),
        outcomes_shown_squared=int((outcomes**2).sum()),
        outcomes_shown_by_exposures=int((outcomes * exposures).sum()),
        value_squared=float((values**2).sum()),
    )


def experiment(
    generator: Generator, *, lift: float = 0.0, true_share: float = HOLDOUT_SHARE
) -> tuple[Readout, Readout]:
    """Return the readouts of rate and value of one experiment."""
    held = int(generator.binomial(VISITORS, true_share))
    moments = PlacementMoments(
        placement="hero",
        holdout_share=HOLDOUT_SHARE,
        personalized=simulate(generator, VISITORS - held, lift),
        holdout=simulate(generator, held),
    )
    rate, value = readouts(ReadoutQuery(1_700_000_000.0, (moments,))).readouts
    return rate, value


def bound(share: float, count: int = EXPERIMENTS) -> float:
    return 3.0 * math.sqrt(share * (1.0 - share) / count)


@pytest.fixture(scope="module")
def same() -> list[tuple[Readout, Readout]]:
    """Experiments in which personalization does nothing."""
    generator = np.random.default_rng(20240601)
    return [experiment(generator) for _ in range(EXPERIMENTS)]


@pytest.fixture(scope="module")
def better() -> list[tuple[Readout, Readout]]:
    """Experiments in which personalization raises every visitor's rate by a quarter."""
    generator = np.random.default_rng(20240602)
    return [experiment(generator, lift=0.25) for _ in range(EXPERIMENTS)]


def holds(readout: Readout, truth: float) -> bool:
    assert readout.lift is not None
    return readout.lift.low <= truth <= readout.lift.high


@pytest.mark.parametrize("metric", [0, 1], ids=["rate", "value"])
def test_one_interval_in_twenty_leaves_out_no_lift_where_there_is_none(same, metric) -> None:
    wrong = sum(not holds(pair[metric], 0.0) for pair in same) / EXPERIMENTS
    assert wrong == pytest.approx(0.05, abs=bound(0.05))


@pytest.mark.parametrize("metric", [0, 1], ids=["rate", "value"])
def test_one_pvalue_in_twenty_is_below_one_in_twenty_where_there_is_no_lift(same, metric) -> None:
    small = sum(pair[metric].difference.pvalue < 0.05 for pair in same) / EXPERIMENTS
    assert small == pytest.approx(0.05, abs=bound(0.05))


@pytest.mark.parametrize("metric", [0, 1], ids=["rate", "value"])
def test_nineteen_intervals_in_twenty_hold_the_true_lift(better, metric) -> None:
    right = sum(holds(pair[metric], 0.25) for pair in better) / EXPERIMENTS
    assert right == pytest.approx(0.95, abs=bound(0.05))


def test_verdicts_claim_a_rise_only_as_often_as_the_intervals_do(same, better) -> None:
    claimed = [pair[0].verdict.startswith("Personalized visitors") for pair in same]
    assert sum(claimed) == sum(not holds(pair[0], 0.0) for pair in same if not mismatch(pair))
    risen = sum("more often than the holdout (95 % interval " in pair[0].verdict for pair in better)
    assert risen / EXPERIMENTS > 0.5  # The size of this experiment finds such a lift mostly.


def mismatch(pair: tuple[Readout, Readout]) -> bool:
    return pair[0].sample_ratio.is_mismatch


def test_a_sound_split_is_almost_never_flagged(same, better) -> None:
    flagged = sum(map(mismatch, [*same, *better]))
    assert flagged <= 3  # 0.8 expected; four or more have a chance below 1 %.


def test_a_broken_split_is_always_flagged_and_not_to_be_trusted() -> None:
    generator = np.random.default_rng(20240603)
    for _ in range(20):
        pair = experiment(generator, true_share=0.25)
        assert mismatch(pair)
        assert all(readout.verdict.startswith("Do not trust this readout") for readout in pair)


def test_arm_intervals_hold_the_true_rate(same) -> None:
    # The true rate, from a hundred times as many visitors as one experiment has.
    large = simulate(np.random.default_rng(20240604), 100 * VISITORS)
    truth = large.outcomes / large.exposures
    intervals = [pair[0].arms.holdout.rate_interval for pair in same]
    right = sum(low <= truth <= high for low, high in intervals) / EXPERIMENTS
    assert right == pytest.approx(0.95, abs=bound(0.05))
