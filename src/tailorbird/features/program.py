"""The features of an installation, compiled: what each event counts, and the vector of all variables by name.

Reading is a handful of kernel calls over one packed record, straight into the array that a model reads;
nothing is gathered by name. Variables that are missing are nan: those of a purpose that the visitor refuses,
a mean of nothing, a time since what never happened.
"""

import math
import zlib
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird.features import distinct, kernels
from tailorbird.features.affinity import AFFINE_WIDTH, OWN_FACETS
from tailorbird.features.base import CATEGORY_FACET, SINCE, Builder, Keep, Presumed, Sketched, Update
from tailorbird.features.cells import Encoded, SurroundingCells
from tailorbird.features.paths import matches, reader, texts_of
from tailorbird.features.scalars import SCALARS
from tailorbird.features.sensitive import SensitiveList, check_path, check_reads
from tailorbird.features.sheet import Sheet
from tailorbird.features.state import (
    KEEP_LAST,
    SET,
    count,
    find_counter,
    grown,
    grown_cells,
    keep,
    lead,
    new_state,
    read_counter,
)
from tailorbird.features.union import add
from tailorbird.features.vocabulary import CATEGORY, EVENT, FACET, KINDS, Vocabulary
from tailorbird.hashing import token
from tailorbird.schema.events import Event
from tailorbird.schema.feature import Feature, FeatureConfig, FeaturesPut, LocalTime, Prior, Sequence
from tailorbird.schema.profile import Profile

Vector = NDArray[np.float32]
Refuses = Callable[[str], bool]

_BUCKET = "_bucket_"
DEFAULT_PURPOSE = "personalization"
_NEWEST_MAX = 10_000  # Names of events whose newest time is kept; anybody can make names up.


class Plan(NamedTuple):
    """What events of one name count and keep."""

    updates: tuple[Update, ...]
    keeps: tuple[Keep, ...]
    sketches: tuple[Sketched, ...]


