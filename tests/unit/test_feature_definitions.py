"""Definitions of features: each kind, from events as clients send them to the variables that a model reads."""

import math
from typing import Any

import msgspec
import pytest
from tests.house import House

from tailorbird.errors import InvalidInputError
from tailorbird.features.defaults import CATALOGUES, expanded
from tailorbird.features.program import Program
from tailorbird.features.vocabulary import Vocabulary
from tailorbird.live.variables import vector
from tailorbird.schema.feature import FeatureConfig, FeaturesPut

HOUR, DAY = 3600.0, 86400.0


def house(*definitions: dict[str, Any], **more: Any) -> House:
    return House(features={"definitions": [*definitions], **more})


def order(home: House, revenue: Any, at: float = 0.0, **properties: Any) -> None:
    home.send("a", event="Order Completed", at=at, properties={"revenue": revenue, **properties})


def test_a_count_has_all_time_windows_and_half_lives():
    home = house({"type": "count", "name": "orders_done", "event": "Order Completed"})
    for days in (0, 5, 20, 60, 100):
        order(home, 1, at=-days * DAY)
    found = home.variables("anonymous_id:a")
    assert [found[f"orders_done_{name}"] for name in ("count", "1h", "1d", "7d", "30d", "90d")] == [
        5,
        1,
        1,
        2,
        3,
        4,
    ]
    expected = sum(2.0 ** (-days / 7) for days in (0, 5, 20, 60, 100))
    assert found["orders_done_decayed_7d"] == pytest.approx(expected, rel=1e-4)


def test_a_count_may_be_of_some_events_only():
    home = house(
        {
            "type": "count",
            "name": "app_orders",
            "event": "Order Completed",
            "where": {"properties.channel": "app"},
        },
        {
            "type": "count",
            "name": "big_orders",
            "event": "Order Completed",
            "where": {"properties.size": ["l", "xl"], "context.device.type": "mobile"},
        },
    )
    order(home, 1, channel="app")
    order(home, 1, channel="web")
    home.send("a", event="Order Completed", properties={"size": "xl"}, context={"device": {"type": "mobile"}})
    found = home.variables("anonymous_id:a")
    assert (found["app_orders_count"], found["big_orders_count"]) == (1.0, 1.0)


def test_sums_and_means_take_numbers_and_leave_out_what_is_none():
    home = house(
        {"type": "sum", "name": "revenue", "event": "Order Completed", "value": "properties.revenue"},
        {"type": "mean", "name": "revenue_mean", "event": "Order Completed", "value": "properties.revenue"},
        {
            "type": "sum",
            "name": "units",
            "event": "Order Completed",
            "value": "properties.products[].quantity",
        },
    )
    before = home.world.features.reading.names.index("revenue_mean")
    home.send("a", event="Product Viewed")
    assert math.isnan(home.variables("anonymous_id:a")["revenue_mean"]), "of nothing there is no mean"
    order(home, "12.50", products=[{"quantity": 2}, {"quantity": "3"}, {"sku": "x"}])
    order(home, 7.5, at=-10 * DAY)
    order(home, "free")
    found = home.variables("anonymous_id:a")
    assert (found["revenue"], found["revenue_7d"], found["units"]) == (20.0, 12.5, 5.0)
    assert (found["revenue_mean"], found["revenue_mean_7d"]) == (10.0, 12.5)
    assert before > 0


def test_rates_are_a_day_and_ratios_of_nothing_are_missing():
    home = house(
        {"type": "count", "name": "views", "event": "Product Viewed"},
        {"type": "count", "name": "adds", "event": "Product Added"},
        {"type": "rate", "name": "views_per_day", "event": "Product Viewed"},
        {"type": "ratio", "name": "adds_per_view", "numerator": "adds", "denominator": "views"},
    )
    home.send("a", event="Product Added")
    assert math.isnan(home.variables("anonymous_id:a")["adds_per_view"])
    for _ in range(14):
        home.send("a", event="Product Viewed")
    found = home.variables("anonymous_id:a")
    assert found["views_per_day_7d"] == 2.0
    assert found["adds_per_view_7d"] == pytest.approx(1 / 14)


