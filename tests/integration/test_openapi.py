"""The OpenAPI document describes the doors that are really there."""

import httpx
import msgspec
import pytest

from tailorbird.app import answers
from tailorbird.deliver.api import DecideAnswer
from tailorbird.schema.readout import Readouts

PROMISED = {
    "/v1/decide": {"get", "post"},
    "/v1/outcomes": {"post"},
    "/v1/batch": {"post"},
    "/v1/track": {"post"},
    "/ofrep/v1/evaluate/flags": {"post"},
    "/ofrep/v1/evaluate/flags/{key}": {"post"},
    "/admin/v1/placements": {"get"},
    "/admin/v1/placements/{key}": {"get", "put", "delete"},
    "/admin/v1/segments": {"get"},
    "/admin/v1/segments/{key}": {"get", "put", "delete"},
    "/admin/v1/items": {"put"},
    "/admin/v1/items/{id}": {"get", "patch", "delete"},
    "/admin/v1/profiles/{identifier}": {"get"},
    "/admin/v1/profiles/{identifier}/consent": {"put"},
    "/admin/v1/links": {"put"},
    "/admin/v1/suggested-links": {"get", "put"},
    "/admin/v1/revoked-links": {"get", "put", "delete"},
    "/admin/v1/decisions/{id}": {"get"},
    "/admin/v1/readouts": {"get"},
    "/opendsr/v1/discovery": {"get"},
    "/opendsr/v1/requests": {"post"},
    "/opendsr/v1/requests/{id}": {"get", "delete"},
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
    "/openapi.json": {"get"},
}
"""The native interface's paths and methods: a contract with clients."""


@pytest.fixture(scope="module")
def document(server):
    return server.must("GET", "/openapi.json")


def test_every_promised_path_is_described(document):
    described = {path: set(methods) for path, methods in document["paths"].items()}
    for path, methods in PROMISED.items():
        assert methods <= described.get(path, set()), path


def test_every_reference_leads_somewhere(document):
    for reference in references(document):
        at = document
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does(document):
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"].endswith(".") for operation in operations)


def test_what_is_not_open_says_that_it_needs_a_key(document, server):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "security" in operation and "{" not in path:
                answer = httpx.request(method, server.url + path, content=b"{}")
                # The source configuration is asked for by key alone: an unknown one finds nothing.
                expected = 404 if path.startswith("/sourceConfig") else 401
                assert answer.status_code == expected, (method, path)


