"""The command `tailorbird profile`: show, export, erase and suppress one person.

Without `--url` it works on a data folder that no server has, with the same code as the doors; `show`
also beside a running server, as of its last checkpoint. With `--url` it asks that server's doors, with
the key in `TAILORBIRD_ADMIN_KEY`.
"""

import argparse
import asyncio
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from tailorbird.admin.api import profile_view
from tailorbird.app.config import Config, environment, load_config, load_keys
from tailorbird.app.engine import Engine, current_state
from tailorbird.app.privacy_doors import Privacy
from tailorbird.app.server import open_engine
from tailorbird.clock import SystemClock
from tailorbird.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    TailorbirdError,
)
from tailorbird.limits import WAIT_SECONDS_MAX
from tailorbird.live.profiles import by_identifier
from tailorbird.live.world import TABLES, World
from tailorbird.privacy.identities import TYPES, check_name
from tailorbird.privacy.suppress import lift, suppress
from tailorbird.stores.sqlite import SqliteState

_KEY: Final = "TAILORBIRD_ADMIN_KEY"


def run_profile(options: argparse.Namespace) -> int:
    """Carry out one action on one person and print its result."""
    for flag, action in (("dry_run", "erase"), ("lift", "suppress")):
        if getattr(options, flag) and options.action != action:
            raise ConfigurationError(f"--{flag.replace('_', '-')}: only with `profile {action}`")
    try:
        name = check_name("TYPE:VALUE", options.identifier)
    except InvalidInputError as error:
        raise ConfigurationError(str(error)) from error
    actions = _at_server if options.url else _in_folder
    result = actions(options, name)
    encoded = msgspec.json.encode(result)
    print((encoded if options.json else msgspec.json.format(encoded, indent=2)).decode())
    return 0


# --- in a folder ------------------------------------------------------------------------------------


def _in_folder(options: argparse.Namespace, name: str) -> Any:  # noqa: ANN401
    config = load_config(options.config, {"data": options.data})
    if not Path(config.data).is_dir():
        raise ConfigurationError(f"--data: there is no folder {config.data!r}")
    if options.action == "show":
        return _show(config, name)
    work = {"export": _export, "erase": _erase, "suppress": _suppress}[options.action]
    return _with_privacy(config, lambda privacy: work(privacy, options, name))


def _show(config: Config, name: str) -> dict[str, Any]:
    path = current_state(Path(config.data))
    if path is None:
        raise ConfigurationError(f"--data: {config.data!r} holds no state; has a server run there?")
    world = World(SqliteState(path, TABLES), holdout_share=config.holdout)
    try:
        profile = by_identifier(world, name)
        if profile is None:
            raise NotFoundError(f"nobody is known by {name!r}")
        keys, _ = load_keys(Path(config.data))
        return profile_view(world, bytes.fromhex(keys.secret), profile, SystemClock().now())
    finally:
        world.store.close()


def _with_privacy(config: Config, work: Callable[[Privacy], Awaitable[Any]]) -> Any:  # noqa: ANN401
    return with_engine(config, lambda engine: work(Privacy(engine)))


def with_engine(config: Config, work: Callable[[Engine], Awaitable[Any]]) -> Any:  # noqa: ANN401
    """Return what `work` makes of a folder, which nobody else has meanwhile.

    Raises:
        ConflictError: A server has it.
    """
    keys, _ = load_keys(Path(config.data))
    try:
        engine = open_engine(config, keys)
    except ConflictError as error:
        raise ConflictError(
            f"a server has {config.data!r}: ask it, with --url http://HOST:PORT and {_KEY} set"
        ) from error

    async def run() -> Any:  # noqa: ANN401
        return await work(engine)

    try:
        return asyncio.run(run())
    finally:
        engine.close()


async def _export(privacy: Privacy, _options: argparse.Namespace, name: str) -> Any:  # noqa: ANN401
    export = await privacy.exporter.export([name])
    if not export.records_count:
        raise NotFoundError(f"nothing is held on {name!r}")
    return msgspec.Raw(export.document)


async def _erase(privacy: Privacy, options: argparse.Namespace, name: str) -> Any:  # noqa: ANN401
    if options.dry_run:
        return await privacy.erasure.plan([name])
    _say("erasing: the log is searched, rewritten and folded again; this may take minutes")
    request = await privacy.requests.submit(str(uuid.uuid4()), "erasure", [name])
    await privacy.requests.work()
    if request.proof is None:
        raise StorageError(f"the erasure is not done: {request.failure}")
    return request.proof


async def _suppress(privacy: Privacy, options: argparse.Namespace, name: str) -> Any:  # noqa: ANN401
    if options.lift:
        count = await lift(privacy.erasure, name)
        if not count:
            raise NotFoundError(f"{name!r} is not suppressed")
        return {"lifted": count}
    return {"suppressed": await suppress(privacy.erasure, name)}


# --- at a server ------------------------------------------------------------------------------------


def _at_server(options: argparse.Namespace, name: str) -> Any:  # noqa: ANN401
    place = urllib.parse.quote(name, safe=":")
    if options.action == "show":
        return ask(options.url, "GET", f"/admin/v1/profiles/{place}")
    if options.action == "suppress":
        method = "DELETE" if options.lift else "PUT"
        return ask(options.url, method, f"/admin/v1/suppressions/{place}")
    kind, _, value = name.partition(":")
    if kind not in TYPES:
        kind, value = "external_id", name
    identity = {"identity_type": kind, "identity_value": value, "identity_format": "raw"}
    asked = "access" if options.action == "export" else "erasure"
    body = {"subject_request_type": asked, "subject_identities": [identity]}
    wish = "dryRun=true" if options.dry_run else "wait=true"
    answer = ask(options.url, "POST", f"/opendsr/v1/requests?{wish}", body)
    if "result" not in answer:
        state = answer.get("failure") or answer.get("request_status")
        raise StorageError(f"the request is not done: {state}; ask {answer.get('results_url')}")
    return answer["result"]


def ask(url: str, method: str, path: str, body: Any = None) -> Any:  # noqa: ANN401
    """Return a server's JSON answer.

    Raises:
        ConfigurationError: The address is no HTTP address, or no key is set.
        TailorbirdError: The server refused, or cannot be reached.
    """
    key = environment().get(_KEY)
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"--url: an address such as http://127.0.0.1:8080 (found {url!r})")
    if not key:
        raise ConfigurationError(f"{_KEY}: set it to the server's admin key")
    request = urllib.request.Request(  # noqa: S310 (the scheme was checked)
        url.rstrip("/") + path,
        data=None if body is None else msgspec.json.encode(body),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS_MAX + 30) as answer:  # noqa: S310
            return msgspec.json.decode(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            raise TailorbirdError(f"the server refused: {error.code}: {_detail(error.read())}") from error
    except OSError as error:
        raise TailorbirdError(f"--url: {url} cannot be asked: {error}") from error


def _detail(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["detail"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def _say(text: str) -> None:
    """Tell somebody who watches; standard output is the result's."""
    if sys.stderr.isatty():
        print(f"tailorbird: {text}", file=sys.stderr)
