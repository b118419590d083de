"""The world: all live state at one offset of the log, as typed tables over one state store.

    table        key                      value
    profile      profile id               Profile
    identifier   type:value               Identifier (whose it is)
    setting      "identity"               IdentityRules
    suggestion   two identifiers          Suggestion (see `live.suggestions`)
    hint         hash of a fingerprint    profile ids
    word         e:event, c:category      its code (see `features.vocabulary`)
    features     counted, declared        FeaturesPut (see `live.feature_sets`)
    model        clusters                 ClusterModel (see `live.model_segments`)
    revoked      two identifiers          its standing (see `live.revocations`)
    mark         decision id              Mark (exposed, rewarded)
    placement    key                      Placement
    policy       placement key            PolicyState
    moments      placement key            ArmsMoments ("*": all placements)
    moments_in   placement, segment key   the same of the segment's members (see `moments_key`)
    item         item id                  Shelf
    popularity   item id                  weight, last
    covisit      item id                  followers, weights
    seen         day|hash of messageId    nothing
    suppressed   hash of identifier       nothing
    segment      key                      Declared (see `live.rule_segments`)
    size         segment key              how many people are in it
    unannounced  offset, segment key      SegmentChanged that no record announces yet
    counts       name                     int

Only the fold (`process`) changes it; decisions read it.
"""

import struct
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
import numpy as np

from tailorbird.features.state import pack, unpack
from tailorbird.features.vocabulary import CATEGORY, EVENT, Vocabulary
from tailorbird.limits import CHECKPOINT_SLICE
from tailorbird.live.catalogue import Catalogue, Shelf
from tailorbird.live.feature_sets import FeatureSets
from tailorbird.live.identifiers import Rules
from tailorbird.live.model_segments import ModelSegments
from tailorbird.live.revocations import Revocations
from tailorbird.live.rule_segments import RuleSegments
from tailorbird.live.seen import SeenIds
from tailorbird.live.suggestions import Suggestion, Suggestions
from tailorbird.live.table import Table
from tailorbird.policies.base import PolicyState
from tailorbird.rankers.covisitation import Covisitation
from tailorbird.rankers.popularity import Popularity
from tailorbird.schema.clusters import ClusterModel
from tailorbird.schema.feature import FeaturesPut
from tailorbird.schema.identity import IdentityRules
from tailorbird.schema.outcome import Mark
from tailorbird.schema.placement import Placement
from tailorbird.schema.profile import Profile
from tailorbird.stats.moments import UnitMoments
from tailorbird.stores.state import Change, Expiry, StateStore

TABLES = (
    "profile",
    "identifier",
    "setting",
    "suggestion",
    "hint",
    "word",
    "features",
    "model",
    "revoked",
    "mark",
    "placement",
    "policy",
    "moments",
    "moments_in",
    "item",
    "popularity",
    "covisit",
    "seen",
    "suppressed",
    "segment",
    "size",
    "unannounced",
    "counts",
)

ALL_PLACEMENTS = "*"

T = TypeVar("T")

_SMALL = 16 * 1024 * 1024  # Cache bytes of a table that is read at start or seldom.
_OVER_SHARE = 5  # Of the cache's bytes: by as much may it be exceeded while the disk is behind.
_PROFILE_BYTES = 2_500  # Of a profile, beside its record and its sketches: its objects, dictionaries.
_SKETCH_BYTES = 400  # Of one tile of distinct values.


class Identifier(msgspec.Struct, omit_defaults=True, gc=False):
    """Whose an identifier is."""

    profile: str
    owners: list[str] = []
    """Of an anonymous id or a device's id: the known users who signed in on it. With two or more, it is a
    shared device, and what it does signed out belongs to nobody known."""
    boundaries: list[int] = []
    """Of a shared device's anonymous id: log offsets at which somebody signed in and took over what was done
    signed out since the one before."""
    incarnation: int = 0
    """How often it began anew, after it had named nobody for its time-to-live."""


class ArmsMoments(msgspec.Struct):
    """Moments of a placement's two arms, and how many visitors had both before a merge."""

    personalized: UnitMoments = msgspec.field(default_factory=UnitMoments)
    holdout: UnitMoments = msgspec.field(default_factory=UnitMoments)
    merged_units: int = 0

    def of(self, arm: str) -> UnitMoments:
        """Return the moments of `personalized` or `holdout`."""
        return self.holdout if arm == "holdout" else self.personalized


