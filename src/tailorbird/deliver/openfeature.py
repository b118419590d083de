"""OpenFeature's remote evaluation protocol (OFREP 0.3.0), as its real clients read it.

Every success carries `value`, `variant` and `reason`: the Python provider fails without them and the
Node one refuses an answer without a value. A decision's id travels in `metadata`, which is flat.
"""

import hashlib
from typing import Any

import msgspec

from tailorbird.limits import IDENTIFIER_LENGTH_MAX
from tailorbird.schema.decision import LoggedDecision, VisitorRef

STICKY_SECONDS = 1800.0
"""Flags are read on every render: within a session the same question gets the same decision."""

_REASONS = {"SPLIT": "SPLIT", "TARGETING_MATCH": "TARGETING_MATCH", "DISABLED": "DISABLED"}


class EvaluateBody(msgspec.Struct):
    """The body of an evaluation request."""

    context: dict[str, Any]


class OfrepError(Exception):
    """What OFREP answers instead of a value: its code and what is wrong."""

    def __init__(self, code: str, details: str, status: int = 400) -> None:
        self.code = code
        self.details = details
        self.status = status
        super().__init__(details)


_decoder = msgspec.json.Decoder(EvaluateBody)


def parse_context(body: bytes) -> dict[str, Any]:
    """Return the evaluation context.

    Raises:
        OfrepError: The body is no JSON, holds no context, or the context names nobody.
    """
    try:
        context = _decoder.decode(body).context
    except msgspec.ValidationError as error:
        raise OfrepError("INVALID_CONTEXT", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OfrepError("PARSE_ERROR", str(error)) from error
    key = context.get("targetingKey")
    if key is None or key == "":
        raise OfrepError("TARGETING_KEY_MISSING", "context.targetingKey: a visitor's id is needed")
    if not isinstance(key, str):
        raise OfrepError("INVALID_CONTEXT", "context.targetingKey: must be text")
    for name in ("targetingKey", "userId", "anonymousId"):
        value = context.get(name)
        if isinstance(value, str) and len(value) > IDENTIFIER_LENGTH_MAX:
            rule = f"context.{name}: at most {IDENTIFIER_LENGTH_MAX} characters"
            raise OfrepError("INVALID_CONTEXT", rule)
    return context


def visitor_of(context: dict[str, Any], *, is_user: bool) -> VisitorRef:
    """Return whom a context is about; `is_user` says whether its targeting key is a known user's."""
    key = context["targetingKey"]
    user, anonymous = context.get("userId"), context.get("anonymousId")
    user_id = user if isinstance(user, str) and user else (key if is_user else None)
    anonymous_id = anonymous if isinstance(anonymous, str) and anonymous else None
    if anonymous_id is None and user_id != key:
        anonymous_id = key
    return VisitorRef(anonymous_id, user_id)


def success(answer: Any, *, is_list: bool) -> dict[str, Any]:  # noqa: ANN401
    """Return a flag's evaluation from `decide.Answer`: a variant's value, or a list's items."""
    decision: LoggedDecision = answer.decision
    values = answer.values
    if is_list:
        shown = zip(decision.choices, values, strict=True)
        value: Any = {"items": [{"id": choice.id, "value": item} for choice, item in shown]}
        variant = decision.arm or decision.reason.lower()
    else:
        value = values[0] if values else None
        variant = decision.choices[0].id if decision.choices else ""
    metadata: dict[str, Any] = {
        "decisionId": answer.decision_id,
        "tailorbirdReason": decision.reason,
        "rung": decision.rung,
        "policy": decision.policy,
        "policyVersion": str(decision.policy_version),
        "explored": decision.explored,
        "arm": decision.holdout,
    }
    if decision.choices:
        metadata["propensity"] = decision.choices[0].propensity
    return {
        "key": answer.key,
        "value": value,
        "variant": variant,
        "reason": _REASONS.get(decision.reason, "STATIC"),
        "metadata": metadata,
    }


def failure(key: str | None, error: OfrepError) -> dict[str, Any]:
    """Return a flag's failure; `errorDetails` is always there, the Python provider reads it unasked."""
    body = {"errorCode": error.code, "errorDetails": error.details}
    return body if key is None else {"key": key, **body}


def etag_of(context: dict[str, Any], flags: list[dict[str, Any]]) -> str:
    """Return the entity tag of a bulk answer: equal while the same visitor is to be shown the same."""
    shown = [(flag["key"], flag.get("variant"), flag.get("value"), flag.get("reason")) for flag in flags]
    content = msgspec.json.encode((context, shown), order="deterministic")
    return f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
