"""RudderStack's and Jitsu's server-side libraries, unmodified, deliver by a change of host."""

import gzip
import json
from collections import Counter

from tests.e2e.calls import EVENTS, journey, without
from tests.e2e.clients import Clients
from tests.e2e.people import arrived
from tests.e2e.proxy import LostAnswer


def rudder(proxy, server, name: str, **options):
    return {
        "host": proxy.url,
        "writeKey": server.write_key,
        "calls": journey(name),
        "options": options,
    }


def assert_is_known(found, name: str) -> None:
    assert found.events == EVENTS
    assert found.traits["plan"] == "pro"
    assert f"user_id:{name}" in found.identifiers
    assert f"{name}-shoe" in found.items


def test_rudder_node_delivers_compressed_json_under_a_form_content_type(server, proxy, node_clients: Clients):
    report = node_clients.run("rudder-node.mjs", rudder(proxy, server, "rudder-node"))
    assert report == {"delivered": 6, "errors": []}
    for sent in proxy.seen("POST", "/v1/batch"):
        assert sent.headers["content-encoding"] == "gzip"
        assert sent.headers["content-type"] == "application/x-www-form-urlencoded"
        assert "writeKey" not in json.loads(gzip.decompress(sent.body))
    assert_is_known(arrived(server, "user_id:rudder-node", EVENTS), "rudder-node")


def test_rudder_node_delivers_plain_json(server, proxy, node_clients: Clients):
    plan = rudder(proxy, server, "rudder-plain", gzip=False)
    assert node_clients.run("rudder-node.mjs", plan)["errors"] == []
    assert all("content-encoding" not in sent.headers for sent in proxy.seen("POST"))
    assert_is_known(arrived(server, "user_id:rudder-plain", EVENTS), "rudder-plain")


def test_rudder_node_is_counted_once_when_an_answer_is_lost(server, proxy, node_clients: Clients):
    proxy.fail_next(LostAnswer())
    report = node_clients.run("rudder-node.mjs", rudder(proxy, server, "rudder-lost"))
    assert report == {"delivered": 6, "errors": []}
    assert [sent.status for sent in proxy.seen("POST")][:2] == [0, 200]
    assert arrived(server, "user_id:rudder-lost", EVENTS).events == EVENTS


def test_rudder_python_delivers_traits_that_stand_in_the_context(server, proxy, python_clients: Clients):
    report = python_clients.run("rudder_client.py", rudder(proxy, server, "rudder-py"))
    assert report == {"errors": []}
    (sent,) = proxy.seen("POST", "/v1/batch")
    identify = json.loads(gzip.decompress(sent.body))["batch"][0]
    assert "traits" not in identify
    assert_is_known(arrived(server, "user_id:rudder-py", EVENTS), "rudder-py")


def test_rudder_python_delivers_plain_json(server, proxy, python_clients: Clients):
    plan = rudder(proxy, server, "rudder-py-plain", gzip=False)
    assert python_clients.run("rudder_client.py", plan) == {"errors": []}
    assert_is_known(arrived(server, "user_id:rudder-py-plain", EVENTS), "rudder-py-plain")


def test_jitsu_delivers_one_request_an_event(server, proxy, node_clients: Clients):
    plan = {
        "host": proxy.url,
        "writeKey": f"{server.write_key}:secret",  # Jitsu insists on `key:secret`.
        "calls": without("alias", without("screen", journey("jitsu-node"))),
    }
    report = node_clients.run("jitsu-node.mjs", plan)
    assert report == {"delivered": 4, "errors": []}
    assert [(sent.path, sent.status) for sent in proxy.seen("POST")] == [
        ("/api/s/s2s/identify", 200),
        ("/api/s/s2s/track", 200),
        ("/api/s/s2s/page", 200),
        ("/api/s/s2s/group", 200),
    ]
    expected = EVENTS - Counter({"Screen Viewed": 1, "Aliased": 1})
    found = arrived(server, "user_id:jitsu-node", expected)
    assert found.events == expected
    assert found.traits["plan"] == "pro"
    assert "jitsu-node-shoe" in found.items
