"""The load generator: prebuilt requests over many connections, in a closed or an open loop.

A closed loop sends a connection's next request when the last one is answered: it finds the rate at
which a server saturates. An open loop sends on a fixed schedule whatever the server does, and takes
a request's latency from the moment it was due, so that a server that stalls cannot hide requests
that it kept from being sent (no coordinated omission).

Parsing is httptools', the loop uvloop's. The schedule of an open loop is kept by the kernel's timer
(`timerfd`, microseconds; a timer of the loop is exact to a millisecond only). Spinning would be as exact,
and takes the server's time where both cores are two threads of one, as they often are in a rented machine.
"""

import asyncio
import ctypes
import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast

import httptools
import numpy as np
import uvloop
from numpy.typing import NDArray

HOST = "127.0.0.1"
CONNECTIONS = 64
OK = 200

_TICK_SECONDS_MIN = 0.0001  # Ten thousand wakes a second; what is due by then goes together.
_OVERTIME_SECONDS = 60.0  # A server that needs longer for what was sent is broken, not slow.
_USER_AGENT = (
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)


class LoadError(Exception):
    """The load could not be put on: connections refused or lost, or no answer in time."""


class Run(NamedTuple):
    """What one run saw. `latencies_ms` has one entry an answer, shape (answers,)."""

    seconds: float
    errors: int
    latencies_ms: NDArray[np.float64]

    @property
    def rps(self) -> float:
        """Return answers with status 200, a second."""
        return (len(self.latencies_ms) - self.errors) / self.seconds

    def figures(self) -> dict[str, float]:
        """Return rate and percentiles by name."""
        p50, p99 = np.percentile(self.latencies_ms, (50.0, 99.0))
        return {
            "rps": round(self.rps, 1),
            "p50_ms": round(float(p50), 3),
            "p99_ms": round(float(p99), 3),
            "max_ms": round(float(self.latencies_ms.max()), 3),
            "requests": len(self.latencies_ms),
            "errors": self.errors,
        }


def post(path: str, body: bytes, key: str) -> bytes:
    """Return the bytes of a request as a browser's client sends it."""
    return b"".join((head(path, len(body), key), body))


def head(path: str, body_bytes: int, key: str) -> bytes:
    """Return a request up to its body."""
    lines = (
        b"POST %b HTTP/1.1" % path.encode(),
        b"Host: 127.0.0.1",
        b"User-Agent: " + _USER_AGENT,
        b"Accept: */*",
        b"Accept-Encoding: gzip, deflate",
        b"Authorization: Bearer %b" % key.encode(),
        b"Content-Type: application/json",
        b"Content-Length: %d" % body_bytes,
    )
    return b"\r\n".join(lines) + b"\r\n\r\n"


def closed_loop(port: int, requests: Iterator[bytes], seconds: float, connections: int = CONNECTIONS) -> Run:
    """Send as fast as answers come, and return when all that was sent is answered.

    Args:
        port: Where the server listens.
        requests: What to send; the run ends sooner where they run out.
        seconds: How long to go on sending.
        connections: How many to keep open, each with one request under way.

    Raises:
        LoadError: A connection was lost, or answers did not come.
    """
    return _drive(_Closed(requests, seconds), port, connections, seconds)


def open_loop(
    port: int,
    requests: Iterator[bytes],
    rate: float,
    seconds: float,
    connections: int = CONNECTIONS,
) -> Run:
    """Send `rate` requests a second on schedule, and return when all are answered.

    Raises:
        LoadError: A connection was lost, or answers did not come.
    """
    return _drive(_Open(requests, rate, int(rate * seconds)), port, connections, seconds)


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Collect now, and not before the end: the generator's pauses are not the server's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, plan: "_Plan") -> None:
        self._plan = plan
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self.due = 0.0
        """When the request under way was to be sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell the plan."""
        self._plan.lost()

    def data_received(self, data: bytes) -> None:
        """Parse; `on_message_complete` follows where an answer is whole."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Hand the answer to the plan."""
        self._plan.answered(self, time.perf_counter(), self._parser.get_status_code())

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was to be sent at `due`."""
        self.due = due
        self._transport.write(request)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


class _Plan:
    """What is sent when; counts what comes back."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self.requests = requests
        self.latencies: list[float] = []
        self.errors = 0
        self.started = 0.0
        self.ended = 0.0
        self.done: asyncio.Future[None]

    def begin(self, connections: list[Connection]) -> None:
        """Send the first requests."""
        raise NotImplementedError

    def answered(self, connection: Connection, now: float, status: int) -> None:
        """Take in an answer."""
        raise NotImplementedError

    def count(self, connection: Connection, now: float, status: int) -> None:
        """Note an answer's latency and status."""
        self.latencies.append(now - connection.due)
        self.errors += status != OK

    def finish(self, now: float) -> None:
        """End the run."""
        self.ended = now
        if not self.done.done():
            self.done.set_result(None)

    def lost(self) -> None:
        """End the run without a result, unless it is over."""
        if not self.done.done():
            self.done.set_exception(LoadError("the server closed a connection"))


