"""History: what telling it costs the fold, what writing it costs, and people as of past times.

    python -m benchmarks.history [--json] [--fast] [--check]

Figures over events of one e-commerce shop, 50,000 people of whom some merge (`--fast`: a tenth of all):

    tell_us             told by the fold, a row made of an event; what a live event takes longer
    write_us            a row written: Arrow, Parquet, fsync, small files merged; CPU of the worker thread
    bytes_per_event     on disk
    rows, rows_per_second, first_seconds      the stream for 100,000 labels over 1,000,000 events
    rss_peak_mib        of the process that asked; DuckDB is given 256 MiB
"""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from benchmarks.report import Figures, main
from tailorbird.process.observer import Chronicle
from tailorbird.schema.events import Event, LoggedEvent
from tailorbird.stores.history import LABELS, History
from tailorbird.stores.parquet import ParquetWarehouse

BEGIN = 1_700_000_000.0
SECONDS_BETWEEN = 2.0
PEOPLE = 50_000
WRITTEN_AT_ONCE = 10_000
MEMORY_MIB = 256
SEED = 7
_BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0 Safari/537.36"


def measure(folder: Path, *, is_fast: bool) -> Figures:
    """Return every figure."""
    events, labels = (100_000, 10_000) if is_fast else (1_000_000, 100_000)
    figures = write(folder / "warehouse", events)
    # Asked in a process of its own, whose memory is its own.
    command = [
        sys.executable,
        "-m",
        "benchmarks.history",
        "ask",
        str(folder / "warehouse"),
        str(events),
        str(labels),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=600.0)
    asked: Figures = msgspec.json.decode(done.stdout)
    return figures | asked


def write(folder: Path, count: int) -> Figures:
    """Tell and write so many events; return what that took."""
    warehouse, chronicle = ParquetWarehouse(folder), Chronicle()
    tell, cpu = [], 0.0
    profiles = [f"p-{number:016x}" for number in range(PEOPLE)]
    for start in range(0, count, WRITTEN_AT_ONCE):
        made = list(_events(start, WRITTEN_AT_ONCE))
        started = time.thread_time()
        for offset, (person, logged, event) in enumerate(made, start):
            chronicle.begin(offset, logged.r)
            chronicle.event(logged, event, "Product Viewed", profiles[person])
        tell.append((time.thread_time() - started) / len(made) * 1e6)
        _merge(chronicle, profiles, start)
        rows, started = chronicle.take(), time.thread_time()
        warehouse.write(start + WRITTEN_AT_ONCE, chronicle.newest, rows)
        cpu += time.thread_time() - started
    sizes = warehouse.sizes()["events"]
    return {
        "tell_us": float(np.median(tell)),
        "write_us": cpu / count * 1e6,
        "bytes_per_event": sizes.bytes / sizes.rows,
        "files": sizes.files,
    }


def _events(start: int, count: int) -> Iterator[tuple[int, LoggedEvent, Event]]:
    """Yield events of people, of whom few do most, each with whose it is."""
    generator = np.random.default_rng(SEED + start)
    people = (PEOPLE * generator.random(count) ** 2).astype(int).tolist()
    items = generator.integers(0, 20_000, count).tolist()
    for number, (person, item) in enumerate(zip(people, items, strict=True), start):
        body = {
            "type": "track",
            "messageId": f"m-{generator.integers(1 << 62):016x}",
            "anonymousId": f"a-{person}",
            "event": "Product Viewed",
            "properties": {"product_id": f"sku-{item}", "category": f"c{item % 50}", "price": item / 7},
            "context": {"page": {"url": f"https://shop.example/p/sku-{item}"}, "userAgent": _BROWSER},
        }
        raw, at = msgspec.json.encode(body), BEGIN + number * SECONDS_BETWEEN
        logged = LoggedEvent(at, at - 1.0, str(body["messageId"]), msgspec.Raw(raw))
        yield person, logged, msgspec.json.decode(raw, type=Event)


def _merge(chronicle: Chronicle, profiles: list[str], start: int) -> None:
    """Let some people turn out to be others."""
    for person in range(start // WRITTEN_AT_ONCE * 20 + 1, start // WRITTEN_AT_ONCE * 20 + 20, 2):
        if profiles[person] != profiles[person - 1]:
            chronicle.merged(profiles[person - 1], profiles[person], ())
            profiles[person] = profiles[person - 1]


def ask(folder: Path, events: int, labels: int) -> Figures:
    """Ask for people as of so many times; return what came, how fast, and the process's peak memory."""
    generator = np.random.default_rng(SEED)
    people = (PEOPLE * generator.random(labels) ** 2).astype(int)
    asked = pa.Table.from_pydict(
        {
            "label_id": np.arange(labels),
            "profile": [f"p-{person:016x}" for person in people],
            "t": BEGIN + generator.random(labels) * events * SECONDS_BETWEEN,
        },
        schema=LABELS,
    )
    with History(folder, MEMORY_MIB) as history:
        started, rows, first = time.perf_counter(), 0, 0.0
        for batch in history.rows_as_of(asked):
            first = first or time.perf_counter() - started
            rows += len(batch)
        seconds = time.perf_counter() - started
    return {
        "rows": rows,
        "rows_per_second": rows / seconds,
        "first_seconds": first,
        "rss_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        print(msgspec.json.encode(ask(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))).decode())
    else:
        main("history", __doc__, measure)
