"""Laws of the fold, with the memory stores under the real engine.

What the world knows is a function of the log alone: where checkpoints fell, what crashed, how little
the cache held and how often something was sent must not show in a single byte.
"""

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailorbird.app import engine as engine_module
from tailorbird.app.engine import Engine, Options
from tailorbird.app.segment_pass import SegmentPass
from tailorbird.clock import ManualClock, format_time
from tailorbird.collect.collector import Collected, Collector
from tailorbird.decide.compiled import check
from tailorbird.decide.visitor import Request
from tailorbird.errors import InvalidInputError
from tailorbird.live import seen
from tailorbird.live.rule_segments import check_segment
from tailorbird.live.world import TABLES, World
from tailorbird.process.worker import Fold
from tailorbird.schema.decision import PlacementRequest, VisitorRef
from tailorbird.schema.events import LoggedOutcome
from tailorbird.schema.item import Item, ItemDeleted, ItemPatch, ItemPatched, ItemsPut
from tailorbird.schema.placement import Placement
from tailorbird.schema.records import ConsentChanged, PlacementDeleted, PlacementPut
from tailorbird.schema.segment import RuleSegment, SegmentDeleted, SegmentPut
from tailorbird.stores.memory import MemoryLog, MemoryState

SECRET = bytes(range(32))
BEGIN = 1_700_000_000.0
ROOMY = 64 * 1024 * 1024
TINY = 1  # Not one entry fits: everything is read again from the store each time.
ITEMS = ("i1", "i2", "i3", "i4")
PLACEMENTS = {
    "hero": {
        "variants": [{"id": "a"}, {"id": "b", "rule": "!('x' in profile.purchases)"}, {"id": "c"}],
        "goal": {"event": "Order Completed", "value": "properties.revenue", "windowSeconds": 7200},
        "stickySeconds": 600,
        "constraints": {"frequencyCap": {"count": 2, "windowSeconds": 3600}},
    },
    "list": {
        "kind": "list",
        "count": 2,
        "goal": {"event": "Product Viewed", "match": "item"},
        "holdout": 0.5,
    },
    "plain": {"variants": [{"id": "a"}, {"id": "b"}], "policy": {"type": "fixed"}},
}
SEGMENTS = {
    "viewers": {"rule": "profile.views_1h >= 1.0"},
    "shoppers": {"rule": "'viewers' in profile.segments && profile.value > 1.0"},
    "planned": {"rule": "profile.plan == 3"},
    "away": {"rule": "profile.recency_seconds > 1000.0"},
    "seekers": {
        "sequence": {
            "steps": [{"event": "Product Viewed", "times": 2}, {"event": "Searched"}],
            "withinSeconds": 172800,
        }
    },
}
lawfully = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module", autouse=True)
def small_filters() -> Iterator[None]:
    """Make the filters of message ids small: quick to make, and full of false alarms."""
    with mock.patch.object(seen, "BITS", 1 << 9):
        yield


# --- an installation in memory ----------------------------------------------------------------------


