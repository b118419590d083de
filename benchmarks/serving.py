"""A Tailorbird on a core of its own, with what the benchmarks ask of it besides requests."""

import http.client
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.serving import Server

from benchmarks import bodies
from benchmarks.load import Run, closed_loop
from benchmarks.machine import cores, cpu_seconds, pinned
from tailorbird.limits import CHECKPOINT_SECONDS

SETTLE_SECONDS_MAX = 2 * CHECKPOINT_SECONDS  # One begins within that time and ends within some more.

_BEGUN_SECONDS = CHECKPOINT_SECONDS + 0.5  # By then a checkpoint has begun.
_STEP_SECONDS = 0.5
_IDLE_SHARE = 0.05
_SEED_BATCH = 500
_SEED_CONNECTIONS = 4
_SEED_SECONDS_MAX = 600.0
_ITEMS_PER_CALL = 1_000
_TRIES_MAX = 60
_ANSWER_SECONDS_MAX = 30.0


class Costed(NamedTuple):
    """A run with what it cost the server's process (user and system time of all its threads)."""

    run: Run
    cpu_us: float
    """CPU microseconds a request, while the run lasted."""
    busy: float
    """The share of the run that the process was on a core; a saturated server's is near 1."""

    def figures(self) -> dict[str, float]:
        """Return the run's figures with the costs."""
        costs = {"cpu_us_per_request": round(self.cpu_us, 1), "busy": round(self.busy, 2)}
        return self.run.figures() | costs


@contextmanager
def serving(folder: Path, arguments: Sequence[str] = ()) -> Iterator[Server]:
    """Run a server on its core, with this process on the other one."""
    own = Server(folder / "data", arguments=arguments)
    with pinned(cores()[1]):
        start(own)
        try:
            yield own
        finally:
            own.stop()


def start(own: Server) -> None:
    """Start a server, with all its threads on its core."""
    with pinned(cores()[0]):
        own.start()


def declare(own: Server, placements: list[dict[str, Any]]) -> None:
    """Write the catalogue and the placements."""
    items = bodies.items()
    for at in range(0, len(items), _ITEMS_PER_CALL):
        own.must("PUT", "/admin/v1/items", items[at : at + _ITEMS_PER_CALL])
    for placement in placements:
        own.must("PUT", f"/admin/v1/placements/{placement['key']}", placement)


def seed(own: Server, visitors: int, events_each: int) -> Run:
    """Send `events_each` events of every visitor in batches, and return when all are answered."""
    order = itertools.islice(bodies.spread(visitors), visitors * events_each)
    requests = bodies.batches(order, _SEED_BATCH, own.write_key)
    run = closed_loop(own.port, requests, _SEED_SECONDS_MAX, _SEED_CONNECTIONS)
    assert not run.errors, f"{run.errors} batches were refused"
    return run


def seed_patiently(own: Server, visitors: int, events_each: int) -> None:
    """Send as `seed` does, but wait when told to: what changes faster than the disk takes it is held up."""
    order = itertools.islice(bodies.spread(visitors), visitors * events_each)
    connection = http.client.HTTPConnection("127.0.0.1", own.port, timeout=_ANSWER_SECONDS_MAX)
    headers = {"Authorization": f"Bearer {own.write_key}"}
    while numbers := list(itertools.islice(order, _SEED_BATCH)):
        for _ in range(_TRIES_MAX):
            connection.request("POST", "/v1/batch", bodies.batch_body(numbers), headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != http.HTTPStatus.TOO_MANY_REQUESTS:
                break
            time.sleep(float(answer.headers["Retry-After"]))
        assert answer.status == http.HTTPStatus.OK, answer.status
    connection.close()


def log_end(own: Server) -> int:
    """Return how many records the log has had: events, decisions, and what operators wrote."""
    return int(own.must("GET", "/readyz")["dependencies"]["log"]["end"])


def costed(pid: int, act: Callable[[], Run]) -> Costed:
    """Run `act` and return what it cost the process `pid`."""
    before = cpu_seconds(pid)
    run = act()
    used = cpu_seconds(pid) - before
    return Costed(run, 1e6 * used / len(run.latencies_ms), used / run.seconds)


def settle(pid: int) -> float:
    """Wait until the process has nothing left to do; return the CPU seconds that it used meanwhile.

    What a run changed is written down by a checkpoint that begins some seconds later.
    """
    before = cpu_seconds(pid)
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    time.sleep(_BEGUN_SECONDS)
    while time.monotonic() < deadline:
        used = cpu_seconds(pid)
        time.sleep(_STEP_SECONDS)
        if cpu_seconds(pid) - used < _IDLE_SHARE * _STEP_SECONDS:
            break
    return cpu_seconds(pid) - before
