"""The commands that send recorded traffic: `demo` and `replay`."""

import argparse

from tailorbird.app.config import environment
from tailorbird.app.demo import DemoOptions, ReplayOptions, run_demo, run_replay
from tailorbird.errors import ConfigurationError


def run_demo_command(options: argparse.Namespace) -> int:
    """Run the demo."""
    return run_demo(
        DemoOptions(
            dataset=options.dataset,
            is_fast=options.fast,
            is_json=options.json,
            data=options.data,
            lines=options.lines,
            environment=environment(),
        )
    )


def run_replay_command(options: argparse.Namespace) -> int:
    """Replay a recorded log."""
    speed = None if options.speed == "max" else _speed(options.speed)
    given = environment()
    return run_replay(
        ReplayOptions(
            source=options.file,
            speed=speed,
            is_json=options.json,
            url=options.url,
            write_key=given.get("TAILORBIRD_WRITE_KEY", ""),
            server_key=given.get("TAILORBIRD_SERVER_KEY", ""),
            data=options.data,
            environment=given,
        )
    )


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.0 < speed < float("inf"):
        raise ConfigurationError(f"--speed: max or a number above 0, not {text!r}")
    return speed