class Installation:
    """A real engine whose log and state are in memory, and a clock that moves when told."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(BEGIN)
        self.loop = asyncio.new_event_loop()
        self.engine = Engine(folder, Options(secret=SECRET, holdout_share=0.3, seed=1), self.clock)
        self.collector = Collector(self.clock, lambda _reject: None, lambda _event: False)
        self.sent = 0
        self.decided: list[str] = []

    def send(self, event: dict[str, Any], *, gpc: bool = False) -> Collected:
        """Send one event through the door, with a message id of its own unless it has one."""
        self.sent += 1
        body = json.dumps({"messageId": f"m-{self.sent}"} | event).encode()
        collected = self.collector.single("/v1/batch", body, gpc=gpc)
        self.take_in(collected)
        return collected

    def take_in(self, collected: Collected) -> None:
        """Log and fold what the door let in, and wait until it is durable."""

        async def write() -> None:
            await self.engine.write_events(collected.accepted)

        self.loop.run_until_complete(write())

    def decide(self, visitor: VisitorRef, *keys: str, gpc: bool = False) -> None:
        """Ask for decisions and remember their ids."""
        request = Request(visitor, [PlacementRequest(key) for key in keys])
        request.gpc = gpc
        answers = self.engine.decider.decide(request).answers
        self.decided += [answer.decision_id for answer in answers if answer.decision_id]

    def declare(self, key: str) -> None:
        """Declare one of `PLACEMENTS`."""
        placement = msgspec.convert({"key": key, **PLACEMENTS[key]}, Placement)
        self.engine.write(PlacementPut(self.clock.now(), check(placement)))

    def declare_segment(self, key: str) -> None:
        """Declare one of `SEGMENTS`."""
        segment = msgspec.convert({"key": key, **SEGMENTS[key]}, RuleSegment)
        self.engine.write(SegmentPut(self.clock.now(), check_segment(segment, {})))

    def digest(self) -> str:
        """Commit the world and return the hash of all it knows."""
        self.engine.world.checkpoint()
        return self.engine.world.store.digest()


@contextmanager
def installed() -> Iterator[Installation]:
    """Give an installation over the memory stores."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(engine_module, "SegmentLog", _memory_log),
        mock.patch.object(engine_module, "SqliteState", _memory_state),
    ):
        installation = Installation(Path(folder))
        for key in PLACEMENTS:
            installation.declare(key)
        installation.declare_segment("viewers")
        installation.declare_segment("seekers")
        yield installation
        installation.engine.close()
        installation.loop.close()


def _memory_log(_path: Path) -> MemoryLog:
    return MemoryLog()


def _memory_state(_path: Path, tables: Sequence[str]) -> MemoryState:
    return MemoryState(tables)


def folded_at_once(log: MemoryLog) -> str:
    """Return the digest of one pass over `log` with room for everything."""
    return Refold(log, ROOMY).finish()


class Refold:
    """A pass over a log that may stop, crash and go on."""

    def __init__(self, log: MemoryLog, cache_bytes: int) -> None:
        self.log = log
        self.store = MemoryState(TABLES)
        self.cache_bytes = cache_bytes
        self.open()

    def open(self) -> None:
        """Begin from what the store holds, as after a crash."""
        self.world = World(self.store, self.cache_bytes, 0.3)
        self.fold = Fold(self.world, SECRET, self.log)

    def run(self, stop: int) -> None:
        """Fold up to `stop`."""
        for record in self.log.read(self.world.offset, stop):
            self.fold.apply(record)
        self.world.offset = max(self.world.offset, stop)

    def checkpoint_beside(self, stop: int) -> None:
        """Commit the present moment while folding goes on to `stop`, a slice at a time."""
        self.world.checkpoint_begin()
        for record in self.log.read(self.world.offset, stop):
            self.world.checkpoint_step()
            self.fold.apply(record)
        while self.world.checkpoint_step():
            pass
        self.store.commit(*self.world.checkpoint_changes())
        self.world.checkpoint_done()
        self.world.offset = max(self.world.offset, stop)

    def fail_checkpoint(self) -> None:
        """Begin a checkpoint that the disk then refuses."""
        self.world.checkpoint_begin()
        while self.world.checkpoint_step():
            pass
        self.world.checkpoint_changes()
        self.world.checkpoint_failed()

    def finish(self) -> str:
        """Fold the rest, commit, and return the digest."""
        self.run(self.log.end)
        self.world.checkpoint()
        return self.store.digest()


# --- what may happen ---------------------------------------------------------------------------------

anonymous_ids = st.sampled_from(["a1", "a2", "a3", "null", "user_id:u1", ""])
user_ids = st.sampled_from(["u1", "u2", "u3", "undefined", "a1"])
identities = st.fixed_dictionaries({}, optional={"anonymousId": anonymous_ids, "userId": user_ids}).filter(
    bool
)
moments = st.sampled_from([0.0, -5.0, -4000.0, -90_000.0, -3e6, +50.0])
names = st.sampled_from(
    [
        "Product Viewed",
        "Product Added",
        "Order Completed",
        "Decision Viewed",
        "Experiment Viewed",
        "Searched",
    ]
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "product_id": st.sampled_from([*ITEMS, "new"]),
        "category": st.sampled_from(["shoes", "hats"]),
        "revenue": st.sampled_from([1.5, 20, "much"]),
        "products": st.lists(st.fixed_dictionaries({"sku": st.sampled_from(ITEMS)}), max_size=3),
        "placement": st.sampled_from([*PLACEMENTS, "nowhere"]),
        "variationId": st.sampled_from(["a", "b"]),
    },
)
traits = st.dictionaries(
    st.sampled_from(["email", "plan", "age"]), st.sampled_from(["x@y.z", "X@Y.Z ", None, 3, ["l"]])
)
consents = st.dictionaries(st.sampled_from(["personalization", "Advertising"]), st.booleans(), min_size=1)

