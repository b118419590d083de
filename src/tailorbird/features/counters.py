"""Counters per event type and per category: exact to a tile, and exponentially decayed.

One counter is a row of float32 (counts stay exact up to 2**24):

    slot   0        all-time count
           1..4     decayed counts, half-lives 1 h, 1 d, 7 d, 30 d
           5..16    12 tiles of 5 min   (window 1 h)
          17..40    24 tiles of 1 h     (window 1 d)
          41..70    30 tiles of 1 d     (windows 7 d and 30 d)

and `last`, the time of the newest event in it (float64 epoch seconds). Tile `k = floor(t / width)`
lives in slot `k mod n`; moving `last` forward clears the slots that come round again, so a window is
exact to its tile: the last hour is 55 to 60 minutes. A late event lands in its own tile, if that one is
still kept, and adds `2**(-(last - t) / half_life)` to the decayed counts: the same as had it come in order.

Kernels are compiled from declared signatures when the module is first imported and cached on disk, so
that no request waits for a compiler.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tailorbird.limits import COUNTER_KEYS_MAX
from tailorbird.schema.profile import ROW_WIDTH, Counters

WINDOWS = ("1h", "1d", "7d", "30d")
WINDOW_SECONDS = (3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0)
COLUMNS = ("count", *WINDOWS, *(f"decayed_{window}" for window in WINDOWS))
"""What `read` gives of one counter, in this order."""

_BANDS = ((5, 12, 300.0), (17, 24, 3600.0), (41, 30, 86400.0))


@njit("void(f4[:,:], f8[:], i8, f8, f8)", cache=True, nogil=True)
def _advance(rows, last, row, t, amount):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Count `amount` at time `t` in one row."""
    r = rows[row]
    before = last[row] if r[0] > 0.0 else t
    newest = max(before, t)
    for index in range(4):
        half_life = (3600.0, 86400.0, 604800.0, 2592000.0)[index]
        if t >= before:
            r[1 + index] = r[1 + index] * 2.0 ** (-(t - before) / half_life) + amount
        else:
            r[1 + index] += amount * 2.0 ** (-(before - t) / half_life)
    for band in range(3):
        start = (5, 17, 41)[band]
        size = (12, 24, 30)[band]
        width = (300.0, 3600.0, 86400.0)[band]
        tile = int(np.floor(t / width))
        tile_before = int(np.floor(before / width))
        if tile > tile_before:
            for passed in range(max(tile_before + 1, tile - size + 1), tile + 1):
                r[start + passed % size] = 0.0
        if tile > tile_before - size:
            r[start + tile % size] += amount
    r[0] += amount
    last[row] = newest


@njit("void(f4[:,:], f8[:], f8, f4[:,:])", cache=True, nogil=True)
def _read(rows, last, at, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the nine columns of every row, as of `at`."""
    for row in range(out.shape[0]):
        r = rows[row]
        age = max(at - last[row], 0.0)
        out[row, 0] = r[0]
        for index in range(4):
            half_life = (3600.0, 86400.0, 604800.0, 2592000.0)[index]
            out[row, 5 + index] = r[1 + index] * 2.0 ** (-age / half_life)
            start = (5, 17, 41, 41)[index]
            size = (12, 24, 30, 30)[index]
            span = (12, 24, 7, 30)[index]
            width = (300.0, 3600.0, 86400.0, 86400.0)[index]
            newest = int(np.floor(last[row] / width))
            now = int(np.floor(at / width))
            total = 0.0
            for tile in range(max(now - span, newest - size) + 1, min(now, newest) + 1):
                total += r[start + tile % size]
            out[row, 1 + index] = total


def count(counters: Counters, key: str, t: float, amount: float = 1.0) -> None:
    """Count `amount` of `key` at time `t`."""
    row = counters.keys.get(key)
    if row is None:
        row = _claim(counters, key)
    _advance(counters.rows, counters.last, row, t, amount)


def read(counters: Counters, at: float) -> NDArray[np.float32]:
    """Return shape (keys, 9): the columns of every key as of `at`, in the order of `counters.keys`."""
    out = np.zeros((len(counters.keys), len(COLUMNS)), np.float32)
    _read(counters.rows, counters.last, at, out)
    return out


def read_one(counters: Counters, key: str, at: float) -> NDArray[np.float32]:
    """Return shape (9,): the columns of `key` as of `at`; zeros where it was never counted."""
    row = counters.keys.get(key)
    out = np.zeros((1, len(COLUMNS)), np.float32)
    if row is not None:
        _read(counters.rows[row : row + 1], counters.last[row : row + 1], at, out)
    first: NDArray[np.float32] = out[0]
    return first


def merge(into: Counters, other: Counters) -> None:
    """Add `other` to `into`: the same as one counter having seen both, up to float32 rounding."""
    for key, source in other.keys.items():
        row = into.keys.get(key)
        if row is None:
            row = _claim(into, key)
        _merge_row(into, row, other, source)


def _claim(counters: Counters, key: str) -> int:
    """Return a zeroed row for a new key; the key used least of late gives way when all are taken."""
    if len(counters.keys) >= COUNTER_KEYS_MAX:
        weakest = min(counters.keys, key=lambda name: (_strength(counters, name), name))
        row = counters.keys.pop(weakest)
        counters.rows[row] = 0.0
        counters.last[row] = 0.0
        # Keys stay in the order of their rows, so that row i of `read` is the i-th key.
        counters.keys = _reordered(counters.keys, key, row)
        return row
    row = len(counters.keys)
    if row >= len(counters.last):
        grown = min(2 * row, COUNTER_KEYS_MAX)
        rows = np.zeros((grown, ROW_WIDTH), np.float32)
        rows[:row] = counters.rows[:row]
        last = np.zeros(grown, np.float64)
        last[:row] = counters.last[:row]
        counters.rows, counters.last = rows, last
    counters.keys[key] = row
    return row


def _reordered(keys: dict[str, int], key: str, row: int) -> dict[str, int]:
    by_row = sorted([*keys.items(), (key, row)], key=lambda entry: entry[1])
    return dict(by_row)


def _strength(counters: Counters, key: str) -> float:
    """Return a sortable strength: log2 of the 30-day decayed count at a common time."""
    row = counters.keys[key]
    decayed = float(counters.rows[row, 4])
    return float(counters.last[row]) / WINDOW_SECONDS[3] + (np.log2(decayed) if decayed > 0 else -1e9)


def _merge_row(into: Counters, row: int, other: Counters, source: int) -> None:
    mine, theirs = float(into.last[row]), float(other.last[source])
    incoming = other.rows[source].copy()
    if not into.rows[row, 0]:
        into.rows[row], into.last[row] = incoming, theirs
        return
    newest = max(mine, theirs)
    _age(into.rows[row], mine, newest)
    _age(incoming, theirs, newest)
    into.rows[row] += incoming
    into.last[row] = newest


def _age(row: NDArray[np.float32], last: float, to: float) -> None:
    """Move a row's `last` forward to `to`: decay its counts and clear the tiles that come round."""
    for index, half_life in enumerate(WINDOW_SECONDS):
        row[1 + index] *= 2.0 ** (-(to - last) / half_life)
    for start, size, width in _BANDS:
        newest, now = int(last // width), int(to // width)
        for tile in range(max(newest + 1, now - size + 1), now + 1):
            row[start + tile % size] = 0.0
