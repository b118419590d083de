"""Export: everything that is held on a person, as one JSON document.

Records are given as they are kept, each event with its own bytes. Of refusals, a body that holds more
than the person's own event (a whole batch, or what is no JSON) may be about others, too: then only
its rule and size are given.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from tailorbird.clock import format_time
from tailorbird.errors import Fault, InvalidInputError
from tailorbird.live.decision_ids import decision_id
from tailorbird.live.suggestions import Suggestion, suggestion_view
from tailorbird.privacy.erase import Erasure
from tailorbird.privacy.held import Held
from tailorbird.privacy.person import Person, values_named
from tailorbird.privacy.scan import Breather, in_thread
from tailorbird.schema.computed import AttributesComputed
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.events import LoggedEvent, LoggedOutcome
from tailorbird.schema.profile import Profile
from tailorbird.schema.records import (
    ConsentChanged,
    LinkDeclared,
    LinkRevoked,
    LogRecord,
    SuggestionRejected,
    decode,
)
from tailorbird.schema.segment import SegmentChanged
from tailorbird.stores.log import Log
from tailorbird.stores.state import StateStore


class Views(NamedTuple):
    """How people and decisions are described, as everywhere else."""

    profile: Callable[[Profile], dict[str, Any]]
    decision: Callable[[str, LoggedDecision], dict[str, Any]]


class Export(NamedTuple):
    """An export: the document as JSON, and how many records it holds."""

    document: bytes
    records_count: int


class Exporter:
    """Hands over what an installation holds on people."""

    def __init__(self, erasure: Erasure, views: Views) -> None:
        self._erasure = erasure
        self._views = views

    async def export(self, names: Iterable[str], bytes_max: int | None = None) -> Export:
        """Return all that is held on the person whom identifiers (`type:value`) name.

        Raises:
            ConflictError: As `person_of`.
            InvalidInputError: It is more than `bytes_max`.
            StorageError: The disk refused.
        """
        erasure = self._erasure
        person = erasure.person(names)
        held = await erasure.find(person)
        log, rejects = erasure.installation.log, erasure.installation.rejects
        records = await in_thread(lambda breather: _read(log, held, bytes_max, breather))
        refusals = await in_thread(lambda _: [_refusal(rejects, offset, person) for offset in held.refusals])
        store = erasure.installation.world.store
        suggested = await in_thread(lambda breather: _suggested(store, person, breather))
        document = {
            "subject": _subject(person),
            "exportedAt": format_time(erasure.installation.clock.now()),
            "counts": erasure.count(person, held),
            "profiles": self._profiles(person),
            "events": [_event(record) for _, record in records if isinstance(record, LoggedEvent)],
            "decisions": [
                self._views.decision(decision_id(erasure.secret, offset), record)
                for offset, record in records
                if isinstance(record, LoggedDecision)
            ],
            "outcomes": [_outcome(record) for _, record in records if isinstance(record, LoggedOutcome)],
            "consents": [_consent(record) for _, record in records if isinstance(record, ConsentChanged)],
            "segmentChanges": [
                _segment_change(record) for _, record in records if isinstance(record, SegmentChanged)
            ],
            "computedAttributes": [
                {**msgspec.to_builtins(record.values), "receivedAt": format_time(record.r)}
                for _, record in records
                if isinstance(record, AttributesComputed)
            ],
            "revokedLinks": [_link(record) for _, record in records if isinstance(record, LinkRevoked)],
            "declaredLinks": [
                _link(record)
                for _, record in records
                if isinstance(record, LinkDeclared | SuggestionRejected)
            ],
            "suggestedLinks": suggested,
            "refusals": [refusal for refusal in refusals if refusal is not None],
        }
        return Export(msgspec.json.encode(document), len(records) + len(held.refusals))

    def _profiles(self, person: Person) -> list[dict[str, Any]]:
        found = map(self._erasure.installation.world.profiles.get, sorted(person.profiles))
        return [self._views.profile(profile) for profile in found if profile is not None]


def _read(log: Log, held: Held, bytes_max: int | None, breather: Breather) -> list[tuple[int, LogRecord]]:
    """Return a person's records with their offsets, oldest first."""
    records = []
    size = 0
    for offset in held.records:
        record = log.get(offset)
        if record is not None:
            size += len(record.payload)
            if bytes_max is not None and size > bytes_max:
                rule = f"at most {bytes_max} bytes in one answer; `tailorbird profile export` has no bound"
                raise InvalidInputError(Fault("subject_identities", rule, f"more than {size} bytes"))
            records.append((offset, decode(record.kind, record.payload)))
        breather.breathe()
    return records


def _suggested(store: StateStore, person: Person, breather: Breather) -> list[dict[str, Any]]:
    """Return the links that are suggested for a person, as of the last checkpoint. Blocks."""
    found = []
    for key, payload in store.scan("suggestion"):
        pair: tuple[str, str] = msgspec.json.decode(key, type=tuple[str, str])
        if not person.identifiers.isdisjoint(pair):
            suggestion = msgspec.msgpack.decode(payload, type=Suggestion)
            found.append({"identifiers": pair, **suggestion_view(suggestion)})
        breather.breathe()
    return found


def _subject(person: Person) -> dict[str, Any]:
    parts = [name.partition(":") for name in sorted(person.identifiers)]
    return {
        "identifiers": [{"type": kind, "value": value} for kind, _, value in parts],
        "profileIds": sorted(person.profiles),
    }


def _event(logged: LoggedEvent) -> dict[str, Any]:
    return {
        "messageId": logged.m,
        "timestamp": format_time(logged.t),
        "receivedAt": format_time(logged.r),
        "globalPrivacyControl": logged.gpc,
        "event": logged.e,
    }


def _outcome(outcome: LoggedOutcome) -> dict[str, Any]:
    return {
        "messageId": outcome.m,
        "decisionId": outcome.decision_id,
        "goal": outcome.goal,
        "value": outcome.value,
        "timestamp": format_time(outcome.t),
        "receivedAt": format_time(outcome.r),
    }


def _consent(change: ConsentChanged) -> dict[str, Any]:
    return {
        "identifier": change.identifier,
        "consent": change.consent,
        "receivedAt": format_time(change.r),
    }


def _segment_change(change: SegmentChanged) -> dict[str, Any]:
    return {
        "segment": change.segment,
        "change": change.change,
        "profileId": change.profile,
        "at": format_time(change.t),
        "messageId": change.message_id or None,
        "receivedAt": format_time(change.r),
    }


def _link(record: LinkRevoked | LinkDeclared | SuggestionRejected) -> dict[str, Any]:
    fields = msgspec.to_builtins(record)
    fields.pop("k")
    return {**fields, "r": format_time(record.r)} | ({"t": format_time(fields["t"])} if "t" in fields else {})


class _Refusal(msgspec.Struct):
    r: float
    door: str
    path: str
    rule: str
    body: str


def _refusal(rejects: Log, offset: int, person: Person) -> dict[str, Any] | None:
    """Return a refused event; its body only where it is one event that names the person."""
    record = rejects.get(offset)
    if record is None:
        return None
    refusal = msgspec.json.decode(record.payload, type=_Refusal)
    shown: dict[str, Any] = {
        "receivedAt": format_time(refusal.r),
        "door": refusal.door,
        "path": refusal.path,
        "rule": refusal.rule,
        "bytes": len(refusal.body.encode("utf-8", "surrogatepass")),
    }
    own = {name.partition(":")[2] for name in person.identifiers}
    named = values_named(refusal.body)
    if named and all(value in own or value.strip().lower() in own for value in named):
        shown["body"] = refusal.body
    return shown
