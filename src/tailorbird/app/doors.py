"""The doors: every HTTP path of the data plane as a function of an exchange and the engine."""

import asyncio
import functools
import html
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.app.engine import Engine
from tailorbird.app.exchange import (
    HTML,
    PROBLEM,
    TEXT,
    Answer,
    Exchange,
    Response,
    WhenDurable,
    faults_out,
    json_response,
    problem,
)
from tailorbird.app.keys import Gate, Role
from tailorbird.app.metrics import Metrics
from tailorbird.clock import parse_time
from tailorbird.collect.collector import PATH_TYPES, Collected, Collector
from tailorbird.collect.validate import check_shape, parse_fault
from tailorbird.decide.decider import Answers
from tailorbird.decide.visitor import Request
from tailorbird.deliver.api import DecideBody, parse_decide, render_answers, time_of
from tailorbird.deliver.openfeature import (
    STICKY_SECONDS,
    OfrepError,
    etag_of,
    failure,
    parse_context,
    success,
    visitor_of,
)
from tailorbird.deliver.ssr import render_list, render_template, render_value
from tailorbird.errors import (
    Fault,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    TailorbirdError,
    UnauthorizedError,
)
from tailorbird.limits import (
    CONTEXT_BYTES_MAX,
    CONTEXT_ENTRIES_MAX,
    COUNT_MAX,
    DECIDE_BYTES_MAX,
    IDENTIFIER_LENGTH_MAX,
    PUBLIC_BODY_BYTES_MAX,
)
from tailorbird.live.identifiers import email_of, named_in_context
from tailorbird.live.profiles import is_suppressed
from tailorbird.rules.cel import entries_in
from tailorbird.schema.decision import PlacementRequest, VisitorRef
from tailorbird.schema.events import Event, LoggedOutcome
from tailorbird.schema.placement import Time

logger = logging.getLogger("tailorbird")

Door = Callable[[Exchange], Answer]

_ASKED_PLACEMENT = re.compile(rb"(?:^|[&;])placement=")
_SUCCESS = Response(200, b'{"success":true}')
_PARSE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_OK = 200
_COUNT_DIGITS_MAX = 4


class OutcomeBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body of `POST /v1/outcomes`."""

    decision_id: str
    goal: str | None = None
    value: float | None = None
    timestamp: Time | None = None
    message_id: str | None = None


class Doors:
    """The doors of one engine."""

    def __init__(self, engine: Engine, gate: Gate, analytics_js: str) -> None:
        self.engine = engine
        self.gate = gate
        self.collector = Collector(engine.clock, engine.keep_reject, self._is_refused)
        self._analytics_js = Path(analytics_js) if analytics_js else None
        self.served: dict[str, int] = {"events": 0, "decisions": 0}
        self.metrics = Metrics(engine, self.served, self.collector.rejected)
        engine.on_durable = self.metrics.durable_seconds.observe

    def hot(self) -> dict[bytes, Door]:
        """Return the doors that get the short cut, by path."""
        found: dict[bytes, Door] = {b"/v1/decide": guarded(self.decide)}
        for name in PATH_TYPES:
            found[f"/v1/{name}".encode()] = guarded(self.single_event)
            found[f"/api/s/{name}".encode()] = guarded(self.single_event)
            found[f"/api/s/s2s/{name}".encode()] = guarded(self.single_event)
        for path in (b"/v1/batch", b"/v1/b", b"/v1/import", b"/beacon/v1/batch"):
            found[path] = guarded(self.batch)
        return found

    # --- events -------------------------------------------------------------------------------------

    def single_event(self, exchange: Exchange) -> Answer:
        """Take in one event."""
        body = self._body_of_writer(exchange)
        collected = self.collector.single(exchange.path, body, gpc=exchange.has_gpc)
        return self._collect(collected)

    def batch(self, exchange: Exchange) -> Answer:
        """Take in a batch of events."""
        body = self._body_of_writer(exchange)
        return self._collect(self.collector.batch(exchange.path, body, gpc=exchange.has_gpc))

    def _collect(self, collected: Collected) -> Answer:
        accepted, faults = collected
        if not accepted:
            is_over_count = any(fault.path == "batch" for _, fault in faults)
            return _refusal(collected, 200 if is_over_count or not faults else 400)
        durable = self.engine.write_events(accepted)
        self.served["events"] += len(accepted)
        return WhenDurable(durable, _refusal(collected, 200) if faults else _SUCCESS)

    def _body_of_writer(self, exchange: Exchange) -> bytes:
        """Return the body of a request that carries a key, if need be in the body itself."""
        is_known = bool(self.gate.role(exchange))
        body = exchange.unpacked(PUBLIC_BODY_BYTES_MAX)
        if is_known:
            return body
        # Without a header the key is in the body; a body that cannot be read names no key.
        try:
            key = _write_key_decoder.decode(body).write_key
        except _PARSE_ERRORS:
            key = None
        if key is None or not self.gate.role_of(key):
            raise UnauthorizedError("a write key is needed, and the one sent (if any) is not known")
        return body

    def _is_refused(self, event: Event) -> bool:
        world, secret = self.engine.world, self.engine.options.secret
        if not world.suppressed:
            return False
        named = (
            ("user_id", event.user_id),
            ("anonymous_id", event.anonymous_id),
            ("user_id", event.previous_id),
        )
        if any(is_suppressed(world, secret, kind, value) for kind, value in named):
            return True
        context = event.context
        emails = [
            (traits or {}).get("email") for traits in (event.traits, context.traits if context else None)
        ]
        more = [("email", email_of(email)) for email in emails]
        more += [(kind, value) for kind, value in named_in_context(event) if kind != "email"]
        return any(is_suppressed(world, secret, kind, value) for kind, value in more)

    async def outcome(self, exchange: Exchange) -> Response:
        """Take in an outcome of a decision that the caller knows."""
        self.gate.require(exchange, Role.SERVER)
        body = decode(exchange.body, OutcomeBody)
        decision = self.engine.find_decision(body.decision_id)
        if decision is None:
            raise NotFoundError(f"no decision is called {body.decision_id[:100]!r}")
        placement = self.engine.world.placements.get(decision.placement)
        goal = None if placement is None else placement.goal
        if goal is None or body.goal not in (None, goal.event):
            rule = "the placement has no goal" if goal is None else f"the placement's goal is {goal.event!r}"
            raise InvalidInputError(Fault("goal", rule, body.goal))
        received = self.engine.clock.now()
        t = _time(body.timestamp, "timestamp", received)
        if body.value is not None and abs(body.value) > 1e12:  # noqa: PLR2004
            raise InvalidInputError(Fault("value", "between -1e12 and 1e12", body.value))
        message_id = body.message_id or f"outcome:{body.decision_id}:{goal.event}"
        self.engine.write(LoggedOutcome(received, t, message_id, body.decision_id, goal.event, body.value))
        await self.engine.durable()
        return _SUCCESS

    # --- decisions ----------------------------------------------------------------------------------

    def decide(self, exchange: Exchange) -> Response | WhenDurable:
        """Answer `POST /v1/decide`."""
        role = self.gate.require(exchange, Role.WRITE)
        body = _small(exchange.body)
        try:
            asked = parse_decide(body)
        except _PARSE_ERRORS as error:
            raise InvalidInputError(parse_fault(error, body)) from error
        if asked.context:
            _check_context(body, asked.context)
        request = _request(exchange, asked, role)
        answers, written = self.engine.decide(request)
        response = self._render(answers, asked, role)
        if written is None:
            return response
        return WhenDurable(
            written, response, lambda: self._render(self.engine.decider.decide(request), asked, role)
        )

    def _render(self, answers: Answers, asked: DecideBody, role: Role) -> Response:
        self.served["decisions"] += len(answers.answers)
        self.metrics.observe_decide(answers.took_ms / 1000.0)
        because = self.engine.decider.because if asked.explain else None
        return Response(200, render_answers(answers, is_trusted=role >= Role.SERVER, because=because))

    def decide_by_query(self, exchange: Exchange) -> Response:
        """Answer `GET /v1/decide`, as JSON or as HTML."""
        role = self.gate.require(exchange, Role.WRITE)
        query = exchange.query
        key = query.get("placement", "")
        if len(_ASKED_PLACEMENT.findall(exchange.query_string)) > 1:
            raise InvalidInputError(Fault("placement", "one in a GET; POST /v1/decide answers several", key))
        if not key:
            raise InvalidInputError(Fault("placement", "a placement's key is needed", key))
        visitor = VisitorRef(_identifier(query, "anonymousId"), _identifier(query, "userId"))
        asked = DecideBody(
            [PlacementRequest(key, _count(query.get("count")))],
            visitor,
            explain=query.get("explain") in ("1", "true"),
            at=query.get("at"),
        )
        wanted = query.get("format", "json")
        if wanted == "json":
            answers = self.engine.decider.decide(_request(exchange, asked, role))
            return _uncached(self._render(answers, asked, role))
        if wanted != "html":
            raise InvalidInputError(Fault("format", "json or html", wanted))
        answer = self.engine.decider.decide(_request(exchange, asked, role)).answers[0]
        self.served["decisions"] += 1
        if answer.decision is None:
            raise NotFoundError(f"no placement is called {key[:100]!r}")
        content = self._html(key, answer)
        key_out = html.escape(answer.decision_id)
        wrapped = f'<div class="tailorbird" data-decision-id="{key_out}">{content}</div>'
        return _uncached(Response(200, wrapped.encode(), HTML))

    def _html(self, key: str, answer: Any) -> str:  # noqa: ANN401
        placement = self.engine.world.placements[key]
        if placement.kind == "list":
            pairs = zip(answer.decision.choices, answer.values, strict=True)
            return render_list([(choice.id, value) for choice, value in pairs])
        chosen = {choice.id for choice in answer.decision.choices}
        variant = next((v for v in placement.variants if v.id in chosen), None)
        if variant is None:
            return ""
        if variant.template is None:
            return render_value(variant.value)
        return render_template(variant.template, variant.value)

    # --- OpenFeature --------------------------------------------------------------------------------

    def evaluate(self, exchange: Exchange) -> Response:
        """Answer a single OFREP evaluation."""
        key = exchange.params["key"]
        try:
            self._require_flags(exchange)
            context = _flag_context(exchange.body)
            self._require_flag(key)
            flag = self._evaluate([key], context, exchange)[0]
        except OfrepError as error:
            return json_response(failure(key[:200], error), error.status)
        return json_response(flag)

    def evaluate_all(self, exchange: Exchange) -> Response:
        """Answer a bulk OFREP evaluation: every enabled placement."""
        try:
            self._require_flags(exchange)
            context = _flag_context(exchange.body)
        except OfrepError as error:
            return json_response(failure(None, error), error.status)
        keys = sorted(key for key, placement in self.engine.world.placements.items() if placement.enabled)
        flags = self._evaluate(keys, context, exchange)
        tag = etag_of(context, flags).encode()
        headers = ((b"etag", tag), (b"cache-control", b"private, no-cache"))
        if exchange.header(b"if-none-match") == tag:
            return Response(304, b"", b"application/json", headers)
        return Response(200, msgspec.json.encode({"flags": flags, "metadata": {}}), headers=headers)

    def _evaluate(self, keys: list[str], context: dict[str, Any], exchange: Exchange) -> list[dict[str, Any]]:
        world = self.engine.world
        user = world.identifiers.get(f"user_id:{context['targetingKey']}")
        visitor = visitor_of(context, is_user=user is not None)
        request = Request(visitor, [PlacementRequest(key) for key in keys], context)
        request.gpc = exchange.has_gpc
        request.sticky_seconds_min = STICKY_SECONDS
        answers = self.engine.decider.decide(request).answers
        self.served["decisions"] += len(answers)
        kinds = world.placements
        return [success(answer, is_list=kinds[answer.key].kind == "list") for answer in answers]

    def _require_flag(self, key: str) -> None:
        if key not in self.engine.world.placements:
            raise OfrepError("FLAG_NOT_FOUND", f"no placement is called {key[:100]!r}", 404)

    def _require_flags(self, exchange: Exchange) -> None:
        try:
            self.gate.require(exchange, Role.WRITE)
        except (UnauthorizedError, ForbiddenError) as error:
            raise OfrepError("GENERAL", str(error), error.status) from error

    # --- what browser clients ask for ---------------------------------------------------------------

    def segment_settings(self, exchange: Exchange) -> Response:
        """Answer Segment's settings: events come here, and no other integration is loaded."""
        key = exchange.params["key"]
        self._require_key(key)
        host = exchange.text_header(b"host") or "127.0.0.1"
        scheme = exchange.text_header(b"x-forwarded-proto") or "http"
        segment: dict[str, Any] = {
            "apiKey": key,
            "apiHost": f"{host}/v1",
            "protocol": "https" if scheme == "https" else "http",
            "unbundledIntegrations": [],
            "addBundledMetadata": True,
        }
        plan = {"track": {"__default": {"enabled": True, "integrations": {}}}}
        settings = {
            "integrations": {"Segment.io": segment},
            "plan": plan,
            "edgeFunction": {},
            "analyticsNextEnabled": True,
            "metrics": {"sampleRate": 0},
            "remotePlugins": [],
        }
        # The answer names the host that was asked: nobody in between may keep it for another.
        return _uncached(json_response(settings))

    def rudder_config(self, exchange: Exchange) -> Response:
        """Answer RudderStack's source configuration: no destinations, no statistics."""
        key = exchange.credential() or ""
        self._require_key(key)
        off = {"enabled": False}
        source = {
            "id": "tailorbird",
            "name": "tailorbird",
            "writeKey": key,
            "enabled": True,
            "workspaceId": "tailorbird",
            "config": {"statsCollection": {"errors": off, "metrics": off}},
            "connections": [],
            "dataplanes": {},
            "destinations": [],
        }
        now = "2024-01-01T00:00:00.000Z"
        return json_response({"source": source, "updatedAt": now})

    async def analytics_js(self, exchange: Exchange) -> Response:
        """Serve the browser client that the classic snippet loads, from its npm package."""
        self._require_key(exchange.params["key"])
        file = None if self._analytics_js is None else self._analytics_js / "standalone.js"
        if file is None or not file.is_file():
            raise NotFoundError(
                "the browser client is not installed: set `analytics_js` to the folder dist/umd of the npm"
                " package @segment/analytics-next"
            )
        content = await asyncio.to_thread(file.read_bytes)
        cache = ((b"cache-control", b"public, max-age=3600"),)
        return Response(200, content, b"text/javascript; charset=utf-8", cache)

    def _require_key(self, key: str) -> None:
        if not self.gate.role_of(key):
            raise NotFoundError("no source has this write key")

    # --- health -------------------------------------------------------------------------------------

    def healthz(self, _exchange: Exchange) -> Response:
        """Say that the process is alive."""
        return Response(200, b"ok", TEXT)

    def metrics_text(self, _exchange: Exchange) -> Response:
        """Return the metrics."""
        return self.metrics.render()

    def readyz(self, _exchange: Exchange) -> Response:
        """Say whether traffic is welcome, and how each dependency is."""
        engine = self.engine
        health = engine.log.health()
        dependencies = {
            "log": {
                "ok": engine.failure is None,
                "end": health.end,
                "corruptRecords": health.records_corrupt,
                "quarantinedBytes": health.bytes_quarantined,
                "tornBytes": health.bytes_torn,
                "failure": engine.failure,
            },
            "state": {
                "ok": True,
                "offset": engine.world.store.offset,
                "behind": health.end - engine.world.store.offset,
            },
        }
        is_ready = engine.failure is None
        return json_response({"ready": is_ready, "dependencies": dependencies}, 200 if is_ready else 503)


