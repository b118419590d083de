"""Policies against closed forms, published formulas and the edges of their input."""

import doctest
import math

import numpy as np
import pytest
from scipy import integrate, special

from tailorbird.errors import InvalidInputError
from tailorbird.policies import base, fixed, mixing, quadrature, thompson
from tailorbird.policies.base import ArmSums, PolicyState
from tailorbird.policies.mixing import draw, with_floors_and_caps
from tailorbird.policies.quadrature import BestProbabilities, best_probabilities
from tailorbird.schema.placement import Fixed, Thompson

ERROR_MAX = 1e-6  # Ten times stricter than promised, ten times wider than what was measured.


def best(alphas, betas):
    return best_probabilities(np.array(alphas, np.float64), np.array(betas, np.float64))


@pytest.mark.parametrize("module", [fixed, mixing, quadrature], ids=lambda module: module.__name__)
def test_examples_in_docstrings_are_true(module):
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0


# --- P(arm is best) -------------------------------------------------------------------------------


def evan_miller(alpha_a, beta_a, alpha_b, beta_b):
    """P(B > A) by Miller (2015), "Formulas for Bayesian A/B testing", equation 6."""
    i = np.arange(alpha_b)
    logs = special.betaln(alpha_a + i, beta_a + beta_b) - np.log(beta_b + i)
    logs -= special.betaln(1 + i, beta_b) + special.betaln(alpha_a, beta_a)
    return float(np.exp(logs).sum())


@pytest.mark.parametrize(
    "posteriors",
    [
        (1, 1, 1, 1),
        (1, 1, 2, 3),
        (51, 951, 61, 941),
        (2, 40, 300, 9_000),
        (1, 1, 5_000, 95_000),
        (50_000, 950_000, 50_300, 949_700),
        (1, 1_000_000, 3, 1_000_000),
    ],
)
def test_two_arms_follow_evan_millers_formula(posteriors):
    alpha_a, beta_a, alpha_b, beta_b = posteriors
    expected = evan_miller(*posteriors)
    found = best([alpha_a, alpha_b], [beta_a, beta_b])
    np.testing.assert_allclose(found, [1 - expected, expected], atol=ERROR_MAX, rtol=0)


@pytest.mark.parametrize("arms", [2, 3, 10, 100])
@pytest.mark.parametrize(("low", "high"), [(0.3, 3.0), (1.0, 1e6), (1e5, 1e6)])
def test_arms_that_never_failed_share_by_alpha(arms, low, high):
    # F_k(x) = x^alpha_k, so the highest is arm k with probability alpha_k / Σ alpha.
    alphas = np.geomspace(low, high, arms)
    found = best_probabilities(alphas, np.ones(arms))
    np.testing.assert_allclose(found, alphas / alphas.sum(), atol=ERROR_MAX, rtol=0)


@pytest.mark.parametrize("arms", [2, 7, 100])
@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.3, 0.3), (1, 1), (0.3, 1e6), (1e6, 0.3), (5e4, 1e6), (1e6, 1e6)]
)
def test_identical_arms_share_equally(arms, alpha, beta):
    found = best([alpha] * arms, [beta] * arms)
    np.testing.assert_allclose(found, 1 / arms, atol=1e-12, rtol=0)


def by_adaptive_quadrature(groups):
    """P(best) of an arm of each (alpha, beta, how many): the mean of Π F_j over its quantiles."""
    grid = np.array([1e-9, 1e-6, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999, 1 - 1e-6])
    found = []
    for k, (alpha, beta, _) in enumerate(groups):

        def others(q, k=k, alpha=alpha, beta=beta):
            x = special.betaincinv(alpha, beta, q)
            return math.prod(special.betainc(a, b, x) ** (n - (j == k)) for j, (a, b, n) in enumerate(groups))

        quantiles = [special.betaincinv(a, b, grid) for a, b, _ in groups]
        points = special.betainc(alpha, beta, np.concatenate(quantiles)).round(8)
        points = np.unique(points[(points > 0) & (points < 1)])
        found.append(integrate.quad(others, 0, 1, points=points, limit=500, epsabs=1e-9)[0])
    return found


