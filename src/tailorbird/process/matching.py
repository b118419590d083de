"""Matching: whether identifiers that came together may be one person's, by the rules in force.

Flat matching, as Segment Unify has it: the profiles that an event's identifiers name become one, unless that
breaks a rule; then the identifier that comes last in the order of the rules is left out, and the rest is
tried again. A rule that was broken before (because it was changed since) stops nothing but what would make
it worse.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from tailorbird.live.identifiers import Rules, is_segment_type, kind_of
from tailorbird.live.profiles import user_of
from tailorbird.schema.profile import Profile


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """An identifier of an event, and whose it is so far."""

    name: str
    profile: str = ""
    """Id of the profile that it names; empty where it names none."""
    owner: str = ""
    """The known user who first signed in on it, of a device."""


class Matching:
    """Looks for rules that the identifiers of one event would break; what it counts, it counts once."""

    def __init__(self, rules: Rules, t: float) -> None:
        """Match what came together at `t`, by the rules in force."""
        self._rules = rules
        self._t = t
        self._counts: dict[str, Counter[str]] = {}

    def broken(self, candidates: Sequence[Candidate], profiles: Sequence[Profile]) -> str | None:
        """Return the rule that these candidates would break as one person, None where they keep all.

        `profiles` are those that the candidates name, each once.
        """
        fresh = [each.name for each in candidates if not each.profile]
        if len(candidates) < 2 or (len(profiles) < 2 and not fresh):  # noqa: PLR2004 (nothing comes together)
            return None
        return (
            self._broken_by_type(candidates)
            or self._broken_by_owner(candidates, profiles)
            or self._broken_cap(profiles, len(fresh))
            or self._broken_limit(profiles, fresh)
        )

    def _broken_by_type(self, candidates: Sequence[Candidate]) -> str | None:
        """Return the rule that an identifier would break which merges nobody."""
        rules = self._rules
        met: set[str] = set()
        for each in candidates:  # Those that merge nobody come last.
            kind = kind_of(each.name)
            if met and each.profile not in {"", *met} and not rules.of(kind).is_merging:
                return f"merging.{rules.label(kind)}"
            met.add(each.profile)  # Of all that name nobody yet, the one that would be founded.
        return None

    def _broken_by_owner(self, candidates: Sequence[Candidate], profiles: Sequence[Profile]) -> str | None:
        """Return the rule that a device would break which is somebody else's."""
        owners = {each.owner for each in candidates if each.owner}
        if not owners:
            return None
        users = {each.name for each in candidates if each.name.startswith("user_id:")}
        users |= {user for profile in profiles if (user := user_of(profile)) is not None}
        return "owner" if len(users | owners) > 1 else None

    def _broken_cap(self, profiles: Sequence[Profile], fresh_count: int) -> str | None:
        stated = self._rules.stated
        merges = len(profiles) - 1
        if merges > 0 and sum(map(_merges, profiles)) + merges > stated.merges_max:
            return "merges_max"
        links = sum(len(profile.links) for profile in profiles) + fresh_count + max(merges, 0)
        count = sum(len(profile.identifiers) for profile in profiles) + fresh_count
        if count > stated.mappings_max or links > stated.mappings_max + stated.merges_max:
            return "mappings_max"
        return None

    def _broken_limit(self, profiles: Sequence[Profile], fresh: Iterable[str]) -> str | None:
        """Return the first type of which one person would have more than is allowed."""
        added = _counted(fresh)
        counts = list(map(self._count, profiles))
        # A merge may break the limit of any type, an addition that of what is added.
        affected = added if len(profiles) < 2 else sum(counts, added)  # noqa: PLR2004
        for kind in sorted(affected):
            rules = self._rules.of(kind)
            before = [count[kind] for count in counts]
            after = sum(before) + added[kind]
            limit = rules.limit if rules.limit_ever is None else rules.limit_ever
            if after > limit and rules.window_seconds is not None and not rules.is_unique:
                before, after = self._within(rules.window_seconds, kind, profiles, added[kind])
            if after > limit and after > max(before, default=0):
                return f"{'unique' if rules.is_unique else 'limit'}.{self._rules.label(kind)}"
        return None

    def _within(
        self, window: float, kind: str, profiles: Sequence[Profile], added: int
    ) -> tuple[list[int], int]:
        """Return how many of a type each profile has within any one window, and how many all have as one."""
        times = [_times(profile, kind) for profile in profiles]
        together = [*itertools.chain(*times), *([self._t] * added)]
        return [_most(part, window) for part in times], _most(together, window)

    def _count(self, profile: Profile) -> Counter[str]:
        """Return how many identifiers of each type a profile has."""
        found = self._counts.get(profile.id)
        if found is None:
            found = self._counts[profile.id] = _counted(profile.identifiers)
        return found


def _merges(profile: Profile) -> int:
    """Return how many profiles were merged into one, less what was taken over from shared devices."""
    return sum(bool(link.merged) and not is_segment_type(kind_of(link.identifier)) for link in profile.links)


def _counted(names: Iterable[str]) -> Counter[str]:
    """Return how many identifiers there are of each type; what shared devices did signed out is of one."""
    counts = Counter([name.partition(":")[0] for name in names])
    for kind in [kind for kind in counts if kind != "device" and is_segment_type(kind)]:
        counts["device"] += counts.pop(kind)
    return counts


def _times(profile: Profile, kind: str) -> list[float]:
    """Return when each identifier of a type was linked."""
    prefix = f"{kind}:"
    return [link.t for link in profile.links if not link.merged and link.identifier.startswith(prefix)]


def _most(times: list[float], window: float) -> int:
    """Return the most of `times` that lie within any one window, its end not included."""
    times.sort()
    first = most = 0
    for last, t in enumerate(times):
        while t - times[first] >= window:
            first += 1
        most = max(most, last + 1 - first)
    return most
