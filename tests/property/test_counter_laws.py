"""Counters against plain counting: a list of events, gone over once more for every number."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.people import Person

from tailorbird.features.counters import COLUMNS, HALF_LIFE_SECONDS
from tailorbird.features.state import pack, unpack
from tailorbird.limits import COUNTER_KEYS_MAX

BEGIN = 1_700_000_000.0
TILES = ((300.0, 12), (3600.0, 24), (86400.0, 7), (86400.0, 30), (86400.0, 90))
"""Width and number of tiles of the five windows."""
KEYS = ("e:Product Viewed", "e:Order Completed", "c:shoes")
lawfully = settings(max_examples=60, deadline=None)

# Shifts of every scale that a tile or a half-life has, with some that fall on an edge.
shifts = st.one_of(
    st.integers(-40, 40).map(lambda days: days * 86400.0),
    st.integers(-60, 60).map(lambda hours: hours * 3600.0),
    st.integers(-30, 30).map(lambda tiles: tiles * 300.0),
    st.floats(-4e6, 4e6, allow_nan=False),
)
times = shifts.map(lambda shift: BEGIN + shift)
events = st.lists(st.tuples(st.sampled_from(KEYS), times), max_size=25)


def counted(history: list[tuple[str, float]], like: Person | None = None) -> Person:
    made = Person(BEGIN, None if like is None else like.vocabulary)
    for key, t in history:
        made.count(key, t)
    return made


def plainly(seen: list[float], at: float) -> list[float]:
    """Return the ten columns by going over all events; `at` is not before any of them."""
    windows = [sum(at // width - size < t // width <= at // width for t in seen) for width, size in TILES]
    decayed = [sum(2.0 ** (-(at - t) / half_life) for t in seen) for half_life in HALF_LIFE_SECONDS]
    return [len(seen), *windows, *decayed]


def assert_same(found: np.ndarray, expected: list[float]) -> None:
    exact = len(COLUMNS) - len(HALF_LIFE_SECONDS)
    assert found[:exact].tolist() == expected[:exact]
    np.testing.assert_allclose(found[exact:], expected[exact:], rtol=1e-4, atol=1e-6)


@lawfully
@given(history=events, later=st.floats(0.0, 4e6))
def test_counters_equal_plain_counting_in_whatever_order_events_come(history, later):
    at = max([BEGIN, *(t for _, t in history)]) + later
    made = counted(history)
    for key in KEYS:
        expected = plainly([t for name, t in history if name == key], at)
        assert_same(made.read(key, at), expected)


@lawfully
@given(history=events, order=st.randoms(use_true_random=False), later=st.floats(0.0, 4e6))
def test_the_order_of_events_does_not_show(history, order, later):
    shuffled = order.sample(history, len(history))
    at = max([BEGIN, *(t for _, t in history)]) + later
    one, other = counted(history), counted(shuffled)
    for key in KEYS:
        assert_same(one.read(key, at), other.read(key, at).tolist())


@lawfully
@given(history=events, at=times)
def test_windows_read_in_the_past_hold_what_is_still_kept(history, at):
    made = counted(history)
    for key in KEYS:
        seen = [t for name, t in history if name == key]
        found = made.read(key, at)
        for column, (width, size) in enumerate(TILES, 1):
            kept = {300.0: 12, 3600.0: 24, 86400.0: 90}[width]
            newest = max(seen, default=0.0) // width
            expected = sum(max(at // width - size, newest - kept) < t // width <= at // width for t in seen)
            assert found[column] == expected


@lawfully
@given(left=events, right=events, later=st.floats(0.0, 4e6))
def test_merging_is_having_counted_both(left, right, later):
    at = max([BEGIN, *(t for _, t in left + right)]) + later
    merged, both = counted(left), counted(left + right)
    other = counted(right, merged)
    before = other.state.copy()
    merged.merge(other)
    assert other.state.tolist() == before.tolist(), "what is merged in is not changed"
    for key in KEYS:
        assert_same(merged.read(key, at), both.read(key, at).tolist())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_weakest_key_gives_way_and_rows_stay_aligned_with_keys(seed):
    rng = np.random.default_rng(seed)
    names = [f"c:{index}" for index in range(90)]
    made, seen = Person(BEGIN), {}
    t = BEGIN
    for pick in rng.geometric(0.03, 400) % len(names):
        key = names[pick]
        t += float(rng.exponential(40_000.0))
        before = set(made.keys())
        made.count(key, t)
        if key not in before:
            gone = before - set(made.keys())
            assert len(gone) == (len(before) == COUNTER_KEYS_MAX)
            for name in gone:
                strengths = {kept: plainly(seen[kept], t)[8] for kept in before}
                assert strengths[name] <= min(strengths.values()) * (1 + 1e-4) + 1e-30
            seen[key] = []
        seen[key].append(t)
    table = made.table(t)
    assert set(made.keys()) <= set(seen)
    for index, key in enumerate(made.keys()):
        assert_same(table[index], plainly(seen[key], t))
        assert table[index].tolist() == made.read(key, t).tolist()


def test_an_event_at_the_epoch_is_aged_like_any_other():
    made = counted([("c:shoes", 0.0), ("c:shoes", BEGIN)])
    assert_same(made.read("c:shoes", BEGIN), plainly([0.0, BEGIN], BEGIN))
    merged = counted([("c:shoes", 0.0)])
    merged.merge(counted([("c:shoes", BEGIN)], merged))
    assert_same(merged.read("c:shoes", BEGIN), plainly([0.0, BEGIN], BEGIN))


def test_a_key_that_was_never_counted_reads_zero():
    assert Person().read("c:shoes", BEGIN).tolist() == [0.0] * len(COLUMNS)
    assert Person().table(BEGIN).shape == (0, len(COLUMNS))


@lawfully
@given(history=events)
def test_a_record_comes_back_from_its_bytes_as_it_was(history):
    state = counted(history).state
    again = unpack(pack(state))
    assert again.tobytes() == state.tobytes()
    assert pack(again) == pack(state)
