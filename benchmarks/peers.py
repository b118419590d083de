"""Beside Feast: a visitor's variables read and brought up to date, on the same data in the same run.

    make bench-peers [ARGS="--fast --json"]

Visitors and events come from a seed. Tailorbird folds the events; the values of a hundred of its variables
are materialized into Feast, in its online stores on SQLite and, where there is a `redis-server`, on Redis.
Nothing is timed before both answer with the same values, by their libraries and over HTTP.

    read    one visitor by an identifier, within one process. Tailorbird: `hundred` as a dict by name, the
            whole `vector`, and `cold`, the hundred with nothing cached (SQLite, too). Feast: `sdk`, as a dict
    http    the same over one connection. Tailorbird: `profile`, with every variable and all else that is
            known, `decide`, what a page asks instead (a variant and a list of ten), and `event`, durable.
            Feast: its feature server's `read` and `push`
    update  Tailorbird computes, so an event is folded: `fold` alone, `committed` with its share of the
            commits to SQLite, `durable` with log and fdatasync, each waited for on its own. Feast stores
            what was computed elsewhere: one row, by `push` and by `write`
    ratio   Feast's median over Tailorbird's, of Feast's quickest way with its quickest store; of CPU time
            within a process (Redis' own, and Feast's waits, not counted), by the wall otherwise

Servers and libraries have one core by turns, the load generator the other; the garbage collector rests in
both libraries. Medians over rounds of p50 and p99, by the wall and of CPU (`cpu_…`).
"""

import asyncio
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop
from numpy.typing import NDArray
from tests.serving import Server

from benchmarks import bodies
from benchmarks.feast_peer import SQLITE, Feast, Row, is_installed, push_request, read_request, redis, served
from benchmarks.inside import DAY, NO_CACHE_BYTES, Inside, anonymous_id, histories
from benchmarks.load import closed_loop, quiet_collector
from benchmarks.machine import cores, pinned
from benchmarks.report import Figures, main, median_of
from benchmarks.serving import declare, serving
from benchmarks.stopwatch import Took, percentiles, timed
from benchmarks.visitors import full_catalogue
from tailorbird.clock import format_time
from tailorbird.features.counters import COLUMNS
from tailorbird.features.program import Program
from tailorbird.features.scalars import SCALARS
from tailorbird.features.vocabulary import STANDARD_EVENTS, Vocabulary, slug
from tailorbird.live.profiles import find
from tailorbird.live.variables import vector
from tailorbird.live.world import World
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.profile import Profile

SEED = 11
EVENTS_EACH = 30
DAYS = 30
VARIABLES = 100

_CHECKED_OVER_HTTP = 50
_PUSHES_READY = 2_000


class Plan(NamedTuple):
    """How much to measure; reads and updates are of each kind, a round."""

    visitors: int
    rounds: int
    reads: int
    feast_reads: int
    folds: int
    feast_updates: int
    http_seconds: float


FAST = Plan(300, rounds=1, reads=5_000, feast_reads=300, folds=1_000, feast_updates=30, http_seconds=2.0)
FULL = Plan(
    2_000, rounds=3, reads=20_000, feast_reads=1_000, folds=5_000, feast_updates=100, http_seconds=5.0
)


def measure(folder: Path, *, is_fast: bool) -> Figures:
    """Return every figure.

    Raises:
        SystemExit: Feast is not installed.
    """
    if not is_installed():
        raise SystemExit("peers: Feast is not installed in .deps/peers; run `make bench-peers`")
    return measured(folder, FAST if is_fast else FULL)


# --- the variables -----------------------------------------------------------------------------------


_ALL = Program(full_catalogue(), Vocabulary(lambda _name, _code: None)).names
_SIZE = len(_ALL)


def vector_of(world: World, profile: Profile, at: float) -> NDArray[np.float32]:
    """Return all variables of a profile: the one place that knows how they are read."""
    return vector(world, profile, at)


def places() -> dict[str, int]:
    """Return a hundred variables: what each is called, and its place in the vector."""
    index = {name: place for place, name in enumerate(_ALL)}
    counted = [f"{slug(event)}_{column}" for event in STANDARD_EVENTS for column in COLUMNS]
    return {name: index[name] for name in [*counted[: VARIABLES - len(SCALARS)], *SCALARS]}


NAMES = tuple(places())
_PLACES = np.array(list(places().values()))


def hundred_of(world: World, number: int, at: float) -> Row:
    """Return the hundred variables of a visitor by name."""
    return dict(zip(NAMES, _whole_of(world, number, at)[_PLACES].tolist(), strict=True))


def _whole_of(world: World, number: int, at: float) -> NDArray[np.float32]:
    profile = find(world, anonymous_id(number), None)
    assert profile is not None, f"nobody is known as {anonymous_id(number)}"
    return vector_of(world, profile, at)


# --- the whole run -----------------------------------------------------------------------------------


