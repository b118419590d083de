"""Privacy on a real server: what is held is handed over, and what is erased is in no byte of any file."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.serving import Server, ServerError

from tailorbird.app.cli import main

DONE_SECONDS_MAX = 60.0
DAY = "2026-01-05T"

ANNA = ("anna-user", "anna-phone", "anna-laptop", "anna-old", "anna@mail.example", "Annabella", "anna-m")
"""Byte sequences that only Anna's data hold; the last begins all her message ids."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data") as running:
        declare(running)
        yield running


@pytest.fixture(scope="module")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of which nothing is asked that lasts."""
    with Server(tmp_path_factory.mktemp("privacy") / "data") as running:
        yield running


def declare(server: Server) -> None:
    """Declare a placement of one variant: what it decides does not depend on a draw."""
    goal = {"event": "Order Completed", "value": "properties.revenue", "windowSeconds": 86400}
    server.must("PUT", "/admin/v1/placements/hero", {"variants": [{"id": "a"}], "goal": goal, "holdout": 0.0})


def send(server: Server, *events: dict[str, Any]) -> None:
    server.must("POST", "/v1/batch", {"batch": list(events)}, key=server.write_key)


def event(number: int, who: str, **fields: Any) -> dict[str, Any]:
    base = {"type": "track", "messageId": f"{who}-m-{number}", "timestamp": f"{DAY}10:{number:02d}:00Z"}
    return base | ({"event": "Viewed"} if fields.get("type", "track") == "track" else {}) | fields


def decide(server: Server, minute: int, **visitor: str) -> str:
    asked = {"visitor": visitor, "placements": [{"key": "hero"}], "at": f"{DAY}11:{minute:02d}:00Z"}
    answer = server.must("POST", "/v1/decide", asked, key=server.server_key)
    return str(answer["decisions"][0]["decisionId"])


def live_anna(server: Server) -> None:
    """Anna: two devices that merge, an alias, a refusal, consent, decisions, an exposure and outcomes."""
    flag = {"context": {"targetingKey": "anna-user"}}
    server.must("POST", "/ofrep/v1/evaluate/flags/hero", flag, key=server.write_key)
    send(
        server,
        event(1, "anna", anonymousId="anna-phone", properties={"product_id": "p1", "note": "Annabella"}),
        event(2, "anna", type="identify", anonymousId="anna-laptop", userId="anna-user",
              traits={"email": "Anna@Mail.example", "name": "Annabella", "plan": "gold"}),
        event(3, "anna", type="identify", anonymousId="anna-phone", userId="anna-user", traits={}),
        event(4, "anna", type="alias", userId="anna-user", previousId="anna-old"),
        event(5, "anna", type="page", anonymousId="home-tablet", userId="anna-user"),
        event(6, "anna", anonymousId="anna-old", properties={"city": "Annabella"}),
    )  # fmt: skip
    shown, bought = (decide(server, minute, userId="anna-user") for minute in (1, 2))
    decide(server, 3, anonymousId="anna-phone")
    viewed = {"decisionId": shown, "by": "Annabella"}
    send(server, event(7, "anna", event="Decision Viewed", userId="anna-user", properties=viewed))
    outcome = {"decisionId": bought, "value": 30.0, "timestamp": f"{DAY}12:00:00Z", "messageId": "anna-m-out"}
    server.must("POST", "/v1/outcomes", outcome)
    server.must("PUT", "/admin/v1/profiles/user_id:anna-user/consent", {"analytics": False})
    refused = {"type": "track", "userId": "anna-user", "messageId": "anna-m-no"}
    assert server.request("POST", "/v1/track", refused, key=server.write_key)[0] == 400
    broken = b'{"type": "identify", "traits": {"email": "ANNA@mail.example", "name": "Annabella"'
    assert post_bytes(server, "/v1/identify", broken) == 400


def live_others(server: Server) -> None:
    """Bert, who shares the tablet, and Carl, who does not."""
    send(
        server,
        event(1, "bert", type="identify", anonymousId="bert-phone", userId="bert-user",
              traits={"email": "bert@mail.example"}),
        event(2, "bert", anonymousId="home-tablet", userId="bert-user", properties={"product_id": "p1"}),
        event(3, "bert", anonymousId="home-tablet", userId="bert-user"),
        event(4, "nobody", anonymousId="home-tablet"),
        event(5, "carl", anonymousId="carl-phone", properties={"product_id": "p2"}),
    )  # fmt: skip
    for minute, visitor in enumerate(({"userId": "bert-user"}, {"anonymousId": "carl-phone"}), 20):
        key = decide(server, minute, **visitor)
        order = {"revenue": 7.5, "decisionId": key}
        send(server, event(minute, "order", event="Order Completed", properties=order, **visitor))
    refused = {"type": "track", "userId": "bert-user", "messageId": "bert-m-no"}
    assert server.request("POST", "/v1/track", refused, key=server.write_key)[0] == 400


def post_bytes(server: Server, path: str, body: bytes) -> int:
    headers = {"Authorization": f"Bearer {server.write_key}"}
    request = urllib.request.Request(server.url + path, body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def ask(server: Server, kind: str, *identities: str, wish: str = "wait=true", **more: Any) -> Any:
    """Make a request about identities written `type:value` and return the answer."""
    named = [
        dict(zip(("identity_type", "identity_value"), name.split(":", 1), strict=True)) for name in identities
    ]
    body = {
        "subject_request_type": kind,
        "subject_identities": [{**each, "identity_format": "raw"} for each in named],
    }
    return server.must("POST", f"/opendsr/v1/requests?{wish}", body | more)


def found_in_files(folder: Path, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return (text, file) of every text that any file holds, in its bytes or its name, in any case.

    Parquet is compressed: there it is the values.
    """
    found = []
    for file in sorted(folder.rglob("*")):
        content = (file.read_bytes() if file.is_file() else b"") + str(file.relative_to(folder)).encode()
        if file.suffix == ".parquet":
            content += json.dumps(pq.read_table(file).to_pylist(), ensure_ascii=False).encode()
        found += [(text, file.name) for text in texts if text.lower().encode() in content.lower()]
    return found