def guarded(door: Door) -> Door:
    """Return a door that answers errors as problem details, and never lets one escape."""

    @functools.wraps(door)
    def enter(exchange: Exchange) -> Answer:
        try:
            result = door(exchange)
        except TailorbirdError as error:
            return problem(error)
        except Exception:  # noqa: BLE001 (the outermost boundary: what is not foreseen is a 500, logged)
            return _unforeseen(exchange)
        if isinstance(result, Response | WhenDurable):
            return result
        return _guard_async(exchange, result)

    return enter


async def _guard_async(exchange: Exchange, result: Awaitable[Response]) -> Response:
    try:
        return await result
    except TailorbirdError as error:
        return problem(error)
    except Exception:  # noqa: BLE001 (as in `guarded`)
        return _unforeseen(exchange)


def _unforeseen(exchange: Exchange) -> Response:
    logger.exception("%s %s failed", exchange.method, exchange.path)
    body = {
        "type": "about:blank",
        "title": "Internal error",
        "status": 500,
        "detail": "see the server's log",
    }
    return Response(500, msgspec.json.encode(body), PROBLEM)


def decode(body: bytes, kind: Any, path: str = "") -> Any:  # noqa: ANN401
    """Return a body as a type.

    Raises:
        InvalidInputError: It is no such JSON; the fault names the field and the rule.
    """
    misshapen = check_shape(body, path or "body")
    if misshapen is not None:
        raise InvalidInputError(misshapen)
    try:
        return msgspec.json.decode(body, type=kind)
    except _PARSE_ERRORS as error:
        fault = parse_fault(error, body)
        raise InvalidInputError(fault._replace(path=f"{path}{fault.path}")) from error


