"""The thin way in: a protocol of our own for the one kind of request that comes all the time.

Nearly every request is an event or a question: a `POST` to a hot door in HTTP/1.1, with its head in one
piece and a `Content-Length`. For these `HotProtocol` does what is needed and no more. httptools parses
the bytes and collects the headers by callbacks that run in C; the door is called with what it found, and
the answer goes out in one write. ASGI's task, scope and messages, and a call into Python for each header,
cost four times as much (see docs/adr/0003).

Everything else goes to uvicorn's own protocol, `_Guest`, from its first byte on, and reaches the same
doors through Starlette: other paths and methods, HTTP/1.0, chunked bodies, `Expect`, heads that come in
pieces, bodies that are too large, and whatever is malformed. So the odd corners of HTTP and its refusals
have one place, which is not ours. The guest gives the connection back when it has answered.

Where a message ends is the parser's business alone. It is told to fail at the beginning of a second one,
and what is behind the first is then what follows the head and body that it has reported.
"""

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple, cast

import uvicorn
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tailorbird.app.exchange import (
    JSON,
    Answer,
    Exchange,
    Headers,
    Response,
    Spelling,
    WhenDurable,
    problem,
)
from tailorbird.errors import OverloadedError
from tailorbird.limits import ARRIVING_BYTES_MAX, HEADER_BYTES_MAX, PUBLIC_BODY_BYTES_MAX, REQUEST_SECONDS_MAX

Door = Callable[[Exchange], Answer]
Pairs = tuple[tuple[bytes, bytes], ...]

_LINE_END, _HEAD_END = b"\r\n", b"\r\n\r\n"
_VERSION = b" HTTP/1.1"
_OK = HTTPStatus.OK.value
_LENGTH_DIGITS_MAX = len(str(PUBLIC_BODY_BYTES_MAX))
_SPELLINGS_MAX = 128  # Each may take as much memory as a head; clients have a few.
_BEGINNING_AND_END = (None, None)
_TOO_LONG = f"Headers may have at most {HEADER_BYTES_MAX} bytes."
_OFFER = b"\r\nupgrade:"
_UPGRADE = re.compile(re.escape(_OFFER), re.IGNORECASE)


def hot_protocol(doors: Mapping[bytes, Door]) -> "type[HotProtocol]":
    """Return the protocol of a server whose hot doors are these, by path."""

    class Protocol(HotProtocol):
        targets: ClassVar = {
            b"POST %b%b" % (path, _VERSION): _Target(door, path.decode("latin-1"))
            for path, door in doors.items()
        }
        promised: ClassVar = {}

    return Protocol


def uvicorn_config(
    application: Any,  # noqa: ANN401 (any of ASGI's forms, as uvicorn has it)
    protocol: type[asyncio.Protocol] | str,
    **options: Any,  # noqa: ANN401 (uvicorn's own)
) -> uvicorn.Config:
    """Return uvicorn's settings for a server that adds nothing to what the doors answer."""
    return uvicorn.Config(
        application,
        http=cast("Any", protocol),
        loop="uvloop",
        lifespan="off",
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        **options,
    )


def hang_up_on_the_late(connections: Iterable[Any], now: float) -> None:
    """Close connections whose request does not arrive, or that rest for long: they hold a place.

    What one of them has not taken of its last answer by then is dropped: it may never take it.
    """
    for connection in list(connections):
        if connection.is_late(now):
            connection.transport.abort()


def cors_headers(origin: bytes) -> Pairs:
    """Return the headers that let a page of any origin read an answer."""
    return (
        (b"access-control-allow-origin", origin),
        (b"vary", b"Origin"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"ETag, Retry-After"),
    )


class _Arriving:
    """The bytes of all bodies that are not whole yet, each counted on its connection as `arrived`."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, connection: "HotProtocol | _Guest", more: int) -> bool:
        """Count more bytes; return whether there is room for them."""
        connection.arrived += more
        self.total += more
        return self.total <= ARRIVING_BYTES_MAX

    def release(self, connection: "HotProtocol | _Guest") -> None:
        """Count a connection's bytes no longer: its body is whole, or will never be."""
        self.total -= connection.arrived
        connection.arrived = 0


ARRIVING = _Arriving()


class _Target(NamedTuple):
    """Where a request line leads."""

    door: Door
    path: str
    query: bytes = b""


