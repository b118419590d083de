"""Placements made ready: expressions compiled, defaults filled in, contradictions refused.

`check` is what stands between a declaration and the log: what passes it can be decided on.
"""

from collections import Counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird.decide.kernels import SOURCES
from tailorbird.errors import Fault, InvalidInputError
from tailorbird.policies.quadrature import BestProbabilities
from tailorbird.rules.cel import Expression, compile_expression
from tailorbird.schema.placement import CandidateQuery, Placement, Rule, Strategy, Variant

VISITOR_VARIABLES = frozenset({"profile", "context", "now"})
ITEM_VARIABLES = frozenset({"item"})
RULE_VARIABLES = VISITOR_VARIABLES | ITEM_VARIABLES
GOAL_VARIABLES = frozenset({"properties", "event"})

_ELIGIBLE_SETS_MAX = 64  # Distinct sets of eligible arms whose probabilities are kept a placement.


class CompiledRule:
    """A business rule with its expression; `is_static` rules read only the item."""

    def __init__(self, rule: Rule, path: str) -> None:
        self.rule = rule
        self.expression = compile_expression(rule.when, path, RULE_VARIABLES)
        self.is_static = self.expression.variables <= ITEM_VARIABLES
        self.is_about_item = "item" in self.expression.variables


class CompiledPlacement:
    """A placement with everything that is prepared once."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.arms = placement.arms
        self.variants: dict[str, Variant] = {variant.id: variant for variant in placement.variants}
        self.values = {
            variant.id: msgspec.Raw(msgspec.json.encode(variant.value)) for variant in placement.variants
        }
        """What each variant shows, as JSON: encoded once, not with every answer."""
        self.items = {variant.id: _variant_facts(variant) for variant in placement.variants}
        """What rules of a variant placement see as `item`: the variant's id and the fields of its value."""
        self.eligibility: dict[str, Expression] = {
            variant.id: compile_expression(variant.rule, f"variants[{i}].rule", VISITOR_VARIABLES)
            for i, variant in enumerate(placement.variants)
            if variant.rule is not None
        }
        self.rules = [CompiledRule(rule, f"rules[{i}].when") for i, rule in enumerate(placement.rules)]
        query = placement.candidates.query if placement.candidates is not None else None
        self.query = None if query is None else compile_expression(query, "candidates.query", ITEM_VARIABLES)
        if placement.goal is not None and placement.goal.value is not None:
            compile_expression(placement.goal.value, "goal.value", GOAL_VARIABLES)
        self.weights: NDArray[np.float64] = np.array(
            [[strategy.weights.get(source, 0.0) for source in SOURCES] for strategy in placement.strategies]
        ).reshape(len(placement.strategies), len(SOURCES))
        used = placement.candidates.sources if placement.candidates is not None else ()
        self.switches: dict[bool, NDArray[np.bool_]] = {
            is_named: np.array(
                [is_named, "covisitation" in used, "recency" in used, placement.constraints.in_stock]
            )
            for is_named in (False, True)
        }
        """What `kernels.find_candidates` is told, for a request that names its candidates or not."""
        self.fallback = placement.fallback or (self.arms[0] if self.arms else "")
        self.profile_fields = self._fields("profile")
        self.reads_profile = self._reads("profile")
        self.reads_context = self._reads("context")
        self.last_good: dict[tuple[str, ...], tuple[int, NDArray[np.float64]]] = {}
        """Probabilities among eligible arms, with the version of the sums that they came from."""
        self._caches: dict[tuple[str, ...], BestProbabilities] = {}

    def cache_of(self, eligible: tuple[str, ...]) -> BestProbabilities:
        """Return the cache of propensities among `eligible`."""
        cache = self._caches.get(eligible)
        if cache is None:
            if len(self._caches) >= _ELIGIBLE_SETS_MAX:
                self._caches.clear()
                self.last_good.clear()
            cache = self._caches[eligible] = BestProbabilities()
        return cache

    def _expressions(self) -> list[Expression]:
        return [*self.eligibility.values(), *(rule.expression for rule in self.rules)]

    def _reads(self, name: str) -> bool:
        return any(name in expression.variables for expression in self._expressions())

    def _fields(self, name: str) -> frozenset[str] | None:
        """Return the fields of `name` that any expression reads, None where they cannot be told."""
        fields: set[str] = set()
        for expression in self._expressions():
            if name in expression.variables:
                found = expression.fields(name)
                if found is None:
                    return None
                fields |= found
        return frozenset(fields)


