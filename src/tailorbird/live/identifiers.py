"""Which identifiers an event names, and what the rules say of each: for the fold and whoever reads its log.

An event's identifiers are its user id, its anonymous id, the e-mail address among declared traits, the
device's id and `context.externalIds`; placeholders and blocked values identify nobody. They come in the
order of the rules: of those that cannot be kept together the last goes first, so the first one says whose
the event is.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tailorbird.limits import DEVICE_USES_MAX, EXTERNAL_IDS_MAX, IDENTIFIER_LENGTH_MAX
from tailorbird.schema.events import Event
from tailorbird.schema.identity import IdentifierType, IdentityRules, is_type
from tailorbird.schema.profile import identifier_of

BLOCKED_VALUES = frozenset(
    {
        "",
        "null",
        "none",
        "undefined",
        "nil",
        "nan",
        "unknown",
        "anonymous",
        "guest",
        "-1",
        "true",
        "false",
    }
    | {"[object object]", "not_set", "(not set)", "n/a", "test"}
)
"""Values that clients send when they know nobody; joined on, they make one person of thousands."""

_BLOCKED_LENGTH_MAX = 32  # Characters, spaces around a placeholder included; checked below.
assert max(map(len, BLOCKED_VALUES)) < _BLOCKED_LENGTH_MAX


def is_blocked(value: str) -> bool:
    """Return whether a value identifies nobody: a placeholder, or only zeros, dashes and spaces.

    >>> is_blocked("00000000-0000-0000"), is_blocked("u-1")
    (True, False)
    """
    if len(value) > _BLOCKED_LENGTH_MAX and value.strip("0- "):
        return False  # Most ids: longer than any placeholder, and of more than zeros.
    text = value.strip().lower()
    return text in BLOCKED_VALUES or not text.strip("0-")


EMAIL_LENGTH_MAX = 320  # RFC 3696's bound; also what of a longer one is kept.

_OWN_FIELDS = ("user_id", "anonymous_id", "device_id")
_SEGMENT = IdentifierType("device", limit=DEVICE_USES_MAX)
Count = Callable[[str], None]


def kind_of(identifier: str) -> str:
    """Return the type of an identifier `type:value`."""
    return identifier.partition(":")[0]


class Rules:
    """Identity rules, ready for use."""

    def __init__(self, rules: IdentityRules) -> None:
        self.stated = rules
        self._types = {each.key: each for each in rules.types}
        self._blocked = {each.key: _matcher([*each.blocked, *rules.blocked]) for each in rules.types}
        self._blocked_anywhere = _matcher(rules.blocked)
        self.blocks_more = any(map(bool, self._blocked.values())) or self._blocked_anywhere is not None
        """Whether any value is blocked beside the usual placeholders."""
        self.ttl = {each.key: each.ttl_seconds for each in rules.types if each.ttl_seconds is not None}
        """Seconds after which an identifier names nobody, of the types that have such an end."""

    @property
    def may_end_or_block(self) -> bool:
        """Return whether an identifier that is somebody's may name nobody now."""
        return self.blocks_more or bool(self.ttl)

    def of(self, kind: str) -> IdentifierType:
        """Return the rules of a type."""
        found = self._types.get(kind)
        if found is None:
            found = _SEGMENT if is_segment_type(kind) else IdentifierType(kind)
        return found

    def label(self, kind: str) -> str:
        """Return a type's name for counts; clients may make up types, and counts are bounded."""
        if kind in self._types:
            return kind
        return "device" if is_segment_type(kind) else "other"

    def ordered(self, names: Iterable[str]) -> list[str]:
        """Return identifiers in the order of the rules, each once; those that merge nobody last."""
        return sorted(dict.fromkeys(names), key=lambda name: (*self._rank(kind_of(name)), name))

    def blocks(self, kind: str, value: str) -> bool:
        """Return whether a value of a type identifies nobody."""
        if is_blocked(value):
            return True
        if not self.blocks_more:
            return False
        pattern = self._blocked.get(kind, self._blocked_anywhere)
        return pattern is not None and pattern.match(value.strip().lower()) is not None

    def known(self, kind: str, value: str | None) -> str | None:
        """Return the value where it identifies somebody, else None."""
        return None if value is None or self.blocks(kind, value) else value

    def _rank(self, kind: str) -> tuple[bool, int, str]:
        rules = self.of(kind)
        return (not rules.is_merging, rules.priority, kind)


def is_segment_type(kind: str) -> bool:
    """Return whether identifiers of a type name what a shared device does while nobody is signed in."""
    return kind == "device" or kind.startswith("device.")


