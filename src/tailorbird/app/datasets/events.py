"""A shop's log as Segment events: what a web shop would have sent, had it run.

For each line of a basket a `Product Added`, for the whole an `Order Completed` a moment after the last
line, for a notice an `identify` or an event of its own name.
"""

from collections.abc import Iterator
from typing import Any, Final

from tailorbird.app.datasets.shop import Basket, Line, Notice, Shop
from tailorbird.schema.item import Item

ORDERED_AFTER_SECONDS: Final = 0.25
ORDER_PRODUCTS_MAX: Final = 250  # An event may have 32 KiB; a product takes some 110 bytes.
ORDERED: Final = "Order Completed"


def who(basket: Basket) -> dict[str, str]:
    """Return the visitor as requests name them: the customer, or a stranger of one basket."""
    if basket.visitor is None:
        return {"anonymousId": f"basket-{basket.id}"}
    return {"userId": basket.visitor}


def added(basket: Basket, index: int, item: Item) -> dict[str, Any]:
    """Return the event of the basket's line at `index`, without its time."""
    line = basket.lines[index]
    properties = {**_product(line, item), "name": item.title, "order_id": basket.id}
    return _track("Product Added", f"{basket.id}-{index}", properties) | who(basket)


def ordered(basket: Basket, items: dict[str, Item], currency: str) -> dict[str, Any]:
    """Return the event of the whole basket, without its time."""
    revenue = sum(line.price * line.quantity for line in basket.lines)
    properties = {
        "order_id": basket.id,
        "revenue": round(revenue, 2),
        "currency": currency,
        "products": [_product(line, items[line.item]) for line in basket.lines[:ORDER_PRODUCTS_MAX]],
    }
    return _track(ORDERED, f"{basket.id}-order", properties) | who(basket)


def noticed(notice: Notice) -> dict[str, Any]:
    """Return the event of a notice, without its time."""
    event = (
        {"type": "identify", "messageId": notice.id, "traits": notice.fields}
        if notice.event is None
        else _track(notice.event, notice.id, notice.fields)
    )
    return event | {"userId": notice.visitor}


def ordered_at(basket: Basket) -> float:
    """Return when a basket was paid for, epoch seconds."""
    return basket.lines[-1].t + ORDERED_AFTER_SECONDS


def events_of(shop: Shop) -> list[tuple[float, dict[str, Any]]]:
    """Return every event of a shop with its time, epoch seconds, in the order of their times."""
    return sorted(_events(shop), key=lambda entry: entry[0])


def _events(shop: Shop) -> Iterator[tuple[float, dict[str, Any]]]:
    items = {item.id: item for item in shop.items}
    for notice in shop.notices:
        yield notice.start, noticed(notice)
    for basket in shop.baskets:
        for index, line in enumerate(basket.lines):
            yield line.t, added(basket, index, items[line.item])
        yield ordered_at(basket), ordered(basket, items, shop.currency)


def _track(event: str, message_id: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "track", "event": event, "messageId": message_id, "properties": properties}


def _product(line: Line, item: Item) -> dict[str, Any]:
    product = {
        "product_id": line.item,
        "category": item.categories[0],
        "price": line.price,
        "quantity": line.quantity,
    }
    brand = item.attributes.get("brand")
    return product if brand is None else product | {"brand": brand}
