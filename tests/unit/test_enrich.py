"""When an event happened: Segment's four timestamps."""

import pytest

from tailorbird.clock import parse_time
from tailorbird.collect.enrich import event_time
from tailorbird.errors import Fault
from tailorbird.schema.events import Event

RECEIVED = parse_time("2024-01-10T12:00:00Z")


def happened(batch_sent_at: str | None = None, **fields) -> float | Fault:
    return event_time(Event(type="track", message_id="m", **fields), batch_sent_at, RECEIVED)


def test_without_a_time_it_is_that_of_receipt():
    assert happened() == RECEIVED
    assert happened("2024-01-09T12:00:00Z") == RECEIVED


def test_a_time_without_sent_at_is_believed():
    assert happened(timestamp="2024-01-09T12:00:00Z") == RECEIVED - 86_400.0
    assert happened(original_timestamp="2024-01-09T12:00:00+02:00") == RECEIVED - 86_400.0 - 7200.0


def test_a_wrong_clock_is_corrected_by_when_it_was_sent():
    fast = {"timestamp": "2030-01-01T00:00:00Z"}
    assert happened("2030-01-01T00:05:00Z", **fast) == RECEIVED - 300.0
    slow = {"timestamp": "1999-01-01T00:00:00Z"}
    assert happened("1999-01-01T00:00:30Z", **slow) == RECEIVED - 30.0


def test_the_events_own_sent_at_comes_before_the_batchs():
    own = {"timestamp": "2024-01-09T00:00:00Z", "sent_at": "2024-01-09T00:00:10Z"}
    assert happened("2024-01-09T01:00:00Z", **own) == RECEIVED - 10.0


def test_timestamp_comes_before_original_timestamp():
    both = {"timestamp": "2024-01-09T12:00:00Z", "original_timestamp": "2024-01-01T12:00:00Z"}
    assert happened(**both) == RECEIVED - 86_400.0


def test_nothing_happens_in_the_future_or_before_1970():
    assert happened(timestamp="2024-01-10T13:00:00Z") == RECEIVED
    assert happened("2024-01-10T11:00:00Z", timestamp="2024-01-10T11:59:00Z") == RECEIVED
    assert happened("2090-01-01T00:00:00Z", timestamp="1970-01-01T00:00:00Z") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "",
        "1700000000",
        "2024-13-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "2200-01-01",
        "9" * 400,
    ],
)
def test_what_is_no_time_is_a_fault_that_shows_it(text):
    if text:
        assert happened(timestamp=text) == Fault("timestamp", "an ISO 8601 time between 1970 and 2100", text)
        good = {"timestamp": "2024-01-09T12:00:00Z"}
        assert happened(text, **good) == Fault("sentAt", "an ISO 8601 time between 1970 and 2100", text)
    else:
        assert happened(timestamp=text) == RECEIVED
