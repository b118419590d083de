"""What the public write key cannot do, and what the interface contract's own example can."""

import gzip
import json

import httpx

EXAMPLE = {
    "key": "contract-hero",
    "kind": "variant",
    "enabled": True,
    "variants": [
        {
            "id": "a",
            "value": {"headline": "Hi", "margin": 0.1},
            "rule": "profile.country == 'DE'",
            "cap": 0.5,
        },
        {"id": "b", "value": {"headline": "Ho", "margin": 0.1}},
        {"id": "c", "value": {"headline": "Ha", "margin": 0.5}},
    ],
    "policy": {"type": "thompson"},
    "floor": 0.05,
    "holdout": 0.0,
    "goal": {"event": "Order Completed", "value": "properties.revenue", "windowSeconds": 86400},
    "rules": [{"name": "margin", "when": "item.margin < 0.2", "then": "exclude"}],
    "constraints": {
        "diversityShare": 0.2,
        "frequencyCap": {"count": 3, "windowSeconds": 86400},
        "excludePurchased": True,
    },
    "fallback": "a",
    "consent": "personalization",
}


def decide(server, visitor, placement, key=None):
    asked = {"visitor": visitor, "placements": [{"key": placement}], "explain": True}
    return server.must("POST", "/v1/decide", asked, key=key or server.server_key)


def track(server, **fields):
    call = {"type": "track", "event": "Seen"} | fields
    return server.must("POST", "/v1/track", call, key=server.write_key)


def put(server, key, **fields):
    two = [{"id": "a", "value": 1}, {"id": "b", "value": 2}]
    server.must("PUT", f"/admin/v1/placements/{key}", {"variants": two} | fields)


def test_a_rule_of_a_variant_placement_sees_the_variants_value_as_item(server):
    status, _ = server.request("PUT", "/admin/v1/placements/contract-hero", EXAMPLE)
    assert status in (200, 201)
    decision = decide(server, {"anonymousId": "contract-1"}, "contract-hero")["decisions"][0]
    assert [choice["id"] for choice in decision["choices"]] == ["c"]
    assert {"step": "rule:margin", "removed": 1} in decision["steps"]


def test_an_event_cannot_allow_what_was_refused_through_the_api(server):
    put(server, "refusal-hero", holdout=0.0)
    track(server, userId="refuses")
    server.must("PUT", "/admin/v1/profiles/user_id:refuses/consent", {"personalization": False})
    track(server, userId="refuses", context={"consent": {"categoryPreferences": {"personalization": True}}})
    answer = decide(server, {"userId": "refuses"}, "refusal-hero")
    assert answer["decisions"][0]["reason"] == "OPTED_OUT"
    server.must("PUT", "/admin/v1/profiles/user_id:refuses/consent", {"personalization": True})
    assert decide(server, {"userId": "refuses"}, "refusal-hero")["decisions"][0]["reason"] == "SPLIT"


def test_a_backdated_stranger_does_not_take_a_known_visitors_place(server):
    track(server, userId="settled")
    before = server.profile("user_id:settled")
    track(server, anonymousId="forged", timestamp="1970-01-02T00:00:00Z")
    track(server, anonymousId="forged", userId="settled")
    after = server.profile("anonymous_id:forged")
    assert after["profileId"] == before["profileId"]
    assert after["assignment"]["key"] == before["assignment"]["key"]


