"""Identity: which events make one person of two, what stays of each, and what is never joined."""

import pytest
from tests.house import SECRET, House

from tailorbird.features.state import ORDERS, SESSIONS, VALUE, own_items, recents
from tailorbird.limits import IMPRESSIONS_MAX, LINKS_MAX
from tailorbird.live.profiles import holdout_position, primary_interest
from tailorbird.live.world import ALL_PLACEMENTS
from tailorbird.schema.records import ConsentChanged

HERO = [{"id": "a"}, {"id": "b"}]


def held_and_free(share: float) -> tuple[str, str]:
    """Return an anonymous id inside a holdout of this share and one outside."""
    names = [f"v{number}" for number in range(100)]
    is_held = {name: holdout_position(SECRET, f"anonymous_id:{name}") < share for name in names}
    return next(n for n in names if is_held[n]), next(n for n in names if not is_held[n])


def merge(house: House, first: str, second: str, user: str = "u1") -> None:
    """Make one person of two anonymous visitors: both sign in as the same user."""
    house.send(first, user, type="identify")
    house.send(second, user, type="identify")


# --- linking ------------------------------------------------------------------------------------------


def test_an_event_with_two_identifiers_links_them_and_says_by_what():
    house = House()
    house.send("a", event="Product Viewed")
    house.send("a", "u1", type="identify", messageId="m-link")
    profile = house.profile("user_id:u1")
    assert profile is house.profile("anonymous_id:a")
    first, second = profile.links
    assert (first.identifier, first.rule) == ("anonymous_id:a", "track")
    assert (second.identifier, second.rule, second.message_id) == ("user_id:u1", "identify", "m-link")
    assert (second.t, second.merged) == (house.clock.now(), "")


def test_a_profile_is_also_found_by_its_own_id():
    house = House()
    house.send("a", event="Product Viewed")
    profile = house.profile("anonymous_id:a")
    assert house.profile(f"profile:{profile.id}") is profile


def test_an_email_finds_a_person_and_never_merges_two():
    house = House()
    house.send("a", "u1", type="identify", traits={"email": " Jo@X.com "})
    house.send("b", "u2", type="identify", traits={"email": "jo@x.com"})
    assert house.profile("email:jo@x.com") is house.profile("user_id:u1")
    assert house.profile("user_id:u2") is not house.profile("user_id:u1")


def test_identifiers_tell_when_they_were_first_and_last_seen():
    house = House()
    house.send("a", event="Product Viewed")
    house.send("a", event="Product Viewed", at=-500.0)
    house.send("a", event="Product Viewed", at=-20.0)
    now = house.clock.now()
    assert house.profile("anonymous_id:a").identifiers == {"anonymous_id:a": (now - 500.0, now)}


def test_identifiers_of_one_profile_are_bounded():
    house = House()
    for number in range(LINKS_MAX + 30):
        house.send(f"a{number}", "u1", event="Product Viewed")
    profile = house.profile("user_id:u1")
    assert len(profile.links) <= LINKS_MAX
    assert len(profile.identifiers) <= LINKS_MAX
    assert house.count("identity.links_refused") + house.count("identity.merges_refused") > 0


# --- merging ------------------------------------------------------------------------------------------


def test_the_older_profile_survives_whichever_signs_in_first():
    for first, second in (("old", "new"), ("new", "old")):
        house = House()
        house.send("old", event="Product Viewed")
        older = house.profile("anonymous_id:old").id
        house.clock.advance(100.0)
        house.send("new", event="Product Viewed")
        newer = house.profile("anonymous_id:new").id
        merge(house, first, second)
        profile = house.profile("user_id:u1")
        assert (profile.id, profile.assignment_key) == (older, "anonymous_id:old")
        assert house.world.profiles.get(newer) is None
        for identifier in ("anonymous_id:old", "anonymous_id:new", f"profile:{newer}", f"profile:{older}"):
            assert house.profile(identifier) is profile
        assert profile.links[-1].merged == newer
        assert house.count("identity.merges") == 1


def test_ids_of_earlier_merges_go_on_leading_to_the_person():
    house = House()
    ids = []
    for name in ("a", "b", "c"):
        house.send(name, event="Product Viewed")
        ids.append(house.profile(f"anonymous_id:{name}").id)
        house.clock.advance(10.0)
    merge(house, "b", "c")
    house.send("a", "u1", type="identify")
    assert {house.profile(f"profile:{key}").id for key in ids} == {ids[0]}


def test_a_merge_adds_up_what_both_did():
    house = House()
    house.send("a", event="Order Completed", properties={"revenue": 10.0, "product_id": "i1"})
    house.clock.advance(5_000.0)
    house.send("b", event="Order Completed", properties={"revenue": 2.5, "product_id": "i2"})
    house.send("b", event="Product Viewed", properties={"product_id": "i2", "category": "shoes"})
    merge(house, "a", "b")
    profile = house.profile("user_id:u1")
    state, index = profile.state, house.world.catalogue.index
    assert (state[ORDERS], state[VALUE], state[SESSIONS]) == (2, 12.5, 3)
    assert list(profile.purchases) == ["i1", "i2"]
    times, (_, items, _) = recents(state)
    assert [item for item in items.tolist() if item >= 0] == [index["i1"], index["i2"], index["i2"]]
    assert times.tolist() == sorted(times.tolist())
    assert primary_interest(house.world, profile) == "shoes"
    assert own_items(state)[0].tolist() == [index["i2"], index["i1"]]


