"""Laws of the moments: however they were arrived at, they equal one pass over the units' totals."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.stats.moments import (
    UnitMoments,
    UnitTotals,
    add_unit,
    count_decision,
    count_exposure,
    count_outcome,
)

UNITS = 4
values = st.floats(-1e6, 1e6).map(lambda value: round(value, 4))
steps = st.tuples(
    st.integers(0, UNITS - 1),
    st.one_of(
        st.just("decision"),
        st.tuples(st.just("exposure"), st.booleans()),
        st.tuples(values, st.booleans()),
    ),
)
totals = st.builds(
    UnitTotals,
    decisions=st.integers(0, 10_000),
    exposures=st.integers(0, 10_000),
    outcomes=st.integers(0, 10_000),
    value=values,
    outcomes_shown=st.integers(0, 10_000),
)


def one_pass(units: Sequence[UnitTotals]) -> UnitMoments:
    moments = UnitMoments()
    for unit in units:
        add_unit(moments, unit)
    return moments


def assert_same(left: UnitMoments, right: UnitMoments, scale: float) -> None:
    """Counts are equal exactly; values within the rounding of sums that passed through `scale`."""
    for field in UnitMoments.__struct_fields__:
        found, expected = getattr(left, field), getattr(right, field)
        if field == "value":
            assert found == pytest.approx(expected, rel=1e-12, abs=1e-12 * scale)
        elif field == "value_squared":
            assert found == pytest.approx(expected, rel=1e-12, abs=1e-12 * scale**2)
        else:
            assert found == expected, field


def take(step: Any, moments: UnitMoments, unit: UnitTotals) -> None:
    match step:
        case "decision":
            count_decision(moments, unit)
        case "exposure", is_rewarded:
            count_exposure(moments, unit, is_rewarded=is_rewarded)
        case value, is_shown:
            count_outcome(moments, unit, float(value), is_shown=is_shown)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=60))
def test_any_order_of_happenings_equals_one_pass_over_the_totals(happenings) -> None:
    moments = UnitMoments()
    units = [UnitTotals() for _ in range(UNITS)]
    for unit in units:
        add_unit(moments, unit)
    for index, step in happenings:
        take(step, moments, units[index])
    scale = 1.0 + sum(abs(unit.value) for unit in units) + 1e6 * len(happenings)
    assert_same(moments, one_pass(units), scale)


@settings(max_examples=200, deadline=None)
@given(st.lists(totals, min_size=2, max_size=8))
def test_merging_two_units_is_taking_both_out_and_adding_the_sum(units) -> None:
    moments = one_pass(units)
    first, second, *others = units
    merged = UnitTotals(
        *(
            left + right
            for left, right in zip(
                msgspec.structs.astuple(first), msgspec.structs.astuple(second), strict=True
            )
        )
    )
    add_unit(moments, first, -1)
    add_unit(moments, second, -1)
    add_unit(moments, merged)
    scale = 1.0 + sum(abs(unit.value) for unit in units)
    assert_same(moments, one_pass([merged, *others]), scale)


@settings(max_examples=200, deadline=None)
@given(st.lists(totals, max_size=6), st.lists(totals, max_size=6))
def test_moments_of_disjoint_units_add_up(left, right) -> None:
    added = UnitMoments(
        *(
            one + other
            for one, other in zip(
                msgspec.structs.astuple(one_pass(left)),
                msgspec.structs.astuple(one_pass(right)),
                strict=True,
            )
        )
    )
    scale = 1.0 + sum(abs(unit.value) for unit in [*left, *right])
    assert_same(added, one_pass([*left, *right]), scale)


@settings(max_examples=200, deadline=None)
@given(totals, st.lists(totals, max_size=5))
def test_a_unit_that_is_taken_out_leaves_no_trace(unit, others) -> None:
    moments = one_pass([unit, *others])
    add_unit(moments, unit, -1)
    scale = 1.0 + sum(abs(each.value) for each in [unit, *others])
    assert_same(moments, one_pass(others), scale)
