"""Laws of computed attributes: artifacts come back whole, time is split cleanly, sums are those of a loop."""

import functools

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.buyers import NAMES, buyers

from tailorbird.errors import InvalidInputError
from tailorbird.schema.computed import Churn, ComputedModel, LifetimeValue
from tailorbird.segment.computed import compute
from tailorbird.segment.fitting import fit
from tailorbird.segment.occurrences import Occurrences
from tailorbird.segment.split import time_split

floats = st.floats(-1e6, 1e6, width=32)
times = st.integers(0, 50).map(float)
happened = st.lists(
    st.tuples(st.integers(0, 4), times, st.integers(-9, 9).map(float)), min_size=1, max_size=40
)


@functools.cache
def model_of(kind: type) -> ComputedModel:
    known = buyers(1)
    return fit(kind(), known.snapshots, known.occurrences, known.until)


@settings(max_examples=30, deadline=None)
@given(matrix=arrays(np.float32, st.tuples(st.integers(1, 8), st.just(len(NAMES))), elements=floats))
def test_a_decoded_artifact_says_the_very_same(matrix):
    for kind in (Churn, LifetimeValue):
        model = model_of(kind)
        values = compute(model, matrix, NAMES)
        for codec in (msgspec.json, msgspec.msgpack):
            again = codec.decode(codec.encode(model), type=ComputedModel)
            assert (compute(again, matrix, NAMES) == values).all()
        assert (values >= 0.0).all()
        assert kind is LifetimeValue or (values <= 1.0).all()


@given(cuts=st.lists(times, min_size=1, max_size=30), until=times, horizon=st.integers(1, 12).map(float))
def test_no_horizon_reaches_into_the_next_part(cuts, until, horizon):
    try:
        split = time_split(np.array(cuts), until, horizon)
    except InvalidInputError:
        return
    assert split.fit.max() + horizon <= split.calibrate
    assert split.calibrate + horizon <= split.holdout
    assert split.holdout + horizon <= until
    assert {*split.fit.tolist(), split.calibrate, split.holdout} <= set(cuts)


@given(happened=happened, person=st.integers(0, 6), start=times, stop=times)
def test_counts_sums_and_times_are_those_of_a_loop(happened, person, start, stop):
    seen = Occurrences(*(np.array(column) for column in zip(*happened, strict=True)))
    who, first, last = np.array([person]), np.array([start]), np.array([max(start, stop)])
    inside = [value for other, t, value in happened if other == person and start < t <= last[0]]
    before = [t for other, t, _ in happened if other == person and t <= start]
    assert seen.counts(who, first, last).tolist() == [len(inside)]
    assert seen.sums(who, first, last).tolist() == [sum(inside)]
    assert seen.since_last(who, first).tolist() == [start - max(before) if before else np.inf]
    assert seen.since_first(who, first).tolist() == [start - min(before) if before else np.inf]
