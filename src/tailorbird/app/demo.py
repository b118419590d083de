"""The demo and the replay: recorded shopping through the real doors, and what came of it.

`run_demo` starts a server over a fresh folder, writes the shop's catalogue and one placement
through the API, sends every basket as live traffic (`traffic`), and tells what the server then
says: served, learned, earned against the holdout, and one visitor's story. `run_replay` sends a
recorded log, a dataset or JSON lines of Segment events, to a running server or one of its own.

Nothing is staged. Which items are bought, when and at what price is the log's; the client's only
freedom is to ask for a list before each item. A list is hit if the very next thing that the visitor
puts into the basket is on it. A policy that learned nothing would show no lift: the holdout gets
bestsellers, as anybody would without knowing the visitor.
"""

import contextlib
import http.client
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlsplit

import msgspec

from tailorbird.app.datasets import load
from tailorbird.app.datasets.shop import Shop
from tailorbird.app.progress import Progress
from tailorbird.app.traffic import Door, Meter, Plan, drive, send_log
from tailorbird.clock import Clock, SystemClock
from tailorbird.errors import ConfigurationError, TailorbirdError, shorten
from tailorbird.limits import ITEMS_PER_CALL_MAX

PLACEMENT: Final = {
    "kind": "list",
    "count": 10,
    "candidates": {"sources": ["popularity", "covisitation", "recency"], "limit": 100},
    "strategies": [
        {"id": "bestsellers", "weights": {"popularity": 1}},
        {"id": "together", "weights": {"covisitation": 1, "popularity": 0.05}},
        {"id": "again", "weights": {"recency": 1, "popularity": 0.05}},
        {"id": "mixed", "weights": {"covisitation": 1, "recency": 1, "popularity": 1}},
    ],
    "policy": {"type": "thompson"},
    "floor": 0.02,
    "holdout": 0.1,
    # Lines are a second apart and a list is asked for half a second before one: within a second of
    # the list lies the next thing bought, and nothing after it.
    "goal": {"event": "Product Added", "match": "item", "windowSeconds": 1},
    "learnFrom": "decisions",
    "constraints": {"diversityShare": 0.2},
}
PLACEMENT_KEY: Final = "next-item"
STRATEGIES_IN_WORDS: Final = {
    "bestsellers": "what sells most these days",
    "together": "what others bought after the same things",
    "again": "what this visitor bought before",
    "mixed": "all three at equal weights",
}
LEFT_OUT_IN_WORDS: Final = {
    "cancelled": "cancelled or adjusted invoices",
    "notAProduct": "postage, fees, vouchers and the like",
    "quantityNotPositive": "no positive quantity",
    "priceNotPositive": "no positive price",
    "repeatedInBasket": "the same item again in one invoice (quantities added)",
    "unreadable": "not readable",
}
REASONS_IN_WORDS: Final = {
    "SPLIT": "drawn by the policy",
    "HOLDOUT": "for the holdout",
    "FALLBACK": "bestsellers, as time ran out",
}
WIDTH: Final = 96
CONNECTIONS: Final = 16  # Events share a disk sync with those beside them; more only queue.
FAST_LINES: Final = {"simulated": 6_000}
FAST_LINES_DEFAULT: Final = 30_000  # Two weeks of the log; half a minute.
START_SECONDS_MAX: Final = 60.0  # A first start compiles the hot path.
STOP_SECONDS_MAX: Final = 30.0
CALL_SECONDS_MAX: Final = 60.0
STORIES_TRIED_MAX: Final = 50
STORY_CHOICES: Final = 5
LOG_TAIL_BYTES: Final = 2_000
BAD_LINES_TOLD_MAX: Final = 5


class DemoOptions(msgspec.Struct, frozen=True):
    """What `tailorbird demo` is told."""

    dataset: str = "online-retail"
    """A name in `datasets.NAMES`, or a `.parquet` or `.csv` file of the log's columns."""
    is_fast: bool = False
    is_json: bool = False
    data: Path | None = None
    """An empty or absent folder for the server; without it, a temporary one."""
    lines: int | None = None
    """Send only the first so many lines."""
    environment: Mapping[str, str] = {}
    """The environment that the server is started in."""


