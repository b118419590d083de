"""The floors of the event door, without HTTP and without the fold, on the server's core.

    python -m benchmarks.floors FOLDER SECONDS

    append     the log alone: 64 producers append the same bytes and wait until they are durable
    validate   the door's decoding and validating alone
    all        both, one after the other: what of the door's work no server could leave out

each for single events and for batches of 100, in events a second; and `fsync_p50_ms`, an fdatasync
after the write of one event, on the same disk.
"""

import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks import bodies
from benchmarks.machine import cores, pinned
from tailorbird.clock import SystemClock
from tailorbird.collect.collector import Collected, Collector
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.records import KINDS
from tailorbird.stores.segments import SegmentLog

BATCH = 100
PRODUCERS = 64
SECONDS_MAX = 120.0

_KIND = KINDS[LoggedEvent]
_BODIES = 2_000
_SYNCS = 200
_encode = msgspec.json.Encoder().encode


def floors(folder: Path, seconds: float) -> dict[str, Any]:
    """Measure in a process of its own on the server's core, `seconds` for each of six figures."""
    command = [sys.executable, "-m", "benchmarks.floors", str(folder), str(seconds)]
    with pinned(cores()[0]):
        done = subprocess.run(command, capture_output=True, check=True, timeout=SECONDS_MAX)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """Return every floor."""
    collector = Collector(SystemClock(), lambda _reject: None, lambda _event: False)
    singles = [bodies.view(bodies.visitor_of(n)) for n in range(_BODIES)]
    order = bodies.spread(_BODIES)
    batches = [bodies.batch_body(list(itertools.islice(order, BATCH))) for _ in range(20)]
    take_one = _taker(lambda body: collector.single("/v1/t", body, gpc=False))
    take_many = _taker(lambda body: collector.batch("/v1/batch", body, gpc=False))
    return {
        "single": _three(folder / "singles", take_one, singles, seconds),
        "batch": _three(folder / "batches", take_many, batches, seconds),
        "fsync_p50_ms": round(fsync_p50_ms(folder / "synced", len(singles[0])), 3),
    }


def fsync_p50_ms(file: Path, size: int) -> float:
    """Return the median time of an fdatasync after `size` bytes were added to a file."""
    times = []
    data = b"x" * size
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(_SYNCS):
            os.write(descriptor, data)
            started = time.perf_counter()
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
    return 1e3 * statistics.median(times)


Take = Callable[[bytes], list[bytes]]


def _taker(collect: Callable[[bytes], Collected]) -> Take:
    """Return what makes the log's payloads of a request's body."""

    def take(body: bytes) -> list[bytes]:
        accepted, faults = collect(body)
        assert not faults, f"a benchmark's event was refused: {faults[0]}"
        return [_encode(entry.logged) for entry in accepted]

    return take


def _three(folder: Path, take: Take, requests: list[bytes], seconds: float) -> dict[str, float]:
    taken = {body: take(body) for body in requests}
    found = {
        "append": _append(folder / "append", taken.__getitem__, requests, seconds),
        "validate": _validate(take, requests, seconds),
        "all": _append(folder / "all", take, requests, seconds),
    }
    return {f"{name}_events_per_second": round(rate, 1) for name, rate in found.items()}


def _validate(take: Take, requests: list[bytes], seconds: float) -> float:
    started, count = time.perf_counter(), 0
    for body in itertools.cycle(requests):
        count += len(take(body))
        now = time.perf_counter()
        if now - started > seconds:
            break
    return count / (now - started)


def _append(folder: Path, take: Take, requests: list[bytes], seconds: float) -> float:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_produce(folder, take, itertools.cycle(requests), seconds))


async def _produce(folder: Path, take: Take, requests: Iterator[bytes], seconds: float) -> float:
    log = SegmentLog(folder)
    started = time.perf_counter()

    async def produce() -> int:
        count = 0
        while time.perf_counter() - started < seconds:
            payloads = take(next(requests))
            for payload in payloads:
                log.append(_KIND, payload)
            await log.durable()
            count += len(payloads)
        return count

    try:
        counts = await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
        return sum(counts) / (time.perf_counter() - started)
    finally:
        log.close()


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), float(sys.argv[2]))))
