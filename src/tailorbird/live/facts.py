"""What rules see of a person: traits, features by name, and the segments that the person is in.

Segments are facts that are made of facts, so both stand here. What the fold keeps of a person's segments is
as of their last event. Time goes on without events: a read evaluates again those that time may have changed
since, so it is right at the time that it asks about, and changes nothing.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tailorbird.features.program import DEFAULT_PURPOSE
from tailorbird.features.sequence import completed
from tailorbird.features.state import (
    COUNTERS,
    LAST_SEEN,
    RECENTS,
    SESSION_DEPTH,
    counted,
    find_counter,
    read_counter,
    recents,
)
from tailorbird.limits import COUNTER_KEYS_MAX, RECENT_EVENTS_MAX
from tailorbird.live.fields import CATEGORIZED, DECLARED, SESSION, USER
from tailorbird.live.profiles import primary_interest
from tailorbird.live.rule_segments import NUMBER, CompiledSegment
from tailorbird.live.variables import Reader, by_name, cluster_of, refusals, short_names
from tailorbird.live.world import World
from tailorbird.rules.cel import Expression, RuleError, context_of
from tailorbird.schema.profile import Profile
from tailorbird.schema.segment import EventSequence

_ALL_TIME = 0  # The column of a counter that counts for good.


def profile_facts(world: World, profile: Profile, fields: frozenset[str] | None, t: float) -> dict[str, Any]:
    """Return what rules see as `profile`, as of `t`: traits, features by name, and the fixed lists.

    With `fields` only those, which costs a microsecond a field; None gives everything.
    """
    if fields is None:
        fixed = {name: read(world, profile, t) for name, read in _FIXED.items()}
        named = short_names(world, profile, t) | by_name(world, profile, t)
        is_variable = Reader(world, profile, t).is_variable
        said = {name: value for name, value in _traits(world, profile, t).items() if not is_variable(name)}
        return {**said, **named, **fixed}
    reader = Reader(world, profile, t)
    facts = {}
    for name in fields:
        if name in _FIXED:
            facts[name] = _FIXED[name](world, profile, t)
            continue
        # Anybody can declare a trait: it never stands in for a variable, not for one that is missing either.
        value: object = reader.read(name)
        if value is None and not reader.is_variable(name):
            value = _traits(world, profile, t).get(name)
        if value is not None:
            facts[name] = value
    return facts


# --- segments -----------------------------------------------------------------------------------------


class Evaluation(NamedTuple):
    """What evaluating a person's segments came to."""

    changes: list[tuple[str, bool]]
    """Segments entered (True) and left (False), in the order of evaluation."""
    failures: int
    """Rules that failed on the person, which so is not in."""


def members_at(world: World, profile: Profile, t: float) -> dict[str, float]:
    """Return the segments that a person is in at `t`, by key, each with since when."""
    segments = world.segments
    if not segments.declared:
        return {}
    members = segments.held(profile)
    for key, is_in in evaluated(world, profile, t, places_at(world, profile, t)).changes:
        if is_in:
            members[key] = t
        else:
            del members[key]
    return dict(sorted(members.items()))


def places_at(world: World, profile: Profile, t: float) -> Iterable[int]:
    """Return the segments, by their place in the index, that may not be at `t` what is kept of them."""
    index = world.segments.index
    if profile.is_segments_due or profile.segments_version != world.segments.version:
        return index.all
    return index.moved(profile.segments_t, t, lambda: counted(profile.state).tolist())


class Touched(NamedTuple):
    """What an event has touched of a person."""

    codes: list[int]
    """What it counted: the event's own code, then those of its categories."""
    traits: Iterable[str]
    """The traits that it declared."""
    has_user: bool
    """Whether it names a user."""
    t: float
    """When it happened."""


def places_after_event(world: World, profile: Profile, t: float, touched: Touched) -> Iterable[int]:
    """Return the segments that an event may have changed, or time until it."""
    index = world.segments.index
    due = places_at(world, profile, t)
    if due is index.all or _may_have_forgotten(profile, t, touched.codes):
        return index.all
    stems = [world.vocabulary.stem(code) for code in touched.codes]
    if profile.state.item(SESSION_DEPTH) == 1.0:
        stems.append(SESSION)
    if touched.has_user:
        stems.append(USER)
    if len(touched.codes) > 1:
        stems.append(CATEGORIZED)
    if touched.traits:
        stems.append(DECLARED)
    found = index.touched(stems, touched.traits)
    found.update(due)
    if index.sequences and touched.t < profile.state.item(LAST_SEEN):
        found |= index.sequences
    elif index.sequences and profile.state.item(RECENTS) >= RECENT_EVENTS_MAX:
        # An event that goes from the ring can end a sequence, and begin none.
        found.update(place for place in index.sequences if index.segments[place].key in profile.segments)
    return found


def _may_have_forgotten(profile: Profile, t: float, codes: Iterable[int]) -> bool:
    """Return whether counting `codes` may have taken the place of another counter, which is zero now."""
    state = profile.state
    if state.item(COUNTERS) < COUNTER_KEYS_MAX:
        return False
    return any(read_counter(state, find_counter(state, code), _ALL_TIME, t) <= 1.0 for code in codes)


def last_known(profile: Profile) -> float:
    """Return the latest time that anything is known of a person for; evaluating goes on from there."""
    return max(profile.state.item(LAST_SEEN), profile.segments_t)


