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


def add(tiles: Tiles, window: float, values: list[str], t: float) -> tuple[float, float] | None:
    """Add `values`, met at `t`, to the sketches of one window (seconds; 0 for all time).

    Returns:
        What `estimate` gives from now on; None where it is what it was.
    """
    tile = _tile(window, t)
    held = tiles.get(tile)
    sketch = hll_sketch(LG_REGISTERS, tgt_hll_type.HLL_4) if held is None else hll_sketch.deserialize(held)
    for value in values:
        sketch.update(value)
    payload = sketch.serialize_compact()
    if payload == held:
        return None
    if not window:
        tiles[tile] = payload
        return sketch.get_estimate(), math.inf
    kept = _of(tiles, window)
    newest = max([tile, *kept])
    if tile <= newest - TILES:
        return None
    tiles[tile] = payload
    for other in kept:
        if other <= newest - TILES:
            del tiles[other]
    return estimate(tiles, window, newest % _SPACING * (window / TILES))


def estimate(tiles: Tiles, window: float, at: float) -> tuple[float, float]:
    """Return how many distinct values a window holds as of `at`, and from when on that is no longer so."""
    now = _tile(window, at)
    kept = [now] if not window else [tile for tile in _of(tiles, window) if now - TILES < tile <= now]
    sketches = [hll_sketch.deserialize(tiles[tile]) for tile in kept if tile in tiles]
    if not sketches:
        return 0.0, math.inf
    until = math.inf if not window else (min(kept) % _SPACING + TILES) * (window / TILES)
    if len(sketches) == 1:
        return float(sketches[0].get_estimate()), until
    union = hll_union(LG_REGISTERS)
    for sketch in sketches:
        union.update(sketch)
    return float(union.get_estimate()), until


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
        union.update(hll_sketch.deserialize(payload))
    result: bytes = union.get_result(tgt_hll_type.HLL_4).serialize_compact()
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
