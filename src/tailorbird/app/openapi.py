"""The OpenAPI document, made from the routes and the types that they read and write."""

import re
from types import UnionType
from typing import Any, NamedTuple

import msgspec

from tailorbird import __version__
from tailorbird.app.answers import (
    ConsentAnswer,
    DecisionAnswer,
    DeclaredAnswer,
    DiscoveryAnswer,
    DsrAnswer,
    EventsAnswer,
    FeatureAnswer,
    FeaturesAnswer,
    FlagAnswer,
    FlagsAnswer,
    GpcAnswer,
    LiftedAnswer,
    ModelsAnswer,
    PlacementsAnswer,
    PolicyAnswer,
    ProfileAnswer,
    ReadyAnswer,
    RejectsAnswer,
    ReplayedAnswer,
    RevocationAnswer,
    RevokedLinksAnswer,
    SegmentsAnswer,
    SuggestionsAnswer,
    SuppressedAnswer,
    SuppressionsAnswer,
    WrittenAnswer,
)
from tailorbird.app.doors import Door, OutcomeBody
from tailorbird.app.link_doors import LinkBody, SettleBody
from tailorbird.app.operators import ItemsBody, RejectsBody
from tailorbird.app.privacy_doors import SubmitBody
from tailorbird.collect.collector import PATH_TYPES
from tailorbird.deliver.api import DecideAnswer, DecideBody
from tailorbird.limits import COUNT_MAX, LINKS_PER_CALL_MAX, PAGE_SIZE_MAX
from tailorbird.schema.feature import Feature, FeatureConfig
from tailorbird.schema.item import Item, ItemPatch
from tailorbird.schema.placement import Placement
from tailorbird.schema.readout import Readouts
from tailorbird.schema.segment import RuleSegment

_JSON = "application/json"
_PROBLEM = "application/problem+json"
_PLACE = re.compile(r"\{(\w+)(?::path)?\}")


class Operation(NamedTuple):
    """What a route reads and writes, beside what its door's docstring says."""

    tag: str
    body: Any = None
    answer: Any = None
    status: int = 200
    query: tuple[str, ...] = ()
    content_type: str = _JSON


_NEEDED = {"track": "event", "alias": "previousId", "group": "groupId"}
"""The field that an event of a type cannot do without."""
_EVENT: dict[str, Any] = {
    "type": "object",
    "anyOf": [{"required": ["userId"]}, {"required": ["anonymousId"]}],
    "allOf": [
        {"if": {"properties": {"type": {"const": kind}}, "required": ["type"]}, "then": {"required": [field]}}
        for kind, field in _NEEDED.items()
    ],
    "properties": {
        "type": {"enum": ["track", "page", "screen", "identify", "group", "alias"]},
        "messageId": {"type": "string", "maxLength": 100},
        "anonymousId": {"type": "string", "minLength": 1, "maxLength": 500},
        "userId": {"type": "string", "minLength": 1, "maxLength": 500},
        "previousId": {"type": "string", "minLength": 1, "maxLength": 500},
        "groupId": {"type": "string", "minLength": 1, "maxLength": 500},
        "event": {"type": "string", "minLength": 1, "maxLength": 500},
        "properties": {"type": "object"},
        "traits": {"type": "object"},
        "context": {"type": "object"},
        "timestamp": {"type": "string", "format": "date-time"},
        "sentAt": {"type": "string", "format": "date-time"},
        "writeKey": {"type": "string"},
    },
}
_BATCH: dict[str, Any] = {
    "type": "object",
    "required": ["batch"],
    "properties": {
        "batch": {"type": "array", "items": {**_EVENT, "required": ["type"]}, "maxItems": 2500},
        "context": {"type": "object"},
        "sentAt": {"type": "string", "format": "date-time"},
        "writeKey": {"type": "string"},
    },
}