class Program:
    """The compiled features of an installation.

    Attributes:
        names: The variables, in the order of the vector.
        index: Their places by name.
        slots_of: The places of each definition's variables, by its name.
        tellable: The places of those that mean something in words: no bucket of hashed values, no number that
            stands for an event's name, no hour of the clock.
        purposes: What each is for; refused, it is missing.
        needs: What has to be counted and kept for them, by name: with other needs the log is folded again.
        version: Names the layout: vectors of different versions do not mix.
        needs_of: Of each variable, what of that it needs.
        own_facets: The facets of items whose values are counted, beside categories: brand, tag, cluster.
        facet_paths: Those whose values stand in events themselves: the path, and a function that reads it.
    """

    def __init__(self, put: FeaturesPut, vocabulary: Vocabulary) -> None:
        """Compile the definitions of `put`.

        Raises:
            InvalidInputError: Definitions clash, or read what is on the sensitive list.
        """
        self.put = put
        self._vocabulary = vocabulary
        self.sensitive = SensitiveList(put.config.sensitive)
        builder = self._built(put.definitions, vocabulary)
        self.names = tuple(builder.names)
        self.index = {name: slot for slot, name in enumerate(self.names)}
        self.purposes = tuple(builder.purposes)
        self.priors = tuple(
            self._presumed(prior, place, builder) for place, prior in enumerate(put.config.priors)
        )
        self.needs = tuple(builder.needs)
        self.needs_of = tuple(builder.needs_of)
        self.size = len(self.names)
        self.version = token(b"layout", *self.names, size=6)
        facets = [name for name in builder.dimensions if name != CATEGORY_FACET]
        self.own_facets = tuple(name for name in facets if name in OWN_FACETS)
        self.facet_paths = tuple((name, reader(name, name)) for name in facets if name not in OWN_FACETS)
        self.is_declared = bool(put.definitions)
        self.early = put.config.early_events
        self._traits = tuple(builder.traits)
        self._computed = tuple(builder.computed)
        self._compile_plans(builder)
        self._compile_reads(builder)
        self._dimensions = builder.dimensions
        self._facet_table = np.full((0, 2), -1, np.int32)
        self._category_table = np.full((0, 2), -1, np.int32)
        self._newest: dict[str, float] = {}

    # --- compiling ----------------------------------------------------------------------------------

    def _built(self, definitions: Many[Feature], vocabulary: Vocabulary) -> Builder:
        builder = Builder(vocabulary)
        if self.put.definitions:
            builder.needs.append(f"early {msgspec.json.encode(self.put.config.early_events).decode()}")
        builder.purpose = DEFAULT_PURPOSE
        self.slots_of: dict[str, tuple[int, ...]] = {}
        for name in SCALARS:
            builder.slot(name)
        others = {definition.name: definition for definition in definitions}
        # As an operator finds it again: an own one by its place, a built-in one by its name.
        own = {made.name: f"definitions[{place}]" for place, made in enumerate(self.put.config.definitions)}
        for definition in definitions:
            builder.path = own.get(definition.name, f"definitions.{definition.name}")
            builder.purpose = check_reads(definition, self.sensitive, builder.path)
            builder.begin()
            first = len(builder.names)
            add(definition, builder, others)
            self.slots_of[definition.name] = tuple(range(first, len(builder.names)))
        without_words = (Sequence, LocalTime)
        untold = {
            slot
            for definition in definitions
            if isinstance(definition, without_words)
            for slot in self.slots_of[definition.name]
        }
        self.tellable = tuple(
            slot for slot, name in enumerate(builder.names) if slot not in untold and _BUCKET not in name
        )
        return builder

    def _presumed(self, prior: Prior, place: int, builder: Builder) -> Presumed:
        builder.path = f"priors[{place}]"
        builder.begin()
        for path in prior.when:
            check_path(path, self.sensitive, builder.path)
        return builder.prior(prior)

    def _compile_plans(self, builder: Builder) -> None:
        names = {*builder.updates, *builder.keeps, *builder.sketches} - {None}
        everywhere = builder.keeps.get(None, ())
        self._surroundings = SurroundingCells(tuple(made for made in everywhere if made.is_surrounding))
        others = tuple(made for made in everywhere if not made.is_surrounding)
        self._common = Plan((), others, tuple(builder.sketches.get(None, ())))
        self._plans = {
            name: Plan(
                tuple(builder.updates.get(name, ())),
                (*builder.keeps.get(name, ()), *self._common.keeps),
                (*builder.sketches.get(name, ()), *self._common.sketches),
            )
            for name in sorted(name for name in names if name is not None)
        }

    def _compile_reads(self, builder: Builder) -> None:
        size, hidden = self.size, len(builder.hidden)
        self._blank = np.array([*builder.blank, *builder.hidden], np.float32)

        def place(slot: int) -> int:
            return slot if slot >= 0 else size - 1 - slot  # What stands aside comes behind the variables.

        series = sorted(builder.series_ops, key=lambda operation: operation[0])
        cells = sorted(builder.cell_ops, key=lambda operation: operation[0])
        self._cell_firsts = _firsts([key for key, *_ in cells])
        self._cells = _table([operation[1:] for operation in cells], 3)
        self._has_affinities = bool(builder.affinities)
        self._layout = (
            _firsts([code for code, *_ in series]),
            _table([(place(slot), column) for _, slot, column, _ in series], 2),
            np.array([scale for *_, scale in series], np.float32),
            self._cell_firsts,
            self._cells,
            _table([tuple(affine) for affine in builder.affinities], AFFINE_WIDTH),
            _table([tuple(map(place, quotient)) for quotient in builder.quotients], 3),
            np.array([*builder.sequence, builder.dimensions.get(CATEGORY_FACET, -1)], np.int32),
        )
        """What `kernels.read_record` is told, in its order."""
        self._local_time, self._zone_key = builder.local_time
        self._copies = [(slot, SCALARS.index(name)) for slot, name in builder.scalars]
        self._by_purpose = {
            purpose: np.array([slot for slot, other in enumerate(self.purposes) if other == purpose])
            for purpose in sorted(set(self.purposes))
        }
        self._alone = {slot: operation for operation in series if (slot := operation[1]) >= 0}
        slots = {key: slot for key, slot, *_ in cells}
        self._windowed = [
            (slots[key], sketched.code, window)
            for sketched in _all_sketches(builder)
            for window, key in sketched.keys
            if window
        ]
        assert len(self._blank) == size + hidden

    def newest_of(self, events: tuple[str, ...] | None) -> float | None:
        """Return the time of the newest of some events (None: of all) that was folded since the start."""
        newest = self._newest
        times = newest.values() if events is None else [newest[name] for name in events if name in newest]
        return max(times, default=None)

    # --- folding ------------------------------------------------------------------------------------

    def count(self, event: Event, name: str, sheet: Sheet) -> None:
        """Write what an event adds to counters to its sheet."""
        plan = self._plans.get(name)
        if plan is None:
            return
        for update in plan.updates:
            if update.where and not matches(event, update.where):
                continue
            amount = 1.0 if update.read is None else update.read(event)
            if amount is not None:
                sheet.count(update.code, amount)

    def keep(self, profile: Profile, event: Event, name: str, t: float, sheet: Sheet) -> None:
        """Write what an event says to cells to its sheet, and put it into the profile's sketches."""
        plan = self._plans.get(name, self._common)
        self._note_time(name, t)
        for made in plan.keeps:
            if made.where and not matches(event, made.where):
                continue
            value = made.encode(event, t)
            if value is not None:
                sheet.keep(made.key, made.mode, value, t)
        for sketched in plan.sketches:
            if not sketched.where or matches(event, sketched.where):
                values = texts_of(sketched.read(event))
                if values:
                    _sketch(profile, sketched, values, t, sheet)

    def surroundings(self, event: Event, t: float) -> Encoded:
        """Return the cells of an event's surroundings."""
        return self._surroundings.encoded(event, t)

    def _note_time(self, name: str, t: float) -> None:
        newest = self._newest
        if t > newest.get(name, -math.inf) and (name in newest or len(newest) < _NEWEST_MAX):
            newest[name] = t

    def _set(self, profile: Profile, key: int, value: float, stamp: float, mode: int = SET) -> None:
        while not keep(profile.state, key, mode, value, stamp):
            profile.state = grown_cells(profile.state)

    def presume(self, profile: Profile, event: Event, t: float) -> None:
        """Give a person the affinities that are presumed of whom an event like this one comes from, once."""
        for prior in self.priors:
            if kernels.has_cell(profile.state, prior.key) or not matches(event, prior.where):
                continue
            self._set(profile, prior.key, 1.0, t)
            while count(profile.state, prior.code, t, 0.0, prior.weight) < 0:
                profile.state = grown(profile.state)
            if prior.code % KINDS == CATEGORY:
                lead(profile.state, prior.code)

    def follow_traits(self, profile: Profile, t: float) -> None:
        """Encode the profile's traits anew: they were declared, or two people became one."""
        for made in self._traits:
            if made.trait in profile.traits or kernels.has_cell(profile.state, made.key):
                value = made.encode(profile.traits.get(made.trait))
                self._set(profile, made.key, value, t, KEEP_LAST)

    def merge_sketches(self, older: Profile, newer: Profile, at: float) -> None:
        """Give `older` the distinct values of `newer`, too."""
        for code, tiles in newer.sketches.items():
            mine = older.sketches.get(code)
            older.sketches[code] = tiles if mine is None else distinct.merged(mine, tiles)
        for plan in (self._common, *self._plans.values()):
            for sketched in plan.sketches:
                tiles = older.sketches.get(sketched.code, {})
                for window, key in sketched.keys:
                    if tiles:
                        self._set(older, key, *distinct.estimate(tiles, window, at))

    # --- reading ------------------------------------------------------------------------------------

    def vector(
        self, profile: Profile | None, at: float, refuses: Refuses, event: Event | None = None
    ) -> Vector:
        """Return all variables as of `at`, float32, shape (size,), nan where missing.

        Args:
            profile: Whose; None for somebody of whom nothing is known.
            at: Epoch seconds; of the past it gives what is still kept, not what was known then.
            refuses: Whether the visitor does not agree to a purpose.
            event: What the present request says of its surroundings, over what the latest event said.
        """
        out = self._blank.copy()
        state = new_state(at) if profile is None else profile.state
        if self._has_affinities:
            self._note_words()
        kernels.read_record(state, at, *self._layout, self._facet_table, self._category_table, out)
        for slot, scalar in self._copies:
            out[slot] = out[scalar]
        self._read_rest(profile, at, event, out)
        vector = out[: self.size]
        for purpose, slots in self._by_purpose.items():
            if refuses(purpose):
                vector[slots] = np.nan
        return vector

    def origin(self, name: str) -> tuple[str, int] | None:
        """Return the event, by its stem, and the column of its own counter that a variable is read from."""
        alone = self._alone.get(self.index[name])
        if alone is None or alone[0] % KINDS != EVENT:
            return None
        return self._vocabulary.stem(alone[0]), alone[2]

    def value(self, profile: Profile, slot: int, at: float) -> float | None:
        """Return one variable where that takes but one counter, None where it takes the whole vector."""
        alone = self._alone.get(slot)
        if alone is None:
            return None
        code, _, column, scale = alone
        position = find_counter(profile.state, code)
        if position < 0 or column == SINCE:
            return float(self._blank[slot]) if position < 0 else None
        return float(np.float32(scale * read_counter(profile.state, position, column, at)))

    def _read_rest(self, profile: Profile | None, at: float, event: Event | None, out: Vector) -> None:
        """Write what no kernel can.

        Windows of sketches that moved on, computed attributes, the request's own.
        """
        if profile is not None:
            for slot, code, window in self._windowed:
                if out[slot] != out[slot]:
                    out[slot] = distinct.estimate(profile.sketches.get(code, {}), window, at)[0]
            for slot, attribute in self._computed:
                computed = profile.computed.get(attribute)
                out[slot] = np.nan if computed is None else computed.value
        state = None if profile is None else profile.state
        zone = 0.0 if state is None else kernels.cell_value(state, self._zone_key)
        if event is not None:
            zone = self._overlay(event, at, out, zone)
        if self._local_time >= 0:
            kernels.read_local_time(at, zone, self._local_time, out)

    def _overlay(self, event: Event, at: float, out: Vector, zone: float) -> float:
        """Write the surroundings that a request names.

        Return its zone's offset, `zone` where it names none.
        """
        for made in (*self._surroundings.keeps, *self._common.keeps):
            value = made.encode(event, at)
            if value is None:
                continue
            if made.key == self._zone_key:
                zone = value
            elif made.key + 1 < len(self._cell_firsts):
                for place in range(self._cell_firsts[made.key], self._cell_firsts[made.key + 1]):
                    slot, how, number = self._cells[place].tolist()
                    out[slot] = float(value == number) if how == kernels.EQUAL else value
        return zone

    def _note_words(self) -> None:
        """Take note of values of facets and categories that the vocabulary has learned."""
        self._facet_table = self._noted(FACET, self._facet_table, self._dimension_of)
        self._category_table = self._noted(CATEGORY, self._category_table, lambda _: 0)

    def _noted(self, kind: int, table: NDArray[np.int32], dimension_of: Callable[[str], int]) -> Any:  # noqa: ANN401
        known, size = len(table), self._vocabulary.size(kind)
        if known == size:
            return table
        names = [self._vocabulary.name(KINDS * number + kind) for number in range(known, size)]
        rows = [(dimension_of(name), zlib.crc32(name.encode()) & _HASH_MASK) for name in names]
        return np.concatenate([table, np.array(rows, np.int32).reshape(-1, 2)])

    def _dimension_of(self, name: str) -> int:
        return self._dimensions.get(name.split(":", 1)[0], -1)


_HASH_MASK = 0x7FFFFFFF


def _sketch(profile: Profile, sketched: Sketched, values: list[str], t: float, sheet: Sheet) -> None:
    """Add values to a profile's sketches, and write their estimates to the sheet."""
    tiles = profile.sketches.get(sketched.code)
    if tiles is None:
        tiles = profile.sketches[sketched.code] = {}
    for window, key in sketched.keys:
        changed = distinct.add(tiles, window, values, t)
        if changed is not None:
            sheet.keep(key, SET, *changed)


def _firsts(codes: list[int]) -> NDArray[np.int32]:
    """Return, by code, where its operations begin in the sorted list: shape (largest code + 2,)."""
    return np.searchsorted(codes, np.arange(max(codes, default=-1) + 2)).astype(np.int32)


def _table(rows: Many[tuple[int, ...]], width: int) -> NDArray[np.int32]:
    return np.array(rows, np.int32).reshape(-1, width)


def _all_sketches(builder: Builder) -> list[Sketched]:
    return [sketched for sketches in builder.sketches.values() for sketched in sketches]


NO_FEATURES = FeaturesPut(0.0, FeatureConfig(catalogues=()), ())
