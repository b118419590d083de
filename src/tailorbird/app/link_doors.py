"""The doors of links: declared ones, suggested ones, and those that were revoked."""

from typing import Any

import msgspec

from tailorbird.app.doors import Doors, decode
from tailorbird.app.exchange import Exchange, Response, json_response
from tailorbird.app.keys import Role
from tailorbird.app.links import Links, LinksBody, checked_pair, declared_view
from tailorbird.app.operators import whole
from tailorbird.errors import Fault, InvalidInputError
from tailorbird.limits import PAGE_SIZE_MAX
from tailorbird.live.identifiers import is_blocked
from tailorbird.live.revocations import Pair
from tailorbird.schema.placement import Identity
from tailorbird.schema.profile import identifier_of


class LinkBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body of `PUT /admin/v1/revoked-links`: two identifiers, or a device and whose it is not."""

    identifiers: tuple[str, str] | None = None
    anonymous_id: Identity | None = None
    user_id: Identity | None = None


class SettleBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body of `PUT /admin/v1/suggested-links`: whether two identifiers are one person's."""

    identifiers: tuple[str, str]
    accepted: bool


class LinkDoors:
    """The doors of links."""

    def __init__(self, doors: Doors) -> None:
        self._gate = doors.gate
        self._links = Links(doors.engine)

    async def put_links(self, exchange: Exchange) -> Response:
        """Declare up to 1,000 links between identifiers, as from a third party's graph file."""
        self._gate.require(exchange, Role.ADMIN)
        body = decode(exchange.body, LinksBody)
        return json_response(declared_view(await self._links.declare(body.links)))

    def list_suggestions(self, exchange: Exchange) -> Response:
        """List suggested links, the highest scores first; `rejected` lists those that were refused."""
        self._gate.require(exchange, Role.ADMIN)
        limit = whole(exchange.query.get("limit"), "limit", 100)
        if limit > PAGE_SIZE_MAX:
            raise InvalidInputError(Fault("limit", f"at most {PAGE_SIZE_MAX}", limit))
        asked = exchange.query.get("rejected", "false").lower()
        if asked not in ("true", "1", "false", "0"):
            raise InvalidInputError(Fault("rejected", "true or false", asked))
        found = self._links.suggestions(limit, is_rejected=asked in ("true", "1"))
        return json_response({"suggestions": found})

    async def put_suggestion(self, exchange: Exchange) -> Response:
        """Accept a suggested link, which then is one, or reject it for good."""
        self._gate.require(exchange, Role.ADMIN)
        body = decode(exchange.body, SettleBody)
        return json_response(await self._links.settle(body.identifiers, is_accepted=body.accepted))

    async def put_revocation(self, exchange: Exchange) -> Response:
        """Take a link back: two identifiers become two people, as if nothing had ever joined them."""
        self._gate.require(exchange, Role.ADMIN)
        pair = _named(decode(exchange.body, LinkBody))
        await self._links.revoke(pair)
        return json_response(self._links.people_of(*pair))

    async def delete_revocation(self, exchange: Exchange) -> Response:
        """Let two identifiers be joined again, also by events that are in the log already."""
        self._gate.require(exchange, Role.ADMIN)
        query = exchange.query
        if "one" in query or "other" in query:
            pair = checked_pair(query.get("one", ""), query.get("other", ""))
        else:
            pair = _device_and_user(query.get("anonymousId", ""), query.get("userId", ""))
        await self._links.restore(pair)
        return json_response(self._links.people_of(*pair))

    def list_revocations(self, exchange: Exchange) -> Response:
        """List the links that are revoked."""
        self._gate.require(exchange, Role.ADMIN)
        return json_response({"links": [{"identifiers": pair} for pair in self._links.revoked()]})


def _named(body: LinkBody) -> Pair:
    """Return the pair that a body names, in one of its two forms."""
    named: tuple[Any, ...] = (body.anonymous_id, body.user_id)
    if body.identifiers is not None and named == (None, None):
        return checked_pair(*body.identifiers)
    if body.identifiers is not None or None in named:
        rule = "either identifiers, or anonymousId and userId"
        raise InvalidInputError(Fault("identifiers", rule, body.identifiers))
    return _device_and_user(*named)


def _device_and_user(anonymous_id: str, user_id: str) -> Pair:
    named = (("anonymousId", anonymous_id), ("userId", user_id))
    faults = [
        Fault(field, "a value that identifies somebody", value) for field, value in named if is_blocked(value)
    ]
    if faults:
        raise InvalidInputError(*faults)
    return identifier_of("anonymous_id", anonymous_id), identifier_of("user_id", user_id)
