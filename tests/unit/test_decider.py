"""The cascade: each exit with its reason and rung, and an answer whatever happens."""

from unittest import mock

import msgspec
import numpy as np
import pytest
from tests.house import BEGIN, SECRET, House

from tailorbird.clock import ManualClock
from tailorbird.decide import decider as decider_module
from tailorbird.errors import Fault, InvalidInputError, StorageError
from tailorbird.live.profiles import holdout_position
from tailorbird.schema.decision import PlacementRequest
from tailorbird.schema.records import ConsentChanged

AB = [{"id": "a", "value": {"headline": "A"}}, {"id": "b"}]
ITEMS = [{"id": f"i{number}", "title": f"Item {number}", "categories": ["hats"]} for number in range(8)]


class TickingClock(ManualClock):
    """A clock on which every look takes a while."""

    def __init__(self, tick_seconds: float) -> None:
        super().__init__(BEGIN)
        self.tick_seconds = tick_seconds

    def elapsed(self) -> float:
        self.time += self.tick_seconds
        return self.time


@pytest.fixture
def house() -> House:
    made = House()
    made.declare("hero", variants=AB)
    return made


def shown(answer) -> list[str]:
    return [choice.id for choice in answer.decision.choices]


def exit_of(answer) -> tuple[str, str]:
    return answer.decision.reason, answer.decision.rung


def steps(answer) -> dict[str, int]:
    return {step.step: step.removed for step in answer.decision.steps}


# --- reasons ------------------------------------------------------------------------------------------


def test_what_is_drawn_from_probabilities_is_a_split(house):
    answer = house.decide("v", "hero")
    decision = answer.decision
    assert exit_of(answer) == ("SPLIT", "live")
    assert decision.arms == ["a", "b"]
    assert decision.arm == decision.choices[0].id
    assert decision.choices[0].propensity == decision.probabilities[decision.arms.index(decision.arm)]
    assert (decision.is_learned, decision.holdout, decision.policy) == (True, "personalized", "thompson")
    assert sum(decision.probabilities) == pytest.approx(1.0)


def test_the_logged_number_falls_on_the_logged_arm(house):
    for visitor in range(50):
        decision = house.decide(f"v{visitor}", "hero").decision
        edges = np.cumsum(decision.probabilities)
        assert decision.arms[int(np.searchsorted(edges, decision.seed, side="right"))] == decision.arm
        assert decision.explored == (decision.choices[0].propensity < max(decision.probabilities))


def test_one_candidate_is_static():
    house = House()
    house.declare("hero", variants=[{"id": "a", "value": 7}])
    answer = house.decide("v", "hero")
    assert exit_of(answer) == ("STATIC", "live")
    assert answer.decision.choices[0].propensity == 1.0
    assert [msgspec.json.decode(value) for value in answer.values] == [7]


def test_a_rule_that_leaves_its_own_variant_is_a_targeting_match():
    house = House()
    house.declare(
        "hero", variants=[{"id": "vip", "rule": "profile.plan == 'pro'"}, {"id": "rest", "rule": "false"}]
    )
    house.send("v", type="identify", traits={"plan": "pro"})
    answer = house.decide("v", "hero")
    assert exit_of(answer) == ("TARGETING_MATCH", "live")
    assert steps(answer) == {"eligibility": 1}


def test_a_disabled_placement_gives_its_fallback():
    house = House()
    house.declare("hero", variants=AB, enabled=False, fallback="b")
    answer = house.decide("v", "hero")
    assert (*exit_of(answer), *shown(answer)) == ("DISABLED", "default", "b")
    assert not answer.decision.is_learned


def test_the_holdout_gets_the_fallback_and_teaches_nothing():
    house = House(holdout_share=1.0)
    house.declare("hero", variants=AB)
    answers = house.decide_all("v", PlacementRequest("hero"))
    (answer,) = answers.answers
    assert (*exit_of(answer), *shown(answer)) == ("HOLDOUT", "default", "a")
    assert (answers.arm, answers.is_personalized, answer.decision.is_learned) == ("holdout", False, False)


def test_a_placements_own_share_decides_over_the_installations():
    house = House(holdout_share=1.0)
    house.declare("hero", variants=AB, holdout=0.0)
    house.declare("half", variants=AB, holdout=0.5)
    for number in range(20):
        answers = house.decide_all(f"v{number}", PlacementRequest("hero"), PlacementRequest("half"))
        hero, half = answers.answers
        assert hero.decision.reason == "SPLIT"
        is_held = holdout_position(SECRET, f"anonymous_id:v{number}") < 0.5
        assert half.decision.reason == ("HOLDOUT" if is_held else "SPLIT")
        assert answers.arm == "personalized"


