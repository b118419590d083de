"""A real Tailorbird server in a process of its own, for end-to-end tests and benchmarks.

Starts `tailorbird serve` as a user would, on a free port of 127.0.0.1 over a folder of its own, and
ends exactly that process. Every wait is bounded, and what the server said stands in the error.

    with Server(tmp_path / "data") as server:
        httpx.get(f"{server.url}/healthz")
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_SECONDS_MAX = 60.0  # A cold start compiles the hot path: some ten seconds on a busy runner.
STOP_SECONDS_MAX = 20.0  # Requests in flight, one checkpoint, and room for a busy runner.
POLL_SECONDS = 0.05
REQUEST_SECONDS_MAX = 15.0
LOG_TAIL_BYTES = 4_000

ANALYTICS_JS_DIR = Path(__file__).parent / "clients/node/node_modules/@segment/analytics-next/dist/umd"


class ServerError(Exception):
    """The server did not do what a user may expect: the message holds the end of its output."""


class Server:
    """One `tailorbird serve`: where it is, its keys, and how to end it and start it again.

    Attributes:
        data_dir: The folder of its state; kept over `restart`.
        log_path: Its standard output and error, beside `data_dir`.
        port: The same over restarts, so that clients find it again.
        write_key: What browsers and apps send.
        server_key: What back ends send.
        admin_key: What operators send.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        port: int | None = None,
    ) -> None:
        """Describe a server; `start` starts it.

        Args:
            data_dir: Folder for its state, made if absent.
            environment: Variables over those of this process.
            arguments: More arguments of `tailorbird serve`, such as `--config FILE`.
            port: Where to listen; a free one by default.
        """
        self.data_dir = data_dir
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        self.port = port or free_port()
        self.write_key = "wk_end_to_end"
        self.server_key = "sk_end_to_end"
        self.admin_key = "ak_end_to_end"
        self._environment = dict(environment or {})
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the base address, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return the process id of the running server."""
        return self._running().pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()

    def start(self) -> None:
        """Start the process and return once it is ready.

        Raises:
            ServerError: It ended, or was not ready within `START_SECONDS_MAX`.
        """
        if self._process is not None:
            raise ServerError(f"already running as process {self._process.pid}")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                env=self._variables(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._end(signal.SIGKILL)
            raise

    def stop(self) -> None:
        """Ask the server to end (SIGTERM) and wait for it.

        Raises:
            ServerError: It had to be killed after `STOP_SECONDS_MAX`, or ended with an error.
        """
        code = self._end(signal.SIGTERM)
        if code not in (0, -signal.SIGTERM):
            raise ServerError(self._told(f"ended with code {code} when asked to stop"))

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash or a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server if it runs, and start it again over the same folder and port."""
        if self._process is not None:
            self.stop()
        self.start()

    def request(
        self, method: str, path: str, body: object = None, *, key: str | None = None
    ) -> tuple[int, Any]:
        """Make one JSON request and return its status and the parsed answer.

        Args:
            method: HTTP method.
            path: Path and query, beginning with a slash.
            body: Sent as JSON; nothing is sent for `None`.
            key: Bearer key; the admin key by default.
        """
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {key or self.admin_key}",
                "Content-Type": "application/json",
            },
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS_MAX) as answer:
                return answer.status, _parsed(answer.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, _parsed(refused.read())

    def must(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Any:
        """Make one JSON request that has to succeed, and return the parsed answer.

        Raises:
            ServerError: The status was not 2xx.
        """
        status, answer = self.request(method, path, body, key=key)
        if not 200 <= status < 300:
            raise ServerError(self._told(f"{method} {path} answered {status}: {answer}"))
        return answer

    def profile(self, identifier: str) -> Any:
        """Return the profile known by `type:value`, or `None` where nobody is."""
        status, answer = self.request("GET", f"/admin/v1/profiles/{identifier}")
        if status == 404:
            return None
        if status != 200:
            raise ServerError(self._told(f"profile {identifier} answered {status}: {answer}"))
        return answer

    def _command(self) -> list[str]:
        program = os.environ.get("TAILORBIRD_COMMAND") or str(Path(sys.executable).with_name("tailorbird"))
        place = ["--data", str(self.data_dir), "--host", "127.0.0.1", "--port", str(self.port)]
        return [program, "serve", *place, *self._arguments]

    def _variables(self) -> dict[str, str]:
        variables = os.environ | {
            "TAILORBIRD_WRITE_KEY": self.write_key,
            "TAILORBIRD_SERVER_KEY": self.server_key,
            "TAILORBIRD_ADMIN_KEY": self.admin_key,
            "PYTHONUNBUFFERED": "1",
        }
        if ANALYTICS_JS_DIR.is_dir():
            variables["TAILORBIRD_ANALYTICS_JS_DIR"] = str(ANALYTICS_JS_DIR)
        return variables | self._environment

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerError(self._told(f"ended with code {process.returncode} at start"))
            if self._is_ready():
                return
            time.sleep(POLL_SECONDS)
        raise ServerError(self._told(f"not ready within {START_SECONDS_MAX:g} s"))

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=1.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _end(self, by: signal.Signals) -> int:
        process = self._running()
        self._process = None
        if process.poll() is None:
            process.send_signal(by)
        try:
            return process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS_MAX)
            raise ServerError(
                self._told(f"still running {STOP_SECONDS_MAX:g} s after {by.name}; killed")
            ) from None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process

    def _told(self, what: str) -> str:
        tail = self.log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return f"tailorbird serve on port {self.port}: {what}. The end of its output:\n{tail}"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode(errors="replace")
