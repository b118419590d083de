"""A whole installation in memory, for tests: log, fold, world and cascade. No file, no thread, no wait.

house = House()
house.declare("hero", variants=[{"id": "a"}, {"id": "b"}])
house.send("a-1", event="Product Viewed", properties={"product_id": "sku-1"})
answer = house.decide("a-1", "hero")
"""

import json
from typing import Any

import msgspec

from tailorbird.clock import ManualClock, format_time
from tailorbird.decide.compiled import check
from tailorbird.decide.decider import Answer, Answers, Decider, Journal, Settings
from tailorbird.decide.visitor import Request
from tailorbird.features.defaults import expanded
from tailorbird.live.decision_ids import decision_id, offset_of
from tailorbird.live.foreknown import foreknow
from tailorbird.live.profiles import by_identifier
from tailorbird.live.revocations import revoked_in
from tailorbird.live.variables import vector
from tailorbird.live.world import TABLES, World
from tailorbird.process.attribution import mark_of
from tailorbird.process.worker import Fold
from tailorbird.schema.decision import LoggedDecision, PlacementRequest, VisitorRef
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.feature import FeatureConfig, FeaturesPut
from tailorbird.schema.item import Item, ItemsPut
from tailorbird.schema.outcome import Mark
from tailorbird.schema.placement import Placement
from tailorbird.schema.profile import Profile
from tailorbird.schema.records import LogRecord, PlacementPut, decode, encode
from tailorbird.stores.memory import MemoryLog, MemoryState

SECRET = bytes(range(32))
BEGIN = 1_700_000_000.0
ROOMY = 64 * 1024 * 1024


