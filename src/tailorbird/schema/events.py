"""Events as they come through the door: Segment's six calls, their fields as on the wire.

Only fields that Tailorbird reads are typed here. The record in the log keeps the event's own bytes,
so unknown fields are kept, never dropped.
"""

from typing import Any

import msgspec


class ConsentContext(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """`context.consent`, as Segment's consent wrappers send it."""

    category_preferences: dict[str, bool] = {}


class PageContext(msgspec.Struct, frozen=True, gc=False):
    """`context.page`."""

    url: str | None = None
    path: str | None = None
    referrer: str | None = None
    title: str | None = None


class DeviceContext(msgspec.Struct, frozen=True, gc=False):
    """`context.device`."""

    id: str | None = None
    type: str | None = None


class EventContext(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The parts of `context` that the fold reads."""

    consent: ConsentContext | None = None
    page: PageContext | None = None
    device: DeviceContext | None = None
    campaign: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None
    locale: str | None = None
    user_agent: str | None = None
    timezone: Any = None
    os: Any = None
    screen: Any = None
    app: Any = None
    network: Any = None
    external_ids: Any = None
    """A list of `{id, type, collection, encoding}`; read by `live.identifiers`, which passes over what is
    none."""
    fingerprint: Any = None
    """A text that may recognize a device: a hint, read only with consent."""


class Event(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """One call of the Segment protocol."""

    type: str
    message_id: str
    anonymous_id: str | None = None
    user_id: str | None = None
    previous_id: str | None = None
    group_id: str | None = None
    event: str | None = None
    name: str | None = None
    category: str | None = None
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None
    context: EventContext | None = None
    timestamp: str | None = None
    original_timestamp: str | None = None
    sent_at: str | None = None


TYPES = ("track", "page", "screen", "identify", "group", "alias")


class LoggedEvent(msgspec.Struct, frozen=True, tag_field="k", tag="event", gc=False):
    """An accepted event in the log: when it came, when it happened, and its own bytes.

    `t` is the corrected time of the event (Segment's four timestamps), `r` the time of receipt, both
    epoch seconds; `gpc` says whether the request carried `Sec-GPC: 1`.
    """

    r: float
    t: float
    m: str
    e: msgspec.Raw
    gpc: bool = False


class LoggedOutcome(msgspec.Struct, frozen=True, tag_field="k", tag="outcome", gc=False):
    """An outcome reported by a back end that knows the decision."""

    r: float
    t: float
    m: str
    decision_id: str
    goal: str
    value: float | None = None


def name_of(event: Event) -> str:
    """Return the name that counters, goals and rules know the event by.

    >>> name_of(Event(type="page", message_id="m"))
    'Page Viewed'
    """
    if event.type == "track":
        return event.event or ""
    return _NAMES[event.type]


_NAMES = {
    "page": "Page Viewed",
    "screen": "Screen Viewed",
    "identify": "Identified",
    "group": "Group Joined",
    "alias": "Aliased",
}
