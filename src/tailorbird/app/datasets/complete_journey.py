"""The Complete Journey log as a shop: a year of groceries of some 2,400 households.

A folder of Parquet files, as the R package completejourney has its tables (transactions a sample). What
is made of them:

* a transaction line is a line of the basket; its price is what the retailer got for one unit, so that the
  lines of a basket add up to its revenue. Lines of nothing, or for nothing, are left out;
* all lines of a basket have one time: they follow one another by one second, in the file's order. The
  times name no zone and are taken as UTC;
* a product's category is `DEPARTMENT/PRODUCT CATEGORY`, its brand national or the retailer's own;
* a redeemed coupon is an event `Coupon Applied` at the end of its day: the log has no hour, and the latest
  one never tells of what has not happened yet;
* demographics are traits, declared by an `identify` before the household's first basket: age, income, marital
  status, household and home. All of them are sensitive, see `SENSITIVE_TRAITS`;
* mailings of campaigns are left out: a letter sent is nothing that the household did, and every event
  of a person counts as a visit of theirs.

Source: dunnhumby, "The Complete Journey", by the R package completejourney (CC0).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tailorbird.app.datasets.shop import LINE_SECONDS, Basket, Line, Notice, Shop, lines_in, one_at_a_time
from tailorbird.errors import ConfigurationError
from tailorbird.schema.item import Item

FOLDER: Final = Path("data", "completejourney")
PUBLISHER: Final = "github.com/bradleyboehmke/completejourney"
SENSITIVE_TRAITS: Final = {
    "age": "age",
    "income": "income",
    "home_ownership": "homeOwnership",
    "marital_status": "maritalStatus",
    "household_size": "householdSize",
    "household_comp": "householdComposition",
    "kids_count": "kidsCount",
}
"""Columns of the demographics, and the traits that they become.

