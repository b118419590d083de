"""Identity: identifiers of every type, joined by append-only link records.

A profile is found by its identifiers. An event's identifiers that name nobody are added to the profile that
the others name; if they name several profiles, those become one, under the oldest one's id, within the rules
(`process.matching`). Two known users are never merged, not even on `alias`: a false merge is a privacy
incident, a false split a nuisance.

A device on which two known users signed in is shared. What is done on it signed out goes to a profile of its
own; whoever signs in next takes that over, back to the last time that somebody did, and no further:

    u1 signs in   u2 signs in    signed out      u1 signs in     signed out       u2 signs in
    ───────────►  ────────────►  device:d ─────► (u1's now)      device.9:d ────► (u2's now)
                                                 offset 9: a boundary
"""

import msgspec

from tailorbird.features.state import new_state
from tailorbird.limits import BOUNDARIES_MAX, OWNERS_MAX
from tailorbird.live.identifiers import kind_of
from tailorbird.live.merging import merge_history
from tailorbird.live.profiles import (
    FORGOTTEN,
    find,
    founding_identifier,
    is_expired,
    is_shared,
    profile_id_of,
    segment_identifier,
    user_of,
)
from tailorbird.live.revocations import not_apart
from tailorbird.live.world import Identifier, World
from tailorbird.process.matching import Candidate, Matching
from tailorbird.process.membership import merge_membership
from tailorbird.process.merging import merge_assignment
from tailorbird.process.observer import UNOBSERVED, Observer
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.profile import Link, Profile, identifier_of


class Seen(msgspec.Struct, frozen=True, gc=False):
    """Where identifiers were seen: what a link record says of its origin, and the offset in the log."""

    rule: str
    message_id: str
    t: float
    offset: int = -1


