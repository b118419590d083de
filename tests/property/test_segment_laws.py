"""Laws of rule segments: only what may have changed is evaluated, and nobody can tell; each change is told once."""

import itertools
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.house import BEGIN, House
from tests.people import Person
from tests.property.test_fold import (
    SECRET,
    folded_at_once,
    histories,
    installed,
    lawfully,
    live_through,
    small_filters,
)

from tailorbird.app.engine import Engine, Options
from tailorbird.clock import ManualClock
from tailorbird.features.counters import COLUMNS
from tailorbird.features.program import NO_FEATURES, Program
from tailorbird.features.sequence import ANY, NEVER, completed
from tailorbird.features.view import SCALARS, feature
from tailorbird.features.vocabulary import Vocabulary
from tailorbird.live.facts import evaluated, last_known, members_at
from tailorbird.live.fields import STEADY, need_of
from tailorbird.live.rule_segments import check_segment
from tailorbird.live.world import ArmsMoments, World, moments_key
from tailorbird.schema.profile import Profile
from tailorbird.schema.records import decode
from tailorbird.schema.segment import RuleSegment, SegmentChanged, SegmentPut
from tailorbird.stats.moments import UnitMoments, add_unit
from tailorbird.stores.memory import MemoryLog

__all__ = ["small_filters"]

NO_PROGRAM = Program(NO_FEATURES, Vocabulary(lambda _name, _code: None))
STEPS = [{"event": "Product Viewed", "times": 2}, {"event": "Searched", "category": "hats"}]
RULES: dict[str, dict[str, Any]] = {
    "a-views": {"rule": "profile.views_1h > 1.0 && profile.views_7d < 4.0"},
    "b-day": {"rule": "profile.category_shoes_1d >= 1.0"},
    "c-warm": {"rule": "profile.product_viewed_decayed_1h > 0.6"},
    "d-plan": {"rule": "profile.plan == 'pro' || profile.traits.size() > 1"},
    "e-buyer": {"rule": "profile.orders > 1.0 || 'i1' in profile.purchases"},
    "f-away": {"rule": "profile.recency_seconds > 5000.0"},
    "g-deep": {"rule": "profile.session_depth > 2.0 && profile.isKnown"},
    "h-both": {"rule": "'a-views' in profile.segments && !('z-later' in profile.segments)"},
    "i-fails": {"rule": "profile.nothing.here > 1.0"},
    "j-clock": {"rule": "now > 1700100000.0"},
    "k-seeks": {"sequence": {"steps": STEPS, "withinSeconds": 7200}},
    "l-lately": {"sequence": {"steps": STEPS, "withinSeconds": 7200, "lastsSeconds": 3600}},
    "m-drawn": {"rule": "profile.primaryInterest == 'hats'"},
    "n-other": {"rule": "profile.searched_count > 2.0 && profile.consent.size() == 0"},
    "o-off": {"rule": "true", "enabled": False},
    "p-item": {"sequence": {"steps": [{"event": "Product Viewed", "item": "i2"}], "withinSeconds": 60}},
    "z-later": {"rule": "profile.views_count > 3.0"},
}

often = settings(lawfully, max_examples=120)

times = st.sampled_from([0.0, 10.0, 400.0, 3700.0, 8000.0, 90_000.0, 700_000.0])
lateness = st.sampled_from([0.0, 0.0, 0.0, -30.0, -5000.0, -100_000.0])
happenings = st.tuples(
    st.sampled_from(["d1", "d2"]),
    st.sampled_from([None, None, "u1"]),
    st.sampled_from(["Product Viewed", "Product Viewed", "Searched", "Order Completed"]),
    st.fixed_dictionaries(
        {},
        optional={
            "product_id": st.sampled_from(["i1", "i2"]),
            "category": st.sampled_from(["hats", "shoes"]),
        },
    ),
    st.none() | st.dictionaries(st.sampled_from(["plan", "age"]), st.sampled_from(["pro", "x", None])),
    times,
    lateness,
)


def house_with(rules: dict[str, dict[str, Any]]) -> House:
    house = House(clock=ManualClock(BEGIN))
    for key, fields in rules.items():
        declare(house, key, fields)
    return house


