"""History on a real server: kept while it is killed again and again, and made again from the log."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.integration.api import Api
from tests.serving import Server

from tailorbird.stores.history import LABELS, NAMED_LABELS, History
from tailorbird.stores.parquet import ParquetWarehouse
from tailorbird.stores.warehouse import TABLES

PROGRAM = os.environ.get("TAILORBIRD_COMMAND") or str(Path(sys.executable).with_name("tailorbird"))
CONFIG = "checkpoint_seconds = 0.3\n"


@pytest.fixture
def keeping(tmp_path):
    """A server that commits, and writes history, several times a second."""
    config = tmp_path / "tailorbird.toml"
    config.write_text(CONFIG)
    with Server(tmp_path / "data", arguments=("--config", str(config))) as running:
        yield running


def warehouse(action: str, server: Server) -> dict[str, Any]:
    """Return what `tailorbird warehouse … --json` says."""
    arguments = [PROGRAM, "warehouse", action, "--json", "--data", str(server.data_dir)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows_of(server: Server) -> dict[str, list[Any]]:
    (folder,) = (server.data_dir / "warehouse").iterdir()
    kept = ParquetWarehouse(folder)
    return {table: list(kept.read(table)) for table in TABLES}


def live(api: Api, turn: int, decided: list[str]) -> None:
    """Let forty people look around, some sign in, and be decided for."""
    for n in range(40):
        who = {"anonymousId": f"a-{n}"} | ({"userId": f"u-{n // 2}"} if n % 3 == turn % 3 else {})
        api.track("Product Viewed", **who, product_id=f"i{n % 5}", messageId=f"seen-{turn}-{n}")
    decision = api.choose("history-hero", anonymousId=f"a-{turn}")["decisionId"]
    decided.append(decision)
    api.track("Decision Viewed", anonymousId=f"a-{turn}", decisionId=decision)
    api.track("Order Completed", anonymousId=f"a-{turn}", revenue=5.0)


def test_history_survives_kills_without_a_gap_or_a_row_twice(keeping):
    decided: list[str] = []
    with Api(keeping) as api:
        hero = {"variants": [{"id": "a"}], "goal": {"event": "Order Completed"}, "holdout": 0.0}
        api.admin.put("/admin/v1/placements/history-hero", json=hero)
        for turn in range(3):
            live(api, turn, decided)
            keeping.kill()
            keeping.start()
    keeping.stop()
    kept = rows_of(keeping)
    sent = {f"seen-{turn}-{n}" for turn in range(3) for n in range(40)}
    found = [row.message_id for row in kept["events"] if row.message_id.startswith("seen-")]
    assert sorted(found) == sorted(sent)
    assert [row.decision_id for row in kept["decisions"]] == decided
    assert [row.decision_id for row in kept["exposures"]] == decided
    assert [row.decision_id for row in kept["outcomes"]] == decided
    assert len(kept["merges"]) > 0
    status = warehouse("status", keeping)
    assert (status["behindState"], status["tables"]["events"]["rows"]) == (0, len(kept["events"]))
    assert warehouse("build", keeping)["same"] is True

    gone = next((keeping.data_dir / "warehouse").rglob("events/*/*.parquet"))
    gone.unlink()
    assert warehouse("build", keeping)["same"] is False
    assert rows_of(keeping) == kept
    shutil.rmtree(keeping.data_dir / "warehouse")
    keeping.start()
    assert rows_of(keeping) == kept, "a start makes what is missing"


def test_people_are_found_as_they_were(keeping):
    with Api(keeping) as api:
        api.track("Product Viewed", anonymousId="phone", messageId="one")
        api.track("Product Viewed", userId="ada", messageId="two")
        before = api.profile("anonymous_id:phone")["profileId"]
        api.identify(anonymousId="phone", userId="ada", messageId="three")
        api.track("Product Viewed", anonymousId="phone", messageId="four")
        keeping.stop()
        events = {row.message_id: row for row in rows_of(keeping)["events"]}
        times = {message: row.known_at for message, row in events.items()}
        (folder,) = (keeping.data_dir / "warehouse").iterdir()
        named = [
            {"label_id": 1, "identifier": "user_id:ada", "t": times["two"]},
            {"label_id": 2, "identifier": "user_id:ada", "t": times["three"]},
        ]
        with History(folder) as opened:
            labels = opened.profiles_named(pa.Table.from_pylist(named, schema=NAMED_LABELS))
            labels = pa.concat_tables(
                [labels, pa.Table.from_pylist([{"label_id": 3, "profile": before, "t": 4e9}], schema=LABELS)]
            )
            found = [row for batch in opened.rows_as_of(labels) for row in batch.to_pylist()]
        assert [row["label_id"] or row["detail"] for row in found if row["what"] in ("event", "label")] == [
            "one", "two", 1, "three", 2, "four", 3,
        ]  # fmt: skip
        assert {row["profile"] for row in found if row["label_id"] in (2, 3)} == {before}
        keeping.start()


def test_without_the_setting_nothing_is_kept(tmp_path):
    config = tmp_path / "tailorbird.toml"
    config.write_text("warehouse = false\n")
    with Server(tmp_path / "data", arguments=("--config", str(config))) as running, Api(running) as api:
        api.track("Product Viewed", anonymousId="a")
        running.restart()
        assert api.profile("anonymous_id:a") is not None
    assert not (tmp_path / "data" / "warehouse").exists()
    assert warehouse("status", running)["behindState"] > 0
    assert warehouse("build", running)["rows"] == 3, "the features, the event, and the link of its identifier"
