"""Live traffic over HTTP: shoppers who ask for a list before each thing they buy, and event logs.

Reads baskets (`datasets.Shop`) or Segment events, writes requests to the doors of a running server
and keeps account of every answer in a `Meter`. Requests on one connection follow one another; a
basket is sent by one connection, and its next request leaves when the last one was answered, so
that a list is always asked for before the next item is known to the server:

    decide (t - 0.5 s) -> Product Added (t) -> decide (t + 0.5 s) -> ... -> Order Completed

Baskets and notices start in the order of the log. Up to `connections` of them are open at a time, none of a
customer before the last one of the same customer is through, and none that begins more than
`SPREAD_SECONDS` of the log's time after the oldest open one: weeks never overtake a long basket.

Nothing here waits for the result of a decision to choose what is bought: the log decides that.
"""

import asyncio
import contextlib
import hashlib
import sys
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, cast

import httptools
import msgspec
import numpy as np

from tailorbird.app.datasets.events import added, noticed, ordered, ordered_at, who
from tailorbird.app.datasets.shop import Basket, Line, Notice, Shop
from tailorbird.clock import Clock, format_time, parse_time
from tailorbird.errors import TailorbirdError, shorten
from tailorbird.limits import BATCH_BYTES_MAX, REQUEST_ITEMS_MAX

if sys.platform == "win32":
    _new_event_loop = asyncio.new_event_loop
else:
    import uvloop

    _new_event_loop = uvloop.new_event_loop

DAY_SECONDS: Final = 86_400.0
SPREAD_SECONDS: Final = 3 * DAY_SECONDS  # Below half a half-life of popularity; see the module.
ASKED_BEFORE_SECONDS: Final = 0.5  # A list is asked for half-way between two lines of a basket.
ANSWER_SECONDS_MAX: Final = 30.0  # A server that is silent for so long is taken for dead.
ATTEMPTS_MAX: Final = 10
BACKOFF_SECONDS_MAX: Final = 5.0
FAILURES_KEPT_MAX: Final = 5  # First refusals kept word for word; all are counted.
BATCH_EVENTS: Final = 250  # 250 events of 1 KiB: half of what a batch may weigh.
WATCH_SECONDS: Final = 0.25

_RETRIED: Final = frozenset({429, 503})


class UnreachableError(TailorbirdError):
    """The server does not answer; look at its log, then run again."""


class Door(msgspec.Struct, frozen=True):
    """Where a server listens and the keys that open it; an empty server key asks no decisions."""

    host: str
    port: int
    write_key: str
    server_key: str = ""


class Plan(msgspec.Struct, frozen=True):
    """How the traffic is to be sent."""

    placement: str | None = None
    """Ask for a list of this placement before each item; None sends events only."""
    count: int = 10
    connections: int = 16
    """Open baskets, each on its own connection."""
    speed: float | None = None
    """Times faster than recorded; None is as fast as the server answers."""


class Outcome(msgspec.Struct):
    """What became of one arm's lists, as the client saw it."""

    decisions: int = 0
    hits: int = 0


class LastDecision(NamedTuple):
    """A visitor's last list, what was bought next, and whether it was on the list."""

    decision_id: str
    bought: str
    is_hit: bool


class Receipt(msgspec.Struct, frozen=True):
    """What a server says of a batch: how many of its events it refused, and why."""

    rejected: int = 0
    errors: list[dict[str, Any]] = []


class Meter:
    """The account of a run: what was answered, how fast, what was refused, what was hit."""

    def __init__(self) -> None:
        self.seconds: dict[str, array[float]] = {"decide": array("d"), "event": array("d")}
        self.refused: Counter[str] = Counter()
        self.first_refusals: list[str] = []
        self.retries = 0
        self.lines = 0
        self.orders = 0
        self.notices = 0
        self.arms: dict[str, Outcome] = {}
        self.reasons: Counter[str] = Counter()
        self.last_decisions: dict[str, LastDecision] = {}

    def answered(self, kind: str, seconds: float) -> None:
        """Count one success."""
        self.seconds[kind].append(seconds)

    def refuse(self, kind: str, status: int, body: bytes) -> None:
        """Count one request that was not carried out."""
        self.refused[f"{kind} {status}"] += 1
        if len(self.first_refusals) < FAILURES_KEPT_MAX:
            self.first_refusals.append(f"{kind} {status}: {shorten(body, 300)}")

    def batch(self, receipt: "Receipt", count: int) -> None:
        """Count a batch of `count` events, of which some may have been refused."""
        self.lines += count - receipt.rejected
        self.refused["event"] += receipt.rejected
        room = FAILURES_KEPT_MAX - len(self.first_refusals)
        self.first_refusals += [shorten(error, 300) for error in receipt.errors[:room]]

    def count(self, kind: str) -> int:
        """Return how many requests of a kind were carried out."""
        return len(self.seconds[kind])

    @property
    def errors_count(self) -> int:
        """Return how many requests were not carried out."""
        return self.refused.total()

    def latency_ms(self, kind: str) -> dict[str, float]:
        """Return percentiles of a kind's latency in milliseconds; none where nothing was sent."""
        seconds = np.frombuffer(self.seconds[kind], np.float64) if self.seconds[kind] else np.zeros(0)
        if not seconds.size:
            return {}
        marks = np.percentile(seconds, [50, 95, 99])
        return {
            name: round(float(mark) * 1e3, 3) for name, mark in zip(("p50", "p95", "p99"), marks, strict=True)
        }


