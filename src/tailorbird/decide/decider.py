"""The cascade: from a request to one answer for each placement, each with its reason.

    who → consent → holdout → eligibility → candidates → scores → probabilities → draw → constraints
        → explain → log

A step that cannot be taken steps down a rung (live, previous, popular, default), never fails: there is
always an answer, and it says which rung it stands on.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from tailorbird.clock import Clock
from tailorbird.decide.compiled import CompiledPlacement
from tailorbird.decide.explain import (
    because_holdout,
    because_of_arm,
    because_only,
    because_opted_out,
)
from tailorbird.decide.lists import Listing, ListMaker
from tailorbird.decide.visitor import Request, Visitor
from tailorbird.errors import OverloadedError, StorageError
from tailorbird.hashing import token
from tailorbird.limits import COUNT_MAX
from tailorbird.live.world import World
from tailorbird.policies.base import PolicyState, trials
from tailorbird.policies.mixing import draw, with_floors_and_caps
from tailorbird.policies.union import probabilities
from tailorbird.rules.cel import RuleError
from tailorbird.schema.decision import LoggedChoice, LoggedDecision, PlacementRequest, Step
from tailorbird.schema.placement import Placement
from tailorbird.schema.profile import AtPlacement

_KEPT_MAX = 4096  # Sticky decisions at hand without reading the log.
_NO_STATE = PolicyState(arms={})

Record = Callable[[LoggedDecision], str]
Find = Callable[[str], LoggedDecision | None]


class Answer(msgspec.Struct):
    """One placement's answer. `decision` is None where the placement is not known."""

    key: str
    decision_id: str = ""
    decision: LoggedDecision | None = None
    values: list[Any] = []


class Answers(msgspec.Struct):
    """All answers to a request."""

    profile_id: str | None
    arm: str
    is_personalized: bool
    answers: list[Answer]
    took_ms: float


class Settings(msgspec.Struct, frozen=True):
    """What an operator declares for all placements."""

    holdout_share: float = 0.1
    gpc_opts_out: bool = True


class Journal(msgspec.Struct, frozen=True):
    """How decisions are written and found again: `record` logs and folds one and gives back its id."""

    record: Record
    find: Find


