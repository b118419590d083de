"""Identity: finding a person among a million, making one person of two, and two of one.

    python -m benchmarks.identity [--json] [--fast] [--check]

In this process, on the server's own log, state and fold: 1,000,000 profiles with an anonymous id and a user
id each (50,000 with `--fast`), made by folding a view and a sign-in of each.

    fill     how fast: views, and sign-ins, each of which links an identifier (`links_per_second`), and
             profiles with every commit of the state
    resolve  from one identifier, half of them anonymous ids, to the profile as rules and models read it;
             each read timed on its own, medians over rounds of p50 and p99, as many reads a round as `reads`;
             `cpu_…` is CPU time, which neighbours on the machine change least: that is what is promised

        warm     a thousand visitors over and over: all in the cache
        zipf     visitors as traffic is: the r-th has a share as 1/r; a cache of 256 MiB, as usual
        uniform  all visitors alike, the same cache
        cold     all alike, nothing cached: two reads of the store each (its file in the system's page cache)
        disk     the same, the file put out of the page cache first: one round, no budget

    floor    the same visitors as `cold`: `sqlite` gets the same bytes from the same file and decodes nothing;
             `dict` has them in a dict
    merge    folding the one event: `link` gives a profile a second identifier, `merge` makes one of an
             anonymous profile and a known user's, with 20 events each, `known` links nothing new
    unmerge  a link revoked and the log folded again beside the traffic: seconds, and what an event at the
             door waits until it is durable meanwhile (`door`) and at rest (`idle`)
"""

import asyncio
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

from benchmarks.inside import (
    BEGIN,
    CACHE_BYTES,
    DAY,
    NO_CACHE_BYTES,
    SECRET,
    Inside,
    anonymous_id,
    histories,
    signed_in,
    user_id,
    viewed,
)
from benchmarks.load import quiet_collector
from benchmarks.report import Figures, main, median_of
from benchmarks.stopwatch import Took, percentiles, timed
from tailorbird.app.engine import Engine, Options
from tailorbird.clock import SystemClock
from tailorbird.collect.collector import Accepted
from tailorbird.live.profiles import by_identifier, find
from tailorbird.live.world import World
from tailorbird.process.worker import decode_event
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.profile import identifier_of

SEED = 7
HISTORY = 20
WARM_VISITORS = 1_000
DISK_READS = 2_000
DOOR_PAUSE_SECONDS = 0.005

_CHUNK = 1_000


class Plan(NamedTuple):
    """How much to measure."""

    profiles: int
    rounds: int
    reads: int
    """Of each kind, a round."""
    warm_up: int
    """Reads before the first round, so that the cache holds what it will."""
    merges: int
    unmerge_visitors: int
    """Each has some ten events in the log that is folded again."""
    idle_seconds: float
    """How long the door is watched at rest."""


FAST = Plan(
    50_000, rounds=3, reads=10_000, warm_up=20_000, merges=500, unmerge_visitors=2_000, idle_seconds=2.0
)
FULL = Plan(
    1_000_000,
    rounds=5,
    reads=20_000,
    warm_up=100_000,
    merges=2_000,
    unmerge_visitors=10_000,
    idle_seconds=5.0,
)


def measure(folder: Path, *, is_fast: bool) -> Figures:
    """Return every figure."""
    return measured(folder, FAST if is_fast else FULL)


def measured(folder: Path, plan: Plan) -> Figures:
    """Return every figure of `plan`."""
    generator = np.random.default_rng(SEED)
    (folder / "people").mkdir()
    (folder / "unmerge").mkdir()
    with quiet_collector(), closing(Inside(folder / "people")) as own:
        fill = _fill(own, plan.profiles)
        figures = {
            "profiles": own.world.store.count("profile"),
            "identifiers": 2 * plan.profiles,
            "reads": plan.reads,
            "links_per_second": fill.pop("links_per_second"),
            "fill": fill,
            "resolve": _resolve(own, generator, plan),
            "floor": _floor(own, generator, plan),
            "merge": _merge(own, generator, plan),
            "state_mib": round(own.state_file.stat().st_size / 2**20, 1),
        }
    return figures | {"unmerge": _unmerge(folder / "unmerge", generator, plan)}


