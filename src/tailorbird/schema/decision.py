"""Decisions: what was asked, what was answered, with what probability, and why.

A decision's id names its place in the log (`d-<offset>-<check>`), so that an exposure or outcome
finds it without an index; the check is keyed, so that ids cannot be made up.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tailorbird.limits import COUNT_MAX, REQUEST_ITEMS_MAX
from tailorbird.schema.placement import Identity


class VisitorRef(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Who asks, as the request names them."""

    anonymous_id: Identity | None = None
    user_id: Identity | None = None


ItemIds = Annotated[tuple[str, ...], Meta(max_length=REQUEST_ITEMS_MAX)]


class PlacementRequest(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """One placement in a request."""

    key: str
    count: Annotated[int, Meta(ge=1, le=COUNT_MAX)] | None = None
    exclude: ItemIds = ()
    candidates: ItemIds | None = None


class Step(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """What one step of the cascade did."""

    step: str
    removed: int = 0
    detail: str = ""


class LoggedChoice(msgspec.Struct, frozen=True, rename="camel", array_like=True, gc=False):
    """A choice in the log: id, propensity of this slot, score, and why, as `decide.explain` reads it."""

    id: str
    propensity: float
    score: float
    why: str


class LoggedDecision(
    msgspec.Struct, frozen=True, tag_field="k", tag="decision", omit_defaults=True, gc=False
):
    """One decision in the log. Whatever the fold of it needs is in it."""

    t: float
    """The time it was made for, epoch seconds."""
    r: float
    """The time it was made at; differs from `t` only where the request said `at`."""
    placement: str
    reason: str
    rung: str
    choices: list[LoggedChoice]
    arms: list[str] = []
    """What the policy chose among, and each one's probability, in the same order."""
    probabilities: list[float] = []
    arm: str | None = None
    """What was drawn; None where nothing was drawn."""
    seed: float = 0.0
    """The uniform number that the draw used."""
    holdout: str = "none"
    """`personalized`, `holdout` or `none`."""
    profile: str | None = None
    founded_on: str | None = None
    """`type:value` of a visitor of whom this decision is the first that is heard."""
    anonymous_id: str | None = None
    user_id: str | None = None
    """By which ids the visitor asked, as far as they identify anybody."""
    gpc: bool = False
    """Whether the request carried `Sec-GPC: 1`."""
    profile_version: int = -1
    """Log offset of the last record folded into the profile that was used."""
    vector: str = ""
    """The features that the visitor was read by: version of their layout, and a digest of the values."""
    values: bytes = b""
    """Of a sample of decisions, those values: float32, little-endian, nan where missing."""
    context: dict[str, Any] = {}
    """Of the same sample, what the request said of its surroundings: some values come from there."""
    policy: str = ""
    policy_version: int = 0
    explored: bool = False
    is_learned: bool = False
    """Whether it teaches the policy (drawn from probabilities, not a fallback or a holdout)."""
    sticky_until: float = 0.0
    request: str = ""
    """A digest of the request's parameters: a sticky answer is given to the same question only."""
    steps: list[Step] = []
    took_ms: float = 0.0
    timings_us: dict[str, int] = {}