@pytest.mark.parametrize(
    "groups",
    [
        [(1, 1, 1), (5_001, 95_001, 9)],
        [(1, 1, 1), (4_900, 95_100, 3), (5_100, 94_900, 1)],
        [(1, 1, 50), (50, 950, 49), (60_000, 940_000, 1)],
        [(0.3, 0.3, 2), (0.3, 5, 1), (20, 3, 1)],
        [(2.5, 80.5, 30), (0.5, 20, 60), (12, 300, 10)],
        [(1e6, 1e6, 1), (1e6 + 900, 1e6, 1), (1e4, 1e4, 1), (90, 100, 1)],
        [(0.3, 1e6, 1), (2, 1e6, 1), (1, 1e5, 1)],
    ],
)
def test_every_mixture_of_scales_follows_adaptive_quadrature(groups):
    alphas, betas, counts = (np.array(column) for column in zip(*groups, strict=True))
    found = best_probabilities(np.repeat(alphas, counts), np.repeat(betas, counts))
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    np.testing.assert_allclose(found[firsts], by_adaptive_quadrature(groups), atol=ERROR_MAX, rtol=0)


def test_hopeless_arm_gets_next_to_nothing_and_never_less_than_nothing():
    found = best([500, 1], [500, 1e5])
    assert 0.0 <= found[1] < 1e-12
    assert found[0] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("alphas", "betas"),
    [
        ([1e-300, 1.0], [1e-300, 1.0]),
        ([1e-6, 1e12, 1.0, 1e6], [1e-6, 1e12, 1.0, 1e12]),
        ([1e300, 1.0], [1.0, 1e300]),
        ([5e-324, 1e308], [1e308, 1e308]),
        (10.0 ** np.arange(-6, 12), 10.0 ** np.arange(-6, 12)),
    ],
)
def test_absurd_posteriors_still_give_a_distribution(alphas, betas):
    with np.errstate(all="raise"):
        found = best(alphas, betas)
    assert np.all(found >= 0.0)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)


def test_no_arm_and_one_arm_need_no_integral():
    assert best([], []).shape == (0,)
    assert best([1e300], [0.1]).tolist() == [1.0]


def test_panels_too_wide_are_halved_until_the_probabilities_sum_to_one():
    alphas, betas = np.array([3.0, 50.0, 900.0]), np.array([50.0, 900.0, 18_000.0])
    work, unused = quadrature._work(arms=3, panels=100), np.empty(3)
    total = quadrature._update(alphas, betas, 16.0, work, unused)
    assert abs(total - 1.0) > quadrature.SUM_ERROR_MAX
    found = BestProbabilities(panel_width=16.0).compute(alphas, betas)
    np.testing.assert_allclose(found, best(alphas, betas), atol=1e-4, rtol=0)


def test_what_did_not_move_is_served_again():
    cache = BestProbabilities()
    alphas, betas = np.array([2.0, 3.0]), np.array([30.0, 30.0])
    first = cache.compute(alphas, betas)
    assert cache.compute(alphas.copy(), betas.copy()) is first
    betas[0] += 1
    second = cache.compute(alphas, betas)
    assert second is not first
    assert second[0] < first[0]


def test_what_was_returned_cannot_be_changed():
    found = best([1, 2], [1, 1])
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0.0


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_a_parameter_out_of_range_is_named_and_leaves_no_trace(wrong):
    cache = BestProbabilities()
    good = cache.compute(np.array([1.0, 2.0, 3.0]), np.ones(3))
    with pytest.raises(InvalidInputError, match=r"betas\[1\]: must be positive and finite"):
        cache.compute(np.array([9.0, 9.0, 9.0]), np.array([1.0, wrong, 1.0]))
    assert np.array_equal(cache.compute(np.array([1.0, 2.0, 3.0]), np.ones(3)), good)


