"""Visitors of a made-up shop, for benchmarks of features and identity.

Seeded events with all that clients send.
"""

import json
from collections.abc import Iterator

import msgspec
import numpy as np

from tailorbird.features.defaults import CATALOGUES, expanded
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.feature import FeatureConfig, FeaturesPut

BEGIN = 1_760_000_000.0
FULL = FeatureConfig(catalogues=CATALOGUES)
_SHARES = {
    "Page Viewed": 0.3,
    "Product List Viewed": 0.12,
    "Product Viewed": 0.3,
    "Products Searched": 0.08,
    "Product Added": 0.12,
    "Checkout Started": 0.04,
    "Order Completed": 0.04,
}
_AGENT = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36"


def full_catalogue() -> FeaturesPut:
    """Return the declaration of all built-in features."""
    return FeaturesPut(BEGIN, FULL, expanded(FULL))


def events(count: int, visitors: int, seed: int, days: float = 30.0) -> Iterator[LoggedEvent]:
    """Yield events of `visitors` people over `days`, in order of time."""
    generator = np.random.default_rng(seed)
    names = generator.choice(list(_SHARES), count, p=list(_SHARES.values()))
    people = generator.integers(0, visitors, count)
    products = generator.integers(0, 2_000, (count, 3))
    prices = np.round(generator.lognormal(3.0, 0.8, (count, 3)), 2)
    times = BEGIN + np.sort(generator.uniform(0.0, days * 86400.0, count))
    for place in range(count):
        lines = [_line(product, price) for product, price in zip(products[place], prices[place], strict=True)]
        body = {
            "type": "track",
            "messageId": f"m-{seed}-{place}",
            "anonymousId": f"a-{people[place]}",
            "event": names[place],
            "properties": _properties(str(names[place]), lines),
            "context": {
                "page": {
                    "url": "https://shop.example/p",
                    "path": "/p",
                    "referrer": "https://www.google.com/",
                },
                "userAgent": _AGENT,
                "locale": "de-AT",
                "timezone": "Europe/Vienna",
                "campaign": {"source": "newsletter", "medium": "email"},
            },
        }
        at = float(times[place])
        yield LoggedEvent(at, at, str(body["messageId"]), msgspec.Raw(json.dumps(body).encode()))


def _line(product: int, price: float) -> dict[str, object]:
    return {
        "product_id": f"sku-{product}",
        "category": f"category {product % 20}",
        "brand": f"brand {product % 37}",
        "price": float(price),
        "quantity": 1 + int(product) % 3,
    }


def _properties(name: str, lines: list[dict[str, object]]) -> dict[str, object]:
    if name in ("Product Viewed", "Product Added"):
        return lines[0]
    if name == "Order Completed":
        revenue = sum(float(str(line["price"])) for line in lines)
        return {
            "order_id": "o",
            "revenue": revenue,
            "total": revenue * 1.2,
            "discount": 1.0,
            "products": lines,
        }
    if name == "Products Searched":
        return {"query": f"query {lines[0]['product_id']}"}
    return {"path": f"/{lines[0]['product_id']}", "category": lines[0]["category"]}
