"""The doors of features: what is declared, what it gives, how fresh it is; and changing it."""

import re
from typing import Any

import msgspec
import numpy as np

from tailorbird.app.doors import decode
from tailorbird.app.engine import Engine
from tailorbird.app.exchange import Exchange, Response, flag, json_response
from tailorbird.app.keys import Gate, Role
from tailorbird.clock import format_time
from tailorbird.errors import ConflictError, Fault, InvalidInputError, NotFoundError
from tailorbird.schema.feature import Count, Feature, FeatureConfig, Ratio, Sum


class FeatureDoors:
    """The doors of those who say what is known of a visitor."""

    def __init__(self, engine: Engine, gate: Gate) -> None:
        self._engine = engine
        self._gate = gate

    def declared(self, exchange: Exchange) -> Response:
        """Return what is declared, and all definitions, built-in ones too."""
        self._gate.require(exchange, Role.SERVER)
        return json_response(self._state())

    async def declare(self, exchange: Exchange) -> Response:
        """Declare all features at once; with `wait`, answer when the log is folded again, if it has to be."""
        self._gate.require(exchange, Role.SERVER)
        await self._write(exchange, decode(exchange.body, FeatureConfig))
        return json_response(self._state())

    def feature(self, exchange: Exchange) -> Response:
        """Return one definition, its variables, and when an event last counted for it since the start."""
        self._gate.require(exchange, Role.SERVER)
        return json_response(self._described(self._definition(exchange.params["name"])))

    async def put_feature(self, exchange: Exchange) -> Response:
        """Declare or change one definition; the name in the path is its name."""
        self._gate.require(exchange, Role.SERVER)
        name = exchange.params["name"]
        fields = decode(exchange.body, dict[str, Any])
        if fields.setdefault("name", name) != name:
            raise InvalidInputError(Fault("name", f"the path says {name!r}", fields["name"]))
        made: Feature = decode(msgspec.json.encode(fields), Feature)
        is_new = name not in self._definitions()
        config = self._engine.world.features.reading.put.config
        others = tuple(other for other in config.definitions if other.name != name)
        without = tuple(other for other in config.without if other != name)
        changed = msgspec.structs.replace(config, definitions=(*others, made), without=without)
        try:
            await self._write(exchange, changed)
        except InvalidInputError as error:
            raise InvalidInputError(*(_without_place(fault) for fault in error.faults)) from error
        return json_response(self._described(made), 201 if is_new else 200)

    async def delete_feature(self, exchange: Exchange) -> Response:
        """Take one definition away, a built-in one too; its variables are gone at once."""
        self._gate.require(exchange, Role.SERVER)
        name = self._definition(exchange.params["name"]).name
        config = self._engine.world.features.reading.put.config
        for other in self._definitions().values():
            if isinstance(other, Ratio) and name in (other.numerator, other.denominator):
                raise ConflictError(f"{name!r} is used by {other.name!r}: take that one away first")
        kept = tuple(other for other in config.definitions if other.name != name)
        is_own = len(kept) < len(config.definitions)
        without = config.without if is_own else (*config.without, name)
        await self._write(exchange, msgspec.structs.replace(config, definitions=kept, without=without))
        return Response(204, b"")

    async def _write(self, exchange: Exchange, config: FeatureConfig) -> None:
        is_waited_for = flag(exchange, "wait")
        self._engine.declare_features(config)
        await self._engine.durable()
        if is_waited_for:
            await self._engine.refold_while_stale()

    def _definitions(self) -> dict[str, Feature]:
        return {made.name: made for made in self._engine.world.features.reading.put.definitions}

    def _definition(self, name: str) -> Feature:
        found = self._definitions().get(name)
        if found is None:
            raise NotFoundError(f"no feature is called {name[:100]!r}")
        return found

    def _state(self) -> dict[str, Any]:
        sets = self._engine.world.features
        return {
            "config": sets.reading.put.config,
            "definitions": sets.reading.put.definitions,
            "variables": sets.reading.size,
            "version": sets.reading.version,
            "isFolding": sets.is_stale,
            "foldLagMs": round(1000.0 * self._engine.fold_lag_seconds, 3),
        }

    def _described(self, made: Feature) -> dict[str, Any]:
        sets = self._engine.world.features
        slots = sets.reading.slots_of.get(made.name, ())
        newest = sets.counting.newest_of(_events_of(made, self._definitions()))
        return {
            "definition": made,
            "variables": [sets.reading.names[slot] for slot in slots],
            "purpose": sets.reading.purposes[slots[0]] if slots else made.purpose,
            "isFolding": bool(np.isin(slots, sets.unfolded).any()),
            "lastEventAt": None if newest is None else format_time(newest),
        }


def _without_place(fault: Fault) -> Fault:
    """Return a fault with its path as whoever declares a single definition knows it."""
    path = re.sub(r"^definitions\[\d+\]\.?", "", fault.path)
    return Fault(path or "definition", fault.rule, fault.value)


def _events_of(made: Feature, others: dict[str, Feature]) -> tuple[str, ...] | None:
    """Return the events that a definition is of, None where all may count for it."""
    if isinstance(made, Ratio):
        parts = [others[made.numerator], others[made.denominator]]
        return tuple(part.event for part in parts if isinstance(part, Count | Sum))
    event = getattr(made, "event", None)
    return None if event is None else (event,)
