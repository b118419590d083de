"""The routing of everything that is not a hot door, and the ASGI application of all doors."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

import msgspec
from starlette.routing import Match, Route, Router

from tailorbird.app.doors import Door, Doors, guarded
from tailorbird.app.exchange import Exchange, Headers, Response, WhenDurable, problem
from tailorbird.app.feature_doors import FeatureDoors
from tailorbird.app.http import cors_headers
from tailorbird.app.keys import Gate, Role
from tailorbird.app.link_doors import LinkDoors
from tailorbird.app.model_doors import ModelDoors
from tailorbird.app.openapi import document
from tailorbird.app.operators import Operators
from tailorbird.app.privacy_doors import PrivacyDoors
from tailorbird.app.segment_doors import SegmentDoors
from tailorbird.errors import Fault, InvalidInputError, NotFoundError
from tailorbird.limits import BODY_BYTES_MAX, PUBLIC_BODY_BYTES_MAX

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_ALLOWED_HEADERS = (
    "authorization, content-type, x-write-key, anonymousid, sentat, x-retry-count, x-api-key,"
    " if-none-match, sec-gpc"
)
_PREFLIGHT_SECONDS = 86400  # A preflight a path and day; browsers cap it at two hours to a day.


class AllDoors(NamedTuple):
    """The doors of one installation, by whom they are for."""

    clients: Doors
    operators: Operators
    links: LinkDoors
    privacy: PrivacyDoors
    features: FeatureDoors
    segments: SegmentDoors
    models: ModelDoors


def table(all_doors: AllDoors) -> list[tuple[str, str, Door]]:
    """Return (method, path, door) of every route that is not hot; hot ones are reachable here too."""
    doors, operators, links, privacy, features, segments, models = all_doors
    hot = [("POST", path.decode(), door) for path, door in doors.hot().items()]
    return [
        *hot,
        ("GET", "/v1/decide", doors.decide_by_query),
        ("POST", "/v1/outcomes", doors.outcome),
        ("POST", "/ofrep/v1/evaluate/flags", doors.evaluate_all),
        ("POST", "/ofrep/v1/evaluate/flags/{key:path}", doors.evaluate),
        ("GET", "/v1/projects/{key}/settings", doors.segment_settings),
        ("GET", "/sourceConfig", doors.rudder_config),
        ("GET", "/sourceConfig/", doors.rudder_config),
        ("GET", "/analytics.js/v1/{key}/analytics.min.js", doors.analytics_js),
        ("GET", "/healthz", doors.healthz),
        ("GET", "/readyz", doors.readyz),
        ("GET", "/metrics", doors.metrics_text),
        ("PUT", "/admin/v1/items", operators.put_items),
        ("GET", "/admin/v1/items/{id:path}", operators.get_item),
        ("PATCH", "/admin/v1/items/{id:path}", operators.patch_item),
        ("DELETE", "/admin/v1/items/{id:path}", operators.delete_item),
        ("GET", "/admin/v1/placements", operators.list_placements),
        ("GET", "/admin/v1/placements/{key:path}/policy", operators.policy),
        ("GET", "/admin/v1/placements/{key:path}", operators.get_placement),
        ("PUT", "/admin/v1/placements/{key:path}", operators.put_placement),
        ("DELETE", "/admin/v1/placements/{key:path}", operators.delete_placement),
        ("GET", "/admin/v1/segments", segments.list_segments),
        ("GET", "/admin/v1/segments/{key:path}", segments.get_segment),
        ("PUT", "/admin/v1/segments/{key:path}", segments.put_segment),
        ("DELETE", "/admin/v1/segments/{key:path}", segments.delete_segment),
        ("PUT", "/admin/v1/profiles/{identifier:path}/consent", operators.put_consent),
        ("GET", "/admin/v1/profiles/{identifier:path}", operators.profile),
        ("PUT", "/admin/v1/links", links.put_links),
        ("GET", "/admin/v1/suggested-links", links.list_suggestions),
        ("PUT", "/admin/v1/suggested-links", links.put_suggestion),
        ("GET", "/admin/v1/revoked-links", links.list_revocations),
        ("PUT", "/admin/v1/revoked-links", links.put_revocation),
        ("DELETE", "/admin/v1/revoked-links", links.delete_revocation),
        ("GET", "/admin/v1/models", models.models),
        ("POST", "/admin/v1/models/refit", models.refit),
        ("GET", "/admin/v1/features", features.declared),
        ("PUT", "/admin/v1/features", features.declare),
        ("GET", "/admin/v1/features/{name}", features.feature),
        ("PUT", "/admin/v1/features/{name}", features.put_feature),
        ("DELETE", "/admin/v1/features/{name}", features.delete_feature),
        ("GET", "/admin/v1/decisions/{id}", operators.decision),
        ("GET", "/admin/v1/readouts", operators.readouts),
        ("GET", "/admin/v1/rejects", operators.rejects),
        ("POST", "/admin/v1/rejects/replay", operators.replay_rejects),
        ("GET", "/admin/v1/suppressions", privacy.suppressions),
        ("PUT", "/admin/v1/suppressions/{identifier:path}", privacy.suppress),
        ("DELETE", "/admin/v1/suppressions/{identifier:path}", privacy.lift),
        ("GET", "/opendsr/v1/discovery", privacy.discovery),
        ("POST", "/opendsr/v1/requests", privacy.submit),
        ("GET", "/opendsr/v1/requests/{id}", privacy.status),
        ("DELETE", "/opendsr/v1/requests/{id}", privacy.cancel),
        ("GET", "/.well-known/gpc.json", privacy.gpc),
    ]


def with_openapi(routes: list[tuple[str, str, Door]]) -> list[tuple[str, str, Door]]:
    """Return the routes with `GET /openapi.json`, which describes them all."""

    def openapi(_exchange: Exchange) -> Response:
        """Return this document."""
        return Response(200, content)

    described = [*routes, ("GET", "/openapi.json", openapi)]
    content = document(described)
    return described


class Application:
    """The ASGI application: Starlette's routing around the doors."""

    def __init__(self, routes: list[tuple[str, str, Door]], gate: Gate) -> None:
        self._gate = gate
        self._doors: dict[tuple[str, str], Door] = {
            (method, path): guarded(door) for method, path, door in routes
        }
        paths = dict.fromkeys(path for _, path, _ in routes)
        self._router = Router([_route(path) for path in paths])
        self._methods: dict[str, list[str]] = {}
        for method, path, _ in routes:
            self._methods.setdefault(path, []).append(method)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        headers: Headers = dict(reversed(scope["headers"]))
        if scope["method"] == "OPTIONS":
            await _send(send, _preflight(), headers)
            return
        response = await self._respond(scope, receive, headers)
        await _send(send, response, headers, is_bodiless=scope["method"] == "HEAD")

    async def _respond(self, scope: Scope, receive: Receive, headers: Headers) -> Response:
        path, params = self._match(scope)
        if path is None:
            return problem(NotFoundError(f"nothing is at {scope['path'][:200]!r}"))
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        door = self._doors.get((method, path))
        if door is None:
            allowed = ", ".join(self._methods[path])
            body = b'{"type":"about:blank","title":"Method not allowed","status":405,"detail":"allowed: %b"}'
            answer = Response(405, body % allowed.encode(), b"application/problem+json")
            return answer._replace(headers=((b"allow", allowed.encode()),))
        asked = Exchange(method, scope["path"], scope["query_string"], headers, b"", params=params)
        is_trusted = self._is_trusted(asked)
        bytes_max = BODY_BYTES_MAX if is_trusted else PUBLIC_BODY_BYTES_MAX
        content = await _read(receive, bytes_max)
        if content is None:
            who = "" if is_trusted else " without a server key"
            return problem(InvalidInputError(Fault("body", f"at most {bytes_max} bytes{who}")))
        result = door(msgspec.structs.replace(asked, _body=content))
        if isinstance(result, WhenDurable):
            await asyncio.wait([result.durable])
            return result.settled()
        return result if isinstance(result, Response) else await result

    def _is_trusted(self, asked: Exchange) -> bool:
        """Return whether a request shows, before its body, a key that is no public one."""
        try:
            return self._gate.role(asked) >= Role.SERVER
        except InvalidInputError:
            return False  # The door says what is wrong with its query.

    def _match(self, scope: Scope) -> tuple[str | None, dict[str, str]]:
        """Return the first route of this path, whatever its methods: the narrower ones stand first."""
        for route in self._router.routes:
            match, child = route.matches(scope)
            if match is not Match.NONE and isinstance(route, Route):
                return route.path, {name: str(value) for name, value in child["path_params"].items()}
        return None, {}


def _route(path: str) -> Route:
    route = Route(path, _unused, methods=None)
    # Ids may hold any character; in Starlette's own expression a path ends at a line break.
    route.path_regex = re.compile(route.path_regex.pattern, re.DOTALL)
    return route


async def _unused(_request: Any) -> None:  # noqa: ANN401
    """Stand in as an endpoint: only the matching of Starlette's routes is used."""


def _preflight() -> Response:
    headers = (
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
        (b"access-control-allow-headers", _ALLOWED_HEADERS.encode()),
        (b"access-control-max-age", str(_PREFLIGHT_SECONDS).encode()),
    )
    return Response(204, b"", headers=headers)


async def _read(receive: Receive, bytes_max: int) -> bytes | None:
    """Return the body, None where it is too large."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        part = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _send(
    send: Send, response: Response, request_headers: Headers, *, is_bodiless: bool = False
) -> None:
    origin = request_headers.get(b"origin")
    headers = list(response.headers)
    if response.status not in (204, 304):
        headers.append((b"content-type", response.content_type))
        headers.append((b"content-length", str(len(response.body)).encode()))
    if origin is not None:
        headers += cors_headers(origin)
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_bodiless else response.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
