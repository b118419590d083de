"""The pass over everybody: who comes with a declaration, who goes with time, and whom it leaves alone."""

import asyncio
from typing import Any

import msgspec
import pytest

from tailorbird.app.engine import Engine, Options
from tailorbird.app.segment_pass import SegmentPass
from tailorbird.clock import ManualClock
from tailorbird.errors import StorageError
from tailorbird.live.profiles import by_identifier, suppression_hash
from tailorbird.live.rule_segments import check_segment
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.records import Suppressed, decode
from tailorbird.schema.segment import RuleSegment, SegmentChanged, SegmentPut

SECRET = bytes(32)
BEGIN = 1_700_000_000.0
YEAR = 365 * 86400.0


@pytest.fixture
def engine(tmp_path):
    made = Engine(tmp_path, Options(secret=SECRET, seed=1), ManualClock(BEGIN))
    yield made
    made.close()


def declare(engine: Engine, key: str, rule: str) -> None:
    segment = check_segment(msgspec.convert({"key": key, "rule": rule}, RuleSegment), {})
    engine.write(SegmentPut(engine.clock.now(), segment))


def see(engine: Engine, who: str, *, at: float | None = None) -> None:
    now = engine.clock.now()
    message = f"m-{engine.log.end}"
    body = {"type": "track", "event": "Product Viewed", "messageId": message, "anonymousId": who}
    raw = msgspec.Raw(msgspec.json.encode(body))
    engine.write(LoggedEvent(now, now if at is None else at, message, raw))


def run(everybody: SegmentPass) -> int:
    return asyncio.run(everybody.run_once())


def members(engine: Engine, key: str) -> set[str]:
    return {
        name
        for name in ("d1", "d2", "d3")
        if (found := by_identifier(engine.world, f"anonymous_id:{name}")) and key in found.segments
    }


def told(engine: Engine) -> list[tuple[str, str, float]]:
    records: list[Any] = [decode(record.kind, record.payload) for record in engine.log.read()]
    return [(one.segment, one.change, one.t) for one in records if isinstance(one, SegmentChanged)]


def test_everybody_is_evaluated_whether_the_disk_has_them_or_not(engine):
    see(engine, "d1")
    engine.world.checkpoint()
    see(engine, "d2")
    everybody = SegmentPass(engine)
    declare(engine, "viewers", "profile.views_7d > 0.0")
    declare(engine, "both", "'viewers' in profile.segments")
    assert run(everybody) == 2
    assert everybody.is_current
    assert everybody.ended == BEGIN
    assert members(engine, "viewers") == members(engine, "both") == {"d1", "d2"}
    assert engine.world.segments.size("viewers") == engine.world.segments.size("both") == 2
    assert len(told(engine)) == 4
    assert run(everybody) == 0, "a second pass finds nothing"
    assert len(told(engine)) == 4
    declare(engine, "third", "true")
    assert not everybody.is_current


def test_who_has_gone_with_time_is_logged_at_the_time_that_events_have_come_to(engine):
    declare(engine, "active", "profile.views_1h > 0.0")
    see(engine, "d1")
    engine.clock.advance(7200.0)
    assert run(SegmentPass(engine)) == 1
    assert told(engine) == [("active", "entered", BEGIN), ("active", "left", BEGIN + 7200.0)]
    assert engine.world.segments.size("active") == 0


def test_a_log_of_last_year_is_not_measured_by_today(engine):
    declare(engine, "active", "profile.views_1h > 0.0")
    see(engine, "d1", at=BEGIN - YEAR)
    engine.clock.advance(60.0)
    assert run(SegmentPass(engine)) == 0
    assert members(engine, "active") == {"d1"}
    see(engine, "d2", at=BEGIN - YEAR + 7200.0)
    assert run(SegmentPass(engine)) == 1
    assert members(engine, "active") == {"d2"}


def test_a_clock_that_is_ahead_takes_nobody_with_it(engine):
    declare(engine, "active", "profile.views_1h > 0.0")
    see(engine, "d1")
    see(engine, "d2", at=BEGIN + YEAR)
    run(SegmentPass(engine))
    assert members(engine, "active") == {"d1", "d2"}


def test_before_the_first_event_since_a_start_people_are_as_they_were_last_known(tmp_path):
    before = Engine(tmp_path, Options(secret=SECRET, seed=1), ManualClock(BEGIN))
    see(before, "d1")
    before.close()
    engine = Engine(tmp_path, Options(secret=SECRET, seed=1), ManualClock(BEGIN + YEAR))
    engine.recover()
    declare(engine, "active", "profile.views_1h > 0.0")
    assert run(SegmentPass(engine)) == 1
    assert told(engine) == [("active", "entered", BEGIN)]
    engine.close()


def test_nothing_more_is_written_of_who_is_being_erased(engine):
    see(engine, "d1")
    see(engine, "d2")
    engine.write(Suppressed(BEGIN, (suppression_hash(SECRET, "anonymous_id:d1"),)))
    declare(engine, "viewers", "profile.views_7d > 0.0")
    assert run(SegmentPass(engine)) == 1
    assert members(engine, "viewers") == {"d2"}


def test_what_cannot_be_announced_now_is_announced_later(engine, monkeypatch):
    declare(engine, "viewers", "profile.views_7d > 0.0")
    flush, is_full = engine.log.flush, []

    def refuse_second() -> None:
        is_full.append(True)
        if len(is_full) == 2:
            engine.log._frames.clear()
            engine.log._end -= 1
            raise StorageError("no room")
        flush()

    monkeypatch.setattr(engine.log, "flush", refuse_second)
    see(engine, "d1")
    monkeypatch.undo()
    assert members(engine, "viewers") == {"d1"}
    assert told(engine) == []
    assert len(engine.world.segments.unannounced) == 1
    see(engine, "d2")
    assert told(engine) == [("viewers", "entered", BEGIN)] * 2
    assert engine.world.segments.unannounced == {}
