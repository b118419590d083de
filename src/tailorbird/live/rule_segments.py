"""Rule segments as they are declared, made ready: compiled, in an order, and found by what may change them.

A segment's rule may read others, as `'vip' in profile.segments`; those come before it in the order, and
a circle of them is refused. It sees of `profile.segments` those that it names and no others.

Each declaration is kept with two offsets of the log, of its first record and of its latest. The latest of
all is the `version`: a person whose segments were evaluated by another version has all of them evaluated
next, and what was kept of a segment from before its first record is of another one that had its name.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.features.program import NO_FEATURES, Program
from tailorbird.features.sequence import ANY
from tailorbird.features.vocabulary import CATEGORY, EVENT, Vocabulary, slug
from tailorbird.limits import RECENT_EVENTS_MAX, SEGMENTS_MAX
from tailorbird.live.feature_sets import FeatureSets
from tailorbird.live.fields import STEADY, Need, is_number, need_of
from tailorbird.live.table import Table
from tailorbird.rules.cel import Expression, compile_expression
from tailorbird.schema.profile import Profile
from tailorbird.schema.segment import EventSequence, RuleSegment, SegmentChanged
from tailorbird.stores.state import StateStore

T = TypeVar("T")

_NO_PROGRAM = Program(NO_FEATURES, Vocabulary(lambda _name, _code: None))

SEGMENT_VARIABLES = frozenset({"profile", "now"})
NUMBER = "profile_"
"""What the name of a variable begins with that is a feature of the person."""

_TOKEN = re.compile(r"//[^\n]*|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_NAMED = re.compile(r"(?<![\w'\"])\x00(\d+)\x00\s+in\s+profile\.segments\b(?!\s*[.\[(])")
_PLACED = re.compile(r"\x00(\d+)\x00")
_FIELD = re.compile(rf"{_TOKEN.pattern}|(?<![.\w])profile\.([A-Za-z_]\w*)\b(?!\s*\()")
_READ = re.compile(r"(?<![.\w])profile\.segments\b")


class Declared(msgspec.Struct, frozen=True):
    """A segment, and the log offsets of its first and its latest declaration."""

    segment: RuleSegment
    since: int
    changed: int


class CompiledSegment:
    """A segment with everything that is prepared once."""

    def __init__(self, segment: RuleSegment, program: Program) -> None:
        self.segment = segment
        self._program = program
        self.key = segment.key
        self.expression: Expression | None = None
        self.fields: frozenset[str] = frozenset()
        self.named: tuple[str, ...] = ()
        """The segments that the rule reads."""
        self.numbers: frozenset[str] = frozenset()
        """The fields that the rule gets as variables of their own, by `NUMBER`, and not in `profile`."""
        self.members: tuple[str, ...] = ()
        """The variables that tell it whether the person is in each of them."""
        if segment.rule is not None:
            declared = compile_expression(segment.rule, "rule", SEGMENT_VARIABLES)
            self.fields = _fields(declared)
            self.named, source = _named(declared)
            self.members = tuple(_member(place) for place in range(len(self.named)))
            self.expression, self.numbers = _flattened(source, self.fields, self.members, program)
        self._needs = self._list_needs()
        self.steps = frozenset((need.step_seconds, need.stem) for need in self._needs if need.is_timed)
        """By which steps time may change it, each with the stem that has to be counted, or none."""
        self.stems = frozenset(need.stem for need in self._needs if need.stem)
        self.traits = frozenset(need.trait for need in self._needs if need.trait)
        self.is_any = any(need.is_any for need in self._needs)

    def _list_needs(self) -> list[Need]:
        needs = [need_of(field, self._program) for field in sorted(self.fields)]
        if self.expression is not None and "now" in self.expression.variables:
            needs.append(Need(is_any=True, step_seconds=0.0))
        sequence = self.segment.sequence
        if sequence is not None:
            # Only its last step completes a sequence, but for an event that comes late.
            lasts = STEADY if sequence.lasts_seconds is None else 0.0
            needs.append(Need(stem=slug(sequence.steps[-1].event), step_seconds=lasts))
        return needs


class CompiledSequence(NamedTuple):
    """A sequence in the codes of a vocabulary, a row for each event; see `features.sequence`."""

    steps: NDArray[np.int64]
    items: dict[int, str]
    """By row, the item of which the catalogue had not heard yet."""
    sequence: EventSequence


class Index:
    """All segments in the order of evaluation, by position, and which ones a change may concern."""

    def __init__(self, segments: list[CompiledSegment], stem_of: Callable[[int], str]) -> None:
        self.segments = segments
        self._stem_of = stem_of
        self.all = frozenset(range(len(segments)))
        self.dependent = tuple(place for place, one in enumerate(segments) if one.named)
        self.sequences = frozenset(place for place, one in enumerate(segments) if one.segment.sequence)
        self._any = frozenset(place for place, one in enumerate(segments) if one.is_any)
        self._by_stem: dict[str, set[int]] = {}
        self._by_trait: dict[str, set[int]] = {}
        self._by_step: dict[float, dict[str, set[int]]] = {}
        for place, one in enumerate(segments):
            for stem in one.stems:
                self._by_stem.setdefault(stem, set()).add(place)
            for trait in one.traits:
                self._by_trait.setdefault(trait, set()).add(place)
            for step, stem in one.steps:
                self._by_step.setdefault(step, {}).setdefault(stem, set()).add(place)

    def touched(self, stems: Iterable[str], traits: Iterable[str]) -> set[int]:
        """Return the segments that an event may change, which counted `stems` and declared `traits`."""
        found = set(self._any)
        for stem in stems:
            found |= self._by_stem.get(stem, frozenset())
        for trait in traits:
            found |= self._by_trait.get(trait, frozenset())
        return found

    @property
    def has_timed(self) -> bool:
        """Return whether anybody can enter or leave by time alone."""
        return bool(self._by_step)

    def moved(self, before: float, t: float, counted: Callable[[], Iterable[int]]) -> set[int]:
        """Return the segments that the time from `before` to `t` may change.

        A counter that a person does not have stays at nothing; `counted` gives the codes of those there are.
        """
        found: set[int] = set()
        if t == before:
            return found
        steps = [places for step, places in self._by_step.items() if not step or t // step != before // step]
        if not steps:
            return found
        stems = [self._stem_of(code) for code in counted()]
        for places in steps:
            found.update(places.get("", ()), *[places[stem] for stem in stems if stem in places])
        return found


class RuleSegments:
    """The declared segments of a world, how many people are in each, and what is not announced yet.

    Only the fold writes it.
    """

    def __init__(self, store: StateStore, vocabulary: Vocabulary, features: FeatureSets) -> None:
        self._features = features
        self._table = Table(store, "segment", _msgpack(Declared), _CACHE_BYTES)
        self._sizes = Table(store, "size", _msgpack(int), _CACHE_BYTES)
        self._unannounced = Table(store, "unannounced", _msgpack(SegmentChanged), _CACHE_BYTES)
        self.tables: tuple[Table[Any], ...] = (self._table, self._sizes, self._unannounced)
        self._vocabulary = vocabulary
        self.declared: dict[str, Declared] = dict(self._table.scan())
        self.unannounced: dict[str, SegmentChanged] = dict(self._unannounced.scan())
        """Changes that the fold derived and that no record has announced."""
        self._written = set(self.unannounced)
        self._size_of: dict[str, int] = dict(self._sizes.scan())
        self._resized: set[str] = set()
        self.version = -1
        self._compiled: dict[str, tuple[RuleSegment, Program, CompiledSegment]] = {}
        self._sequences: dict[str, CompiledSequence] = {}
        self._index: Index | None = None
        self._program: Program | None = None
        self.event_time = 0.0
        """The latest time of an event folded since the start, and when that one came; epoch seconds."""
        self.event_received = 0.0
        self._settle()

    @property
    def index(self) -> Index:
        """Return the index of all that is declared, made when it is first asked for."""
        program = self._features.reading
        if self._index is None or self._program is not program:
            self._program = program
            self._index = Index(self._in_order(program), self._vocabulary.stem)
        return self._index

    def put(self, offset: int, segment: RuleSegment) -> None:
        """Declare or change a segment; its sequence's names get their codes."""
        before = self.declared.get(segment.key)
        declared = Declared(segment, offset if before is None else before.since, offset)
        self._table.put(segment.key, declared)
        self.declared[segment.key] = declared
        for step in () if segment.sequence is None else segment.sequence.steps:
            self._vocabulary.reserve(EVENT, step.event)
            if step.category is not None:
                self._vocabulary.reserve(CATEGORY, step.category)
        self._settle()

    def reconsider(self, offset: int) -> None:
        """Have everybody evaluated again: what rules read means something else since this record."""
        for key, declared in sorted(self.declared.items()):
            self.declared[key] = changed = msgspec.structs.replace(declared, changed=offset)
            self._table.put(key, changed)
        self._settle()

    def delete(self, key: str) -> None:
        """Take a segment away, and its size."""
        if self.declared.pop(key, None) is not None:
            self._table.delete(key)
            self._size_of.pop(key, None)
            self._resized.add(key)
            self._settle()

    def held(self, profile: Profile) -> dict[str, float]:
        """Return what is kept of a person's segments, without those that are not declared any more."""
        version, declared = profile.segments_version, self.declared
        return {
            key: since
            for key, since in profile.segments.items()
            if key in declared and declared[key].since <= version
        }

    def size(self, key: str) -> int:
        """Return how many people are in a segment, as far as they are evaluated."""
        return self._size_of.get(key, 0)

    def count(self, key: str, amount: int) -> None:
        """Add to a segment's size."""
        self._size_of[key] = self.size(key) + amount
        self._resized.add(key)

    def note(self, change: SegmentChanged) -> None:
        """Keep a change until it is announced."""
        self.unannounced[_key_of(change)] = change

    def announced(self, change: SegmentChanged) -> None:
        """Let go of a change that the log holds; what was announced of another history stays to be."""
        key = _key_of(change)
        waiting = self.unannounced.get(key)
        if waiting is not None and (waiting.profile, waiting.change) == (change.profile, change.change):
            del self.unannounced[key]

    def checkpoint_begin(self) -> None:
        """Hand to the tables what changes too often to go through them each time."""
        for key in sorted(self._resized):
            if key in self._size_of:
                self._sizes.put(key, self._size_of[key])
            else:
                self._sizes.delete(key)
        self._resized.clear()
        for key in sorted(self._written - self.unannounced.keys()):
            self._unannounced.delete(key)
        for key in sorted(self.unannounced.keys() - self._written):
            self._unannounced.put(key, self.unannounced[key])
        self._written = set(self.unannounced)

    def steps_of(self, one: CompiledSegment, find_item: Mapping[str, int]) -> NDArray[np.int64]:
        """Return a segment's sequence in codes, shape (events, 3); an item nobody met has none to match."""
        sequence = one.segment.sequence
        assert sequence is not None, "the caller looked"
        compiled = self._sequences.get(one.key)
        if compiled is None or compiled.sequence is not sequence:
            compiled = self._sequences[one.key] = self._spelled(sequence)
        for row, item in list(compiled.items.items()):
            index = find_item.get(item, -1)
            if index >= 0:
                compiled.steps[row, 1] = index
                del compiled.items[row]
        return compiled.steps

    def time_at(self, now: float) -> float | None:
        """Return the time that events have come to, going on with the clock; None before the first one.

        A recorded log that is sent again lives in its own time.
        """
        received = self.event_received
        # A client whose clock is ahead does not take everybody with it.
        return min(self.event_time, received) + max(now - received, 0.0) if received else None

    def _spelled(self, sequence: EventSequence) -> CompiledSequence:
        find = self._vocabulary.find
        rows: list[tuple[int, int, int]] = []
        items: dict[int, str] = {}
        for step in sequence.steps:
            category = ANY if step.category is None else find(CATEGORY, step.category)
            for _ in range(step.times):
                if step.item is not None:
                    items[len(rows)] = step.item
                rows.append((find(EVENT, step.event), ANY if step.item is None else _NOTHING, category))
        return CompiledSequence(np.array(rows, np.int64), items, sequence)

    def _settle(self) -> None:
        self.version = max((declared.changed for declared in self.declared.values()), default=-1)
        self._index = None

    def _in_order(self, program: Program) -> list[CompiledSegment]:
        before, self._compiled = self._compiled, {}
        for key, declared in self.declared.items():
            kept = before.get(key)
            if kept is None or kept[0] is not declared.segment or kept[1] is not program:
                kept = (declared.segment, program, CompiledSegment(declared.segment, program))
            self._compiled[key] = kept
        return ordered({key: compiled for key, (*_, compiled) in self._compiled.items()})


