"""Taking a link back gives what would be there had no event ever made it."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.house import SECRET, House, folded, records_of, state_of

from tailorbird.live.profiles import by_identifier
from tailorbird.live.revocations import pair_of, revoked_in
from tailorbird.live.world import TABLES, World
from tailorbird.process.worker import Fold
from tailorbird.schema.decision import PlacementRequest
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.records import LinkRevoked, LogRecord, encode
from tailorbird.stores.memory import MemoryLog, MemoryState

DEVICE, USER = "d1", "u1"
ASKED = PlacementRequest("hero")
PAIR = pair_of(f"anonymous_id:{DEVICE}", f"user_id:{USER}")
lawfully = settings(max_examples=80, deadline=None)

devices = st.sampled_from([DEVICE, "d2", "d3"])
users = st.sampled_from([USER, "u2"])
happenings = st.one_of(
    st.tuples(st.just("view"), devices | st.none(), users | st.none()).filter(lambda step: any(step[1:])),
    st.tuples(st.just("buy"), devices, users | st.none()),
    st.tuples(st.just("identify"), devices, users),
    st.tuples(st.just("alias"), devices, users),
    st.tuples(st.just("wait"), st.sampled_from([10.0, 4_000.0, 90_000.0]), st.none()),
)
histories = st.lists(happenings, min_size=1, max_size=14)


def happen(house: House, step: tuple[str, Any, Any]) -> None:
    kind, who, user = step
    house.clock.advance(1.0)
    match kind:
        case "view":
            house.send(who, user, event="Product Viewed", properties={"product_id": "i1", "category": "hats"})
        case "buy":
            house.send(who, user, event="Order Completed", properties={"product_id": "i2", "revenue": 5.0})
        case "identify":
            house.send(who, user, type="identify", traits={"plan": who, "email": f"{user}@x.example"})
        case "alias":
            house.send(user=user, type="alias", previousId=who)
        case "wait":
            house.clock.advance(who)


def without_link(record: LogRecord) -> LogRecord:
    """Return an event that does not name the device and the user together."""
    if not isinstance(record, LoggedEvent):
        return record
    fields = json.loads(bytes(record.e))
    if fields.get("userId") == USER:
        for name in ("anonymousId", "previousId"):
            if fields.get(name) == DEVICE:
                del fields[name]
    return msgspec.structs.replace(record, e=msgspec.Raw(json.dumps(fields).encode()))


def revoke(*, is_lifted: bool = False) -> LinkRevoked:
    return LinkRevoked(2e9, PAIR, is_lifted)


@lawfully
@given(histories)
def test_a_fold_with_a_revoked_link_is_the_fold_without_it(history):
    house = House(holdout_share=0.5)
    for step in history:
        happen(house, step)
    records = records_of(house)
    apart = folded([*records, revoke()])
    never = folded([*(without_link(record) for record in records), revoke()])
    assert state_of(apart, "revoked") == state_of(never, "revoked")
    assert not apart.revocations.is_stale


@lawfully
@given(histories, st.lists(st.booleans(), max_size=4))
def test_lifting_a_revocation_gives_back_what_was_there(history, turns):
    house = House(holdout_share=0.5)
    for step in history:
        happen(house, step)
    records = records_of(house)
    changed = folded([*records, *(revoke(is_lifted=turn) for turn in turns), revoke(is_lifted=True)])
    plain = folded(records)
    assert changed.revocations.pairs() == []
    assert not changed.revocations.is_stale
    assert state_of(changed, "revoked") == state_of(plain, "revoked")


def test_a_state_that_was_folded_unaware_says_that_it_is_stale():
    house = House()
    house.send(DEVICE, USER, type="identify")
    house.write(revoke())
    assert house.world.revocations.is_stale
    assert house.world.revocations.pairs() == [PAIR]
    house.write(revoke(is_lifted=True))
    assert not house.world.revocations.is_stale, "nothing was folded apart yet"


@pytest.mark.parametrize(
    ("asked", "whose"),
    [
        ((DEVICE, None), f"anonymous_id:{DEVICE}"),
        ((None, USER), f"user_id:{USER}"),
        ((DEVICE, USER), f"user_id:{USER}"),
    ],
)
def test_a_decision_goes_to_whom_the_ids_that_asked_name(asked, whose):
    house = House()
    house.declare("hero", variants=[{"id": "a"}, {"id": "b"}])
    house.send(DEVICE, event="Product Viewed")
    house.send(DEVICE, USER, type="identify")
    answer = house.decide(asked[0], "hero", user=asked[1])
    apart = folded([*records_of(house), revoke()])
    for name in (f"anonymous_id:{DEVICE}", f"user_id:{USER}"):
        placements = by_identifier(apart, name).placements
        assert ("hero" in placements) == (name == whose)
    assert by_identifier(apart, whose).placements["hero"].open == [answer.decision_id]


def test_who_is_apart_is_met_apart():
    house = House()
    house.send(DEVICE, event="Product Viewed")
    house.send(DEVICE, USER, type="identify")
    apart = folded([*records_of(house), revoke()])
    house.world = apart
    house.fold = Fold(apart, SECRET, house.log)
    house.decider.use(apart)
    house.declare("hero", variants=[{"id": "a"}, {"id": "b"}])
    one = house.decide_all(DEVICE, ASKED).profile_id
    two = house.decide_all(DEVICE, ASKED, user=USER).profile_id
    three = house.decide_all(None, ASKED, user=USER).profile_id
    assert one != two == three


def test_identifiers_of_any_characters_are_kept_apart_after_a_restart_too():
    log = MemoryLog()
    pair = pair_of('anonymous_id:a\x1fb"\n', "user_id:\x1f")
    log.append(*encode(LinkRevoked(1.0, pair)))
    store = MemoryState(TABLES)
    world = World(store)
    world.revocations.keep_apart(revoked_in(log))
    world.checkpoint()
    assert World(store).revocations.folded == {pair}