class Decider:
    """Decides on one world."""

    def __init__(
        self,
        secret: bytes,
        clock: Clock,
        settings: Settings,
        journal: Journal,
        seed: int | None = None,
    ) -> None:
        self.world: World
        self._secret = secret
        self._clock = clock
        self._settings = settings
        self._record, self._find = journal.record, journal.find
        self._generator = np.random.default_rng(seed)
        self._compiled: dict[str, CompiledPlacement] = {}
        self._version = -1
        self._lists = ListMaker()
        self._kept: dict[str, LoggedDecision] = {}
        self.faults: dict[str, int] = {}
        """Things that went wrong and were answered all the same, by name."""

    def use(self, world: World) -> None:
        """Decide on another world from now on."""
        self.world = world
        self._version = -1
        self._kept.clear()
        self._lists = ListMaker()

    def decide(self, request: Request) -> Answers:
        """Answer a request; never raises for what a visitor or an operator can cause."""
        started = self._clock.elapsed()
        self._compile()
        t = self._clock.now() if request.at is None else request.at
        visitor = Visitor(self.world, self._secret, request, t)
        deadline = started + request.deadline_ms / 1000.0
        turn = _Turn(visitor, deadline, self._fields(request), request.sticky_seconds_min)
        answers = [self._answer(turn, asked) for asked in request.placements]
        took_ms = (self._clock.elapsed() - started) * 1000.0
        return Answers(visitor.profile_id, turn.arm(), turn.is_personalized, answers, took_ms)

    # --- one placement ------------------------------------------------------------------------------

    def _answer(self, turn: "_Turn", asked: PlacementRequest) -> Answer:
        compiled = self._compiled.get(asked.key)
        if compiled is None:
            return Answer(asked.key)
        started = self._clock.elapsed()
        case = _Case(turn, compiled, asked, self._holdout(turn.visitor, compiled.placement))
        kept = self._decide_one(case)
        turn.arms.append(case.holdout)
        if kept is not None:
            turn.is_personalized |= kept[1].holdout == "personalized"
            return Answer(asked.key, kept[0], kept[1], self._values(compiled, kept[1]))
        turn.is_personalized |= case.is_personalized
        decision = case.decision(self._clock, started)
        try:
            decision_id = self._record(decision)
        except (StorageError, OverloadedError):
            # It was not logged, so it must not be learned from: the declared default, without an id.
            self._fault("decision_not_logged")
            self._fall_back(case, "not_logged")
            decision = case.decision(self._clock, started)
            return Answer(asked.key, "", decision, self._values(compiled, decision))
        if decision.sticky_until:
            self._keep(decision_id, decision)
        return Answer(asked.key, decision_id, decision, self._values(compiled, decision))

    def _decide_one(self, case: "_Case") -> tuple[str, LoggedDecision] | None:
        """Fill in the case; or return the sticky decision that answers it."""
        placement = case.placement
        visitor = case.turn.visitor
        if not placement.enabled:
            self._fall_back(case, "DISABLED")
        elif visitor.has_refused(placement.consent, gpc_opts_out=self._settings.gpc_opts_out):
            case.holdout = "none"
            self._fall_back(case, "OPTED_OUT", because_opted_out())
        elif case.holdout == "holdout":
            self._fall_back(case, "HOLDOUT", because_holdout())
        elif self._clock.elapsed() > case.turn.deadline:
            self._fall_back(case, "deadline")
        elif placement.kind == "variant":
            return self._decide_variant(case)
        else:
            return self._decide_list(case)
        return None

    def _decide_variant(self, case: "_Case") -> tuple[str, LoggedDecision] | None:
        eligible = self._eligible(case)
        kept = self._sticky(case, set(eligible))
        if kept is not None:
            return kept
        if not eligible:
            self._fall_back(case, "no_candidate")
            return None
        case.mark("eligibility", self._clock)
        self._draw(case, eligible)
        arm = case.arm
        assert arm is not None, "something was drawn"
        case.choices = [
            LoggedChoice(arm, case.probability, case.probability, [self._because(case)])
        ]
        return None

    def _decide_list(self, case: "_Case") -> tuple[str, LoggedDecision] | None:
        listing = self._lists.listing(
            self.world, case.compiled, case.asked, case.turn.visitor, case.steps
        )
        self._apply_rules(case, listing)
        kept = self._sticky(case, listing.ids())
        if kept is not None:
            return kept
        case.mark("candidates", self._clock)
        if not len(listing.items):
            self._fall_back(case, "no_candidate")
            return None
        if self._clock.elapsed() > case.turn.deadline:
            self._fall_back(case, "deadline")
            return None
        ranked = self._lists.rank(self.world, case.compiled, listing, case.turn.visitor, case.count)
        case.mark("score", self._clock)
        self._draw(case, case.compiled.arms)
        arm = case.compiled.arms.index(case.arm or "")
        case.choices = self._lists.choices(self.world, listing, ranked, case.probabilities, arm)
        return None

    def _draw(self, case: "_Case", eligible: tuple[str, ...]) -> None:
        """Draw one of `eligible` from the policy's probabilities; the logged ones are those drawn from."""
        case.arms = list(eligible)
        case.reason = "SPLIT"
        if len(eligible) == 1:
            chances = np.ones(1)
            case.reason = (
                "TARGETING_MATCH" if eligible[0] in case.compiled.eligibility else "STATIC"
            )
        else:
            chances = self._probabilities(case, eligible)
        case.mark("policy", self._clock)
        case.seed = float(self._generator.random())
        drawn = draw(chances, case.seed)
        case.probabilities = chances
        case.arm = eligible[drawn]
        case.probability = float(chances[drawn])
        case.explored = bool(chances[drawn] < chances.max())
        case.is_learned = True
        case.is_personalized = True

    def _probabilities(self, case: "_Case", eligible: tuple[str, ...]) -> np.ndarray[Any, Any]:
        compiled, placement = case.compiled, case.placement
        state = self.world.policies.get(placement.key) or _NO_STATE
        case.policy_version = state.version
        try:
            cache = compiled.cache_of(eligible)
            raw = probabilities(placement.policy, state, eligible, placement.learn_from, cache)
            caps = np.array([compiled.caps.get(arm, 1.0) for arm in eligible])
            chances = with_floors_and_caps(raw, placement.floor, caps)
        except (ArithmeticError, ValueError, AssertionError):
            self._fault("policy_failed")
            case.steps.append(
                Step("policy", detail="failed; the last good probabilities were used")
            )
            case.rung = "previous"
            return compiled.last_good.get(eligible, np.full(len(eligible), 1.0 / len(eligible)))
        compiled.last_good[eligible] = chances
        return chances

    def _because(self, case: "_Case") -> str:
        arm = case.arm or ""
        if len(case.arms) == 1:
            return because_only(arm)
        state = self.world.policies.get(case.placement.key) or _NO_STATE
        record = trials(state, (arm,), case.placement.learn_from)[0]
        return because_of_arm(arm, case.probability, record, explored=case.explored)

    # --- rules --------------------------------------------------------------------------------------

    def _eligible(self, case: "_Case") -> tuple[str, ...]:
        compiled, visitor = case.compiled, case.turn.visitor
        arms = compiled.arms
        if compiled.eligibility:
            arms = tuple(
                arm
                for arm in arms
                if arm not in compiled.eligibility
                or self._is_true(case, arm, compiled.eligibility[arm])
            )
            if len(arms) < len(compiled.arms):
                case.steps.append(Step("eligibility", removed=len(compiled.arms) - len(arms)))
        for rule in compiled.rules:
            if not rule.is_about_item:
                matches = self._is_true(case, rule.rule.name, rule.expression)
                if matches == (rule.rule.then == "exclude"):
                    case.steps.append(Step(f"rule:{rule.rule.name}", removed=len(arms)))
                    return ()
        capped = _over_cap(visitor, case.placement)
        if capped:
            left = tuple(arm for arm in arms if arm not in capped)
            if len(left) < len(arms):
                case.steps.append(Step("frequencyCap", removed=len(arms) - len(left)))
            arms = left
        return arms

    def _is_true(self, case: "_Case", name: str, expression: Any) -> bool:  # noqa: ANN401
        try:
            return bool(expression.is_true(case.turn.visitor.facts(case.turn.fields)))
        except RuleError as error:
            self._fault("rule_failed")
            case.steps.append(
                Step(f"rule:{name}", detail=f"failed, taken as not matching: {error}")
            )
            return False

    def _apply_rules(self, case: "_Case", listing: Listing) -> None:
        """Apply the rules that read more than the item; the others are in the pool already."""
        for rule in case.compiled.rules:
            if rule.is_static:
                continue
            if rule.is_about_item:
                errors = self._lists.apply_rule(self.world, listing, rule, case.turn.visitor)
                if errors:
                    self._fault("rule_failed")
                    detail = f"failed on {errors} items, taken as not matching"
                    case.steps.append(Step(f"rule:{rule.rule.name}", detail=detail))
            elif self._is_true(case, rule.rule.name, rule.expression) == (
                rule.rule.then == "exclude"
            ):
                listing.keep(np.zeros(len(listing.items), np.bool_), f"rule:{rule.rule.name}")

    # --- exits --------------------------------------------------------------------------------------

    def _fall_back(self, case: "_Case", reason: str, because: str | None = None) -> None:
        """Answer without the profile and without the policy: the default variant, or what is popular."""
        exits = ("DISABLED", "OPTED_OUT", "HOLDOUT")
        case.reason = reason if reason in exits else "FALLBACK"
        case.rung = "default"
        case.arm, case.arms, case.probabilities = None, [], np.zeros(0)
        case.is_learned = case.is_personalized = case.explored = False
        if reason not in exits:
            case.steps.append(Step("fallback", detail=reason))
        sentences = [] if because is None else [because]
        if case.placement.kind == "variant":
            arm = case.compiled.fallback
            case.choices = [LoggedChoice(arm, 1.0, 0.0, sentences)] if arm else []
            return
        case.choices = self._lists.popular(
            self.world, case.compiled, case.asked, (case.turn.visitor.t, case.count), sentences
        )
        case.rung = "popular"

    def _holdout(self, visitor: Visitor, placement: Placement) -> str:
        """Return the arm: fixed by the visitor's position, and for good by the first decision counted."""
        if visitor.position is None:
            return "none"
        share = self._settings.holdout_share if placement.holdout is None else placement.holdout
        return "holdout" if visitor.position < share else "personalized"

    def _sticky(self, case: "_Case", valid: set[str]) -> tuple[str, LoggedDecision] | None:
        """Return the decision given to the same question earlier in the session, if it still may be shown."""
        profile = case.turn.visitor.profile
        case.request = self._request_digest(case) if case.sticky_seconds else ""
        at: AtPlacement | None = (
            None if profile is None else profile.placements.get(case.placement.key)
        )
        if not case.request or profile is None or at is None or not at.sticky_id:
            return None
        is_same = at.sticky_request == case.request and at.sticky_session == profile.sessions
        if not is_same or case.turn.visitor.t >= at.sticky_until:
            return None
        kept = self._kept.get(at.sticky_id) or self._find(at.sticky_id)
        if kept is None or case.turn.visitor.t < kept.t:
            return None
        is_same_choice = case.placement.kind == "list" or set(kept.arms) == valid
        is_valid = is_same_choice and all(choice.id in valid for choice in kept.choices)
        return (at.sticky_id, kept) if is_valid else None

    def _request_digest(self, case: "_Case") -> str:
        asked = case.asked
        question = msgspec.json.encode(
            (asked.count, asked.exclude, asked.candidates, case.placement)
        )
        return token(self._secret, "request", question.decode(), size=6)

    def _keep(self, decision_id: str, decision: LoggedDecision) -> None:
        self._kept[decision_id] = decision
        if len(self._kept) > _KEPT_MAX:
            del self._kept[next(iter(self._kept))]

    def _values(self, compiled: CompiledPlacement, decision: LoggedDecision) -> list[Any]:
        if compiled.placement.kind == "variant":
            variants = compiled.variants
            return [variants[c.id].value if c.id in variants else None for c in decision.choices]
        catalogue = self.world.catalogue
        return [catalogue.values[catalogue.index[choice.id]] for choice in decision.choices]

    def _compile(self) -> None:
        if self._version == self.world.placements_version:
            return
        before = self._compiled
        self._compiled = {
            key: before[key]
            if key in before and before[key].placement is placement
            else CompiledPlacement(placement)
            for key, placement in self.world.placements.items()
        }
        self._version = self.world.placements_version

    def _fields(self, request: Request) -> frozenset[str] | None:
        """Return the profile fields that the rules of all placements asked for read."""
        fields: set[str] = set()
        for asked in request.placements:
            compiled = self._compiled.get(asked.key)
            if compiled is not None and compiled.reads_profile:
                if compiled.profile_fields is None:
                    return None
                fields |= compiled.profile_fields
        return frozenset(fields)

    def _fault(self, name: str) -> None:
        self.faults[name] = self.faults.get(name, 0) + 1


