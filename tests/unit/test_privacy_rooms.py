"""Privacy's parts: who a person is, what a refused body names, and how requests are kept."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tailorbird.clock import ManualClock
from tailorbird.errors import ConflictError, InvalidInputError, NotFoundError, OverloadedError, StorageError
from tailorbird.features.state import new_state
from tailorbird.live.profiles import FORGOTTEN
from tailorbird.live.world import TABLES, Identifier, World
from tailorbird.privacy import requests as requests_module
from tailorbird.privacy.erase import Erasure, Progress
from tailorbird.privacy.identities import Identity, check_identities, check_name, names_of
from tailorbird.privacy.person import Person, person_of, to_suppress, values_named
from tailorbird.privacy.requests import Request, Requests
from tailorbird.privacy.scan import Turns
from tailorbird.schema.profile import Link, Profile
from tailorbird.stores.memory import MemoryLog, MemoryState

SECRET = bytes(32)


class House:
    """An empty installation: nothing is written in it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.world = World(MemoryState(TABLES))
        self.log, self.rejects = MemoryLog(), MemoryLog()

    def write(self, _record: Any) -> int:
        return 0

    async def durable(self) -> None:
        """Nothing waits."""

    async def count_history(self, _profiles: Any, _offsets: Any) -> int:
        return 0

    async def refold(self) -> None:
        """Nothing changes."""

    def add(self, profile_id: str, *identifiers: str, merged: str = "") -> None:
        profile = Profile(profile_id, identifiers[0], new_state(0.0))
        profile.identifiers = dict.fromkeys(identifiers, (0.0, 0.0))
        profile.links = [Link(identifiers[0], "track", "m", 0.0, merged)]
        self.world.profiles.put(profile_id, profile)
        for name in (*identifiers, f"profile:{profile_id}", *([f"profile:{merged}"] if merged else ())):
            self.world.identifiers.put(name, Identifier(profile_id))


class StubErasure(Erasure):
    """An erasure that does what it is told to: wait, fail, or give a proof."""

    def __init__(self, house: House) -> None:
        super().__init__(house, SECRET)
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[Exception] = []
        self.before: list[Person] = []

    async def erase(self, names: Any, before: Progress, keep: Any) -> dict[str, Any]:
        self.before.append(before.person)
        await keep(Progress(Person(frozenset(names), frozenset({"p-1"}))))
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return {"remaining": 0}


# --- persons ----------------------------------------------------------------------------------------


def test_a_person_is_all_identifiers_and_merged_profiles():
    house = House()
    house.add("p-1", "anonymous_id:d", "user_id:u", "email:e@x.example", merged="p-0")
    whole = Person(frozenset({"anonymous_id:d", "user_id:u", "email:e@x.example"}), frozenset({"p-0", "p-1"}))
    for name in ("user_id:u", "email:e@x.example", "profile:p-1", "profile:p-0"):
        assert person_of(house.world, [name]) == whole, name


def test_the_anonymous_namesake_of_a_user_is_the_same_person_unless_somebody_joined_it():
    house = House()
    house.add("p-1", "user_id:u")
    house.add("p-2", "anonymous_id:u")
    assert person_of(house.world, ["user_id:u"]).profiles == {"p-1", "p-2"}
    house.add("p-2", "anonymous_id:u", "user_id:other")
    assert person_of(house.world, ["user_id:u"]).profiles == {"p-1"}


def test_a_shared_device_alone_names_nobody():
    house = House()
    house.add("p-1", "anonymous_id:d", "user_id:u")
    house.world.identifiers.put("anonymous_id:d", Identifier("p-1", ["u", FORGOTTEN]))
    with pytest.raises(ConflictError, match="several people"):
        person_of(house.world, ["anonymous_id:d"])
    assert person_of(house.world, ["anonymous_id:d", "user_id:x"]).identifiers == {"user_id:x"}
    assert "anonymous_id:d" in person_of(house.world, ["user_id:u"]).identifiers


def test_what_is_shared_with_others_is_not_suppressed():
    world = House().world
    person = Person(frozenset({"user_id:u", "anonymous_id:d", "device:x"}))
    assert len(to_suppress(world, SECRET, person, {"anonymous_id:d"})) == 2
    assert len(to_suppress(world, SECRET, person, ())) == 4


@pytest.mark.parametrize(
    ("body", "values"),
    [
        ('{"userId": "u-1", "anonymousId": null}', {"u-1"}),
        ('{"batch": [{"userId": 7}, {"previousId" : "a\\u00e9"}], "event": "userId"}', {"7", "aé"}),
        ('{"traits": {"email": " A@B.example "}, "broken', {" A@B.example ", "a@b.example"}),
        ('{"userId": "bad \\q escape"}', {"bad \\q escape"}),
        ("", set()),
    ],
)
def test_a_body_names_identifiers_even_where_it_is_broken(body, values):
    assert values_named(body) == values


def test_identities_are_checked_and_translated():
    good = [Identity("controller_customer_id", "u"), Identity("email", " A@b.example")]
    check_identities(good)
    assert names_of(good) == ["user_id:u", "email:a@b.example"]
    with pytest.raises(InvalidInputError, match="identity_format"):
        check_identities([Identity("anonymous_id", "ab", "sha1")])
    with pytest.raises(InvalidInputError, match="from one to"):
        check_identities([good[0]] * 101)
    for name in ("u-1", "user_id:", ":u", "user_id:null"):
        with pytest.raises(InvalidInputError):
            check_name("identifier", name)


# --- requests ---------------------------------------------------------------------------------------


