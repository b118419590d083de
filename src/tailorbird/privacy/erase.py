"""Erasure: a person's records leave the logs for good, and everything is folded again without them.

    who is it? ─► scan ─► refuse them at the door, durably ─► scan ─► rewrite both logs
                                                               ▲           │
                          proof ◄─ scan: nothing is left ◄─ fold again ◄───┘ until a scan finds nothing

The door is closed first, in the same turn of the event loop in which the person's identifiers are
read, so nothing of theirs can come in behind the second scan. What may still come is a back end's outcome of
a decision that is not yet gone: the scan before the fold finds it, and the decision is gone by then.

Refusals are rewritten before the log, because they are recognized by what the log holds. Every step
may be done again: an erasure that was cut short begins anew and finds what is left.

What others share with the person stays theirs: see `privacy.held`. Where a device goes on being used
by somebody else, the person's first record on it is replaced by `OwnerForgotten`, so that the others'
profiles, holdout arms and decisions fold to what they were.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Final, Protocol

import msgspec

from tailorbird.clock import Clock, format_time
from tailorbird.errors import StorageError
from tailorbird.limits import ERASURE_PASSES_MAX
from tailorbird.live.identifiers import is_segment_type, kind_of
from tailorbird.live.profiles import FORGOTTEN, segment_identifier, segments_of
from tailorbird.live.world import World
from tailorbird.privacy.held import Finder, Held, devices_of
from tailorbird.privacy.person import Person, person_of, to_suppress
from tailorbird.privacy.scan import Breather, in_thread
from tailorbird.schema.profile import identifier_of
from tailorbird.schema.records import LogRecord, OwnerForgotten, Suppressed, encode
from tailorbird.stores.log import Entry, Log, Record


class Installation(Protocol):
    """What privacy needs of the engine."""

    world: World
    log: Log
    rejects: Log
    clock: Clock

    def write(self, record: LogRecord) -> int:
        """Log and fold one record; return its offset."""

    async def durable(self) -> None:
        """Return when everything written so far survives a power cut."""

    async def count_history(self, profiles: Collection[str], offsets: Collection[int]) -> int:
        """Return how many rows of history there are of people (profile ids) or records (offsets)."""

    async def refold(self) -> None:
        """Fold the whole log into a fresh state and history and go on with those, and with no other file."""


class Found(msgspec.Struct, frozen=True, rename="camel"):
    """How much of a person is in the stores."""

    events: int = 0
    decisions: int = 0
    outcomes: int = 0
    consents: int = 0
    revoked_links: int = 0
    segment_changes: int = 0
    computed_attributes: int = 0
    declared_links: int = 0
    """Links that were declared, and suggested ones that were refused."""
    named_by_others: int = 0
    """Other people's events that name the person as who they were before."""
    refused_events: int = 0
    profiles: int = 0
    identifiers: int = 0
    links: int = 0
    rows: int = 0
    """Of history: what the warehouse derives from the records above."""

    def __add__(self, other: "Found") -> "Found":
        """Return the counts of both."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Found(*(one + two for one, two in pairs))

    @property
    def total(self) -> int:
        """Return the sum over all stores."""
        return sum(msgspec.structs.astuple(self))

    def by_store(self) -> dict[str, dict[str, int]]:
        """Return the counts under the store that each is in."""
        counts = msgspec.to_builtins(self)
        return {store: {name: counts[name] for name in names} for store, names in _STORES.items()}


class Progress(msgspec.Struct, frozen=True):
    """How far an erasure has come: what a later try needs to know, should this one be cut short."""

    person: Person = Person()
    """All that was known of the person; nobody before the first look."""
    found: Found = Found()
    """What was there, so far: after the first rewrite nothing else can tell."""
    taken: dict[str, list[int]] = {}
    """Offsets of the records that were counted and then rewritten, by log."""


_DEVICES: Final = ("anonymous_id", "device_id")
_STORES: Final = {
    "log": (
        "events",
        "decisions",
        "outcomes",
        "consents",
        "revokedLinks",
        "declaredLinks",
        "segmentChanges",
        "computedAttributes",
        "namedByOthers",
    ),
    "rejects": ("refusedEvents",),
    "state": ("profiles", "identifiers", "links"),
    "warehouse": ("rows",),
}


class Erasure:
    """Finds and erases people in one installation."""

    def __init__(self, installation: Installation, secret: bytes) -> None:
        self.installation = installation
        self.secret = secret

    def person(self, names: Iterable[str]) -> Person:
        """Return the person whom identifiers (`type:value`) name, as the world knows them now.

        Raises:
            ConflictError: As `person_of`.
        """
        return person_of(self.installation.world, names)

    async def find(self, person: Person) -> Held:
        """Return what both logs hold of a person.

        Raises:
            StorageError: The disk refused.
        """
        log, rejects = self.installation.log, self.installation.rejects
        world = self.installation.world
        finder = Finder(person, self.secret, world.revocations.folded, _boundaries(world, person))

        def scan(breather: Breather) -> Held:
            for record in log.read():
                finder.take(record)
                breather.breathe()
            for record in rejects.read():
                finder.take_refusal(record)
                breather.breathe()
            return finder.held

        held = await in_thread(scan)
        offsets = {*held.records, *held.renamed}
        held.rows = await self.installation.count_history(person.profiles, offsets)
        devices = {*held.owned, *(name for name in person.identifiers if kind_of(name) in _DEVICES)}
        held.shared |= {name for name in devices if self._is_used_by_others(name, person)}
        return held

    async def plan(self, names: Iterable[str]) -> dict[str, Any]:
        """Return what an erasure would take away, store by store; nothing is changed.

        Raises:
            ConflictError: As `person_of`.
            StorageError: The disk refused.
        """
        person = self.person(names)
        held = await self.find(person)
        person = _with_devices(person, held)
        found = self.count(person, held)
        return {
            "dryRun": True,
            "found": found.total,
            "stores": {
                store: {"found": sum(kinds.values()), "kinds": kinds}
                for store, kinds in found.by_store().items()
            },
            "wouldSuppress": len(to_suppress(self.installation.world, self.secret, person, held.shared)),
            "kept": _kept(held),
        }

    def count(self, person: Person, held: Held) -> Found:
        """Return how much of a person is in each store: by a scan of the logs, and in the world now."""
        world = self.installation.world
        profiles = [world.profiles.get(profile) for profile in person.profiles]
        known = [profile for profile in profiles if profile is not None]
        names = person.identifiers - held.shared
        return Found(
            events=len(held.events),
            decisions=len(held.decisions),
            outcomes=len(held.outcomes),
            consents=len(held.consents),
            revoked_links=len(held.revocations),
            segment_changes=len(held.segment_changes),
            computed_attributes=len(held.computed),
            declared_links=len(held.declared),
            named_by_others=len(held.renamed),
            refused_events=len(held.refusals),
            profiles=len(known),
            identifiers=sum(world.identifiers.get(name) is not None for name in names),
            links=sum(len(profile.links) for profile in known),
            rows=held.rows,
        )

    async def erase(
        self, names: Iterable[str], before: Progress, keep: Callable[[Progress], Awaitable[None]]
    ) -> dict[str, Any]:
        """Erase a person and return the proof.

        Args:
            names: The identifiers (`type:value`) that were asked about.
            before: How far an earlier try came that was cut short.
            keep: Awaited with all that a later try needs, each time before anything is changed.

        Raises:
            ConflictError: As `person_of`.
            StorageError: The disk refused, or records keep arriving; may be tried again.
        """
        started = self.installation.clock.now()
        person = self.person(names).with_other(before.person)
        held = await self.find(person)
        person = _with_devices(person, held)
        await keep(msgspec.structs.replace(before, person=person))
        person, suppressed = self._close_door(names, person, held.shared)
        progress = msgspec.structs.replace(before, person=person)
        await keep(progress)
        await self.installation.durable()
        progress = await self._rewrite_until_clean(progress, keep)
        found = progress.found
        removed = {store: len(offsets) for store, offsets in progress.taken.items()}
        if found.total or before.person != Person():
            await self.installation.refold()
        held = await self.find(person)
        remaining = self.count(person, held)
        if remaining.total:
            raise StorageError(f"{remaining.total} records of the person are left: {remaining}")
        left = remaining.by_store()
        return {
            "found": found.total,
            "removed": found.total,
            "remaining": remaining.total,
            "stores": {
                store: {
                    "found": sum(kinds.values()),
                    "removed": removed.get(store, sum(kinds.values())),
                    "remaining": sum(left[store].values()),
                    "kinds": kinds,
                }
                for store, kinds in found.by_store().items()
            },
            "suppressed": suppressed,
            "kept": _kept(held),
            "recordsSearched": held.scanned,
            "startedAt": format_time(started),
            "finishedAt": format_time(self.installation.clock.now()),
        }

    async def _rewrite_until_clean(
        self, progress: Progress, keep: Callable[[Progress], Awaitable[None]]
    ) -> Progress:
        """Take a person's records out of both logs; return what went, earlier tries included.

        What is found is kept before it goes. Where a try is cut short between the two, the next one finds the
        same records again; it knows them by their offsets and does not count them twice.
        """
        person, found = progress.person, progress.found
        taken = {store: set(progress.taken.get(store, ())) for store in ("log", "rejects")}
        for _ in range(ERASURE_PASSES_MAX):
            held = await self.find(person)
            here = self.count(person, held.without(taken["log"], taken["rejects"]))
            found += here if not found.total else _only_logs(here)
            taken["log"].update(held.records, held.renamed)
            taken["rejects"].update(held.refusals)
            progress = Progress(person, found, {store: sorted(offsets) for store, offsets in taken.items()})
            if not _is_in_logs(person, held) and not self._is_damaged():
                return progress
            await keep(progress)
            await self._rewrite(person, held)
        raise StorageError("records of the person keep arriving")

    async def _rewrite(self, person: Person, held: Held) -> None:
        """Take what was found out of both logs, or put what stays of it in its place."""
        gone = frozenset(held.records).union(_markers_to_drop(person, held))
        instead = held.renamed | self._markers(person, held) | _markers_to_change(person, held)
        refused = frozenset(held.refusals)
        log, rejects = self.installation.log, self.installation.rejects

        def rewrite(breather: Breather) -> None:
            def is_kept(record: Record, offsets: frozenset[int]) -> bool:
                breather.breathe()
                return record.offset not in offsets

            rejects.rewrite(lambda record: is_kept(record, refused))
            log.rewrite(lambda record: is_kept(record, gone), instead)

        await in_thread(rewrite)

    def _is_damaged(self) -> bool:
        """Return whether a log holds bytes of which nobody can tell whose they are; rewriting drops them."""
        logs = (self.installation.log, self.installation.rejects)
        return any(log.health().records_corrupt for log in logs)

    def _markers(self, person: Person, held: Held) -> dict[int, Entry]:
        """Return what stands for the person on devices that others go on using, by offset."""
        now = self.installation.clock.now()
        markers: dict[int, OwnerForgotten] = {}
        for name, first in held.owned.items():
            if name not in held.shared:
                continue
            kind, _, value = name.partition(":")
            for offset in {first, *self._boundaries_made(name, person, held)}:
                marker = markers.get(offset, OwnerForgotten(now, ""))
                markers[offset] = msgspec.structs.replace(
                    marker,
                    **{kind: value},
                    is_boundary=marker.is_boundary or offset in self._boundaries_made(name, person, held),
                )
        return {offset: Entry(*encode(marker)) for offset, marker in markers.items()}

    def _boundaries_made(self, name: str, person: Person, held: Held) -> set[int]:
        """Return where the person took over what was done on a device, and others' use began after it."""
        entry = self.installation.world.identifiers.get(name)
        boundaries = [] if entry is None else entry.boundaries
        value = name.partition(":")[2]
        own = set(held.events)
        return {
            offset
            for place, offset in enumerate(boundaries, 1)
            if offset in own and segment_identifier(value, boundaries[:place]) not in person.identifiers
        }

    def _is_used_by_others(self, name: str, person: Person) -> bool:
        """Return whether anybody else was seen on a device (`anonymous_id:…`, `device_id:…`)."""
        identifiers = self.installation.world.identifiers
        entry = identifiers.get(name)
        if entry is None:
            return False
        segments = segments_of(entry, name) if kind_of(name) == "anonymous_id" else []
        whose = (identifiers.get(segment) for segment in segments)
        if any(each is not None and each.profile not in person.profiles for each in whose):
            return True
        others = set(entry.owners) - person.identifiers - {FORGOTTEN}
        return bool(others) or (bool(entry.profile) and entry.profile not in person.profiles)

    def _close_door(self, names: Iterable[str], person: Person, shared: set[str]) -> tuple[Person, int]:
        """Refuse a person at the door from now on, with what was linked since; return how many hashes.

        Nothing is awaited here, and a write folds what came before it: so when nobody new is found,
        nobody new can come.
        """
        count = 0
        while True:
            person = person.with_other(self.person([*names, *person.identifiers]))
            hashes = to_suppress(self.installation.world, self.secret, person, shared)
            if not hashes:
                return person, count
            self.installation.write(Suppressed(self.installation.clock.now(), hashes))
            count += len(hashes)


