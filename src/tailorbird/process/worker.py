"""The fold: one record of the log after another, into the world.

The same code runs behind the door, after a crash, in a rebuild and in a replay; it reads no clock, no
randomness and nothing but the record and the world, so the same log always gives the same world.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from tailorbird.live.behaviour import EXPOSURES, About, Behaviour, change_consent, text_in
from tailorbird.live.decision_ids import decision_id
from tailorbird.live.facts import Touched
from tailorbird.live.identifiers import names_in, names_more
from tailorbird.live.profiles import by_identifier
from tailorbird.live.revocations import pair_of
from tailorbird.live.seen import key_of
from tailorbird.live.suggestions import Suggestion
from tailorbird.live.world import World
from tailorbird.process.attribution import Attribution, Facts
from tailorbird.process.hints import PURPOSE, Hints
from tailorbird.process.identity import Resolver, Seen
from tailorbird.process.membership import Membership, Reason
from tailorbird.process.observer import UNOBSERVED, Observer
from tailorbird.rankers.base import weight_of
from tailorbird.rankers.covisitation import STEPS_BACK
from tailorbird.rankers.observed import observe_item
from tailorbird.schema.clusters import ClustersFound
from tailorbird.schema.computed import AttributesComputed
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.events import Event, LoggedEvent, LoggedOutcome, name_of
from tailorbird.schema.feature import FeaturesPut
from tailorbird.schema.item import ItemDeleted, ItemPatched, ItemsPut, patched
from tailorbird.schema.profile import Profile, identifier_of
from tailorbird.schema.records import (
    ConsentChanged,
    IdentityRulesPut,
    LinkDeclared,
    LinkRevoked,
    LogRecord,
    OwnerForgotten,
    PlacementDeleted,
    PlacementPut,
    SuggestionRejected,
    Suppressed,
    decode,
)
from tailorbird.schema.segment import SegmentChanged, SegmentDeleted, SegmentPut
from tailorbird.stores.log import Log, Record

_event_decoder = msgspec.json.Decoder(Event)


def decode_event(raw: msgspec.Raw | bytes) -> Event:
    """Return the event of its logged bytes, which passed validation before they were logged."""
    return _event_decoder.decode(raw)


class Fold:
    """Folds records into one world, and tells an observer whom each was folded into."""

    def __init__(self, world: World, secret: bytes, log: Log, observer: Observer = UNOBSERVED) -> None:
        self.world = world
        self._observer = observer
        self._secret = secret
        self._log = log
        self._resolver = Resolver(world, secret, observer)
        self._hints = Hints(world, secret)
        self._attribution = Attribution(world, secret, self._find_decision, observer)
        self._membership = Membership(world)
        self._behaviour = Behaviour(world.vocabulary, world.catalogue, world.features, STEPS_BACK)
        self._handlers: dict[type, Callable[[int, Any], None]] = {
            LoggedEvent: self._event,
            LoggedDecision: self._decision,
            LoggedOutcome: self._outcome,
            ItemsPut: self._items_put,
            ItemPatched: self._item_patched,
            ItemDeleted: self._item_deleted,
            PlacementPut: self._placement_put,
            PlacementDeleted: self._placement_deleted,
            ConsentChanged: self._consent_changed,
            Suppressed: self._suppressed,
            OwnerForgotten: self._owner_forgotten,
            LinkRevoked: self._link_revoked,
            FeaturesPut: self._features_put,
            AttributesComputed: self._attributes_computed,
            ClustersFound: self._clusters_found,
            SegmentPut: self._segment_put,
            SegmentDeleted: self._segment_deleted,
            SegmentChanged: self._segment_changed,
            IdentityRulesPut: self._identity_rules_put,
            LinkDeclared: self._link_declared,
            SuggestionRejected: self._suggestion_rejected,
        }

    def apply(self, record: Record) -> None:
        """Fold one record as read from the log."""
        self.apply_record(record.offset, decode(record.kind, record.payload))

    def apply_record(self, offset: int, record: LogRecord) -> None:
        """Fold one record that is at hand."""
        self._observer.begin(offset, record.r)
        self._handlers[type(record)](offset, record)
        self.world.offset = offset + 1

    def apply_event(self, offset: int, logged: LoggedEvent, event: Event, key: bytes) -> None:
        """Fold an event that is decoded already and whose id is known to be new: the way from the door."""
        self._observer.begin(offset, logged.r)
        self.world.seen.note(key, logged.r)
        self._fold_event(offset, logged, event)
        self.world.offset = offset + 1

    def apply_decision(self, offset: int, decision: LoggedDecision, key: str) -> None:
        """Fold a decision whose id is known: the way from the cascade."""
        self._observer.begin(offset, decision.r)
        self._fold_decision(offset, decision, key)
        self.world.offset = offset + 1

    def let_go(self) -> None:
        """End folding, and let go of the world.

        The parts of a fold refer to one another in a circle, and the server keeps the garbage
        collector away from what has settled.
        """
        self._handlers.clear()
        del self._attribution

    # --- events -------------------------------------------------------------------------------------

    def _event(self, offset: int, logged: LoggedEvent) -> None:
        if self.world.seen.add(key_of(logged.m), logged.r):
            self._fold_event(offset, logged, decode_event(logged.e))
        else:
            self.world.count("events.duplicate")

    def _fold_event(self, offset: int, logged: LoggedEvent, event: Event) -> None:
        world = self.world
        t = logged.t
        world.newest = max(world.newest, logged.r)
        segments = world.segments
        if t > segments.event_time:
            segments.event_time, segments.event_received = t, logged.r
        profile = self._resolve(offset, event, t)
        name = name_of(event)
        about = self._behaviour.about(event)
        self._observer.event(logged, event, name, None if profile is None else profile.id)
        if profile is not None:
            _mark_version(profile, offset)
            traits = self._behaviour.declare(profile, event, logged)
            if profile.hints or _has_hint(event):
                self._hints.take(profile, event, t)
            self._observe(profile, event, (name, t), about)
            if segments.declared:
                touched = Touched(self._behaviour.codes_of(name, about), traits, event.user_id is not None, t)
                self._membership.event(profile, Reason(offset, logged.r, logged.m), touched)
        if name in EXPOSURES or name in world.goals:
            self._attribute(profile, name, t, Facts(event.properties or {}, set(about.items)))

    def _resolve(self, offset: int, event: Event, t: float) -> Profile | None:
        rules, count = self.world.identity, self.world.count
        seen = Seen(event.type, event.message_id, t, offset)
        if event.type != "alias" and event.anonymous_id is not None and not names_more(event):
            # Nearly all events: nothing else is to be resolved.
            device = identifier_of("anonymous_id", event.anonymous_id)
            if event.user_id is not None:
                profile = self._resolver.signed_in(identifier_of("user_id", event.user_id), device, seen)
                if profile is not None:
                    return profile
            elif rules.blocks("anonymous_id", event.anonymous_id):
                count("identity.blocked.anonymous_id")
                return None
            else:
                return self._resolver.anonymous(device, seen)
        if event.type == "alias":
            user_id, previous_id = (
                rules.known("user_id", event.user_id),
                rules.known("user_id", event.previous_id),
            )
            if user_id is not None and previous_id is not None:
                return self._resolver.alias(previous_id, user_id, seen)
        return self._resolver.resolve(names_in(event, rules, count), seen)

    def _observe(self, profile: Profile, event: Event, when: tuple[str, float], about: About) -> None:
        """Count an event in the visitor's record and, where it is about items, in the rankers."""
        name, t = when
        world, items = self.world, about.items
        is_touched = name not in EXPOSURES
        indices = self._behaviour.indices
        for place, item in enumerate(items):
            indices[place] = self._index_of(item) if is_touched else world.catalogue.find(item)
        before = self._behaviour.observe(profile, event, name, t, about)
        if not items or not is_touched:
            return
        weight = weight_of(name)
        for place in range(len(items)):
            index = indices[place]
            if index >= 0:
                observe_item(world.popularity, world.covisitation, (index, t, weight), before)

    def _index_of(self, item: str) -> int:
        index, is_new = self.world.catalogue.seen(item)
        if is_new:
            self.world.shelve(index)
        elif index < 0:
            self.world.count("items.refused")
        return index

    def _attribute(self, profile: Profile | None, name: str, t: float, facts: Facts) -> None:
        if name == "Decision Viewed" and facts.decision_id is not None:
            self._attribution.exposure(facts.decision_id, t)
        elif name in EXPOSURES and profile is not None:
            properties = facts.properties
            placement = text_in(properties, ("placement", "experimentId", "experiment_id", "experimentName"))
            arm = text_in(properties, ("variationId", "variation_id", "variationName", "variant"))
            if facts.decision_id is not None:
                self._attribution.exposure(facts.decision_id, t)
            elif placement is not None:
                self._attribution.exposure_by_window(profile, placement, arm, t)
        self._attribution.event(profile, name, t, facts)

    # --- the other records --------------------------------------------------------------------------

    def _decision(self, offset: int, decision: LoggedDecision) -> None:
        self._fold_decision(offset, decision, decision_id(self._secret, offset))

    def _fold_decision(self, offset: int, decision: LoggedDecision, key: str) -> None:
        profile = None
        self.world.newest = max(self.world.newest, decision.r)
        if self.world.revocations.folded and decision.profile is not None:
            profile = self._resolver.met(decision)
        elif decision.founded_on is not None:
            profile = self._resolver.found_on(decision.founded_on, Seen("decide", "", decision.t))
        elif decision.profile is not None:
            profile = self.world.profiles.change(decision.profile)
        if profile is not None:
            _mark_version(profile, offset)
            if decision.gpc and not profile.gpc:
                profile.gpc = profile.is_segments_due = True
        self._observer.decision(key, decision, None if profile is None else profile.id)
        self._attribution.decision_made(key, decision, profile)

    def _outcome(self, _offset: int, outcome: LoggedOutcome) -> None:
        # Events are named by whoever has the public key; they must not take an outcome's name.
        if not self.world.seen.add(key_of(f"outcome {outcome.m}"), outcome.r):
            self.world.count("events.duplicate")
            return
        value = 1.0 if outcome.value is None else outcome.value
        self._attribution.outcome(outcome.decision_id, outcome.goal, outcome.t, value)

    def _items_put(self, _offset: int, put: ItemsPut) -> None:
        self._observer.declared(put)
        for item in put.items:
            self.world.shelve(self.world.catalogue.put(item))

    def _item_patched(self, _offset: int, change: ItemPatched) -> None:
        self._observer.declared(change)
        item = self.world.catalogue.get(change.id)
        if item is not None:
            self.world.shelve(self.world.catalogue.put(patched(item, change.patch)))

    def _item_deleted(self, _offset: int, deleted: ItemDeleted) -> None:
        self._observer.declared(deleted)
        index = self.world.catalogue.remove(deleted.id)
        if index is not None:
            self.world.shelve(index)

    def _features_put(self, offset: int, put: FeaturesPut) -> None:
        self._observer.declared(put)
        self.world.features.fold(put, is_first=offset == 0)
        self.world.segments.reconsider(offset)

    def _attributes_computed(self, offset: int, record: AttributesComputed) -> None:
        self._observer.declared(record)
        entry = self.world.identifiers.get(identifier_of("profile", record.profile))
        profile = None if entry is None else self.world.profiles.change(entry.profile)
        if profile is not None:
            profile.computed |= record.values
            _mark_version(profile, offset)
            self._membership.changed(profile, Reason(offset, record.r))

    def _clusters_found(self, _offset: int, record: ClustersFound) -> None:
        self.world.clusters.put(record.model)

    def _placement_put(self, _offset: int, put: PlacementPut) -> None:
        self._observer.declared(put)
        self.world.put_placement(put.placement)

    def _placement_deleted(self, _offset: int, deleted: PlacementDeleted) -> None:
        self._observer.declared(deleted)
        self.world.delete_placement(deleted.key)

    def _consent_changed(self, offset: int, change: ConsentChanged) -> None:
        profile = self._resolver.found_on(change.identifier, Seen("consent", "", change.r))
        self._observer.consented(change, profile.id)
        _mark_version(profile, offset)
        change_consent(profile, change.consent)
        if profile.consent.get(PURPOSE) is not True:
            self._hints.forget(profile)
        self._membership.changed(profile, Reason(offset, change.r))

    def _suppressed(self, _offset: int, record: Suppressed) -> None:
        self.world.suppress(record.hashes, is_lifted=record.is_lifted)

    def _link_revoked(self, _offset: int, record: LinkRevoked) -> None:
        self.world.revocations.fold(record)

    def _segment_put(self, offset: int, put: SegmentPut) -> None:
        self.world.segments.put(offset, put.segment)

    def _segment_deleted(self, _offset: int, deleted: SegmentDeleted) -> None:
        self.world.segments.delete(deleted.key)

    def _segment_changed(self, offset: int, change: SegmentChanged) -> None:
        if change.cause is None:
            self._membership.seen_to_change(offset, change)
        else:
            self.world.segments.announced(change)

    def _identity_rules_put(self, _offset: int, record: IdentityRulesPut) -> None:
        self.world.put_identity_rules(record.rules)

    def _link_declared(self, offset: int, record: LinkDeclared) -> None:
        world, pair = self.world, pair_of(*record.identifiers)
        if record.needs_review or record.confidence < world.identity.stated.confidence_min:
            if not world.suggestions.suggest(pair, Suggestion(record.source, record.confidence, record.t)):
                world.count("identity.suggestions_refused")
            return
        if self._resolver.declare(pair, Seen("declared", record.source, record.t, offset)):
            found = by_identifier(world, pair[0])
            assert found is not None, "it was linked a moment ago"
            _mark_version(found, offset)
            world.suggestions.settle(*pair)

    def _suggestion_rejected(self, _offset: int, record: SuggestionRejected) -> None:
        self.world.suggestions.reject(pair_of(*record.identifiers), record.r)

    def _owner_forgotten(self, offset: int, record: OwnerForgotten) -> None:
        for kind, value in (("anonymous_id", record.anonymous_id), ("device_id", record.device_id)):
            if value:
                name = identifier_of(kind, value)
                is_boundary = record.is_boundary and kind == "anonymous_id"
                self._resolver.forget_owner(name, offset, is_boundary=is_boundary)

    def _find_decision(self, offset: int) -> LoggedDecision | None:
        record = self._log.get(offset)
        if record is None:
            return None
        found = decode(record.kind, record.payload)
        return found if isinstance(found, LoggedDecision) else None


def _mark_version(profile: Profile, offset: int) -> None:
    """Note the record that a profile was last changed by, and the one that founded it."""
    if profile.founded < 0:
        profile.founded = offset
    profile.version = offset


def _has_hint(event: Event) -> bool:
    context = event.context
    return context is not None and (context.fingerprint is not None or context.external_ids is not None)
