"""What every state store does, whatever it is kept in."""

import threading

import pytest

from tailorbird.stores.memory import MemoryState
from tailorbird.stores.sqlite import SqliteState
from tailorbird.stores.state import Change, Expiry

KEYS = ["", "a", "a\0b", "ab", "b", "ä", "\ud7ff", "\ue000", "\U0010ffff", "\U0010ffffa"]


def put(table="profiles", **values):
    """Return changes that set each key to its value."""
    return [Change(table, key, value) for key, value in values.items()]


def test_a_new_state_is_empty_and_at_offset_zero(state):
    assert state.offset == 0
    assert state.get("profiles", "a") is None
    assert list(state.scan("profiles")) == []
    assert state.count("profiles") == 0


def test_a_commit_moves_rows_and_offset(state):
    state.commit(7, put(a=b"1", b=b"2"))
    assert state.offset == 7
    assert state.get("profiles", "a") == b"1"
    assert state.get("profiles", "b") == b"2"
    assert state.count("profiles") == 2


def test_tables_are_apart(state):
    state.commit(1, [Change("profiles", "a", b"1"), Change("group", "a", b"2")])
    state.commit(2, [Change("profiles", "a", None)])
    assert state.get("profiles", "a") is None
    assert state.get("group", "a") == b"2"
    assert state.count("group") == 1


def test_values_come_back_as_they_were(state):
    values = [b"", b"\0", bytes(range(256)), b"x" * 100_000]
    state.commit(1, [Change("profiles", str(i), value) for i, value in enumerate(values)])
    assert [state.get("profiles", str(i)) for i in range(4)] == values


def test_a_later_commit_replaces_and_removes(state):
    state.commit(1, put(a=b"1", b=b"2"))
    state.commit(2, [*put(a=b"3"), Change("profiles", "b", None), Change("profiles", "z", None)])
    assert list(state.scan("profiles")) == [("a", b"3")]


def test_the_last_change_of_a_key_wins(state):
    changes = [*put(a=b"1"), Change("profiles", "a", None), *put(a=b"2"), *put(b=b"1")]
    state.commit(1, [*changes, Change("profiles", "b", None)])
    assert list(state.scan("profiles")) == [("a", b"2")]


def test_a_commit_of_nothing_moves_the_offset(state):
    state.commit(3, [])
    assert state.offset == 3


@pytest.mark.parametrize("count", [1, 199, 200, 201, 1_000])
def test_commits_of_any_size_arrive_whole(state, count):
    keys = [f"{number:05d}" for number in range(count)]
    state.commit(1, [Change("profiles", key, key.encode()) for key in keys])
    assert list(state.scan("profiles")) == [(key, key.encode()) for key in keys]
    state.commit(2, [Change("profiles", key, None) for key in keys[1:]])
    assert list(state.scan("profiles")) == [(keys[0], keys[0].encode())]


def test_keys_come_in_pages_in_order(state):
    state.commit(1, [Change("profiles", key, b"") for key in KEYS] + put("group", a=b"1"))
    pages, after = [], ""
    while page := state.keys("profiles", after, 4):
        pages.append(page)
        after = page[-1]
    assert [key for page in pages for key in page] == sorted(KEYS)[1:], "the empty key is behind none"
    assert [len(page) for page in pages] == [4, 4, 1]
    assert state.keys("group", "a", 4) == []


def test_expiry_removes_what_sorts_before_and_nothing_else(state):
    state.commit(1, put(a=b"1", b=b"2", c=b"3") + put("group", a=b"1"))
    state.commit(2, [], [Expiry("profiles", "b")])
    assert list(state.scan("profiles")) == [("b", b"2"), ("c", b"3")]
    assert state.count("group") == 1


def test_expiries_come_after_changes(state):
    state.commit(1, put(a=b"1", b=b"2"), [Expiry("profiles", "b")])
    assert list(state.scan("profiles")) == [("b", b"2")]


def test_scan_goes_in_order_of_code_points(state):
    state.commit(1, [Change("profiles", key, b"x") for key in reversed(KEYS)])
    assert [key for key, _ in state.scan("profiles")] == sorted(KEYS) == KEYS


