"""Computed attributes of a recorded shop: its events folded up to cuts of time, and models fitted on that.

The events of a shop's customers go through the very fold that a server runs, in the order of their times;
at each cut every customer's features are read as a server would have read them at that moment. Nothing
later is in a row, because nothing later was folded yet. What came of them is counted from the events after.

Left out are visitors without a name, of whom nobody can say that they came back, and traits: some are
sensitive, and no model learns from what people are said to be.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird.app.datasets.events import events_of
from tailorbird.app.datasets.shop import Shop
from tailorbird.errors import Fault, InvalidInputError
from tailorbird.features.defaults import CATALOGUES, expanded
from tailorbird.live.profiles import by_identifier
from tailorbird.live.seen import key_of
from tailorbird.live.variables import vector
from tailorbird.live.world import TABLES, World
from tailorbird.process.worker import Fold
from tailorbird.schema.clusters import ClusterModel, KMeans
from tailorbird.schema.computed import (
    Churn,
    ComputedAttribute,
    ComputedModel,
    Engagement,
    LifetimeValue,
)
from tailorbird.schema.events import Event, LoggedEvent
from tailorbird.schema.feature import FeatureConfig, FeaturesPut
from tailorbird.schema.profile import identifier_of
from tailorbird.segment.clusters import fit as fit_clusters
from tailorbird.segment.fitting import SEED, Snapshots, fit
from tailorbird.segment.occurrences import Floats, Occurrences
from tailorbird.segment.split import DAY_SECONDS, time_split
from tailorbird.stores.memory import MemoryLog, MemoryState

ATTRIBUTES: Final[tuple[ComputedAttribute, ...]] = (Engagement(), Churn(), LifetimeValue())
CUT_DAYS: Final = 7.0  # Between cuts: a week, so that each falls on the same day of it.

_SECRET: Final = bytes(32)  # Of profile ids, which nobody sees here.
_CACHE_BYTES: Final = 1024 * 1024 * 1024
_NOTHING: Final = msgspec.Raw(b"{}")


class Act(NamedTuple):
    """One event of a known person, by the person's index."""

    person: int
    t: float
    event: str
    properties: dict[str, Any]


class Past(NamedTuple):
    """A shop's customers: what they did, and what was known of them at cuts of time."""

    acts: list[Act]
    snapshots: Snapshots
    until: float
    """Time of the last event: all that happened by then is known."""
    tellable: list[int]
    """The variables that mean something in words."""


# --- rows ---------------------------------------------------------------------------------------------


def computed_models(
    shop: Shop, attributes: Iterable[ComputedAttribute] = ATTRIBUTES, seed: int = SEED
) -> Iterator[ComputedModel]:
    """Yield the fitted model of each attribute on a shop's log.

    Raises:
        InvalidInputError: The log has no customers, or is too short or too small to learn from.
    """
    wanted = tuple(attributes)
    yield from models_of(past_of(shop, cuts_of(shop, wanted)), wanted, seed)


def models_of(
    past: Past, attributes: Iterable[ComputedAttribute] = ATTRIBUTES, seed: int = SEED
) -> Iterator[ComputedModel]:
    """Yield the fitted model of each attribute on what is known of a shop's past; as `computed_models`."""
    for attribute in attributes:
        occurrences = occurrences_of(past.acts, attribute)
        yield fit(attribute, past.snapshots, occurrences, past.until, seed)


def clusters_of(past: Past, seed: int = SEED) -> ClusterModel:
    """Return the segments that a shop's customers fall into, as they were at the latest cut."""
    latest = past.snapshots.at(float(past.snapshots.cuts.max()))
    matrix = np.nan_to_num(latest.matrix[:, past.tellable], nan=0.0)
    names = [latest.names[slot] for slot in past.tellable]
    return fit_clusters(matrix, names, KMeans(), np.random.default_rng(seed))


def cuts_of(shop: Shop, attributes: Iterable[ComputedAttribute]) -> Floats:
    """Return the cuts that the attributes need, whole weeks back from the last event; epoch seconds."""
    times = [t for t, event in events_of(shop) if _is_known(event)]
    if not times:
        raise InvalidInputError(Fault("dataset", "must have customers that are known by an id", shop.name))
    week = CUT_DAYS * DAY_SECONDS
    weeks = int((times[-1] - times[0]) / week)
    grid = np.array([times[-1] - number * week for number in range(1, weeks + 1)], np.float64)
    needed = [
        np.append(split.fit, (split.calibrate, split.holdout))
        for attribute in attributes
        for split in [time_split(grid, times[-1], attribute.horizon_days * DAY_SECONDS)]
    ]
    return np.unique(np.concatenate(needed))


def past_of(shop: Shop, cuts: Floats) -> Past:
    """Return a shop's customers at the cuts, which ascend."""
    world = World(MemoryState(TABLES), _CACHE_BYTES)
    fold = Fold(world, _SECRET, MemoryLog())
    features = FeatureConfig(catalogues=CATALOGUES)
    fold.apply_record(0, FeaturesPut(0.0, features, expanded(features)))
    people: dict[str, int] = {}
    acts: list[Act] = []
    rows: list[tuple[NDArray[np.float32], int, float]] = []
    left = list(cuts.tolist())
    for offset, (t, fields) in enumerate((entry for entry in events_of(shop) if _is_known(entry[1])), 1):
        while left and t > left[0]:
            rows += _rows(world, people, left.pop(0))
        event = msgspec.convert(fields, Event)
        fold.apply_event(
            offset, LoggedEvent(t, t, event.message_id, _NOTHING), event, key_of(event.message_id)
        )
        person = people.setdefault(event.user_id or "", len(people))
        acts.append(Act(person, t, event.event or "", event.properties or {}))
    matrix, persons, taken = zip(*rows, strict=True)
    snapshots = Snapshots(np.array(matrix), world.features.reading.names, np.array(persons), np.array(taken))
    return Past(acts, snapshots, acts[-1].t, list(world.features.reading.tellable))


def occurrences_of(acts: Iterable[Act], attribute: ComputedAttribute) -> Occurrences:
    """Return what people did that an attribute is about, with its value where that is asked."""
    counted = [(act.person, act.t, _worth(act, attribute)) for act in acts if _is_about(attribute, act.event)]
    if not counted:
        raise InvalidInputError(Fault(attribute.key, "nobody in the log did what it is about"))
    people, times, values = zip(*counted, strict=True)
    return Occurrences(np.array(people), np.array(times), np.array(values))


def _is_known(event: dict[str, Any]) -> bool:
    """Return whether an event is something that a customer did, not what is said of one."""
    return event["type"] == "track" and "userId" in event


def _rows(
    world: World, people: dict[str, int], cut: float
) -> Iterator[tuple[NDArray[np.float32], int, float]]:
    for user, person in people.items():
        profile = by_identifier(world, identifier_of("user_id", user))
        if profile is not None:
            yield vector(world, profile, cut), person, cut


def _is_about(attribute: ComputedAttribute, event: str) -> bool:
    if isinstance(attribute, Engagement):
        return not attribute.events or event in attribute.events
    return event == attribute.event


def _worth(act: Act, attribute: ComputedAttribute) -> float:
    if not isinstance(attribute, LifetimeValue):
        return 1.0
    value = act.properties.get(attribute.value)
    return float(value) if isinstance(value, int | float) else 0.0
