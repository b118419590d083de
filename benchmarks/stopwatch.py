"""Timing calls one by one, by the wall and by this process's CPU.

On a shared machine a call that takes longer than a turn on the core waits for its neighbours, and a short one
does not: by the wall, what is slow looks slower still. CPU time says what a call itself took, less what it
waited for the disk.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Took = tuple[int, int]
"""Nanoseconds of one call: by the wall, and of CPU in all threads of this process."""


def timed(act: Callable[[T], object], arguments: Iterable[T]) -> list[Took]:
    """Return what each call took."""
    wall, cpu = time.perf_counter_ns, time.process_time_ns
    taken = []
    for argument in arguments:
        cpu_started, started = cpu(), wall()
        act(argument)
        ended = wall()
        taken.append((ended - started, cpu() - cpu_started))
    return taken


def percentiles(taken: Sequence[Took]) -> dict[str, float]:
    """Return p50 and p99 in microseconds, by the wall and of CPU."""
    (p50, cpu_p50), (p99, cpu_p99) = np.percentile(taken, (50.0, 99.0), axis=0).tolist()
    named = {"p50_us": p50, "p99_us": p99, "cpu_p50_us": cpu_p50, "cpu_p99_us": cpu_p99}
    return {name: round(nanoseconds / 1e3, 2) for name, nanoseconds in named.items()}
