"""The Online Retail log as a shop: Parquet, or the publisher's columns as CSV.

Nothing is invented about it but what is said here:

* the log has minutes, traffic needs an order: lines of a basket follow one another by one second,
  and a customer's next basket begins when the one before has ended;
* an item that an invoice names twice is one line of the basket, with the quantities added;
* baskets that are listed by stock code (most of those without a customer: a till sorted them) are
  shuffled, for such an order says nothing of the shopping and can be guessed: sequential rules
  foresee 60 % of the next items of nameless baskets as they are listed, 2 % shuffled;
* an item's category is derived from its description, by `category_of`;
* its title is the description it is sold under most often, its price the median of what was paid.

Online Retail: Chen, D. (2015), UCI Machine Learning Repository, dataset 352, CC BY 4.0.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from tailorbird.app.datasets.shop import Basket, Line, Shop, lines_in, one_at_a_time
from tailorbird.errors import ConfigurationError
from tailorbird.schema.item import Item

FILE: Final = Path("data", "online-retail", "online_retail.parquet")
COLUMNS: Final = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
)
PUBLISHER: Final = "archive.ics.uci.edu/dataset/352"
LOG_LINES_MAX: Final = 2_000_000  # Some 1 GB of Python objects; the publisher's file has 541,909.
LISTED_LINES_MIN: Final = 6  # Shorter baskets ascend by chance.
LISTED_SHARE_MIN: Final = 0.9  # 80 of 100 nameless baskets lie above it, 0.4 of 100 others do.
SHUFFLE_SEED: Final = 7

_TIME_FORMATS: Final = (
    "%m/%d/%y %H:%M",
    "%m/%d/%Y %H:%M",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
)
_PRODUCT_CODE: Final = re.compile(r"\d{5}[A-Z]*")
_WORD: Final = re.compile(r"[A-Z][A-Z'&-]+")
_HOW_NOT_WHAT: Final = frozenset(
    # Colours, sizes and patterns that end a description: how the thing looks, not what it is.
    (
        *("ANTIQUE", "ASSORTED", "BLACK", "BLUE", "CREAM", "GOLD", "GREEN", "IVORY", "MULTICOLOUR"),
        *("NATURAL", "PINK", "PURPLE", "RED", "SILVER", "WHITE", "YELLOW", "COLOUR", "COLOURS"),
        *("SMALL", "MEDIUM", "LARGE", "TIER", "FINISH", "VINTAGE", "DESIGN", "DESIGNS"),
        *("CHRISTMAS", "DOLLY", "GIRL", "LONDON", "PAISLEY", "PANTRY", "POLKADOT", "POLKADOTS"),
        *("RETROSPOT", "SCANDINAVIAN", "SKULLS", "SPACEBOY", "SUKI", "WOODLAND"),
    )
)


class _Row(NamedTuple):
    """One kept line of the log, as recorded."""

    invoice: str
    code: str
    title: str
    quantity: int
    t: float
    price: float
    customer: str | None


def read_log(path: Path, lines_max: int | None = None) -> Shop:
    """Return the shop of an invoice log with the columns `COLUMNS`, in the order of the file.

    Raises:
        ConfigurationError: The file is missing, of another kind, or lacks a column.
    """
    table = _read_table(path)
    lines_count = min(table.num_rows, lines_max or LOG_LINES_MAX, LOG_LINES_MAX)
    rows, left_out = _kept(table.slice(0, lines_count))
    if not rows:
        raise ConfigurationError(f"{path}: no line is a purchase of a product ({dict(left_out)})")
    baskets, shuffled_count = _baskets(rows)
    notes = []
    if lines_count < table.num_rows:
        notes.append(f"the first {lines_count:,} of {table.num_rows:,} lines")
    if shuffled_count:
        notes.append(
            f"{shuffled_count:,} baskets are listed by stock code, not as shopped: they are shuffled"
        )
    return Shop(
        name="online-retail" if path.name == FILE.name else path.name,
        items=_catalogue(rows),
        baskets=baskets,
        lines_read=lines_count,
        left_out=dict(left_out + Counter(repeatedInBasket=len(rows) - lines_in(baskets))),
        notes=tuple(notes),
    )


def category_of(description: str) -> str:
    """Return what a description names: its last word that is no colour, size or pattern.

    Derived, as the log has no categories; English puts the head noun last.

    >>> category_of("LUNCH BAG RED RETROSPOT")
    'bag'
    >>> category_of("PACK OF 72 RETROSPOT CAKE CASES")
    'cases'
    """
    words = _WORD.findall(description.upper())
    kinds = [word for word in words if word not in _HOW_NOT_WHAT]
    found: list[str] = kinds or words or ["OTHER"]
    return found[-1].lower()


def _read_table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigurationError(f"--dataset {path}: cannot be read: {error}") from error
    missing = [column for column in COLUMNS if column not in table.column_names]
    if missing:
        raise ConfigurationError(f"--dataset {path}: has no column {', '.join(missing)}; it needs {COLUMNS}")
    return table.select(COLUMNS)


def _read_csv(path: Path) -> pa.Table:
    """Read as text: codes such as `85123` and `85123A` must be of one type."""
    columns = pacsv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=True)
    try:
        return pacsv.read_csv(path, convert_options=columns)
    except pa.ArrowInvalid:  # Copies of the publisher's file in Windows-1252 have pound signs.
        return pacsv.read_csv(path, pacsv.ReadOptions(encoding="cp1252"), convert_options=columns)


def _kept(table: pa.Table) -> tuple[list[_Row], Counter[str]]:
    """Return the lines that are a purchase of a product, and how many were left out, by why."""
    rows: list[_Row] = []
    left_out: Counter[str] = Counter()
    for values in zip(*(table[column].to_pylist() for column in COLUMNS), strict=True):
        row = _row(values)
        reason = _why_left_out(row) if row else "unreadable"
        if row is None or reason:
            left_out[reason] += 1
        else:
            rows.append(row)
    return rows, left_out


def _row(values: tuple[object, ...]) -> _Row | None:
    invoice, code, title, quantity, date, price, customer = values
    try:
        return _Row(
            invoice=str(invoice),
            code=str(code).upper(),
            title=" ".join(str(title or "").split()),
            quantity=int(str(quantity)),
            t=_seconds_of(str(date)),
            price=float(str(price)),
            customer=str(int(float(str(customer)))) if customer is not None else None,
        )
    except ValueError:
        return None


def _why_left_out(row: _Row) -> str:
    """Return why a line is no purchase of a product, or an empty string.

    A product's code begins with five digits; POST, DOT, M, BANK CHARGES, gift vouchers do not.
    """
    if not row.invoice[:1].isdigit():
        return "cancelled"
    if not _PRODUCT_CODE.fullmatch(row.code):
        return "notAProduct"
    if row.quantity <= 0:
        return "quantityNotPositive"
    return "" if row.price > 0 else "priceNotPositive"


@lru_cache(maxsize=65_536)
def _seconds_of(text: str) -> float:
    """Return epoch seconds; the log names no zone, so its times are taken as UTC."""
    for form in _TIME_FORMATS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    raise ValueError(f"InvoiceDate: expected month/day/year hour:minute (found {text!r})")


def _catalogue(rows: Iterable[_Row]) -> tuple[Item, ...]:
    titles: dict[str, Counter[str]] = defaultdict(Counter)
    prices: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        titles[row.code][row.title] += 1
        prices[row.code].append(row.price)
    return tuple(
        Item(id=code, title=title, price=median(prices[code]), categories=(category_of(title),))
        for code, counts in titles.items()
        for title in [counts.most_common(1)[0][0]]
    )


def _baskets(rows: Iterable[_Row]) -> tuple[tuple[Basket, ...], int]:
    """Return one basket an invoice, and how many of them were listed by code and so shuffled.

    An item that an invoice names twice is one line, as first named.
    """
    invoices: dict[str, dict[str, _Row]] = defaultdict(dict)
    for row in rows:
        first = invoices[row.invoice].get(row.code)
        more = first.quantity if first else 0
        invoices[row.invoice][row.code] = (first or row)._replace(quantity=row.quantity + more)
    generator = np.random.Generator(np.random.PCG64(SHUFFLE_SEED))
    baskets, shuffled_count = [], 0
    for invoice, kept in invoices.items():
        lines = [Line(row.t, row.code, row.quantity, row.price) for row in kept.values()]
        if _is_listed_by_code(lines):
            lines = [lines[place] for place in generator.permutation(len(lines))]
            shuffled_count += 1
        customer = next(iter(kept.values())).customer
        baskets.append(Basket(id=invoice, visitor=customer, lines=tuple(lines)))
    return one_at_a_time(baskets), shuffled_count


def _is_listed_by_code(lines: Sequence[Line]) -> bool:
    steps = [before.item < after.item for before, after in pairwise(lines)]
    return len(lines) >= LISTED_LINES_MIN and sum(steps) >= LISTED_SHARE_MIN * len(steps)
