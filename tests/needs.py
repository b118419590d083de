"""What a test needs and a machine may lack: skipped by name there, a failure where CI promised it."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tailorbird.app.datasets.shop import shared


def absent(what: str, remedy: str) -> NoReturn:
    """Skip the test because something is not there; fail it where CI promised that it is."""
    reason = f"{what} not found: {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def recorded(path: Path) -> Path:
    """Return where a public data set lies, `path` below the folder `shared`."""
    found = shared(path)
    if found is None:
        absent(str(path), "save the publisher's data set in the folder `shared` beside the checkout")
    return found