def test_a_small_batch_cannot_become_a_large_log(server):
    body = {
        "context": {"a": "x" * 30_000},
        "batch": [{"type": "track", "userId": "bq", "event": "e"}] * 2_100,
    }
    headers = {"authorization": f"Bearer {server.write_key}", "content-encoding": "gzip"}
    packed = gzip.compress(json.dumps(body).encode())
    answer = httpx.post(f"{server.url}/v1/batch", content=packed, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == "context"


def test_a_question_is_small(server):
    body = {"placements": [{"key": "contract-hero"}], "context": {"a": [[[1]]] * 200_000}}
    headers = {"authorization": f"Bearer {server.write_key}"}
    answer = httpx.post(f"{server.url}/v1/decide", content=json.dumps(body), headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "body")


def test_the_lists_of_a_context_are_short(server):
    put(server, "square-hero", holdout=0.0)
    asked = {"placements": [{"key": "square-hero"}], "context": {"l": list(range(500))}}
    status, answer = server.request("POST", "/v1/decide", asked, key=server.write_key)
    assert (status, answer["errors"][0]["path"]) == (400, "context")
    call = {"userId": "lists", "traits": {"short": [1] * 100, "long": [1] * 101}}
    server.must("POST", "/v1/identify", call, key=server.write_key)
    assert set(server.profile("user_id:lists")["traits"]) == {"short"}


def test_an_event_cannot_take_the_place_of_an_outcome(server):
    put(server, "outcome-hero", holdout=0.0, goal={"event": "Bought"})
    key = decide(server, {"anonymousId": "taker"}, "outcome-hero")["decisions"][0]["decisionId"]
    track(server, anonymousId="taker", messageId=f"outcome:{key}:Bought")
    server.must("POST", "/v1/outcomes", {"decisionId": key, "value": 5.0})
    assert server.must("GET", f"/admin/v1/decisions/{key}")["outcome"]["value"] == 5.0


def test_an_erasure_survives_whatever_events_were_let_in(server):
    track(server, userId="victim")
    odd = (
        b'{"type":"track","userId":"other","event":"a","messageId":"odd-1","previousId":"victim","z":"\xff"}'
    )
    headers = {"authorization": f"Bearer {server.write_key}"}
    assert httpx.post(f"{server.url}/v1/track", content=odd, headers=headers).status_code == 400
    hostile = b'{"batch":"' + b'\\"' * 249_000
    for _ in range(3):
        assert httpx.post(f"{server.url}/v1/batch", content=hostile, headers=headers).status_code == 400
    asked = {
        "subject_request_id": "r-victim",
        "subject_request_type": "erasure",
        "submitted_time": "2026-11-25T00:00:00Z",
        "subject_identities": [
            {"identity_type": "controller_customer_id", "identity_value": "victim", "identity_format": "raw"}
        ],
    }
    server.must("POST", "/opendsr/v1/requests?wait=true", asked, key=server.admin_key)
    for body in ({"us\u0065rId": "victim", "event": ""}, {"userId": ["victim"], "event": "a"}):
        content = json.dumps(body).replace('userId": "', 'us\\u0065rId": "')
        assert httpx.post(f"{server.url}/v1/track", content=content, headers=headers).status_code == 400
    rejects = server.must("GET", "/admin/v1/rejects?limit=1000", key=server.admin_key)
    assert "victim" not in json.dumps(rejects)


def test_a_signal_sent_with_a_question_is_remembered(server):
    put(server, "signal-hero", holdout=0.0)
    track(server, anonymousId="signals")
    asked = {"visitor": {"anonymousId": "signals"}, "placements": [{"key": "signal-hero"}]}
    headers = {"authorization": f"Bearer {server.write_key}", "sec-gpc": "1"}
    answer = httpx.post(f"{server.url}/v1/decide", json=asked, headers=headers).json()
    assert answer["decisions"][0]["reason"] == "OPTED_OUT"
    assert decide(server, {"anonymousId": "signals"}, "signal-hero")["decisions"][0]["reason"] == "OPTED_OUT"


def test_a_get_asks_for_one_placement(server):
    path = "/v1/decide?placement=contract-hero&anonymousId=v&placement=other"
    status, answer = server.request("GET", path)
    assert (status, answer["errors"][0]["path"]) == (400, "placement")


def test_a_fault_names_the_value_that_was_sent(server):
    asked = {"visitor": {"anonymousId": "v"}, "placements": [{"key": "contract-hero", "count": -1}]}
    status, answer = server.request("POST", "/v1/decide", asked)
    assert (status, answer["errors"][0]["path"], answer["errors"][0]["value"]) == (
        400,
        "placements[0].count",
        -1,
    )


def test_what_waits_for_the_disk_is_measured(server):
    track(server, userId="measured")
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    count = next(line for line in lines if line.startswith("tailorbird_durable_seconds_count"))
    assert float(count.split()[1]) > 0