happenings = st.one_of(
    st.tuples(st.just("track"), identities, names, properties, moments),
    st.tuples(st.just("track"), identities, names, properties, moments),
    st.tuples(st.just("report"), identities, names, st.integers(0, 30), moments),
    st.tuples(st.just("identify"), identities, traits, st.booleans()),
    st.tuples(st.just("alias"), user_ids, anonymous_ids),
    st.tuples(
        st.just("decide"),
        identities,
        st.lists(st.sampled_from(list(PLACEMENTS)), min_size=1, max_size=2),
    ),
    st.tuples(
        st.just("decide"),
        identities,
        st.lists(st.sampled_from(list(PLACEMENTS)), min_size=1, max_size=2),
    ),
    st.tuples(st.just("outcome"), st.integers(0, 30), st.sampled_from(["Order Completed", "Other"])),
    st.tuples(
        st.just("items"),
        st.lists(st.sampled_from(ITEMS), min_size=1, max_size=3),
        st.integers(0, 2),
    ),
    st.tuples(st.just("patch"), st.sampled_from(ITEMS), st.integers(0, 2)),
    st.tuples(st.just("withdraw"), st.sampled_from(ITEMS)),
    st.tuples(
        st.just("consent"),
        st.sampled_from(["user_id:u1", "anonymous_id:a2", "user_id:u9"]),
        consents,
    ),
    st.tuples(st.just("placement"), st.sampled_from(list(PLACEMENTS)), st.booleans()),
    st.tuples(st.just("segment"), st.sampled_from(list(SEGMENTS)), st.booleans()),
    st.tuples(st.just("pass")),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 2000.0, 90_000.0, 400_000.0])),
)
histories = st.lists(happenings, max_size=40)


def live_through(installation: Installation, history: list[tuple[Any, ...]]) -> None:
    """Let a history happen at an installation."""
    for kind, *rest in history:
        _HAPPENINGS[kind](installation, *rest)
        installation.clock.advance(1.0)


def _at(installation: Installation, shift: float) -> str:
    return format_time(installation.clock.now() + shift)


def _track(
    installation: Installation, who: dict[str, str], name: str, said: dict[str, Any], shift: float
) -> None:
    event = {
        "type": "track",
        "event": name,
        "properties": said,
        "timestamp": _at(installation, shift),
    }
    installation.send(who | event)


def _report(installation: Installation, who: dict[str, str], name: str, nth: int, shift: float) -> None:
    if installation.decided:
        key = installation.decided[nth % len(installation.decided)]
        _track(installation, who, name, {"decisionId": key, "revenue": 2.25}, shift)


def _identify(installation: Installation, who: dict[str, str], said: dict[str, Any], gpc: bool) -> None:
    installation.send(who | {"type": "identify", "traits": said}, gpc=gpc)


def _alias(installation: Installation, user: str, previous: str) -> None:
    installation.send({"type": "alias", "userId": user, "previousId": previous})


def _decide(installation: Installation, who: dict[str, str], keys: list[str]) -> None:
    installation.decide(VisitorRef(who.get("anonymousId"), who.get("userId")), *keys)


def _outcome(installation: Installation, nth: int, goal: str) -> None:
    if installation.decided:
        now = installation.clock.now()
        key = installation.decided[nth % len(installation.decided)]
        installation.engine.write(LoggedOutcome(now, now, f"o-{key}", key, goal, 3.5))


def _items(installation: Installation, ids: list[str], stock: int) -> None:
    items = tuple(Item(id=key, stock=stock, categories=(f"c{key}", "shoes")) for key in ids)
    installation.engine.write(ItemsPut(installation.clock.now(), items))


