"""The face that all benchmarks share: options, one JSON document or plain lines, and the budgets.

python -m benchmarks.NAME [--json] [--fast] [--check]
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.budget import check
from benchmarks.machine import describe

Figures = dict[str, Any]


class Measure(Protocol):
    """Measures in an empty folder; what it returns may be nested."""

    def __call__(self, folder: Path, /, *, is_fast: bool, **variants: str) -> Figures:
        """Return figures by name; `variants` are what `main` was given choices of."""


def main(name: str, doc: str | None, measure: Measure, **variants: Sequence[str]) -> None:
    """Measure, print, and exit: 1 with `--check` where a budget is broken, else 0.

    `variants` are further options, each with its choices, the first one by default.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=(doc or "").splitlines()[0]
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--fast", action="store_true", help="shorter runs, under a minute in all")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a budget is broken")
    for variant, choices in variants.items():
        parser.add_argument(f"--{variant}", choices=choices, default=choices[0])
    options = parser.parse_args()
    chosen = {variant: str(getattr(options, variant)) for variant in variants}
    with tempfile.TemporaryDirectory(prefix=f"tailorbird-{name}-") as folder:
        machine = describe(Path(folder))
        figures = measure(Path(folder), is_fast=options.fast, **chosen)
    flags = sys.argv[1:]
    document = {
        "benchmark": name,
        "command": " ".join(["python -m", f"benchmarks.{name}", *flags]),
        **figures,
        "machine": machine,
        "breaches": check(name, flatten(figures)),
    }
    print(json.dumps(document, indent=2) if options.json else lines(document))
    sys.exit(1 if options.check and document["breaches"] else 0)


def median_of(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure over runs that all have it."""
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


def flatten(figures: Figures, prefix: str = "") -> dict[str, float]:
    """Return every number under its path, joined by `_`: `half_load_p50_ms`."""
    flat: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}_")
        elif isinstance(value, int | float):
            flat[f"{prefix}{name}"] = float(value)
    return flat


def lines(document: dict[str, Any]) -> str:
    """Return a line a figure, then the budgets' verdict."""
    numbers = flatten({k: v for k, v in document.items() if k != "machine"})
    table = [f"{name:<48} {number:14,.6g}" for name, number in numbers.items()]
    verdict = document["breaches"] or ["Every budget is kept."]
    return "\n".join([document["command"], *table, "", *verdict])
