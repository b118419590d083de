"""Finding every record of a person in the log and in the log of refusals.

A record is a person's where the fold made it so:

    event       its known user is theirs; or it names no known user, and the first of what it names (in the
                order of the identity rules) is theirs; or it names nobody, and one of their decisions
    decision    it was made for one of their profiles, or founded one
    outcome     it names one of their decisions
    consent     it names one of their identifiers
    revocation  it names one of their identifiers; likewise declared links, and suggested ones refused
    segment     it says that one of their profiles entered or left one
    computed    it says what one of their profiles was computed to be
    refusal     its body mentions one of their identifiers, messages or decisions

On a device that several people use, what was done signed in is that user's, and what was done signed out
since the second one came is nobody's known, until somebody signs in and takes it over. The scan therefore
follows, in the order of the log, who came to own the person's devices, and which stretch of signed-out use a
record belongs to. (Where identifiers have a time-to-live, what one named before it ended goes with what it
names now.)

What others said that names the person (an `alias` from a user id of theirs) stays that other's event,
without the name. Other mentions of an identifier in others' events are counted, not changed: an id
such as "42" may mean anything there.

Most records are told apart by their bytes alone: one that holds no identifier of the person as it is
and no escaped character cannot be theirs.
"""

import re
from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from tailorbird.live.decision_ids import decision_id
from tailorbird.live.identifiers import Rules, email_of, is_blocked, is_segment_type, kind_of, names_in
from tailorbird.live.profiles import FORGOTTEN, segment_identifier
from tailorbird.live.revocations import Pair, not_apart
from tailorbird.privacy.person import Person, normalized, texts_in
from tailorbird.schema.computed import AttributesComputed
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.events import Event, LoggedEvent, LoggedOutcome
from tailorbird.schema.identity import IdentityRules
from tailorbird.schema.profile import identifier_of
from tailorbird.schema.records import (
    KINDS,
    ConsentChanged,
    IdentityRulesPut,
    LinkDeclared,
    LinkRevoked,
    OwnerForgotten,
    SuggestionRejected,
    encode,
)
from tailorbird.schema.segment import SegmentChanged
from tailorbird.stores.log import Entry, Record

