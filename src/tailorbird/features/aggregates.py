"""Counts, sums, means, rates, ratios, distinct values, last values and times since.

Each from a counter or a cell.
"""

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.features.base import SINCE, Builder, Source
from tailorbird.features.counters import COLUMNS, WINDOW_SECONDS, WINDOWS
from tailorbird.features.kernels import UNTIL, VALUE_OF_CELL
from tailorbird.features.paths import number_of, reader
from tailorbird.features.state import KEEP_LAST
from tailorbird.schema.feature import Count, Distinct, Feature, Last, Mean, Rate, Ratio, Sum, TimeSince

_DAY_SECONDS = 86400.0
_SECONDS = dict(zip(WINDOWS, WINDOW_SECONDS, strict=True))


def count(made: Count, builder: Builder) -> None:
    """Add the variables of a count."""
    code = builder.series(Source(made.event, made.where))
    builder.from_series(builder.slot(f"{made.name}_count"), code, 0)
    _windows(made, builder, code)


def total(made: Sum, builder: Builder) -> None:
    """Add the variables of a sum."""
    code = builder.series(Source(made.event, made.where, made.value))
    builder.from_series(builder.slot(made.name), code, 0)
    _windows(made, builder, code)


def mean(made: Mean, builder: Builder) -> None:
    """Add the variables of a mean: a sum over the count of the events that carried a number."""
    code = builder.series(Source(made.event, made.where, made.value))
    counted = builder.series(Source(made.event, made.where, made.value, is_presence=True))
    for suffix, column in [("", 0), *((f"_{window}", COLUMNS.index(window)) for window in made.windows)]:
        above, below = builder.aside(), builder.aside()
        builder.from_series(above, code, column)
        builder.from_series(below, counted, column)
        builder.quotient(builder.missing(f"{made.name}{suffix}"), above, below)


def rate(made: Rate, builder: Builder) -> None:
    """Add the variables of a rate: a window's count over its days."""
    code = builder.series(Source(made.event, made.where))
    for window in made.windows:
        slot = builder.slot(f"{made.name}_{window}")
        builder.from_series(slot, code, COLUMNS.index(window), _DAY_SECONDS / _SECONDS[window])


def ratio(made: Ratio, builder: Builder, others: dict[str, Feature]) -> None:
    """Add the variables of a ratio of two other definitions."""
    codes = [_counter_of(made, field, builder, others) for field in ("numerator", "denominator")]
    for suffix, column in [("", 0), *((f"_{window}", COLUMNS.index(window)) for window in made.windows)]:
        parts = [builder.aside(), builder.aside()]
        for part, code in zip(parts, codes, strict=True):
            builder.from_series(part, code, column)
        builder.quotient(builder.missing(f"{made.name}{suffix}"), *parts)


def _counter_of(made: Ratio, field: str, builder: Builder, others: dict[str, Feature]) -> int:
    other = others.get(getattr(made, field))
    if isinstance(other, Sum):
        return builder.series(Source(other.event, other.where, other.value))
    if isinstance(other, Count):
        return builder.series(Source(other.event, other.where))
    rule = "the name of a count or sum among the definitions"
    raise InvalidInputError(Fault(f"{builder.path}.{field}", rule, getattr(made, field)))


def distinct(made: Distinct, builder: Builder) -> None:
    """Add the variables of distinct values: estimates that are kept until a window's next tile."""
    windows = (0.0, *(_SECONDS[window] for window in made.windows))
    names = ("", *(f"_{window}" for window in made.windows))
    keys = builder.sketch(Source(made.event, made.where, made.value), windows)
    for suffix, key in zip(names, keys, strict=True):
        builder.from_cell(builder.slot(f"{made.name}{suffix}"), key, UNTIL)


def last(made: Last, builder: Builder) -> None:
    """Add the variable of a last value."""
    read = reader(made.value, builder.path)
    source = Source(made.event, made.where, made.value)
    key = builder.cell("last", source, KEEP_LAST, lambda event, _: number_of(read(event)))
    builder.from_cell(builder.missing(made.name), key, VALUE_OF_CELL)


def time_since(made: TimeSince, builder: Builder) -> None:
    """Add the variable of the time since an event."""
    code = builder.series(Source(made.event, made.where))
    builder.from_series(builder.missing(made.name), code, SINCE)


def _windows(made: Count | Sum, builder: Builder, code: int) -> None:
    for column in [*made.windows, *(f"decayed_{half_life}" for half_life in made.half_lives)]:
        builder.from_series(builder.slot(f"{made.name}_{column}"), code, COLUMNS.index(column))
