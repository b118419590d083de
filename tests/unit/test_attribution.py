"""Attribution: each exposure and outcome counts once, for the decision that it belongs to."""

import pytest
from tests.house import House

from tailorbird.limits import OPEN_DECISIONS_MAX
from tailorbird.live.world import ALL_PLACEMENTS
from tailorbird.schema.events import LoggedOutcome

GOAL = {"event": "Order Completed", "value": "properties.revenue", "windowSeconds": 3600}
VARIANTS = [{"id": "a"}, {"id": "b"}]


@pytest.fixture
def house() -> House:
    made = House()
    made.declare("hero", variants=VARIANTS, goal=GOAL, policy={"type": "fixed"})
    return made


def decided(house: House, visitor: str = "v", key: str = "hero", **asked) -> str:
    """Decide, and let a second pass; return the decision's id."""
    answer = house.decide(visitor, key, **asked)
    house.clock.advance(1.0)
    return answer.decision_id


def buy(house: House, visitor: str | None = "v", **fields) -> None:
    properties = fields.pop("properties", {"revenue": 5.0})
    house.send(visitor, event="Order Completed", properties=properties, **fields)


def sums(house: House, key: str = "hero") -> tuple[int, int, int, int, float]:
    """Return what was learned at a placement, over all arms."""
    arms = house.world.policies.get(key).arms.values()
    fields = ("decided", "exposed", "rewarded_decided", "rewarded_exposed", "value")
    return tuple(sum(getattr(arm, field) for arm in arms) for field in fields)


# --- once ---------------------------------------------------------------------------------------------


def test_an_exposure_counts_once_however_often_it_is_sent(house):
    key = decided(house)
    for _ in range(3):
        house.send("v", event="Decision Viewed", properties={"decisionId": key})
    assert sums(house) == (1, 1, 0, 0, 0.0)
    assert house.profile("anonymous_id:v").placements["hero"].exposures == 1
    assert house.world.moments.get("hero").personalized.exposures == 1


def test_the_first_time_of_an_exposure_is_kept(house):
    key = decided(house)
    house.send("v", event="Decision Viewed", properties={"decisionId": key}, at=100.0)
    house.send("v", event="Decision Viewed", properties={"decisionId": key}, at=50.0)
    assert house.mark(key).exposed_at == house.clock.now() + 50.0


def test_an_outcome_counts_once_for_its_decision(house):
    key = decided(house)
    for revenue in (5.0, 7.0):
        buy(house, properties={"revenue": revenue, "decisionId": key})
    assert sums(house) == (1, 0, 1, 0, 5.0)
    assert house.mark(key).value == 5.0


@pytest.mark.parametrize("first", ["Decision Viewed", "Order Completed"])
def test_exposure_and_outcome_may_come_in_either_order(house, first):
    key = decided(house)
    names = ["Decision Viewed", "Order Completed"]
    for name in sorted(names, key=lambda name: name != first):
        house.send("v", event=name, properties={"decisionId": key, "revenue": 5.0})
    assert sums(house) == (1, 1, 1, 1, 5.0)


def test_what_a_back_end_reports_counts_once_too(house):
    key = decided(house)
    now = house.clock.now()
    for message in ("o-1", "o-1", "o-2"):
        house.write(LoggedOutcome(now, now, message, key, "Order Completed", 9.0))
    house.write(LoggedOutcome(now, now, "o-3", key, "Something Else", 9.0))
    house.write(LoggedOutcome(now, now, "o-4", "d-zz-000000000000", "Order Completed"))
    assert sums(house) == (1, 0, 1, 0, 9.0)
    assert house.count("events.duplicate") == 1
    assert house.count("attribution.repeated_outcome") == 1
    assert house.count("attribution.unknown_decision") == 1


def test_an_event_sent_again_counts_once(house):
    decided(house)
    for _ in range(2):
        buy(house, messageId="m-same")
    decided(house)
    assert sums(house) == (2, 0, 1, 0, 5.0)


# --- which one ----------------------------------------------------------------------------------------