_OWN: Final = (
    "events",
    "decisions",
    "outcomes",
    "consents",
    "revocations",
    "declared",
    "segment_changes",
    "computed",
)
_DEVICES: Final = ("anonymous_id", "device_id")
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
    computed: list[int] = []
    declared: list[int] = []
    """Declared links, and suggested ones that were refused."""
    markers: dict[int, OwnerForgotten] = {}
    """The `OwnerForgotten` records of their devices."""
    renamed: dict[int, Entry] = {}
    """Other people's events that name the person, as they are without it."""
    owned: dict[str, int] = {}
    """Devices (`anonymous_id:…`, `device_id:…`) that they used, each with the first such event."""
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

    def __init__(
        self,
        person: Person,
        secret: bytes,
        apart: frozenset[Pair] = frozenset(),
        boundaries: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """Look for `person`.

        Args:
            person: Who is looked for.
            secret: The installation's.
            apart: The links that the fold does not make: see `live.revocations`.
            boundaries: Of the person's devices, by anonymous id, where one stretch of signed-out use ends and
                the next begins: see `process.identity`.
        """
        self._apart = apart
        self._boundaries = boundaries or {}
        self._rules = Rules(IdentityRules())
        self.held = Held()
        self._person = person
        self._secret = secret
        self._users = person.values("user_id")
        self._devices = person.values("anonymous_id")
        self._emails = person.values("email")
        parts = [name.partition(":") for name in person.identifiers]
        self._owners: dict[str, set[str]] = {}
        for kind, _, value in parts:
            if kind in _DEVICES:
                self._owners[identifier_of(kind, value)] = set()
            elif is_segment_type(kind):
                self._owners[identifier_of("anonymous_id", value)] = set()
        self._values = {value for kind, _, value in parts if kind != "email"}
        self._needles = _needles(self._values)
        self._user_needles = _needles(self._users)
        self._email_needles = _needles(self._emails)
        self._profile_needles = _needles(person.profiles)
        self._mentioning = _mentioning(self._values, self._emails)
        self._handlers = {
            KINDS[LoggedEvent]: self._event,
            KINDS[LoggedDecision]: self._decision,
            KINDS[LoggedOutcome]: self._outcome,
            KINDS[ConsentChanged]: self._consent,
            KINDS[OwnerForgotten]: self._marker,
            KINDS[LinkRevoked]: self._revocation,
            KINDS[SegmentChanged]: self._segment_change,
            KINDS[AttributesComputed]: self._computed,
            KINDS[IdentityRulesPut]: self._identity_rules,
            KINDS[LinkDeclared]: self._declared,
            KINDS[SuggestionRejected]: self._declared,
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
            value in self._values
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
        names = not_apart(self._names(event), self._apart)
        user = names[0] if names and kind_of(names[0]) == "user_id" else None
        devices = [name for name in names if kind_of(name) in _DEVICES]
        if user in self._person.identifiers:
            self._take_own(record, logged, devices)
        elif user is None and self._is_signed_out_theirs(event, names, record.offset):
            self._take_own(record, logged, self._person.identifiers.intersection(devices))
        else:
            self._note_others(record, logged, event)
        for name in devices if user is not None else ():
            self._own(name, str(user))

    def _take_own(self, record: Record, logged: LoggedEvent, devices: Iterable[str]) -> None:
        self.held.events.append(record.offset)
        self.held.message_ids.add(logged.m)
        for name in devices:
            self.held.owned.setdefault(name, record.offset)

    def _names(self, event: Event) -> list[str]:
        """Return the identifiers by which the fold resolves an event."""
        if event.type == "alias":
            user, previous = self._known("user_id", event.user_id), self._known("user_id", event.previous_id)
            if user is not None and previous is not None:
                return [identifier_of("user_id", user), identifier_of("anonymous_id", previous)]
        return names_in(event, self._rules)

    def _known(self, kind: str, value: str | None) -> str | None:
        return self._rules.known(kind, value)

    def _is_signed_out_theirs(self, event: Event, names: list[str], offset: int) -> bool:
        """Return whether an event without a known user is the person's."""
        if not names:
            named = event.properties or {}
            decision = named.get("decisionId") or named.get("decision_id")
            return isinstance(decision, str) and decision in self.held.decision_ids
        for name in names:
            if not self._is_shared(name):
                return name in self._person.identifiers
            if kind_of(name) == "anonymous_id":
                value = name.partition(":")[2]
                boundaries = self._boundaries.get(value, ())
                before = boundaries[: bisect_left(boundaries, offset)]
                return segment_identifier(value, before) in self._person.identifiers
        return False

    def _is_shared(self, name: str) -> bool:
        """Return whether a device is used by several people by now; the person's by somebody else."""
        owners = self._owners.get(name)
        if not owners:
            return False
        if len(owners) > 1 or FORGOTTEN in owners:
            return True
        return name in self._person.identifiers and owners.isdisjoint(self._person.identifiers)

    def _own(self, name: str, user: str) -> None:
        if name in self._owners:
            self._owners[name].add(user)

    def _note_others(self, record: Record, logged: LoggedEvent, event: Event) -> None:
        """Note what another person's event carries of this one's."""
        previous = self._known("user_id", event.previous_id)
        carried = [*names_in(event, self._rules)]
        if previous is not None:
            carried.append(identifier_of("anonymous_id", previous))
        email = email_of((event.traits or {}).get("email"))
        if email is not None:
            carried.append(identifier_of("email", email))
        self.held.shared |= self._person.identifiers.intersection(carried)
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

    def _computed(self, record: Record) -> None:
        if any(needle in record.payload for needle in self._profile_needles):
            computed: AttributesComputed = _computed_decoder.decode(record.payload)
            if computed.profile in self._person.profiles:
                self.held.computed.append(record.offset)

    def _segment_change(self, record: Record) -> None:
        if any(needle in record.payload for needle in self._profile_needles):
            change: SegmentChanged = _segment_change_decoder.decode(record.payload)
            if change.profile in self._person.profiles:
                self.held.segment_changes.append(record.offset)

    def _declared(self, record: Record) -> None:
        declared: _Pair = _pair_decoder.decode(record.payload)
        if not self._person.identifiers.isdisjoint(declared.identifiers):
            self.held.declared.append(record.offset)

    def _identity_rules(self, record: Record) -> None:
        put: IdentityRulesPut = _identity_rules_decoder.decode(record.payload)
        self._rules = Rules(put.rules)

    def _marker(self, record: Record) -> None:
        marker: OwnerForgotten = _marker_decoder.decode(record.payload)
        names = devices_of(marker)
        if not self._person.identifiers.isdisjoint(names) or any(name in self._owners for name in names):
            self.held.markers[record.offset] = marker
        for name in names:
            self._own(name, FORGOTTEN)


def devices_of(marker: OwnerForgotten) -> list[str]:
    """Return the identifiers of the device that a marker stands for."""
    pairs = (("anonymous_id", marker.anonymous_id), ("device_id", marker.device_id))
    return [identifier_of(kind, value) for kind, value in pairs if value]


class _Pair(msgspec.Struct):
    """What a declared link and a refused suggestion have in common."""

    identifiers: tuple[str, str]


_pair_decoder = msgspec.json.Decoder(_Pair)
_identity_rules_decoder = msgspec.json.Decoder(IdentityRulesPut)
_logged_event_decoder = msgspec.json.Decoder(LoggedEvent)
_decision_decoder = msgspec.json.Decoder(LoggedDecision)
_outcome_decoder = msgspec.json.Decoder(LoggedOutcome)
_consent_decoder = msgspec.json.Decoder(ConsentChanged)
_revocation_decoder = msgspec.json.Decoder(LinkRevoked)
_computed_decoder = msgspec.json.Decoder(AttributesComputed)
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
    if fields.get("type") == "alias" and not is_blocked(fields.get("userId") or ""):
        # The fold takes an alias for its user alone; without the name it must not join the device.
        fields.pop("anonymousId", None)
    renamed = LoggedEvent(logged.r, logged.t, logged.m, msgspec.Raw(_encoder.encode(fields)), logged.gpc)
    return Entry(_EVENT_KIND, _encoder.encode(renamed))