Every one of them is sensitive: they may be shown and exported, but are never features of a model.
"""

_TRANSACTIONS: Final = ("household_id", "basket_id", "product_id", "quantity", "sales_value")
_PRODUCTS: Final = (
    "product_id",
    "manufacturer_id",
    "department",
    "brand",
    "product_category",
    "product_type",
)
_REDEMPTIONS: Final = ("household_id", "coupon_upc", "campaign_id", "redemption_date")
_NOT_SAID: Final = "OTHER"
_END_OF_DAY_SECONDS: Final = 86_399.0


class _Row(NamedTuple):
    """One kept line of the transactions."""

    household: str
    basket: str
    product: str
    quantity: int
    value: float
    t: float


def read_folder(folder: Path, lines_max: int | None = None) -> Shop:
    """Return the shop of a folder with the tables transactions, products, demographics and redemptions.

    With `lines_max`, of the earliest so many lines, and of what is known by then.

    Raises:
        ConfigurationError: A file is missing or lacks a column.
    """
    transactions = _read(
        folder / "transactions_sample.parquet", (*_TRANSACTIONS, "transaction_timestamp")
    ).sort_by("transaction_timestamp")
    table = transactions.slice(0, lines_max)
    rows, left_out = _kept(table)
    if not rows:
        raise ConfigurationError(f"{folder}: no line is a purchase of a product ({dict(left_out)})")
    baskets = _baskets(rows)
    notes = ["a sample of the lines, some 5 in 100: most baskets have one or two"]
    if table.num_rows < transactions.num_rows:
        notes.append(f"the first {table.num_rows:,} of {transactions.num_rows:,} lines")
    return Shop(
        name="completejourney",
        items=_catalogue(rows, _read(folder / "products.parquet", _PRODUCTS)),
        baskets=baskets,
        lines_read=table.num_rows,
        left_out=dict(left_out + Counter(repeatedInBasket=len(rows) - lines_in(baskets))),
        notes=tuple(notes),
        notices=_notices(folder, baskets),
        currency="USD",
    )


def _read(path: Path, columns: Iterable[str]) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigurationError(f"--dataset {path}: cannot be read: {error}") from error
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise ConfigurationError(f"--dataset {path}: has no column {', '.join(missing)}")
    return table.select(list(columns))


def _kept(table: pa.Table) -> tuple[list[_Row], Counter[str]]:
    """Return the lines that are a purchase of something, and how many were left out, by why."""
    rows: list[_Row] = []
    left_out: Counter[str] = Counter()
    for values in _rows_of(table):
        household, basket, product, quantity, value, moment = values
        if quantity <= 0:
            left_out["quantityNotPositive"] += 1
        elif value <= 0:
            left_out["priceNotPositive"] += 1
        else:
            rows.append(_Row(household, basket, product, int(quantity), value, _seconds(moment)))
    return rows, left_out


def _rows_of(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[column].to_pylist() for column in table.column_names), strict=True)


def _seconds(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()


def _baskets(rows: Iterable[_Row]) -> tuple[Basket, ...]:
    """Return the baskets; a product that one names twice is one line, quantities and values added."""
    named: dict[str, dict[str, _Row]] = defaultdict(dict)
    for row in rows:
        lines = named[row.basket]
        first = lines.get(row.product)
        lines[row.product] = row if first is None else _added(first, row)
    return one_at_a_time(
        Basket(
            id=basket,
            visitor=next(iter(lines.values())).household,
            lines=tuple(
                Line(row.t, row.product, row.quantity, row.value / row.quantity) for row in lines.values()
            ),
        )
        for basket, lines in named.items()
    )


def _added(first: _Row, again: _Row) -> _Row:
    return first._replace(quantity=first.quantity + again.quantity, value=first.value + again.value)


def _catalogue(rows: Iterable[_Row], products: pa.Table) -> tuple[Item, ...]:
    prices: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        prices[row.product].append(row.value / row.quantity)
    said = {values[0]: values[1:] for values in _rows_of(products) if values[0] in prices}
    return tuple(
        _item(product, median(paid), *said.get(product, (None,) * (len(_PRODUCTS) - 1)))
        for product, paid in prices.items()
    )


def _item(product: str, price: float, manufacturer: str | None, *words: str | None) -> Item:
    department, brand, category, kind = (word or _NOT_SAID for word in words)
    return Item(
        id=product,
        title=f"{kind} ({brand})",
        price=round(price, 4),
        categories=(f"{department}/{category}", department),
        attributes={"brand": brand, "manufacturer": manufacturer or _NOT_SAID},
    )


def _notices(folder: Path, baskets: tuple[Basket, ...]) -> tuple[Notice, ...]:
    """Return who the households are and which coupons they redeemed, by time."""
    first: dict[str, float] = {}
    for basket in baskets:
        first.setdefault(basket.visitor or "", basket.start)
    newest = baskets[-1].lines[-1].t
    notices = [*_demographics(folder, first), *_redemptions(folder, first, newest)]
    return tuple(sorted(notices, key=lambda notice: notice.start))


def _demographics(folder: Path, first: dict[str, float]) -> Iterator[Notice]:
    table = _read(folder / "demographics.parquet", ("household_id", *SENSITIVE_TRAITS))
    for household, *values in _rows_of(table):
        if household in first:
            traits = zip(SENSITIVE_TRAITS.values(), values, strict=True)
            yield Notice(
                id=f"identify-{household}",
                visitor=household,
                start=first[household] - LINE_SECONDS,
                fields={name: value for name, value in traits if value is not None},
            )


def _redemptions(folder: Path, first: dict[str, float], newest: float) -> Iterator[Notice]:
    """Yield the coupons that known households redeemed by `newest`, a second apart at the end of the day."""
    table = _read(folder / "coupon_redemptions.parquet", _REDEMPTIONS)
    for number, (household, coupon, campaign, day) in enumerate(_rows_of(table)):
        t = _end_of(day)
        if household in first and t <= newest:
            yield Notice(
                id=f"coupon-{number}",
                visitor=household,
                start=t,
                event="Coupon Applied",
                fields={"coupon_id": coupon, "campaign_id": campaign},
            )


def _end_of(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + _END_OF_DAY_SECONDS
