"""Features through the doors of a real server: declared, read, changed while events come, kept over a restart."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.serving import Server

PROGRAM = str(Path(sys.executable).with_name("tailorbird"))

VIEWS = {"type": "count", "name": "views", "event": "Product Viewed", "windows": ["7d"], "halfLives": []}
PRICES = {"type": "sum", "name": "prices", "event": "Product Viewed", "value": "properties.price"}


def view(server: Server, visitor: str, **properties) -> None:
    body = {"anonymousId": visitor, "event": "Product Viewed", "properties": properties}
    server.must("POST", "/v1/track", body, key=server.write_key)


def refused(server: Server, status: int, *asked) -> dict:
    found, answer = server.request(*asked)
    assert found == status, answer
    return answer


def command(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def features(server: Server, visitor: str) -> dict[str, float]:
    return server.must("GET", f"/admin/v1/profiles/anonymous_id:{visitor}")["features"]


def test_a_fresh_server_keeps_more_than_a_thousand_variables(server):
    declared = server.must("GET", "/admin/v1/features")
    assert declared["variables"] >= 1_000
    assert declared["config"]["catalogues"] == ["commerce", "media", "saas"]
    view(server, "many", price=5, brand="x")
    known = features(server, "many")
    assert len(known) >= 1_000
    assert (known["product_viewed_7d"], known["price_viewed"], known["brand_affinity_values"]) == (
        1.0,
        5.0,
        1.0,
    )


def test_a_feature_says_what_it_gives_and_how_fresh_it_is(server):
    view(server, "fresh", price=5)
    told = server.must("GET", "/admin/v1/features/product_viewed")
    assert "product_viewed_decayed_7d" in told["variables"]
    assert told["lastEventAt"] is not None
    assert refused(server, 404, "GET", "/admin/v1/features/no_such")["status"] == 404
    assert server.must("GET", "/admin/v1/features")["foldLagMs"] < 5_000


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"definitions": [{"type": "count", "name": "X", "event": "E"}]}, "definitions[0].name"),
        ({"definitions": [VIEWS, VIEWS]}, "definitions[1].name"),
        ({"definitions": [{"type": "trait", "name": "x", "trait": "religion"}]}, "definitions[0]"),
        ({"catalogues": ["games"]}, "catalogues[0]"),
        ({"catalogs": []}, "catalogs"),
    ],
)
def test_what_is_wrong_with_a_declaration_is_said_with_its_path(server, body, path):
    answer = refused(server, 400, "PUT", "/admin/v1/features", body)
    assert path in str(answer["errors"]), answer


def test_features_are_declared_and_changed_while_events_come_and_survive_a_restart(tmp_path):
    with Server(tmp_path / "data") as server:
        server.must("PUT", "/admin/v1/features?wait=true", {"catalogues": [], "definitions": [VIEWS]})
        for price in (1, 2, 3):
            view(server, "a", price=price)
        server.must("PUT", "/admin/v1/features/prices", PRICES)
        view(server, "a", price=4)
        deadline = time.monotonic() + 30.0
        while server.must("GET", "/admin/v1/features")["isFolding"] and time.monotonic() < deadline:
            view(server, "a", price=0)
            time.sleep(0.05)
        known = features(server, "a")
        assert (known["prices"], known["views_7d"] >= 4.0) == (10.0, True)
        server.kill()
        server.start()
        assert features(server, "a")["prices"] == 10.0
        server.must("DELETE", "/admin/v1/features/prices")
        assert "prices" not in features(server, "a")
        server.must("PUT", "/admin/v1/features?wait=true", {"catalogues": [], "definitions": [VIEWS]})
        server.stop()
    code, said = command("rebuild", "--json", "--data", str(tmp_path / "data"))
    assert (code, json.loads(said)["same"]) == (0, True)


def test_a_configuration_file_declares_features_and_check_names_its_faults(tmp_path):
    file = tmp_path / "tailorbird.toml"
    file.write_text(
        '[features]\ncatalogues = []\n[[features.definitions]]\ntype = "count"\nname = "own"\nevent = "Own Event"\n'
    )
    with Server(tmp_path / "data", arguments=["--config", str(file)]) as server:
        names = [made["name"] for made in server.must("GET", "/admin/v1/features")["definitions"]]
        assert names == ["own"]
    file.write_text('[[features.definitions]]\ntype = "count"\nname = "own"\n')
    code, said = command("check", "--config", str(file))
    assert code == 2
    assert "features.definitions[0]" in said
