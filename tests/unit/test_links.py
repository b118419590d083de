"""Links that are declared, suggested or hinted at: what joins people, what only waits, and what is forgotten."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.house import SECRET, House

from tailorbird.app.cli import main
from tailorbird.app.likely_links import Compared, compared, likely_links
from tailorbird.errors import InvalidInputError
from tailorbird.live import suggestions as suggestions_module
from tailorbird.live.profiles import by_identifier
from tailorbird.live.world import TABLES, World
from tailorbird.privacy.erase import Erasure, Progress
from tailorbird.privacy.export import Exporter, Views
from tailorbird.privacy.identities import Identity, check_identities, names_of
from tailorbird.privacy.person import Person, person_of
from tailorbird.process.worker import Fold
from tailorbird.schema.records import ConsentChanged, LinkDeclared, SuggestionRejected
from tailorbird.stores.memory import MemoryLog, MemoryState

YES = {"consent": {"categoryPreferences": {"Fingerprinting": True}}}
NO = {"consent": {"categoryPreferences": {"Fingerprinting": False}}}
ONE, OTHER = "anonymous_id:a", "anonymous_id:b"


def visitors(*names: str) -> House:
    house = House()
    for name in names:
        house.send(name, event="Product Viewed")
        house.clock.advance(60.0)
    return house


def declare(house: House, one: str, other: str, confidence: float = 1.0, **more: Any) -> None:
    now = house.clock.now()
    house.write(LinkDeclared(now, more.pop("t", now), (one, other), "file", confidence, **more))


def is_one(house: House, one: str, other: str) -> bool:
    found = by_identifier(house.world, one)
    return found is not None and found is by_identifier(house.world, other)


def suggested(house: House) -> dict[tuple[str, str], float]:
    return {pair: each.score for pair, each in house.world.suggestions.scan() if not each.is_rejected}


# --- declared -----------------------------------------------------------------------------------------


def test_a_declared_link_founds_adds_and_merges_like_an_event():
    house = visitors("a", "b")
    declare(house, "crm:1", "shop:1")
    assert is_one(house, "crm:1", "shop:1"), "nobody was known: one is founded"
    declare(house, ONE, "crm:2")
    assert is_one(house, ONE, "crm:2")
    declare(house, OTHER, "crm:2")
    assert is_one(house, ONE, OTHER)
    assert house.count("identity.merges") == 1


def test_a_declared_link_keeps_the_rules_and_founds_nobody_when_it_is_refused():
    house = House()
    house.send(user="u1", event="Product Viewed")
    house.send(user="u2", event="Product Viewed")
    declare(house, "user_id:u1", "user_id:u2")
    for number in range(7):
        declare(house, "user_id:u1", f"crm:{number}")
    assert not is_one(house, "user_id:u1", "user_id:u2")
    assert by_identifier(house.world, "crm:5") is None
    assert house.count("identity.links_refused") == 3


def test_a_declared_link_does_not_take_a_device_from_whose_it_is():
    house = House()
    house.send("a", "u1", event="Product Viewed")
    house.send(user="u2", event="Product Viewed")
    declare(house, ONE, "user_id:u2")
    house.send("a", event="Product Viewed")
    assert is_one(house, ONE, "user_id:u1")
    assert house.world.identifiers.get(ONE).owners == ["user_id:u1"]


@pytest.mark.parametrize(("confidence", "needs_review"), [(0.89, False), (1.0, True)])
def test_what_is_not_sure_or_needs_review_is_suggested(confidence, needs_review):
    house = visitors("a", "b")
    declare(house, ONE, OTHER, confidence, needs_review=needs_review)
    assert suggested(house) == {(ONE, OTHER): confidence}
    assert not is_one(house, ONE, OTHER)
    declare(house, OTHER, ONE)
    assert is_one(house, ONE, OTHER)
    assert suggested(house) == {}


def test_suggestions_are_bounded_and_rejections_remembered(monkeypatch):
    monkeypatch.setattr(suggestions_module, "SUGGESTIONS_MAX", 2)
    house = visitors("a", "b")
    for number in range(4):
        declare(house, ONE, f"crm:{number}", 0.5)
    assert len(suggested(house)) == 2
    assert house.count("identity.suggestions_refused") == 2
    house.write(SuggestionRejected(house.clock.now(), ("crm:0", ONE)))
    declare(house, ONE, "crm:0", 0.8)
    assert suggested(house) == {(ONE, "crm:1"): 0.5}


# --- fingerprints -------------------------------------------------------------------------------------


def test_people_with_one_fingerprint_are_suggested_and_never_joined():
    house = House()
    for name in ("a", "b", "c"):
        house.send(name, context={"fingerprint": "f", **YES})
    assert suggested(house) == {
        (ONE, OTHER): 0.5,
        (ONE, "anonymous_id:c"): pytest.approx(1 / 3),
        (OTHER, "anonymous_id:c"): pytest.approx(1 / 3),
    }
    assert len({house.profile(f"anonymous_id:{name}").id for name in "abc"}) == 3
    assert by_identifier(house.world, "fingerprint:f") is None


def test_a_fingerprint_among_external_ids_is_a_hint_too():
    house = House()
    for name in ("a", "b"):
        house.send(name, context={"externalIds": [{"id": "f", "type": "fingerprint"}], **YES})
    assert list(suggested(house)) == [(ONE, OTHER)]
    assert house.count("identity.malformed") == 0


@pytest.mark.parametrize("context", [{}, NO])
def test_without_consent_no_fingerprint_is_read(context):
    house = House()
    house.send("a", context={"fingerprint": "f", **YES})
    house.send("b", context={"fingerprint": "f", **context})
    assert suggested(house) == {}
    assert house.profile(OTHER).hints == []


def test_with_a_privacy_signal_no_fingerprint_is_read():
    house = House()
    house.send("a", context={"fingerprint": "f", **YES}, gpc=True)
    assert house.profile(ONE).hints == []


@pytest.mark.parametrize("by_api", [True, False])
def test_consent_taken_back_forgets_the_fingerprints(by_api):
    house = House()
    house.send("a", context={"fingerprint": "f", **YES})
    if by_api:
        house.write(ConsentChanged(house.clock.now(), ONE, {"fingerprinting": False}))
    else:
        house.send("a", context=NO)
    assert house.profile(ONE).hints == []
    house.send("b", context={"fingerprint": "f", **YES})
    assert suggested(house) == {}


def test_a_fingerprint_of_many_tells_nothing():
    house = House()
    for number in range(20):
        house.send(f"v{number}", context={"fingerprint": "f", **YES})
    assert len(suggested(house)) == 5 * 4 / 2
    assert house.count("identity.hints_refused") == 15


# --- people compared in a batch -----------------------------------------------------------------------


def person(name: str, user: str | None = None, **traits: str) -> Compared:
    return Compared(name, user, traits)


CROWD = [
    person(f"user_id:{i}", f"user_id:{i}", first_name=f"first{i % 7}", last_name=f"last{i % 11}", email=f"{i}@x.example")
    for i in range(80)
]  # fmt: skip


def test_people_whose_traits_agree_are_likely_one():
    same = person("anonymous_id:a", first_name="first3", last_name="last3", email="3@x.example")
    found = likely_links([*CROWD, same], 0.9)
    assert [each.identifiers for each in found] == [("anonymous_id:a", "user_id:3")]
    assert found[0].score > 0.99


def test_two_known_users_are_not_suggested_and_few_people_are_compared_too():
    one = person("user_id:1", "user_id:1", email="x@y", first_name="jo")
    other = person("user_id:2", "user_id:2", email="x@y", first_name="jo")
    assert likely_links([one, other], 0.5) == []
    assert likely_links([one], 0.5) == []
    assert likely_links([one, person("anonymous_id:a", email="x@y", first_name="jo")], 0.5)


def test_traits_are_compared_as_they_are_meant():
    house = House()
    address = {"postalCode": 12345}
    traits = {"firstName": " Zoë ", "phone": "+49 (30) 1", "address": address, "plan": "pro"}
    house.send("a", type="identify", traits=traits)
    house.send("b", type="identify", traits={"email": "only@one.example"})
    (found,) = compared([house.profile(ONE), house.profile(OTHER)])
    assert found.traits == {"first_name": "zoe", "phone": "49301", "postcode": "12345"}


# --- privacy ------------------------------------------------------------------------------------------


class Installation:
    """A house as privacy sees one."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.clock, self.log, self.rejects = house.clock, house.log, MemoryLog()

    @property
    def world(self) -> World:
        return self.house.world

    def write(self, record: Any) -> int:
        return self.house.write(record)

    async def durable(self) -> None:
        """Memory is as durable as it gets."""

    async def count_history(self, _profiles: Any, _offsets: Any) -> int:
        return 0

    async def refold(self) -> None:
        self.house.world = World(MemoryState(TABLES))
        self.house.fold = Fold(self.world, SECRET, self.log)
        for record in self.log.read():
            self.house.fold.apply(record)
        self.world.offset = self.log.end


