"""Finding people: whose an identifier is, and what is to be known of a visitor who is new.

Resolution is a read. Decisions and the fold share it, so that both see the same person.
"""

import functools

from tailorbird.features.state import INTEREST
from tailorbird.hashing import token, unit_interval
from tailorbird.live.revocations import pair_of
from tailorbird.live.world import Identifier, World
from tailorbird.schema.profile import Profile, identifier_of

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


def known(value: str | None) -> str | None:
    """Return the value where it identifies somebody, else None."""
    return None if value is None or is_blocked(value) else value


def profile_id_of(secret: bytes, identifier: str) -> str:
    """Return the id of the profile that `identifier` (`type:value`) founds."""
    return "p-" + token(secret, "profile", identifier, size=10)


def shared_device_identifier(anonymous_id: str) -> str:
    """Return the identifier of what a shared device does while nobody is signed in."""
    return identifier_of("device", anonymous_id)


FORGOTTEN = "forgotten"
"""Stands among a device's owners for those who were erased."""


def is_shared(entry: Identifier) -> bool:
    """Return whether a device is that of several people, or of one who was erased."""
    return len(entry.owners) > 1 or FORGOTTEN in entry.owners


def are_apart(world: World, anonymous_id: str, user_id: str | None) -> bool:
    """Return whether a device and a user are never joined, because their link was revoked."""
    folded = world.revocations.folded
    if not folded or user_id is None:
        return False
    return pair_of(identifier_of("anonymous_id", anonymous_id), identifier_of("user_id", user_id)) in folded


def find(world: World, anonymous_id: str | None, user_id: str | None) -> Profile | None:
    """Return the profile of a visitor, to read; the known user comes first. None where nobody is known."""
    if user_id is not None:
        owner = world.identifiers.get(identifier_of("user_id", user_id))
        if owner is not None:
            return world.profiles.get(owner.profile)
    if anonymous_id is None or are_apart(world, anonymous_id, user_id):
        return None
    entry = world.identifiers.get(identifier_of("anonymous_id", anonymous_id))
    if entry is None or (user_id is not None and entry.owners):
        return None  # A user not met before, on somebody else's device, is a new person.
    if is_shared(entry):
        shared = world.identifiers.get(shared_device_identifier(anonymous_id))
        return None if shared is None else world.profiles.get(shared.profile)
    return world.profiles.get(entry.profile)


def primary_interest(world: World, profile: Profile) -> str | None:
    """Return the category that a person is drawn to most."""
    code = int(profile.state.item(INTEREST))
    return None if code < 0 else world.vocabulary.name(code)


def by_identifier(world: World, identifier: str) -> Profile | None:
    """Return the profile that `type:value` names, to read."""
    entry = world.identifiers.get(identifier)
    if entry is None:
        return None
    return world.profiles.get(entry.profile)


def founding_identifier(world: World, anonymous_id: str | None, user_id: str | None) -> str | None:
    """Return the identifier that a new visitor's profile and holdout arm are derived from.

    The anonymous id where there is one, because it is what the visitor was known by before signing in
    on every other door; unless the device is known as somebody else's or as shared.
    """
    if anonymous_id is not None and not are_apart(world, anonymous_id, user_id):
        entry = world.identifiers.get(identifier_of("anonymous_id", anonymous_id))
        if entry is None:
            return identifier_of("anonymous_id", anonymous_id)
        if user_id is None:
            return shared_device_identifier(anonymous_id)
    return None if user_id is None else identifier_of("user_id", user_id)


@functools.lru_cache(maxsize=65_536)
def holdout_position(secret: bytes, assignment_key: str) -> float:
    """Return a visitor's fixed position in [0, 1): held out wherever the share is above it."""
    return unit_interval(secret, "holdout", assignment_key)


def suppression_hash(secret: bytes, identifier: str) -> str:
    """Return the keyed hash by which an erased identifier is remembered."""
    return token(secret, "suppressed", identifier)


def is_suppressed(world: World, secret: bytes, kind: str, value: str | None) -> bool:
    """Return whether an identifier is refused because its person was erased."""
    if value is None or not world.suppressed:
        return False
    return suppression_hash(secret, identifier_of(kind, value)) in world.suppressed