def _check_context(body: bytes, context: dict[str, Any]) -> None:
    """Refuse a request's context that rules could not read, or not in good time."""
    fault = check_shape(body, "body")
    # An entry takes two bytes at least: small bodies, which most are, need not be counted.
    if fault is None and len(body) > 2 * CONTEXT_ENTRIES_MAX:
        count = entries_in(context)
        if count > CONTEXT_ENTRIES_MAX:
            rule = f"at most {CONTEXT_ENTRIES_MAX} entries in its lists and objects"
            fault = Fault("context", rule, f"{count} entries")
    if fault is None and len(body) > CONTEXT_BYTES_MAX:
        size = len(msgspec.json.encode(context))
        if size > CONTEXT_BYTES_MAX:
            fault = Fault("context", f"at most {CONTEXT_BYTES_MAX} bytes", f"{size} bytes")
    if fault is not None:
        raise InvalidInputError(fault)


def _small(body: bytes) -> bytes:
    """Return the body of a question; it is parsed in the event loop, where all others wait."""
    if len(body) > DECIDE_BYTES_MAX:
        raise InvalidInputError(Fault("body", f"at most {DECIDE_BYTES_MAX} bytes", f"{len(body)} bytes"))
    return body


def _flag_context(body: bytes) -> dict[str, Any]:
    try:
        _small(body)
    except InvalidInputError as error:
        raise OfrepError("INVALID_CONTEXT", str(error)) from error
    context = parse_context(body)
    try:
        _check_context(body, context)
    except InvalidInputError as error:
        raise OfrepError("INVALID_CONTEXT", str(error)) from error
    return context