class House:
    """One installation. Attributes are the real rooms; the methods only spell out their arguments."""

    def __init__(
        self,
        *,
        holdout_share: float = 0.0,
        cache_bytes: int = ROOMY,
        gpc_opts_out: bool = True,
        clock: ManualClock | None = None,
        features: dict[str, Any] | None = None,
    ) -> None:
        self.clock = clock or ManualClock(BEGIN)
        self.log = MemoryLog()
        self.store = MemoryState(TABLES)
        self.world = World(self.store, cache_bytes, holdout_share, gpc_opts_out=gpc_opts_out)
        self.fold = Fold(self.world, SECRET, self.log)
        journal = Journal(self.record, self.find)
        settings = Settings(holdout_share, gpc_opts_out)
        self.decider = Decider(SECRET, self.clock, settings, journal, seed=1)
        self.decider.use(self.world)
        self._sent = 0
        if features is not None:
            self.declare_features(**features)

    # --- what may happen ----------------------------------------------------------------------------

    def write(self, record: LogRecord) -> int:
        """Log and fold a record; return its offset."""
        offset = self.log.append(*encode(record))
        self.fold.apply_record(offset, record)
        return offset

    def send(
        self,
        anonymous: str | None = None,
        user: str | None = None,
        *,
        at: float = 0.0,
        gpc: bool = False,
        **fields: Any,
    ) -> int:
        """Log and fold one event of a visitor, `at` seconds from the clock's time."""
        self._sent += 1
        now = self.clock.now()
        body = {
            "type": "track",
            "messageId": f"m-{self._sent}",
            "anonymousId": anonymous,
            "userId": user,
            **fields,
        }
        raw = msgspec.Raw(json.dumps(body).encode())
        return self.write(LoggedEvent(now, now + at, body["messageId"], raw, gpc))

    def declare(self, key: str, **fields: Any) -> Placement:
        """Declare a placement, as JSON through the API would."""
        placement = check(msgspec.convert({"key": key, **fields}, Placement))
        self.write(PlacementPut(self.clock.now(), placement))
        return placement

    def declare_features(self, **fields: Any) -> FeaturesPut:
        """Declare the features of the installation, as its configuration would."""
        config = msgspec.convert({"catalogues": [], **fields}, FeatureConfig)
        put = FeaturesPut(self.clock.now(), config, expanded(config))
        self.write(put)
        return put

    def variables(self, identifier: str, at: float = 0.0) -> dict[str, float]:
        """Return every declared variable of a person, `at` seconds from the clock's time."""
        found = vector(self.world, self.profile(identifier), self.clock.now() + at)
        return dict(zip(self.world.features.reading.names, found.tolist(), strict=True))

    def refolded(self) -> "House":
        """Return another installation, folded from this one's log."""
        other = House(
            holdout_share=self.world.holdout_share, gpc_opts_out=self.world.gpc_opts_out, clock=self.clock
        )
        other.log = self.log
        other.fold = Fold(other.world, SECRET, self.log)
        foreknow(other.world, self.log)
        for record in self.log.read(0):
            other.fold.apply(record)
        return other

    def digest(self) -> str:
        """Return what the whole state comes to, byte for byte."""
        self.world.checkpoint()
        return self.store.digest()

    def stock(self, *items: dict[str, Any]) -> None:
        """Put items into the catalogue."""
        put = tuple(msgspec.convert(item, Item) for item in items)
        self.write(ItemsPut(self.clock.now(), put))

    def decide_all(
        self, anonymous: str | None, *asked: PlacementRequest, user: str | None = None, **more: Any
    ) -> Answers:
        """Ask for decisions."""
        gpc, sticky = more.pop("gpc", False), more.pop("sticky_seconds_min", 0.0)
        request = Request(VisitorRef(anonymous, user), list(asked), **more)
        request.gpc, request.sticky_seconds_min = gpc, sticky
        return self.decider.decide(request)

    def decide(self, anonymous: str | None, key: str, *, user: str | None = None, **more: Any) -> Answer:
        """Ask for one decision; `count`, `exclude` and `candidates` belong to the placement's request."""
        names = ("count", "exclude", "candidates")
        asked = PlacementRequest(key, **{name: more.pop(name) for name in names if name in more})
        return self.decide_all(anonymous, asked, user=user, **more).answers[0]

    def record(self, decisions: list[LoggedDecision]) -> list[str]:
        """Log and fold decisions; return their ids."""
        return [decision_id(SECRET, self.write(decision)) for decision in decisions]

    # --- what is known ------------------------------------------------------------------------------

    def find(self, key: str) -> LoggedDecision | None:
        """Return a decision by its id."""
        offset = offset_of(SECRET, key)
        record = None if offset is None else self.log.get(offset)
        found = None if record is None else decode(record.kind, record.payload)
        return found if isinstance(found, LoggedDecision) else None

    def profile(self, identifier: str) -> Profile:
        """Return the profile that `type:value` names; there must be one."""
        found = by_identifier(self.world, identifier)
        assert found is not None, f"nobody is known as {identifier}"
        return found

    def mark(self, key: str) -> Mark:
        """Return the account of a decision; there must be one."""
        decision = self.find(key)
        assert decision is not None, f"there is no decision {key}"
        return self.world.marks.get(key) or mark_of(decision)

    def count(self, name: str) -> int:
        """Return one of the fold's counts."""
        return self.world.counts.get(name) or 0

    def time(self, shift: float = 0.0) -> str:
        """Return the clock's time as ISO 8601, `shift` seconds on."""
        return format_time(self.clock.now() + shift)


def folded(records: list[LogRecord]) -> World:
    """Return the world of records, folded from the start as a server folds its log."""
    log = MemoryLog()
    for record in records:
        log.append(*encode(record))
    world = World(MemoryState(TABLES), holdout_share=0.5)
    world.revocations.keep_apart(revoked_in(log))
    fold = Fold(world, SECRET, log)
    for record in log.read():
        fold.apply(record)
    world.checkpoint()
    return world


def records_of(house: House) -> list[LogRecord]:
    """Return what the log of a house holds, oldest first."""
    return [decode(record.kind, record.payload) for record in house.log.read()]


def state_of(world: World, *but: str) -> dict[str, dict[str, bytes]]:
    """Return all tables of a world, as they are stored, but those named."""
    return {table: dict(world.store.scan(table)) for table in TABLES if table not in but}
