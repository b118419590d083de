"""Counters: exact to a tile, and exponentially decayed.

One counter is a row of float32 (counts stay exact up to 2**24):

    slot   0        all-time count
           1..4     decayed counts, half-lives 1 h, 1 d, 7 d, 30 d
           5..16    12 tiles of 5 min   (window 1 h)
          17..40    24 tiles of 1 h     (window 1 d)
          41..130   90 tiles of 1 d     (windows 7 d, 30 d and 90 d)

and `last`, the time of the newest event in it (float64 epoch seconds). Tile `k =
floor(t / width)` lives in slot `k mod n`; moving `last` forward clears the slots that come round again, so a
window is exact to its tile: the last hour is 55 to 60 minutes. A late event lands in its own tile, if that
one is still kept, and adds `2**(-(last - t) / half_life)` to the decayed counts: the same as had it come in
order.

Kernels are compiled from declared signatures when the module is first imported and cached on disk, so
that no request waits for a compiler.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

ROW_WIDTH = 131
"""Slots of one counter's row."""

WINDOWS = ("1h", "1d", "7d", "30d", "90d")
WINDOW_SECONDS = (3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0, 90 * 86400.0)
HALF_LIVES = ("1h", "1d", "7d", "30d")
HALF_LIFE_SECONDS = (3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0)
COLUMNS = ("count", *WINDOWS, *(f"decayed_{half_life}" for half_life in HALF_LIVES))
"""What `read` gives of one counter, in this order."""

_FIRST_DECAYED = 1 + len(WINDOWS)


@njit("void(f4[::1], i8, i8, i8, i8)", cache=True, nogil=True)
def _clear(row, start, size, before, tile):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Clear the slots of a band that come round again on the way from tile `before` to `tile`."""
    if tile - before >= size:
        row[start : start + size] = 0.0  # A division for each slot took a fifth of the kernel's time.
        return
    for passed in range(before + 1, tile + 1):
        row[start + passed % size] = 0.0


@njit("b1(f4[::1])", cache=True, nogil=True)
def _is_used(row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return whether anything was counted; where sums cancel each other out, all of the row is zero."""
    return row[0] != 0.0 or row[4] != 0.0


@njit("void(f4[::1], f8[::1], f8, f8, f8)", cache=True, nogil=True)
def advance(row, last, t, amount, weight):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Count `amount` at time `t` in one row, and `weight` in its decayed counts; `last` has shape (1,)."""
    before = last[0] if _is_used(row) else t
    newest = max(before, t)
    for index in range(4):
        half_life = (3600.0, 86400.0, 604800.0, 2592000.0)[index]
        if t >= before:
            row[1 + index] = row[1 + index] * 2.0 ** (-(t - before) / half_life) + weight
        else:
            row[1 + index] += weight * 2.0 ** (-(before - t) / half_life)
    for band in range(3):
        start = (5, 17, 41)[band]
        size = (12, 24, 90)[band]
        width = (300.0, 3600.0, 86400.0)[band]
        tile = int(np.floor(t / width))
        tile_before = int(np.floor(before / width))
        _clear(row, start, size, tile_before, tile)
        if tile > tile_before - size:
            row[start + tile % size] += amount
    row[0] += amount
    last[0] = newest


@njit("f8(f4[:], f8, i8, f8)", cache=True, nogil=True)
def read_column(row, last, column, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return one of `COLUMNS` of a row whose newest event was at `last`, as of `at`."""
    if column == 0:
        return row[0]
    if column >= _FIRST_DECAYED:
        half_life = (3600.0, 86400.0, 604800.0, 2592000.0)[column - _FIRST_DECAYED]
        return row[1 + column - _FIRST_DECAYED] * 2.0 ** (-max(at - last, 0.0) / half_life)
    index = column - 1
    start = (5, 17, 41, 41, 41)[index]
    size = (12, 24, 90, 90, 90)[index]
    span = (12, 24, 7, 30, 90)[index]
    width = (300.0, 3600.0, 86400.0, 86400.0, 86400.0)[index]
    newest = int(np.floor(last / width))
    now = int(np.floor(at / width))
    total = 0.0
    for tile in range(max(now - span, newest - size) + 1, min(now, newest) + 1):
        total += row[start + tile % size]
    return total


@njit("void(f4[:], f8, f8, b1, f8[:])", cache=True, nogil=True)
def read_days(row, last, at, is_growing, days):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the windows of 7, 30 and 90 days of a row, in one pass over their tiles, the newest first.

    Where nothing was ever taken away (`is_growing`), the pass ends as soon as all is counted: most rows hold
    a few recent events.
    """
    newest = int(np.floor(last / 86400.0))
    now = int(np.floor(at / 86400.0))
    total = 0.0
    tile = min(now, newest)
    for window in range(3):
        span = (7, 30, 90)[window]
        oldest = max(now - span, newest - 90)
        while tile > oldest and not (is_growing and total >= row[0]):
            total += row[41 + tile % 90]
            tile -= 1
        days[window] = total


@njit("void(f4[:,:], f8[:], f8, f4[:,:])", cache=True, nogil=True)
def _read(rows, last, at, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the columns of every row, as of `at`."""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = read_column(rows[row], last[row], column, at)


def read(rows: NDArray[np.float32], last: NDArray[np.float64], at: float) -> NDArray[np.float32]:
    """Return shape (rows, 10): the columns of every row as of `at`."""
    out = np.zeros((len(rows), len(COLUMNS)), np.float32)
    _read(rows, last, at, out)
    return out


@njit("void(f4[::1], f8, f8)", cache=True, nogil=True)
def _age(row, last, to):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Move a row forward from `last` to `to`: decay its counts and clear the tiles that come round."""
    for index in range(4):
        half_life = (3600.0, 86400.0, 604800.0, 2592000.0)[index]
        row[1 + index] *= 2.0 ** (-(to - last) / half_life)
    for band in range(3):
        start = (5, 17, 41)[band]
        size = (12, 24, 90)[band]
        width = (300.0, 3600.0, 86400.0)[band]
        _clear(row, start, size, int(np.floor(last / width)), int(np.floor(to / width)))


@njit("void(f4[::1], f8[::1], f4[::1], f8)", cache=True, nogil=True)
def merge_row(row, last, other, other_last):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Add `other`, which is used up, to `row`: the same as one counter having seen both, up to rounding."""
    if not _is_used(row):
        row[:] = other
        last[0] = other_last
        return
    newest = max(last[0], other_last)
    _age(row, last[0], newest)
    _age(other, other_last, newest)
    for slot in range(len(row)):
        row[slot] += other[slot]
    last[0] = newest