def refuse(house: House, how: str) -> dict:
    """Make visitor v refuse; return what the request itself says."""
    if how == "stored":
        house.send("v", event="Page")
        house.write(ConsentChanged(house.clock.now(), "anonymous_id:v", {"personalization": False}))
    elif how == "event":
        house.send(
            "v", event="Page", context={"consent": {"categoryPreferences": {"Personalization": False}}}
        )
    elif how == "stored gpc":
        house.send("v", event="Page", gpc=True)
    return {
        "gpc": {"gpc": True},
        "context": {"context": {"consent": {"categoryPreferences": {"Personalization": False}}}},
    }.get(how, {})


@pytest.mark.parametrize("how", ["stored", "event", "stored gpc", "gpc", "context"])
def test_who_refused_is_answered_without_the_profile(house, how):
    answers = house.decide_all("v", PlacementRequest("hero"), **refuse(house, how))
    (answer,) = answers.answers
    assert (*exit_of(answer), *shown(answer)) == ("OPTED_OUT", "default", "a")
    assert (answers.arm, answers.is_personalized) == ("none", False)
    assert answer.decision.holdout == "none"


def test_global_privacy_control_may_be_stored_only():
    house = House(gpc_opts_out=False)
    house.declare("hero", variants=AB)
    assert house.decide("v", "hero", gpc=True).decision.reason == "SPLIT"


def test_who_agrees_by_name_after_a_signal_is_personalized(house):
    house.send("v", event="Page", gpc=True)
    house.write(ConsentChanged(house.clock.now(), "anonymous_id:v", {"personalization": True}))
    assert house.decide("v", "hero").decision.reason == "SPLIT"


def test_another_purpose_that_was_refused_does_not_count():
    house = House()
    house.declare("hero", variants=AB, consent="ads")
    house.write(ConsentChanged(house.clock.now(), "anonymous_id:v", {"personalization": False}))
    assert house.decide("v", "hero").decision.reason == "SPLIT"
    house.write(ConsentChanged(house.clock.now(), "anonymous_id:v", {"ads": False}))
    assert house.decide("v", "hero").decision.reason == "OPTED_OUT"


def test_nobody_eligible_is_a_fallback():
    house = House()
    house.declare("hero", variants=[{"id": "a", "rule": "false"}, {"id": "b", "rule": "false"}], fallback="b")
    answer = house.decide("v", "hero")
    assert (*exit_of(answer), *shown(answer)) == ("FALLBACK", "default", "b")
    assert answer.decision.steps[-1].detail == "no_candidate"


def test_an_unknown_placement_has_no_decision_and_harms_no_other(house):
    unknown, known = house.decide_all("v", PlacementRequest("nowhere"), PlacementRequest("hero")).answers
    assert (unknown.decision, unknown.decision_id) == (None, "")
    assert known.decision.reason == "SPLIT"


def test_a_visitor_without_a_name_gets_a_contextual_decision():
    house = House(holdout_share=1.0)
    house.declare("hero", variants=[{"id": "a", "rule": "context.page.path == '/'"}, {"id": "b"}])
    answers = house.decide_all(None, PlacementRequest("hero"), context={"page": {"path": "/x"}})
    assert (answers.profile_id, answers.arm) == (None, "none")
    assert shown(answers.answers[0]) == ["b"]
    assert not list(house.world.profiles.scan())


# --- deadline, failures, rungs ------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["hero", "list"])
def test_past_its_deadline_a_request_is_answered_all_the_same(key):
    house = House(clock=TickingClock(0.001))
    house.stock(*ITEMS)
    house.declare("hero", variants=AB)
    house.declare("list", kind="list", count=3)
    answer = house.decide("v", key, deadline_ms=0.0)
    assert exit_of(answer) == ("FALLBACK", "default" if key == "hero" else "popular")
    assert answer.decision.steps[-1].detail == "deadline"
    assert len(answer.decision.choices) == (1 if key == "hero" else 3)
    assert answer.decision_id


def test_a_slow_list_steps_down_before_it_is_ranked():
    house = House(clock=TickingClock(0.001))
    house.stock(*ITEMS)
    house.declare("list", kind="list", count=3)
    exits = [exit_of(house.decide("v", "list", deadline_ms=half / 2)) for half in range(12)]
    late = exits.count(("FALLBACK", "popular"))
    assert 1 < late < 12
    assert exits == [("FALLBACK", "popular")] * late + [("SPLIT", "live")] * (12 - late)


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), ZeroDivisionError(), FloatingPointError(), InvalidInputError(Fault("p", "sum to 1"))],
)
def test_a_policy_that_fails_is_answered_with_the_last_good_probabilities(house, error):
    house.declare("hero", variants=AB, policy={"type": "fixed", "weights": {"a": 3, "b": 1}})
    assert house.decide("v", "hero").decision.probabilities == [0.75, 0.25]
    # Something is learned, so that the probabilities have to be computed again.
    house.send("v", event="Page")
    with mock.patch.object(decider_module, "probabilities", side_effect=error):
        for _ in range(3):
            answer = house.decide("v", "hero")
            if answer.decision.rung == "previous":
                break
    assert exit_of(answer) == ("STATIC", "previous")
    assert answer.decision.probabilities == [0.75, 0.25]
    assert house.decider.faults["policy_failed"] >= 1


