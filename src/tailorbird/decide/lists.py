"""Lists: candidates from the sources, the constraints that remove some, and the ranking of each strategy."""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird.decide.assemble import assemble
from tailorbird.decide.compiled import CompiledPlacement, CompiledRule
from tailorbird.decide.explain import (
    BECAUSE_OUTSIDE,
    BECAUSE_POPULAR,
    because_of_item,
    because_recent,
)
from tailorbird.decide.pool import Pool, item_facts
from tailorbird.decide.visitor import Visitor, profile_facts
from tailorbird.features.view import primary_interest
from tailorbird.live.world import World
from tailorbird.rankers import recency
from tailorbird.rankers.covisitation import STEPS_BACK
from tailorbird.rules.cel import RuleError, context_of
from tailorbird.schema.decision import LoggedChoice, PlacementRequest, Step
from tailorbird.schema.profile import Profile, Recent

_NO_ITEMS: NDArray[np.int32] = np.zeros(0, np.int32)
_NOT_BEHAVIOUR = ("Decision Viewed", "Experiment Viewed")


class Listing:
    """The candidates of one list: indices, the most popular first, and the visitor's own items."""

    __slots__ = ("_world", "items", "own", "recents", "steps")

    def __init__(self, world: World, items: NDArray[np.int32], steps: list[Step]) -> None:
        self._world = world
        self.items = items
        self.own: NDArray[np.int32] = _NO_ITEMS
        self.recents: list[Recent] = []
        self.steps = steps

    def keep(self, mask: NDArray[np.bool_], step: str) -> None:
        """Keep the items where `mask` is true, and say how many a step removed."""
        kept = self.items[mask]
        if len(kept) < len(self.items):
            self.steps.append(Step(step, removed=len(self.items) - len(kept)))
            self.items = kept

    def ids(self) -> set[str]:
        """Return the ids of the candidates."""
        ids = self._world.catalogue.ids
        return {ids[index] for index in self.items.tolist()}


class Ranked(msgspec.Struct):
    """What each strategy would show."""

    lists: NDArray[np.int64]
    """Shape (strategies, slots): positions in the listing, -1 for none."""
    scores: NDArray[np.float64]
    """Shape (strategies, items)."""
    parts: NDArray[np.float64]
    """Shape (sources, items): each source's score, the best item 1."""
    sources: tuple[str, ...]
    weights: NDArray[np.float64]
    primary: int


