"""A pool kept up to date by the journal is a pool made afresh."""

from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.decide.compiled import CompiledPlacement, check
from tailorbird.decide.pool import Pool, item_facts
from tailorbird.limits import REFRESH_UPDATES
from tailorbird.live.catalogue import Catalogue
from tailorbird.rankers.covisitation import Covisitation
from tailorbird.rankers.observed import observe_item
from tailorbird.rankers.popularity import Popularity
from tailorbird.schema.item import Item, ItemPatch, patched
from tailorbird.schema.placement import Placement

NOW = 1_700_000_000.0
QUERY = "item.stock > 0 && item.type == 'product'"
RULES = [
    {"name": "margin", "when": "item.margin < 0.2", "then": "exclude"},
    {"name": "shoes", "when": "'shoes' in item.categories", "then": "only"},
    {"name": "personal", "when": "item.price > profile.budget", "then": "exclude"},
]


def placement_of(query: str | None, rules: list[dict[str, Any]], limit: int = 100) -> CompiledPlacement:
    candidates = {"limit": limit} | ({} if query is None else {"query": query})
    fields = {"key": "list", "kind": "list", "candidates": candidates, "rules": rules}
    return CompiledPlacement(check(msgspec.convert(fields, Placement)))


def fresh_pool(compiled: CompiledPlacement, catalogue: Catalogue, popularity: Popularity) -> Pool:
    pool = Pool(compiled)
    pool.fill(catalogue)
    pool.refresh(catalogue, popularity)
    return pool


def members(pool: Pool) -> list[int]:
    return np.flatnonzero(pool.is_member).tolist()


def admits(item: Item | None, rules: list[dict[str, Any]], query: str | None) -> bool:
    """Judge an item by the rules of this file, in Python."""
    if item is None:
        return False
    if query is not None and not (item.stock != 0 and item.type == "product"):
        return False
    margin = item.attributes.get("margin")
    by_name = {
        "margin": not (isinstance(margin, float) and margin < 0.2),  # Of another kind: not matched.
        "shoes": "shoes" in item.categories,
        "personal": True,
    }
    return all(by_name[rule["name"]] for rule in rules)


keys = st.integers(0, 12).map(lambda number: f"i{number}")
items = st.builds(
    Item,
    keys,
    type=st.sampled_from(["product", "article"]),
    stock=st.none() | st.integers(0, 2),
    categories=st.sampled_from([(), ("shoes",), ("hats", "shoes"), ("hats",)]),
    attributes=st.sampled_from([{}, {"margin": 0.1}, {"margin": 0.5}, {"margin": "none"}]),
)
patches = st.one_of(
    st.builds(ItemPatch, stock=st.none() | st.integers(0, 2)),
    st.builds(ItemPatch, categories=st.sampled_from([(), ("shoes",)])),
)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), items),
        st.tuples(st.just("patch"), keys, patches),
        st.tuples(st.just("remove"), keys),
        st.tuples(st.just("seen"), keys),
        st.tuples(st.just("want"), keys),
        st.tuples(st.just("refresh")),
    ),
    max_size=30,
)


@settings(max_examples=80, deadline=None)
@given(
    history=changes,
    query=st.sampled_from([None, QUERY]),
    rules=st.lists(st.sampled_from(RULES), unique_by=lambda rule: rule["name"], max_size=3),
)
def test_a_pool_that_follows_the_journal_is_one_made_afresh(history, query, rules):
    compiled = placement_of(query, rules)
    catalogue, popularity, covisitation = Catalogue(), Popularity(), Covisitation()
    followed = Pool(compiled)
    followed.fill(catalogue)
    for kind, *rest in history:
        if kind == "put":
            catalogue.put(rest[0])
        elif kind == "patch" and (item := catalogue.get(rest[0])) is not None:
            catalogue.put(patched(item, rest[1]))
        elif kind in ("remove", "seen"):
            getattr(catalogue, kind)(rest[0])
        elif kind == "want":
            index = catalogue.seen(rest[0])[0]
            for _ in range(REFRESH_UPDATES):  # The ranking is renewed once in so many counts.
                observe_item(popularity, covisitation, (index, NOW, 1.0), np.zeros(0, np.int32))
        elif kind == "refresh":
            followed.refresh(catalogue, popularity)
    followed.refresh(catalogue, popularity)
    fresh = fresh_pool(compiled, catalogue, popularity)
    assert members(followed) == members(fresh)
    assert followed.popular.tolist() == fresh.popular.tolist()
    assert followed.removed_by == fresh.removed_by
    assert sum(fresh.removed_by.values()) <= catalogue.size - len(members(fresh))
    assert members(fresh) == [
        index for index, item in enumerate(catalogue.items) if admits(item, rules, query)
    ]


def test_the_popular_members_come_first_and_ties_by_index():
    catalogue, popularity, covisitation = Catalogue(), Popularity(), Covisitation()
    for number in range(6):
        catalogue.put(Item(f"i{number}"))
    for index, times in ((4, 2), (2, 2), (5, 1)):
        for _ in range(times):
            observe_item(popularity, covisitation, (index, NOW, 1.0), np.zeros(0, np.int32))
    pool = fresh_pool(placement_of(None, []), catalogue, popularity)
    assert pool.popular.tolist() == [2, 4, 5, 0, 1, 3]


def test_more_popular_members_are_kept_than_the_limit_but_not_all():
    catalogue = Catalogue()
    for number in range(50):
        catalogue.put(Item(f"i{number}"))
    assert len(fresh_pool(placement_of(None, [], limit=4), catalogue, Popularity()).popular) == 12


def test_a_pool_grows_past_its_first_capacity():
    catalogue, popularity = Catalogue(), Popularity()
    compiled = placement_of(None, [])
    pool = Pool(compiled)
    pool.fill(catalogue)
    for number in range(3_000):
        catalogue.put(Item(f"i{number}"))
    pool.refresh(catalogue, popularity)
    assert members(pool) == list(range(3_000))


def test_rules_see_an_items_fields_and_its_attributes_beside_them():
    item = Item(
        "a",
        categories=("shoes", "red"),
        tags=("new",),
        attributes={"margin": 0.3, "title": "spoofed"},
        title="A",
    )
    facts = item_facts(item)
    assert (facts["category"], facts["categories"], facts["tags"]) == ("shoes", ["shoes", "red"], ["new"])
    assert (facts["margin"], facts["attributes"]["margin"]) == (0.3, 0.3)
    assert facts["title"] == "A", "an attribute does not hide a field"
    assert facts["stock"] > 0, "what is not tracked is never out of stock"
    assert (facts["publishedAt"], facts["expiresAt"]) == (None, None)
