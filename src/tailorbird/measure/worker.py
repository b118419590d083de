"""The readout worker: one child process that computes readouts, so that the server need not.

tea-tasting costs 115 MB of memory and over a second to import. A server that decides in
milliseconds must hold neither, so nothing that this module imports imports `measure.readout`. The
child does so by name, on its first question: with `importlib`, because an import statement inside a
function is refused by the house, and because here the import contract is meant not to follow it.

    server ─ ask(query) ─► msgpack bytes ─► child: readouts(query) ─► msgpack bytes ─► Readouts

What is bounded: one child; one computation at a time; `WAITING_MAX` callers; `WAIT_SECONDS` for
each of them, and as long again for one computation in the child, after which the child ends itself.
A child that died is replaced, once a question. A server that is killed takes the child with it: an
executor's worker alone would wait for work for ever (it holds both ends of its queue), so the child
also watches the pipe that multiprocessing keeps open between the two, on every system.

A spawned child imports the parent's main module again, under another name: keep that module light,
and what it does under `if __name__ == "__main__"`.
"""

import asyncio
import faulthandler
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final

import msgspec

from tailorbird.errors import OverloadedError
from tailorbird.measure.query import ReadoutQuery
from tailorbird.schema.readout import Readouts

WAIT_SECONDS: Final = 30.0  # A cold start takes 3 s on a busy machine; proxies give up after 60.
WAITING_MAX: Final = 16  # Dashboards that ask at once; a warm child takes milliseconds for each.

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Readouts).decode


class ReadoutWorker:
    """Answers readout queries from a child process that starts with the first question.

    One event loop at a time may use it.
    """

    def __init__(self, wait_seconds: float = WAIT_SECONDS, waiting_max: int = WAITING_MAX) -> None:
        self._wait_seconds = wait_seconds
        self._waiting_max = waiting_max
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._is_closed = False
        self._last: tuple[bytes, Readouts] | None = None

    async def ask(self, query: ReadoutQuery) -> Readouts:
        """Return the readouts of `query`; the last answer is kept for when the same is asked again.

        Raises:
            OverloadedError: There was no answer within the wait, too many callers wait already, the
                child died twice, or the worker is closed. May be retried.
        """
        question = _encode(query)
        if self._last is not None and self._last[0] == question:
            return self._last[1]
        if self._waiting >= self._waiting_max:
            raise OverloadedError(f"{self._waiting} readouts wait, which is the most; retry later.")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds), self._turn:
                return await self._answer(question)
        except TimeoutError as error:
            message = f"The readout took longer than {self._wait_seconds:g} s; retry later."
            raise OverloadedError(message, retry_after_seconds=5) from error
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Stop the child once it has answered what it was given; what still waits is refused."""
        self._is_closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, wait=True)

    async def _answer(self, question: bytes) -> Readouts:
        if self._last is not None and self._last[0] == question:
            return self._last[1]  # The caller before this one asked the same.
        try:
            answer = await asyncio.wrap_future(self._submit(question))
        except BrokenProcessPool:
            answer = await self._answer_again(question)
        readouts = _decode(answer)
        self._last = (question, readouts)
        return readouts

    async def _answer_again(self, question: bytes) -> bytes:
        """Ask a new child what the old one died of, or over."""
        self._discard()
        try:
            return await asyncio.wrap_future(self._submit(question))
        except BrokenProcessPool as error:
            self._discard()
            message = "The readout process died twice over this readout; standard error says why."
            raise OverloadedError(message, retry_after_seconds=30) from error

    def _submit(self, question: bytes) -> Future[bytes]:
        if self._is_closed:
            raise OverloadedError("The readout worker is closed: the server is stopping.")
        if self._pool is None:
            # Spawned, not forked: a fork would copy locks that the server's threads hold.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=begin_child, initargs=(10,))
        return self._pool.submit(_compute, question, self._wait_seconds)

    def _discard(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)


# --- in the child ---------------------------------------------------------------------------------


def begin_child(niceness: int) -> None:
    """Prepare a child to end with its parent, not by the Ctrl-C that tells the parent to, and to give way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends it to both.
    if sys.platform != "win32":
        os.nice(niceness)  # Decisions go first where cores are few.
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _compute(question: bytes, seconds_max: float) -> bytes:
    """Answer an encoded query; past `seconds_max`, say on standard error where it is, and exit."""
    faulthandler.dump_traceback_later(seconds_max, exit=True)
    try:
        readout: Any = importlib.import_module("tailorbird.measure.readout")
        query = msgspec.msgpack.decode(question, type=ReadoutQuery)
        return _encode(readout.readouts(query))
    finally:
        faulthandler.cancel_dump_traceback_later()