def declare(house: House, key: str, fields: dict[str, Any]) -> None:
    segment = check_segment(msgspec.convert({"key": key, **fields}, RuleSegment), {})
    house.write(SegmentPut(house.clock.now(), segment))


def happen(house: House, happening: tuple[Any, ...]) -> None:
    device, user, name, said, traits, wait, late = happening
    house.clock.advance(wait)
    kind = {"type": "track", "event": name, "properties": said}
    if traits is not None:
        kind = {"type": "identify", "traits": traits}
    house.send(device, user, at=late, **kind)


def outright(world: World, profile: Profile, t: float) -> set[str]:
    """Return who a person is in by evaluating every segment."""
    members = set(world.segments.held(profile))
    for key, is_in in evaluated(world, profile, t, world.segments.index.all).changes:
        (members.add if is_in else members.discard)(key)
    return members


@often
@given(st.lists(happenings, max_size=30), st.integers(0, 30), times)
def test_what_is_kept_and_read_is_what_evaluating_everything_gives(history, when, later):
    first = {key: fields for key, fields in RULES.items() if key < "g"}
    house = house_with(first)
    for place, happening in enumerate(history):
        if place == when:
            for key in RULES.keys() - first.keys():
                declare(house, key, RULES[key])
        happen(house, happening)
        met = house.profile(f"anonymous_id:{happening[0]}")
        assert set(met.segments) == outright(house.world, met, last_known(met))
    for _, profile in house.world.profiles.scan():
        for t in (house.clock.now(), house.clock.now() + later):
            assert set(members_at(house.world, profile, t)) == outright(house.world, profile, t)
    sizes = Counter(
        key for _, profile in house.world.profiles.scan() for key in house.world.segments.held(profile)
    )
    assert {key: house.world.segments.size(key) for key in RULES} == {key: sizes[key] for key in RULES}


IN_ANY_ORDER = ("a-views", "b-day", "e-buyer", "k-seeks", "l-lately", "n-other", "p-item", "z-later")


@often
@given(st.lists(happenings, max_size=20), st.randoms(use_true_random=False))
def test_events_that_come_late_leave_people_where_they_would_be(history, chance):
    def settled(order: list[tuple[float, tuple[Any, ...]]]) -> dict[str, set[str]]:
        house = house_with({key: RULES[key] for key in IN_ANY_ORDER})
        house.clock.advance(10_000_000.0)
        for t, (device, _, name, said, *_rest) in order:
            house.send(device, at=t - house.clock.now(), event=name, properties=said)
        now = house.clock.now() - 9_000_000.0
        people = dict(house.world.profiles.scan())
        return {key: set(members_at(house.world, profile, now)) for key, profile in people.items()}

    t = BEGIN
    timed = []
    for happening in history:
        t += happening[5] + 1.0  # At one moment, who came first is who was heard first.
        timed.append((t, happening))
    shuffled = list(timed)
    chance.shuffle(shuffled)
    assert settled(timed) == settled(shuffled)