def test_an_outcome_goes_to_the_newest_decision_that_was_shown(house):
    first, second, third = decided(house), decided(house), decided(house)
    for key in (first, second):
        house.send("v", event="Decision Viewed", properties={"decisionId": key})
    buy(house)
    assert [house.mark(key).rewarded_at is not None for key in (first, second, third)] == [False, True, False]


def test_without_exposures_it_goes_to_the_newest_decision(house):
    first, second = decided(house), decided(house)
    buy(house)
    assert [house.mark(key).rewarded_at is not None for key in (first, second)] == [False, True]
    buy(house)
    assert house.mark(first).rewarded_at is not None


def test_the_events_own_time_says_whether_the_window_holds_it(house):
    key = decided(house)
    begin = house.mark(key).t
    house.clock.advance(90_000.0)
    now = house.clock.now()
    for t in (begin - 1.0, begin + 3600.5):
        buy(house, at=t - now)
        buy(house, at=t - now, properties={"decisionId": key})
        house.write(LoggedOutcome(now, t, f"o-{t}", key, "Order Completed"))
    assert sums(house)[2] == 0
    assert house.count("attribution.outside_window") == 2
    buy(house, at=begin + 3600.0 - now)
    assert sums(house)[2] == 1, "late, but inside the window by its own time"


def test_another_visitors_outcome_does_not_count(house):
    decided(house)
    buy(house, "w")
    assert sums(house)[2] == 0


def test_an_outcome_that_names_its_decision_needs_no_visitor(house):
    key = decided(house)
    buy(house, "somebody-else", properties={"revenue": 5.0, "decision_id": key})
    assert house.mark(key).value == 5.0
    assert house.profile("anonymous_id:v").placements["hero"].value == 5.0


def test_an_outcome_that_names_a_decision_of_another_placement_is_not_joined_by_window(house):
    house.declare("banner", variants=VARIANTS, goal=GOAL)
    hero, banner = decided(house), decided(house, key="banner")
    buy(house, properties={"revenue": 5.0, "decisionId": hero})
    assert house.mark(hero).rewarded_at is not None
    assert house.mark(banner).rewarded_at is None


@pytest.mark.parametrize("key", ["d-0-abc", "nonsense", "d-1-000000000000", "", 7, None])
def test_an_id_that_is_not_ours_is_counted_and_harms_nothing(house, key):
    decided(house)
    house.send("v", event="Decision Viewed", properties={"decisionId": key})
    assert sums(house) == (1, 0, 0, 0, 0.0)


def test_one_event_may_reach_the_goals_of_several_placements(house):
    house.declare("banner", variants=VARIANTS, goal={"event": "Order Completed"})
    keys = [decided(house), decided(house, key="banner")]
    buy(house)
    assert [house.mark(key).value for key in keys] == [5.0, 1.0]


def test_with_match_item_only_an_event_on_an_item_shown_counts(house):
    house.stock({"id": "i1"}, {"id": "i2"}, {"id": "i3"})
    house.declare("list", kind="list", count=2, goal={"event": "Product Viewed", "match": "item"})
    key = decided(house, key="list", candidates=("i1", "i2"))
    house.send("v", event="Product Viewed", properties={"product_id": "i3"})
    assert house.mark(key).rewarded_at is None
    house.send("v", event="Product Viewed", properties={"products": [{"sku": "i3"}, {"sku": "i2"}]})
    assert house.mark(key).rewarded_at is not None


def test_with_match_item_the_newest_decision_that_showed_it_gets_the_outcome(house):
    house.stock({"id": "i1"}, {"id": "i2"})
    house.declare("list", kind="list", goal={"event": "Product Viewed", "match": "item"})
    first = decided(house, key="list", candidates=("i1",))
    second = decided(house, key="list", candidates=("i2",))
    house.send("v", event="Product Viewed", properties={"product_id": "i1"})
    assert house.mark(first).rewarded_at is not None
    assert house.mark(second).rewarded_at is None


# --- Experiment Viewed --------------------------------------------------------------------------------


