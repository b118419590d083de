"""Paths into events, compiled to functions.

`properties.products[].price` becomes a function from an event to the list of its products' prices. Of
`context` only what the event's type knows can be read (see `schema.events.EventContext`).
"""

import math
from collections.abc import Callable
from typing import Any

import msgspec

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.schema.events import Event, EventContext

Reader = Callable[[Event], Any]

NUMBER_MAX = 1e12
"""Larger numbers are taken for mistakes: a sum of such values stays finite."""
TEXT_LENGTH_MAX = 200
LIST_MAX = 100
"""Entries of a list that are looked at, as of an order's lines."""

CONTEXT_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(EventContext))
"""What can be read of `context`."""


def reader(path: str, at: str) -> Reader:
    """Return a function from an event to the value at `path`, None where there is none; a list after `[]`.

    Args:
        path: As `schema.feature.Path`.
        at: Where `path` itself stands, for errors.

    Raises:
        InvalidInputError: It leads into a part of `context` that is not read.
    """
    root, *steps = path.split(".")
    first = steps[0].removesuffix("[]")
    if root == "context" and first not in CONTEXT_FIELDS:
        raise InvalidInputError(Fault(at, f"of context one of {', '.join(sorted(CONTEXT_FIELDS))}", path))
    read = _ROOTS[root]
    for step in steps:
        name = step.removesuffix("[]")
        read = _each(read, name) if "[]" in path else _field(read, name)
        if step.endswith("[]"):
            read = _listed(read)
    return read


def number_of(value: Any) -> float | None:  # noqa: ANN401
    """Return a value as a number, the sum of a list's numbers; None where it is none.

    >>> number_of("12.50"), number_of([1, "x", 2]), number_of("much"), number_of(float("inf"))
    (12.5, 3.0, None, None)
    """
    if isinstance(value, list):
        numbers = [number for entry in value if (number := number_of(entry)) is not None]
        return sum(numbers) if numbers else None
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) < NUMBER_MAX else None


def texts_of(value: Any) -> list[str]:  # noqa: ANN401
    """Return the different texts that a value is or holds, cut to `TEXT_LENGTH_MAX`.

    >>> texts_of(["a", 7, "a", None, True]), texts_of("x"), texts_of({})
    (['a', '7', 'true'], ['x'], [])
    """
    if isinstance(value, str):
        return [value[:TEXT_LENGTH_MAX]] if value else []
    if value is None:
        return []
    entries = value if isinstance(value, list) else [value]
    return list(dict.fromkeys(text for entry in entries[:LIST_MAX] if (text := _text(entry))))


def matches(event: Event, conditions: tuple[tuple[Reader, frozenset[str]], ...]) -> bool:
    """Return whether each of the paths holds one of its values."""
    return all(any(text in accepted for text in texts_of(read(event))) for read, accepted in conditions)


def conditions(where: dict[str, Any], at: str) -> tuple[tuple[Reader, frozenset[str]], ...]:
    """Return a declared `where` made ready."""
    return tuple((reader(path, at), frozenset(texts_of(values))) for path, values in where.items())


def _text(entry: Any) -> str:  # noqa: ANN401
    if isinstance(entry, str):
        return entry[:TEXT_LENGTH_MAX]
    if isinstance(entry, bool):
        return "true" if entry else "false"
    return str(entry) if isinstance(entry, int | float) else ""


def _get(value: Any, name: str) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return value.get(name)
    return getattr(value, _SNAKE.get(name, name), None) if isinstance(value, msgspec.Struct) else None


def _field(read: Reader, name: str) -> Reader:
    return lambda event: _get(read(event), name)


def _each(read: Reader, name: str) -> Reader:
    def values(event: Event) -> Any:  # noqa: ANN401
        value = read(event)
        return [_get(entry, name) for entry in value] if isinstance(value, list) else _get(value, name)

    return values


def _listed(read: Reader) -> Reader:
    def values(event: Event) -> Any:  # noqa: ANN401
        value = read(event)
        return value[:LIST_MAX] if isinstance(value, list) else []

    return values


def _traits(event: Event) -> Any:  # noqa: ANN401
    context = event.context
    return event.traits if event.traits is not None else None if context is None else context.traits


_ROOTS: dict[str, Reader] = {
    "properties": lambda event: event.properties,
    "traits": _traits,
    "context": lambda event: event.context,
}
_SNAKE = {field.encode_name: field.name for field in msgspec.structs.fields(EventContext)}
