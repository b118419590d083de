"""Who a request is about: a person's identifiers and profile ids, and what they mean in the log.

A person is what the fold made one profile of: all its identifiers, and the ids of the profiles that
merges brought in. One case is added. A visitor who asks for decisions under an id that no event has
named yet (OpenFeature's `targetingKey`) is met as an anonymous one of that name; when the known user
of the same name is asked about, that anonymous profile, which nobody else joined, is theirs.
"""

import re
from collections.abc import Container, Iterable, Iterator
from typing import Any

import msgspec

from tailorbird.errors import ConflictError
from tailorbird.hashing import token
from tailorbird.live.identifiers import is_segment_type, kind_of
from tailorbird.live.profiles import is_shared, segments_of, suppression_hash, user_of
from tailorbird.live.world import World
from tailorbird.schema.profile import Profile, identifier_of


class Person(msgspec.Struct, frozen=True):
    """Everything by which one person's records are recognized.

    `identifiers` are `type:value`; `profiles` are profile ids, of merged profiles too.
    """

    identifiers: frozenset[str] = frozenset()
    profiles: frozenset[str] = frozenset()

    def values(self, kind: str) -> frozenset[str]:
        """Return the values of the identifiers of one type."""
        prefix = f"{kind}:"
        found = (name for name in self.identifiers if name.startswith(prefix))
        return frozenset(name[len(prefix) :] for name in found)

    def with_other(self, other: "Person") -> "Person":
        """Return both as one person."""
        return Person(self.identifiers | other.identifiers, self.profiles | other.profiles)


def person_of(world: World, names: Iterable[str]) -> Person:
    """Return the person whom `names` (`type:value`) name together.

    A name that nobody is known by stays among the identifiers: the log may hold refusals under it.

    Raises:
        ConflictError: The names lead to nobody but through a device that several people share, which
            cannot say which of them is meant.
    """
    names = list(names)
    identifiers: set[str] = set()
    profiles: set[str] = set()
    followed: set[str] = set()
    shared = {name for name in names if _is_shared_device(world, name)}
    waiting = [each for name in names if name not in shared for each in _signed_out(world, name)]
    while waiting:
        name = waiting.pop()
        kind, _, value = name.partition(":")
        if kind == "profile":
            profiles.add(value)
        elif name not in identifiers:
            identifiers.add(name)
            waiting += _namesake(world, name)
        profile = _profile(world, name)
        if profile is not None and profile.id not in followed:
            followed.add(profile.id)
            profiles |= {profile.id, *(link.merged for link in profile.links if link.merged)}
            waiting += profile.identifiers
    if shared and not identifiers and not profiles:
        raise ConflictError(
            f"{min(shared)[:100]!r} is a device that several people use: name the user_id who is meant,"
            " or device:… for what was done on it signed out"
        )
    return Person(frozenset(identifiers), frozenset(profiles))


def to_suppress(world: World, secret: bytes, person: Person, shared: Iterable[str]) -> tuple[str, ...]:
    """Return the hashes under which the door is to refuse a person and does not yet.

    A value is refused as a user id and as an anonymous id, whatever it was: a client that sends it
    in the other field, as `previousId` or as `targetingKey`, means the same person. What is
    `shared` with others is let in.
    """
    found: set[str] = set()
    for name in person.identifiers - set(shared):
        kind, _, value = name.partition(":")
        if not is_segment_type(kind):
            found |= suppressed_spellings(kind, value)
    hashes = {suppression_hash(secret, name) for name in found}
    return tuple(sorted(hashes - world.suppressed))


def suppressed_spellings(kind: str, value: str) -> set[str]:
    """Return the identifiers that are refused together for one value.

    >>> sorted(suppressed_spellings("email", " A@B.example "))
    ['anonymous_id:a@b.example', 'email:a@b.example', 'user_id:a@b.example']
    """
    value = normalized(kind, value)
    return {identifier_of(each, value) for each in (kind, "user_id", "anonymous_id")}


def normalized(kind: str, value: str) -> str:
    """Return a value as identifiers spell it: e-mail addresses trimmed and in small letters."""
    return value.strip().lower() if kind == "email" else value


def digest_of(secret: bytes, names: Iterable[str]) -> str:
    """Return a keyed hash of a set of identifiers: says that two requests are about the same, not whom."""
    return token(secret, "privacy-identities", *sorted(names))


_NAMES = ("userId", "user_id", "anonymousId", "anonymous_id", "previousId", "previous_id", "email")
_NAMING = re.compile(
    rf'"(?:{"|".join(_NAMES)})"\s*:\s*'
    r'(?:"((?:[^"\\]|\\.){1,600})"|(-?\d{1,40}(?:\.\d{1,20})?))'
)


def values_named(body: str) -> set[str]:
    r"""Return the identifiers that a request's body names, also where it is no JSON or no text.

    >>> sorted(values_named('{"userId": 7, "traits": {"email": "A@B.example"'))
    ['7', 'A@B.example', 'a@b.example']
    >>> sorted(values_named('{"us\\u0065rId": ["u-1"]}'))
    ['u-1']
    """
    try:
        values = list(texts_in(msgspec.json.decode(body), _NAMES))
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        values = [number or _unescaped(text) for text, number in _NAMING.findall(body)]
    return {*values, *(normalized("email", value) for value in values if "@" in value)}


def texts_in(body: Any, under: Container[str] | None = None) -> Iterator[str]:  # noqa: ANN401
    """Yield every string and number in a JSON value, as text; with `under` only those under such a name."""
    waiting = [(body, under is None)]
    while waiting:
        value, is_wanted = waiting.pop()
        if isinstance(value, dict):
            waiting += [
                (inner, is_wanted or (under is not None and name in under)) for name, inner in value.items()
            ]
        elif isinstance(value, list):
            waiting += [(inner, is_wanted) for inner in value]
        elif is_wanted and isinstance(value, str | int | float) and not isinstance(value, bool):
            yield str(value)


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return msgspec.json.decode(f'"{text}"', type=str)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text


def _profile(world: World, name: str) -> Profile | None:
    entry = world.identifiers.get(name)
    return None if entry is None or not entry.profile else world.profiles.get(entry.profile)


def _is_shared_device(world: World, name: str) -> bool:
    entry = world.identifiers.get(name) if kind_of(name) in ("anonymous_id", "device_id") else None
    return entry is not None and is_shared(entry)


def _signed_out(world: World, name: str) -> list[str]:
    """Return an identifier; of `device:…` all that was done signed out and that nobody took over."""
    kind, _, value = name.partition(":")
    device = identifier_of("anonymous_id", value)
    entry = world.identifiers.get(device) if kind == "device" else None
    if entry is None or not entry.boundaries:
        return [name]
    named = [(each, _profile(world, each)) for each in segments_of(entry, device)]
    if all(profile is None for _, profile in named):
        return [name]
    # What a known user took over is that user's, who was not asked about.
    return [each for each, profile in named if profile is not None and user_of(profile) is None]


def _namesake(world: World, name: str) -> list[str]:
    """Return the anonymous identifier of a known user's name, if its profile has no other."""
    kind, _, value = name.partition(":")
    other = identifier_of("anonymous_id", value)
    entry = world.identifiers.get(other) if kind == "user_id" else None
    if entry is None or entry.owners or not entry.profile:
        return []
    profile = world.profiles.get(entry.profile)
    return [other] if profile is not None and set(profile.identifiers) == {other} else []
