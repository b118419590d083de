"""Finding every record of a person in the log and in the log of refusals.

A record is a person's where the fold made it so:

    event       its known user is theirs; or it names no known user and was made on their device; or it
                identifies nobody and names one of their decisions
    decision    it was made for one of their profiles, or founded one
    outcome     it names one of their decisions
    consent     it names one of their identifiers
    revocation  it names one of their identifiers
    segment     it says that one of their profiles entered or left one
    refusal     its body mentions one of their identifiers, messages or decisions

On a device that several people use, what was done signed in is that user's, and what was done signed
out since the second one came is nobody's known; both stay. The scan therefore follows, in the order of
the log, who came to own the person's devices.

What others said that names the person (an `alias` from a user id of theirs) stays that other's event,
without the name. Other mentions of an identifier in others' events are counted, not changed: an id
such as "42" may mean anything there.

Most records are told apart by their bytes alone: one that holds no identifier of the person as it is
and no escaped character cannot be theirs.
"""

import re
from collections.abc import Container, Iterable
from typing import Any, Final

import msgspec

from tailorbird.live.decision_ids import decision_id
from tailorbird.live.profiles import FORGOTTEN, known
from tailorbird.live.revocations import Pair, pair_of
from tailorbird.privacy.person import Person, normalized, texts_in
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.events import Event, LoggedEvent, LoggedOutcome
from tailorbird.schema.profile import identifier_of
from tailorbird.schema.records import KINDS, ConsentChanged, LinkRevoked, OwnerForgotten, encode
from tailorbird.schema.segment import SegmentChanged
from tailorbird.stores.log import Entry, Record

_OWN: Final = ("events", "decisions", "outcomes", "consents", "revocations", "segment_changes")
_EVENT_KIND: Final = KINDS[LoggedEvent]

_event_decoder = msgspec.json.Decoder(Event)
_any_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


class Held(msgspec.Struct):
    """What a scan found, by offset in its log; every list is in the log's order."""

    events: list[int] = []
    decisions: list[int] = []
    outcomes: list[int] = []
    consents: list[int] = []
    revocations: list[int] = []
    segment_changes: list[int] = []
    markers: dict[str, list[int]] = {}
    """`OwnerForgotten` records, by device."""
    renamed: dict[int, Entry] = {}
    """Other people's events that name the person, as they are without it."""
    owned: dict[str, int] = {}
    """Devices that the person signed in on, each with the first such event."""
    shared: set[str] = set()
    """Identifiers of the person that other people's records carry, too."""
    refusals: list[int] = []
    mentions: int = 0
    """Records of others that hold one of the person's identifiers as a value, in fields of their own."""
    rows: int = 0
    """Rows of history that are theirs, or of one of these records."""
    scanned: int = 0
    decision_ids: set[str] = set()
    message_ids: set[str] = set()

    @property
    def records(self) -> list[int]:
        """Return the offsets of everything in the log that is the person's own."""
        return sorted(offset for name in _OWN for offset in getattr(self, name))

    def without(self, log: Container[int], rejects: Container[int]) -> "Held":
        """Return what was found less these records of the two logs."""
        own = {name: [o for o in getattr(self, name) if o not in log] for name in _OWN}
        renamed = {o: entry for o, entry in self.renamed.items() if o not in log}
        refusals = [o for o in self.refusals if o not in rejects]
        return msgspec.structs.replace(self, **own, renamed=renamed, refusals=refusals)