class _WriteKey(msgspec.Struct, rename="camel"):
    write_key: str | None = None


_write_key_decoder = msgspec.json.Decoder(_WriteKey)


def _refusal(collected: Collected, status: int) -> Response:
    """Return which events were refused and why; the others are safe."""
    accepted, faults = collected
    errors = faults_out([fault._replace(path=f"[{i}].{fault.path}") for i, fault in faults[:100]])
    if len(accepted) + len(faults) == 1:
        errors = faults_out([fault for _, fault in faults])
    body: dict[str, Any] = {
        "success": status == _OK,
        "accepted": len(accepted),
        "rejected": collected.rejected,
    }
    if status != 200:  # noqa: PLR2004
        detail = "; ".join(f"{error['path']}: {error['rule']}" for error in errors[:5])
        body |= {
            "type": "about:blank",
            "title": "Invalid input",
            "status": status,
            "detail": detail,
        }
    body["errors"] = errors
    return Response(status, msgspec.json.encode(body), PROBLEM if status != _OK else b"application/json")


def _time(text: str | None, path: str, now: float) -> float:
    if text is None:
        return now
    try:
        return min(parse_time(text), now)
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(Fault(path, "an ISO 8601 time between 1970 and 2100", text)) from error


def _identifier(query: dict[str, str], name: str) -> str | None:
    value = query.get(name) or None
    if value is not None and len(value) > IDENTIFIER_LENGTH_MAX:
        raise InvalidInputError(Fault(name, f"at most {IDENTIFIER_LENGTH_MAX} characters", value))
    return value


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if (
        not text.isdecimal()
        or not text.isascii()
        or len(text) > _COUNT_DIGITS_MAX
        or not 1 <= int(text) <= COUNT_MAX
    ):
        raise InvalidInputError(Fault("count", f"a whole number from 1 to {COUNT_MAX}", text))
    return int(text)


def _request(exchange: Exchange, asked: DecideBody, role: Role) -> Request:
    at = time_of(asked.at, is_trusted=role >= Role.SERVER)
    request = Request(asked.visitor, asked.placements, asked.context, at, asked.deadline_ms)
    request.gpc = exchange.has_gpc
    return request


def _uncached(response: Response) -> Response:
    return response._replace(headers=(*response.headers, (b"cache-control", b"private, no-store")))
