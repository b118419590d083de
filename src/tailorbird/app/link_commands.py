"""The command `tailorbird links`: show, import, suggest, accept, reject, revoke and restore links.

Without `--url` it works on a data folder that no server has, with the same code as the doors; with it, it
asks that server's doors, with the key in `TAILORBIRD_ADMIN_KEY`. `suggest` reads people from the folder's
last checkpoint in either case, so it runs on the server's machine.
"""

import argparse
import itertools
import urllib.parse
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec

from tailorbird.app.config import Config, load_config
from tailorbird.app.engine import current_state
from tailorbird.app.link_files import Row, read_links
from tailorbird.app.links import ERRORS_SHOWN_MAX, Declared, Links, checked_pair, declared_view
from tailorbird.app.privacy_commands import ask, with_engine
from tailorbird.errors import ConfigurationError, InvalidInputError
from tailorbird.limits import LINKS_PER_CALL_MAX, PAGE_SIZE_MAX
from tailorbird.live.revocations import Pair
from tailorbird.live.world import TABLES, World
from tailorbird.stores.sqlite import SqliteState

_SCORE_MIN: Final = 0.9
_ARGUMENTS: Final = {
    "show": 0,
    "suggest": 0,
    "import": 1,
    "accept": 2,
    "reject": 2,
    "revoke": 2,
    "restore": 2,
}
"""What each action is given: nothing, a file, or two identifiers."""


def run_links(options: argparse.Namespace) -> int:
    """Carry out one action and print its result; 1 where a row of a file was wrong."""
    given = options.arguments
    if len(given) != _ARGUMENTS[options.action]:
        wanted = ("nothing", "FILE", "two identifiers (TYPE:VALUE)")[_ARGUMENTS[options.action]]
        raise ConfigurationError(f"links {options.action}: takes {wanted} (found {len(given)} arguments)")
    config = load_config(options.config, {"data": options.data})
    if not options.url and not Path(config.data).is_dir():
        raise ConfigurationError(f"--data: there is no folder {config.data!r}")
    result = _ACTIONS[options.action](options, config)
    encoded = msgspec.json.encode(result)
    print((encoded if options.json else msgspec.json.format(encoded, indent=2)).decode())
    return 1 if isinstance(result, dict) and result.get("wrong") else 0


# --- rows -------------------------------------------------------------------------------------------


def _import(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Declare the links of a graph file."""
    file = Path(options.arguments[0])
    return _declare(options, config, read_links(file, options.source, options.confidence))


def _suggest(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Compare people, and suggest those who may be one."""
    score_min = _SCORE_MIN if options.confidence is None else options.confidence
    try:
        # Splink takes seconds to load; all other actions do without.
        likely = import_module("tailorbird.app.likely_links")
    except ImportError as error:
        raise ConfigurationError(
            f"comparing people needs Splink: install tailorbird[link] ({error})"
        ) from error
    path = current_state(Path(config.data))
    if path is None:
        raise ConfigurationError(f"--data: {config.data!r} holds no state; has a server run there?")
    world = World(SqliteState(path, TABLES), holdout_share=config.holdout)
    try:
        people = likely.compared(profile for _, profile in world.profiles.scan())
    finally:
        world.store.close()
    found = likely.likely_links(people, score_min)
    rows = (
        Row(number, msgspec.Raw(msgspec.json.encode(likely.row_of(each))))
        for number, each in enumerate(found, 1)
    )
    return {"people": len(people), **_declare(options, config, rows)}


def _declare(options: argparse.Namespace, config: Config, rows: Iterable[Row]) -> dict[str, Any]:
    if options.url:
        return _total(_ask_rows(options.url, batch) for batch in _batches(rows))

    async def declare(links: Links) -> dict[str, Any]:
        totals = []
        for batch in _batches(rows):
            done = await links.declare([row.link for row in batch])
            totals.append(_numbered(declared_view(done), batch))
        return _total(totals)

    result: dict[str, Any] = with_engine(config, lambda engine: declare(Links(engine)))
    return result


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, LINKS_PER_CALL_MAX)):
        yield batch


def _ask_rows(url: str, batch: list[Row]) -> dict[str, Any]:
    answer: dict[str, Any] = ask(url, "PUT", "/admin/v1/links", {"links": [row.link for row in batch]})
    return _numbered(answer, batch)


def _numbered(view: dict[str, Any], batch: list[Row]) -> dict[str, Any]:
    """Return an answer whose errors name rows as the file counts them."""
    errors = []
    for error in view["errors"]:
        place, _, path = error["path"].removeprefix("links[").partition("]")
        named = path.removeprefix(".") or "link"
        errors.append({**error, "path": f"row {batch[int(place)].number}: {named}"})
    return {**view, "errors": errors}


def _total(views: Iterable[dict[str, Any]]) -> dict[str, Any]:
    total = declared_view(Declared())
    for view in views:
        for name in ("linked", "suggested", "refused", "wrong"):
            total[name] += view[name]
        total["errors"] = [*total["errors"], *view["errors"]][:ERRORS_SHOWN_MAX]
    return total


# --- pairs ------------------------------------------------------------------------------------------


def _show(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Return the suggested and the revoked links."""
    if options.url:
        suggested = ask(options.url, "GET", f"/admin/v1/suggested-links?limit={PAGE_SIZE_MAX}")
        return {**suggested, "revoked": ask(options.url, "GET", "/admin/v1/revoked-links")["links"]}

    async def show(links: Links) -> dict[str, Any]:
        revoked = [{"identifiers": pair} for pair in links.revoked()]
        return {"suggestions": links.suggestions(PAGE_SIZE_MAX), "revoked": revoked}

    result: dict[str, Any] = with_engine(config, lambda engine: show(Links(engine)))
    return result


def _change(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Accept, reject, revoke or restore the link of two identifiers."""
    try:
        pair = checked_pair(*options.arguments)
    except InvalidInputError as error:
        raise ConfigurationError(str(error)) from error
    if options.url:
        return _change_at_server(options, pair)

    async def change(links: Links) -> dict[str, Any]:
        if options.action == "revoke":
            await links.revoke(pair)
        elif options.action == "restore":
            await links.restore(pair)
        else:
            await links.settle(pair, is_accepted=options.action == "accept")
        return links.people_of(*pair)

    result: dict[str, Any] = with_engine(config, lambda engine: change(Links(engine)))
    return result


def _change_at_server(options: argparse.Namespace, pair: Pair) -> dict[str, Any]:
    if options.action == "restore":
        query = urllib.parse.urlencode({"one": pair[0], "other": pair[1]})
        answer = ask(options.url, "DELETE", f"/admin/v1/revoked-links?{query}")
    elif options.action == "revoke":
        answer = ask(options.url, "PUT", "/admin/v1/revoked-links", {"identifiers": pair})
    else:
        body = {"identifiers": pair, "accepted": options.action == "accept"}
        answer = ask(options.url, "PUT", "/admin/v1/suggested-links", body)
    result: dict[str, Any] = answer
    return result


_ACTIONS: Final = {
    "show": _show,
    "suggest": _suggest,
    "import": _import,
    "accept": _change,
    "reject": _change,
    "revoke": _change,
    "restore": _change,
}
