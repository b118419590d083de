"""The sensitive list and purposes: what is stored and read by nothing, what is missing where it is refused."""

import math

import pytest
from tests.house import House

from tailorbird.decide.decider import Answer
from tailorbird.errors import InvalidInputError
from tailorbird.features.sensitive import SensitiveList
from tailorbird.live.facts import profile_facts
from tailorbird.live.variables import by_name, vector
from tailorbird.schema.feature import Sensitive


def chosen(answer: Answer) -> str:
    assert answer.decision is not None
    return answer.decision.choices[0].id


INCOME = {"type": "trait", "name": "income", "trait": "income"}


@pytest.mark.parametrize(
    "name",
    [
        "income",
        "householdIncome",
        "annual_income",
        "Religion",
        "marital-status",
        "geo.latitude",
        "healthScore",
        "isPregnant",
    ],
)
def test_sensitive_names_are_known_in_whatever_spelling(name):
    assert SensitiveList(Sensitive()).purpose_of(name) is None


@pytest.mark.parametrize("name", ["plan", "incoming", "healthy_recipes", "tracey", "platform", "country"])
def test_other_names_are_not(name):
    assert SensitiveList(Sensitive()).purpose_of(name) == ""


def test_a_rule_does_not_see_sensitive_traits_or_surroundings():
    home = House(features={"sensitive": {"add": ["postcode"]}})
    rules = {
        "income": "profile.income > 1.0",
        "nested": "profile.traits.income > 1.0",
        "proxy": "profile.postcode == '1010'",
        "place": "context.location.latitude > 1.0",
        "plan": "profile.plan == 'pro'",
    }
    for name, rule in rules.items():
        variants = [{"id": "yes", "rule": rule}, {"id": "no", "rule": f"!({rule})"}, {"id": "none"}]
        home.declare(
            name, variants=variants, policy={"type": "fixed", "weights": {"yes": 1, "no": 1, "none": 1e-9}}
        )
    home.send("a", "u", type="identify", traits={"income": 9, "postcode": "1010", "plan": "pro"})
    context = {"location": {"latitude": 48.2}}
    found = {name: chosen(home.decide("a", name, user="u", context=context)) for name in rules}
    assert found == {"income": "none", "nested": "none", "proxy": "none", "place": "none", "plan": "yes"}
    assert home.profile("user_id:u").traits["income"] == 9, "what is sent is stored"


def test_no_definition_reads_what_is_sensitive_unless_it_is_allowed_with_a_purpose():
    for definition in (
        INCOME,
        {"type": "sum", "name": "x", "event": "E", "value": "properties.salary"},
        {"type": "count", "name": "x", "event": "E", "where": {"traits.religion": "any"}},
        {"type": "affinity", "name": "x", "of": "properties.diagnosis"},
    ):
        with pytest.raises(InvalidInputError, match="sensitive list"):
            House(features={"definitions": [definition]})


def test_an_allowed_attribute_is_read_for_its_purpose_and_missing_for_who_refuses_it():
    home = House(features={"definitions": [INCOME], "sensitive": {"allow": {"income": "credit"}}})
    home.send("a", "u", type="identify", traits={"income": 9})
    assert home.variables("user_id:u")["income"] == 9.0
    consent = {"consent": {"categoryPreferences": {"Credit": False}}}
    home.send("a", "u", type="identify", traits={"income": 9}, context=consent)
    assert math.isnan(home.variables("user_id:u")["income"])
    assert "income" not in by_name(home.world, home.profile("user_id:u"), home.clock.now())
    assert home.variables("user_id:u")["tenure_seconds"] == 0.0


def test_a_refused_purpose_reads_as_missing_everywhere():
    ads = {"type": "count", "name": "ad_views", "event": "Page Viewed", "purpose": "Advertising"}
    home = House(features={"definitions": [ads]})
    home.declare(
        "x", variants=[{"id": "seen", "rule": "profile.ad_views_count > 0.0"}, {"id": "not"}], fallback="not"
    )
    home.send("a", event="Page Viewed")
    assert home.variables("anonymous_id:a")["ad_views_count"] == 1.0
    home.send("a", event="Page Viewed", context={"consent": {"categoryPreferences": {"advertising": False}}})
    assert math.isnan(home.variables("anonymous_id:a")["ad_views_count"])
    assert chosen(home.decide("a", "x")) == "not"