def test_erasure_takes_declared_links_suggestions_hints_and_external_ids():
    house = visitors("b", "c")
    house.send(
        "a", "u1", type="identify", traits={"email": "jo@x.example"}, context={"fingerprint": "f", **YES}
    )
    house.send(
        "a", "u1", context={"externalIds": [{"id": "crm-7", "type": "crm"}], "device": {"id": "phone-7"}}
    )
    house.send("b", context={"fingerprint": "f", **YES})
    declare(house, "crm:crm-7", "shop:shop-7")
    declare(house, OTHER, "shop:shop-7", 0.5)
    house.write(SuggestionRejected(house.clock.now(), ("user_id:u1", "anonymous_id:c")))
    declare(house, OTHER, "anonymous_id:c", 0.5)

    async def keep(_progress: Progress) -> None:
        """Nothing is cut short here."""

    proof = asyncio.run(Erasure(Installation(house), SECRET).erase(["crm:crm-7"], Progress(), keep))
    assert proof["remaining"] == 0
    assert proof["stores"]["log"]["kinds"]["declaredLinks"] == 3
    house.world.checkpoint()
    kept = b"\n".join(
        part
        for table in TABLES
        for key, value in house.world.store.scan(table)
        for part in (key.encode(), value)
    ) + b"\n".join(record.payload for record in house.log.read())
    for name in (b"u1", b"crm-7", b"shop-7", b"phone-7", b"jo@x.example"):
        assert name not in kept, name
    assert list(suggested(house)) == [(OTHER, "anonymous_id:c")]
    assert len(house.world.hints.get(next(iter(house.profile(OTHER).hints)))) == 1


