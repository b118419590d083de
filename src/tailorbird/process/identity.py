"""Identity: anonymous and known identifiers, joined by append-only link records.

A profile is found by its identifiers. An event that carries two of them links them; if each had a
profile of its own, the two become one, under the older one's id. Two known users are never merged, not
even on `alias`: a false merge is a privacy incident, a false split a nuisance.
"""

import msgspec

from tailorbird.features.state import new_state
from tailorbird.limits import (
    IMPRESSIONS_MAX,
    LINKS_MAX,
    OPEN_DECISIONS_MAX,
)
from tailorbird.live.merging import merge_history
from tailorbird.live.profiles import (
    FORGOTTEN,
    are_apart,
    find,
    founding_identifier,
    holdout_position,
    is_shared,
    profile_id_of,
    shared_device_identifier,
)
from tailorbird.live.world import Identifier, World
from tailorbird.process.membership import merge_membership
from tailorbird.process.observer import UNOBSERVED, Observer
from tailorbird.process.units import moments_of
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.profile import AtPlacement, Link, Profile, identifier_of
from tailorbird.stats.moments import add_unit


class Seen(msgspec.Struct, frozen=True, gc=False):
    """Where identifiers were seen: what a link record says of its origin."""

    rule: str
    message_id: str
    t: float


