"""What cannot be used gets an answer that says why, is kept where it is an event, and harms nobody else."""

import gzip
import json
import zlib
from urllib.parse import quote

import msgspec
import pytest
from tests.integration.api import Api, encoded, request, statuses
from tests.serving import Server

from tailorbird.collect.collector import Reject
from tailorbird.stores.segments import SegmentLog

GOOD = {"type": "track", "event": "Product Viewed", "userId": "bad-input-good"}
HUGE = "9" * 400
DEEP = "[" * 40 + "]" * 40
PROBLEM = "application/problem+json"


def assert_refused(answer, path, rule=""):
    """Check that an answer is a problem whose first error names the field and the rule."""
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body = answer.json()
    assert body["status"] == 400
    assert body["title"]
    first = body["errors"][0]
    assert first["path"] == path, body
    assert rule in first["rule"], body
    assert "value" in first
    assert path in body["detail"]


@pytest.fixture(scope="module")
def hero(api):
    """A placement with two variants, a goal and nothing else."""
    goal = {"event": "Order Completed", "value": "properties.revenue"}
    return api.declare("hero", variants=[{"id": "a"}, {"id": "b"}], goal=goal)


@pytest.fixture(scope="module")
def shelf(api):
    """A list over a catalogue of three items."""
    api.stock(*({"id": f"shelf-{i}", "price": i, "stock": 5, "tags": ["shelf"]} for i in (1, 2, 3)))
    return api.declare("shelf", kind="list", candidates={"query": "'shelf' in item.tags"})


# --- events ------------------------------------------------------------------------------------------

BAD_EVENTS = [
    pytest.param(b"{not json", "body", "malformed", id="malformed JSON"),
    pytest.param(b"", "body", "truncated", id="nothing at all"),
    pytest.param(b"\xef\xbb\xbf" + encoded(GOOD), "body", "malformed", id="byte order mark"),
    pytest.param(b"\xff\xfe{}", "body", "", id="not UTF-8"),
    pytest.param(b'{"event":"\xff","userId":"u"}', "body", "", id="a string that is not UTF-8"),
    pytest.param(b"[]", "event", "object", id="an array"),
    pytest.param(b'"track"', "event", "object", id="a string"),
    pytest.param(encoded(GOOD | {"userId": None}), "userId", "no_user_anon_id", id="nobody"),
    pytest.param(encoded(GOOD | {"userId": ""}), "userId", "no_user_anon_id", id="an empty user id"),
    pytest.param(encoded({"userId": "u", "properties": {}}), "event", "name", id="no event name"),
    pytest.param(encoded(GOOD | {"event": ""}), "event", "name", id="an empty event name"),
    pytest.param(encoded(GOOD | {"event": 7}), "event", "Expected `str", id="a number as event name"),
    pytest.param(encoded(GOOD | {"event": "e" * 501}), "event", "at most 500", id="a long event name"),
    pytest.param(encoded(GOOD | {"userId": ["u"]}), "userId", "Expected `str", id="a list as user id"),
    pytest.param(encoded(GOOD | {"userId": {"a": 1}}), "userId", "Expected `str", id="a map as user id"),
    pytest.param(encoded(GOOD | {"userId": True}), "userId", "Expected `str", id="a boolean as user id"),
    pytest.param(encoded(GOOD | {"userId": "u" * 10_000}), "userId", "at most 500", id="a long user id"),
    pytest.param(
        encoded(GOOD | {"messageId": "m" * 101}), "messageId", "at most 100", id="a long message id"
    ),
    pytest.param(
        encoded(GOOD | {"properties": "none"}), "properties", "Expected `object", id="text as properties"
    ),
    pytest.param(
        encoded(GOOD | {"properties": [1]}), "properties", "Expected `object", id="a list as properties"
    ),
    pytest.param(encoded(GOOD | {"traits": 3}), "traits", "Expected `object", id="a number as traits"),
    pytest.param(encoded(GOOD | {"timestamp": "soon"}), "timestamp", "ISO 8601", id="a time that is none"),
    pytest.param(encoded(GOOD | {"timestamp": 1700000000}), "timestamp", "ISO 8601", id="a time as a number"),
    pytest.param(
        encoded(GOOD | {"timestamp": "99999-01-01T00:00:00Z"}), "timestamp", "ISO 8601", id="year 99999"
    ),
    pytest.param(encoded(GOOD | {"timestamp": "2999-01-01T00:00:00Z"}), "timestamp", "2100", id="year 2999"),
    pytest.param(encoded(GOOD | {"timestamp": "1899-01-01T00:00:00Z"}), "timestamp", "1970", id="year 1899"),
    pytest.param(
        encoded(GOOD | {"timestamp": "2024-01-01T00:00:00Z", "sentAt": "never"}),
        "sentAt",
        "ISO 8601",
        id="a time of sending that is none",
    ),
    pytest.param(
        encoded(GOOD | {"properties": {"x": "y" * 33_000}}), "event", "32768 bytes", id="more than 32 KB"
    ),
    pytest.param(
        b'{"event":"x","userId":"u","properties":{"n":%b}}' % DEEP.encode(), "event", "32 levels", id="deep"
    ),
    pytest.param(b"[" * 100_000, "event", "", id="a hundred thousand brackets"),
    pytest.param(b'{"event":"x","userId":"u","properties":{"n":NaN}}', "body", "malformed", id="NaN"),
    pytest.param(
        b'{"event":"x","userId":"u","properties":{"n":1e999}}', "event.properties.n", "fits", id="1e999"
    ),
    pytest.param(
        b'{"event":"x","userId":"u","properties":{"n":%b}}' % HUGE.encode(),
        "event.properties.n",
        "64 bits",
        id="an integer of 400 digits",
    ),
    pytest.param(
        b'{"event":"x","userId":%b}' % HUGE.encode(), "event.userId", "64 bits", id="400 digits as user id"
    ),
    pytest.param(
        b'{"event":"x","userId":"u","zzz":1e400}', "event.zzz", "fits", id="1e400 in a field of their own"
    ),
    pytest.param(
        b'{"event":"x","userId":"u","zzz":"\xff"}', "body", "UTF-8", id="no UTF-8 in a field of their own"
    ),
    pytest.param(b"{" * 33 + b'"' + b'\\"' * 16_000, "body", "", id="a string without an end"),
    pytest.param(rb'{"event":"x","userId":"a\ud800b"}', "body", "", id="half a surrogate pair"),
]