_CONTEXT: dict[str, Any] = {
    "type": "object",
    "required": ["context"],
    "properties": {
        "context": {
            "type": "object",
            "required": ["targetingKey"],
            "properties": {"targetingKey": {"type": "string", "minLength": 1, "maxLength": 500}},
        }
    },
}
_LINKS: dict[str, Any] = {
    "type": "object",
    "required": ["links"],
    "additionalProperties": False,
    "properties": {
        "links": {
            "type": "array",
            "minItems": 1,
            "maxItems": LINKS_PER_CALL_MAX,
            "items": {
                "type": "object",
                "required": ["identifiers", "source"],
                "properties": {
                    "identifiers": {
                        "type": "array",
                        "items": {"type": "string"},
                        "minItems": 2,
                        "maxItems": 2,
                    },
                    "source": {"type": "string", "minLength": 1, "maxLength": 100},
                    "confidence": {"type": "number", "minimum": 0, "maximum": 1},
                    "at": {"type": "string", "format": "date-time"},
                    "needsReview": {"type": "boolean"},
                },
            },
        }
    },
}
_OBJECT: dict[str, Any] = {"type": "object"}
_TEXT: dict[str, Any] = {"type": "string"}
_QUERY: dict[str, dict[str, Any]] = {
    "count": {"type": "integer", "minimum": 1, "maximum": COUNT_MAX},
    "format": {"enum": ["json", "html"]},
    "metric": {"enum": ["rate", "value"]},
    "explain": {"enum": ["true", "1", "false", "0"]},
    "dryRun": {"enum": ["true", "1", "false", "0"]},
    "rejected": {"enum": ["true", "1", "false", "0"]},
    "wait": {"enum": ["true", "1", "false", "0"]},
    "at": {"type": "string", "format": "date-time"},
    "limit": {"type": "integer", "minimum": 0, "maximum": PAGE_SIZE_MAX},
    "after": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
}
"""Parameters that are not any text."""
_REQUIRED_QUERY = ("placement",)
_PLACES: dict[str, dict[str, Any]] = {
    "identifier": {"type": "string", "pattern": "^[^:/]+:[^/]+$"},
}

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/batch"): Operation("events", _BATCH, EventsAnswer),
    ("POST", "/v1/b"): Operation("events", _BATCH, EventsAnswer),
    ("POST", "/v1/import"): Operation("events", _BATCH, EventsAnswer),
    ("POST", "/beacon/v1/batch"): Operation("events", _BATCH, EventsAnswer, query=("writeKey",)),
    ("POST", "/v1/decide"): Operation("decisions", DecideBody, DecideAnswer),
    ("GET", "/v1/decide"): Operation(
        "decisions",
        answer=DecideAnswer,
        query=("placement", "anonymousId", "userId", "count", "format", "explain", "at"),
    ),
    ("POST", "/v1/outcomes"): Operation("events", OutcomeBody, EventsAnswer),
    ("POST", "/ofrep/v1/evaluate/flags"): Operation("openfeature", _CONTEXT, FlagsAnswer),
    ("POST", "/ofrep/v1/evaluate/flags/{key:path}"): Operation("openfeature", _CONTEXT, FlagAnswer),
    ("GET", "/v1/projects/{key}/settings"): Operation("clients", answer=_OBJECT),
    ("GET", "/sourceConfig"): Operation("clients", answer=_OBJECT, query=("writeKey",)),
    ("GET", "/sourceConfig/"): Operation("clients", answer=_OBJECT, query=("writeKey",)),
    ("GET", "/analytics.js/v1/{key}/analytics.min.js"): Operation(
        "clients", answer=_TEXT, content_type="text/javascript"
    ),
    ("GET", "/healthz"): Operation("health", answer=_TEXT, content_type="text/plain"),
    ("GET", "/readyz"): Operation("health", answer=ReadyAnswer),
    ("GET", "/metrics"): Operation("health", answer=_TEXT, content_type="application/openmetrics-text"),
    ("GET", "/openapi.json"): Operation("health", answer=_OBJECT),
    ("PUT", "/admin/v1/items"): Operation("catalogue", ItemsBody, WrittenAnswer),
    ("GET", "/admin/v1/items/{id:path}"): Operation("catalogue", answer=Item),
    ("PATCH", "/admin/v1/items/{id:path}"): Operation("catalogue", ItemPatch, Item),
    ("DELETE", "/admin/v1/items/{id:path}"): Operation("catalogue", status=204),
    ("GET", "/admin/v1/models"): Operation("models", answer=ModelsAnswer),
    ("POST", "/admin/v1/models/refit"): Operation("models", answer=ModelsAnswer, query=("wait",)),
    ("GET", "/admin/v1/features"): Operation("features", answer=FeaturesAnswer),
    ("PUT", "/admin/v1/features"): Operation("features", FeatureConfig, FeaturesAnswer, query=("wait",)),
    ("GET", "/admin/v1/features/{name}"): Operation("features", answer=FeatureAnswer),
    ("PUT", "/admin/v1/features/{name}"): Operation("features", Feature, FeatureAnswer, query=("wait",)),
    ("DELETE", "/admin/v1/features/{name}"): Operation("features", status=204, query=("wait",)),
    ("GET", "/admin/v1/placements"): Operation("placements", answer=PlacementsAnswer),
    ("GET", "/admin/v1/placements/{key:path}/policy"): Operation("placements", answer=PolicyAnswer),
    ("GET", "/admin/v1/placements/{key:path}"): Operation("placements", answer=Placement),
    ("PUT", "/admin/v1/placements/{key:path}"): Operation("placements", Placement, Placement),
    ("DELETE", "/admin/v1/placements/{key:path}"): Operation("placements", status=204),
    ("GET", "/admin/v1/segments"): Operation("segments", answer=SegmentsAnswer),
    ("GET", "/admin/v1/segments/{key:path}"): Operation("segments", answer=RuleSegment),
    ("PUT", "/admin/v1/segments/{key:path}"): Operation("segments", RuleSegment, RuleSegment),
    ("DELETE", "/admin/v1/segments/{key:path}"): Operation("segments", status=204),
    ("PUT", "/admin/v1/profiles/{identifier:path}/consent"): Operation(
        "people",
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 50,
            "additionalProperties": {"type": "boolean"},
        },
        ConsentAnswer,
    ),
    ("GET", "/admin/v1/profiles/{identifier:path}"): Operation("people", answer=ProfileAnswer, query=("at",)),
    ("GET", "/admin/v1/revoked-links"): Operation("people", answer=RevokedLinksAnswer),
    ("PUT", "/admin/v1/revoked-links"): Operation("people", LinkBody, RevocationAnswer),
    ("DELETE", "/admin/v1/revoked-links"): Operation(
        "people", answer=RevocationAnswer, query=("one", "other", "anonymousId", "userId")
    ),
    ("PUT", "/admin/v1/links"): Operation("people", _LINKS, DeclaredAnswer),
    ("GET", "/admin/v1/suggested-links"): Operation(
        "people", answer=SuggestionsAnswer, query=("limit", "rejected")
    ),
    ("PUT", "/admin/v1/suggested-links"): Operation("people", SettleBody, RevocationAnswer),
    ("GET", "/admin/v1/decisions/{id}"): Operation("decisions", answer=DecisionAnswer),
    ("GET", "/admin/v1/readouts"): Operation(
        "readouts", answer=Readouts, query=("placement", "segment", "metric")
    ),
    ("GET", "/admin/v1/rejects"): Operation("events", answer=RejectsAnswer, query=("after", "limit")),
    ("POST", "/admin/v1/rejects/replay"): Operation("events", RejectsBody, ReplayedAnswer),
    ("GET", "/admin/v1/suppressions"): Operation("privacy", answer=SuppressionsAnswer),
    ("PUT", "/admin/v1/suppressions/{identifier:path}"): Operation("privacy", answer=SuppressedAnswer),
    ("DELETE", "/admin/v1/suppressions/{identifier:path}"): Operation("privacy", answer=LiftedAnswer),
    ("GET", "/opendsr/v1/discovery"): Operation("privacy", answer=DiscoveryAnswer),
    ("POST", "/opendsr/v1/requests"): Operation(
        "privacy", SubmitBody, DsrAnswer, status=201, query=("dryRun", "wait")
    ),
    ("GET", "/opendsr/v1/requests/{id}"): Operation("privacy", answer=DsrAnswer, query=("wait",)),
    ("DELETE", "/opendsr/v1/requests/{id}"): Operation("privacy", answer=DsrAnswer, status=202),
    ("GET", "/.well-known/gpc.json"): Operation("privacy", answer=GpcAnswer),
}
"""Routes that say more than their path: the others take in an event."""


