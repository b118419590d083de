"""The engine: one log, one fold, one world, and the order in which things happen.

An event is written to the log, folded into the world, and acknowledged when it is durable. A decision
is written and folded before it is answered, so it survives the death of the process; it becomes
durable with the next event, and before any exposure or outcome that could refer to it. Everything is
folded in the order of the log, at the moment it is written: so the world is always the fold of the
log up to its end, and what was acknowledged is seen by the very next decision.

Every few seconds a checkpoint commits the world with its offset; after a crash the fold goes on there.
"""

import asyncio
import functools
import gc
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.app.keeper import Keeper, open_keeper
from tailorbird.clock import Clock
from tailorbird.collect.collector import Accepted, Reject
from tailorbird.decide.decider import Answers, Decider, Journal, Settings
from tailorbird.decide.visitor import Request
from tailorbird.errors import CorruptLogError, OverloadedError, StorageError
from tailorbird.features.defaults import expanded
from tailorbird.features.program import Program
from tailorbird.features.vocabulary import Vocabulary
from tailorbird.limits import (
    CHECKPOINT_SECONDS,
    DIRTY_MAX,
    REBUILD_DIRTY_MAX,
    REJECTS_BYTES_MAX,
)
from tailorbird.live.decision_ids import decision_id, offset_of
from tailorbird.live.foreknown import foreknow
from tailorbird.live.model_segments import Assign
from tailorbird.live.profiles import suppression_hash
from tailorbird.live.revocations import pair_of
from tailorbird.live.seen import key_of
from tailorbird.live.world import TABLES, World
from tailorbird.privacy.person import values_named
from tailorbird.process.worker import Fold
from tailorbird.schema.clusters import ClusterModel
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.feature import FeatureConfig, FeaturesPut
from tailorbird.schema.profile import identifier_of
from tailorbird.schema.records import KINDS, LinkRevoked, LogRecord, decode, encode
from tailorbird.segment.assigner import Assigner
from tailorbird.stores.log import Log
from tailorbird.stores.parquet import discard
from tailorbird.stores.segments import SegmentLog
from tailorbird.stores.sqlite import SqliteState

logger = logging.getLogger("tailorbird")

_EVENT_KIND = KINDS[LoggedEvent]
_DECISION_KIND = KINDS[LoggedDecision]
_ENTRY_BYTES = 2048  # Of a changed entry, roughly: a profile takes twice as much, each identifier half.
_WRITES_BETWEEN_CHECKS = 16  # A look costs a fifth of an event; a write may be a batch of 2,500.
_encoder = msgspec.json.Encoder()


class Options(msgspec.Struct, frozen=True):
    """What the engine is told by the configuration."""

    secret: bytes
    holdout_share: float = 0.1
    gpc_opts_out: bool = True
    cache_bytes: int = 256 * 1024 * 1024
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    seed: int | None = None
    reads_every_vector: bool = False
    sample_share: float = 0.01
    warehouse: bool = True


