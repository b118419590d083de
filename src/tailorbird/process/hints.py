"""Fingerprints: hints that two people may be one. They suggest links with a score, and never join anybody.

Read only of people who allowed the purpose `fingerprinting`, by name; when they take that back, or send a
Global Privacy Control signal, what was kept of them goes. Kept are keyed hashes. With n people of one
fingerprint the score of each pair is 1/n: what a guess among them would be right. Beyond `HINTS_MAX` a
fingerprint tells nothing.
"""

from tailorbird.hashing import token
from tailorbird.limits import HINTS_MAX
from tailorbird.live.identifiers import fingerprints_in
from tailorbird.live.revocations import pair_of
from tailorbird.live.suggestions import Suggestion
from tailorbird.live.world import World
from tailorbird.schema.events import Event
from tailorbird.schema.profile import Profile, identifier_of

PURPOSE = "fingerprinting"
SOURCE = "fingerprint"


class Hints:
    """Keeps fingerprints in one world, and suggests links where people share one."""

    def __init__(self, world: World, secret: bytes) -> None:
        self._world = world
        self._secret = secret

    def take(self, profile: Profile, event: Event, t: float) -> None:
        """Read an event's fingerprints, where the person allows it; else forget those of before."""
        if profile.gpc or profile.consent.get(PURPOSE) is not True:
            self.forget(profile)
            return
        for fingerprint in fingerprints_in(event):
            self._note(profile, token(self._secret, SOURCE, fingerprint), t)

    def forget(self, profile: Profile) -> None:
        """Keep no fingerprint of a person any longer."""
        for key in profile.hints:
            ids = self._world.hints.get(key) or []
            self._world.hints.put(key, [each for each in ids if self._id_of(each) != profile.id])
        profile.hints = []

    def _note(self, profile: Profile, key: str, t: float) -> None:
        if key in profile.hints:
            return
        ids = self._world.hints.get(key) or []
        if len(profile.hints) >= HINTS_MAX or len(ids) >= HINTS_MAX:
            self._world.count("identity.hints_refused")
            return
        others = dict.fromkeys(now for each in ids if (now := self._id_of(each)) not in (None, profile.id))
        profile.hints.append(key)
        self._world.hints.put(key, [*ids, profile.id])
        for other in others:
            self._suggest(profile, other, 1.0 / (len(others) + 1), t)

    def _suggest(self, profile: Profile, other: str | None, score: float, t: float) -> None:
        found = None if other is None else self._world.profiles.get(other)
        if found is None:
            return
        pair = pair_of(found.assignment_key, profile.assignment_key)
        if not self._world.suggestions.suggest(pair, Suggestion(SOURCE, score, t)):
            self._world.count("identity.suggestions_refused")

    def _id_of(self, profile_id: str) -> str | None:
        """Return the id of whoever a profile became by merges."""
        entry = self._world.identifiers.get(identifier_of("profile", profile_id))
        return None if entry is None else entry.profile
