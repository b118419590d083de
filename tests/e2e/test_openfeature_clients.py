"""OpenFeature's SDKs with their OFREP providers, unmodified, get Tailorbird's decisions."""

from typing import Any

import pytest
from tests.e2e.clients import Clients
from tests.e2e.flags import HERO, declare
from tests.serving import Server

VISITOR = {"targetingKey": "of-1", "country": "DE", "nested": {"a": [1, 2]}}


@pytest.fixture(scope="module", autouse=True)
def flags(server: Server) -> None:
    declare(server)


def evaluate(clients: Clients, server: Server, *evaluations: dict[str, Any], key: str = ""):
    script = "ofrep-node.mjs" if clients.folder.name == "node" else "ofrep_client.py"
    plan = {
        "host": server.url,
        "key": key or server.server_key,
        "evaluations": [{"context": VISITOR, **evaluation} for evaluation in evaluations],
    }
    return clients.run(script, plan)["details"]


def test_node_provider_gets_value_variant_reason_and_metadata(server, node_clients: Clients):
    (hero,) = evaluate(
        node_clients, server, {"type": "object", "flag": "home-hero", "default": {"headline": "-"}}
    )
    assert hero["value"] == HERO[hero["variant"]]
    assert hero["reason"] == "STATIC"
    assert hero["flagMetadata"]["decisionId"].startswith("d-")
    assert hero["flagMetadata"]["propensity"] == pytest.approx(0.5)


def test_node_provider_gets_every_type_of_value(server, node_clients: Clients):
    banner, slots, ratio, greeting = evaluate(
        node_clients,
        server,
        {"type": "boolean", "flag": "banner", "default": False},
        {"type": "number", "flag": "slots", "default": 0},
        {"type": "number", "flag": "ratio", "default": 0.5},
        {"type": "string", "flag": "greeting", "default": "-"},
    )
    assert (banner["value"], banner["variant"], banner["reason"]) == (True, "on", "STATIC")
    assert (slots["value"], slots["variant"]) == (3, "three")
    assert ratio["value"] == 1
    assert (greeting["value"], greeting["reason"]) == ("Hallo", "TARGETING_MATCH")


def test_python_provider_gets_value_variant_reason_and_metadata(server, python_clients: Clients):
    (hero,) = evaluate(
        python_clients,
        server,
        {"type": "object", "flag": "home-hero", "default": {"headline": "-"}},
    )
    assert hero["value"] == HERO[hero["variant"]]
    assert hero["reason"] == "STATIC"
    assert hero["flag_metadata"]["decisionId"].startswith("d-")
    assert hero["error_code"] is None


def test_python_provider_gets_floats_as_floats_and_integers_as_integers(server, python_clients: Clients):
    ratio, slots, banner, greeting = evaluate(
        python_clients,
        server,
        {"type": "float", "flag": "ratio", "default": 0.5},
        {"type": "integer", "flag": "slots", "default": 0},
        {"type": "boolean", "flag": "banner", "default": False},
        {"type": "string", "flag": "greeting", "default": "-"},
    )
    assert (ratio["value"], ratio["value_type"], ratio["error_code"]) == (1.0, "float", None)
    assert (slots["value"], slots["value_type"]) == (3, "int")
    assert banner["value"] is True
    assert (greeting["value"], greeting["reason"]) == ("Hallo", "TARGETING_MATCH")


def test_context_of_the_evaluation_decides(server, node_clients: Clients):
    abroad = {"targetingKey": "of-1", "country": "FR"}
    (greeting,) = evaluate(
        node_clients,
        server,
        {"type": "string", "flag": "greeting", "default": "-", "context": abroad},
    )
    assert greeting["value"] == "Hello"


def test_node_provider_falls_to_the_default_where_the_flag_is_unknown(server, node_clients: Clients):
    (unknown,) = evaluate(node_clients, server, {"type": "string", "flag": "no-such-flag", "default": "code"})
    assert (unknown["value"], unknown["errorCode"]) == ("code", "FLAG_NOT_FOUND")
    assert unknown["reason"] == "ERROR"


def test_python_provider_falls_to_the_default_where_the_flag_is_unknown(server, python_clients: Clients):
    (unknown,) = evaluate(
        python_clients, server, {"type": "string", "flag": "no-such-flag", "default": "code"}
    )
    assert (unknown["value"], unknown["error_code"]) == ("code", "FLAG_NOT_FOUND")


@pytest.mark.parametrize("language", ["node", "python"])
def test_flag_keys_may_hold_a_slash(language: str, server, request: pytest.FixtureRequest):
    clients = request.getfixturevalue(f"{language}_clients")
    (button,) = evaluate(clients, server, {"type": "string", "flag": "checkout/button", "default": "-"})
    assert (button["value"], button["variant"]) == ("green", "green")


def test_sticky_decision_is_the_same_in_every_client(server, node_clients: Clients, python_clients: Clients):
    asked = {"type": "object", "flag": "home-hero", "default": {}}
    visitor = {"targetingKey": "of-sticky"}
    from_node = evaluate(node_clients, server, *[asked | {"context": visitor}] * 3)
    from_python = evaluate(python_clients, server, *[asked | {"context": visitor}] * 3)
    decided = {details["flagMetadata"]["decisionId"] for details in from_node}
    decided |= {details["flag_metadata"]["decisionId"] for details in from_python}
    assert len(decided) == 1


def test_write_key_may_evaluate(server, node_clients: Clients):
    (banner,) = evaluate(
        node_clients,
        server,
        {"type": "boolean", "flag": "banner", "default": False},
        key=server.write_key,
    )
    assert banner["value"] is True


def test_wrong_key_gives_the_default_and_an_error(server, python_clients: Clients):
    (banner,) = evaluate(
        python_clients,
        server,
        {"type": "boolean", "flag": "banner", "default": False},
        key="sk_of_somebody_else",
    )
    assert (banner["value"], banner["error_code"]) == (False, "GENERAL")
    assert "unauthorized" in banner["error_message"]
