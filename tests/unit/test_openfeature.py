"""OpenFeature's remote protocol: contexts in, flat and complete evaluations out."""

import json

import msgspec
import pytest
from tests.house import House

from tailorbird.deliver.openfeature import (
    OfrepError,
    etag_of,
    failure,
    parse_context,
    success,
    visitor_of,
)


def refusal(body: bytes) -> OfrepError:
    with pytest.raises(OfrepError) as caught:
        parse_context(body)
    return caught.value


def test_a_context_is_what_was_sent():
    assert parse_context(b'{"context": {"targetingKey": "v", "plan": "pro"}}') == {
        "targetingKey": "v",
        "plan": "pro",
    }


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "PARSE_ERROR"),
        (b"{", "PARSE_ERROR"),
        (b'{"context": {"a": "\xff"}}', "PARSE_ERROR"),
        (b"{}", "INVALID_CONTEXT"),
        (b"[]", "INVALID_CONTEXT"),
        (b'{"context": 7}', "INVALID_CONTEXT"),
        (b'{"context": {}}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": ""}}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": null}}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": 7}}', "INVALID_CONTEXT"),
        (json.dumps({"context": {"targetingKey": "v" * 501}}).encode(), "INVALID_CONTEXT"),
        (json.dumps({"context": {"targetingKey": "v", "userId": "u" * 501}}).encode(), "INVALID_CONTEXT"),
        (
            json.dumps({"context": {"targetingKey": "v", "anonymousId": "u" * 501}}).encode(),
            "INVALID_CONTEXT",
        ),
    ],
)
def test_what_is_no_context_has_a_code_and_details(body, code):
    error = refusal(body)
    assert (error.code, error.status) == (code, 400)
    assert error.details


@pytest.mark.parametrize(
    ("context", "is_user", "expected"),
    [
        ({}, False, ("key", None)),
        ({}, True, (None, "key")),
        ({"userId": "u"}, False, ("key", "u")),
        ({"userId": "key"}, False, (None, "key")),
        ({"anonymousId": "a"}, False, ("a", None)),
        ({"anonymousId": "a"}, True, ("a", "key")),
        ({"userId": "u", "anonymousId": "a"}, True, ("a", "u")),
        ({"userId": 7, "anonymousId": ""}, False, ("key", None)),
    ],
)
def test_whom_a_context_is_about(context, is_user, expected):
    found = visitor_of({"targetingKey": "key", **context}, is_user=is_user)
    assert (found.anonymous_id, found.user_id) == expected


def flag_of(answer, *, is_list: bool = False) -> dict:
    """Return a success as a client reads it."""
    return json.loads(msgspec.json.encode(success(answer, is_list=is_list)))


@pytest.fixture
def house() -> House:
    made = House()
    made.stock({"id": "i1", "title": "Item"})
    made.declare("hero", variants=[{"id": "a", "value": True}, {"id": "b", "value": False}])
    made.declare("one", variants=[{"id": "a", "value": 3.5}])
    made.declare("list", kind="list")
    made.declare("off", variants=[{"id": "a"}], enabled=False)
    return made


@pytest.mark.parametrize(
    ("key", "reason"), [("hero", "SPLIT"), ("one", "STATIC"), ("list", "SPLIT"), ("off", "DISABLED")]
)
def test_every_success_is_complete_and_its_metadata_flat(house, key, reason):
    flag = flag_of(house.decide("v", key), is_list=key == "list")
    assert set(flag) == {"key", "value", "variant", "reason", "metadata"}
    assert (flag["key"], flag["reason"]) == (key, reason)
    assert flag["metadata"]["decisionId"].startswith("d-")
    assert all(isinstance(value, bool | str | float | int) for value in flag["metadata"].values())


def test_a_variants_value_is_the_flags(house):
    flag = flag_of(house.decide("v", "hero"))
    assert flag["value"] is (flag["variant"] == "a")
    assert flag["metadata"]["propensity"] == 0.5


def test_a_lists_value_is_its_items(house):
    flag = flag_of(house.decide("v", "list"), is_list=True)
    assert [item["id"] for item in flag["value"]["items"]] == ["i1"]
    assert flag["variant"] in ("popularity", "covisitation", "recency", "blend")


def test_a_holdout_is_static_and_says_so_in_the_metadata():
    house = House(holdout_share=1.0)
    house.declare("hero", variants=[{"id": "a", "value": 1}, {"id": "b", "value": 2}])
    flag = flag_of(house.decide("v", "hero"))
    assert (flag["reason"], flag["value"], flag["metadata"]["tailorbirdReason"]) == ("STATIC", 1, "HOLDOUT")


def test_a_failure_has_its_details():
    error = OfrepError("FLAG_NOT_FOUND", "no such flag", 404)
    assert failure("k", error) == {"key": "k", "errorCode": "FLAG_NOT_FOUND", "errorDetails": "no such flag"}
    assert "key" not in failure(None, error)


def test_an_entity_tag_is_equal_while_the_same_is_to_be_shown(house):
    context = {"targetingKey": "v", "plan": "pro"}
    flag = flag_of(house.decide("v", "one"))
    again = flag_of(house.decide("v", "one"))
    assert flag["metadata"]["decisionId"] != again["metadata"]["decisionId"]
    tag = etag_of(context, [flag])
    assert tag == etag_of(dict(reversed(context.items())), [again])
    assert tag[0] == tag[-1] == '"'
    assert tag != etag_of({"targetingKey": "w"}, [flag])
    assert tag != etag_of(context, [{**flag, "value": 4}])
    assert tag != etag_of(context, [])
