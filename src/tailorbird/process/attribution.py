"""Attribution: which decision an exposure or an outcome belongs to, and what it teaches.

An exposure or outcome that names a `decisionId` belongs to that decision. One that does not is joined by
visitor, placement and window: to the newest decision that was shown and whose window holds the event's
time, else to the newest that may still turn out to have been shown. Each decision is exposed once and
rewarded once, however often and in whatever order that is reported; what comes late still counts, to
the policy and to the readout, as long as the event's own time lies in the window.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from tailorbird.features.view import session_at
from tailorbird.limits import IMPRESSIONS_MAX, OPEN_DECISIONS_MAX, RECENT_DECISIONS_MAX
from tailorbird.live.decision_ids import offset_of
from tailorbird.live.facts import members_at
from tailorbird.live.profiles import holdout_position
from tailorbird.live.world import ALL_PLACEMENTS, World
from tailorbird.policies.base import PolicyState, decided, exposed, rewarded
from tailorbird.process.observer import UNOBSERVED, Observer
from tailorbird.process.units import moments_of
from tailorbird.rules.cel import Expression, RuleError, compile_expression
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.outcome import Mark
from tailorbird.schema.placement import Goal, Placement
from tailorbird.schema.profile import AtPlacement, Profile, identifier_of
from tailorbird.stats.moments import (
    UnitMoments,
    UnitTotals,
    add_unit,
    count_decision,
    count_exposure,
    count_outcome,
)

GOAL_VARIABLES = frozenset({"properties", "event"})


class Attribution:
    """Joins exposures and outcomes to the decisions of one world.

    `find_decision` gives the logged decision at an offset: a decision needs no account of its own
    until something becomes of it.
    """

    def __init__(
        self,
        world: World,
        secret: bytes,
        find_decision: Callable[[int], LoggedDecision | None],
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._world = world
        self._observer = observer
        self._secret = secret
        self._find_decision = find_decision
        self._recent: dict[str, LoggedDecision] = {}
        self._order: deque[str] = deque()
        self._values: dict[str, Expression | None] = {}
        self._version = -1

    def decision_made(self, key: str, decision: LoggedDecision, profile: Profile | None) -> None:
        """Count a decision, and open it for what may become of it."""
        self._remember(key, decision)
        if decision.is_learned and decision.arm is not None:
            decided(self._policy(decision.placement), decision.arm)
        if profile is None:
            return
        at = self._at(profile, decision.placement, decision.holdout, decision.t)
        placement = self._world.placements.get(decision.placement)
        window = placement.goal.window_seconds if placement and placement.goal else 0.0
        at.open.append(key)
        if len(at.open) > OPEN_DECISIONS_MAX or len(at.open) % 8 == 0:
            at.open = self._still_open(at.open, decision.t - window)
        if placement is not None and placement.constraints.frequency_cap is not None:
            at.shown += [(decision.t, choice.id) for choice in decision.choices]
            at.shown = at.shown[-IMPRESSIONS_MAX:]
        if decision.sticky_until > decision.t:
            at.sticky_id, at.sticky_until = key, decision.sticky_until
            at.sticky_session = session_at(profile.state, decision.t)
            at.sticky_request = decision.request
        if at.arm:
            self._count(decision.placement, at, count_decision)
            self._count_in_total(profile, decision.placement, decision.t, count_decision)

    def exposure(self, key: str, t: float) -> bool:
        """Count that a decision was shown; return whether that was new."""
        mark = self._change(key)
        if mark is None:
            self._world.count("attribution.unknown_decision")
            return False
        if mark.exposed_at is not None:
            mark.exposed_at = min(mark.exposed_at, t)
            return False
        mark.exposed_at = t
        self._observer.exposed(key, mark.placement, self._whose(mark), t)
        is_rewarded = mark.rewarded_at is not None
        if mark.is_learned and mark.arm is not None:
            exposed(self._policy(mark.placement), mark.arm, is_rewarded=is_rewarded)
        self._count_unit(mark, lambda moments, at: count_exposure(moments, at, is_rewarded=is_rewarded))
        return True

    def exposure_by_window(self, profile: Profile, placement: str, arm: str | None, t: float) -> bool:
        """Count that the visitor was shown the newest decision of `placement`, drawn to `arm` where named."""
        for key, mark in self._newest_first(profile, placement):
            if mark.t <= t and mark.exposed_at is None and arm in (None, mark.arm, *mark.items):
                return self.exposure(key, t)
        return False

    def outcome(self, key: str, goal: str, t: float, value: float) -> str:
        """Count that a decision's goal was reached; return what became of it, in one word."""
        mark = self._read(key)
        placement = None if mark is None else self._world.placements.get(mark.placement)
        if mark is None or placement is None or placement.goal is None:
            self._world.count("attribution.unknown_decision")
            return "unknown"
        if goal != placement.goal.event:
            return "other_goal"
        if not mark.t <= t <= mark.t + placement.goal.window_seconds:
            self._world.count("attribution.outside_window")
            return "outside_window"
        if mark.rewarded_at is not None:
            self._world.count("attribution.repeated_outcome")
            return "repeated"
        self._reward(key, t, value)
        return "counted"

    def event(self, profile: Profile | None, name: str, t: float, facts: "Facts") -> None:
        """Count an event towards every goal that it reaches."""
        for placement_key in self._world.goals.get(name, ()):
            placement = self._world.placements[placement_key]
            goal = placement.goal
            assert goal is not None, "only placements with a goal are listed"
            key = self._target(profile, placement, t, facts)
            if key is not None:
                self._reward(key, t, self._value(placement, goal, name, facts.properties))

    def _target(self, profile: Profile | None, placement: Placement, t: float, facts: "Facts") -> str | None:
        goal = placement.goal
        assert goal is not None, "the caller has one"
        if facts.decision_id is not None:
            mark = self._read(facts.decision_id)
            if mark is None or mark.placement != placement.key or not _is_open(mark, goal, t):
                return None
            return facts.decision_id
        if profile is None:
            return None
        waiting = None
        for key, mark in self._newest_first(profile, placement.key):
            if not _is_open(mark, goal, t):
                continue
            if goal.match == "item" and not facts.items.intersection(mark.items):
                continue
            if mark.exposed_at is not None:
                return key
            waiting = waiting or key
        return waiting

    def _reward(self, key: str, t: float, value: float) -> None:
        mark = self._change(key)
        assert mark is not None, "it was read a moment ago"
        mark.rewarded_at, mark.value = t, value
        self._observer.rewarded(key, mark.placement, self._whose(mark), (t, value))
        is_exposed = mark.exposed_at is not None
        if mark.is_learned and mark.arm is not None:
            rewarded(self._policy(mark.placement), mark.arm, is_exposed=is_exposed, value=value)
        self._count_unit(mark, lambda moments, at: count_outcome(moments, at, value, is_shown=is_exposed))

    # --- the units of the readout -------------------------------------------------------------------

    def _at(self, profile: Profile, placement: str, arm: str, t: float) -> AtPlacement:
        """Return the visitor's history at a placement, begun in `arm` at `t`: a unit of it from now on."""
        at = profile.placements.get(placement)
        if at is None:
            at = profile.placements[placement] = AtPlacement()
        if not at.arm and arm != "none":
            at.arm = arm
            at.segments = list(members_at(self._world, profile, t))
            for moments in self._all_moments(placement, at):
                add_unit(moments, at)
        return at

    def _whose(self, mark: Mark) -> str | None:
        """Return the id of the profile that a decision belongs to by now."""
        if mark.profile is None:
            return None
        entry = self._world.identifiers.get(identifier_of("profile", mark.profile))
        return None if entry is None else entry.profile

    def _count_unit(self, mark: Mark, count: Callable[[Any, Any], None]) -> None:
        owner = self._whose(mark)
        profile = None if owner is None else self._world.profiles.change(owner)
        at = None if profile is None else profile.placements.get(mark.placement)
        if profile is None or at is None or not at.arm:
            return
        self._count(mark.placement, at, count)
        self._count_in_total(profile, mark.placement, mark.t, count)

    def _count(self, placement: str, at: AtPlacement, count: Callable[[Any, Any], None]) -> None:
        """Count in a unit and in all moments that hold it."""
        *others, own = self._all_moments(placement, at)
        for moments in others:
            # Counting changes the unit, too: those of segments get one as it was.
            before = (at.decisions, at.exposures, at.outcomes, at.value, at.outcomes_shown)
            count(moments, UnitTotals(*before))
        count(own, at)

    def _count_in_total(
        self, profile: Profile, key: str, t: float, count: Callable[[Any, Any], None]
    ) -> None:
        """Count in the readout over all placements; those with a holdout share of their own stay out."""
        share = self._world.holdout_share
        if self._world.share_of(key) != share:
            return
        total = profile.placements.get(ALL_PLACEMENTS)
        if total is None or not total.arm:
            is_held = holdout_position(self._secret, profile.assignment_key) < share
            total = self._at(profile, ALL_PLACEMENTS, "holdout" if is_held else "personalized", t)
        self._count(ALL_PLACEMENTS, total, count)

    def _all_moments(self, placement: str, at: AtPlacement) -> list[UnitMoments]:
        """Return the moments that hold a unit: of each of its segments, and last the placement's."""
        return [moments.of(at.arm) for moments in moments_of(self._world, placement, at)]

    def _policy(self, placement: str) -> PolicyState:
        state = self._world.policies.change(placement)
        if state is None:
            state = PolicyState(arms={})
            self._world.policies.put(placement, state)
        return state

    # --- marks --------------------------------------------------------------------------------------

    def _remember(self, key: str, decision: LoggedDecision) -> None:
        """Keep a decision at hand, for most reports come soon; its mark is made when one does."""
        if len(self._order) >= RECENT_DECISIONS_MAX:
            # One at a time: to let go of half of them at once held every request up for 10 ms.
            self._recent.pop(self._order.popleft(), None)
        self._recent[key] = decision
        self._order.append(key)

    def _read(self, key: str) -> Mark | None:
        mark = self._world.marks.get(key)
        if mark is not None:
            return mark
        decision = self._recent.get(key)
        if decision is None:
            offset = offset_of(self._secret, key)
            decision = None if offset is None else self._find_decision(offset)
        if decision is None:
            return None
        mark = mark_of(decision)
        self._world.marks.keep(key, mark)
        return mark

    def _change(self, key: str) -> Mark | None:
        if self._read(key) is None:
            return None
        mark: Mark | None = self._world.marks.change(key)
        return mark

    def _newest_first(self, profile: Profile, placement: str) -> Iterator[tuple[str, Mark]]:
        at = profile.placements.get(placement)
        for key in reversed(at.open if at is not None else []):
            mark = self._read(key)
            if mark is not None:
                yield key, mark

    def _still_open(self, keys: list[str], since: float) -> list[str]:
        """Leave out decisions whose window ended before `since`, and those with nothing left to come."""
        kept = []
        for key in keys[-OPEN_DECISIONS_MAX:]:
            mark = self._read(key)
            is_settled = mark is None or (mark.rewarded_at is not None and mark.exposed_at is not None)
            if mark is not None and not is_settled and mark.t >= since:
                kept.append(key)
        return kept

    # --- goals --------------------------------------------------------------------------------------

    def _value(self, placement: Placement, goal: Goal, name: str, properties: dict[str, Any]) -> float:
        if goal.value is None:
            return 1.0
        if self._version != self._world.placements_version:
            self._values, self._version = {}, self._world.placements_version
        if placement.key not in self._values:
            self._values[placement.key] = compile_expression(goal.value, "goal.value", GOAL_VARIABLES)
        expression = self._values[placement.key]
        assert expression is not None, "it was compiled just now"
        try:
            value = float(expression.evaluate({"properties": properties, "event": name}))
        except (RuleError, TypeError, ValueError):
            self._world.count("attribution.value_failed")
            return 0.0
        return value if abs(value) < 1e12 else 0.0  # noqa: PLR2004 (a sum of such values stays finite)


class Facts:
    """What an event says that attribution asks for."""

    __slots__ = ("decision_id", "items", "properties")

    def __init__(self, properties: dict[str, Any], items: set[str]) -> None:
        named = properties.get("decisionId") or properties.get("decision_id")
        self.properties = properties
        self.items = items
        self.decision_id = named if isinstance(named, str) else None


def _is_open(mark: Mark, goal: Goal, t: float) -> bool:
    return mark.rewarded_at is None and mark.t <= t <= mark.t + goal.window_seconds


def mark_of(decision: LoggedDecision) -> Mark:
    """Return the account of a decision of which nothing is reported yet."""
    return Mark(
        placement=decision.placement,
        arm=decision.arm,
        holdout=decision.holdout,
        profile=decision.profile,
        t=decision.t,
        is_learned=decision.is_learned,
        items=[choice.id for choice in decision.choices],
    )
