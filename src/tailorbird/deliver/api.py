"""The native decision API: the JSON of `POST /v1/decide` in and out.

A public write key gets what is to be shown. Scores, reasons, steps and the profile's id are for back
ends: they would tell anybody with the key who is who and what they did.
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tailorbird.clock import parse_time
from tailorbird.errors import Fault, ForbiddenError, InvalidInputError, NotFoundError
from tailorbird.limits import DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX, PLACEMENTS_PER_REQUEST_MAX
from tailorbird.schema.decision import LoggedDecision, PlacementRequest, Step, VisitorRef
from tailorbird.schema.placement import Time


class DecideBody(msgspec.Struct, rename="camel", gc=False):
    """The body of `POST /v1/decide`."""

    placements: Annotated[list[PlacementRequest], Meta(min_length=1, max_length=PLACEMENTS_PER_REQUEST_MAX)]
    visitor: VisitorRef = VisitorRef()
    context: dict[str, Any] = {}
    deadline_ms: Annotated[float, Meta(ge=0.0, le=DEADLINE_MS_MAX)] = DEADLINE_MS_DEFAULT
    explain: bool = False
    at: Time | None = None


class PolicyOut(msgspec.Struct, gc=False):
    """Which policy chose, at which of its versions."""

    key: str
    version: str


class ChoiceOut(msgspec.Struct, gc=False):
    """One thing to be shown."""

    id: str
    rank: int
    value: Any
    propensity: float
    score: float | UnsetType = UNSET
    because: list[str] | UnsetType = UNSET


class ErrorOut(msgspec.Struct):
    """Why one placement has no decision."""

    type: str
    title: str
    status: int
    detail: str


class DecisionOut(msgspec.Struct, rename="camel", gc=False):
    """One placement's answer."""

    placement: str
    decision_id: str | None | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    rung: str | UnsetType = UNSET
    policy: PolicyOut | UnsetType = UNSET
    explored: bool | UnsetType = UNSET
    choices: list[ChoiceOut] | UnsetType = UNSET
    steps: list[Step] | UnsetType = UNSET
    took_ms: float | UnsetType = UNSET
    error: ErrorOut | UnsetType = UNSET


class VisitorOut(msgspec.Struct, rename="camel", gc=False):
    """Who was answered."""

    arm: str
    personalized: bool
    profile_id: str | None | UnsetType = UNSET


class DecideAnswer(msgspec.Struct, rename="camel", gc=False):
    """The answer of `POST /v1/decide`."""

    visitor: VisitorOut
    decisions: list[DecisionOut]
    took_ms: float


_decoder = msgspec.json.Decoder(DecideBody)
_encoder = msgspec.json.Encoder()


def parse_decide(body: bytes) -> DecideBody:
    """Return the request of a body.

    Raises:
        msgspec.MsgspecError: It is no such JSON; the message names the field and the rule.
    """
    return _decoder.decode(body)


def time_of(text: str | None, *, is_trusted: bool) -> float | None:
    """Return the time that a request wants to be decided at; None for now.

    Raises:
        ForbiddenError: Only a server key may choose the time.
        InvalidInputError: It is no time.
    """
    if text is None:
        return None
    if not is_trusted:
        raise ForbiddenError("`at` needs a server key")
    try:
        return parse_time(text)
    except (ValueError, OverflowError) as error:
        rule = "an ISO 8601 time between 1970 and 2100"
        raise InvalidInputError(Fault("at", rule, text)) from error


def render_answers(
    answers: Any,  # noqa: ANN401
    *,
    is_trusted: bool,
    because: Callable[[LoggedDecision], list[list[str]]] | None,
) -> bytes:
    """Return the JSON of `decide.Answers`; `because` gives the reasons, where they are asked for.

    Raises:
        NotFoundError: None of the placements is known.
    """
    if all(answer.decision is None for answer in answers.answers):
        names = ", ".join(repr(answer.key) for answer in answers.answers)
        raise NotFoundError(f"no placement is called {names[:200]}")
    visitor = VisitorOut(answers.arm, answers.is_personalized)
    if is_trusted:
        visitor.profile_id = answers.profile_id
    decisions = [_decision(answer, is_trusted, because) for answer in answers.answers]
    return _encoder.encode(DecideAnswer(visitor, decisions, round(answers.took_ms, 3)))


def _decision(
    answer: Any,  # noqa: ANN401
    is_trusted: bool,  # noqa: FBT001
    because: Callable[[LoggedDecision], list[list[str]]] | None,
) -> DecisionOut:
    decision = answer.decision
    if decision is None:
        detail = f"no placement is called {answer.key!r}"[:300]
        return DecisionOut(answer.key[:200], error=ErrorOut("about:blank", "Not found", 404, detail))
    choices = [
        ChoiceOut(choice.id, rank, value, choice.propensity)
        for rank, (choice, value) in enumerate(zip(decision.choices, answer.values, strict=True), 1)
    ]
    out = DecisionOut(
        answer.key,
        answer.decision_id or None,
        decision.reason,
        decision.rung,
        PolicyOut(decision.policy, str(decision.policy_version)),
        decision.explored,
        choices,
        took_ms=decision.took_ms,
    )
    if is_trusted:
        for choice_out, choice in zip(choices, decision.choices, strict=True):
            choice_out.score = choice.score
        if because is not None:
            for choice_out, reasons in zip(choices, because(decision), strict=True):
                choice_out.because = reasons
            out.steps = decision.steps
    return out
