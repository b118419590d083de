"""Rule segments: what may be declared, who enters and leaves when, and what rules of placements see."""

from typing import Any

import msgspec
import pytest
from tests.house import BEGIN, House

from tailorbird.clock import ManualClock
from tailorbird.errors import InvalidInputError
from tailorbird.limits import COUNTER_KEYS_MAX, RECENT_EVENTS_MAX, SEGMENT_CHANGES_MAX
from tailorbird.live.facts import members_at
from tailorbird.live.rule_segments import check_segment
from tailorbird.schema.records import ConsentChanged, decode
from tailorbird.schema.segment import RuleSegment, SegmentChanged, SegmentDeleted, SegmentPut

DAY = 86400.0
SEEKERS = {
    "sequence": {
        "steps": [{"event": "Product Viewed", "times": 2}, {"event": "Products Searched"}],
        "withinSeconds": 2 * DAY,
    }
}


def segment(key: str, **fields: Any) -> RuleSegment:
    return msgspec.convert({"key": key, **fields}, RuleSegment)


def checked(key: str, *others: RuleSegment, **fields: Any) -> RuleSegment:
    return check_segment(segment(key, **fields), {other.key: other for other in others})


@pytest.fixture
def house():
    return House(clock=ManualClock(BEGIN))


def declare(house: House, key: str, **fields: Any) -> None:
    house.write(SegmentPut(house.clock.now(), checked(key, **fields)))


def see(house: House, event: str = "Product Viewed", *, who: str = "d", **more: Any) -> None:
    house.send(who, event=event, **more)


def members(house: House, who: str = "anonymous_id:d", after: float = 0.0) -> list[str]:
    return list(members_at(house.world, house.profile(who), house.clock.now() + after))


def noted(house: House) -> list[tuple[str, str, str]]:
    return [(one.segment, one.change, one.message_id) for one in house.world.segments.unannounced.values()]