def counts(server: Server) -> dict[str, Any]:
    """Return every total that people's behaviour has a part in."""
    readouts = server.must("GET", "/admin/v1/readouts")
    return {
        "policy": server.must("GET", "/admin/v1/placements/hero/policy"),
        "readouts": {name: value for name, value in readouts.items() if name not in ("asOf", "madeAt")},
    }


def test_an_export_holds_every_record_of_a_person_and_nobody_elses(server):
    live_anna(server)
    live_others(server)
    answer = ask(server, "access", "email:anna@mail.example")
    result, text = answer["result"], json.dumps(answer["result"])
    assert answer["request_status"] == "completed"
    assert [event["messageId"] for event in result["events"]] == [f"anna-m-{n}" for n in range(1, 8)]
    assert result["events"][0]["event"]["properties"]["note"] == "Annabella"
    assert len(result["decisions"]) == 4
    assert [outcome["messageId"] for outcome in result["outcomes"]] == ["anna-m-out"]
    assert result["consents"][0]["consent"] == {"analytics": False}
    assert len(result["refusals"]) == 2
    assert "gold" in [profile["traits"].get("plan") for profile in result["profiles"]]
    assert not [name for name in ("bert", "carl", "nobody") if name in text]
    again = server.must("GET", answer["results_url"])
    assert [event["messageId"] for event in again["result"]["events"]] == [f"anna-m-{n}" for n in range(1, 8)]


