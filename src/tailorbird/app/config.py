"""Configuration: `tailorbird.toml`, the environment, and the folder; the only reader of the environment."""

import os
import secrets
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from tailorbird.errors import ConfigurationError, InvalidInputError
from tailorbird.hashing import token
from tailorbird.limits import CHECKPOINT_SECONDS
from tailorbird.schema.clusters import ClusterSettings, KMeans
from tailorbird.schema.computed import Churn, ComputedAttribute, Engagement, LifetimeValue
from tailorbird.schema.feature import FeatureConfig
from tailorbird.schema.identity import IdentityRules, check_rules, with_defaults
from tailorbird.schema.placement import Placement
from tailorbird.schema.segment import RuleSegment

T = TypeVar("T")

_KEYS_FILE = "keys.json"
_PREFIXES = {"write": "wk_", "server": "sk_", "admin": "ak_"}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator may set in `tailorbird.toml`."""

    data: str = "tailorbird-data"
    """The folder that holds everything."""
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    memory_mib: Annotated[int, Meta(ge=64, le=1_048_576)] = 512
    """Memory to plan for; what does not fit is read from disk."""
    holdout: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.1
    """Share of visitors who are never personalized, to prove what personalization earns."""
    global_privacy_control: Literal["opt-out", "store"] = "opt-out"
    """What `Sec-GPC: 1` does: opt the visitor out of personalization, or only be stored."""
    checkpoint_seconds: Annotated[float, Meta(gt=0.0, le=3600.0)] = CHECKPOINT_SECONDS
    warehouse: bool = True
    """Keep history by person in Parquet files, for training and for questions about the past."""
    analytics_js: str = ""
    """Folder with the browser client to serve: `dist/umd` of the npm package @segment/analytics-next."""
    features: FeatureConfig | None = None
    """Which variables are kept of a visitor; without it those declared last, at first all built-in ones."""
    learn_every_hours: Annotated[float, Meta(ge=0.0, le=744.0)] = 24.0
    """How often models are fitted to the installation's own past; 0: only when asked."""
    computed: tuple[ComputedAttribute, ...] = (Engagement(), Churn(), LifetimeValue())
    """Attributes that models compute of people."""
    clusters: ClusterSettings | Literal["off"] = KMeans()
    """How segments are looked for that nobody declared."""
    feature_vectors: Literal["sampled", "every"] = "sampled"
    """For which personalized decisions all variables are read, and a digest of them logged."""
    feature_sample: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.01
    """Share of personalized decisions that log the variables themselves, to be compared with history."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    identity: IdentityRules = IdentityRules()
    """Which identifiers join people, and within which limits; see docs/guides/identity.md."""


class Keys(msgspec.Struct, frozen=True):
    """The keys of an installation: the write key as it is, of the others only hashes."""

    secret: str
    """Hex; the key of every keyed hash: holdout arms, ids, suppression."""
    write: str
    server_hash: str
    admin_hash: str


def load_config(path: Path | None, overrides: dict[str, Any]) -> Config:
    """Return the configuration: the file's, then the environment's, then the command line's.

    Raises:
        ConfigurationError: A file is missing or wrong; the message names file, key and rule.
    """
    values: dict[str, Any] = {}
    if path is not None or Path("tailorbird.toml").is_file():
        values = _read_toml(path or Path("tailorbird.toml"))
    folder = os.environ.get("TAILORBIRD_ANALYTICS_JS_DIR")
    if folder:
        values["analytics_js"] = folder
    values |= {name: value for name, value in overrides.items() if value is not None}
    if "identity" in values:
        values["identity"] = with_defaults(values["identity"])
    try:
        config = msgspec.convert(values, Config)
        check_rules(config.identity)
    except (msgspec.ValidationError, InvalidInputError) as error:
        raise ConfigurationError(f"{path or 'tailorbird.toml'}: {error}") from error
    return config


def load_placements(path: Path | None) -> list[tuple[Path, Placement]]:
    """Return the placements in `placements/*.toml` beside the configuration file.

    Raises:
        ConfigurationError: One is wrong; the message names file, key and rule.
    """
    return _load_folder(path, "placements", Placement)


def load_segments(path: Path | None) -> list[tuple[Path, RuleSegment]]:
    """Return the segments in `segments/*.toml` beside the configuration file.

    Raises:
        ConfigurationError: One is wrong; the message names file, key and rule.
    """
    return _load_folder(path, "segments", RuleSegment)


def _load_folder(path: Path | None, name: str, kind: type[T]) -> list[tuple[Path, T]]:
    folder = (path.parent if path is not None else Path()) / name
    found = []
    for file in sorted(folder.glob("*.toml")):
        values = {"key": file.stem, **_read_toml(file)}
        try:
            found.append((file, msgspec.convert(values, kind)))
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{file}: {error}") from error
    return found


def environment() -> dict[str, str]:
    """Return the environment, for processes that are started."""
    return dict(os.environ)


def load_keys(data: Path) -> tuple[Keys, dict[str, str]]:
    """Return the installation's keys, and those made just now, by name, to be printed once.

    Keys given by the environment win over the folder's.

    Raises:
        ConfigurationError: The file of keys is broken; a new one would move every holdout arm.
    """
    file = data / _KEYS_FILE
    made: dict[str, str] = {}
    if file.is_file():
        keys = _read_keys(file)
    else:
        secret = secrets.token_hex(32)
        made = {name: prefix + secrets.token_urlsafe(24) for name, prefix in _PREFIXES.items()}
        given = {name: os.environ.get(f"TAILORBIRD_{name.upper()}_KEY") for name in _PREFIXES}
        keys = Keys(
            secret,
            made["write"],
            key_hash(secret, made["server"]),
            key_hash(secret, made["admin"]),
        )
        made = {name: key for name, key in made.items() if not given[name]}
        _write_private(file, msgspec.json.encode(keys))
    return _with_environment(keys), made


def key_hash(secret: str, key: str) -> str:
    """Return the hash under which a key is stored."""
    return token(bytes.fromhex(secret), "key", key, size=32)


def _with_environment(keys: Keys) -> Keys:
    write = os.environ.get("TAILORBIRD_WRITE_KEY")
    server = os.environ.get("TAILORBIRD_SERVER_KEY")
    admin = os.environ.get("TAILORBIRD_ADMIN_KEY")
    return Keys(
        keys.secret,
        write or keys.write,
        key_hash(keys.secret, server) if server else keys.server_hash,
        key_hash(keys.secret, admin) if admin else keys.admin_hash,
    )


def _read_keys(file: Path) -> Keys:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Keys)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        text = f"{file}: is broken ({error}); restore it: it holds the installation's secret"
        raise ConfigurationError(text) from error


def _write_private(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: is not TOML: {error}") from error
