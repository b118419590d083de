"""The Complete Journey log: what is read, what becomes an event, what is only said of a household."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.needs import recorded

from tailorbird.app import datasets
from tailorbird.app.datasets import complete_journey, load
from tailorbird.app.datasets.complete_journey import SENSITIVE_TRAITS, read_folder
from tailorbird.app.datasets.events import events_of
from tailorbird.errors import ConfigurationError

# The log names no zone.
MORNING = datetime.fromisoformat("2017-03-01T09:00:00")
LATER = datetime.fromisoformat("2017-03-05T09:00:00")
DAY = 86_400.0


def line(basket: str = "b-1", product: str = "p-1", **fields: Any) -> dict[str, Any]:
    return {
        "household_id": "h-1",
        "basket_id": basket,
        "product_id": product,
        "quantity": 1.0,
        "sales_value": 2.5,
        "transaction_timestamp": MORNING,
        **fields,
    }


def product(key: str, **fields: Any) -> dict[str, Any]:
    said = {
        "department": "GROCERY",
        "brand": "Private",
        "product_category": "TEA",
        "product_type": "GREEN TEA",
    }
    return {"product_id": key, "manufacturer_id": "69", **said, **fields}


def write(folder: Path, lines: list[dict[str, Any]], **tables: list[dict[str, Any]]) -> Path:
    people = {"household_id": "h-1", **dict.fromkeys(SENSITIVE_TRAITS, "x"), "home_ownership": None}
    redemption = {
        "household_id": "h-1",
        "coupon_upc": "c-1",
        "campaign_id": "26",
        "redemption_date": date(2017, 3, 1),
    }
    rows = {
        "transactions_sample": lines,
        "products": tables.get("products", [product("p-1"), product("p-2", department="DELI")]),
        "demographics": tables.get("demographics", [people]),
        "coupon_redemptions": tables.get("redemptions", [redemption]),
    }
    for name, table in rows.items():
        pq.write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet")
    return folder


def test_a_basket_becomes_an_order_with_its_products_categories_brands_and_revenue(tmp_path):
    two = line(product="p-2", quantity=2.0, sales_value=5.0)
    shop = read_folder(write(tmp_path, [line(), two]))
    (order,) = [event for _, event in events_of(shop) if event.get("event") == "Order Completed"]
    assert order["userId"] == "h-1"
    assert order["properties"]["revenue"] == 7.5
    assert order["properties"]["currency"] == "USD"
    assert order["properties"]["products"] == [
        {"product_id": "p-1", "category": "GROCERY/TEA", "price": 2.5, "quantity": 1, "brand": "Private"},
        {"product_id": "p-2", "category": "DELI/TEA", "price": 2.5, "quantity": 2, "brand": "Private"},
    ]


def test_a_product_of_which_nothing_is_said_has_a_category_all_the_same(tmp_path):
    shop = read_folder(
        write(tmp_path, [line()], products=[product("p-1", department=None, product_category=None)])
    )
    assert shop.items[0].categories == ("OTHER/OTHER", "OTHER")
    shop = read_folder(write(tmp_path, [line(product="unheard-of")]))
    assert shop.items[0].categories == ("OTHER/OTHER", "OTHER")


def test_lines_of_nothing_or_for_nothing_are_left_out_and_counted(tmp_path):
    lines = [line(), line(product="p-2", quantity=0.0), line(product="p-2", sales_value=0.0), line()]
    shop = read_folder(write(tmp_path, lines))
    assert shop.lines_count == 1
    assert shop.baskets[0].lines[0].quantity == 2
    assert shop.left_out == {"quantityNotPositive": 1, "priceNotPositive": 1, "repeatedInBasket": 1}
    assert shop.lines_read == shop.lines_count + sum(shop.left_out.values())


def test_demographics_are_traits_said_before_the_first_basket_and_nothing_else_holds_them(tmp_path):
    shop = read_folder(write(tmp_path, [line()]))
    events = events_of(shop)
    t, first = events[0]
    assert first["type"] == "identify"
    assert t < shop.baskets[0].start
    assert first["traits"].keys() == set(SENSITIVE_TRAITS.values()) - {"homeOwnership"}
    assert not any(
        name in str(event.get("properties")) for _, event in events for name in SENSITIVE_TRAITS.values()
    )


def test_a_coupon_is_applied_at_the_end_of_its_day(tmp_path):
    later = line("b-2", transaction_timestamp=LATER)
    shop = read_folder(write(tmp_path, [line(), later]))
    ((t, coupon),) = [entry for entry in events_of(shop) if entry[1].get("event") == "Coupon Applied"]
    assert coupon["properties"] == {"coupon_id": "c-1", "campaign_id": "26"}
    assert t % DAY == DAY - 1
    assert t > shop.baskets[0].start


def test_what_is_known_only_after_the_last_line_is_left_out(tmp_path):
    shop = read_folder(write(tmp_path, [line()]))
    assert [notice.event for notice in shop.notices] == [None]


def test_the_earliest_lines_are_read_where_only_some_are_asked_for(tmp_path):
    later = line("b-2", transaction_timestamp=LATER)
    shop = read_folder(write(tmp_path, [later, line()]), lines_max=1)
    assert [basket.id for basket in shop.baskets] == ["b-1"]
    assert shop.notes[-1] == "the first 1 of 2 lines"


def test_a_table_without_a_needed_column_is_refused_by_its_name(tmp_path):
    folder = write(tmp_path, [{"household_id": "h-1"}])
    with pytest.raises(ConfigurationError, match=r"transactions_sample\.parquet: has no column basket_id"):
        read_folder(folder)


def test_a_missing_table_is_refused_by_its_name(tmp_path):
    with pytest.raises(ConfigurationError, match=r"transactions_sample\.parquet: cannot be read"):
        read_folder(tmp_path)


def test_where_the_folder_is_not_here_it_is_named(monkeypatch):
    monkeypatch.setattr(datasets, "shared", lambda _: None)
    with pytest.raises(ConfigurationError, match="completejourney is not here") as raised:
        load("completejourney")
    assert complete_journey.PUBLISHER in str(raised.value)


def test_the_real_log_adds_up():
    recorded(complete_journey.FOLDER)
    shop = load("completejourney", 5_000)
    assert shop.lines_read == 5_000
    assert shop.lines_count + sum(shop.left_out.values()) == 5_000
    assert [b.start for b in shop.baskets] == sorted(b.start for b in shop.baskets)
    assert {line.item for b in shop.baskets for line in b.lines} == {i.id for i in shop.items}
    assert {notice.event for notice in shop.notices} == {None, "Coupon Applied"}
    known = {basket.visitor for basket in shop.baskets}
    assert {notice.visitor for notice in shop.notices} <= known