def _patch(installation: Installation, key: str, stock: int) -> None:
    installation.engine.write(ItemPatched(installation.clock.now(), key, ItemPatch(stock=stock)))


def _withdraw(installation: Installation, key: str) -> None:
    installation.engine.write(ItemDeleted(installation.clock.now(), key))


def _consent(installation: Installation, identifier: str, consent: dict[str, bool]) -> None:
    installation.engine.write(ConsentChanged(installation.clock.now(), identifier, consent))


def _placement(installation: Installation, key: str, is_there: bool) -> None:
    if is_there:
        installation.declare(key)
    else:
        installation.engine.write(PlacementDeleted(installation.clock.now(), key))


def _segment(installation: Installation, key: str, is_there: bool) -> None:
    if is_there:
        installation.declare_segment(key)
    else:
        installation.engine.write(SegmentDeleted(installation.clock.now(), key))


def _pass(installation: Installation) -> None:
    installation.loop.run_until_complete(SegmentPass(installation.engine).run_once())


def _wait(installation: Installation, seconds: float) -> None:
    installation.clock.advance(seconds)


_HAPPENINGS = {
    "track": _track,
    "report": _report,
    "identify": _identify,
    "alias": _alias,
    "decide": _decide,
    "outcome": _outcome,
    "items": _items,
    "patch": _patch,
    "withdraw": _withdraw,
    "consent": _consent,
    "placement": _placement,
    "segment": _segment,
    "pass": _pass,
    "wait": _wait,
}

interruptions = st.lists(
    st.tuples(st.sampled_from(["checkpoint", "beside", "failed", "crash"]), st.integers(1, 12)),
    max_size=12,
)


# --- the laws ------------------------------------------------------------------------------------------


@lawfully
@given(history=histories)
def test_the_live_world_is_the_fold_of_its_log(history):
    with installed() as installation:
        live_through(installation, history)
        assert installation.digest() == folded_at_once(installation.engine.log)


@lawfully
@given(
    history=histories,
    interruptions=interruptions,
    cache_bytes=st.sampled_from([TINY, 20_000, ROOMY]),
)
def test_checkpoints_crashes_and_a_tiny_cache_leave_no_trace(history, interruptions, cache_bytes):
    with installed() as installation:
        live_through(installation, history)
        log = installation.engine.log
    again = Refold(log, cache_bytes)
    at = 0
    for what, count in interruptions:
        at = min(at + count, log.end)
        if what == "beside":
            again.checkpoint_beside(at)
            continue
        again.run(at)
        if what == "checkpoint":
            again.world.checkpoint()
        elif what == "failed":
            again.fail_checkpoint()
        else:
            again.open()
    assert again.finish() == folded_at_once(log)


@lawfully
@given(history=histories, every=st.integers(1, 5))
def test_live_checkpoints_do_not_change_what_is_decided_or_known(history, every):
    with installed() as quiet, installed() as busy:
        live_through(quiet, history)
        for start in range(0, len(history), every):
            live_through(busy, history[start : start + every])
            busy.engine.world.checkpoint()
        assert busy.decided == quiet.decided
        assert busy.digest() == quiet.digest()


events = st.lists(st.tuples(identities, names, properties), min_size=1, max_size=12)


@lawfully
@given(
    sent=events,
    repeats=st.lists(st.integers(0, 11), max_size=12),
    wait=st.sampled_from([0.0, 3600.0, 86_000.0]),
)
def test_a_repeated_message_id_counts_once(sent, repeats, wait):
    bodies = [
        who | {"type": "track", "event": name, "properties": said, "messageId": f"r-{i}"}
        for i, (who, name, said) in enumerate(sent)
    ]
    with installed() as once, installed() as often:
        for body in bodies:
            once.send(body)
            often.send(body)
        often.engine.world.checkpoint()
        often.clock.advance(wait)
        for index in repeats:
            often.send(bodies[index % len(bodies)])
        assert often.engine.log.end == once.engine.log.end
        assert often.digest() == once.digest()