class ReplayOptions(msgspec.Struct, frozen=True):
    """What `tailorbird replay` is told."""

    source: str
    """A `.jsonl` file of Segment events, or what `DemoOptions.dataset` takes."""
    speed: float | None = None
    """Times faster than recorded; None is as fast as the server answers."""
    is_json: bool = False
    url: str | None = None
    """A running server; without it, one is started."""
    write_key: str = ""
    server_key: str = ""
    """With it a dataset asks a running server for decisions; without it, it sends events only."""
    placement: str = PLACEMENT_KEY
    data: Path | None = None
    environment: Mapping[str, str] = {}


class ArmFigures(msgspec.Struct, frozen=True, rename="camel"):
    """One strategy as the policy knows it now."""

    id: str
    trials: int
    successes: int
    alpha: float
    beta: float
    probability: float
    """With which it is drawn: that it is the best, with the placement's floors mixed in."""


class HitRate(msgspec.Struct, frozen=True, rename="camel"):
    """Share of lists that were hit, and the lift of personalized over holdout with 95 % bounds.

    Null is what the server says cannot be told from so little.
    """

    personalized: float | None
    holdout: float | None
    lift: float | None
    low: float | None
    high: float | None
    verdict: str


class Story(msgspec.Struct, frozen=True, rename="camel"):
    """One visitor, their profile and their last decision as the server tells them."""

    visitor: str
    baskets: int
    bought: str
    is_hit: bool
    profile: dict[str, Any]
    decision: dict[str, Any]


class Figures(msgspec.Struct, frozen=True, rename="camel"):
    """Everything that a demo measured; `--json` prints it."""

    dataset: str
    notes: tuple[str, ...]
    items: int
    baskets: int
    lines: int
    left_out: dict[str, int]
    seconds: float
    """Of traffic, without start and set-up."""
    events: int
    decisions: int
    reasons: dict[str, int]
    """Decisions by why they were answered so: `SPLIT` is the policy's draw."""
    latency_ms: dict[str, dict[str, float]]
    retries: int
    errors: int
    refused: dict[str, int]
    first_refusals: list[str]
    policy: list[ArmFigures]
    readout: dict[str, Any]
    hit_rate: HitRate
    counted_by_client: dict[str, dict[str, int]]
    story: Story | None


def run_demo(options: DemoOptions) -> int:
    """Run the demo and return the exit code: 0 done, 1 a request was refused.

    Raises:
        ConfigurationError: The options are wrong.
        TailorbirdError: The server did not start or stopped answering.
    """
    tell = sys.stderr if options.is_json else sys.stdout
    shop = load(options.dataset, _lines_max(options))
    tell.write(_introduction(shop))
    with _folder(options.data, is_kept=not options.is_json) as data:
        with serving(data, options.environment) as server:
            tell.write(f"The server is up on {server.url}, its folder is {data}.\n")
            tell.flush()
            figures = _perform(shop, server, SystemClock())
        if options.is_json:
            sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
        else:
            sys.stdout.write(render(figures, shop) + _where_next(data, server.keys))
    return 1 if figures.errors else 0


def _perform(shop: Shop, server: "OwnServer", clock: Clock) -> Figures:
    set_up(server.api, shop)
    started = clock.elapsed()
    meter = _drive(shop, server.door, Plan(PLACEMENT_KEY, connections=CONNECTIONS), clock)
    return _figures(shop, meter, clock.elapsed() - started, server.api)


def _lines_max(options: DemoOptions) -> int | None:
    if options.lines is not None or not options.is_fast:
        return options.lines
    return FAST_LINES.get(options.dataset, FAST_LINES_DEFAULT)


def _drive(shop: Shop, door: Door, plan: Plan, clock: Clock) -> Meter:
    progress = Progress("Traffic", shop.lines_count, sys.stderr, clock)
    started = clock.elapsed()

    def note(meter: Meter) -> str:
        requests = meter.count("decide") + meter.count("event")
        return f"{requests / max(clock.elapsed() - started, 0.001):,.0f} requests/s"

    meter = drive(shop, door, plan, clock, lambda meter: progress.update(meter.lines, note(meter)))
    progress.finish(meter.lines, note(meter))
    return meter


def set_up(api: "AdminApi", shop: Shop) -> None:
    """Write the shop's items and the placement through the API."""
    for start in range(0, len(shop.items), ITEMS_PER_CALL_MAX):
        api.call("PUT", "/admin/v1/items", shop.items[start : start + ITEMS_PER_CALL_MAX])
    api.call("PUT", f"/admin/v1/placements/{PLACEMENT_KEY}", PLACEMENT)