def kept(folder: Path) -> list[Any]:
    """Return the requests as they stand, whatever is being written beside them at this moment."""
    return [json.loads(file.read_bytes()) for file in folder.iterdir() if file.suffix != ".tmp"]


def test_a_finished_erasure_keeps_no_name(tmp_path):
    async def run() -> None:
        requests = Requests(tmp_path, StubErasure(House()), Turns())
        request = await requests.submit("about-u-1", "erasure", ["user_id:u-1"])
        assert kept(tmp_path)[0]["names"] == ["user_id:u-1"]
        await requests.work()
        assert request.status == "completed"
        await requests.wait(request, 1.0)

    asyncio.run(run())
    text = json.dumps(kept(tmp_path)) + str([file.name for file in tmp_path.iterdir()])
    assert "u-1" not in text
    assert "p-1" not in text


def test_a_request_that_was_cut_short_goes_on_with_what_it_knew(tmp_path):
    async def begin() -> None:
        erasure = StubErasure(House())
        erasure.gate.clear()
        requests = Requests(tmp_path, erasure, Turns())
        await requests.submit("r", "erasure", ["user_id:u"])
        work = asyncio.create_task(requests.work())
        while not kept(tmp_path)[0]["progress"]["person"]["identifiers"]:
            await asyncio.sleep(0.001)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    async def resume() -> tuple[Request, list[Person]]:
        erasure = StubErasure(House())
        requests = Requests(tmp_path, erasure, Turns())
        await requests.work()
        return requests.get("r"), erasure.before

    asyncio.run(begin())
    (tmp_path / "left.tmp").write_text("half")
    request, before = asyncio.run(resume())
    assert request.status == "completed"
    assert before == [Person(frozenset({"user_id:u"}), frozenset({"p-1"}))]
    assert not list(tmp_path.glob("*.tmp"))


def test_only_what_has_not_begun_can_be_cancelled(tmp_path):
    async def run() -> None:
        erasure = StubErasure(House())
        erasure.gate.clear()
        requests = Requests(tmp_path, erasure, Turns())
        for name in ("first", "second"):
            await requests.submit(name, "erasure", [f"user_id:{name}"])
        work = asyncio.create_task(requests.work())
        while requests.get("first").status != "in_progress":
            await asyncio.sleep(0)
        with pytest.raises(ConflictError, match="in_progress"):
            await requests.cancel("first")
        assert (await requests.cancel("second")).status == "cancelled"
        erasure.gate.set()
        await work
        assert [requests.get(name).status for name in ("first", "second")] == ["completed", "cancelled"]
        with pytest.raises(NotFoundError):
            await requests.cancel("third")

    asyncio.run(run())


def test_a_failing_disk_is_tried_again_and_then_said(tmp_path, monkeypatch):
    async def no_wait(_seconds: float) -> None:
        """Pass the time."""

    async def run() -> None:
        erasure = StubErasure(House())
        erasure.failures = [StorageError("full")] * 4
        requests = Requests(tmp_path, erasure, Turns())
        request = await requests.submit("r", "erasure", ["user_id:u"])
        monkeypatch.setattr(requests_module.asyncio, "sleep", no_wait)
        await requests.work()
        await requests.wait(request, 1.0)
        assert (request.status, request.failure, len(erasure.before)) == ("in_progress", "full", 3)

    asyncio.run(run())


def test_an_unforeseen_fault_leaves_the_others_their_right(tmp_path):
    async def run() -> None:
        erasure = StubErasure(House())
        erasure.failures = [UnicodeDecodeError("utf-8", b"x", 0, 1, "odd")]
        requests = Requests(tmp_path, erasure, Turns())
        first = await requests.submit("first", "erasure", ["user_id:u"])
        second = await requests.submit("second", "erasure", ["user_id:v"])
        await requests.work()
        await requests.wait(first, 1.0)
        assert (first.status, len(erasure.before)) == ("in_progress", 2)
        assert "UnicodeDecodeError" in first.failure
        assert second.status == "completed"

    asyncio.run(run())


def test_lines_and_memory_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(requests_module, "ERASURES_PENDING_MAX", 2)
    monkeypatch.setattr(requests_module, "REQUESTS_KEPT_MAX", 3)

    async def run() -> None:
        requests = Requests(tmp_path, StubErasure(House()), Turns())
        for number in range(2):
            await requests.submit(f"e-{number}", "erasure", [f"user_id:{number}"])
        with pytest.raises(OverloadedError):
            await requests.submit("e-2", "erasure", ["user_id:2"])
        for number in range(5):
            await requests.submit(f"a-{number}", "access", [f"user_id:{number}"])
        assert len(kept(tmp_path)) == 3
        assert requests.get("a-4").status == "completed"
        with pytest.raises(NotFoundError):
            requests.get("a-0")

    asyncio.run(run())


def test_an_erasure_takes_the_person_out_of_requests_for_access(tmp_path):
    async def run() -> None:
        house = House()
        house.add("p-1", "user_id:u")
        house.add("p-2", "user_id:v")
        requests = Requests(tmp_path, StubErasure(house), Turns())
        await requests.submit("u", "access", ["user_id:u"])
        await requests.submit("v", "access", ["user_id:v"])
        await requests.submit("e", "erasure", ["user_id:u"])
        await requests.work()
        assert requests.names_of(requests.get("u")) == []
        assert requests.names_of(requests.get("v")) == ["profile:p-2"]

    asyncio.run(run())


def test_searches_wait_in_a_bounded_line():
    async def run() -> None:
        turns = Turns(waiting_max=1)
        async with turns.turn():
            waiting = asyncio.create_task(turns.turn().__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError):
                await turns.turn().__aenter__()
        await waiting

    asyncio.run(run())