@lawfully
@given(
    visitors=st.lists(st.sampled_from(["v1", "v2", "v3", "v4"]), min_size=1, max_size=8),
    data=st.data(),
)
def test_the_order_of_reports_does_not_matter_to_what_is_learned(visitors, data):
    with installed() as first, installed() as second:
        for installation in (first, second):
            for visitor in visitors:
                installation.decide(VisitorRef(visitor), "hero")
                installation.clock.advance(700.0)  # Past the sticky time: each is a decision of its own.
        assert first.decided == second.decided
        reports = [
            (key, name)
            for key in first.decided
            for name in data.draw(
                st.sampled_from(
                    [
                        (),
                        ("Decision Viewed",),
                        ("Order Completed",),
                        ("Decision Viewed", "Order Completed"),
                    ]
                )
            )
        ]
        repeated = reports + data.draw(
            st.lists(st.sampled_from(reports), max_size=6) if reports else st.just([])
        )
        _report_all(first, reports)
        _report_all(second, data.draw(st.permutations(repeated)))
        assert _sums(first) == _sums(second)
        assert dict(first.engine.world.moments.scan()) == dict(second.engine.world.moments.scan())


def _report_all(installation: Installation, reports: list[tuple[str, str]]) -> None:
    """Report exposures and outcomes by decision id, each worth what its decision says."""
    for index, (key, name) in enumerate(reports):
        value = 0.25 * (len(key) + int(key[-2:], 16))
        event = {
            "type": "track",
            "event": name,
            "userId": "reporter",
            "properties": {"decisionId": key, "revenue": value},
            "timestamp": format_time(BEGIN + 700.0 * 8),
            "messageId": f"{name}-{key}-{index}",
        }
        installation.send(event)


def _sums(installation: Installation) -> Any:
    """Return what each policy has counted; when it was published is another matter."""
    return {key: (state.arms, state.counted) for key, state in installation.engine.world.policies.scan()}


# --- anything that the door lets in ------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), 10**30, 0, -1]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        ["", "null", "\x00", "0000", "i1", "d-0-1", "2024-01-01T00:00:00Z", "9999-12-31", "x" * 600]
    ),
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
fields = (
    "event",
    "userId",
    "anonymousId",
    "previousId",
    "groupId",
    "properties",
    "traits",
    "context",
    "timestamp",
    "originalTimestamp",
    "sentAt",
    "messageId",
    "name",
    "category",
    "integrations",
    "type",
)
maps = st.dictionaries(
    st.sampled_from(
        [
            "product_id",
            "sku",
            "products",
            "category",
            "decisionId",
            "revenue",
            "email",
            "consent",
            "page",
            "device",
            "traits",
            "categoryPreferences",
            "placement",
            "variationId",
            "x",
        ]
    ),
    anything,
    max_size=4,
)
contexts = st.one_of(
    maps,
    st.fixed_dictionaries({"traits": st.dictionaries(st.text(max_size=2), scalars, max_size=2)}),
)
odd_events = st.tuples(
    st.sampled_from(["track", "identify", "page", "alias", "group", "screen"]),
    st.fixed_dictionaries(
        {
            "userId": st.sampled_from(["u1", "u2", 7, 1.5]),
            "event": names,
            "previousId": st.just("a1"),
        },
        optional={"properties": maps, "traits": maps, "context": contexts},
    ),
    st.dictionaries(st.sampled_from(fields), anything, max_size=3),
)


@settings(lawfully, max_examples=150)
@given(odd=st.lists(odd_events, min_size=1, max_size=5), shared=st.none() | contexts)
def test_whatever_the_door_lets_in_can_be_folded_decided_on_and_committed(odd, shared):
    with installed() as installation:
        batch = [{"type": kind, "groupId": "g"} | usual | strange for kind, usual, strange in odd]
        body: dict[str, Any] = {"batch": batch} | ({} if shared is None else {"context": shared})
        try:
            collected = installation.collector.batch("/v1/batch", json.dumps(body).encode(), gpc=False)
        except InvalidInputError:
            return
        installation.take_in(collected)
        installation.decide(VisitorRef("a1", "u1"), "hero", "list")
        assert installation.digest() == folded_at_once(installation.engine.log)
