"""The profile: everything that is known of one person, as the fold keeps it.

Unlike the records of the log, a profile changes with every event, so its struct is not frozen; only
the fold in `process` writes it. Nothing here can refer back to its owner, so the garbage collector need not
look (`gc=False`). Counters are packed rows (see `features.counters`), never a dict of
floats: 1,000 floats in a dict take 28 µs to gather and 154 kB to hold.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

ROW_WIDTH = 71
"""Slots of one counter's row: count, four decayed counts, and 66 tiles. See `features.counters`."""


class Counters(msgspec.Struct, gc=False):
    """Packed counters by key (`e:<event>` or `c:<category>`)."""

    keys: dict[str, int] = {}
    rows: NDArray[np.float32] = msgspec.field(default_factory=lambda: np.zeros((4, ROW_WIDTH), np.float32))
    last: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.zeros(4, np.float64))


class Recent(msgspec.Struct, array_like=True, gc=False):
    """One event in the ring of recent ones."""

    t: float
    event: str
    item: str = ""
    category: str = ""


class Link(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Why an identifier belongs to a profile: by which rule of which event, and when.

    `merged` names the profile that came in with it, if one did.
    """

    identifier: str
    rule: str
    message_id: str
    t: float
    merged: str = ""


class AtPlacement(msgspec.Struct, gc=False):
    """One person's history at one placement."""

    arm: str = ""
    decisions: int = 0
    exposures: int = 0
    outcomes: int = 0
    value: float = 0.0
    sticky_id: str = ""
    sticky_until: float = 0.0
    sticky_session: int = -1
    sticky_request: str = ""
    open: list[str] = []
    """Decisions that an exposure or outcome may still be joined to, oldest first."""
    shown: list[tuple[float, str]] = []
    """(time, choice) of what was chosen, for frequency caps; oldest first."""


class Profile(msgspec.Struct, gc=False):
    """One person."""

    id: str
    assignment_key: str
    """What the holdout hash is taken of: the first identifier ever seen, for good."""
    first_seen: float
    last_seen: float
    founded: int = -1
    """Log offset of the record that founded it: of two people who merge, the one met first stays."""
    version: int = -1
    """Log offset of the last record folded in."""
    is_arm_merged: bool = False
    """Two people whose holdout arms differ were merged; the older one's stays."""
    identifiers: dict[str, tuple[float, float]] = {}
    """`type:value` to (first, last) seen."""
    links: list[Link] = []
    traits: dict[str, Any] = {}
    consent: dict[str, bool] = {}
    refusals: list[str] = []
    """Purposes refused through the API: events cannot allow them again."""
    gpc: bool = False
    sessions: int = 0
    session_started: float = 0.0
    session_depth: int = 0
    value: float = 0.0
    """Sum of revenue."""
    orders: int = 0
    counters: Counters = msgspec.field(default_factory=Counters)
    recent: list[Recent] = []
    items: dict[int, str] = {}
    """Catalogue index of the last distinct items to the event that touched each, oldest first."""
    primary_interest: str | None = None
    """The category with the highest decayed count: see `features.affinity`."""
    purchases: dict[str, float] = {}
    """Item to time of the last purchase, oldest first."""
    placements: dict[str, AtPlacement] = {}


def _encode_array(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    raise NotImplementedError(f"no encoding for {type(value).__name__}")


def _decode_array(kind: type, value: object) -> object:
    if not isinstance(value, bytes):
        raise NotImplementedError(f"no decoding for {kind}")
    is_rows = "float32" in str(kind)
    array = np.frombuffer(value, np.float32 if is_rows else np.float64).copy()
    return array.reshape(-1, ROW_WIDTH) if is_rows else array


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_array)
_decoder = msgspec.msgpack.Decoder(Profile, dec_hook=_decode_array)


def encode_profile(profile: Profile) -> bytes:
    """Return the profile as bytes: equal profiles give equal bytes."""
    return _encoder.encode(profile)


def decode_profile(payload: bytes) -> Profile:
    """Return the profile of `encode_profile`'s bytes."""
    return _decoder.decode(payload)


def identifier_of(kind: str, value: str) -> str:
    """Return the one spelling of an identifier: `type:value`."""
    return f"{kind}:{value}"
