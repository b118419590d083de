"""The catalogue in memory: items by index, their stock and cluster as columns, and a journal of changes.

An item keeps its index for good, also when it leaves the catalogue and comes back, so that counts by
index stay its own. An item that events name before the catalogue does gets an index too, and is not
shown until it is put.
"""

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird.clock import parse_time
from tailorbird.limits import ITEM_IDS_MAX, NAMED_ITEMS_MAX
from tailorbird.schema.item import Item

_FIRST_CAPACITY = 1024
_FOREVER = float("inf")


class Shelf(msgspec.Struct):
    """How an item is kept in the state: its index and, while it is in the catalogue, itself."""

    index: int
    item: Item | None


class Catalogue:
    """Items by index."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.index: dict[str, int] = {}
        self.items: list[Item | None] = []
        self.values: list[msgspec.Raw] = []
        self.size = 0
        """Items that can be shown."""
        self.stock: NDArray[np.int64] = np.zeros(_FIRST_CAPACITY, np.int64)
        self.cluster: NDArray[np.int32] = np.full(_FIRST_CAPACITY, -1, np.int32)
        self.published: NDArray[np.float64] = np.zeros(_FIRST_CAPACITY)
        self.expires: NDArray[np.float64] = np.full(_FIRST_CAPACITY, _FOREVER)
        self.clusters: dict[str, int] = {}
        self.journal: list[int] = []
        """Index of every item that changed, in order; its length is the catalogue's version."""

    def load(self, shelves: Iterable[tuple[str, Shelf]]) -> None:
        """Take in the state's items, in any order."""
        ordered = sorted(shelves, key=lambda entry: entry[1].index)
        for key, shelf in ordered:
            self._claim(key)
            if shelf.item is not None:
                self._set(shelf.index, shelf.item)

    def put(self, item: Item) -> int:
        """Add or replace an item; return its index."""
        index = self._claim(item.id)
        self._set(index, item)
        return index

    def remove(self, key: str) -> int | None:
        """Take an item out; return its index, None where it was not in."""
        index = self.index.get(key)
        if index is None or self.items[index] is None:
            return None
        self.items[index] = None
        self.size -= 1
        self.journal.append(index)
        return index

    def get(self, key: str) -> Item | None:
        """Return the item that can be shown under `key`."""
        index = self.index.get(key)
        return None if index is None else self.items[index]

    def find(self, key: str) -> int:
        """Return the index of an item that was ever named, -1 for another."""
        return self.index.get(key, -1)

    def seen(self, key: str) -> tuple[int, bool]:
        """Return the index of an item that an event names, and whether it is new; -1 without room.

        Anybody with the public write key can make up ids: they have a bound of their own, which leaves
        the catalogue its room.
        """
        index = self.index.get(key)
        if index is not None:
            return index, False
        if len(self.ids) - self.size >= NAMED_ITEMS_MAX or len(self.ids) >= ITEM_IDS_MAX:
            return -1, False
        return self._claim(key), True

    def _claim(self, key: str) -> int:
        index = self.index.get(key)
        if index is not None:
            return index
        index = len(self.ids)
        self.ids.append(key)
        self.index[key] = index
        self.items.append(None)
        self.values.append(_NOTHING)
        if index >= len(self.stock):
            more = len(self.stock)
            self.stock = np.pad(self.stock, (0, more))
            self.cluster = np.pad(self.cluster, (0, more), constant_values=-1)
            self.published = np.pad(self.published, (0, more))
            self.expires = np.pad(self.expires, (0, more), constant_values=_FOREVER)
        return index

    def _set(self, index: int, item: Item) -> None:
        self.size += self.items[index] is None
        self.items[index] = item
        self.values[index] = msgspec.Raw(msgspec.json.encode(_shown(item)))
        self.stock[index] = -1 if item.stock is None else item.stock
        self.cluster[index] = self._cluster_of(item)
        self.published[index] = parse_time(item.published_at) if item.published_at else 0.0
        self.expires[index] = parse_time(item.expires_at) if item.expires_at else _FOREVER
        self.journal.append(index)

    def _cluster_of(self, item: Item) -> int:
        if not item.categories:
            return -1
        return self.clusters.setdefault(item.categories[0], len(self.clusters))


_NOTHING = msgspec.Raw(b"null")


def _shown(item: Item) -> dict[str, object]:
    """Return what a site needs to show the item; stock and margins stay here."""
    fields = {
        "title": item.title,
        "url": item.url,
        "image": item.image,
        "price": item.price,
        "categories": item.categories,
    }
    return {name: value for name, value in fields.items() if value not in (None, "", ())}
