"""Which message ids were seen in the last day, in bounded memory, across restarts.

A retry carries the `messageId` of the first try. Every id is kept on disk, by day, for at least 24
hours; a Bloom filter a day (Bloom 1970) in memory says "surely new" for nearly every new id, so that
the disk is asked only about the rest. The filter's size is fixed: past its design load it asks the
disk more often, and stays right.

Ids are 128-bit hashes: a clash among 10^9 ids has odds of 10^-21. Four 32-bit slices of the hash are
the filter's probes.
"""

import hashlib
import struct

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tailorbird.limits import DEDUPLICATION_DAYS
from tailorbird.stores.state import Change, Expiry, StateStore

BITS = 1 << 26  # A power of two. 8 MiB a day: one false alarm in a thousand at four million ids.
_DAY_SECONDS = 86400
_halves = struct.Struct("<2Q").unpack
_blake2b = hashlib.blake2b


def key_of(message_id: str) -> bytes:
    """Return the 128-bit hash of a message id."""
    return _blake2b(message_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@njit("b1(u1[::1], u8, u8)", cache=True, nogil=True)
def _has(bits, low, high):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return whether all four bits are set."""
    mask = np.uint64(8 * len(bits) - 1)
    for probe in (low, low >> np.uint64(32), high, high >> np.uint64(32)):
        place = probe & mask
        if not bits[place >> np.uint64(3)] >> (place & np.uint64(7)) & np.uint64(1):
            return False
    return True


@njit("void(u1[::1], u8, u8)", cache=True, nogil=True)
def _set(bits, low, high):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    mask = np.uint64(8 * len(bits) - 1)
    for probe in (low, low >> np.uint64(32), high, high >> np.uint64(32)):
        place = probe & mask
        bits[place >> np.uint64(3)] |= np.uint8(1) << np.uint8(place & np.uint64(7))


class SeenIds:
    """The set of message ids received today and on the day before."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._filters: dict[int, NDArray[np.uint8]] = {}
        self._fresh: dict[bytes, int] = {}
        self._pending: dict[bytes, int] = {}
        self._oldest = 0
        self._oldest_pending = 0
        for entry, _ in store.scan("seen"):
            day = int(entry[:6])
            bits = self._filters.get(day)
            _set(self._begin(day) if bits is None else bits, *_halves(bytes.fromhex(entry[7:])))

    def add(self, key: bytes, t: float) -> bool:
        """Note the id hashed to `key`, received at `t`; return whether it is new."""
        if self.contains(key):
            return False
        self.note(key, t)
        return True

    def note(self, key: bytes, t: float) -> None:
        """Note an id that is known to be new."""
        day = int(t // _DAY_SECONDS)
        bits = self._filters.get(day)
        _set(self._begin(day) if bits is None else bits, *_halves(key))
        self._fresh[key] = day

    def contains(self, key: bytes) -> bool:
        """Return whether the id was seen on a day that is kept."""
        low, high = _halves(key)
        for day, bits in self._filters.items():
            if _has(bits, low, high) and self._is_kept(key, day):
                return True
        return False

    def checkpoint_begin(self) -> None:
        """Take the present moment as what the next commit holds."""
        self._pending, self._fresh = self._fresh, {}
        self._oldest_pending = self._oldest

    def checkpoint_changes(self) -> list[Change]:
        """Return the new ids."""
        prefixes = {day: f"{day:06d}|" for day in set(self._pending.values())}
        return [Change("seen", prefixes[day] + key.hex(), b"") for key, day in self._pending.items()]

    def expiries(self) -> list[Expiry]:
        """Return the range of ids that are older than what is kept."""
        return [Expiry("seen", f"{self._oldest_pending:06d}")] if self._oldest_pending else []

    def checkpoint_done(self) -> None:
        """Let go of what was committed."""
        self._pending = {}

    def checkpoint_failed(self) -> None:
        """Take back what could not be committed."""
        self._fresh = self._pending | self._fresh
        self._pending = {}

    def _is_kept(self, key: bytes, day: int) -> bool:
        if self._fresh.get(key) == day or self._pending.get(key) == day:
            return True
        return self._store.get("seen", _entry(key, day)) is not None

    def _begin(self, day: int) -> NDArray[np.uint8]:
        bits = self._filters[day] = np.zeros(BITS // 8, np.uint8)
        self._forget()
        return bits

    def _forget(self) -> None:
        """Drop the days that are out of reach of the newest day seen."""
        self._oldest = max(self._oldest, max(self._filters) - DEDUPLICATION_DAYS + 1)
        for day in [day for day in self._filters if day < self._oldest]:
            del self._filters[day]


def _entry(key: bytes, day: int) -> str:
    return f"{day:06d}|{key.hex()}"
