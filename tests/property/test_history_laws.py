"""Laws of history: told as the fold goes or folded again, it is the same; and it tells all there is."""

import asyncio
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.house import SECRET, House
from tests.people import described

from tailorbird.app.engine import Engine, Options, catch_up
from tailorbird.app.keeper import Keeper
from tailorbird.clock import ManualClock
from tailorbird.decide.visitor import Request
from tailorbird.features.state import new_state
from tailorbird.live import seen
from tailorbird.live.merging import merge_history
from tailorbird.live.world import TABLES as STATE
from tailorbird.live.world import World, decode_profile
from tailorbird.privacy.erase import Erasure, Progress
from tailorbird.process.worker import Fold
from tailorbird.schema.decision import LoggedDecision, PlacementRequest, VisitorRef
from tailorbird.schema.events import Event, LoggedEvent, LoggedOutcome
from tailorbird.schema.item import Item, ItemsPut
from tailorbird.schema.placement import Placement
from tailorbird.schema.profile import Profile
from tailorbird.schema.records import KINDS, ConsentChanged, PlacementPut, decode
from tailorbird.stores import history, parquet
from tailorbird.stores.history import LABELS, History, rows_as_of
from tailorbird.stores.memory import MemoryLog, MemoryState, MemoryWarehouse
from tailorbird.stores.parquet import ParquetWarehouse
from tailorbird.stores.warehouse import TABLES, EventRow, MergeRow

BEGIN = 1_700_000_000.0
HERO = msgspec.convert(
    {"key": "hero", "variants": [{"id": "a"}, {"id": "b"}], "goal": {"event": "Order Completed"}}, Placement
)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Make filters of message ids small, and files so small that many are merged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "BITS", 1 << 12)
        patch.setattr(parquet, "FILES_SMALL_MAX", 3)
        patch.setattr(parquet, "ROWS_SMALL_MAX", 6)
        yield


# --- what a real engine keeps is what the log says --------------------------------------------------------