def evaluated(world: World, profile: Profile, t: float, places: Iterable[int]) -> Evaluation:
    """Evaluate the segments at `places`, and those that read one that has changed, as of `t`."""
    if not places:
        return _NOTHING
    index = world.segments.index
    wanted = set(places)
    run = _Run(world, profile, t)
    context = run.context_of([index.segments[place] for place in wanted])
    for place in sorted(wanted.difference(index.dependent)):
        run.take(index.segments[place], context)
    for place in index.dependent:
        one = index.segments[place]
        if place in wanted:
            run.take(one, context)
        elif not run.moved.isdisjoint(one.named):
            run.take(one, run.context_of([one]))
    return Evaluation(run.changes, run.failures)


_NOTHING = Evaluation([], 0)


class _Run:
    """One person's segments being evaluated."""

    def __init__(self, world: World, profile: Profile, t: float) -> None:
        self._world, self._profile, self._t = world, profile, t
        self._members = set(world.segments.held(profile))
        self._recents: Any = None
        self._missing: frozenset[str] = frozenset()
        self.changes: list[tuple[str, bool]] = []
        self.moved: set[str] = set()
        self.failures = 0

    def context_of(self, segments: list[CompiledSegment]) -> Any:  # noqa: ANN401
        """Return what the rules of `segments` read, without other segments; None where it has no form."""
        world, profile, t = self._world, self._profile, self._t
        fields = frozenset().union(*[one.fields - one.numbers for one in segments])
        try:
            context = context_of({"profile": profile_facts(world, profile, fields, t), "now": t})
        except RuleError:
            return None
        numbers = frozenset().union(*[one.numbers for one in segments])
        known = profile_facts(world, profile, numbers, t)
        for name, value in known.items():
            context.add_variable(NUMBER + name, value)
        self._missing = numbers.difference(known)
        return context

    def take(self, one: CompiledSegment, context: Any) -> None:  # noqa: ANN401
        """Evaluate one segment."""
        segment = one.segment
        is_in = (
            segment.enabled
            and (segment.sequence is None or self._is_reached(one, segment.sequence))
            and (one.expression is None or self._is_true(one, one.expression, context))
        )
        if is_in != (one.key in self._members):
            (self._members.add if is_in else self._members.discard)(one.key)
            self.changes.append((one.key, is_in))
            self.moved.add(one.key)

    def _is_reached(self, one: CompiledSegment, sequence: EventSequence) -> bool:
        """Return whether the person went through the segment's sequence."""
        steps = self._world.segments.steps_of(one, self._world.catalogue.index)
        if self._recents is None:
            self._recents = recents(self._profile.state)
        end = completed(self._recents, steps, sequence.within_seconds, self._t)
        return end >= (0.0 if sequence.lasts_seconds is None else self._t - sequence.lasts_seconds)

    def _is_true(self, one: CompiledSegment, rule: Expression, context: Any) -> bool:  # noqa: ANN401
        # What is missing, of who refused its purpose, makes no rule true; that is no failure.
        if context is None or not self._missing.isdisjoint(one.numbers):
            return False
        if one.named:
            for variable, key in zip(one.members, one.named, strict=True):
                context.add_variable(variable, key in self._members)
        try:
            return rule.is_true(context)
        except RuleError:
            self.failures += 1
            return False


# --- the fixed fields ---------------------------------------------------------------------------------


def _traits(world: World, profile: Profile, _t: float) -> dict[str, Any]:
    """Return the traits that may be read: none of the sensitive list but those that were allowed."""
    return world.features.reading.sensitive.readable(profile.traits, refusals(world, profile))


def _cluster(world: World, profile: Profile, t: float) -> str:
    """Return the name of the model segment that a person is in, nothing for none."""
    found = cluster_of(world, profile, t)
    return "" if found is None else found.name


def _recent_items(world: World, profile: Profile, _t: float) -> list[str]:
    return [world.catalogue.ids[index] for index in recents(profile.state)[1][1].tolist() if index >= 0]


_Read = Callable[[World, Profile, float], Any]


def _unless_refused(read: _Read, nothing: Any) -> _Read:  # noqa: ANN401
    """Return `read` but for who refuses personalization, of whom there is `nothing` to know."""

    def known(world: World, profile: Profile, t: float) -> Any:  # noqa: ANN401
        return nothing if refusals(world, profile)(DEFAULT_PURPOSE) else read(world, profile, t)

    return known


_FIXED: dict[str, _Read] = {
    "id": lambda _, profile, __: profile.id,
    "segments": _unless_refused(lambda world, profile, t: list(members_at(world, profile, t)), []),
    "cluster": _cluster,
    "computed": _unless_refused(
        lambda _, profile, __: {key: computed.value for key, computed in profile.computed.items()}, {}
    ),
    "groups": lambda _, profile, __: profile.groups,
    "traits": _traits,
    "consent": lambda _, profile, __: profile.consent,
    "primaryInterest": _unless_refused(lambda world, profile, _: primary_interest(world, profile) or "", ""),
    "purchases": _unless_refused(lambda _, profile, __: list(profile.purchases), []),
    "recentItems": _unless_refused(_recent_items, []),
    "isKnown": lambda _, profile, __: any(name.startswith("user_id:") for name in profile.identifiers),
}
"""Fields of `profile` that are neither traits nor features."""
