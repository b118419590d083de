"""A recording reverse proxy between a real client and the server, that can lose answers.

It passes each request and each answer on byte for byte and keeps what it saw, so that a test can
say what a client really sent (gzip, preflight, `If-None-Match`) and what it was really answered. On
demand it does what networks do: the server takes a request and the answer is lost, or a gateway
says `429` before the server sees anything.
"""

import http.client
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

UPSTREAM_SECONDS_MAX = 15.0
BODY_BYTES_MAX = 16 * 1024 * 1024
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"}


@dataclass(frozen=True)
class Exchange:
    """One request as it came from the client, and the answer that the client was given.

    Header names are in lower case. `status` is 0 where the answer was lost on purpose; `seconds` is
    how long the server took.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer_headers: dict[str, str]
    answer: bytes
    seconds: float


@dataclass(frozen=True)
class LostAnswer:
    """The server gets the request and answers; the connection breaks before the client hears it."""


@dataclass(frozen=True)
class Refusal:
    """The client is answered in the server's place; the server sees nothing."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


class RecordingProxy:
    """A proxy on a free port of 127.0.0.1, for one test."""

    def __init__(self, upstream: str) -> None:
        self.exchanges: list[Exchange] = []
        self._faults: deque[LostAnswer | Refusal] = deque()
        self._lock = threading.Lock()
        self._upstream = urlsplit(upstream).netloc
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._listener = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._listener.daemon_threads = True
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Return the address that clients are given in the server's place."""
        return f"http://127.0.0.1:{self._listener.server_port}"

    def fail_next(self, *faults: LostAnswer | Refusal) -> None:
        """Let the next POST requests meet these faults, one each."""
        self._faults.extend(faults)

    def seen(self, method: str, path: str = "", at_least: int = 0) -> list[Exchange]:
        """Return the exchanges of a method whose path begins with `path`, oldest first.

        An exchange is kept when its answer has gone out, which whoever looks at the server may not have
        waited for: hence `at_least` so many are waited for.
        """
        until = time.monotonic() + UPSTREAM_SECONDS_MAX
        while True:
            with self._lock:
                kept = tuple(self.exchanges)
            found = [each for each in kept if each.method == method and each.path.startswith(path)]
            if len(found) >= at_least or time.monotonic() > until:
                return found
            time.sleep(0.01)

    def close(self) -> None:
        """Stop listening; requests under way end with the process."""
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join(UPSTREAM_SECONDS_MAX)

    def next_fault(self, method: str) -> LostAnswer | Refusal | None:
        """Take the fault that a request of this method is to meet."""
        with self._lock:
            return self._faults.popleft() if self._faults and method == "POST" else None

    def keep(self, exchange: Exchange) -> None:
        """Add what was seen."""
        with self._lock:
            self.exchanges.append(exchange)

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask the server, and return its status, headers and body as they came."""
        connection = http.client.HTTPConnection(self._upstream, timeout=UPSTREAM_SECONDS_MAX)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, _lowered(answer.getheaders()), answer.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    proxy: ClassVar[RecordingProxy]
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # An idle keep-alive connection may not hold a thread for good.

    def _serve(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), BODY_BYTES_MAX))
        headers = _lowered(self.headers.items())
        fault = self.proxy.next_fault(self.command)
        started = time.monotonic()
        if isinstance(fault, Refusal):
            status, answer_headers, answer = fault.status, fault.headers, b""
        else:
            passed = {name: value for name, value in headers.items() if name not in HOP_BY_HOP}
            status, answer_headers, answer = self.proxy.forward(self.command, self.path, passed, body)
        if isinstance(fault, LostAnswer):
            status = 0
        asked = (self.command, self.path, headers, body)
        seconds = time.monotonic() - started
        self.proxy.keep(Exchange(*asked, status, answer_headers, answer, seconds))
        if status == 0:
            self.close_connection = True
            return
        self._answer(status, answer_headers, answer)

    def _answer(self, status: int, headers: dict[str, str], answer: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name not in HOP_BY_HOP:
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if status not in (204, 304):
            self.wfile.write(answer)

    do_GET = do_POST = do_OPTIONS = _serve  # noqa: N815 - names that the library calls.

    def log_message(self, *_said: object) -> None:
        """Say nothing: what was seen is in `exchanges`."""


def _lowered(headers: object) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}
