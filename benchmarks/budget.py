"""Budgets: what is promised of speed and size, in `budgets.toml`, against what was measured."""

import tomllib
from pathlib import Path

BUDGETS = Path(__file__).with_name("budgets.toml")


def check(section: str, figures: dict[str, float]) -> list[str]:
    """Return a sentence for each promise of `section` that `figures` break.

    A promise is a key that ends in `_max` or `_min`; what stands before is the name of the figure.
    A figure that was not measured, or is no number, breaks its promise.

    Raises:
        KeyError: There is no such section.
        ValueError: A key ends in neither.
    """
    promises = tomllib.loads(BUDGETS.read_text(encoding="utf-8"))[section]
    found = (_breach(section, key, bound, figures) for key, bound in promises.items())
    return [breach for breach in found if breach]


def _breach(section: str, key: str, bound: float, figures: dict[str, float]) -> str:
    name, _, kind = key.rpartition("_")
    if kind not in {"max", "min"}:
        raise ValueError(f"budgets.toml [{section}] {key}: must end in _max or _min")
    if name not in figures:
        return f"[{section}] {name} was not measured; {key} = {bound:g}"
    figure = figures[name]
    is_kept = figure <= bound if kind == "max" else figure >= bound
    return "" if is_kept else f"[{section}] {name} = {figure:g} breaks {key} = {bound:g}"
