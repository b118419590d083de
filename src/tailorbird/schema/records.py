"""The records of the log, one tagged union: the only registry of what the fold understands."""

from typing import Any

import msgspec

from tailorbird.schema.clusters import ClustersFound
from tailorbird.schema.computed import AttributesComputed
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.events import LoggedEvent, LoggedOutcome
from tailorbird.schema.feature import FeaturesPut
from tailorbird.schema.identity import IdentityRules
from tailorbird.schema.item import ItemDeleted, ItemPatched, ItemsPut
from tailorbird.schema.placement import Placement
from tailorbird.schema.segment import SegmentChanged, SegmentDeleted, SegmentPut


class PlacementPut(msgspec.Struct, frozen=True, tag_field="k", tag="placement_put"):
    """A placement declared or changed."""

    r: float
    placement: Placement


class PlacementDeleted(msgspec.Struct, frozen=True, tag_field="k", tag="placement_delete"):
    """A placement taken away."""

    r: float
    key: str


class ConsentChanged(msgspec.Struct, frozen=True, tag_field="k", tag="consent"):
    """What a person allows, by purpose, said through the API."""

    r: float
    identifier: str
    consent: dict[str, bool]


class Suppressed(msgspec.Struct, frozen=True, tag_field="k", tag="suppress"):
    """Identifiers, as keyed hashes, that the door refuses from now on (or again accepts)."""

    r: float
    hashes: tuple[str, ...]
    is_lifted: bool = False


class OwnerForgotten(msgspec.Struct, frozen=True, tag_field="k", tag="owner_forgotten"):
    """Stands where an erased person first signed in on a device that other people use, too.

    Without it the device would become one of theirs, with what was done on it signed out. A later one stands
    where they signed in and took over what was done before.
    """

    r: float
    anonymous_id: str
    """Empty where only the other identifier of the device is meant."""
    device_id: str = ""
    is_boundary: bool = False
    """Whether what is done signed out after it is told from what was done before."""


class LinkRevoked(msgspec.Struct, frozen=True, tag_field="k", tag="revoke_link"):
    """Two identifiers that are not the same person's, whatever events say (or may be again).

    It holds for the whole log, also for what was written before it: see `live.revocations`.
    """

    r: float
    identifiers: tuple[str, str]
    is_lifted: bool = False


class IdentityRulesPut(msgspec.Struct, frozen=True, tag_field="k", tag="identity_rules"):
    """The rules of identity for what comes after it."""

    r: float
    rules: IdentityRules


class LinkDeclared(msgspec.Struct, frozen=True, tag_field="k", tag="declare_link"):
    """Two identifiers (`type:value`) that somebody declares to be one person's.

    With less confidence than the rules ask for, or where it `needs_review`, it is a suggestion.
    """

    r: float
    t: float
    identifiers: tuple[str, str]
    source: str
    confidence: float = 1.0
    needs_review: bool = False


class SuggestionRejected(msgspec.Struct, frozen=True, tag_field="k", tag="reject_suggestion"):
    """Two identifiers that somebody looked at and says are two people's: not to be suggested again."""

    r: float
    identifiers: tuple[str, str]


LogRecord = (
    LoggedEvent
    | LoggedDecision
    | LoggedOutcome
    | ItemsPut
    | ItemPatched
    | ItemDeleted
    | PlacementPut
    | PlacementDeleted
    | ConsentChanged
    | Suppressed
    | OwnerForgotten
    | LinkRevoked
    | FeaturesPut
    | AttributesComputed
    | ClustersFound
    | SegmentPut
    | SegmentDeleted
    | SegmentChanged
    | IdentityRulesPut
    | LinkDeclared
    | SuggestionRejected
)

KINDS: dict[type, int] = {
    LoggedEvent: 1,
    LoggedDecision: 2,
    LoggedOutcome: 3,
    ItemsPut: 4,
    ItemPatched: 5,
    ItemDeleted: 6,
    PlacementPut: 7,
    PlacementDeleted: 8,
    ConsentChanged: 9,
    Suppressed: 10,
    OwnerForgotten: 11,
    LinkRevoked: 12,
    FeaturesPut: 30,
    AttributesComputed: 31,
    ClustersFound: 32,
    SegmentPut: 20,
    SegmentDeleted: 21,
    SegmentChanged: 22,
    IdentityRulesPut: 13,
    LinkDeclared: 14,
    SuggestionRejected: 15,
}
"""The number by which a frame of the log names its record. Numbers are never given out again."""

_encoder = msgspec.json.Encoder()
_decoders: dict[int, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(record) for record, kind in KINDS.items()
}


def encode(record: LogRecord) -> tuple[int, bytes]:
    """Return the kind and the payload of a record."""
    return KINDS[type(record)], _encoder.encode(record)


def decode(kind: int, payload: bytes) -> LogRecord:
    """Return the record of a payload.

    Raises:
        KeyError: The kind is not known: the log was written by a later version.
        msgspec.DecodeError: The payload is not such a record.
    """
    record: LogRecord = _decoders[kind].decode(payload)
    return record
