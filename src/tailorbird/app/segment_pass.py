"""The pass over everybody: people enter and leave segments also where no event of theirs says so.

A segment that was just declared has members among those who are known already; a window ends without an
event. So everybody is evaluated, as a read, once after each declaration and then now and then, a slice at
a time beside the traffic; whoever came or went is logged, and the fold of that record evaluates them again.

The pass lives in the time that events have come to, and goes on with the clock from there: a log from
another year that is sent again is not measured by today. Before the first event since the start, each
person is evaluated as of the latest that is known of them.
"""

import asyncio
import logging

from tailorbird.app.engine import Engine
from tailorbird.errors import CorruptLogError, OverloadedError, StorageError
from tailorbird.limits import SEGMENT_PASS_SECONDS, SEGMENT_PASS_SHARE
from tailorbird.live.facts import evaluated, last_known, places_at
from tailorbird.live.profiles import suppression_hash
from tailorbird.schema.profile import Profile
from tailorbird.schema.segment import SegmentChanged

logger = logging.getLogger("tailorbird")

_PAGE = 500  # Keys that are read from the state at once.
_SLICE_SECONDS = 0.001  # Evaluated between two turns of the event loop.
_PAUSE_SECONDS = 0.004  # A fifth of a core, and only where there is something to do.
_LOOK_SECONDS = 0.25
_FULL_SECONDS = 0.5  # Where too much waits for the disk.


class SegmentPass:
    """Evaluates everybody in one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slice_ends = 0.0
        self.version = -2
        """The declarations that everybody was evaluated by; before the first pass, none."""
        self.ended: float | None = None
        """When the last pass ended, epoch seconds."""

    @property
    def is_current(self) -> bool:
        """Return whether everybody was evaluated by what is declared now."""
        return self.version == self._engine.world.segments.version

    async def run_forever(self) -> None:
        """Evaluate everybody whenever there is cause to."""
        next_due = 0.0
        elapsed = self._engine.clock.elapsed
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            segments = self._engine.world.segments
            if not segments.declared or (
                self.is_current and (elapsed() < next_due or not segments.index.has_timed)
            ):
                continue
            started = elapsed()
            try:
                await self.run_once()
            except StorageError as error:
                logger.error("a pass over all segments failed and is tried again: %s", error)  # noqa: TRY400
            except CorruptLogError as error:
                await self._fold_again(error)
            took = elapsed() - started
            next_due = elapsed() + max(SEGMENT_PASS_SECONDS, took / SEGMENT_PASS_SHARE)

    async def _fold_again(self, error: CorruptLogError) -> None:
        """Mend a state that cannot be read: whoever passes over everybody finds it before anybody asks."""
        logger.error("%s; the state is folded again from the log", error)
        try:
            await self._engine.refold()
        except StorageError as refusal:
            logger.error("the state cannot be folded again yet: %s", refusal)  # noqa: TRY400

    async def run_once(self) -> int:
        """Evaluate everybody; return how many came or went.

        Raises:
            CorruptLogError: Somebody's profile cannot be read.
            StorageError: The disk refused.
        """
        engine = self._engine
        version = engine.world.segments.version
        t = engine.world.segments.time_at(engine.clock.now())
        count = 0
        for key in engine.world.profiles.unwritten():
            count += await self._look_at(key, t)
        after = ""
        while page := engine.world.profiles.page(after, _PAGE):
            for key in page:
                count += await self._look_at(key, t)
            after = page[-1]
        self.version, self.ended = version, engine.clock.now()
        return count

    async def _look_at(self, key: str, t: float | None) -> int:
        """Log what has become of one person's segments; return 1 where something has."""
        await self._breathe()
        while True:
            try:
                return self._evaluate(key, t)
            except OverloadedError:
                await asyncio.sleep(_FULL_SECONDS)

    async def _breathe(self) -> None:
        elapsed = self._engine.clock.elapsed
        if elapsed() > self._slice_ends:
            await asyncio.sleep(_PAUSE_SECONDS)
            self._slice_ends = elapsed() + _SLICE_SECONDS

    def _evaluate(self, key: str, t: float | None) -> int:
        engine = self._engine
        world = engine.world
        profile = world.profiles.peek(key)
        if profile is None:
            return 0
        at = last_known(profile) if t is None else max(last_known(profile), t)
        changes = evaluated(world, profile, at, places_at(world, profile, at)).changes
        if not changes or self._is_going(profile):
            return 0
        # The first change is told; the fold derives them all, and the others are announced with it.
        segment, is_in = changes[0]
        change = SegmentChanged(engine.clock.now(), at, profile.id, segment, "entered" if is_in else "left")
        engine.write(change)
        return 1

    def _is_going(self, profile: Profile) -> bool:
        """Return whether a person is being erased: nothing more is written of them."""
        suppressed, secret = self._engine.world.suppressed, self._engine.options.secret
        if not suppressed:
            return False
        return any(suppression_hash(secret, name) in suppressed for name in profile.identifiers)
