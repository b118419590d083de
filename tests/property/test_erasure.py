"""Laws of erasure: what is left is the fold of everybody else's records, and nobody else notices."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.people import described

from tailorbird.app.keeper import Keeper
from tailorbird.clock import ManualClock
from tailorbird.decide.visitor import Request, Visitor
from tailorbird.live import seen
from tailorbird.live.decision_ids import decision_id
from tailorbird.live.world import ALL_PLACEMENTS, TABLES, ArmsMoments, World
from tailorbird.privacy.erase import Erasure, Progress
from tailorbird.privacy.held import Held
from tailorbird.privacy.person import Person
from tailorbird.process.worker import Fold
from tailorbird.schema.decision import LoggedChoice, LoggedDecision, VisitorRef
from tailorbird.schema.events import LoggedEvent, LoggedOutcome
from tailorbird.schema.placement import Placement
from tailorbird.schema.records import (
    ConsentChanged,
    LogRecord,
    OwnerForgotten,
    PlacementPut,
    Suppressed,
    decode,
    encode,
)
from tailorbird.schema.segment import RuleSegment, SegmentChanged, SegmentPut
from tailorbird.stats.moments import add_unit
from tailorbird.stores.memory import MemoryLog, MemoryState, MemoryWarehouse
from tailorbird.stores.warehouse import TABLES as HISTORY

SECRET = bytes(range(32))
BEGIN = 1_700_000_000.0
HERO = msgspec.convert(
    {"key": "hero", "variants": [{"id": "a"}, {"id": "b"}], "holdout": 0.5, "goal": {"event": "Bought"}},
    Placement,
)

SEGMENTS = msgspec.convert(
    [
        {"key": "known", "rule": "profile.isKnown"},
        {"key": "buyers", "rule": "profile.bought_count > 0.0 && 'known' in profile.segments"},
        {"key": "keen", "sequence": {"steps": [{"event": "Seen", "times": 2}], "withinSeconds": 600}},
    ],
    list[RuleSegment],
)

lawfully = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def small_filters():
    """Make the filters of message ids small: quick to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "BITS", 1 << 12)
        yield


class House:
    """An installation in memory, as privacy sees one, with what happens in it."""

    def __init__(self) -> None:
        self.clock = ManualClock(BEGIN)
        self.log = MemoryLog()
        self.rejects = MemoryLog()
        self.decided: list[str] = []
        self._begin()
        self.write(PlacementPut(BEGIN, HERO))
        for segment in SEGMENTS:
            self.write(SegmentPut(BEGIN, segment))

    def write(self, record: LogRecord) -> int:
        offset = self.log.append(*encode(record))
        self.fold.apply_record(offset, record)
        while changes := list(self.world.segments.unannounced.values()):
            self.write(changes[0])
        return offset

    async def count_history(self, profiles: Collection[str], offsets: Collection[int]) -> int:
        self.keeper.write_all(self.log.end)
        return self.keeper.count(profiles, offsets)

    async def durable(self) -> None:
        """Memory is as durable as it gets."""

    async def refold(self) -> None:
        self._begin()
        for record in self.log.read():
            self.fold.apply(record)
        self.world.offset = self.log.end

    def _begin(self) -> None:
        self.world = World(MemoryState(TABLES), holdout_share=0.3)
        self.keeper = Keeper(MemoryWarehouse())
        self.fold = Fold(self.world, SECRET, self.log, self.keeper.observer)

    def erase(self, *names: str) -> dict[str, Any]:
        async def keep(_progress: Progress) -> None:
            """Nothing is cut short here."""

        return asyncio.run(Erasure(self, SECRET).erase(names, Progress(), keep))

    def happen(self, step: dict[str, Any]) -> None:
        """Let one thing happen: an event, a decision, an outcome or a consent."""
        self.clock.advance(60.0)
        now = self.clock.now()
        what = step["what"]
        if what == "event":
            event = {"messageId": f"m-{self.log.end}", **step["event"]}
            raw = msgspec.Raw(msgspec.json.encode(event))
            self.write(LoggedEvent(now, now, event["messageId"], raw))
        elif what == "decide":
            self._decide(VisitorRef(step["device"], step["user"]), now)
        elif what == "consent":
            self.write(ConsentChanged(now, step["name"], {"personalization": True}))
        elif self.decided:
            key = self.decided[step["which"] % len(self.decided)]
            self.write(LoggedOutcome(now, now, f"o-{self.log.end}", key, "Bought", 2.0))

    def _decide(self, visitor: VisitorRef, now: float) -> None:
        met = Visitor(self.world, SECRET, Request(visitor, []), now)
        arm = "none" if met.position is None else "holdout" if met.position < 0.5 else "personalized"
        decision = LoggedDecision(
            t=now,
            r=now,
            placement="hero",
            reason="SPLIT",
            rung="live",
            choices=[LoggedChoice("a", 0.5, 0.0, "")],
            arms=["a", "b"],
            probabilities=[0.5, 0.5],
            arm="a",
            holdout=arm,
            profile=met.profile_id,
            founded_on=met.founded_on,
            is_learned=arm == "personalized",
        )
        self.decided.append(decision_id(SECRET, self.write(decision)))

    def digest(self) -> str:
        """Return all that the world and history know, but for who is suppressed."""
        self.world.checkpoint()
        store = self.world.store
        changes = [
            (table, key, value)
            for table in TABLES
            if table != "suppressed"
            for key, value in store.scan(table)
        ]
        return repr((changes, self.history()))

    def history(self) -> list[Any]:
        """Return every row of history."""
        self.keeper.write_all(self.log.end)
        return [row for table in HISTORY for row in self.keeper.warehouse.read(table)]

    def bytes_kept(self) -> bytes:
        """Return every byte that is kept anywhere."""
        self.world.checkpoint()
        parts = [record.payload for record in self.log.read()]
        parts += [record.payload for record in self.rejects.read()]
        parts += [
            part
            for table in TABLES
            for key, value in self.world.store.scan(table)
            for part in (key.encode(), value)
        ]
        parts += [msgspec.json.encode(row) for row in self.history()]
        # Bytes are written as base64.
        parts += [row.payload for row in self.history() if hasattr(row, "payload")]
        return b"\n".join(parts)


