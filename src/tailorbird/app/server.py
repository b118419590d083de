"""The server: the engine behind uvicorn, in one process, from start to a clean end."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import uvicorn

from tailorbird.app.config import Config, Keys, load_placements, load_segments
from tailorbird.app.doors import Doors
from tailorbird.app.engine import Engine, Options
from tailorbird.app.feature_doors import FeatureDoors
from tailorbird.app.http import hang_up_on_the_late, hot_protocol, uvicorn_config
from tailorbird.app.keys import Gate
from tailorbird.app.learner import Learner, LearnSettings
from tailorbird.app.link_doors import LinkDoors
from tailorbird.app.model_doors import ModelDoors
from tailorbird.app.operators import Operators
from tailorbird.app.privacy_doors import Privacy, PrivacyDoors
from tailorbird.app.routes import AllDoors, Application, table, with_openapi
from tailorbird.app.segment_doors import SegmentDoors
from tailorbird.app.segment_pass import SegmentPass
from tailorbird.clock import Clock, SystemClock
from tailorbird.decide.compiled import check
from tailorbird.errors import ConfigurationError, InvalidInputError
from tailorbird.features.defaults import CATALOGUES, expanded
from tailorbird.features.program import Program
from tailorbird.features.vocabulary import Vocabulary
from tailorbird.limits import CONNECTIONS_MAX, KEEP_ALIVE_SECONDS, SEGMENTS_MAX
from tailorbird.live.rule_segments import check_segment
from tailorbird.measure.worker import ReadoutWorker
from tailorbird.schema.feature import FeatureConfig, FeaturesPut
from tailorbird.schema.identity import IdentityRules
from tailorbird.schema.placement import Placement
from tailorbird.schema.records import IdentityRulesPut, PlacementPut
from tailorbird.schema.segment import RuleSegment, SegmentPut

logger = logging.getLogger("tailorbird")

_BASE_MIB = 255  # Before any profile: interpreter, NumPy, Numba, Arrow, features, filters of message ids.
_CACHE_SHARE = 0.45  # Of the rest; what waits for a commit, and the commit's copies, take what is left.
_CACHE_MIB_MIN = 32
_SHUTDOWN_SECONDS = 5
_SWEEP_SECONDS = 5.0
_GARBAGE_SECONDS = 0.1
_GARBAGE_OBJECTS = 2_000  # Collected in about a millisecond.
_GARBAGE_LOOKS = 50  # Without so many objects: once in five seconds.
_SWITCH_SECONDS = 0.0005
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def open_engine(config: Config, keys: Keys, clock: Clock | None = None) -> Engine:
    """Return the engine of a data folder, with the log folded up to its end.

    Raises:
        ConflictError: Another process has the folder.
    """
    engine = Engine(Path(config.data), options_of(config, keys), clock or SystemClock())
    engine.recover()
    return engine


def options_of(config: Config, keys: Keys) -> Options:
    """Return what the engine is told by a configuration."""
    return Options(
        secret=bytes.fromhex(keys.secret),
        holdout_share=config.holdout,
        gpc_opts_out=config.global_privacy_control == "opt-out",
        cache_bytes=int(max((config.memory_mib - _BASE_MIB) * _CACHE_SHARE, _CACHE_MIB_MIN)) * 1024 * 1024,
        checkpoint_seconds=config.checkpoint_seconds,
        reads_every_vector=config.feature_vectors == "every",
        sample_share=config.feature_sample,
        warehouse=config.warehouse,
    )


def checked_placements(config_file: Path | None) -> list[Placement]:
    """Return the placements of the folder `placements/` beside the configuration.

    Raises:
        ConfigurationError: One of them is wrong; the message names file, field and rule.
    """
    placements = []
    for file, placement in load_placements(config_file):
        try:
            placements.append(check(placement))
        except InvalidInputError as error:
            raise ConfigurationError(f"{file}: {error}") from error
    return placements


def declare_placements(engine: Engine, placements: Iterable[Placement]) -> None:
    """Write the placements of files that differ from what is declared; files win."""
    for checked in placements:
        if engine.world.placements.get(checked.key) != checked:
            engine.write(PlacementPut(engine.clock.now(), checked))


def checked_features(config: Config, config_file: Path | None) -> None:
    """Check the features of a configuration.

    Raises:
        ConfigurationError: They clash, or read what is sensitive; the message names field and rule.
    """
    if config.features is None:
        return
    try:
        put = FeaturesPut(0.0, config.features, expanded(config.features))
        Program(put, Vocabulary(lambda _name, _code: None))
    except InvalidInputError as error:
        raise ConfigurationError(f"{config_file or 'tailorbird.toml'}: features.{error}") from error


def declare_features(engine: Engine, config: Config) -> None:
    """Declare the features of the configuration; without any, all built-in ones at the first start."""
    is_first = not engine.world.features.is_declared
    features = config.features or (FeatureConfig(catalogues=CATALOGUES) if is_first else None)
    if features is not None:
        engine.declare_features(features)


def checked_segments(config_file: Path | None) -> list[RuleSegment]:
    """Return the segments of the folder `segments/` beside the configuration.

    Raises:
        ConfigurationError: One of them is wrong; the message names file, field and rule.
    """
    loaded = load_segments(config_file)
    if len(loaded) > SEGMENTS_MAX:
        raise ConfigurationError(f"segments/: at most {SEGMENTS_MAX} segments, not {len(loaded)}")
    segments: dict[str, RuleSegment] = {}
    for file, segment in loaded:
        if segment.key in segments:
            raise ConfigurationError(f"{file}: key: each segment is declared once, {segment.key!r} twice")
        try:
            segments[segment.key] = check_segment(segment, segments)
        except InvalidInputError as error:
            raise ConfigurationError(f"{file}: {error}") from error
    return list(segments.values())


def declare_segments(engine: Engine, segments: Iterable[RuleSegment]) -> None:
    """Write the segments of files that differ from what is declared; files win.

    Raises:
        ConfigurationError: With those declared otherwise there would be a circle, or too many.
    """
    declared = engine.world.segments.declared
    files = {segment.key: segment for segment in segments}
    others = {key: kept.segment for key, kept in declared.items() if key not in files}
    if len(files) + len(others) > SEGMENTS_MAX:
        raise ConfigurationError(f"segments/: at most {SEGMENTS_MAX} segments, {len(others)} by the API")
    for key, segment in files.items():
        try:
            check_segment(segment, {**others, **files})
        except InvalidInputError as error:
            raise ConfigurationError(f"segment {key!r}: {error}") from error
        if key not in declared or declared[key].segment != segment:
            engine.write(SegmentPut(engine.clock.now(), segment))


def declare_identity_rules(engine: Engine, rules: IdentityRules) -> None:
    """Write the configured rules of identity where they differ from those in force."""
    if engine.world.identity.stated != rules:
        engine.write(IdentityRulesPut(engine.clock.now(), rules))


def serve(engine: Engine, config: Config, keys: Keys) -> None:
    """Serve until SIGTERM or SIGINT, then end cleanly: answer what is under way, write everything down."""
    gate = Gate(keys)
    doors = Doors(engine, gate, config.analytics_js)
    readouts = ReadoutWorker()
    operators = Operators(doors, readouts)
    features = FeatureDoors(engine, gate)
    privacy = Privacy(engine)
    everybody = SegmentPass(engine)
    learner = Learner(
        engine,
        LearnSettings(
            config.computed,
            None if config.clusters == "off" else config.clusters,
            config.learn_every_hours,
            engine.options.gpc_opts_out,
        ),
    )
    routes = table(
        AllDoors(
            doors,
            operators,
            LinkDoors(doors),
            PrivacyDoors(doors, privacy),
            features,
            SegmentDoors(doors, everybody),
            ModelDoors(learner, gate),
        )
    )
    listener = _listen(config.host, config.port)
    settings = uvicorn_config(
        Application(with_openapi(routes), gate),
        hot_protocol(doors.hot()),
        log_level=config.log_level,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = _Server(settings)
    port = listener.getsockname()[1]
    print(f"tailorbird: listening on http://{config.host}:{port}", flush=True)  # noqa: T201
    with asyncio.Runner(loop_factory=settings.get_loop_factory()) as runner:
        try:
            runner.run(_run(server, (privacy, everybody, learner), listener, readouts))
        finally:
            engine.close()


class _Server(uvicorn.Server):
    """uvicorn's server, but a signal only ends serving.

    uvicorn would raise it again afterwards, and the clean end would be skipped.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT end `serve`, while it runs."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)