@pytest.mark.parametrize(("body", "path", "rule"), BAD_EVENTS)
def test_a_bad_event_is_refused_by_name_and_kept(api, body, path, rule):
    before = len(api.rejects())
    assert_refused(api.write.post("/v1/track", content=body), path, rule)
    kept = api.rejects()
    assert len(kept) == before + 1
    assert kept[-1]["door"] == "/v1/track"
    assert kept[-1]["path"] == path
    assert rule in kept[-1]["rule"]
    assert kept[-1]["body"] == body.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("call", "path"),
    [
        ({"type": "alias", "userId": "u"}, "previousId"),
        ({"type": "group", "userId": "u"}, "groupId"),
        ({"type": "dance", "userId": "u"}, "type"),
    ],
)
def test_each_call_needs_what_makes_it_usable(api, call, path):
    assert_refused(api.write.post("/v1/batch", json={"batch": [call]}), path)


def test_one_bad_event_of_a_batch_does_not_harm_the_others(api):
    good, bad = api.name("good"), {"type": "track", "userId": "u", "messageId": api.name("bad")}
    batch = [GOOD | {"userId": good, "messageId": api.name("m")}, bad]
    answer = api.write.post("/v1/batch", json={"batch": batch})
    assert answer.status_code == 200
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (1, 1)
    assert answer.json()["errors"][0]["path"] == "[1].event"
    assert api.profile(f"user_id:{good}") is not None
    assert json.loads(api.rejects()[-1]["body"]) == bad


BAD_BATCHES = [
    pytest.param(b"{", "body", id="malformed"),
    pytest.param(b"[]", "body", id="an array"),
    pytest.param(b"{}", "body", id="no batch"),
    pytest.param(b'{"batch":{}}', "batch", id="a map"),
    pytest.param(encoded({"batch": [], "context": "x"}), "context", id="text as context"),
    pytest.param(encoded({"batch": [GOOD], "context": {"x": "y" * 40_000}}), "context", id="a large context"),
    pytest.param(b'{"batch":[],"context":{"a":%b}}' % DEEP.encode(), "body", id="a deep context"),
    pytest.param(
        b'{"batch":[],"context":{"traits":{"n":%b}}}' % HUGE.encode(),
        "body.context.traits.n",
        id="a context with 400 digits",
    ),
    pytest.param(
        encoded({"batch": [GOOD | {"properties": {"x": "y" * 600}}] * 1000}), "body", id="more than 500 KB"
    ),
]


@pytest.mark.parametrize(("body", "path"), BAD_BATCHES)
def test_a_bad_batch_is_refused_whole_and_kept(api, body, path):
    before = len(api.rejects())
    assert_refused(api.write.post("/v1/batch", content=body), path)
    kept = api.rejects()
    assert len(kept) == before + 1
    assert kept[-1]["body"] == body[: 500 * 1024].decode()


def test_more_than_2500_events_are_answered_200_and_rejected(api):
    who = api.name("crowd")
    before = len(api.rejects())
    answer = api.write.post("/v1/batch", json={"batch": [{"type": "page", "userId": who}] * 2501})
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (0, 2501)
    assert "2500" in answer.json()["errors"][0]["rule"]
    assert api.profile(f"user_id:{who}") is None
    assert len(api.rejects()) == before + 1


def test_2500_events_are_taken_in(api):
    who = api.name("crowd")
    answer = api.write.post("/v1/batch", json={"batch": [{"type": "page", "userId": who}] * 2500})
    assert answer.json() == {"success": True}
    assert api.profile(f"user_id:{who}")["features"]["page_viewed_count"] == 2500


def test_an_empty_batch_is_fine(api):
    assert api.write.post("/v1/batch", json={"batch": []}).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"timestamp": "2099-12-31T23:59:59Z"}, id="in the far future"),
        pytest.param({"timestamp": "2024-01-01T00:00:00+14:00"}, id="with an offset"),
        pytest.param({"timestamp": "2024-01-01"}, id="without a time of day"),
        pytest.param({"timestamp": "1970-01-01T00:00:00Z"}, id="the first of all"),
        pytest.param(
            {"timestamp": "2024-01-01T00:00:00Z", "sentAt": "1970-01-01T00:00:00Z"},
            id="a wrong clock",
        ),
        pytest.param({"timestamp": ""}, id="empty"),
    ],
)
def test_odd_times_are_understood_and_never_lie_in_the_future(api, fields):
    who = api.name("time")
    api.send(GOOD | {"userId": who} | fields)
    seen = api.profile(f"user_id:{who}")
    assert "1970-01-01" <= seen["lastSeen"] <= api.profile(f"user_id:{who}")["lastSeen"]
    later = api.name("time")
    api.send(GOOD | {"userId": later})
    assert seen["lastSeen"] <= api.profile(f"user_id:{later}")["lastSeen"]