def test_signed_out_use_that_a_user_took_over_is_not_erased_as_the_devices():
    house = House()
    for user in ("u1", "u2", None, "u1"):
        house.send("tablet", user, event="Product Viewed")
    assert person_of(house.world, ["device:tablet"]) == Person()
    house.send("tablet", event="Product Viewed")
    (name,) = person_of(house.world, ["device:tablet"]).identifiers
    assert (name, house.profile(name).id) == ("device.3:tablet", house.profile("device.3:tablet").id)
    assert "user_id:u1" in person_of(house.world, ["user_id:u1"]).identifiers


def test_an_export_holds_declared_and_suggested_links():
    house = visitors("a", "b")
    declare(house, ONE, "crm:1")
    declare(house, ONE, OTHER, 0.5)
    house.world.checkpoint()
    exporter = Exporter(
        Erasure(Installation(house), SECRET),
        Views(lambda profile: {"id": profile.id}, lambda key, _: {"id": key}),
    )
    document = json.loads(asyncio.run(exporter.export([ONE])).document)
    assert [each["identifiers"] for each in document["declaredLinks"]] == [[ONE, "crm:1"], [ONE, OTHER]]
    assert document["suggestedLinks"][0]["score"] == 0.5


def test_a_data_subject_may_be_named_by_an_external_id():
    good = [Identity("external_id", "crm:7"), Identity("device_id", "phone")]
    check_identities(good)
    assert names_of(good) == ["crm:7", "device_id:phone"]
    for value in ("7", "profile:p", "crm:", "crm:null", "C R M:7"):
        with pytest.raises(InvalidInputError, match="identity_value"):
            check_identities([Identity("external_id", value)])


# --- on the command line, in a folder -----------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    code = main(["links", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_links_are_imported_suggested_and_taken_back_in_a_folder(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    data = ("--data", tmp_path / "data")
    file = tmp_path / "graph.csv"
    file.write_text(
        "one,other,confidence\nanonymous_id:a,crm:1,\ncrm:1,user_id:u,\nuser_id:u,shop:1,0.2\nx,y,\n"
    )
    code, imported = run(capsys, "import", file, *data)
    assert (code, imported["linked"], imported["suggested"], imported["wrong"]) == (1, 2, 1, 1)
    assert imported["errors"][0]["path"].startswith("row 4: identifiers[0]")
    code, shown = run(capsys, "show", *data)
    assert [each["identifiers"] for each in shown["suggestions"]] == [["shop:1", "user_id:u"]]
    assert run(capsys, "accept", "user_id:u", "shop:1", *data)[0] == 0
    code, revoked = run(capsys, "revoke", "anonymous_id:a", "crm:1", *data)
    assert revoked["revoked"] is True
    assert run(capsys, "restore", "anonymous_id:a", "crm:1", *data)[1]["revoked"] is False
    code, compared_ = run(capsys, "suggest", *data)
    assert (code, compared_["people"], compared_["suggested"]) == (0, 0, 0)
