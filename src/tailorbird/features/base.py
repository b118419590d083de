"""What a definition of features asks for: the builder that definitions are compiled with.

Each kind of definition is a function in a file beside this one: it is given its struct and a `Builder`, tells
it what to count or keep as events come (`series`, `cell`, `sketch`, `facet`), and which variables there are
and where each is read from (`slot` and the `from_…` methods). Two definitions that ask for the same count
share it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.features.counters import COLUMNS
from tailorbird.features.paths import Reader, conditions, number_of, reader
from tailorbird.features.state import cell_key
from tailorbird.features.surroundings import SURROUNDINGS, ZONE
from tailorbird.features.vocabulary import CATEGORY, EVENT, FACET, SERIES, Vocabulary
from tailorbird.limits import FEATURE_CELLS_MAX, FEATURE_SERIES_MAX, FEATURE_SLOTS_MAX
from tailorbird.schema.events import Event
from tailorbird.schema.feature import Prior

CATEGORY_FACET = "category"

SINCE = len(COLUMNS)
"""The column of a counter that is not stored: seconds since its newest event."""

Conditions = tuple[tuple[Reader, frozenset[str]], ...]


class Source(NamedTuple):
    """Which events count, and what of them: `value` None means 1 each.

    `event` None means all that have a value.
    """

    event: str | None
    where: dict[str, Any]
    value: str | None = None
    is_presence: bool = False
    """Whether not the number at `value` counts but that there is one."""


class Update(NamedTuple):
    """What an event adds to a counter."""

    code: int
    where: Conditions
    read: Reader | None


class Keep(NamedTuple):
    """What an event puts into a cell; `encode` gives None where it says nothing of it."""

    key: int
    mode: int
    where: Conditions
    encode: Callable[[Event, float], float | None]
    is_surrounding: bool = False
    """Whether only the parts of `context` matter that `surroundings.signature` names."""


class Sketched(NamedTuple):
    """What an event adds to a sketch of distinct values.

    Estimates go into `keys`, by window in seconds (0: all).
    """

    code: int
    where: Conditions
    read: Reader
    keys: tuple[tuple[float, int], ...]


class Affine(NamedTuple):
    """Where the variables of one facet and one half-life begin; -1 for none."""

    dimension: int
    column: int
    total: int
    top: int
    top_count: int
    entropy: int
    values: int
    bucket: int
    bucket_count: int


class TraitCell(NamedTuple):
    """A cell that follows a declared trait."""

    trait: str
    key: int
    encode: Callable[[Any], float]


class Presumed(NamedTuple):
    """What is presumed of whom an event fits: a weight of a value, and the cell that says that it was."""

    key: int
    where: Conditions
    code: int
    weight: float


class Builder:
    """Collects what the definitions of one installation need, in their order."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.names: list[str] = []
        self.purposes: list[str] = []
        self.path = ""
        """Where the definition at hand stands, for errors."""
        self.purpose = ""
        self.updates: dict[str, list[Update]] = {}
        self.keeps: dict[str | None, list[Keep]] = {}
        self.sketches: dict[str | None, list[Sketched]] = {}
        self.traits: list[TraitCell] = []
        self.dimensions: dict[str, int] = {}
        self.series_ops: list[tuple[int, int, int, float]] = []
        self.cell_ops: list[tuple[int, int, int, int]] = []
        self.quotients: list[tuple[int, int, int]] = []
        self.affinities: list[Affine] = []
        self.scalars: list[tuple[int, str]] = []
        self.sequence: tuple[int, int] = (-1, 0)
        self.local_time: tuple[int, int] = (-1, -1)
        self.computed: list[tuple[int, str]] = []
        self.blank: list[float] = []
        self.hidden: list[float] = []
        self.needs: list[str] = []
        """Names of all that is counted or kept, in order.

        Where these change, the log has to be folded again.
        """
        self.needs_of: list[set[str]] = []
        """Of each variable, what of that it needs."""
        self._asked: set[str] = set()
        self._series: dict[str, int] = {}
        self._cells: dict[str, int] = {}
        self._index: dict[str, int] = {}

    def begin(self) -> None:
        """Begin the next definition."""
        self._asked = set()

    # --- variables ----------------------------------------------------------------------------------

    def slot(self, name: str, blank: float = 0.0) -> int:
        """Return the place of a new variable; `blank` is what it reads where nothing was seen (nan.

        Missing).
        """
        if name in self._index:
            raise InvalidInputError(Fault(self.path, "each variable has a name of its own", name))
        if len(self.names) >= FEATURE_SLOTS_MAX:
            raise InvalidInputError(Fault(self.path, f"at most {FEATURE_SLOTS_MAX} variables in all", name))
        self._index[name] = len(self.names)
        self.names.append(name)
        self.purposes.append(self.purpose)
        self.needs_of.append(self._asked)  # All of a definition's, also those asked for later.
        self.blank.append(blank)
        return len(self.names) - 1

    def missing(self, name: str) -> int:
        """Return the place of a new variable that is missing until something was seen."""
        return self.slot(name, np.nan)

    def aside(self) -> int:
        """Return the place of a number that quotients need and that is no variable: below 0, counted down."""
        self.hidden.append(0.0)
        return -len(self.hidden)

    # --- what is counted and kept -------------------------------------------------------------------

    def series(self, source: Source) -> int:
        """Return the code of the counter of a source.

        That of the event's own name where nothing else is asked.
        """
        assert source.event is not None, "counters are of one event"
        if not source.where and source.value is None:
            self._need(f"e:{source.event}")
            return self.vocabulary.reserve(EVENT, source.event)
        name = _told("count", source)
        code = self._series.get(name)
        if code is None:
            if len(self._series) >= FEATURE_SERIES_MAX:
                rule = f"at most {FEATURE_SERIES_MAX} counters beside those of events' names"
                raise InvalidInputError(Fault(self.path, rule, source.event))
            code = self._series[name] = self.vocabulary.reserve(SERIES, name)
            read = None if source.value is None else _amount_reader(source, self.path)
            update = Update(code, conditions(source.where, self.path), read)
            self.updates.setdefault(source.event, []).append(update)
        self._need(name)
        return code

    def cell(
        self, what: str, source: Source, mode: int, encode: Callable[[Event, float], float | None]
    ) -> int:
        """Return the key of the cell that `encode` fills from the events of a source.

        `what` tells two apart.
        """
        name = _told(what, source)
        key = self._new_cell(name, mode)
        if self._need(name):
            is_surrounding = source.value in SURROUNDINGS or source.value == ZONE
            keep = Keep(key, mode, conditions(source.where, self.path), encode, is_surrounding)
            self.keeps.setdefault(source.event, []).append(keep)
        return key

    def sketch(self, source: Source, windows: tuple[float, ...]) -> list[int]:
        """Return the key of the cell of each window's estimate of how many distinct values a source had."""
        assert source.value is not None, "distinct values are of something"
        name = _told("distinct", source)
        code = self.vocabulary.reserve(SERIES, name)
        keys = [self._new_cell(f"{name} {window:g}", 0) for window in windows]
        if not self._need(f"{name} {windows}"):
            return keys
        sketched = Sketched(
            code,
            conditions(source.where, self.path),
            reader(source.value, self.path),
            tuple(zip(windows, keys, strict=True)),
        )
        self.sketches.setdefault(source.event, []).append(sketched)
        return keys

    def trait(self, name: str, encoder: str, encode: Callable[[Any], float]) -> int:
        """Return the key of the cell that follows a trait."""
        told = f"trait {name} {encoder}"
        key = self._new_cell(told, 0)
        if self._need(told):
            self.traits.append(TraitCell(name, key, encode))
        return key

    def facet(self, of: str) -> int:
        """Return the number of a facet whose values are counted."""
        if of != CATEGORY_FACET:
            self._need(f"facet {of}")  # Categories are counted whatever is declared.
        return self.dimensions.setdefault(of, len(self.dimensions))

    def prior(self, prior: Prior) -> Presumed:
        """Return what is presumed by a declared prior."""
        name = f"prior {msgspec.json.encode(prior).decode()}"
        self._need(name)
        if prior.of == CATEGORY_FACET:
            code = self.vocabulary.reserve(CATEGORY, prior.value)
        else:
            code = self.vocabulary.reserve(FACET, f"{prior.of}:{prior.value}")
        return Presumed(self._new_cell(name, 0), conditions(prior.when, self.path), code, prior.weight)

    # --- where variables are read from --------------------------------------------------------------

    def from_series(self, slot: int, code: int, column: int, scale: float = 1.0) -> None:
        """Read a variable from a column of a counter."""
        self.series_ops.append((code, slot, column, scale))

    def from_cell(self, slot: int, key: int, how: int, number: int = 0) -> None:
        """Read a variable from a cell."""
        self.cell_ops.append((key, slot, how, number))

    def quotient(self, slot: int, numerator: int, denominator: int) -> None:
        """Read a variable as one number over another; missing where that is 0."""
        self.quotients.append((slot, numerator, denominator))

    def _need(self, name: str) -> bool:
        """Note that the definition at hand needs something; return whether it is the first."""
        self._asked.add(name)
        if name in self.needs:
            return False
        self.needs.append(name)
        return True

    def _new_cell(self, name: str, mode: int) -> int:
        key = self._cells.get(name)
        if key is None:
            if len(self._cells) >= FEATURE_CELLS_MAX:
                raise InvalidInputError(
                    Fault(self.path, f"at most {FEATURE_CELLS_MAX} values kept in all", name)
                )
            key = self._cells[name] = cell_key(self.vocabulary.reserve(SERIES, name), mode)
        return key


def _told(what: str, source: Source) -> str:
    """Return the one name of what is asked for: equal questions have equal names."""
    where = {path: source.where[path] for path in sorted(source.where)}
    return msgspec.json.encode([what, source.event, source.value, source.is_presence, where]).decode()


def _amount_reader(source: Source, path: str) -> Reader:
    assert source.value is not None, "asked for with a value only"
    read = reader(source.value, path)
    if source.is_presence:
        return lambda event: None if number_of(read(event)) is None else 1.0
    return lambda event: number_of(read(event))
