"""Running the client scripts of `tests/clients`, each in a process of its own."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

CLIENT_SECONDS_MAX = 60.0  # Longer than any client's own retries in these tests.


class Clients:
    """Client scripts of one language: each takes a JSON plan and reports what its library said."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.folder = folder
        self._program = program

    def run(self, script: str, plan: dict[str, Any]) -> dict[str, Any]:
        """Run one script by the plan; a client that crashes fails the test and is quoted."""
        # A proxy of this machine's own has no business between a client and loopback.
        direct = {name: v for name, v in os.environ.items() if not name.lower().endswith("_proxy")}
        try:
            done = subprocess.run(
                [self._program, script],
                input=json.dumps(plan),
                capture_output=True,
                check=False,
                cwd=self.folder,
                env=direct,
                text=True,
                timeout=CLIENT_SECONDS_MAX,
            )
        except subprocess.TimeoutExpired as late:
            said = f"{late.stdout or b''!r}\n{late.stderr or b''!r}"
            raise AssertionError(f"{script} did not end within {CLIENT_SECONDS_MAX:g} s:\n{said}") from None
        assert done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stderr}"
        report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return report
