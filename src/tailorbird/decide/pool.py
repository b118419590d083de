"""The pool of a list placement: which items it may hold, kept up to date item by item.

Evaluating a query over the whole catalogue on each request would cost a microsecond an item. The pool
keeps the answer as a mask and looks again only at items that the catalogue's journal names, so that a
change of stock or price acts on the next decision. The most popular members are kept in order, renewed
with the popularity's own ranking.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird.decide.compiled import CompiledPlacement
from tailorbird.live.catalogue import Catalogue
from tailorbird.rankers.popularity import Popularity
from tailorbird.rules.cel import Expression, RuleError, context_of
from tailorbird.schema.item import Item

_POPULAR_SPARE = 3  # Kept beyond the limit, so that what is excluded on request leaves enough.


class Pool:
    """Members of one list placement."""

    def __init__(self, compiled: CompiledPlacement) -> None:
        candidates = compiled.placement.candidates
        assert candidates is not None, "a list placement has candidates"
        self._limit = candidates.limit
        self._query = compiled.query
        self._rules = [rule for rule in compiled.rules if rule.is_static]
        self.is_member: NDArray[np.bool_] = np.zeros(1024, np.bool_)
        self.removed_by: dict[str, int] = {rule.rule.name: 0 for rule in self._rules}
        self.popular: NDArray[np.int32] = np.zeros(0, np.int32)
        self.errors = 0
        self._removed: dict[int, str] = {}
        self._journal = 0
        self._popularity_version = -1

    def fill(self, catalogue: Catalogue) -> None:
        """Judge every item once; from here on the journal says what to look at again."""
        self.is_member = np.zeros(len(catalogue.stock), np.bool_)
        for index, item in enumerate(catalogue.items):
            if item is not None:
                self._judge(index, item)
        self._journal = len(catalogue.journal)

    def refresh(self, catalogue: Catalogue, popularity: Popularity) -> None:
        """Bring the pool up to date with the catalogue and the ranking; a comparison when nothing changed."""
        if self._journal == len(catalogue.journal) and self._popularity_version == popularity.version:
            return
        if len(catalogue.ids) > len(self.is_member):
            self.is_member = np.pad(self.is_member, (0, max(len(catalogue.ids), 2 * len(self.is_member))))
        for index in dict.fromkeys(catalogue.journal[self._journal :]):
            self._judge(index, catalogue.items[index])
        self._journal = len(catalogue.journal)
        self._popularity_version = popularity.version
        popularity.reserve(len(catalogue.ids))
        members = np.flatnonzero(self.is_member).astype(np.int32)
        scores = popularity.scores(members)
        keep = min(len(members), _POPULAR_SPARE * self._limit)
        order = np.lexsort((members, -scores))[:keep]
        self.popular = members[order]

    def _judge(self, index: int, item: Item | None) -> None:
        gone = self._removed.pop(index, None)
        if gone is not None:
            self.removed_by[gone] -= 1
        self.is_member[index] = item is not None and self._admits(index, item)

    def _admits(self, index: int, item: Item) -> bool:
        if self._query is None and not self._rules:
            return True
        context = context_of({"item": item_facts(item)})
        if self._query is not None and not self._holds(self._query, context):
            return False
        for rule in self._rules:
            matches = self._holds(rule.expression, context)
            if matches == (rule.rule.then == "exclude"):
                self._removed[index] = rule.rule.name
                self.removed_by[rule.rule.name] += 1
                return False
        return True

    def _holds(self, expression: Expression, context: Any) -> bool:  # noqa: ANN401
        try:
            return expression.is_true(context)
        except RuleError:
            self.errors += 1  # A field that this item lacks: the rule does not match it.
            return False


def item_facts(item: Item) -> dict[str, Any]:
    """Return what rules see as `item`: its fields, with its attributes beside them."""
    facts = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in msgspec.structs.asdict(item).items()
        if name != "attributes"
    }
    facts["attributes"] = item.attributes
    facts["category"] = item.categories[0] if item.categories else ""
    facts["publishedAt"] = facts.pop("published_at")
    facts["expiresAt"] = facts.pop("expires_at")
    if facts["stock"] is None:
        facts["stock"] = 1_000_000_000  # Not tracked: never out of stock.
    return {**item.attributes, **facts}