class Installation:
    """A real engine over a folder, and what may happen to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock(BEGIN)
        self.sent = 0
        self.decided: list[str] = []
        self.open()
        self.engine.write(PlacementPut(BEGIN, HERO))

    def open(self) -> None:
        options = Options(SECRET, holdout_share=0.3, cache_bytes=1 << 25, seed=1)
        self.engine = Engine(self.folder, options, self.clock)
        self.engine.recover()

    def happen(self, step: tuple[Any, ...]) -> None:
        self.clock.advance(30_000.0)
        getattr(self, step[0].replace(" ", "_"))(*step[1:])

    def event(self, kind: str, device: str | None, user: str | None, **more: Any) -> None:
        self.sent += 1
        fields = {"type": kind, "messageId": f"m-{self.sent}", "anonymousId": device, "userId": user, **more}
        now = self.clock.now()
        raw = msgspec.Raw(json.dumps(fields).encode())
        self.engine.write(LoggedEvent(now, now - 5.0, fields["messageId"], raw, gpc=False))

    def view(self, device: str, user: str | None) -> None:
        self.event("track", device, user, event="Seen", properties={"product_id": "i1"})

    def twice(self, device: str, user: str | None) -> None:
        self.view(device, user)
        self.sent -= 1
        self.view(device, user)

    def buy(self, device: str, user: str | None) -> None:
        named = {"decisionId": self.decided[-1]} if self.decided else {}
        self.event("track", device, user, event="Decision Viewed", properties=named)
        self.event("track", device, user, event="Order Completed", properties={"revenue": 5})

    def identify(self, device: str, user: str | None) -> None:
        self.event("identify", device, user, traits={"email": f"{user}@x.example"})

    def alias(self, device: str, user: str | None) -> None:
        self.event("alias", None, user, previousId=device)

    def decide(self, device: str, user: str | None) -> None:
        request = Request(VisitorRef(device, user), [PlacementRequest("hero")])
        self.decided += [answer.decision_id for answer in self.engine.decider.decide(request).answers]

    def outcome(self) -> None:
        now = self.clock.now()
        if self.decided:
            key = self.decided[-1]
            self.engine.write(LoggedOutcome(now, now, f"o-{now}", key, "Order Completed", 2.0))

    def consent(self, user: str) -> None:
        self.engine.write(ConsentChanged(self.clock.now(), f"user_id:{user}", {"analytics": False}))

    def stock(self) -> None:
        self.engine.write(ItemsPut(self.clock.now(), (Item(id="i1", categories=("hats",)),)))

    def set_the_clock_back(self) -> None:
        self.clock.advance(-100_000.0)

    def checkpoint(self) -> None:
        asyncio.run(self.engine.checkpoint())

    def write_ahead(self) -> None:
        asyncio.run(self.engine._keep_history())

    def crash(self) -> None:
        self.engine.close_unchanged()
        self.open()

    def restart(self) -> None:
        self.engine.close()
        self.open()

    def revoke(self, device: str, user: str, is_lifted: bool) -> None:
        pair = (f"anonymous_id:{device}", f"user_id:{user}")
        asyncio.run(self.engine.revoke_link(*pair, is_lifted=is_lifted))

    def erase(self, user: str) -> None:
        async def keep(_progress: Progress) -> None:
            """Nothing is cut short here."""

        proof = asyncio.run(Erasure(self.engine, SECRET).erase([f"user_id:{user}"], Progress(), keep))
        assert proof["stores"]["warehouse"]["remaining"] == 0

    def warehouse(self) -> ParquetWarehouse:
        (folder,) = (self.folder / "warehouse").iterdir()
        return ParquetWarehouse(folder)


devices = st.sampled_from(["d1", "d2", "d3"])
users = st.sampled_from(["u1", "u2"])
happenings = st.one_of(
    st.tuples(st.sampled_from(["view", "twice", "buy", "decide"]), devices, st.none() | users),
    st.tuples(st.sampled_from(["identify", "alias"]), devices, users),
    st.tuples(st.sampled_from(["outcome", "stock", "set the clock back"])),
    st.tuples(st.sampled_from(["checkpoint", "write ahead", "crash", "restart"])),
    st.tuples(st.just("consent"), users),
    st.tuples(st.just("revoke"), devices, users, st.booleans()),
    st.tuples(st.just("erase"), users),
)


def rows_of(warehouse: Any) -> dict[str, list[Any]]:
    return {table: list(warehouse.read(table)) for table in TABLES}


def folded_again(engine: Engine) -> dict[str, list[Any]]:
    """Return the history of the engine's log, folded at once."""
    kept = MemoryWarehouse()
    keeper = Keeper(kept)
    world = World(MemoryState(STATE), holdout_share=0.3)
    catch_up(Fold(world, SECRET, engine.log, keeper.observer), engine.log, keeper)
    return rows_of(kept)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(happenings, min_size=1, max_size=16), st.sampled_from(["crash", "restart"]))
def test_what_is_kept_as_the_fold_goes_is_what_a_fold_of_the_log_tells(steps, end):
    with tempfile.TemporaryDirectory() as folder:
        house = Installation(Path(folder) / "data")
        for step in steps:
            house.happen(step)
        house.happen((end,))
        house.restart()
        kept = house.warehouse()
        try:
            assert kept.offset == house.engine.log.end
            assert rows_of(kept) == folded_again(house.engine)
            assert all(
                one.known_at <= other.known_at and one.offset <= other.offset
                for rows in rows_of(kept).values()
                for one, other in itertools.pairwise(rows)
            )
        finally:
            house.engine.close()


# --- the stream is all that people were folded of ---------------------------------------------------------


