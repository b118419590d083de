"""Freshness: after an event is acknowledged, the very next decision knows of it.

    python -m benchmarks.freshness [--json] [--fast] [--check]

10,000 times, through HTTP: a view is sent and acknowledged, then a decision is asked for on another
connection, of a placement whose variant `fresh` is eligible only where the profile counts exactly
as many views as were acknowledged. 1,000 visitors, ten views each, 16 visitors at a time.

    stale             decisions that did not know of every acknowledged event: none
    event_to_decision from the acknowledgement's arrival to the decision's
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any, cast

import httptools
import numpy as np
import uvloop
from tests.serving import Server

from benchmarks import bodies
from benchmarks.load import HOST, OK, LoadError, post
from benchmarks.report import Figures, main
from benchmarks.serving import serving

CHECKS = 10_000
VIEWS_EACH = 10
AT_A_TIME = 16
ANSWER_SECONDS_MAX = 10.0

_PLACEMENT = {
    "key": "fresh",
    "holdout": 0.0,
    "variants": [
        {"id": "fresh", "rule": "profile.product_viewed_count == context.views"},
        {"id": "stale", "rule": "profile.product_viewed_count != context.views"},
    ],
}


def measure(folder: Path, *, is_fast: bool) -> Figures:  # noqa: ARG001 (it is fast always)
    """Return how many decisions were stale, and how soon they came."""
    with serving(folder) as own:
        own.must("PUT", "/admin/v1/placements/fresh", _PLACEMENT)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            started = time.perf_counter()
            found = runner.run(_visit_all(own))
            seconds = time.perf_counter() - started
    chosen, times = zip(*found, strict=True)
    p50, p99 = np.percentile(times, (50.0, 99.0))
    return {
        "checked": len(chosen),
        "stale": sum(choice != "fresh" for choice in chosen),
        "event_to_decision": {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3)},
        "checks_per_second": round(len(chosen) / seconds, 1),
    }


async def _visit_all(own: Server) -> list[tuple[str, float]]:
    """Return (variant, milliseconds) of every check."""
    visitors = iter(range(CHECKS // VIEWS_EACH))
    found: list[tuple[str, float]] = []

    async def work() -> None:
        events, decisions = await _Line.open(own.port), await _Line.open(own.port)
        for number in visitors:
            for views in range(1, VIEWS_EACH + 1):
                visitor = bodies.visitor_of(number)
                await events.ask(post("/v1/t", bodies.view(visitor), own.write_key))
                acknowledged = time.perf_counter()
                question = post("/v1/decide", _question(visitor, views), own.write_key)
                answer = await decisions.ask(question)
                found.append((_variant(answer), 1e3 * (time.perf_counter() - acknowledged)))
        events.close()
        decisions.close()

    await asyncio.gather(*(work() for _ in range(AT_A_TIME)))
    return found


def _question(visitor: str, views: int) -> bytes:
    body = {
        "visitor": {"anonymousId": visitor},
        "context": {"views": float(views)},
        "placements": [{"key": "fresh"}],
    }
    return json.dumps(body).encode()


def _variant(answer: dict[str, Any]) -> str:
    chosen: str = answer["decisions"][0]["choices"][0]["id"]
    return chosen


class _Line(asyncio.Protocol):
    """A connection on which one asks and reads the answer."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._body: list[bytes] = []
        self._answered: asyncio.Future[bytes]

    @classmethod
    async def open(cls, port: int) -> "_Line":
        """Return a new connection."""
        _, line = await asyncio.get_running_loop().create_connection(cls, HOST, port)
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        """Take in a part of the answer."""
        self._body.append(part)

    def on_message_complete(self) -> None:
        """Hand over the answer."""
        body, self._body = b"".join(self._body), []
        if self._parser.get_status_code() == OK:
            self._answered.set_result(body)
        else:
            self._answered.set_exception(LoadError(body.decode()))

    async def ask(self, request: bytes) -> Any:
        """Send a request and return the answer's JSON.

        Raises:
            LoadError: The status was not 200.
        """
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return json.loads(await asyncio.wait_for(self._answered, ANSWER_SECONDS_MAX))

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


if __name__ == "__main__":
    main("freshness", __doc__, measure)
