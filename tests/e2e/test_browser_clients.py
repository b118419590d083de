"""Browser clients, unmodified, in a headless Chromium on another origin than the server's."""

import json
from collections import Counter
from typing import Any

import pytest
from playwright.sync_api import Page
from tests.e2e.calls import EVENTS, journey, without
from tests.e2e.clients import Clients
from tests.e2e.flags import HERO, declare
from tests.e2e.people import Person, arrived, eventually
from tests.e2e.proxy import Exchange, LostAnswer, RecordingProxy
from tests.e2e.storefront import Site
from tests.serving import Server


def deliver(page: Page, address: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Load a page, let its client do the plan, and return what the client reported."""
    page.goto(address)
    report: dict[str, Any] = page.evaluate("plan => window.deliver(plan)", plan)
    return report


def assert_is_known(found: Person, name: str, expected: Counter[str]) -> None:
    assert found.events == expected
    assert found.traits["plan"] == "pro"
    assert f"user_id:{name}" in found.identifiers
    assert f"{name}-shoe" in found.items


def assert_preflight_passed(preflight: Exchange, header: str) -> None:
    asked = preflight.headers["access-control-request-headers"].lower()
    allowed = preflight.answer_headers["access-control-allow-headers"].lower()
    assert header in asked
    assert {name.strip() for name in asked.split(",")} <= {n.strip() for n in allowed.split(",")}
    assert preflight.answer_headers["access-control-allow-origin"] == preflight.headers["origin"]
    assert int(preflight.answer_headers["access-control-max-age"]) >= 600


def test_segment_npm_build_delivers_every_type_of_call(server, proxy, site: Site, page: Page):
    plan = {
        "host": proxy.url,
        "writeKey": server.write_key,
        "calls": journey("web-npm"),
        "options": {},
    }
    report = deliver(page, site.page_with("segment"), plan)
    assert report["errors"] == []
    found = arrived(server, "user_id:web-npm", EVENTS)
    assert_is_known(found, "web-npm", EVENTS)
    assert f"anonymous_id:{report['anonymousId']}" in found.identifiers
    (settings,) = proxy.seen("GET", f"/v1/projects/{server.write_key}/settings")
    assert json.loads(settings.answer)["integrations"]["Segment.io"]
    posted = Counter(exchange.path for exchange in proxy.seen("POST"))
    assert posted == Counter(["/v1/i", "/v1/t", "/v1/p", "/v1/s", "/v1/g", "/v1/a"])
    assert {e.headers["content-type"] for e in proxy.seen("POST")} == {"text/plain"}
    assert_preflight_passed(proxy.seen("OPTIONS", "/v1/t")[0], "authorization")


def test_segment_npm_build_delivers_batches(server, proxy, site: Site, page: Page):
    strategy = {"strategy": "batching", "config": {"size": 2, "timeout": 500}}
    plan = {
        "host": proxy.url,
        "writeKey": server.write_key,
        "calls": without("alias", journey("web-batch")),
        "options": {"integrations": {"Segment.io": {"deliveryStrategy": strategy}}},
    }
    deliver(page, site.page_with("segment"), plan)
    expected = EVENTS - Counter({"Aliased": 1})
    assert_is_known(arrived(server, "user_id:web-batch", expected), "web-batch", expected)
    assert {exchange.path for exchange in proxy.seen("POST")} == {"/v1/b"}


def test_segment_npm_build_is_counted_once_when_an_answer_is_lost(
    server, proxy: RecordingProxy, site: Site, page: Page
):
    proxy.fail_next(LostAnswer())
    call = {"type": "track", "event": "Signed Up", "properties": {}}
    plan = {"host": proxy.url, "writeKey": server.write_key, "calls": [call], "options": {}}
    report = deliver(page, site.page_with("segment"), plan)
    posts = eventually(lambda: proxy.seen("POST", "/v1/t"), lambda seen: len(seen) >= 2, "a second try")
    assert posts[0].status == 0
    assert posts[-1].status == 200
    assert {json.loads(post.body)["messageId"] for post in posts} == set(report["messageIds"])
    found = arrived(server, f"anonymous_id:{report['anonymousId']}", Counter({"Signed Up": 1}))
    assert found.events == Counter({"Signed Up": 1})


def test_segment_snippet_loads_from_the_server_and_delivers(
    server, proxy, site: Site, page: Page, node_clients: Clients
):
    key = server.write_key
    snippet = node_clients.run("snippet.mjs", {"host": proxy.url, "writeKey": key})["script"]
    calls = """
      analytics.identify('web-snippet', {plan: 'pro'});
      analytics.page('Home');
      analytics.track('Product Viewed', {product_id: 'web-snippet-shoe'});
    """
    page.goto(site.page_of("snippet", snippet + calls))
    expected = Counter({"Identified": 1, "Page Viewed": 1, "Product Viewed": 1})
    assert_is_known(arrived(server, "user_id:web-snippet", expected), "web-snippet", expected)
    (script,) = proxy.seen("GET", f"/analytics.js/v1/{key}/analytics.min.js")
    assert script.status == 200
    assert "javascript" in script.answer_headers["content-type"]
    assert all(exchange.status == 200 for exchange in proxy.seen("POST"))


def test_rudder_bundled_build_delivers_every_type_of_call(server, proxy, site: Site, page: Page):
    plan = {
        "host": proxy.url,
        "writeKey": server.write_key,
        "calls": without("screen", journey("web-rudder")),
    }
    report = deliver(page, site.page_with("rudder"), plan)
    expected = EVENTS - Counter({"Screen Viewed": 1})
    found = arrived(server, "user_id:web-rudder", expected)
    assert_is_known(found, "web-rudder", expected)
    assert f"anonymous_id:{report['anonymousId']}" in found.identifiers
    (config,) = proxy.seen("GET", "/sourceConfig/")
    assert json.loads(config.answer)["source"]["enabled"] is True
    preflight = proxy.seen("OPTIONS", "/v1/track")[0]
    assert_preflight_passed(preflight, "anonymousid")
    assert_preflight_passed(preflight, "sentat")


def test_rudder_bundled_build_delivers_by_beacon(server, proxy, site: Site, page: Page):
    plan = {
        "host": proxy.url,
        "writeKey": server.write_key,
        "calls": without("alias", without("screen", journey("web-beacon"))),
        "options": {"useBeacon": True, "beaconQueueOptions": {"flushQueueInterval": 300}},
    }
    deliver(page, site.page_with("rudder"), plan)
    expected = EVENTS - Counter({"Screen Viewed": 1, "Aliased": 1})
    assert_is_known(arrived(server, "user_id:web-beacon", expected), "web-beacon", expected)
    posts = proxy.seen("POST", at_least=1)
    assert posts
    assert all(post.path == f"/beacon/v1/batch?writeKey={server.write_key}" for post in posts)
    assert all("authorization" not in post.headers for post in posts)


def test_jitsu_delivers_one_request_an_event(server, proxy, site: Site, page: Page):
    plan = {
        "host": proxy.url,
        "writeKey": f"{server.write_key}:secret",
        "calls": without("alias", without("screen", journey("web-jitsu"))),
    }
    report = deliver(page, site.page_with("jitsu"), plan)
    assert report["errors"] == []
    expected = EVENTS - Counter({"Screen Viewed": 1, "Aliased": 1})
    assert_is_known(arrived(server, "user_id:web-jitsu", expected), "web-jitsu", expected)
    assert_preflight_passed(proxy.seen("OPTIONS", "/api/s/track")[0], "x-write-key")


@pytest.fixture(scope="module")
def flags(server: Server) -> None:
    declare(server)


EVALUATIONS = [
    {"type": "object", "flag": "home-hero", "default": {"headline": "-"}},
    {"type": "string", "flag": "greeting", "default": "-"},
    {"type": "boolean", "flag": "banner", "default": False},
    {"type": "number", "flag": "ratio", "default": 0.5},
    {"type": "string", "flag": "checkout/button", "default": "-"},
    {"type": "string", "flag": "no-such-flag", "default": "code"},
]


@pytest.mark.usefixtures("flags")
def test_web_provider_gets_all_flags_in_one_request(server, proxy, site: Site, page: Page):
    visitor = {"targetingKey": "web-of", "country": "DE"}
    plan = {
        "host": proxy.url,
        "key": server.write_key,
        "rounds": [visitor],
        "evaluations": EVALUATIONS,
    }
    ((hero, greeting, banner, ratio, button, unknown),) = deliver(page, site.page_with("ofrep"), plan)[
        "answers"
    ]
    assert hero["value"] == HERO[hero["variant"]]
    assert hero["reason"] == "STATIC"
    assert hero["flagMetadata"]["decisionId"].startswith("d-")
    assert (greeting["value"], greeting["reason"]) == ("Hallo", "TARGETING_MATCH")
    assert (banner["value"], banner["reason"]) == (True, "STATIC")
    assert ratio["value"] == 1
    assert button["value"] == "green"
    assert (unknown["value"], unknown["errorCode"]) == ("code", "FLAG_NOT_FOUND")
    assert len(proxy.seen("POST", "/ofrep/v1/evaluate/flags")) == 1
    assert_preflight_passed(proxy.seen("OPTIONS", "/ofrep/v1/evaluate/flags")[0], "x-api-key")


@pytest.mark.usefixtures("flags")
def test_web_provider_asks_again_by_etag_and_keeps_its_values(server, proxy, site: Site, page: Page):
    visitor = {"targetingKey": "web-etag", "country": "DE"}
    plan = {
        "host": proxy.url,
        "key": server.write_key,
        "rounds": [visitor, visitor],
        "evaluations": EVALUATIONS,
    }
    first, second = deliver(page, site.page_with("ofrep"), plan)["answers"]
    asked, again = proxy.seen("POST", "/ofrep/v1/evaluate/flags")
    assert again.headers["if-none-match"] == asked.answer_headers["etag"]
    assert (asked.status, again.status) == (200, 304)
    assert [details["value"] for details in first] == [details["value"] for details in second]


@pytest.mark.usefixtures("flags")
def test_web_provider_gets_other_values_when_the_context_changes(server, proxy, site: Site, page: Page):
    rounds = [{"targetingKey": "web-moves", "country": country} for country in ("DE", "FR")]
    plan = {
        "host": proxy.url,
        "key": server.write_key,
        "rounds": rounds,
        "evaluations": [EVALUATIONS[1]],
    }
    answers = deliver(page, site.page_with("ofrep"), plan)["answers"]
    assert [details["value"] for (details,) in answers] == ["Hallo", "Hello"]
    assert [sent.status for sent in proxy.seen("POST")] == [200, 200]
