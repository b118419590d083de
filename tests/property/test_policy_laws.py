"""Laws that every policy keeps. Members of the union are discovered: a new one is tested too."""

import itertools
from typing import get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.limits import VARIANTS_MAX
from tailorbird.policies import base
from tailorbird.policies.base import PolicyState
from tailorbird.policies.mixing import draw, with_floors_and_caps
from tailorbird.policies.quadrature import BestProbabilities, best_probabilities
from tailorbird.policies.union import probabilities
from tailorbird.schema.placement import Placement, Policy

ARMS = ("a", "b", "c", "d", "e")
POLICIES = get_args(Policy)
LEARN_FROM = ("auto", "exposures", "decisions")
quickly = settings(max_examples=60, deadline=None)


def values(kind):
    """Return a strategy for values of a field, by its declared type and bounds."""
    match kind:
        case msgspec.inspect.FloatType():
            low, above = (kind.gt, True) if kind.ge is None else (kind.ge, False)
            return st.floats(low, kind.le, exclude_min=above, allow_subnormal=False)
        case msgspec.inspect.IntType():
            return st.integers(kind.ge, kind.le)
        case msgspec.inspect.DictType(key_type=msgspec.inspect.StrType()):
            return st.dictionaries(st.sampled_from(ARMS), values(kind.value_type))
        case msgspec.inspect.LiteralType():
            return st.sampled_from(kind.values)
    pytest.fail(f"No strategy for {kind}: add one above.")


def policies(member):
    fields = msgspec.inspect.type_info(member).fields
    return st.builds(member, **{field.name: values(field.type) for field in fields})


happenings = st.tuples(
    st.sampled_from(ARMS),
    st.booleans(),  # Shown.
    st.booleans(),  # Goal reached.
    st.integers(-40, 400).map(lambda quarters: quarters / 4),  # Exact in a double, in any order.
    st.permutations(("decided", "exposed", "rewarded")),
)
logs = st.lists(happenings, max_size=30)


def fold(state, log):
    """Fold decisions into `state`, each told in its own order."""
    for arm, is_shown, is_reached, value, order in log:
        told = set()
        for step in order:
            if step == "decided":
                base.decided(state, arm)
            elif step == "exposed" and is_shown:
                base.exposed(state, arm, is_rewarded="rewarded" in told)
            elif step == "rewarded" and is_reached:
                base.rewarded(state, arm, is_exposed="exposed" in told, value=value)
            else:
                continue
            told.add(step)
    return state


every_policy = pytest.mark.parametrize("member", POLICIES, ids=lambda member: member.__name__)


@every_policy
@quickly
@given(data=st.data(), log=logs, learn_from=st.sampled_from(LEARN_FROM))
def test_probabilities_are_a_distribution(member, data, log, learn_from):
    state = fold(PolicyState(), log)
    arms = tuple(data.draw(st.permutations(ARMS)))[: data.draw(st.integers(1, len(ARMS)))]
    found = probabilities(data.draw(policies(member)), state, arms, learn_from)
    assert found.shape == (len(arms),)
    assert np.all(found >= 0.0)
    assert abs(found.sum() - 1.0) <= 1e-12


@every_policy
@quickly
@given(data=st.data(), log=logs, learn_from=st.sampled_from(LEARN_FROM))
def test_same_sums_give_the_same_bits_whatever_was_cached(member, data, log, learn_from):
    policy, cache, state = data.draw(policies(member)), BestProbabilities(), PolicyState()
    for happening in log:
        fold(state, [happening])
        arms = ARMS[: data.draw(st.integers(1, len(ARMS)))]
        cached = probabilities(policy, state, arms, learn_from, cache)
        reloaded = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=PolicyState)
        assert cached.tobytes() == probabilities(policy, reloaded, arms, learn_from).tobytes()


@every_policy
@quickly
@given(data=st.data(), log=logs)
def test_asking_changes_nothing(member, data, log):
    state, policy = fold(PolicyState(), log), data.draw(policies(member))
    before = msgspec.msgpack.encode((state, policy))
    probabilities(policy, state, ARMS, "auto")
    assert msgspec.msgpack.encode((state, policy)) == before


@every_policy
@quickly
@given(data=st.data(), log=logs)
def test_an_arms_probability_goes_with_the_arm_not_its_place(member, data, log):
    state, policy = fold(PolicyState(), log), data.draw(policies(member))
    order = data.draw(st.permutations(range(len(ARMS))))
    moved = probabilities(policy, state, tuple(ARMS[place] for place in order), "auto")
    np.testing.assert_allclose(moved, probabilities(policy, state, ARMS, "auto")[order], atol=1e-12, rtol=0)


@every_policy
@quickly
@given(data=st.data())
def test_policies_survive_being_written_and_read(member, data):
    placement = Placement(key="home", policy=data.draw(policies(member)))
    for codec in (msgspec.json, msgspec.msgpack):
        assert codec.decode(codec.encode(placement), type=Placement) == placement


@quickly
@given(log=logs)
def test_sums_survive_being_written_and_read(log):
    state = fold(PolicyState(), log)
    for codec in (msgspec.json, msgspec.msgpack):
        assert codec.decode(codec.encode(state), type=PolicyState) == state


