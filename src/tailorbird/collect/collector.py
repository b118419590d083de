"""The event door without its HTTP: from a request's bytes to events for the log and refusals with reasons."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from tailorbird.clock import Clock, parse_time
from tailorbird.collect.enrich import event_time
from tailorbird.collect.validate import (
    Shared,
    Valid,
    check_shape,
    may_hold_large_numbers,
    parse_fault,
    validate,
)
from tailorbird.errors import Fault, InvalidInputError, shorten
from tailorbird.limits import BATCH_BYTES_MAX, BATCH_EVENTS_MAX, BATCH_MERGED_BYTES_MAX, CONTEXT_BYTES_MAX
from tailorbird.schema.events import Event, LoggedEvent

PATH_TYPES = {
    "track": "track", "t": "track",
    "identify": "identify", "i": "identify",
    "page": "page", "p": "page",
    "screen": "screen", "s": "screen",
    "group": "group", "g": "group",
    "alias": "alias", "a": "alias",
}  # fmt: skip
"""The last part of an event path to its call: Segment's long names and its clients' short ones."""

_REJECT_BYTES_MAX = BATCH_BYTES_MAX  # What is refused is kept whole up to the size of a batch.


class Batch(msgspec.Struct, rename="camel"):
    """The body of a batch call."""

    batch: list[msgspec.Raw]
    context: dict[str, Any] | None = None
    integrations: dict[str, Any] | None = None
    sent_at: str | None = None


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """An event that is to be logged."""

    logged: LoggedEvent
    event: Event


class Reject(msgspec.Struct, frozen=True):
    """A refused event as it is kept: when, where it came in, which rule it broke, and what it was."""

    r: float
    door: str
    path: str
    rule: str
    value: str
    body: str


class Collected(NamedTuple):
    """What a request brought. `faults` are (index in the batch, fault)."""

    accepted: list[Accepted]
    faults: list[tuple[int, Fault]]

    @property
    def rejected(self) -> int:
        """Return how many events were refused: one a fault, but all of a batch that has too many."""
        return sum(f.value if f.path == "batch" and isinstance(f.value, int) else 1 for _, f in self.faults)


class Collector:
    """Takes requests apart. `is_refused` says of an event whether its person was erased."""

    def __init__(
        self,
        clock: Clock,
        keep_reject: Callable[[Reject], None],
        is_refused: Callable[[Event], bool],
    ) -> None:
        self._clock = clock
        self._keep_reject = keep_reject
        self._is_refused = is_refused
        self.rejected: dict[str, int] = {}
        """Refusals by rule."""

    def single(self, door: str, body: bytes, *, gpc: bool) -> Collected:
        """Take in one event, whose type the door's path may say."""
        collected = Collected([], [])
        shared = Shared(type=PATH_TYPES.get(door.rsplit("/", 1)[-1]))
        self._take(body, (door, 0), shared, (None, gpc), collected)
        return collected

    def batch(self, door: str, body: bytes, *, gpc: bool) -> Collected:
        """Take in a batch; events that are refused do not harm the others.

        Raises:
            InvalidInputError: It is too large or is no batch; it is kept as refused, whole.
        """
        collected = Collected([], [])
        if len(body) > BATCH_BYTES_MAX:
            fault = Fault("body", f"at most {BATCH_BYTES_MAX} bytes", f"{len(body)} bytes")
            self._refuse(body, door, fault)
            raise InvalidInputError(fault)
        try:
            batch = _batch_decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            fault = parse_fault(error)
            self._refuse(body, door, fault)
            raise InvalidInputError(fault) from error
        misshapen = _check_shared(batch)
        if misshapen is not None:
            self._refuse(body, door, misshapen)
            raise InvalidInputError(misshapen)
        if len(batch.batch) > BATCH_EVENTS_MAX:
            fault = Fault("batch", f"at most {BATCH_EVENTS_MAX} events", len(batch.batch))
            self._refuse(body, door, fault)
            collected.faults.append((0, fault))
            return collected
        merged = len(batch.batch) * len(msgspec.json.encode(batch.context)) if batch.context else 0
        if merged > BATCH_MERGED_BYTES_MAX:
            rule = f"with its context in each event at most {BATCH_MERGED_BYTES_MAX} bytes"
            fault = Fault("context", rule, f"{merged} bytes")
            self._refuse(body, door, fault)
            raise InvalidInputError(fault)
        shared = Shared(None, batch.context, batch.integrations, may_hold_large_numbers(body))
        sent = (_seconds(batch.sent_at), gpc)
        for index, raw in enumerate(batch.batch):
            self._take(bytes(raw), (door, index), shared, sent, collected)
        return collected

    def again(self, reject: Reject) -> Collected:
        """Take in a refused event once more, after a fix; it is not kept as refused a second time."""
        collected = Collected([], [])
        body = reject.body.encode()
        keep, self._keep_reject = self._keep_reject, _forget
        try:
            if _is_batch(reject.door, body):
                return self.batch(reject.door, body, gpc=False)
            shared = Shared(type=PATH_TYPES.get(reject.door.rsplit("/", 1)[-1]))
            self._take(body, (reject.door, 0), shared, (None, False), collected)
        finally:
            self._keep_reject = keep
        return collected

    def _take(
        self,
        raw: bytes,
        origin: tuple[str, int],
        shared: Shared,
        sent: tuple[float | str | None, bool],
        into: Collected,
    ) -> None:
        sent_at, gpc = sent
        result = validate(raw, shared)
        received = self._clock.now()
        if isinstance(result, Valid):
            event = result.event
            happened = event_time(event, sent_at, received)
            if isinstance(happened, float):
                if self._is_refused(event):
                    self._forget(origin, into)
                else:
                    logged = LoggedEvent(received, happened, event.message_id, msgspec.Raw(result.raw), gpc)
                    into.accepted.append(Accepted(logged, event))
                return
            result = happened
        door, index = origin
        self._refuse(raw, door, result)
        into.faults.append((index, result))

    def _forget(self, origin: tuple[str, int], into: Collected) -> None:
        """Refuse an event of an erased person: nothing of them is kept, not even as refused."""
        fault = Fault("userId", "suppressed: events that name this person are refused until that is lifted")
        self._count(fault)
        into.faults.append((origin[1], fault))

    def _refuse(self, raw: bytes, door: str, fault: Fault) -> None:
        self._count(fault)
        body = raw[:_REJECT_BYTES_MAX].decode("utf-8", "replace")
        kept = Reject(self._clock.now(), door, fault.path, fault.rule, shorten(fault.value), body)
        self._keep_reject(kept)

    def _count(self, fault: Fault) -> None:
        rule = f"{fault.path.partition('.')[0].partition('[')[0]}: {fault.rule[:80]}"
        if rule in self.rejected or len(self.rejected) < _RULES_COUNTED_MAX:
            self.rejected[rule] = self.rejected.get(rule, 0) + 1


