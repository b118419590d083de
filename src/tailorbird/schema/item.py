"""Items of the catalogue: what lists are made of."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tailorbird.schema.placement import Identity, Time

Tags = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...], Meta(max_length=50)]


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """One product, article, film, lesson: anything that a list may show."""

    id: Identity
    type: str = "product"
    title: str = ""
    url: str | None = None
    image: str | None = None
    price: Annotated[float, Meta(ge=0.0)] | None = None
    stock: Annotated[int, Meta(ge=0)] | None = None
    """Units on hand; None where stock is not tracked."""
    categories: Tags = ()
    """The first is the item's interest cluster."""
    tags: Tags = ()
    attributes: dict[str, Any] = {}
    published_at: Time | None = None
    expires_at: Time | None = None


class ItemPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """The fields of an item that change; the others stay."""

    type: str | UnsetType = UNSET
    title: str | UnsetType = UNSET
    url: str | None | UnsetType = UNSET
    image: str | None | UnsetType = UNSET
    price: Annotated[float, Meta(ge=0.0)] | None | UnsetType = UNSET
    stock: Annotated[int, Meta(ge=0)] | None | UnsetType = UNSET
    categories: Tags | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    attributes: dict[str, Any] | UnsetType = UNSET
    published_at: Time | None | UnsetType = UNSET
    expires_at: Time | None | UnsetType = UNSET


def patched(item: Item, patch: ItemPatch) -> Item:
    """Return `item` with the fields that `patch` sets."""
    changes = {name: value for name, value in msgspec.structs.asdict(patch).items() if value is not UNSET}
    return msgspec.structs.replace(item, **changes)


class ItemsPut(msgspec.Struct, frozen=True, tag_field="k", tag="items_put"):
    """Items written to the catalogue, whole."""

    r: float
    items: tuple[Item, ...]


class ItemPatched(msgspec.Struct, frozen=True, tag_field="k", tag="item_patch"):
    """One item changed in part."""

    r: float
    id: str
    patch: ItemPatch


class ItemDeleted(msgspec.Struct, frozen=True, tag_field="k", tag="item_delete"):
    """One item removed from the catalogue."""

    r: float
    id: str
