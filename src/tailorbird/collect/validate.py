"""What an event must be: decoded on a fast path when a client sent it well, mended on a slow one.

The fast path decodes straight into `schema.events.Event` and logs the client's own bytes. What real
clients send otherwise and can be understood (a numeric user id, no `messageId`, no `type` because
the path says it) is mended and encoded again; what cannot is a fault that names path, rule and value.
"""

import json
import math
import re
import uuid
from typing import Any, NamedTuple

import msgspec

from tailorbird.errors import Fault
from tailorbird.limits import (
    EVENT_BYTES_MAX,
    EVENT_NAME_LENGTH_MAX,
    IDENTIFIER_LENGTH_MAX,
    MESSAGE_ID_LENGTH_MAX,
    NESTING_MAX,
)
from tailorbird.schema.events import TYPES, Event

_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19
_LARGE_EXPONENTS = (b"e00", b"E00", b"+00")
# A string that nothing closes is one to the end: sought anew from each quote in it, 32 KB took 4 s.
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"{}[]")
_INTEGER_MAX = 2**63 - 1
_INTEGER_DIGITS_MAX = 20

_event_decoder = msgspec.json.Decoder(Event)
_any_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


class Valid(msgspec.Struct, frozen=True, gc=False):
    """An event that passed: its fields, and the bytes to log."""

    event: Event
    raw: bytes


class Shared(NamedTuple):
    """What a batch or a path says of each of its events."""

    type: str | None = None
    context: dict[str, Any] | None = None
    integrations: dict[str, Any] | None = None
    may_hold_large_numbers: bool = True
    """Unless the whole batch was looked through for them already."""


def validate(raw: bytes, shared: Shared) -> Valid | Fault:
    """Return the event of one JSON object, or the first rule that it breaks."""
    if len(raw) > EVENT_BYTES_MAX:
        return Fault("event", f"at most {EVENT_BYTES_MAX} bytes", f"{len(raw)} bytes")
    fault = check_shape(raw, "event", has_numbers=shared.may_hold_large_numbers)
    if fault is not None:
        return fault
    if shared.context is None and shared.integrations is None:
        try:
            event = _event_decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _mend(raw, shared)
        if shared.type in (None, event.type) and event.message_id:
            return _check_fields(event, raw)
    return _mend(raw, shared)


def parse_fault(error: Exception, raw: bytes | None = None) -> Fault:
    """Return the fault of a decoding error: the path that the decoder names, and the value there in `raw`."""
    text = str(error)
    rule, _, path = text.partition(" - at `")
    path = path.rstrip("`").removeprefix("$").lstrip(".") or "body"
    if isinstance(error, RecursionError):
        rule = f"at most {NESTING_MAX} levels deep"
    elif isinstance(error, UnicodeDecodeError):
        rule = "must be UTF-8"
    return Fault(path, rule, None if raw is None else _value_in(raw, path))


def _value_in(raw: bytes, path: str) -> Any:  # noqa: ANN401
    """Return the value at a decoder's path, such as `placements[0].count`; None where it cannot be told."""
    try:
        value = _any_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    for name, index in _PATH_STEP.findall(path):
        if name and isinstance(value, dict):
            value = value.get(name)
        elif index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        else:
            return None
    return value


_PATH_STEP = re.compile(r"([^.\[\]]+)|\[(\d{1,9})\]")


def check_shape(raw: bytes, path: str, *, has_numbers: bool = True) -> Fault | None:
    """Return the fault of JSON that cannot be kept: no UTF-8, nested too deep, a number out of range.

    Parsers let them pass in what they skip; in the state, in CEL, in other languages and in whoever reads
    the log again they have no counterpart.
    """
    if not raw.isascii():
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            return Fault(
                "body", f"must be UTF-8; byte {error.start} begins none", raw[error.start : error.end]
            )
    if raw.count(b"{") + raw.count(b"[") > NESTING_MAX and is_too_deep(raw):
        return Fault(path, f"at most {NESTING_MAX} levels deep")
    if has_numbers and may_hold_large_numbers(raw):
        return _check_numbers(raw, path)
    return None


def may_hold_large_numbers(raw: bytes) -> bool:
    """Return whether a number can be out of range: nineteen digits stand in a row, or an exponent has two."""
    # A regular expression for nineteen digits took 5 µs an event; this takes a tenth.
    zeros = raw.translate(_DIGITS_AS_ZERO)
    return _LONG_NUMBER in zeros or any(exponent in zeros for exponent in _LARGE_EXPONENTS)


def is_too_deep(raw: bytes) -> bool:
    """Return whether more than `NESTING_MAX` brackets are open at once, outside strings.

    Takes away the innermost pairs, once a level; what is left over after that is deeper (or no JSON).
    """
    brackets = _STRINGS.sub(b"", raw).translate(_AS_SQUARE, _NO_BRACKETS)
    for _ in range(NESTING_MAX):
        brackets = brackets.replace(b"[]", b"")
    return b"[]" in brackets