def test_nothing_of_an_erased_person_is_in_any_file(server):
    live_anna(server)
    live_others(server)
    bert, tablet = server.profile("user_id:bert-user"), server.profile("device:home-tablet")
    server.restart()
    assert {file for _, file in found_in_files(server.data_dir, ANNA)} > {"00000000000000000000.log"}
    assert found_in_files(server.data_dir / "warehouse", ("anna-user", "Annabella", "anna@mail.example"))
    answer = ask(
        server, "erasure", "controller_customer_id:anna-user", subject_request_id="erase-anna-user-now"
    )
    proof = answer["result"]
    assert (proof["remaining"], proof["found"]) == (0, proof["removed"])
    assert proof["stores"]["log"]["kinds"] == {
        "events": 7, "decisions": 4, "outcomes": 1, "consents": 1, "revokedLinks": 0, "declaredLinks": 0,
        "segmentChanges": 0, "computedAttributes": 0,
        "namedByOthers": 0,
    }  # fmt: skip
    assert proof["stores"]["rejects"]["kinds"] == {"refusedEvents": 2}
    assert proof["stores"]["warehouse"]["found"] > 7 + 4 + 1, "events, decisions, and what they led to"
    assert proof["stores"]["warehouse"]["remaining"] == 0
    assert found_in_files(server.data_dir / "warehouse", ("bert-user", "bert-phone")), "others stay"
    assert proof["stores"]["state"]["kinds"]["profiles"] == 2, "the one met as a flag's targeting key, too"
    assert found_in_files(server.data_dir, ANNA) == []
    for name in ("user_id:anna-user", "anonymous_id:anna-phone", "email:anna@mail.example"):
        assert server.profile(name) is None
    assert without_features(server.profile("user_id:bert-user")) == without_features(bert)
    assert without_features(server.profile("device:home-tablet")) == without_features(tablet)
    rejects = server.must("GET", "/admin/v1/rejects")["rejects"]
    assert [json.loads(reject["body"])["messageId"] for reject in rejects] == ["bert-m-no"]
    assert server.must("GET", "/opendsr/v1/requests/erase-anna-user-now")["result"] == proof
    server.restart()
    assert found_in_files(server.data_dir, ANNA) == []
    assert server.must("GET", "/opendsr/v1/requests/erase-anna-user-now")["result"] == proof
    again = ask(server, "erasure", "user_id:anna-user")["result"]
    assert (again["found"], again["removed"], again["remaining"], again["suppressed"]) == (0, 0, 0, 0)
    server.stop()
    assert found_in_files(server.data_dir, ANNA) == []
    assert is_state_the_fold(server)
    server.start()


def without_features(profile: Any) -> Any:
    """Return a profile's view without what depends on the moment of asking."""
    return {name: value for name, value in profile.items() if name not in ("features",)}


def test_totals_are_those_of_a_server_that_never_saw_the_person(server, tmp_path):
    live_anna(server)
    live_others(server)
    ask(server, "erasure", "user_id:anna-user")
    twin = Server(tmp_path / "twin")
    twin.data_dir.mkdir()
    shutil.copy(server.data_dir / "keys.json", twin.data_dir)
    with twin:
        declare(twin)
        live_others(twin)
        assert counts(server) == counts(twin)


