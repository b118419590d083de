"""Events in: single ones from 64 and 256 connections and batches of 100, answered after fsync.

    python -m benchmarks.collect [--json] [--fast] [--check]

10,000 visitors; the server has one core, its syncing thread included, the load generator the other.

    singles_64, singles_256   closed loop of single events: rate, latencies, CPU a request
    batches                   closed loop of batches of 100 from 64 connections
    half_load                 open loop of single events at half the rate of `singles_64`
    ack_over_fsync_p50_ms     what half load's median acknowledgement takes beyond one fdatasync
    ratio_single, ratio_batch the rates over those of decode, validate and append alone: `floor`

Every event that was acknowledged is in the log: `lost` counts those that are not.
"""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.serving import Server

from benchmarks import bodies
from benchmarks.floors import BATCH, floors
from benchmarks.load import closed_loop, open_loop
from benchmarks.report import Figures, main, median_of
from benchmarks.serving import Costed, costed, declare, log_end, seed, serving, settle


class Plan(NamedTuple):
    """How much to measure."""

    rounds: int
    seconds: float
    half_load_seconds: float
    floor_seconds: float
    is_settled: bool
    """Whether each run waits until the checkpoint of the one before is done."""
    visitors: int = 10_000


FAST = Plan(rounds=1, seconds=3.0, half_load_seconds=3.0, floor_seconds=1.0, is_settled=False)
FULL = Plan(rounds=3, seconds=6.0, half_load_seconds=10.0, floor_seconds=2.0, is_settled=True)


def measure(folder: Path, *, is_fast: bool) -> Figures:
    """Return every figure."""
    plan = FAST if is_fast else FULL
    with serving(folder) as own:
        declare(own, bodies.placements())
        seed(own, plan.visitors, 1)
        settle(own.pid)
        before = log_end(own)
        single = bodies.singles(plan.visitors, own.write_key)
        batch = bodies.batches(bodies.spread(plan.visitors), BATCH, own.write_key)
        loads = {"singles_64": (single, 64), "singles_256": (single, 256), "batches": (batch, 64)}
        taken: dict[str, list[Costed]] = {name: [] for name in loads}
        floor = []
        for turn in range(plan.rounds):
            floor.append(floors(folder / f"floor-{turn}", plan.floor_seconds))
            for name, (requests, connections) in loads.items():
                taken[name].append(_run(own, requests, connections, plan.seconds))
                if plan.is_settled:
                    settle(own.pid)
        settle(own.pid)
        rate = statistics.median(one.run.rps for one in taken["singles_64"]) / 2.0
        half = costed(own.pid, lambda: open_loop(own.port, single, rate, plan.half_load_seconds))
        lost = before + _accepted([*taken["singles_64"], *taken["singles_256"], half])
        lost += BATCH * _accepted(taken["batches"]) - log_end(own)
    return _figures(taken, half, floor) | {"lost": lost}


def _run(own: Server, requests: Iterator[bytes], connections: int, seconds: float) -> Costed:
    return costed(own.pid, lambda: closed_loop(own.port, requests, seconds, connections))


def _accepted(runs: list[Costed]) -> int:
    return sum(len(one.run.latencies_ms) - one.run.errors for one in runs)


def _figures(taken: dict[str, list[Costed]], half: Costed, floor: list[dict[str, Any]]) -> Figures:
    medians = {name: median_of([one.figures() for one in runs]) for name, runs in taken.items()}
    single, batch = medians["singles_64"], medians["batches"]
    batch["events_per_second"] = round(batch["rps"] * BATCH, 1)
    batch["cpu_us_per_event"] = round(batch["cpu_us_per_request"] / BATCH, 2)
    floors_of = {kind: median_of([one[kind] for one in floor]) for kind in ("single", "batch")}
    fsync = statistics.median(one["fsync_p50_ms"] for one in floor)
    least = {kind: found["all_events_per_second"] for kind, found in floors_of.items()}
    return {
        "ratio_single": round(single["rps"] / least["single"], 3),
        "ratio_batch": round(batch["events_per_second"] / least["batch"], 3),
        **medians,
        "half_load": half.figures(),
        "ack_over_fsync_p50_ms": round(half.figures()["p50_ms"] - fsync, 3),
        "floor": {**floors_of, "fsync_p50_ms": fsync},
    }


if __name__ == "__main__":
    main("collect", __doc__, measure)