@pytest.mark.parametrize("prefix", [*KEYS, "c", "a\0"])
def test_scan_returns_what_begins_with_the_prefix(state, prefix):
    state.commit(1, [Change("profiles", key, b"x") for key in KEYS])
    assert [key for key, _ in state.scan("profiles", prefix)] == [
        key for key in KEYS if key.startswith(prefix)
    ]


def test_prefixes_are_no_patterns(state):
    state.commit(1, [Change("profiles", key, b"x") for key in ("a%", "ab", "a_", "a*")])
    assert [key for key, _ in state.scan("profiles", "a%")] == ["a%"]
    assert [key for key, _ in state.scan("profiles", "a_")] == ["a_"]


def test_a_scan_sees_one_state_from_beginning_to_end(state):
    state.commit(1, [Change("profiles", f"{number:04d}", b"old") for number in range(1_000)])
    scanning = state.scan("profiles")
    rows = [next(scanning)]
    state.commit(2, [Change("profiles", f"{number:04d}", b"new") for number in range(2_000)])
    assert state.get("profiles", "0000") == b"new"
    rows += scanning
    assert rows == [(f"{number:04d}", b"old") for number in range(1_000)]


def test_gets_go_on_beside_a_scan(state):
    state.commit(1, put(a=b"1", b=b"2"))
    assert [(key, state.get("profiles", key)) for key, _ in state.scan("profiles")] == [
        ("a", b"1"),
        ("b", b"2"),
    ]


def test_readers_see_no_part_of_a_commit_in_another_thread(state):
    keys = [f"{number:03d}" for number in range(500)]
    state.commit(0, [Change("profiles", key, b"0") for key in keys])

    def commit_all():
        for offset in range(1, 20):
            state.commit(offset, [Change("profiles", key, b"%d" % offset) for key in keys])

    committer = threading.Thread(target=commit_all)
    committer.start()
    seen = [{value for _, value in state.scan("profiles")} for _ in range(30)]
    committer.join(30)
    assert all(len(values) == 1 for values in seen)
    numbers = [int(values.pop()) for values in seen]
    assert numbers == sorted(numbers)
    assert state.get("profiles", "250") == b"19"


@pytest.mark.parametrize("name", ["nothing", "meta", "profiles; drop table meta", ""])
def test_an_unknown_table_is_refused_by_name(state, name):
    state.commit(1, put(a=b"1"))
    for call in (
        lambda: state.get(name, "a"),
        lambda: state.scan(name),
        lambda: state.count(name),
        lambda: state.commit(2, [*put(a=b"2"), Change(name, "a", b"1")]),
        lambda: state.commit(2, put(a=b"2"), [Expiry(name, "a")]),
    ):
        with pytest.raises(ValueError, match=r"table .* is unknown; this store has group, profiles"):
            call()
    assert state.offset == 1
    assert state.get("profiles", "a") == b"1"


def test_equal_states_have_equal_digests_however_they_came_about(state):
    empty = state.digest()
    state.commit(1, put(a=b"1", b=b"2"))
    first = state.digest()
    assert first != empty
    state.commit(2, [Change("profiles", "a", None), *put(b=b"3", c=b"4")])
    state.commit(9, [*put(b=b"2", a=b"1"), Change("profiles", "c", None)])
    assert state.digest() == first
    state.commit(9, [Change("profiles", "a", None), Change("profiles", "b", None)])
    assert state.digest() == empty


@pytest.mark.parametrize(
    "changes",
    [
        put(a=b"1"),
        put(a=b"2", b=b""),
        put(ab=b""),
        put(a=b"1", b=b"1"),
        put("group", a=b"1", b=b""),
    ],
)
def test_different_states_have_different_digests(state, changes):
    state.commit(1, put(a=b"1", b=b""))
    before = state.digest()
    state.commit(1, [Change("profiles", "a", None), Change("profiles", "b", None)])
    state.commit(1, changes)
    assert state.digest() != before


def test_adapters_agree_on_the_digest(tmp_path):
    changes = [Change(table, key, key.encode()) for table in ("one", "two") for key in KEYS]
    digests = set()
    for state in (MemoryState(("two", "one")), SqliteState(tmp_path / "s.db", ("one", "two"))):
        state.commit(1, changes)
        digests.add(state.digest())
        state.close()
    assert len(digests) == 1


def test_closing_twice_does_nothing(state):
    state.close()
    state.close()