def test_an_erased_person_is_refused_and_leaves_no_trace_until_lifted(server):
    live_anna(server)
    ask(server, "erasure", "user_id:anna-user")
    call = {"type": "track", "event": "Viewed", "messageId": "anna-m-again"}
    named = (
        {"userId": "anna-user"},
        {"anonymousId": "anna-phone"},
        {"anonymousId": "anna-user"},
        {"userId": "new-user", "context": {"traits": {"email": "Anna@mail.example"}}},
        {"type": "identify", "userId": "new-user", "traits": {"email": "anna@MAIL.example"}},
        {"type": "alias", "userId": "new-user", "previousId": "anna-old"},
        {"userId": "anna-user", "event": ""},
        {"userId": "anna-user", "timestamp": "yesterday"},
    )
    for fields in named:
        status, answer = server.request("POST", "/v1/batch", {"batch": [call | fields]}, key=server.write_key)
        assert (status, answer["accepted"]) == (400, 0), fields
    assert post_bytes(server, "/v1/track", b'{"userId": "anna-user", "event": ') == 400
    for visitor in ({"userId": "anna-user"}, {"anonymousId": "anna-phone", "userId": "anna-user"}):
        asked = {"visitor": visitor, "placements": [{"key": "hero"}]}
        answer = server.must("POST", "/v1/decide", asked, key=server.server_key)
        assert len(answer["decisions"][0]["choices"]) == 1
        assert answer["visitor"]["profileId"] is None
    for key in ("anna-user", "anna@mail.example"):
        server.must(
            "POST", "/ofrep/v1/evaluate/flags/hero", {"context": {"targetingKey": key}}, key=server.write_key
        )
    status, _ = server.request("PUT", "/admin/v1/profiles/user_id:anna-user/consent", {"analytics": True})
    assert status == 409
    server.restart()
    assert found_in_files(server.data_dir, ANNA) == []
    assert server.must("GET", "/admin/v1/suppressions")["count"] > 0
    assert server.must("DELETE", "/admin/v1/suppressions/email:anna@mail.example")["lifted"] > 0
    assert server.must("GET", "/admin/v1/suppressions") == {"count": 0}
    send(server, call | {"userId": "anna-user", "anonymousId": "anna-phone"})
    assert server.profile("user_id:anna-user") is not None
    assert server.request("DELETE", "/admin/v1/suppressions/user_id:anna-user")[0] == 404


def test_a_dry_run_says_what_would_go_and_changes_nothing(server):
    live_anna(server)
    live_others(server)
    before = contents_of_logs(server)
    plan = ask(server, "erasure", "user_id:anna-user", wish="dryRun=true")["result"]
    assert plan["dryRun"] is True
    assert plan["wouldSuppress"] > 0
    assert contents_of_logs(server) == before
    proof = ask(server, "erasure", "user_id:anna-user")["result"]
    for store, found in proof["stores"].items():
        assert plan["stores"][store] == {"found": found["found"], "kinds": found["kinds"]}
    assert plan["found"] == proof["found"]


def contents_of_logs(server: Server) -> dict[Path, bytes]:
    """Return every file of both logs and of the requests."""
    files = [file for name in ("log", "rejects", "privacy") for file in (server.data_dir / name).rglob("*")]
    return {file: file.read_bytes() for file in files if file.is_file()}


def test_people_on_a_shared_device_stay_who_they_are(server):
    live_others(server)
    live_anna(server)  # The tablet was Bert's before she came.
    send(server, event(30, "nobody", anonymousId="home-tablet"))
    before = server.profile("user_id:bert-user")
    assert server.request("POST", "/opendsr/v1/requests", {
        "subject_request_type": "erasure",
        "subject_identities": [{"identity_type": "anonymous_id", "identity_value": "home-tablet"}],
    })[0] == 409  # fmt: skip
    ask(server, "erasure", "user_id:anna-user")
    assert found_in_files(server.data_dir, ANNA) == []
    send(
        server,
        event(31, "bert", anonymousId="home-tablet", userId="bert-user"),
        event(32, "nobody", anonymousId="home-tablet"),
    )
    after = server.profile("user_id:bert-user")
    assert (after["profileId"], after["assignment"]) == (before["profileId"], before["assignment"])
    # What was done signed out before he signed in is his now; what came after is nobody's.
    assert len(after["recentEvents"]) == len(before["recentEvents"]) + 2
    assert server.profile("device:home-tablet")["profileId"] == after["profileId"]


def test_an_erasure_that_is_killed_is_completed_after_the_restart(server):
    live_anna(server)
    live_others(server)
    for batch in range(40):
        send(
            server,
            *(
                event(n, f"crowd-{batch}-{n}", anonymousId=f"crowd-{(batch * 250 + n) % 500}")
                for n in range(250)
            ),
        )
    send(server, event(40, "anna", userId="anna-user"))
    asked = str(uuid.uuid4())
    ask(server, "erasure", "user_id:anna-user", wish="wait=false", subject_request_id=asked)
    states = []
    for seconds in (0.02, 0.15, 0.3, 0.6):
        time.sleep(seconds)
        states.append(server.must("GET", f"/opendsr/v1/requests/{asked}")["request_status"])
        server.kill()
        server.start()
    assert states[0] in ("pending", "in_progress")
    done = server.must("GET", f"/opendsr/v1/requests/{asked}?wait=true")
    assert done["request_status"] == "completed"
    assert done["result"]["remaining"] == 0
    assert found_in_files(server.data_dir, ANNA) == []
    assert server.profile("anonymous_id:crowd-7") is not None
    server.stop()
    assert is_state_the_fold(server)
    server.start()