def _figures(shop: Shop, meter: Meter, seconds: float, api: "AdminApi") -> Figures:
    policy = api.call("GET", f"/admin/v1/placements/{PLACEMENT_KEY}/policy")
    answer = api.call("GET", f"/admin/v1/readouts?placement={PLACEMENT_KEY}&metric=rate")
    readout = answer["readouts"][0]
    return Figures(
        dataset=shop.name,
        notes=shop.notes,
        items=len(shop.items),
        baskets=len(shop.baskets),
        lines=shop.lines_count,
        left_out=shop.left_out,
        seconds=round(seconds, 3),
        events=meter.count("event"),
        decisions=meter.count("decide"),
        reasons=dict(meter.reasons),
        latency_ms={kind: meter.latency_ms(kind) for kind in meter.seconds},
        retries=meter.retries,
        errors=meter.errors_count,
        refused=dict(meter.refused),
        first_refusals=meter.first_refusals,
        policy=msgspec.convert(policy["arms"], list[ArmFigures]),
        readout=readout,
        hit_rate=_hit_rate(readout),
        counted_by_client={arm: msgspec.structs.asdict(out) for arm, out in meter.arms.items()},
        story=_story(shop, meter, api),
    )


def _hit_rate(readout: dict[str, Any]) -> HitRate:
    lift = readout["lift"] or {"value": None, "low": None, "high": None}
    return HitRate(
        personalized=readout["arms"]["personalized"]["rate"],
        holdout=readout["arms"]["holdout"]["rate"],
        lift=lift["value"],
        low=lift["low"],
        high=lift["high"],
        verdict=readout["verdict"],
    )


def _story(shop: Shop, meter: Meter, api: "AdminApi") -> Story | None:
    """Return the most ordinary returning visitor whose last list was personalized.

    Ordinary is the median number of baskets among visitors with more than one: nobody is picked for
    having been hit.
    """
    baskets = Counter(basket.visitor for basket in shop.baskets if basket.visitor is not None)
    counts = {visitor: count for visitor, count in baskets.items() if count > 1} or dict(baskets)
    if not counts:
        return None
    usual = statistics.median(counts.values())
    for visitor in sorted(counts, key=lambda name: (abs(counts[name] - usual), name))[:STORIES_TRIED_MAX]:
        last = meter.last_decisions.get(visitor)
        if last is None:
            continue
        decision = api.call("GET", f"/admin/v1/decisions/{quote(last.decision_id)}")
        if decision["reason"] == "SPLIT":
            profile = api.call("GET", f"/admin/v1/profiles/user_id:{quote(visitor)}")
            return Story(visitor, counts[visitor], last.bought, last.is_hit, profile, decision)
    return None


# --- the replay -----------------------------------------------------------------------------------


class ReplayFigures(msgspec.Struct, frozen=True, rename="camel"):
    """What a replay measured."""

    source: str
    seconds: float
    events: int
    decisions: int
    latency_ms: dict[str, dict[str, float]]
    retries: int
    errors: int
    refused: dict[str, int]
    first_refusals: list[str]
    unreadable_lines: int


def run_replay(options: ReplayOptions) -> int:
    """Run the replay and return the exit code: 0 done, 1 something was refused or unreadable.

    Raises:
        ConfigurationError: The options are wrong.
        TailorbirdError: The server did not start or stopped answering.
    """
    clock = SystemClock()
    if options.url is not None:
        return _replay_to(_door_of(options), options, clock, None)
    with _folder(options.data, is_kept=not options.is_json) as data:
        with serving(data, options.environment) as server:
            code = _replay_to(server.door, options, clock, server.api)
        if not options.is_json:
            sys.stdout.write(_where_next(data, server.keys))
    return code


