"""Finding people: who is met, who is new, and what is no identifier at all."""

import pytest
from tests.house import SECRET, House

from tailorbird.live.identifiers import is_blocked
from tailorbird.live.profiles import (
    find,
    founding_identifier,
    holdout_position,
    is_suppressed,
    profile_id_of,
    suppression_hash,
)
from tailorbird.schema.records import Suppressed


@pytest.mark.parametrize(
    "value",
    ["", " ", "null", "NULL", " undefined ", "NaN", "0", "000", "-", "-1", "00000000-0000-0000-0000-000000000000",
     "[object Object]", "anonymous", "false", "n/a", "none"],
)  # fmt: skip
def test_placeholders_identify_nobody(value):
    assert is_blocked(value)


@pytest.mark.parametrize("value", ["u-1", "1", "10", "nullable", "0x", "a@b.c", "000-1"])
def test_real_ids_identify_somebody(value):
    assert not is_blocked(value)


def test_a_visitor_sent_with_placeholders_is_nobody():
    house = House()
    house.send("null", "undefined", event="Product Viewed")
    assert not list(house.world.profiles.scan())


def test_a_stranger_is_founded_on_the_anonymous_id_first():
    world = House().world
    assert founding_identifier(world, "a", "u") == "anonymous_id:a"
    assert founding_identifier(world, "a", None) == "anonymous_id:a"
    assert founding_identifier(world, None, "u") == "user_id:u"
    assert founding_identifier(world, None, None) is None


def test_the_known_user_comes_first():
    house = House()
    house.send("a", "u1", event="Product Viewed")
    house.send("b", event="Product Viewed")
    assert find(house.world, "b", "u1").id == house.profile("user_id:u1").id
    assert find(house.world, "b", None).id == house.profile("anonymous_id:b").id
    assert find(house.world, "c", None) is None
    assert find(house.world, None, None) is None


def test_a_user_not_met_before_on_somebody_elses_device_is_new():
    house = House()
    house.send("a", "u1", event="Product Viewed")
    assert find(house.world, "a", "u2") is None
    assert founding_identifier(house.world, "a", "u2") == "user_id:u2"


def test_a_user_not_met_before_on_nobodys_device_is_who_used_it():
    house = House()
    house.send("a", event="Product Viewed")
    assert find(house.world, "a", "u1").id == house.profile("anonymous_id:a").id


def test_what_a_shared_device_does_signed_out_belongs_to_nobody_known():
    house = House()
    house.send("a", "u1", event="Product Viewed")
    house.send("a", "u2", event="Product Viewed")
    assert find(house.world, "a", None) is None
    assert founding_identifier(house.world, "a", None) == "device:a"
    house.send("a", event="Product Viewed")
    device = find(house.world, "a", None)
    assert device.id == profile_id_of(SECRET, "device:a")
    assert device.id not in {house.profile("user_id:u1").id, house.profile("user_id:u2").id}
    for user in ("u1", "u2"):
        assert find(house.world, "a", user).id == house.profile(f"user_id:{user}").id


@pytest.mark.parametrize(
    ("before", "visitor"),
    [
        ([], ("a", "u")),
        ([], ("a", None)),
        ([], (None, "u")),
        ([("a", None)], ("a", "u")),
        ([("a", "u1")], ("a", "u2")),
        ([("a", "u1"), ("a", "u2")], ("a", None)),
        ([("a", "u1"), ("a", "u2")], ("a", "u3")),
    ],
)
def test_a_decision_and_the_event_after_it_see_the_same_person(before, visitor):
    house = House()
    house.declare("hero", variants=[{"id": "a"}])
    for anonymous, user in before:
        house.send(anonymous, user, event="Product Viewed")
    decided = house.decide(visitor[0], "hero", user=visitor[1]).decision
    house.send(*visitor, event="Product Viewed")
    kind, value = ("user_id", visitor[1]) if visitor[1] else ("anonymous_id", visitor[0])
    found = find(house.world, *visitor)
    assert decided.profile == found.id
    if not is_shared_device(house, visitor):
        assert house.profile(f"{kind}:{value}").id == found.id


def is_shared_device(house: House, visitor: tuple[str | None, str | None]) -> bool:
    return visitor[1] is None and len(house.world.identifiers.get(f"anonymous_id:{visitor[0]}").owners) > 1


def test_holdout_positions_are_fixed_and_uniform():
    positions = [holdout_position(SECRET, f"anonymous_id:{number}") for number in range(4_000)]
    assert positions[:3] == [holdout_position(SECRET, f"anonymous_id:{number}") for number in range(3)]
    assert all(0.0 <= position < 1.0 for position in positions)
    # Four standard deviations of a binomial share.
    assert abs(sum(position < 0.1 for position in positions) / 4_000 - 0.1) < 4 * (0.09 / 4_000) ** 0.5
    assert holdout_position(bytes(32), "anonymous_id:1") != positions[1]


def test_a_suppressed_identifier_is_refused_until_lifted():
    house = House()
    hashes = (suppression_hash(SECRET, "user_id:u1"),)
    assert not is_suppressed(house.world, SECRET, "user_id", "u1")
    house.write(Suppressed(house.clock.now(), hashes))
    assert is_suppressed(house.world, SECRET, "user_id", "u1")
    assert not is_suppressed(house.world, SECRET, "anonymous_id", "u1")
    assert not is_suppressed(house.world, SECRET, "user_id", None)
    house.write(Suppressed(house.clock.now(), hashes, is_lifted=True))
    assert not is_suppressed(house.world, SECRET, "user_id", "u1")


def test_an_erased_person_is_met_as_a_stranger_without_a_name():
    house = House(holdout_share=1.0)
    house.declare("hero", variants=[{"id": "a"}])
    house.write(Suppressed(house.clock.now(), (suppression_hash(SECRET, "user_id:u1"),)))
    answers = house.decide("a", "hero", user="u1")
    assert answers.decision.profile is None
    assert answers.decision.holdout == "none"
    assert not list(house.world.profiles.scan())
