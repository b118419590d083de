"""Segment's own server-side libraries, unmodified, deliver to Tailorbird by a change of host."""

import base64
import gzip
import json
import time
from collections import Counter
from typing import Any

from tests.e2e.calls import EVENTS, journey
from tests.e2e.clients import Clients
from tests.e2e.people import Person, arrived, person
from tests.e2e.proxy import LostAnswer, RecordingProxy, Refusal
from tests.serving import Server


def plan(proxy: RecordingProxy, server: Server, calls: list[dict[str, Any]], **options: Any):
    return {"host": proxy.url, "writeKey": server.write_key, "calls": calls, "options": options}


def assert_is_known(found: Person, name: str) -> None:
    assert found.events == EVENTS
    assert found.traits["plan"] == "pro"
    assert found.traits["age"] == 36
    assert found.traits["email"] == f"{name}@example.test"
    assert {f"user_id:{name}", f"anonymous_id:{name}-browser"} <= found.identifiers
    assert f"{name}-shoe" in found.items


def message_ids(body: bytes) -> list[str]:
    return [event["messageId"] for event in json.loads(body)["batch"]]


def test_node_library_delivers_every_type_of_call(server, proxy, node_clients: Clients):
    report = node_clients.run("segment-node.mjs", plan(proxy, server, journey("node-all")))
    assert report == {"delivered": 6, "errors": []}
    assert_is_known(arrived(server, "user_id:node-all", EVENTS), "node-all")
    exchanges = proxy.seen("POST")
    assert {exchange.path for exchange in exchanges} == {"/v1/batch"}
    assert all(exchange.status == 200 for exchange in exchanges)
    assert json.loads(exchanges[0].answer)["success"] is True


def test_python_library_delivers_every_type_of_call(server, proxy, python_clients: Clients):
    report = python_clients.run("segment_client.py", plan(proxy, server, journey("py-all")))
    assert report == {"errors": []}
    assert_is_known(arrived(server, "user_id:py-all", EVENTS), "py-all")


def test_python_library_delivers_compressed(server, proxy, python_clients: Clients):
    calls = journey("py-gzip")
    report = python_clients.run("segment_client.py", plan(proxy, server, calls, gzip=True))
    assert report == {"errors": []}
    (sent,) = proxy.seen("POST", "/v1/batch")
    assert sent.headers["content-encoding"] == "gzip"
    assert len(message_ids(gzip.decompress(sent.body))) == 6
    assert_is_known(arrived(server, "user_id:py-gzip", EVENTS), "py-gzip")


def test_node_batch_is_counted_once_when_its_answer_is_lost(server, proxy, node_clients: Clients):
    proxy.fail_next(LostAnswer())
    report = node_clients.run("segment-node.mjs", plan(proxy, server, journey("node-lost")))
    assert report == {"delivered": 6, "errors": []}
    lost, retried = proxy.seen("POST", "/v1/batch")
    assert (lost.status, retried.status) == (0, 200)
    assert message_ids(lost.body) == message_ids(retried.body)
    assert arrived(server, "user_id:node-lost", EVENTS).events == EVENTS


def test_python_batch_is_counted_once_when_its_answer_is_lost(server, proxy, python_clients: Clients):
    proxy.fail_next(LostAnswer())
    report = python_clients.run("segment_client.py", plan(proxy, server, journey("py-lost")))
    assert report == {"errors": []}
    lost, retried = proxy.seen("POST", "/v1/batch")
    assert message_ids(lost.body) == message_ids(retried.body)
    assert arrived(server, "user_id:py-lost", EVENTS).events == EVENTS


def test_node_batch_arrives_after_the_wait_that_a_rate_limit_asks_for(server, proxy, node_clients: Clients):
    proxy.fail_next(Refusal(429, {"Retry-After": "1"}))
    started = time.monotonic()
    report = node_clients.run("segment-node.mjs", plan(proxy, server, journey("node-429")))
    assert report == {"delivered": 6, "errors": []}
    assert time.monotonic() - started >= 1.0
    assert [exchange.status for exchange in proxy.seen("POST")] == [429, 200]
    assert arrived(server, "user_id:node-429", EVENTS).events == EVENTS


def test_events_of_one_message_id_are_counted_once_over_calls(server, proxy, node_clients: Clients):
    call = {"type": "track", "userId": "node-twice", "event": "Signed Up", "messageId": "m-twice"}
    for _ in range(2):
        report = node_clients.run("segment-node.mjs", plan(proxy, server, [call]))
        assert report["errors"] == []
    assert [message_ids(sent.body) for sent in proxy.seen("POST")] == [["m-twice"]] * 2
    found = arrived(server, "user_id:node-twice", Counter({"Signed Up": 1}))
    assert found.events == Counter({"Signed Up": 1})


def test_anonymous_browsing_becomes_the_users_on_identify(server, proxy, node_clients: Clients):
    device = {"anonymousId": "node-anon"}
    calls = [
        {"type": "track", **device, "event": "Product Viewed", "properties": {"product_id": "hat"}},
        {"type": "identify", **device, "userId": "node-known", "traits": {"plan": "free"}},
    ]
    report = node_clients.run("segment-node.mjs", plan(proxy, server, calls))
    assert report["errors"] == []
    expected = Counter({"Product Viewed": 1, "Identified": 1})
    found = arrived(server, "user_id:node-known", expected)
    assert found.items == ("hat",)
    assert {"user_id:node-known", "anonymous_id:node-anon"} <= found.identifiers


def test_times_of_the_past_are_kept(server, proxy, node_clients: Clients):
    call = {
        "type": "track",
        "userId": "node-past",
        "event": "Order Completed",
        "timestamp": "2024-01-02T03:04:05.000Z",
    }
    node_clients.run("segment-node.mjs", plan(proxy, server, [call]))
    arrived(server, "user_id:node-past", Counter({"Order Completed": 1}))
    (event,) = server.profile("user_id:node-past")["recentEvents"]
    assert event["timestamp"].startswith("2024-01-02T03:04:0")


def test_wrong_write_key_is_told_to_the_client_and_nothing_is_kept(server, proxy, node_clients: Clients):
    wrong = plan(proxy, server, journey("node-wrong")) | {"writeKey": "wk_of_somebody_else"}
    report = node_clients.run("segment-node.mjs", wrong)
    assert report["delivered"] == 0
    assert len(report["errors"]) == 6
    assert proxy.seen("POST")[0].status == 401
    assert person(server, "user_id:node-wrong") is None


def test_key_goes_as_basic_auth(server, proxy, node_clients: Clients):
    node_clients.run("segment-node.mjs", plan(proxy, server, journey("node-auth")))
    scheme, token = proxy.seen("POST")[0].headers["authorization"].split()
    assert scheme == "Basic"
    assert base64.b64decode(token).decode() == f"{server.write_key}:"