# --- making people -----------------------------------------------------------------------------------


def _fill(own: Inside, profiles: int) -> dict[str, float]:
    """Fold a view and a sign-in of every visitor, and commit."""
    views, links = [], []
    started = time.perf_counter()
    for first in range(0, profiles, _CHUNK):
        numbers = range(first, min(first + _CHUNK, profiles))
        views += timed(own.write, [[viewed(n, _when(n), f"v{n:031x}") for n in numbers]])
        links += timed(own.write, [[signed_in(n, n, _when(n), f"s{n:031x}") for n in numbers]])
        own.make_room()
    own.world.checkpoint()
    seconds = time.perf_counter() - started
    (view_wall, _), (link_wall, link_cpu) = np.sum(views, axis=0) / 1e9, np.sum(links, axis=0) / 1e9
    return {
        "links_per_second": round(profiles / link_wall, 1),
        "link_cpu_us": round(1e6 * link_cpu / profiles, 2),
        "views_per_second": round(profiles / view_wall, 1),
        "profiles_per_second": round(profiles / seconds, 1),
        "seconds": round(seconds, 1),
    }


def _when(number: int) -> float:
    return BEGIN + number / 100.0


# --- finding them ------------------------------------------------------------------------------------


def _resolve(own: Inside, generator: np.random.Generator, plan: Plan) -> Figures:
    """Return latencies of every distribution."""
    count = plan.profiles
    cached, bare = own.reopened(CACHE_BYTES), own.reopened(NO_CACHE_BYTES)
    rank = generator.permutation(count)
    shares = 1.0 / np.arange(1, count + 1)
    shares /= shares.sum()
    draws: dict[str, tuple[World, Callable[[int], Any]]] = {
        "warm": (cached, lambda size: rank[generator.integers(0, min(WARM_VISITORS, count), size)]),
        "zipf": (cached, lambda size: rank[generator.choice(count, size, p=shares)]),
        "uniform": (cached, lambda size: generator.integers(0, count, size)),
        "cold": (bare, lambda size: generator.integers(0, count, size)),
    }
    figures = {}
    for name, (world, draw) in draws.items():
        _read(world, draw(plan.warm_up))
        figures[name] = median_of([percentiles(_read(world, draw(plan.reads))) for _ in range(plan.rounds)])
    _drop_from_page_cache(own.state_file)
    figures["disk"] = percentiles(_read(bare, generator.integers(0, count, DISK_READS)))
    cached.store.close()
    bare.store.close()
    return figures


def _read(world: World, numbers: Any) -> list[Took]:
    """Return what each visitor's read took."""

    def read(asked: tuple[str | None, str | None]) -> None:
        profile = find(world, *asked)
        assert profile is not None, f"nobody is known as {asked}"

    return timed(read, _asked(numbers))


def _asked(numbers: Any) -> Iterator[tuple[str | None, str | None]]:
    """Yield one identifier of each visitor: by turns the anonymous id and the user id."""
    for turn, number in enumerate(numbers.tolist()):
        yield (anonymous_id(number), None) if turn % 2 else (None, user_id(number))


