"""Merging at placements: what of two visitors' arms and histories stays when they turn out to be one.

The older one's holdout key and arm stay. Two people whose arms differ are counted, because the readout mixed
them. What they did and said is merged in `live.merging`.
"""

from tailorbird.limits import IMPRESSIONS_MAX, OPEN_DECISIONS_MAX
from tailorbird.live.profiles import holdout_position
from tailorbird.live.world import World
from tailorbird.process.units import moments_of
from tailorbird.schema.profile import AtPlacement, Profile
from tailorbird.stats.moments import add_unit


def merge_assignment(world: World, secret: bytes, older: Profile, newer: Profile) -> None:
    """Move the newer one's units to the older one's arms, and count visitors who had both."""
    had_both = False
    for key, theirs in newer.placements.items():
        mine = older.placements.setdefault(key, AtPlacement())
        for unit in (mine, theirs):
            if unit.arm:
                for moments in moments_of(world, key, unit):
                    add_unit(moments.of(unit.arm), unit, -1)
        if theirs.arm and not mine.arm:
            is_held = holdout_position(secret, older.assignment_key) < world.share_of(key)
            mine.arm, mine.segments = "holdout" if is_held else "personalized", theirs.segments
        is_both = bool(theirs.arm) and mine.arm != theirs.arm
        had_both = had_both or is_both
        _merge_placement(mine, theirs)
        # Who was only ever decided for without consent has no arm, and is no unit.
        for moments in moments_of(world, key, mine):
            moments.merged_units += is_both
            if mine.arm:
                add_unit(moments.of(mine.arm), mine)
    if had_both or newer.is_arm_merged:
        older.is_arm_merged = True
        world.count("identity.arm_merges")


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
