"""The visitor of one request: who it is, what may be known of them, and what rules see."""

from typing import Any

from tailorbird.live.facts import profile_facts
from tailorbird.live.profiles import (
    find,
    founding,
    holdout_position,
    is_suppressed,
)
from tailorbird.live.variables import refusals, refuses, stranger
from tailorbird.live.world import World
from tailorbird.rules.cel import Expression, context_of
from tailorbird.schema.decision import PlacementRequest, VisitorRef
from tailorbird.schema.placement import Placement
from tailorbird.schema.profile import Profile


class Request:
    """One request to decide, as every door builds it."""

    __slots__ = (
        "at",
        "context",
        "deadline_ms",
        "gpc",
        "placements",
        "sticky_seconds_min",
        "visitor",
    )

    def __init__(
        self,
        visitor: VisitorRef,
        placements: list[PlacementRequest],
        context: dict[str, Any] | None = None,
        at: float | None = None,
        deadline_ms: float = 50.0,
    ) -> None:
        self.visitor = visitor
        self.placements = placements
        self.context = context or {}
        self.at = at
        self.deadline_ms = deadline_ms
        self.gpc = False
        self.sticky_seconds_min = 0.0


class Visitor:
    """Who asks. `profile` is None for a visitor of whom nothing is known yet."""

    __slots__ = (
        "_cel",
        "_world",
        "anonymous_id",
        "context",
        "founded_on",
        "gpc",
        "position",
        "profile",
        "profile_id",
        "t",
        "user_id",
    )

    def __init__(self, world: World, secret: bytes, request: Request, t: float) -> None:
        anonymous_id = world.identity.known("anonymous_id", request.visitor.anonymous_id)
        user_id = world.identity.known("user_id", request.visitor.user_id)
        # Whoever was erased is met as a stranger without a name, not founded again.
        if world.suppressed:
            if is_suppressed(world, secret, "anonymous_id", anonymous_id):
                anonymous_id = None
            if is_suppressed(world, secret, "user_id", user_id):
                user_id = anonymous_id = None
        self._world = world
        self.anonymous_id, self.user_id = anonymous_id, user_id
        self.t = t
        self.context = request.context
        self.gpc = request.gpc
        self.profile = find(world, anonymous_id, user_id, t)
        self.founded_on: str | None = None
        self.profile_id: str | None = None
        key = None
        if self.profile is not None:
            self.profile_id, key = self.profile.id, self.profile.assignment_key
        else:
            founded = founding(world, secret, (anonymous_id, user_id), t)
            if founded is not None:
                key, self.profile_id = founded
                self.founded_on = key
        self.position = None if key is None else holdout_position(secret, key)
        self._cel: Any = None

    def has_refused(self, purpose: str, *, gpc_opts_out: bool) -> bool:
        """Return whether the visitor does not want this purpose served."""
        if self.gpc and gpc_opts_out:
            return True
        return _refuses(self.context, purpose) or refuses(self.profile, purpose, gpc_opts_out=gpc_opts_out)

    def facts_beside_item(self, rule: Expression) -> dict[str, Any]:
        """Return what a rule about an item sees beside it; a stranger's `profile` is empty."""
        facts: dict[str, Any] = {"context": self._surroundings(), "now": self.t}
        if "profile" in rule.variables:
            facts["profile"] = profile_facts(self._world, self._person(), rule.fields("profile"), self.t)
        return facts

    def _person(self) -> Profile:
        """Return the profile, of a stranger what is presumed of whom the request comes from."""
        return self.profile or stranger(self._world, self.t, self.context)

    def _surroundings(self) -> dict[str, Any]:
        """Return what rules may read of the request's context."""
        world = self._world
        return world.features.reading.sensitive.readable(self.context, refusals(world, self.profile))

    def facts(self, fields: frozenset[str] | None, *, has_context: bool) -> Any:  # noqa: ANN401
        """Return the prepared context for rules, built once a request from what rules read."""
        if self._cel is None:
            values: dict[str, Any] = {"now": self.t}
            if has_context:
                values["context"] = self._surroundings()
            if fields is None or fields:
                values["profile"] = profile_facts(self._world, self._person(), fields, self.t)
            self._cel = context_of(values)
        return self._cel


def _refuses(context: dict[str, Any], purpose: str) -> bool:
    """Return whether the request's own consent says no to `purpose`."""
    consent = context.get("consent")
    preferences = consent.get("categoryPreferences") if isinstance(consent, dict) else None
    if not isinstance(preferences, dict):
        return False
    return any(str(name).lower() == purpose and given is False for name, given in preferences.items())


def over_cap(visitor: Visitor, placement: Placement) -> set[str]:
    """Return the choices that the visitor has had as often as the placement's frequency cap allows."""
    cap = placement.constraints.frequency_cap
    at = None if visitor.profile is None else visitor.profile.placements.get(placement.key)
    if cap is None or at is None:
        return set()
    times: dict[str, int] = {}
    for t, choice in at.shown:
        if visitor.t - cap.window_seconds < t <= visitor.t:
            times[choice] = times.get(choice, 0) + 1
    return {choice for choice, count in times.items() if count >= cap.count}
