"""Affinity: which category a visitor is drawn to most.

All categories decay at the same rate (half-life 30 d), so their order changes only when one of them is
counted. The leader is therefore kept as events come, at the cost of one comparison, instead of being
sought among all categories on every decision, which took 40 µs.
"""

from tailorbird.schema.profile import Counters, Profile

HALF_LIFE_SECONDS = 30 * 86400.0
_COLUMN = 4  # The 30-day decayed count in a counter's row: see `features.counters`.


def observe(profile: Profile, category: str) -> None:
    """Note that `category` was just counted; ties go to the name that sorts first."""
    leader = profile.primary_interest
    if leader == category:
        return
    if leader is None or is_stronger(profile.counters, category, leader):
        profile.primary_interest = category


def settle(profile: Profile) -> None:
    """Find the leader among all categories, after two people became one."""
    profile.primary_interest = None
    for key in profile.counters.keys:
        if key.startswith("c:"):
            observe(profile, key[2:])


def is_stronger(counters: Counters, one: str, other: str) -> bool:
    """Return whether `one` leads `other`, compared at the same moment."""
    mine, theirs = counters.keys.get(f"c:{one}"), counters.keys.get(f"c:{other}")
    if mine is None or theirs is None:
        return theirs is None
    rows, last = counters.rows, counters.last
    lag = (last.item(mine) - last.item(theirs)) / HALF_LIFE_SECONDS
    weight, against = rows.item(mine, _COLUMN), rows.item(theirs, _COLUMN)
    # Both are brought to the later of the two times, so that no power overflows.
    if lag >= 0.0:
        against *= 2.0**-lag
    else:
        weight *= 2.0**lag
    return weight > against or (weight == against and one < other)
