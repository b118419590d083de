"""Explanations: sentences that a marketer reads, built from what the decision was made of."""

from tailorbird.schema.profile import Recent

_VERBS = {
    "Product Viewed": "viewed",
    "Product Clicked": "clicked",
    "Product Added": "added",
    "Order Completed": "bought",
    "Article Viewed": "read",
    "Video Playback Started": "watched",
}


def because_of_item(verb_event: str, title: str) -> str:
    """Return the sentence for an item that tends to follow one of the visitor's own.

    >>> because_of_item("Product Viewed", "Running shoes")
    'Because you viewed Running shoes.'
    """
    return f"Because you {_VERBS.get(verb_event, 'chose')} {title}."


def because_recent(recent: Recent) -> str:
    """Return the sentence for an item of the visitor's own."""
    return f"You {_VERBS.get(recent.event, 'chose')} it recently."


BECAUSE_POPULAR = "Popular right now."
BECAUSE_OUTSIDE = "Something different from what you usually look at."


def because_holdout() -> str:
    """Return the sentence for the permanent holdout."""
    return "Not personalized: this visitor is in the permanent holdout."


def because_opted_out() -> str:
    """Return the sentence for who does not want to be personalized."""
    return "Not personalized: the visitor has not agreed to it."


def because_of_arm(arm: str, probability: float, record: tuple[int, int], *, explored: bool) -> str:
    """Return the sentence for an arm drawn by a policy from (trials, successes).

    >>> because_of_arm("b", 0.42, (300, 12), explored=False)
    "'b' reached its goal 12 times in 300; it is shown with probability 42 %."
    """
    trials, successes = record
    text = f"{arm!r} reached its goal {successes} times in {trials}; it is shown with probability {probability:.0%}"
    text = text.replace("%", " %")
    return f"{text}, to learn more about it." if explored else f"{text}."


def because_only(arm: str) -> str:
    """Return the sentence where nothing was to be chosen."""
    return f"{arm!r} is the only one that is eligible here."
