"""The profile: everything that is known of one person, as the fold keeps it.

Unlike the records of the log, a profile changes with every event, so its struct is not frozen; only
the fold in `process` writes it. Nothing here can refer back to its owner, so the garbage collector need not
look (`gc=False`). What the person did is packed into one array (see `features.state`): as objects it took
thirty times the memory.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird.schema.computed import ComputedValue


class Link(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Why an identifier belongs to a profile: by which rule of which event, and when.

    `merged` names the profile that came in with it, if one did.
    """

    identifier: str
    rule: str
    message_id: str
    t: float
    merged: str = ""


class Passage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A segment entered or left, when, and by which event; none where time or a declaration did it."""

    segment: str
    is_entered: bool
    t: float
    message_id: str = ""


class AtPlacement(msgspec.Struct, omit_defaults=True, gc=False):
    """One person's history at one placement."""

    arm: str = ""
    segments: list[str] = []
    """Rule segments that the person was in when first decided for here: fixed, as the arm is."""
    decisions: int = 0
    exposures: int = 0
    outcomes: int = 0
    outcomes_shown: int = 0
    """Those of decisions that were exposed."""
    value: float = 0.0
    sticky_id: str = ""
    sticky_until: float = 0.0
    sticky_session: int = -1
    sticky_request: str = ""
    open: list[str] = []
    """Decisions that an exposure or outcome may still be joined to, oldest first."""
    shown: list[tuple[float, str]] = []
    """(time, choice) of what was chosen, for frequency caps; oldest first."""


class Profile(msgspec.Struct, omit_defaults=True, gc=False):
    """One person."""

    id: str
    assignment_key: str
    """What the holdout hash is taken of: the first identifier ever seen, for good."""
    state: NDArray[np.float64]
    """What the person did, packed: see `features.state`."""
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
    sketches: dict[int, dict[int, bytes]] = {}
    """Distinct values by code and tile: see `features.distinct`."""
    computed: dict[str, ComputedValue] = {}
    """Computed attributes, as last computed, by key."""
    groups: list[str] = []
    """Accounts that the person belongs to, as `group` says; the last joined is last."""
    refused: dict[str, int] = {}
    """By rule, how often an identifier that came with the person's was not joined to them."""
    hints: list[str] = []
    """Keyed hashes of the fingerprints seen with consent."""
    purchases: dict[str, float] = {}
    """Item to time of the last purchase, oldest first."""
    placements: dict[str, AtPlacement] = {}
    segments: dict[str, float] = {}
    """Rule segments that the person is in, each with since when; as of `segments_t`."""
    segments_t: float = 0.0
    """As of when segments were last evaluated, epoch seconds."""
    segments_version: int = -1
    """Which declarations all segments were last evaluated by: see `live.rule_segments`."""
    is_segments_due: bool = False
    """Something other than an event changed the person: all segments are evaluated next time."""
    passages: list[Passage] = []
    """The latest segments entered and left, oldest first."""


def identifier_of(kind: str, value: str) -> str:
    """Return the one spelling of an identifier: `type:value`."""
    return f"{kind}:{value}"