class _Turn:
    """What the placements of one request share."""

    __slots__ = ("arms", "deadline", "fields", "is_personalized", "sticky_min", "visitor")

    def __init__(
        self, visitor: Visitor, deadline: float, fields: frozenset[str] | None, sticky_min: float
    ) -> None:
        self.visitor = visitor
        self.deadline = deadline
        self.fields = fields
        self.sticky_min = sticky_min
        self.arms: list[str] = []
        self.is_personalized = False

    def arm(self) -> str:
        """Return the visitor's arm over all placements answered."""
        if "personalized" in self.arms:
            return "personalized"
        return "holdout" if "holdout" in self.arms else "none"


class _Case:
    """One placement of a request on its way through the cascade."""

    def __init__(
        self, turn: _Turn, compiled: CompiledPlacement, asked: PlacementRequest, holdout: str
    ) -> None:
        self.turn = turn
        self.compiled = compiled
        self.placement = compiled.placement
        self.asked = asked
        self.holdout = holdout
        self.sticky_seconds = max(compiled.placement.sticky_seconds, turn.sticky_min)
        self.count = min(asked.count or compiled.placement.count, COUNT_MAX)
        self.reason = "FALLBACK"
        self.rung = "live"
        self.arm: str | None = None
        self.arms: list[str] = []
        self.probabilities: np.ndarray[Any, Any] = np.zeros(0)
        self.probability = 1.0
        self.policy_version = 0
        self.seed = 0.0
        self.explored = False
        self.is_learned = False
        self.is_personalized = False
        self.request = ""
        self.choices: list[LoggedChoice] = []
        self.steps: list[Step] = []
        self.marks: list[tuple[str, float]] = []

    def mark(self, step: str, clock: Clock) -> None:
        """Note that a step ended now."""
        self.marks.append((step, clock.elapsed()))

    def decision(self, clock: Clock, started: float) -> LoggedDecision:
        """Return the record of what was decided."""
        visitor = self.turn.visitor
        profile = visitor.profile
        ended = clock.elapsed()
        timings, before = {}, started
        for step, at in [*self.marks, ("finish", ended)]:
            timings[step] = round((at - before) * 1e6, 1)
            before = at
        is_drawn = self.arm is not None
        sticky = self.sticky_seconds if is_drawn and self.request else 0.0
        return LoggedDecision(
            t=visitor.t,
            r=clock.now(),
            placement=self.placement.key,
            reason=self.reason,
            rung=self.rung,
            choices=self.choices,
            arms=self.arms,
            probabilities=self.probabilities.tolist(),
            arm=self.arm,
            seed=self.seed,
            holdout=self.holdout,
            profile=visitor.profile_id,
            founded_on=visitor.founded_on,
            profile_version=-1 if profile is None else profile.version,
            policy=type(self.placement.policy).__name__.lower(),
            policy_version=self.policy_version,
            explored=self.explored,
            is_learned=self.is_learned,
            sticky_until=visitor.t + sticky if sticky else 0.0,
            request=self.request,
            steps=self.steps,
            took_ms=round((ended - started) * 1000.0, 4),
            timings_us=timings,
        )


def _over_cap(visitor: Visitor, placement: Placement) -> set[str]:
    """Return the choices that the visitor has had as often as the frequency cap allows."""
    cap = placement.constraints.frequency_cap
    at = None if visitor.profile is None else visitor.profile.placements.get(placement.key)
    if cap is None or at is None:
        return set()
    times: dict[str, int] = {}
    for t, choice in at.shown:
        if visitor.t - cap.window_seconds < t <= visitor.t:
            times[choice] = times.get(choice, 0) + 1
    return {choice for choice, count in times.items() if count >= cap.count}