class Resolver:
    """Resolves identifiers to profiles in one world, founding, linking and merging as needed."""

    def __init__(self, world: World, secret: bytes, observer: Observer = UNOBSERVED) -> None:
        self._world = world
        self._observer = observer
        self._secret = secret

    def resolve(self, names: list[str], seen: Seen) -> Profile | None:
        """Return the profile to change, None where no identifier identifies anybody.

        `names` are an event's identifiers in the order of the rules, the known user first.
        """
        if len(names) == 1 and kind_of(names[0]) == "anonymous_id":
            return self.anonymous(names[0], seen)
        apart = self._world.revocations.folded
        names = not_apart(names, apart)
        user = names[0] if names and names[0].startswith("user_id:") else None
        candidates = [each for name in names if (each := self._candidate(name, user, seen)) is not None]
        if apart:
            # What a shared device did signed out comes under a name of its own, which may be revoked, too.
            kept = set(not_apart([each.name for each in candidates], apart))
            candidates = [each for each in candidates if each.name in kept]
        if not candidates:
            return None
        profile = self._match(candidates, seen)
        if user is not None:
            for name in names:
                if kind_of(name) in _DEVICES:
                    self._own(name, user, profile, seen)
        return profile

    def anonymous(self, name: str, seen: Seen) -> Profile:
        """Return the profile of an anonymous id that came alone, as most do."""
        entry = self._world.identifiers.get(name)
        if entry is not None and is_shared(entry):
            name = segment_identifier(_value(name), entry.boundaries)
            entry = self._world.identifiers.get(name)
        if entry is None or not entry.profile:
            return self._join([Candidate(name)], seen)
        if self._world.identity.ttl and is_expired(self._world, name, entry, seen.t):
            return self._join([Candidate(name)], seen)
        profile = self._change(entry.profile)
        _touch(profile, name, seen.t)
        return profile

    def signed_in(self, user: str, device: str, seen: Seen) -> Profile | None:
        """Return the profile of a known user on their own device, as nearly always; None otherwise."""
        world = self._world
        mine, entry = world.identifiers.get(user), world.identifiers.get(device)
        if mine is None or entry is None or mine.profile != entry.profile or entry.owners != [user]:
            return None
        if world.identity.may_end_or_block or world.revocations.folded:
            return None
        profile = self._change(mine.profile)
        _touch(profile, user, seen.t)
        _touch(profile, device, seen.t)
        return profile

    def alias(self, previous_id: str, user_id: str, seen: Seen) -> Profile | None:
        """Link what was known as `previous_id` to a known user.

        Where that was a known user, too, nothing is linked: so chains and cycles of aliases end where they
        begin.
        """
        user = identifier_of("user_id", user_id)
        if previous_id == user_id:
            return self.resolve([user], seen)
        if self._world.identifiers.get(identifier_of("user_id", previous_id)) is not None:
            self._world.count("identity.merge_of_known_users_refused")
            return self.resolve([user], seen)
        return self.resolve([user, identifier_of("anonymous_id", previous_id)], seen)

    def declare(self, pair: tuple[str, str], seen: Seen) -> bool:
        """Link two identifiers because somebody declared them to be one person's; return whether they are."""
        world = self._world
        names = not_apart(world.identity.ordered(pair), world.revocations.folded)
        user = names[0] if names[0].startswith("user_id:") else None
        candidates = [each for name in names if (each := self._declared(name, user, seen)) is not None]
        # Of one that is left alone nothing is said.
        matching = Matching(world.identity, seen.t)
        if len(candidates) < 2 or matching.broken(candidates, self._profiles(candidates)):  # noqa: PLR2004
            world.count("identity.links_refused")
            return False
        profile = self._join(candidates, seen)
        if user is not None and kind_of(names[1]) in _DEVICES:
            self._own(names[1], user, profile, seen)
        return True

    def forget_owner(self, name: str, offset: int, *, is_boundary: bool) -> None:
        """Note that a device is also that of somebody who was erased, so that it stays shared."""
        entry = self._world.identifiers.change(name)
        if entry is None:
            self._world.identifiers.put(name, entry := Identifier(""))
        if FORGOTTEN not in entry.owners:
            entry.owners.append(FORGOTTEN)
        if is_boundary:
            entry.boundaries.append(offset)

    def found_on(self, identifier: str, seen: Seen) -> Profile:
        """Return the profile that `identifier` names, a new one where it names none."""
        return self._join([self._named(identifier, seen)], seen)

    def met(self, decision: LoggedDecision) -> Profile | None:
        """Return the profile of whom a decision was made for, where links were revoked since.

        Who was one person then may be two now: it is who is known by the ids that asked.
        """
        anonymous_id, user_id, founder = decision.anonymous_id, decision.user_id, decision.founded_on
        if anonymous_id is not None or user_id is not None:
            found = find(self._world, anonymous_id, user_id, decision.t)
            if found is not None:
                return self._change(found.id)
            founder = founding_identifier(self._world, anonymous_id, user_id, decision.t)
        elif decision.profile is not None and founder is None:
            return self._world.profiles.change(decision.profile)
        return None if founder is None else self.found_on(founder, Seen("decide", "", decision.t))

    # --- whose identifiers are ----------------------------------------------------------------------

    def _named(self, name: str, seen: Seen) -> Candidate:
        """Return an identifier with the profile that it names."""
        entry = self._world.identifiers.get(name)
        if entry is None or not entry.profile or is_expired(self._world, name, entry, seen.t):
            return Candidate(name)
        return Candidate(name, entry.profile)

    def _candidate(self, name: str, user: str | None, seen: Seen) -> Candidate | None:
        """Return an event's identifier with the profile that it names; None where it says nothing here."""
        kind = kind_of(name)
        entry = self._world.identifiers.get(name) if kind in _DEVICES else None
        if entry is None or not entry.owners or is_expired(self._world, name, entry, seen.t):
            return self._named(name, seen)
        if not is_shared(entry):
            if user is None or entry.owners[0] == user:
                return Candidate(name, entry.profile, entry.owners[0])
            # The first to sign in is whose device it is; whoever comes later never joins that profile.
            self._world.count("identity.owner")
            return None
        if kind != "anonymous_id":
            self._world.count("identity.owner")
            return None
        segment = self._named(segment_identifier(_value(name), entry.boundaries), seen)
        if user is None:
            return segment
        return segment if segment.profile and len(entry.boundaries) < BOUNDARIES_MAX else None

    def _declared(self, name: str, user: str | None, seen: Seen) -> Candidate | None:
        """Return a declared identifier with the profile that it names; None for other people's devices."""
        entry = self._world.identifiers.get(name) if kind_of(name) in _DEVICES else None
        if entry is not None and (
            is_shared(entry) or (user is not None and entry.owners not in ([], [user]))
        ):
            return None
        owner = entry.owners[0] if entry is not None and entry.owners else ""
        return msgspec.structs.replace(self._named(name, seen), owner=owner)

    def _own(self, name: str, user: str, profile: Profile, seen: Seen) -> None:
        """Note that a known user signed in on a device, and took over what a shared one did signed out."""
        entry = self._world.identifiers.get(name)
        if entry is None:
            return
        if name in profile.identifiers:
            _touch(profile, name, seen.t)
        others = [] if entry.owners else self._known_by_other_links(entry, profile)
        if others or (user not in entry.owners and len(entry.owners) < OWNERS_MAX):
            entry = self._entry(name)
            entry.owners += [*others, user]
        if is_shared(entry) and kind_of(name) == "anonymous_id" and len(entry.boundaries) < BOUNDARIES_MAX:
            segment = segment_identifier(_value(name), entry.boundaries)
            if self._world.identifiers.get(segment) is not None:
                self._entry(name).boundaries.append(seen.offset)

    def _known_by_other_links(self, entry: Identifier, profile: Profile) -> list[str]:
        """Return the known user whose a device is though they never signed in on it."""
        if not entry.profile or entry.profile == profile.id:
            return []
        other = self._world.profiles.get(entry.profile)
        user = None if other is None else user_of(other)
        return [] if user is None else [user]

    def _entry(self, name: str) -> Identifier:
        entry = self._world.identifiers.change(name)
        assert entry is not None, f"{name} was there a moment ago"
        return entry

    # --- joining them -------------------------------------------------------------------------------

    def _match(self, candidates: list[Candidate], seen: Seen) -> Profile:
        """Make one person of as many candidates as the rules allow, the first ones first."""
        if len(candidates) == 1:
            return self._join(candidates, seen)
        matching = Matching(self._world.identity, seen.t)
        refused = []
        while (rule := matching.broken(candidates, self._profiles(candidates))) is not None:
            dropped = candidates.pop()
            refused.append(rule)
            self._world.count(f"identity.{rule}")
            self._world.count("identity.merges_refused" if dropped.profile else "identity.links_refused")
        profile = self._join(candidates, seen)
        for rule in refused:
            profile.refused[rule] = profile.refused.get(rule, 0) + 1
        return profile

    def _profiles(self, candidates: list[Candidate]) -> list[Profile]:
        ids = dict.fromkeys(each.profile for each in candidates if each.profile)
        found = (self._world.profiles.get(profile_id) for profile_id in ids)
        return [profile for profile in found if profile is not None]

    def _join(self, candidates: list[Candidate], seen: Seen) -> Profile:
        """Return the one profile of candidates that keep the rules."""
        profile: Profile | None = None
        for each in candidates:
            if each.profile:
                named = self._change(self._whose(each))
                is_other = profile is not None and named is not profile
                profile = self._merge(profile, named, each.name, seen) if is_other and profile else named
        if profile is None:
            profile = self._found(_founder(candidates), seen)
        for each in candidates:
            if each.profile or each.name in profile.identifiers:
                _touch(profile, each.name, seen.t)
            else:
                self._link(profile, each.name, seen)
        return profile

    def _whose(self, candidate: Candidate) -> str:
        """Return the profile that a candidate names by now: an earlier one may have brought it in."""
        entry = self._world.identifiers.get(candidate.name)
        assert entry is not None, f"{candidate.name} names a profile"
        return entry.profile

    def _found(self, identifier: str, seen: Seen) -> Profile:
        entry = self._world.identifiers.get(identifier)
        incarnation = 0
        if entry is not None:
            incarnation = entry.incarnation + is_expired(self._world, identifier, entry, seen.t)
        profile = Profile(
            id=profile_id_of(self._secret, identifier, incarnation),
            assignment_key=identifier,
            state=new_state(seen.t),
        )
        self._world.profiles.put(profile.id, profile)
        self._world.identifiers.put(identifier_of("profile", profile.id), Identifier(profile.id))
        self._link(profile, identifier, seen)
        return profile

    def _link(self, profile: Profile, identifier: str, seen: Seen) -> None:
        """Give a profile an identifier that names nobody."""
        profile.links.append(Link(identifier, seen.rule, seen.message_id, seen.t))
        profile.identifiers[identifier] = (seen.t, seen.t)
        self._observer.linked(identifier, profile.id)
        entry = self._world.identifiers.change(identifier)
        if entry is None:
            self._world.identifiers.put(identifier, Identifier(profile.id))
            return
        if entry.profile and entry.profile != profile.id:
            self._begin_anew(identifier, entry)
        entry.profile = profile.id

    def _begin_anew(self, identifier: str, entry: Identifier) -> None:
        """Take an identifier that was not seen for its time-to-live from whoever had it."""
        del self._change(entry.profile).identifiers[identifier]
        entry.incarnation += 1
        entry.owners = []
        self._world.count(f"identity.expired.{self._world.identity.label(kind_of(identifier))}")

    def _change(self, profile_id: str) -> Profile:
        profile = self._world.profiles.change(profile_id)
        assert profile is not None, f"an identifier names profile {profile_id}, which is not there"
        return profile

    def _merge(self, one: Profile, other: Profile, identifier: str, seen: Seen) -> Profile:
        """Make one person of two: the older one's id, holdout key and arm stay."""
        older, newer = sorted((one, other), key=lambda profile: (profile.founded, profile.id))
        self._observer.merged(older.id, newer.id, [link.merged for link in newer.links if link.merged])
        merge_assignment(self._world, self._secret, older, newer)
        merge_history(older, newer, self._world.features.counting)
        merge_membership(self._world, older, newer)
        older.links = sorted([*older.links, *newer.links], key=lambda link: link.t)
        older.links.append(Link(identifier, seen.rule, seen.message_id, seen.t, newer.id))
        for name, (first, last) in newer.identifiers.items():
            mine = older.identifiers.get(name, (first, last))
            older.identifiers[name] = (min(mine[0], first), max(mine[1], last))
        for name in [*newer.identifiers, identifier_of("profile", newer.id)]:
            self._entry(name).profile = older.id
        # Ids that came in with earlier merges go on leading here, too.
        for link in newer.links:
            if link.merged:
                gone = self._world.identifiers.change(identifier_of("profile", link.merged))
                if gone is not None:
                    gone.profile = older.id
        self._world.profiles.delete(newer.id)
        self._world.count("identity.merges")
        return older


_DEVICES = ("anonymous_id", "device_id")


def _founder(candidates: list[Candidate]) -> str:
    """Return what a new profile is founded on: what the visitor is known by before signing in, if any."""
    names = [each.name for each in candidates]
    return next((name for name in names if kind_of(name) == "anonymous_id"), names[0])


def _value(name: str) -> str:
    return name.partition(":")[2]


def _touch(profile: Profile, identifier: str, t: float) -> None:
    first, last = profile.identifiers.get(identifier, (t, t))
    profile.identifiers[identifier] = (first if first < t else t, last if last > t else t)