class Resolver:
    """Resolves identifiers to profiles in one world, founding, linking and merging as needed."""

    def __init__(self, world: World, secret: bytes, observer: Observer = UNOBSERVED) -> None:
        self._world = world
        self._observer = observer
        self._secret = secret

    def resolve(self, anonymous_id: str | None, user_id: str | None, seen: Seen) -> Profile | None:
        """Return the profile to change, None where no identifier identifies anybody."""
        if user_id is None:
            return None if anonymous_id is None else self._anonymous(anonymous_id, seen)
        if anonymous_id is None:
            return self._owned(identifier_of("user_id", user_id), seen)
        return self._both(anonymous_id, user_id, seen)

    def alias(self, previous_id: str, user_id: str, seen: Seen) -> Profile | None:
        """Link what was known as `previous_id` to a known user."""
        if previous_id == user_id:
            return self.resolve(None, user_id, seen)
        if self._world.identifiers.get(identifier_of("user_id", previous_id)) is not None:
            self._world.count("identity.merge_of_known_users_refused")
            return self.resolve(None, user_id, seen)
        return self._both(previous_id, user_id, seen)

    def attach(self, profile: Profile, identifier: str, seen: Seen) -> None:
        """Add an identifier that finds the profile but never merges two, such as an e-mail address."""
        if identifier in profile.identifiers:
            self._touch(profile, identifier, seen.t)
        elif self._world.identifiers.get(identifier) is None:
            self._link(profile, identifier, seen)

    def _anonymous(self, anonymous_id: str, seen: Seen) -> Profile:
        identifier = identifier_of("anonymous_id", anonymous_id)
        entry = self._world.identifiers.get(identifier)
        if entry is not None and is_shared(entry):
            return self._owned(shared_device_identifier(anonymous_id), seen)
        return self._of(entry, identifier, seen)

    def forget_owner(self, anonymous_id: str) -> None:
        """Note that a device is also that of somebody who was erased, so that it stays shared."""
        identifier = identifier_of("anonymous_id", anonymous_id)
        entry = self._world.identifiers.change(identifier)
        if entry is None:
            self._world.identifiers.put(identifier, Identifier("", [FORGOTTEN]))
        elif FORGOTTEN not in entry.owners:
            entry.owners.append(FORGOTTEN)

    def found_on(self, identifier: str, seen: Seen) -> Profile:
        """Return the profile that `identifier` names, a new one where it names none."""
        return self._owned(identifier, seen)

    def met(self, decision: LoggedDecision) -> Profile | None:
        """Return the profile of whom a decision was made for, where links were revoked since.

        Who was one person then may be two now: it is who is known by the ids that asked.
        """
        anonymous_id, user_id, founder = decision.anonymous_id, decision.user_id, decision.founded_on
        if anonymous_id is not None or user_id is not None:
            found = find(self._world, anonymous_id, user_id)
            if found is not None:
                return self._change(found.id)
            founder = founding_identifier(self._world, anonymous_id, user_id)
        elif decision.profile is not None and founder is None:
            return self._world.profiles.change(decision.profile)
        return None if founder is None else self.found_on(founder, Seen("decide", "", decision.t))

    def _owned(self, identifier: str, seen: Seen) -> Profile:
        return self._of(self._world.identifiers.get(identifier), identifier, seen)

    def _of(self, entry: Identifier | None, identifier: str, seen: Seen) -> Profile:
        """Return the profile that an identifier names by its entry, a new one where it names none."""
        if entry is None or not entry.profile:
            return self._found(identifier, seen)
        profile = self._change(entry.profile)
        self._touch(profile, identifier, seen.t)
        return profile

    def _both(self, anonymous_id: str, user_id: str, seen: Seen) -> Profile:
        world = self._world
        anonymous = identifier_of("anonymous_id", anonymous_id)
        user = identifier_of("user_id", user_id)
        if are_apart(world, anonymous_id, user_id):
            return self._owned(user, seen)
        device = world.identifiers.get(anonymous)
        owner = world.identifiers.get(user)
        # The first to sign in is whose device it is; whoever comes later never joins that profile.
        is_others = device is not None and bool(device.owners) and device.owners[0] != user
        if is_others:
            profile = self._owned(user, seen)
        elif owner is None:
            profile = self._add_user(device, anonymous, user, seen)
        else:
            profile = self._change(owner.profile)
            self._touch(profile, user, seen.t)
            if device is None:
                self._link(profile, anonymous, seen)
            elif device.profile != profile.id:
                profile = self._merge(profile, self._change(device.profile), anonymous, seen)
            else:
                self._touch(profile, anonymous, seen.t)
        self._own(anonymous, user)
        return profile

    def _add_user(self, device: Identifier | None, anonymous: str, user: str, seen: Seen) -> Profile:
        if device is None:
            profile = self._found(anonymous, seen)
        else:
            profile = self._change(device.profile)
            self._touch(profile, anonymous, seen.t)
        self._link(profile, user, seen)
        return profile

    def _own(self, anonymous: str, user: str) -> None:
        entry = self._world.identifiers.get(anonymous)
        if entry is not None and user not in entry.owners and len(entry.owners) < LINKS_MAX:
            changed = self._world.identifiers.change(anonymous)
            assert changed is not None, "it was there a moment ago"
            changed.owners.append(user)

    def _found(self, identifier: str, seen: Seen) -> Profile:
        profile = Profile(
            id=profile_id_of(self._secret, identifier),
            assignment_key=identifier,
            state=new_state(seen.t),
        )
        self._world.profiles.put(profile.id, profile)
        self._world.identifiers.put(identifier_of("profile", profile.id), Identifier(profile.id))
        self._link(profile, identifier, seen)
        return profile

    def _link(self, profile: Profile, identifier: str, seen: Seen, merged: str = "") -> None:
        if len(profile.identifiers) >= LINKS_MAX:
            self._world.count("identity.links_refused")
            return
        profile.links.append(Link(identifier, seen.rule, seen.message_id, seen.t, merged))
        if identifier not in profile.identifiers:
            profile.identifiers[identifier] = (seen.t, seen.t)
            self._observer.linked(identifier, profile.id)
            entry = self._world.identifiers.change(identifier)
            if entry is None:
                self._world.identifiers.put(identifier, Identifier(profile.id))
            else:
                entry.profile = profile.id

    def _touch(self, profile: Profile, identifier: str, t: float) -> None:
        first, last = profile.identifiers.get(identifier, (t, t))
        profile.identifiers[identifier] = (first if first < t else t, last if last > t else t)

    def _change(self, profile_id: str) -> Profile:
        profile = self._world.profiles.change(profile_id)
        assert profile is not None, f"an identifier names profile {profile_id}, which is not there"
        return profile

    def _merge(self, one: Profile, other: Profile, identifier: str, seen: Seen) -> Profile:
        """Make one person of two: the older one's id, holdout key and arm stay."""
        older, newer = sorted((one, other), key=lambda profile: (profile.founded, profile.id))
        if len(older.links) + len(newer.links) >= LINKS_MAX:
            self._world.count("identity.merges_refused")
            return one
        self._observer.merged(older.id, newer.id, [link.merged for link in newer.links if link.merged])
        self._merge_assignment(older, newer)
        merge_history(older, newer, self._world.features.counting)
        merge_membership(self._world, older, newer)
        older.links = sorted([*older.links, *newer.links], key=lambda link: link.t)
        older.links.append(Link(identifier, seen.rule, seen.message_id, seen.t, newer.id))
        for name, (first, last) in newer.identifiers.items():
            mine = older.identifiers.get(name, (first, last))
            older.identifiers[name] = (min(mine[0], first), max(mine[1], last))
        for name in [*newer.identifiers, identifier_of("profile", newer.id)]:
            entry = self._world.identifiers.change(name)
            assert entry is not None, f"{name} was a profile's identifier"
            entry.profile = older.id
        # Ids that came in with earlier merges go on leading here, too.
        for link in newer.links:
            if link.merged:
                gone = self._world.identifiers.change(identifier_of("profile", link.merged))
                if gone is not None:
                    gone.profile = older.id
        self._world.profiles.delete(newer.id)
        self._world.count("identity.merges")
        return older

    def _merge_assignment(self, older: Profile, newer: Profile) -> None:
        """Move the newer one's units to the older one's arms, and count visitors who had both."""
        had_both = False
        for key, theirs in newer.placements.items():
            mine = older.placements.setdefault(key, AtPlacement())
            for unit in (mine, theirs):
                if unit.arm:
                    for moments in moments_of(self._world, key, unit):
                        add_unit(moments.of(unit.arm), unit, -1)
            if theirs.arm and not mine.arm:
                mine.arm, mine.segments = self._arm_of(older, key), theirs.segments
            is_both = bool(theirs.arm) and mine.arm != theirs.arm
            had_both = had_both or is_both
            _merge_placement(mine, theirs)
            # Who was only ever decided for without consent has no arm, and is no unit.
            for moments in moments_of(self._world, key, mine):
                moments.merged_units += is_both
                if mine.arm:
                    add_unit(moments.of(mine.arm), mine)
        if had_both or newer.is_arm_merged:
            older.is_arm_merged = True
            self._world.count("identity.arm_merges")

    def _arm_of(self, profile: Profile, key: str) -> str:
        """Return the arm in which a profile begins at a placement."""
        is_held = holdout_position(self._secret, profile.assignment_key) < self._world.share_of(key)
        return "holdout" if is_held else "personalized"


def _merge_placement(mine: AtPlacement, theirs: AtPlacement) -> None:
    mine.decisions += theirs.decisions
    mine.exposures += theirs.exposures
    mine.outcomes += theirs.outcomes
    mine.outcomes_shown += theirs.outcomes_shown
    mine.value += theirs.value
    mine.open = sorted([*mine.open, *theirs.open], key=_offset_of)[-OPEN_DECISIONS_MAX:]
    mine.shown = sorted([*mine.shown, *theirs.shown])[-IMPRESSIONS_MAX:]
    if not mine.sticky_id:
        mine.sticky_id, mine.sticky_until = theirs.sticky_id, theirs.sticky_until
        mine.sticky_session, mine.sticky_request = theirs.sticky_session, theirs.sticky_request


def _offset_of(decision_id: str) -> int:
    return int(decision_id.split("-")[1], 36)