class Again(Fold):
    """Folds rows of history: who a record is folded into is read, not resolved."""

    def __init__(self) -> None:
        super().__init__(World(MemoryState(STATE)), SECRET, MemoryLog())
        self.profile: str | None = None

    def take(self, row: dict[str, Any]) -> None:
        payload = (row["payload"] or "").encode()
        self.profile = row["profile"]
        if row["what"] == "declaration":
            self.apply_record(row["offset"], decode(row["kind"], payload))
        elif row["what"] == "event":
            logged = LoggedEvent(row["r"], row["t"], row["detail"], msgspec.Raw(payload), row["gpc"])
            self.apply_record(row["offset"], logged)
        elif row["what"] == "decision":
            decision = decode(KINDS[LoggedDecision], payload)
            self._resolve(0, None, row["t"]).gpc |= decision.gpc
        elif row["what"] == "consent":
            self._consent_of(decode(KINDS[ConsentChanged], payload))
        elif row["what"] == "merge":
            older = self.world.profiles.change(row["profile"])
            merge_history(older, self.world.profiles.get(row["detail"]), self.world.features.counting)

    def _resolve(self, _offset: int, _event: Event | None, t: float) -> Profile:
        if self.world.profiles.get(self.profile) is None:
            self.world.profiles.put(self.profile, Profile(self.profile, "", new_state(t)))
        return self.world.profiles.change(self.profile)

    def _consent_of(self, change: ConsentChanged) -> None:
        profile = self._resolve(0, None, change.r)
        profile.consent |= change.consent
        refused = {purpose for purpose, is_allowed in change.consent.items() if not is_allowed}
        kept = [purpose for purpose in profile.refusals if purpose not in change.consent]
        profile.refusals = sorted({*kept, *refused})


OWN = ("features", "interest", "recents", "own", "traits", "consent", "refusals", "gpc", "purchases")


def view_of(world: World, profile: Profile) -> dict[str, Any]:
    return {name: value for name, value in described(world, profile).items() if name in OWN}


behaviours = st.one_of(
    st.tuples(st.just("view"), devices, st.none() | users, st.sampled_from(["i1", "i2", "i3"])),
    st.tuples(st.just("buy"), devices, st.none() | users, st.sampled_from(["i1", "i2"])),
    st.tuples(st.just("identify"), devices, users, st.sampled_from(["gold", "blue"])),
    st.tuples(st.just("decide"), devices, st.none() | users, st.just("")),
    st.tuples(st.just("consent"), st.none(), users, st.just("")),
    st.tuples(st.just("stock"), st.none(), st.none(), st.sampled_from(["hats", "shoes"])),
)


def behave(house: House, step: tuple[Any, ...]) -> None:
    kind, device, user, what = step
    match kind:
        case "view":
            house.send(device, user, at=-9.0, gpc=what == "i3", event="Seen", properties={"product_id": what})
        case "buy":
            bought = {"product_id": what, "revenue": 5.0}
            house.send(device, user, event="Order Completed", properties=bought)
        case "identify":
            house.send(device, user, type="identify", traits={"plan": what})
        case "decide":
            house.decide(device, "hero", user=user)
        case "consent":
            house.write(ConsentChanged(house.clock.now(), f"user_id:{user}", {"analytics": False}))
        case "stock":
            house.stock({"id": "i1", "categories": [what]}, {"id": "i2", "categories": ["socks"]})


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(behaviours, min_size=1, max_size=14))
def test_people_folded_again_from_history_are_who_was_served_at_the_time(steps):
    house = House()
    keeper = Keeper(MemoryWarehouse())
    house.fold = Fold(house.world, SECRET, house.log, keeper.observer)
    house.declare("hero", variants=[{"id": "a"}, {"id": "b"}])
    served: dict[int, tuple[str, float, dict[str, Any]]] = {}
    for step in steps:
        house.clock.advance(4_000.0)
        behave(house, step)
        house.world.checkpoint()
        for key, payload in house.store.scan("profile"):
            served[len(served)] = (key, house.clock.now(), view_of(house.world, decode_profile(payload)))
    keeper.hand_over(house.log.end)
    with tempfile.TemporaryDirectory() as folder:
        kept = ParquetWarehouse(Path(folder) / "w")
        for stop, newest, _, rows in keeper._waiting:
            kept.write(stop, newest, rows)
        labels = pa.table(
            {
                "label_id": list(served),
                "profile": [entry[0] for entry in served.values()],
                "t": [entry[1] for entry in served.values()],
            },
            schema=LABELS,
        )
        again, count = Again(), 0
        with History(kept.folder, 256) as opened:
            for batch in opened.rows_as_of(labels):
                for row in batch.to_pylist():
                    if row["what"] != "label":
                        again.take(row)
                        continue
                    key, _, expected = served[row["label_id"]]
                    count += 1
                    assert row["profile"] == key
                    assert view_of(again.world, again.world.profiles.get(key)) == expected
    assert count == len(served)


