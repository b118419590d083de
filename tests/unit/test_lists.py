"""Lists through the cascade: what may be in them, in which order, and why."""

import msgspec
import pytest
from tests.house import House

from tailorbird.live.profiles import primary_interest
from tailorbird.schema.item import ItemDeleted, ItemPatch, ItemPatched

HATS = [{"id": f"h{number}", "title": f"Hat {number}", "categories": ["hats"]} for number in range(6)]
SHOES = [{"id": f"s{number}", "title": f"Shoe {number}", "categories": ["shoes"]} for number in range(3)]


@pytest.fixture
def house() -> House:
    made = House()
    made.stock(*HATS, *SHOES)
    made.declare("list", kind="list", count=4)
    return made


def ids(answer) -> list[str]:
    return [choice.id for choice in answer.decision.choices]


def steps(answer) -> dict[str, int]:
    return {step.step: step.removed for step in answer.decision.steps}


def view(house: House, visitor: str, *items: str, event: str = "Product Viewed", **fields) -> None:
    for item in items:
        house.send(visitor, event=event, properties={"product_id": item}, **fields)


def test_a_list_has_as_many_items_as_asked_for_and_there_are(house):
    assert len(ids(house.decide("v", "list"))) == 4
    assert len(ids(house.decide("v", "list", count=2))) == 2
    assert sorted(ids(house.decide("v", "list", count=50))) == sorted(item["id"] for item in HATS + SHOES)


def test_the_values_are_what_a_site_shows(house):
    answer = house.decide("v", "list", candidates=("h1",))
    assert [msgspec.json.decode(value) for value in answer.values] == [
        {"title": "Hat 1", "categories": ["hats"]}
    ]


def test_what_everybody_views_comes_first_for_a_stranger(house):
    for visitor in range(5):
        view(house, f"w{visitor}", "h3")
    view(house, "w9", "s1")
    choice = house.decide("new", "list").decision.choices[0]
    assert (choice.id, choice.why) == ("h3", "popular")
    told = house.decider.because(house.decide("new", "list").decision)
    assert told[0] == ["Popular right now."]
    assert told[-1] == ["Nobody has looked at it yet; it fills the list."]


def test_what_follows_what_the_visitor_viewed_is_recommended_with_its_reason():
    house = House()
    house.stock(*HATS, *SHOES)
    house.declare(
        "next", kind="list", count=1, strategies=[{"id": "after", "weights": {"covisitation": 1}}],
        constraints={"diversityShare": 0.0},
    )  # fmt: skip
    for visitor in range(3):
        view(house, f"w{visitor}", "h1", "s2")
    view(house, "v", "h1")
    decision = house.decide("v", "next").decision
    assert (decision.choices[0].id, decision.choices[0].why) == ("s2", "outside|after:Product Viewed:h1")
    assert house.decider.because(decision)[0] == [
        "Because you viewed Hat 1.",
        "Something different from what you usually look at.",
    ]


def test_at_least_the_declared_share_is_from_outside_the_primary_interest(house):
    for item in HATS:
        view(house, "v", item["id"])
    assert primary_interest(house.world, house.profile("anonymous_id:v")) == "hats"
    house.declare("half", kind="list", count=4, constraints={"diversityShare": 0.5})
    for _ in range(10):
        outside = [item for item in ids(house.decide("v", "half")) if item.startswith("s")]
        assert len(outside) >= 2
        assert any(item.startswith("s") for item in ids(house.decide("v", "list")))


def test_what_the_request_excludes_is_left_out_and_counted(house):
    answer = house.decide("v", "list", count=9, exclude=("h1", "s1", "never-heard-of"))
    assert not {"h1", "s1"} & set(ids(answer))
    assert steps(answer)["exclude"] == 2


def test_the_request_may_name_its_candidates(house):
    answer = house.decide("v", "list", candidates=("s1", "never-heard-of", "h2", "s1"))
    assert sorted(ids(answer)) == ["h2", "s1"]


def test_what_was_bought_is_left_out_where_the_placement_says_so(house):
    house.declare("fresh", kind="list", count=9, constraints={"excludePurchased": True})
    view(house, "v", "h1", event="Order Completed")
    assert "h1" in ids(house.decide("v", "list", count=9))
    fresh = house.decide("v", "fresh")
    assert "h1" not in ids(fresh)
    assert steps(fresh)["excludePurchased"] == 1


