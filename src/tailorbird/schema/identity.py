"""The rules of identity: which identifiers there are, how many a person may have, what joins two people.

They follow Segment Unify's rules and Snowplow's unique identifiers, with the same defaults: one user id for
good, five anonymous ids a week, five of every other type; user id first, then e-mail, then in the order of
the alphabet. The rules in force are a record of the log (`IdentityRulesPut`), and hold for what comes after
it.
"""

import math
import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.limits import BLOCKED_MAX, IDENTIFIER_TYPES_MAX, MAPPINGS_MAX, MERGES_MAX

WEEK_SECONDS = 7 * 86_400.0
FIRST_PRIORITY = 0
EMAIL_PRIORITY = 10
PRIORITY = 100

RESERVED_TYPES = ("profile", "device", "fingerprint")
"""Types with a meaning of their own: what a profile is called, signed-out use of a shared device, a hint."""

_TYPE = re.compile(r"[a-z][a-z0-9_]{0,39}")

TypeKey = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Patterns = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...], Meta(max_length=BLOCKED_MAX)
]


class IdentifierType(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One type of identifier and its rules. What a configuration leaves out is as by default."""

    key: TypeKey
    priority: Annotated[int, Meta(ge=0, le=1000)] = PRIORITY
    """Lower goes first; equal ones in the order of the alphabet. Where a rule would be broken, the last is
    dropped."""
    limit: Annotated[int, Meta(ge=1, le=MAPPINGS_MAX)] = 5
    """Values that one person may have: within any `window_seconds`, or ever."""
    window_seconds: Annotated[float, Meta(gt=0.0)] | None = None
    is_unique: bool = False
    """Two people with different values are never merged."""
    is_merging: bool = True
    """May make one person of two. Otherwise it only finds the person who had it first."""
    ttl_seconds: Annotated[float, Meta(gt=0.0)] | None = None
    """Not seen for so long (by the time of events), it names nobody any more, and may begin anew."""
    blocked: Patterns = ()
    """Values that identify nobody, beside the usual placeholders: any case, `*` and `?` for any
    characters."""

    @property
    def limit_ever(self) -> int | None:
        """Return how many values one person may have in all; None where only a window bounds them."""
        if self.is_unique:
            return 1
        return self.limit if self.window_seconds is None else None


class IdentityRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rules of one installation."""

    types: Annotated[tuple[IdentifierType, ...], Meta(max_length=IDENTIFIER_TYPES_MAX)] = (
        IdentifierType("anonymous_id", window_seconds=WEEK_SECONDS),
        IdentifierType("device_id"),
        IdentifierType("email", priority=EMAIL_PRIORITY),
        IdentifierType("user_id", priority=FIRST_PRIORITY, limit=1, is_unique=True),
    )
    """Types of which something is said, in the order of their keys; all others are as `IdentifierType` has
    it."""
    blocked: Patterns = ()
    """Values of whatever type that identify nobody, beside the usual placeholders."""
    merges_max: Annotated[int, Meta(ge=0, le=MERGES_MAX)] = MERGES_MAX
    """Profiles that may be merged into one."""
    mappings_max: Annotated[int, Meta(ge=1, le=MAPPINGS_MAX)] = MAPPINGS_MAX
    """Identifiers that one profile may have."""
    confidence_min: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.9
    """Declared links with less confidence become suggestions, and wait for somebody's yes."""


def is_type(kind: str) -> bool:
    """Return whether a name is that of an identifier's type, such as a client may send.

    >>> is_type("crm_id"), is_type("profile"), is_type("CRM id")
    (True, False, False)
    """
    return kind not in RESERVED_TYPES and _TYPE.fullmatch(kind) is not None


def with_defaults(values: Any) -> Any:  # noqa: ANN401
    """Return a configuration's `[identity]` with what its types leave out, and the types it does not name."""
    types = values.get("types") if isinstance(values, dict) else None
    if not isinstance(types, list) or not all(isinstance(each, dict) for each in types):
        return values  # Whoever decodes it says what is wrong.
    defaults = {each.key: msgspec.to_builtins(each) for each in IdentityRules().types}
    given = [{**defaults.get(str(each.get("key")), {}), **_finite(each)} for each in types]
    named = {each.get("key") for each in types}
    others = [each for key, each in defaults.items() if key not in named]
    return values | {"types": sorted([*given, *others], key=lambda each: str(each.get("key")))}


def check_rules(rules: IdentityRules) -> IdentityRules:
    """Return the rules, if they can be kept.

    Raises:
        InvalidInputError: They cannot; each break is named by its path.
    """
    faults = []
    seen: set[str] = set()
    for index, each in enumerate(rules.types):
        path = f"identity.types[{index}]"
        if each.key in RESERVED_TYPES:
            faults.append(Fault(f"{path}.key", f"none of {', '.join(RESERVED_TYPES)}", each.key))
        if each.key in seen:
            faults.append(Fault(f"{path}.key", "each type once", each.key))
        seen.add(each.key)
        faults += _user_id_faults(each, path)
        if each.key != "user_id" and each.priority <= FIRST_PRIORITY:
            faults.append(Fault(f"{path}.priority", "above 0, which is the user id's", each.priority))
    if faults:
        raise InvalidInputError(*faults)
    return rules


def _user_id_faults(each: IdentifierType, path: str) -> list[Fault]:
    """Return what would let two known users become one, or a known user another."""
    if each.key != "user_id":
        return []
    fixed = (("priority", FIRST_PRIORITY), ("limit", 1), ("is_unique", True), ("is_merging", True))
    faults = [
        Fault(f"{path}.{name}", f"{msgspec.json.encode(value).decode()} for user_id", getattr(each, name))
        for name, value in fixed
        if getattr(each, name) != value
    ]
    return faults + [
        Fault(f"{path}.{name}", "none for user_id: a user stays one", getattr(each, name))
        for name in ("window_seconds", "ttl_seconds")
        if getattr(each, name) is not None
    ]


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return a type's values with `inf`, which is how TOML says that there is no window or end, as None."""
    return {name: None if value == math.inf else value for name, value in values.items()}
