"""Identities as OpenDSR names them, to identifiers as Tailorbird does.

An identity may come hashed: then the people known by that type are gone through, one hash each, to
find who is meant (about a second a million people).
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.limits import IDENTIFIER_LENGTH_MAX, IDENTITIES_MAX
from tailorbird.live.identifiers import is_blocked
from tailorbird.privacy.person import normalized
from tailorbird.privacy.scan import Breather
from tailorbird.schema.identity import is_type
from tailorbird.schema.profile import identifier_of
from tailorbird.stores.state import StateStore

TYPES: Final = {
    "controller_customer_id": "user_id",
    "email": "email",
    "user_id": "user_id",
    "anonymous_id": "anonymous_id",
    "device_id": "device_id",
    "device": "device",
    "profile": "profile",
    "external_id": "",
}
"""OpenDSR's identity types that are understood, and our own; the value of an external id says its type."""

HASHES: Final[dict[str, Callable[[bytes], Any]]] = {
    "sha256": hashlib.sha256,
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False),
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False),
}
HASHED_TYPES: Final = ("controller_customer_id", "user_id", "email")


class Identity(msgspec.Struct, frozen=True):
    """One identity of a request."""

    identity_type: str
    identity_value: str
    identity_format: str = "raw"

    @property
    def kind(self) -> str:
        """Return Tailorbird's type of it."""
        return TYPES[self.identity_type]


def supported() -> list[dict[str, str]]:
    """Return every pair of type and format that is understood."""
    raw = [{"identity_type": kind, "identity_format": "raw"} for kind in TYPES]
    return raw + [
        {"identity_type": kind, "identity_format": name} for kind in HASHED_TYPES for name in HASHES
    ]


def check_identities(identities: list[Identity]) -> None:
    """Refuse identities that cannot be looked for.

    Raises:
        InvalidInputError: There is none, or too many, or a type, format or value is not understood.
    """
    path = "subject_identities"
    if not 1 <= len(identities) <= IDENTITIES_MAX:
        rule = f"from one to {IDENTITIES_MAX} identities"
        raise InvalidInputError(Fault(path, rule, len(identities)))
    faults = [fault for i, identity in enumerate(identities) for fault in _faults(identity, f"{path}[{i}]")]
    if faults:
        raise InvalidInputError(*faults)


def check_name(path: str, name: str) -> str:
    """Return an identifier `type:value` in its one spelling.

    Raises:
        InvalidInputError: It is not of that form, or identifies nobody.
    """
    kind, _, value = name.partition(":")
    if not kind or not value or len(value) > IDENTIFIER_LENGTH_MAX:
        raise InvalidInputError(Fault(path, "type:value, such as user_id:u-1", name))
    if is_blocked(value):
        raise InvalidInputError(Fault(path, "a value that identifies somebody", name))
    return identifier_of(kind, normalized(kind, value))


def names_of(identities: Iterable[Identity]) -> list[str]:
    """Return the identifiers that identities name as they are."""
    return [_name_of(each) for each in identities if each.identity_format == "raw"]


def find_hashed(store: StateStore, identities: Iterable[Identity], breather: Breather) -> list[str]:
    """Return the identifiers in a committed state whose hash an identity gives. Blocks."""
    wanted: dict[tuple[str, str], set[str]] = {}
    for each in identities:
        if each.identity_format != "raw":
            digests = wanted.setdefault((each.kind, each.identity_format), set())
            digests.add(each.identity_value.lower())
    found = []
    for (kind, name), digests in wanted.items():
        prefix = f"{kind}:"
        for key, _ in store.scan("identifier", prefix):
            value = key[len(prefix) :].encode("utf-8", "surrogatepass")
            if HASHES[name](value).hexdigest() in digests:
                found.append(key)
            breather.breathe()
    return found


def _name_of(identity: Identity) -> str:
    if identity.identity_type == "external_id":
        return check_name("identity_value", identity.identity_value)
    return identifier_of(identity.kind, normalized(identity.kind, identity.identity_value))


def _faults(identity: Identity, path: str) -> list[Fault]:
    faults = []
    if identity.identity_type not in TYPES:
        rule = f"one of {', '.join(TYPES)}"
        faults.append(Fault(f"{path}.identity_type", rule, identity.identity_type))
    is_hashed = identity.identity_format in HASHES
    if not is_hashed and identity.identity_format != "raw":
        rule = f"one of raw, {', '.join(HASHES)}"
        faults.append(Fault(f"{path}.identity_format", rule, identity.identity_format))
    elif is_hashed and identity.identity_type not in HASHED_TYPES:
        rule = f"raw; hashed values are looked up for {', '.join(HASHED_TYPES)} only"
        faults.append(Fault(f"{path}.identity_format", rule, identity.identity_format))
    value = identity.identity_value
    if not 1 <= len(value) <= IDENTIFIER_LENGTH_MAX:
        rule = f"from 1 to {IDENTIFIER_LENGTH_MAX} characters"
        faults.append(Fault(f"{path}.identity_value", rule, value))
    elif identity.identity_type == "external_id" and not _is_external(value):
        faults.append(Fault(f"{path}.identity_value", "type:value, such as crm:7", value))
    elif is_blocked(value):
        faults.append(Fault(f"{path}.identity_value", "a value that identifies somebody", value))
    return faults


def _is_external(value: str) -> bool:
    kind, _, rest = value.partition(":")
    return is_type(kind) and bool(rest) and not is_blocked(rest)
