"""What comes within one turn of the event loop is written and folded together, and seen in order."""

import asyncio

import msgspec
import pytest

from tailorbird.app.engine import Engine, Options
from tailorbird.clock import ManualClock
from tailorbird.decide.compiled import check
from tailorbird.decide.visitor import Request
from tailorbird.errors import StorageError
from tailorbird.live.profiles import by_identifier
from tailorbird.schema.decision import PlacementRequest, VisitorRef
from tailorbird.schema.placement import Placement
from tailorbird.schema.records import PlacementPut

HERO = {"key": "hero", "variants": [{"id": "a"}, {"id": "b"}], "stickySeconds": 600.0, "holdout": 0.0}


@pytest.fixture
def engine(tmp_path):
    made = Engine(tmp_path, Options(secret=bytes(32), seed=1), ManualClock())
    made.write(PlacementPut(1.0, check(msgspec.convert(HERO, Placement))))
    yield made
    made.close()


def ask(engine: Engine, anonymous: str, user: str | None = None):
    return engine.decide(Request(VisitorRef(anonymous, user), [PlacementRequest("hero")]))


def test_decisions_of_a_turn_are_folded_at_its_end(engine):
    async def run():
        before = engine.log.end
        answers = [ask(engine, f"v{number}") for number in range(3)]
        assert by_identifier(engine.world, "anonymous_id:v0") is None
        assert len({written for _, written in answers}) == 1, "they share one write"
        await answers[0][1]
        assert engine.log.end == before + 3
        for number, (found, _) in enumerate(answers):
            profile = by_identifier(engine.world, f"anonymous_id:v{number}")
            assert profile.placements["hero"].sticky_id == found.answers[0].decision_id

    asyncio.run(run())


@pytest.mark.parametrize("ids", [("v", None), ("v", "u")])
def test_who_asks_twice_within_a_turn_gets_the_same_decision(engine, ids):
    async def run():
        one, _ = ask(engine, *ids)
        two, _ = ask(engine, *ids)
        assert one.answers[0].decision_id == two.answers[0].decision_id != ""

    asyncio.run(run())


def test_what_the_disk_refuses_is_not_folded_and_does_not_stand_in_the_way(engine, monkeypatch):
    async def run():
        def refuse() -> None:
            raise StorageError("no room")

        monkeypatch.setattr(engine.log, "flush", refuse)
        _, written = ask(engine, "v")
        with pytest.raises(StorageError):
            await written
        assert by_identifier(engine.world, "anonymous_id:v") is None
        default = engine.decider.decide(Request(VisitorRef("v"), [PlacementRequest("hero")])).answers[0]
        assert (default.decision.reason, default.decision_id) == ("FALLBACK", "")
        monkeypatch.undo()
        assert engine.failure is None
        answers, written = ask(engine, "v")
        await written
        assert answers.answers[0].decision_id

    asyncio.run(run())
