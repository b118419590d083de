"""Rule segments through the doors of a real server: declared, entered, left, decided by, and kept."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.api import Api
from tests.serving import Server

from tailorbird.schema.records import decode
from tailorbird.schema.segment import SegmentChanged
from tailorbird.stores.segments import SegmentLog

PATH = "/admin/v1/segments"
SECONDS_MAX = 20.0
SEQUENCE = {
    "steps": [{"event": "Product Viewed", "times": 2}, {"event": "Products Searched"}],
    "withinSeconds": 172800,
}


def put(api: Api, key: str, /, **fields: Any) -> Any:
    return api.admin.put(f"{PATH}/{key}", json=fields)


def declare(api: Api, prefix: str, **fields: Any) -> str:
    key = api.name(prefix)
    answer = put(api, key, **fields)
    assert answer.status_code == 201, answer.text
    return key


def sizes(api: Api) -> dict[str, int]:
    return {row["key"]: row["size"] for row in api.admin.get(PATH).json()["segments"]}


def until(is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.05)


def changes(view: dict[str, Any], key: str) -> list[str]:
    return [one["change"] for one in view["segmentChanges"] if one["segment"] == key]


def test_a_segment_is_declared_read_changed_and_taken_away(api):
    key = api.name("loyal")
    declared = {"description": "Those who come back.", "rule": "profile.sessions > 1.0"}
    made = put(api, key, **declared)
    assert (made.status_code, put(api, key, **declared).status_code) == (201, 200)
    expected = {"key": key, "sequence": None, "enabled": True, **declared}
    assert made.json() == api.admin.get(f"{PATH}/{key}").json() == expected
    assert put(api, key, **made.json()).json() == expected, "what was read can be written back"
    listed = api.admin.get(PATH).json()
    assert {**expected, "size": 0} in listed["segments"]
    assert api.admin.delete(f"{PATH}/{key}").status_code == 204
    assert api.admin.get(f"{PATH}/{key}").status_code == 404
    assert api.admin.delete(f"{PATH}/{key}").status_code == 404
    assert key not in sizes(api)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "rule"),
        ({"rule": ""}, "rule"),
        ({"rule": "profile.views_7d >"}, "rule"),
        ({"rule": "x" * 2001}, "rule"),
        ({"rule": "true", "key": "another"}, "key"),
        ({"rule": "true", "enable": False}, "body"),
        ({"rule": "'bad' in profile.segments"}, "rule"),
        ({"sequence": {"steps": [], "withinSeconds": 5}}, "sequence.steps"),
        ({"sequence": {"steps": [{"event": "E"}]}}, "sequence"),
        ({"sequence": {"steps": [{"event": "E"}], "withinSeconds": 0}}, "sequence.withinSeconds"),
        (
            {"sequence": {"steps": [{"event": "E", "times": 0}], "withinSeconds": 5}},
            "sequence.steps[0].times",
        ),
        ({"sequence": {"steps": [{"event": "E"}] * 11, "withinSeconds": 5}}, "sequence.steps"),
        ({"sequence": {"steps": [{"item": "E"}], "withinSeconds": 5}}, "sequence.steps[0]"),
    ],
)
def test_a_segment_that_is_wrong_is_refused_with_the_place(api, body, path):
    answer = put(api, "bad", **body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert path in [error["path"] for error in answer.json()["errors"]], answer.text


def test_segments_are_for_servers_and_operators(api):
    assert api.write.get(PATH).status_code == 403
    assert api.write.put(f"{PATH}/x", json={"rule": "true"}).status_code == 403
    assert api.write.delete(f"{PATH}/x").status_code == 403
    assert api.back_end.get(PATH).status_code == 200


def test_who_views_twice_and_then_searches_is_in_and_gets_another_page(api):
    key = declare(api, "seekers", sequence=SEQUENCE)
    help_ = {"id": "help", "rule": f"'{key}' in profile.segments"}
    page = api.declare(variants=[help_, {"id": "b", "rule": "false"}], fallback="b")
    device = api.name("device")
    assert api.chosen(page, anonymousId=device) == ["b"]
    for name in ("Product Viewed", "Product Viewed"):
        api.track(name, anonymousId=device)
    assert api.chosen(page, anonymousId=device) == ["b"]
    api.track("Products Searched", anonymousId=device)
    assert api.chosen(page, anonymousId=device) == ["help"], "the very next decision sees it"
    view = api.profile(f"anonymous_id:{device}")
    assert key in view["segments"]
    assert view["segmentsSince"][key] == view["segmentChanges"][0]["at"]
    assert changes(view, key) == ["entered"]
    assert sizes(api)[key] == 1


def test_a_window_that_ends_lets_people_go_as_of_the_time_that_is_asked_about(api):
    key = declare(api, "active", rule="profile.views_1h > 0.0")
    page = api.declare(variants=[{"id": "in", "rule": f"'{key}' in profile.segments"}], fallback="in")
    device = api.name("device")
    api.track("Product Viewed", anonymousId=device)
    assert api.choose(page, anonymousId=device)["reason"] == "TARGETING_MATCH"
    later = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    assert api.choose(page, anonymousId=device, at=later)["reason"] == "FALLBACK"
    at = {"at": later}
    view = api.admin.get(f"/admin/v1/profiles/anonymous_id:{device}", params=at).json()
    assert key not in view["segments"]


def test_a_declaration_over_people_who_are_there_takes_them_in_without_an_event(api):
    device, trait = api.name("device"), api.name("trait").replace("-", "_")
    api.identify({trait: "gold"}, anonymousId=device)
    key = declare(api, "gold", rule=f"profile.{trait} == 'gold'")
    assert key in api.profile(f"anonymous_id:{device}")["segments"], "a read knows at once"
    until(lambda: api.admin.get(PATH).json()["evaluatedAt"] is not None and sizes(api)[key] == 1)
    view = api.profile(f"anonymous_id:{device}")
    assert [one["messageId"] for one in view["segmentChanges"] if one["segment"] == key] == [None]
    put(api, key, rule=f"profile.{trait} == 'silver'")
    until(lambda: sizes(api)[key] == 0)
    assert changes(api.profile(f"anonymous_id:{device}"), key) == ["left", "entered"]


def test_two_segments_cannot_read_one_another(api):
    one, other = declare(api, "one", rule="true"), api.name("other")
    assert put(api, other, rule=f"'{one}' in profile.segments").status_code == 201
    answer = put(api, one, rule=f"'{other}' in profile.segments")
    assert answer.status_code == 400
    assert "circle" in answer.text


def test_readouts_can_be_narrowed_to_who_was_in_a_segment_when_first_decided_for(api):
    trait = api.name("trait").replace("-", "_")
    key = declare(api, "gold", rule=f"has(profile.{trait}) && profile.{trait} == 'gold'")
    page = api.declare(variants=[{"id": "a"}, {"id": "b"}], holdout=0.5, goal={"event": "Bought"})
    devices = [api.name("device") for _ in range(40)]
    for number, device in enumerate(devices):
        api.identify({trait: "gold" if number < 25 else "tin"}, anonymousId=device)
        api.decide(page, anonymousId=device)
        api.track("Bought", anonymousId=device)
    for device in devices[25:]:
        api.identify({trait: "gold"}, anonymousId=device)
        api.decide(page, anonymousId=device)

    def units(**query: str) -> list[tuple[str | None, int, int]]:
        answer = api.admin.get("/admin/v1/readouts", params={"placement": page, "metric": "rate", **query})
        assert answer.status_code == 200, answer.text
        arms = [(one["segment"], one["arms"].values()) for one in answer.json()["readouts"]]
        return [
            (segment, *(sum(arm[n] for arm in both) for n in ("units", "outcomes"))) for segment, both in arms
        ]

    assert units() == [(None, 40, 40)]
    assert units(segment=key) == [(key, 25, 25)], "who came later is not among them"
    assert api.admin.get("/admin/v1/readouts", params={"segment": "no-such"}).status_code == 404


def announced(folder: Path) -> list[tuple[str, str, str]]:
    log = SegmentLog(folder / "log")
    try:
        records = [decode(record.kind, record.payload) for record in log.read()]
    finally:
        log.close()
    return [(one.segment, one.change, one.message_id) for one in records if isinstance(one, SegmentChanged)]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_segments_outlive_a_restart_and_a_rebuild_gives_the_same(tmp_path, end):
    with Server(tmp_path / "data") as server, Api(server) as api:
        declare_here = {"one": {"sequence": SEQUENCE}, "two": {"rule": "'one' in profile.segments"}}
        for key, fields in declare_here.items():
            assert put(api, key, **fields).status_code == 201
        steps = ["Product Viewed", "Product Viewed", "Products Searched"]
        api.send(
            *(
                {"type": "track", "event": name, "anonymousId": "d", "messageId": f"m-{i}"}
                for i, name in enumerate(steps)
            )
        )
        api.identify(userId="u", anonymousId="d")
        before = api.profile("user_id:u")
        getattr(server, end)()
        server.start()
        after = api.profile("user_id:u")
        for name in ("segments", "segmentsSince", "segmentChanges"):
            assert after[name] == before[name]
        assert after["segments"] == ["one", "two"]
        assert sizes(api) == {"one": 1, "two": 1}
        server.stop()
        assert announced(server.data_dir) == [("one", "entered", "m-2"), ("two", "entered", "m-2")]
        command = [os.environ.get("TAILORBIRD_COMMAND") or str(Path(sys.executable).with_name("tailorbird"))]
        done = subprocess.run(
            [*command, "rebuild", "--data", str(server.data_dir), "--json"], capture_output=True, check=False
        )
        assert json.loads(done.stdout)["same"] is True
        server.start()


def test_erasing_a_person_takes_who_entered_and_left_with_it(api):
    trait = api.name("trait").replace("-", "_")
    key = declare(api, "gold", rule=f"profile.{trait} == 'gold'")
    user = api.name("user")
    api.identify({trait: "gold"}, userId=user)
    assert sizes(api)[key] == 1
    identity = {"identity_type": "controller_customer_id", "identity_value": user, "identity_format": "raw"}
    results = []
    for kind in ("access", "erasure"):
        body = {
            "subject_request_id": api.name(kind),
            "subject_request_type": kind,
            "subject_identities": [identity],
        }
        answer = api.admin.post("/opendsr/v1/requests", params={"wait": "true"}, json=body)
        assert answer.status_code == 201, answer.text
        results.append(answer.json()["result"])
    access, proof = results
    told = [one for one in access["segmentChanges"] if one["segment"] == key]
    assert [one["change"] for one in told] == ["entered"]
    assert proof["stores"]["log"]["kinds"]["segmentChanges"] >= 1
    assert proof["remaining"] == 0
    assert sizes(api)[key] == 0


def test_files_declare_segments_and_check_says_what_is_wrong_with_one(tmp_path):
    command = [os.environ.get("TAILORBIRD_COMMAND") or str(Path(sys.executable).with_name("tailorbird"))]
    folder = tmp_path / "segments"
    folder.mkdir()
    (tmp_path / "tailorbird.toml").write_text("")
    (folder / "seekers.toml").write_text(
        'description = "Viewed twice, then searched."\n[sequence]\nwithinSeconds = 172800\n'
        '[[sequence.steps]]\nevent = "Product Viewed"\ntimes = 2\n[[sequence.steps]]\nevent = "Products Searched"\n'
    )
    config = ["--config", str(tmp_path / "tailorbird.toml")]

    def check() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*command, "check", *config, "--json"], capture_output=True, check=False)

    assert json.loads(check().stdout) == {"ok": True, "placements": 0, "segments": 1}
    with Server(tmp_path / "data", arguments=config) as server, Api(server) as api:
        assert sizes(api) == {"seekers": 0}
    (folder / "wrong.toml").write_text('rule = "profile.views_7d >"\n')
    done = check()
    assert done.returncode == 2
    assert b"wrong.toml" in done.stderr
    (folder / "wrong.toml").write_text("rule = \"'other' in profile.segments\"\n")
    (folder / "other.toml").write_text("rule = \"'wrong' in profile.segments\"\n")
    assert b"circle" in check().stderr