class ListMaker:
    """Makes lists on one world; keeps a pool for each placement."""

    def __init__(self) -> None:
        self._pools: dict[str, tuple[CompiledPlacement, Pool]] = {}

    def listing(
        self,
        world: World,
        compiled: CompiledPlacement,
        asked: PlacementRequest,
        visitor: Visitor,
        steps: list[Step],
    ) -> Listing:
        """Return what may be shown to this visitor, before rules that read more than the item."""
        pool = self._pool(world, compiled)
        listing = Listing(world, _NO_ITEMS, steps)
        if visitor.profile is not None:
            listing.own, listing.recents = _own_items(world, visitor.profile)
        listing.items = self._candidates(world, compiled, pool, asked, listing.own)
        _report_static_rules(pool, steps)
        self._constrain(world, compiled, asked, visitor.t, listing)
        if visitor.profile is not None:
            self._constrain_personally(world, compiled, visitor, visitor.profile, listing)
        return listing

    def rank(
        self,
        world: World,
        compiled: CompiledPlacement,
        listing: Listing,
        visitor: Visitor,
        count: int,
    ) -> Ranked:
        """Return what every strategy would show from `listing`."""
        items = listing.items
        parts = np.zeros((len(compiled.sources), len(items)))
        for row, source in enumerate(compiled.sources):
            if source == "popularity":
                parts[row] = _scaled(world.popularity.scores(items))
            elif len(listing.own):
                if source == "covisitation":
                    found, scores = world.covisitation.scores(listing.own[:STEPS_BACK])
                else:
                    found, scores = _sorted_by_index(listing.own, recency.scores(listing.own))
                parts[row] = _scaled(_spread(items, found, scores))
        scores = compiled.weights @ parts
        primary = self._primary(world, visitor)
        share = compiled.placement.constraints.diversity_share
        slots = min(count, len(items))
        outside = math.ceil(share * slots - 1e-9) if primary >= 0 else 0
        clusters = world.catalogue.cluster[items]
        lists = assemble(scores, clusters, primary, outside, slots)
        return Ranked(lists, scores, parts, compiled.sources, compiled.weights, primary)

    def choices(
        self,
        world: World,
        listing: Listing,
        ranked: Ranked,
        probabilities: NDArray[np.float64],
        arm: int,
    ) -> list[LoggedChoice]:
        """Return the drawn strategy's list; a slot's propensity is that of every strategy showing the same."""
        chosen = ranked.lists[arm]
        propensities = (probabilities @ (ranked.lists == chosen)).tolist()
        positions = chosen[chosen >= 0]
        items = listing.items[positions]
        scores = ranked.scores[arm][positions].tolist()
        reasons = _reasons(world, listing, ranked, arm, positions)
        ids = world.catalogue.ids
        return [
            LoggedChoice(ids[index], min(propensities[slot], 1.0), scores[slot], reasons[slot])
            for slot, index in enumerate(items.tolist())
        ]

    def popular(
        self,
        world: World,
        compiled: CompiledPlacement,
        asked: PlacementRequest,
        when: tuple[float, int],
        because: list[str],
    ) -> list[LoggedChoice]:
        """Return the most popular items that may be shown to anybody."""
        t, count = when
        pool = self._pool(world, compiled)
        listing = Listing(world, self._candidates(world, compiled, pool, asked, _NO_ITEMS), [])
        self._constrain(world, compiled, asked, t, listing)
        items = listing.items[:count]
        scores = world.popularity.scores(items).tolist()
        ids = world.catalogue.ids
        return [
            LoggedChoice(ids[index], 1.0, score, because or [BECAUSE_POPULAR])
            for index, score in zip(items.tolist(), scores, strict=True)
        ]

    def apply_rule(
        self, world: World, listing: Listing, rule: CompiledRule, visitor: Visitor
    ) -> int:
        """Apply a rule that reads the item and the visitor; return on how many items it failed."""
        errors = 0
        keep = np.ones(len(listing.items), np.bool_)
        fields = rule.expression.fields("profile")
        facts: dict[str, Any] = {"context": visitor.context, "now": visitor.t}
        if "profile" in rule.expression.variables:
            profile = visitor.profile or Profile("", "", 0.0, 0.0)
            facts["profile"] = profile_facts(profile, fields, visitor.t)
        context = context_of(facts)
        for position, index in enumerate(listing.items.tolist()):
            item = world.catalogue.items[index]
            assert item is not None, "candidates are in the catalogue"
            context.add_variable("item", item_facts(item))
            try:
                matches = rule.expression.is_true(context)
            except RuleError:
                errors += 1
                matches = False
            keep[position] = matches != (rule.rule.then == "exclude")
        listing.keep(keep, f"rule:{rule.rule.name}")
        return errors

    def _pool(self, world: World, compiled: CompiledPlacement) -> Pool:
        key = compiled.placement.key
        kept = self._pools.get(key)
        if kept is None or kept[0] is not compiled:
            kept = self._pools[key] = (compiled, _filled_pool(world, compiled))
        kept[1].refresh(world.catalogue, world.popularity)
        return kept[1]

    def _candidates(
        self,
        world: World,
        compiled: CompiledPlacement,
        pool: Pool,
        asked: PlacementRequest,
        own: NDArray[np.int32],
    ) -> NDArray[np.int32]:
        """Return member indices, the most popular first: those asked for, else what the sources find."""
        query = compiled.placement.candidates
        assert query is not None, "a list placement has candidates"
        if asked.candidates is not None:
            index = world.catalogue.index
            named = np.array(
                [index[key] for key in dict.fromkeys(asked.candidates) if key in index], np.int32
            )
            return _by_popularity(world, named[pool.is_member[named]] if len(named) else named)
        found = [own] if "recency" in query.sources else []
        if "covisitation" in query.sources and len(own):
            followers, scores = world.covisitation.scores(own[:STEPS_BACK])
            if len(followers) > query.limit:
                followers = followers[np.argsort(-scores, kind="stable")[: query.limit]]
            found.append(followers)
        if not any(len(part) for part in found):
            return pool.popular[: query.limit + len(asked.exclude)]
        personal = np.unique(np.concatenate(found))
        personal = personal[pool.is_member[personal]][: query.limit]
        room = query.limit + len(asked.exclude) - len(personal)
        popular = pool.popular[~np.isin(pool.popular, personal)][: max(room, 0)]
        return _by_popularity(world, np.concatenate([personal, popular]))

    def _constrain(
        self,
        world: World,
        compiled: CompiledPlacement,
        asked: PlacementRequest,
        t: float,
        listing: Listing,
    ) -> None:
        """Apply what holds for anybody: the request's exclusions, stock and dates."""
        catalogue = world.catalogue
        if asked.exclude:
            index = catalogue.index
            excluded = {index[key] for key in asked.exclude if key in index}
            if excluded:
                listing.keep(~np.isin(listing.items, np.fromiter(excluded, np.int32)), "exclude")
        items = listing.items
        if compiled.placement.constraints.in_stock:
            listing.keep(catalogue.stock[items] != 0, "stock")
            items = listing.items
        listing.keep((catalogue.published[items] <= t) & (t < catalogue.expires[items]), "dates")

    def _constrain_personally(
        self,
        world: World,
        compiled: CompiledPlacement,
        visitor: Visitor,
        profile: Profile,
        listing: Listing,
    ) -> None:
        """Apply what depends on the visitor: items bought already, and items shown often enough."""
        constraints = compiled.placement.constraints
        index = world.catalogue.index
        if constraints.exclude_purchased and profile.purchases:
            bought = [index[key] for key in profile.purchases if key in index]
            listing.keep(~np.isin(listing.items, np.array(bought, np.int32)), "excludePurchased")
        cap = constraints.frequency_cap
        at = profile.placements.get(compiled.placement.key)
        if cap is not None and at is not None:
            times: dict[str, int] = {}
            for t, choice in at.shown:
                if visitor.t - cap.window_seconds < t <= visitor.t:
                    times[choice] = times.get(choice, 0) + 1
            often = [index[key] for key, n in times.items() if n >= cap.count and key in index]
            if often:
                listing.keep(~np.isin(listing.items, np.array(often, np.int32)), "frequencyCap")

    def _primary(self, world: World, visitor: Visitor) -> int:
        if visitor.profile is None:
            return -1
        interest = primary_interest(visitor.profile, visitor.t)
        return -1 if interest is None else world.catalogue.clusters.get(interest, -1)


