"""Distinct values: HyperLogLog sketches (Flajolet et al. 2007; Apache DataSketches), one a tile of a window.

A window of length W is kept as tiles of W / 6; the sketch of all time is one tile. The estimate that a sketch
gives goes into a cell with the time from which it no longer holds, when the oldest tile leaves the window:
reading it is reading a number, and only a visitor who was long away is estimated anew.
"""

import math

from datasketches import hll_sketch, hll_union, tgt_hll_type

Tiles = dict[int, bytes]
"""Sketches by tile; windows have numbers of their own, see `_tile`."""

LG_REGISTERS = 9
"""512 registers: a standard error of 1.04 / sqrt(512), some 4.6 %; at most 320 bytes a sketch."""
TILES = 6
_ALL_TIME = -1
_FORM = tgt_hll_type.HLL_4
_read = hll_sketch.deserialize


def add(tiles: Tiles, window: float, values: list[str], t: float) -> tuple[float, float] | None:
    """Add `values`, met at `t`, to the sketches of one window (seconds; 0 for all time).

    Returns:
        What `estimate` gives from now on; None where it is what it was.
    """
    tile = _tile(window, t)
    held = tiles.get(tile)
    sketch = hll_sketch(LG_REGISTERS, _FORM) if held is None else _read(held)
    for value in values:
        sketch.update(value)
    payload = sketch.serialize_compact()
    if payload == held:
        return None
    if not window:
        tiles[tile] = payload
        return sketch.get_estimate(), math.inf
    kept = _of(tiles, window)
    if held is None:
        kept.append(tile)
    gone = max(kept) - TILES
    if tile <= gone:
        return None
    tiles[tile] = payload
    if min(kept) <= gone:
        for other in kept:
            if other <= gone:
                del tiles[other]
        kept = _of(tiles, window)
    return _together(tiles, kept), _until(kept, window)


def estimate(tiles: Tiles, window: float, at: float) -> tuple[float, float]:
    """Return how many distinct values a window holds as of `at`, and from when on that is no longer so."""
    now = _tile(window, at)
    kept = [tile for tile in _of(tiles, window) if now - TILES < tile <= now] if window else [now]
    if not kept or kept[0] not in tiles:
        return 0.0, math.inf
    return _together(tiles, kept), _until(kept, window)


def _until(kept: list[int], window: float) -> float:
    """Return when the oldest of some tiles leaves its window."""
    return (min(kept) % _SPACING + TILES) * (window / TILES) if window else math.inf


def _together(tiles: Tiles, kept: list[int]) -> float:
    """Return how many distinct values there are in some tiles together."""
    if len(kept) == 1:
        return float(_read(tiles[kept[0]]).get_estimate())
    union = hll_union(LG_REGISTERS)
    for tile in kept:
        union.update(_read(tiles[tile]))
    return float(union.get_estimate())


def merged(one: Tiles, other: Tiles) -> Tiles:
    """Return the sketches of one person who was two."""
    both = dict(one)
    for tile, payload in other.items():
        mine = both.get(tile)
        both[tile] = payload if mine is None else _union(mine, payload)
    return dict(sorted(both.items()))


def _union(one: bytes, other: bytes) -> bytes:
    union = hll_union(LG_REGISTERS)
    for payload in (one, other):
        union.update(_read(payload))
    result: bytes = union.get_result(_FORM).serialize_compact()
    return result


_SPACING = 1 << 32
"""Between the tiles of one window and those of the next: a window's seconds number it."""


def _tile(window: float, t: float) -> int:
    if not window:
        return _ALL_TIME
    return int(window) * _SPACING + max(math.floor(t / (window / TILES)), 0)


def _of(tiles: Tiles, window: float) -> list[int]:
    first = int(window) * _SPACING
    return [tile for tile in tiles if first <= tile < first + _SPACING]
