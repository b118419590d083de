"""The calls that every client makes, in Segment's fields, and what a person then is known by."""

from collections import Counter
from typing import Any

TRAITS = {"email": "ada@example.test", "plan": "pro", "age": 36}

EVENTS = Counter(
    {
        "Identified": 1,
        "Product Viewed": 1,
        "Page Viewed": 1,
        "Screen Viewed": 1,
        "Group Joined": 1,
        "Aliased": 1,
    }
)
"""Events of `journey` as the server names them."""


def journey(name: str) -> list[dict[str, Any]]:
    """Return one call of each type by the user `name`, whose earlier device is `<name>-device`."""
    user = {"userId": name}
    return [
        {"type": "identify", **user, "traits": TRAITS | {"email": f"{name}@example.test"}},
        {
            "type": "track",
            **user,
            "anonymousId": f"{name}-browser",
            "event": "Product Viewed",
            "properties": {"product_id": f"{name}-shoe", "price": 9.99, "category": "shoes"},
        },
        {"type": "page", **user, "name": "Home", "properties": {"url": "https://shop.test/"}},
        {"type": "screen", **user, "name": "Start"},
        {"type": "group", **user, "groupId": "acme", "traits": {"seats": 5}},
        {"type": "alias", **user, "previousId": f"{name}-device"},
    ]


def without(kind: str, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls but those of a type that a client does not have."""
    return [call for call in calls if call["type"] != kind]
