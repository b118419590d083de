"""Requests of data subjects: kept in the data folder, carried out one by one, resumed after a crash.

    privacy/<keyed hash of the request's id>.json       one file a request, written whole or not at all

A request's file holds the identifiers that it is about only until it is done. Then it holds counts and
keyed hashes: that a request was made and what came of it, not of whom. Requests for access keep the
ids of the profiles that they found, for the document is made anew whenever it is asked for; an
erasure takes those ids out of every other request.
"""

import asyncio
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from tailorbird.errors import ConflictError, NotFoundError, OverloadedError, StorageError
from tailorbird.hashing import token
from tailorbird.limits import ERASURE_TRIES_MAX, ERASURES_PENDING_MAX, REQUESTS_KEPT_MAX
from tailorbird.privacy.erase import Erasure, Progress
from tailorbird.privacy.person import Person, digest_of
from tailorbird.privacy.scan import Turns
from tailorbird.schema.profile import identifier_of

logger = logging.getLogger("tailorbird")

RequestType = Literal["access", "portability", "erasure"]
Status = Literal["pending", "in_progress", "completed", "cancelled"]

EXPECTED_SECONDS: Final = 3600.0
"""Within which a request is done, by far: what is answered as its expected time."""
_FILE_MODE: Final = 0o600
_RETRY_SECONDS: Final = 30


class Request(msgspec.Struct):
    """One request, as it is kept. `names`, `progress` and `profiles` are empty once they are not needed."""

    key: str
    type: RequestType
    status: Status
    received: float
    digest: str
    """A keyed hash of the identities: a repeated request is told from another with the same id."""
    finished: float | None = None
    names: list[str] = []
    progress: Progress = Progress()
    """How far an erasure has come."""
    profiles: list[str] = []
    proof: dict[str, Any] | None = None
    failure: str = ""
    """Why it is not done yet, where a try failed."""


