"""Merging: what of two people stays when they turn out to be one.

The older one's id, holdout key and arm stay. Counters add up; of traits what was said last holds, of consent
the more restrictive. Two people whose arms differ are counted, because the readout mixed them.
"""

from tailorbird.features.state import LAST_SEEN, merged
from tailorbird.limits import GROUPS_MAX, HINTS_MAX, IMPRESSIONS_MAX, OPEN_DECISIONS_MAX, PURCHASES_MAX
from tailorbird.live.profiles import holdout_position
from tailorbird.live.world import ArmsMoments, World
from tailorbird.schema.profile import AtPlacement, Profile
from tailorbird.stats.moments import add_unit


def merge_assignment(world: World, secret: bytes, older: Profile, newer: Profile) -> None:
    """Move the newer one's units to the older one's arms, and count visitors who had both."""
    had_both = False
    for key, theirs in newer.placements.items():
        moments = world.moments.change(key)
        if moments is None:
            world.moments.put(key, moments := ArmsMoments())
        mine = older.placements.setdefault(key, AtPlacement())
        for unit in (mine, theirs):
            if unit.arm:
                add_unit(moments.of(unit.arm), unit, -1)
        if theirs.arm and not mine.arm:
            is_held = holdout_position(secret, older.assignment_key) < world.share_of(key)
            mine.arm = "holdout" if is_held else "personalized"
        if theirs.arm and mine.arm != theirs.arm:
            had_both = True
            moments.merged_units += 1
        _merge_placement(mine, theirs)
        # Who was only ever decided for without consent has no arm, and is no unit.
        if mine.arm:
            add_unit(moments.of(mine.arm), mine)
    if had_both or newer.is_arm_merged:
        older.is_arm_merged = True
        world.count("identity.arm_merges")


def merge_history(older: Profile, newer: Profile) -> None:
    """Give the older one what the newer one did and said."""
    is_newer_last = newer.state[LAST_SEEN] >= older.state[LAST_SEEN]
    # What was declared last holds; of consent, the more restrictive holds.
    first, last = (older, newer) if is_newer_last else (newer, older)
    older.traits = first.traits | last.traits
    older.consent = {
        purpose: older.consent.get(purpose, True) and newer.consent.get(purpose, True)
        for purpose in [
            *older.consent,
            *(name for name in newer.consent if name not in older.consent),
        ]
    }
    older.refusals = sorted({*older.refusals, *newer.refusals})
    older.gpc = older.gpc or newer.gpc
    older.groups = list(dict.fromkeys([*first.groups, *last.groups]))[-GROUPS_MAX:]
    older.hints = list(dict.fromkeys([*older.hints, *newer.hints]))[:HINTS_MAX]
    for rule, times in newer.refused.items():
        older.refused[rule] = older.refused.get(rule, 0) + times
    older.state = merged(older.state, newer.state)
    purchases = sorted({**older.purchases, **newer.purchases}.items(), key=lambda entry: entry[1])
    older.purchases = dict(purchases[-PURCHASES_MAX:])


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