def _replay_to(door: Door, options: ReplayOptions, clock: Clock, own: "AdminApi | None") -> int:
    """Send the log; to a server of our own, write the catalogue and the placement first."""
    started = clock.elapsed()
    faults: list[str] = []
    if Path(options.source).suffix in {".jsonl", ".ndjson"}:
        meter = _send_events(Path(options.source), door, options, clock, faults)
    else:
        shop = load(options.source)
        if own is not None:
            set_up(own, shop)
        asks = options.placement if door.server_key else None
        plan = Plan(asks, connections=CONNECTIONS, speed=options.speed)
        meter = _drive(shop, door, plan, clock)
    figures = ReplayFigures(
        source=options.source,
        seconds=round(clock.elapsed() - started, 3),
        events=meter.lines + meter.orders + meter.notices,
        decisions=meter.count("decide"),
        latency_ms={kind: meter.latency_ms(kind) for kind in meter.seconds},
        retries=meter.retries,
        errors=meter.errors_count,
        refused=dict(meter.refused),
        first_refusals=meter.first_refusals,
        unreadable_lines=len(faults),
    )
    sys.stderr.write("".join(f"{fault}\n" for fault in faults[:BAD_LINES_TOLD_MAX]))
    if options.is_json:
        sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
    else:
        sys.stdout.write("\n".join(_served(figures)) + "\n")
    return 1 if figures.errors or faults else 0


def _send_events(path: Path, door: Door, options: ReplayOptions, clock: Clock, faults: list[str]) -> Meter:
    try:
        with path.open("rb") as file:
            total = sum(1 for _ in file)
            file.seek(0)
            progress = Progress("Events", max(total, 1), sys.stderr, clock)
            events = _events_of(file, path, faults)
            plan = Plan(speed=options.speed)
            meter = send_log(events, door, plan, clock, lambda meter: progress.update(meter.lines))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from error
    progress.finish(meter.lines)
    return meter


