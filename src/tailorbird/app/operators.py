"""The doors of back ends and operators: catalogue, placements, people, decisions, readouts, refusals."""

import itertools
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tailorbird.admin.api import decision_view, policy_view, profile_view
from tailorbird.app.doors import Doors, decode
from tailorbird.app.exchange import Exchange, Response, json_response
from tailorbird.app.keys import Role
from tailorbird.clock import format_time, parse_time
from tailorbird.collect.collector import Reject
from tailorbird.decide.compiled import check
from tailorbird.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from tailorbird.limits import (
    CATALOGUE_ITEMS_MAX,
    ITEM_BYTES_MAX,
    ITEM_IDS_MAX,
    ITEMS_PER_CALL_MAX,
    PAGE_SIZE_MAX,
    PLACEMENTS_MAX,
)
from tailorbird.live.identifiers import is_blocked
from tailorbird.live.profiles import by_identifier, find, is_suppressed
from tailorbird.live.world import ALL_PLACEMENTS, ArmsMoments, World, moments_key
from tailorbird.measure.query import PlacementMoments, ReadoutQuery
from tailorbird.measure.worker import ReadoutWorker
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.item import Item, ItemDeleted, ItemPatch, ItemPatched, ItemsPut, patched
from tailorbird.schema.placement import Placement
from tailorbird.schema.profile import Profile
from tailorbird.schema.records import ConsentChanged, PlacementDeleted, PlacementPut
from tailorbird.stores.log import Record

Items = Annotated[list[Item], Meta(max_length=ITEMS_PER_CALL_MAX)]

_DECISIONS_SHOWN = 20
_reject_decoder = msgspec.json.Decoder(Reject)


class ItemsBody(msgspec.Struct):
    """The body of `PUT /admin/v1/items` in its wrapped form."""

    items: Items


class RejectsBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/rejects/replay`: which refusals, by offset; without it, all of a page."""

    offsets: Annotated[list[int], Meta(max_length=PAGE_SIZE_MAX)] | None = None


class Operators:
    """The doors of those who run the installation."""

    def __init__(self, doors: Doors, readouts: ReadoutWorker) -> None:
        self._doors = doors
        self._engine = doors.engine
        self._gate = doors.gate
        self._readouts = readouts

    # --- catalogue ----------------------------------------------------------------------------------

    async def put_items(self, exchange: Exchange) -> Response:
        """Write up to 1,000 items: a list, or an object with `items`."""
        self._gate.require(exchange, Role.SERVER)
        body = exchange.body
        is_list = body.lstrip()[:1] == b"["
        items: list[Item] = decode(body, Items) if is_list else decode(body, ItemsBody).items
        for index, item in enumerate(items):
            _check_item(item, f"[{index}].")
        catalogue = self._engine.world.catalogue
        size = catalogue.size + sum(catalogue.get(item.id) is None for item in items)
        if size > CATALOGUE_ITEMS_MAX:
            rule = f"a catalogue of at most {CATALOGUE_ITEMS_MAX} items"
            raise InvalidInputError(Fault("items", rule, size))
        ids = len(catalogue.ids) + sum(item.id not in catalogue.index for item in items)
        if ids > ITEM_IDS_MAX:
            rule = f"at most {ITEM_IDS_MAX} ids over time; a fresh data folder begins anew"
            raise InvalidInputError(Fault("items", rule, ids))
        self._engine.write(ItemsPut(self._engine.clock.now(), tuple(items)))
        await self._engine.durable()
        return json_response({"written": len(items)})

    async def patch_item(self, exchange: Exchange) -> Response:
        """Change some fields of an item."""
        self._gate.require(exchange, Role.SERVER)
        item = self._item(exchange.params["id"])
        patch = decode(exchange.body, ItemPatch)
        changed = patched(item, patch)
        _check_item(changed, "")
        self._engine.write(ItemPatched(self._engine.clock.now(), item.id, patch))
        await self._engine.durable()
        return json_response(changed)

    async def delete_item(self, exchange: Exchange) -> Response:
        """Take an item out of the catalogue."""
        self._gate.require(exchange, Role.SERVER)
        item = self._item(exchange.params["id"])
        self._engine.write(ItemDeleted(self._engine.clock.now(), item.id))
        await self._engine.durable()
        return Response(204, b"")

    def get_item(self, exchange: Exchange) -> Response:
        """Return an item."""
        self._gate.require(exchange, Role.SERVER)
        return json_response(self._item(exchange.params["id"]))

    def _item(self, key: str) -> Item:
        item = self._engine.world.catalogue.get(key)
        if item is None:
            raise NotFoundError(f"no item is called {key[:100]!r}")
        return item

    # --- placements ---------------------------------------------------------------------------------

    def list_placements(self, exchange: Exchange) -> Response:
        """Return every placement."""
        self._gate.require(exchange, Role.SERVER)
        placements = sorted(self._engine.world.placements.items())
        return json_response({"placements": [placement for _, placement in placements]})

    def get_placement(self, exchange: Exchange) -> Response:
        """Return a placement."""
        self._gate.require(exchange, Role.SERVER)
        return json_response(self._placement(exchange.params["key"]))

    async def put_placement(self, exchange: Exchange) -> Response:
        """Declare or change a placement; the key in the path names it."""
        self._gate.require(exchange, Role.SERVER)
        key = exchange.params["key"]
        fields = decode(exchange.body, dict[str, Any])
        if fields.setdefault("key", key) != key:
            raise InvalidInputError(Fault("key", f"the path says {key!r}", fields["key"]))
        placement = check(decode(msgspec.json.encode(fields), Placement))
        placements = self._engine.world.placements
        if key not in placements and len(placements) >= PLACEMENTS_MAX:
            raise InvalidInputError(Fault("key", f"at most {PLACEMENTS_MAX} placements", len(placements)))
        is_new = key not in placements
        self._engine.write(PlacementPut(self._engine.clock.now(), placement))
        await self._engine.durable()
        return json_response(placement, 201 if is_new else 200)

    async def delete_placement(self, exchange: Exchange) -> Response:
        """Take a placement away."""
        self._gate.require(exchange, Role.SERVER)
        key = self._placement(exchange.params["key"]).key
        self._engine.write(PlacementDeleted(self._engine.clock.now(), key))
        await self._engine.durable()
        return Response(204, b"")

    def policy(self, exchange: Exchange) -> Response:
        """Return what a placement's policy has learned."""
        self._gate.require(exchange, Role.SERVER)
        placement = self._placement(exchange.params["key"])
        return json_response(policy_view(placement, self._engine.world.policies.get(placement.key)))

    def _placement(self, key: str) -> Placement:
        placement = self._engine.world.placements.get(key)
        if placement is None:
            raise NotFoundError(f"no placement is called {key[:100]!r}")
        return placement

    # --- people -------------------------------------------------------------------------------------

    def profile(self, exchange: Exchange) -> Response:
        """Return everything that is known of a person."""
        self._gate.require(exchange, Role.SERVER)
        profile = self.person(exchange.params["identifier"])
        engine = self._engine
        at = exchange.query.get("at")
        try:
            now = engine.clock.now() if at is None else parse_time(at)
        except (ValueError, OverflowError) as error:
            raise InvalidInputError(Fault("at", "an ISO 8601 time between 1970 and 2100", at)) from error
        view = profile_view(engine.world, engine.options.secret, profile, now)
        view["recentDecisions"] = self._recent_decisions(profile)
        return json_response(view)

    def person(self, identifier: str) -> Profile:
        """Return the profile that `type:value` names.

        Raises:
            InvalidInputError: It is not of that form.
            NotFoundError: Nobody is known by it.
        """
        kind, _, value = identifier.partition(":")
        if not kind or not value:
            raise InvalidInputError(Fault("identifier", "type:value, such as user_id:u-1", identifier))
        world = self._engine.world
        # Of a shared device the one who uses it now, as decisions have it.
        is_device = kind == "anonymous_id"
        profile = find(world, value, None) if is_device else by_identifier(world, identifier)
        if profile is None:
            raise NotFoundError(f"nobody is known by {identifier[:100]!r}")
        return profile

    def _recent_decisions(self, profile: Profile) -> list[dict[str, Any]]:
        keys = {key for at in profile.placements.values() for key in at.open}
        newest = sorted(keys, key=lambda key: int(key.split("-")[1], 36), reverse=True)[:_DECISIONS_SHOWN]
        found = ((key, self._engine.find_decision(key)) for key in newest)
        return [self._view(key, decision) for key, decision in found if decision]

    def _view(self, key: str, decision: LoggedDecision) -> dict[str, Any]:
        engine = self._engine
        return decision_view(key, decision, engine.world.marks.get(key), engine.decider.because(decision))

    async def put_consent(self, exchange: Exchange) -> Response:
        """Set what a person allows, by purpose; a person not met before is met by it."""
        self._gate.require(exchange, Role.SERVER)
        identifier = exchange.params["identifier"]
        kind, _, value = identifier.partition(":")
        if not kind or not value or len(identifier) > _IDENTIFIER_MAX:
            raise InvalidInputError(Fault("identifier", "type:value, such as user_id:u-1", identifier))
        if is_blocked(value):
            raise InvalidInputError(Fault("identifier", "a value that identifies somebody", identifier))
        if is_suppressed(self._engine.world, self._engine.options.secret, kind, value):
            raise ConflictError("the person was erased: suppressed until lifted")
        consent = decode(exchange.body, dict[str, bool])
        if not consent or len(consent) > _PURPOSES_MAX:
            raise InvalidInputError(Fault("body", f"from one to {_PURPOSES_MAX} purposes", len(consent)))
        if kind in ("profile", "email"):
            # These find people and never found them.
            identifier = next(iter(self.person(identifier).identifiers))
        lowered = {purpose.lower()[:100]: allowed for purpose, allowed in consent.items()}
        self._engine.write(ConsentChanged(self._engine.clock.now(), identifier, lowered))
        await self._engine.durable()
        return json_response({"consent": self.person(identifier).consent})

    # --- decisions and readouts ---------------------------------------------------------------------

    def decision(self, exchange: Exchange) -> Response:
        """Return a decision as it was logged, and what became of it."""
        self._gate.require(exchange, Role.SERVER)
        key = exchange.params["id"]
        decision = self._engine.find_decision(key)
        if decision is None:
            raise NotFoundError(f"no decision is called {key[:100]!r}")
        return json_response(self._view(key, decision))

    async def readouts(self, exchange: Exchange) -> Response:
        """Return what personalization earned against the holdout."""
        self._gate.require(exchange, Role.SERVER)
        query = exchange.query
        metric = query.get("metric")
        if metric not in (None, "rate", "value"):
            raise InvalidInputError(Fault("metric", "rate or value", metric))
        wanted = query.get("placement")
        world = self._engine.world
        if wanted is not None and wanted != ALL_PLACEMENTS and wanted not in world.placements:
            raise NotFoundError(f"no placement is called {wanted[:100]!r}")
        segment = query.get("segment")
        if segment is not None and segment not in world.segments.declared:
            raise NotFoundError(f"no segment is called {segment[:100]!r}")
        question = readout_query(world, world.newest or self._engine.clock.now(), wanted, metric, segment)
        return json_response(await self._readouts.ask(question))

    # --- refusals -----------------------------------------------------------------------------------

    def rejects(self, exchange: Exchange) -> Response:
        """List refused events, from an offset on, with path, rule and what they were."""
        self._gate.require(exchange, Role.ADMIN)
        start = whole(exchange.query.get("after"), "after", -1) + 1
        limit = whole(exchange.query.get("limit"), "limit", 100)
        if limit > PAGE_SIZE_MAX:
            raise InvalidInputError(Fault("limit", f"at most {PAGE_SIZE_MAX}", limit))
        found = itertools.islice(self._engine.rejects.read(start), limit)
        rows = [_reject_view(record) for record in found]
        return json_response({"rejects": rows, "counts": self._doors.collector.rejected})

    async def replay_rejects(self, exchange: Exchange) -> Response:
        """Send refused events through the door again; those that pass now leave the reject log."""
        self._gate.require(exchange, Role.ADMIN)
        wanted = decode(exchange.body or b"{}", RejectsBody).offsets
        log = self._engine.rejects
        records = (
            list(itertools.islice(log.read(), PAGE_SIZE_MAX))
            if wanted is None
            else [record for offset in wanted if (record := log.get(offset)) is not None]
        )
        passed: set[int] = set()
        still: list[dict[str, Any]] = []
        for record in records:
            try:
                collected = self._doors.collector.again(_reject_decoder.decode(record.payload))
            except InvalidInputError as error:  # A whole batch that still cannot be read.
                still += [{"offset": record.offset, "path": f.path, "rule": f.rule} for f in error.faults]
                continue
            self._engine.write_events(collected.accepted)
            if collected.faults:
                still += [
                    {"offset": record.offset, "path": f.path, "rule": f.rule} for _, f in collected.faults
                ]
            else:
                passed.add(record.offset)
        await self._engine.durable()
        if passed:
            log.rewrite(lambda record: record.offset not in passed)
        return json_response({"replayed": len(passed), "rejected": still})


def _reject_view(record: Record) -> dict[str, Any]:
    reject = _reject_decoder.decode(record.payload)
    return {
        "offset": record.offset,
        "receivedAt": format_time(reject.r),
        "door": reject.door,
        "path": reject.path,
        "rule": reject.rule,
        "value": reject.value,
        "body": reject.body,
    }


def readout_query(
    world: World,
    as_of: float,
    placement: str | None,
    metric: Any = None,  # noqa: ANN401
    segment: str | None = None,
) -> ReadoutQuery:
    """Return the question to the statistics: the moments of every placement's two arms.

    With a `segment`, of the visitors who were in it when they were first decided for.
    """
    moments = []
    for key, arms in sorted(world.moments.scan() if segment is None else _moments_in(world, segment)):
        declared = world.placements.get(key)
        learn_from = "auto" if declared is None else declared.learn_from
        moments.append(
            PlacementMoments(
                key,
                world.share_of(key),
                arms.personalized,
                arms.holdout,
                learn_from,
                _apart(world) if key == ALL_PLACEMENTS else (),
                arms.merged_units,
                segment,
            )
        )
    return ReadoutQuery(as_of, tuple(moments), placement, metric)


def _moments_in(world: World, segment: str) -> Iterator[tuple[str, ArmsMoments]]:
    prefix = moments_key("", segment)
    return ((key.removeprefix(prefix), arms) for key, arms in world.moments_in.scan(prefix))


def _apart(world: World) -> tuple[str, ...]:
    """Return the placements that the readout over all leaves out: see `process.attribution`."""
    return tuple(
        key
        for key in sorted(world.placements)
        if world.share_of(key) != world.holdout_share and world.moments.get(key) is not None
    )


_IDENTIFIER_MAX = 600
_PURPOSES_MAX = 50


def _check_item(item: Item, path: str) -> None:
    size = len(msgspec.json.encode(item))
    if size > ITEM_BYTES_MAX:
        raise InvalidInputError(Fault(f"{path}item", f"at most {ITEM_BYTES_MAX} bytes", f"{size} bytes"))
    for name, text in (("publishedAt", item.published_at), ("expiresAt", item.expires_at)):
        try:
            if text is not None:
                parse_time(text)
        except (ValueError, OverflowError) as error:
            rule = "an ISO 8601 time between 1970 and 2100"
            raise InvalidInputError(Fault(f"{path}{name}", rule, text)) from error


def whole(text: str | None, path: str, default: int) -> int:
    """Return the whole number of a query's parameter.

    Raises:
        InvalidInputError: It is none.
    """
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 16):  # noqa: PLR2004
        raise InvalidInputError(Fault(path, "a whole number", text))
    return int(text)