def test_unknown_fields_and_repeated_keys_are_no_harm(api):
    who = api.name("odd")
    body = (
        f'{{"event":"First","event":"Last Of Two","userId":"{who}","flavour":{{"a":[1]}},"_metadata":null}}'
    )
    assert api.write.post("/v1/track", content=body).status_code == 200
    assert [event["event"] for event in api.profile(f"user_id:{who}")["recentEvents"]] == ["Last Of Two"]


@pytest.mark.parametrize("value", [7, 1.5, -3, 2**63 - 1])
def test_numbers_as_ids_are_taken_as_text(api, value):
    assert api.write.post("/v1/identify", json={"userId": value}).status_code == 200
    assert api.profile(f"user_id:{value}") is not None


@pytest.mark.parametrize(
    "value",
    ["null", "undefined", "NaN", "anonymous", "-1", "00000000-0000-0000-0000-000000000000", " "],
)
def test_placeholders_identify_nobody(api, value):
    api.send(GOOD | {"userId": value}, {"type": "identify", "userId": value, "anonymousId": value})
    assert api.profile(f"user_id:{value}") is None
    assert api.profile(f"anonymous_id:{value}") is None


# --- refused events come back ------------------------------------------------------------------------


def test_refused_events_that_still_break_a_rule_stay_refused(api):
    api.write.post("/v1/track", content=b'{"userId":"still"}')
    api.write.post("/v1/batch", content=b"{")
    api.write.post("/v1/batch", json={"batch": [{"userId": "no-type"}]})
    answer = api.admin.post("/admin/v1/rejects/replay", json={})
    assert answer.status_code == 200, answer.text
    assert len(api.rejects()) >= 3
    assert {"path", "rule", "offset"} <= answer.json()["rejected"][0].keys()


def test_refused_events_can_be_replayed_after_a_fix(tmp_path):
    """The fix is simulated: the log of refusals holds events that today's rules let in."""
    server = Server(tmp_path / "data")
    fixed = [
        Reject(
            1.0,
            "/v1/track",
            "event",
            "an old rule",
            "",
            '{"event":"Bought","userId":"back","messageId":"b1"}',
        ),
        Reject(
            1.0, "/v1/batch", "body", "an old rule", "", '{"type":"page","userId":"back","messageId":"b2"}'
        ),
        Reject(
            1.0,
            "/v1/batch",
            "batch",
            "an old rule",
            "",
            '{"batch":[{"type":"page","userId":"back","messageId":"b3"},{"type":"page","userId":"back","messageId":"b2"}]}',
        ),
        Reject(1.0, "/v1/batch", "body", "still broken", "", "{"),
    ]
    log = SegmentLog(server.data_dir / "rejects")
    for reject in fixed:
        log.append(0, msgspec.json.encode(reject))
    log.close()
    with server, Api(server) as api:
        answer = api.admin.post("/admin/v1/rejects/replay", json={}).json()
        assert answer["replayed"] == 3
        assert [row["offset"] for row in answer["rejected"]] == [3]
        assert [row["rule"] for row in api.rejects()] == ["still broken"]
        features = api.profile("user_id:back")["features"]
        assert features["bought_count"] == 1
        assert features["page_viewed_count"] == 2, "b2 came twice"
        server.restart()
        assert [row["rule"] for row in api.rejects()] == ["still broken"]


# --- repeats -----------------------------------------------------------------------------------------


def test_a_batch_sent_again_counts_once_also_after_a_restart(tmp_path):
    with Server(tmp_path / "data") as server, Api(server) as api:
        batch = {"batch": [GOOD | {"userId": "again", "messageId": f"r-{i}"} for i in range(20)]}

        def views():
            return api.profile("user_id:again")["features"]["product_viewed_count"]

        for sent_at in ("2024-01-01T00:00:00Z", "2024-01-01T00:00:05Z"):
            assert api.write.post("/v1/batch", json=batch | {"sentAt": sent_at}).json() == {"success": True}
            assert views() == 20
        end = api.ready()["dependencies"]["log"]["end"]
        server.restart()
        assert api.write.post("/v1/batch", json=batch).json() == {"success": True}
        assert views() == 20
        server.kill()
        server.start()
        assert api.write.post("/v1/batch", json=batch).json() == {"success": True}
        assert views() == 20
        assert api.ready()["dependencies"]["log"]["end"] == end


# --- bodies ------------------------------------------------------------------------------------------


def test_gzip_is_unpacked_with_or_without_its_header_whatever_the_content_type(api):
    for headers in (
        {"content-encoding": "gzip", "content-type": "application/x-www-form-urlencoded"},
        {"content-type": "text/plain"},
        {"content-encoding": "gzip"},
    ):
        who = api.name("zip")
        answer = api.write.post(
            "/v1/track", content=gzip.compress(encoded(GOOD | {"userId": who})), headers=headers
        )
        assert answer.json() == {"success": True}
        assert api.profile(f"user_id:{who}") is not None


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", "x"])
def test_the_content_type_is_not_trusted(api, kind):
    answer = api.write.post("/v1/track", content=encoded(GOOD), headers={"content-type": kind})
    assert answer.json() == {"success": True}


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch", "/v1/decide"])
def test_a_gzip_bomb_is_refused_before_it_grows(api, path):
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(b" " * 100_000_000) + packer.flush()
    assert len(bomb) < 100_000
    assert_refused(api.write.post(path, content=bomb), "body", "when unpacked")


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(encoded(GOOD))[:-3],
        gzip.compress(encoded(GOOD))[:12],
        b"\x1f\x8b",
        b"\x1f\x8bnot gzip at all",
    ],
    ids=["cut at the end", "cut in the middle", "two bytes", "not gzip"],
)
def test_gzip_that_is_not_whole_is_refused(api, packed):
    assert_refused(api.write.post("/v1/track", content=packed), "body", "whole gzip")