class Finder:
    """Finds one person's records among those that it is shown, oldest first."""

    def __init__(self, person: Person, secret: bytes, apart: frozenset[Pair] = frozenset()) -> None:
        """Look for `person`; `apart` are the links that the fold does not make: see `live.revocations`."""
        self._apart = apart
        self.held = Held()
        self._person = person
        self._secret = secret
        self._users = person.values("user_id")
        self._devices = person.values("anonymous_id")
        self._signed_out = person.values("device")
        self._emails = person.values("email")
        self._owners: dict[str, set[str]] = {device: set() for device in self._devices | self._signed_out}
        parts = [name.partition(":") for name in person.identifiers]
        values = {value for kind, _, value in parts if kind != "email"}
        self._needles = _needles(values)
        self._user_needles = _needles(self._users)
        self._email_needles = _needles(self._emails)
        self._profile_needles = _needles(person.profiles)
        self._mentioning = _mentioning(values, self._emails)
        self._handlers = {
            KINDS[LoggedEvent]: self._event,
            KINDS[LoggedDecision]: self._decision,
            KINDS[LoggedOutcome]: self._outcome,
            KINDS[ConsentChanged]: self._consent,
            KINDS[OwnerForgotten]: self._marker,
            KINDS[LinkRevoked]: self._revocation,
            KINDS[SegmentChanged]: self._segment_change,
        }

    def take(self, record: Record) -> None:
        """Look at one record of the log."""
        self.held.scanned += 1
        handler = self._handlers.get(record.kind)
        if handler is not None:
            handler(record)

    def take_refusal(self, record: Record) -> None:
        """Look at one record of the log of refusals; after the whole log was taken."""
        self.held.scanned += 1
        text = _refusal_decoder.decode(record.payload).body
        body = _parsed(text)
        if body is not None:
            is_theirs = any(self._is_theirs(value) for value in texts_in(body))
        elif self._mentioning is not None and self._mentioning.search(text):
            is_theirs = True
        else:
            # Not by a pattern of quoted text: what is refused may be half a megabyte of quotes.
            is_theirs = any(self._is_theirs(part) for part in set(text.split('"')))
        if is_theirs:
            self.held.refusals.append(record.offset)

    def _is_theirs(self, value: str) -> bool:
        return (
            value in self._users
            or value in self._devices
            or value in self._signed_out
            or value in self.held.message_ids
            or value in self.held.decision_ids
            or (bool(self._emails) and normalized("email", value) in self._emails)
        )

    # --- events -------------------------------------------------------------------------------------

    def _event(self, record: Record) -> None:
        if not self._may_concern(record.payload):
            return
        logged: LoggedEvent = _logged_event_decoder.decode(record.payload)
        event = _event_decoder.decode(logged.e)
        user, device = known(event.user_id), known(event.anonymous_id)
        joined = self._joined(event)
        if user in self._users:
            self._take_own(record, logged)
            if joined is not None:
                self.held.owned.setdefault(joined, record.offset)
                self._own(joined, str(user))
        elif user is None and self._is_signed_out_theirs(event, device):
            self._take_own(record, logged)
        else:
            if user is not None and joined is not None:
                self._own(joined, user)
            self._note_others(record, logged, event)

    def _take_own(self, record: Record, logged: LoggedEvent) -> None:
        self.held.events.append(record.offset)
        self.held.message_ids.add(logged.m)

    def _joined(self, event: Event) -> str | None:
        """Return the device that the fold links to the event's known user."""
        device, previous = known(event.anonymous_id), known(event.previous_id)
        user = known(event.user_id)
        if event.type == "alias" and previous is not None and user is not None:
            device = previous
        if device is None or user is None or not self._apart:
            return device
        pair = pair_of(identifier_of("anonymous_id", device), identifier_of("user_id", user))
        return None if pair in self._apart else device

    def _is_signed_out_theirs(self, event: Event, device: str | None) -> bool:
        """Return whether an event without a known user is the person's."""
        if device is None:
            named = event.properties or {}
            decision = named.get("decisionId") or named.get("decision_id")
            return isinstance(decision, str) and decision in self.held.decision_ids
        owners = self._owners.get(device, ())
        if len(owners) > 1 or FORGOTTEN in owners:
            return device in self._signed_out
        return device in self._devices

    def _own(self, device: str, user: str) -> None:
        if device in self._owners:
            self._owners[device].add(user)

    def _note_others(self, record: Record, logged: LoggedEvent, event: Event) -> None:
        """Note what another person's event carries of this one's."""
        previous = known(event.previous_id)
        for device in (known(event.anonymous_id), previous):
            if device in self._devices:
                self.held.shared.add(identifier_of("anonymous_id", device))
        email = (event.traits or {}).get("email")
        if isinstance(email, str) and (own := normalized("email", email)) in self._emails:
            self.held.shared.add(identifier_of("email", own))
        if previous in self._users:
            self.held.renamed[record.offset] = _without_previous(logged)
        elif self._has_email(record.payload) or any(
            b'"%b"' % needle in record.payload for needle in self._user_needles
        ):
            self.held.mentions += 1

    def _may_concern(self, payload: bytes) -> bool:
        return (
            any(needle in payload for needle in self._needles)
            or b"\\" in payload
            or (bool(self.held.decision_ids) and b"ecision" in payload)
            or self._has_email(payload)
        )

    def _has_email(self, payload: bytes) -> bool:
        if not self._email_needles:
            return False
        lowered = payload.lower()
        return any(needle in lowered for needle in self._email_needles)

    # --- the other records --------------------------------------------------------------------------

    def _decision(self, record: Record) -> None:
        payload = record.payload
        is_possible = b"\\" in payload or any(
            needle in payload for needle in (*self._profile_needles, *self._needles)
        )
        if not is_possible:
            return
        decision: LoggedDecision = _decision_decoder.decode(payload)
        is_theirs = decision.profile in self._person.profiles
        if is_theirs or decision.founded_on in self._person.identifiers:
            self.held.decisions.append(record.offset)
            self.held.decision_ids.add(decision_id(self._secret, record.offset))
        elif decision.anonymous_id in self._devices or decision.user_id in self._users:
            self.held.renamed[record.offset] = _without_ids(decision)

    def _outcome(self, record: Record) -> None:
        if not self.held.decision_ids:
            return
        outcome: LoggedOutcome = _outcome_decoder.decode(record.payload)
        if outcome.decision_id in self.held.decision_ids:
            self.held.outcomes.append(record.offset)
            self.held.message_ids.add(outcome.m)

    def _consent(self, record: Record) -> None:
        change: ConsentChanged = _consent_decoder.decode(record.payload)
        if change.identifier in self._person.identifiers:
            self.held.consents.append(record.offset)

    def _revocation(self, record: Record) -> None:
        revoked: LinkRevoked = _revocation_decoder.decode(record.payload)
        if not self._person.identifiers.isdisjoint(revoked.identifiers):
            self.held.revocations.append(record.offset)

    def _segment_change(self, record: Record) -> None:
        if any(needle in record.payload for needle in self._profile_needles):
            change: SegmentChanged = _segment_change_decoder.decode(record.payload)
            if change.profile in self._person.profiles:
                self.held.segment_changes.append(record.offset)

    def _marker(self, record: Record) -> None:
        marker: OwnerForgotten = _marker_decoder.decode(record.payload)
        self._own(marker.anonymous_id, FORGOTTEN)
        self.held.markers.setdefault(marker.anonymous_id, []).append(record.offset)


