"""Features as of any past time: people folded again from history, stopped where a label stands.

History (`stores.history`) gives, in the order of the log, the rows that the labelled people were folded of.
Here they go through the very code that folds behind the door (`live.behaviour`, `live.merging`), with the
vocabulary of the live state; so a vector is, to the last bit, the one that was served at that time by the
definitions that are declared now.

The people in between live in a world over a store of its own: memory is bounded by its cache, not by how many
there are.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird.features.state import new_state
from tailorbird.live.behaviour import EXPOSURES, Behaviour, change_consent
from tailorbird.live.merging import merge_history
from tailorbird.live.variables import vector
from tailorbird.live.world import World
from tailorbird.rankers.covisitation import STEPS_BACK
from tailorbird.schema.computed import AttributesComputed
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.events import Event, LoggedEvent, name_of
from tailorbird.schema.feature import FeaturesPut
from tailorbird.schema.item import ItemDeleted, ItemPatched, ItemsPut, patched
from tailorbird.schema.profile import Profile
from tailorbird.schema.records import KINDS, ConsentChanged, decode

Row = Mapping[str, Any]
"""A row of `stores.history.rows_as_of`."""

BATCH_ROWS = 1_024
"""Vectors given at once: 7 MiB with all built-in features."""
_LOOK_ROWS = 1_000
_COMMIT_DIRTY = 4_000  # Changed people between two commits, some 150 MiB: a commit cannot drop them before.

_DECISION = KINDS[LoggedDecision]
_CONSENT = KINDS[ConsentChanged]
_decode_event = msgspec.json.Decoder(Event).decode


class Rows(NamedTuple):
    """Vectors of labels."""

    label_ids: NDArray[np.int64]
    matrix: NDArray[np.float32]
    """Shape (labels, variables), nan where missing; columns as `World.features.reading.names`."""


class Past:
    """People folded again, as of the latest row taken."""

    def __init__(self, world: World, features: FeaturesPut) -> None:
        """Begin with nobody.

        Args:
            world: Empty but for the live state's vocabulary.
            features: The definitions that are read.
        """
        self._world = world
        world.features.count_for(features)
        world.features.fold(features, is_first=False)
        self._behaviour = Behaviour(world.vocabulary, world.catalogue, world.features, STEPS_BACK)
        self._taken = 0

    def take(self, row: Row) -> None:
        """Fold one row that is no label; rows come in the order of history."""
        self._taken += 1
        if self._taken % _LOOK_ROWS == 0 and self._world.dirty_count > _COMMIT_DIRTY:
            self._world.checkpoint()
        match row["what"]:
            case "event":
                self._event(row)
            case "decision":
                decision = decode(_DECISION, row["payload"].encode())
                assert isinstance(decision, LoggedDecision), "its table says so"
                profile = self._person(row, decision.t)
                profile.gpc = profile.gpc or decision.gpc
            case "consent":
                change = decode(_CONSENT, row["payload"].encode())
                assert isinstance(change, ConsentChanged), "its table says so"
                change_consent(self._person(row, change.r), change.consent)
            case "merge":
                self._merge(row)
            case "declaration":
                self._declare(row)

    def person(self, profile: str) -> Profile | None:
        """Return a person as of the latest row, to read."""
        return self._world.profiles.get(profile)

    def vector(
        self, profile: str, at: float, context: Mapping[str, Any] | None = None
    ) -> NDArray[np.float32]:
        """Return the variables of a person as of the latest row, read at `at`.

        See `live.variables.vector`.
        """
        return vector(self._world, self.person(profile), at, context)

    def _person(self, row: Row, t: float) -> Profile:
        """Return whose row it is, to change, founded at `t` where this is their first."""
        profiles, key = self._world.profiles, row["profile"]
        if profiles.get(key) is None:
            profiles.put(key, Profile(key, "", new_state(t)))
        profile = profiles.change(key)
        assert profile is not None, "it was put if it was not there"
        profile.version = row["offset"]
        return profile

    def _event(self, row: Row) -> None:
        event = _decode_event(row["payload"])
        logged = LoggedEvent(row["r"], row["t"], row["detail"], msgspec.Raw(), row["gpc"])
        profile, name = self._person(row, logged.t), name_of(event)
        behaviour = self._behaviour
        about = behaviour.about(event)
        catalogue = self._world.catalogue
        for place, item in enumerate(about.items):
            is_act = name not in EXPOSURES
            behaviour.indices[place] = catalogue.seen(item)[0] if is_act else catalogue.find(item)
        behaviour.declare(profile, event, logged)
        behaviour.observe(profile, event, name, logged.t, about)

    def _merge(self, row: Row) -> None:
        older = self._world.profiles.change(row["profile"])
        newer = self._world.profiles.get(row["detail"])
        if older is None or newer is None:
            return  # One of them had done nothing that counts.
        merge_history(older, newer, self._world.features.counting)
        self._world.profiles.delete(newer.id)

    def _declare(self, row: Row) -> None:
        """Follow the catalogue, which says what items are about; and what has a place in the vocabulary."""
        record = decode(row["kind"], row["payload"].encode())
        catalogue = self._world.catalogue
        match record:
            case ItemsPut():
                for item in record.items:
                    catalogue.put(item)
            case ItemPatched():
                shown = catalogue.get(record.id)
                if shown is not None:
                    catalogue.put(patched(shown, record.patch))
            case ItemDeleted():
                catalogue.remove(record.id)
            case AttributesComputed():
                if self.person(record.profile) is not None:
                    profile = self._person({"profile": record.profile, "offset": row["offset"]}, record.r)
                    profile.computed |= record.values


def features_as_of(past: Past, rows: Iterable[Row], batch_rows: int = BATCH_ROWS) -> Iterator[Rows]:
    """Yield the vectors of all labels among rows of history, in the order of their times.

    Args:
        past: Nobody folded yet.
        rows: Of `stores.history.rows_as_of`, as dictionaries.
        batch_rows: Vectors given at once.
    """
    label_ids: list[int] = []
    vectors: list[NDArray[np.float32]] = []
    for row in rows:
        if row["what"] != "label":
            past.take(row)
            continue
        label_ids.append(row["label_id"])
        vectors.append(past.vector(row["profile"], row["known_at"]))
        if len(vectors) == batch_rows:
            yield Rows(np.array(label_ids, np.int64), np.array(vectors))
            label_ids, vectors = [], []
    if vectors:
        yield Rows(np.array(label_ids, np.int64), np.array(vectors))