def event(kind: str, device: str | None, user: str | None, **more: Any) -> dict[str, Any]:
    fields = {
        "type": kind,
        "event": "Seen" if kind == "track" else None,
        "anonymousId": device,
        "userId": user,
        **more,
    }
    return {"what": "event", "event": {name: value for name, value in fields.items() if value is not None}}


def steps_of(user: str, devices: list[str], items: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """What one person does on their devices, signed in and out."""
    device = st.sampled_from(devices)
    other = user[:4]
    # Who shares a tablet shares a phone, too. Ids of other systems come with who is signed in: on somebody else's
    # device, signed out, they would be that one's until they are erased.
    phone = st.sampled_from([{"device": {"id": "phone" if "home" in devices else f"{other}-phone"}}, {}])
    ids = st.sampled_from([{"externalIds": [{"id": f"{other}-7", "type": "crm"}]}, {}])
    visitor = st.tuples(st.none() | device, st.none() | st.just(user)).filter(any)
    properties = st.fixed_dictionaries({}, optional={"product_id": st.sampled_from(items)} if items else {})
    name = st.sampled_from(["Seen", "Bought"])
    return st.one_of(
        st.builds(lambda v, p, n: event("track", *v, properties=p, event=n), visitor, properties, name),
        st.builds(lambda d: event("identify", d, user, traits={"email": f"{other}@x.example"}), device),
        st.builds(lambda v, c: event("track", *v, context=c), visitor, phone),
        st.builds(lambda d, c, i: event("track", d, user, context=c | i), st.none() | device, phone, ids),
        st.builds(lambda d: event("alias", None, user, previousId=d), device),
        st.builds(lambda v: {"what": "decide", "device": v[0], "user": v[1]}, visitor),
        st.just({"what": "consent", "name": f"user_id:{user}"}),
    )


def histories(
    *people: st.SearchStrategy[dict[str, Any]],
) -> st.SearchStrategy[list[tuple[int, dict[str, Any]]]]:
    """Steps of several people in any order, each with whose it is."""
    steps = [st.tuples(st.just(index), person) for index, person in enumerate(people)]
    return st.lists(st.one_of(*steps), min_size=1, max_size=25)


ANNA = steps_of("anna-u", ["anna-d1", "anna-d2"], ["i1", "i2"])
BERT = steps_of("bert-u", ["bert-d1", "bert-d2"], ["i2", "i3"])


@lawfully
@given(histories(ANNA, BERT))
def test_what_is_left_is_the_fold_of_everybody_elses_records(history):
    both = House()
    only_bert = House()
    person = {"anna-u", "anna-d1", "anna-d2"}
    for whose, step in history:
        end = both.log.end
        both.happen(step)
        for record in both.log.read(end) if whose == 1 else ():
            only_bert.log._records[record.offset] = record
            only_bert.log._end = record.offset + 1
    names = [f"{kind}:{value}" for value in person for kind in ("user_id", "anonymous_id")]
    both.erase(*names)
    asyncio.run(only_bert.refold())
    assert both.digest() == only_bert.digest()
    for value in (*person, "anna@x.example"):
        assert value.encode() not in both.bytes_kept()


@lawfully
@given(
    histories(
        steps_of("anna-u", ["anna-d", "home", "hall"], []),
        steps_of("bert-u", ["bert-d", "home", "hall"], []),
        steps_of("carl-u", ["home"], []),
        st.just({"what": "outcome", "which": 3}),
    ),
    st.booleans(),
)
def test_nobody_else_notices_on_devices_that_people_share(history, names_other):
    house = House()
    for _, step in history:
        house.happen(step)
    if names_other and house.world.identifiers.get("user_id:anna-u") is not None:
        house.happen(event("alias", "bert-d", "bert-u", previousId="anna-u"))
    person = Erasure(house, SECRET).person(["user_id:anna-u"])
    before = people(house.world, person)
    proof = house.erase("user_id:anna-u")
    assert proof["remaining"] == 0
    assert people(house.world, person) == before
    assert moments_of_profiles(house.world) == {
        key: value for key, value in house.world.moments.scan() if value != ArmsMoments()
    }
    kept = house.bytes_kept()
    assert b"anna-u" not in kept
    assert "anonymous_id:anna-d" not in person.identifiers or b"anna-d" not in kept
    again = house.erase("user_id:anna-u")
    assert (again["found"], again["removed"], again["suppressed"]) == (0, 0, 0)


class CutShortError(Exception):
    """The process dies."""


@lawfully
@given(
    histories(steps_of("anna-u", ["anna-d", "home"], []), steps_of("bert-u", ["bert-d", "home"], [])),
    st.sampled_from(["before the rewrite", "after the rewrite"]),
)
def test_an_erasure_that_was_cut_short_proves_all_of_it_once(history, when):
    whole, cut = House(), House()
    for house in (whole, cut):
        for _, step in history:
            house.happen(step)
    proof = whole.erase("user_id:anna-u")
    kept = [Progress()]

    async def keep(progress: Progress) -> None:
        kept.append(progress)

    class Dying(Erasure):
        async def _rewrite(self, person: Person, held: Held) -> None:
            if when == "after the rewrite":
                await super()._rewrite(person, held)
            raise CutShortError

    with suppress(CutShortError):
        asyncio.run(Dying(cut, SECRET).erase(["user_id:anna-u"], Progress(), keep))
    asyncio.run(cut.refold())  # As a start does.
    again = asyncio.run(Erasure(cut, SECRET).erase(["user_id:anna-u"], kept[-1], keep))
    for name in ("found", "removed", "remaining", "stores"):
        assert again[name] == proof[name]


@lawfully
@given(
    histories(
        steps_of("anna-u", ["anna-d", "home"], []),
        steps_of("bert-u", ["bert-d", "home"], []),
    )
)
def test_when_all_who_shared_a_device_are_erased_nothing_names_it(history):
    house = House()
    for _, step in history:
        house.happen(step)
    for user in ("anna-u", "bert-u"):
        house.erase(f"user_id:{user}")
    for name in ("anonymous_id:home", "anonymous_id:anna-d", "anonymous_id:bert-d", "device:home"):
        if house.world.identifiers.get(name) is not None:
            house.erase(name if not name.endswith(":home") else "device:home")
    kinds = {type(decode(record.kind, record.payload)) for record in house.log.read()}
    signed_out = {LoggedEvent, LoggedDecision, LoggedOutcome}
    assert kinds - signed_out <= {PlacementPut, SegmentPut, Suppressed, OwnerForgotten, SegmentChanged}


def people(world: World, person: Person) -> dict[str, Any]:
    """Return everybody's profile but the person's.

    Not which rules kept others' identifiers out: with one of them gone, it may be another rule.
    """
    found = {
        key: described(world, profile) for key, profile in world.profiles.scan() if key not in person.profiles
    }
    for profile in found.values():
        del profile["refused"]
    return found


def moments_of_profiles(world: World) -> dict[str, ArmsMoments]:
    """Return the moments that the profiles alone give: each is one unit of its arm."""
    found: dict[str, ArmsMoments] = {}
    for _, profile in world.profiles.scan():
        for key, at in profile.placements.items():
            if at.arm:
                add_unit(found.setdefault(key, ArmsMoments()).of(at.arm), at)
    for key, moments in world.moments.scan():
        if key in found:
            found[key].merged_units = moments.merged_units
    assert set(found) <= {"hero", ALL_PLACEMENTS}
    return found
