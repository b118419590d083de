"""Membership: who is in which rule segment, evaluated on each event of a person, and who came and went.

What changes is kept in the profile, counted in the segment's size, and noted as not announced yet. The
engine announces it by a `SegmentChanged` record in the same turn; folding that takes the note away. A crash
between the two leaves the note, and the next start announces it: each change once.

Evaluation never goes back in time: an event that comes late is evaluated as of the latest that is known of
the person, so that they are in the same segments as had it come in order.
"""

from collections.abc import Iterable
from typing import NamedTuple

from tailorbird.limits import SEGMENT_CHANGES_MAX
from tailorbird.live.facts import Touched, evaluated, last_known, places_after_event, places_at
from tailorbird.live.world import World
from tailorbird.schema.profile import Passage, Profile
from tailorbird.schema.segment import SegmentChanged


class Reason(NamedTuple):
    """The record that made a difference: its log offset, when it came, and its event's id if it is one."""

    offset: int
    received: float
    message_id: str = ""


class Membership:
    """Keeps the segments of the people of one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def event(self, profile: Profile, reason: Reason, touched: Touched) -> None:
        """Evaluate what an event may have changed."""
        t = last_known(profile)
        self._evaluate(profile, reason, t, places_after_event(self._world, profile, t, touched))

    def changed(self, profile: Profile, reason: Reason) -> None:
        """Evaluate all segments of a person whom something other than an event has changed."""
        if self._world.segments.declared:
            profile.is_segments_due = True
            self._evaluate(profile, reason, last_known(profile), self._world.segments.index.all)

    def seen_to_change(self, offset: int, record: SegmentChanged) -> None:
        """Evaluate a person of whom a pass over everybody found that they came or went without an event."""
        profile = self._world.profiles.change(record.profile)
        if profile is None:
            return
        t = max(last_known(profile), record.t)
        reason = Reason(offset, record.r)
        told = (record.segment, record.change)
        self._evaluate(profile, reason, t, places_at(self._world, profile, t), told)
        profile.version = offset

    def _evaluate(
        self,
        profile: Profile,
        reason: Reason,
        t: float,
        places: Iterable[int],
        told: tuple[str, str] = ("", ""),
    ) -> None:
        """Bring a person's segments to `t`; `told` is the change that its record announces itself."""
        segments = self._world.segments
        found = evaluated(self._world, profile, t, places)
        if found.failures:
            self._world.count("segments.rule_failed", found.failures)
        if profile.segments_version != segments.version:
            profile.segments = segments.held(profile)
            profile.segments_version = segments.version
        profile.segments_t = t
        profile.is_segments_due = False
        for key, is_in in found.changes:
            if is_in:
                profile.segments[key] = t
            else:
                del profile.segments[key]
            segments.count(key, 1 if is_in else -1)
            profile.passages.append(Passage(key, is_in, t, reason.message_id))
            change = _change(profile, key, is_in=is_in, t=t, reason=reason)
            if (key, change.change) != told:
                segments.note(change)
        if len(profile.passages) > SEGMENT_CHANGES_MAX:
            del profile.passages[:-SEGMENT_CHANGES_MAX]


def _change(profile: Profile, key: str, *, is_in: bool, t: float, reason: Reason) -> SegmentChanged:
    return SegmentChanged(
        reason.received,
        t,
        profile.id,
        key,
        "entered" if is_in else "left",
        reason.message_id,
        reason.offset,
    )


def merge_membership(world: World, older: Profile, newer: Profile) -> None:
    """Hand over to one person what two were; who is in what is evaluated with the event that joined them.

    The older one's segments stay until then; the newer one leaves theirs, for there is nobody any more.
    """
    if not (older.segments or newer.segments or older.passages or newer.passages):
        return
    for key in world.segments.held(newer):
        world.segments.count(key, -1)
    older.is_segments_due = True
    older.segments_t = max(older.segments_t, newer.segments_t)
    passages = sorted([*older.passages, *newer.passages], key=lambda passage: passage.t)
    older.passages = passages[-SEGMENT_CHANGES_MAX:]
