"""The protocol of the hot doors over real sockets, in this process, with doors that tests can hold back.

The hot doors and the ASGI application answer alike, but for the word that says which of them it was.
"""

import asyncio
import contextlib
import functools
import gc
import json
import re
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.app import http
from tailorbird.app.exchange import Exchange, Response, WhenDurable, json_response
from tailorbird.app.http import hang_up_on_the_late, hot_protocol, uvicorn_config
from tailorbird.errors import StorageError
from tailorbird.limits import REQUEST_SECONDS_MAX

SECONDS_MAX = 10.0
SETTLE_SECONDS = 0.1
LARGE_BYTES = 20_000_000  # More than sockets hold.
PREFLIGHT = b"OPTIONS /hot HTTP/1.1\r\nHost: x\r\nOrigin: https://shop.example\r\n\r\n"
COLD = b"GET /cold HTTP/1.1\r\nHost: x\r\n\r\n"


class Served:
    """A server of this process: how to reach it, and what its doors were asked."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port
        self.entered = 0
        self.answer: Callable[[Exchange], Any] = told

    def door(self, exchange: Exchange) -> Any:
        self.entered += 1
        return self.answer(exchange)

    @property
    def connections(self) -> set[Any]:
        return self.server.server_state.connections

    def sweep(self, later_seconds: float) -> None:
        hang_up_on_the_late(self.connections, asyncio.get_running_loop().time() + later_seconds)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def answer(self) -> tuple[int, Any]:
        """Return status and content of the next answer that is not preliminary."""
        head = await self.head()
        length = re.search(rb"content-length: (\d+)", head)
        content = await self.reader.readexactly(int(length[1]) if length else 0)
        return int(head[9:12]), json.loads(content) if content[:1] in b"{[" else content

    async def head(self) -> bytes:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), SECONDS_MAX)
        return head if head[9:12] != b"100" else await self.head()

    async def is_closed(self) -> bool:
        """Return whether the server has closed the connection, having said nothing more."""
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self.reader.read(1), SETTLE_SECONDS) == b""
        return False


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def told(exchange: Exchange, by: str = "hot") -> Response:
    return json_response(
        {
            "by": by,
            "path": exchange.path,
            "query": exchange.query_string.decode("latin-1"),
            "body": exchange.body.decode("latin-1"),
            "agent": exchange.text_header(b"user-agent"),
        }
    )


async def application(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    exchange = Exchange(
        scope["method"], scope["path"], scope["query_string"], dict(reversed(scope["headers"])), body
    )
    content = told(exchange, "cold").body + b" " * (LARGE_BYTES if exchange.path == "/large" else 0)
    length = (b"content-length", str(len(content)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": content})


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        doors = {b"/hot": lambda exchange: served.door(exchange)}  # noqa: PLW0108 (not made yet)
        server = _Server(uvicorn_config(application, hot_protocol(doors), log_config=None, **options))
        served = Served(server, listener.getsockname()[1])
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.01)
            yield served
        finally:
            server.should_exit = True
            await task


@contextlib.asynccontextmanager
async def connected(served: Served) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test in a loop like the server's."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test(*arguments, **named), 3 * SECONDS_MAX))

    return run


async def settled() -> None:
    """Give the server time to do what it should not."""
    await asyncio.sleep(SETTLE_SECONDS)


def post(body: bytes = b"{}", *lines: bytes, target: bytes = b"/hot") -> bytes:
    head = [b"POST %b HTTP/1.1" % target, b"Host: x", b"Content-Length: %d" % len(body), *lines]
    return b"\r\n".join([*head, b"", b""]) + body


def chunked(body: bytes) -> bytes:
    head = b"POST /hot HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [body[start : start + 7] for start in range(0, len(body), 7)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


# --- any requests, in any pieces ----------------------------------------------------------------------

BODIES = st.one_of(
    st.binary(max_size=40).map(lambda content: content.hex().encode()),
    st.sampled_from(
        [b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n", b"\r\n", b"0\r\n\r\n", b"x" * 5000]
    ),
)
REQUESTS = st.one_of(
    st.tuples(st.just("/hot"), st.just(""), BODIES),
    st.tuples(st.just("/hot"), st.sampled_from(["a=1", "writeKey=wk&b", "?", "HTTP/1.1"]), BODIES),
    st.tuples(st.just("/chunked"), st.just(""), BODIES),
    st.tuples(st.just("/expects"), st.just(""), BODIES),
    st.tuples(st.just("/offers"), st.just(""), BODIES),
    st.tuples(st.just("/cold"), st.just("b=2"), BODIES),
)


def sent_as(path: str, query: str, body: bytes) -> bytes:
    target = path.encode() + (b"?" + query.encode() if query else b"")
    if path == "/chunked":
        return chunked(body)
    if path == "/expects":
        return post(body, b"Expect: 100-continue")
    if path == "/offers":
        return post(body, b"x-first: 1", b"X-Empty:")
    return post(body, target=target)


@pytest.fixture(scope="module")
def loop_and_server() -> Iterator[tuple[asyncio.Runner, Served]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        context = serving()
        yield runner, runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


async def answers_to(served: Served, pieces: list[bytes], count: int) -> list[dict[str, Any]]:
    async with connected(served) as client:
        for piece in pieces:
            client.send(piece)
            for _ in range(3):  # The server runs in this loop, and reads the piece meanwhile.
                await asyncio.sleep(0)
        return [(await client.answer())[1] for _ in range(count)]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), requests=st.lists(REQUESTS, min_size=1, max_size=5))
def test_whatever_comes_in_whatever_pieces_is_answered_in_order(loop_and_server, data, requests):
    runner, served = loop_and_server
    stream = b"".join(sent_as(*request) for request in requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    answers = runner.run(answers_to(served, pieces, len(requests)))
    for (path, query, body), answer in zip(requests, answers, strict=True):
        assert answer["path"] == (path if path == "/cold" else "/hot")
        assert (answer["query"], answer["body"]) == (query, body.decode())


def test_a_request_may_be_cut_anywhere(loop_and_server):
    runner, served = loop_and_server
    sent = post(b'{"event":"Seen"}', b"User-Agent: x")
    for cut in range(1, len(sent)):
        (answer,) = runner.run(answers_to(served, [sent[:cut], sent[cut:]], 1))
        assert answer["body"] == '{"event":"Seen"}', f"cut at {cut}"
    pieces = [sent[i : i + 1] for i in range(len(sent))]
    (answer,) = runner.run(answers_to(served, pieces, 1))
    assert answer["body"] == '{"event":"Seen"}', "one byte at a time"


# --- which way ----------------------------------------------------------------------------------------


@in_loop
async def test_the_usual_request_takes_the_short_cut_also_in_pieces_and_behind_others():
    async with serving() as served, connected(served) as client:
        client.send(post(b"1"), post(b"2", target=b"/hot?a=b"), post(b"3", b"connection: keep-alive"))
        for body in "123":
            assert (await client.answer())[1] | {"query": ""} == {
                "by": "hot",
                "path": "/hot",
                "query": "",
                "body": body,
                "agent": None,
            }
        sent = post(b"x" * 100_000)
        for start in range(0, len(sent), 30_000):
            client.send(sent[start : start + 30_000])
            await settled()
        status, content = await client.answer()
        assert (status, content["by"], content["body"]) == (200, "hot", "x" * 100_000)


@pytest.mark.parametrize(
    "unusual",
    [
        pytest.param(PREFLIGHT, id="a preflight"),
        pytest.param(COLD, id="another path"),
        pytest.param(post(target=b"/hot/"), id="another path that begins alike"),
        pytest.param(chunked(b"{}"), id="a chunked body"),
        pytest.param(post(b"{}", b"Expect: 100-continue"), id="an expectation"),
        pytest.param(b"\r\n" + post(), id="an empty line"),
        pytest.param(b"POST /hot HTTP/1.1\r\nHost: x\r\n\r\n", id="no length"),
        pytest.param(post(b"{}", b"Cookie: " + b"c" * 60_000)[:100], id="half a head"),
    ],
)
@in_loop
async def test_what_is_unusual_goes_the_other_way_and_the_short_cut_is_found_again(unusual):
    async with serving() as served, connected(served) as client:
        for _ in range(3):
            client.send(post(b"before"))
            content = (await client.answer())[1]
            assert (content["by"], content["body"]) == ("hot", "before")
            client.send(unusual)
            if not unusual.endswith((b"\r\n", b"{}")):
                await settled()
                client.send(post(b"{}", b"Cookie: " + b"c" * 60_000)[100:])
            assert (await client.answer())[1]["by"] == "cold"
        assert served.entered == 3
        assert len(served.connections) == 1


@in_loop
async def test_an_offer_to_upgrade_is_no_detour():
    async with serving() as served, connected(served) as client:
        offer = (b"Connection: Upgrade, HTTP2-Settings", b"upGRADE: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
        client.send(post(b"1", *offer), post(b"2", *offer))
        for body in "12":
            content = (await client.answer())[1]
            assert (content["by"], content["body"]) == ("hot", body)


@pytest.mark.parametrize("cut", range(0, 14, 2))
@in_loop
async def test_an_offer_to_upgrade_may_come_in_two_pieces(cut):
    async with serving() as served, connected(served) as client:
        sent = post(b"1", b"Connection: Upgrade", b"Upgrade: h2c", b"X-Last: 1")
        begins = sent.index(b"\r\nUpgrade")
        client.send(sent[: begins + cut])
        await asyncio.sleep(0.02)
        client.send(sent[begins + cut :])
        assert (await client.answer())[1]["body"] == "1"
        client.send(post(b"2"))
        assert (await client.answer())[1]["body"] == "2"


@in_loop
async def test_an_offer_behind_another_request_is_refused_rather_than_misread():
    async with serving() as served, connected(served) as client:
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        client.send(COLD, post(smuggled, b"Connection: Upgrade", b"Upgrade: h2c"))
        assert (await client.answer())[0] == 400
        assert await client.is_closed()


@pytest.mark.parametrize("cut", range(1, 5))
@in_loop
async def test_the_end_of_a_head_may_come_in_two_pieces(cut):
    async with serving() as served, connected(served) as client:
        client.send(COLD[:-cut])
        await asyncio.sleep(0.02)
        for byte in COLD[-cut:]:
            client.send(bytes([byte]))
            await asyncio.sleep(0.005)
        assert (await client.answer())[1]["path"] == "/cold"


@in_loop
async def test_bodies_that_are_not_whole_have_a_bound_together(monkeypatch):
    monkeypatch.setattr(http, "ARRIVING_BYTES_MAX", 50_000)
    async with serving() as served, connected(served) as one, connected(served) as two:
        begun = post(b"x" * 40_000)[:-1]
        one.send(begun)
        await asyncio.sleep(0.02)
        two.send(begun)
        assert (await two.answer())[0] == 429
        assert await two.is_closed()
        one.send(b"x")
        assert (await one.answer())[0] == 200
        assert http.ARRIVING.total == 0
        one.send(begun)
        await asyncio.sleep(0.02)
        assert http.ARRIVING.total > 0
        one.writer.close()
        await asyncio.sleep(0.02)
        assert http.ARRIVING.total == 0


@in_loop
async def test_hot_and_cold_requests_in_one_packet_are_answered_in_order():
    async with serving() as served, connected(served) as client:
        client.send(post(b"1"), COLD, post(b"2"), PREFLIGHT, post(b"3"))
        answers = [(await client.answer())[1] for _ in range(5)]
        assert [answer["body"] for answer in answers] == ["1", "", "2", "", "3"]
        assert [answer["path"] for answer in answers] == ["/hot", "/cold", "/hot", "/hot", "/hot"]
        client.send(post(b"4"))
        assert (await client.answer())[1]["by"] == "hot"


@pytest.mark.parametrize("name", [b"User-Agent", b"user-agent", b"USER-AGENT", b"uSER-aGENT"])
@in_loop
async def test_the_first_header_of_a_name_counts_however_it_is_written(name):
    async with serving() as served, connected(served) as client:
        client.send(post(b"", name + b": first", b"User-agent: second", b"X-Empty:", b"USER-AGENT: third"))
        assert (await client.answer())[1]["agent"] == "first"


@in_loop
async def test_a_page_of_another_origin_may_read_every_answer():
    async with serving() as served, connected(served) as client:
        refused = Response(401, b"no", b"text/plain", ((b"www-authenticate", b"Basic"),))
        for served.answer in (told, lambda _: refused):
            client.send(post(b"{}", b"oRIGIN: https://shop.example"))
            head = await client.head()
            assert b"\r\naccess-control-allow-origin: https://shop.example\r\nvary: Origin\r\n" in head
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            await client.reader.readexactly(int(length[1]))
        assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\ncontent-type: text/plain\r\n")
        assert b"\r\nwww-authenticate: Basic\r\n" in head


@pytest.mark.parametrize(
    "lines", [b"Cookie: " + b"c" * 66_000, b"\r\n".join(b"X-%d: 1" % i for i in range(12_000))]
)
@pytest.mark.parametrize("line", [b"POST /hot HTTP/1.1", b"GET /cold HTTP/1.1"])
@in_loop
async def test_a_head_that_is_too_long_is_refused(line, lines):
    async with serving() as served, connected(served) as client:
        client.send(post())
        assert (await client.answer())[0] == 200
        client.send(line, b"\r\nContent-Length: 0\r\n", lines, b"\r\n\r\n")
        # The server closes with bytes unread, which may reset the connection before its answer is read.
        with contextlib.suppress(ConnectionError):
            assert (await client.answer())[0] == 400
        await settled()
        assert not served.connections
        assert served.entered == 1


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"\r\n", id="empty lines"),
        pytest.param(b"GET /" + b"c" * 1000, id="a path"),
        pytest.param(b"GET /cold HTTP/1.1\r\nX-Name", id="a name"),
        pytest.param(b"GET /cold HTTP/1.1\r\nCookie: c", id="a value"),
        pytest.param(post()[:-6] + b"\r\nCookie: c", id="a value of a hot request"),
        pytest.param(chunked(b"{}")[:-2] + b"X-Trailer: c", id="a trailer"),
        pytest.param(chunked(b"{}")[:-5] + b"0;extension=c", id="an extension of a chunk"),
    ],
)
@in_loop
async def test_what_goes_on_without_end_is_refused(begun):
    async with serving() as served, connected(served) as client:
        more = b"\r\n" if begun == b"\r\n" else b"c"
        client.send(begun)
        await settled()
        sent_bytes = 0
        while served.connections and sent_bytes < 500_000:
            client.send(more * 10_000)
            sent_bytes += 10_000 * len(more)
            await asyncio.sleep(0.01)
        assert sent_bytes < 100_000


# --- waiting ------------------------------------------------------------------------------------------


def held_back(future: "asyncio.Future[None]", exchange: Exchange, *, is_task: bool) -> Any:
    async def later() -> Response:
        await future
        return told(exchange)

    return later() if is_task else WhenDurable(future, told(exchange))


@pytest.mark.parametrize("is_task", [False, True])
@in_loop
async def test_what_comes_behind_a_request_that_waits_is_answered_after_it(is_task):
    async with serving() as served, connected(served) as client:
        future = asyncio.get_running_loop().create_future()
        served.answer = lambda exchange: held_back(future, exchange, is_task=is_task)
        client.send(post(b"1"), post(b"2"), COLD)
        await settled()
        client.send(post(b"3"))
        await settled()
        assert served.entered == 1
        future.set_result(None)
        assert [(await client.answer())[1]["body"] for _ in range(4)] == ["1", "2", "", "3"]


@in_loop
async def test_many_who_wait_for_one_turn_are_all_answered():
    async with serving() as served, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(served)) for _ in range(20)]
        future = asyncio.get_running_loop().create_future()
        served.answer = lambda exchange: held_back(future, exchange, is_task=False)
        for number, client in enumerate(clients):
            client.send(post(b"%d" % number))
        clients[7].writer.transport.abort()
        await settled()
        assert served.entered == 20
        future.set_exception(StorageError("the disk is full"))
        for client in clients[:7] + clients[8:]:
            assert (await client.answer())[0] == 503


@in_loop
async def test_what_waits_unread_is_bounded():
    async with serving() as served, connected(served) as client:
        future = asyncio.get_running_loop().create_future()
        served.answer = lambda exchange: held_back(future, exchange, is_task=False)
        count = 20_000
        client.send(post(b"first"), *[post(b"x" * 1000)] * count)
        for _ in range(10):
            await settled()
        unsent = client.writer.transport.get_write_buffer_size()
        assert unsent > 1_000 * count // 4, "sockets hold some, the server does not take the rest"
        assert served.entered == 1
        future.set_result(None)
        for _ in range(count + 1):
            assert (await client.answer())[0] == 200


@in_loop
async def test_who_does_not_take_answers_is_not_asked_for_more_requests():
    async with serving() as served, connected(served) as client:
        large = "x" * 100_000
        served.answer = lambda _exchange: json_response(large)
        client.writer.transport.pause_reading()
        client.send(*[post()] * 2_000)
        await settled()
        await settled()
        assert served.entered < 1_000
        client.writer.transport.resume_reading()
        for _ in range(2_000):
            assert b"content-length: 100002" in await client.head()
            await client.reader.readexactly(100_002)
        assert served.entered == 2_000


@in_loop
async def test_who_does_not_take_an_answer_that_is_not_hot_is_not_asked_for_more_either():
    async with serving() as served, connected(served) as client:
        client.writer.transport.pause_reading()
        client.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await settled()
        client.send(*[post()] * 10)
        await settled()
        assert served.entered == 0
        client.writer.transport.resume_reading()
        for _ in range(11):
            assert (await client.answer())[0] == 200
        client.send(post())
        assert (await client.answer())[1]["by"] == "hot"


@in_loop
async def test_a_client_that_leaves_while_it_waits_is_forgotten():
    async with serving() as served:
        future = asyncio.get_running_loop().create_future()
        served.answer = lambda exchange: held_back(future, exchange, is_task=False)
        async with connected(served) as client:
            client.send(post(b"1"))
            await settled()
            client.writer.transport.abort()
        await settled()
        assert not served.connections
        future.set_result(None)
        await settled()


@pytest.mark.parametrize("sent", [b"", post(), COLD, COLD + post(), post()[:-1], COLD[:-1]])
@in_loop
async def test_a_connection_leaves_nothing_in_memory_that_only_a_collection_would_find(sent):
    gc.collect()
    gc.disable()
    try:
        async with serving() as served:
            async with connected(served) as client:
                client.send(sent)
                await settled()
                left = [weakref.ref(connection) for connection in served.connections]
                assert left
            await settled()
            assert [reference() for reference in left] == [None] * len(left)
    finally:
        gc.enable()


# --- ends ---------------------------------------------------------------------------------------------


@in_loop
async def test_who_asks_to_close_is_answered_and_closed():
    async with serving() as served, connected(served) as client:
        client.send(post(b"1", b"Connection: close"), post(b"2"))
        assert b"\r\nconnection: close\r\n" in await client.head()
        assert (await client.reader.read()).endswith(b"}")
        assert served.entered == 1
        assert not served.connections


@in_loop
async def test_a_connection_at_rest_is_closed_after_a_while():
    async with serving(timeout_keep_alive=60) as served, contextlib.AsyncExitStack() as stack:
        one, two, waiting = [await stack.enter_async_context(connected(served)) for _ in range(3)]
        one.send(post())
        two.send(COLD)
        assert (await one.answer())[0] == (await two.answer())[0] == 200
        future = asyncio.get_running_loop().create_future()
        served.answer = lambda exchange: held_back(future, exchange, is_task=False)
        waiting.send(post())
        await settled()
        served.sweep(59)
        assert not await one.is_closed()
        assert not await two.is_closed()
        served.sweep(61)
        assert await one.is_closed()
        assert await two.is_closed()
        assert not await waiting.is_closed()
        future.set_result(None)
        assert (await waiting.answer())[0] == 200


@pytest.mark.parametrize("sent", [b"", post()[:20], post()[:-1], COLD[:-1], chunked(b"{}")[:-2]])
@in_loop
async def test_a_request_that_does_not_arrive_is_hung_up_on(sent):
    async with serving() as served, connected(served) as client:
        client.send(sent)
        await settled()
        served.sweep(REQUEST_SECONDS_MAX - 1)
        assert not await client.is_closed()
        served.sweep(REQUEST_SECONDS_MAX + 1)
        assert await client.is_closed()
        assert not served.connections


@in_loop
async def test_who_never_takes_the_last_answer_is_hung_up_on():
    async with serving(timeout_keep_alive=60) as served, connected(served) as client:
        large = json_response("x" * LARGE_BYTES)
        served.answer = lambda _exchange: large
        client.writer.transport.pause_reading()
        client.send(post(b"{}", b"Connection: close"))
        await settled()
        assert len(served.connections) == 1
        served.sweep(61)
        await settled()
        assert not served.connections


@in_loop
async def test_at_the_end_requests_under_way_are_answered_and_others_closed():
    async with serving() as served, contextlib.AsyncExitStack() as stack:
        waiting, arriving, idle, used = [await stack.enter_async_context(connected(served)) for _ in range(4)]
        used.send(COLD)
        assert (await used.answer())[0] == 200
        future = asyncio.get_running_loop().create_future()
        served.answer = lambda exchange: held_back(future, exchange, is_task=False)
        waiting.send(post(b"1"), post(b"2"))
        arriving.send(post(b"3")[:-1])
        await settled()
        served.server.should_exit = True
        await settled()
        await settled()
        assert await idle.is_closed()
        assert await used.is_closed()
        arriving.send(b"3")
        await settled()
        future.set_result(None)
        for client in (waiting, arriving):
            head = await client.head()
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nconnection: close\r\n" in head
            assert (await client.reader.read()).count(b"{") == 1
        assert served.entered == 2


@in_loop
async def test_connections_beyond_the_limit_are_refused_and_the_others_served():
    async with serving(limit_concurrency=3) as served, contextlib.AsyncExitStack() as stack:
        one, two, three = [await stack.enter_async_context(connected(served)) for _ in range(3)]
        for client in (one, two, one):
            client.send(post())
            assert (await client.answer())[0] == 200
        three.send(post())
        assert (await three.answer())[0] == 503
        assert await three.is_closed()
        async with connected(served) as four:
            await settled()
            two.writer.close()
            await settled()
            four.send(post(), post())
            assert (await four.answer())[0] == 200