# --- each change is announced once ---------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def whole_passages():
    """Keep all that people entered and left, to be compared with what the log says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tailorbird.process.membership.SEGMENT_CHANGES_MAX", 10_000)
        yield


def announced(log: MemoryLog) -> Counter[tuple[str, str, float]]:
    """Return what the log says of who entered and left what, and when."""
    records = (decode(record.kind, record.payload) for record in log.read())
    return Counter((one.segment, one.change, one.t) for one in records if isinstance(one, SegmentChanged))


def passed(world: World) -> Counter[tuple[str, str, float]]:
    """Return what the profiles say of it."""
    return Counter(
        (passage.segment, "entered" if passage.is_entered else "left", passage.t)
        for _, profile in world.profiles.scan()
        for passage in profile.passages
    )


def cut(log: MemoryLog, end: int) -> MemoryLog:
    """Return what a crash has left of a log."""
    left = MemoryLog()
    for record in log.read(0, end):
        assert left.append(record.kind, record.payload) == record.offset
    left.flush()
    return left


@lawfully
@given(histories, st.data())
def test_a_crash_anywhere_neither_loses_nor_repeats_an_announcement(history, data):
    with installed() as installation:
        live_through(installation, history)
        whole = installation.engine.log
        assert announced(whole) == passed(installation.engine.world)
        end = data.draw(st.integers(0, whole.end))
        left = cut(whole, end)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tailorbird.app.engine.SegmentLog", lambda _path: left)
            folder = installation.engine.folder / "again"
            engine = Engine(folder, Options(secret=SECRET, holdout_share=0.3, seed=1), installation.clock)
        engine.recover()
        assert not engine.world.segments.unannounced
        assert announced(left) == passed(engine.world)
        again = left.end
        engine.recover()
        assert left.end == again, "nothing is announced a second time"
        engine.world.checkpoint()
        assert engine.world.store.digest() == folded_at_once(left)
        engine.close()


# --- readouts by segment -------------------------------------------------------------------------------


@often
@given(histories)
def test_the_moments_of_a_segment_are_those_of_its_units(history):
    with installed() as installation:
        live_through(installation, history)
        world = installation.engine.world
        expected: dict[str, ArmsMoments] = {}
        for _, profile in world.profiles.scan():
            for placement, at in profile.placements.items():
                for segment in at.segments if at.arm else ():
                    found = expected.setdefault(moments_key(placement, segment), ArmsMoments())
                    add_unit(found.of(at.arm), at)
        kept = {key: (arms.personalized, arms.holdout) for key, arms in world.moments_in.scan()}
        empty = (UnitMoments(), UnitMoments())
        assert {key: arms for key, arms in kept.items() if arms != empty} == {
            key: (arms.personalized, arms.holdout) for key, arms in expected.items()
        }


# --- what evaluation rests on --------------------------------------------------------------------------

fields = st.one_of(
    st.builds(
        lambda stem, column: f"{stem}_{column}",
        st.sampled_from(["views", "category_hats"]),
        st.sampled_from(COLUMNS),
    ),
    st.sampled_from(SCALARS),
)


@often
@given(
    st.lists(st.tuples(times, lateness), min_size=1, max_size=6),
    fields,
    st.floats(0.0, 40 * 86400.0),
    st.floats(0.0, 2 * 86400.0),
)
def test_between_two_steps_time_changes_no_field(events, field, later, apart):
    person = Person(BEGIN)
    t = BEGIN
    for wait, late in events:
        t += wait
        person.view("Product Viewed", t + late, "hats")
    need = need_of(field, NO_PROGRAM)
    one, other = t + later, t + later + apart
    if need.step_seconds == 0.0 or (
        need.step_seconds < STEADY and one // need.step_seconds != other // need.step_seconds
    ):
        return
    values = [feature(person.state, person.vocabulary, field, at) for at in (one, other)]
    assert values[0] == values[1]


codes = st.tuples(st.integers(0, 2), st.integers(-1, 1), st.integers(-1, 1))
wanted = st.tuples(st.integers(0, 2), st.integers(-1, 1), st.integers(-1, 1))


@often
@given(
    st.lists(st.tuples(st.integers(0, 12), codes), max_size=9),
    st.lists(wanted, min_size=1, max_size=4),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_a_sequence_is_found_wherever_trying_every_choice_finds_it(events, steps, within, at):
    events = sorted(events, key=lambda event: event[0])

    def is_it(event: tuple[int, ...], step: tuple[int, ...]) -> bool:
        return event[0] == step[0] and all(
            want in (ANY, has) for has, want in zip(event[1:], step[1:], strict=True)
        )

    ends = [
        events[chosen[-1]][0]
        for chosen in itertools.combinations(range(len(events)), len(steps))
        if all(is_it(events[place][1], step) for place, step in zip(chosen, steps, strict=True))
        and events[chosen[-1]][0] - events[chosen[0]][0] <= within
        and events[chosen[-1]][0] <= at
    ]
    recent = (
        np.array([float(t) for t, _ in events]),
        np.array([code for _, code in events], np.int32).reshape(-1, 3).T,
    )
    found = completed(recent, np.array(steps, np.int64), float(within), float(at))
    assert found == max(ends, default=NEVER)