class HotProtocol(asyncio.Protocol):
    """A connection: its hot requests are answered here, the others lent to a guest.

    Requests are answered in order. Those that come behind one which waits for its answer wait unread.
    """

    targets: ClassVar[dict[bytes, _Target]]
    """Where the request lines of hot doors lead, when they have no query."""

    promised: ClassVar["dict[asyncio.Future[None], list[tuple[HotProtocol, WhenDurable]]]"]
    """Who waits for what: most requests of a turn wait for one future, and share its callback."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.config = config
        self.server_state = server_state
        self._connections: set[Any] = server_state.connections
        self.app_state = app_state
        self.loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.guest: _Guest | None = None
        self.started: float | None = None
        """When the request at hand began to arrive, None between requests."""
        self._rests_since = 0.0
        # What the parser tells of the request at hand.
        self._due: list[None] = []  # An entry each for its beginning and its end, until they are seen.
        self._written: Headers = {}  # Its headers, by name as they are written.
        self._body: list[bytes] = []
        self._has_head = False
        self._keeps_alive = True
        self._parser = self._new_parser()
        # A request whose body is not all there.
        self._arriving: tuple[_Target, Spelling] | None = None
        self._left = 0  # Bytes of the body that are still to come.
        self.arrived = 0  # Bytes of it that came, of those that `ARRIVING` counts.
        # A request that is answered.
        self._origin: bytes | None = None
        self._is_busy = False  # One waits for its answer, or was the last.
        self._is_full = False  # The client does not take its answers.
        self._held = b""  # Requests that wait for one of these to end; reading is paused while there are any.

    # --- what the transport and uvicorn call --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection; uvicorn refuses those that are too many."""
        self.transport = cast("asyncio.Transport", transport)
        self.started = self.loop.time()
        self._connections.add(self)
        limit = self.config.limit_concurrency
        if limit is not None and len(self._connections) >= limit:
            self._lend(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection."""
        self._connections.discard(self)
        ARRIVING.release(self)
        if self.guest is None:
            self.let_go()
        else:
            self.guest.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes: of a body that is arriving, of requests, or both."""
        if self._left:
            data = self._take_body(data)
        elif self._held:
            data = self._held + data
        self._read(data)

    def pause_writing(self) -> None:
        """Take no further request: the client does not take its answers."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Go on: the client has taken its answers."""
        self._is_full = False
        self._go_on()

    def shutdown(self) -> None:
        """Close at once, or after the answer that is under way."""
        if self._is_busy or self._left:
            self._keeps_alive = False
        else:
            self.transport.close()

    def is_late(self, now: float) -> bool:
        """Return whether a request has been arriving, or the connection resting, for too long."""
        if self.started is not None:
            return now - self.started > REQUEST_SECONDS_MAX
        if self._is_busy and not self.transport.is_closing():
            return False
        return now - self._rests_since > self.config.timeout_keep_alive

    # --- what the guest calls -----------------------------------------------------------------------

    def take_back(self) -> None:
        """Have the connection again after the guest, between two requests."""
        self._connections.add(self)
        self.started = None
        self._rests_since = self.loop.time()
        self.transport.set_protocol(self)

    def let_go(self) -> None:
        """Let go of parser and guest, at the end; they refer to this object.

        Cycles stay in memory: see `_collect_garbage` in `server.py`.
        """
        del self._parser
        self.guest = None

    # --- requests -----------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Answer the requests in `data`, which begins where one does, while nothing stands in the way."""
        while data and not self._is_busy and not self._is_full:
            line = data[: data.find(_LINE_END)]
            target = self.targets.get(line) or self._target_with_query(line)
            rest = None if target is None else self._take(data, target)
            if rest is None:
                self._lend(data)
                return
            data = rest
        if data:
            self._hold(data)

    def _target_with_query(self, line: bytes) -> _Target | None:
        before, _, after = line.partition(b"?")
        target = self.targets.get(before + _VERSION)
        if target is None or not after.endswith(_VERSION):
            return None
        return target._replace(query=after.removesuffix(_VERSION))

    def _take(self, data: bytes, target: _Target) -> bytes | None:
        """Take in the request that `data` begins with; return what is behind it, None if it is unusual."""
        if len(data) > HEADER_BYTES_MAX and _is_head_long(data):
            return None
        rest = b""
        self._written.clear()
        self._due[:] = _BEGINNING_AND_END
        self._has_head = False
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._parser = self._new_parser()
            return self._take(_without_offers(data), target)
        except HttpParserError:
            if self._due:
                return None
            rest = self._renew_behind(data)
        spelling = _spelling(tuple(self._written))
        if b"content-length" not in spelling or b"expect" in spelling:
            return None
        if self._due:
            return self._await_body(target, spelling)
        self._enter(target, spelling)
        return rest

    def _renew_behind(self, data: bytes) -> bytes:
        """Return what follows a request, where the parser has stopped because something does."""
        body_bytes = sum(map(len, self._body))
        self._parser = self._new_parser()
        return data[data.index(_HEAD_END) + len(_HEAD_END) + body_bytes :]

    def _await_body(self, target: _Target, spelling: Spelling) -> bytes | None:
        length = self._written[spelling[b"content-length"]]
        if not self._has_head or len(length) > _LENGTH_DIGITS_MAX or int(length) > PUBLIC_BODY_BYTES_MAX:
            return None
        self.started = self.loop.time()
        self._arriving = (target, spelling)
        arrived = sum(map(len, self._body))
        self._left = int(length) - arrived
        self._count_arrived(arrived)
        return b""

    def _take_body(self, data: bytes) -> bytes:
        """Add to the body that is arriving; return what is behind it."""
        part = data[: self._left]
        self._parser.feed_data(part)
        self._left -= len(part)
        self._count_arrived(len(part))
        if not self._left and self._arriving is not None:
            arrived, self._arriving = self._arriving, None
            if self._due:
                raise RuntimeError("the parser sees the end of a message elsewhere")
            self._enter(*arrived)
        return data[len(part) :]

    def _count_arrived(self, more: int) -> None:
        """Count bytes of a body that is not whole; hang up where all connections together hold too many."""
        if not ARRIVING.add(self, more):
            self._keeps_alive = False
            self._arriving = None
            self._answer(problem(OverloadedError("too many large requests are arriving at once")))

    def _enter(self, target: _Target, spelling: Spelling) -> None:
        """Call the door."""
        self.started = None
        if self.arrived:
            ARRIVING.release(self)
        body = b"".join(self._body)
        self._body.clear()
        exchange = Exchange("POST", target.path, target.query, self._written.copy(), body, spelling)
        self._origin = exchange.header(b"origin")
        result = target.door(exchange)
        if isinstance(result, Response):
            self._answer(result)
        else:
            self._is_busy = True
            self._await(result)

    def _new_parser(self) -> HttpRequestParser:
        """Return a parser whose callbacks are C functions but for one.

        It sees the beginning of a second message as an error: there is no further entry to take.
        """
        callbacks = SimpleNamespace(
            on_message_begin=self._due.pop,
            on_header=self._written.setdefault,
            on_headers_complete=self._on_headers_complete,
            on_body=self._body.append,
            on_message_complete=self._due.pop,
        )
        return HttpRequestParser(callbacks)

    def _on_headers_complete(self) -> None:
        self._has_head = True
        self._keeps_alive = self._parser.should_keep_alive()

    # --- answers ------------------------------------------------------------------------------------

    def _await(self, result: WhenDurable | Awaitable[Response]) -> None:
        if not isinstance(result, WhenDurable):
            task = self.loop.create_task(self._answer_later(result))
            self.server_state.tasks.add(task)
            task.add_done_callback(self.server_state.tasks.discard)
            return
        waiting = self.promised.get(result.durable)
        if waiting is None:
            waiting = self.promised[result.durable] = []
            result.durable.add_done_callback(self._keep_promises)
        waiting.append((self, result))

    @classmethod
    def _keep_promises(cls, durable: "asyncio.Future[None]") -> None:
        for protocol, promise in cls.promised.pop(durable):
            protocol.answer(promise.settled())

    async def _answer_later(self, result: Awaitable[Response]) -> None:
        try:
            response = await result
        except BaseException:
            self.transport.abort()
            raise
        self.answer(response)

    def answer(self, response: Response) -> None:
        """Answer the request that waits, and go on."""
        if not self.transport.is_closing():
            self._answer(response)
            self._go_on()

    def _answer(self, response: Response) -> None:
        keeps_alive = self._keeps_alive
        self.transport.write(_rendered(response, self._origin, keeps_alive=keeps_alive))
        self.server_state.total_requests += 1
        self._rests_since = self.loop.time()
        self._is_busy = not keeps_alive
        if not keeps_alive:
            self.transport.close()

    # --- what has to wait ---------------------------------------------------------------------------

    def _hold(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self._held = data
            self.transport.pause_reading()

    def _go_on(self) -> None:
        """Read what was held, and go on reading."""
        held = self._held
        if held and not self.transport.is_closing():
            self._held = b""
            self.transport.resume_reading()
            self._read(held)

    def _lend(self, data: bytes) -> None:
        """Let uvicorn's own protocol have the connection, from `data` on."""
        self._parser = self._new_parser()
        self._body.clear()
        self._connections.discard(self)
        if self.guest is None:
            self.guest = _Guest(self)
        self.guest.take(data)


class _Guest(HttpToolsProtocol):
    """uvicorn's own protocol, on a connection that is lent to it."""

    def __init__(self, host: HotProtocol) -> None:
        super().__init__(host.config, host.server_state, host.app_state, host.loop)
        self.started: float | None = None
        """As the host's."""
        self._host = host
        self._header_bytes = 0
        self.arrived = 0
        """As the host's."""
        self._begun = b""
        """The end of what came, where it may be the beginning of an offer to upgrade."""
        self._last = b""
        """The last few bytes that the parser has."""
        self._unreported_bytes = 0
        """What the parser has kept to itself: it gathers a header, or passes over what means nothing."""
        self._is_in_body = False
        self.connection_made(host.transport)

    def take(self, data: bytes) -> None:
        """Have the connection, from `data` on."""
        self.connections.add(self)
        self.started = self.loop.time()
        self.transport.set_protocol(self)
        if data:
            self.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection."""
        ARRIVING.release(self)
        super().connection_lost(exc)
        self._host.let_go()

    def data_received(self, data: bytes) -> None:
        """Take in bytes, offers to upgrade passed over."""
        if not self._is_in_body:
            data, self._begun = _cut_before_offer(self._last, self._begun + data)
            data = _without_offers(data)
        self._last = (self._last + data)[-len(_HEAD_END) + 1 :]
        self._unreported_bytes += len(data)
        super().data_received(data)
        if self._unreported_bytes > HEADER_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response(_TOO_LONG)
        self._give_back()

    def is_late(self, now: float) -> bool:
        """Return whether a request has been arriving for too long; uvicorn itself closes what rests."""
        return self.started is not None and now - self.started > REQUEST_SECONDS_MAX

    def _unsupported_upgrade_warning(self) -> None:
        """Hang up where an offer was not seen ahead, behind another request: its body would be misread."""
        self.send_400_response("Upgrades are not offered here.")

    # --- what the parser calls ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._header_bytes = self._unreported_bytes = 0
        self.started = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take in a part of the request target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header, up to the limit of all of them."""
        self._unreported_bytes = 0
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._is_in_body = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body, while there is room for it."""
        self._unreported_bytes = 0
        if not ARRIVING.add(self, len(body)):
            raise ValueError("too many large requests are arriving at once")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request has arrived."""
        self._is_in_body = False
        self.started = None
        ARRIVING.release(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, the host's if there is none."""
        super().on_response_complete()
        self._give_back()

    def _give_back(self) -> None:
        """Leave the connection to the host, if the last request that came is whole and answered."""
        if (
            self.started is not None
            or not self.cycle.response_complete
            or self.flow.write_paused
            or self.transport.is_closing()
        ):
            return
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        self._host.take_back()

    def _count(self, more: int) -> None:
        self._header_bytes += more
        if self._header_bytes > HEADER_BYTES_MAX:
            raise ValueError(_TOO_LONG)


@functools.lru_cache(maxsize=_SPELLINGS_MAX)
def _spelling(written: tuple[bytes, ...]) -> Spelling:
    """Return how names of headers are written, by lower-case name, the first of each.

    A client sends the same names again and again; to change each of them costs as much as to parse them.
    """
    return {name.lower(): name for name in reversed(written)}


def _is_head_long(data: bytes) -> bool:
    return not 0 <= data.find(_HEAD_END) <= HEADER_BYTES_MAX - len(_HEAD_END)


def _without_offers(data: bytes) -> bytes:
    """Return a request without offers to upgrade, which a server may pass over (RFC 9110, section 7.8).

    Java's client offers h2c with every plain request; the parser would take the body for the new
    protocol and lose it. The header's name is changed for another of the same length.
    """
    if b"pgrade" not in data.lower():
        return data
    head, end, rest = data.partition(_HEAD_END)
    return _UPGRADE.sub(b"\r\nx-asked:", head) + end + rest


def _cut_before_offer(before: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Return a part of a head less what may be the beginning of an offer to upgrade, and that.

    What is cut is seen together with what follows it: an offer may come in two pieces. `before` is what
    came just before.
    """
    seen = before + data
    if _HEAD_END in seen or seen.endswith(_HEAD_END[:-1]):
        return data, b""  # The head ends here, whatever follows.
    for size in range(min(len(data), len(_OFFER) - 1), 0, -1):
        if data[-size:].lower() == _OFFER[:size]:
            return data[:-size], data[-size:]
    return data, b""


def _lines(headers: Pairs) -> bytes:
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


def _rendered(response: Response, origin: bytes | None, *, keeps_alive: bool) -> bytes:
    """Return the bytes of an answer."""
    status, body, content_type, headers = response
    if keeps_alive and not headers and content_type is JSON and status == _OK:
        if origin is None:
            return _USUAL % (len(body), body)
        return _USUAL_TO_PAGE % (origin, len(body), body)
    if origin is not None:
        headers += cors_headers(origin)
    if not keeps_alive:
        headers += ((b"connection", b"close"),)
    return b"%bcontent-type: %b\r\n%bcontent-length: %d\r\n\r\n%b" % (
        _STATUS_LINES[status],
        content_type,
        _lines(headers),
        len(body),
        body,
    )


_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_USUAL = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_USUAL_TO_PAGE = _USUAL.replace(b"content-length", _lines(cors_headers(b"%b")) + b"content-length")
