"""Lists: what may be shown, what each strategy would show, and why."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailorbird.decide.compiled import CompiledPlacement, CompiledRule
from tailorbird.decide.kernels import REMOVED, find_candidates, rank_list
from tailorbird.decide.pool import Pool, item_facts
from tailorbird.decide.visitor import Visitor, over_cap
from tailorbird.features.state import own_items
from tailorbird.live.profiles import primary_interest
from tailorbird.live.world import World
from tailorbird.rankers.covisitation import STEPS_BACK
from tailorbird.rules.cel import RuleError, context_of
from tailorbird.schema.decision import LoggedChoice, PlacementRequest, Step
from tailorbird.schema.profile import Profile

_Own = tuple[NDArray[np.int32], NDArray[np.int32]]
_NO_ITEMS: NDArray[np.int32] = np.zeros(0, np.int32)
_NOTHING_OWN = (_NO_ITEMS, _NO_ITEMS)
_POPULAR_ONLY: NDArray[np.float64] = np.array([[1.0, 0.0, 0.0]])
_CERTAIN: NDArray[np.float64] = np.ones(1)


class Listing:
    """The candidates of one list, with what the visitor's own items say of each."""

    __slots__ = ("covisits", "items", "own", "own_events", "recency")

    def __init__(
        self,
        items: NDArray[np.int32],
        covisits: NDArray[np.float32],
        recency: NDArray[np.float32],
        own: _Own,
    ) -> None:
        self.items = items
        self.covisits = covisits
        self.recency = recency
        self.own, self.own_events = own
        """The visitor's own items, newest first, and the code of the event that touched each last."""

    def keep(self, mask: NDArray[np.bool_]) -> int:
        """Keep the items where `mask` is true; return how many went."""
        before = len(self.items)
        self.items, self.covisits, self.recency = self.items[mask], self.covisits[mask], self.recency[mask]
        return before - len(self.items)


