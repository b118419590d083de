"""Folding again: after a crash, and from the beginning.

    python -m benchmarks.rebuild [--json] [--fast] [--check]

Events of a tenth as many visitors go through the event door; then the server is killed (SIGKILL).

    ready_seconds      until it is ready again: what the last checkpoint had not, folded, included
    lost               acknowledged events that the log does not hold afterwards: none
    events_per_second  of `tailorbird rebuild`: the whole log folded into a fresh state, checkpoints
                       included, and that compared with the one that is there, which is not counted
    is_same            1 where both states are the same byte for byte
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.serving import Server

from benchmarks import bodies
from benchmarks.machine import cores, cpu_seconds, pinned
from benchmarks.report import Figures, main
from benchmarks.serving import declare, log_end, seed_patiently, serving, start

EVENTS, EVENTS_FAST = 1_000_000, 100_000
EVENTS_EACH = 10
REBUILD_SECONDS_MAX = 600.0


def measure(folder: Path, *, is_fast: bool) -> Figures:
    """Return every figure."""
    events = EVENTS_FAST if is_fast else EVENTS
    with serving(folder) as own:
        declare(own, bodies.placements())
        end = log_end(own) + events
        used = cpu_seconds(own.pid)
        started = time.perf_counter()
        seed_patiently(own, events // EVENTS_EACH, EVENTS_EACH)
        ingest_seconds = time.perf_counter() - started
        ingest_us = 1e6 * (cpu_seconds(own.pid) - used) / events
        own.kill()
        started = time.perf_counter()
        start(own)
        ready_seconds = time.perf_counter() - started
        lost = end - log_end(own)
    rebuilt = _rebuild(own)
    return {
        "events": events,
        "ready_seconds": round(ready_seconds, 2),
        "lost": lost,
        "events_per_second": rebuilt["recordsPerSecond"],
        "rebuild_seconds": rebuilt["seconds"],
        "is_same": int(rebuilt["same"]),
        "ingest": {
            "events_per_second": round(events / ingest_seconds, 1),
            "cpu_us_per_event": round(ingest_us, 2),
        },
        "log_mib": round(_size_mib(own.data_dir / "log"), 1),
        "state_mib": round(_size_mib(own.data_dir / "state"), 1),
    }


def _rebuild(own: Server) -> dict[str, Any]:
    program = str(Path(sys.executable).with_name("tailorbird"))
    command = [program, "rebuild", "--data", str(own.data_dir), "--json"]
    with pinned(cores()[0]):
        # Exit code 1 says that the states differ: a figure here, not an error.
        done = subprocess.run(command, capture_output=True, check=False, timeout=REBUILD_SECONDS_MAX)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _size_mib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


if __name__ == "__main__":
    main("rebuild", __doc__, measure)
