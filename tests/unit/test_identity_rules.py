"""The rules of identity: what is configured, and what becomes of events that would break one."""

from typing import Any

import msgspec
import pytest
from tests.house import SECRET, House

from tailorbird.app.cli import main
from tailorbird.app.config import Config, load_config, load_keys
from tailorbird.app.server import declare_identity_rules, open_engine
from tailorbird.errors import ConfigurationError
from tailorbird.features.state import ORDERS
from tailorbird.live.profiles import by_identifier, find, founding
from tailorbird.schema.identity import IdentifierType, IdentityRules, check_rules, with_defaults
from tailorbird.schema.profile import Profile
from tailorbird.schema.records import KINDS, ConsentChanged, IdentityRulesPut

DAY = 86_400.0


def rules(**fields: Any) -> IdentityRules:
    """Return rules as a configuration states them."""
    return check_rules(msgspec.convert(with_defaults(fields), IdentityRules))


def ruled(**fields: Any) -> House:
    """Return a house in which these rules hold."""
    house = House()
    house.write(IdentityRulesPut(house.clock.now(), rules(**fields)))
    return house


def crm(*values: str, kind: str = "crm") -> dict[str, Any]:
    ids = [{"id": value, "type": kind, "collection": "users", "encoding": "none"} for value in values]
    return {"externalIds": ids}


def email(value: str) -> dict[str, Any]:
    return {"type": "identify", "traits": {"email": value}}


def names(profile: Profile, kind: str) -> set[str]:
    return {name.partition(":")[2] for name in profile.identifiers if name.startswith(f"{kind}:")}


def is_one(house: House, one: str, other: str) -> bool:
    found = by_identifier(house.world, one), by_identifier(house.world, other)
    return found[0] is not None and found[0] is found[1]


# --- configuration ------------------------------------------------------------------------------------


def test_without_a_word_the_rules_are_segments():
    stated = {each.key: each for each in IdentityRules().types}
    assert (stated["user_id"].limit, stated["user_id"].is_unique) == (1, True)
    assert (stated["anonymous_id"].limit, stated["anonymous_id"].window_seconds) == (5, 7 * DAY)
    assert (stated["email"].limit, IdentifierType("crm").limit) == (5, 5)
    assert (IdentityRules().merges_max, IdentityRules().mappings_max) == (100, 1_000)
    house = House()
    assert house.world.identity.ordered(["zip:1", "anonymous_id:a", "email:e", "crm:1", "user_id:u"]) == [
        "user_id:u", "email:e", "anonymous_id:a", "crm:1", "zip:1",
    ]  # fmt: skip