def _check_numbers(raw: bytes, path: str) -> Fault | None:
    try:
        value = _any_decoder.decode(raw)
    except msgspec.ValidationError:
        # A number is out of range, and this parser does not say where. Python's reads it as infinite.
        value = _read_again(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        return parse_fault(error)
    return _too_large(value, path)


def _read_again(raw: bytes) -> Any:  # noqa: ANN401
    try:
        return json.loads(raw, parse_int=_integer)
    except (ValueError, RecursionError):
        return math.inf  # It is no JSON either.


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _INTEGER_DIGITS_MAX else math.inf


def _too_large(value: Any, path: str) -> Fault | None:  # noqa: ANN401
    if isinstance(value, float) and math.isinf(value):
        return Fault(path, "a number fits 64 bits", None)
    if isinstance(value, int) and not -_INTEGER_MAX <= value <= _INTEGER_MAX:
        return Fault(path, "an integer fits 64 bits", value)
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, inner in entries:
        found = _too_large(inner, f"{path}.{name}")
        if found is not None:
            return found
    return None


def _mend(raw: bytes, shared: Shared) -> Valid | Fault:
    try:
        fields = _any_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return parse_fault(error)
    if not isinstance(fields, dict):
        return Fault("event", "must be an object", fields)
    fault = _mend_fields(fields, shared)
    if fault is not None:
        return fault
    mended = _encoder.encode(fields)
    if len(mended) > 2 * EVENT_BYTES_MAX:
        return Fault(
            "event",
            f"at most {EVENT_BYTES_MAX} bytes",
            f"{len(mended)} bytes with its batch's context",
        )
    try:
        event = _event_decoder.decode(mended)
    except msgspec.ValidationError as error:
        fault = parse_fault(error)
        return fault._replace(value=_value_at(fields, fault.path))
    return _check_fields(event, mended)


def _mend_fields(fields: dict[str, Any], shared: Shared) -> Fault | None:
    if shared.type is not None:
        fields["type"] = shared.type
    _mend_ids(fields)
    for name, outer in (("context", shared.context), ("integrations", shared.integrations)):
        own = fields.get(name)
        if outer is not None and (own is None or isinstance(own, dict)):
            fields[name] = outer | (own or {})
    context = fields.get("context")
    if isinstance(context, dict):
        _mend_context(context)
    for name in ("timestamp", "originalTimestamp", "sentAt"):
        if isinstance(fields.get(name), int | float):
            return Fault(name, "an ISO 8601 time as text", fields[name])
    return None


def _mend_ids(fields: dict[str, Any]) -> None:
    for name in ("userId", "anonymousId", "previousId", "groupId", "messageId"):
        value = fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            fields[name] = str(value)
    if not fields.get("messageId"):
        fields["messageId"] = f"tb-{uuid.uuid4()}"
    for name in ("properties", "traits", "context"):
        if fields.get(name) == []:  # PHP clients encode an empty map so.
            fields[name] = {}


def _mend_context(context: dict[str, Any]) -> None:
    """Set aside parts of the context that are not of their kind, under another name; nothing is dropped."""
    for name, kind in _CONTEXT_KINDS.items():
        if name in context and context[name] is not None and not isinstance(context[name], kind):
            context[f"{name}_malformed"] = context.pop(name)
    for name in ("page", "device"):
        part = context.get(name)
        if isinstance(part, dict):
            for field in [f for f in _TEXT_FIELDS if f in part and not isinstance(part[f], str | None)]:
                part[f"{field}_malformed"] = part.pop(field)


_CONTEXT_KINDS: dict[str, type] = {
    "page": dict,
    "device": dict,
    "campaign": dict,
    "traits": dict,
    "consent": dict,
    "locale": str,
    "userAgent": str,
}
_TEXT_FIELDS = ("url", "path", "referrer", "title", "id", "type")


def _check_fields(event: Event, raw: bytes) -> Valid | Fault:
    """Apply the rules of Segment's specification that make an event usable."""
    if event.type not in TYPES:
        return Fault("type", f"one of {', '.join(TYPES)}", event.type)
    if not event.user_id and not event.anonymous_id:
        return Fault("userId", "one of userId and anonymousId is needed (no_user_anon_id)", event.user_id)
    path, needed = _NEEDED.get(event.type, _NOTHING_NEEDED)
    value = getattr(event, path)
    if not value and needed:
        return Fault(_WIRE_NAMES.get(path, path), needed, value)
    return _length_fault(event) or Valid(event, raw)


def _length_fault(event: Event) -> Fault | None:
    # Nearly always none is too long; seeking which one it is took a tenth of the door's time.
    if (
        len(event.message_id) <= MESSAGE_ID_LENGTH_MAX
        and len(event.event or "") <= EVENT_NAME_LENGTH_MAX
        and len(event.user_id or "") <= IDENTIFIER_LENGTH_MAX
        and len(event.anonymous_id or "") <= IDENTIFIER_LENGTH_MAX
        and event.previous_id is None
        and event.group_id is None
    ):
        return None
    for path, length_max in _LENGTHS_MAX:
        value = getattr(event, path)
        if value is not None and len(value) > length_max:
            return Fault(_WIRE_NAMES.get(path, path), f"at most {length_max} characters", value)
    return None


_NEEDED = {
    "track": ("event", "a track call needs the event's name"),
    "alias": ("previous_id", "an alias call needs it"),
    "group": ("group_id", "a group call needs it"),
}
"""What an event of a type cannot do without, and the rule that says so."""
_NOTHING_NEEDED = ("type", "")
_LENGTHS_MAX = (
    ("message_id", MESSAGE_ID_LENGTH_MAX),
    ("user_id", IDENTIFIER_LENGTH_MAX),
    ("anonymous_id", IDENTIFIER_LENGTH_MAX),
    ("previous_id", IDENTIFIER_LENGTH_MAX),
    ("group_id", IDENTIFIER_LENGTH_MAX),
    ("event", EVENT_NAME_LENGTH_MAX),
)
_WIRE_NAMES = {
    "message_id": "messageId",
    "user_id": "userId",
    "anonymous_id": "anonymousId",
    "previous_id": "previousId",
    "group_id": "groupId",
}


def _value_at(fields: dict[str, Any], path: str) -> Any:  # noqa: ANN401
    value: Any = fields
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
