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

from tailorbird.app.config import Config, Keys, load_placements
from tailorbird.app.doors import Doors
from tailorbird.app.engine import Engine, Options
from tailorbird.app.http import hang_up_on_the_late, hot_protocol, uvicorn_config
from tailorbird.app.keys import Gate
from tailorbird.app.link_doors import LinkDoors
from tailorbird.app.operators import Operators
from tailorbird.app.privacy_doors import Privacy, PrivacyDoors
from tailorbird.app.routes import Application, table, with_openapi
from tailorbird.clock import Clock, SystemClock
from tailorbird.decide.compiled import check
from tailorbird.errors import ConfigurationError, InvalidInputError
from tailorbird.limits import CONNECTIONS_MAX, KEEP_ALIVE_SECONDS
from tailorbird.measure.worker import ReadoutWorker
from tailorbird.schema.identity import IdentityRules
from tailorbird.schema.placement import Placement
from tailorbird.schema.records import IdentityRulesPut, PlacementPut

logger = logging.getLogger("tailorbird")

_BASE_MIB = 200  # The process before any profile: interpreter, NumPy, Numba, the filters of message ids.
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
    privacy = Privacy(engine)
    routes = table(doors, operators, LinkDoors(doors), PrivacyDoors(doors, privacy))
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
            runner.run(_run(server, privacy, listener, readouts))
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
    server: uvicorn.Server, privacy: Privacy, listener: socket.socket, readouts: ReadoutWorker
) -> None:
    # The default of 5 ms lets the thread that commits hold the loop up for as long.
    sys.setswitchinterval(_SWITCH_SECONDS)
    checkpoints = asyncio.create_task(privacy.engine.checkpoint_forever())
    checkpoints.add_done_callback(lambda task: _end_on_failure(server, task))
    requests = asyncio.create_task(privacy.requests.run_forever())
    requests.add_done_callback(lambda task: _end_on_failure(server, task))
    sweeper = asyncio.create_task(_sweep(server))
    collector = asyncio.create_task(_collect_garbage())
    try:
        await server.serve(sockets=[listener])
    finally:
        tasks = (checkpoints, requests, sweeper, collector)
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