# --- the stream against a plain search --------------------------------------------------------------------

names = st.sampled_from("abcde")


@st.composite
def pasts(draw: st.DrawFn) -> tuple[list[EventRow], list[MergeRow]]:
    """Draw events, and merges as the fold makes them: who went does not come back."""
    events: list[EventRow] = []
    merges: list[MergeRow] = []
    parts: dict[str, set[str]] = {name: {name} for name in "abcde"}
    known_at = 0.0
    for offset in range(draw(st.integers(1, 16))):
        known_at += draw(st.sampled_from([0.0, 1.0, 90_000.0]))
        who = draw(names.filter(parts.__contains__))
        if len(parts) > 1 and draw(st.integers(0, 3)) == 0:
            newer = draw(st.sampled_from(sorted(parts.keys() - {who})))
            absorbed = parts.pop(newer)
            parts[who] |= absorbed
            merges += [
                MergeRow(offset, known_at, known_at, who, part, part == newer)
                for part in sorted(absorbed, key=lambda part: part != newer)
            ]
        events.append(
            EventRow(
                offset, known_at, known_at, known_at, who, "m", None, None, "track", "Seen", b"{}", False
            )
        )
    return events, merges


def plainly(
    events: list[EventRow], merges: list[MergeRow], labels: list[tuple[int, str, float]]
) -> list[tuple[Any, ...]]:
    """Return the stream by looking at every row for every label."""
    direct = [merge for merge in merges if merge.is_direct]
    wanted: set[tuple[Any, ...]] = set()
    for label, who, t in labels:
        owner, parts = who, {who}
        for merge in direct:
            if merge.known_at <= t and merge.newer == owner:
                owner = merge.older
        parts = {owner}
        for merge in reversed([merge for merge in direct if merge.known_at <= t]):
            if merge.older in parts:
                parts.add(merge.newer)
                wanted.add((merge.known_at, False, merge.offset, 2, "merge", merge.older))
        wanted |= {
            (row.known_at, False, row.offset, 3, "event", row.profile)
            for row in events
            if row.profile in parts and row.known_at <= t
        }
        wanted.add((t, True, label, 9, "label", owner))
    return [row[2:3] + row[4:] for row in sorted(wanted)]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pasts(),
    st.lists(st.tuples(names, st.sampled_from([0.0, 0.5, 2.0, 90_001.0, 200_000.0, 1e7])), max_size=6),
    st.sampled_from([4, 8]),
)
def test_the_stream_is_what_a_plain_search_finds_in_slices_and_as_one_expression(past, asked, slice_rows):
    events, merges = past
    labels = [(number, *label) for number, label in enumerate(asked)]
    table = pa.Table.from_pylist([dict(zip(LABELS.names, row, strict=True)) for row in labels], schema=LABELS)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "SLICE_ROWS", slice_rows)
        kept = ParquetWarehouse(Path(folder) / "w")
        for stop in range(4, len(events) + 4, 4):
            rows = {
                "events": events[stop - 4 : stop],
                "merges": [m for m in merges if stop - 4 <= m.offset < stop],
            }
            kept.write(stop, events[-1].known_at, rows)
        expected = plainly(events, merges, labels)
        with History(kept.folder, 256) as opened:
            assert told(opened.rows_as_of(table)) == expected
            opened.connection.con.register("asked", table)
            whole = rows_as_of(opened.tables, opened.connection.table("asked"))
            assert told(opened.stream(whole)) == expected


def told(batches: Any) -> list[tuple[Any, ...]]:
    return [
        (row["label_id"] if row["what"] == "label" else row["offset"], row["what"], row["profile"])
        for batch in batches
        for row in batch.to_pylist()
    ]