@quickly
@given(left=logs, right=logs)
def test_merged_sums_equal_one_fold(left, right):
    both = base.merged(fold(PolicyState(), left), fold(PolicyState(), right))
    one = fold(PolicyState(), left + right)
    assert both.arms == one.arms
    assert both.counted == one.counted
    # What decisions are made from is a copy taken now and then: taken now, it is the same.
    base.publish(both)
    base.publish(one)
    assert both.published == one.published


@quickly
@given(log=logs)
def test_what_decisions_are_made_from_is_never_far_behind(log):
    state = fold(PolicyState(), log)
    assert state.unpublished * base.PUBLISH_SHARE < max(state.counted, 1)
    known = sum(sums.rewarded_decided for sums in state.published.values())
    assert known == sum(sums.rewarded_decided for sums in state.arms.values())


@quickly
@given(logs=st.tuples(logs, logs, logs))
def test_merging_is_a_commutative_monoid(logs):
    a, b, c = (fold(PolicyState(), log) for log in logs)
    assert base.merged(a, b) == base.merged(b, a)
    assert base.merged(base.merged(a, b), c) == base.merged(a, base.merged(b, c))
    assert base.merged(a, PolicyState()) == a


@pytest.mark.parametrize("is_shown", [False, True])
@pytest.mark.parametrize("is_reached", [False, True])
def test_any_order_of_one_decision_gives_the_same_sums(is_shown, is_reached):
    orders = itertools.permutations(("decided", "exposed", "rewarded"))
    states = [fold(PolicyState(), [("a", is_shown, is_reached, 2.5, order)]) for order in orders]
    assert all(state == states[0] for state in states)
    sums = states[0].arms["a"]
    assert (sums.decided, sums.exposed, sums.rewarded_decided) == (1, is_shown, is_reached)
    assert sums.rewarded_exposed == (is_shown and is_reached)


# --- the quadrature's memory ----------------------------------------------------------------------

parameters = st.floats(0.3, 1e6)


@quickly
@given(data=st.data(), arms=st.integers(1, VARIANTS_MAX), seed=st.integers(0, 2**32 - 1))
def test_cache_equals_the_pure_function_under_any_updates(data, arms, seed):
    generator = np.random.default_rng(seed)
    alphas, betas = 10.0 ** generator.uniform(-0.5, 6.0, (2, arms))
    cache = BestProbabilities()
    for _ in range(data.draw(st.integers(1, 12))):
        moved = generator.integers(arms, size=generator.integers(1, 3))
        factor = generator.choice([1.0, 1.0, 0.01, 100.0])
        alphas[moved] = np.clip(alphas[moved] * factor + generator.integers(2), 0.3, 1e6)
        betas[moved] = np.clip(betas[moved] * factor + 1, 0.3, 1e6)
        cached = cache.compute(alphas, betas)
        assert cached.tobytes() == best_probabilities(alphas, betas).tobytes()
        assert np.all(cached >= 0.0)
        assert abs(cached.sum() - 1.0) <= 1e-12


@quickly
@given(posteriors=st.lists(st.tuples(parameters, parameters), min_size=2, max_size=20))
def test_one_more_success_never_makes_an_arm_less_likely(posteriors):
    alphas, betas = (np.array(column) for column in zip(*posteriors, strict=True))
    before = best_probabilities(alphas, betas)[0]
    alphas[0] += 1.0
    assert best_probabilities(alphas, betas)[0] >= before - 1e-6


# --- floors, caps and the draw --------------------------------------------------------------------

shares = st.lists(st.floats(0.0, 1.0, allow_subnormal=False), min_size=1, max_size=30).filter(
    lambda weights: sum(weights) > 1e-3
)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), weights=shares, floor=st.floats(0.0, 1.0))
def test_floors_and_caps_hold(data, weights, floor):
    arms = len(weights)
    caps = np.array(data.draw(st.lists(st.floats(0.0, 1.0), min_size=arms, max_size=arms)))
    said = np.array(weights) / sum(weights)
    found = with_floors_and_caps(said, floor, caps)
    least = np.minimum(min(floor, 1 / arms), caps)
    assert np.all(found >= 0.0)
    assert abs(found.sum() - 1.0) <= 1e-12
    if caps.sum() > 1.0:
        assert np.all(found <= caps)
        assert np.all(found >= least - 1e-12)
    elif caps.sum() > 0.0:
        np.testing.assert_allclose(found, caps / caps.sum(), atol=1e-12)


@quickly
@given(weights=shares)
def test_without_floor_and_caps_nothing_changes(weights):
    said = np.array(weights) / sum(weights)
    assert np.array_equal(with_floors_and_caps(said, 0.0, np.ones(len(said))), said)


@settings(max_examples=300, deadline=None)
@given(weights=shares, uniform=st.floats(0.0, 1.0, exclude_max=True))
def test_draw_falls_where_the_distribution_function_says(weights, uniform):
    said = np.array(weights) / sum(weights)
    arm = draw(said, uniform)
    assert said[arm] > 0.0
    assert said[:arm].sum() <= uniform + 1e-12
    assert uniform <= said[: arm + 1].sum() + 1e-12
