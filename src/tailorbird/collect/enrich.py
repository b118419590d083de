"""What the door adds to an event: when it came, and when it really happened.

Segment's four timestamps: the client's clock may be wrong, but the difference between when it sent and
when the event happened is not, so `timestamp = receivedAt - (sentAt - originalTimestamp)`. A time
that would lie in the future is a wrong clock or a forged one, and is set to the time of receipt.
"""

from tailorbird.clock import parse_time
from tailorbird.errors import Fault
from tailorbird.schema.events import Event


def event_time(event: Event, sent_at: float | str | None, received: float) -> float | Fault:
    """Return when the event happened, epoch seconds, at most `received`; a fault for what is no time.

    Args:
        event: The event; a `sentAt` of its own goes before its batch's.
        sent_at: When the batch was sent: as text, or in epoch seconds where that was read already.
        received: When it came in.

    >>> event = Event(type="page", message_id="m", timestamp="2024-01-01T00:00:00Z")
    >>> event_time(event, "2024-01-01T00:00:10Z", 2_000_000_000.0)
    1999999990.0
    """
    text = event.timestamp or event.original_timestamp
    if text is None:
        return received
    try:
        happened = parse_time(text)
    except (ValueError, OverflowError):
        return Fault("timestamp", _RULE, text)
    sent = event.sent_at or sent_at
    if sent is not None:
        try:
            happened += received - (parse_time(sent) if isinstance(sent, str) else sent)
        except (ValueError, OverflowError):
            return Fault("sentAt", _RULE, sent)
    return max(min(happened, received), 0.0)


_RULE = "an ISO 8601 time between 1970 and 2100"
