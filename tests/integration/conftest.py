"""One server for the whole folder, and the proof at the end that nothing went wrong inside it."""

import socket
from collections.abc import Iterator

import pytest
from tests.integration.api import Api
from tests.serving import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that all share, each test with names of its own; no test may make it stumble."""
    with Server(tmp_path_factory.mktemp("integration") / "data") as running:
        yield running
    said = running.log_path.read_text()
    assert "Traceback" not in said, said[-4000:]


@pytest.fixture(scope="session")
def api(server: Server) -> Iterator[Api]:
    """The doors of the shared server."""
    with Api(server) as doors:
        yield doors


@pytest.fixture(scope="session")
def slow_connections(server: Server) -> Iterator[dict[str, socket.socket]]:
    """Connections that never finish what they began, opened when the session begins."""
    begun = {
        "nothing": b"",
        "half a header": b"POST /v1/track HTTP/1.1\r\nHost: shop.ex",
        "half a body": b"POST /v1/track HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 99\r\n\r\n{",
    }
    opened = {}
    for name, sent in begun.items():
        opened[name] = socket.create_connection(("127.0.0.1", server.port), 5.0)
        opened[name].sendall(sent)
    yield opened
    for connection in opened.values():
        connection.close()


@pytest.fixture(scope="session", autouse=True)
def _slow_clients_are_there_all_the_time(slow_connections: dict[str, socket.socket]) -> None:
    """Keep the slow ones from the first test to the last."""
