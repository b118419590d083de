"""Message ids: each counts once within two days, across checkpoints, failures and restarts."""

from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.live import seen
from tailorbird.live.seen import SeenIds, key_of
from tailorbird.stores.memory import MemoryState

DAY = 86400.0
BEGIN = 19_700 * DAY


@pytest.fixture(autouse=True, scope="module")
def small_filters() -> Iterator[None]:
    """Make the filters so small that nearly every answer has to come from the store."""
    with mock.patch.object(seen, "BITS", 1 << 5):
        yield


@pytest.fixture
def store() -> MemoryState:
    return MemoryState(("seen",))


def commit(ids: SeenIds, store: MemoryState) -> None:
    ids.checkpoint_begin()
    store.commit(store.offset + 1, ids.checkpoint_changes(), ids.expiries())
    ids.checkpoint_done()


def test_an_id_is_new_once(store):
    ids = SeenIds(store)
    assert ids.add(key_of("m-1"), BEGIN)
    assert not ids.add(key_of("m-1"), BEGIN + 10.0)
    assert ids.add(key_of("m-2"), BEGIN)


def test_an_id_is_known_through_and_after_a_checkpoint(store):
    ids = SeenIds(store)
    ids.note(key_of("m-1"), BEGIN)
    ids.checkpoint_begin()
    assert ids.contains(key_of("m-1")), "while it is being written"
    ids.note(key_of("m-2"), BEGIN)
    store.commit(1, ids.checkpoint_changes(), ids.expiries())
    ids.checkpoint_done()
    assert ids.contains(key_of("m-1"))
    assert ids.contains(key_of("m-2"))
    assert store.count("seen") == 1, "what came after the beginning is in the next commit"


def test_an_id_is_known_for_24_hours_and_not_for_ever(store):
    ids = SeenIds(store)
    late_in_the_day = BEGIN + DAY - 1.0
    ids.note(key_of("m-1"), late_in_the_day)
    commit(ids, store)
    ids.note(key_of("m-2"), late_in_the_day + DAY)
    assert ids.contains(key_of("m-1")), "24 hours later"
    ids.note(key_of("m-3"), BEGIN + 2 * DAY)
    assert not ids.contains(key_of("m-1"))
    commit(ids, store)
    assert store.count("seen") == 2, "what is out of reach leaves the disk, too"


def test_a_restart_knows_what_was_committed(store):
    ids = SeenIds(store)
    ids.note(key_of("m-1"), BEGIN)
    ids.note(key_of("m-2"), BEGIN + DAY)
    commit(ids, store)
    again = SeenIds(store)
    assert again.contains(key_of("m-1"))
    assert again.contains(key_of("m-2"))
    assert not again.contains(key_of("m-3"))


def test_a_failed_commit_is_written_by_the_next_one(store):
    ids = SeenIds(store)
    ids.note(key_of("m-1"), BEGIN)
    ids.checkpoint_begin()
    ids.checkpoint_changes()
    ids.note(key_of("m-2"), BEGIN)
    ids.checkpoint_failed()
    assert ids.contains(key_of("m-1"))
    commit(ids, store)
    assert store.count("seen") == 2


def test_an_id_is_forgotten_with_its_day_whether_or_not_it_was_written(store):
    ids = SeenIds(store)
    ids.note(key_of("m-1"), BEGIN)
    for number in range(100):  # So many that the filter of the new day says "perhaps" to everything.
        ids.note(key_of(f"n-{number}"), BEGIN + 3 * DAY)
    assert not ids.contains(key_of("m-1"))


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([0.0, 600.0, 40_000.0, DAY, 2.5 * DAY])), max_size=30
    ),
    interruptions=st.lists(st.tuples(st.integers(0, 29), st.sampled_from(["commit", "fail", "restart"]))),
)
def test_an_id_is_refused_exactly_while_its_day_is_kept(arrivals, interruptions):
    store = MemoryState(("seen",))
    ids, t = SeenIds(store), BEGIN
    days: dict[int, int] = {}
    for index, (number, wait) in enumerate(arrivals):
        t += wait
        for _, what in [entry for entry in interruptions if entry[0] == index]:
            if what == "fail":
                ids.checkpoint_begin()
                ids.checkpoint_changes()
                ids.checkpoint_failed()
            else:
                commit(ids, store)
            if what == "restart":
                ids = SeenIds(store)
        # A day goes when a message of the day after the next arrives.
        newest = max(days.values(), default=0)
        is_known = days.get(number, -9) > newest - seen.DEDUPLICATION_DAYS
        assert ids.add(key_of(f"m-{number}"), t) is not is_known
        if not is_known:
            days[number] = int(t // DAY)