def test_shapes_that_differ_are_refused():
    with pytest.raises(InvalidInputError, match="shape of betas"):
        best([1.0, 1.0], [1.0])
    with pytest.raises(InvalidInputError, match="one-dimensional"):
        best([[1.0, 1.0]], [[1.0, 1.0]])


# --- floors, caps and the draw --------------------------------------------------------------------


def mixed(probabilities, floor=0.0, caps=None):
    caps = [1.0] * len(probabilities) if caps is None else caps
    return with_floors_and_caps(np.array(probabilities), floor, np.array(caps))


def test_floor_mixes_in_evenly():
    np.testing.assert_allclose(mixed([0.9, 0.1, 0.0], floor=0.05), [0.815, 0.135, 0.05])


def test_more_arms_than_floors_fit_share_equally():
    np.testing.assert_allclose(mixed([0.9, 0.1, 0.0], floor=0.4), [1 / 3] * 3)


def test_what_a_cap_cuts_off_goes_to_the_others_in_proportion():
    np.testing.assert_allclose(mixed([0.7, 0.2, 0.1], caps=[0.4, 1, 1]), [0.4, 0.4, 0.2])


def test_an_excess_that_fills_another_cap_flows_on():
    np.testing.assert_allclose(mixed([0.7, 0.2, 0.1], caps=[0.4, 0.3, 1]), [0.4, 0.3, 0.3])


def test_arms_without_a_share_take_what_no_other_may():
    np.testing.assert_allclose(mixed([1.0, 0.0, 0.0], caps=[0.4, 0.9, 0.3]), [0.4, 0.45, 0.15])


def test_caps_that_leave_less_than_one_are_raised_in_proportion():
    np.testing.assert_allclose(mixed([0.1, 0.9], caps=[0.3, 0.1]), [0.75, 0.25])


def test_caps_that_are_all_zero_are_not_heeded():
    np.testing.assert_allclose(mixed([0.1, 0.9], caps=[0.0, 0.0]), [0.1, 0.9])


def test_a_cap_under_the_floor_wins():
    np.testing.assert_allclose(mixed([1 / 3] * 3, floor=0.2, caps=[0.1, 1, 1]), [0.1, 0.45, 0.45])


@pytest.mark.parametrize(
    ("probabilities", "floor", "caps", "field"),
    [
        ([0.5, 0.4], 0.0, [1.0, 1.0], "probabilities"),
        ([1.5, -0.5], 0.0, [1.0, 1.0], "probabilities"),
        ([math.nan, 1.0], 0.0, [1.0, 1.0], "probabilities"),
        ([], 0.0, [], "probabilities"),
        ([0.5, 0.5], -0.1, [1.0, 1.0], "floor"),
        ([0.5, 0.5], math.nan, [1.0, 1.0], "floor"),
        ([0.5, 0.5], 0.0, [1.0, 1.1], "caps"),
        ([0.5, 0.5], 0.0, [1.0], "caps"),
        ([[0.5, 0.5]], 0.0, [[1.0, 1.0]], "caps"),
    ],
)
def test_mixing_names_what_is_wrong(probabilities, floor, caps, field):
    with pytest.raises(InvalidInputError, match=f"^{field}: "):
        mixed(probabilities, floor, caps)


ALMOST_ONE = 1.0 - 2.0**-53


@pytest.mark.parametrize(
    ("probabilities", "uniform", "arm"),
    [
        ([0.5, 0.5], 0.0, 0),
        ([0.5, 0.5], math.nextafter(0.5, 0.0), 0),
        ([0.5, 0.5], 0.5, 1),
        ([0.0, 0.0, 1.0], 0.0, 2),
        ([1.0, 0.0], ALMOST_ONE, 0),
        ([0.1] * 10 + [0.0], ALMOST_ONE, 9),  # Ten tenths add up to less than one.
    ],
)
def test_draw_is_exact_at_the_edges(probabilities, uniform, arm):
    assert draw(np.array(probabilities), uniform) == arm


