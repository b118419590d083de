"""What an event says about an item, shared by the rankers."""

EVENT_WEIGHTS = {
    "Product Viewed": 1.0,
    "Product Clicked": 1.0,
    "Article Viewed": 1.0,
    "Video Playback Started": 1.0,
    "Product Added": 3.0,
    "Order Completed": 5.0,
}
"""How much one event counts for an item it names. Ordinal: a purchase says more than a view."""

DEFAULT_WEIGHT = 1.0


def weight_of(event: str) -> float:
    """Return how much an event of this name counts for the items that it names."""
    return EVENT_WEIGHTS.get(event, DEFAULT_WEIGHT)