def test_stock_acts_on_the_next_decision(house):
    def patch(stock: int | None) -> None:
        house.write(ItemPatched(house.clock.now(), "h1", ItemPatch(stock=stock)))

    patch(0)
    answer = house.decide("v", "list", count=9)
    assert "h1" not in ids(answer)
    assert steps(answer)["stock"] == 1
    patch(1)
    assert "h1" in ids(house.decide("v", "list", count=9))
    patch(0)
    house.declare("any", kind="list", count=9, constraints={"inStock": False})
    assert "h1" in ids(house.decide("v", "any"))
    patch(None)
    assert "h1" in ids(house.decide("v", "list", count=9))


def test_a_deleted_item_is_gone_from_the_next_decision(house):
    house.write(ItemDeleted(house.clock.now(), "h1"))
    assert "h1" not in ids(house.decide("v", "list", count=9))


def test_an_item_is_shown_from_when_it_is_published_until_it_expires(house):
    house.stock({"id": "n", "publishedAt": house.time(100.0), "expiresAt": house.time(200.0)})
    for wait, is_there in ((0.0, False), (100.0, True), (99.0, True), (1.0, False)):
        house.clock.advance(wait)
        answer = house.decide("v", "list", count=50)
        assert ("n" in ids(answer)) is is_there
        assert steps(answer).get("dates", 0) == (not is_there)


def test_rules_over_items_and_visitors_say_what_they_removed(house):
    house.stock({"id": "x", "attributes": {"margin": 0.1, "minAge": 18}})
    rules = [
        {"name": "margin", "when": "item.margin < 0.2"},
        {"name": "adult", "when": "item.minAge > profile.age"},
        {"name": "hats", "when": "'hats' in item.categories", "then": "only"},
    ]
    house.declare("ruled", kind="list", count=50, rules=rules)
    answer = house.decide("v", "ruled")
    assert sorted(ids(answer)) == sorted(item["id"] for item in HATS)
    assert steps(answer)["rule:margin"] == 1
    assert steps(answer)["rule:hats"] == len(SHOES)
    house.declare("aged", kind="list", count=50, rules=rules[1:2])
    house.send("v", type="identify", traits={"age": 12})
    aged = house.decide("v", "aged")
    assert "x" not in ids(aged)
    assert steps(aged)["rule:adult"] == 1
    house.send("v", type="identify", traits={"age": 30})
    assert "x" in ids(house.decide("v", "aged"))


def test_a_list_with_nothing_to_show_is_a_fallback_and_empty():
    house = House()
    house.declare("list", kind="list", candidates={"query": "item.stock > 0"})
    answer = house.decide("v", "list")
    assert (answer.decision.reason, ids(answer), answer.values) == ("FALLBACK", [], [])


@pytest.mark.parametrize("fields", [{"enabled": False}, {"holdout": 1.0}])
def test_without_personalization_the_most_popular_are_shown(house, fields):
    house.declare("plain", kind="list", count=3, **fields)
    for visitor in range(3):
        view(house, f"w{visitor}", "h2")
    view(house, "w", "h5")
    view(house, "v", "s1", "s2", "s0")
    answer = house.decide("v", "plain")
    assert answer.decision.rung == "popular"
    assert ids(answer)[0] == "h2"
    assert {choice.propensity for choice in answer.decision.choices} == {1.0}
    assert ids(answer) == ids(house.decide("somebody-else", "plain"))


def test_a_frequency_cap_takes_items_out_of_lists(house):
    house.declare(
        "capped", kind="list", count=9, constraints={"frequencyCap": {"count": 1, "windowSeconds": 60}}
    )
    first = house.decide("v", "capped", count=3)
    second = house.decide("v", "capped", count=9)
    assert not set(ids(first)) & set(ids(second))
    assert steps(second)["frequencyCap"] == 3


def test_each_slot_says_how_likely_its_item_was_there(house):
    view(house, "v", "h1", "s2")
    for visitor in range(4):
        view(house, f"w{visitor}", "h3")
    house.declare("even", kind="list", count=3, policy={"type": "fixed"})
    for _ in range(10):
        decision = house.decide("v", "even").decision
        drawn = decision.probabilities[decision.arms.index(decision.arm)]
        assert decision.arms == ["popularity", "covisitation", "recency", "blend"]
        assert all(drawn <= choice.propensity <= 1.0 for choice in decision.choices)