def test_distinct_values_are_counted_once_also_within_windows():
    home = house(
        {
            "type": "distinct",
            "name": "products",
            "value": "properties.product_id",
            "event": "Product Viewed",
            "windows": ["7d"],
        }
    )
    for days, product in ((30, "old"), (3, "a"), (3, "b"), (1, "a"), (0, "c")):
        home.send("a", event="Product Viewed", at=-days * DAY, properties={"product_id": product})
    found = home.variables("anonymous_id:a")
    assert found["products"] == pytest.approx(4.0, abs=1e-3)
    assert found["products_7d"] == pytest.approx(3.0, abs=1e-3)
    later = home.variables("anonymous_id:a", at=4.5 * DAY)
    assert later["products_7d"] == pytest.approx(2.0, abs=1e-3), (
        "tiles that have left the window do not count"
    )
    assert home.variables("anonymous_id:a", at=60 * DAY)["products_7d"] == 0.0


def test_thousands_of_distinct_values_are_estimated_within_their_error():
    home = house({"type": "distinct", "name": "seen", "value": "properties.list[]", "event": "Seen"})
    for first in range(0, 5_000, 100):
        home.send(
            "a", event="Seen", properties={"list": [f"v{number}" for number in range(first, first + 100)]}
        )
    assert home.variables("anonymous_id:a")["seen"] == pytest.approx(5_000, rel=0.15)


def test_the_last_value_is_that_of_the_latest_event_also_when_an_older_one_comes_late():
    home = house(
        {"type": "last", "name": "last_price", "value": "properties.price", "event": "Product Viewed"},
        {"type": "time_since", "name": "since_view", "event": "Product Viewed"},
    )
    home.send("a", event="Page Viewed")
    empty = home.variables("anonymous_id:a")
    assert math.isnan(empty["last_price"])
    assert math.isnan(empty["since_view"])
    home.send("a", event="Product Viewed", properties={"price": 5})
    home.send("a", event="Product Viewed", at=-HOUR, properties={"price": 9})
    found = home.variables("anonymous_id:a", at=60.0)
    assert (found["last_price"], found["since_view"]) == (5.0, 60.0)


def test_affinities_know_shares_entropy_and_buckets():
    home = house(
        {"type": "affinity", "name": "brands", "of": "brand", "buckets": 4, "top": 2},
        earlyEvents={"extraWeight": 0},
    )
    for brand in ("nike", "nike", "nike", "puma"):
        home.send("a", event="Product Viewed", properties={"product_id": f"p-{brand}", "brand": brand})
    found = home.variables("anonymous_id:a")
    assert (found["brands_top1_share"], found["brands_top2_share"]) == (0.75, 0.25)
    assert found["brands_values"] == 2.0
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["brands_entropy"] == pytest.approx(entropy, rel=1e-5)
    assert (
        sum(found[f"brands_bucket_{bucket:02d}_30d"] for bucket in range(4))
        == found["brands_total_30d"]
        == 4.0
    )


def test_brands_and_tags_come_from_the_catalogue_where_events_do_not_name_them():
    home = house(
        {"type": "affinity", "name": "brands", "of": "brand"},
        {"type": "affinity", "name": "tags", "of": "tag"},
        {"type": "affinity", "name": "authors", "of": "properties.author"},
        earlyEvents={"extraWeight": 0},
    )
    home.stock({"id": "s", "categories": ["shoes"], "tags": ["new", "sale"], "attributes": {"brand": "Nike"}})
    home.send("a", event="Product Viewed", properties={"product_id": "s", "author": "N. N."})
    found = home.variables("anonymous_id:a")
    assert (found["brands_values"], found["tags_values"], found["authors_values"]) == (1.0, 2.0, 1.0)
    assert found["tags_top1_share"] == 0.5