def test_a_configuration_says_only_what_differs(tmp_path):
    file = tmp_path / "t.toml"
    file.write_text(
        '[identity]\nblocked = ["test-*"]\nmerges_max = 7\n'
        '[[identity.types]]\nkey = "anonymous_id"\nlimit = 2\n'
        '[[identity.types]]\nkey = "email"\nis_unique = true\n'
        '[[identity.types]]\nkey = "crm"\nwindow_seconds = inf\nttl_seconds = 60.0\n'
    )
    stated = load_config(file, {}).identity
    types = {each.key: each for each in stated.types}
    assert (types["anonymous_id"].limit, types["anonymous_id"].window_seconds) == (2, 7 * DAY)
    assert (types["email"].is_unique, types["email"].priority) == (True, 10)
    assert (types["crm"].window_seconds, types["crm"].ttl_seconds) == (None, 60.0)
    assert (stated.blocked, stated.merges_max, stated.mappings_max) == (("test-*",), 7, 1_000)
    assert types["user_id"] == next(each for each in IdentityRules().types if each.key == "user_id")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('types = [{key = "Has Space"}]', ["identity.types[", "key"]),
        ('types = [{key = "crm", limit = 0}]', [">= 1", "identity.types["]),
        ('types = [{key = "crm", limits = 3}]', ["limits", "identity.types["]),
        ('types = [{key = "crm"}, {key = "crm"}]', ["each type once"]),
        ('types = [{key = "device"}]', ["none of profile, device", "identity.types["]),
        ('types = [{key = "user_id", is_unique = false}]', ["is_unique", "true for user_id"]),
        ('types = [{key = "user_id", ttl_seconds = 60.0}]', ["ttl_seconds", "a user stays one"]),
        ('types = [{key = "crm", priority = 0}]', ["priority", "the user id's"]),
        ("merges_max = 1000", ["<= 100", "identity.merges_max"]),
        ("confidence_min = 2.0", ["<= 1.0", "identity.confidence_min"]),
        ("limit = 3", ["unknown field `limit`", "identity"]),
        ("types = 3", ["identity.types"]),
    ],
)
def test_a_rule_that_cannot_be_kept_is_named_by_its_path(tmp_path, text, words):
    file = tmp_path / "t.toml"
    file.write_text(f"[identity]\n{text}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_config(file, {})
    for word in [str(file), *words]:
        assert word in str(caught.value)


def test_rules_hold_for_what_comes_after_them_and_survive_a_restart():
    house = House()
    for number in range(4):
        house.send("a", context=crm(f"c{number}"))
    stated = rules(types=[{"key": "crm", "limit": 2}])
    house.write(IdentityRulesPut(house.clock.now(), stated))
    house.send("a", context=crm("c9"))
    profile = house.profile("anonymous_id:a")
    assert names(profile, "crm") == {"c0", "c1", "c2", "c3"}
    assert profile.refused == {"limit.crm": 1}
    house.world.checkpoint()
    again = type(house.world)(house.store)
    assert again.identity.stated == stated


# --- what an event names ------------------------------------------------------------------------------


def test_every_identifier_of_an_event_finds_the_person():
    house = House()
    context = crm("7") | {"device": {"id": "phone"}}
    house.send("a", "u1", type="identify", traits={"email": " Jo@X.example "}, context=context)
    profile = house.profile("user_id:u1")
    assert set(profile.identifiers) == {
        "user_id:u1", "anonymous_id:a", "email:jo@x.example", "device_id:phone", "crm:7",
    }  # fmt: skip
    for name in profile.identifiers:
        assert house.profile(name) is profile


def test_no_profile_founds_one_adds_and_several_merge():
    house = House()
    house.send("a", event="Order Completed", context=crm("1"))
    house.send("b", event="Order Completed", context=crm("1"))
    assert is_one(house, "anonymous_id:a", "anonymous_id:b"), "one profile: the other identifier is added"
    house.send("c", event="Order Completed", context=crm("2"))
    house.send("c", event="Order Completed", context=crm("1", "2"))
    assert is_one(house, "crm:1", "crm:2")
    assert house.profile("anonymous_id:c").state[ORDERS] == 4
    assert house.count("identity.merges") == 1


@pytest.mark.parametrize(
    "listed",
    [
        "text", {"id": "1"}, [7], [{"id": "1"}], [{"type": "crm"}], [{"id": [], "type": "crm"}],
        [{"id": "1", "type": "crm", "collection": "accounts"}], [{"id": "1", "type": "crm", "encoding": "md5"}],
        [{"id": "1", "type": "user_id"}], [{"id": "1", "type": "profile"}], [{"id": "1", "type": "A B"}],
        [{"id": "x" * 501, "type": "crm"}],
    ],
)  # fmt: skip
def test_external_ids_that_cannot_be_read_are_counted_and_harm_nothing(listed):
    house = House()
    house.send("a", context={"externalIds": listed})
    assert set(house.profile("anonymous_id:a").identifiers) == {"anonymous_id:a"}
    assert house.count("identity.malformed") == 1


def test_an_external_e_mail_is_an_e_mail():
    house = House()
    house.send("a", context=crm(" A@B.example", kind="email"))
    assert house.profile("email:a@b.example") is house.profile("anonymous_id:a")


def test_blocked_values_identify_nobody():
    house = ruled(blocked=["test-*"], types=[{"key": "crm", "blocked": ["00?"]}])
    house.send("TEST-1", "u1", context=crm("001", "null", "0012"))
    assert set(house.profile("user_id:u1").identifiers) == {"user_id:u1", "crm:0012"}
    house.send("test-2", event="Product Viewed")
    assert find(house.world, "test-2", None) is None
    assert house.count("identity.blocked.anonymous_id") == 2
    assert house.count("identity.blocked.crm") == 2


# --- limits -------------------------------------------------------------------------------------------


def test_past_a_limit_the_lowest_identifier_is_left_out_and_the_case_is_visible():
    house = House()
    for number in range(7):
        house.send("a", context=crm(f"c{number}"), event="Order Completed")
    profile = house.profile("anonymous_id:a")
    assert names(profile, "crm") == {f"c{number}" for number in range(5)}
    assert profile.state[ORDERS] == 7
    assert profile.refused == {"limit.other": 2}
    assert house.count("identity.limit.other") == 2


def test_a_limit_of_a_window_bounds_the_window_alone():
    house = House()
    for week in range(3):
        for number in range(7):
            house.send(f"a{week}-{number}", "u1", event="Product Viewed")
        house.clock.advance(7 * DAY)
    assert len(names(house.profile("user_id:u1"), "anonymous_id")) == 15
    assert house.count("identity.limit.anonymous_id") == 6


def test_two_values_of_a_unique_type_are_two_people():
    house = ruled(types=[{"key": "crm", "is_unique": True}])
    house.send("a", context=crm("1"))
    house.send("b", context=crm("2"))
    house.send("b", context=crm("1"))
    house.send("a", context=crm("2"))
    assert not is_one(house, "crm:1", "crm:2")
    assert house.count("identity.unique.crm") > 0


def test_what_merges_nobody_finds_whoever_had_it_first():
    house = ruled(types=[{"key": "email", "is_merging": False}])
    house.send("a", **email("jo@x.example"))
    house.send("b", **email("jo@x.example"))
    assert is_one(house, "email:jo@x.example", "anonymous_id:a"), "it is added where it names nobody"
    assert not is_one(house, "anonymous_id:b", "anonymous_id:a"), "nobody becomes its owner by saying it"
    house.send("c", event="Product Viewed")
    house.send("c", **email("jo@x.example"))
    assert not is_one(house, "anonymous_id:c", "anonymous_id:a")
    house.send("a", **email("jo@x.example"))
    assert house.count("identity.merging.email") == 2
    house.send(None, "null", event="Order Completed", context={"traits": {"email": "jo@x.example"}})
    assert house.profile("anonymous_id:a").state[ORDERS] == 1, "alone, it finds"


def test_merges_of_one_profile_are_bounded():
    house = ruled(merges_max=3)
    for number in range(8):
        house.send(f"a{number}", event="Product Viewed")
        house.clock.advance(8 * DAY)
        house.send(f"a{number}", "u1", event="Product Viewed")
    profile = house.profile("user_id:u1")
    assert sum(bool(link.merged) for link in profile.links) == 3
    assert house.count("identity.merges_max") == 4
    assert profile.refused == {"merges_max": 4}


def test_the_user_comes_first_whatever_else_an_event_names():
    house = House()
    house.send("a", "u1", context=crm("1"))
    house.send("b", "u2", context=crm("1"), event="Order Completed")
    assert not is_one(house, "user_id:u1", "user_id:u2")
    assert house.profile("user_id:u2").state[ORDERS] == 1
    assert is_one(house, "crm:1", "user_id:u1")
    assert is_one(house, "anonymous_id:b", "user_id:u2")


# --- time ---------------------------------------------------------------------------------------------


def test_an_identifier_that_was_not_seen_for_its_time_names_nobody_and_begins_anew():
    house = ruled(types=[{"key": "anonymous_id", "ttl_seconds": 30 * DAY}])
    house.send("a", "u1", event="Order Completed")
    house.clock.advance(29 * DAY)
    house.send("a", event="Order Completed")
    assert house.profile("user_id:u1").state[ORDERS] == 2
    house.clock.advance(31 * DAY)
    t = house.clock.now()
    assert find(house.world, "a", None, t) is None
    expected = founding(house.world, SECRET, ("a", None), t)
    house.send("a", event="Order Completed")
    again = house.profile("anonymous_id:a")
    assert (expected.identifier, expected.profile_id) == ("anonymous_id:a", again.id)
    assert again is not house.profile("user_id:u1")
    assert (again.state[ORDERS], house.profile("user_id:u1").state[ORDERS]) == (1, 2)
    assert "anonymous_id:a" not in house.profile("user_id:u1").identifiers
    house.send("a", "u2", event="Order Completed")
    assert is_one(house, "anonymous_id:a", "user_id:u2"), "the device has no owner of before"


def test_a_decision_meets_the_same_person_as_the_event_after_it_when_a_time_ended():
    house = ruled(types=[{"key": "anonymous_id", "ttl_seconds": DAY}])
    house.declare("hero", variants=[{"id": "a"}])
    house.send("a", event="Product Viewed")
    house.clock.advance(2 * DAY)
    decided = house.decide("a", "hero").decision.profile
    house.send("a", event="Product Viewed")
    assert house.profile("anonymous_id:a").id == decided


def test_a_clock_that_runs_backwards_ends_nothing():
    house = ruled(types=[{"key": "anonymous_id", "ttl_seconds": DAY}])
    house.send("a", "u1", event="Product Viewed")
    for days in (0.5, -400.0, 0.9, -3.0):
        house.send("a", event="Order Completed", at=days * DAY)
    assert house.profile("user_id:u1").state[ORDERS] == 4
    assert is_one(house, "anonymous_id:a", "user_id:u1")


# --- aliases and groups -------------------------------------------------------------------------------


def test_chains_and_cycles_of_aliases_end_and_join_no_two_users():
    house = House()
    house.send("a", event="Order Completed")
    for previous, user in (("a", "b"), ("b", "c"), ("c", "a"), ("a", "b"), ("a", "a")):
        house.send(user=user, type="alias", previousId=previous)
    users = {house.profile(f"user_id:{name}").id for name in "abc"}
    assert len(users) == 3
    assert is_one(house, "anonymous_id:a", "user_id:b"), "the anonymous a is the first who took it"
    assert house.count("identity.merge_of_known_users_refused") == 3


def test_a_group_is_of_a_person_and_joins_nobody():
    house = House()
    for user in ("u1", "u2"):
        house.send(f"a-{user}", user, type="group", groupId="acme", traits={"email": "info@acme.example"})
    house.send("a-u1", "u1", type="group", groupId="beta")
    house.send("a-u1", "u1", type="group", groupId="acme")
    assert house.profile("user_id:u1").groups == ["beta", "acme"]
    assert house.profile("user_id:u2").groups == ["acme"]
    assert not is_one(house, "user_id:u1", "user_id:u2")
    assert by_identifier(house.world, "email:info@acme.example") is None


# --- shared devices -----------------------------------------------------------------------------------


def shared() -> House:
    """Return a house with a device on which two people signed in."""
    house = House()
    house.send("tablet", "u1", event="Product Viewed")
    house.clock.advance(60.0)
    house.send("tablet", "u2", event="Product Viewed")
    house.clock.advance(60.0)
    return house


def orders(house: House, name: str) -> float:
    return house.profile(name).state.item(ORDERS)


def test_who_signs_in_takes_over_what_was_done_since_the_last_sign_in_and_no_more():
    house = shared()
    for _ in range(2):
        house.send("tablet", event="Order Completed")
    assert (orders(house, "user_id:u1"), orders(house, "user_id:u2")) == (0, 0)
    assert orders(house, "device:tablet") == 2
    house.send("tablet", "u1", event="Product Viewed")
    assert (orders(house, "user_id:u1"), orders(house, "user_id:u2")) == (2, 0)
    house.send("tablet", event="Order Completed")
    assert (orders(house, "user_id:u1"), orders(house, "user_id:u2")) == (2, 0)
    house.send("tablet", "u2", event="Product Viewed")
    assert (orders(house, "user_id:u1"), orders(house, "user_id:u2")) == (2, 1)
    house.send("tablet", "u1", event="Product Viewed")
    assert (orders(house, "user_id:u1"), orders(house, "user_id:u2")) == (2, 1)


def test_a_third_user_takes_over_too_and_stays_apart_from_the_others():
    house = shared()
    house.send("tablet", event="Order Completed")
    house.send("tablet", "u3", event="Product Viewed")
    assert orders(house, "user_id:u3") == 1
    assert len({house.profile(f"user_id:u{number}").id for number in (1, 2, 3)}) == 3


def test_decisions_on_a_shared_device_are_of_the_stretch_they_were_made_in():
    house = shared()
    house.declare("hero", variants=[{"id": "a"}])
    first = house.decide("tablet", "hero").decision.profile
    house.send("tablet", event="Product Viewed")
    house.send("tablet", "u1", event="Product Viewed")
    assert house.profile(f"profile:{first}") is house.profile("user_id:u1")
    second = house.decide("tablet", "hero").decision.profile
    assert second != first
    house.send("tablet", "u2", event="Product Viewed")
    assert house.profile(f"profile:{second}") is house.profile("user_id:u2")


def test_a_phone_that_two_people_have_joins_neither_of_them():
    house = House()
    phone = {"device": {"id": "phone"}}
    house.send("a1", "u1", context=phone)
    house.send("a2", "u2", context=phone)
    house.send("a3", event="Order Completed", context=phone)
    assert is_one(house, "device_id:phone", "user_id:u1")
    assert (orders(house, "user_id:u1"), orders(house, "user_id:u2")) == (0, 0)
    assert orders(house, "anonymous_id:a3") == 1


def test_a_device_linked_by_an_e_mail_is_not_the_next_users():
    house = House()
    house.send("home", "u1", **email("jo@x.example"))
    house.send("tablet", **email("jo@x.example"))
    assert is_one(house, "anonymous_id:tablet", "user_id:u1")
    assert find(house.world, "tablet", "u2") is None
    house.send("tablet", "u2", event="Order Completed")
    house.send("tablet", event="Order Completed")
    assert (orders(house, "user_id:u1"), orders(house, "user_id:u2")) == (0, 1)
    assert orders(house, "device:tablet") == 1


# --- very many ----------------------------------------------------------------------------------------


def test_many_thousands_of_identifiers_on_one_visitor_stay_bounded_and_counted():
    house = ruled(mappings_max=300)
    for number in range(400):
        values = [f"c{number}-{index}" for index in range(10)]
        house.send("a", "u1", context=crm(*values))
        house.send(f"a{number}", "u1", event="Product Viewed")
        house.send(user="u1", **email(f"{number}@x.example"))
        house.send(user="u1", context={"device": {"id": f"d{number}"}})
        house.clock.advance(7 * DAY)
    profile = house.profile("user_id:u1")
    assert (len(profile.identifiers), len(profile.links)) == (300, 300)
    assert [len(names(profile, kind)) for kind in ("crm", "email", "device_id")] == [5, 5, 5]
    assert sum(profile.refused.values()) == 400 * 13 + 2 - 300, "each that is not linked is counted"
    for rule, times in profile.refused.items():
        assert house.count(f"identity.{rule}") == times, rule
    assert len(list(house.world.profiles.scan())) == 1


def test_consent_said_of_an_external_id_is_the_persons():
    house = House()
    house.send("a", context=crm("1"))
    house.write(ConsentChanged(house.clock.now(), "crm:1", {"ads": False}))
    assert house.profile("anonymous_id:a").consent == {"ads": False}


def test_the_rules_of_a_configuration_are_written_once_and_again_when_they_change(tmp_path):
    keys, _ = load_keys(tmp_path)
    config = Config(data=str(tmp_path), identity=rules(merges_max=3))
    for stated in (config.identity, config.identity, rules(merges_max=4)):
        engine = open_engine(config, keys)
        declare_identity_rules(engine, stated)
        engine.close()
    engine = open_engine(config, keys)
    found = [record for record in engine.log.read() if record.kind == KINDS[IdentityRulesPut]]
    assert engine.world.identity.stated.merges_max == 4
    engine.close()
    assert len(found) == 2


def test_check_says_which_rule_is_wrong(tmp_path, capsys):
    file = tmp_path / "tailorbird.toml"
    file.write_text('[identity]\ntypes = [{key = "crm", limit = 0}]\n')
    assert main(["check", "--config", str(file)]) == 2
    assert "$.identity.types" in capsys.readouterr().err
    file.write_text('[identity]\ntypes = [{key = "crm", limit = 2}]\n')
    assert main(["check", "--config", str(file)]) == 0
