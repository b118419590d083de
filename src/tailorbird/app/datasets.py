"""Recorded and simulated shops for `tailorbird demo` and `tailorbird replay`.

Reads the Online Retail log (Parquet, or the publisher's columns as CSV) or makes a seeded shop, and
gives a `Shop`: its catalogue, and its baskets in the order in which they began. Nothing is invented
about a recorded log but what is said here:

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

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from tailorbird.errors import ConfigurationError
from tailorbird.schema.item import Item

NAMES: Final = ("online-retail", "simulated")
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
LINE_SECONDS: Final = 1.0  # Between two lines of a basket: the log has minutes only.
LISTED_LINES_MIN: Final = 6  # Shorter baskets ascend by chance.
LISTED_SHARE_MIN: Final = 0.9  # 80 of 100 nameless baskets lie above it, 0.4 of 100 others do.
SHUFFLE_SEED: Final = 7
SIMULATED_SEED: Final = 7
SIMULATED_LINES: Final = 30_000

_SHARED_FILE: Final = Path("shared", "data", "online-retail", "online_retail.parquet")
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


class Line(NamedTuple):
    """One thing put into a basket: when (epoch seconds), which item, how many, at what price."""

    t: float
    item: str
    quantity: int
    price: float


class Basket(msgspec.Struct, frozen=True):
    """One visit that ended in an order. `visitor` is a customer's id; None is a nameless one."""

    id: str
    visitor: str | None
    lines: tuple[Line, ...]

    @property
    def start(self) -> float:
        """Return the time of the first line, epoch seconds."""
        return self.lines[0].t


class Shop(msgspec.Struct, frozen=True):
    """A catalogue and the baskets that were filled from it, by the time they began."""

    name: str
    items: tuple[Item, ...]
    baskets: tuple[Basket, ...]
    lines_read: int
    left_out: dict[str, int]
    """Lines of the log that are no purchase of a product, by why."""
    notes: tuple[str, ...] = ()
    """What a reader must know about how the data came to be."""

    @property
    def lines_count(self) -> int:
        """Return how many lines the baskets have together."""
        return _size(self.baskets)


class _Row(NamedTuple):
    """One kept line of the log, as recorded."""

    invoice: str
    code: str
    title: str
    quantity: int
    t: float
    price: float
    customer: str | None


def load(dataset: str, lines_max: int | None = None) -> Shop:
    """Return the shop of a name in `NAMES` or of a `.parquet` or `.csv` file.

    Args:
        dataset: `online-retail` (the simulated shop where its file is not here, with a note that
            says so), `simulated`, or a path.
        lines_max: Read only so many lines, the earliest; without it, all.

    Raises:
        ConfigurationError: The dataset is neither a name nor a readable file of the known columns,
            or `lines_max` is below 1.
    """
    if lines_max is not None and lines_max < 1:
        raise ConfigurationError(f"--lines: at least 1 (found {lines_max})")
    if dataset == "simulated":
        return simulate(SIMULATED_SEED, lines_max or SIMULATED_LINES)
    path = _online_retail_file() if dataset == "online-retail" else Path(dataset)
    if path is None:
        return _stand_in(lines_max)
    return read_log(path, lines_max)


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
        name="online-retail" if path.name == _SHARED_FILE.name else path.name,
        items=_catalogue(rows),
        baskets=baskets,
        lines_read=lines_count,
        left_out=dict(left_out + Counter(repeatedInBasket=len(rows) - _size(baskets))),
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


def simulate(seed: int, lines_count: int) -> Shop:
    """Return a made-up shop of `lines_count` lines (at least 1), in which what goes together wins.

    Each of 240 items has one companion. The next item of a basket is the last one's companion in 55
    of 100 cases, of the visitor's two favourite kinds in 20, and from the bestsellers' long tail in
    25. So strategies that see what was bought together must win, and those that do not must lose.

    >>> simulate(7, 1000).lines_count
    1000
    """
    maker = _Simulator(np.random.Generator(np.random.PCG64(seed)))
    baskets: list[Basket] = []
    left = lines_count
    while left > 0:
        basket = maker.basket(len(baskets), left)
        baskets.append(basket)
        left -= len(basket.lines)
    return Shop(
        name="simulated",
        items=maker.items,
        baskets=_one_at_a_time(baskets),
        lines_read=lines_count,
        left_out={},
        notes=("made up by a seeded generator: nobody bought any of this",),
    )


