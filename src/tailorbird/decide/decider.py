"""The cascade: from a request to one answer for each placement, each with its reason.

    who → consent → holdout → eligibility → candidates → scores → probabilities → draw → constraints
        → explain → log

A step that cannot be taken steps down a rung (live, previous, popular, default), never fails: there is
always an answer, and it says which rung it stands on.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tailorbird.clock import Clock
from tailorbird.decide.compiled import CompiledPlacement, CompiledRule
from tailorbird.decide.explain import sentences
from tailorbird.decide.lists import Listing, ListMaker
from tailorbird.decide.visitor import Request, Visitor, over_cap
from tailorbird.errors import InvalidInputError, OverloadedError, StorageError
from tailorbird.features.view import session_at
from tailorbird.hashing import checksum, token
from tailorbird.limits import COUNT_MAX
from tailorbird.live.variables import vector
from tailorbird.live.world import World
from tailorbird.policies.base import PolicyState, trials
from tailorbird.policies.mixing import draw, mixed_for
from tailorbird.policies.union import probabilities
from tailorbird.rules.cel import RuleError, context_of
from tailorbird.schema.decision import LoggedChoice, LoggedDecision, PlacementRequest, Step
from tailorbird.schema.placement import Fixed, Placement
from tailorbird.schema.profile import AtPlacement

_KEPT_MAX = 4096  # Sticky decisions at hand without reading the log.
_UNIFORMS = 1024
_READS_MAX = 1024  # Sets of placements asked for together; a site has a handful.
_NO_STATE = PolicyState(arms={})
_NO_CHANCES = np.zeros(0)
_NULL = msgspec.Raw(b"null")

Record = Callable[[list[LoggedDecision]], list[str]]
Find = Callable[[str], LoggedDecision | None]


class Answer(msgspec.Struct):
    """One placement's answer. `decision` is None where the placement is not known."""

    key: str
    decision_id: str = ""
    decision: LoggedDecision | None = None
    values: list[msgspec.Raw] = []
    """What each choice shows, as JSON."""


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
    reads_every_vector: bool = False
    """Whether each personalized request reads all variables, as policies over features do."""
    sample_share: float = 0.01
    """Share of personalized decisions that log the values, too: the skew meter compares them with history."""