def document(routes: list[tuple[str, str, Door]]) -> bytes:
    """Return the OpenAPI 3.1 document of `routes` as JSON."""
    kinds = [
        kind
        for op in OPERATIONS.values()
        for kind in (op.body, op.answer)
        if isinstance(kind, type | UnionType)
    ]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    refs = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for method, path, door in routes:
        operation = OPERATIONS.get((method, path)) or _default(method, path)
        entry = paths.setdefault(_PLACE.sub(r"{\1}", path), {})
        entry[method.lower()] = _operation(method, path, door, operation, refs)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Tailorbird",
                "version": __version__,
                "description": "Real-time personalization: events in, decisions out, lift proven.",
            },
            "paths": paths,
            "components": {
                "schemas": components | {"Problem": _PROBLEM_SCHEMA},
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "basic": {"type": "http", "scheme": "basic"},
                },
            },
        }
    )


_PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "rule": {"type": "string"}, "value": {}},
            },
        },
    },
}
_OPEN = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/.well-known/gpc.json",
    "/opendsr/v1/discovery",
    "/v1/projects",
    "/analytics.js",
)
_ANY_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}


def _default(method: str, path: str) -> Operation:
    assert method == "POST", f"{method} {path} is no event door and is not described"
    needed = _NEEDED.get(PATH_TYPES[path.rsplit("/", 1)[-1]])
    body = _EVENT if needed is None else {**_EVENT, "required": [needed]}
    return Operation("events", body, EventsAnswer)