def drive(shop: Shop, door: Door, plan: Plan, clock: Clock, watch: Callable[[Meter], None]) -> Meter:
    """Send a shop's baskets and return the account of it.

    `watch` is called with the running account some times a second.

    Raises:
        UnreachableError: The server stopped answering.
    """
    meter = Meter()
    traffic = _Baskets(shop, plan, clock, meter)
    return _run(traffic.run(door), meter, watch)


def send_log(
    events: Iterable[dict[str, Any]],
    door: Door,
    plan: Plan,
    clock: Clock,
    watch: Callable[[Meter], None],
) -> Meter:
    """Send Segment events in batches, in their order, and return the account of it.

    An event's time stays the recorded one: `sentAt` is left out, for with it the server would take
    the age of the record for a wrong clock and move the event to the present. An event without a
    `messageId` gets one from its own bytes, so that sending a log twice counts once.

    Raises:
        UnreachableError: The server stopped answering.
    """
    meter = Meter()
    return _run(_send_batches(events, door, plan, clock, meter), meter, watch)


def _run(work: Awaitable[None], meter: Meter, watch: Callable[[Meter], None]) -> Meter:
    async def watched() -> None:
        watcher = asyncio.create_task(_watching(meter, watch))
        try:
            await work
        finally:
            watcher.cancel()
        watch(meter)

    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        try:
            runner.run(watched())
        except* UnreachableError as group:
            raise UnreachableError(str(group.exceptions[0])) from None
    return meter


async def _watching(meter: Meter, watch: Callable[[Meter], None]) -> None:
    while True:
        watch(meter)
        await asyncio.sleep(WATCH_SECONDS)


class _Baskets:
    """Sends the baskets of a shop over a bounded number of connections."""

    def __init__(self, shop: Shop, plan: Plan, clock: Clock, meter: Meter) -> None:
        self._items = {item.id: item for item in shop.items}
        self._currency = shop.currency
        begun: list[Basket | Notice] = [*shop.notices, *shop.baskets]
        self._left = iter(sorted(begun, key=lambda one: one.start))
        self._plan = plan
        self._meter = meter
        self._clock = clock
        self._pace = _Pace(plan.speed, clock)
        self._open: dict[str, asyncio.Event] = {}
        self._starts: dict[str, float] = {}
        self._moved = asyncio.Event()

    async def run(self, door: Door) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.connections):
                group.create_task(self._work(door))

    async def _work(self, door: Door) -> None:
        async with _sender(door, self._clock, self._meter) as sender:
            for one in self._left:
                async with self._turn(one):
                    await (self._tell(sender, one) if isinstance(one, Notice) else self._shop(sender, one))

    @contextlib.asynccontextmanager
    async def _turn(self, one: Basket | Notice) -> AsyncIterator[None]:
        """Wait until a basket or notice may begin; those that began before never wait for it."""
        visitor = one.visitor or one.id
        before, done = self._open.get(visitor), asyncio.Event()
        self._open[visitor] = done
        self._starts[one.id] = one.start
        if before is not None:
            await before.wait()
        while one.start > next(iter(self._starts.values())) + SPREAD_SECONDS:
            self._moved.clear()
            await self._moved.wait()
        try:
            yield
        finally:
            del self._starts[one.id]
            self._moved.set()
            done.set()
            if self._open[visitor] is done:
                del self._open[visitor]

    async def _tell(self, sender: "_Sender", notice: Notice) -> None:
        await self._pace.until(notice.start)
        kind = "identify" if notice.event is None else "event"
        await sender.send(kind, _event(notice.start, noticed(notice)))
        self._meter.notices += 1

    async def _shop(self, sender: "_Sender", basket: Basket) -> None:
        in_basket: list[str] = []
        for index, line in enumerate(basket.lines):
            await self._pace.until(line.t)
            if self._plan.placement is not None:
                await self._ask(sender, basket, line, in_basket)
            await sender.send("event", _event(line.t, added(basket, index, self._items[line.item])))
            in_basket.append(line.item)
            self._meter.lines += 1
        order = ordered(basket, self._items, self._currency)
        await sender.send("event", _event(ordered_at(basket), order))
        self._meter.orders += 1

    async def _ask(self, sender: "_Sender", basket: Basket, line: Line, in_basket: list[str]) -> None:
        request = {
            "visitor": who(basket),
            "placements": [
                {
                    "key": self._plan.placement,
                    "count": self._plan.count,
                    "exclude": in_basket[-REQUEST_ITEMS_MAX:],
                }
            ],
            "at": format_time(line.t - ASKED_BEFORE_SECONDS),
        }
        body = await sender.send("decide", _encode(request))
        if body is not None:
            self._note(basket, line, _answers.decode(body))

    def _note(self, basket: Basket, line: Line, answer: "_Answer") -> None:
        decision = answer.decisions[0]
        is_hit = any(choice.id == line.item for choice in decision.choices)
        self._meter.reasons[decision.reason] += 1
        outcome = self._meter.arms.setdefault(answer.visitor.arm, Outcome())
        outcome.decisions += 1
        outcome.hits += is_hit
        if basket.visitor is not None and decision.decision_id is not None:
            last = LastDecision(decision.decision_id, line.item, is_hit)
            self._meter.last_decisions[basket.visitor] = last


