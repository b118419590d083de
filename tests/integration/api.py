"""A running installation as the tests see it: its doors by name, and the bytes of its sockets."""

import itertools
import json
import re
import socket
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import httpx
from tests.serving import Server

SECONDS_MAX = 20.0
Json = dict[str, Any]


class Api:
    """The doors of one server, with the key that each needs."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.write = _client(server, server.write_key)
        self.back_end = _client(server, server.server_key)
        self.admin = _client(server, server.admin_key)
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in (self.write, self.back_end, self.admin):
            client.close()

    def name(self, prefix: str) -> str:
        """Return a name that nothing else has."""
        return f"{prefix}-{next(self._numbers)}-{time.time_ns() % 10**9}"

    # --- events ---

    def send(self, *events: Json, gpc: bool = False) -> Json:
        """Send events that must be taken in; those without a message id get one."""
        named = [{"messageId": self.name("m")} | event for event in events]
        headers = {"sec-gpc": "1"} if gpc else {}
        answer = self.write.post("/v1/batch", json={"batch": named}, headers=headers)
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        assert body == {"success": True}, body
        return body

    def track(self, event: str, *, gpc: bool = False, **fields: Any) -> None:
        """Send one `track` call: identifiers and `timestamp` by name, all else as properties."""
        outer = ("userId", "anonymousId", "timestamp", "messageId", "context")
        call = {name: fields.pop(name) for name in outer if name in fields}
        self.send({"type": "track", "event": event, **call, "properties": fields}, gpc=gpc)

    def identify(self, traits: Json | None = None, **who: str) -> None:
        """Send one `identify` call."""
        self.send({"type": "identify", "traits": traits or {}, **who})

    def rejects(self, after: int = -1) -> list[Json]:
        """Return the refused events with a larger offset than `after`."""
        found: list[Json] = []
        while True:
            page = self.admin.get(
                "/admin/v1/rejects",
                params={"after": after, "limit": 1000} if after >= 0 else {"limit": 1000},
            )
            rows = page.json()["rejects"]
            found += rows
            if len(rows) < 1000:
                return found
            after = rows[-1]["offset"]

    # --- decisions ---

    def decide(self, *keys: str | Json, key: str = "server", **request: Any) -> Json:
        """Ask for decisions; identifiers by name are the visitor's, all else is the request's."""
        visitor = {name: request.pop(name) for name in ("userId", "anonymousId") if name in request}
        placements = [{"key": one} if isinstance(one, str) else one for one in keys]
        client = {"write": self.write, "server": self.back_end}[key]
        headers = request.pop("headers", {})
        body = {"visitor": visitor, "placements": placements, "deadlineMs": 5000, **request}
        answer = client.post("/v1/decide", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def choose(self, key: str | Json, **request: Any) -> Json:
        """Return the decision of one placement."""
        decision: Json = self.decide(key, **request)["decisions"][0]
        return decision

    def chosen(self, key: str | Json, **request: Any) -> list[str]:
        """Return the ids that one placement shows."""
        return [choice["id"] for choice in self.choose(key, **request)["choices"]]

    def logged(self, decision_id: str) -> Json | None:
        """Return a decision as it was logged, None where none is known by that id."""
        answer = self.admin.get(f"/admin/v1/decisions/{decision_id}")
        assert answer.status_code in (200, 404), answer.text
        return answer.json() if answer.status_code == 200 else None

    # --- configuration ---

    def declare(self, prefix: str = "p", **placement: Any) -> str:
        """Declare a placement with a key of its own and no holdout unless asked for; return the key."""
        key = self.name(prefix)
        answer = self.admin.put(f"/admin/v1/placements/{key}", json={"holdout": 0.0, **placement})
        assert answer.status_code == 201, answer.text
        return key

    def stock(self, *items: Json) -> None:
        """Put items into the catalogue."""
        answer = self.admin.put("/admin/v1/items", json=list(items))
        assert answer.status_code == 200, answer.text

    def learned(self, key: str) -> dict[str, Json]:
        """Return what a placement's policy has learned, by arm."""
        answer = self.admin.get(f"/admin/v1/placements/{key}/policy")
        assert answer.status_code == 200, answer.text
        return {arm["id"]: arm for arm in answer.json()["arms"]}

    def profile(self, identifier: str) -> Json | None:
        """Return what is known of a person, None where nobody is known by that name."""
        answer = self.admin.get(f"/admin/v1/profiles/{identifier}")
        assert answer.status_code in (200, 404), answer.text
        return answer.json() if answer.status_code == 200 else None

    def ready(self) -> Json:
        """Return what the server says of its health."""
        found: Json = self.admin.get("/readyz").json()
        return found

    # --- bytes ---

    def talk(self, sent: bytes, *, shut: bool = False, seconds: float = 5.0) -> bytes:
        """Send bytes on a connection of their own; return all that comes back until it ends or rests."""
        with socket.create_connection(("127.0.0.1", self.server.port), seconds) as connection:
            for start in range(0, len(sent), 65536):
                try:
                    connection.sendall(sent[start : start + 65536])
                except (BrokenPipeError, ConnectionResetError):
                    break
            if shut:
                connection.shutdown(socket.SHUT_WR)
            return _heard(connection)


def request(method: str, path: str, body: bytes = b"", *headers: str, version: str = "1.1") -> bytes:
    """Return the bytes of a request with a length, and what else is given."""
    lines = [
        f"{method} {path} HTTP/{version}",
        "Host: shop.example",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def statuses(answer: bytes) -> list[int]:
    """Return the status of each answer in a stream of them."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


def encoded(value: Any) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value).encode()


def in_batches(events: list[Json], count: int) -> Iterable[list[Json]]:
    """Yield `events` in slices of `count`."""
    for start in range(0, len(events), count):
        yield events[start : start + count]


def _client(server: Server, key: str) -> httpx.Client:
    return httpx.Client(
        base_url=server.url,
        timeout=SECONDS_MAX,
        headers={"authorization": f"Bearer {key}"},
        trust_env=False,
    )


def _heard(connection: socket.socket) -> bytes:
    connection.settimeout(1.0)
    heard = b""
    try:
        while part := connection.recv(65536):
            heard += part
            connection.settimeout(0.3)
    except (TimeoutError, ConnectionResetError):
        pass
    return heard
