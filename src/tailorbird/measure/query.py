"""The question that a readout answers: moments of two arms by placement. Light to import."""

import msgspec

from tailorbird.schema.placement import LearnFrom
from tailorbird.schema.readout import Metric
from tailorbird.stats.moments import UnitMoments


class PlacementMoments(msgspec.Struct, frozen=True):
    """Sums over the visitors of one placement's two arms."""

    placement: str
    """A placement's key, or `*` for all placements together."""
    holdout_share: float
    """As declared, 0 to 1."""
    personalized: UnitMoments
    holdout: UnitMoments
    learn_from: LearnFrom = "auto"
    """As declared: what counts as a trial."""
    left_out: tuple[str, ...] = ()
    """Of the total: placements with a holdout share of their own, whose arms are others."""
    merged_units: int = 0
    """Visitors who had been in both arms before a merge."""
    segment: str | None = None
    """The rule segment that visitors were in when first decided for; None for everybody."""


class ReadoutQuery(msgspec.Struct, frozen=True):
    """What to read out; equal queries have equal answers."""

    as_of: float
    """Epoch seconds: how far the log was folded (the present would defeat the worker's cache)."""
    placements: tuple[PlacementMoments, ...]
    placement: str | None = None
    """Only this one; without it, all."""
    metric: Metric | None = None
    """Only this one; without it, `rate` and `value`."""
