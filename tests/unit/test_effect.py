"""Effects from sums: equal to tea-tasting on the raw table, to scipy, and to published numbers."""

import math

import msgspec
import numpy as np
import pyarrow
import pytest
import scipy.stats
import tea_tasting

from tailorbird.schema.readout import Estimate
from tailorbird.stats.effect import (
    MISMATCH_PVALUE,
    arm_estimate,
    effect,
    sample_ratio,
    trials_of,
)
from tailorbird.stats.moments import (
    UnitMoments,
    UnitTotals,
    add_unit,
    count_decision,
    count_exposure,
    count_outcome,
)

UNITS = {"holdout": 400, "personalized": 3600}


def simulate(arm: str, seed: int) -> list[tuple[int, int, list[float]]]:
    """Return (decisions, exposures, values of outcomes) by visitor."""
    generator = np.random.default_rng(seed)
    units = []
    for _ in range(UNITS[arm]):
        rate = generator.beta(2, 20) * (1.2 if arm == "personalized" else 1.0)
        decisions = 1 + int(generator.poisson(2.0))
        exposures = int(generator.binomial(decisions, 0.8))
        outcomes = int(generator.binomial(exposures, rate))
        units.append((decisions, exposures, list(generator.lognormal(3.0, 1.0, outcomes))))
    return units


def fold(units: list[tuple[int, int, list[float]]]) -> UnitMoments:
    """Count every happening one by one, as the fold of the log does."""
    moments = UnitMoments()
    for decisions, exposures, values in units:
        unit = UnitTotals()
        add_unit(moments, unit)
        for _ in range(decisions):
            count_decision(moments, unit)
        for _ in range(exposures):
            count_exposure(moments, unit, is_rewarded=False)
        for value in values:
            count_outcome(moments, unit, value, is_shown=True)
    return moments


def sum_values(values: list[float]) -> UnitMoments:
    """Return the moments of visitors of whom only a value is known."""
    moments = UnitMoments()
    for value in values:
        add_unit(moments, UnitTotals(decisions=1, outcomes=1, value=value))
    return moments


@pytest.fixture(scope="module")
def raw() -> dict[str, list[tuple[int, int, list[float]]]]:
    return {"holdout": simulate("holdout", 11), "personalized": simulate("personalized", 12)}


@pytest.fixture(scope="module")
def arms(raw) -> dict[str, UnitMoments]:
    return {arm: fold(units) for arm, units in raw.items()}


@pytest.fixture(scope="module")
def table(raw) -> pyarrow.Table:
    rows = [
        {
            "variant": arm,
            "decisions": decisions,
            "exposures": exposures,
            "outcomes": len(values),
            "value": sum(values),
        }
        for arm, units in raw.items()
        for decisions, exposures, values in units
    ]
    return pyarrow.Table.from_pylist(rows)


def assert_estimate_equals(estimate: Estimate | None, expected: tuple[float, ...]) -> None:
    assert estimate is not None
    assert msgspec.structs.astuple(estimate) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "trials"), [("rate", "exposures"), ("rate", "decisions"), ("value", "exposures")]
)
def test_sums_tell_what_tea_tasting_tells_of_the_raw_table(arms, table, metric, trials) -> None:
    analysed = (
        tea_tasting.RatioOfMeans("outcomes", trials) if metric == "rate" else tea_tasting.Mean("value")
    ).analyze(table, control="holdout", treatment="personalized", variant="variant")
    told = effect(metric, trials, arms["personalized"], arms["holdout"])
    assert told.reason == ""
    assert_estimate_equals(
        told.lift,
        (
            analysed.rel_effect_size,
            analysed.rel_effect_size_ci_lower,
            analysed.rel_effect_size_ci_upper,
            analysed.pvalue,
        ),
    )
    assert_estimate_equals(
        told.difference,
        (
            analysed.effect_size,
            analysed.effect_size_ci_lower,
            analysed.effect_size_ci_upper,
            analysed.pvalue,
        ),
    )
    for arm, mean in (("personalized", analysed.treatment), ("holdout", analysed.control)):
        assert arm_estimate(metric, trials, arms[arm]).value == pytest.approx(mean, rel=1e-12)


