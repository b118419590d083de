"""Readouts: what personalization earned against the holdout, for the API and `report --json`.

Every number here is finite; what cannot be computed is null, and the verdict says why.
"""

from typing import Literal

import msgspec

Metric = Literal["rate", "value"]
Trials = Literal["exposures", "decisions"]


class _Record(msgspec.Struct, frozen=True, rename="camel"):
    """Part of an answer: frozen, camelCase on the wire."""


class Estimate(_Record, frozen=True):
    """A number with its 95 % interval and the two-sided p-value of "there is no difference"."""

    value: float
    low: float
    high: float
    pvalue: float


class ArmReadout(_Record, frozen=True):
    """What one arm's visitors saw and did."""

    units: int
    """Visitors."""
    decisions: int
    exposures: int
    outcomes: int
    outcomes_shown: int
    """Those of decisions that were exposed."""
    value: float
    """Summed over the outcomes."""
    rate: float | None
    """The metric: outcomes a trial (`rate`, 0 to 1; of exposures, `outcomesShown`) or value a visitor."""
    rate_interval: tuple[float, float] | None
    """95 % interval of `rate`; null where visitors do not vary enough to tell."""


class Arms(_Record, frozen=True):
    """The two arms that are compared."""

    personalized: ArmReadout
    holdout: ArmReadout


class SampleRatio(_Record, frozen=True):
    """Whether visitors were split as declared, as shares of visitors who are in the holdout."""

    expected: float
    """The declared share, 0 to 1."""
    observed: float | None
    """The share that was seen; null where there are no visitors."""
    pvalue: float | None
    """Chance of a split at least so far off; null without visitors or a declared split."""
    is_mismatch: bool
    """The split is broken (p below 0.001), and with it every comparison of the arms."""


class Readout(_Record, frozen=True):
    """One metric of one placement, personalized against holdout."""

    placement: str
    """A placement's key, or `*` for all placements together."""
    metric: Metric
    """`rate`: outcomes a trial. `value`: value a visitor."""
    segment: str | None
    """The segment that visitors were narrowed to; null for everybody."""
    holdout_share: float
    trials: Trials
    """What counts as a trial: as `learnFrom` says, else exposures once either arm reports any."""
    arms: Arms
    lift: Estimate | None
    """Personalized over holdout, less 1; interval made on the log scale; null if unknowable."""
    difference: Estimate | None
    """Personalized less holdout, in the metric's own unit; null if unknowable."""
    sample_ratio: SampleRatio
    verdict: str
    """One plain sentence."""
    merged_arms: int
    """Visitors who had been in both arms before two of their profiles were merged into one."""


class Readouts(_Record, frozen=True):
    """Every readout that was asked for."""

    as_of: str
    """Time up to which the log had been folded, ISO 8601 in UTC."""
    readouts: tuple[Readout, ...]