def test_a_body_that_says_gzip_and_is_none_is_refused(api):
    answer = api.write.post("/v1/track", content=encoded(GOOD), headers={"content-encoding": "gzip"})
    assert_refused(answer, "body", "gzip")


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/decide", "/admin/v1/items"])
def test_more_than_8_mib_is_refused(api, path):
    answer = api.admin.request(
        "PUT" if "items" in path else "POST", path, content=b" " * (8 * 1024 * 1024 + 1)
    )
    assert answer.status_code in (400, 413)
    assert answer.headers["content-type"] == PROBLEM
    assert "at most 8388608 bytes" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/decide", "/admin/v1/items"])
def test_more_than_1_mib_is_refused_without_a_server_key(api, path):
    method = "PUT" if "items" in path else "POST"
    answer = api.write.request(method, path, content=b" " * (1024 * 1024 + 1))
    assert_refused(answer, "body", "at most 1048576 bytes without a server key")


# --- keys --------------------------------------------------------------------------------------------


def test_events_need_a_key_and_a_known_one(api, server):
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic !!!"},
        {"x-write-key": "wrong"},
    ):
        answer = _anonymous(api, headers, encoded(GOOD))
        assert answer.status_code == 401, headers
        assert answer.headers["content-type"] == PROBLEM
        assert "www-authenticate" in answer.headers
    body = encoded(GOOD | {"writeKey": server.write_key})
    assert _anonymous(api, {}, body).status_code == 200
    assert _anonymous(api, {}, encoded(GOOD | {"writeKey": "wrong"})).status_code == 401
    assert _anonymous(api, {}, b"{malformed").status_code == 401


def _anonymous(api, headers, body):
    client = api.write.build_request("POST", "/v1/track", content=body)
    del client.headers["authorization"]
    client.headers.update(headers)
    return api.write.send(client)


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/admin/v1/placements", "write"),
        ("PUT", "/admin/v1/items", "write"),
        ("GET", "/admin/v1/profiles/user_id:x", "write"),
        ("GET", "/admin/v1/decisions/d-0-0", "write"),
        ("GET", "/admin/v1/readouts", "write"),
        ("POST", "/v1/outcomes", "write"),
        ("GET", "/admin/v1/rejects", "back_end"),
        ("POST", "/admin/v1/rejects/replay", "back_end"),
    ],
)
def test_a_key_may_not_do_more_than_its_role(api, method, path, role):
    answer = getattr(api, role).request(method, path, json={})
    assert answer.status_code == 403
    assert "needs the" in answer.json()["detail"]


# --- decisions ---------------------------------------------------------------------------------------

BAD_REQUESTS = [
    pytest.param(b"{", "body", id="malformed"),
    pytest.param(b"", "body", id="empty"),
    pytest.param(b"[]", "body", id="an array"),
    pytest.param(b"{}", "body", id="no placements"),
    pytest.param(encoded({"placements": []}), "placements", id="none asked for"),
    pytest.param(encoded({"placements": [{"key": "x"}] * 51}), "placements", id="51 asked for"),
    pytest.param(encoded({"placements": ["x"]}), "placements[0]", id="text as placement"),
    pytest.param(encoded({"placements": [{"key": 3}]}), "placements[0].key", id="a number as key"),
    pytest.param(
        encoded({"placements": [{"key": "x", "count": -1}]}), "placements[0].count", id="a negative count"
    ),
    pytest.param(
        encoded({"placements": [{"key": "x", "count": 0}]}), "placements[0].count", id="a count of none"
    ),
    pytest.param(
        encoded({"placements": [{"key": "x", "count": 10**9}]}), "placements[0].count", id="a huge count"
    ),
    pytest.param(
        encoded({"placements": [{"key": "x", "count": 1.5}]}), "placements[0].count", id="half an item"
    ),
    pytest.param(
        encoded({"placements": [{"key": "x", "exclude": [1]}]}), "placements[0].exclude[0]", id="a number out"
    ),
    pytest.param(
        encoded({"placements": [{"key": "x", "exclude": ["i"] * 1001}]}),
        "placements[0].exclude",
        id="1001 excluded",
    ),
    pytest.param(
        encoded({"placements": [{"key": "x"}], "visitor": {"userId": 7}}), "visitor.userId", id="a number id"
    ),
    pytest.param(
        encoded({"placements": [{"key": "x"}], "visitor": {"userId": ""}}), "visitor.userId", id="an empty id"
    ),
    pytest.param(
        encoded({"placements": [{"key": "x"}], "visitor": {"userId": "u" * 10_000}}),
        "visitor.userId",
        id="a long id",
    ),
    pytest.param(encoded({"placements": [{"key": "x"}], "visitor": []}), "visitor", id="a list as visitor"),
    pytest.param(encoded({"placements": [{"key": "x"}], "context": "page"}), "context", id="text as context"),
    pytest.param(
        encoded({"placements": [{"key": "x"}], "deadlineMs": -1}), "deadlineMs", id="a negative deadline"
    ),
    pytest.param(b'{"placements":[{"key":"x"}],"deadlineMs":1e999}', "deadlineMs", id="an infinite deadline"),
    pytest.param(b'{"placements":[{"key":"x"}],"context":{"n":%b}}' % DEEP.encode(), "body", id="deep"),
    pytest.param(
        b'{"placements":[{"key":"x"}],"context":{"n":%b}}' % HUGE.encode(), "body.context.n", id="400 digits"
    ),
    pytest.param(
        b'{"placements":[{"key":"x"}],"context":{"n":%b}}' % (b"[" * 900 + b"]" * 900), "body", id="900 deep"
    ),
    pytest.param(
        encoded({"placements": [{"key": "x"}], "context": {"n": [1] * 20_000}}),
        "context",
        id="a large context",
    ),
    pytest.param(encoded({"placements": [{"key": "x"}], "at": "then"}), "at", id="a time that is none"),
    pytest.param(encoded({"placements": [{"key": "x"}], "at": "2024-13-01T00:00:00Z"}), "at", id="month 13"),
]