def test_of_traits_the_last_said_and_of_consent_the_stricter_holds():
    house = House()
    now = house.clock.now()
    house.send("a", type="identify", traits={"plan": "free", "age": 3})
    house.clock.advance(10.0)
    house.send("b", type="identify", traits={"plan": "pro"}, gpc=True)
    consent = {
        "anonymous_id:a": {"ads": True, "personalization": False},
        "anonymous_id:b": {"ads": False, "mail": True},
    }
    for identifier, said in consent.items():
        house.write(ConsentChanged(now, identifier, said))
    merge(house, "a", "b")
    profile = house.profile("user_id:u1")
    assert profile.traits == {"plan": "pro", "age": 3}
    assert profile.consent == {"ads": False, "personalization": False, "mail": True}
    assert profile.gpc


def test_what_was_shown_is_remembered_as_far_as_for_one_person():
    house = House()
    house.declare("hero", variants=HERO, constraints={"frequencyCap": {"count": 100}})
    for name in ("a", "b"):
        for _ in range(45):
            house.decide(name, "hero")
    merge(house, "a", "b")
    assert len(house.profile("user_id:u1").placements["hero"].shown) == min(90, IMPRESSIONS_MAX)


def test_two_known_users_are_never_merged():
    house = House()
    house.send("a", "u1", event="Product Viewed")
    house.send("a", "u2", event="Product Viewed")
    house.send("b", "u2", event="Product Viewed")
    house.send("b", "u1", event="Product Viewed")
    house.send(user="u2", type="alias", previousId="u1")
    house.send(user="u2", type="alias", previousId="a")
    one, two = house.profile("user_id:u1"), house.profile("user_id:u2")
    assert one is not two
    assert house.count("identity.merges") == 0
    assert house.count("identity.merge_of_known_users_refused") == 1
    assert not any(name.startswith("user_id:u2") for name in one.identifiers)


def test_an_alias_links_what_was_anonymous():
    house = House()
    house.send("a", event="Product Viewed")
    house.send(user="u1", type="alias", previousId="a")
    assert house.profile("user_id:u1") is house.profile("anonymous_id:a")
    house.send(user="u1", type="alias", previousId="u1")
    assert house.count("identity.merge_of_known_users_refused") == 0


def test_a_second_user_on_a_device_does_not_get_what_the_first_one_did():
    house = House()
    house.send("a", event="Order Completed", properties={"revenue": 10.0})
    house.send("a", "u1", type="identify")
    house.send("a", "u2", event="Product Viewed")
    assert house.profile("user_id:u1").state[ORDERS] == 1
    assert house.profile("user_id:u2").state[ORDERS] == 0
    house.send("a", event="Order Completed", properties={"revenue": 1.0})
    assert house.profile("device:a").state[ORDERS] == 1


# --- holdout arms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_older_held", [True, False])
def test_the_older_ones_arm_stays_and_the_case_is_counted(is_older_held):
    held, free = held_and_free(0.5)
    older, newer = (held, free) if is_older_held else (free, held)
    house = House(holdout_share=0.5)
    house.declare("hero", variants=HERO)
    house.decide(older, "hero")
    house.clock.advance(10.0)
    house.decide(newer, "hero")
    house.decide(newer, "hero")
    merge(house, newer, older)
    profile = house.profile("user_id:u1")
    arm = "holdout" if is_older_held else "personalized"
    assert profile.is_arm_merged
    assert house.count("identity.arm_merges") == 1
    for key in ("hero", ALL_PLACEMENTS):
        moments = house.world.moments.get(key)
        gone = moments.of("personalized" if is_older_held else "holdout")
        assert profile.placements[key].arm == arm
        assert (moments.of(arm).units, moments.of(arm).decisions, moments.of(arm).decisions_squared) == (
            1,
            3,
            9,
        )
        assert (gone.units, gone.decisions, gone.decisions_squared) == (0, 0, 0)
        assert moments.merged_units == 1
    assert house.decide(newer, "hero", user="u1").decision.holdout == arm


def test_a_merge_of_equal_arms_is_nothing_special():
    house = House()
    house.declare("hero", variants=HERO)
    house.decide("a", "hero")
    house.decide("b", "hero")
    merge(house, "a", "b")
    assert not house.profile("user_id:u1").is_arm_merged
    assert house.world.moments.get("hero").personalized.units == 1
    assert house.world.moments.get("hero").merged_units == 0


def test_who_was_never_counted_brings_no_unit_and_no_second_arm():
    """Somebody who refused was decided for without an arm; merging must not make a unit of that."""
    for refused_first in (True, False):
        house = House()
        house.declare("hero", variants=HERO)
        names = ("a", "b") if refused_first else ("b", "a")
        for name in names:
            house.decide(name, "hero", gpc=name == "a")
            house.clock.advance(10.0)
        merge(house, "a", "b")
        moments = house.world.moments.get("hero")
        profile = house.profile("user_id:u1")
        assert profile.placements["hero"].arm == "personalized"
        assert not profile.is_arm_merged
        assert (moments.merged_units, moments.personalized.units, moments.personalized.decisions) == (0, 1, 1)
        house.decide("b", "hero", user="u1")
        assert house.world.moments.get("hero").personalized.units == 1


def test_two_who_refused_stay_without_an_arm():
    house = House()
    house.declare("hero", variants=HERO)
    for name in ("a", "b"):
        house.decide(name, "hero", gpc=True)
    merge(house, "a", "b")
    assert house.profile("user_id:u1").placements["hero"].arm == ""
    assert house.world.moments.get("hero") is None or house.world.moments.get("hero").personalized.units == 0
