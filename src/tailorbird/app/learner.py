"""The learner: fits models once a day in a child process, and logs what they say of people.

The child (`app.learning`) needs the extra `learn` and some hundred MiB for as long as it runs; the server
itself never imports what it imports. What was learned is kept as JSON in the folder `artifacts`, with its
account; what people get is logged, so that it is part of the state like everything else.
"""

import asyncio
import importlib
import logging
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Final

import msgspec

from tailorbird.app.engine import Engine
from tailorbird.app.lessons import Learned, LearnRequest
from tailorbird.errors import ConflictError, StorageError
from tailorbird.limits import ARTIFACTS_KEPT_MAX, LEARN_WRITES
from tailorbird.live.model_segments import ModelSegments
from tailorbird.measure.worker import begin_child
from tailorbird.schema.clusters import ClusterSettings, ClustersFound
from tailorbird.schema.computed import AttributesComputed, ComputedAttribute, ComputedModel
from tailorbird.train.skew import SkewReport

logger = logging.getLogger("tailorbird")

LEARN_SECONDS_MAX: Final = (
    3_600.0  # 100,000 people and a thousand variables take some ten minutes on two cores.
)
_FIRST_SECONDS: Final = 600.0  # After a start: whoever restarts to mend something does not want this as well.
_LOOK_SECONDS: Final = 0.5


class LearnSettings(msgspec.Struct, frozen=True):
    """What is learned, and how often."""

    attributes: tuple[ComputedAttribute, ...]
    clusters: ClusterSettings | None
    every_hours: float
    gpc_opts_out: bool


class Account(msgspec.Struct, frozen=True, rename="camel"):
    """What the last learning came to."""

    at: float = 0.0
    took_seconds: float = 0.0
    people: int = 0
    changed: int = 0
    """People of whom anything was computed anew."""
    skipped: dict[str, str] = {}
    """By attribute (or `clusters`), why nothing was learned of it."""
    failure: str = ""
    skew: SkewReport | None = None
    """How what sampled decisions were made with differs from what history says, variable by variable."""


class Learner:
    """Learns from an engine's past."""

    def __init__(self, engine: Engine, settings: LearnSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._turn = asyncio.Lock()
        self._folder = engine.folder / "artifacts"
        self.account = Account()
        self.models: list[ComputedModel] = []
        self._wanted = False
        self._load()

    async def run_forever(self) -> None:
        """Learn when it is due; a failure is told and does not end the server."""
        elapsed = self._engine.clock.elapsed
        due = elapsed() + _FIRST_SECONDS
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            every = self._settings.every_hours * 3600.0
            is_old = self._engine.clock.now() - self.account.at >= every
            if self._wanted or (every and is_old and elapsed() >= due):
                self._wanted = False
                await self.learn()
                due = elapsed() + every

    @property
    def is_learning(self) -> bool:
        """Return whether models are being fitted."""
        return self._turn.locked()

    @property
    def clusters(self) -> ModelSegments:
        """Return the clusters in force."""
        return self._engine.world.clusters

    def learn_soon(self) -> None:
        """Have models fitted beside what else there is to do.

        Raises:
            ConflictError: It is being done already.
        """
        if self._turn.locked():
            raise ConflictError("models are being fitted already; ask again when that is done")
        self._wanted = True

    async def learn(self) -> Account:
        """Learn now; return what it came to.

        Raises:
            ConflictError: It is being done already.
        """
        if self._turn.locked():
            raise ConflictError("models are being fitted already; ask again when that is done")
        async with self._turn:
            clock = self._engine.clock
            at, started = clock.now(), clock.elapsed()
            try:
                learned = await self._ask()
                changed = await self._write(learned, at)
            except (StorageError, BrokenProcessPool, TimeoutError, msgspec.MsgspecError) as error:
                logger.error("learning failed: %s", error or type(error).__name__)  # noqa: TRY400
                self.account = msgspec.structs.replace(self.account, at=at, failure=str(error) or "timed out")
            else:
                took = round(clock.elapsed() - started, 1)
                self.account = Account(at, took, learned.people, changed, learned.skipped, skew=learned.skew)
                self.models = learned.models
                if learned.skew.skewed:
                    names = ", ".join(one.name for one in learned.skew.skewed[:5])
                    logger.error("features that were served differ from their history: %s", names)
                await asyncio.to_thread(self._keep, learned)
            return self.account

    async def _ask(self) -> Learned:
        """Let a child learn, from what is committed by now."""
        await self._engine.checkpoint()
        settings = self._settings
        question = msgspec.json.encode(
            LearnRequest(
                folder=str(self._engine.folder),
                attributes=settings.attributes,
                clusters=settings.clusters,
                gpc_opts_out=settings.gpc_opts_out,
            )
        )
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, mp_context=context, initializer=begin_child, initargs=(15,))
        try:
            answer = asyncio.wrap_future(pool.submit(_learn, question))
            content = await asyncio.wait_for(answer, LEARN_SECONDS_MAX)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(getattr(pool, "_processes", None) or {}):
                _end(process)
        if isinstance(content, str):
            raise StorageError(content)
        return msgspec.json.decode(content, type=Learned)

    async def _write(self, learned: Learned, at: float) -> int:
        """Log what was learned, some people between two turns of the loop; return how many."""
        engine = self._engine
        if learned.clusters is not None:
            engine.write(ClustersFound(at, learned.clusters))
        for count, (profile, values) in enumerate(learned.values.items(), 1):
            engine.write(AttributesComputed(at, profile, values))
            if count % LEARN_WRITES == 0:
                await engine.durable()
                await asyncio.sleep(0)
        await engine.durable()
        return len(learned.values)

    def _keep(self, learned: Learned) -> None:
        """Write artifacts and account to the folder, and drop old ones."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for model in learned.models:
            _save(self._folder / f"{model.attribute.key}-{model.version}.json", model)
        if learned.clusters is not None:
            _save(self._folder / f"clusters-{learned.clusters.version:06d}.json", learned.clusters)
        latest = {model.attribute.key: model.version for model in learned.models}
        _save(self._folder / "latest.json", {"account": self.account, "models": latest})
        by_age = sorted(self._folder.glob("*-*.json"), key=lambda file: file.stat().st_mtime)
        for file in by_age[:-ARTIFACTS_KEPT_MAX]:
            file.unlink()

    def _load(self) -> None:
        """Take over what was learned before this start."""
        try:
            latest = msgspec.json.decode((self._folder / "latest.json").read_bytes(), type=_Latest)
            self.account = latest.account
            self.models = [
                msgspec.json.decode((self._folder / f"{key}-{version}.json").read_bytes(), type=ComputedModel)
                for key, version in latest.models.items()
            ]
        except FileNotFoundError:
            return
        except msgspec.MsgspecError as error:
            logger.warning("artifacts cannot be read and are made anew: %s", error)


class _Latest(msgspec.Struct):
    account: Account
    models: dict[str, str]


def _save(file: Path, content: Any) -> None:  # noqa: ANN401
    fresh = file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(content))
    fresh.replace(file)


def _end(process: int) -> None:
    """End a child that learns on though nobody waits for it any more."""
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return


# --- in the child -----------------------------------------------------------------------------------------


def _learn(question: bytes) -> bytes | str:
    """Answer an encoded request; a text says what went wrong."""
    try:
        learning: Any = importlib.import_module("tailorbird.app.learning")
    except ModuleNotFoundError as error:
        return f"learning needs the module {error.name}: pip install 'tailorbird[learn]'"
    request = msgspec.json.decode(question, type=LearnRequest)
    return msgspec.json.encode(learning.learn(request))