class Journal(msgspec.Struct, frozen=True):
    """How decisions are written, those of one request together, and found again by their ids."""

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
        self._uniforms: list[float] = []
        self._compiled: dict[str, CompiledPlacement] = {}
        self._read_by: dict[tuple[str, ...], _Reads] = {}
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
        turn = _Turn(visitor, deadline, self._reads(request), request.sticky_seconds_min)
        cases = [self._case(turn, asked) for asked in request.placements]
        self._log(cases)
        answers = [self._answer(case) for case in cases]
        took_ms = (self._clock.elapsed() - started) * 1000.0
        return Answers(visitor.profile_id, turn.arm(), turn.is_personalized, answers, took_ms)

    # --- one placement ------------------------------------------------------------------------------

    def _case(self, turn: "_Turn", asked: PlacementRequest) -> "_Case":
        """Take one placement through the cascade."""
        compiled = self._compiled.get(asked.key)
        case = _Case(turn, compiled, asked)
        if compiled is None:
            return case
        started = self._clock.elapsed()
        case.holdout = self._holdout(turn.visitor, compiled.placement)
        self._decide_one(case)
        turn.arms.append(case.holdout)
        turn.is_personalized |= case.is_personalized
        if not case.decision_id:
            case.finish(self._clock, started, self._served(case))
        return case

    def _served(self, case: "_Case") -> "_Served":
        """Return the variables that a visitor is read by, as they are logged; read once a request."""
        settings, turn = self._settings, case.turn
        is_sampled = case.seed * _SAMPLE_SPREAD % 1.0 < settings.sample_share
        if not case.is_personalized or not (settings.reads_every_vector or is_sampled):
            return _NOT_SERVED
        if not self.world.features.is_declared:
            return _NOT_SERVED
        visitor = turn.visitor
        if turn.vector is None:
            turn.vector = vector(self.world, visitor.profile, visitor.t, visitor.context)
        told = f"{self.world.features.reading.version}:{checksum(turn.vector.data)}"
        return _Served(told, turn.vector.tobytes(), visitor.context) if is_sampled else _Served(told, b"", {})

    def _log(self, cases: list["_Case"]) -> None:
        """Log what was decided anew; what cannot be is answered with the default and not learned from."""
        fresh = [case for case in cases if case.logged is not None and not case.decision_id]
        if not fresh:
            return
        decisions = [case.logged for case in fresh if case.logged is not None]
        try:
            keys = self._record(decisions)
        except (StorageError, OverloadedError):
            self._fault("decision_not_logged")
            for case in fresh:
                self._fall_back(case, "not_logged")
                case.finish(self._clock, self._clock.elapsed(), _NOT_SERVED)
            return
        for case, decision, key in zip(fresh, decisions, keys, strict=True):
            case.decision_id = key
            if decision.sticky_until:
                self._keep(key, decision)

    def _answer(self, case: "_Case") -> Answer:
        compiled, decision = case.compiled_or_none, case.logged
        if compiled is None or decision is None:
            return Answer(case.asked.key)
        return Answer(case.asked.key, case.decision_id, decision, self._values(compiled, decision))

    def because(self, decision: LoggedDecision) -> list[list[str]]:
        """Return the reasons for each choice of a decision, as sentences."""
        return [
            sentences(choice.why, choice.id, choice.propensity, self._title) for choice in decision.choices
        ]

    def _title(self, key: str) -> str:
        item = self.world.catalogue.get(key)
        return item.title if item is not None and item.title else key

    def _decide_one(self, case: "_Case") -> None:
        """Fill in the case: the first exit that applies."""
        placement = case.placement
        visitor = case.turn.visitor
        if not placement.enabled:
            self._fall_back(case, "DISABLED", "disabled")
        elif visitor.has_refused(placement.consent, gpc_opts_out=self._settings.gpc_opts_out):
            case.holdout = "none"
            self._fall_back(case, "OPTED_OUT", "opted_out")
        elif case.holdout == "holdout":
            self._fall_back(case, "HOLDOUT", "holdout")
        elif self._clock.elapsed() > case.turn.deadline:
            self._fall_back(case, "deadline")
        elif placement.kind == "variant":
            self._decide_variant(case)
        else:
            self._decide_list(case)

    def _decide_variant(self, case: "_Case") -> None:
        eligible = self._eligible(case)
        if case.sticky_seconds and self._stick(case, set(eligible)):
            return
        if not eligible:
            self._fall_back(case, "no_candidate")
            return
        case.mark("eligibility", self._clock)
        self._draw(case, eligible)
        arm = case.arm
        assert arm is not None, "something was drawn"
        case.choices = [LoggedChoice(arm, case.probability, case.probability, self._why(case))]

    def _decide_list(self, case: "_Case") -> None:
        listing = self._lists.listing(self.world, case.compiled, case.asked, case.turn.visitor, case.steps)
        self._apply_rules(case, listing)
        if case.sticky_seconds:
            ids = self.world.catalogue.ids
            if self._stick(case, {ids[index] for index in listing.items.tolist()}):
                return
        case.mark("candidates", self._clock)
        if not len(listing.items):
            self._fall_back(case, "no_candidate")
        elif self._clock.elapsed() > case.turn.deadline:
            self._fall_back(case, "deadline")
        else:
            self._draw(case, case.compiled.arms)
            drawn = (case.chances, case.compiled.arms.index(case.arm or ""), case.count)
            visitor = case.turn.visitor
            case.choices = self._lists.choices(self.world, case.compiled, listing, visitor, drawn)
            case.mark("rank", self._clock)

    def _draw(self, case: "_Case", eligible: tuple[str, ...]) -> None:
        """Draw one of `eligible` from the policy's probabilities; the logged ones are those drawn from."""
        case.arms = eligible
        case.reason = "SPLIT"
        if len(eligible) == 1:
            chances = np.ones(1)
            case.reason = "TARGETING_MATCH" if eligible[0] in case.compiled.eligibility else "STATIC"
        else:
            if isinstance(case.placement.policy, Fixed):
                case.reason = "STATIC"
            chances = self._probabilities(case, eligible)
        case.mark("policy", self._clock)
        case.seed = self._uniform()
        case.chances = chances
        case.probabilities = chances.tolist()
        drawn = draw(case.probabilities, case.seed)
        case.arm = eligible[drawn]
        case.probability = case.probabilities[drawn]
        case.explored = case.probability < max(case.probabilities)
        case.is_learned = True
        case.is_personalized = case.turn.visitor.profile_id is not None

    def _uniform(self) -> float:
        """Return the next uniform number; taken in blocks, one costs a tenth of a call of the generator."""
        if not self._uniforms:
            self._uniforms = self._generator.random(_UNIFORMS)[::-1].tolist()
        return self._uniforms.pop()

    def _probabilities(self, case: "_Case", eligible: tuple[str, ...]) -> np.ndarray[Any, Any]:
        compiled, placement = case.compiled, case.placement
        state = self.world.policies.get(placement.key) or _NO_STATE
        case.state, case.policy_version = state, state.version
        kept = compiled.last_good.get(eligible)
        if kept is not None and kept[0] == state.version:
            return kept[1]
        try:
            cache = compiled.cache_of(eligible)
            raw = probabilities(placement.policy, state, eligible, placement.learn_from, cache)
            chances = mixed_for(placement, eligible, raw)
        except (ArithmeticError, ValueError, AssertionError, InvalidInputError):
            self._fault("policy_failed")
            case.steps.append(Step("policy", detail="failed; the last good probabilities were used"))
            case.rung = "previous"
            return np.full(len(eligible), 1.0 / len(eligible)) if kept is None else kept[1]
        compiled.last_good[eligible] = (state.version, chances)
        return chances

    def _why(self, case: "_Case") -> str:
        if len(case.arms) == 1:
            return "only"
        tries, successes = trials(case.state.published, (case.arm or "",), case.placement.learn_from)[0]
        return f"arm:{tries}:{successes}:{int(case.explored)}"

    # --- rules --------------------------------------------------------------------------------------

    def _eligible(self, case: "_Case") -> tuple[str, ...]:
        compiled, visitor = case.compiled, case.turn.visitor
        arms = compiled.arms
        if compiled.eligibility:
            rules = compiled.eligibility
            arms = tuple([arm for arm in arms if arm not in rules or self._is_true(case, arm, rules[arm])])
            if len(arms) < len(compiled.arms):
                case.steps.append(Step("eligibility", removed=len(compiled.arms) - len(arms)))
        for rule in compiled.rules:
            is_exclude = rule.rule.then == "exclude"
            if rule.is_about_item:
                left = tuple(arm for arm in arms if self._is_about(case, rule, arm) != is_exclude)
            else:
                is_out = self._is_true(case, rule.rule.name, rule.expression) == is_exclude
                left = () if is_out else arms
            if len(left) < len(arms):
                case.steps.append(Step(f"rule:{rule.rule.name}", removed=len(arms) - len(left)))
            arms = left
        capped = over_cap(visitor, case.placement)
        if capped:
            left = tuple(arm for arm in arms if arm not in capped)
            if len(left) < len(arms):
                case.steps.append(Step("frequencyCap", removed=len(arms) - len(left)))
            arms = left
        return arms

    def _is_about(self, case: "_Case", rule: CompiledRule, arm: str) -> bool:
        """Return whether a rule matches a variant, whose value's fields it sees as `item`."""
        facts = case.turn.visitor.facts_beside_item(rule.expression)
        try:
            return rule.expression.is_true(context_of({**facts, "item": case.compiled.items[arm]}))
        except RuleError:
            return False  # A field that this variant lacks: the rule does not match it.

    def _is_true(self, case: "_Case", name: str, expression: Any) -> bool:  # noqa: ANN401
        try:
            return bool(expression.is_true(case.turn.facts()))
        except RuleError as error:
            self._fault("rule_failed")
            case.steps.append(Step(f"rule:{name}", detail=f"failed, taken as not matching: {error}"))
            return False

    def _apply_rules(self, case: "_Case", listing: Listing) -> None:
        """Apply the rules that read more than the item; the others are in the pool already."""
        for rule in case.compiled.rules:
            if rule.is_static:
                continue
            name = f"rule:{rule.rule.name}"
            if rule.is_about_item:
                removed, errors = self._lists.apply_rule(self.world, listing, rule, case.turn.visitor)
                if errors:
                    self._fault("rule_failed")
                    case.steps.append(Step(name, detail=f"failed on {errors} items, taken as not matching"))
            else:
                is_out = self._is_true(case, rule.rule.name, rule.expression) == (rule.rule.then == "exclude")
                removed = listing.keep(np.zeros(len(listing.items), np.bool_)) if is_out else 0
            if removed:
                case.steps.append(Step(name, removed=removed))

    # --- exits --------------------------------------------------------------------------------------

    def _fall_back(self, case: "_Case", reason: str, why: str = "fallback") -> None:
        """Answer without the profile and without the policy: the default variant, or what is popular."""
        exits = ("DISABLED", "OPTED_OUT", "HOLDOUT")
        case.reason = reason if reason in exits else "FALLBACK"
        case.rung = "default"
        case.arm, case.arms, case.probabilities = None, (), ()
        case.is_learned = case.is_personalized = case.explored = False
        if reason not in exits:
            case.steps.append(Step("fallback", detail=reason))
        if case.placement.kind == "variant":
            arm = case.compiled.fallback
            case.choices = [LoggedChoice(arm, 1.0, 0.0, why)] if arm else []
            return
        case.choices = self._lists.popular(
            self.world, case.compiled, case.asked, (case.turn.visitor.t, case.count), why
        )
        case.rung = "popular"

    def _holdout(self, visitor: Visitor, placement: Placement) -> str:
        """Return the arm: fixed by the visitor's position, and for good by the first decision counted."""
        if visitor.position is None:
            return "none"
        share = self._settings.holdout_share if placement.holdout is None else placement.holdout
        return "holdout" if visitor.position < share else "personalized"

    def _stick(self, case: "_Case", valid: set[str]) -> bool:
        """Answer with the decision that the session got to the same question, if it still may be shown."""
        profile, t = case.turn.visitor.profile, case.turn.visitor.t
        case.request = self._request_digest(case)
        at: AtPlacement | None = None if profile is None else profile.placements.get(case.placement.key)
        if profile is None or at is None or not at.sticky_id or t >= at.sticky_until:
            return False
        if at.sticky_request != case.request or at.sticky_session != session_at(profile.state, t):
            return False
        kept = self._kept.get(at.sticky_id) or self._find(at.sticky_id)
        if kept is None or t < kept.t:
            return False
        is_same_choice = case.placement.kind == "list" or set(kept.arms) == valid
        if not is_same_choice or not all(choice.id in valid for choice in kept.choices):
            return False
        case.decision_id, case.logged, case.is_personalized = at.sticky_id, kept, True
        return True

    def _request_digest(self, case: "_Case") -> str:
        asked = case.asked
        question = msgspec.json.encode((asked.count, asked.exclude, asked.candidates, case.placement))
        return token(self._secret, "request", question.decode(), size=6)

    def _keep(self, decision_id: str, decision: LoggedDecision) -> None:
        self._kept[decision_id] = decision
        if len(self._kept) > _KEPT_MAX:
            del self._kept[next(iter(self._kept))]

    def _values(self, compiled: CompiledPlacement, decision: LoggedDecision) -> list[msgspec.Raw]:
        if compiled.placement.kind == "variant":
            # A sticky decision may name a variant that is not declared any more.
            return [compiled.values.get(choice.id, _NULL) for choice in decision.choices]
        catalogue = self.world.catalogue
        return [catalogue.values[catalogue.index[choice.id]] for choice in decision.choices]

    def _compile(self) -> None:
        if self._version == self.world.placements_version:
            return
        before = self._compiled
        self._read_by.clear()
        self._compiled = {
            key: before[key]
            if key in before and before[key].placement is placement
            else CompiledPlacement(placement)
            for key, placement in self.world.placements.items()
        }
        self._version = self.world.placements_version

    def _reads(self, request: Request) -> "_Reads":
        """Return what the rules of all placements asked for read."""
        keys = tuple([asked.key for asked in request.placements])
        found = self._read_by.get(keys)
        if found is None:
            if len(self._read_by) >= _READS_MAX:
                self._read_by.clear()
            found = self._read_by[keys] = self._list_reads(request)
        return found

    def _list_reads(self, request: Request) -> "_Reads":
        fields: set[str] | None = set()
        has_context = False
        for asked in request.placements:
            compiled = self._compiled.get(asked.key)
            if compiled is None:
                continue
            has_context |= compiled.reads_context
            if compiled.reads_profile and fields is not None:
                wanted = compiled.profile_fields
                fields = None if wanted is None else fields | wanted
        return _Reads(None if fields is None else frozenset(fields), has_context)

    def _fault(self, name: str) -> None:
        self.faults[name] = self.faults.get(name, 0) + 1


