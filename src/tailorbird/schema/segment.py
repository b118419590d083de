"""Rule segments: groups of people that a rule describes, and the records of who came and who went.

Written as JSON through `PUT /admin/v1/segments/{key}` or as TOML in `segments/*.toml`; the same types.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tailorbird.limits import RECENT_EVENTS_MAX, SEQUENCE_STEPS_MAX
from tailorbird.schema.placement import Expression, Identity, Key, Seconds

Within = Annotated[float, Meta(gt=0.0, le=366 * 86400.0)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Configuration is strict: a misspelt field is an error that names it."""


class SequenceStep(_Record, frozen=True):
    """One step of a sequence: an event that was seen so many times, about an item or a category."""

    event: Annotated[str, Meta(min_length=1, max_length=500)]
    times: Annotated[int, Meta(ge=1, le=RECENT_EVENTS_MAX)] = 1
    item: Identity | None = None
    """Only events that name this item first."""
    category: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """Only events that are about this category first."""


class EventSequence(_Record, frozen=True):
    """Events that happened in this order, others between them or not."""

    steps: Annotated[tuple[SequenceStep, ...], Meta(min_length=1, max_length=SEQUENCE_STEPS_MAX)]
    within_seconds: Within
    """From the first of the events to the last."""
    lasts_seconds: Seconds | None = None
    """How long after the last of them it holds; without it, as long as the recent events show it."""


class RuleSegment(_Record, frozen=True):
    """A segment: who satisfies the rule and has gone through the sequence, of those that it has."""

    key: Key
    description: Annotated[str, Meta(max_length=1000)] = ""
    rule: Expression | None = None
    """CEL over `profile` and `now`."""
    sequence: EventSequence | None = None
    enabled: bool = True
    """Nobody is in a segment that is not enabled."""


class SegmentPut(msgspec.Struct, frozen=True, tag_field="k", tag="segment_put"):
    """A segment declared or changed."""

    r: float
    segment: RuleSegment


class SegmentDeleted(msgspec.Struct, frozen=True, tag_field="k", tag="segment_delete"):
    """A segment taken away, and with it everybody's membership."""

    r: float
    key: str


class SegmentChanged(msgspec.Struct, frozen=True, tag_field="k", tag="segment_changed", gc=False):
    """A person entered or left a segment, at `t`, epoch seconds.

    With a `cause`, the offset of another record, the fold derived the change from that one, and this one
    announces it. Without, nothing happened but that time passed or a segment was declared: then the fold
    of this record evaluates the person.
    """

    r: float
    t: float
    profile: str
    segment: str
    change: Literal["entered", "left"]
    message_id: str = ""
    """Of the event that was the reason, if one was."""
    cause: int | None = None