def references(value):
    """Yield every `$ref` in a document."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_answer_says_what_it_holds(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            done = next(answer for status, answer in operation["responses"].items() if status[0] == "2")
            for content in done.get("content", {}).values():
                assert content["schema"], (method, path)


@pytest.fixture
def told(server):
    def ask(kind, method, path, body=None, key=server.admin_key):
        """Ask, and read the answer strictly: no field is missing, none is more, each of its type."""
        return msgspec.json.decode(msgspec.json.encode(server.must(method, path, body, key=key)), type=kind)

    return ask


def test_events_and_decisions_are_answered_as_the_document_says(server, told):
    two = [{"id": "a", "value": {"h": 1}}, {"id": "b", "value": {"h": 2}}]
    server.must(
        "PUT", "/admin/v1/placements/typed", {"variants": two, "goal": {"event": "Typed"}, "holdout": 0}
    )
    told(answers.WrittenAnswer, "PUT", "/admin/v1/items", [{"id": "t-1", "categories": ["hats"]}])
    seen = {"anonymousId": "typed", "event": "Product Viewed", "properties": {"product_id": "t-1"}}
    told(answers.EventsAnswer, "POST", "/v1/track", seen, server.write_key)
    mixed = {"batch": [{"type": "track", **seen}, {"type": "track"}]}
    told(answers.EventsAnswer, "POST", "/v1/batch", mixed, server.write_key)
    asked = {"visitor": {"anonymousId": "typed"}, "placements": [{"key": "typed"}], "explain": True}
    decided = told(DecideAnswer, "POST", "/v1/decide", asked)
    key = decided.decisions[0].decision_id
    told(DecideAnswer, "GET", "/v1/decide?placement=typed&anonymousId=typed")
    told(answers.EventsAnswer, "POST", "/v1/outcomes", {"decisionId": key})
    assert told(answers.DecisionAnswer, "GET", f"/admin/v1/decisions/{key}").outcome is not None
    context = {"context": {"targetingKey": "typed"}}
    told(answers.FlagAnswer, "POST", "/ofrep/v1/evaluate/flags/typed", context)
    told(answers.FlagsAnswer, "POST", "/ofrep/v1/evaluate/flags", context)
    told(answers.PlacementsAnswer, "GET", "/admin/v1/placements")
    arms = told(answers.PolicyAnswer, "GET", "/admin/v1/placements/typed/policy").arms
    assert any(arm.sums for arm in arms)  # which arm was drawn depends on the server's random key
    told(Readouts, "GET", "/admin/v1/readouts")


def test_people_and_operators_are_answered_as_the_document_says(server, told):
    server.must("PUT", "/admin/v1/placements/person", {"variants": [{"id": "a"}], "holdout": 0})
    for call, fields in (("track", {"event": "Seen"}), ("identify", {"userId": "typed-u"})):
        told(answers.EventsAnswer, "POST", f"/v1/{call}", {"anonymousId": "typed", **fields})
    asked = {"visitor": {"anonymousId": "typed"}, "placements": [{"key": "person"}]}
    server.must("POST", "/v1/decide", asked)
    server.request("POST", "/v1/track", {"userId": "u"})
    server.must("PUT", "/admin/v1/segments/typed", {"rule": "profile.seen_count > 0.0"})
    server.must("POST", "/v1/track", {"anonymousId": "typed", "event": "Seen"})
    assert any(one.size for one in told(answers.SegmentsAnswer, "GET", "/admin/v1/segments").segments)
    profile = told(answers.ProfileAnswer, "GET", "/admin/v1/profiles/anonymous_id:typed")
    assert profile.recent_events
    assert profile.segment_changes
    assert profile.placements
    told(answers.ConsentAnswer, "PUT", "/admin/v1/profiles/user_id:typed-u/consent", {"analytics": True})
    link = {"anonymousId": "typed", "userId": "typed-u"}
    told(answers.RevocationAnswer, "PUT", "/admin/v1/revoked-links", link)
    told(answers.RevokedLinksAnswer, "GET", "/admin/v1/revoked-links")
    told(answers.RevocationAnswer, "DELETE", "/admin/v1/revoked-links?anonymousId=typed&userId=typed-u")
    pair = ["user_id:typed-u", "crm:typed"]
    rows = [{"identifiers": pair, "source": "typed", "confidence": 0.5}, {"identifiers": pair}]
    assert told(answers.DeclaredAnswer, "PUT", "/admin/v1/links", {"links": rows}).wrong == 1
    assert told(answers.SuggestionsAnswer, "GET", "/admin/v1/suggested-links?limit=9").suggestions
    accepted = {"identifiers": pair, "accepted": True}
    told(answers.RevocationAnswer, "PUT", "/admin/v1/suggested-links", accepted)
    assert told(answers.RejectsAnswer, "GET", "/admin/v1/rejects").rejects
    told(answers.ReplayedAnswer, "POST", "/admin/v1/rejects/replay", {})
    told(answers.SuppressedAnswer, "PUT", "/admin/v1/suppressions/user_id:typed-gone")
    told(answers.SuppressionsAnswer, "GET", "/admin/v1/suppressions")
    told(answers.LiftedAnswer, "DELETE", "/admin/v1/suppressions/user_id:typed-gone")
    told(answers.DiscoveryAnswer, "GET", "/opendsr/v1/discovery")
    for kind in ("access", "erasure"):
        wanted = {
            "subject_request_id": f"typed-{kind}",
            "subject_request_type": kind,
            "submitted_time": "2026-01-01T00:00:00Z",
            "subject_identities": [{"identity_type": "controller_customer_id", "identity_value": "typed-u"}],
        }
        told(answers.DsrAnswer, "POST", "/opendsr/v1/requests?dryRun=true", wanted)
        told(answers.DsrAnswer, "POST", "/opendsr/v1/requests?wait=true", wanted)
        assert told(answers.DsrAnswer, "GET", f"/opendsr/v1/requests/typed-{kind}?wait=true").result
    told(answers.GpcAnswer, "GET", "/.well-known/gpc.json")
    assert told(answers.ReadyAnswer, "GET", "/readyz").ready