def test_who_refuses_personalization_has_no_variables_at_all():
    home = House(features={"catalogues": ["commerce"]})
    home.send(
        "a", event="Product Viewed", context={"consent": {"categoryPreferences": {"personalization": False}}}
    )
    profile = home.profile("anonymous_id:a")
    assert by_name(home.world, profile, home.clock.now()) == {}
    assert all(math.isnan(value) for value in vector(home.world, profile, home.clock.now()).tolist())


def test_a_global_privacy_control_signal_refuses_unless_only_stored():
    for opts_out in (True, False):
        home = House(features={"catalogues": ["commerce"]}, gpc_opts_out=opts_out)
        home.send("a", event="Product Viewed", gpc=True)
        assert math.isnan(home.variables("anonymous_id:a")["sessions"]) is opts_out


def test_lists_are_no_way_round_the_list():
    home = House(features={})
    rules = {
        "traits": "profile.tags[0].income > 1.0",
        "deep": "profile.traits.tags[0].income > 1.0",
        "context": "context.places[0].latitude > 1.0",
        "other": "profile.tags[0].color == 'red'",
    }
    for name, rule in rules.items():
        home.declare(
            name, variants=[{"id": "yes", "rule": rule}, {"id": "no", "rule": f"!({rule})"}], fallback="no"
        )
    home.send("a", "u", type="identify", traits={"tags": [{"income": 9, "color": "red"}]})
    context = {"places": [{"latitude": 52.5}]}
    found = {name: chosen(home.decide("a", name, user="u", context=context)) for name in rules}
    assert found == {"traits": "no", "deep": "no", "context": "no", "other": "yes"}


def facts_of(home: House, *fields: str) -> dict:
    return profile_facts(home.world, home.profile("anonymous_id:a"), frozenset(fields), home.clock.now())


def test_a_trait_never_stands_in_for_a_variable_that_is_missing():
    mean = {"type": "mean", "name": "basket_mean", "event": "Order Completed", "value": "properties.revenue"}
    ltv = {"type": "computed", "name": "ltv", "attribute": "lifetime_value"}
    ads = {"type": "count", "name": "ad_views", "event": "Page Viewed", "purpose": "advertising"}
    home = House(features={"definitions": [mean, ltv, ads]})
    forged = {"basket_mean": 500, "ltv": 9999, "ad_views_7d": 99, "views_7d": 99, "plan": "pro"}
    refused = {"consent": {"categoryPreferences": {"advertising": False}}}
    home.send("a", type="identify", traits=forged, context=refused)
    assert facts_of(home, *forged) == {"plan": "pro", "views_7d": 0.0}
    everything = profile_facts(home.world, home.profile("anonymous_id:a"), None, home.clock.now())
    assert not {"basket_mean", "ltv", "ad_views_7d"} & everything.keys()


def test_of_who_refuses_personalization_nothing_learned_from_behaviour_is_seen():
    home = House(features={"catalogues": ["commerce"]})
    seen = {"product_id": "s", "category": "shoes", "revenue": 5}
    home.send("a", event="Order Completed", properties=seen)
    fields = ("primaryInterest", "recentItems", "purchases", "segments", "cluster", "computed", "views_7d")
    assert facts_of(home, *fields)["primaryInterest"] == "shoes"
    home.send(
        "a", event="Page Viewed", context={"consent": {"categoryPreferences": {"personalization": False}}}
    )
    found = facts_of(home, *fields)
    assert not any(found.values())
    assert "views_7d" not in found


@pytest.mark.parametrize(("name", "event"), [("views", "X"), ("orders", "X"), ("category_shoes", "X")])
def test_names_that_rules_know_as_something_else_are_refused(name, event):
    with pytest.raises(InvalidInputError, match="another name"):
        House(features={"definitions": [{"type": "count", "name": name, "event": event}]})
