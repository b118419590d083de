"""The command line. Exit codes: 0 done, 1 failed, 2 bad usage or configuration."""

import argparse
import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from tailorbird import __version__
from tailorbird.errors import ConfigurationError, TailorbirdError

COMMANDS = {
    "serve": ("tailorbird.app.commands", "run_serve"),
    "demo": ("tailorbird.app.demo_commands", "run_demo_command"),
    "replay": ("tailorbird.app.demo_commands", "run_replay_command"),
    "compute": ("tailorbird.app.compute_commands", "run_compute"),
    "report": ("tailorbird.app.commands", "run_report"),
    "profile": ("tailorbird.app.privacy_commands", "run_profile"),
    "links": ("tailorbird.app.link_commands", "run_links"),
    "check": ("tailorbird.app.commands", "run_check"),
    "rebuild": ("tailorbird.app.commands", "run_rebuild"),
    "features": ("tailorbird.app.feature_commands", "run_features"),
    "warehouse": ("tailorbird.app.warehouse_commands", "run_warehouse"),
}
"""Each command's module and function."""

_FAILED = 1
_BAD_USAGE = 2


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="tailorbird",
        description="Real-time personalization: events in, decisions out, lift proven.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    _add_parsers(parser.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        module, function = COMMANDS[options.command]
        # A command loads only what it needs: the server not the demo's Parquet reader.
        return int(getattr(import_module(module), function)(options))
    except ConfigurationError as error:
        return _say(options, error, _BAD_USAGE)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tailorbird"):
            raise
        return _say(options, _missing(options.command, error), _BAD_USAGE)
    except TailorbirdError as error:
        return _say(options, error, _FAILED)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _FAILED


def _missing(command: str, error: ModuleNotFoundError) -> ConfigurationError:
    return ConfigurationError(
        f"{command} needs the module {error.name}, which is not installed: pip install 'tailorbird[learn]'"
    )


def _say(options: argparse.Namespace, error: TailorbirdError, code: int) -> int:
    if getattr(options, "json", False):
        print(msgspec.json.encode({"error": str(error), "title": error.title}).decode())
    print(f"tailorbird: {error}", file=sys.stderr)
    return code


def _add_parsers(commands: Any) -> None:  # noqa: ANN401
    """Add every command's arguments to argparse's sub-parsers."""
    one = _parser(commands, "serve", "answer requests")
    one.add_argument("--host")
    one.add_argument("--port", type=int)
    one.add_argument("--role", choices=["all"], default="all", help="all: everything in this process")
    one = _parser(commands, "demo", "show the whole loop on real input", data=False)
    one.add_argument(
        "--dataset", default="online-retail", help="online-retail, completejourney, simulated, or a file"
    )
    one.add_argument("--fast", action="store_true", help="the first weeks only")
    one.add_argument("--data", type=Path, help="folder to use; a fresh one without it")
    one.add_argument("--lines", type=int, help="send only the first so many lines")
    one = _parser(commands, "replay", "send a recorded log through the real doors", data=False)
    one.add_argument("file", metavar="FILE|DATASET")
    one.add_argument("--speed", default="max", help="max, or how many times faster than it happened")
    one.add_argument("--url", help="a running server; without it, one is started")
    one.add_argument("--data", type=Path)
    one = _parser(commands, "compute", "fit computed attributes on a recorded log", data=False)
    one.add_argument("--dataset", default="online-retail", help="online-retail, completejourney, or a file")
    one.add_argument("--seed", type=int, default=7, help="of the fit; the same one gives the same models")
    one = _parser(commands, "report", "say what personalization earned")
    one.add_argument("--placement")
    one = _parser(commands, "profile", "show, export, erase or suppress a person")
    one.add_argument("action", choices=["show", "export", "erase", "suppress"])
    one.add_argument("identifier", metavar="TYPE:VALUE")
    one.add_argument("--dry-run", action="store_true", help="erase: only say what would go")
    one.add_argument("--lift", action="store_true", help="suppress: let the person in again")
    one.add_argument("--url", help="a running server; its admin key is in TAILORBIRD_ADMIN_KEY")
    one = _parser(commands, "links", "show, import, suggest, accept, reject, revoke or restore links")
    one.add_argument("action", choices=["show", "import", "suggest", "accept", "reject", "revoke", "restore"])
    one.add_argument("arguments", nargs="*", metavar="FILE|TYPE:VALUE", help="a file, or two identifiers")
    one.add_argument(
        "--source", help="import: who says so, where the file does not; the file's name without it"
    )
    one.add_argument("--confidence", type=float, help="import: of rows without one; suggest: the least")
    one.add_argument("--url", help="a running server; its admin key is in TAILORBIRD_ADMIN_KEY")
    _parser(commands, "check", "validate the configuration, and say where and why it is wrong")
    _parser(commands, "rebuild", "fold the log again and say whether the state is the same")
    one = _parser(commands, "features", "say what is declared, give features of past times, measure skew")
    one.add_argument("action", choices=["list", "as-of", "skew"])
    one.add_argument("--labels", type=Path, help="as-of: CSV or Parquet with columns identifier and t")
    one.add_argument("--out", type=Path, help="as-of: the Parquet file to write")
    one = _parser(commands, "warehouse", "make history from the log, or say what is there")
    one.add_argument("action", choices=["build", "status"])


def _parser(commands: Any, name: str, text: str, *, data: bool = True) -> Any:  # noqa: ANN401
    parser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    if data:
        parser.add_argument("--config", type=Path, help="tailorbird.toml")
        parser.add_argument("--data", help="folder that holds everything")
    return parser


if __name__ == "__main__":
    sys.exit(main())
