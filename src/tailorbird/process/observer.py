"""What the fold tells of whom each record was folded into, and the rows of history that come of it.

The fold knows the person of a record at the one moment in which it folds it; afterwards only another fold
could tell. So it tells an observer as it goes. `Chronicle` keeps what it is told as rows of the warehouse
until somebody takes them to be written; `UNOBSERVED` is for folds whose history nobody keeps.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.events import Event, LoggedEvent
from tailorbird.schema.records import LogRecord, encode
from tailorbird.stores.warehouse import (
    ConsentRow,
    DecisionRow,
    DeclarationRow,
    EventRow,
    ExposureRow,
    LinkRow,
    MergeRow,
    OutcomeRow,
    Rows,
)

_ROW_BYTES = 700  # Of a row beside its payload: the struct, its numbers and short texts.
_encoder = msgspec.json.Encoder()


class Observer(Protocol):
    """Told of each record, and then of what the fold makes of it. Profiles are named by id."""

    def begin(self, offset: int, received: float) -> None:
        """Note the record that is folded next, and when it was received; epoch seconds."""

    def declared(self, record: LogRecord) -> None:
        """Note a record about the catalogue or placements."""

    def linked(self, identifier: str, profile: str) -> None:
        """Note that an identifier (`type:value`) names a profile from now on."""

    def merged(self, older: str, newer: str, absorbed: Iterable[str]) -> None:
        """Note that `newer` went into `older`, with the profiles that had gone into it before."""

    def consented(self, record: LogRecord, profile: str) -> None:
        """Note a change of consent."""

    def event(self, logged: LoggedEvent, event: Event, name: str, profile: str | None) -> None:
        """Note an event that counts under `name`."""

    def decision(self, key: str, decision: LoggedDecision, profile: str | None) -> None:
        """Note a decision with the id `key`."""

    def exposed(self, key: str, placement: str, profile: str | None, t: float) -> None:
        """Note that a decision was shown, when that is first heard."""

    def rewarded(self, key: str, placement: str, profile: str | None, outcome: tuple[float, float]) -> None:
        """Note that a decision's goal was reached, when that is first heard: (time, value)."""


class Unobserved:
    """Nobody listens."""

    def begin(self, offset: int, received: float) -> None:
        """Let it pass, as all that follows."""

    def declared(self, record: LogRecord) -> None:
        """Let it pass."""

    def linked(self, identifier: str, profile: str) -> None:
        """Let it pass."""

    def merged(self, older: str, newer: str, absorbed: Iterable[str]) -> None:
        """Let it pass."""

    def consented(self, record: LogRecord, profile: str) -> None:
        """Let it pass."""

    def event(self, logged: LoggedEvent, event: Event, name: str, profile: str | None) -> None:
        """Let it pass."""

    def decision(self, key: str, decision: LoggedDecision, profile: str | None) -> None:
        """Let it pass."""

    def exposed(self, key: str, placement: str, profile: str | None, t: float) -> None:
        """Let it pass."""

    def rewarded(self, key: str, placement: str, profile: str | None, outcome: tuple[float, float]) -> None:
        """Let it pass."""


UNOBSERVED = Unobserved()


class Chronicle:
    """Keeps what it is told as rows, until they are taken.

    `newest` is the largest receipt time so far (epoch seconds): of every record, with or without rows.
    `bytes` is about what the rows take in memory.
    """

    def __init__(self, newest: float = 0.0) -> None:
        self.newest = newest
        self._begin()
        self._offset = -1
        self._received = 0.0

    def _begin(self) -> None:
        self.bytes = 0
        self._declarations: list[DeclarationRow] = []
        self._links: list[LinkRow] = []
        self._merges: list[MergeRow] = []
        self._consents: list[ConsentRow] = []
        self._events: list[EventRow] = []
        self._decisions: list[DecisionRow] = []
        self._exposures: list[ExposureRow] = []
        self._outcomes: list[OutcomeRow] = []

    def take(self) -> Rows:
        """Return the rows so far, and begin anew."""
        rows: Rows = {
            "declarations": self._declarations,
            "links": self._links,
            "merges": self._merges,
            "consents": self._consents,
            "events": self._events,
            "decisions": self._decisions,
            "exposures": self._exposures,
            "outcomes": self._outcomes,
        }
        self._begin()
        return rows

    def begin(self, offset: int, received: float) -> None:
        """Note which record comes next."""
        self._offset = offset
        self._received = received
        if received > self.newest:  # noqa: PLR1730 (a call takes three times as long)
            self.newest = received

    def declared(self, record: LogRecord) -> None:
        """Keep a record about the catalogue or placements."""
        kind, payload = encode(record)
        self._declarations.append(DeclarationRow(*self._place, kind, payload))
        self.bytes += _ROW_BYTES + len(payload)

    def linked(self, identifier: str, profile: str) -> None:
        """Keep whom an identifier names."""
        self._links.append(LinkRow(*self._place, identifier, profile))
        self.bytes += _ROW_BYTES

    def merged(self, older: str, newer: str, absorbed: Iterable[str]) -> None:
        """Keep who became part of whom."""
        self._merges.append(MergeRow(*self._place, older, newer, True))  # noqa: FBT003 (a row's column)
        self._merges += [MergeRow(*self._place, older, each, False) for each in absorbed]  # noqa: FBT003
        self.bytes += _ROW_BYTES

    def consented(self, record: LogRecord, profile: str) -> None:
        """Keep a change of consent."""
        _, payload = encode(record)
        self._consents.append(ConsentRow(*self._place, profile, payload))
        self.bytes += _ROW_BYTES + len(payload)

    def event(self, logged: LoggedEvent, event: Event, name: str, profile: str | None) -> None:
        """Keep an event."""
        # Its own bytes, not a view that would keep the whole body of the request.
        payload = bytes(logged.e)
        self._events.append(
            EventRow(
                self._offset,
                self._received,
                self.newest,
                logged.t,
                profile,
                logged.m,
                event.anonymous_id,
                event.user_id,
                event.type,
                name,
                payload,
                logged.gpc,
            )
        )
        self.bytes += _ROW_BYTES + len(payload)

    def decision(self, key: str, decision: LoggedDecision, profile: str | None) -> None:
        """Keep a decision."""
        payload = _encoder.encode(decision)
        self._decisions.append(
            DecisionRow(
                self._offset,
                self._received,
                self.newest,
                decision.t,
                profile,
                key,
                decision.placement,
                decision.choices,
                decision.arms,
                decision.probabilities,
                decision.arm,
                decision.holdout,
                decision.policy,
                decision.policy_version,
                decision.rung,
                decision.reason,
                payload,
            )
        )
        self.bytes += _ROW_BYTES + 2 * len(payload)

    def exposed(self, key: str, placement: str, profile: str | None, t: float) -> None:
        """Keep that a decision was shown."""
        self._exposures.append(ExposureRow(*self._place, t, profile, key, placement))
        self.bytes += _ROW_BYTES

    def rewarded(self, key: str, placement: str, profile: str | None, outcome: tuple[float, float]) -> None:
        """Keep that a decision's goal was reached."""
        t, value = outcome
        self._outcomes.append(OutcomeRow(*self._place, t, profile, key, placement, value))
        self.bytes += _ROW_BYTES

    @property
    def _place(self) -> tuple[int, float, float]:
        return self._offset, self._received, self.newest