def _operation(
    method: str, path: str, door: Door, operation: Operation, refs: dict[Any, Any]
) -> dict[str, Any]:
    name = re.sub(r"[^a-z0-9]+", "_", _PLACE.sub(r"\1", f"{method} {path}").lower()).strip("_")
    name += "_slash" if path.endswith("/") else ""
    entry: dict[str, Any] = {
        "operationId": name,
        "tags": [operation.tag],
        "summary": (door.__doc__ or "").strip().split("\n")[0],
        "responses": _responses(operation, refs),
    }
    parameters = [
        {"name": place, "in": "path", "required": True, "schema": _PLACES.get(place, _ANY_TEXT)}
        for place in _PLACE.findall(path)
    ] + [
        {
            "name": query,
            "in": "query",
            "required": path == "/v1/decide" and query in _REQUIRED_QUERY,
            "schema": _QUERY.get(query, _ANY_TEXT),
        }
        for query in operation.query
    ]
    if parameters:
        entry["parameters"] = parameters
    if operation.body is not None:
        entry["requestBody"] = {
            "required": operation.body is not RejectsBody,
            "content": {_JSON: {"schema": _schema(operation.body, refs)}},
        }
    if not path.startswith(_OPEN):
        entry["security"] = [{"bearer": []}, {"basic": []}]
    return entry


def _responses(operation: Operation, refs: dict[Any, Any]) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done."}
    if operation.status != 204:  # noqa: PLR2004
        done["content"] = {operation.content_type: {"schema": _schema(operation.answer, refs)}}
        if operation.answer is DecideAnswer:
            done["content"]["text/html"] = {"schema": {"type": "string"}}
    problem = {
        "description": "What is wrong, as problem details (RFC 9457).",
        "content": {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if operation.tag == "openfeature":
        problem["content"] = {_JSON: {"schema": {"type": "object"}}}
    responses = {str(operation.status): done, "4XX": problem, "503": problem}
    if operation.body in (Placement, Feature, RuleSegment):
        responses["201"] = done
    if operation.body is SubmitBody:
        responses["200"] = done  # Of a dry run, which makes nothing.
    return responses


def _schema(kind: Any, refs: dict[Any, Any]) -> dict[str, Any]:  # noqa: ANN401
    schema: dict[str, Any] = kind if isinstance(kind, dict) else refs[kind]
    return schema
