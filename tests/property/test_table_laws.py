"""Tables over a state store: what a checkpoint commits, what the cache forgets, what a failure leaves.

The model is a dict. A table may hold next to nothing in memory, and a checkpoint may take as long as it
likes while entries go on changing; neither shows in what is read or committed.
"""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.live.table import Table
from tailorbird.stores.memory import MemoryState

KEYS = ("a", "b", "c", "d", "ab")
lawfully = settings(max_examples=150, deadline=None)


class Counted:
    """A value that is changed in place, as profiles are."""

    def __init__(self, number: int, padding: int = 0) -> None:
        self.number = number
        self.padding = padding


def encode(value: Counted) -> bytes:
    return msgspec.json.encode([value.number, "x" * value.padding])


def decode(payload: bytes) -> Counted:
    number, padding = msgspec.json.decode(payload)
    return Counted(number, len(padding))


def table_over(store: MemoryState, cache_bytes_max: int) -> Table[Counted]:
    return Table(store, "t", (encode, decode), cache_bytes_max)


def held(store: MemoryState) -> dict[str, int]:
    return {key: decode(payload).number for key, payload in store.scan("t")}


keys = st.sampled_from(KEYS)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, st.integers(0, 99)),
        st.tuples(st.just("change"), keys, st.integers(0, 99)),
        st.tuples(st.just("delete"), keys),
        st.tuples(st.just("get"), keys),
        st.tuples(st.just("keep"), keys),
        st.tuples(st.just("scan"), st.sampled_from(["", "a"])),
        st.tuples(st.just("begin")),
        st.tuples(st.just("step"), st.integers(1, 3)),
        st.tuples(st.just("changes")),
        st.tuples(st.just("done")),
        st.tuples(st.just("failed")),
    ),
    max_size=60,
)


class Trial:
    """A table beside its model, and where its checkpoint stands."""

    def __init__(self, cache_bytes_max: int) -> None:
        self.store = MemoryState(("t",))
        self.table = table_over(self.store, cache_bytes_max)
        self.now: dict[str, int] = {}
        self.then: dict[str, int] = {}
        self.changes: list[Any] = []
        self.phase = "idle"

    def take(self, kind: str, *rest: Any) -> None:
        getattr(self, kind)(*rest)

    def put(self, key: str, number: int) -> None:
        self.table.put(key, Counted(number))
        self.now[key] = number

    def change(self, key: str, number: int) -> None:
        value = self.table.change(key)
        assert (value is None) == (key not in self.now)
        if value is not None:
            value.number = self.now[key] = number

    def delete(self, key: str) -> None:
        self.table.delete(key)
        self.now.pop(key, None)

    def get(self, key: str) -> None:
        value = self.table.get(key)
        assert (None if value is None else value.number) == self.now.get(key)

    def keep(self, key: str) -> None:
        # Only what can be had again from elsewhere is kept: the value that is known already.
        if key in self.now:
            self.table.keep(key, Counted(self.now[key]))

    def scan(self, prefix: str) -> None:
        found = {key: value.number for key, value in self.table.scan(prefix)}
        assert found == {key: number for key, number in self.now.items() if key.startswith(prefix)}

    def begin(self) -> None:
        if self.phase == "idle":
            self.table.checkpoint_begin()
            self.then = dict(self.now)
            self.phase = "encoding"
            assert self.table.dirty_count == 0

    def step(self, count: int) -> None:
        if self.phase == "encoding":
            assert self.table.checkpoint_step(count) <= count

    def finish_changes(self) -> None:
        if self.phase == "encoding":
            while self.table.checkpoint_step(2):
                pass
            self.changes = self.table.checkpoint_changes()
            self.phase = "committing"

    def done(self) -> None:
        self.finish_changes()
        if self.phase == "committing":
            self.store.commit(self.store.offset + 1, self.changes)
            self.table.checkpoint_done()
            self.phase = "idle"
            assert held(self.store) == self.then, "exactly the state at the checkpoint's beginning"

    def failed(self) -> None:
        self.finish_changes()
        if self.phase == "committing":
            before = held(self.store)
            self.table.checkpoint_failed()
            self.phase = "idle"
            assert held(self.store) == before


@lawfully
@given(history=steps, cache_bytes_max=st.sampled_from([1, 300, 5_000, 1 << 20]))
def test_a_checkpoint_commits_the_moment_of_its_beginning(history, cache_bytes_max):
    trial = Trial(cache_bytes_max)
    for kind, *rest in history:
        trial.take("finish_changes" if kind == "changes" else kind, *rest)
    for key in KEYS:
        trial.get(key)
    trial.scan("")
    trial.done()
    trial.begin()
    trial.done()
    assert held(trial.store) == trial.now, "nothing is lost, however little was kept in memory"


@lawfully
@given(history=steps)
def test_a_tiny_cache_and_a_roomy_one_commit_the_same_bytes(history):
    digests = set()
    for cache_bytes_max in (1, 1 << 20):
        trial = Trial(cache_bytes_max)
        for kind, *rest in history:
            trial.take("finish_changes" if kind == "changes" else kind, *rest)
        trial.done()
        trial.begin()
        trial.done()
        digests.add(trial.store.digest())
    assert len(digests) == 1


def filled(count: int, cache_bytes_max: int, padding: int = 1_000) -> tuple[MemoryState, Table[Counted]]:
    """Return a table whose store holds `count` entries and whose cache is empty."""
    store = MemoryState(("t",))
    table = table_over(store, 1 << 30)
    for number in range(count):
        table.put(f"k{number:03d}", Counted(number, padding))
    commit(store, table)
    return store, table_over(store, cache_bytes_max)


def commit(store: MemoryState, table: Table[Counted]) -> None:
    table.checkpoint_begin()
    while table.checkpoint_step(7):
        pass
    store.commit(store.offset + 1, table.checkpoint_changes())
    table.checkpoint_done()


def test_the_cache_stays_within_its_bound_while_entries_are_read():
    _, table = filled(200, 30_000)
    for number in range(200):
        assert table.get(f"k{number:03d}").number == number
        assert table.cache_bytes <= 30_000


def test_the_cache_keeps_what_was_used_last():
    store, table = filled(40, 60_000)
    for number in range(40):
        table.get("k000")
        table.get(f"k{number:03d}")
    kept = table.get("k000")
    store.commit(store.offset + 1, [])
    assert table.get("k000") is kept


def test_changes_are_never_dropped_and_what_is_read_beside_them_stays_bounded():
    store, table = filled(400, 60_000)
    for number in range(20):
        table.change(f"k{number:03d}").number = -number
    unwritten = table.cache_bytes
    for _ in range(3):
        for number in range(20, 400):
            table.get(f"k{number:03d}")
            assert table.cache_bytes <= unwritten + 20_000
    commit(store, table)
    assert table.cache_bytes <= 60_000
    assert [decode(store.get("t", f"k{number:03d}")).number for number in range(20)] == [
        -number for number in range(20)
    ]


def test_a_failed_commit_is_written_by_the_next_one():
    store, table = filled(3, 1)
    table.put("new", Counted(7))
    table.delete("k001")
    table.checkpoint_begin()
    while table.checkpoint_step(1):
        pass
    table.checkpoint_changes()
    table.change("k002").number = 99
    table.checkpoint_failed()
    assert held(store) == {"k000": 0, "k001": 1, "k002": 2}
    commit(store, table)
    assert held(store) == {"k000": 0, "k002": 99, "new": 7}