class Engine:
    """Everything of one installation that lives in this process."""

    def __init__(self, folder: Path, options: Options, clock: Clock) -> None:
        self.folder = folder
        self.options = options
        self.clock = clock
        folder.mkdir(parents=True, exist_ok=True)
        self.log: Log = SegmentLog(folder / "log")
        self.rejects: Log = SegmentLog(folder / "rejects")
        settings = Settings(
            options.holdout_share, options.gpc_opts_out, options.reads_every_vector, options.sample_share
        )
        journal = Journal(self.record_decisions, self.find_decision)
        self.decider = Decider(options.secret, clock, settings, journal, options.seed)
        self.on_durable: Callable[[float], None] | None = None
        """Told how many seconds each turn's events waited for the disk."""
        self.fold_lag_seconds = 0.0
        """From when the latest event was received to when every feature knew of it."""
        self.failure: str | None = None
        """Why nothing can be written any more; None while all is well."""
        self._state_files = _state_files(folder)
        self._worker = ThreadPoolExecutor(1, "checkpoint", initializer=_give_way)
        self._is_checkpointing = False
        self._rejected_bytes = 0
        self._writes = 0
        # By an event's hashed message id, or by a decision's id.
        self._unfolded: dict[Any, tuple[int, Accepted | LoggedDecision]] = {}
        self._is_deferring = False
        self._deciding: set[str] = set()
        self._written: asyncio.Future[None] | None = None
        self._turn: asyncio.Future[None] | None = None
        self._turn_failure: StorageError | None = None
        self._is_full = False
        self._refolding = asyncio.Lock()
        # Changed entries cannot be dropped before a commit: as many as a third of the cache would hold.
        self._dirty_soft_max = min(DIRTY_MAX // 4, options.cache_bytes // 3 // _ENTRY_BYTES)
        self.world = self._open_world()
        self.keeper = self._open_keeper(self.world)
        self.fold = self._new_fold(self.world, self.keeper)
        self.decider.use(self.world)

    # --- starting and stopping ----------------------------------------------------------------------

    def recover(self) -> int:
        """Fold what the log holds beyond the state; return how many records.

        Where that fails, the state is at fault or the fold is; the log is folded again from its start,
        which mends the first and shows the second. It is folded again, too, for a warehouse that lacks
        what was folded before.
        """
        count = self._catch_up()
        self._announce()
        return count

    def _catch_up(self) -> int:
        if self.keeper.is_behind(self.world.store.offset):
            logger.warning("the warehouse lacks what was folded before: the log is folded again for it")
            return self._fold_afresh()
        try:
            count = catch_up(self.fold, self.log, self.keeper)
        except StorageError:
            raise
        except Exception:
            if self.world.store.offset == 0:
                raise
            logger.exception("the state cannot be folded on; it is folded again from the log")
        else:
            if not self.world.revocations.is_stale:
                return count  # Features that are not folded yet are missing; `refold_forever` sees to them.
            logger.warning("a link was revoked, and the state not folded again since: it is now")
        return self._fold_afresh()

    def _fold_afresh(self) -> int:
        self.world.store.close()
        self.world = self.new_world(SqliteState(self._state_files.next(), TABLES))
        self.keeper = self._open_keeper(self.world)
        self.fold = self._new_fold(self.world, self.keeper)
        self.decider.use(self.world)
        count = catch_up(self.fold, self.log, self.keeper)
        self._state_files.keep_only_newest()
        return count

    def close(self) -> None:
        """Write everything down and let go of the files."""
        self._worker.shutdown(wait=True)
        if self.failure is None:
            self.keeper.write_all(self.world.offset)
            self.world.checkpoint()
        self.world.store.close()
        self.log.close()
        self.rejects.close()

    def close_unchanged(self) -> None:
        """Let go of the files without writing anything down."""
        self._worker.shutdown(wait=True)
        self.world.store.close()
        self.log.close()
        self.rejects.close()

    def new_world(self, state: SqliteState) -> World:
        """Return a world over `state`, with this installation's settings."""
        options = self.options
        world = World(state, options.cache_bytes, options.holdout_share, gpc_opts_out=options.gpc_opts_out)
        world.clusters.prepare = _prepared
        return world

    def _open_keeper(self, world: World) -> Keeper:
        """Return the keeper of the history of the newest state, which is `world`'s."""
        if not self.options.warehouse:
            return Keeper(None)
        return open_keeper(self._state_files.current_warehouse(), world.store.offset, self.log.end)

    def _new_fold(self, world: World, keeper: Keeper) -> Fold:
        return Fold(world, self.options.secret, self.log, keeper.observer)

    def _open_world(self) -> World:
        try:
            state = SqliteState(self._state_files.current(), TABLES)
            self._state_files.keep_only_newest()
            if state.offset <= self.log.end:
                return self._world_of(state)
            logger.error("the state is ahead of the log; it is folded again from the log")
            state.close()
        except CorruptLogError as error:
            logger.error("%s; the state is folded again from the log", error)  # noqa: TRY400
        return self.new_world(SqliteState(self._state_files.next(), TABLES))

    def _world_of(self, state: SqliteState) -> World:
        try:
            return self.new_world(state)
        except CorruptLogError:
            state.close()
            raise

    # --- writing ------------------------------------------------------------------------------------

    def write_events(self, accepted: Sequence[Accepted]) -> "asyncio.Future[None]":
        """Log events; return the future of when they are folded and durable.

        Everything that comes within one turn of the event loop is written and folded together at its end,
        and shares one future. Events that were seen before are left out, and wait for the others.

        Raises:
            OverloadedError: Too much waits for the disk.
            StorageError: The disk refused; nothing of it was kept. The future raises it, too.
        """
        self._check_writable()
        contains, unfolded = self.world.seen.contains, self._unfolded
        for entry in accepted:
            key = key_of(entry.logged.m)
            if key not in unfolded and not contains(key):
                offset = self.log.append(_EVENT_KIND, _encoder.encode(entry.logged))
                unfolded[key] = (offset, entry)
        if self._turn is None:
            loop = asyncio.get_running_loop()
            self._turn = loop.create_future()
            if self._written is None:
                loop.call_soon(self._end_turn)
        return self._turn

    def _end_turn(self) -> None:
        """Write and fold what the turn brought, and settle its future when its events are durable."""
        turn, self._turn = self._turn, None
        try:
            self._settle()
        except StorageError as error:
            self._turn_failure = error
        failure, self._turn_failure = self._turn_failure, None
        if turn is None:
            return
        if failure is not None:
            turn.set_exception(failure)
            return
        turn.add_done_callback(functools.partial(self._acknowledged, self.clock.elapsed()))
        try:
            self.log.when_durable(turn)
        except StorageError as error:
            turn.set_exception(error)

    def _acknowledged(self, started: float, turn: "asyncio.Future[None]") -> None:
        error = turn.exception()
        if error is not None:
            self.failure = str(error)  # What was folded cannot be taken back: see `durable`.
        elif self.on_durable is not None:
            self.on_durable(self.clock.elapsed() - started)

    def _settle(self) -> None:
        """Write what was appended and fold it, in the order of the log.

        Raises:
            StorageError: The disk refused; what was appended is forgotten.
        """
        if not self._unfolded:
            return
        written, self._written = self._written, None
        try:
            self._write_and_fold()
        except StorageError as error:
            self._turn_failure = error
            if written is not None:
                written.set_exception(error)
            raise
        if written is not None:
            written.set_result(None)

    def _write_and_fold(self) -> None:
        unfolded, self._unfolded = self._unfolded, {}
        self._deciding.clear()
        self.log.flush()
        received = 0.0
        try:
            for key, (offset, entry) in unfolded.items():
                if isinstance(entry, Accepted):
                    self.fold.apply_event(offset, entry.logged, entry.event, key)
                    received = entry.logged.r
                else:
                    self.fold.apply_decision(offset, entry, key)
        except Exception as error:
            raise self._fold_failed(error) from error
        if received:
            self.fold_lag_seconds = max(self.clock.now() - received, 0.0)
        self._announce()

    def _announce(self) -> None:
        """Log who entered and left segments by what was folded; what cannot be logged now is later."""
        segments = self.world.segments
        while segments.unannounced:
            written: list[tuple[int, LogRecord]] = []
            try:
                for change in segments.unannounced.values():
                    offset = self.log.append(*encode(change))
                    written.append((offset, change))  # Also where the next one is refused.
            except (StorageError, OverloadedError) as error:
                logger.warning("changes of segments wait to be announced: %s", error)
                if not written:
                    return
            try:
                self.log.flush()
            except StorageError as error:
                logger.error("changes of segments wait to be announced: %s", error)  # noqa: TRY400
                return
            try:
                for offset, record in written:
                    self.fold.apply_record(offset, record)
            except Exception as error:
                raise self._fold_failed(error) from error

    def _fold_failed(self, error: Exception) -> StorageError:
        """Stop writing, for the world is no longer the fold of the log; return what to tell who waits."""
        logger.exception("a record could not be folded")
        self.failure = f"a record could not be folded: {error!r}"
        return StorageError(f"nothing can be written until a restart: {self.failure}")

    async def durable(self) -> None:
        """Return when everything written so far survives a power cut.

        Raises:
            StorageError: The disk refused. What was folded cannot be taken back, so nothing is written
                any more; a restart folds what the disk has.
        """
        self._settle()
        try:
            await self.log.durable()
        except StorageError as error:
            self.failure = str(error)
            raise

    def decide(self, request: Request) -> "tuple[Answers, asyncio.Future[None] | None]":
        """Decide, and write and fold what was decided with all else that comes within this turn.

        The future says when that is done; None where nothing was decided anew. Where it raises
        StorageError nothing was kept: `decider.decide` then gives the answer of a full disk.
        """
        visitor, deciding = request.visitor, self._deciding
        if visitor.anonymous_id in deciding or visitor.user_id in deciding:
            self._settle()  # Who asks twice in one turn is met as having asked once.
        self._is_deferring = True
        try:
            answers = self.decider.decide(request)
        finally:
            self._is_deferring = False
        if visitor.anonymous_id is not None:
            deciding.add(visitor.anonymous_id)
        if visitor.user_id is not None:
            deciding.add(visitor.user_id)
        return answers, self._written

    def record_decisions(self, decisions: list[LoggedDecision]) -> list[str]:
        """Log the decisions of one request and return their ids; in `decide` the turn's end folds them."""
        self._check_writable()
        if not self._is_deferring:
            self._settle()
        offsets = [self.log.append(_DECISION_KIND, _encoder.encode(decision)) for decision in decisions]
        keys = [decision_id(self.options.secret, offset) for offset in offsets]
        self._unfolded |= zip(keys, zip(offsets, decisions, strict=True), strict=True)
        if not self._is_deferring:
            self._settle()
        elif self._written is None:
            loop = asyncio.get_running_loop()
            self._written = loop.create_future()
            if self._turn is None:
                loop.call_soon(self._end_turn)
        return keys

    def write(self, record: LogRecord) -> int:
        """Log and fold one record; return its offset. `durable` says when it is safe."""
        self._check_writable()
        self._settle()
        offset = self.log.append(*encode(record))
        self.log.flush()
        try:
            self.fold.apply_record(offset, record)
        except Exception as error:
            raise self._fold_failed(error) from error
        self._announce()
        return offset

    def keep_reject(self, reject: Reject) -> None:
        """Keep a refused event, while there is room for refusals; nothing of people who were erased."""
        if self._names_suppressed(reject.body):
            return
        payload = _encoder.encode(reject)
        self._rejected_bytes += len(payload)
        if self._rejected_bytes > REJECTS_BYTES_MAX:
            logger.error("the reject log is full: an event was refused and not kept")
            return
        try:
            self.rejects.append(0, payload)
            self.rejects.flush()
        except (StorageError, OverloadedError) as error:
            logger.error("a refused event could not be kept: %s", error)  # noqa: TRY400

    def _names_suppressed(self, body: str) -> bool:
        suppressed = self.world.suppressed
        if not suppressed:
            return False
        secret = self.options.secret
        # Every suppressed value is suppressed as a user id, whatever it was.
        names = (identifier_of("user_id", value) for value in values_named(body))
        return any(suppression_hash(secret, name) in suppressed for name in names)

    def find_decision(self, key: str) -> LoggedDecision | None:
        """Return a decision by its id, from the log."""
        offset = offset_of(self.options.secret, key)
        record = None if offset is None else self.log.get(offset)
        if record is None:
            return None
        found = decode(record.kind, record.payload)
        return found if isinstance(found, LoggedDecision) else None

    def _check_writable(self) -> None:
        if self.failure is not None:
            raise StorageError(f"nothing can be written until a restart: {self.failure}")
        self._writes += 1
        # Once full, each write looks again: whoever was told to wait must find room as soon as there is.
        if self._is_full or self._writes % _WRITES_BETWEEN_CHECKS == 0:
            self._is_full = self.world.is_full or self.world.dirty_count > DIRTY_MAX or self.keeper.is_full
        if self._is_full:
            raise OverloadedError("too many changes wait for the disk")

    # --- checkpoints --------------------------------------------------------------------------------

    async def checkpoint_forever(self) -> None:
        """Commit the world every few seconds, and sooner when many entries have changed."""
        while True:
            waited = 0.0
            try:
                while (
                    waited < self.options.checkpoint_seconds and self.world.dirty_count < self._dirty_soft_max
                ):
                    await asyncio.sleep(0.1)
                    waited += 0.1
                    if self.keeper.is_due and self.failure is None:
                        await self._keep_history()
                await self.checkpoint()
            except StorageError as error:
                logger.error("a checkpoint failed and is tried again: %s", error)  # noqa: TRY400
                await asyncio.sleep(1.0)

    async def checkpoint(self) -> None:
        """Commit the world as of now, a slice at a time beside the traffic."""
        world = self.world
        if self._is_checkpointing or self.failure is not None or world.offset == world.store.offset:
            return
        self._is_checkpointing = True
        try:
            await self._commit(world, self.keeper, _SLICE_PAUSE_SECONDS)
        finally:
            self._is_checkpointing = False

    async def _keep_history(self) -> None:
        """Write the rows of what was folded so far to the warehouse, which may be ahead of the state."""
        keeper, stop = self.keeper, self.world.offset
        keeper.hand_over(stop)
        await self.durable()
        await asyncio.get_running_loop().run_in_executor(self._worker, keeper.write_until, stop)

    async def count_history(self, profiles: Collection[str], offsets: Collection[int]) -> int:
        """Return how many rows of history there are of people (profile ids) or records (offsets).

        Raises:
            StorageError: The disk refused.
        """
        await self._keep_history()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self.keeper.count, profiles, offsets)

    async def _commit(self, world: World, keeper: Keeper, pause_seconds: float = 0.0) -> None:
        stop = world.offset
        keeper.hand_over(stop)
        world.checkpoint_begin()
        try:
            while world.checkpoint_step():
                await asyncio.sleep(0.0 if self._is_full else pause_seconds)
            # The state must never be ahead of what the log would still hold after a power cut.
            await self.durable()
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._worker, keeper.write_until, stop)
            await loop.run_in_executor(self._worker, world.checkpoint_commit)
        except BaseException:
            # Also when the server is told to end meanwhile: the last checkpoint writes it all.
            world.checkpoint_failed()
            raise
        world.checkpoint_done()

    # --- folding again ------------------------------------------------------------------------------

    async def refold(self) -> None:
        """Fold the whole log into a fresh state, beside the traffic, and go on with that one.

        This is how erasure keeps every total right: the log without the person's records gives the
        state in which they never were.
        """
        while self._is_checkpointing:
            await asyncio.sleep(0.01)
        self._is_checkpointing = True
        try:
            old, old_keeper = self.world, self.keeper
            world = self.new_world(SqliteState(self._state_files.next(), TABLES))
            keeper = self._open_keeper(world)
            self._settle()
            foreknow(world, self.log)
            fold = self._new_fold(world, keeper)
            # Folding goes on where the last pass ended until it has caught up with the traffic; the last
            # stretch has no await in it, so nothing can be written between it and the switch.
            while True:
                self._settle()
                if world.offset >= self.log.end:
                    break
                await self._refold_pass(fold, keeper)
            old_fold = self.fold
            self.world, self.fold, self.keeper = world, fold, keeper
            self.decider.use(world)
            old_fold.let_go()
            old_keeper.close()
            old.store.close()
            self._announce()
            await self._commit(world, keeper)
            self._state_files.keep_only_newest()
            # What an interrupted rebuild left is a state of before, too.
            for leftover in self.folder.glob("rebuild-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        finally:
            self._is_checkpointing = False

    async def revoke_link(self, one: str, other: str, *, is_lifted: bool) -> None:
        """Keep two identifiers apart for good, also in what was folded before; or lift that.

        Returns when the state is what it would be had no event ever named the two together.
        """
        self.write(LinkRevoked(self.clock.now(), pair_of(one, other), is_lifted))
        await self.durable()
        await self.refold_while_stale()

    def declare_features(self, config: FeatureConfig) -> FeaturesPut:
        """Declare what is kept of visitors; what needs the log folded again is missing until it is.

        Raises:
            InvalidInputError: Definitions clash, or read what is on the sensitive list.
        """
        put = FeaturesPut(self.clock.now(), config, expanded(config))
        Program(
            put, Vocabulary(lambda _name, _code: None)
        )  # What is wrong with it is said before it is logged.
        declared = self.world.features.reading.put
        if (declared.config, declared.definitions) == (put.config, put.definitions):
            return declared
        self.write(put)
        return put

    async def refold_while_stale(self) -> None:
        """Fold the log again until the state is right for the links and features that are declared."""
        async with self._refolding:
            while self.world.is_stale:
                await self.refold()

    async def refold_forever(self) -> None:
        """Fold the log again whenever features were declared that need it."""
        while True:
            await asyncio.sleep(_STALE_LOOK_SECONDS)
            try:
                await self.refold_while_stale()
            except StorageError as error:
                logger.error("folding again failed and is tried again: %s", error)  # noqa: TRY400
                await asyncio.sleep(1.0)

    async def _refold_pass(self, fold: Fold, keeper: Keeper) -> None:
        end = self.log.end
        elapsed = self.clock.elapsed
        turn_ends = elapsed() + _REFOLD_SECONDS
        for count, record in enumerate(self.log.read(fold.world.offset, end), 1):
            fold.apply(record)
            if elapsed() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = elapsed() + _REFOLD_SECONDS
            if count % _REFOLD_RECORDS == 0 and (fold.world.dirty_count > _REFOLD_DIRTY_MAX or keeper.is_due):
                await self._commit(fold.world, keeper)
                turn_ends = elapsed() + _REFOLD_SECONDS
        fold.world.offset = max(fold.world.offset, end)


def _prepared(model: ClusterModel, names: tuple[str, ...]) -> Assign:
    """Return what tells which cluster variables of these names lie in."""
    assigner = Assigner(model, names)
    return lambda variables: assigner.assign(variables).cluster_id


_SLICE_PAUSE_SECONDS = 0.002  # Between slices of a checkpoint: a request waits for one slice, not for all.
_CHECKPOINT_NICE = 5  # A third of the event loop's weight.
_STALE_LOOK_SECONDS = 0.2
_CATCH_UP_SLICE = 1024
_REFOLD_SECONDS = 0.001  # Folded between two turns of the event loop.
_REFOLD_RECORDS = 64  # Folded between two looks at how much waits for a commit.
_REFOLD_DIRTY_MAX = 5_000  # Committed at once: listing 50,000 changes held the event loop for 90 ms.


def catch_up(fold: Fold, log: Log, keeper: Keeper, stop: int | None = None) -> int:
    """Fold the log from the world's offset to `stop` (its end); return how many records."""
    world = fold.world
    end = log.end if stop is None else stop
    if world.offset == 0:
        foreknow(world, log, end)
    count = 0
    # Profiles hold no cycles; walking all of them again and again took a third of the time.
    gc.disable()
    try:
        for count, record in enumerate(log.read(world.offset, end), 1):
            fold.apply(record)
            if count % _CATCH_UP_SLICE == 0 and (world.dirty_count > REBUILD_DIRTY_MAX or keeper.is_due):
                keeper.write_all(world.offset)
                world.checkpoint()
    finally:
        gc.enable()
    world.offset = max(world.offset, end)
    if count:
        keeper.write_all(world.offset)
        world.checkpoint()
    return count


def _give_way() -> None:
    """Let the event loop go before this thread, where both want the same core.

    On Linux each thread has a nice value of its own. Not the highest: a thread that hardly runs holds the
    interpreter's lock for as long as it takes.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _CHECKPOINT_NICE)


def current_state(folder: Path) -> Path | None:
    """Return the newest state file of a data folder, None where there is none."""
    path = _state_files(folder).current()
    return path if path.is_file() else None


def current_warehouse(folder: Path) -> Path:
    """Return the folder of the newest state's warehouse in a data folder; it may not be there."""
    return _state_files(folder).current_warehouse()


def _state_files(folder: Path) -> "_StateFiles":
    return _StateFiles(folder / "state", folder / "warehouse")


class _StateFiles:
    """The state's files, numbered: a fold from scratch makes the next one and drops the others.

    To each belongs the warehouse of the same fold, a folder with the same name.
    """

    def __init__(self, folder: Path, warehouses: Path) -> None:
        self._folder = folder
        self._warehouses = warehouses
        folder.mkdir(parents=True, exist_ok=True)

    def current(self) -> Path:
        """Return the newest state file, a first one where there is none."""
        numbers = self._numbers()
        return self._path(numbers[-1] if numbers else 1)

    def next(self) -> Path:
        """Return the path of a state file that is not there yet."""
        numbers = self._numbers()
        return self._path(numbers[-1] + 1 if numbers else 1)

    def current_warehouse(self) -> Path:
        """Return the folder of the warehouse that belongs to the newest state."""
        return self._warehouses / self.current().stem

    def keep_only_newest(self) -> None:
        """Delete every state file but the newest, with its journals, and every other warehouse."""
        newest = self.current()
        for file in self._folder.iterdir():
            if not file.name.startswith(newest.name):
                file.unlink()
        if self._warehouses.is_dir():
            for folder in self._warehouses.iterdir():
                if folder.name != newest.stem:
                    discard(folder)

    def _numbers(self) -> list[int]:
        return sorted(int(file.stem.removeprefix("state-")) for file in self._folder.glob("state-*.db"))

    def _path(self, number: int) -> Path:
        return self._folder / f"state-{number:06d}.db"