def test_experiment_viewed_is_the_exposure_of_the_newest_decision_for_that_variation(house):
    keys = [decided(house) for _ in range(6)]
    arms = [house.mark(key).arm for key in keys]
    house.send("v", event="Experiment Viewed", properties={"experimentId": "hero", "variationId": "a"})
    newest = max(index for index, arm in enumerate(arms) if arm == "a")
    assert [house.mark(key).exposed_at is not None for key in keys] == [index == newest for index in range(6)]


@pytest.mark.parametrize("name", ["placement", "experiment_id", "experimentName"])
def test_an_exposure_may_name_the_placement_in_several_ways(house, name):
    key = decided(house)
    house.send("v", event="Experiment Viewed", properties={name: "hero"})
    assert house.mark(key).exposed_at == house.clock.now()


def test_an_exposure_before_its_decision_or_elsewhere_is_not_joined(house):
    key = decided(house)
    house.send("v", event="Experiment Viewed", properties={"experimentId": "hero"}, at=-60.0)
    house.send("v", event="Experiment Viewed", properties={"experimentId": "other"})
    house.send("w", event="Experiment Viewed", properties={"experimentId": "hero"})
    house.send("v", event="Experiment Viewed", properties={"experimentId": "hero", "variationId": "z"})
    assert house.mark(key).exposed_at is None


# --- what is learned ----------------------------------------------------------------------------------


def test_fallbacks_and_holdouts_are_counted_and_teach_nothing():
    house = House(holdout_share=1.0)
    house.declare("hero", variants=VARIANTS, goal=GOAL)
    key = decided(house)
    house.send("v", event="Decision Viewed", properties={"decisionId": key})
    buy(house)
    assert house.world.policies.get("hero") is None
    held = house.world.moments.get("hero").holdout
    assert (held.units, held.decisions, held.exposures, held.outcomes, held.value) == (1, 1, 1, 1, 5.0)


@pytest.mark.parametrize(
    ("properties", "value"),
    [
        ({"revenue": 7}, 7.0),
        ({"revenue": "much"}, 0.0),
        ({}, 0.0),
        ({"revenue": 1e300}, 0.0),
        ({"revenue": -3.0}, -3.0),
    ],
)
def test_a_goals_value_that_cannot_be_told_is_zero(house, properties, value):
    key = decided(house)
    buy(house, properties=properties)
    assert house.mark(key).rewarded_at is not None
    assert house.mark(key).value == value


def test_a_placement_with_a_share_of_its_own_stays_out_of_the_total(house):
    house.declare("own", variants=VARIANTS, goal=GOAL, holdout=0.5)
    decided(house, key="own")
    assert house.world.moments.get(ALL_PLACEMENTS) is None
    decided(house)
    buy(house)
    total = house.world.moments.get(ALL_PLACEMENTS).personalized
    assert (total.decisions, total.outcomes) == (1, 1)


def test_a_placement_that_was_withdrawn_and_came_back_goes_on(house):
    key = decided(house)
    house.world.delete_placement("hero")
    buy(house, properties={"decisionId": key, "revenue": 1.0})
    assert house.mark(key).rewarded_at is None
    house.declare("hero", variants=VARIANTS, goal=GOAL)
    buy(house, properties={"decisionId": key, "revenue": 1.0})
    assert house.mark(key).rewarded_at is not None


def test_decisions_that_wait_are_bounded(house):
    for _ in range(3 * OPEN_DECISIONS_MAX):
        decided(house)
    assert len(house.profile("anonymous_id:v").placements["hero"].open) <= OPEN_DECISIONS_MAX


def test_accounts_are_found_again_from_the_log():
    house = House(cache_bytes=1)
    house.declare("hero", variants=VARIANTS, goal=GOAL)
    keys = [decided(house, f"v{number}") for number in range(5)]
    house.world.checkpoint()
    for key in keys:
        house.send("x", event="Decision Viewed", properties={"decisionId": key})
    assert sums(house)[:2] == (5, 5)