def test_traffic_goes_on_during_an_erasure_and_is_kept(server):
    live_anna(server)
    for batch in range(8):
        send(server, *(event(n, f"crowd-{batch}-{n}", anonymousId=f"crowd-{n}") for n in range(250)))
    stop, sent, refused = threading.Event(), [], []

    def talk() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            carl = event(number % 60, f"talk-{number}", anonymousId="carl-phone")
            anna = event(
                number % 60, f"anna-m-late-{number}", anonymousId=f"anna-new-{number}", userId="anna-user"
            )
            answer = server.must("POST", "/v1/batch", {"batch": [carl, anna]}, key=server.write_key)
            sent.append(number)
            refused.append(answer.get("rejected", 0))
            decide(server, number % 60, userId="anna-user")

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        time.sleep(0.3)
        proof = ask(server, "erasure", "user_id:anna-user")["result"]
        time.sleep(0.2)
    finally:
        stop.set()
        thread.join(DONE_SECONDS_MAX)
    assert proof["remaining"] == 0
    assert refused[0] == 0
    assert refused[-1] == 1
    assert found_in_files(server.data_dir, (*ANNA, "anna-new")) == []
    held = ask(server, "access", "anonymous_id:carl-phone")["result"]
    assert len(held["events"]) == len(sent)


def test_requests_are_told_apart_by_their_id(server):
    live_anna(server)
    asked = str(uuid.uuid4())
    first = ask(server, "portability", "user_id:anna-user", wish="wait=false", subject_request_id=asked)
    assert (
        ask(server, "portability", "user_id:anna-user", wish="wait=false", subject_request_id=asked)[
            "received_time"
        ]
        == first["received_time"]
    )
    with pytest.raises(ServerError, match="used for another request"):
        ask(server, "erasure", "user_id:anna-user", subject_request_id=asked)
    assert server.request("DELETE", f"/opendsr/v1/requests/{asked}")[0] == 409
    assert server.request("GET", "/opendsr/v1/requests/never")[0] == 404
    assert "result" not in server.must("GET", f"/opendsr/v1/requests/{asked}")


def test_a_hashed_identity_names_the_person(server):
    live_anna(server)
    identity = {
        "identity_type": "email",
        "identity_value": hashlib.sha256(b"anna@mail.example").hexdigest(),
        "identity_format": "sha256",
    }
    body = {"subject_request_type": "erasure", "subject_identities": [identity]}
    answer = server.must("POST", "/opendsr/v1/requests?wait=true", body)
    assert answer["result"]["stores"]["log"]["kinds"]["events"] == 7
    assert found_in_files(server.data_dir, ANNA) == []


