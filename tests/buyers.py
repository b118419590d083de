"""Made-up buyers whose truth is known: each buys by chance at a rate, and spends around a mean of their own.

Rates change every four weeks, so that the past says less than what a row tells: its first two columns are
the rate of the coming weeks and the mean spend (with some noise), the others are nothing but noise.
"""

from typing import NamedTuple

import numpy as np

from tailorbird.segment.fitting import Snapshots
from tailorbird.segment.occurrences import Occurrences

DAY = 86_400.0
BEGIN = 1_700_000_000.0
BLOCKS, BLOCK_DAYS = 5, 28
NAMES = ("rate", "spend", "noise_a", "noise_b", "noise_c")


class Buyers(NamedTuple):
    """People by index, what was known of them each week, what they did, and the truth."""

    snapshots: Snapshots
    occurrences: Occurrences
    until: float
    rates: np.ndarray
    """Purchases a day in the last four weeks, which are the holdout's."""
    means: np.ndarray
    """Of what one purchase costs."""


def buyers(seed: int, count: int = 2000, *, is_told: bool = True) -> Buyers:
    """Return made-up buyers; where `is_told` is off, their features are somebody else's."""
    generator = np.random.Generator(np.random.PCG64(seed))
    rates = np.exp(generator.normal(np.log(1 / 25), 1.0, (BLOCKS, count)))
    means = np.exp(generator.normal(3.0, 0.6, count))
    # Everybody bought once at the very beginning: all are asked about.
    parts = [(np.arange(count), np.full(count, BEGIN))]
    for block in range(BLOCKS):
        people = np.repeat(np.arange(count), generator.poisson(rates[block] * BLOCK_DAYS))
        within = generator.uniform(0.0, BLOCK_DAYS * DAY, len(people))
        parts.append((people, BEGIN + block * BLOCK_DAYS * DAY + within))
    people, times = (np.concatenate(column) for column in zip(*parts, strict=True))
    values = means[people] * generator.gamma(4.0, 0.25, len(people))
    owners = np.arange(count) if is_told else generator.permutation(count)
    rows = [_features(generator, rates[block][owners], means[owners]) for block in range(1, BLOCKS)]
    cuts = BEGIN + BLOCK_DAYS * DAY * np.arange(1, BLOCKS)
    snapshots = Snapshots(
        np.concatenate(rows), NAMES, np.tile(np.arange(count), len(cuts)), np.repeat(cuts, count)
    )
    until = BEGIN + BLOCKS * BLOCK_DAYS * DAY
    return Buyers(snapshots, Occurrences(people, times, values), until, rates[-1], means)


def _features(generator: np.random.Generator, rates: np.ndarray, means: np.ndarray) -> np.ndarray:
    told = np.stack([np.log(rates), np.log(means)], axis=1)
    noise = generator.normal(size=(len(rates), len(NAMES)))
    noise[:, :2] = told + 0.1 * noise[:, :2]
    return noise.astype(np.float32)
