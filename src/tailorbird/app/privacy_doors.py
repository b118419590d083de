"""The doors of privacy: OpenDSR, suppression, and what the site says of Global Privacy Control.

OpenDSR (github.com/opengdpr/OpenDSR) names its fields in snake case, and so do these doors. Two of its
parts are left out and said so: answers are not signed (controller and processor are one), and
`status_callback_urls` are not called (the server calls nobody).
"""

import asyncio
import base64
import re
import uuid
from typing import Any, Final

import msgspec

from tailorbird.admin.api import decision_view, profile_view
from tailorbird.app.doors import Doors, decode
from tailorbird.app.engine import Engine
from tailorbird.app.exchange import Exchange, Response, flag, json_response
from tailorbird.app.keys import Role
from tailorbird.clock import format_time
from tailorbird.errors import Fault, InvalidInputError, NotFoundError, StorageError
from tailorbird.limits import EXPORT_BYTES_MAX, WAIT_SECONDS_MAX
from tailorbird.privacy.erase import Erasure
from tailorbird.privacy.export import Exporter, Views
from tailorbird.privacy.identities import (
    Identity,
    check_identities,
    check_name,
    find_hashed,
    names_of,
    supported,
)
from tailorbird.privacy.requests import EXPECTED_SECONDS, Request, Requests
from tailorbird.privacy.scan import Turns, in_thread
from tailorbird.privacy.suppress import lift, suppress
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.profile import Profile

API_VERSION: Final = "2.0"
CONTROLLER: Final = "self"
GPC_SUPPORTED_SINCE: Final = "2026-11-21"
"""When what is published about Global Privacy Control last changed."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,200}")
_COMMIT_TRIES_MAX: Final = 100
_COMMIT_SECONDS: Final = 0.05
_TYPES: Final = ("access", "portability", "erasure")


class SubmitBody(msgspec.Struct):
    """The body of `POST /opendsr/v1/requests`; what else OpenDSR defines may be there and is not read."""

    subject_request_type: str
    subject_identities: list[Identity]
    subject_request_id: str | None = None
    status_callback_urls: list[str] = []


class Privacy:
    """What privacy is made of in one installation: shared by the doors and the command line."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.turns = Turns()
        self.erasure = Erasure(engine, engine.options.secret)
        self.exporter = Exporter(self.erasure, Views(self._profile, self._decision))
        self.requests = Requests(engine.folder / "privacy", self.erasure, self.turns)

    def _profile(self, profile: Profile) -> dict[str, Any]:
        engine = self.engine
        return profile_view(engine.world, engine.options.secret, profile, engine.clock.now())

    def _decision(self, key: str, decision: LoggedDecision) -> dict[str, Any]:
        engine = self.engine
        because = engine.decider.because(decision)
        return decision_view(key, decision, engine.world.marks.get(key), because)