class ListMaker:
    """Makes lists on one world; keeps a pool for each placement, and the kernels' scratch."""

    def __init__(self) -> None:
        self._pools: dict[str, tuple[CompiledPlacement, Pool]] = {}
        self._scores: NDArray[np.float32] = np.zeros(0, np.float32)
        self._recency: NDArray[np.float32] = np.zeros(0, np.float32)
        self._marks: NDArray[np.int64] = np.zeros(0, np.int64)
        self._tick = 0
        self._removed: NDArray[np.int64] = np.zeros(len(REMOVED), np.int64)
        self._found = (np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.float32))

    def listing(
        self,
        world: World,
        compiled: CompiledPlacement,
        asked: PlacementRequest,
        visitor: Visitor,
        steps: list[Step],
    ) -> Listing:
        """Return what may be shown to this visitor, before rules that read more than the item."""
        profile = visitor.profile
        own = _NOTHING_OWN
        bought = capped = _NO_ITEMS
        if profile is not None:
            own = own_items(profile.state)
            constraints = compiled.placement.constraints
            if constraints.exclude_purchased and profile.purchases:
                bought = _indices(world, profile.purchases)
            if constraints.frequency_cap is not None:
                capped = _indices(world, over_cap(visitor, compiled.placement))
        return self._find(world, compiled, asked, (visitor.t, own, bought, capped), steps)

    def popular(
        self,
        world: World,
        compiled: CompiledPlacement,
        asked: PlacementRequest,
        when: tuple[float, int],
        why: str,
    ) -> list[LoggedChoice]:
        """Return the most popular items that may be shown to anybody."""
        t, count = when
        listing = self._find(world, compiled, asked, (t, _NOTHING_OWN, _NO_ITEMS, _NO_ITEMS), [])
        chosen, _, scores, _, _ = self._rank(world, listing, (_POPULAR_ONLY, _CERTAIN, 0), (-1, 0.0), count)
        ids = world.catalogue.ids
        pairs = zip(chosen.tolist(), scores.tolist(), strict=True)
        return [LoggedChoice(ids[index], 1.0, score, why) for index, score in pairs]

    def choices(
        self,
        world: World,
        compiled: CompiledPlacement,
        listing: Listing,
        visitor: Visitor,
        drawn: tuple[NDArray[np.float64], int, int],
    ) -> list[LoggedChoice]:
        """Return the list of the strategy that was drawn: (probabilities, its index, slots)."""
        probabilities, arm, count = drawn
        profile = visitor.profile
        primary = -1 if profile is None else _primary_cluster(world, profile)
        share = compiled.placement.constraints.diversity_share
        chosen, propensities, scores, leading, origins = self._rank(
            world, listing, (compiled.weights, probabilities, arm), (primary, share), count
        )
        ids, clusters = world.catalogue.ids, world.catalogue.cluster
        weights = world.popularity.weights
        own, events, name = listing.own, listing.own_events, world.vocabulary.name
        choices = []
        for index, propensity, score, source, origin in zip(
            chosen.tolist(),
            propensities.tolist(),
            scores.tolist(),
            leading.tolist(),
            origins.tolist(),
            strict=True,
        ):
            if source == 1:
                why = f"after:{name(events.item(origin))}:{ids[own.item(origin)]}"
            elif source == 0:
                why = "popular" if weights.item(index) > 0.0 else "unknown"
            else:
                why = f"own:{name(events.item(own.tolist().index(index)))}"
            if primary >= 0 and clusters.item(index) != primary:
                why = f"outside|{why}"
            choices.append(LoggedChoice(ids[index], min(propensity, 1.0), score, why))
        return choices

    def apply_rule(
        self, world: World, listing: Listing, rule: CompiledRule, visitor: Visitor
    ) -> tuple[int, int]:
        """Apply a rule that reads the item and the visitor; return how many it removed and failed on."""
        errors = 0
        keep = np.ones(len(listing.items), np.bool_)
        facts = visitor.facts_beside_item(rule.expression)
        for position, index in enumerate(listing.items.tolist()):
            item = world.catalogue.items[index]
            assert item is not None, "candidates are in the catalogue"
            try:
                matches = rule.expression.is_true(context_of({**facts, "item": item_facts(item)}))
            except RuleError:
                errors += 1
                matches = False
            keep[position] = matches != (rule.rule.then == "exclude")
        return listing.keep(keep), errors

    def pool(self, world: World, compiled: CompiledPlacement) -> Pool:
        """Return the placement's pool, up to date."""
        key = compiled.placement.key
        kept = self._pools.get(key)
        if kept is None or kept[0] is not compiled:
            pool = Pool(compiled)
            pool.fill(world.catalogue)
            kept = self._pools[key] = (compiled, pool)
        kept[1].refresh(world.catalogue, world.popularity)
        return kept[1]

    def _find(
        self,
        world: World,
        compiled: CompiledPlacement,
        asked: PlacementRequest,
        visitor: tuple[float, _Own, NDArray[np.int32], NDArray[np.int32]],
        steps: list[Step],
    ) -> Listing:
        t, own, bought, capped = visitor
        pool = self.pool(world, compiled)
        catalogue, query = world.catalogue, compiled.placement.candidates
        assert query is not None, "a list placement has candidates"
        self._reserve(world)
        named = _NO_ITEMS if asked.candidates is None else _indices(world, dict.fromkeys(asked.candidates))
        limit = max(query.limit, len(named))
        items, covisits, recency = self._room(limit)
        removed = self._removed
        removed[:] = 0
        switches = compiled.switches[asked.candidates is not None]
        self._tick += _TICKS
        count = find_candidates(
            own[0],
            STEPS_BACK,
            world.covisitation.followers,
            world.covisitation.weights,
            pool.popular,
            pool.is_member,
            named,
            switches,
            limit,
            catalogue.stock,
            catalogue.published,
            catalogue.expires,
            t,
            _indices(world, asked.exclude) if asked.exclude else _NO_ITEMS,
            bought,
            capped,
            self._scores,
            self._recency,
            self._marks,
            self._tick,
            items,
            covisits,
            recency,
            removed,
        )
        for name, number in pool.removed_by.items():
            if number:
                steps.append(Step(f"rule:{name}", removed=number))
        for name, number in zip(REMOVED, removed.tolist(), strict=True):
            if number:
                steps.append(Step(name, removed=number))
        return Listing(items[:count], covisits[:count], recency[:count], own)

    def _rank(
        self,
        world: World,
        listing: Listing,
        policy: tuple[NDArray[np.float64], NDArray[np.float64], int],
        diversity: tuple[int, float],
        count: int,
    ) -> tuple[NDArray[Any], ...]:
        strategies, probabilities, drawn = policy
        primary, share = diversity
        slots = min(count, len(listing.items))
        chosen = np.empty(slots, np.int32)
        propensities, scores = np.zeros(slots), np.zeros(slots)
        leading, origins = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
        rank_list(
            listing.items,
            listing.covisits,
            listing.recency,
            world.popularity.weights,
            world.popularity.last,
            world.popularity.newest,
            strategies,
            probabilities,
            drawn,
            world.catalogue.cluster,
            primary,
            share,
            listing.own,
            world.covisitation.followers,
            world.covisitation.weights,
            STEPS_BACK,
            chosen,
            propensities,
            scores,
            leading,
            origins,
        )
        return chosen, propensities, scores, leading, origins

    def _room(self, limit: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Return room for `limit` candidates with their scores; it is used again for the next list."""
        if limit > len(self._found[0]):
            self._found = (
                np.empty(limit, np.int32),
                np.empty(limit, np.float32),
                np.empty(limit, np.float32),
            )
        return self._found

    def _reserve(self, world: World) -> None:
        size = len(world.catalogue.stock)
        world.popularity.reserve(size)
        world.covisitation.reserve(size)
        if size > len(self._scores):
            self._scores, self._recency = np.zeros(size, np.float32), np.zeros(size, np.float32)
            self._marks = np.zeros(size, np.int64)


_TICKS = 8  # Marks that one call of the kernel may set: see `kernels`.


def _primary_cluster(world: World, profile: Profile) -> int:
    """Return the catalogue's cluster of the visitor's primary interest, -1 for none."""
    interest = primary_interest(world, profile)
    return -1 if interest is None else world.catalogue.clusters.get(interest, -1)


def _indices(world: World, keys: Any) -> NDArray[np.int32]:  # noqa: ANN401
    """Return the indices of the items that are known among `keys`."""
    index = world.catalogue.index
    return np.array([index[key] for key in keys if key in index], np.int32)