@pytest.mark.parametrize("uniform", [-0.1, 1.0, math.nan])
def test_draw_refuses_a_number_outside_the_unit_interval(uniform):
    with pytest.raises(InvalidInputError, match=r"uniform: must be in \[0, 1\)"):
        draw(np.array([1.0]), uniform)


@pytest.mark.parametrize("probabilities", [[], [0.0, 0.0], [math.nan]])
def test_draw_refuses_to_draw_nothing(probabilities):
    with pytest.raises(InvalidInputError, match="probabilities: must hold a positive one"):
        draw(np.array(probabilities), 0.5)


# --- policies and their sums ----------------------------------------------------------------------


def seen():
    """Return sums of two arms: decided 5 and 2, shown 3 and 0, goals 2 and 1."""
    return PolicyState({"a": ArmSums(5, 3, 2, 1, 7.5), "b": ArmSums(2, 0, 1, 0, 1.0)}, version=14)


@pytest.mark.parametrize(
    ("learn_from", "expected"),
    [("exposures", (3.0, 5.0)), ("auto", (3.0, 5.0)), ("decisions", (4.0, 6.0))],
)
def test_posterior_is_prior_plus_successes_and_failures(learn_from, expected):
    spec = Thompson(prior_alpha=2.0, prior_beta=3.0)
    assert thompson.posterior(spec, seen(), "a", learn_from) == expected


def test_posterior_of_an_arm_never_seen_is_the_prior():
    assert thompson.posterior(Thompson(), seen(), "new", "auto") == (1.0, 1.0)


def test_decisions_count_as_trials_until_an_exposure_is_known():
    state = PolicyState()
    base.decided(state, "a")
    assert thompson.posterior(Thompson(), state, "b", "auto") == (1.0, 1.0)
    assert thompson.posterior(Thompson(), state, "a", "auto") == (1.0, 2.0)
    base.exposed(state, "b", is_rewarded=False)
    assert thompson.posterior(Thompson(), state, "a", "auto") == (1.0, 1.0)


def test_outcomes_ahead_of_their_trials_are_no_negative_failures():
    state = PolicyState({"a": ArmSums(rewarded_decided=3)})
    assert thompson.posterior(Thompson(), state, "a", "decisions") == (4.0, 1.0)


def test_thompson_is_the_quadrature_of_the_posteriors():
    state = seen()
    base.publish(state)
    found = thompson.probabilities(Thompson(), state, ("a", "b", "new"), "decisions")
    assert np.array_equal(found, best([3, 2, 1], [4, 2, 1]))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"a": 1.0, "b": 3.0}, [0.25, 0.75, 0.0]),
        ({}, [1 / 3] * 3),
        ({"a": 0.0, "elsewhere": 5.0}, [1 / 3] * 3),
        ({"c": 5e-324}, [0.0, 0.0, 1.0]),
    ],
)
def test_fixed_weights_are_shared_among_the_arms_at_hand(weights, expected):
    np.testing.assert_allclose(fixed.probabilities(Fixed(weights), ("a", "b", "c")), expected)


def test_every_copy_for_decisions_is_a_version_and_few_trials_are_copied_at_once():
    state = PolicyState()
    base.decided(state, "a")
    base.exposed(state, "a", is_rewarded=False)
    base.rewarded(state, "a", is_exposed=True, value=2.5)
    sums = {"a": ArmSums(1, 1, 1, 1, 2.5)}
    assert state == PolicyState(sums, version=3, published=sums, counted=2)


def test_merging_changes_neither_side():
    left, right = seen(), PolicyState({"b": ArmSums(1, 1, 1, 1, 4.0)}, version=3)
    both = base.merged(left, right)
    assert both == PolicyState({"a": ArmSums(5, 3, 2, 1, 7.5), "b": ArmSums(3, 1, 2, 1, 5.0)}, version=17)
    base.decided(both, "a")
    assert left == seen()
