"""Datasets: what is read from an invoice log, what is left out, and what a basket becomes."""

from collections import Counter
from pathlib import Path

import pytest
from tests.needs import recorded

from tailorbird.app import datasets
from tailorbird.app.datasets import load, online_retail
from tailorbird.app.datasets.online_retail import category_of, read_log
from tailorbird.app.datasets.simulated import simulate
from tailorbird.errors import ConfigurationError

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"


def write_csv(folder: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path = folder / "log.csv"
    path.write_bytes((HEADER + "".join(f"{line}\n" for line in lines)).encode(encoding))
    return path


def test_each_line_that_is_no_purchase_is_left_out_and_counted(tmp_path):
    path = write_csv(
        tmp_path,
        "536365,85123A,WHITE HOLDER,6,12/1/10 8:26,2.55,17850,United Kingdom",
        "C536379,85123A,WHITE HOLDER,-1,12/1/10 9:41,2.55,14527,United Kingdom",
        "536370,POST,POSTAGE,3,12/1/10 8:45,18,12583,France",
        "536371,22086,CHAIN KIT,0,12/1/10 9:00,2.55,13748,United Kingdom",
        "536372,22087,BUNTING,1,12/1/10 9:01,0,13748,United Kingdom",
        "536373,22088,BUNTING,1,yesterday,1,13748,United Kingdom",
    )
    shop = read_log(path)
    assert shop.lines_count == 1
    assert shop.left_out == {
        "cancelled": 1,
        "notAProduct": 1,
        "quantityNotPositive": 1,
        "priceNotPositive": 1,
        "unreadable": 1,
    }
    assert shop.lines_read == shop.lines_count + sum(shop.left_out.values())


def test_an_item_named_twice_in_an_invoice_is_one_line_with_both_quantities(tmp_path):
    path = write_csv(
        tmp_path,
        "1,22086,CHAIN KIT,2,12/1/10 8:26,2.55,7,UK",
        "1,22087,BUNTING,1,12/1/10 8:26,1.25,7,UK",
        "1,22086,CHAIN KIT,3,12/1/10 8:26,2.55,7,UK",
    )
    shop = read_log(path)
    (basket,) = shop.baskets
    assert [(line.item, line.quantity) for line in basket.lines] == [("22086", 5), ("22087", 1)]
    assert shop.left_out == {"repeatedInBasket": 1}


def test_lines_are_a_second_apart_and_a_customer_has_one_basket_at_a_time(tmp_path):
    path = write_csv(
        tmp_path,
        "1,22086,CHAIN KIT,2,12/1/10 8:26,2.55,7,UK",
        "1,22087,BUNTING,1,12/1/10 8:26,1.25,7,UK",
        "2,22088,PAPER,1,12/1/10 8:26,1.25,7,UK",
        "3,22088,PAPER,1,12/1/10 8:26,1.25,,UK",
    )
    first, stranger, second = read_log(path).baskets
    start = first.lines[0].t
    assert [line.t for line in first.lines] == [start, start + 1]
    assert stranger.visitor is None
    assert stranger.start == start
    assert (second.id, second.visitor) == ("2", "7")
    assert second.start > first.lines[-1].t + 1


def test_a_basket_that_is_listed_by_code_is_shuffled_and_that_is_said(tmp_path):
    codes = list(range(22000, 22040))
    listed = [f"1,{code},KIT,1,12/1/10 8:26,1,,UK" for code in codes]
    shopped = [f"2,{code},KIT,1,12/1/10 8:27,1,7,UK" for code in codes[::2] + codes[1::2][::-1]]
    short = [f"3,{code},KIT,1,12/1/10 8:28,1,8,UK" for code in codes[:5]]
    shop = read_log(write_csv(tmp_path, *listed, *shopped, *short))
    first, second, third = ([int(line.item) for line in b.lines] for b in shop.baskets)
    assert first != codes
    assert sorted(first) == codes
    assert second == codes[::2] + codes[1::2][::-1]
    assert third == codes[:5]
    assert shop.notes == ("1 baskets are listed by stock code, not as shopped: they are shuffled",)
    assert shop == read_log(tmp_path / "log.csv")


def test_an_item_has_its_most_frequent_title_and_its_median_price(tmp_path):
    path = write_csv(
        tmp_path,
        "1,22086,PAPER CHAIN KIT,1,12/1/10 8:26,1,7,UK",
        "2,22086,PAPER CHAIN KIT,1,12/2/10 8:26,3,7,UK",
        "3,22086,damaged,1,12/3/10 8:26,9,7,UK",
    )
    (item,) = read_log(path).items
    assert (item.id, item.title, item.price) == ("22086", "PAPER CHAIN KIT", 3)
    assert item.categories == ("kit",)


@pytest.mark.parametrize("date", ["12/1/10 8:26", "12/1/2010 8:26", "2010-12-01 08:26:00"])
def test_dates_are_read_in_the_forms_that_the_log_is_found_in(tmp_path, date):
    path = write_csv(tmp_path, f"1,22086,KIT,1,{date},1,17850.0,UK")
    (basket,) = read_log(path).baskets
    assert basket.start == 1_291_191_960.0
    assert basket.visitor == "17850"


def test_a_file_in_windows_1252_is_read(tmp_path):
    line = "1,22086,5£ KIT,1,12/1/10 8:26,1,7,UK"
    assert read_log(write_csv(tmp_path, line, encoding="cp1252")).items[0].title == "5£ KIT"


@pytest.mark.parametrize(
    ("description", "category"),
    [
        ("WHITE HANGING HEART T-LIGHT HOLDER", "holder"),
        ("JUMBO BAG PINK POLKADOT", "bag"),
        ("REGENCY CAKESTAND 3 TIER", "cakestand"),
        ("RED", "red"),
        ("?", "other"),
        ("", "other"),
    ],
)
def test_a_category_is_the_last_word_that_says_what_a_thing_is(description, category):
    assert category_of(description) == category


def test_a_log_without_a_needed_column_is_refused_by_its_name(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("InvoiceNo,StockCode\n1,2\n")
    with pytest.raises(ConfigurationError, match=r"log\.csv: has no column Description, Quantity"):
        load(str(path))


@pytest.mark.parametrize("name", ["online_retail", "log.xlsx", "missing.csv", "missing.parquet"])
def test_what_is_no_dataset_is_refused_by_its_name(name):
    with pytest.raises(ConfigurationError, match=name):
        load(name)


def test_no_lines_at_all_are_refused():
    with pytest.raises(ConfigurationError, match=r"--lines: at least 1 \(found 0\)"):
        load("simulated", 0)


def test_without_the_log_a_simulated_shop_stands_in_and_says_so(monkeypatch):
    monkeypatch.setattr(datasets, "shared", lambda _: None)
    shop = load("online-retail", 100)
    assert (shop.name, shop.lines_count) == ("simulated", 100)
    assert "simulated shop stands in" in shop.notes[0]
    assert online_retail.PUBLISHER in shop.notes[0]


def test_the_simulated_shop_is_the_same_for_the_same_seed_only():
    assert simulate(1, 500) == simulate(1, 500)
    assert simulate(1, 500) != simulate(2, 500)


def test_in_the_simulated_shop_companions_follow_one_another_about_half_of_the_time():
    shop = simulate(7, 5000)
    pairs = Counter(
        (before.item, after.item)
        for basket in shop.baskets
        for before, after in zip(basket.lines, basket.lines[1:], strict=False)
    )
    best = {}
    for (before, _), count in pairs.items():
        best[before] = max(best.get(before, 0), count)
    assert 0.5 < sum(best.values()) / pairs.total() < 0.65


def test_no_basket_holds_an_item_twice():
    for basket in simulate(7, 3000).baskets:
        assert len({line.item for line in basket.lines}) == len(basket.lines)


def test_the_real_log_adds_up():
    recorded(online_retail.FILE)
    shop = load("online-retail", 45_000)
    assert shop.lines_read == 45_000
    assert shop.lines_count + sum(shop.left_out.values()) == 45_000
    assert shop.left_out["cancelled"] > 0
    assert [b.start for b in shop.baskets] == sorted(b.start for b in shop.baskets)
    assert {line.item for b in shop.baskets for line in b.lines} == {i.id for i in shop.items}