# --- what may be declared -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path", "rule"),
    [
        ({}, "rule", "a rule, a sequence, or both"),
        ({"rule": "profile."}, "rule", "must be CEL"),
        ({"rule": "item.price > 1.0"}, "rule", "'item' is not one of them"),
        ({"rule": "context.locale == 'de'"}, "rule", "'context' is not one of them"),
        ({"rule": "profile['views_7d'] > 1.0"}, "rule", "must name each field"),
        ({"rule": "profile.segments.size() > 1"}, "rule", "only as 'key' in profile.segments"),
        ({"rule": "profile.segments.exists(s, s == 'a')"}, "rule", "only as 'key' in profile.segments"),
        ({"rule": "profile.plan in profile.segments"}, "rule", "only as 'key' in profile.segments"),
        ({"rule": "'me' in profile.segments"}, "rule", "circle: me -> me"),
        (
            {"sequence": {"steps": [{"event": "E", "times": 30}] * 2, "withinSeconds": 60}},
            "sequence.steps",
            "at most 50 events",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_its_path(fields, path, rule):
    with pytest.raises(InvalidInputError) as refused:
        checked("me", **fields)
    (fault,) = refused.value.faults
    assert fault.path == path
    assert rule in fault.rule


def test_segments_that_read_one_another_in_a_circle_are_refused_and_the_circle_is_told():
    a = segment("a", rule="'b' in profile.segments")
    b = segment("b", rule="!('c' in profile.segments)")
    with pytest.raises(InvalidInputError, match="c -> a -> b -> c"):
        checked("c", a, b, rule="'a' in profile.segments && profile.views_7d > 1.0")
    assert checked("c", a, b, rule="'other' in profile.segments").key == "c"


def test_what_stands_in_comments_and_strings_is_no_segment():
    rule = "profile.plan == \"'x' in profile.segments\" // it's 'y' in profile.segments\n|| 'a' in profile.segments"
    with pytest.raises(InvalidInputError, match="circle: a -> a"):
        checked("a", rule=rule)
    for name in "xy":
        assert checked(name, rule=rule).key == name


# --- entering and leaving -------------------------------------------------------------------------------


def test_viewed_twice_then_searched_within_two_days(house):
    declare(house, "seekers", **SEEKERS)
    see(house)
    see(house, "Products Searched")
    see(house)
    house.clock.advance(DAY)
    assert members(house) == []
    see(house, "Products Searched")
    assert members(house) == ["seekers"]
    assert noted(house) == [("seekers", "entered", "m-4")]
    assert house.world.segments.size("seekers") == 1
    assert house.profile("anonymous_id:d").segments == {"seekers": house.clock.now()}


def test_a_sequence_that_took_too_long_does_not_count(house):
    declare(house, "seekers", **SEEKERS)
    see(house)
    house.clock.advance(DAY)
    see(house)
    house.clock.advance(DAY + 1.0)
    see(house, "Products Searched")
    assert members(house) == []
    see(house)
    see(house, "Products Searched")
    assert members(house) == ["seekers"], "the second view, the third, and a search"


def test_an_event_that_comes_late_counts_in_its_place(house):
    declare(house, "seekers", **SEEKERS)
    see(house)
    house.clock.advance(100.0)
    see(house, "Products Searched")
    see(house, at=10.0)
    assert members(house) == []
    see(house, at=-50.0)
    assert members(house) == ["seekers"]


def test_steps_may_ask_for_an_item_and_a_category(house):
    steps = [{"event": "Product Viewed", "item": "sku-1"}, {"event": "Product Added", "category": "hats"}]
    declare(house, "fans", sequence={"steps": steps, "withinSeconds": 60})
    for item, category in (("sku-2", "hats"), ("sku-1", "shoes")):
        see(house, properties={"product_id": item})
        see(house, "Product Added", properties={"product_id": item, "category": category})
        assert members(house) == []
    see(house, "Product Added", properties={"category": "hats"})
    assert members(house) == ["fans"]


def test_a_sequence_lasts_as_long_as_it_says_or_as_events_are_remembered(house):
    declare(house, "seekers", **SEEKERS)
    declare(house, "lately", sequence=SEEKERS["sequence"] | {"lastsSeconds": 600.0})
    for event in ("Product Viewed", "Product Viewed", "Products Searched"):
        see(house, event)
    assert members(house, after=600.0) == ["lately", "seekers"]
    assert members(house, after=601.0) == ["seekers"]
    for _ in range(RECENT_EVENTS_MAX - 2):
        see(house, "Page Viewed")
    assert members(house) == [], "the first view went from the recent events"
    assert ("seekers", "left", f"m-{RECENT_EVENTS_MAX + 1}") in noted(house)


def test_a_window_that_ends_is_seen_when_read_and_logged_with_the_next_event(house):
    declare(house, "active", rule="profile.views_1h > 1.0")
    see(house)
    see(house)
    assert members(house) == ["active"]
    assert members(house, after=7200.0) == []
    assert list(house.profile("anonymous_id:d").segments) == ["active"], "reading changes nothing"
    house.clock.advance(7200.0)
    see(house, "Page Viewed")
    assert house.profile("anonymous_id:d").segments == {}
    assert noted(house)[1:] == [("active", "left", "m-3")]


def test_time_alone_can_bring_people_in(house):
    declare(house, "away", rule="profile.recency_seconds > 3600.0")
    see(house)
    assert members(house) == []
    assert members(house, after=3601.0) == ["away"]


def test_a_rule_may_read_segments_that_change_with_the_same_event(house):
    declare(house, "a-keen", rule="'z-active' in profile.segments && !('m-buyer' in profile.segments)")
    declare(house, "m-buyer", rule="profile.orders > 0.0")
    declare(house, "z-active", rule="profile.views_7d > 0.0")
    see(house)
    assert members(house) == ["a-keen", "z-active"]
    see(house, "Order Completed")
    assert members(house) == ["m-buyer", "z-active"]
    assert [change for change in noted(house) if change[0] == "a-keen"] == [
        ("a-keen", "entered", "m-1"),
        ("a-keen", "left", "m-2"),
    ]


@pytest.mark.parametrize(
    "rule",
    [
        "profile.views_7d > 0.0 && profile.plan == 'profile.views_7d'",
        "has(profile.views_7d) && profile.views_7d > 0.0 && has(profile.plan)",
        "profile.views_7d > 0.0 // not profile.views_7d, it's profile.carts_7d",
        "[profile.views_7d, profile.carts_7d].exists(n, n > 0.0) && now > 0.0",
    ],
)
def test_features_are_read_wherever_they_stand_in_a_rule(house, rule):
    declare(house, "one", rule=rule)
    house.send("d", type="identify", traits={"plan": "profile.views_7d"})
    assert members(house) == []
    see(house)
    assert members(house) == ["one"]


def test_traits_move_people_and_a_missing_one_is_no_error_that_stops_anything(house):
    declare(house, "pro", rule="profile.plan == 'pro'")
    see(house)
    assert members(house) == []
    assert house.count("segments.rule_failed") == 1
    house.send("d", type="identify", traits={"plan": "pro"})
    assert members(house) == ["pro"]
    house.send("d", type="identify", traits={"plan": None})
    assert members(house) == []


def test_consent_given_through_the_api_moves_people_too(house):
    declare(house, "allowing", rule="profile.consent.size() > 0 && profile.consent.personalization")
    see(house)
    house.write(ConsentChanged(house.clock.now(), "anonymous_id:d", {"personalization": True}))
    assert members(house) == list(house.profile("anonymous_id:d").segments) == ["allowing"]


def test_a_counter_that_gave_way_to_another_is_zero_for_segments_too(house):
    declare(house, "first", rule="profile.event_0_count > 0.0")
    for index in range(COUNTER_KEYS_MAX):
        see(house, f"Event {index}")
    assert members(house) == ["first"]
    house.clock.advance(1000.0)
    for index in range(1, COUNTER_KEYS_MAX):
        see(house, f"Event {index}")
    see(house, "One More")
    assert house.profile("anonymous_id:d").segments == {}


def test_two_people_who_turn_out_to_be_one_are_evaluated_as_one(house):
    declare(house, "hats", rule="profile.category_hats_count > 1.0")
    declare(house, "single", rule="profile.product_viewed_count < 2.0")
    see(house, who="d1", properties={"category": "hats"})
    house.send("d2", user="u", event="Product Viewed", properties={"category": "hats"})
    assert members(house, "anonymous_id:d1") == members(house, "user_id:u") == ["single"]
    assert house.world.segments.size("single") == 2
    house.send("d1", user="u", event="Page Viewed")
    assert members(house, "user_id:u") == ["hats"]
    assert [house.world.segments.size(key) for key in ("hats", "single")] == [1, 0]
    passages = house.profile("user_id:u").passages
    assert [(one.segment, one.is_entered) for one in passages] == [
        ("single", True),
        ("single", True),
        ("hats", True),
        ("single", False),
    ]


# --- declarations that change ---------------------------------------------------------------------------


def test_a_new_declaration_holds_for_a_read_at_once_and_for_the_log_with_the_next_event(house):
    see(house)
    declare(house, "viewers", rule="profile.views_7d > 0.0")
    assert members(house) == ["viewers"]
    assert house.world.segments.size("viewers") == 0
    see(house, "Page Viewed")
    assert house.world.segments.size("viewers") == 1
    declare(house, "viewers", rule="profile.views_7d > 5.0")
    assert members(house) == []
    assert house.world.segments.size("viewers") == 1
    see(house, "Page Viewed")
    assert house.world.segments.size("viewers") == 0


def test_a_segment_that_comes_back_under_its_name_has_no_members_from_before(house):
    declare(house, "viewers", rule="profile.views_7d > 0.0")
    see(house)
    house.write(SegmentDeleted(house.clock.now(), "viewers"))
    assert members(house) == []
    house.clock.advance(60.0)
    declare(house, "viewers", rule="profile.views_7d > 0.0")
    assert members_at(house.world, house.profile("anonymous_id:d"), BEGIN + 90.0) == {"viewers": BEGIN + 90.0}
    see(house, "Page Viewed")
    assert house.profile("anonymous_id:d").segments == {"viewers": BEGIN + 60.0}
    assert house.world.segments.size("viewers") == 1


def test_nobody_is_in_a_segment_that_is_not_enabled(house):
    declare(house, "all", rule="true")
    see(house)
    assert members(house) == ["all"]
    declare(house, "all", rule="true", enabled=False)
    assert members(house) == []


def test_the_history_of_a_person_is_bounded(house):
    declare(house, "odd", rule="profile.sessions > 0.0 && profile.plan == 'a'")
    for index in range(SEGMENT_CHANGES_MAX + 10):
        house.send("d", type="identify", traits={"plan": "ab"[index % 2]})
    passages = house.profile("anonymous_id:d").passages
    assert len(passages) == SEGMENT_CHANGES_MAX
    assert passages[-1].message_id == f"m-{SEGMENT_CHANGES_MAX + 10}"


# --- what decisions see ---------------------------------------------------------------------------------


def test_a_placement_is_decided_by_segments_as_of_the_decision(house):
    declare(house, "active", rule="profile.views_1h > 1.0")
    declare(house, "new", rule="profile.sessions == 0.0")
    variants = [
        {"id": "vip", "rule": "'active' in profile.segments"},
        {"id": "hello", "rule": "'new' in profile.segments"},
        {"id": "plain", "rule": "profile.segments.size() == 0"},
    ]
    house.declare("hero", variants=variants, fallback="plain")

    def shown(**more: Any) -> str:
        return house.decide("d", "hero", **more).decision.choices[0].id

    assert shown() == "hello", "who was never met is evaluated, too"
    see(house)
    see(house)
    assert shown() == "vip"
    assert shown(at=house.clock.now() + 7200.0) == "plain"


def test_an_announcement_is_a_record_that_takes_the_note_away(house):
    declare(house, "viewers", rule="profile.views_7d > 0.0")
    see(house)
    (change,) = house.world.segments.unannounced.values()
    assert (change.change, change.message_id, change.t) == ("entered", "m-1", BEGIN)
    offset = house.write(change)
    assert house.world.segments.unannounced == {}
    record = house.log.get(offset)
    assert decode(record.kind, record.payload) == change


def test_who_came_without_an_event_is_evaluated_by_the_record_that_says_so(house):
    see(house)
    declare(house, "one", rule="profile.views_7d > 0.0")
    declare(house, "two", rule="'one' in profile.segments")
    profile = house.profile("anonymous_id:d")
    t = house.clock.now() + 60.0
    house.write(SegmentChanged(t, t, profile.id, "one", "entered"))
    assert profile.segments == {"one": t, "two": t}
    assert noted(house) == [("two", "entered", "")], "the first is announced already"
    house.write(SegmentChanged(t, t, "p-nobody", "one", "entered"))
    house.write(SegmentChanged(t, t, profile.id, "one", "left"))
    assert list(profile.segments) == ["one", "two"], "what does not hold is not believed"
