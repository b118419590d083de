"""Decisions: one request with a variant placement and a list of ten from 100 candidates.

    python -m benchmarks.decide [--json] [--fast] [--check] [--features sampled|full|none]

10,000 known profiles; the server has one core, the load generator the other. `--features`: all built-in
ones are counted, and read whole for a sample of decisions (as installed) or for each (`full`); or none are.

    saturation      closed loop, 64 connections: the rate, and latencies with a full queue
    half_load       open loop at half that rate; a latency counts from when its request was due
    ratio_to_echo   the rate over that of the same stack's bare JSON echo, bodies of the same size
    ratio_to_asgi   the rate over that of uvicorn with a raw ASGI echo
    cpu_ratio       the same two by CPU time a request, which a slow load generator cannot flatter
    cpu_us          CPU microseconds a request of the server's process, and with the checkpoints
                    that follow: the steady figures where the machine is shared
    steps_us        where a request's time goes: medians of what the decisions' own records say

Decisions and echoes take turns; rates and ratios are medians over the rounds.
"""

import json
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.serving import Server

from benchmarks import bodies
from benchmarks.echo import KINDS, Echo, echo
from benchmarks.load import closed_loop, open_loop
from benchmarks.report import Figures, main, median_of
from benchmarks.serving import Costed, costed, declare, seed, serving, settle
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.records import decode
from tailorbird.stores.segments import SegmentLog

PATH = "/v1/decide"
SAMPLE = 4_000
CONFIGURATIONS = {
    "sampled": "",
    "full": 'feature_vectors = "every"\n',
    "none": "[features]\ncatalogues = []\n",
}


class Plan(NamedTuple):
    """How much to measure."""

    rounds: int
    seconds: float
    """Of decisions, a round; of an echo half of it."""
    half_load_seconds: float
    events_each: int
    visitors: int = 10_000


FAST = Plan(rounds=2, seconds=3.0, half_load_seconds=4.0, events_each=5)
FULL = Plan(rounds=4, seconds=6.0, half_load_seconds=12.0, events_each=12)


class Round(NamedTuple):
    """One turn of decisions and each echo, and the CPU seconds of the checkpoint that followed."""

    decide: Costed
    echoes: dict[str, Costed]
    checkpoint_seconds: float


def measure(folder: Path, *, is_fast: bool, features: str) -> Figures:
    """Return every figure."""
    plan = FAST if is_fast else FULL
    config = folder / "tailorbird.toml"
    config.write_text(CONFIGURATIONS[features])
    with serving(folder, ("--config", str(config))) as own, ExitStack() as stack:
        declare(own, bodies.placements())
        seed(own, plan.visitors, plan.events_each)
        answer = _ask(own)
        echoes = {kind: stack.enter_context(echo(kind, PATH, answer, folder)) for kind in KINDS}
        requests = bodies.decides(plan.visitors, own.write_key, PATH)
        closed_loop(own.port, requests, 1.0)
        settle(own.pid)
        rounds = [_round(own, echoes, requests, plan) for _ in range(plan.rounds)]
        rate = statistics.median(turn.decide.run.rps for turn in rounds)
        half = costed(own.pid, lambda: open_loop(own.port, requests, rate / 2.0, plan.half_load_seconds))
    figures = _figures(rounds, half)
    figures["steps_us"] = _steps(own.data_dir / "log", figures)
    figures["bytes"] = {
        "request": len(bodies.question(bodies.visitor_of(0))),
        "answer": len(answer),
    }
    return figures


def _round(own: Server, echoes: dict[str, Echo], requests: Iterator[bytes], plan: Plan) -> Round:
    costs = {kind: _run(one.pid, one.port, requests, plan.seconds / 2) for kind, one in echoes.items()}
    decide = _run(own.pid, own.port, requests, plan.seconds)
    return Round(decide, costs, settle(own.pid))


def _run(pid: int, port: int, requests: Iterator[bytes], seconds: float) -> Costed:
    return costed(pid, lambda: closed_loop(port, requests, seconds))


def _figures(rounds: list[Round], half: Costed) -> Figures:
    decide = [turn.decide for turn in rounds]
    whole = [
        turn.decide.cpu_us + 1e6 * turn.checkpoint_seconds / len(turn.decide.run.latencies_ms)
        for turn in rounds
    ]
    floors = {kind: [turn.echoes[kind] for turn in rounds] for kind in KINDS}
    ratios = {
        kind: statistics.median(turn.decide.run.rps / turn.echoes[kind].run.rps for turn in rounds)
        for kind in KINDS
    }
    cpu_us = median_cpu(decide)
    return {
        "ratio_to_echo": round(ratios["hot"], 3),
        "ratio_to_asgi": round(ratios["asgi"], 3),
        "cpu_ratio": {kind: round(median_cpu(floors[kind]) / cpu_us, 3) for kind in KINDS},
        "saturation": median_of([one.figures() for one in decide]),
        "half_load": half.figures(),
        "cpu_us": {
            "saturation": round(cpu_us, 1),
            "with_checkpoints": round(statistics.median(whole), 1),
            "half_load": round(half.cpu_us, 1),
        },
        "floor": {kind: median_of([one.figures() for one in floors[kind]]) for kind in KINDS},
    }


def median_cpu(costs: list[Costed]) -> float:
    """Return the median CPU microseconds a request."""
    return statistics.median(one.cpu_us for one in costs)


def _ask(own: Server) -> bytes:
    """Return an answer as a browser gets it."""
    answer = own.must("POST", PATH, json.loads(bodies.question(bodies.visitor_of(0))))
    return json.dumps(answer, separators=(",", ":")).encode()


def _steps(folder: Path, figures: Figures) -> dict[str, float]:
    """Return median microseconds of each step, from the newest records of a stopped server's log.

    `http` is what the bare echo of the same stack costs; `rest` is what the records do not say:
    whose profile it is, keys, the log, the fold and the answer's JSON.
    """
    found: dict[str, list[float]] = {}
    log = SegmentLog(folder)
    try:
        for record in log.read(log.end - SAMPLE):
            decision = decode(record.kind, record.payload)
            if isinstance(decision, LoggedDecision) and decision.holdout == "personalized":
                kind = "variant" if decision.placement == bodies.VARIANT else "list"
                for step, us in decision.timings_us.items():
                    found.setdefault(f"{kind}_{step}", []).append(us)
    finally:
        log.close()
    steps = {name: round(statistics.median(times), 1) for name, times in sorted(found.items())}
    steps["http"] = figures["floor"]["hot"]["cpu_us_per_request"]
    steps["rest"] = round(figures["cpu_us"]["saturation"] - sum(steps.values()), 1)
    return steps


if __name__ == "__main__":
    main("decide", __doc__, measure, features=tuple(CONFIGURATIONS))
