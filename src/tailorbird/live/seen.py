"""Which message ids were seen in the last day, in bounded memory, across restarts.

A retry carries the `messageId` of the first try. Every id is kept on disk, by day, for at least 24
hours; a Bloom filter a day (Bloom 1970) in memory says "surely new" for nearly every new id, so that
the disk is asked only about the rest. The filter's size is fixed: past its design load it asks the
disk more often, and stays right.

Ids are 128-bit hashes: a clash among 10^9 ids has odds of 10^-21.
"""

import hashlib

from tailorbird.limits import DEDUPLICATION_DAYS
from tailorbird.stores.state import Change, Expiry, StateStore

BITS = 1 << 26  # 8 MiB a day: one false alarm in a thousand at four million ids.
_PROBES = 4
_DAY_SECONDS = 86400


def key_of(message_id: str) -> str:
    """Return the 128-bit hash of a message id as 32 hexadecimal characters."""
    return hashlib.blake2b(message_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def day_of(t: float) -> str:
    """Return the day of a time, as a sortable key."""
    return f"{int(t // _DAY_SECONDS):06d}"


class SeenIds:
    """The set of message ids received today and on the day before."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._filters: dict[str, bytearray] = {}
        self._fresh: dict[str, None] = {}
        self._pending: dict[str, None] = {}
        self._expire_before = ""
        self._expire_pending = ""
        for key, _ in store.scan("seen"):
            self._mark(key[:6], key[7:])

    def add(self, key: str, t: float) -> bool:
        """Note the id hashed to `key`, received at `t`; return whether it is new."""
        if self.contains(key):
            return False
        day = day_of(t)
        self._mark(day, key)
        self._fresh[f"{day}|{key}"] = None
        return True

    def contains(self, key: str) -> bool:
        """Return whether the id was seen on a day that is kept."""
        probes = _probes(key)
        for day, bits in self._filters.items():
            for probe in probes:
                if not bits[probe >> 3] >> (probe & 7) & 1:
                    break
            else:
                entry = f"{day}|{key}"
                if (
                    entry in self._fresh
                    or entry in self._pending
                    or self._store.get("seen", entry) is not None
                ):
                    return True
        return False

    def checkpoint_begin(self) -> None:
        """Take the present moment as what the next commit holds."""
        self._pending, self._fresh = self._fresh, {}
        self._expire_pending = self._expire_before

    def checkpoint_changes(self) -> list[Change]:
        """Return the new ids."""
        return [Change("seen", entry, b"") for entry in self._pending]

    def expiries(self) -> list[Expiry]:
        """Return the range of ids that are older than what is kept."""
        return [Expiry("seen", self._expire_pending)] if self._expire_pending else []

    def checkpoint_done(self) -> None:
        """Let go of what was committed."""
        self._pending = {}

    def checkpoint_failed(self) -> None:
        """Take back what could not be committed."""
        self._fresh = self._pending | self._fresh
        self._pending = {}

    def _mark(self, day: str, key: str) -> None:
        bits = self._filters.get(day)
        if bits is None:
            bits = self._filters[day] = bytearray(BITS // 8)
            self._forget(day)
        for probe in _probes(key):
            bits[probe >> 3] |= 1 << (probe & 7)

    def _forget(self, newest: str) -> None:
        """Drop the days that are out of reach of the newest day seen."""
        oldest = f"{int(max(newest, *self._filters)) - DEDUPLICATION_DAYS + 1:06d}"
        for day in [day for day in self._filters if day < oldest]:
            del self._filters[day]
        self._expire_before = max(self._expire_before, oldest)


def _probes(key: str) -> tuple[int, ...]:
    """Return the bit positions of a key: double hashing (Kirsch and Mitzenmacher 2006)."""
    number = int(key, 16)
    first, second = number & 0xFFFFFFFFFFFFFFFF, (number >> 64) | 1
    return tuple((first + i * second) % BITS for i in range(_PROBES))