def _only_logs(found: Found) -> Found:
    """Return the counts of the logs alone: state and history are counted once, for one fold changes both."""
    return msgspec.structs.replace(found, profiles=0, identifiers=0, links=0, rows=0)


def _boundaries(world: World, person: Person) -> dict[str, list[int]]:
    """Return where the signed-out use of the person's devices is told apart, by anonymous id."""
    found = {}
    for name in person.identifiers:
        kind, _, value = name.partition(":")
        if kind == "anonymous_id" or is_segment_type(kind):
            entry = world.identifiers.get(identifier_of("anonymous_id", value))
            if entry is not None and entry.boundaries:
                found[value] = list(entry.boundaries)
    return found


def _with_devices(person: Person, held: Held) -> Person:
    """Return the person with the devices that only they signed in on."""
    return person.with_other(Person(frozenset(held.owned) - held.shared))


def _is_left(name: str, person: Person, held: Held) -> bool:
    """Return whether nobody uses a device of the person's any more."""
    return name in person.identifiers and name not in held.shared


def _markers_to_drop(person: Person, held: Held) -> list[int]:
    """Return the `OwnerForgotten` records of devices that nobody uses any more."""
    return [
        offset
        for offset, marker in held.markers.items()
        if all(_is_left(name, person, held) for name in devices_of(marker))
    ]


def _markers_to_change(person: Person, held: Held) -> dict[int, Entry]:
    """Return those of which one of two identifiers is not used any more, without that one."""
    changed = {}
    for offset, marker in held.markers.items():
        left = [name for name in devices_of(marker) if _is_left(name, person, held)]
        if 0 < len(left) < len(devices_of(marker)):
            without = {kind_of(name): "" for name in left}
            changed[offset] = Entry(*encode(msgspec.structs.replace(marker, **without)))
    return changed


def _is_in_logs(person: Person, held: Held) -> bool:
    is_named = held.records or held.renamed or held.refusals
    return bool(is_named or _markers_to_drop(person, held) or _markers_to_change(person, held))


def _kept(held: Held) -> dict[str, int]:
    """Return what stays because it is other people's."""
    return {"sharedIdentifiers": len(held.shared), "mentionsByOthers": held.mentions}