_RULES_COUNTED_MAX = 200  # Distinct rules in the metrics; a parser's messages vary without end.
_batch_decoder = msgspec.json.Decoder(Batch)


def _seconds(sent_at: str | None) -> float | str | None:
    """Return when a batch was sent, read once for all its events; the text where it is no time."""
    if sent_at is None:
        return None
    try:
        return parse_time(sent_at)
    except (ValueError, OverflowError):
        return sent_at


def _check_shared(batch: Batch) -> Fault | None:
    """Return the fault of what a batch says of each of its events, which becomes a part of each."""
    shared = {"context": batch.context, "integrations": batch.integrations}
    if batch.context is None and batch.integrations is None:
        return None
    try:
        raw = msgspec.json.encode(shared)
    except RecursionError as error:
        return parse_fault(error)
    if len(raw) > CONTEXT_BYTES_MAX:
        return Fault("context", f"at most {CONTEXT_BYTES_MAX} bytes", f"{len(raw)} bytes")
    return check_shape(raw, "body")


def _is_batch(door: str, body: bytes) -> bool:
    """Return whether a refused body is a batch, not one event of a batch."""
    if door.rsplit("/", 1)[-1] in PATH_TYPES:
        return False
    try:
        _batch_decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def _forget(_reject: Reject) -> None:
    """Keep nothing."""
