"""What became of a decision: whether it was shown, and whether its goal was reached."""

import msgspec


class Mark(msgspec.Struct, omit_defaults=True, gc=False):
    """The running account of one decision; each exposure and outcome counts in it once."""

    placement: str
    arm: str | None
    holdout: str
    profile: str | None
    t: float
    is_learned: bool = False
    items: list[str] = []
    """What was shown, for goals that must name it."""
    exposed_at: float | None = None
    rewarded_at: float | None = None
    value: float = 0.0
