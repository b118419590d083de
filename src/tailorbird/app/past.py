"""The past of an installation: its history, and people folded again from it. Also beside a running server."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tailorbird.app.engine import current_state, current_warehouse
from tailorbird.errors import ConfigurationError
from tailorbird.live.world import TABLES, World
from tailorbird.stores.history import LABELS, History
from tailorbird.stores.sqlite import SqliteState
from tailorbird.train.dataset import Past, Row
from tailorbird.train.skew import SkewMeter, SkewReport

CACHE_BYTES = 256 * 1024 * 1024
"""Of the people at hand; others wait in a temporary file."""


class Opened(NamedTuple):
    """What is needed to ask about the past."""

    history: History
    past: Past
    names: tuple[str, ...]
    """Of the variables."""
    version: str
    """Of their layout."""


@contextmanager
def opened(folder: Path, *, gpc_opts_out: bool) -> Iterator[Opened]:
    """Open the history of a data folder, with nobody folded yet.

    Raises:
        ConfigurationError: There is no state, or no history; the message says what to do.
    """
    state = current_state(folder)
    if state is None:
        raise ConfigurationError(f"--data: {str(folder)!r} holds no state; has a server run there?")
    warehouse = current_warehouse(folder)
    if not warehouse.is_dir():
        raise ConfigurationError(
            f"--data: {str(folder)!r} holds no history: `tailorbird warehouse build` makes it"
        )
    with ExitStack() as stack:
        live = World(SqliteState(state, TABLES))
        stack.callback(live.store.close)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tailorbird-past-")))
        world = World(SqliteState(scratch / "past.db", TABLES), CACHE_BYTES, gpc_opts_out=gpc_opts_out)
        stack.callback(world.store.close)
        world.vocabulary.load(live.words())
        past = Past(world, live.features.reading.put)
        reading = world.features.reading
        yield Opened(stack.enter_context(History(warehouse)), past, reading.names, reading.version)


def rows_of(history: History, labels: pa.Table) -> Iterator[Row]:
    """Yield the rows of `History.rows_as_of` as dictionaries, in the order of the log."""
    for batch in history.rows_as_of(labels):
        yield from batch.to_pylist()


def skew_of(now: Opened) -> SkewReport:
    """Return how what sampled decisions were made with differs from what history says; folds those people."""
    meter = SkewMeter(now.past, now.names, now.version)
    meter.take(rows_of(now.history, _sampled(now)))
    return meter.report()


def _sampled(now: Opened) -> pa.Table:
    """Return a label at the end of history for everybody of whom a decision logged its variables."""
    decisions = now.history.tables["decisions"]
    sampled = decisions.filter(decisions.payload.cast("string").contains('"values":"'))
    last = sampled.group_by("profile").agg(t=sampled.known_at.max())
    whom = last.filter(last.profile.notnull()).select("profile", "t")
    schema = pa.schema([("profile", pa.string()), ("t", pa.float64())])
    found = pa.Table.from_batches([batch.cast(schema) for batch in now.history.stream(whom)], schema)
    count = len(found)
    columns = [pa.array(np.arange(count)), found["profile"], found["t"]]
    return pa.Table.from_arrays(columns, schema=LABELS)
