"""Model segments: how long a refit takes, what memory it needs, and how fast a visitor is told a cluster.

    python -m benchmarks.segments [--json] [--fast] [--check]

100,000 visitors of five kinds with 1,100 variables, sparse and heavy-tailed, from a seeded generator: counts
of 120 events (all time, in four windows, decayed), eight scalars and twelve flags. With `--fast` 10,000
visitors.

    generate_seconds     drawing them; no promise
    fit_seconds          the first fit: k-means with 2 to 10 clusters, 10 bootstraps each
    refit_seconds        the next night's: another generator, and the model before
    refit_cpu_seconds    processor time of the same, of all threads: says more on a busy machine
    hdbscan_seconds      a fit by density
    matrix_mib           the visitors
    rss_peak_mib         the most that the process held, the visitors in it
    assign_us            one visitor told a cluster, the median over batches
    assign_cpu_us        processor time of the same
    assign_all_seconds   every visitor told a cluster
    adjusted_rand        the clusters found against the true kinds
    kept_names           share of names that the refit kept
    model_kib            the model in MessagePack
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.random import Generator
from sklearn.metrics import adjusted_rand_score

from benchmarks.machine import memory_mib
from benchmarks.report import Figures, main
from tailorbird.features.scalars import SCALARS
from tailorbird.schema.clusters import ClusterModel, Hdbscan, KMeans
from tailorbird.segment.assigner import Assigner
from tailorbird.segment.clusters import fit
from tailorbird.segment.space import Floats

PEOPLE, PEOPLE_FAST = 100_000, 10_000
EVENTS, KINDS, FAVOURITES = 120, 5, 15
WINDOWS = {"1h": 0.01, "1d": 0.03, "7d": 0.15, "30d": 0.45}  # And the share of events that lies in each.
FLAGS = 12
SEED = 41
ROWS = 5_000
BATCHES, BATCH = 40, 250


def measure(_folder: Path, *, is_fast: bool) -> Figures:
    """Return every figure by name."""
    people = PEOPLE_FAST if is_fast else PEOPLE
    started = time.perf_counter()
    matrix, kinds = visitors(people, np.random.default_rng(SEED))
    variables = names()
    figures: Figures = {
        "people": people,
        "variables": len(variables),
        "generate_seconds": round(time.perf_counter() - started, 2),
        "matrix_mib": round(matrix.nbytes / 2**20, 1),
    }
    first, figures["fit_seconds"] = timed(lambda: fit(matrix, variables, KMeans(), np.random.default_rng(1)))
    used = time.process_time()
    second, figures["refit_seconds"] = timed(
        lambda: fit(matrix, variables, KMeans(), np.random.default_rng(2), first)
    )
    figures["refit_cpu_seconds"] = round(time.process_time() - used, 2)
    _, figures["hdbscan_seconds"] = timed(lambda: fit(matrix, variables, Hdbscan(), np.random.default_rng(3)))
    figures["rss_peak_mib"] = memory_mib(os.getpid())[1]
    assigner = Assigner(second, variables)
    told, figures["assign_all_seconds"] = timed(lambda: assigner.assign_all(matrix))
    figures["assign_us"], figures["assign_cpu_us"] = assign_us(assigner, matrix)
    figures["clusters"] = len(second.clusters)
    figures["components"] = len(second.space.offset) // 4
    figures["adjusted_rand"] = round(float(adjusted_rand_score(kinds, told)), 4)
    figures["kept_names"] = kept_names(first, second)
    figures["model_kib"] = round(len(msgspec.msgpack.encode(second)) / 1024, 1)
    return figures


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `act` returns, and the seconds that it took."""
    started = time.perf_counter()
    done = act()
    return done, round(time.perf_counter() - started, 2)


def assign_us(assigner: Assigner, matrix: Floats) -> tuple[float, float]:
    """Return the medians over batches of an assignment's mean time and processor time, in microseconds."""
    rows = [np.ascontiguousarray(row) for row in matrix[:BATCH]]
    times = []
    for _ in range(BATCHES):
        started, used = time.perf_counter_ns(), time.process_time_ns()
        for row in rows:
            assigner.assign(row)
        passed = time.perf_counter_ns() - started, time.process_time_ns() - used
        times.append([each / BATCH / 1e3 for each in passed])
    wall, cpu = np.median(times, axis=0).round(2).tolist()
    return wall, cpu


def kept_names(first: ClusterModel, second: ClusterModel) -> float:
    """Return the share of the first model's clusters that the second has under the same id and name."""
    before = {(found.id, found.name) for found in first.clusters}
    after = {(found.id, found.name) for found in second.clusters}
    return len(before & after) / len(before)


def names() -> list[str]:
    """Return the name of each column of `visitors`."""
    columns = ["count", *WINDOWS, *(f"decayed_{window}" for window in WINDOWS)]
    events = [f"event_{event}_{column}" for column in columns for event in range(EVENTS)]
    return [*events, *SCALARS, *(f"flag_{flag}" for flag in range(FLAGS))]


def visitors(people: int, generator: Generator) -> tuple[Floats, np.ndarray]:
    """Return people's variables and the kind of each: a kind is fond of some events and flags."""
    matrix = np.empty((people, len(names())), np.float32)
    kinds = generator.integers(KINDS, size=people)
    rates = generator.gamma(0.5, 0.6, EVENTS) * np.ones((KINDS, 1))
    for kind in range(KINDS):
        rates[kind, kind * FAVOURITES : (kind + 1) * FAVOURITES] = generator.uniform(2.0, 6.0, FAVOURITES)
    for start in range(0, people, ROWS):
        rows = slice(start, start + ROWS)
        matrix[rows] = block(kinds[rows], rates, generator)
    return matrix, kinds


def block(kinds: np.ndarray, rates: np.ndarray, generator: Generator) -> np.ndarray:
    """Return the variables of some people; how active they are is log-normal, so tails are heavy."""
    people = len(kinds)
    activity = generator.lognormal(0.3, 0.5, (people, 1))
    counts = generator.poisson(rates[kinds] * activity)
    inside = [generator.binomial(counts, share) for share in WINDOWS.values()]
    decayed = [counts * generator.uniform(0.3, 1.5, (people, 1)) * share for share in WINDOWS.values()]
    orders = counts[:, :3].sum(axis=1)
    value = orders * generator.lognormal(3.5, 1.0, people)
    seconds = generator.exponential([[600.0, 20 * 86400.0, 200 * 86400.0]], (people, 3))
    sessions = 1.0 + generator.poisson(4.0 * activity[:, 0])
    depth = generator.poisson(3.0, people)
    scalars = [sessions, depth, *seconds.T, value, orders, value / np.maximum(orders, 1)]
    flags = generator.uniform(size=(people, FLAGS)) < np.linspace(0.02, 0.6, FLAGS)
    return np.hstack([counts, *inside, *decayed, np.column_stack(scalars), flags])


if __name__ == "__main__":
    main("segments", __doc__, measure)
