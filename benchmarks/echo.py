"""The floors of HTTP: servers that answer and do nothing else, each on Tailorbird's core.

    python -m benchmarks.echo {asgi,hot} PORT REQUEST_PATH ANSWER_FILE

`asgi` is uvicorn with a raw ASGI application: the body is read, and bytes of the answer's size go
back. `hot` is Tailorbird's own stack, its thin protocol under uvicorn, with a door that decodes the
body's JSON and encodes an answer's: what is left for a decision is the difference.
"""

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvicorn
from tests.serving import free_port

from benchmarks.load import LoadError, closed_loop, post
from benchmarks.machine import cores, pinned
from tailorbird.app.exchange import Exchange, Response
from tailorbird.app.http import HotProtocol, hot_protocol, uvicorn_config

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0
KINDS = ("asgi", "hot")

_Message = MutableMapping[str, Any]


class Echo(NamedTuple):
    """A running echo server."""

    pid: int
    port: int


@contextmanager
def echo(kind: str, path: str, answer: bytes, folder: Path) -> Iterator[Echo]:
    """Run an echo server on the server's core.

    Args:
        kind: One of `KINDS`.
        path: Where it is asked.
        answer: An answer of Tailorbird's, the size and shape to answer with.
        folder: Where to put `answer` for it.
    """
    file = folder / f"answer-{kind}.json"
    file.write_bytes(answer)
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.echo", kind, str(port), path, str(file)]
    with pinned(cores()[0]):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait(port, path)
        yield Echo(process.pid, port)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS_MAX)


def serve(kind: str, port: int, path: str, answer: bytes) -> None:
    """Serve until terminated."""
    protocol = _hot_protocol(path, answer) if kind == "hot" else "httptools"
    settings = uvicorn_config(
        _application(answer), protocol, host="127.0.0.1", port=port, log_level="warning"
    )
    uvicorn.Server(settings).run()


def _application(answer: bytes) -> Any:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
    ]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    body = {"type": "http.response.body", "body": answer}

    async def application(
        _scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        while (await receive()).get("more_body"):
            pass
        await send(start)
        await send(body)

    return application


def _hot_protocol(path: str, answer: bytes) -> type[HotProtocol]:
    content = msgspec.json.decode(answer)
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode

    def door(exchange: Exchange) -> Response:
        decode(exchange.body)
        return Response(200, encode(content))

    return hot_protocol({path.encode(): door})


def _wait(port: int, path: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            closed_loop(port, iter([post(path, b"{}", "key")]), 1.0, 1)
        except (OSError, LoadError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]).read_bytes())
