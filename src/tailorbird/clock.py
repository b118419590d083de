"""Time as an argument. Everything that needs the time takes a `Clock`; times are epoch seconds, UTC."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What tells the time."""

    def now(self) -> float:
        """Return the wall time in epoch seconds."""

    def elapsed(self) -> float:
        """Return monotonic seconds from an arbitrary start, for durations."""


class SystemClock:
    """The machine's own clock: the C functions themselves, which a decision asks a dozen times."""

    now = staticmethod(time.time)
    elapsed = staticmethod(time.perf_counter)


class ManualClock:
    """A clock that moves only when told to, for tests and replays."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        """Return the time that was set."""
        return self.time

    def elapsed(self) -> float:
        """Return the time that was set."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.time += seconds


TIME_MIN = 0.0  # 1970-01-01: no behaviour of a web visitor is older.
TIME_MAX = 4_102_444_800.0  # 2100-01-01: anything later is a wrong unit or a wrong clock.


def parse_time(text: str) -> float:
    """Return epoch seconds of an ISO 8601 time; a time without a zone is UTC.

    Raises:
        ValueError: It is no ISO 8601 time, or lies outside 1970 to 2100.

    >>> parse_time("2024-01-02T03:04:05.500Z")
    1704164645.5
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = moment.timestamp()
    if not TIME_MIN <= seconds <= TIME_MAX:
        raise ValueError("a time between 1970 and 2100")
    return seconds


def format_time(seconds: float) -> str:
    """Return ISO 8601 in UTC with milliseconds.

    >>> format_time(1704164645.5)
    '2024-01-02T03:04:05.500Z'
    """
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
