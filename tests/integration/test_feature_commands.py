"""`tailorbird features` beside a real server: what is declared, the past, and the skew meter."""

import json
import subprocess
import time

import pyarrow.parquet as pq
import pytest
from tests.integration.test_features import PROGRAM
from tests.serving import Server


def features(*arguments: str) -> tuple[int, dict]:
    done = subprocess.run(
        [PROGRAM, "features", *arguments, "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server that has seen somebody, with all decisions sampled; stopped, so that all is in its history."""
    folder = tmp_path_factory.mktemp("features")
    config = folder / "tailorbird.toml"
    config.write_text("feature_sample = 1.0\nholdout = 0.0\n")
    with Server(folder / "data", arguments=["--config", str(config)]) as server:
        server.must(
            "PUT", "/admin/v1/placements/hero", {"variants": [{"id": "a"}, {"id": "b"}], "stickySeconds": 0}
        )
        between = None
        for place in range(6):
            seen = {"product_id": f"p{place % 2}", "price": place, "brand": "x"}
            body = {"anonymousId": "a", "event": "Product Viewed", "properties": seen}
            server.must("POST", "/v1/track", body, key=server.write_key)
            asked = {
                "visitor": {"anonymousId": "a"},
                "placements": [{"key": "hero"}],
                "context": {"locale": "de-AT"},
            }
            server.must("POST", "/v1/decide", asked)
            time.sleep(0.02)
            between = time.time() if place == 2 else between
        known = server.must("GET", "/admin/v1/profiles/anonymous_id:a")["features"]
    return server, between, known


def test_what_is_declared_is_listed():
    code, found = features("list")
    assert code == 0
    assert found["variables"] == len(found["names"]) >= 1_000
    assert set(found["kinds"]) >= {"count", "sum", "distinct", "affinity", "session", "sequence"}


def test_features_of_past_times_are_written_for_every_label(served, tmp_path):
    server, between, known = served
    labels, out = tmp_path / "labels.csv", tmp_path / "out.parquet"
    labels.write_text(
        f"identifier,t\nanonymous_id:a,{between}\nanonymous_id:a,{time.time()}\nuser_id:nobody,1\n"
    )
    code, found = features(
        "as-of", "--labels", str(labels), "--out", str(out), "--data", str(server.data_dir)
    )
    assert (code, found["labels"], found["rows"], found["unknown"]) == (0, 3, 2, 1)
    rows = {row["label_id"]: row for row in pq.read_table(out).to_pylist()}
    assert (rows[0]["product_viewed_count"], rows[1]["product_viewed_count"]) == (3.0, 6.0)
    assert rows[1]["price_viewed"] == known["price_viewed"] == 15.0


def test_nothing_differs_between_what_was_served_and_what_history_says(served):
    server, _, _ = served
    code, found = features("skew", "--data", str(server.data_dir))
    assert code == 0
    assert found["compared"] == 6
    assert found["skewed"] == []


@pytest.mark.parametrize("text", ["who,t\na,1\n", "identifier,t\na,yesterday\n"])
def test_labels_that_are_none_are_refused(served, tmp_path, text):
    server, _, _ = served
    labels = tmp_path / "labels.csv"
    labels.write_text(text)
    arguments = ("as-of", "--labels", str(labels), "--out", str(tmp_path / "out.parquet"))
    code, found = features(*arguments, "--data", str(server.data_dir))
    assert code in (1, 2)
    assert "labels" in found["error"] or "t:" in found["error"]
