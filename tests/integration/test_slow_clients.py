"""Clients that do not finish. They were there since the session began; see `conftest`."""

import pytest

from tailorbird.limits import REQUEST_SECONDS_MAX

SWEEP_SECONDS = 5.0 + 5.0  # How often the server looks, and room for a busy runner.


@pytest.mark.parametrize("name", ["nothing", "half a header", "half a body"])
def test_a_request_that_never_arrives_is_hung_up_on(slow_connections, name):
    connection = slow_connections[name]
    connection.settimeout(REQUEST_SECONDS_MAX + SWEEP_SECONDS)
    try:
        assert connection.recv(1024) == b""
    except ConnectionResetError:
        pass
    except TimeoutError:
        pytest.fail(f"still open after {REQUEST_SECONDS_MAX + SWEEP_SECONDS} s")


def test_others_are_answered_all_the_same(api):
    assert api.admin.get("/healthz", timeout=2.0).status_code == 200