class _Reads(NamedTuple):
    """What rules read: fields of the profile (None for all), and whether the request's context."""

    fields: frozenset[str] | None
    has_context: bool


class _Served(NamedTuple):
    """What a decision logs of the variables that it was made with."""

    told: str
    values: bytes
    context: dict[str, Any]


_NOT_SERVED = _Served("", b"", {})
_SAMPLE_SPREAD = 2.0**20  # Of a draw's uniform number: what is sampled does not depend on what was drawn.


class _Turn:
    """What the placements of one request share."""

    __slots__ = ("arms", "deadline", "is_personalized", "reads", "sticky_min", "vector", "visitor")

    def __init__(self, visitor: Visitor, deadline: float, reads: _Reads, sticky_min: float) -> None:
        self.visitor = visitor
        self.deadline = deadline
        self.reads = reads
        self.sticky_min = sticky_min
        self.arms: list[str] = []
        self.is_personalized = False
        self.vector: np.ndarray[Any, Any] | None = None

    def facts(self) -> Any:  # noqa: ANN401
        """Return what rules see."""
        return self.visitor.facts(self.reads.fields, has_context=self.reads.has_context)

    def arm(self) -> str:
        """Return the visitor's arm over all placements answered."""
        if "personalized" in self.arms:
            return "personalized"
        return "holdout" if "holdout" in self.arms else "none"