def measured(folder: Path, plan: Plan) -> Figures:
    """Return every figure of `plan`."""
    figures: Figures = {"visitors": plan.visitors, "variables": VARIABLES, "vector_size": _SIZE}
    with ExitStack() as stack:
        own = stack.enter_context(closing(filled(folder / "tailorbird", plan.visitors)))
        shutil.copytree(own.log_folder, folder / "served" / "data" / "log")
        at = float(int(own.world.newest) + 60)
        rows = {anonymous_id(number): hundred_of(own.world, number, at) for number in range(plan.visitors)}
        feasts = {"sqlite": Feast(folder / "sqlite", SQLITE)}
        port = stack.enter_context(redis(folder))
        if port is None:
            figures["skipped"] = "Redis: there is no redis-server here"
        else:
            redis_store = {"type": "redis", "connection_string": f"127.0.0.1:{port}"}
            feasts["redis"] = Feast(folder / "redis", redis_store)
        for feast in feasts.values():
            agree(rows, feast.prepare(rows, at))
        figures["versions"] = feasts["sqlite"].versions
        turns = [_turn(own, feasts, plan, turn) for turn in range(plan.rounds)]
        figures |= {kind: _medians([turn[kind] for turn in turns]) for kind in ("read", "update")}
        http = {f"feast_{name}": _feast_over_http(feast, rows, plan, at) for name, feast in feasts.items()}
        http["tailorbird"] = _tailorbird_over_http(folder / "served", rows, plan, at)
    figures["http"] = http
    return figures | {"ratio": ratios(figures)}


def filled(folder: Path, visitors: int) -> Inside:
    """Return an installation that has folded its visitors' events."""
    folder.mkdir()
    own = Inside(folder)
    own.write(list(histories(np.random.default_rng(SEED), range(visitors), EVENTS_EACH, DAYS * DAY)))
    own.world.checkpoint()
    return own


def ratios(figures: Figures) -> dict[str, float]:
    """Return Feast's least median over Tailorbird's, by what is compared.

    Of CPU time, but for what waits for a disk or a connection: that is by the wall.
    """
    read, update, http = figures["read"], figures["update"], figures["http"]
    stores = [name for name in read if name.startswith("feast_")]
    ours = read["tailorbird"] | update["tailorbird"] | http["tailorbird"]
    reads = [read[store]["sdk"] for store in stores]
    updates = [update[store][way] for store in stores for way in ("push", "write")]
    compared = {
        "read": (reads, "hundred", "cpu_p50_us"),
        "read_vector": (reads, "vector", "cpu_p50_us"),
        "read_cold": (reads, "cold", "cpu_p50_us"),
        "read_http": ([http[store]["read"] for store in stores], "profile", "p50_us"),
        "update": (updates, "fold", "cpu_p50_us"),
        "update_committed": (updates, "committed", "cpu_p50_us"),
        "update_durable": (updates, "durable", "p50_us"),
        "update_http": ([http[store]["push"] for store in stores], "event", "p50_us"),
    }
    return {
        name: round(min(one[figure] for one in theirs) / ours[own][figure], 1)
        for name, (theirs, own, figure) in compared.items()
    }


def agree(ours: dict[str, Row], theirs: dict[str, Row]) -> None:
    """See that both hold the same float32 of every variable of every visitor."""
    assert ours.keys() == theirs.keys(), "not the same visitors"
    for visitor, row in ours.items():
        for name in NAMES:
            told = theirs[visitor][name]
            assert np.float32(row[name]) == np.float32(told), f"{visitor}: {name} is {row[name]} and {told}"


def _turn(own: Inside, feasts: dict[str, Feast], plan: Plan, turn: int) -> Figures:
    """Let everybody read and update within one process, one after the other on the same core."""
    with pinned(cores()[0]):
        read: Figures = {"tailorbird": tailorbird_reads(own, plan, turn)}
        update: Figures = {"tailorbird": tailorbird_updates(own, plan, turn)}
    for name, feast in feasts.items():
        found = feast.measure(plan.feast_reads, plan.feast_updates, SEED + turn)
        read[f"feast_{name}"] = {"sdk": percentiles(found["read"])}
        update[f"feast_{name}"] = {way: percentiles(found[way]) for way in ("push", "write")}
    return {"read": read, "update": update}


def _medians(turns: list[Figures]) -> Figures:
    return {
        who: {what: median_of([turn[who][what] for turn in turns]) for what in turns[0][who]}
        for who in turns[0]
    }


# --- Tailorbird --------------------------------------------------------------------------------------


def tailorbird_reads(own: Inside, plan: Plan, turn: int) -> Figures:
    """Return latencies of reading the hundred and the whole vector, and the hundred with nothing cached."""
    at = own.world.newest + 60.0
    numbers = np.random.default_rng((SEED, turn)).integers(0, plan.visitors, plan.reads).tolist()
    acts: dict[str, Callable[[int], object]] = {
        "hundred": lambda number: hundred_of(own.world, number, at),
        "vector": lambda number: _whole_of(own.world, number, at),
    }
    figures = {name: percentiles(_timed(act, numbers)) for name, act in acts.items()}
    bare = own.reopened(NO_CACHE_BYTES)
    figures["cold"] = percentiles(_timed(lambda number: hundred_of(bare, number, at), numbers))
    bare.store.close()
    return figures