@pytest.mark.parametrize(("body", "path"), BAD_REQUESTS)
def test_a_bad_request_for_decisions_is_refused_by_name(api, body, path):
    assert_refused(api.back_end.post("/v1/decide", content=body), path)


def test_unknown_placements_are_404_when_nothing_else_was_asked(api):
    answer = api.write.post("/v1/decide", json={"placements": [{"key": "no-such"}, {"key": "x" * 5000}]})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == PROBLEM
    assert "no-such" in answer.json()["detail"]
    assert len(answer.text) < 2000


def test_an_unknown_placement_among_others_is_an_entry_with_an_error(api, hero):
    unknown, known = api.decide("no-such", hero, userId="u", key="write")["decisions"]
    assert unknown["placement"] == "no-such"
    assert unknown["error"]["status"] == 404
    assert known["choices"]


@pytest.mark.parametrize("visitor", [{}, {"userId": None}, {"userId": "null"}, {"anonymousId": "undefined"}])
def test_a_visitor_without_a_name_gets_a_contextual_answer(api, hero, visitor):
    body = {"placements": [{"key": hero}], "visitor": visitor}
    answer = api.back_end.post("/v1/decide", json=body).json()
    assert answer["visitor"]["profileId"] is None
    assert answer["visitor"]["arm"] == "none"
    assert answer["decisions"][0]["choices"][0]["id"] in ("a", "b")


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"placement": ""},
        {"placement": "HERO", "count": "-1"},
        {"placement": "HERO", "count": "ten"},
        {"placement": "HERO", "count": "1e1"},
        {"placement": "HERO", "count": "9" * 400},
        {"placement": "HERO", "count": "٣"},
        {"placement": "HERO", "userId": "u" * 10_000},
        {"placement": "HERO", "format": "xml"},
        {"placement": "HERO", "at": "x"},
    ],
)
def test_a_bad_query_for_a_decision_is_refused(api, hero, parameters):
    named = {name: value.replace("HERO", hero) for name, value in parameters.items()}
    answer = api.back_end.get("/v1/decide", params=named)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] in ("placement", *parameters)


def test_a_huge_query_is_refused(api, hero):
    many = "&".join(f"p{i}=1" for i in range(1000))
    assert_refused(api.write.get(f"/v1/decide?placement={hero}&{many}"), "query", "100")
    answer = api.talk(request("GET", f"/v1/decide?placement={'x' * 200_000}"))
    assert statuses(answer) in ([400], [])
    assert api.admin.get("/healthz").status_code == 200


def test_a_write_key_may_not_choose_the_time(api, hero):
    body = {"placements": [{"key": hero}], "at": "2024-01-01T00:00:00Z"}
    assert api.write.post("/v1/decide", json=body).status_code == 403


def test_a_rule_that_fails_at_run_time_is_taken_as_not_matching(api):
    rules = [{"name": "bad", "when": "context.missing > 3", "then": "exclude"}]
    key = api.declare(variants=[{"id": "a"}, {"id": "b", "rule": "1 / context.zero == 1"}], rules=rules)
    decision = api.choose(key, userId="u", context={"zero": 0}, explain=True)
    assert [choice["id"] for choice in decision["choices"]] == ["a"]
    failed = {step["step"] for step in decision["steps"] if "failed" in step.get("detail", "")}
    assert failed == {"rule:b", "rule:bad"}


def test_a_list_rule_that_fails_at_run_time_is_taken_as_not_matching(api, shelf):
    rules = [
        {"name": "bad", "when": "item.nothing > context.limit"},
        {"name": "also", "when": "item.margin > 1.0"},
    ]
    key = api.declare(kind="list", candidates={"query": "'shelf' in item.tags"}, rules=rules)
    decision = api.choose(key, userId="u", explain=True)
    assert len(decision["choices"]) == 3
    assert decision["reason"] == "SPLIT"


def test_an_empty_candidate_set_is_answered_with_nothing_and_a_reason(api):
    key = api.declare(kind="list", candidates={"query": "item.type == 'unicorn'"})
    decision = api.choose(key, userId="u", explain=True)
    assert decision["choices"] == []
    assert decision["reason"] == "FALLBACK"
    assert "no_candidate" in [step.get("detail") for step in decision["steps"]]


def test_a_variant_for_nobody_falls_back_to_the_declared_default(api):
    key = api.declare(variants=[{"id": "a", "rule": "false"}, {"id": "b", "rule": "1 > 2"}], fallback="b")
    decision = api.choose(key, userId="u")
    assert (decision["reason"], decision["rung"]) == ("FALLBACK", "default")
    assert [choice["id"] for choice in decision["choices"]] == ["b"]


def test_an_item_that_disappears_between_decisions_is_not_shown(api):
    api.stock({"id": "gone-1", "tags": ["gone"]}, {"id": "gone-2", "tags": ["gone"]})
    key = api.declare(kind="list", candidates={"query": "'gone' in item.tags"}, stickySeconds=600, count=2)
    who = api.name("visitor")
    assert set(api.chosen(key, userId=who)) == {"gone-1", "gone-2"}
    assert api.admin.delete("/admin/v1/items/gone-1").status_code == 204
    assert api.chosen(key, userId=who) == ["gone-2"]
    assert api.admin.delete("/admin/v1/items/gone-2").status_code == 204
    assert api.chosen(key, userId=who) == []
    assert api.admin.get(f"/v1/decide?placement={key}&userId={who}&format=html").status_code == 200