class _Case:
    """One placement of a request on its way through the cascade."""

    # Where the cascade leaves them alone; set on the case otherwise.
    holdout = "none"
    decision_id = ""
    logged: LoggedDecision | None = None
    reason = "FALLBACK"
    rung = "live"
    arm: str | None = None
    arms: tuple[str, ...] = ()
    chances: np.ndarray[Any, Any] = _NO_CHANCES
    state = _NO_STATE
    probabilities: Sequence[float] = ()
    probability = 1.0
    policy_version = 0
    seed = 0.0
    explored = False
    is_learned = False
    is_personalized = False
    request = ""
    choices: Sequence[LoggedChoice] = ()

    def __init__(self, turn: _Turn, compiled: CompiledPlacement | None, asked: PlacementRequest) -> None:
        self.turn = turn
        self.compiled_or_none = compiled
        self.asked = asked
        if compiled is None:
            return
        self.compiled = compiled
        self.placement = compiled.placement
        self.sticky_seconds = max(compiled.placement.sticky_seconds, turn.sticky_min)
        self.count = min(asked.count or compiled.placement.count, COUNT_MAX)
        self.steps: list[Step] = []
        self.marks: list[tuple[str, float]] = []

    def mark(self, step: str, clock: Clock) -> None:
        """Note that a step ended now."""
        self.marks.append((step, clock.elapsed()))

    def finish(self, clock: Clock, started: float, served: "_Served") -> None:
        """Make the record of what was decided."""
        visitor = self.turn.visitor
        profile = visitor.profile
        ended = clock.elapsed()
        timings, before = {}, started
        for step, at in self.marks:
            timings[step] = int((at - before) * 1e6)
            before = at
        is_drawn = self.arm is not None
        sticky = self.sticky_seconds if is_drawn and self.request else 0.0
        self.logged = LoggedDecision(
            t=visitor.t,
            r=clock.now(),
            placement=self.placement.key,
            reason=self.reason,
            rung=self.rung,
            choices=list(self.choices),
            arms=list(self.arms),
            probabilities=list(self.probabilities),
            arm=self.arm,
            seed=self.seed,
            holdout=self.holdout,
            profile=visitor.profile_id,
            founded_on=visitor.founded_on,
            anonymous_id=visitor.anonymous_id,
            user_id=visitor.user_id,
            gpc=visitor.gpc,
            profile_version=-1 if profile is None else profile.version,
            vector=served.told,
            values=served.values,
            context=served.context,
            policy=type(self.placement.policy).__name__.lower(),
            policy_version=self.policy_version,
            explored=self.explored,
            is_learned=self.is_learned,
            sticky_until=visitor.t + sticky if sticky else 0.0,
            request=self.request,
            steps=self.steps,
            took_ms=int((ended - started) * 1e6) / 1000.0,
            timings_us=timings,
        )
