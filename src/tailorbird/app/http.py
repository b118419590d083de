"""The thin way in for hot doors: uvicorn's own HTTP protocol, answered without the ASGI machinery.

uvicorn parses, keeps connections alive, applies back-pressure and shuts down gracefully; ASGI's task,
scope and message dictionaries then cost two thirds of a small request (see docs/adr/0003). For a `POST`
to a hot door this protocol collects the body and calls the door at once. Everything else, pipelined
and unusual requests included, goes uvicorn's normal way and reaches the same doors through Starlette.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tailorbird.app.exchange import Answer, Exchange, Response, WhenDurable, problem
from tailorbird.errors import Fault, InvalidInputError
from tailorbird.limits import BODY_BYTES_MAX, HEADER_BYTES_MAX

Door = Callable[[Exchange], Answer]
FindDoor = Callable[[bytes], Door | None]

_UPGRADE = re.compile(rb"(\r\n)upgrade:", re.IGNORECASE)
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


def cors_headers(origin: bytes | None) -> bytes:
    """Return the header lines that let a page of any origin read an answer."""
    if origin is None:
        return b""
    return (
        b"access-control-allow-origin: " + origin + b"\r\nvary: Origin\r\n"
        b"access-control-allow-credentials: true\r\n"
        b"access-control-expose-headers: ETag, Retry-After\r\n"
    )


class _HotCycle:
    """A request on its way through a hot door, in the shape that the base protocol expects of one."""

    __slots__ = (
        "body",
        "body_bytes",
        "disconnected",
        "door",
        "keep_alive",
        "message_event",
        "response_complete",
    )

    def __init__(self, door: Door, *, keep_alive: bool) -> None:
        self.door = door
        self.keep_alive = keep_alive
        self.body: list[bytes] = []
        self.body_bytes = 0
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NOTHING_WAITS


class _NothingWaits:
    def set(self) -> None:
        """Wake nobody: no task waits for a hot request's body."""


_NOTHING_WAITS = _NothingWaits()


class HotProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a short cut for hot doors."""

    find_door: FindDoor
    """Which door a path leads to, None for the others; set by the server on a subclass."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection."""
        super().connection_made(cast("asyncio.Transport", transport))
        self.hot: _HotCycle | None = None
        self.header_bytes = 0
        self.is_in_body = False
        self.started: float | None = self.loop.time()
        """When the request at hand began to arrive; None between requests. Read by the sweeper."""

    def data_received(self, data: bytes) -> None:
        """Take in bytes. An offer to upgrade is passed over, as RFC 9110 section 7.8 allows.

        Java's client offers h2c with every plain request; the parser would take the body for the new
        protocol and lose it. The header's name is changed for another of the same length.
        """
        if not self.is_in_body and b"pgrade" in data:
            head, end, body = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(rb"\1x-asked:", head) + end + body
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin a request; the ASGI scope is made only where it is needed."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.header_bytes = 0
        self.hot = None
        self.started = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Take in a part of the request target."""
        self.header_bytes += len(url)
        self._check_header_bytes()
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header, up to the limit of all of them."""
        self.header_bytes += len(name) + len(value)
        self._check_header_bytes()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Choose the way: the short cut, or uvicorn's own."""
        self.is_in_body = True
        if self._is_free() and self.parser.get_method() == b"POST" and not self.expect_100_continue:
            path, _, _ = self.url.partition(b"?")
            door = self.find_door(path)
            if (
                door is not None
                and self.parser.get_http_version() == "1.1"
                and not self.parser.should_upgrade()
            ):
                self.hot = _HotCycle(door, keep_alive=self.parser.should_keep_alive())
                self.cycle = cast("Any", self.hot)
                return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers = headers
        self.scope["headers"] = headers
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body."""
        hot = self.hot
        if hot is None:
            super().on_body(body)
            return
        hot.body_bytes += len(body)
        if hot.body_bytes <= BODY_BYTES_MAX:
            hot.body.append(body)

    def on_message_complete(self) -> None:
        """Call the door."""
        self.started = None
        self.is_in_body = False
        hot = self.hot
        if hot is None:
            super().on_message_complete()
            return
        self.hot = None
        path, _, query = self.url.partition(b"?")
        if hot.body_bytes > BODY_BYTES_MAX:
            hot.keep_alive = False
            self._answer(hot, _TOO_LARGE, None)
            return
        body = hot.body[0] if len(hot.body) == 1 else b"".join(hot.body)
        exchange = Exchange("POST", path.decode("latin-1"), query, self.headers, body)
        result = hot.door(exchange)
        if isinstance(result, Response):
            self._answer(hot, result, exchange.header(b"origin"))
        elif isinstance(result, WhenDurable):
            origin = exchange.header(b"origin")
            result.durable.add_done_callback(lambda _: self._answer(hot, result.settled(), origin))
        else:
            task = self.loop.create_task(self._finish(hot, result, exchange.header(b"origin")))
            self.tasks.add(cast("Any", task))
            task.add_done_callback(cast("Any", self.tasks.discard))

    async def _finish(self, hot: _HotCycle, result: Awaitable[Response], origin: bytes | None) -> None:
        self._answer(hot, await result, origin)

    def _answer(self, hot: _HotCycle, response: Response, origin: bytes | None) -> None:
        hot.response_complete = True
        if hot.disconnected or self.transport.is_closing():
            return
        lines = [
            _STATUS_LINES[response.status],
            b"content-type: ",
            response.content_type,
            b"\r\ncontent-length: ",
            str(len(response.body)).encode(),
            b"\r\n",
        ]
        for name, value in response.headers:
            lines += [name, b": ", value, b"\r\n"]
        if origin is not None:
            lines.append(cors_headers(origin))
        if not hot.keep_alive:
            lines.append(b"connection: close\r\n")
        lines += [b"\r\n", response.body]
        self.transport.write(b"".join(lines))
        if not hot.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _is_free(self) -> bool:
        """Return whether the request before this one on the connection is answered."""
        return self.cycle is None or self.cycle.response_complete

    def _check_header_bytes(self) -> None:
        if self.header_bytes > HEADER_BYTES_MAX:
            raise ValueError(f"headers of at most {HEADER_BYTES_MAX} bytes")


_TOO_LARGE = problem(InvalidInputError(Fault("body", f"at most {BODY_BYTES_MAX} bytes")))
