"""What was acknowledged survives: kills under load, torn and damaged files, a lost state, a full disk."""

import asyncio
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.integration.api import Api, in_batches
from tests.serving import Server, free_port

from tailorbird.app.engine import Engine, Options
from tailorbird.clock import SystemClock
from tailorbird.live.profiles import by_identifier
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.records import LinkRevoked
from tailorbird.stores.segments import SegmentLog

PROGRAM = os.environ.get("TAILORBIRD_COMMAND") or str(Path(sys.executable).with_name("tailorbird"))
WRITERS = 8
LOAD_SECONDS = 0.7
KEYS = ("crash-hero", "crash-list")


# --- kills under load --------------------------------------------------------------------------------


class Load:
    """Writers that go on until the server dies, and what was acknowledged to them."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.seed = seed
        self.events: list[str] = []
        self.decisions: list[str] = []
        self.exposed: list[str] = []
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(WRITERS)]

    def run_until_killed(self) -> None:
        """Load the server for a moment, then kill it in the middle of that."""
        for thread in self._threads:
            thread.start()
        time.sleep(LOAD_SECONDS)
        self.server.kill()
        for thread in self._threads:
            thread.join(30.0)

    def _write(self, number: int) -> None:
        generator = random.Random(f"{self.seed}-{number}")
        headers = {"authorization": f"Bearer {self.server.write_key}"}
        with httpx.Client(base_url=self.server.url, headers=headers, timeout=10.0, trust_env=False) as client:
            try:
                for turn in range(100_000):
                    self._take_turn(client, generator, f"{self.seed}-{number}-{turn}")
            except httpx.TransportError:
                return

    def _take_turn(self, client: httpx.Client, generator: random.Random, name: str) -> None:
        user = f"v-{generator.randrange(200)}"
        if generator.random() < 0.4:
            body = {"visitor": {"userId": user}, "placements": [{"key": key} for key in KEYS]}
            answer = client.post("/v1/decide", json=body)
            assert answer.status_code == 200, answer.text
            shown = [decision["decisionId"] for decision in answer.json()["decisions"]]
            self.decisions += shown
            events = [_event(f"x-{name}", user, "Decision Viewed", {"decisionId": shown[0]})]
            if _is_acknowledged(client, events):
                self.events.append(f"x-{name}")
                self.exposed.append(shown[0])
            return
        events = [
            _event(
                f"e-{name}-{i}",
                user,
                "Product Viewed",
                {"product_id": f"i{generator.randrange(9)}"},
            )
            for i in range(generator.randint(1, 5))
        ]
        if _is_acknowledged(client, events):
            self.events += [event["messageId"] for event in events]


def _event(message_id, user, name, properties):
    return {
        "type": "track",
        "event": name,
        "userId": user,
        "messageId": message_id,
        "properties": properties,
    }


def _is_acknowledged(client, events):
    answer = client.post("/v1/batch", json={"batch": events})
    return answer.status_code == 200 and answer.json() == {"success": True}


def test_nothing_acknowledged_is_lost_or_doubled_when_the_server_is_killed_again_and_again(
    tmp_path,
):
    server = Server(tmp_path / "data")
    server.start()
    loads = []
    with Api(server) as api:
        _declare(api)
        for seed in (1, 2, 3):
            load = Load(server, seed)
            load.run_until_killed()
            loads.append(load)
            server.start()
            assert load.events
            assert load.decisions
            for key in load.decisions:
                assert api.logged(key) is not None, f"decision {key} was answered"
            for key in load.exposed:
                assert api.logged(key)["exposedAt"] is not None, f"exposure of {key} was acknowledged"
            _assert_repeats_are_known(api, load)
        api.server.stop()
    acknowledged = [message_id for load in loads for message_id in load.events]
    in_log = Counter(_message_ids(tmp_path / "data"))
    assert [key for key in acknowledged if in_log[key] != 1] == []
    assert [key for key, count in in_log.items() if count > 1] == []
    assert_rebuilt_the_same(tmp_path / "data")


def _declare(api):
    goal = {"event": "Order Completed"}
    hero = {"variants": [{"id": "a"}, {"id": "b"}], "goal": goal, "stickySeconds": 5}
    for key, placement in zip(KEYS, (hero, {"kind": "list", "count": 3}), strict=True):
        assert api.admin.put(f"/admin/v1/placements/{key}", json=placement).status_code in (
            200,
            201,
        )
    api.stock(*({"id": f"i{i}", "categories": [f"c{i % 3}"]} for i in range(9)))


def _assert_repeats_are_known(api, load):
    """Send everything acknowledged again: the log must not grow by one record."""
    end = api.ready()["dependencies"]["log"]["end"]
    for batch in in_batches([_event(key, "again", "Again", {}) for key in load.events], 2000):
        api.send(*batch)
    assert api.ready()["dependencies"]["log"]["end"] == end


def _message_ids(data_dir):
    log = SegmentLog(data_dir / "log")
    try:
        kind = msgspec.json.Decoder(LoggedEvent)
        return [kind.decode(record.payload).m for record in log.read() if record.kind == 1]
    finally:
        log.close()


# --- damaged folders ---------------------------------------------------------------------------------


def rebuild(data_dir):
    """Return the exit code and the report of `tailorbird rebuild --json`."""
    done = subprocess.run(
        [PROGRAM, "rebuild", "--json", "--data", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def assert_rebuilt_the_same(data_dir):
    """Check that folding the log again gives the state that is there, byte for byte."""
    code, report = rebuild(data_dir)
    assert (code, report["same"]) == (0, True), report


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory):
    """A folder that a server has used and left in good order, and what it knew."""
    data_dir = tmp_path_factory.mktemp("lived-in") / "data"
    server = Server(data_dir)
    with server, Api(server) as api:
        _declare(api)
        for i in range(120):
            who = f"w-{i % 30}"
            api.track("Product Viewed", userId=who, product_id=f"i{i % 9}", messageId=f"d-{i}")
            decision = api.choose("crash-hero", userId=who, anonymousId=f"a-{i % 40}")
            api.track("Order Completed", userId=who, decisionId=decision["decisionId"], messageId=f"o-{i}")
        api.identify({"email": "w0@shop.example", "plan": "pro"}, userId="w-0", anonymousId="a-0")
        server.restart()  # So that the state was committed more than once.
        api.track("Product Viewed", userId="w-1", product_id="i1", messageId="last")
        known = _known(api)
    assert_rebuilt_the_same(data_dir)
    return data_dir, known


@pytest.fixture
def folder(lived_in, tmp_path):
    """A copy of that folder to damage."""
    copy = tmp_path / "data"
    shutil.copytree(lived_in[0], copy)
    return copy


def _known(api):
    """Return what can be known without the time of asking."""
    profiles = {}
    for i in range(30):
        seen = api.profile(f"user_id:w-{i}") or {}
        kept = (
            "profileId",
            "identifiers",
            "links",
            "traits",
            "recentEvents",
            "placements",
            "arm",
            "version",
        )
        profiles[i] = {name: seen.get(name) for name in kept}
    return profiles, api.learned("crash-hero"), api.admin.get("/admin/v1/placements").json()


def _segment(folder):
    return sorted((folder / "log").glob("*.log"))[-1]


def _state(folder):
    return sorted((folder / "state").glob("*.db"))[-1]


def _rot(folder, right, wrong):
    state = _state(folder)
    content = state.read_bytes()
    assert right in content
    state.write_bytes(content.replace(right, wrong))


def test_a_state_folder_that_is_gone_is_folded_again_from_the_log(folder, lived_in):
    shutil.rmtree(folder / "state")
    with Server(folder) as server, Api(server) as api:
        assert _known(api) == lived_in[1]
    assert_rebuilt_the_same(folder)


def _overwrite_head(content, generator):
    return generator.randbytes(4096) + content[4096:]


def _overwrite_all(content, generator):
    return generator.randbytes(len(content))


def _overwrite_middle(content, generator):
    return content[:8192] + generator.randbytes(len(content) - 16384) + content[-8192:]


def _cut_in_half(content, _generator):
    return content[: len(content) // 2]


def _empty(_content, _generator):
    return b""


@pytest.mark.parametrize("damage", [_overwrite_head, _overwrite_all, _overwrite_middle, _cut_in_half, _empty])
def test_a_damaged_state_is_folded_again_from_the_log(folder, lived_in, damage):
    state = _state(folder)
    state.write_bytes(damage(state.read_bytes(), random.Random(5)))
    with Server(folder) as server, Api(server) as api:
        assert _known(api) == lived_in[1]
        api.track("Product Viewed", userId="w-2", messageId="after")
    assert_rebuilt_the_same(folder)


def test_bit_rot_in_a_profile_stops_writing_and_a_restart_mends_it(folder, lived_in):
    _rot(folder, b"\xa4plan\xa3pro", b"\xa4plan\xa3\xffro")  # A trait of a profile, in MessagePack.
    event = _event("rotten", "w-0", "Page Opened", {})
    with Server(folder) as server, Api(server) as api:
        for _ in range(2):
            answer = api.write.post("/v1/batch", json={"batch": [event]})
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
        assert api.admin.get("/readyz").status_code == 503
        assert api.choose("crash-hero", userId="w-1")["choices"], "a decision is always answered"
        server.restart()
        assert api.admin.get("/readyz").status_code == 200
        assert _known(api)[0][7] == lived_in[1][0][7]
        api.send(event)
        profile = api.profile("user_id:w-0")
        assert profile["traits"]["plan"] == "pro"
        assert profile["features"]["page_opened_count"] == 1
    assert_rebuilt_the_same(folder)


def test_bit_rot_in_what_is_declared_is_folded_again_at_the_start(folder, lived_in):
    # A category that declared features encode; among profiles it is the value of a trait.
    _rot(folder, b"\xa3pro", b"\xa3\xffro")
    with Server(folder) as server, Api(server) as api:
        assert _known(api) == lived_in[1]
    assert_rebuilt_the_same(folder)


def test_bit_rot_that_the_pass_over_all_segments_meets_is_folded_again_beside_the_traffic(folder):
    with Server(folder) as server, Api(server) as api:
        api.admin.put("/admin/v1/segments/pros", json={"rule": "profile.plan == 'pro'"}).raise_for_status()
        assert _within_seconds(20.0, lambda: "pros" in api.profile("user_id:w-0")["segments"])
    _rot(folder, b"\xa4plan\xa3pro", b"\xa4plan\xa3\xffro")
    with Server(folder) as server, Api(server) as api:
        assert _within_seconds(
            20.0, lambda: api.admin.get("/admin/v1/profiles/user_id:w-0").status_code == 200
        )
        assert api.profile("user_id:w-0")["traits"]["plan"] == "pro"
        api.send(_event("rotten", "w-0", "Page Opened", {}))
    assert_rebuilt_the_same(folder)


def _within_seconds(seconds, holds):
    ends = time.monotonic() + seconds
    while not holds() and time.monotonic() < ends:
        time.sleep(0.1)
    return holds()


@pytest.mark.parametrize("cut", [1, 7, 40, 200])
def test_a_torn_last_record_is_cut_off_and_the_rest_served(folder, cut):
    before = Counter(_message_ids(folder))
    segment = _segment(folder)
    os.truncate(segment, segment.stat().st_size - cut)
    with Server(folder) as server, Api(server) as api:
        health = api.ready()["dependencies"]["log"]
        assert health["corruptRecords"] == 0
        assert health["tornBytes"] > 0
        assert api.profile("user_id:w-3") is not None
        api.track("Product Viewed", userId="w-3", messageId="after")
    kept = Counter(_message_ids(folder))
    assert kept["after"] == 1
    assert set(before) - set(kept) <= {"last", "o-119", "d-119"}
    assert "last" not in kept
    assert_rebuilt_the_same(folder)


@pytest.mark.parametrize("keeps_state", [True, False], ids=["the state there", "the state gone"])
def test_a_damaged_record_is_counted_and_the_others_survive(folder, keeps_state):
    segment = _segment(folder)
    content = bytearray(segment.read_bytes())
    at = content.index(b'"d-60"')
    content[at + 2] ^= 0x01
    segment.write_bytes(content)
    if not keeps_state:
        shutil.rmtree(folder / "state")
    with Server(folder) as server, Api(server) as api:
        ready = api.ready()
        assert ready["ready"] is True
        assert ready["dependencies"]["log"]["corruptRecords"] == 1
        assert ready["dependencies"]["log"]["quarantinedBytes"] > 100
        api.track("Product Viewed", userId="w-4", messageId="after")
    kept = _message_ids(folder)
    assert "d-60" not in kept
    assert {"d-59", "d-61", "last", "after"} <= set(kept)
    code, report = rebuild(folder)
    assert report["corruptRecords"] == 1
    # A state that was folded before the damage knows more than the log does; rebuild says so.
    assert (code, report["same"]) == ((1, False) if keeps_state else (0, True))


# --- a full disk -------------------------------------------------------------------------------------

FILE_KIB = 1536


@pytest.fixture
def short_of_disk(tmp_path, monkeypatch):
    """A server whose files cannot grow past `FILE_KIB`."""
    script = tmp_path / "limited"
    script.write_text(f'#!/bin/bash\nulimit -f {FILE_KIB}\nexec "{PROGRAM}" "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with monkeypatch.context() as patch:
        patch.setenv("TAILORBIRD_COMMAND", str(script))
        server = Server(tmp_path / "data")
        server.start()
    return server


def test_a_full_disk_refuses_events_answers_decisions_and_loses_nothing(short_of_disk):
    server = short_of_disk
    with Api(server) as api:
        _declare(api)
        acknowledged, refused = [], None
        for i in range(400):
            event = _event(f"f-{i}", f"w-{i}", "Product Viewed", {"note": "n" * 8000})
            answer = api.write.post("/v1/batch", json={"batch": [event]})
            if answer.status_code == 200:
                acknowledged.append(f"f-{i}")
            else:
                refused = answer
        assert refused is not None
        assert refused.status_code in (429, 503), refused.text
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["content-type"] == "application/problem+json"
        for i in range(150):
            answer = api.decide("crash-hero", userId=f"w-{i}", key="write")
            assert answer["decisions"][0]["choices"], "a decision is always answered"
        last = api.decide("crash-hero", userId="w-1")["decisions"][0]
        assert last["decisionId"] is None or api.logged(last["decisionId"]) is not None
        assert api.admin.get("/healthz").status_code == 200
        assert api.profile("user_id:w-0") is not None
    server.kill()
    with server, Api(server) as api:
        end = api.ready()["dependencies"]["log"]["end"]
        api.send(*(_event(key, "again", "Again", {}) for key in acknowledged))
        assert api.ready()["dependencies"]["log"]["end"] == end
        assert api.profile(f"user_id:w-{len(acknowledged) - 1}")["features"]["product_viewed_count"] == 1
        api.track("Product Viewed", userId="w-0")
        assert api.choose("crash-hero", userId="w-1")["decisionId"]
    kept = Counter(_message_ids(server.data_dir))
    assert all(kept[key] == 1 for key in acknowledged)
    assert_rebuilt_the_same(server.data_dir)


# --- two at once -------------------------------------------------------------------------------------


def test_a_second_server_on_the_same_folder_is_refused_and_says_why(server, api):
    command = [PROGRAM, "serve", "--data", str(server.data_dir), "--port", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "in use by another process" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run(
        [PROGRAM, "rebuild", "--json", "--data", str(server.data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "in use" in json.loads(done.stdout)["error"]
    assert api.admin.get("/readyz").status_code == 200


def test_a_port_that_is_taken_is_refused_and_says_why(server, tmp_path):
    command = [PROGRAM, "serve", "--data", str(tmp_path / "other"), "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert str(server.port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_link_taken_back_stays_so_through_kill_9_and_a_fold_from_the_start(tmp_path):
    def people(api):
        views = [
            api.admin.get(f"/admin/v1/profiles/{name}").json() for name in ("anonymous_id:d", "user_id:u")
        ]
        return [(v["profileId"], v["primaryInterest"], v["identifiers"], v["arm"]) for v in views]

    with Server(tmp_path / "data") as server:
        with Api(server) as api:
            api.track("Product Viewed", anonymousId="d", category="hats")
            api.track("Product Viewed", anonymousId="d", userId="u", category="shoes")
            assert people(api)[0] == people(api)[1]
            named = {"anonymousId": "d", "userId": "u"}
            assert api.admin.put("/admin/v1/revoked-links", json=named).status_code == 200
            before = people(api)
            assert before[0][0] != before[1][0]
        server.kill()
        server.start()
        with Api(server) as api:
            assert people(api) == before
    code, report = rebuild(tmp_path / "data")
    assert (code, report["same"]) == (0, True)


def test_a_revocation_that_the_process_did_not_live_to_fold_is_folded_at_the_next_start(tmp_path):
    clock = SystemClock()
    options = Options(secret=bytes(32))

    async def link_and_half_revoke(engine):
        raw = b'{"type":"identify","messageId":"m","anonymousId":"d","userId":"u"}'
        engine.write(LoggedEvent(1.0, 1.0, "m", msgspec.Raw(raw)))
        engine.write(LinkRevoked(2.0, ("anonymous_id:d", "user_id:u")))
        await engine.durable()

    engine = Engine(tmp_path, options, clock)
    asyncio.run(link_and_half_revoke(engine))
    engine.close()
    again = Engine(tmp_path, options, clock)
    again.recover()
    try:
        assert not again.world.revocations.is_stale
        one, two = (by_identifier(again.world, name) for name in ("anonymous_id:d", "user_id:u"))
        assert one is None, "nothing but the link ever named the device"
        assert two is not None
    finally:
        again.close()
