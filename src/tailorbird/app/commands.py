"""The commands that serve, show and check an installation."""

import argparse
import asyncio
import tempfile
from pathlib import Path

import msgspec

from tailorbird.app.config import Config, load_config, load_keys
from tailorbird.app.engine import Engine, catch_up, current_state
from tailorbird.app.keeper import Keeper
from tailorbird.app.operators import readout_query
from tailorbird.app.server import (
    checked_features,
    checked_placements,
    checked_segments,
    declare_features,
    declare_identity_rules,
    declare_placements,
    declare_segments,
    open_engine,
    options_of,
    serve,
)
from tailorbird.clock import SystemClock
from tailorbird.errors import ConfigurationError, ConflictError, NotFoundError
from tailorbird.live.world import TABLES, World
from tailorbird.measure.query import ReadoutQuery
from tailorbird.measure.report import render
from tailorbird.measure.worker import ReadoutWorker
from tailorbird.process.worker import Fold
from tailorbird.schema.readout import Readouts
from tailorbird.stores.sqlite import SqliteState


def _config(options: argparse.Namespace) -> Config:
    given = {name: getattr(options, name, None) for name in ("data", "host", "port")}
    return load_config(options.config, given)


def run_serve(options: argparse.Namespace) -> int:
    """Serve until told to stop."""
    config = _config(options)
    checked_features(config, options.config)
    placements = checked_placements(options.config)  # Before keys are made that are shown but once.
    segments = checked_segments(options.config)
    folder = Path(config.data)
    folder.mkdir(parents=True, exist_ok=True)
    keys, made = load_keys(folder)
    for name, key in made.items():
        print(f"tailorbird: {name} key: {key}")
    if made:
        print("tailorbird: these keys are shown once; the server and admin keys are stored as hashes")
    engine = open_engine(config, keys)
    declare_features(engine, config)
    declare_placements(engine, placements)
    declare_identity_rules(engine, config.identity)
    declare_segments(engine, segments)
    serve(engine, config, keys)
    return 0


def run_report(options: argparse.Namespace) -> int:
    """Print the readouts; also beside a running server, as of its last checkpoint."""
    world = _open_world(options)
    wanted = options.placement
    if wanted is not None and wanted not in world.placements:
        raise NotFoundError(f"no placement is called {wanted!r}")
    found = asyncio.run(_ask(readout_query(world, SystemClock().now(), wanted)))
    print(msgspec.json.encode(found).decode() if options.json else render(found))
    return 0


def run_check(options: argparse.Namespace) -> int:
    """Validate configuration, features, placements and segments."""
    checked_features(load_config(options.config, {}), options.config)
    count = len(checked_placements(options.config))
    segments = len(checked_segments(options.config))
    if options.json:
        print(msgspec.json.encode({"ok": True, "placements": count, "segments": segments}).decode())
    else:
        placed = f"{count} placement{'s' * (count != 1)}, {segments} segment{'s' * (segments != 1)}"
        print(f"the configuration is right; {placed}")
    return 0


def run_rebuild(options: argparse.Namespace) -> int:
    """Fold the log into a fresh state and compare it with the one that is there, byte for byte."""
    config = _config(options)
    keys, _ = load_keys(_existing(config))
    clock = SystemClock()
    # What is only compared is left as it is, the warehouse too.
    engine_options = msgspec.structs.replace(options_of(config, keys), warehouse=False)
    engine = Engine(Path(config.data), engine_options, clock)
    try:
        kept = engine.world.store
        if kept.offset == 0 < engine.log.end:
            raise ConflictError("there is no state to compare with: start the server once, it folds the log")
        started = clock.elapsed()
        with tempfile.TemporaryDirectory(dir=config.data, prefix="rebuild-") as folder:
            world = engine.new_world(SqliteState(Path(folder) / "state.db", TABLES))
            fold = Fold(world, engine_options.secret, engine.log)
            folded = catch_up(fold, engine.log, Keeper(None), kept.offset)
            seconds = clock.elapsed() - started
            is_same = world.store.digest() == kept.digest()
            world.store.close()
        health = engine.log.health()
    finally:
        engine.close_unchanged()
    result = {
        "records": folded,
        "seconds": round(seconds, 3),
        "recordsPerSecond": round(folded / seconds) if seconds else 0,
        "same": is_same,
        "corruptRecords": health.records_corrupt,
    }
    if options.json:
        print(msgspec.json.encode(result).decode())
    else:
        verdict = "the state is the same, byte for byte" if is_same else "THE STATE DIFFERS"
        print(f"folded {folded} records in {seconds:.2f} s: {verdict}")
    return 0 if is_same else 1


async def _ask(query: ReadoutQuery) -> Readouts:
    worker = ReadoutWorker()
    try:
        return await worker.ask(query)
    finally:
        await worker.close()


def _existing(config: Config) -> Path:
    folder = Path(config.data)
    if not folder.is_dir():
        raise ConfigurationError(f"--data: there is no folder {config.data!r}")
    return folder


def _open_world(options: argparse.Namespace) -> World:
    config = _config(options)
    path = current_state(_existing(config))
    if path is None:
        raise ConfigurationError(f"--data: {config.data!r} holds no state; has a server run there?")
    return World(SqliteState(path, TABLES), holdout_share=config.holdout)