def test_candidates_that_nobody_knows_are_left_out(api, shelf):
    asked = {
        "key": shelf,
        "candidates": ["shelf-2", "nowhere", "", "\x00", "shelf-2"],
        "exclude": ["", "é" * 600],
    }
    assert api.chosen(asked, userId="u") == ["shelf-2"]
    assert api.chosen({"key": shelf, "candidates": []}, userId="u") == []


def test_an_exposure_or_outcome_of_no_decision_is_no_harm(api, hero):
    before = api.learned(hero)
    for key in ("d-0-000000000000", "d-", "", "d-zzzzzzzzzzzzz-0", "d-é-1", "x" * 1000, "d--1-2"):
        api.track("Decision Viewed", userId="stray", decisionId=key)
        api.track("Order Completed", userId="stray", decisionId=key, revenue=3)
        assert api.admin.get(f"/admin/v1/decisions/{quote(key, safe='')}").status_code == 404
        assert api.back_end.post("/v1/outcomes", json={"decisionId": key}).status_code == 404
    assert api.learned(hero) == before


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"goal": "Other"}, "goal"),
        ({"value": 1e13}, "value"),
        ({"timestamp": "soon"}, "timestamp"),
        ({"surprise": 1}, "body"),
        ({"value": "3"}, "value"),
    ],
)
def test_a_bad_outcome_is_refused_by_name(api, hero, said, path):
    decision = api.choose(hero, userId=api.name("v"))["decisionId"]
    assert_refused(api.back_end.post("/v1/outcomes", json={"decisionId": decision, **said}), path)


def test_a_goal_whose_value_is_no_number_is_worth_nothing_and_still_counts(api, hero):
    who = api.name("v")
    decision = api.choose(hero, userId=who)["decisionId"]
    api.track("Order Completed", userId=who, decisionId=decision, revenue={"amount": 3})
    assert api.logged(decision)["outcome"]["value"] == 0.0


# --- OpenFeature -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "PARSE_ERROR"),
        (b"", "PARSE_ERROR"),
        (b"{}", "INVALID_CONTEXT"),
        (b'{"context":[]}', "INVALID_CONTEXT"),
        (b'{"context":{}}', "TARGETING_KEY_MISSING"),
        (b'{"context":{"targetingKey":7}}', "INVALID_CONTEXT"),
        (encoded({"context": {"targetingKey": "k" * 501}}), "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":"k","n":%b}}' % DEEP.encode(), "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":"k","n":%b}}' % HUGE.encode(), "INVALID_CONTEXT"),
    ],
)
def test_a_bad_evaluation_is_refused_in_openfeature_s_words(api, hero, body, code):
    for path in (f"/ofrep/v1/evaluate/flags/{hero}", "/ofrep/v1/evaluate/flags"):
        answer = api.write.post(path, content=body)
        assert answer.status_code == 400
        assert answer.json()["errorCode"] == code
        assert answer.json()["errorDetails"]


def test_an_unknown_flag_is_not_found(api):
    answer = api.write.post("/ofrep/v1/evaluate/flags/no/such", json={"context": {"targetingKey": "k"}})
    assert answer.status_code == 404
    assert answer.json()["errorCode"] == "FLAG_NOT_FOUND"


# --- configuration -----------------------------------------------------------------------------------

TWO = [{"id": "a"}, {"id": "b"}]
BAD_PLACEMENTS = [
    pytest.param(
        {"variants": [{"id": "a", "rule": "profile.x >"}]}, "variants[0].rule", id="a rule that is no CEL"
    ),
    pytest.param(
        {"variants": TWO, "rules": [{"name": "r", "when": "item.x >> 3"}]},
        "rules[0].when",
        id="no CEL either",
    ),
    pytest.param(
        {"variants": TWO, "rules": [{"name": "r", "when": "secret > 1"}]}, "rules[0].when", id="unknown name"
    ),
    pytest.param(
        {"variants": TWO, "rules": [{"name": "r", "when": "x" * 2001}]}, "rules[0].when", id="a long rule"
    ),
    pytest.param(
        {"variants": TWO, "rules": [{"name": "r", "when": "(" * 40 + "true" + ")" * 40}]},
        "rules[0].when",
        id="a deep rule",
    ),
    pytest.param(
        {"variants": TWO, "rules": [{"name": "r", "when": "[1].all(x, [1].//\n all (y, x == y))"}]},
        "rules[0].when",
        id="a comprehension within another",
    ),
    pytest.param({"kind": "list", "candidates": {"query": "item. =="}}, "candidates.query", id="a bad query"),
    pytest.param(
        {"variants": TWO, "goal": {"event": "x", "value": "properties."}}, "goal.value", id="a bad value"
    ),
    pytest.param({"variants": TWO, "floor": 0.6}, "floor", id="floors above 1 together"),
    pytest.param(
        {"variants": [{"id": "a", "cap": 0.3}, {"id": "b", "cap": 0.3}]},
        "variants.cap",
        id="caps below 1 together",
    ),
    pytest.param({"variants": TWO, "floor": 1.5}, "floor", id="a floor above 1"),
    pytest.param({"variants": TWO, "floor": -0.1}, "floor", id="a negative floor"),
    pytest.param({"variants": [{"id": "a"}, {"id": "a"}]}, "variants.id", id="an id twice"),
    pytest.param({"variants": [{"id": ""}]}, "variants[0].id", id="an empty id"),
    pytest.param({"variants": [{"id": "i" * 10_000}]}, "variants[0].id", id="a long id"),
    pytest.param({"variants": []}, "variants", id="no variants"),
    pytest.param({"variants": [{"id": str(i)} for i in range(101)]}, "variants", id="101 variants"),
    pytest.param({"variants": TWO, "count": -3, "kind": "list"}, "count", id="a negative count"),
    pytest.param({"variants": TWO, "holdout": 2}, "holdout", id="a holdout above 1"),
    pytest.param({"variants": TWO, "stickySeconds": -1}, "stickySeconds", id="negative seconds"),
    pytest.param({"variants": TWO, "fallback": "c"}, "fallback", id="a fallback that is none"),
    pytest.param({"variants": TWO, "policy": {"type": "oracle"}}, "policy.type", id="an unknown policy"),
    pytest.param(
        {"variants": TWO, "policy": {"type": "thompson", "priorAlpha": 0}}, "policy.priorAlpha", id="no prior"
    ),
    pytest.param(
        {"variants": TWO, "policy": {"type": "fixed", "weights": {"z": 1}}},
        "policy.weights",
        id="a stray weight",
    ),
    pytest.param(
        {"variants": TWO, "constraints": {"frequencyCap": {"count": 0}}},
        "constraints.frequencyCap.count",
        id="a cap of none",
    ),
    pytest.param({"variants": TWO, "flor": 0.1}, "body", id="a misspelt field"),
    pytest.param({"variants": TWO, "key": "another"}, "key", id="another key than the path's"),
    pytest.param({"variants": "ab"}, "variants", id="text as variants"),
]


