"""The native API's JSON: what a request must be, and what each kind of key gets to see."""

import json

import msgspec
import pytest
from tests.house import House

from tailorbird.deliver.api import parse_decide, render_answers, time_of
from tailorbird.errors import ForbiddenError, InvalidInputError, NotFoundError
from tailorbird.limits import DEADLINE_MS_DEFAULT, PLACEMENTS_PER_REQUEST_MAX
from tailorbird.schema.decision import PlacementRequest


@pytest.fixture
def house() -> House:
    made = House()
    made.stock({"id": "i1", "title": "Item"}, {"id": "i2"})
    made.declare("hero", variants=[{"id": "a", "value": {"headline": "Hi"}}, {"id": "b", "value": 7}])
    made.declare("list", kind="list")
    return made


def rendered(
    house: House, *keys: str, visitor: str | None = "v", is_trusted: bool = True, explain: bool = True
) -> dict:
    answers = house.decide_all(visitor, *(PlacementRequest(key) for key in keys))
    because = house.decider.because if explain else None
    return json.loads(render_answers(answers, is_trusted=is_trusted, because=because))


def test_a_full_request_is_read():
    body = parse_decide(
        b'{"visitor": {"anonymousId": "a-1", "userId": "u-1"}, "context": {"locale": "de"}, "deadlineMs": 20,'
        b' "placements": [{"key": "hero"}, {"key": "list", "count": 3, "exclude": ["i1"], "candidates": ["i2"]}],'
        b' "explain": true, "at": "2024-01-01T00:00:00Z"}'
    )
    assert (body.visitor.anonymous_id, body.visitor.user_id) == ("a-1", "u-1")
    assert body.placements[1] == PlacementRequest("list", 3, ("i1",), ("i2",))
    assert (body.deadline_ms, body.explain, body.context) == (20.0, True, {"locale": "de"})


def test_a_short_request_has_defaults():
    body = parse_decide(b'{"placements": [{"key": "hero"}]}')
    assert (body.deadline_ms, body.explain, body.at, body.context) == (DEADLINE_MS_DEFAULT, False, None, {})
    assert (body.visitor.anonymous_id, body.visitor.user_id) == (None, None)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"placements": []}, "$.placements"),
        ({"placements": [{"key": "k"}] * (PLACEMENTS_PER_REQUEST_MAX + 1)}, "$.placements"),
        ({"placements": [{"key": "k", "count": 0}]}, "$.placements[0].count"),
        ({"placements": [{"key": "k", "count": 201}]}, "$.placements[0].count"),
        ({"placements": [{"key": "k", "exclude": ["i"] * 1001}]}, "$.placements[0].exclude"),
        ({"placements": [{}]}, "$.placements[0]"),
        ({"visitor": {"userId": ""}}, "$.visitor.userId"),
        ({"visitor": {"anonymousId": "a" * 501}}, "$.visitor.anonymousId"),
        ({"deadlineMs": -1}, "$.deadlineMs"),
        ({"deadlineMs": 5001}, "$.deadlineMs"),
        ({"context": 7}, "$.context"),
    ],
)
def test_a_wrong_request_is_refused_with_its_path(change, path):
    body = json.dumps({"placements": [{"key": "k"}], **change}).encode()
    with pytest.raises(msgspec.ValidationError) as caught:
        parse_decide(body)
    assert f"`{path}`" in str(caught.value)


def test_only_a_back_end_may_choose_the_time():
    assert time_of(None, is_trusted=False) is None
    assert time_of("2024-01-02T03:04:05Z", is_trusted=True) == 1_704_164_645.0
    with pytest.raises(ForbiddenError, match="server key"):
        time_of("2024-01-02T03:04:05Z", is_trusted=False)
    with pytest.raises(InvalidInputError, match="ISO 8601"):
        time_of("soon", is_trusted=True)


def test_a_public_key_gets_only_what_is_to_be_shown(house):
    out = rendered(house, "hero", is_trusted=False, explain=True)
    assert out["visitor"] == {"arm": "personalized", "personalized": True}
    (decision,) = out["decisions"]
    (choice,) = decision["choices"]
    assert set(choice) == {"id", "rank", "value", "propensity"}
    assert "steps" not in decision


def test_a_back_end_gets_scores_and_reasons(house):
    out = rendered(house, "hero")
    assert out["visitor"]["profileId"] == house.profile("anonymous_id:v").id
    (decision,) = out["decisions"]
    assert decision["decisionId"].startswith("d-")
    assert (decision["reason"], decision["rung"], decision["policy"]["key"]) == ("SPLIT", "live", "thompson")
    assert isinstance(decision["policy"]["version"], str)
    assert decision["steps"] == []
    (choice,) = decision["choices"]
    assert choice["because"][0].startswith(repr(choice["id"]))
    assert choice["score"] == choice["propensity"]
    assert "because" not in rendered(house, "hero", explain=False)["decisions"][0]["choices"][0]


def test_ranks_count_from_one_and_values_are_the_items(house):
    choices = rendered(house, "list")["decisions"][0]["choices"]
    assert [choice["rank"] for choice in choices] == [1, 2]
    assert {choice["id"]: choice["value"] for choice in choices}["i1"] == {"title": "Item"}


def test_a_visitor_without_a_name_has_no_profile(house):
    assert rendered(house, "hero", visitor=None)["visitor"]["profileId"] is None


def test_an_unknown_placement_is_an_entry_and_the_others_are_answered(house):
    unknown, known = rendered(house, "nowhere", "hero")["decisions"]
    assert unknown["placement"] == "nowhere"
    assert (unknown["error"]["status"], unknown["error"]["title"]) == (404, "Not found")
    assert "decisionId" not in unknown
    assert known["reason"] == "SPLIT"


def test_a_request_in_which_nothing_is_known_is_not_found(house):
    with pytest.raises(NotFoundError, match="'x', 'y'"):
        rendered(house, "x", "y")