def test_an_unknown_person_is_erased_by_name_and_refused_from_then_on(server):
    proof = ask(server, "erasure", "user_id:anna-user")["result"]
    assert (proof["found"], proof["suppressed"]) == (0, 2)
    status, _ = server.request(
        "POST", "/v1/track", event(1, "anna", userId="anna-user"), key=server.write_key
    )
    assert status == 400
    assert found_in_files(server.data_dir, ANNA) == []


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "subject_request_type"),
        ({"subject_request_type": "forget"}, "subject_request_type"),
        ({"subject_identities": []}, "subject_identities"),
        ({"subject_identities": [{"identity_type": "roku_id", "identity_value": "x"}]}, "subject_identities[0].identity_type"),
        ({"subject_identities": [{"identity_type": "email", "identity_value": "x", "identity_format": "crc"}]}, "subject_identities[0].identity_format"),
        ({"subject_identities": [{"identity_type": "user_id", "identity_value": "null"}]}, "subject_identities[0].identity_value"),
        ({"subject_request_id": "a/b"}, "subject_request_id"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_which_field_breaks_which_rule(idle_server, body, path):
    whole = {
        "subject_request_type": "access",
        "subject_identities": [{"identity_type": "email", "identity_value": "a@b.example"}],
    }
    status, answer = idle_server.request(
        "POST", "/opendsr/v1/requests", (whole | body) if body else {"subject_identities": []}
    )
    assert status == 400
    assert answer["errors"][0]["path"] in (path, "body")
    assert answer["errors"][0]["rule"]


def test_only_the_admin_key_opens_the_doors_of_privacy(idle_server):
    for method, path in (
        ("POST", "/opendsr/v1/requests"),
        ("GET", "/opendsr/v1/requests/x"),
        ("DELETE", "/opendsr/v1/requests/x"),
        ("GET", "/admin/v1/suppressions"),
        ("PUT", "/admin/v1/suppressions/user_id:x"),
        ("DELETE", "/admin/v1/suppressions/user_id:x"),
    ):
        assert idle_server.request(method, path, key=idle_server.server_key)[0] == 403, path
        assert idle_server.request(method, path, key="nobody")[0] == 401, path
    assert (
        "erasure"
        in idle_server.must("GET", "/opendsr/v1/discovery", key="nobody")["supported_subject_request_types"]
    )
    assert idle_server.must("GET", "/.well-known/gpc.json", key="nobody")["gpc"] is True


def test_the_command_line_does_what_the_doors_do(server, capsys, monkeypatch):
    def run(*arguments: str, code: int = 0) -> Any:
        """Run one `tailorbird profile` command on the server's folder and return what it prints."""
        done = main(["profile", *arguments, "--json", "--data", str(server.data_dir)])
        printed = capsys.readouterr()
        assert done == code, (arguments, printed)
        return json.loads(printed.out)

    monkeypatch.setenv("TAILORBIRD_ADMIN_KEY", server.admin_key)
    live_anna(server)
    live_others(server)
    assert "--url" in run("erase", "user_id:anna-user", code=1)["error"]
    plan = run("erase", "user_id:anna-user", "--dry-run", "--url", server.url)
    assert len(run("export", "email:anna@mail.example", "--url", server.url)["events"]) == 7
    assert run("suppress", "anonymous_id:carl-phone", "--url", server.url) == {"suppressed": 2}
    assert run("suppress", "user_id:carl-phone", "--lift", "--url", server.url) == {"lifted": 2}
    server.stop()
    assert len(run("export", "email:anna@mail.example")["events"]) == 7
    assert run("erase", "user_id:anna-user", "--dry-run") == plan
    proof = run("erase", "user_id:anna-user")
    assert (proof["found"], proof["remaining"]) == (plan["found"], 0)
    assert found_in_files(server.data_dir, ANNA) == []
    run("show", "user_id:anna-user", code=1)
    run("export", "user_id:anna-user", code=1)
    run("erase", "anna-user", code=2)
    run("show", "user_id:bert-user", "--dry-run", code=2)
    assert run("show", "user_id:bert-user")["traits"] == {"email": "bert@mail.example"}
    assert run("suppress", "user_id:bert-user")["suppressed"] > 0
    assert run("suppress", "user_id:bert-user", "--lift")["lifted"] > 0
    server.start()


def is_state_the_fold(server: Server) -> bool:
    """Return what `tailorbird rebuild` says of the folder of a server that is stopped."""
    program = os.environ.get("TAILORBIRD_COMMAND") or str(Path(sys.executable).with_name("tailorbird"))
    arguments = [program, "rebuild", "--json", "--data", str(server.data_dir)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=DONE_SECONDS_MAX, check=False)
    return bool(json.loads(done.stdout)["same"])
