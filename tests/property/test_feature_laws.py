"""Laws of features: folding again gives the same state, two who merge read as one, order does not show."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.house import BEGIN, House

from tailorbird.features.defaults import CATALOGUES

lawfully = settings(max_examples=25, deadline=None)
ALL = {
    "catalogues": list(CATALOGUES),
    "priors": [
        {"when": {"context.campaign.source": "blog"}, "of": "category", "value": "hats", "weight": 5},
    ],
}

events = st.sampled_from(
    ["Product Viewed", "Product Added", "Order Completed", "Page Viewed", "Article Viewed", "Odd"]
)
products = st.sampled_from(["p1", "p2", "p3"])
shifts = st.one_of(st.integers(-100, 0).map(lambda d: d * 86400.0), st.floats(-9e4, 0.0, allow_nan=False))
sent = st.fixed_dictionaries(
    {
        "event": events,
        "at": shifts,
        "properties": st.fixed_dictionaries(
            {"product_id": products, "price": st.integers(1, 50), "revenue": st.integers(1, 90)},
            optional={"category": st.sampled_from(["shoes", "hats"]), "brand": st.sampled_from(["x", "y"])},
        ),
        "context": st.fixed_dictionaries(
            {},
            optional={
                "timezone": st.sampled_from(["Asia/Tokyo", "nowhere", 7]),
                "campaign": st.just({"source": "blog"}),
                "locale": st.sampled_from(["de-AT", "x"]),
            },
        ),
    }
)
histories = st.lists(st.tuples(st.sampled_from("ab"), sent), min_size=1, max_size=25)


def told(history, *, features=ALL) -> House:
    home = House(features=features)
    for who, event in history:
        home.send(who, **event)
    return home


@lawfully
@given(history=histories)
def test_folding_the_log_again_gives_the_same_state_byte_for_byte(history):
    home = told(history)
    home.send("a", "u", type="identify", traits={"plan": "pro"})
    home.send("b", "u", type="identify")
    assert home.refolded().digest() == home.digest()


@lawfully
@given(history=histories)
def test_features_declared_late_read_as_if_they_had_always_been(history):
    late = House()
    for who, event in history:
        late.send(who, **event)
    late.declare_features(**ALL)
    assert late.world.is_stale
    again = late.refolded()
    early = told(history)
    for who in {who for who, _ in history}:
        np.testing.assert_equal(
            list(again.variables(f"anonymous_id:{who}").values()),
            list(early.variables(f"anonymous_id:{who}").values()),
        )
    assert not again.world.is_stale


# What a merge cannot know: which of two visits at the same time came first, and what was early for whom.
ORDER_OF_VISITS = ("session", "recent_", "sessions", "local_", "tenure", "recency")


def unknowable_in(sent):
    """Return whether a variable depends on which of two events at the same moment came last."""
    moments = [BEGIN + event["at"] for event in sent]
    is_tied = len(set(moments)) < len(moments)
    latest = ("local_", "language", "region", "campaign", "device", "referrer")
    return lambda name: is_tied and (name.endswith("_last") or name.startswith(latest))


@lawfully
@given(history=histories)
def test_two_who_turn_out_to_be_one_read_as_one(history):
    plain = ALL | {"earlyEvents": {"extraWeight": 0}, "priors": []}
    merged = told(history, features=plain)
    merged.send("a", "u", type="identify", at=0.0)
    merged.send("b", "u", type="identify", at=0.0)
    one = told([("a", event) for _, event in history], features=plain)
    one.send("a", "u", type="identify", at=0.0)
    one.send("a", "u", type="identify", at=0.0)
    left, right = merged.variables("user_id:u"), one.variables("user_id:u")
    unknowable = unknowable_in([event for _, event in history])
    for name, value in left.items():
        if not name.startswith(ORDER_OF_VISITS) and not unknowable(name):
            np.testing.assert_allclose(value, right[name], rtol=2e-3, atol=2e-3, equal_nan=True, err_msg=name)


@lawfully
@given(history=st.lists(sent, min_size=1, max_size=20), order=st.randoms(use_true_random=False))
def test_the_order_in_which_events_arrive_does_not_show(history, order):
    plain = ALL | {"earlyEvents": {"extraWeight": 0}, "priors": []}
    shuffled = order.sample(history, len(history))
    one = told([("a", event) for event in history], features=plain).variables("anonymous_id:a")
    other = told([("a", event) for event in shuffled], features=plain).variables("anonymous_id:a")
    unknowable = unknowable_in(history)
    for name, value in one.items():
        if name.startswith(("session", "recent_")) or unknowable(name):
            continue
        np.testing.assert_allclose(value, other[name], rtol=2e-3, atol=2e-3, equal_nan=True, err_msg=name)


def test_a_definition_that_needs_no_new_counter_holds_at_once():
    home = told(
        [("a", {"event": "Product Viewed", "properties": {}})],
        features={
            "definitions": [{"type": "count", "name": "views", "event": "Product Viewed", "windows": ["7d"]}]
        },
    )
    home.declare_features(
        definitions=[
            {"type": "count", "name": "views", "event": "Product Viewed", "windows": ["7d", "90d"]},
            {"type": "rate", "name": "views_per_day", "event": "Product Viewed", "windows": ["7d"]},
        ]
    )
    assert not home.world.is_stale
    found = home.variables("anonymous_id:a")
    assert (found["views_90d"], round(found["views_per_day_7d"], 4)) == (1.0, round(1 / 7, 4))
    assert home.refolded().digest() == home.digest()


def test_until_it_is_folded_a_new_definition_reads_as_missing_and_the_others_as_before():
    home = told(
        [("a", {"event": "Product Viewed", "properties": {"price": 5}})],
        features={"definitions": [{"type": "count", "name": "views", "event": "Product Viewed"}]},
    )
    home.declare_features(
        definitions=[
            {"type": "count", "name": "views", "event": "Product Viewed"},
            {"type": "sum", "name": "prices", "event": "Product Viewed", "value": "properties.price"},
        ]
    )
    assert home.world.is_stale
    found = home.variables("anonymous_id:a")
    assert found["views_count"] == 1.0
    assert np.isnan(found["prices"])
    again = home.refolded()
    assert again.variables("anonymous_id:a")["prices"] == 5.0


def test_a_definition_that_goes_while_it_is_read_is_gone_at_once():
    home = told(
        [("a", {"event": "Product Viewed", "properties": {"price": 5}})],
        features={
            "definitions": [
                {"type": "sum", "name": "prices", "event": "Product Viewed", "value": "properties.price"}
            ]
        },
    )
    home.declare_features(definitions=[])
    assert "prices" not in home.variables("anonymous_id:a")
    assert home.refolded().world.is_stale is False