_NOTHING = -2  # No code: matches no event.
_CACHE_BYTES = 4 * 1024 * 1024  # All of 500 segments with rules of the greatest length.


def _msgpack(kind: type[T]) -> tuple[Callable[[T], bytes], Callable[[bytes], T]]:
    return msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(kind).decode


def _key_of(change: SegmentChanged) -> str:
    """Return where a change waits: one record changes one person."""
    return f"{change.cause:015d} {change.segment}"


def ordered(segments: Mapping[str, CompiledSegment]) -> list[CompiledSegment]:
    """Return segments by key, but those that others read before them."""
    found: dict[str, CompiledSegment] = {}
    for key in sorted(segments):
        _place(key, segments, found, set())
    return list(found.values())


def _place(
    key: str, segments: Mapping[str, CompiledSegment], found: dict[str, CompiledSegment], above: set[str]
) -> None:
    if key in found or key in above or key not in segments:
        return
    for named in segments[key].named:
        _place(named, segments, found, above | {key})
    found[key] = segments[key]


def check_segment(segment: RuleSegment, others: Mapping[str, RuleSegment]) -> RuleSegment:
    """Return a segment that can be evaluated beside `others`.

    Raises:
        InvalidInputError: It has neither rule nor sequence, its rule is no CEL or reads what it may not, its
            sequence is longer than what is remembered, or it and others read one another in a circle.
    """
    faults = []
    if segment.rule is None and segment.sequence is None:
        faults.append(Fault("rule", "a segment has a rule, a sequence, or both", None))
    if segment.sequence is not None:
        total = sum(step.times for step in segment.sequence.steps)
        if total > RECENT_EVENTS_MAX:
            rule = f"at most {RECENT_EVENTS_MAX} events in all: as many are remembered"
            faults.append(Fault("sequence.steps", rule, total))
    if faults:
        raise InvalidInputError(*faults)
    named = {key: _named_in(other.rule) for key, other in others.items() if other.rule is not None}
    named[segment.key] = CompiledSegment(segment, _NO_PROGRAM).named
    circle = _circle(segment.key, named)
    if circle:
        rule = f"segments read one another in a circle: {' -> '.join(circle)}"
        raise InvalidInputError(Fault("rule", rule, segment.rule))
    return segment


