"""An installation within this process: real log, real state, real fold; and visitors' events from a seed.

What is measured without HTTP is measured here, on what the server itself is made of. Two installations
that are given the same seed hold the same bytes.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from benchmarks.visitors import full_catalogue
from tailorbird.features.vocabulary import STANDARD_EVENTS
from tailorbird.limits import REBUILD_DIRTY_MAX
from tailorbird.live.world import TABLES, World
from tailorbird.process.worker import Fold
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.records import KINDS, encode
from tailorbird.stores.segments import SegmentLog
from tailorbird.stores.sqlite import SqliteState

SECRET: Final = bytes(range(32))
BEGIN: Final = 1_760_000_000.0
DAY: Final = 86_400.0
CACHE_BYTES: Final = 256 * 1024 * 1024
NO_CACHE_BYTES: Final = 1
"""Of a world that reads everything from its store, each time."""
CATEGORIES, ITEMS = 20, 1_000

_KIND = KINDS[LoggedEvent]
_SHARES = np.array([40, 8, 1, 6, 12, 8, 4, 3, 2, 0.2, 30, 1, 0, 0, 2, 1, 1, 1, 0.5, 0.5])
"""How often each of `STANDARD_EVENTS` happens."""
_encode = msgspec.json.Encoder().encode


class Inside:
    """A log, a state, a world over it and the fold between them, in one folder."""

    def __init__(self, folder: Path, cache_bytes: int = CACHE_BYTES) -> None:
        self.state_file = folder / "state.db"
        self.log_folder = folder / "log"
        self.log = SegmentLog(self.log_folder)
        self.world = World(SqliteState(self.state_file, TABLES), cache_bytes)
        self.fold = Fold(self.world, SECRET, self.log)
        if not self.log.end:
            self._declare()

    def _declare(self) -> None:
        """Declare all built-in features, as a server does at its first start."""
        declared = full_catalogue()
        offset = self.log.append(*encode(declared))
        self.log.flush()
        self.fold.apply_record(offset, declared)

    def write(self, events: list[LoggedEvent]) -> None:
        """Log events and fold them."""
        apply = self.fold.apply_record
        for offset, event in enumerate(events, self.append(events)):
            apply(offset, event)

    def append(self, events: list[LoggedEvent]) -> int:
        """Log events that the caller folds; return the offset of the first."""
        first = self.log.end
        for event in events:
            self.log.append(_KIND, _encode(event))
        self.log.flush()
        return first

    def make_room(self) -> None:
        """Commit what changed, where it is as much as a rebuild would let wait."""
        if self.world.dirty_count > REBUILD_DIRTY_MAX:
            self.world.checkpoint()

    def reopened(self, cache_bytes: int) -> World:
        """Return another world over what is committed, with an empty cache."""
        return World(SqliteState(self.state_file, TABLES), cache_bytes)

    def close(self) -> None:
        """Commit, and let go of the files."""
        self.world.checkpoint()
        self.world.store.close()
        self.log.close()


def anonymous_id(number: int) -> str:
    """Return the anonymous id of a visitor, as long as clients make it."""
    return f"41e2c26c-7b1a-4c5e-9d0f-{number:012d}"


def user_id(number: int) -> str:
    """Return the user id of a visitor."""
    return f"user-{number:09d}"


def viewed(number: int, t: float, message_id: str) -> LoggedEvent:
    """Return a view of a product by a visitor who is not signed in."""
    return _logged(
        t, message_id, _VIEW % (anonymous_id(number), message_id, number % ITEMS, number % CATEGORIES)
    )


def signed_in(number: int, user: int, t: float, message_id: str) -> LoggedEvent:
    """Return the event that links a visitor's anonymous id to a user."""
    return _logged(t, message_id, _IDENTIFY % (anonymous_id(number), user_id(user), message_id))


def histories(
    generator: np.random.Generator,
    visitors: Iterable[int],
    each: int,
    seconds: float,
    begin: float = BEGIN,
) -> Iterator[LoggedEvent]:
    """Yield about `each` events of every visitor, in the order of time, over `seconds` from `begin` on.

    How many somebody has is drawn, one at least, as in traffic: few have many.
    """
    numbers = np.fromiter(visitors, np.int64)
    counts = 1 + generator.negative_binomial(2, 2.0 / (each + 1.0), len(numbers))
    owners = np.repeat(numbers, counts)
    total = len(owners)
    times = np.sort(generator.uniform(0.0, seconds, total)).round(3)
    owners = generator.permutation(owners)
    names = generator.choice(len(STANDARD_EVENTS), total, p=_SHARES / _SHARES.sum())
    items = np.minimum(generator.zipf(1.3, total), ITEMS) - 1
    drawn = zip(owners.tolist(), times.tolist(), names.tolist(), items.tolist(), strict=True)
    prefix = f"{generator.integers(1 << 62):016x}"
    for place, (owner, t, name, item) in zip(itertools.count(), drawn):
        message_id = f"{prefix}{place:016x}"
        fields = (
            anonymous_id(owner),
            message_id,
            STANDARD_EVENTS[name],
            item,
            item % CATEGORIES,
            10 + item % 90,
        )
        yield _logged(begin + t, message_id, _TRACK % fields)


def _logged(t: float, message_id: str, body: str) -> LoggedEvent:
    return LoggedEvent(t, t, message_id, msgspec.Raw(body.encode()))


_CONTEXT = (
    '"context":{"page":{"path":"/p","referrer":"","search":"","title":"Shop","url":"https://shop.example/p"},'
    '"userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0",'
    '"locale":"en-US","library":{"name":"analytics.js","version":"npm:next-1.84.3"},"timezone":"UTC"}'
)
_IDENTIFY = '{"type":"identify","anonymousId":"%s","userId":"%s","messageId":"%s","traits":{"plan":"free"},'
_IDENTIFY += _CONTEXT + "}"
_VIEW = '{"type":"track","event":"Product Viewed","anonymousId":"%s","messageId":"%s","properties":{'
_VIEW += '"product_id":"sku-%05d","category":"category-%d"},' + _CONTEXT + "}"
_TRACK = '{"type":"track","anonymousId":"%s","messageId":"%s","event":"%s","properties":{'
_TRACK += '"product_id":"sku-%05d","category":"category-%d","revenue":%d},' + _CONTEXT + "}"