async def _send_batches(
    events: Iterable[dict[str, Any]], door: Door, plan: Plan, clock: Clock, meter: Meter
) -> None:
    """Send one batch after another: a recorded log's order is its meaning."""
    pace = _Pace(plan.speed, clock)
    async with asyncio.TaskGroup(), _sender(door, clock, meter) as sender:
        for batch in _batches(events, is_paced=plan.speed is not None):
            await pace.until(_time_of(batch[0]))
            body = b'{"batch":[' + b",".join(_encode(event) for event in batch) + b"]}"
            answer = await sender.send("batch", body)
            if answer is not None:
                meter.batch(_receipts.decode(answer), len(batch))


def _batches(events: Iterable[dict[str, Any]], *, is_paced: bool) -> Iterator[list[dict[str, Any]]]:
    """Yield events in batches under the door's limits; one by one where each has its moment."""
    batch: list[dict[str, Any]] = []
    size = 0
    for event in events:
        ready = _ready(event)
        weight = len(_encode(ready)) + 1
        is_full = len(batch) == BATCH_EVENTS or size + weight > BATCH_BYTES_MAX - 100
        if batch and (is_full or is_paced):
            yield batch
            batch, size = [], 0
        batch.append(ready)
        size += weight
    if batch:
        yield batch


def _ready(event: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded event as it is to be sent again."""
    ready = {key: value for key, value in event.items() if key not in {"sentAt", "receivedAt"}}
    if "messageId" not in ready:
        ready["messageId"] = "replay-" + hashlib.blake2b(_encode(event), digest_size=16).hexdigest()
    return ready


def _time_of(event: dict[str, Any]) -> float | None:
    try:
        return parse_time(str(event.get("timestamp") or event.get("originalTimestamp")))
    except ValueError:
        return None


class _Pace:
    """Lets recorded time pass `speed` times faster, from the first moment that is asked for."""

    def __init__(self, speed: float | None, clock: Clock) -> None:
        self._speed = speed
        self._clock = clock
        self._origin: tuple[float, float] | None = None

    async def until(self, t: float | None) -> None:
        """Wait until recorded time `t`; at once where it is past, or there is no pace."""
        if self._speed is None or t is None:
            return
        if self._origin is None:
            self._origin = (t, self._clock.elapsed())
        recorded, started = self._origin
        left = (t - recorded) / self._speed - (self._clock.elapsed() - started)
        if left > 0:
            await asyncio.sleep(left)


class _Sender:
    """Sends requests on one connection, again where the server says so, and keeps account."""

    def __init__(self, door: Door, clock: Clock, meter: Meter) -> None:
        self._door = door
        self._clock = clock
        self._meter = meter
        self._connection: _Connection | None = None
        self._was_connected = False
        self._heads = {
            "decide": _head(door, "/v1/decide", door.server_key),
            "event": _head(door, "/v1/track", door.write_key),
            "identify": _head(door, "/v1/identify", door.write_key),
            "batch": _head(door, "/v1/batch", door.write_key),
        }

    async def send(self, kind: str, body: bytes) -> bytes | None:
        """Return the body of the success, or None where the request was refused for good.

        Raises:
            UnreachableError: The server did not answer `ATTEMPTS_MAX` times, or nothing listens there.
        """
        request = b"%s%d\r\n\r\n%s" % (self._heads[kind], len(body), body)
        answer = _NO_ANSWER
        for attempt in range(ATTEMPTS_MAX):
            started = self._clock.elapsed()
            answer = await self._exchange(request)
            if 200 <= answer.status < 300:  # noqa: PLR2004 (HTTP's successes)
                self._meter.answered(_METERED.get(kind, kind), self._clock.elapsed() - started)
                return answer.body
            if answer.status and answer.status not in _RETRIED:
                break
            self._meter.retries += 1
            await asyncio.sleep(min(answer.retry_after or 0.05 * 2**attempt, BACKOFF_SECONDS_MAX))
        if not answer.status:
            raise UnreachableError(
                f"{self._door.host}:{self._door.port} gave no answer {ATTEMPTS_MAX} times:"
                f" {answer.body.decode()}"
            )
        self._meter.refuse(kind, answer.status, answer.body)
        return None

    async def _exchange(self, request: bytes) -> "_Response":
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                connection = self._connection
                if connection is None or connection.is_closed:
                    connection = self._connection = await self._connect()
                return await connection.exchange(request)
        except (OSError, TimeoutError) as error:
            self.close()
            # It is not that the server restarts: there was none.
            if isinstance(error, ConnectionRefusedError) and not self._was_connected:
                address = f"{self._door.host}:{self._door.port}"
                raise UnreachableError(f"nothing listens on {address}") from error
            return _NO_ANSWER._replace(body=repr(error).encode())

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._door.host, self._door.port)
        self._was_connected = True
        return connection

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextlib.asynccontextmanager
async def _sender(door: Door, clock: Clock, meter: Meter) -> AsyncIterator[_Sender]:
    sender = _Sender(door, clock, meter)
    try:
        yield sender
    finally:
        sender.close()


class _Response(NamedTuple):
    """An answer; status 0 is none, and the body says why."""

    status: int
    body: bytes
    retry_after: float = 0.0


_NO_ANSWER: Final = _Response(0, b"")
_METERED: Final = {"batch": "event", "identify": "event"}


class _Connection(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection on which requests follow one another."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[_Response] | None = None
        self._body: list[bytes] = []
        self._retry_after = 0.0
        self.is_closed = False

    async def exchange(self, request: bytes) -> _Response:
        """Send a request and return its answer.

        Raises:
            ConnectionError: The connection ended before the answer did.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def close(self) -> None:
        """End the connection."""
        self.is_closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what asyncio hands over."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self.is_closed = True
        self._fail(ConnectionResetError(f"the server closed the connection ({exc})"))

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.close()
            self._fail(ConnectionError(f"the answer is no HTTP: {error}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read when to try again."""
        if name.lower() == b"retry-after" and value.isdigit():
            self._retry_after = float(value)

    def on_body(self, body: bytes) -> None:
        """Gather the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        answer = _Response(self._parser.get_status_code(), b"".join(self._body), self._retry_after)
        self._body, self._retry_after = [], 0.0
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class _Choice(msgspec.Struct, frozen=True):
    id: str


class _Decision(msgspec.Struct, frozen=True, rename="camel"):
    decision_id: str | None
    """None where too much waits for the disk to log the decision: the answer is the fallback."""
    reason: str
    choices: tuple[_Choice, ...]


class _Visitor(msgspec.Struct, frozen=True):
    arm: str


class _Answer(msgspec.Struct, frozen=True):
    """What is read of a decision's answer."""

    visitor: _Visitor
    decisions: tuple[_Decision, ...]


_encode = msgspec.json.Encoder().encode
_answers = msgspec.json.Decoder(_Answer)
_receipts = msgspec.json.Decoder(Receipt)


def _head(door: Door, path: str, key: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: {door.host}:{door.port}\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()


def _event(t: float, event: dict[str, Any]) -> bytes:
    return _encode({**event, "timestamp": format_time(t)})
