"""A typed table over a state store: a bounded cache, and changes that wait for the next checkpoint.

The cache holds what was used last; what is not in it is read from the store. Changes are kept until a
checkpoint has committed them. A checkpoint must write the state of one moment while events go on
changing it; encoding everything at once would stop the server, so entries are encoded a few at a
time, and one that is about to change is encoded first (copy before write).
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import msgspec

from tailorbird.errors import CorruptLogError
from tailorbird.stores.state import Change, StateStore

T = TypeVar("T")

_DECODED_FACTOR = 3  # A decoded profile takes about three times its encoded bytes (measured).
_ENTRY_SIZE = 700  # Beside its value: key, dictionary slots, the object's own head.
_FIRST_SIZE = 2048
_NOTHING_SIZE = 200  # A key, and that nothing is under it.


class Table(Generic[T]):
    """Values of one table by key.

    Whatever reads raises `CorruptLogError` where the store holds bytes that are no such value.
    """

    def __init__(
        self,
        store: StateStore,
        name: str,
        codec: tuple[Callable[[T], bytes], Callable[[bytes], T]],
        cache_bytes_max: int,
        entry_bytes: int = _ENTRY_SIZE,
        measure: Callable[[T], int] | None = None,
    ) -> None:
        """Make a table over `store`.

        Args:
            store: Where values are kept.
            name: Of the store's table.
            codec: To bytes and back.
            cache_bytes_max: The cache's bound.
            entry_bytes: What an entry takes beside its value.
            measure: Returns the bytes that a value takes; by default thrice what its encoding takes.
        """
        self.name = name
        self._store = store
        self._encode, self._decode = codec
        self._cache_bytes_max = cache_bytes_max
        self._entry_bytes = entry_bytes
        self._measure = measure
        self._cache: dict[str, T | None] = {}
        self._sizes: dict[str, int] = {}
        self.cache_bytes = 0
        self._dirty: set[str] = set()
        self._pending: set[str] = set()
        self._committing: set[str] = set()
        self._changes: list[Change] = []
        self._is_store_empty = store.count(name) == 0  # As in a rebuild, until its first commit.
        self._full_bytes = 0  # Too little can be dropped; not to be tried again below this.

    def get(self, key: str) -> T | None:
        """Return the value of `key` to read, not to change; None where there is none."""
        cache = self._cache
        if key in cache:
            if 2 * self.cache_bytes < self._cache_bytes_max:
                return cache[key]  # Far from full, nobody asks which entry is the oldest.
            value = cache.pop(key)
            cache[key] = value  # The newest is last: the first ones go when room is needed.
            return value
        payload = None if self._is_store_empty else self._store.get(self.name, key)
        if payload is None:
            # Who is new is asked for more than once; the second time the disk need not be.
            self._keep(key, None, _NOTHING_SIZE)
            return None
        value = self._decoded(payload)
        self._keep(key, value, self._bytes_of(value, payload))
        return value

    def peek(self, key: str) -> T | None:
        """Return the value of `key` to read, without making room for it: for who passes over them all."""
        if key in self._cache:
            return self._cache[key]
        payload = self._store.get(self.name, key)
        return None if payload is None else self._decoded(payload)

    def unwritten(self) -> list[str]:
        """Return the keys of what the store may not hold yet, in order."""
        return sorted(self._dirty | self._pending | self._committing)

    def page(self, after: str, count_max: int) -> list[str]:
        """Return the next keys behind `after` that the store holds, in order, at most `count_max`."""
        return self._store.keys(self.name, after, count_max)

    def change(self, key: str) -> T | None:
        """Return the value of `key` to be changed in place; it is written at the next checkpoint."""
        if key in self._pending:
            self._encode_one(key)
        value = self.get(key)
        if value is not None:
            self._dirty.add(key)
        return value

    def put(self, key: str, value: T) -> None:
        """Set the value of `key`."""
        if key in self._pending:
            self._encode_one(key)
        self._dirty.add(key)  # First, so that making room cannot drop it.
        self._cache.pop(key, None)
        self._keep(key, value, self._size(key, _FIRST_SIZE))

    def keep(self, key: str, value: T) -> None:
        """Cache a value that can be had again from elsewhere; it is not written."""
        if not self._is_unwritten(key):
            self._keep(key, value, self._size(key, _FIRST_SIZE // 4))

    def delete(self, key: str) -> None:
        """Remove `key`."""
        if key in self._pending:
            self._encode_one(key)
        self._dirty.add(key)
        self._cache.pop(key, None)
        self._keep(key, None, _NOTHING_SIZE)

    def scan(self, prefix: str = "") -> Iterator[tuple[str, T]]:
        """Yield every key and value, changes included; keys in the store first."""
        fresh = {key for key in (self._dirty | self._pending | self._committing) if key.startswith(prefix)}
        for key, payload in self._store.scan(self.name, prefix):
            if key not in fresh:
                yield key, self._decoded(payload)
        for key in sorted(fresh):
            value = self._cache[key]
            if value is not None:
                yield key, value

    @property
    def bytes_over(self) -> int:
        """Return by how much the cache exceeds its bound: with what waits to be committed, it may."""
        return max(self.cache_bytes - self._cache_bytes_max, 0)

    @property
    def dirty_count(self) -> int:
        """Return how many changed entries wait for a checkpoint to begin."""
        return len(self._dirty)

    def checkpoint_begin(self) -> None:
        """Take the present moment as what the next commit holds."""
        assert not self._pending, "a checkpoint is under way"
        self._pending, self._dirty = self._dirty, set()

    def checkpoint_step(self, count_max: int) -> int:
        """Encode up to `count_max` entries; return how many were."""
        done = 0
        while self._pending and done < count_max:
            # `pop`, not `next(iter())`, which looks for the first entry from the start each time.
            self._encode_one(self._pending.pop())
            done += 1
        return done

    def checkpoint_changes(self) -> list[Change]:
        """Return what is to be committed, when every entry is encoded."""
        assert not self._pending, "entries are not encoded yet"
        changes, self._changes = self._changes, []
        self._is_store_empty = self._is_store_empty and not changes
        return changes

    def checkpoint_done(self) -> None:
        """Let go of what was committed and drop the oldest entries beyond the cache's bound."""
        self._committing = set()
        self._full_bytes = 0
        self._evict()

    def checkpoint_failed(self) -> None:
        """Take back what could not be committed, at whatever stage; the next checkpoint writes it."""
        self._dirty |= self._committing | self._pending | {change.key for change in self._changes}
        self._committing, self._pending, self._changes = set(), set(), []
        self._full_bytes = 0

    def _decoded(self, payload: bytes) -> T:
        try:
            return self._decode(payload)
        except (msgspec.MsgspecError, ValueError) as error:
            # Not which key: it may name a person, and messages are logged.
            raise CorruptLogError(f"state, table {self.name}: a value cannot be read: {error}") from error

    def _encode_one(self, key: str) -> None:
        self._pending.discard(key)
        # From here until it is in the store, the cache alone holds it.
        self._committing.add(key)
        value = self._cache[key]
        payload = None if value is None else self._encode(value)
        if payload is not None:
            self._resize(key, self._bytes_of(value, payload))
        self._changes.append(Change(self.name, key, payload))

    def _keep(self, key: str, value: T | None, size: int) -> None:
        self._cache[key] = value
        self._resize(key, size)
        if self.cache_bytes > self._cache_bytes_max:
            self._evict(spared=key)

    def _bytes_of(self, value: T | None, payload: bytes) -> int:
        if self._measure is None or value is None:
            return _DECODED_FACTOR * len(payload)
        return self._measure(value)

    def _size(self, key: str, first: int) -> int:
        """Return the bytes of a key's value as they were last known."""
        known = self._sizes.get(key)
        return first if known is None else known - self._entry_bytes

    def _resize(self, key: str, size: int) -> None:
        size += self._entry_bytes
        self.cache_bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size

    def _is_unwritten(self, key: str) -> bool:
        """Return whether the store does not hold the key's present value yet."""
        return key in self._dirty or key in self._pending or key in self._committing

    def _evict(self, spared: str = "") -> None:
        """Drop the entries used longest ago; not `spared`, which its caller is about to change."""
        if self.cache_bytes <= max(self._cache_bytes_max, self._full_bytes):
            return
        # A tenth at once, so that a full cache is not walked for every new entry.
        tenth = self._cache_bytes_max // 10
        target = self._cache_bytes_max - tenth
        going = []
        freed = 0
        for key in self._cache:
            if self.cache_bytes - freed <= target:
                break
            if key == spared or self._is_unwritten(key):
                continue
            going.append(key)
            freed += self._sizes[key]
        for key in going:
            del self._cache[key]
            self.cache_bytes -= self._sizes.pop(key)
        self._full_bytes = self.cache_bytes + tenth if self.cache_bytes > target else 0