class _Simulator:
    """The made-up shop's catalogue, visitors and habits, drawn from one generator."""

    kinds_count = 24
    items_per_kind = 10
    visitors_count = 500
    opened = 1_704_067_200.0  # 2024-01-01.
    baskets_apart_seconds = 900.0

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        size = self.kinds_count * self.items_per_kind
        prices = generator.uniform(1, 40, size).round(2)
        self.items = tuple(
            Item(
                id=f"item-{index:03d}",
                title=f"Thing {index}",
                price=float(prices[index]),
                categories=(f"kind-{index // self.items_per_kind:02d}",),
            )
            for index in range(size)
        )
        self.companions = generator.permutation(size)
        popular = 1.0 / (1.0 + generator.permutation(size))
        self.popular = popular / popular.sum()
        self.tastes = generator.integers(0, self.kinds_count, (self.visitors_count, 2))

    def basket(self, index: int, lines_max: int) -> Basket:
        """Return the basket of that index, of 1 to `lines_max` distinct items."""
        visitor = int(self.generator.integers(self.visitors_count))
        size = min(lines_max, 3 + int(self.generator.poisson(6)))
        chosen: list[int] = []
        while len(chosen) < size:
            item = self._next(visitor, chosen)
            if item not in chosen:
                chosen.append(item)
        start = self.opened + index * self.baskets_apart_seconds
        lines = tuple(
            Line(start + place * LINE_SECONDS, self.items[item].id, 1, self.items[item].price or 0.0)
            for place, item in enumerate(chosen)
        )
        name = None if visitor % 10 == 0 else f"visitor-{visitor:03d}"
        return Basket(id=f"basket-{index:06d}", visitor=name, lines=lines)

    def _next(self, visitor: int, chosen: list[int]) -> int:
        habit = self.generator.random()
        if chosen and habit < 0.55:  # noqa: PLR2004 - the shares are said in `simulate`
            return int(self.companions[chosen[-1]])
        if habit < 0.75:  # noqa: PLR2004
            kind = int(self.tastes[visitor, self.generator.integers(2)])
            return kind * self.items_per_kind + int(self.generator.integers(self.items_per_kind))
        return int(self.generator.choice(len(self.items), p=self.popular))


def _online_retail_file() -> Path | None:
    """Return the log beside the checkout or the working directory, if it is there."""
    beside = (Path.cwd().parent, Path(__file__).resolve().parents[4])
    return next((folder / _SHARED_FILE for folder in beside if (folder / _SHARED_FILE).is_file()), None)


def _size(baskets: Iterable[Basket]) -> int:
    return sum(len(basket.lines) for basket in baskets)


def _stand_in(lines_max: int | None) -> Shop:
    note = (
        f"the Online Retail log is not here (../{_SHARED_FILE}): a simulated shop stands in;"
        f" the log is at {PUBLISHER}: save it as CSV and pass --dataset FILE.csv"
    )
    shop = load("simulated", lines_max)
    return msgspec.structs.replace(shop, notes=(note, *shop.notes))


def _read_table(path: Path) -> pa.Table:
    if path.suffix not in {".parquet", ".csv"}:
        raise ConfigurationError(
            f"--dataset {path}: expected one of {', '.join(NAMES)}, or a .parquet or .csv file"
        )
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
    return _one_at_a_time(baskets), shuffled_count


def _is_listed_by_code(lines: Sequence[Line]) -> bool:
    steps = [before.item < after.item for before, after in pairwise(lines)]
    return len(lines) >= LISTED_LINES_MIN and sum(steps) >= LISTED_SHARE_MIN * len(steps)


def _one_at_a_time(baskets: Iterable[Basket]) -> tuple[Basket, ...]:
    """Return the baskets by start, lines a second apart, one at a time for each customer."""
    free_at: dict[str, float] = {}
    moved = []
    for basket in sorted(baskets, key=lambda basket: basket.start):
        t = free_at.get(basket.visitor or basket.id, 0.0)
        lines = []
        for line in basket.lines:
            t = max(line.t, t + LINE_SECONDS)
            lines.append(line._replace(t=t))
        free_at[basket.visitor or basket.id] = t + LINE_SECONDS
        moved.append(msgspec.structs.replace(basket, lines=tuple(lines)))
    return tuple(sorted(moved, key=lambda basket: basket.start))
