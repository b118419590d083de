"""Decision ids: `d-<offset>-<check>`, the place in the log and a keyed check that it was given out by us."""

from tailorbird.hashing import is_same, token

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def decision_id(secret: bytes, offset: int) -> str:
    """Return the id of the decision that is the log's record `offset`."""
    place = _base36(offset)
    return f"d-{place}-{token(secret, 'decision', place, size=6)}"


def offset_of(secret: bytes, text: str) -> int | None:
    """Return the offset that a decision's id names, None where the id is not one of ours."""
    parts = text.split("-")
    if len(parts) != 3 or parts[0] != "d" or not parts[1].isascii() or len(parts[1]) > 13:  # noqa: PLR2004
        return None
    try:
        offset = int(parts[1], 36)
    except ValueError:
        return None
    return offset if is_same(decision_id(secret, offset), text) else None


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, rest = divmod(number, _SQUARE)
        digits = _PAIRS[rest] + digits
        if number == 0:
            return digits.lstrip("0") or "0"


_SQUARE = len(_DIGITS) ** 2
_PAIRS = tuple(high + low for high in _DIGITS for low in _DIGITS)  # Two digits at a time: half the steps.
