"""What the server knows of a person, read through the API, in the few terms that tests need."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.serving import Server

ARRIVAL_SECONDS_MAX = 10.0  # Browser clients queue, preflight and retry before an event arrives.
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Person:
    """One profile.

    Attributes:
        identifiers: All, each as `type:value`.
        traits: Declared traits.
        events: How often each event, by its name, is among the recent ones.
        items: Items of the recent events that name one.
    """

    identifiers: frozenset[str]
    traits: dict[str, Any]
    events: Counter[str]
    items: tuple[str, ...]


def person(server: Server, identifier: str) -> Person | None:
    """Return who is known by `type:value`, or `None`."""
    profile = server.profile(identifier)
    if profile is None:
        return None
    recent = profile["recentEvents"]
    return Person(
        identifiers=frozenset(f"{i['type']}:{i['value']}" for i in profile["identifiers"]),
        traits=profile["traits"],
        events=Counter(event["event"] for event in recent),
        items=tuple(event["item"] for event in recent if event.get("item")),
    )


def arrived(server: Server, identifier: str, expected: Counter[str]) -> Person:
    """Wait until at least `expected` events are known of a person, and return the person.

    Raises:
        AssertionError: They did not arrive within `ARRIVAL_SECONDS_MAX`.
    """
    return eventually(
        lambda: person(server, identifier),
        lambda found: found is not None and expected <= found.events,
        f"{identifier} with {dict(expected)}",
    )


def eventually(read: Callable[[], Any], is_there: Callable[[Any], bool], what: str) -> Any:
    """Read until `is_there`, and return what was read; bounded by `ARRIVAL_SECONDS_MAX`."""
    deadline = time.monotonic() + ARRIVAL_SECONDS_MAX
    found = read()
    while not is_there(found):
        assert time.monotonic() < deadline, f"{what} did not arrive; last seen: {found}"
        time.sleep(POLL_SECONDS)
        found = read()
    return found
