"""Finding people: whose an identifier is, and what is to be known of a visitor who is new.

Resolution is a read. Decisions and the fold share it, so that both see the same person.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from tailorbird.features.state import INTEREST
from tailorbird.hashing import token, unit_interval
from tailorbird.live.identifiers import kind_of
from tailorbird.live.revocations import pair_of
from tailorbird.live.world import Identifier, World
from tailorbird.schema.profile import Profile, identifier_of


def profile_id_of(secret: bytes, identifier: str, incarnation: int = 0) -> str:
    """Return the id of the profile that `identifier` (`type:value`) founds.

    `incarnation` counts how often the identifier began anew, after it had named nobody for its time-to-live.
    """
    again = (str(incarnation),) if incarnation else ()
    return "p-" + token(secret, "profile", identifier, *again, size=10)


def segment_identifier(anonymous_id: str, boundaries: Sequence[int]) -> str:
    """Return the identifier of what a shared device does signed out, since the last of `boundaries`.

    A boundary is the log offset at which somebody signed in and took over what was done before.

    >>> segment_identifier("a", []), segment_identifier("a", [7, 12])
    ('device:a', 'device.12:a')
    """
    kind = f"device.{boundaries[-1]}" if boundaries else "device"
    return identifier_of(kind, anonymous_id)


def segments_of(entry: Identifier, name: str) -> list[str]:
    """Return the identifiers of all stretches of signed-out use of a device, `name` its anonymous id."""
    value, boundaries = name.partition(":")[2], entry.boundaries
    return [segment_identifier(value, boundaries[:count]) for count in range(len(boundaries) + 1)]


FORGOTTEN = "forgotten"
"""Stands among a device's owners for those who were erased."""


def is_shared(entry: Identifier) -> bool:
    """Return whether a device is that of several people, or of one who was erased."""
    return len(entry.owners) > 1 or FORGOTTEN in entry.owners


def is_expired(world: World, identifier: str, entry: Identifier, t: float) -> bool:
    """Return whether an identifier was not seen for its type's time-to-live, at `t`: it names nobody then.

    Not of a shared device: what is done on it is not seen of the one who had it first.
    """
    if not world.identity.ttl:
        return False
    ttl = world.identity.ttl.get(kind_of(identifier))
    if ttl is None or not entry.profile or is_shared(entry):
        return False
    profile = world.profiles.get(entry.profile)
    seen = None if profile is None else profile.identifiers.get(identifier)
    return seen is not None and t - seen[1] > ttl


def user_of(profile: Profile) -> str | None:
    """Return the identifier of the known user whose profile it is, None where nobody signed in."""
    return next((name for name in profile.identifiers if name.startswith("user_id:")), None)


def are_apart(world: World, anonymous_id: str, user_id: str | None) -> bool:
    """Return whether a device and a user are never joined, because their link was revoked."""
    folded = world.revocations.folded
    if not folded or user_id is None:
        return False
    return pair_of(identifier_of("anonymous_id", anonymous_id), identifier_of("user_id", user_id)) in folded


def find(world: World, anonymous_id: str | None, user_id: str | None, t: float = 0.0) -> Profile | None:
    """Return the profile of a visitor, to read; the known user comes first. None where nobody is known.

    At `t`, by which identifiers may have come to an end; without it, none has.
    """
    if user_id is not None:
        owner = world.identifiers.get(identifier_of("user_id", user_id))
        if owner is not None:
            return world.profiles.get(owner.profile)
    if anonymous_id is None or are_apart(world, anonymous_id, user_id):
        return None
    name = identifier_of("anonymous_id", anonymous_id)
    entry = world.identifiers.get(name)
    if entry is None or is_expired(world, name, entry, t):
        return None
    if user_id is None:
        segment = segment_identifier(anonymous_id, entry.boundaries)
        return by_identifier(world, segment) if is_shared(entry) else world.profiles.get(entry.profile)
    profile = None if entry.owners else world.profiles.get(entry.profile)
    # A user not met before, on a device that came to be somebody else's, is a new person.
    return None if profile is None or user_of(profile) is not None else profile


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


class Founding(NamedTuple):
    """What a new visitor's profile is founded on, and the id that it will have."""

    identifier: str
    profile_id: str


def founding(
    world: World, secret: bytes, visitor: tuple[str | None, str | None], t: float = 0.0
) -> Founding | None:
    """Return what the profile of a visitor (anonymous id, user id) who is new at `t` is founded on."""
    identifier = founding_identifier(world, *visitor, t)
    if identifier is None:
        return None
    entry = world.identifiers.get(identifier)
    incarnation = 0 if entry is None else entry.incarnation + is_expired(world, identifier, entry, t)
    return Founding(identifier, profile_id_of(secret, identifier, incarnation))


def founding_identifier(
    world: World, anonymous_id: str | None, user_id: str | None, t: float = 0.0
) -> str | None:
    """Return the identifier that a new visitor's profile and holdout arm are derived from.

    The anonymous id where there is one, because it is what the visitor was known by before signing in
    on every other door; unless the device is known as somebody else's or as shared.
    """
    if anonymous_id is not None and not are_apart(world, anonymous_id, user_id):
        name = identifier_of("anonymous_id", anonymous_id)
        entry = world.identifiers.get(name)
        if entry is None or is_expired(world, name, entry, t):
            return name
        if user_id is None:
            return segment_identifier(anonymous_id, entry.boundaries) if is_shared(entry) else name
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
