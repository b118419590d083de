"""Learning from an installation's own past: attributes fitted and judged, everybody's values, clusters.

Runs in a process of its own, beside the server: it reads the state file and the history, and writes nothing.
Rows are people as of cuts of time, folded again from history (`train.dataset`); what came of them is read
from the events after. Values and clusters are of everybody as the state has them now.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tailorbird.app.engine import current_state
from tailorbird.app.lessons import Learned, LearnRequest
from tailorbird.app.past import opened, rows_of, skew_of
from tailorbird.errors import Fault, InvalidInputError
from tailorbird.features.paths import number_of
from tailorbird.features.state import FIRST_SEEN
from tailorbird.limits import LEARN_PEOPLE_MAX, LEARN_ROWS_MAX
from tailorbird.live.variables import vector
from tailorbird.live.world import TABLES, World
from tailorbird.schema.clusters import ClusterModel
from tailorbird.schema.computed import (
    ComputedAttribute,
    ComputedModel,
    ComputedValue,
    Engagement,
    LifetimeValue,
)
from tailorbird.schema.events import Event
from tailorbird.schema.profile import Profile
from tailorbird.segment.clusters import fit as fit_clusters
from tailorbird.segment.computed import compute, computed_values
from tailorbird.segment.fitting import Snapshots, fit
from tailorbird.segment.occurrences import Occurrences
from tailorbird.segment.split import DAY_SECONDS, time_split
from tailorbird.stores.history import LABELS, History
from tailorbird.stores.sqlite import SqliteState
from tailorbird.train.dataset import Past, features_as_of

CUT_DAYS = 7.0
"""Between cuts: a week, so that each falls on the same day of it."""
_BATCH = 1_024
_decode_event = msgspec.json.Decoder(Event).decode


class _Present(NamedTuple):
    """Everybody as the state has them."""

    world: World
    ids: list[str]
    first_seen: NDArray[np.float64]
    owner: dict[str, int]
    """By profile id, also of those that became part of another one: whose index."""


def learn(request: LearnRequest) -> Learned:
    """Learn from the folder of an installation.

    Raises:
        ConfigurationError: There is no state, or no history.
    """
    generator = np.random.default_rng(request.seed)
    skipped: dict[str, str] = {}
    models: list[ComputedModel] = []
    with opened(Path(request.folder), gpc_opts_out=request.gpc_opts_out) as now:
        present = _present(Path(request.folder), gpc_opts_out=request.gpc_opts_out)
        until = _known_until(now.history)
        cuts = _cuts(now.history, request.attributes, until, skipped)
        wanted = [attribute for attribute in request.attributes if attribute.key not in skipped]
        if wanted and len(cuts):
            snapshots = _snapshots(now.history, now.past, now.names, present, (cuts, generator))
            for attribute in wanted:
                try:
                    occurrences = _occurrences(now.history, attribute, present)
                    models.append(fit(attribute, snapshots, occurrences, until, request.seed))
                except InvalidInputError as error:
                    skipped[attribute.key] = str(error)
        values = _values([model for model in models if model.is_accepted], present, until)
        clusters = _clusters(request, present, (until, generator), skipped)
        present.world.store.close()
    with opened(Path(request.folder), gpc_opts_out=request.gpc_opts_out) as now:
        skew = skew_of(now)
    return Learned(models, clusters, values, skipped, len(present.ids), skew)


# --- who there is ---------------------------------------------------------------------------------------


def _present(folder: Path, *, gpc_opts_out: bool) -> _Present:
    state = current_state(folder)
    assert state is not None, "history was opened beside it"
    world = World(SqliteState(state, TABLES), gpc_opts_out=gpc_opts_out)
    ids: list[str] = []
    first_seen: list[float] = []
    owner: dict[str, int] = {}
    for key, profile in world.profiles.scan():
        owner[key] = len(ids)
        owner |= {link.merged: len(ids) for link in profile.links if link.merged}
        ids.append(key)
        first_seen.append(profile.state.item(FIRST_SEEN))
    return _Present(world, ids, np.array(first_seen), owner)


def _known_until(history: History) -> float:
    """Return the time up to which all that happened is in history, epoch seconds; 0 for none."""
    found = next(
        iter(history.stream(history.tables["events"].agg(t=history.tables["events"].known_at.max()))), None
    )
    latest = None if found is None or not len(found) else found.column(0)[0].as_py()
    return 0.0 if latest is None else float(latest)


# --- what is learned from -------------------------------------------------------------------------------


def _cuts(
    history: History, attributes: Sequence[ComputedAttribute], until: float, skipped: dict[str, str]
) -> NDArray[np.float64]:
    """Return the cuts that the attributes need, whole weeks back; those with too short a past are skipped."""
    table = history.tables["events"]
    first = next(iter(history.stream(table.agg(t=table.known_at.min())))).column(0)[0].as_py()
    week = CUT_DAYS * DAY_SECONDS
    weeks = 0 if first is None else int((until - first) / week)
    grid = np.array([until - number * week for number in range(1, weeks + 1)], np.float64)
    needed = [np.zeros(0)]
    for attribute in attributes:
        try:
            split = time_split(grid, until, attribute.horizon_days * DAY_SECONDS)
        except InvalidInputError as error:
            skipped[attribute.key] = str(error)
        else:
            needed.append(np.append(split.fit, (split.calibrate, split.holdout)))
    return np.unique(np.concatenate(needed))


def _snapshots(
    history: History,
    past: Past,
    names: tuple[str, ...],
    present: _Present,
    sample: tuple[NDArray[np.float64], np.random.Generator],
) -> Snapshots:
    """Return rows of people at cuts: of a random part of them where there would be too many."""
    cuts, generator = sample
    people = np.arange(len(present.ids))
    rows = int((present.first_seen[:, None] <= cuts[None]).sum())
    if rows > LEARN_ROWS_MAX:
        people = np.sort(generator.choice(people, int(len(people) * LEARN_ROWS_MAX / rows), replace=False))
    labels = [(person, cut) for cut in cuts for person in people if present.first_seen[person] <= cut]
    asked = pa.table(
        {
            "label_id": range(len(labels)),
            "profile": [present.ids[person] for person, _ in labels],
            "t": [cut for _, cut in labels],
        },
        schema=LABELS,
    )
    matrix = np.empty((len(labels), len(names)), np.float32)
    for batch in features_as_of(past, rows_of(history, asked)):
        matrix[batch.label_ids] = batch.matrix
    persons = np.array([person for person, _ in labels], np.int64)
    return Snapshots(matrix, names, persons, np.array([cut for _, cut in labels]))


def _occurrences(history: History, attribute: ComputedAttribute, present: _Present) -> Occurrences:
    """Return what people did that an attribute is about, with its value where that is asked."""
    events = history.tables["events"]
    events = events.filter(events.profile.notnull())
    if isinstance(attribute, Engagement):
        wanted = events.filter(events.name.isin(attribute.events)) if attribute.events else events
    else:
        wanted = events.filter(events.name == attribute.event)
    is_value = isinstance(attribute, LifetimeValue)
    columns = ("profile", "t", "payload") if is_value else ("profile", "t")
    people: list[int] = []
    times: list[float] = []
    values: list[float] = []
    for batch in history.stream(wanted.select(*columns)):
        for row in batch.to_pylist():
            person = present.owner.get(row["profile"])
            if person is None:
                continue
            people.append(person)
            times.append(row["t"])
            values.append(_worth(row["payload"], attribute) if isinstance(attribute, LifetimeValue) else 1.0)
    if not people:
        raise InvalidInputError(Fault(attribute.key, "nobody did what it is about"))
    return Occurrences(np.array(people), np.array(times), np.array(values))


def _worth(payload: Any, attribute: LifetimeValue) -> float:  # noqa: ANN401
    """Return what one event was worth."""
    properties = _decode_event(payload).properties or {}
    return number_of(properties.get(attribute.value)) or 0.0


# --- what everybody gets --------------------------------------------------------------------------------


def _values(
    models: Sequence[ComputedModel], present: _Present, at: float
) -> dict[str, dict[str, ComputedValue]]:
    """Return by profile what accepted models say of everybody, where it is other than what is kept."""
    found: dict[str, dict[str, ComputedValue]] = {}
    if not models:
        return found
    names = present.world.features.reading.names
    for people, matrix in _matrices(present, at):
        for model in models:
            computed = computed_values(model, compute(model, matrix, names), at)
            for profile, value in zip(people, computed, strict=True):
                rounded = msgspec.structs.replace(value, value=float(f"{value.value:.3g}"))
                kept = profile.computed.get(model.attribute.key)
                if kept is None or (kept.value, kept.segment) != (rounded.value, rounded.segment):
                    found.setdefault(profile.id, {})[model.attribute.key] = rounded
    return found


def _matrices(present: _Present, at: float) -> Iterator[tuple[list[Profile], NDArray[np.float32]]]:
    """Yield everybody with their variables, some at a time."""
    world = present.world
    for first in range(0, len(present.ids), _BATCH):
        ids = present.ids[first : first + _BATCH]
        people = [profile for key in ids if (profile := world.profiles.get(key)) is not None]
        yield people, np.array([vector(world, profile, at) for profile in people])


def _clusters(
    request: LearnRequest,
    present: _Present,
    sample: tuple[float, np.random.Generator],
    skipped: dict[str, str],
) -> ClusterModel | None:
    """Return clusters of people, or of a random part of them where there are too many."""
    if request.clusters is None:
        return None
    at, generator = sample
    chosen = np.arange(len(present.ids))
    if len(chosen) > LEARN_PEOPLE_MAX:
        chosen = np.sort(generator.choice(chosen, LEARN_PEOPLE_MAX, replace=False))
    some = present._replace(ids=[present.ids[person] for person in chosen])
    world = present.world
    try:
        program = world.features.reading
        columns = list(program.tellable)
        parts = [rows[:, columns] for _, rows in _matrices(some, at)]
        matrix = np.concatenate([np.zeros((0, len(columns)), np.float32), *parts])
        return fit_clusters(
            np.nan_to_num(matrix, nan=0.0),
            [program.names[slot] for slot in columns],
            request.clusters,
            generator,
            world.clusters.model,
        )
    except InvalidInputError as error:
        skipped["clusters"] = str(error)
        return None
