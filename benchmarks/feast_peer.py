"""Feast as a peer: a repository, its SDK run in an environment of its own, its feature server, and Redis.

Nothing of Feast is imported here: `.deps/peers` holds it, made by `make bench-peers`, and `feast_side.py`
runs there. Every process is ended by its own id, every wait is bounded.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet
from tests.serving import free_port

from benchmarks.load import HOST, post
from benchmarks.machine import cores, pinned
from benchmarks.stopwatch import Took

ENVIRONMENT = Path(__file__).parents[1] / ".deps" / "peers"
SQLITE = {"type": "sqlite", "path": "data/online.db"}

Row = dict[str, float]

_SIDE_SECONDS_MAX = 300.0
_START_SECONDS_MAX = 60.0
_STOP_SECONDS_MAX = 20.0
_ANSWER_SECONDS_MAX = 20.0
_POLL_SECONDS = 0.1
_TOLD_BYTES = 4_000


def is_installed() -> bool:
    """Return whether Feast's environment was made."""
    return (ENVIRONMENT / "bin" / "feast").is_file()


class Feast:
    """A feature repository of its own, with one online store."""

    def __init__(self, folder: Path, online_store: dict[str, str]) -> None:
        """Describe a repository in `folder`, which is made; `prepare` fills it."""
        self.versions: dict[str, str] = {}
        self._folder = folder
        folder.mkdir()
        settings = {
            "project": "peers",
            "registry": "data/registry.db",
            "provider": "local",
            "offline_store": {"type": "file"},
            "online_store": online_store,
            "entity_key_serialization_version": 3,
        }
        # JSON is YAML.
        (folder / "feature_store.yaml").write_text(json.dumps(settings), encoding="utf-8")

    def prepare(self, rows: dict[str, Row], at: float) -> dict[str, Row]:
        """Materialize a row for each visitor as of `at`; return what the SDK then says of each."""
        names = next(iter(rows.values())).keys()
        columns: dict[str, Any] = {
            name: pa.array([row[name] for row in rows.values()], pa.float32()) for name in names
        }
        moments = [datetime.fromtimestamp(at, UTC)] * len(rows)
        columns |= {"visitor": list(rows), "event_timestamp": pa.array(moments, pa.timestamp("us", tz="UTC"))}
        parquet.write_table(pa.table(columns), self._folder / "variables.parquet")
        found = self._side("prepare")
        self.versions = found["versions"]
        held = found["values"]
        return {
            visitor: {name: held[name][place] for name in names}
            for place, visitor in enumerate(held["visitor"])
        }

    def measure(self, reads: int, updates: int, seed: int) -> dict[str, list[Took]]:
        """Return what the SDK took for each `read`, `push` and `write`."""
        found: dict[str, list[Took]] = self._side("measure", str(reads), str(updates), str(seed))
        return found

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Run the feature server on the server's core; yields its port."""
        port = free_port()
        command = [str(ENVIRONMENT / "bin" / "feast"), "-c", str(self._folder), "serve", "--host", HOST]
        command += ["--port", str(port), "--no-access-log", "--workers", "1", "--max-requests", "0"]
        command += ["--registry_ttl_sec", "3600"]  # Reading the registry again is left out of the figures.
        with running(command, self._folder / "serve.log", lambda: _answers(f"http://{HOST}:{port}/health")):
            yield port

    def _side(self, what: str, *arguments: str) -> Any:
        """Run Feast's side in its own environment and return what it prints."""
        side = Path(__file__).with_name("feast_side.py")
        command = [str(ENVIRONMENT / "bin" / "python"), "-I", str(side), what, str(self._folder), *arguments]
        log = self._folder / f"{what}.log"
        with log.open("ab") as file, pinned(cores()[0]):
            done = subprocess.run(
                command,
                env=_environment(),
                stdout=subprocess.PIPE,
                stderr=file,
                check=False,
                timeout=_SIDE_SECONDS_MAX,
            )
        assert done.returncode == 0, f"Feast's side failed to {what}:\n{_told(log)}"
        return json.loads(done.stdout)


def read_request(visitor: str) -> bytes:
    """Return a request for the variables of one visitor."""
    return post("/get-online-features", _question(visitor), "none")


def push_request(visitor: str, row: Row, at: float) -> bytes:
    """Return a request that pushes a visitor's row as of `at`."""
    columns: dict[str, list[Any]] = {name: [value] for name, value in row.items()}
    columns |= {"visitor": [visitor], "event_timestamp": [str(datetime.fromtimestamp(at, UTC))]}
    body = {"push_source_name": "pushed", "df": columns, "to": "online"}
    return post("/push", json.dumps(body).encode(), "none")


def served(port: int, visitor: str) -> Row:
    """Return the variables of a visitor as the feature server says."""
    request = urllib.request.Request(
        f"http://{HOST}:{port}/get-online-features",
        _question(visitor),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS_MAX) as answer:
        told = json.loads(answer.read())
    names = told["metadata"]["feature_names"]
    return {name: one["values"][0] for name, one in zip(names, told["results"], strict=True)}


def _question(visitor: str) -> bytes:
    return json.dumps({"feature_service": "hundred", "entities": {"visitor": [visitor]}}).encode()


@contextmanager
def redis(folder: Path) -> Iterator[int | None]:
    """Run a Redis that writes nothing, on the server's core; yields its port, None where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    port = free_port()
    command = [program, "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]
    with running([*command, "--dir", str(folder)], folder / "redis.log", lambda: _pongs(port)):
        yield port


@contextmanager
def running(command: list[str], log: Path, is_ready: Callable[[], bool]) -> Iterator[None]:
    """Run a program on the server's core, in a session of its own, and end it with what it started."""
    with log.open("ab") as file, pinned(cores()[0]):
        process = subprocess.Popen(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, log, is_ready)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # Its own session: nobody else's process is in it.
            process.wait(_STOP_SECONDS_MAX)


def _wait(process: "subprocess.Popen[bytes]", log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS_MAX
    while not is_ready():
        assert process.poll() is None, f"ended at its start:\n{_told(log)}"
        assert time.monotonic() < deadline, f"not ready within {_START_SECONDS_MAX:g} s:\n{_told(log)}"
        time.sleep(_POLL_SECONDS)


def _told(log: Path) -> str:
    return log.read_bytes()[-_TOLD_BYTES:].decode(errors="replace")


def _environment() -> dict[str, str]:
    """Return this process's variables for Feast: it reports to nobody, and finds no packages of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"FEAST_USAGE": "False"}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _pongs(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), 1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
