"""The visitor of one request: who it is, what may be known of them, and what rules see."""

from collections.abc import Callable
from typing import Any

from tailorbird.features.state import new_state, recents
from tailorbird.features.view import common_features, feature, features
from tailorbird.live.profiles import (
    find,
    founding,
    holdout_position,
    is_suppressed,
    primary_interest,
)
from tailorbird.live.world import World
from tailorbird.rules.cel import Expression, context_of
from tailorbird.schema.decision import PlacementRequest, VisitorRef
from tailorbird.schema.placement import Placement
from tailorbird.schema.profile import Profile

_NOBODY = Profile(id="", assignment_key="", state=new_state(0.0))


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
        profile = self.profile
        if profile is None:
            return _refuses(self.context, purpose)
        if profile.consent.get(purpose, True) is False or _refuses(self.context, purpose):
            return True
        # A signal given in this browser holds until the person says otherwise by name.
        return profile.gpc and gpc_opts_out and purpose not in profile.consent

    def facts_beside_item(self, rule: Expression) -> dict[str, Any]:
        """Return what a rule about an item sees beside it; a stranger's `profile` is empty."""
        facts: dict[str, Any] = {"context": self.context, "now": self.t}
        if "profile" in rule.variables:
            facts["profile"] = profile_facts(
                self._world, self.profile or _NOBODY, rule.fields("profile"), self.t
            )
        return facts

    def facts(self, fields: frozenset[str] | None, *, has_context: bool) -> Any:  # noqa: ANN401
        """Return the prepared context for rules, built once a request from what rules read."""
        if self._cel is None:
            values: dict[str, Any] = {"now": self.t}
            if has_context:
                values["context"] = self.context
            if fields is None or fields:
                values["profile"] = profile_facts(self._world, self.profile or _NOBODY, fields, self.t)
            self._cel = context_of(values)
        return self._cel


def profile_facts(world: World, profile: Profile, fields: frozenset[str] | None, t: float) -> dict[str, Any]:
    """Return what rules see as `profile`: traits, features by name, and the fixed lists.

    With `fields` only those, which costs a microsecond a field; None gives everything.
    """
    vocabulary = world.vocabulary
    if fields is None:
        fixed = {name: read(world, profile) for name, read in _FIXED.items()}
        counted = common_features(profile.state, vocabulary, t) | features(profile.state, vocabulary, t)
        return {**profile.traits, **counted, **fixed}
    facts = {}
    for name in fields:
        if name in _FIXED:
            facts[name] = _FIXED[name](world, profile)
            continue
        # What was counted goes before what was declared: anybody can declare a trait.
        value: object = feature(profile.state, vocabulary, name, t)
        if value is None:
            value = profile.traits.get(name)
        if value is not None:
            facts[name] = value
    return facts


def _recent_items(world: World, profile: Profile) -> list[str]:
    return [world.catalogue.ids[index] for index in recents(profile.state)[1][1].tolist() if index >= 0]


_FIXED: dict[str, Callable[[World, Profile], Any]] = {
    "id": lambda _, profile: profile.id,
    "segments": lambda _, __: [],
    "groups": lambda _, profile: profile.groups,
    "traits": lambda _, profile: profile.traits,
    "consent": lambda _, profile: profile.consent,
    "primaryInterest": lambda world, profile: primary_interest(world, profile) or "",
    "purchases": lambda _, profile: list(profile.purchases),
    "recentItems": _recent_items,
    "isKnown": lambda _, profile: any(name.startswith("user_id:") for name in profile.identifiers),
}
"""Fields of `profile` that are neither traits nor features."""


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