@pytest.mark.parametrize(("placement", "path"), BAD_PLACEMENTS)
def test_a_bad_placement_is_refused_by_name_and_changes_nothing(api, hero, placement, path):
    before = api.admin.get(f"/admin/v1/placements/{hero}").json()
    assert_refused(api.admin.put(f"/admin/v1/placements/{hero}", json=placement), path)
    assert api.admin.get(f"/admin/v1/placements/{hero}").json() == before


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"variants":[{"id":"a","value":%b}]}' % HUGE.encode(),
        b'{"variants":[{"id":"a","value":%b}]}' % DEEP.encode(),
    ],
    ids=["malformed", "an array", "400 digits", "deep"],
)
def test_a_placement_that_is_no_such_json_is_refused(api, body):
    answer = api.admin.put("/admin/v1/placements/never", content=body)
    assert answer.status_code == 400
    assert answer.json()["errors"]
    assert api.admin.get("/admin/v1/placements/never").status_code == 404


@pytest.mark.parametrize("key", ["-x", " ", "a b", "é", "a" * 101, "%00", "a%0Ab"])
def test_a_placement_s_key_is_plain(api, key):
    answer = api.admin.put(f"/admin/v1/placements/{key}", json={"variants": TWO})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == "key"


BAD_ITEMS = [
    pytest.param([{}], "[0]", id="no id"),
    pytest.param([{"id": ""}], "[0].id", id="an empty id"),
    pytest.param([{"id": "i", "price": -1}], "[0].price", id="a negative price"),
    pytest.param([{"id": "i", "stock": -1}], "[0].stock", id="a negative stock"),
    pytest.param([{"id": "i", "stock": 10**30}], "body.0.stock", id="a stock beyond counting"),
    pytest.param([{"id": "i", "attributes": {"n": 10**400}}], "body.0.attributes.n", id="400 digits"),
    pytest.param([{"id": "i", "publishedAt": "soon"}], "[0].publishedAt", id="a time that is none"),
    pytest.param([{"id": "i", "expiresAt": "99999-01-01"}], "[0].expiresAt", id="year 99999"),
    pytest.param([{"id": "i", "title": "t" * 9000}], "[0].item", id="more than 8 KB"),
    pytest.param([{"id": "i", "colour": "red"}], "[0]", id="an unknown field"),
    pytest.param([{"id": "i"}] * 1001, "body", id="1001 items"),
]


@pytest.mark.parametrize(("items", "path"), BAD_ITEMS)
def test_a_bad_item_is_refused_by_name_and_none_of_the_call_is_written(api, items, path):
    answer = api.admin.put("/admin/v1/items", json=[{"id": "with-bad-ones"}, *items[1:], items[0]][::-1])
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == path
    assert api.admin.get("/admin/v1/items/with-bad-ones").status_code == 404


def test_a_bad_patch_is_refused_and_a_missing_item_is_404(api):
    api.stock({"id": "patched", "price": 3})
    assert_refused(api.admin.patch("/admin/v1/items/patched", json={"price": -1}), "price")
    assert_refused(api.admin.patch("/admin/v1/items/patched", json={"id": "other"}), "body")
    assert_refused(api.admin.patch("/admin/v1/items/patched", json={"expiresAt": "x"}), "expiresAt")
    assert api.admin.get("/admin/v1/items/patched").json()["price"] == 3
    for method in ("GET", "DELETE", "PATCH"):
        assert api.admin.request(method, "/admin/v1/items/nowhere", json={}).status_code == 404


@pytest.mark.parametrize("said", [{}, {"personalization": "no"}, [], {str(i): True for i in range(51)}])
def test_a_bad_consent_is_refused(api, said):
    answer = api.admin.put("/admin/v1/profiles/user_id:consents/consent", json=said)
    assert answer.status_code == 400
    assert api.profile("user_id:consents") is None


@pytest.mark.parametrize("name", ["user_id", "user_id:", ":x", "user_id:null"])
def test_a_person_is_named_by_type_and_value(api, name):
    assert api.admin.get(f"/admin/v1/profiles/{name}").status_code in (400, 404)
    answer = api.admin.put(f"/admin/v1/profiles/{name}/consent", json={"personalization": False})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == "identifier"


@pytest.mark.parametrize(
    "parameters", [{"after": "x"}, {"limit": "-1"}, {"limit": "1001"}, {"after": "9" * 30}]
)
def test_a_bad_page_of_refusals_is_refused(api, parameters):
    answer = api.admin.get("/admin/v1/rejects", params=parameters)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] in parameters