def test_a_policy_that_never_worked_gives_each_arm_the_same(house):
    with mock.patch.object(decider_module, "probabilities", side_effect=ValueError):
        answer = house.decide("v", "hero")
    assert exit_of(answer) == ("SPLIT", "previous")
    assert answer.decision.probabilities == [0.5, 0.5]
    assert exit_of(house.decide("v", "hero")) == ("SPLIT", "live")


def test_a_policy_that_gives_no_distribution_is_one_that_fails(house):
    with mock.patch.object(decider_module, "probabilities", return_value=np.array([np.nan, 1.0])):
        answer = house.decide("v", "hero")
    assert exit_of(answer) == ("SPLIT", "previous")


def test_what_cannot_be_logged_is_answered_with_the_fallback(house):
    with mock.patch.object(house.decider, "_record", side_effect=StorageError("disk full")):
        answer = house.decide("v", "hero")
    assert (*exit_of(answer), *shown(answer)) == ("FALLBACK", "default", "a")
    assert (answer.decision_id, answer.decision.is_learned) == ("", False)
    assert answer.decision.steps[-1].detail == "not_logged"
    assert house.decider.faults == {"decision_not_logged": 1}


@pytest.mark.parametrize(
    "rule", ["profile.missing.deeper > 1", "context.page.path == 3", "profile.plan", "1 / 0 == 1"]
)
def test_a_rule_that_fails_is_taken_as_not_matching(rule):
    house = House()
    house.declare("hero", variants=[{"id": "a", "rule": rule}, {"id": "b"}])
    answer = house.decide("v", "hero")
    assert shown(answer) == ["b"]
    assert house.decider.faults["rule_failed"] == 1
    assert "failed, taken as not matching" in answer.decision.steps[0].detail


def test_a_rule_on_what_was_never_seen_does_not_fail():
    house = House()
    house.declare("hero", variants=[{"id": "a", "rule": "profile.views_7d > 3.0"}, {"id": "b"}])
    assert shown(house.decide("v", "hero")) == ["b"]
    for _ in range(4):
        house.send("v", event="Product Viewed")
    assert house.decide("v", "hero").decision.arms == ["a", "b"]
    assert not house.decider.faults


def test_rules_without_an_item_stand_over_the_whole_placement():
    house = House()
    closed = {"name": "closed", "when": "context.page.path == '/cart'"}
    house.declare("hero", variants=AB, rules=[closed])
    house.declare("only", variants=AB, rules=[{**closed, "then": "only"}])
    cart = {"page": {"path": "/cart"}}
    assert house.decide("v", "hero", context=cart).decision.reason == "FALLBACK"
    assert house.decide("v", "only", context=cart).decision.reason == "SPLIT"
    assert steps(house.decide("v", "only", context={"page": {"path": "/"}}))["rule:closed"] == 2


# --- floors, caps, frequency --------------------------------------------------------------------------


def test_floors_and_caps_are_in_the_logged_probabilities():
    house = House()
    variants = [{"id": "a", "cap": 0.5}, {"id": "b"}, {"id": "c"}]
    weights = {"type": "fixed", "weights": {"a": 98, "b": 1, "c": 1}}
    house.declare("hero", variants=variants, policy=weights, floor=0.1)
    probabilities = house.decide("v", "hero").decision.probabilities
    assert probabilities[0] == pytest.approx(0.5)
    assert min(probabilities) >= 0.1


def test_a_frequency_cap_counts_what_was_shown_in_its_window():
    house = House()
    house.declare("hero", variants=AB, constraints={"frequencyCap": {"count": 2, "windowSeconds": 100}})
    seen = [shown(house.decide("v", "hero"))[0] for _ in range(4)]
    assert sorted(seen) == ["a", "a", "b", "b"]
    capped = house.decide("v", "hero")
    assert capped.decision.reason == "FALLBACK"
    assert steps(capped)["frequencyCap"] == 2
    assert house.decide("w", "hero").decision.reason == "SPLIT"
    house.clock.advance(101.0)
    assert house.decide("v", "hero").decision.reason == "SPLIT"