def tailorbird_updates(own: Inside, plan: Plan, turn: int) -> Figures:
    """Return latencies of folding one event: alone, with the commit, and durable."""
    generator = np.random.default_rng((SEED, turn, 1))
    events = _later(own, generator, plan, plan.folds)
    own.world.checkpoint()
    offsets = itertools.count(own.append(events))
    fold = _timed(lambda event: own.fold.apply_record(next(offsets), event), events)
    [whole] = timed(lambda world: world.checkpoint(), [own.world])
    wall_each, cpu_each = (part // len(events) for part in whole)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        durable = runner.run(_durable(own, _later(own, generator, plan, plan.folds // 5)))
    return {
        "fold": percentiles(fold),
        "committed": percentiles([(wall + wall_each, cpu + cpu_each) for wall, cpu in fold]),
        "durable": percentiles(durable),
    }


def _later(own: Inside, generator: np.random.Generator, plan: Plan, count: int) -> list[LoggedEvent]:
    """Return the next events of visitors, after all that were folded."""
    each = 1 + 2 * count // plan.visitors
    begin = own.world.newest
    return list(histories(generator, range(plan.visitors), each, DAY, begin))[:count]


async def _durable(own: Inside, events: list[LoggedEvent]) -> list[Took]:
    """Write and fold events one by one, each after the one before is on the disk."""
    taken = []
    for event in events:
        cpu_started, started = time.process_time_ns(), time.perf_counter_ns()
        own.write([event])
        await own.log.durable()
        taken.append((time.perf_counter_ns() - started, time.process_time_ns() - cpu_started))
    return taken


def _timed(act: Callable[[Any], object], arguments: Sequence[Any]) -> list[Took]:
    with quiet_collector():
        return timed(act, arguments)


# --- over HTTP ---------------------------------------------------------------------------------------


def _tailorbird_over_http(folder: Path, rows: dict[str, Row], plan: Plan, at: float) -> Figures:
    """Return latencies of a server over a copy of the log, which must answer with the same values."""
    moment = format_time(at)
    with serving(folder) as server:
        few = dict(itertools.islice(rows.items(), _CHECKED_OVER_HTTP))
        agree(few, {visitor: _profile_door(server, visitor, moment) for visitor in few})
        declare(server, bodies.placements())
        asked = {
            "profile": itertools.cycle(
                [_get(_profile_path(visitor, moment), server.server_key) for visitor in _shuffled(rows)]
            ),
            "decide": bodies.decides(plan.visitors, server.write_key),
            "event": bodies.singles(plan.visitors, server.write_key),
        }
        return {name: _loop(server.port, requests, plan) for name, requests in asked.items()}


def _feast_over_http(feast: Feast, rows: dict[str, Row], plan: Plan, at: float) -> Figures:
    """Return latencies of the feature server, which must answer with the same values."""
    with feast.serving() as port:
        few = dict(itertools.islice(rows.items(), _CHECKED_OVER_HTTP))
        agree(few, {visitor: served(port, visitor) for visitor in few})
        visitors = _shuffled(rows)
        # Later than what was pushed before: a row that is no newer is left out.
        later = (at + DAY + 60.0 * step for step in range(_PUSHES_READY))
        pushes = [push_request(v, rows[v], t) for v, t in zip(itertools.cycle(visitors), later)]
        asked = {"read": [read_request(visitor) for visitor in visitors], "push": pushes}
        return {name: _loop(port, itertools.cycle(requests), plan) for name, requests in asked.items()}


def _shuffled(rows: dict[str, Row]) -> list[str]:
    order: list[str] = np.random.default_rng(SEED).permutation(list(rows)).tolist()
    return order


def _profile_path(visitor: str, moment: str) -> str:
    return f"/admin/v1/profiles/anonymous_id:{visitor}?at={moment}"


def _profile_door(server: Server, visitor: str, moment: str) -> Row:
    """Return the hundred as the server says; what somebody never did it leaves out."""
    told = server.must("GET", _profile_path(visitor, moment), key=server.server_key)["features"]
    return {name: told.get(name, 0.0) for name in NAMES}


def _get(path: str, key: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode()


def _loop(port: int, requests: Iterator[bytes], plan: Plan) -> dict[str, float]:
    """Return latencies and rate of one connection that asks again as soon as it is answered."""
    closed_loop(port, requests, plan.http_seconds / 4, 1)
    run = closed_loop(port, requests, plan.http_seconds, 1)
    assert not run.errors, f"{run.errors} answers were no 200"
    p50, p99 = (1e3 * np.percentile(run.latencies_ms, (50.0, 99.0))).tolist()
    return {"p50_us": round(p50, 2), "p99_us": round(p99, 2), "rps": round(run.rps, 1)}


if __name__ == "__main__":
    main("peers", __doc__, measure)
