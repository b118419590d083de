"""Encoders: traits, surroundings and local time as numbers.

What has one of a few values becomes ones and zeros.
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tailorbird.features.base import Builder, Source
from tailorbird.features.kernels import EQUAL, VALUE_OF_CELL
from tailorbird.features.paths import number_of, reader, texts_of
from tailorbird.features.state import KEEP_LAST
from tailorbird.features.surroundings import SURROUNDINGS, ZONE, surroundings_reader, zone_offset
from tailorbird.features.vocabulary import slug
from tailorbird.schema.events import Event
from tailorbird.schema.feature import Context, Encoder, Hashed, LocalTime, Number, OneHot, Trait

NOTHING = np.nan
HOURS, DAYS = 24, 7


def trait(made: Trait, builder: Builder) -> None:
    """Add the variables of a trait."""
    encode = _encoding(made.encode)
    key = builder.trait(
        made.trait, repr(made.encode), lambda value: NOTHING if value is None else encode(value)
    )
    _slots(made.name, made.encode, key, builder)


def context(made: Context, builder: Builder) -> None:
    """Add the variables of what the latest event says of the surroundings."""
    read = surroundings_reader(made.of) if made.of in SURROUNDINGS else reader(made.of, builder.path)
    encode = _encoding(made.encode)

    def value_of(event: Event, _: float) -> float | None:
        value = read(event)
        return None if value is None else encode(value)

    key = builder.cell(f"context {made.encode!r}", Source(None, {}, made.of), KEEP_LAST, value_of)
    _slots(made.name, made.encode, key, builder)


def local_time(made: LocalTime, builder: Builder) -> None:
    """Add the variables of the hour of the week where the visitor is."""

    def offset_of(event: Event, t: float) -> float | None:
        return None if event.context is None else zone_offset(event.context, t)

    key = builder.cell("zone", Source(None, {}, ZONE), KEEP_LAST, offset_of)
    first = builder.slot(f"{made.name}_hour_00")
    for hour in range(1, HOURS):
        builder.slot(f"{made.name}_hour_{hour:02d}")
    for day in range(DAYS):
        builder.slot(f"{made.name}_day_{day}")
    builder.slot(f"{made.name}_sin")
    builder.slot(f"{made.name}_cos")
    builder.local_time = (first, key)


def _slots(name: str, encoder: Encoder, key: int, builder: Builder) -> None:
    match encoder:
        case Number():
            builder.from_cell(builder.missing(name), key, VALUE_OF_CELL)
        case OneHot():
            for place, value in enumerate(encoder.values, 1):
                builder.from_cell(builder.slot(f"{name}_{slug(value)}"), key, EQUAL, place)
            builder.from_cell(builder.slot(f"{name}_other"), key, EQUAL, len(encoder.values) + 1)
        case Hashed():
            for bucket in range(encoder.buckets):
                builder.from_cell(builder.slot(f"{name}_bucket_{bucket:02d}"), key, EQUAL, bucket + 1)


def _encoding(encoder: Encoder) -> Callable[[Any], float]:
    """Return a function from a value to what its cell keeps: a number, or the place of the 1."""
    if isinstance(encoder, Number):
        return _as_number
    if isinstance(encoder, Hashed):
        return lambda value: _in_bucket(value, encoder.buckets)
    places = {value.lower(): place for place, value in enumerate(encoder.values, 1)}
    return lambda value: _placed(value, places)


def _as_number(value: Any) -> float:  # noqa: ANN401
    number = number_of(value)
    return NOTHING if number is None else number


def _in_bucket(value: Any, buckets: int) -> float:  # noqa: ANN401
    texts = texts_of(value)
    return 1.0 + zlib.crc32(texts[0].encode()) % buckets if texts else NOTHING


def _placed(value: Any, places: dict[str, int]) -> float:  # noqa: ANN401
    texts = texts_of(value)
    return float(places.get(texts[0].lower(), len(places) + 1)) if texts else NOTHING