# --- sticky -------------------------------------------------------------------------------------------


def sticky_house(**fields) -> House:
    house = House()
    house.declare("hero", variants=AB, stickySeconds=600, **fields)
    house.send("v", event="Page")
    return house


def test_the_same_question_in_a_session_gets_the_same_decision():
    house = sticky_house()
    first = house.decide("v", "hero")
    for _ in range(5):
        house.clock.advance(60.0)
        assert house.decide("v", "hero").decision_id == first.decision_id
    house.clock.advance(301.0)
    assert house.decide("v", "hero").decision_id != first.decision_id


def test_a_new_session_is_a_new_question():
    house = House()
    house.declare("hero", variants=AB, stickySeconds=86_400)
    house.send("v", event="Page")
    first = house.decide("v", "hero")
    house.clock.advance(1801.0)
    house.send("v", event="Page")
    assert house.decide("v", "hero").decision_id != first.decision_id


def test_the_first_event_of_a_visit_does_not_change_what_was_shown_before_it():
    """A page asks for its decision before its first event is in, on a first visit and on each later one."""
    house = House()
    house.declare("hero", variants=AB, stickySeconds=600)
    for _ in range(3):
        first = house.decide("v", "hero")
        house.clock.advance(1.0)
        house.send("v", event="Page")
        assert house.decide("v", "hero").decision_id == first.decision_id
        house.clock.advance(7200.0)


@pytest.mark.parametrize("change", ["declared", "rule", "consent", "holdout"])
def test_a_decision_that_may_no_longer_be_shown_does_not_stick(change):
    house = House()
    variants = [
        {"id": "a", "rule": "profile.plan != 'pro'"},
        {"id": "b", "rule": "profile.plan != 'pro'"},
        {"id": "c"},
    ]
    house.declare("hero", variants=variants, stickySeconds=600)
    house.send("v", type="identify", traits={"plan": "free"})
    first = house.decide("v", "hero")
    if change == "declared":
        house.declare("hero", variants=[{"id": "x"}], stickySeconds=600)
    elif change == "rule":
        house.send("v", type="identify", traits={"plan": "pro"})
    elif change == "consent":
        house.write(ConsentChanged(house.clock.now(), "anonymous_id:v", {"personalization": False}))
    else:
        house.declare("hero", variants=variants, stickySeconds=600, holdout=1.0)
    assert house.decide("v", "hero").decision_id != first.decision_id


def test_a_door_may_ask_for_stickiness_of_its_own(house):
    first = house.decide("v", "hero", sticky_seconds_min=100.0)
    assert house.decide("v", "hero", sticky_seconds_min=100.0).decision_id == first.decision_id
    assert house.decide("v", "hero").decision_id != first.decision_id


def test_a_sticky_decision_is_found_again_in_the_log():
    house = sticky_house()
    first = house.decide("v", "hero")
    house.decider.use(house.world)
    again = house.decide("v", "hero")
    assert (again.decision_id, again.decision.arm) == (first.decision_id, first.decision.arm)


def test_another_count_is_another_question():
    house = House()
    house.stock(*ITEMS)
    house.declare("list", kind="list", stickySeconds=600)
    first = house.decide("v", "list", count=3)
    assert house.decide("v", "list", count=3).decision_id == first.decision_id
    assert house.decide("v", "list", count=4).decision_id != first.decision_id
    house.declare("list", kind="list", stickySeconds=600)


# --- time ---------------------------------------------------------------------------------------------


def test_a_request_may_be_decided_as_of_another_time(house):
    answer = house.decide("v", "hero", at=BEGIN - 5000.0)
    assert (answer.decision.t, answer.decision.r) == (BEGIN - 5000.0, BEGIN)


def test_windows_follow_the_time_asked_for():
    house = House()
    house.declare("hero", variants=[{"id": "a", "rule": "profile.views_1h > 0.0"}, {"id": "b"}])
    house.send("v", event="Product Viewed")
    assert house.decide("v", "hero", at=BEGIN + 10.0).decision.arms == ["a", "b"]
    assert house.decide("v", "hero", at=BEGIN + 7200.0).decision.arms == ["b"]


def test_the_same_seed_and_history_decide_the_same():
    def run() -> list[tuple[str, float]]:
        house = House()
        house.declare("hero", variants=AB, goal={"event": "Bought"})
        decided = []
        for number in range(30):
            answer = house.decide(f"v{number % 7}", "hero")
            decided.append((answer.decision_id, answer.decision.choices[0].propensity))
            if number % 3 == 0:
                house.send(f"v{number % 7}", event="Bought")
        return decided

    assert run() == run()