def _filled_pool(world: World, compiled: CompiledPlacement) -> Pool:
    """Return a pool that has judged every item once."""
    pool = Pool(compiled)
    pool.fill(world.catalogue)
    return pool


def _report_static_rules(pool: Pool, steps: list[Step]) -> None:
    for name, removed in pool.removed_by.items():
        if removed:
            steps.append(Step(f"rule:{name}", removed=removed))


def _own_items(world: World, profile: Profile) -> tuple[NDArray[np.int32], list[Recent]]:
    """Return the visitor's distinct items, newest first, with the event each was last touched by."""
    index = world.catalogue.index
    found: dict[int, Recent] = {}
    for recent in reversed(profile.recent):
        if recent.item and recent.event not in _NOT_BEHAVIOUR:
            position = index.get(recent.item)
            if position is not None and position not in found:
                found[position] = recent
    return np.fromiter(found, np.int32, len(found)), list(found.values())


def _by_popularity(world: World, items: NDArray[np.int32]) -> NDArray[np.int32]:
    if len(items) == 0:
        return items.astype(np.int32)
    world.popularity.reserve(int(items.max()) + 1)
    return items[np.lexsort((items, -world.popularity.scores(items)))]


def _scaled(scores: NDArray[Any]) -> NDArray[np.float64]:
    top = float(scores.max(initial=0.0))
    return scores / top if top > 0 else np.zeros(len(scores))


def _sorted_by_index(
    items: NDArray[np.int32], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    order = np.argsort(items)
    return items[order], scores[order]


def _spread(
    items: NDArray[np.int32], found: NDArray[np.int32], scores: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the score of each of `items`, 0 where it is not in `found` (sorted)."""
    if not len(found):
        return np.zeros(len(items))
    at = np.minimum(np.searchsorted(found, items), len(found) - 1)
    return np.where(found[at] == items, scores[at], 0.0)


def _reasons(
    world: World, listing: Listing, ranked: Ranked, arm: int, positions: NDArray[np.int64]
) -> list[list[str]]:
    """Return, for each slot, why: the source that gave most of its score, in words."""
    given = ranked.weights[arm][:, None] * ranked.parts[:, positions]
    leading = given.argmax(axis=0).tolist()
    strength = given.max(axis=0).tolist()
    catalogue = world.catalogue
    items = listing.items[positions].tolist()
    reasons = []
    for slot, index in enumerate(items):
        source = ranked.sources[leading[slot]] if strength[slot] > 0 else "popularity"
        if source == "covisitation":
            origin = world.covisitation.origin(listing.own[:STEPS_BACK], index)
            recent = listing.recents[origin]
            item = catalogue.get(recent.item)
            title = item.title if item is not None and item.title else recent.item
            sentence = because_of_item(recent.event, title)
        elif source == "recency":
            sentence = because_recent(listing.recents[listing.own.tolist().index(index)])
        else:
            sentence = BECAUSE_POPULAR
        sentences = [sentence]
        if ranked.primary >= 0 and catalogue.cluster.item(index) != ranked.primary:
            sentences.append(BECAUSE_OUTSIDE)
        reasons.append(sentences)
    return reasons