def _events_of(file: BinaryIO, path: Path, faults: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the events of JSON lines; what is no JSON object is noted by its line and left out."""
    for number, line in enumerate(file, 1):
        try:
            yield msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            if line.strip():
                faults.append(f"{path}:{number}: {error} (found {shorten(line)})")


def _door_of(options: ReplayOptions) -> Door:
    parts = urlsplit(options.url or "")
    if parts.scheme != "http" or parts.hostname is None:
        raise ConfigurationError(
            f"--url: expected http://host:port, as replay speaks no TLS (found {options.url!r})"
        )
    if not options.write_key:
        raise ConfigurationError("--url needs a write key: --write-key or TAILORBIRD_WRITE_KEY")
    return Door(parts.hostname, parts.port or 80, options.write_key, options.server_key)


# --- what is printed ------------------------------------------------------------------------------


def _introduction(shop: Shop) -> str:
    lines = [
        f"Tailorbird demo on {shop.name}: {shop.lines_count:,} purchases of {len(shop.items):,}"
        f" items in {len(shop.baskets):,} baskets.",
        *(f"Note: {note}." for note in shop.notes),
        "Before each purchase the shop asks for a list of ten items; the list is hit if the next"
        " thing bought is on it. Every list is taken as seen. Times are the log's, with the lines"
        " of a basket a second apart.",
    ]
    if shop.left_out:
        lines.append(f"Left out {sum(shop.left_out.values()):,} of {shop.lines_read:,} lines:")
        lines += [
            f"  {count:>7,}  {LEFT_OUT_IN_WORDS.get(reason, reason)}"
            for reason, count in sorted(shop.left_out.items(), key=lambda entry: -entry[1])
        ]
    return "\n".join(_wrapped(lines)) + "\n\n"


def render(figures: Figures, shop: Shop) -> str:
    """Return the demo's results in words and aligned numbers, at most `WIDTH` columns wide."""
    sections = (
        ("Served", [*_served(figures), _reasons(figures)]),
        ("What the policy learned", _learned(figures)),
        ("Personalized against holdout", _earned(figures)),
        ("One visitor's story", _told(figures.story, shop)),
    )
    return "".join(
        f"\n{title}\n{'─' * len(title)}\n" + "\n".join(_wrapped(lines)) + "\n" for title, lines in sections
    )


def _served(figures: "Figures | ReplayFigures") -> list[str]:
    rate = (figures.decisions + figures.events) / max(figures.seconds, 0.001)
    lines = [f"{'':10} {'count':>10} {'p50':>9} {'p95':>9} {'p99':>9}"]
    for name, kind, count in (
        ("decisions", "decide", figures.decisions),
        ("events", "event", figures.events),
    ):
        marks = figures.latency_ms[kind]
        times = " ".join(f"{marks[mark]:>6.2f} ms" for mark in marks)
        lines.append(f"{name:10} {count:>10,} {times}".rstrip())
    lines.append(
        f"in {figures.seconds:.1f} s: {rate:,.0f} requests a second,"
        f" {figures.retries:,} sent again, {figures.errors:,} refused"
    )
    lines += [f"  refused: {refusal}" for refusal in figures.first_refusals]
    return lines


def _reasons(figures: Figures) -> str:
    counts = [f"{count:,} {REASONS_IN_WORDS.get(name, name)}" for name, count in figures.reasons.items()]
    return "decisions: " + ", ".join(counts)


def _learned(figures: Figures) -> list[str]:
    lines = [f"{'strategy':12} {'lists':>9} {'hits':>8} {'hit rate':>9} {'drawn':>8}   ranks by"]
    for arm in sorted(figures.policy, key=lambda arm: -arm.probability):
        rate = arm.successes / arm.trials if arm.trials else 0.0
        words = STRATEGIES_IN_WORDS.get(arm.id, "")
        lines.append(
            f"{arm.id:12} {arm.trials:>9,} {arm.successes:>8,} {rate:>9.2%} {arm.probability:>8.0%}   {words}"
        )
    lines.append("A strategy is drawn as often as it is likely to be the best; each keeps its floor of 2 %.")
    return lines


def _earned(figures: Figures) -> list[str]:
    hits, arms = figures.hit_rate, figures.readout["arms"]
    lines = []
    for name in ("personalized", "holdout"):
        arm, rate = arms[name], getattr(hits, name)
        told = "-" if rate is None else f"{rate:.2%}"
        lines.append(f"{name:12} {told:>8}  of {arm['decisions']:>8,} lists, {arm['units']:>6,} visitors")
    if hits.lift is not None and hits.low is not None and hits.high is not None:
        bounds = f"95 % interval {hits.low:+.1%} to {hits.high:+.1%}"
        lines.append(f"{'lift':12} {hits.lift:>+8.1%}  {bounds}, over visitors, not lists")
    return [
        *lines,
        hits.verdict,
        "Personalized visitors get the list that the policy chose for them. The holdout is a fixed"
        " tenth of visitors, drawn by a keyed hash, who for good get the bestsellers instead.",
    ]


def _told(story: Story | None, shop: Shop) -> list[str]:
    if story is None:
        return ["No returning visitor's last list was personalized: too little traffic for a story."]
    titles = {item.id: item.title for item in shop.items}
    profile, decision = story.profile, story.decision
    features = profile["features"]
    recent = [titles.get(event["item"], "") for event in profile["recentEvents"] if event["item"]]
    chance = next(arm["probability"] for arm in decision["arms"] if arm["id"] == decision["drawn"])
    verdict = "it was on the list" if story.is_hit else "it was not on the list"
    return [
        f"Visitor {story.visitor}, {story.baskets} baskets: the usual number of who came back.",
        f"profile   {features['orders']:,.0f} orders worth {features['value']:,.2f}, mostly"
        f" {profile['primaryInterest']},"
        f" seen {_day(profile['firstSeen'])} to {_day(profile['lastSeen'])}",
        f"lately    {', '.join(dict.fromkeys(recent[1:4]))}",
        f"decision  {decision['at']}, ranked by {decision['drawn']!r} (drawn with {chance:.0%})",
        *(
            f"  {choice['rank']:>2}  {titles.get(choice['id'], choice['id'])[:34]:34}"
            f"  {choice['because'][0] if choice['because'] else ''}"[:WIDTH]
            for choice in decision["choices"][:STORY_CHOICES]
        ),
        f"then      bought {titles.get(story.bought, story.bought)}: {verdict}",
    ]


def _day(time: str) -> str:
    return time[:10]


def _where_next(data: Path, keys: "OwnKeys") -> str:
    lines = [
        "",
        "Where to look next",
        "──────────────────",
        f"tailorbird report --data {data}",
        f"TAILORBIRD_ADMIN_KEY={keys.admin} tailorbird serve --data {data}",
        f"  curl -H 'Authorization: Bearer {keys.admin}' localhost:8080/admin/v1/readouts",
        f"The folder is yours to keep or delete: {data}",
    ]
    return "\n".join(lines) + "\n"


def _wrapped(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines of at most `WIDTH` columns; rows of a table are within it already."""
    for line in lines:
        yield from (textwrap.wrap(line, WIDTH, subsequent_indent="  ") if len(line) > WIDTH else [line])


# --- a server of our own --------------------------------------------------------------------------


class ApiError(TailorbirdError):
    """The server refused a call that the demo cannot do without."""


class ServerFailedError(TailorbirdError):
    """The demo's own server did not start, or ended; the message holds the end of its log."""


class OwnKeys(msgspec.Struct, frozen=True):
    """Keys made for one run."""

    write: str
    server: str
    admin: str


class AdminApi:
    """The configuration doors of a server, one call at a time."""

    def __init__(self, host: str, port: int, key: str) -> None:
        self._host = host
        self._port = port
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401
        """Return the parsed answer of a call that must succeed.

        Raises:
            ApiError: It did not; the message holds the answer.
        """
        status, answer = self.ask(method, path, body)
        if not 200 <= status < 300:  # noqa: PLR2004 (HTTP's successes)
            raise ApiError(f"{method} {path} was answered {status}: {shorten(answer, 500)}")
        return msgspec.json.decode(answer) if answer else None

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Return status and body of the answer; status 0 is none."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=CALL_SECONDS_MAX)
        payload = None if body is None else msgspec.json.encode(body)
        with contextlib.closing(connection):
            try:
                connection.request(method, path, payload, self._headers)
                response = connection.getresponse()
                return response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                return 0, repr(error).encode()


class OwnServer(msgspec.Struct, frozen=True):
    """A server that this run started."""

    url: str
    keys: OwnKeys
    door: Door
    api: AdminApi


@contextlib.contextmanager
def serving(data: Path, environment: Mapping[str, str]) -> Iterator[OwnServer]:
    """Run `tailorbird serve` over a folder for as long as the block lasts.

    Raises:
        ServerFailedError: It did not get ready, or something failed after it had ended.
    """
    host, port = "127.0.0.1", _free_port()
    keys = OwnKeys(*(f"{kind}_{secrets.token_urlsafe(18)}" for kind in ("wk", "sk", "ak")))
    log = data / "server.log"
    command = [sys.executable, "-m", "tailorbird", "serve", "--data", str(data)]
    command += ["--host", host, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 (this program, with arguments made here)
            command,
            env=_child_environment(environment, keys),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    api = AdminApi(host, port, keys.admin)
    try:
        _wait_until_ready(process, api, log)
        yield OwnServer(f"http://{host}:{port}", keys, Door(host, port, keys.write, keys.server), api)
    except TailorbirdError as error:
        raise ServerFailedError(f"{error}\n{_tail(log)}") from error
    finally:
        _stop(process)


def _child_environment(environment: Mapping[str, str], keys: OwnKeys) -> dict[str, str]:
    """Return the environment with this run's keys, and no other setting of Tailorbird's."""
    kept = {name: value for name, value in environment.items() if not name.startswith("TAILORBIRD_")}
    return kept | {
        "TAILORBIRD_WRITE_KEY": keys.write,
        "TAILORBIRD_SERVER_KEY": keys.server,
        "TAILORBIRD_ADMIN_KEY": keys.admin,
    }


def _wait_until_ready(process: subprocess.Popen[bytes], api: AdminApi, log: Path) -> None:
    clock = SystemClock()
    started = clock.elapsed()
    while clock.elapsed() - started < START_SECONDS_MAX:
        if process.poll() is not None:
            raise ServerFailedError(f"the server ended with code {process.returncode} at start ({log})")
        if api.ask("GET", "/readyz")[0] == http.HTTPStatus.OK:
            return
        time.sleep(0.05)
    raise ServerFailedError(f"the server was not ready within {START_SECONDS_MAX:.0f} s ({log})")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
    return ""


@contextlib.contextmanager
def _folder(given: Path | None, *, is_kept: bool) -> Iterator[Path]:
    """Yield a fresh folder: the one given, which must be empty, or a temporary one.

    Raises:
        ConfigurationError: The given folder has something in it: what was learned would mix.
    """
    if given is None:
        made = Path(tempfile.mkdtemp(prefix="tailorbird-demo-"))
        try:
            yield made
        finally:
            if not is_kept:
                shutil.rmtree(made, ignore_errors=True)
        return
    given.mkdir(parents=True, exist_ok=True)
    if any(given.iterdir()):
        raise ConfigurationError(f"--data {given}: must be an empty folder, so that only this log counts")
    yield given