def test_early_events_weigh_more_by_the_declared_half_life_of_tenure():
    home = house(
        {"type": "affinity", "name": "brands", "of": "brand"},
        earlyEvents={"extraWeight": 3, "halfLifeSeconds": DAY},
    )
    seen = {"event": "Product Viewed", "properties": {"brand": "nike"}}
    home.send("a", at=-DAY, **seen)
    assert home.variables("anonymous_id:a", at=-DAY)["brands_total_30d"] == 4.0, "1 + 3 at first"
    home.send("a", **seen)
    decayed = 4.0 * 2.0 ** (-1 / 30)
    assert home.variables("anonymous_id:a")["brands_total_30d"] == pytest.approx(decayed + 2.5, rel=1e-5)
    assert home.variables("anonymous_id:a")["brands_top1_share"] == 1.0


def test_the_sequence_is_the_last_events_newest_first():
    home = house({"type": "sequence", "name": "recent", "length": 3})
    for seconds, event in ((30, "A"), (20, "B"), (10, "A")):
        home.send("a", event=event, at=-seconds)
    found = home.variables("anonymous_id:a")
    assert found["recent_1_event"] == found["recent_3_event"] != found["recent_2_event"]
    assert [found[f"recent_{place}_seconds_ago"] for place in (1, 2, 3)] == [10.0, 20.0, 30.0]


def test_a_session_begins_anew_after_half_an_hour():
    measures = {
        "count": None,
        "sum": "properties.price",
        "max": "properties.price",
        "last": "properties.price",
    }
    home = house(
        *(
            {"type": "session", "name": f"cart_{measure}", "measure": measure, "event": "Product Added"}
            | ({"value": value} if value else {})
            for measure, value in measures.items()
        ),
        {"type": "session", "name": "depth", "measure": "depth"},
    )
    for seconds, price in ((7200, 100), (20, 4), (10, 7), (0, 5)):
        home.send("a", event="Product Added", at=-seconds, properties={"price": price})
    found = home.variables("anonymous_id:a")
    assert [found[f"cart_{measure}"] for measure in measures] == [3.0, 16.0, 7.0, 5.0]
    assert found["depth"] == found["session_depth"] == 3.0
    ended = home.variables("anonymous_id:a", at=1801.0)
    assert [ended[f"cart_{measure}"] for measure in measures] == [0.0] * 4


def test_traits_are_encoded_and_follow_what_is_declared():
    home = house(
        {"type": "trait", "name": "seats", "trait": "seats"},
        {
            "type": "trait",
            "name": "plan",
            "trait": "plan",
            "encode": {"type": "one_hot", "values": ["free", "pro"]},
        },
        {"type": "trait", "name": "role", "trait": "role", "encode": {"type": "hashed", "buckets": 4}},
    )
    home.send(None, "u", type="identify", traits={"seats": "12", "plan": "Pro", "role": "owner"})
    found = home.variables("user_id:u")
    assert (found["seats"], found["plan_free"], found["plan_pro"], found["plan_other"]) == (
        12.0,
        0.0,
        1.0,
        0.0,
    )
    assert sum(found[f"role_bucket_{bucket:02d}"] for bucket in range(4)) == 1.0
    home.send(None, "u", type="identify", traits={"seats": None, "plan": "gold"})
    found = home.variables("user_id:u")
    assert math.isnan(found["seats"])
    assert (found["plan_pro"], found["plan_other"]) == (0.0, 1.0)