# --- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a/b/c",
        "a:b",
        "ü-é-日本-🐦",
        "a b",
        "a%2Fb",
        "..",
        "a?b#c",
        "a\x00b",
        "a\nb",
        "'; drop table--",
        "x" * 500,
    ],
)
def test_any_text_can_name_a_user_an_item_and_a_variant(api, name):
    user = f"{api.name('n')}{name}"[:500]
    api.send(GOOD | {"userId": user, "properties": {"product_id": user}})
    found = api.admin.get(f"/admin/v1/profiles/{quote(f'user_id:{user}', safe='')}")
    assert found.status_code == 200, found.text
    assert found.json()["identifiers"][0]["value"] == user
    assert found.json()["recentEvents"][0]["item"] == user
    api.stock({"id": user, "tags": [user[:200]]})
    assert api.admin.get(f"/admin/v1/items/{quote(user, safe='')}").json()["id"] == user
    key = api.declare(variants=[{"id": user}])
    assert api.chosen(key, userId=user) == [user]
    assert api.admin.delete(f"/admin/v1/items/{quote(user, safe='')}").status_code == 204


def test_a_placement_s_key_may_hold_slashes_and_colons(api):
    key = f"{api.name('shop')}/home:hero"
    assert (
        api.admin.put(f"/admin/v1/placements/{quote(key, safe='')}", json={"variants": TWO}).status_code
        == 201
    )
    assert api.admin.get(f"/admin/v1/placements/{key}").json()["key"] == key
    assert set(api.learned(key)) == {"a", "b"}
    assert (
        api.write.post(f"/ofrep/v1/evaluate/flags/{key}", json={"context": {"targetingKey": "k"}}).status_code
        == 200
    )
    assert api.admin.delete(f"/admin/v1/placements/{key}").status_code == 204


# --- the wire ----------------------------------------------------------------------------------------


def _post(api, body=None, *headers, version="1.1"):
    body = encoded(GOOD | {"userId": api.name("wire")}) if body is None else body
    return request(
        "POST",
        "/v1/track",
        body,
        f"Authorization: Bearer {api.server.write_key}",
        *headers,
        version=version,
    )


def test_pipelined_requests_are_answered_in_order(api, hero):
    decide = request(
        "POST",
        "/v1/decide",
        encoded({"placements": [{"key": hero}]}),
        f"Authorization: Bearer {api.server.write_key}",
    )
    bad = _post(api, b"{")
    parts = [
        _post(api),
        decide,
        bad,
        request("GET", "/healthz"),
        decide,
        _post(api),
        bad,
        request("GET", "/none"),
    ]
    assert statuses(api.talk(b"".join(parts))) == [200, 200, 400, 200, 200, 200, 400, 404]


def test_a_request_in_single_bytes_is_understood(api):
    sent = _post(api)
    head, tail = sent[:-40], sent[-40:]
    assert statuses(api.talk(head + tail)) == [200]
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in encoded(GOOD)) + b"0\r\n\r\n"
    lines = f"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.server.write_key}\r\n"
    assert statuses(api.talk(lines.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)) == [200]


def test_http_1_0_is_answered_and_closed(api):
    answer = api.talk(_post(api, version="1.0"))
    assert b" 200 " in answer.split(b"\r\n")[0]


def test_expect_continue_is_honoured(api):
    answer = api.talk(_post(api, None, "Expect: 100-continue"))
    assert statuses(answer)[-1] == 200


def test_head_has_no_body_and_options_any_path(api):
    answer = api.admin.head("/healthz")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "2")
    answer = api.write.options("/v1/batch", headers={"origin": "https://shop.example"})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"


def test_unknown_paths_and_methods_are_named(api):
    assert api.admin.get("/v2/nothing").status_code == 404
    answer = api.admin.get("/v1/batch")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.headers["content-type"] == PROBLEM


def test_headers_beyond_64_kib_are_refused(api):
    bomb = "\r\n".join(f"X-{i}: {'y' * 1000}" for i in range(100))
    assert statuses(api.talk(_post(api, None, bomb))) in ([400], [])
    assert statuses(api.talk(_post(api, None, "Cookie: " + "c" * 100_000))) in ([400], [])
    assert statuses(api.talk(_post(api, None, "Cookie: " + "c" * 30_000))) == [200]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="a TLS hello"),
        pytest.param(b"GET\r\n\r\n", id="no path"),
        pytest.param(b"DANCE / HTTP/1.1\r\n\r\n", id="an unknown method"),
        pytest.param(b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", id="a path that is no ASCII"),
        pytest.param(b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n", id="a path that is no UTF-8"),
        pytest.param(
            b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", id="a negative length"
        ),
        pytest.param(
            b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
            id="two lengths",
        ),
        pytest.param(
            b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            id="a bad chunk",
        ),
        pytest.param(b"\r\n" * 1000, id="empty lines"),
        pytest.param(b"\x00" * 1000, id="zeros"),
    ],
)
def test_what_is_no_http_is_refused_and_others_go_on(api, sent):
    assert all(400 <= status < 500 for status in statuses(api.talk(sent, shut=True)))
    assert api.admin.get("/healthz").status_code == 200


def test_a_client_that_hangs_up_half_way_leaves_nothing_behind(api):
    before = api.ready()["dependencies"]["log"]["end"]
    sent = _post(api)
    for length in (1, 20, len(sent) // 2, len(sent) - 1):
        api.talk(sent[:length], shut=True)
    assert api.ready()["dependencies"]["log"]["end"] == before


def test_what_a_client_sent_before_it_closed_its_side_is_kept(api):
    who = api.name("half-closed")
    api.talk(_post(api, encoded(GOOD | {"userId": who})), shut=True)
    assert api.profile(f"user_id:{who}") is not None