@functools.lru_cache(maxsize=2 * SEGMENTS_MAX)
def _named_in(rule: str) -> tuple[str, ...]:
    """Return the segments that a rule reads; kept, for each declaration looks at all the others."""
    return _named(compile_expression(rule, "rule", SEGMENT_VARIABLES))[0]


def _circle(start: str, named: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the way from `start` back to itself, nothing where there is none."""
    came_from: dict[str, str] = {}
    waiting = [start]
    while waiting:
        key = waiting.pop()
        for other in named.get(key, ()):
            if other == start:
                way = [start, key]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if other not in came_from:
                came_from[other] = key
                waiting.append(other)
    return []


def _fields(expression: Expression) -> frozenset[str]:
    """Return the fields of `profile` that a rule reads, without `segments`.

    Raises:
        InvalidInputError: They cannot be told, so nobody could say when to evaluate it.
    """
    fields = expression.fields("profile")
    if fields is None:
        rule = "must name each field of profile that it reads, as in profile.views_7d"
        raise InvalidInputError(Fault("rule", rule, expression.source))
    if "cluster" in fields:
        rule = "may not read profile.cluster: who is in one is told when asked, not kept with each event"
        raise InvalidInputError(Fault("rule", rule, expression.source))
    return fields - {"segments"}


def _named(expression: Expression) -> tuple[tuple[str, ...], str]:
    """Return the segments that a rule reads, and the rule with a variable for whether the person is in each.

    A truth is handed to a rule in a third of a microsecond, a list of keys in ten.

    Raises:
        InvalidInputError: They cannot be told, so there is no order to evaluate them in.
    """
    texts: list[str] = []

    def placed(match: re.Match[str]) -> str:
        if match[0].startswith("//"):
            return " "
        texts.append(match[0])
        return f"\0{len(texts) - 1}\0"

    bare = _TOKEN.sub(placed, expression.source)
    found = [texts[int(place)][1:-1] for place in _NAMED.findall(bare)]
    if len(found) != len(_READ.findall(bare)):
        rule = "may read other segments only as 'key' in profile.segments"
        raise InvalidInputError(Fault("rule", rule, expression.source))
    named = tuple(dict.fromkeys(found))
    members = _NAMED.sub(lambda match: _member(named.index(texts[int(match[1])][1:-1])), bare)
    return named, _PLACED.sub(lambda match: texts[int(match[1])], members)


def _flattened(
    source: str, fields: frozenset[str], members: Iterable[str], program: Program
) -> tuple[Expression, frozenset[str]]:
    """Return a rule that reads features as variables, with the names of those.

    A number is handed over as a variable in a third of a microsecond, in a map in five. Where a rule asks
    `has(profile.views_7d)` it cannot be, and reads the map.
    """
    allowed = SEGMENT_VARIABLES.union(members)
    numbers = frozenset(field for field in fields if is_number(field, program))
    try:
        flat = _FIELD.sub(lambda match: NUMBER + match[1] if match[1] in numbers else match[0], source)
        return compile_expression(flat, "rule", allowed.union(NUMBER + name for name in numbers)), numbers
    except InvalidInputError:
        return compile_expression(source, "rule", allowed), frozenset()


def _member(place: int) -> str:
    return f"member_{place}"
