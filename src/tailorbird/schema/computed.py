"""Computed attributes: what is to be foretold of people, and the models that foretell it.

A definition (`ComputedAttribute`) says what is asked and how far ahead. A `ComputedModel` is the answer's
artifact: the fitted trees, their calibration, which cuts of time they learned from, and how they did on a
later time that they never saw, beside the obvious baseline. A `ComputedValue` is what one person gets.

Every number here is finite, so that all of it is JSON.
"""

import hashlib
from itertools import pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from tailorbird.limits import COMPUTED_SEGMENTS_MAX, EVENT_NAME_LENGTH_MAX
from tailorbird.schema.placement import Key, Share

EventName = Annotated[str, Meta(min_length=1, max_length=EVENT_NAME_LENGTH_MAX)]
HorizonDays = Annotated[float, Meta(gt=0.0, le=366.0, description="How far ahead is asked, days.")]
ORDERED: Final = "Order Completed"


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Configuration and artifacts are strict: a misspelt field is an error that names it."""


# --- definitions --------------------------------------------------------------------------------------


class Engagement(_Record, frozen=True, tag="engagement", tag_field="type"):
    """The probability, 0 to 1, that a person comes back within the horizon.

    Asked of everybody who did any of `events` before.
    """

    key: Key = "engagement"
    horizon_days: HorizonDays = 7.0
    events: tuple[EventName, ...] = ()
    """What counts as coming back; empty: every event of theirs."""


class Churn(_Record, frozen=True, tag="churn", tag_field="type"):
    """The probability, 0 to 1, that a person who bought before buys nothing within the horizon."""

    key: Key = "churn_risk"
    horizon_days: HorizonDays = 28.0
    event: EventName = ORDERED


class ValueSegment(_Record, frozen=True):
    """A class of people by what they are expected to spend."""

    name: Key
    above: Share
    """The quantile, 0 to 1, of expected spend from which on a person belongs to it."""


class LifetimeValue(_Record, frozen=True, tag="lifetime_value", tag_field="type"):
    """What a person who bought before is expected to spend within the horizon, in the shop's currency.

    >>> LifetimeValue(segments=(ValueSegment("top", 0.9), ValueSegment("low", 0.0)))
    Traceback (most recent call last):
    ValueError: segments: must begin above 0 and rise (found 0.9, 0.0)
    """

    key: Key = "lifetime_value"
    horizon_days: HorizonDays = 28.0
    event: EventName = ORDERED
    value: EventName = "revenue"
    """The property of the event that holds what was spent."""
    segments: Annotated[tuple[ValueSegment, ...], Meta(min_length=1, max_length=COMPUTED_SEGMENTS_MAX)] = (
        ValueSegment("low", 0.0),
        ValueSegment("mid", 0.5),
        ValueSegment("high", 0.8),
        ValueSegment("top", 0.95),
    )

    def __post_init__(self) -> None:
        quantiles = [segment.above for segment in self.segments]
        if not quantiles or quantiles[0] != 0.0 or any(a >= b for a, b in pairwise(quantiles)):
            found = ", ".join(map(str, quantiles)) or "none"
            raise ValueError(f"segments: must begin above 0 and rise (found {found})")


ComputedAttribute = Engagement | Churn | LifetimeValue


# --- how a model did on the holdout -------------------------------------------------------------------


class ClassifierMetrics(_Record, frozen=True, tag="classifier", tag_field="type"):
    """How well probabilities foretold what happened."""

    rows: int
    share: float
    """Of rows, those for which it happened."""
    auc: float
    """Probability that one for whom it happened ranks above one for whom it did not; 0.5 is chance."""
    log_loss: float
    """Mean of -ln(probability of what happened), nats."""
    brier: float
    """Mean squared error of the probability."""
    calibration_error: float
    """Expected calibration error over ten groups of equal size, by probability: mean of the distance between
    a group's mean probability and its share, 0 to 1."""


class SegmentFigures(_Record, frozen=True):
    """Whom a segment held, and what they were expected to spend and did."""

    name: str
    rows: int
    expected: float
    spent: float


class ValueMetrics(_Record, frozen=True, tag="value", tag_field="type"):
    """How well expected spend foretold spend; amounts in the shop's currency, per person."""

    rows: int
    mean: float
    """What was spent."""
    expected: float
    """Mean of what was expected."""
    mae: float
    """Mean absolute error."""
    rmsle: float
    """Root of the mean squared error of ln(1 + amount)."""
    spearman: float
    """Rank correlation, -1 to 1; 0 where all were expected to spend the same."""
    decile_lift: float
    """What the tenth expected to spend most did spend, over the mean of all."""
    segments: tuple[SegmentFigures, ...] = ()


Metrics = ClassifierMetrics | ValueMetrics


class LossDifference(_Record, frozen=True):
    """The model's loss a row less the baseline's, with its 95 % interval; below 0 the model is better.

    The loss is log loss for probabilities and absolute error for amounts.
    """

    value: float
    low: float
    high: float


# --- the artifact -------------------------------------------------------------------------------------


class Platt(_Record, frozen=True, tag="platt", tag_field="type"):
    """p = 1 / (1 + exp(-(slope · logit(raw) + intercept))) (Platt 1999, on the trees' own log odds)."""

    slope: float
    intercept: float


class Scale(_Record, frozen=True, tag="scale", tag_field="type"):
    """Expected spend = factor · raw."""

    factor: float


class Training(_Record, frozen=True):
    """What a model learned from: cuts of time, epoch seconds, and rows.

    The outcomes of a cut are those of the horizon after it; every horizon ends before the next part's cut.
    """

    fit_cuts: tuple[float, ...]
    calibrate_cut: float
    holdout_cut: float
    fit_rows: int
    calibrate_rows: int
    holdout_rows: int
    data_digest: str
    """Of rows and outcomes: the same data gives the same one."""
    seed: int


class Importance(_Record, frozen=True):
    """How much of the trees' gain came from one feature, 0 to 1."""

    feature: str
    share: float


class ComputedModel(_Record, frozen=True):
    """A fitted model with its account: what it is, what it learned from, how good it is."""

    attribute: ComputedAttribute
    features: tuple[str, ...]
    """Names of the matrix' columns, in their order."""
    trees: str
    """LightGBM's text."""
    calibration: Platt | Scale
    segment_edges: tuple[float, ...]
    """The value from which on each declared segment holds; the first has none below."""
    training: Training
    metrics: Metrics
    """On the holdout, after calibration."""
    baseline: Metrics
    """Of the obvious rule on the same rows."""
    difference: LossDifference
    is_accepted: bool
    """Whether it beat the baseline; one that did not is never served."""
    reason: str
    code_version: str
    importances: tuple[Importance, ...] = ()
    """The features that told most, the strongest first."""

    @property
    def version(self) -> str:
        """Return what names this very model: a hash of all of it."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=8).hexdigest()


class ComputedValue(_Record, frozen=True):
    """What one person was computed to be, by which model, as of when (epoch seconds)."""

    value: float
    segment: str | None
    """Of `LifetimeValue.segments`; None for probabilities."""
    model_version: str
    t: float


class AttributesComputed(msgspec.Struct, frozen=True, tag_field="k", tag="attributes_computed"):
    """What one person was computed to be, as far as it is other than before."""

    r: float
    profile: str
    values: dict[str, ComputedValue]
    """By the attribute's key."""
