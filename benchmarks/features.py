"""Features in process: folding an event with the default catalogue, reading every variable, bytes.

    python -m benchmarks.features [--json] [--fast] [--check]

Figures, medians (p50) and 99th percentiles (p99) in microseconds:

    fold         one event into the world, with all built-in definitions declared
    fold_plain   the same events with none declared: what definitions cost is the difference
    vector       all variables of a profile that is in the cache, as the array that a model reads
    hundred      one hundred of them, picked out of it
    by_name      all of them as a dictionary, as the profile view gives them
    bytes        of a profile: as a record in memory, and packed on disk

Floors: `copy_us`, NumPy copying an array of as many float32; `gather_us`, gathering as many from a
dictionary by name.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import main
from benchmarks.visitors import BEGIN, events, full_catalogue
from tailorbird.features.state import pack
from tailorbird.live.foreknown import foreknow
from tailorbird.live.seen import key_of
from tailorbird.live.variables import by_name, vector
from tailorbird.live.world import TABLES, World
from tailorbird.process.worker import Fold, decode_event
from tailorbird.schema.profile import Profile
from tailorbird.schema.records import encode
from tailorbird.stores.memory import MemoryLog, MemoryState

SECRET = bytes(32)
SEED = 7
NOW = BEGIN + 30 * 86400.0
CACHE_BYTES = 1024 * 1024 * 1024


def measure(_folder: Path, *, is_fast: bool) -> dict[str, object]:
    """Return every figure by name."""
    count, visitors = (30_000, 1_000) if is_fast else (200_000, 5_000)
    plain_world, plain_times = folded(count, visitors, is_declared=False)
    world, times = folded(count, visitors, is_declared=True)
    people = [profile for _, profile in zip(range(1_000), every_profile(world, visitors), strict=False)]
    names = world.features.reading.names
    wanted = np.random.default_rng(SEED).choice(len(names), 100, replace=False)
    as_dict = by_name(world, people[0], NOW)
    keys = list(as_dict)
    return {
        "variables": len(names),
        "fold": percentiles(times),
        "fold_plain": percentiles(plain_times),
        "vector": timed(lambda profile: vector(world, profile, NOW), people),
        "hundred": timed(lambda profile: vector(world, profile, NOW)[wanted], people),
        "by_name": timed(lambda profile: by_name(world, profile, NOW), people[:200]),
        "copy_us": timed(lambda _: np.empty(len(names), np.float32).copy(), people)["p50_us"],
        "gather_us": timed(lambda _: [as_dict[key] for key in keys], people)["p50_us"],
        "bytes_in_memory": int(np.median([profile.state.nbytes for profile in people])),
        "bytes_packed": int(np.median([len(pack(profile.state)) for profile in people])),
        "plain_bytes_packed": int(
            np.median([len(pack(profile.state)) for profile in every_profile(plain_world, visitors)])
        ),
    }


def folded(count: int, visitors: int, *, is_declared: bool) -> tuple[World, list[float]]:
    """Return a world with all events folded, and the microseconds of each of the last three quarters."""
    log = MemoryLog()
    if is_declared:
        log.append(*encode(full_catalogue()))
    world = World(MemoryState(TABLES), CACHE_BYTES)
    foreknow(world, log)
    fold = Fold(world, SECRET, log)
    for record in log.read():
        fold.apply(record)
    times = []
    for place, logged in enumerate(events(count, visitors, SEED)):
        event, key = decode_event(logged.e), key_of(logged.m)
        started = time.perf_counter_ns()
        fold.apply_event(log.end + place, logged, event, key)
        times.append((time.perf_counter_ns() - started) / 1e3)
    return world, times[count // 4 :]


def every_profile(world: World, visitors: int) -> list[Profile]:
    """Return the profiles of all visitors that were seen."""
    found = []
    for number in range(visitors):
        entry = world.identifiers.get(f"anonymous_id:a-{number}")
        profile = None if entry is None else world.profiles.get(entry.profile)
        if profile is not None:
            found.append(profile)
    return found


def timed(act: Callable[[Profile], object], people: list[Profile]) -> dict[str, float]:
    """Return percentiles of the time of `act` over people, gone over five times."""
    times = []
    for profile in people * 5:
        started = time.perf_counter_ns()
        act(profile)
        times.append((time.perf_counter_ns() - started) / 1e3)
    return percentiles(times[len(people) :])


def percentiles(times: list[float]) -> dict[str, float]:
    """Return the median and the 99th percentile, microseconds."""
    middle, high = np.percentile(times, [50, 99])
    return {"p50_us": round(float(middle), 2), "p99_us": round(float(high), 2)}


if __name__ == "__main__":
    main("features", __doc__, measure)
