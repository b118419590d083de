"""How long searches run beside the traffic: in a thread that pauses, one at a time, a bounded line."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from tailorbird.errors import OverloadedError, StorageError
from tailorbird.limits import SEARCHES_WAITING_MAX

T = TypeVar("T")

_RECORDS_PER_BREATH: Final = 32  # About 0.1 ms: what the event loop may have to wait for a scan.
_BREATH_SECONDS: Final = 0.00002
_RETRY_SECONDS: Final = 10


class Breather:
    """Lets the event loop run during a long scan, and ends the scan when nobody waits for it any more."""

    def __init__(self) -> None:
        self.is_over = False
        self._count = 0

    def breathe(self) -> None:
        """Pause now and then; called for each record.

        Raises:
            StorageError: The scan was called off.
        """
        self._count += 1
        if self._count % _RECORDS_PER_BREATH == 0:
            if self.is_over:
                raise StorageError("called off")
            time.sleep(_BREATH_SECONDS)


async def in_thread(work: Callable[[Breather], T]) -> T:
    """Do blocking work beside the event loop; it is called off with the one who waits for it."""
    breather = Breather()
    try:
        return await asyncio.to_thread(work, breather)
    finally:
        breather.is_over = True


class Turns:
    """One search at a time; so many may wait for theirs."""

    def __init__(self, waiting_max: int = SEARCHES_WAITING_MAX) -> None:
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._waiting_max = waiting_max

    @asynccontextmanager
    async def turn(self, *, is_bounded: bool = True) -> AsyncIterator[None]:
        """Wait for a turn and hold it; whoever has a bounded line of their own need not be bounded here.

        Raises:
            OverloadedError: Too many wait already.
        """
        if is_bounded and self._waiting >= self._waiting_max:
            raise OverloadedError(f"{self._waiting} searches wait already", _RETRY_SECONDS)
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._lock.release()