class Requests:
    """The requests of one installation."""

    def __init__(self, folder: Path, erasure: Erasure, turns: Turns) -> None:
        """Read what is kept in `folder`, which is made if need be; what is not done waits for `work`."""
        self._folder = folder
        self._erasure = erasure
        self._turns = turns
        self._clock = erasure.installation.clock
        self._requests = {request.key: request for request in _load(folder)}
        self._waiting = [key for key, request in self._requests.items() if not request.finished]
        self._done: dict[str, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self._saving = asyncio.Lock()

    # --- what the doors do --------------------------------------------------------------------------

    async def submit(self, request_id: str, kind: RequestType, names: Iterable[str]) -> Request:
        """Take in a request about the person whom `names` name; one with the same id and person is the same.

        Raises:
            ConflictError: The id was used for something else, or the names are of a shared device only.
            OverloadedError: Too many erasures wait.
            StorageError: The disk refused.
        """
        names = sorted(set(names))
        key, digest = self._key(request_id), digest_of(self._erasure.secret, names)
        known = self._requests.get(key)
        if known is not None:
            if (known.type, known.digest) != (kind, digest):
                raise ConflictError("subject_request_id: it was used for another request")
            return known
        person = self._erasure.person(names)
        if kind == "erasure" and len(self._waiting) >= ERASURES_PENDING_MAX:
            raise OverloadedError(f"{ERASURES_PENDING_MAX} erasures wait already", _RETRY_SECONDS)
        now = self._clock.now()
        request = Request(key, kind, "pending", now, digest)
        if kind == "erasure":
            request.names = names
        else:
            request.status, request.finished = "completed", now
            request.profiles = sorted(person.profiles)
        self._requests[key] = request
        try:
            await self._save(request)
        except StorageError:
            del self._requests[key]
            raise
        if kind == "erasure":
            self._waiting.append(key)
            self._wake.set()
        await self._drop_oldest()
        return request

    def get(self, request_id: str) -> Request:
        """Return a request.

        Raises:
            NotFoundError: No request has this id.
        """
        request = self._requests.get(self._key(request_id))
        if request is None:
            raise NotFoundError(f"no request is called {request_id[:100]!r}")
        return request

    async def cancel(self, request_id: str) -> Request:
        """Cancel a request that has not begun.

        Raises:
            NotFoundError: No request has this id.
            ConflictError: It has begun, or is done.
            StorageError: The disk refused.
        """
        request = self.get(request_id)
        if request.key not in self._waiting or request.status != "pending":
            raise ConflictError(f"the request is {request.status}; only pending ones can be cancelled")
        self._waiting.remove(request.key)
        await self._finish(request, "cancelled")
        return request

    async def wait(self, request: Request, seconds: float) -> None:
        """Return when a request is done or could not be carried out, at most after so many seconds."""
        if request.finished is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._event(request.key).wait(), seconds)

    # --- carrying them out --------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Carry out requests as they come."""
        while True:
            self._wake.clear()
            await self.work()
            await self._wake.wait()

    async def work(self) -> None:
        """Carry out what waits, oldest first."""
        while self._waiting:
            request = self._requests[self._waiting[0]]
            if not await self._try(request):
                # It stays in progress and is taken up at the next start; who waits is told why.
                self._event(request.key).set()
            self._waiting.remove(request.key)

    async def _try(self, request: Request) -> bool:
        """Carry out an erasure, again where that may help; return whether it is done."""
        for attempt in range(1, ERASURE_TRIES_MAX + 1):
            try:
                await self._erase(request)
            except (StorageError, OverloadedError) as error:
                request.failure = str(error)
                logger.error("an erasure failed and is tried again: %s", error)  # noqa: TRY400
                await asyncio.sleep(attempt**2)
            except Exception as error:
                # One record that nobody foresaw must neither end the server nor cost others their right.
                request.failure = f"an unforeseen fault: {type(error).__name__}; see the server's output"
                logger.exception("an erasure failed by an unforeseen fault")
                return False
            else:
                return True
        return False

    async def _erase(self, request: Request) -> None:
        request.status = "in_progress"
        await self._save(request)

        async def keep(progress: Progress) -> None:
            request.progress = progress
            await self._save(request)

        async with self._turns.turn(is_bounded=False):
            try:
                request.proof = await self._erasure.erase(request.names, request.progress, keep)
            except ConflictError as error:
                request.failure = str(error)
                await self._finish(request, "cancelled")
            else:
                await self._forget(request.progress.person)
                await self._finish(request, "completed")

    async def _finish(self, request: Request, status: Status) -> None:
        request.status, request.finished = status, self._clock.now()
        request.names, request.progress = [], Progress()
        if status == "completed":
            request.failure = ""
        await self._save(request)
        self._done.pop(request.key, asyncio.Event()).set()

    async def _forget(self, person: Person) -> None:
        """Take a person's profile ids out of the requests that are done."""
        for request in list(self._requests.values()):
            if person.profiles.intersection(request.profiles):
                request.profiles = []
                await self._save(request)

    def names_of(self, request: Request) -> list[str]:
        """Return identifiers of the profiles that a request for access found."""
        return [identifier_of("profile", profile) for profile in request.profiles]

    # --- keeping them -------------------------------------------------------------------------------

    def _key(self, request_id: str) -> str:
        # The id is the controller's own and may tell who it is about, so it is not kept as it is.
        return token(self._erasure.secret, "privacy-request", request_id)

    def _event(self, key: str) -> asyncio.Event:
        return self._done.setdefault(key, asyncio.Event())

    async def _drop_oldest(self) -> None:
        finished = (key for key, request in self._requests.items() if request.finished)
        while len(self._requests) > REQUESTS_KEPT_MAX and (key := next(finished, None)) is not None:
            del self._requests[key]
            await asyncio.to_thread((self._folder / f"{key}.json").unlink, missing_ok=True)
            finished = (key for key, request in self._requests.items() if request.finished)

    async def _save(self, request: Request) -> None:
        path, content = self._folder / f"{request.key}.json", msgspec.json.encode(request)
        async with self._saving:
            await asyncio.to_thread(_write, path, content)


def _load(folder: Path) -> list[Request]:
    """Return the requests in `folder`, oldest first; drop what a crash left half written.

    Raises:
        StorageError: The folder or a file in it cannot be read.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in folder.glob("*.tmp"):
            leftover.unlink()
        decoder = msgspec.json.Decoder(Request)
        found = [decoder.decode(file.read_bytes()) for file in folder.glob("*.json")]
    except (OSError, msgspec.MsgspecError) as error:
        raise StorageError(f"privacy requests {folder}: cannot be read: {error}") from error
    return sorted(found, key=lambda request: request.received)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole, or leave the one before.

    Raises:
        StorageError: The disk refused.
    """
    try:
        fresh = path.with_suffix(".tmp")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _FILE_MODE)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(f"privacy request {path}: cannot be written: {error}") from error
