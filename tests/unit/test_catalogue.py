"""The catalogue: items keep their index for good, columns follow items, the journal names every change."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.live import catalogue as catalogue_module
from tailorbird.live.catalogue import Catalogue, Shelf
from tailorbird.schema.item import Item, ItemPatch, patched


def test_an_item_is_there_from_put_to_remove():
    catalogue = Catalogue()
    index = catalogue.put(Item("a", title="A", stock=3, categories=("shoes", "red")))
    assert catalogue.get("a").title == "A"
    assert (catalogue.size, catalogue.stock[index]) == (1, 3)
    assert catalogue.cluster[index] == catalogue.clusters["shoes"]
    assert catalogue.remove("a") == index
    assert catalogue.get("a") is None
    assert (catalogue.size, catalogue.journal) == (0, [index, index])
    assert catalogue.remove("a") is catalogue.remove("never") is None
    assert catalogue.size == 0


def test_an_item_that_comes_back_has_its_old_index():
    catalogue = Catalogue()
    first = catalogue.put(Item("a"))
    catalogue.put(Item("b"))
    catalogue.remove("a")
    assert catalogue.put(Item("a", stock=0)) == first
    assert catalogue.stock[first] == 0


def test_stock_that_is_not_tracked_is_minus_one():
    catalogue = Catalogue()
    assert catalogue.stock[catalogue.put(Item("a"))] == -1


def test_dates_bound_when_an_item_may_be_shown():
    catalogue = Catalogue()
    index = catalogue.put(Item("a", published_at="2024-01-01T00:00:00Z", expires_at="2024-02-01T00:00:00Z"))
    assert catalogue.published[index] == 1_704_067_200.0
    assert catalogue.expires[index] == 1_706_745_600.0
    catalogue.put(Item("a"))
    assert (catalogue.published[index], catalogue.expires[index]) == (0.0, float("inf"))


def test_an_item_that_only_events_name_has_an_index_and_is_not_shown():
    catalogue = Catalogue()
    assert catalogue.seen("a") == (0, True)
    assert catalogue.seen("a") == (0, False)
    assert catalogue.get("a") is None
    assert (catalogue.size, catalogue.journal) == (0, [])
    assert catalogue.put(Item("a")) == 0
    assert catalogue.seen("a") == (0, False)


def test_items_that_events_name_are_bounded(monkeypatch):
    monkeypatch.setattr(catalogue_module, "NAMED_ITEMS_MAX", 2)
    catalogue = Catalogue()
    assert [catalogue.seen(key) for key in "aabc"] == [(0, True), (0, False), (1, True), (-1, False)]
    assert "c" not in catalogue.index
    assert catalogue.put(Item("c")) == 2, "the catalogue's own items have their room"
    assert catalogue.seen("d") == (-1, False)
    catalogue.put(Item("a"))
    assert catalogue.seen("d") == (3, True)


def test_a_site_is_given_what_it_shows_and_not_stock_or_attributes():
    catalogue = Catalogue()
    index = catalogue.put(Item("a", title="A", price=9.5, stock=4, attributes={"margin": 0.3}, url="/a"))
    assert msgspec.json.decode(catalogue.values[index]) == {"title": "A", "price": 9.5, "url": "/a"}


def test_a_patch_changes_its_fields_and_no_others():
    item = Item("a", title="A", price=9.5, stock=4)
    patch = msgspec.json.decode(b'{"stock": 0, "price": null}', type=ItemPatch)
    assert patched(item, patch) == Item("a", title="A", price=None, stock=0)
    assert patched(item, ItemPatch()) == item


@pytest.mark.parametrize("body", [b'{"id": "b"}', b'{"stock": -1}', b'{"stock": null, "colour": "red"}'])
def test_a_patch_is_strict(body):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=ItemPatch)


changes = st.lists(
    st.tuples(st.sampled_from(["put", "remove", "seen"]), st.integers(0, 30), st.integers(0, 3)), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(history=changes, order=st.randoms(use_true_random=False))
def test_a_catalogue_loaded_from_its_shelves_is_the_same(history, order):
    live = Catalogue()
    for kind, number, stock in history:
        key = f"i{number}"
        if kind == "put":
            live.put(Item(key, stock=stock, categories=(f"c{number % 3}",)))
        else:
            getattr(live, kind)(key)
    shelves = [(key, Shelf(index, live.items[index])) for key, index in live.index.items()]
    loaded = Catalogue()
    loaded.load(order.sample(shelves, len(shelves)))
    assert (loaded.ids, loaded.index, loaded.items, loaded.size) == (
        live.ids,
        live.index,
        live.items,
        live.size,
    )
    names = {number: name for name, number in loaded.clusters.items()}
    for index, item in enumerate(loaded.items):
        if item is not None:
            assert loaded.stock[index] == item.stock
            assert names[int(loaded.cluster[index])] == item.categories[0]
    assert live.size == sum(item is not None for item in live.items)


def test_columns_grow_with_the_catalogue():
    catalogue = Catalogue()
    for number in range(1500):
        catalogue.put(Item(f"i{number}", stock=number))
    assert catalogue.stock[1499] == 1499
    assert catalogue.cluster[1499] == -1
    assert catalogue.expires[1499] == float("inf")
    assert len(catalogue.stock) == len(catalogue.cluster) == len(catalogue.expires)
