"""Rule segments: what evaluating them adds to folding an event.

    python -m benchmarks.segment_rules [--json] [--fast] [--check]

The same events of the same people are folded into two worlds by turns, one without segments and one with 100
of a shop's kind: windows and decayed counts of events and categories, traits, orders, sequences, and
segments that read others. No HTTP, no disk, CPU time; people come back after seconds, hours and days, so that
windows end. Announcing what changed is a record each, folded like any other and not counted here.

    floor_us      folding an event without segments
    fold_us       folding the same event with them
    evaluation_us what the second took longer than the first, event by event
    ratio_p50     of the medians of evaluation and floor: says more than either on a busy machine
    all_us        evaluating all of one person, as after a declaration
    read_us       reading a person's segments an hour after their last event
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.machine import cores, pinned
from benchmarks.report import Figures, main
from tailorbird.live.facts import evaluated, last_known, members_at
from tailorbird.live.rule_segments import check_segment
from tailorbird.live.world import TABLES, World
from tailorbird.process.worker import Fold
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.profile import Profile
from tailorbird.schema.segment import RuleSegment, SegmentPut
from tailorbird.stores.memory import MemoryLog, MemoryState

SEGMENTS = 100
PEOPLE, PEOPLE_FAST = 2_000, 300
EVENTS_EACH = 20
WARM_UP = 2_000
CHUNK = 500  # Folded into one world, then into the other: a busy machine is as busy for both.
BEGIN = 1_700_000_000.0
CATEGORIES = 20

_EVENTS = ("Product Viewed", "Product Viewed", "Product Viewed", "Page Viewed", "Product Added")
_RARE = ("Products Searched", "Order Completed")
_GAPS = (20.0, 60.0, 300.0, 7_200.0, 90_000.0)
_GAP_CHANCES = (0.35, 0.3, 0.2, 0.08, 0.07)  # A visit of some seven events, as shops have them.


def segments() -> list[RuleSegment]:
    """Return 100 segments of a shop's kind."""
    plans = ("free", "pro", "team", "gold")
    rules = [f"profile.views_7d > {float(i)} && profile.orders_30d < 1.0" for i in range(10)]
    rules += [f"profile.category_category_{i}_30d >= 3.0" for i in range(CATEGORIES)]
    rules += [f"profile.carts_1d > {float(i)} || profile.searches_1d > {float(i)}" for i in range(10)]
    rules += [f"profile.category_category_{i}_decayed_7d > 1.5" for i in range(10)]
    rules += [
        f"has(profile.plan) && profile.plan == '{plans[i % 4]}' && profile.sessions > {i}.0"
        for i in range(10)
    ]
    rules += [f"profile.value > {float(10 * i)} && profile.value_per_order > 20.0" for i in range(10)]
    rules += [f"profile.pages_count > {float(2 * i)} && profile.isKnown" for i in range(10)]
    made = [{"key": f"rule-{i:02d}", "rule": rule} for i, rule in enumerate(rules)]
    steps = [{"event": "Product Viewed", "times": 2}, {"event": "Products Searched"}]
    made += [
        {"key": f"steps-{i}", "sequence": {"steps": steps, "withinSeconds": 86400.0 * (i + 1)}}
        for i in range(10)
    ]
    made += [
        {"key": f"both-{i}", "rule": f"'rule-{i:02d}' in profile.segments && profile.session_depth > 2.0"}
        for i in range(SEGMENTS - len(made))
    ]
    return [check_segment(msgspec.convert(fields, RuleSegment), {}) for fields in made]


def events(people: int) -> Iterator[LoggedEvent]:
    """Yield events of people who come back, in the order of their times."""
    generator = np.random.default_rng(1)
    due = BEGIN + generator.random(people) * 3_600.0
    kinds = (*_EVENTS, *_RARE)
    chances = np.array([0.18] * len(_EVENTS) + [0.05] * len(_RARE))
    for number in range(people * EVENTS_EACH):
        person = int(np.argmin(due))
        t = float(due[person])
        due[person] += generator.choice(_GAPS, p=_GAP_CHANCES)
        body: dict[str, Any] = {
            "type": "track",
            "event": str(generator.choice(kinds, p=chances / chances.sum())),
            "messageId": f"m-{number}",
            "anonymousId": f"d-{person}",
            "properties": {
                "product_id": f"sku-{int(generator.integers(1000))}",
                "category": f"category-{int(generator.integers(CATEGORIES))}",
                "revenue": 35.0,
            },
        }
        if generator.random() < 0.05:
            body |= {"type": "identify", "userId": f"u-{person}", "traits": {"plan": "pro"}}
        raw = msgspec.Raw(json.dumps(body).encode())
        yield LoggedEvent(t, t, body["messageId"], raw)


class House:
    """A world with its fold."""

    def __init__(self, declared: list[RuleSegment]) -> None:
        self.log = MemoryLog()
        self.world = World(MemoryState(TABLES))
        self.fold = Fold(self.world, bytes(32), self.log)
        self.offset = 0
        for segment in declared:
            self.take(SegmentPut(BEGIN, segment))

    def take(self, record: Any) -> float:
        """Fold a record; return the microseconds that it took."""
        started = time.thread_time_ns()
        self.fold.apply_record(self.offset, record)
        took = time.thread_time_ns() - started
        self.offset += 1
        return took / 1000.0

    def announce(self) -> int:
        """Fold what is announced, as the engine does; return how much was."""
        changes = list(self.world.segments.unannounced.values())
        for change in changes:
            self.take(change)
        return len(changes)


def measure(_folder: Path, *, is_fast: bool) -> Figures:
    """Return every figure, in microseconds."""
    plain, full = House([]), House(segments())
    people = PEOPLE_FAST if is_fast else PEOPLE
    sent = list(events(people))
    changes = 0
    with pinned(cores()[0]):
        floor, fold = [], []
        for start in range(0, len(sent), CHUNK):
            floor += [plain.take(event) for event in sent[start : start + CHUNK]]
            for event in sent[start : start + CHUNK]:
                fold.append(full.take(event))
                changes += full.announce()
        del floor[:WARM_UP], fold[:WARM_UP]
        profiles = [profile for _, profile in full.world.profiles.scan()]
        places = full.world.segments.index.all
        everything = [_timed(lambda p=p: evaluated(full.world, p, last_known(p), places)) for p in profiles]
        read = [_timed(lambda p=p: members_at(full.world, p, last_known(p) + 3600.0)) for p in profiles]
    evaluation = _quantiles([other - one for one, other in zip(floor, fold, strict=True)])
    return {
        "segments": len(full.world.segments.declared),
        "events": len(fold),
        "floor_us": _quantiles(floor),
        "fold_us": _quantiles(fold),
        "evaluation_us": evaluation,
        "ratio_p50": round(evaluation["p50"] / _quantiles(floor)["p50"], 2),
        "all_us": _quantiles(everything),
        "read_us": _quantiles(read),
        "changes_per_event": round(changes / full.offset, 3),
        "members_mean": round(float(np.mean([len(_kept(profile)) for profile in profiles])), 1),
    }


def _kept(profile: Profile) -> dict[str, float]:
    return profile.segments


def _timed(work: Callable[[], Any]) -> float:
    started = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - started) / 1000.0


def _quantiles(values: list[float]) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile(values, share)), 1) for share in (50, 90, 99)}


if __name__ == "__main__":
    main("segment_rules", __doc__, measure)
