"""Features of the visit that goes on, and the sequence of the last events."""

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.features.base import Builder, Source
from tailorbird.features.kernels import OF_SESSION
from tailorbird.features.paths import number_of, reader
from tailorbird.features.state import ADD_IN_SESSION, LAST_IN_SESSION, MOST_IN_SESSION
from tailorbird.schema.events import Event
from tailorbird.schema.feature import Sequence, Session

_MODES = {"count": ADD_IN_SESSION, "sum": ADD_IN_SESSION, "max": MOST_IN_SESSION, "last": LAST_IN_SESSION}
_SCALARS = {"depth": "session_depth", "seconds": "session_seconds"}


def session(made: Session, builder: Builder) -> None:
    """Add the variable of something in the session at hand."""
    slot = builder.slot(made.name)
    if made.measure in _SCALARS:
        builder.scalars.append((slot, _SCALARS[made.measure]))
        return
    if made.event is None:
        raise InvalidInputError(Fault(f"{builder.path}.event", f"{made.measure} is of an event", None))
    source = Source(made.event, made.where, made.value)
    if made.measure == "count":
        key = builder.cell("session count", source, ADD_IN_SESSION, lambda _event, _t: 1.0)
    elif made.value is None:
        raise InvalidInputError(Fault(f"{builder.path}.value", f"{made.measure} is of a value", None))
    else:
        read = reader(made.value, builder.path)

        def value_of(event: Event, _: float) -> float | None:
            return number_of(read(event))

        key = builder.cell(f"session {made.measure}", source, _MODES[made.measure], value_of)
    builder.from_cell(slot, key, OF_SESSION)


def sequence(made: Sequence, builder: Builder) -> None:
    """Add the variables of the last events; one sequence an installation."""
    if builder.sequence[0] >= 0:
        raise InvalidInputError(Fault(builder.path, "one sequence among the definitions", made.name))
    first = -1
    for place in range(1, 1 + made.length):
        slot = builder.slot(f"{made.name}_{place}_event")
        builder.missing(f"{made.name}_{place}_seconds_ago")
        first = slot if place == 1 else first
    builder.sequence = (first, made.length)