async def _run(
    server: uvicorn.Server,
    work: tuple[Privacy, SegmentPass, Learner],
    listener: socket.socket,
    readouts: ReadoutWorker,
) -> None:
    privacy, everybody, learner = work
    # The default of 5 ms lets the thread that commits hold the loop up for as long.
    sys.setswitchinterval(_SWITCH_SECONDS)
    checkpoints = asyncio.create_task(privacy.engine.checkpoint_forever())
    checkpoints.add_done_callback(lambda task: _end_on_failure(server, task))
    requests = asyncio.create_task(privacy.requests.run_forever())
    requests.add_done_callback(lambda task: _end_on_failure(server, task))
    refolds = asyncio.create_task(privacy.engine.refold_forever())
    refolds.add_done_callback(lambda task: _end_on_failure(server, task))
    passes = asyncio.create_task(everybody.run_forever())
    passes.add_done_callback(lambda task: _end_on_failure(server, task))
    learning = asyncio.create_task(learner.run_forever())
    learning.add_done_callback(lambda task: _end_on_failure(server, task))
    sweeper = asyncio.create_task(_sweep(server))
    collector = asyncio.create_task(_collect_garbage())
    try:
        await server.serve(sockets=[listener])
    finally:
        tasks = (checkpoints, requests, refolds, passes, learning, sweeper, collector)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await readouts.close()


def _end_on_failure(server: uvicorn.Server, task: "asyncio.Task[None]") -> None:
    """Stop serving when work in the background has ended by an error: what is left undone would pile up."""
    if not task.cancelled() and task.exception() is not None:
        logger.critical("background work has failed; the server ends", exc_info=task.exception())
        server.should_exit = True


async def _collect_garbage() -> None:
    """Look for cycles among young objects now and then, and never among those that have settled.

    A full collection walks every cached profile: 31 ms at start, and longer as the cache fills. What is
    alive after a while is a profile, a table or a connection, which hold no cycles: it goes to the oldest
    generation, which is not collected, and is freed by its reference count when its time comes.

    Often and few at a time: every request waits for a collection, and each object takes half a microsecond.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    looks = 0
    while True:
        await asyncio.sleep(_GARBAGE_SECONDS)
        looks += 1
        if gc.get_count()[0] > _GARBAGE_OBJECTS or looks > _GARBAGE_LOOKS:
            looks = 0
            gc.collect(1)


async def _sweep(server: uvicorn.Server) -> None:
    """Close connections whose client is slow or gone: it must not hold a place for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        hang_up_on_the_late(server.server_state.connections, loop.time())


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.set_inheritable(False)
    return listener