class _Closed(_Plan):
    def __init__(self, requests: Iterator[bytes], seconds: float) -> None:
        super().__init__(requests)
        self._seconds = seconds
        self._under_way = 0

    def begin(self, connections: list[Connection]) -> None:
        self._under_way = len(connections)
        self.ended = self.started + self._seconds
        for connection in connections:
            self._next(connection, time.perf_counter())

    def answered(self, connection: Connection, now: float, status: int) -> None:
        self.count(connection, now, status)
        self._next(connection, now)

    def _next(self, connection: Connection, now: float) -> None:
        request = next(self.requests, None) if now < self.ended else None
        if request is not None:
            connection.send(request, now)
            return
        self._under_way -= 1
        if not self._under_way:
            self.finish(now)


class _Open(_Plan):
    def __init__(self, requests: Iterator[bytes], rate: float, total: int) -> None:
        super().__init__(requests)
        self._rate = rate
        self._total = total
        self._sent = 0
        self._idle: list[Connection] = []

    def begin(self, connections: list[Connection]) -> None:
        self._idle = connections[:]
        self._timer = _timer(max(1.0 / self._rate, _TICK_SECONDS_MIN))
        loop = self.done.get_loop()
        loop.add_reader(self._timer, self._tick)
        self.done.add_done_callback(lambda _: self._stop(loop))

    def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._timer)
        os.close(self._timer)

    def _tick(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._timer, 8)
        self._send()

    def _send(self) -> None:
        due_count = min(int((time.perf_counter() - self.started) * self._rate) + 1, self._total)
        idle = self._idle
        while idle and self._sent < due_count:
            idle.pop().send(next(self.requests), self.started + self._sent / self._rate)
            self._sent += 1

    def answered(self, connection: Connection, now: float, status: int) -> None:
        self.count(connection, now, status)
        self._idle.append(connection)
        if len(self.latencies) == self._total:
            self.finish(now)
        else:
            self._send()  # What was due while every connection was taken.


class _Interval(ctypes.Structure):
    """`struct itimerspec`: the period, then the first time."""

    _fields_ = (
        ("period_seconds", ctypes.c_long),
        ("period_nanoseconds", ctypes.c_long),
        ("first_seconds", ctypes.c_long),
        ("first_nanoseconds", ctypes.c_long),
    )


def _timer(seconds: float) -> int:
    """Return a descriptor that becomes readable every so many seconds; Python has it from 3.13 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    whole, rest = int(seconds), int(seconds % 1.0 * 1e9)
    if descriptor < 0 or libc.timerfd_settime(
        descriptor, 0, ctypes.byref(_Interval(whole, rest, whole, rest)), None
    ):
        raise OSError(ctypes.get_errno(), "no timer of the kernel's")
    return descriptor


def _drive(plan: _Plan, port: int, connections: int, seconds: float) -> Run:
    with quiet_collector(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(plan, port, connections, seconds + _OVERTIME_SECONDS))
    return Run(plan.ended - plan.started, plan.errors, 1e3 * np.array(plan.latencies))


async def _run(plan: _Plan, port: int, connections: int, seconds_max: float) -> None:
    loop = asyncio.get_running_loop()
    plan.done = loop.create_future()
    made: list[Any] = [
        await loop.create_connection(lambda: Connection(plan), HOST, port) for _ in range(connections)
    ]
    plan.started = time.perf_counter()
    plan.begin([connection for _, connection in made])
    try:
        await asyncio.wait_for(plan.done, seconds_max)
    except TimeoutError as error:
        raise LoadError(f"not all answers within {seconds_max:g} s") from error
    finally:
        for _, connection in made:
            connection.close()
