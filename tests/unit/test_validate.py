"""What an event must be: what passes as it came, what is mended, and what is refused with path and rule."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.collect.validate import Shared, Valid, check_shape, validate
from tailorbird.errors import Fault
from tailorbird.limits import (
    EVENT_BYTES_MAX,
    EVENT_NAME_LENGTH_MAX,
    IDENTIFIER_LENGTH_MAX,
    MESSAGE_ID_LENGTH_MAX,
    NESTING_MAX,
)
from tailorbird.schema.events import TYPES

GOOD = {"type": "track", "event": "Product Viewed", "userId": "u1", "messageId": "m-1"}
NOTHING = Shared()


def passed(fields: dict, shared: Shared = NOTHING) -> Valid:
    result = validate(json.dumps(fields).encode(), shared)
    assert isinstance(result, Valid), result
    return result


def fault(fields: dict | bytes, shared: Shared = NOTHING) -> Fault:
    result = validate(fields if isinstance(fields, bytes) else json.dumps(fields).encode(), shared)
    assert isinstance(result, Fault), result
    return result


# --- what passes --------------------------------------------------------------------------------------


def test_a_good_event_is_logged_byte_for_byte():
    raw = json.dumps({**GOOD, "unknown": {"kept": [1, 2]}}, indent=1).encode()
    result = validate(raw, NOTHING)
    assert isinstance(result, Valid)
    assert result.raw is raw
    assert (result.event.event, result.event.user_id) == ("Product Viewed", "u1")


@pytest.mark.parametrize("kind", TYPES)
def test_every_call_of_the_protocol_passes(kind):
    more = {"alias": {"previousId": "a"}, "group": {"groupId": "g"}}.get(kind, {})
    assert passed({**GOOD, "type": kind, **more}).event.type == kind


def test_a_numeric_id_becomes_text():
    assert passed({**GOOD, "userId": 42, "anonymousId": 1.5}).event.user_id == "42"
    assert json.loads(passed({**GOOD, "userId": 42}).raw)["userId"] == "42"


@pytest.mark.parametrize("given_id", [None, "", "absent"])
def test_a_missing_message_id_is_made(given_id):
    fields = {name: value for name, value in GOOD.items() if name != "messageId"}
    if given_id != "absent":
        fields["messageId"] = given_id
    one, other = passed(fields).event.message_id, passed(fields).event.message_id
    assert one.startswith("tb-")
    assert one != other


def test_the_path_says_the_type():
    fields = {name: value for name, value in GOOD.items() if name != "type"}
    assert passed(fields, Shared(type="page")).event.type == "page"
    assert passed(GOOD, Shared(type="page")).event.type == "page"


def test_an_empty_map_of_a_php_client_is_a_map():
    event = passed({**GOOD, "properties": [], "traits": [], "context": []}).event
    assert (event.properties, event.traits) == ({}, {})


def test_a_batchs_context_is_under_each_events_own():
    shared = Shared(None, {"locale": "de", "page": {"url": "/batch"}}, {"All": True})
    result = passed({**GOOD, "context": {"locale": "en"}}, shared)
    assert result.event.context.locale == "en"
    assert result.event.context.page.url == "/batch"
    assert json.loads(result.raw)["integrations"] == {"All": True}


def test_a_part_of_the_context_that_is_not_of_its_kind_is_set_aside_and_kept():
    context = {"page": "/home", "device": {"id": 7, "type": "mobile"}, "locale": 3, "consent": []}
    result = passed({**GOOD, "context": context})
    assert result.event.context.page is None
    assert result.event.context.device.type == "mobile"
    kept = json.loads(result.raw)["context"]
    assert (kept["page_malformed"], kept["device"]["id_malformed"], kept["locale_malformed"]) == (
        "/home",
        7,
        3,
    )


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "path", "rule"),
    [
        ({"userId": None}, "userId", "one of userId and anonymousId"),
        ({"userId": ""}, "userId", "no_user_anon_id"),
        ({"event": None}, "event", "a track call needs the event's name"),
        ({"event": 7}, "event", "Expected `str | null`, got `int`"),
        ({"type": "alias"}, "previousId", "an alias call needs it"),
        ({"type": "group"}, "groupId", "a group call needs it"),
        ({"type": "shout"}, "type", "one of track, page"),
        ({"type": None}, "type", "Expected `str`"),
        ({"userId": True}, "userId", "Expected `str | null`, got `bool`"),
        ({"userId": {"id": 1}}, "userId", "Expected `str | null`"),
        ({"properties": "text"}, "properties", "Expected `object | null`"),
        ({"context": 7}, "context", "Expected `object | null`"),
        ({"timestamp": 1_700_000_000}, "timestamp", "an ISO 8601 time as text"),
        ({"sentAt": 1.5}, "sentAt", "an ISO 8601 time as text"),
        ({"messageId": "m" * (MESSAGE_ID_LENGTH_MAX + 1)}, "messageId", "at most 100 characters"),
        ({"userId": "u" * (IDENTIFIER_LENGTH_MAX + 1)}, "userId", "at most 500 characters"),
        ({"anonymousId": "u" * (IDENTIFIER_LENGTH_MAX + 1)}, "anonymousId", "at most 500 characters"),
        ({"event": "e" * (EVENT_NAME_LENGTH_MAX + 1)}, "event", "at most 500 characters"),
    ],
)
def test_a_broken_rule_is_named_with_its_path(change, path, rule):
    found = fault({**GOOD, **change})
    assert found.path == path
    assert rule in found.rule


def test_a_fault_shows_the_value_that_was_found():
    assert fault({**GOOD, "properties": "text"}).value == "text"
    assert fault({**GOOD, "type": "shout"}).value == "shout"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nothing",
        b'"text"',
        b"[]",
        b"7",
        b"null",
        b'{"type": "track\xff"}',
        b'{"a": 1e400}',
        b"\x00",
    ],
)
def test_what_is_no_object_of_json_is_refused(raw):
    assert fault(raw).rule


def test_too_large_too_deep_and_too_long_numbers_are_refused():
    large = {**GOOD, "properties": {"x": "y" * EVENT_BYTES_MAX}}
    assert fault(large).rule == f"at most {EVENT_BYTES_MAX} bytes"
    assert "fits 64 bits" in fault({**GOOD, "properties": {"x": [1, 10**19]}}).rule
    assert fault({**GOOD, "properties": {"x": [1, 10**19]}}).path == "event.properties.x.1"
    assert passed({**GOOD, "properties": {"x": 2**63 - 1, "y": "9" * 40, "z": 1e30}})


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def test_depth_is_counted_outside_strings():
    assert check_shape(nested(NESTING_MAX), "event") is None
    assert check_shape(nested(NESTING_MAX + 1), "event").rule == f"at most {NESTING_MAX} levels deep"
    assert check_shape(b'{"a": "' + b"[" * 99 + b'\\"[["}', "event") is None
    assert check_shape(b"[" + b"[]," * 99 + b"[]]", "event") is None


trees = st.recursive(
    st.none() | st.integers(-5, 5) | st.sampled_from(["", "[[", "}}", '\\"[', '"{', "\\"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "{", '"']), inner, max_size=2)
    ),
    max_leaves=8,
)


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max((depth(entry) for entry in inner), default=0)


@settings(max_examples=100, deadline=None)
@given(tree=trees, around=st.integers(0, NESTING_MAX + 4))
def test_depth_is_what_a_parser_finds(tree, around):
    value: object = tree
    for level in range(around):
        value = [value, "["] if level % 2 else {"k]": value}
    found = check_shape(json.dumps(value).encode(), "event")
    assert (found is not None) == (depth(value) > NESTING_MAX)


# --- whatever is sent ---------------------------------------------------------------------------------

integers = st.integers(-(2**70), 2**70)
values = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
fields = st.sampled_from(
    ["type", "event", "userId", "anonymousId", "messageId", "previousId", "groupId", "properties", "traits",
     "context", "timestamp", "originalTimestamp", "sentAt", "integrations", "name"]
)  # fmt: skip
names = st.sampled_from(["page", "device", "campaign", "traits", "consent", "locale", "userAgent"])
parts = st.dictionaries(names, values)
# What a batch shares has passed `check_shape` before it is put into its events.
shared_parts = parts.filter(lambda part: check_shape(json.dumps(part).encode(), "body") is None)


@settings(max_examples=200, deadline=None)
@given(
    odd=st.dictionaries(fields, values, max_size=4),
    context=st.none() | parts,
    shared=st.builds(
        Shared,
        st.none() | st.sampled_from(TYPES),
        st.none() | shared_parts,
        st.none() | shared_parts,
        st.just(value=True),  # Nobody looked through the body for long numbers before.
    ),
)
def test_every_event_passes_or_has_a_fault_and_what_passes_reads_back(odd, context, shared):
    body = {**GOOD, **({} if context is None else {"context": context}), **odd}
    result = validate(json.dumps(body).encode(), shared)
    if isinstance(result, Fault):
        assert result.path
        assert result.rule
        return
    again = validate(result.raw, NOTHING)
    assert isinstance(again, Valid)
    assert again.event == result.event
    assert again.raw == result.raw
    assert result.event.user_id or result.event.anonymous_id


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_have_an_answer(raw):
    assert isinstance(validate(raw, NOTHING), Fault | Valid)