def _drop_from_page_cache(file: Path) -> None:
    """Have the system forget a file's pages; it keeps those that are not on the disk yet, so sync first."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _floor(own: Inside, generator: np.random.Generator, plan: Plan) -> Figures:
    """Return latencies of the same bytes without Tailorbird."""
    numbers = generator.integers(0, plan.profiles, plan.reads)
    keys = [
        identifier_of("user_id", user) if user else identifier_of("anonymous_id", anonymous or "")
        for anonymous, user in _asked(numbers)
    ]
    owners = {key: entry.profile for key in keys if (entry := own.world.identifiers.get(key))}
    people = {owner: own.world.store.get("profile", owner) for owner in owners.values()}
    with closing(sqlite3.connect(own.state_file)) as connection:
        # As many pages in memory as the state's own reader has.
        connection.execute("PRAGMA cache_size = -8192")

        def sqlite(key: str) -> object:
            connection.execute("SELECT value FROM identifier WHERE key = ?", (key,)).fetchone()
            found = connection.execute("SELECT value FROM profile WHERE key = ?", (owners[key],)).fetchone()
            return found[0]

        acts = {"sqlite": sqlite, "dict": lambda key: people[owners[key]]}
        return {name: percentiles(timed(act, keys)) for name, act in acts.items()}


# --- one of two --------------------------------------------------------------------------------------


def _merge(own: Inside, generator: np.random.Generator, plan: Plan) -> Figures:
    """Let known users be met on second devices on which they have a history already."""
    homes = range(plan.profiles, plan.profiles + plan.merges)
    seconds = range(homes.stop, homes.stop + plan.merges)
    own.write(list(histories(generator, [*homes, *seconds], HISTORY, DAY)))
    pairs = list(zip(homes, seconds, strict=True))
    before = own.world.counts.get("identity.merges") or 0
    later = BEGIN + 2 * DAY
    figures = {
        "link": _folds(own, [signed_in(home, home, later, f"l{home:031x}") for home in homes]),
        "merge": _folds(own, [signed_in(other, home, later, f"m{home:031x}") for home, other in pairs]),
        "known": _folds(own, [signed_in(other, home, later, f"k{home:031x}") for home, other in pairs]),
    }
    made = (own.world.counts.get("identity.merges") or 0) - before
    assert made == plan.merges, f"{made} merges of {plan.merges}"
    own.world.checkpoint()
    return figures


def _folds(own: Inside, events: list[LoggedEvent]) -> dict[str, float]:
    """Return the latencies of folding each event, which is in the log before."""
    offsets = itertools.count(own.append(events))
    return percentiles(timed(lambda event: own.fold.apply_record(next(offsets), event), events))


# --- two of one --------------------------------------------------------------------------------------


def _unmerge(folder: Path, generator: np.random.Generator, plan: Plan) -> Figures:
    """Fold a log without its one wrong link, beside traffic."""
    with closing(Inside(folder)) as own:
        events = histories(generator, range(plan.unmerge_visitors), HISTORY // 2, DAY)
        while chunk := list(itertools.islice(events, _CHUNK)):
            own.write(chunk)
            own.make_room()
        own.write([signed_in(0, 0, BEGIN + DAY, "wrong"), signed_in(1, 1, BEGIN + DAY, "right")])
        records = own.log.end
    (folder / "state").mkdir()
    own.state_file.rename(folder / "state" / "state-000001.db")
    engine = Engine(folder, Options(SECRET), SystemClock())
    with quiet_collector(), closing(engine), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        engine.recover()
        figures = runner.run(_revoke(engine, plan))
    each = {
        f"{name}_per_100k": round(1e5 * figures[name] / records, 2) for name in ("seconds", "cpu_seconds")
    }
    return {"records": records} | each | figures


async def _revoke(engine: Engine, plan: Plan) -> Figures:
    device, user = identifier_of("anonymous_id", anonymous_id(0)), identifier_of("user_id", user_id(0))
    assert by_identifier(engine.world, device) is by_identifier(engine.world, user), "not linked"
    numbers = itertools.count(plan.unmerge_visitors)
    idle = await _beside(engine, numbers, asyncio.sleep(plan.idle_seconds))
    started, cpu_started = time.perf_counter(), time.process_time()
    door = await _beside(engine, numbers, engine.revoke_link(device, user, is_lifted=False))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    assert by_identifier(engine.world, device) is not by_identifier(engine.world, user), "still linked"
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2), "door": door, "idle": idle}


async def _beside(engine: Engine, numbers: Iterator[int], work: Any) -> dict[str, float]:
    """Return what events at the door wait until they are durable, while `work` goes on."""
    task = asyncio.ensure_future(work)
    waits = []
    while not task.done():
        number = next(numbers)
        logged = viewed(number, engine.clock.now(), f"d{number:031x}")
        started = time.perf_counter_ns()
        await engine.write_events([Accepted(logged, decode_event(logged.e))])
        waits.append(time.perf_counter_ns() - started)
        await asyncio.sleep(DOOR_PAUSE_SECONDS)
    await task
    p50, p99, most = np.percentile(waits, (50.0, 99.0, 100.0)) / 1e6
    shown = {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3), "max_ms": round(float(most), 3)}
    return shown | {"events": len(waits)}


if __name__ == "__main__":
    main("identity", __doc__, measure)
