"""Fixtures of the end-to-end tests: a real server, real clients, and a real browser.

Where a client, Node or Chromium is not installed, the tests that need it are skipped and say so by
name; with `CI=true` that is a failure, because then `make test` was to have installed it.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from tests.e2e.clients import Clients
from tests.e2e.proxy import RecordingProxy
from tests.e2e.storefront import Site
from tests.needs import absent
from tests.serving import Server

ROOT = Path(__file__).parents[2]
NODE_FOLDER = ROOT / "tests/clients/node"
PYTHON_FOLDER = ROOT / "tests/clients/python"
CLIENT_PYTHON = ROOT / ".deps/python-clients/bin/python"
CLIENT_PYTHON_STAMP = ROOT / ".deps/python-clients.stamp"  # Made once pip is done.
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the tests of a module share; each test uses visitors of its own."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def proxy(server: Server) -> Iterator[RecordingProxy]:
    """A recording proxy before the server, for one test."""
    recording = RecordingProxy(server.url)
    yield recording
    recording.close()
    for seen in recording.exchanges:  # Shown by pytest where the test failed.
        print(f"{seen.method} {seen.path} -> {seen.status} in {seen.seconds:.3f} s")


@pytest.fixture(scope="session")
def node_clients() -> Clients:
    """The Node clients, installed by `npm ci` in `tests/clients/node`."""
    node = shutil.which("node")
    if node is None:
        absent("Node.js", "install it; the Node and browser clients run on it")
    if not (NODE_FOLDER / "node_modules/.package-lock.json").exists():  # npm's last word.
        absent("the Node clients", "run `make node`")
    return Clients(Path(node), NODE_FOLDER)


@pytest.fixture(scope="session")
def python_clients() -> Clients:
    """The Python clients, in an environment of their own."""
    if not CLIENT_PYTHON_STAMP.exists():
        absent("the Python clients", "run `make python-clients`")
    return Clients(CLIENT_PYTHON, PYTHON_FOLDER)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium with an empty profile.

    One a module and no longer: while it is open, Playwright keeps an event loop in this thread, in
    which tests elsewhere could start none of their own.
    """
    program = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if program is None:
        absent("Chromium", "install the Debian package `chromium`, or run `make chromium` as root")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=list(CHROMIUM_FLAGS),
            chromium_sandbox=os.geteuid() != 0,  # Chromium's sandbox refuses to run as root.
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page of a visitor who was never here before."""
    context = chromium.new_context()
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def site(node_clients: Clients, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A shop's web site on an origin of its own, with the clients' browser builds."""
    folder = tmp_path_factory.mktemp("site")
    node_clients.run("bundle.mjs", {"folder": str(folder)})
    running = Site(folder)
    yield running
    running.close()
