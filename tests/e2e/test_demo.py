"""The demo as a user runs it: its figures agree with one another and with what the server keeps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.needs import recorded
from tests.serving import Server, free_port

from tailorbird.app.datasets import complete_journey, load

RUN_SECONDS_MAX = 150.0
LINES = 2_500


def run_tailorbird(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tailorbird", *arguments],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
        env=os.environ | environment,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo") / "data"


@pytest.fixture(scope="module")
def run(data) -> subprocess.CompletedProcess[str]:
    """Run one small demo over a folder that is looked into afterwards."""
    shop = ("--dataset", "simulated", "--lines", str(LINES))
    return run_tailorbird("demo", "--fast", "--json", *shop, "--data", str(data))


@pytest.fixture(scope="module")
def figures(run) -> dict:
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_json_is_one_document_and_progress_goes_to_the_other_stream(run, figures):
    assert run.stdout.count("\n") == 1
    assert "Traffic: 100%" in run.stderr
    assert "made up by a seeded generator" in run.stderr
    assert figures["dataset"] == "simulated"


def test_every_line_was_asked_for_and_sent(figures):
    assert figures["errors"] == 0
    assert figures["decisions"] == figures["lines"] == LINES
    assert figures["events"] == LINES + figures["baskets"]
    for kind in ("decide", "event"):
        marks = figures["latencyMs"][kind]
        assert 0 < marks["p50"] <= marks["p95"] <= marks["p99"]


def test_the_server_counted_the_same_lists_and_hits_as_the_client(figures):
    arms = figures["readout"]["arms"]
    for arm in ("personalized", "holdout"):
        counted = figures["countedByClient"][arm]
        assert (arms[arm]["decisions"], arms[arm]["outcomes"]) == (
            counted["decisions"],
            counted["hits"],
        )


def test_the_policy_learned_from_each_list_that_it_drew_and_from_no_other(figures):
    reasons, personalized = figures["reasons"], figures["readout"]["arms"]["personalized"]
    assert sum(reasons.values()) == figures["decisions"]
    assert sum(arm["trials"] for arm in figures["policy"]) == reasons["SPLIT"]
    # A busy machine may miss a deadline: such a list is personalized, and teaches nothing.
    missed = reasons.get("FALLBACK", 0)
    successes = sum(arm["successes"] for arm in figures["policy"])
    assert 0 <= personalized["outcomes"] - successes <= missed
    assert 0 <= personalized["decisions"] - reasons["SPLIT"] <= missed


def test_the_rates_and_the_lift_are_those_of_the_counts(figures):
    hits, arms = figures["hitRate"], figures["readout"]["arms"]
    for arm in ("personalized", "holdout"):
        assert hits[arm] == pytest.approx(arms[arm]["outcomes"] / arms[arm]["decisions"])
    assert hits["lift"] == pytest.approx(hits["personalized"] / hits["holdout"] - 1)
    assert hits["low"] < hits["lift"] < hits["high"]


def test_a_strategy_that_sees_what_goes_together_wins_in_the_simulated_shop(figures):
    arms = {arm["id"]: arm for arm in figures["policy"]}
    rate = {name: arm["successes"] / arm["trials"] for name, arm in arms.items()}
    assert max(rate["together"], rate["mixed"]) > max(rate["bestsellers"], rate["again"])
    # The two others are left with their floors of exploration.
    floor = min(arm["probability"] for arm in arms.values())
    assert arms["together"]["probability"] + arms["mixed"]["probability"] > 0.99 - 2 * floor
    assert 0.0 < floor < 0.05
    assert sum(arm["probability"] for arm in arms.values()) == pytest.approx(1.0, abs=1e-6)
    assert figures["hitRate"]["low"] > 0


def test_the_story_is_of_a_visitor_who_was_personalized(figures):
    story = figures["story"]
    decision, profile = story["decision"], story["profile"]
    assert decision["arm"] == profile["placements"]["next-item"]["arm"] == "personalized"
    assert profile["features"]["orders"] == story["baskets"]
    assert all(choice["because"] for choice in decision["choices"])
    assert story["isHit"] == (story["bought"] in [choice["id"] for choice in decision["choices"]])
    assert story["isHit"] == (decision["outcome"] is not None)


def test_the_folder_still_says_the_same_when_it_is_served_again(figures, data):
    with Server(data) as server:
        answer = server.must("GET", "/admin/v1/readouts?placement=next-item&metric=rate")
        policy = server.must("GET", "/admin/v1/placements/next-item/policy")
    assert answer["readouts"][0]["arms"] == figures["readout"]["arms"]
    trials = {arm["id"]: (arm["trials"], arm["successes"]) for arm in policy["arms"]}
    assert trials == {arm["id"]: (arm["trials"], arm["successes"]) for arm in figures["policy"]}


def test_a_recorded_log_is_sent_with_what_is_known_of_its_customers(tmp_path):
    recorded(complete_journey.FOLDER)
    lines = 300
    shop = load("completejourney", lines)
    data = str(tmp_path / "data")
    run = run_tailorbird(
        "demo", "--json", "--dataset", "completejourney", "--lines", str(lines), "--data", data
    )
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures["errors"] == 0
    assert figures["decisions"] == shop.lines_count
    assert figures["events"] == shop.lines_count + len(shop.baskets) + len(shop.notices)
    said = next(notice for notice in shop.notices if notice.event is None)
    shown = run_tailorbird("profile", "show", f"user_id:{said.visitor}", "--data", data, "--json")
    assert json.loads(shown.stdout)["traits"] == said.fields


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "something").touch()
    done = run_tailorbird("demo", "--dataset", "simulated", "--data", str(tmp_path))
    assert done.returncode == 2
    assert "must be an empty folder" in done.stderr


def test_events_replayed_twice_count_once_and_keep_their_time(tmp_path):
    log = tmp_path / "log.jsonl"
    track = {"type": "track", "event": "Product Viewed", "userId": "u-1", "sentAt": "2020-01-01"}
    lines = [
        track | {"timestamp": f"2024-01-0{day}T10:00:00Z", "properties": {"product_id": f"p{day}"}}
        for day in (1, 2, 3)
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\nno event\n")
    with Server(tmp_path / "data") as server:
        for _ in range(2):
            done = run_tailorbird(
                *("replay", str(log), "--json", "--url", server.url),
                TAILORBIRD_WRITE_KEY=server.write_key,
            )
            assert done.returncode == 1, done.stderr
            told = json.loads(done.stdout)
            assert (told["events"], told["errors"], told["unreadableLines"]) == (3, 0, 1)
            assert f"{log}:5" in done.stderr
        profile = server.profile("user_id:u-1")
    assert profile["firstSeen"] == "2024-01-01T10:00:00.000Z"
    assert [event["item"] for event in profile["recentEvents"]] == ["p3", "p2", "p1"]


def test_an_event_that_the_server_refuses_is_counted_and_told(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"type": "track", "userId": "u-1"}\n')
    with Server(tmp_path / "data") as server:
        done = run_tailorbird(
            *("replay", str(log), "--json", "--url", server.url),
            TAILORBIRD_WRITE_KEY=server.write_key,
        )
    assert done.returncode == 1
    assert json.loads(done.stdout)["errors"] == 1


def test_events_for_a_server_that_is_not_there_are_not_waited_with(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"type": "track", "userId": "u-1", "event": "Seen"}\n')
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    done = run_tailorbird("replay", str(log), "--url", url, TAILORBIRD_WRITE_KEY="wk")
    assert done.returncode == 1
    assert f"nothing listens on 127.0.0.1:{port}" in done.stderr