def test_value_a_visitor_is_welchs_test(arms, table) -> None:
    values = {
        arm: table.filter(pyarrow.compute.equal(table["variant"], arm))["value"].to_numpy() for arm in UNITS
    }
    result = scipy.stats.ttest_ind(values["personalized"], values["holdout"], equal_var=False)
    interval = result.confidence_interval(0.95)
    difference = effect("value", "decisions", arms["personalized"], arms["holdout"]).difference
    mean = values["personalized"].mean() - values["holdout"].mean()
    assert_estimate_equals(difference, (mean, interval.low, interval.high, result.pvalue))


def test_students_sleep_data_give_the_published_interval() -> None:
    # Student (1908), as R's `t.test(extra ~ group, data = sleep)` prints it:
    # t = -1.8608, df = 17.776, p-value = 0.07939, interval -3.3654832 to 0.2054832.
    first = sum_values([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = sum_values([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    difference = effect("value", "decisions", first, second).difference
    assert difference is not None
    assert difference.value == pytest.approx(0.75 - 2.33, abs=1e-12)
    assert (difference.low, difference.high) == pytest.approx((-3.3654832, 0.2054832), abs=5e-8)
    assert difference.pvalue == pytest.approx(0.07939, abs=5e-6)


def test_a_published_sample_ratio_is_flagged() -> None:
    # Kohavi, Tang and Xu (2020), "Trustworthy Online Controlled Experiments", chapter 21:
    # 821,588 users in control and 815,482 in treatment of a 50/50 split have p = 1.8E-6.
    ratio = sample_ratio(815_482, 821_588, 0.5)
    assert ratio.pvalue == pytest.approx(1.8e-6, rel=0.03)
    assert ratio.is_mismatch


@pytest.mark.parametrize(("personalized", "holdout"), [(450, 60), (890, 110), (100, 0)])
def test_a_split_is_tested_as_scipy_does(personalized: int, holdout: int) -> None:
    ratio = sample_ratio(personalized, holdout, 0.1)
    units = personalized + holdout
    if units < 1000:
        expected = scipy.stats.binomtest(holdout, units, 0.1).pvalue
    else:
        # From 1,000 units on the normal test with its correction, here as its square.
        off = max(abs(holdout - 0.1 * units) - 0.5, 0.0)
        expected = scipy.stats.chi2.sf(off**2 / (units * 0.1 * 0.9), 1)
    assert ratio.pvalue == pytest.approx(expected, rel=1e-9)
    assert ratio.observed == holdout / units
    assert ratio.is_mismatch == (expected < MISMATCH_PVALUE)


@pytest.mark.parametrize(("personalized", "holdout", "share"), [(0, 0, 0.1), (9, 0, 0.0), (0, 9, 1.0)])
def test_a_split_that_was_not_declared_is_not_checked(personalized, holdout, share) -> None:
    ratio = sample_ratio(personalized, holdout, share)
    assert ratio.pvalue is None
    assert not ratio.is_mismatch


def test_the_delta_method_agrees_with_the_bootstrap(raw, arms) -> None:
    generator = np.random.default_rng(2024)
    units = raw["personalized"]
    exposures = np.array([unit[1] for unit in units])
    outcomes = np.array([len(unit[2]) for unit in units])
    rates = []
    for _ in range(2000):
        drawn = generator.integers(0, len(units), len(units))
        rates.append(outcomes[drawn].sum() / exposures[drawn].sum())
    estimate = arm_estimate("rate", "exposures", arms["personalized"])
    assert estimate.interval is not None
    standard_error = (estimate.interval[1] - estimate.interval[0]) / (2 * 1.959963985)
    # The bootstrap's own error is 1 / sqrt(2 * 2000) = 1.6 %; three of those.
    assert np.std(rates, ddof=1) == pytest.approx(standard_error, rel=0.047)


def test_decisions_of_one_visitor_are_not_independent() -> None:
    # Ten visitors whose twenty decisions all end alike tell as much as ten decisions, not as 200.
    moments = UnitMoments()
    for unit in range(10):
        add_unit(moments, UnitTotals(decisions=20, outcomes=20 * (unit % 2)))
    estimate = arm_estimate("rate", "decisions", moments)
    naive = 1.959963985 * math.sqrt(0.25 / 200)
    assert estimate.value == 0.5
    assert estimate.interval is not None
    assert (estimate.interval[1] - 0.5) / naive == pytest.approx(math.sqrt(20 * 10 / 9), rel=1e-9)


def test_exposures_are_the_trials_once_either_arm_reports_any() -> None:
    silent, speaking = UnitMoments(decisions=9), UnitMoments(decisions=9, exposures=1)
    assert trials_of("auto", silent, silent) == "decisions"
    assert trials_of("auto", silent, speaking) == trials_of("auto", speaking, silent) == "exposures"
    assert trials_of("decisions", silent, speaking) == "decisions"
    assert trials_of("exposures", silent, silent) == "exposures"


def test_outcomes_of_what_was_never_shown_are_no_part_of_a_rate_of_exposures() -> None:
    moments = UnitMoments()
    for _ in range(3):
        unit = UnitTotals()
        add_unit(moments, unit)
        for _ in range(3):
            count_decision(moments, unit)
            count_outcome(moments, unit, 1.0, is_shown=False)
        count_exposure(moments, unit, is_rewarded=True)
    assert arm_estimate("rate", "exposures", moments).value == 1.0
    assert arm_estimate("rate", "decisions", moments).value == 1.0
    add_unit(moments, UnitTotals(decisions=3, exposures=3, outcomes=3, outcomes_shown=1))
    rate, interval = arm_estimate("rate", "exposures", moments)
    assert rate == pytest.approx(4 / 6)
    assert interval is not None
    assert interval[1] == 1.0


VARIED = fold([(3, 2, []), (2, 2, [4.0]), (4, 3, [1.0, 2.0]), (1, 1, [])])
ONE = fold([(3, 2, [1.0])])
UNSHOWN = fold([(3, 0, [1.0]), (2, 0, [])])
FRUITLESS = fold([(3, 2, []), (2, 2, [])])
PERFECT = fold([(3, 3, [0.1, 0.1, 0.1]), (3, 3, [0.1, 0.1, 0.1]), (3, 3, [0.1, 0.1, 0.1])])


@pytest.mark.parametrize("metric", ["rate", "value"])
@pytest.mark.parametrize(
    ("degenerate", "clause"),
    [
        (UnitMoments(), "has no visitors yet"),
        (ONE, "has 1 visitor yet"),
        (FRUITLESS, "has not reached the goal yet"),
        (PERFECT, "did the same"),
    ],
)
def test_a_degenerate_arm_allows_no_conclusion(metric, degenerate, clause) -> None:
    for arms in ((VARIED, degenerate), (degenerate, VARIED), (degenerate, degenerate)):
        told = effect(metric, "exposures", *arms)
        assert told.lift is None
        assert told.difference is None
        assert clause in told.reason
        arm_estimate(metric, "exposures", degenerate)  # Raises nothing.


def test_an_arm_without_trials_allows_no_conclusion_on_the_rate() -> None:
    assert "the holdout has no exposures yet" in effect("rate", "exposures", VARIED, UNSHOWN).reason
    assert arm_estimate("rate", "exposures", UNSHOWN) == (None, None)


@pytest.mark.parametrize(
    "values",
    [
        [-3.0, -1.0, -2.0],
        [1.0, -1.0, 3.0, -3.0],
        [1e-9, 1.0, -1.0],
        [1e11, -1e11, 1.0],
    ],
)
def test_values_of_both_signs_give_a_difference_and_no_lift(values: list[float]) -> None:
    other = [5.0, 6.0, 8.0, 4.0]
    told = effect("value", "decisions", sum_values(other), sum_values(values))
    assert told.lift is None
    result = scipy.stats.ttest_ind(other, values, equal_var=False)
    interval = result.confidence_interval(0.95)
    assert told.difference is not None
    mean = float(np.mean(other) - np.mean(values))
    expected = (mean, interval.low, interval.high, result.pvalue)
    rounding = 1e-15 * max(map(abs, values)) + 1e-12
    assert msgspec.structs.astuple(told.difference) == pytest.approx(expected, rel=1e-9, abs=rounding)


@pytest.mark.parametrize("units", [2, 3, 1000, 100_000])
def test_the_most_uneven_arms_still_have_finite_numbers(units: int) -> None:
    # One visitor did it all: no relative error of totals that are never negative is larger.
    whale = UnitMoments()
    add_unit(whale, UnitTotals(decisions=1, outcomes=1, value=1e12))
    for _ in range(units - 1):
        add_unit(whale, UnitTotals(decisions=1_000_000))
    for metric in ("rate", "value"):
        for arms in ((whale, VARIED), (VARIED, whale), (whale, whale)):
            told = effect(metric, "decisions", *arms)
            for estimate in (told.lift, told.difference):
                assert estimate is not None
                assert all(map(math.isfinite, msgspec.structs.astuple(estimate)))