def test_surroundings_are_those_of_the_latest_event_or_of_the_request_at_hand():
    kinds = ["direct", "search", "social", "email", "paid", "referral", "internal"]
    home = house(
        {
            "type": "context",
            "name": "device",
            "of": "device",
            "encode": {"type": "one_hot", "values": ["mobile"]},
        },
        {
            "type": "context",
            "name": "referrer",
            "of": "referrer",
            "encode": {"type": "one_hot", "values": kinds},
        },
        {
            "type": "context",
            "name": "language",
            "of": "language",
            "encode": {"type": "one_hot", "values": ["de"]},
        },
        {"type": "local_time", "name": "local"},
    )
    page = {"url": "https://shop.example/", "referrer": "https://www.google.com/search"}
    agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Mobile/15E148"
    context = {"page": page, "userAgent": agent, "locale": "de-AT", "timezone": "Asia/Tokyo"}
    home.send("a", event="Page Viewed", context=context)
    found = home.variables("anonymous_id:a")
    assert (found["device_mobile"], found["referrer_search"], found["language_de"]) == (1.0, 1.0, 1.0)
    # 2023-11-14 22:13 UTC, a Tuesday, is Wednesday 07:13 in Tokyo.
    assert (found["local_hour_07"], found["local_day_2"]) == (1.0, 1.0)
    names = home.world.features.reading.names
    profile = home.profile("anonymous_id:a")
    asked = vector(home.world, profile, home.clock.now(), {"campaign": {"medium": "cpc"}, "timezone": "UTC"})
    now = dict(zip(names, asked.tolist(), strict=True))
    assert (now["referrer_paid"], now["referrer_search"], now["local_hour_22"], now["local_day_1"]) == (
        1,
        0,
        1,
        1,
    )
    assert now["device_mobile"] == 1.0, "what the request does not say is as it was"


def test_the_built_in_definitions_give_a_thousand_variables_and_more():
    sizes = {}
    for names in [(name,) for name in CATALOGUES] + [CATALOGUES]:
        config = FeatureConfig(catalogues=names)
        put = FeaturesPut(0.0, config, expanded(config))
        sizes[names] = Program(put, Vocabulary(lambda _key, _code: None)).size
    assert sizes[("commerce",)] >= 1_000
    assert sizes[CATALOGUES] >= 1_500


def test_a_built_in_definition_can_be_left_out_or_replaced():
    own = {
        "type": "count",
        "name": "order_completed",
        "event": "Purchase",
        "windows": ["7d"],
        "halfLives": [],
    }
    config = msgspec.convert(
        {"catalogues": ["commerce"], "without": ["recent", "orders_per_view"], "definitions": [own]},
        FeatureConfig,
    )
    made = {definition.name: definition for definition in expanded(config)}
    assert "recent" not in made
    assert made["order_completed"].event == "Purchase"


@pytest.mark.parametrize(
    ("definition", "told"),
    [
        ({"type": "ratio", "name": "r", "numerator": "x", "denominator": "y"}, "definitions[1].numerator"),
        ({"type": "count", "name": "base", "event": "E"}, "each name is given once"),
        ({"type": "sum", "name": "x", "event": "E", "value": "context.nothing"}, "of context one of"),
        ({"type": "session", "name": "x", "measure": "count"}, "definitions[1].event"),
        ({"type": "session", "name": "x", "measure": "sum", "event": "E"}, "definitions[1].value"),
        (
            {"type": "last", "name": "base_count", "value": "properties.x"},
            "each variable has a name of its own",
        ),
        ({"type": "trait", "name": "x", "trait": "householdIncome"}, "sensitive list"),
    ],
)
def test_what_clashes_is_refused_and_named(definition, told):
    with pytest.raises(InvalidInputError, match=told.replace("[", r"\[").replace("]", r"\]")):
        house({"type": "count", "name": "base", "event": "Base"}, definition)


@pytest.mark.parametrize(
    ("definition", "told"),
    [
        ({"type": "count", "name": "Big", "event": "E"}, "definitions[0].name"),
        ({"type": "count", "name": "x"}, "definitions[0]"),
        ({"type": "count", "name": "x", "event": "E", "windows": ["2d"]}, "definitions[0].windows[0]"),
        ({"type": "tally", "name": "x"}, "definitions[0].type"),
        ({"type": "sum", "name": "x", "event": "E", "value": "revenue"}, "definitions[0].value"),
        ({"type": "affinity", "name": "x", "of": "brand", "buckets": 65}, "definitions[0].buckets"),
    ],
)
def test_what_is_no_definition_is_refused_with_its_path(definition, told):
    with pytest.raises(msgspec.ValidationError, match=told.replace("[", r"\[").replace("]", r"\]")):
        msgspec.convert({"definitions": [definition]}, FeatureConfig)
