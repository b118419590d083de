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


class Link(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Why an identifier belongs to a profile: by which rule of which event, and when.

    `merged` names the profile that came in with it, if one did.
    """

    identifier: str
    rule: str
    message_id: str
    t: float
    merged: str = ""


class AtPlacement(msgspec.Struct, omit_defaults=True, gc=False):
    """One person's history at one placement."""

    arm: str = ""
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
    groups: list[str] = []
    """Accounts that the person belongs to, as `group` says; the last joined is last."""
    refused: dict[str, int] = {}
    """By rule, how often an identifier that came with the person's was not joined to them."""
    hints: list[str] = []
    """Keyed hashes of the fingerprints seen with consent."""
    purchases: dict[str, float] = {}
    """Item to time of the last purchase, oldest first."""
    placements: dict[str, AtPlacement] = {}


def identifier_of(kind: str, value: str) -> str:
    """Return the one spelling of an identifier: `type:value`."""
    return f"{kind}:{value}"
