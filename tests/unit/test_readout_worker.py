"""The readout worker, with real child processes."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from tailorbird.errors import OverloadedError
from tailorbird.measure.query import PlacementMoments, ReadoutQuery
from tailorbird.measure.readout import readouts
from tailorbird.measure.worker import ReadoutWorker
from tailorbird.stats.moments import UnitMoments, UnitTotals, add_unit

T = TypeVar("T")
PATIENCE_SECONDS = 60.0  # For a loaded machine; each of these tests takes about two.


def query(as_of: float = 1_700_000_000.0) -> ReadoutQuery:
    personalized, holdout = UnitMoments(), UnitMoments()
    for unit in range(90):
        add_unit(personalized, UnitTotals(2, 2, unit % 3 == 0, 7.5 * (unit % 3 == 0), unit % 3 == 0))
    for unit in range(10):
        add_unit(holdout, UnitTotals(2, 2, unit % 4 == 0, 7.5 * (unit % 4 == 0), unit % 4 == 0))
    return ReadoutQuery(as_of, (PlacementMoments("hero", 0.1, personalized, holdout),))


def run(use: Callable[[ReadoutWorker], Awaitable[T]], worker: ReadoutWorker | None = None) -> T:
    """Run `use` with a worker, and close the worker whatever happens."""
    chosen = worker or ReadoutWorker(PATIENCE_SECONDS)

    async def main() -> T:
        try:
            return await use(chosen)
        finally:
            await chosen.close()

    before = set(multiprocessing.active_children())
    result = asyncio.run(main())
    assert set(multiprocessing.active_children()) <= before, "close leaves no child"
    return result


def child() -> int:
    """Return the process id of the only child."""
    (process,) = multiprocessing.active_children()
    assert process.pid is not None
    return process.pid


def test_the_child_answers_what_the_pure_function_does_and_is_asked_once() -> None:
    async def use(worker: ReadoutWorker) -> None:
        assert not multiprocessing.active_children(), "nothing starts before the first question"
        first, second = await asyncio.gather(worker.ask(query()), worker.ask(query()))
        assert first == readouts(query())
        assert second is first
        assert await worker.ask(query()) is first
        pid = child()
        other = await worker.ask(query(1_600_000_000.0))
        assert other.as_of == "2020-09-13T12:26:40.000Z"
        assert child() == pid

    run(use)


def test_a_child_that_died_is_replaced() -> None:
    async def use(worker: ReadoutWorker) -> None:
        first = await worker.ask(query())
        pid = child()
        os.kill(pid, signal.SIGKILL)
        again = await worker.ask(query(1_700_000_001.0))
        assert again.readouts == first.readouts
        assert child() != pid

    run(use)


def test_a_child_that_dies_over_its_question_is_given_up() -> None:
    async def use(worker: ReadoutWorker) -> None:
        asked = asyncio.ensure_future(worker.ask(query()))
        for _ in range(2):
            while not (children := multiprocessing.active_children()):
                await asyncio.sleep(0.01)
            victim = children[0]
            victim.kill()
            while victim.is_alive():
                await asyncio.sleep(0.01)
        with pytest.raises(OverloadedError, match="died twice"):
            await asked

    run(use)


def test_a_wait_ends_and_so_does_a_child_that_takes_too_long() -> None:
    async def use(worker: ReadoutWorker) -> None:
        with pytest.raises(OverloadedError, match=r"longer than 0\.05 s"):
            await worker.ask(query())
        process = multiprocessing.active_children()[0]
        for _ in range(int(PATIENCE_SECONDS / 0.05)):
            if not process.is_alive():
                break
            await asyncio.sleep(0.05)
        assert not process.is_alive()

    run(use, ReadoutWorker(wait_seconds=0.05))


def test_no_more_wait_than_may() -> None:
    async def use(worker: ReadoutWorker) -> None:
        asked = [asyncio.ensure_future(worker.ask(query(float(at)))) for at in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="2 readouts wait"):
            await worker.ask(query(2.0))
        first, second = await asyncio.gather(*asked)
        assert first.readouts == second.readouts
        assert (await worker.ask(query(3.0))).readouts == first.readouts

    run(use, ReadoutWorker(PATIENCE_SECONDS, waiting_max=2))


def test_a_closed_worker_answers_nothing_new() -> None:
    async def use(worker: ReadoutWorker) -> None:
        await worker.close()
        with pytest.raises(OverloadedError, match="stopping"):
            await worker.ask(query())

    run(use)


# A server of its own: it asks, says which modules it holds, and then waits to be killed.
SERVER = """
import asyncio, signal, sys
from tailorbird.measure.query import PlacementMoments, ReadoutQuery
from tailorbird.measure.worker import ReadoutWorker
from tailorbird.stats.moments import UnitMoments

async def main():
    moments = PlacementMoments("hero", 0.1, UnitMoments(), UnitMoments())
    answer = await ReadoutWorker().ask(ReadoutQuery(0.0, (moments,)))
    heavy = {"tea_tasting", "scipy", "pyarrow", "ibis", "numpy"} & set(sys.modules)
    print(len(answer.readouts), sorted(heavy), flush=True)

asyncio.run(main())
signal.pause()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL.")
def test_a_server_that_is_killed_takes_its_child_with_it_and_never_held_tea_tasting() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "2 []\n"
        server.kill()
        # Standard output ends only once everybody who inherited it has ended, the child too.
        rest, errors = server.communicate(timeout=10.0)
    assert rest == ""
    assert "Traceback" not in errors