def _variant_facts(variant: Variant) -> dict[str, object]:
    fields = variant.value if isinstance(variant.value, dict) else {"value": variant.value}
    return {**fields, "id": variant.id}


def check(placement: Placement) -> Placement:
    """Return the placement with its defaults written out.

    Raises:
        InvalidInputError: A rule is no CEL, an id is given twice, floors add up to more than 1, a
            fallback names nothing, or a kind lacks what it needs; each fault is named.
    """
    placement = _complete(placement)
    faults = [*_check_arms(placement), *_check_names(placement)]
    if faults:
        raise InvalidInputError(*faults)
    CompiledPlacement(placement)
    return placement


def _complete(placement: Placement) -> Placement:
    # Purposes are kept in lower case wherever consent is given or refused.
    placement = msgspec.structs.replace(placement, consent=placement.consent.lower())
    if placement.kind != "list":
        return placement
    candidates = placement.candidates or CandidateQuery()
    strategies = placement.strategies
    if not strategies:
        single = tuple(Strategy(source, {source: 1.0}) for source in candidates.sources)
        blend = Strategy("blend", dict.fromkeys(candidates.sources, 1.0))
        strategies = (*single, blend) if len(single) > 1 else single
    return msgspec.structs.replace(placement, candidates=candidates, strategies=strategies)


def _check_arms(placement: Placement) -> list[Fault]:
    faults = []
    if placement.kind == "variant" and not placement.variants:
        faults.append(Fault("variants", "a variant placement needs at least one", []))
    if placement.kind == "variant" and (placement.candidates or placement.strategies):
        faults.append(Fault("candidates", "belongs to a list placement", placement.kind))
    if placement.kind == "list" and placement.variants:
        faults.append(Fault("variants", "a list placement has strategies instead", placement.kind))
    if placement.floor * len(placement.arms) > 1.0:
        rule = f"floors of {len(placement.arms)} candidates add up to at most 1"
        faults.append(Fault("floor", rule, placement.floor))
    caps = [variant.cap for variant in placement.variants]
    if caps and sum(caps) < 1.0 - _ROUNDING:
        faults.append(Fault("variants.cap", "caps add up to at least 1, or there is nothing to show", caps))
    policy = placement.policy
    unknown = [arm for arm in getattr(policy, "weights", {}) if arm not in placement.arms]
    return faults + [Fault("policy.weights", "names a candidate of the placement", arm) for arm in unknown]


_ROUNDING = 1e-9  # Three caps of a third are 1.


def _check_names(placement: Placement) -> list[Fault]:
    faults = []
    field = "variants" if placement.kind == "variant" else "strategies"
    for name, times in Counter(placement.arms).items():
        if times > 1:
            faults.append(Fault(f"{field}.id", "each id is given once", name))
    for name, times in Counter(rule.name for rule in placement.rules).items():
        if times > 1:
            faults.append(Fault("rules.name", "each name is given once", name))
    fallback = placement.fallback
    if fallback is not None and placement.kind == "variant" and fallback not in placement.arms:
        faults.append(Fault("fallback", f"one of {', '.join(placement.arms)}", fallback))
    if placement.candidates is not None:
        for i, strategy in enumerate(placement.strategies):
            for source in strategy.weights:
                if source not in placement.candidates.sources:
                    path = f"strategies[{i}].weights"
                    faults.append(Fault(path, "names a source of candidates.sources", source))
    return faults
