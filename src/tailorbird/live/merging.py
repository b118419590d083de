"""What of two people's behaviour stays when they turn out to be one: shared by the fold and by history."""

from tailorbird.features.program import Program
from tailorbird.features.state import LAST_SEEN, merged
from tailorbird.limits import GROUPS_MAX, HINTS_MAX, PURCHASES_MAX
from tailorbird.schema.profile import Profile


def merge_history(older: Profile, newer: Profile, program: Program) -> None:
    """Give the older one what the newer one did and said: counters add up, what was said last holds."""
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
    last_seen = older.state.item(LAST_SEEN)
    program.merge_sketches(older, newer, last_seen)
    program.follow_traits(older, last_seen)
    older.computed = newer.computed | older.computed