def names_in(event: Event, rules: Rules, count: Count | None = None) -> list[str]:
    """Return the identifiers that an event names, in the order of the rules.

    `count` is told of each that is passed over, and why.
    """
    count = count or _uncounted
    found = [
        identifier_of(kind, value)
        for kind, value in _named(event, count)
        if not _is_out(rules, kind, value, count)
    ]
    return found if len(found) < 2 else rules.ordered(found)  # noqa: PLR2004 (one needs no order)


def declared_traits(event: Event) -> dict[str, Any] | None:
    """Return what an event says of its person: not of an account, as `group` does."""
    if event.type == "identify" and event.traits is not None:
        return event.traits
    context = event.context
    return None if context is None or event.type == "group" else context.traits


def names_more(event: Event) -> bool:
    """Return whether an event names any identifier beside its user id and anonymous id, or hints at one."""
    # Asked of every event: a call more would cost a hundredth of it.
    context = event.context
    if context is not None:
        if context.external_ids is not None or context.fingerprint is not None:
            return True
        if context.device is not None and context.device.id is not None:
            return True
        if context.traits is not None and "email" in context.traits:
            return True
    return event.traits is not None and "email" in event.traits


def email_of(value: object) -> str | None:
    """Return an e-mail address in its one spelling, None where it is no text.

    >>> email_of(" A@B.example ")
    'a@b.example'
    """
    return value.strip().lower()[:EMAIL_LENGTH_MAX] if isinstance(value, str) else None


def fingerprints_in(event: Event) -> list[str]:
    """Return the fingerprints that an event carries: hints, no identifiers."""
    context = event.context
    if context is None:
        return []
    listed = context.external_ids if isinstance(context.external_ids, list) else []
    found = [context.fingerprint]
    found += [
        each.get("id") for each in listed if isinstance(each, dict) and each.get("type") == "fingerprint"
    ]
    values = (value for value in found if isinstance(value, str) and not is_blocked(value))
    return [value for value in dict.fromkeys(values) if len(value) <= IDENTIFIER_LENGTH_MAX]


def _named(event: Event, count: Count) -> Iterator[tuple[str, str]]:
    """Yield (type, value) of whatever an event names, blocked or not."""
    if event.user_id is not None:
        yield "user_id", event.user_id
    if event.anonymous_id is not None:
        yield "anonymous_id", event.anonymous_id
    email = email_of((declared_traits(event) or {}).get("email"))
    if email is not None:
        yield "email", email
    yield from named_in_context(event, count)


def named_in_context(event: Event, count: Count | None = None) -> Iterator[tuple[str, str]]:
    """Yield (type, value) of what an event's context names: the device, and external ids."""
    context = event.context
    if context is None:
        return
    if context.device is not None and context.device.id is not None:
        yield "device_id", context.device.id
    if context.external_ids is not None:
        yield from _external(context.external_ids, count or _uncounted)


def _uncounted(_what: str) -> None:
    """Count nothing."""


def _external(listed: object, count: Count) -> Iterator[tuple[str, str]]:
    if not isinstance(listed, list):
        count("identity.malformed")
        return
    if len(listed) > EXTERNAL_IDS_MAX:
        count("identity.too_many")
    for each in listed[:EXTERNAL_IDS_MAX]:
        if isinstance(each, dict) and each.get("type") == "fingerprint":
            continue
        found = _read(each)
        if found is None:
            count("identity.malformed")
        else:
            yield found


def _read(each: object) -> tuple[str, str] | None:
    """Return (type, value) of an external id, None where it is not one of a user, or not readable."""
    if not isinstance(each, dict):
        return None
    kind, value = each.get("type"), each.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(kind, str) or not isinstance(value, str):
        return None
    if each.get("collection", "users") not in ("users", "user") or each.get("encoding", "none") != "none":
        return None
    if not is_type(kind) or kind in _OWN_FIELDS:
        return None
    return kind, str(email_of(value)) if kind == "email" else value


def _is_out(rules: Rules, kind: str, value: str, count: Count) -> bool:
    """Return whether a value identifies nobody: blocked, or longer than any identifier is."""
    if len(value) > IDENTIFIER_LENGTH_MAX:
        count("identity.malformed")
        return True
    if rules.blocks(kind, value):
        count(f"identity.blocked.{rules.label(kind)}")
        return True
    return False


def _matcher(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Return what matches any of the patterns, in small letters; None where there is none."""
    parts = [fnmatch.translate(pattern.lower()) for pattern in patterns]
    return re.compile("|".join(parts)) if parts else None