class PrivacyDoors:
    """The doors of privacy."""

    def __init__(self, doors: Doors, privacy: Privacy) -> None:
        self._engine = doors.engine
        self._gate = doors.gate
        self._privacy = privacy
        self._requests = privacy.requests

    # --- what anybody may know ----------------------------------------------------------------------

    def gpc(self, _exchange: Exchange) -> Response:
        """Say whether Global Privacy Control is honoured."""
        is_honoured = self._engine.options.gpc_opts_out
        return json_response({"gpc": is_honoured, "lastUpdate": GPC_SUPPORTED_SINCE})

    def discovery(self, _exchange: Exchange) -> Response:
        """Say which requests and identities are understood."""
        return json_response(
            {
                "api_version": API_VERSION,
                "supported_identities": supported(),
                "supported_subject_request_types": _TYPES,
                "processor_certificate": None,
            }
        )

    # --- requests -----------------------------------------------------------------------------------

    async def submit(self, exchange: Exchange) -> Response:
        """Take in a request for access, portability or erasure."""
        self._gate.require(exchange, Role.ADMIN)
        is_dry_run, waits = flag(exchange, "dryRun"), flag(exchange, "wait")
        body = decode(exchange.body, SubmitBody)
        request_id = _checked(body)
        names = await self._names(body.subject_identities)
        if is_dry_run:
            async with self._privacy.turns.turn():
                plan = await self._privacy.erasure.plan(names)
            return json_response({"subject_request_type": body.subject_request_type, "result": plan})
        kind: Any = body.subject_request_type
        request = await self._requests.submit(request_id, kind, names)
        answer = _receipt(request_id, request)
        answer["encoded_request"] = base64.b64encode(exchange.body).decode()
        if body.status_callback_urls:
            answer["status_callbacks"] = "not called; ask GET /opendsr/v1/requests/{id}"
        if waits:
            answer |= await self._outcome(request, names)
        return json_response(answer, 201)

    async def status(self, exchange: Exchange) -> Response:
        """Return how far a request is; with `wait`, its result once it is done."""
        self._gate.require(exchange, Role.ADMIN)
        request_id = exchange.params["id"]
        request = self._requests.get(request_id)
        answer = _receipt(request_id, request)
        if flag(exchange, "wait") or request.type == "erasure":
            names = self._requests.names_of(request)
            is_waiting = flag(exchange, "wait")
            answer |= await self._outcome(request, names, WAIT_SECONDS_MAX if is_waiting else 0.0)
        return json_response(answer)

    async def cancel(self, exchange: Exchange) -> Response:
        """Cancel a request that has not begun."""
        self._gate.require(exchange, Role.ADMIN)
        request_id = exchange.params["id"]
        request = await self._requests.cancel(request_id)
        return json_response(_receipt(request_id, request), 202)

    async def _outcome(
        self, request: Request, names: list[str], seconds: float = WAIT_SECONDS_MAX
    ) -> dict[str, Any]:
        """Return what became of a request, once it is done or the time is over."""
        if request.type == "erasure":
            await self._requests.wait(request, seconds)
            return _state(request) | ({"result": request.proof} if request.proof else {})
        async with self._privacy.turns.turn():
            export = await self._privacy.exporter.export(names, EXPORT_BYTES_MAX)
        result = msgspec.Raw(export.document)
        return _state(request) | {"results_count": export.records_count, "result": result}

    async def _names(self, identities: list[Identity]) -> list[str]:
        names = names_of(identities)
        if all(each.identity_format == "raw" for each in identities):
            return names
        async with self._privacy.turns.turn():
            await self._commit()
            store = self._engine.world.store
            found = await in_thread(lambda breather: find_hashed(store, identities, breather))
        return names + found

    async def _commit(self) -> None:
        """Return when everybody who is known now is in the committed state."""
        wanted = self._engine.world.offset
        for _ in range(_COMMIT_TRIES_MAX):
            if self._engine.world.store.offset >= wanted:
                return
            await self._engine.checkpoint()
            await asyncio.sleep(_COMMIT_SECONDS)
        raise StorageError("the state could not be committed; ask again")

    # --- suppression --------------------------------------------------------------------------------

    def suppressions(self, exchange: Exchange) -> Response:
        """Return how many identifiers are suppressed; hashes name nobody."""
        self._gate.require(exchange, Role.ADMIN)
        return json_response({"count": len(self._engine.world.suppressed)})

    async def suppress(self, exchange: Exchange) -> Response:
        """Refuse a person at the door from now on, without erasing what is held."""
        self._gate.require(exchange, Role.ADMIN)
        name = check_name("identifier", exchange.params["identifier"])
        async with self._privacy.turns.turn():
            count = await suppress(self._privacy.erasure, name)
        return json_response({"suppressed": count})

    async def lift(self, exchange: Exchange) -> Response:
        """Let a person in again who was erased or suppressed."""
        self._gate.require(exchange, Role.ADMIN)
        name = check_name("identifier", exchange.params["identifier"])
        async with self._privacy.turns.turn():
            count = await lift(self._privacy.erasure, name)
        if not count:
            raise NotFoundError(f"{name[:100]!r} is not suppressed")
        return json_response({"lifted": count})


def _checked(body: SubmitBody) -> str:
    """Return the request's id, a new one where the body has none."""
    if body.subject_request_type not in _TYPES:
        rule = f"one of {', '.join(_TYPES)}"
        raise InvalidInputError(Fault("subject_request_type", rule, body.subject_request_type))
    check_identities(body.subject_identities)
    request_id = body.subject_request_id
    if request_id is None:
        return str(uuid.uuid4())
    if not _REQUEST_ID.fullmatch(request_id):
        rule = "a UUID, or 1 to 200 letters, digits and . _ : -"
        raise InvalidInputError(Fault("subject_request_id", rule, request_id))
    return request_id


def _receipt(request_id: str, request: Request) -> dict[str, Any]:
    return {
        "api_version": API_VERSION,
        "controller_id": CONTROLLER,
        "subject_request_id": request_id,
        "subject_request_type": request.type,
        "received_time": format_time(request.received),
        "expected_completion_time": format_time(request.received + EXPECTED_SECONDS),
        "results_url": f"/opendsr/v1/requests/{request_id}?wait=true",
        **_state(request),
    }


def _state(request: Request) -> dict[str, Any]:
    state: dict[str, Any] = {"request_status": request.status}
    if request.finished is not None:
        state["completed_time"] = format_time(request.finished)
    if request.failure:
        state["failure"] = request.failure
    return state
