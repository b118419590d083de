"""The doors of rule segments: declare them, see them with their sizes, take them away."""

from typing import Any

import msgspec

from tailorbird.app.doors import Doors, decode
from tailorbird.app.exchange import Exchange, Response, json_response
from tailorbird.app.keys import Role
from tailorbird.app.segment_pass import SegmentPass
from tailorbird.clock import format_time
from tailorbird.errors import Fault, InvalidInputError, NotFoundError
from tailorbird.limits import SEGMENTS_MAX
from tailorbird.live.rule_segments import check_segment
from tailorbird.schema.segment import RuleSegment, SegmentDeleted, SegmentPut


class SegmentDoors:
    """What operators do with segments."""

    def __init__(self, doors: Doors, everybody: SegmentPass) -> None:
        self._engine = doors.engine
        self._gate = doors.gate
        self._everybody = everybody

    def list_segments(self, exchange: Exchange) -> Response:
        """Return every segment with how many people are in it."""
        self._gate.require(exchange, Role.SERVER)
        segments = self._engine.world.segments
        ended = self._everybody.ended if self._everybody.is_current else None
        return json_response(
            {
                "segments": [
                    {**msgspec.to_builtins(declared.segment), "size": segments.size(key)}
                    for key, declared in sorted(segments.declared.items())
                ],
                "evaluatedAt": None if ended is None else format_time(ended),
            }
        )

    def get_segment(self, exchange: Exchange) -> Response:
        """Return a segment."""
        self._gate.require(exchange, Role.SERVER)
        return json_response(self._segment(exchange.params["key"]))

    async def put_segment(self, exchange: Exchange) -> Response:
        """Declare or change a segment; the key in the path names it."""
        self._gate.require(exchange, Role.SERVER)
        key = exchange.params["key"]
        fields = decode(exchange.body, dict[str, Any])
        if fields.setdefault("key", key) != key:
            raise InvalidInputError(Fault("key", f"the path says {key!r}", fields["key"]))
        declared = self._engine.world.segments.declared
        others = {name: other.segment for name, other in declared.items() if name != key}
        segment = check_segment(decode(msgspec.json.encode(fields), RuleSegment), others)
        is_new = key not in declared
        if is_new and len(declared) >= SEGMENTS_MAX:
            raise InvalidInputError(Fault("key", f"at most {SEGMENTS_MAX} segments", len(declared)))
        if is_new or declared[key].segment != segment:  # Each change has everybody evaluated again.
            self._engine.write(SegmentPut(self._engine.clock.now(), segment))
            await self._engine.durable()
        return json_response(segment, 201 if is_new else 200)

    async def delete_segment(self, exchange: Exchange) -> Response:
        """Take a segment away, and everybody's membership with it."""
        self._gate.require(exchange, Role.SERVER)
        key = self._segment(exchange.params["key"]).key
        self._engine.write(SegmentDeleted(self._engine.clock.now(), key))
        await self._engine.durable()
        return Response(204, b"")

    def _segment(self, key: str) -> RuleSegment:
        declared = self._engine.world.segments.declared.get(key)
        if declared is None:
            raise NotFoundError(f"no segment is called {key[:100]!r}")
        return declared.segment