def moments_key(placement: str, segment: str) -> str:
    """Return the key of `moments_in`; no key that anybody declares has a line break."""
    return f"{segment}\n{placement}"


class World:
    """All live state over one store."""

    def __init__(
        self,
        store: StateStore,
        cache_bytes: int = 256 * 1024 * 1024,
        holdout_share: float = 0.1,
        *,
        gpc_opts_out: bool = True,
    ) -> None:
        self.store = store
        self.gpc_opts_out = gpc_opts_out
        """Whether Global Privacy Control refuses every purpose that a person does not allow by name."""
        self.offset = store.offset
        """The next offset of the log to fold."""
        self.holdout_share = holdout_share
        self._over_bytes_max = cache_bytes // _OVER_SHARE
        self._open_tables(cache_bytes)
        self.placements: dict[str, Placement] = dict(self._placements.scan())
        self.placements_version = 0
        self.goals: dict[str, list[str]] = {}
        """Placements by the event that is their goal."""
        self._list_goals()
        self.newest = 0.0
        """Time of the newest record folded since the start; epoch seconds."""
        self.suppressed: set[str] = {key for key, _ in self._suppressed.scan()}
        self._load_identity()
        self._load_items()
        self.seen = SeenIds(store)
        self._snapshot: _Rows | None = None
        self._offset_pending = 0

    def _open_tables(self, cache_bytes: int) -> None:
        store = self.store
        side_bytes = cache_bytes // 8
        self.profiles: Table[Profile] = Table(
            store,
            "profile",
            (encode_profile, decode_profile),
            cache_bytes * 3 // 4,
            _PROFILE_BYTES,
            _bytes_of,
        )
        self._words: Table[int] = Table(store, "word", _msgpack(int), _SMALL)
        self._features: Table[FeaturesPut] = Table(store, "features", _msgpack(FeaturesPut), _SMALL)
        self._models: Table[ClusterModel] = Table(store, "model", _msgpack(ClusterModel), _SMALL)
        self._revoked: Table[int] = Table(store, "revoked", _msgpack(int), _SMALL)
        self.identifiers: Table[Identifier] = Table(store, "identifier", _msgpack(Identifier), side_bytes)
        self.hints: Table[list[str]] = Table(store, "hint", _msgpack(list[str]), _SMALL)
        """Ids of the profiles that a fingerprint was seen with, by its keyed hash; oldest first."""
        self._settings: Table[IdentityRules] = Table(store, "setting", _msgpack(IdentityRules), _SMALL)
        self._suggested: Table[Suggestion] = Table(store, "suggestion", _msgpack(Suggestion), _SMALL)
        self.marks: Table[Mark] = Table(store, "mark", _msgpack(Mark), side_bytes)
        self.policies: Table[PolicyState] = Table(store, "policy", _msgpack(PolicyState), _SMALL)
        self.moments: Table[ArmsMoments] = Table(store, "moments", _msgpack(ArmsMoments), _SMALL)
        self.moments_in: Table[ArmsMoments] = Table(store, "moments_in", _msgpack(ArmsMoments), _SMALL)
        self.counts: Table[int] = Table(store, "counts", _msgpack(int), _SMALL)
        self._placements: Table[Placement] = Table(store, "placement", _msgpack(Placement), _SMALL)
        self._items: Table[Shelf] = Table(store, "item", _msgpack(Shelf), _SMALL)
        self._suppressed: Table[int] = Table(store, "suppressed", _msgpack(int), _SMALL)
        self.vocabulary = Vocabulary(self._words.put)
        self.vocabulary.load(self._words.scan())
        self.features = FeatureSets(self._features, self.vocabulary)
        self.segments = RuleSegments(store, self.vocabulary, self.features)
        self.clusters = ModelSegments(self._models)
        self._tables: tuple[Table[Any], ...] = (
            self.profiles,
            self.identifiers,
            self.hints,
            self._settings,
            self._suggested,
            self._words,
            self._features,
            self._models,
            self._revoked,
            self.marks,
            self.policies,
            self.moments,
            self.moments_in,
            self.counts,
            self._placements,
            self._items,
            self._suppressed,
            *self.segments.tables,
        )

    # --- what the fold writes beside the tables -----------------------------------------------------

    def put_placement(self, placement: Placement) -> None:
        """Declare or change a placement."""
        self._placements.put(placement.key, placement)
        self.placements[placement.key] = placement
        self.placements_version += 1
        self._list_goals()
        if placement.goal is not None:
            self.vocabulary.reserve(EVENT, placement.goal.event)

    def put_identity_rules(self, rules: IdentityRules) -> None:
        """Change the rules of identity, for what comes from now on."""
        self._settings.put("identity", rules)
        self.identity = Rules(rules)

    def delete_placement(self, key: str) -> None:
        """Take a placement away; what it learned stays, for the case that it comes back."""
        if self.placements.pop(key, None) is not None:
            self._placements.delete(key)
            self.placements_version += 1
            self._list_goals()

    def share_of(self, key: str) -> float:
        """Return the share of visitors whom a placement holds out: its own, else the installation's.

        The readout over all placements leaves out those with another share: their arms are other people.
        """
        placement = None if key == ALL_PLACEMENTS else self.placements.get(key)
        return self.holdout_share if placement is None or placement.holdout is None else placement.holdout

    def _list_goals(self) -> None:
        self.goals = {}
        for key, placement in sorted(self.placements.items()):
            if placement.goal is not None:
                self.goals.setdefault(placement.goal.event, []).append(key)

    def shelve(self, index: int) -> None:
        """Write the item at `index` at the next checkpoint."""
        # The rankers' arrays have a row for every index that was ever given out.
        self.popularity.reserve(index + 1)
        self.covisitation.reserve(index + 1)
        key, item = self.catalogue.ids[index], self.catalogue.items[index]
        if item is not None and item.categories:
            self.vocabulary.reserve(CATEGORY, item.categories[0])
        self._items.put(key, Shelf(index, item))

    def suppress(self, hashes: tuple[str, ...], *, is_lifted: bool) -> None:
        """Refuse identifiers by hash, or accept them again."""
        for key in hashes:
            if is_lifted:
                self._suppressed.delete(key)
                self.suppressed.discard(key)
            else:
                self._suppressed.put(key, 1)
                self.suppressed.add(key)

    def words(self) -> list[tuple[str, int]]:
        """Return every name that has a code, its kind before it, with the code."""
        return list(self._words.scan())

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a named count of the fold."""
        self.counts.put(name, (self.counts.get(name) or 0) + amount)

    # --- checkpoints --------------------------------------------------------------------------------

    @property
    def is_stale(self) -> bool:
        """Return whether the log has to be folded again for the state to be right."""
        return self.revocations.is_stale or self.features.is_stale

    @property
    def dirty_count(self) -> int:
        """Return how many entries changed since the last checkpoint began."""
        return sum(table.dirty_count for table in self._tables)

    @property
    def is_full(self) -> bool:
        """Return whether more waits for a commit than there is memory for."""
        return sum(table.bytes_over for table in self._tables) > self._over_bytes_max

    def checkpoint_begin(self) -> None:
        """Take the present moment as what the next commit holds."""
        self._offset_pending = self.offset
        if self.popularity.updates:
            # Before the tables begin, so that the count is committed with what it counts.
            self.counts.put("popularity_updates", self.popularity.updates)
        self.segments.checkpoint_begin()
        for table in self._tables:
            table.checkpoint_begin()
        self._snapshot = self._take_rows()
        self.seen.checkpoint_begin()

    def checkpoint_step(self) -> bool:
        """Encode a slice of the pending entries; return whether any remain."""
        budget = CHECKPOINT_SLICE
        for table in self._tables:
            budget -= table.checkpoint_step(budget)
            if budget <= 0:
                return True
        return False

    def checkpoint_changes(self) -> tuple[int, list[Change], list[Expiry]]:
        """Return what to commit: the offset, the changes and what has expired."""
        changes = [change for table in self._tables for change in table.checkpoint_changes()]
        changes += self._row_changes()
        changes += self.seen.checkpoint_changes()
        return self._offset_pending, changes, self.seen.expiries()

    def checkpoint_commit(self) -> None:
        """Write what is encoded; may run in another thread, beside the fold.

        It reads only what `checkpoint_begin` set aside and no fold touches: listing a hundred thousand
        message ids in the event loop held it up for a tenth of a second.
        """
        self.store.commit(*self.checkpoint_changes())

    def checkpoint_done(self) -> None:
        """Let go of what was committed."""
        for table in self._tables:
            table.checkpoint_done()
        self._snapshot = None
        self.seen.checkpoint_done()

    def checkpoint_failed(self) -> None:
        """Take back what could not be committed."""
        for table in self._tables:
            table.checkpoint_failed()
        if self._snapshot is not None:
            self.popularity.is_changed[self._snapshot.indices] = True
            self._snapshot = None
        self.seen.checkpoint_failed()

    def checkpoint(self) -> None:
        """Do a whole checkpoint at once; for rebuilds and shutdown, where nobody waits."""
        self.checkpoint_begin()
        while self.checkpoint_step():
            pass
        self.checkpoint_commit()
        self.checkpoint_done()

    # --- the rankers' rows --------------------------------------------------------------------------

    def _load_identity(self) -> None:
        self.revocations = Revocations(self._revoked)
        self.identity = Rules(self._settings.get("identity") or IdentityRules())
        """The identity rules in force."""
        self.suggestions = Suggestions(self._suggested)

    def _load_items(self) -> None:
        self.catalogue = Catalogue()
        self.catalogue.load(self._items.scan())
        self.popularity = Popularity()
        self.covisitation = Covisitation()
        index = self.catalogue.index
        self.popularity.reserve(len(index))
        self.covisitation.reserve(len(index))
        for key, payload in self.store.scan("popularity"):
            weight, last = _POPULARITY.unpack(payload)
            self.popularity.weights[index[key]] = weight
            self.popularity.last[index[key]] = last
        for key, payload in self.store.scan("covisit"):
            row = index[key]
            half = len(payload) // 2
            followers = np.frombuffer(payload[:half], np.int32)
            self.covisitation.followers[row, : len(followers)] = followers
            self.covisitation.weights[row, : len(followers)] = np.frombuffer(payload[half:], np.float32)
        counts = self.counts.get("popularity_updates") or 0
        self.popularity.totals[:] = counts, self.popularity.last.max(initial=0.0)

    def _take_rows(self) -> "_Rows":
        indices = np.flatnonzero(self.popularity.is_changed)
        self.popularity.is_changed[indices] = False
        return _Rows(
            indices,
            self.popularity.weights[indices],
            self.popularity.last[indices],
            self.covisitation.followers[indices],
            self.covisitation.weights[indices],
        )

    def _row_changes(self) -> Iterator[Change]:
        rows = self._snapshot
        assert rows is not None, "no checkpoint has begun"
        for position, index in enumerate(rows.indices.tolist()):
            key = self.catalogue.ids[index]
            popularity = _POPULARITY.pack(rows.weights[position], rows.last[position])
            yield Change("popularity", key, popularity)
            size = int((rows.followers[position] >= 0).sum())
            if size:
                followers = rows.followers[position, :size].tobytes()
                yield Change("covisit", key, followers + rows.amounts[position, :size].tobytes())


class _Rows(msgspec.Struct):
    """The rankers' rows that changed, as they stood when the checkpoint began."""

    indices: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any]
    last: np.ndarray[Any, Any]
    followers: np.ndarray[Any, Any]
    amounts: np.ndarray[Any, Any]


_POPULARITY = struct.Struct("<dd")


def _msgpack(kind: type[T]) -> tuple[Any, Any]:
    return msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(kind).decode


def _bytes_of(profile: Profile) -> int:
    """Return the bytes of what grows in a profile: a record of some dozens of counters takes 20 KiB."""
    tiles = sum(map(len, profile.sketches.values()))
    return int(profile.state.nbytes) + _SKETCH_BYTES * tiles


_profile_encoder = msgspec.msgpack.Encoder(enc_hook=pack)
_profile_decoder = msgspec.msgpack.Decoder(Profile, dec_hook=lambda _kind, payload: unpack(payload))


def encode_profile(profile: Profile) -> bytes:
    """Return the profile as bytes: equal profiles give equal bytes."""
    return _profile_encoder.encode(profile)


def decode_profile(payload: bytes) -> Profile:
    """Return the profile of `encode_profile`'s bytes."""
    return _profile_decoder.decode(payload)
