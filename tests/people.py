"""One person's packed record with a vocabulary of its own, for tests of features without a world."""

from typing import Any

import msgspec
import numpy as np

from tailorbird.features.counters import COLUMNS, read
from tailorbird.features.state import (
    count,
    counted,
    counter_rows,
    find_counter,
    grown,
    merged,
    new_state,
    observe,
    own_items,
    recents,
)
from tailorbird.features.view import features
from tailorbird.features.vocabulary import CATEGORY, EVENT, KINDS, Vocabulary
from tailorbird.live.profiles import primary_interest
from tailorbird.live.world import World
from tailorbird.schema.profile import Profile

BEGIN = 1_700_000_000.0
_KIND = {"e:": EVENT, "c:": CATEGORY}
_NO_ITEMS = np.zeros(0, np.int32)
_BEFORE = np.zeros(10, np.int32)


class Person:
    """A record to count in and to read. Keys are `e:<event>` and `c:<category>`."""

    def __init__(self, t: float = BEGIN, vocabulary: Vocabulary | None = None) -> None:
        self.vocabulary = vocabulary or Vocabulary(lambda _key, _code: None)
        self.state = new_state(t)

    def code(self, key: str) -> int:
        name = key[2:]
        return self.vocabulary.event(name) if key.startswith("e:") else self.vocabulary.category(name)

    def count(self, key: str, t: float) -> None:
        while count(self.state, self.code(key), t, 1.0, 1.0) < 0:
            self.state = grown(self.state)

    def view(self, name: str, t: float, *categories: str) -> None:
        """Fold an event about `categories`."""
        about = [self.vocabulary.category(category) for category in categories]
        codes = np.array([self.vocabulary.event(name), *about], np.int32)
        first = about[0] if about else -1
        arguments = (t, codes, np.ones(len(codes)), 0.0, 1.0, first, _NO_ITEMS, True, _BEFORE)
        while observe(self.state, *arguments) < 0:
            self.state = grown(self.state)

    def merge(self, other: "Person") -> None:
        self.state = merged(self.state, other.state)

    def keys(self) -> list[str]:
        """Return what is counted, in the order of the counters."""
        codes = counted(self.state).tolist()
        return [f"{'ec'[code % KINDS]}:{self.vocabulary.name(code)}" for code in codes]

    def table(self, at: float) -> np.ndarray:
        last, rows = counter_rows(self.state)
        return read(rows, last, at)

    def read(self, key: str, at: float) -> np.ndarray:
        """Return the ten columns of one counter, zeros where it was never counted."""
        position = find_counter(self.state, self.vocabulary.find(_KIND[key[:2]], key[2:]))
        return self.table(at)[position] if position >= 0 else np.zeros(len(COLUMNS), np.float32)


def described(world: World, profile: Profile) -> dict[str, Any]:
    """Return a profile with names in place of codes: two worlds may have given out different ones."""
    times, codes = recents(profile.state)
    items, events = own_items(profile.state)
    name, ids = world.vocabulary.name, world.catalogue.ids
    return {
        **{field: value for field, value in msgspec.structs.asdict(profile).items() if field != "state"},
        "features": features(profile.state, world.vocabulary, profile.state[1]),
        "interest": primary_interest(world, profile),
        "recents": [
            (t, name(event), ids[item] if item >= 0 else "", name(category) if category >= 0 else "")
            for t, (event, item, category) in zip(times.tolist(), codes.T.tolist(), strict=True)
        ],
        "own": [(ids[item], name(event)) for item, event in zip(items, events, strict=True)],
    }
