"""Bodies as real clients send them: events with the fields of analytics-next, and questions.

Sizes are what was recorded from the client, 600 to 900 bytes an event. Each has a `messageId` of
its own, or the server would leave it out as seen before.
"""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.load import head, post

VARIANT, LIST = "home-hero", "home-list"
CATEGORIES = 20
ITEMS = 1_000
TEMPLATES = 2_000
QUESTIONS_MAX = 20_000  # Visitors asked about, of more; a request for each is kept ready.

_ID_SLOT = "<message id, 32 long............>"
_ids = itertools.count(int(datetime.now(UTC).timestamp()) << 32)
_USER_AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)


def items() -> list[dict[str, Any]]:
    """Return a catalogue."""
    return [
        {
            "id": f"sku-{i:05d}",
            "title": f"Running shoe number {i}",
            "url": f"https://shop.example/p/{i}",
            "image": f"https://shop.example/i/{i}.webp",
            "price": 10.0 + i % 90,
            "stock": 5,
            "categories": [f"category-{i % CATEGORIES}"],
            "attributes": {"margin": 0.3},
        }
        for i in range(ITEMS)
    ]


def placements() -> list[dict[str, Any]]:
    """Return a variant placement with a rule on the profile, and a list of ten from 100."""
    goal = {"event": "Order Completed", "value": "properties.revenue", "windowSeconds": 86400}
    variants: list[dict[str, Any]] = [
        {"id": name, "value": {"headline": f"Headline {name}", "image": f"/{name}.webp"}} for name in "abcd"
    ]
    variants[3]["rule"] = "profile.product_viewed_count >= 2.0"
    return [
        {"key": VARIANT, "kind": "variant", "variants": variants, "floor": 0.05, "goal": goal},
        {"key": LIST, "kind": "list", "count": 10, "candidates": {"limit": 100}, "goal": goal},
    ]


def question(visitor: str, context: dict[str, Any] | None = None) -> bytes:
    """Return the body of a request for both placements."""
    context = context or {
        "page": {"url": "https://shop.example/", "path": "/", "referrer": "", "title": "Shop"},
        "locale": "en-US",
        "campaign": {"source": "newsletter", "medium": "email"},
        "device": {"type": "mobile"},
    }
    asked = [{"key": VARIANT}, {"key": LIST, "count": 10}]
    body = {"visitor": {"anonymousId": visitor}, "context": context, "placements": asked}
    return json.dumps(body, separators=(",", ":")).encode()


def visitor_of(number: int) -> str:
    """Return the anonymous id of a visitor, of fixed length."""
    return f"41e2c26c-7b1a-4c5e-9d0f-{number:012d}"


def decides(visitors: int, key: str, path: str = "/v1/decide") -> Iterator[bytes]:
    """Return requests to decide for visitors in random order (a sample of many), without end."""
    order = np.random.default_rng(1).permutation(visitors)[:QUESTIONS_MAX].tolist()
    return itertools.cycle([post(path, question(visitor_of(number)), key) for number in order])


def singles(visitors: int, key: str) -> Iterator[bytes]:
    """Return requests with one event each, without end."""
    made = [_single(number % visitors, number) for number in range(TEMPLATES)]
    cut = [(f"/v1/{event['type'][0]}", *_cut(event)) for event in made]
    whole = [(head(path, len(a) + 32 + len(b), key) + a, b) for path, a, b in cut]
    for before, after in itertools.cycle(whole):
        yield b"%b%032x%b" % (before, next(_ids), after)


def view(visitor: str) -> bytes:
    """Return the body of a visitor's view of a product."""
    before, after = _cut(_event(visitor, 1))
    return b"%b%032x%b" % (before, next(_ids), after)


def batches(visitors: Iterator[int], size: int, key: str) -> Iterator[bytes]:
    """Return requests with `size` events each, until `visitors` (one an event) run out."""
    while numbers := list(itertools.islice(visitors, size)):
        yield post("/v1/batch", batch_body(numbers), key)


def batch_body(visitors: list[int]) -> bytes:
    """Return the body of a batch with one event of each of `visitors`."""
    events = b",".join(_fill(number) for number in visitors)
    return b'{"batch":[%b],"sentAt":"%b"}' % (events, _SENT_AT)


def spread(visitors: int) -> Iterator[int]:
    """Return visitors in an order that is never in step with the items, without end."""
    order = np.random.default_rng(2).permutation(visitors).tolist()
    return itertools.cycle(order)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _event(visitor: str, number: int) -> dict[str, Any]:
    """Return an event of analytics-next: seven in ten views, two pages, one added to the cart."""
    kind = number % 10
    item = (number * 7919) % ITEMS
    url = f"https://shop.example/p/{item}"
    page = {"path": f"/p/{item}", "referrer": "", "search": "", "title": "Shop", "url": url}
    event: dict[str, Any] = {
        "timestamp": _SENT_AT.decode(),
        "integrations": {"Segment.io": True},
        "type": "page" if kind >= 8 else "track",
        "properties": page,
        "context": {
            "page": page,
            "userAgent": _USER_AGENT,
            "locale": "en-US",
            "library": {"name": "analytics.js", "version": "npm:next-1.84.3"},
            "campaign": {},
            "timezone": "UTC",
        },
        "messageId": _ID_SLOT,
        "anonymousId": visitor,
    }
    if kind < 8:
        event["event"] = "Product Added" if kind == 0 else "Product Viewed"
        event["properties"] = {
            "product_id": f"sku-{item:05d}",
            "name": f"Running shoe number {item}",
            "category": f"category-{item % CATEGORIES}",
            "price": 10.0 + item % 90,
            "currency": "EUR",
            "quantity": 1,
        }
    return event


def _single(visitor: int, number: int) -> dict[str, Any]:
    own = {"sentAt": _SENT_AT.decode(), "_metadata": {"bundled": ["Segment.io"], "unbundled": []}}
    return _event(visitor_of(visitor), number) | own


def _cut(event: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return an event's bytes before and after its message id."""
    before, _, after = json.dumps(event, separators=(",", ":")).partition(_ID_SLOT)
    return before.encode(), after.encode()


def _fill(visitor: int) -> bytes:
    before, middle, after = _SHAPES[next(_shape)]
    return b"%b%032x%b%b%b" % (before, next(_ids), middle, visitor_of(visitor).encode(), after)


def _shapes() -> list[tuple[bytes, bytes, bytes]]:
    """Return events cut at message id and visitor, to be put together a thousand times faster."""
    slot = visitor_of(0)
    cut = [_cut(_event(slot, number)) for number in range(TEMPLATES)]
    return [(before, *rest.split(slot.encode())) for before, rest in cut]  # type: ignore[misc]


_SENT_AT = _now().encode()
_SHAPES = _shapes()
_shape = itertools.cycle(range(TEMPLATES))
