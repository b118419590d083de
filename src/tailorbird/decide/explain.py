"""Explanations: sentences that a marketer reads, made from the facts that were logged with the choice.

A choice's `why` in the log is a short code, and the sentences are made when somebody asks:

    popular                  the most popular items
    own:<event>              the visitor's own item, last touched by this event
    after:<event>:<item>     follows an item of the visitor's own
    outside|<any of these>   from outside the visitor's primary interest
    arm:<trials>:<successes>:<explored>   a policy drew it
    only, holdout, opted_out, disabled, fallback
"""

from collections.abc import Callable

_VERBS = {
    "Product Viewed": "viewed",
    "Product Clicked": "clicked",
    "Product Added": "added",
    "Order Completed": "bought",
    "Article Viewed": "read",
    "Video Playback Started": "watched",
}
_PLAIN = {
    "popular": "Popular right now.",
    "unknown": "Nobody has looked at it yet; it fills the list.",
    "only": "It is the only one that is eligible here.",
    "holdout": "Not personalized: this visitor is in the permanent holdout.",
    "opted_out": "Not personalized: the visitor has not agreed to it.",
    "disabled": "The placement is switched off: this is its fallback.",
    "fallback": "This is the placement's fallback.",
}
_OUTSIDE = "Something different from what you usually look at."


def sentences(why: str, choice: str, propensity: float, title_of: Callable[[str], str]) -> list[str]:
    """Return the reasons for a choice as sentences; `title_of` names an item by its id.

    >>> sentences("outside|after:Product Viewed:sku-7", "sku-9", 0.4, lambda key: "Running shoes")
    ['Because you viewed Running shoes.', 'Something different from what you usually look at.']
    >>> sentences("arm:300:12:0", "b", 0.42, str)
    ["'b' reached its goal 12 times in 300; it is shown with probability 42 %."]
    """
    if why.startswith("outside|"):
        return [*sentences(why.removeprefix("outside|"), choice, propensity, title_of), _OUTSIDE]
    kind, _, rest = why.partition(":")
    if kind == "after":
        event, _, item = rest.partition(":")
        return [f"Because you {_VERBS.get(event, 'chose')} {title_of(item)}."]
    if kind == "own":
        return [f"You {_VERBS.get(rest, 'chose')} it recently."]
    if kind == "arm":
        trials, successes, explored = rest.split(":")
        text = f"{choice!r} reached its goal {successes} times in {trials}"
        text += f"; it is shown with probability {propensity:.0%}"
        return [text.replace("%", " %") + (", to learn more about it." if explored == "1" else ".")]
    return [_PLAIN[why]] if why in _PLAIN else []
