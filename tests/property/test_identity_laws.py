"""Laws of identity under every rule: bounds hold, order does not matter, and what folds once folds again the same."""

import itertools
import json
from collections import Counter
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.house import House, folded, records_of, state_of

from tailorbird.features.state import ORDERS
from tailorbird.live.identifiers import is_segment_type, kind_of
from tailorbird.live.profiles import by_identifier
from tailorbird.live.revocations import Pair, pair_of
from tailorbird.live.world import World
from tailorbird.schema.identity import IdentityRules, check_rules, with_defaults
from tailorbird.schema.profile import Profile
from tailorbird.schema.records import (
    IdentityRulesPut,
    LinkDeclared,
    LinkRevoked,
    LogRecord,
    SuggestionRejected,
)

DAY = 86_400.0
TIGHT = {
    "merges_max": 2,
    "mappings_max": 9,
    "types": [
        {"key": "anonymous_id", "limit": 2, "window_seconds": 3 * DAY},
        {"key": "email", "limit": 2},
        {"key": "crm", "is_unique": True},
        {"key": "loyalty", "is_merging": False, "priority": 5},
        {"key": "device_id", "limit": 1, "ttl_seconds": 5 * DAY},
    ],
}
ROOMY = {"types": [{"key": "anonymous_id", "limit": 1_000, "window_seconds": float("inf")}]}
lawfully = settings(max_examples=80, deadline=None)

anonymous = st.sampled_from(["a1", "a2", "a3", "a4", "a5"])
users = st.sampled_from(["u1", "u2"])
context = st.fixed_dictionaries(
    {},
    optional={
        "device": st.sampled_from([{"id": "d1"}, {"id": "d2"}]),
        "externalIds": st.lists(
            st.builds(
                lambda kind, value: {"id": value, "type": kind},
                st.sampled_from(["crm", "loyalty", "email", "shop"]),
                st.sampled_from(["1", "2", "3"]),
            ),
            max_size=3,
        ),
        "fingerprint": st.sampled_from(["f1", "f2"]),
        "consent": st.just({"categoryPreferences": {"fingerprinting": True}}),
    },
)
someone = st.tuples(anonymous | st.none(), users | st.none()).filter(any)
named = st.sampled_from(
    ["user_id:u1", "user_id:u2", "anonymous_id:a1", "anonymous_id:a2", "crm:1", "crm:2", "email:1", "shop:1"]
)
pairs = st.tuples(named, named).filter(lambda pair: pair[0] != pair[1])
happenings = st.one_of(
    st.tuples(st.just("track"), someone, context),
    st.tuples(st.just("identify"), someone, st.sampled_from(["x@y.example", "z@y.example", "w@y.example"])),
    st.tuples(st.just("track"), someone, st.just({})),
    st.tuples(st.just("alias"), st.sampled_from(["a1", "a2", "u1", "u2"]), users),
    st.tuples(st.just("group"), someone, st.just({})),
    st.tuples(st.just("declare"), pairs, st.sampled_from([0.5, 1.0])),
    st.tuples(st.just("reject"), pairs, st.none()),
    st.tuples(st.just("wait"), st.sampled_from([60.0, DAY, 4 * DAY, -2 * DAY]), st.none()),
)
histories = st.lists(happenings, max_size=25)


def happen(house: House, step: tuple[str, Any, Any]) -> None:
    kind, who, what = step
    house.clock.advance(1.0)
    now = house.clock.now()
    match kind:
        case "track":
            house.send(*who, event="Product Viewed", context=what)
        case "identify":
            house.send(*who, type="identify", traits={"email": what})
        case "group":
            house.send(*who, type="group", groupId="acme", traits={"email": "x@y.example"})
        case "alias":
            house.send(user=what, type="alias", previousId=who)
        case "declare":
            house.write(LinkDeclared(now, now, who, "file", what))
        case "reject":
            house.write(SuggestionRejected(now, who))
        case "wait":
            house.clock.advance(who)


def lived(history: list[tuple[str, Any, Any]], stated: dict[str, Any]) -> House:
    house = House(holdout_share=0.5)
    rules = check_rules(msgspec.convert(with_defaults(stated), IdentityRules))
    house.write(IdentityRulesPut(house.clock.now(), rules))
    for step in history:
        happen(house, step)
    return house


def people(world: World) -> list[Profile]:
    return [profile for _, profile in world.profiles.scan()]


def base(name: str) -> str:
    return "device" if is_segment_type(kind_of(name)) else kind_of(name)


@lawfully
@given(histories, st.sampled_from([TIGHT, ROOMY, {}]))
def test_limits_hold_unique_values_stay_apart_and_everybody_is_one_person(history, stated):
    house = lived(history, stated)
    rules = house.world.identity
    everybody = {profile.id: profile for profile in people(house.world)}
    for profile in everybody.values():
        counts = Counter(map(base, profile.identifiers))
        for kind, count in counts.items():
            each = rules.of(kind)
            if each.limit_ever is not None:
                assert count <= each.limit_ever, (kind, profile.identifiers)
                continue
            times = sorted(
                link.t for link in profile.links if base(link.identifier) == kind and not link.merged
            )
            for first, last in zip(times, times[each.limit :], strict=False):
                assert last - first >= each.window_seconds, (kind, times)
        assert len(profile.identifiers) <= rules.stated.mappings_max
        merges = [link for link in profile.links if link.merged]
        assert sum(base(link.identifier) != "device" for link in merges) <= rules.stated.merges_max
        for name in profile.identifiers:
            assert house.world.identifiers.get(name).profile == profile.id
    for name, entry in house.world.identifiers.scan():
        assert entry.profile in everybody, f"{name} leads to nobody"
        assert name in everybody[entry.profile].identifiers or name.startswith("profile:")


