"""Memory: what the server holds with many more profiles than fit, and how fast it decides then.

    python -m benchmarks.memory [--json] [--fast] [--check]

`memory_mib = 512`. Profiles are made through the event door, two events each, so far apart that the
second finds its profile gone from memory. Then decisions for random visitors, in an open loop at a
fixed rate. With `--fast` 20,000 and 60,000 profiles instead of 100,000 and 1,000,000.

    rss_mib, rss_peak_mib   resident memory after the decisions, and the most since the start
    decide                  latencies of one request with a variant placement and a list of ten
"""

from pathlib import Path

from benchmarks import bodies
from benchmarks.load import open_loop
from benchmarks.machine import memory_mib
from benchmarks.report import Figures, main
from benchmarks.serving import costed, declare, seed_patiently, serving, settle

MEMORY_MIB = 512
EVENTS_EACH = 2
RATE = 200.0
PROFILES, PROFILES_FAST = (100_000, 1_000_000), (20_000, 60_000)
SECONDS, SECONDS_FAST = 15.0, 4.0


def measure(folder: Path, *, is_fast: bool) -> Figures:
    """Return the figures of each number of profiles, under `few` and `many`."""
    profiles, seconds = (PROFILES_FAST, SECONDS_FAST) if is_fast else (PROFILES, SECONDS)
    pairs = zip(("few", "many"), profiles, strict=True)
    return {"setting_mib": MEMORY_MIB} | {name: _at(folder / name, count, seconds) for name, count in pairs}


def _at(folder: Path, profiles: int, seconds: float) -> Figures:
    folder.mkdir()
    config = folder / "tailorbird.toml"
    config.write_text(f"memory_mib = {MEMORY_MIB}\n", encoding="utf-8")
    with serving(folder, ["--config", str(config)]) as own:
        declare(own, bodies.placements())
        empty, _ = memory_mib(own.pid)
        seed_patiently(own, profiles, EVENTS_EACH)
        settle(own.pid)
        seeded, _ = memory_mib(own.pid)
        requests = bodies.decides(profiles, own.write_key)
        decide = costed(own.pid, lambda: open_loop(own.port, requests, RATE, seconds))
        now, peak = memory_mib(own.pid)
    return {
        "profiles": profiles,
        "rss_mib": now,
        "rss_peak_mib": peak,
        "rss_empty_mib": empty,
        "rss_seeded_mib": seeded,
        "decide": decide.figures(),
    }


if __name__ == "__main__":
    main("memory", __doc__, measure)