_logged_event_decoder = msgspec.json.Decoder(LoggedEvent)
_decision_decoder = msgspec.json.Decoder(LoggedDecision)
_outcome_decoder = msgspec.json.Decoder(LoggedOutcome)
_consent_decoder = msgspec.json.Decoder(ConsentChanged)
_revocation_decoder = msgspec.json.Decoder(LinkRevoked)
_segment_change_decoder = msgspec.json.Decoder(SegmentChanged)
_marker_decoder = msgspec.json.Decoder(OwnerForgotten)


class _Refusal(msgspec.Struct):
    body: str


_refusal_decoder = msgspec.json.Decoder(_Refusal)


def _needles(values: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(value.encode("utf-8", "surrogatepass") for value in values)


def _mentioning(values: set[str], emails: frozenset[str]) -> re.Pattern[str] | None:
    """Return what finds a value that no letter or digit continues, in text that is no JSON."""
    choices = [re.escape(value) for value in values]
    choices += [f"(?i:{re.escape(email)})" for email in emails]
    return re.compile(rf"(?<!\w)(?:{'|'.join(choices)})(?!\w)") if choices else None


def _parsed(body: str) -> Any:  # noqa: ANN401
    """Return a refusal's body as JSON, None where it is none."""
    try:
        return _any_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None


def _without_ids(decision: LoggedDecision) -> Entry:
    """Return a decision that says whose it is, and not by which ids they asked."""
    return Entry(*encode(msgspec.structs.replace(decision, anonymous_id=None, user_id=None)))


def _without_previous(logged: LoggedEvent) -> Entry:
    """Return an event that names nobody as who its user was before."""
    fields: dict[str, Any] = _any_decoder.decode(logged.e)
    fields.pop("previousId", None)
    if fields.get("type") == "alias" and known(fields.get("userId")) is not None:
        # The fold takes an alias for its user alone; without the name it must not join the device.
        fields.pop("anonymousId", None)
    renamed = LoggedEvent(logged.r, logged.t, logged.m, msgspec.Raw(_encoder.encode(fields)), logged.gpc)
    return Entry(_EVENT_KIND, _encoder.encode(renamed))