@lawfully
@given(histories, st.sampled_from([TIGHT, ROOMY]))
def test_a_rebuild_gives_the_same_state_byte_for_byte(history, stated):
    house = lived(history, stated)
    house.world.checkpoint()
    assert state_of(folded(records_of(house))) == state_of(house.world)


def without(fields: dict[str, Any], name: str) -> None:
    """Take an identifier out of an event."""
    kind, _, value = name.partition(":")
    context = fields.get("context") or {}
    if kind == "anonymous_id":
        for field in ("anonymousId", "previousId"):
            if fields.get(field) == value:
                del fields[field]
    elif kind == "device_id":
        if (context.get("device") or {}).get("id") == value:
            del context["device"]
    else:
        listed = context.get("externalIds") or []
        context["externalIds"] = [each for each in listed if (each["type"], each["id"]) != (kind, value)]


def names_of(fields: dict[str, Any]) -> set[str]:
    context = fields.get("context") or {}
    is_alias = fields["type"] == "alias"
    found = {
        "user_id": fields.get("userId"),
        "anonymous_id": fields.get("previousId") if is_alias else fields.get("anonymousId"),
        "device_id": (context.get("device") or {}).get("id"),
    }
    return {f"{kind}:{value}" for kind, value in found.items() if value} | {
        f"{each['type']}:{each['id']}" for each in context.get("externalIds") or []
    }


def never_named(record: LogRecord, pair: Pair, house: House) -> LogRecord | None:
    """Return a record that does not name a pair together: what comes last of it is not named."""
    first, last = house.world.identity.ordered(pair)
    if isinstance(record, LinkDeclared):
        return None if pair_of(*record.identifiers) == pair and record.confidence == 1.0 else record
    if not hasattr(record, "e"):
        return record
    fields = json.loads(bytes(record.e))
    if {first, last} <= names_of(fields):
        without(fields, last)
    return msgspec.structs.replace(record, e=msgspec.Raw(json.dumps(fields).encode()))


revocable = st.sampled_from(
    [
        "user_id:u1",
        "anonymous_id:a1",
        "anonymous_id:a2",
        "device_id:d1",
        "crm:1",
        "email:1",
        "loyalty:2",
        "shop:1",
    ]
)


@lawfully
@given(
    histories,
    st.tuples(revocable, revocable).filter(lambda pair: pair[0] != pair[1]),
    st.sampled_from([TIGHT, {}]),
)
def test_any_two_identifiers_whose_link_is_revoked_are_as_if_never_named_together(history, pair, stated):
    house = lived(history, stated)
    pair = pair_of(*pair)
    records = records_of(house)
    revoked = LinkRevoked(2e9, pair)
    apart = folded([*records, revoked])
    kept = [never_named(record, pair, house) for record in records]
    # In the place of a declared link that is gone stands one of nobody, so that offsets stay.
    nobody = SuggestionRejected(0.0, ("shop:nobody", "shop:none"))
    never = folded([*(record or nobody for record in kept), revoked])
    but = ("revoked", "suggestion", "counts")
    assert state_of(apart, *but) == state_of(never, *but)
    assert not apart.revocations.is_stale


def test_what_was_taken_over_on_a_shared_device_can_be_given_back():
    house = House()
    for user in ("u1", "u2", None, "u1"):
        house.send("tablet", user, event="Order Completed")
    assert house.profile("user_id:u1") is house.profile("device:tablet")
    pair = pair_of("device:tablet", "user_id:u1")
    apart = folded([*records_of(house), LinkRevoked(2e9, pair)])
    one, other = by_identifier(apart, "device:tablet"), by_identifier(apart, "user_id:u1")
    assert one is not other
    assert (one.state[ORDERS], other.state[ORDERS]) == (1, 2)


merging = st.lists(
    st.tuples(st.sampled_from(["a1", "a2", "a3", "a4", "a5", "a6"]), st.sampled_from(["1", "2", "3"])),
    min_size=1,
    max_size=6,
    unique=True,
)


@lawfully
@given(merging, st.randoms(use_true_random=False))
def test_merges_in_any_order_give_the_same_people(links, random):
    def people_of(order: list[tuple[str, str]]) -> set[tuple[Any, ...]]:
        house = lived([], ROOMY)
        for name in ("a1", "a2", "a3", "a4", "a5", "a6"):
            house.send(name, event="Order Completed", properties={"revenue": 2.0, "product_id": f"i-{name}"})
            house.clock.advance(60.0)
        ids = {profile.id: min(profile.identifiers) for profile in people(house.world)}
        for who, value in order:
            pair = (f"anonymous_id:{who}", f"shop:{value}")
            house.write(LinkDeclared(house.clock.now(), house.clock.now(), pair, "file"))
        return {
            (
                ids.get(profile.id),
                profile.assignment_key,
                frozenset(profile.identifiers),
                profile.state[:8].tobytes(),
                frozenset(profile.purchases.items()),
            )
            for profile in people(house.world)
        }

    shuffled = list(links)
    random.shuffle(shuffled)
    assert people_of(links) == people_of(shuffled)


def test_the_parts_of_a_chain_join_whatever_their_order():
    for order in itertools.permutations([("a1", "1"), ("a2", "1"), ("a2", "2"), ("a3", "2")]):
        house = lived([], ROOMY)
        for who in ("a1", "a2", "a3"):
            house.send(who, event="Product Viewed")
        for who, value in order:
            house.send(who, context={"externalIds": [{"id": value, "type": "shop"}]})
        assert {profile.assignment_key for profile in people(house.world)} == {"anonymous_id:a1"}
