"""The fold: one record of the log after another, into the world.

The same code runs behind the door, after a crash, in a rebuild and in a replay; it reads no clock, no
randomness and nothing but the record and the world, so the same log always gives the same world.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from tailorbird.features.state import ORDERS, VALUE, grown, observe
from tailorbird.limits import GROUPS_MAX, PURCHASES_MAX, TRAIT_ENTRIES_MAX, TRAITS_BYTES_MAX, TRAITS_MAX
from tailorbird.live.decision_ids import decision_id
from tailorbird.live.identifiers import declared_traits, names_in, names_more
from tailorbird.live.profiles import by_identifier
from tailorbird.live.revocations import pair_of
from tailorbird.live.seen import key_of
from tailorbird.live.suggestions import Suggestion
from tailorbird.live.world import World
from tailorbird.process.attribution import Attribution, Facts
from tailorbird.process.hints import PURPOSE, Hints
from tailorbird.process.identity import Resolver, Seen
from tailorbird.rankers.base import weight_of
from tailorbird.rankers.covisitation import STEPS_BACK
from tailorbird.rankers.observed import observe_item
from tailorbird.rules.cel import entries_in
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.events import Event, LoggedEvent, LoggedOutcome, name_of
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
from tailorbird.stores.log import Log, Record

_ITEM_FIELDS = ("product_id", "productId", "item_id", "itemId", "sku", "article_id", "content_id")
_NONE_BEFORE = np.zeros(0, np.int32)
_PRODUCTS_MAX = 50  # Lines of one order that count for items and categories; more is a bulk import.
_CATEGORY_LENGTH_MAX = 200  # As the catalogue's own.
_PURCHASE = "Order Completed"
_EXPOSURES = ("Decision Viewed", "Experiment Viewed")

_event_decoder = msgspec.json.Decoder(Event)


def decode_event(raw: msgspec.Raw | bytes) -> Event:
    """Return the event of its logged bytes, which passed validation before they were logged."""
    return _event_decoder.decode(raw)


class Fold:
    """Folds records into one world."""

    def __init__(self, world: World, secret: bytes, log: Log) -> None:
        self.world = world
        self._secret = secret
        self._log = log
        self._resolver = Resolver(world, secret)
        self._hints = Hints(world, secret)
        self._attribution = Attribution(world, secret, self._find_decision)
        # What one event hands to the kernels, made once: its items and categories, the items before it.
        self._items = np.zeros(1 + _PRODUCTS_MAX, np.int32)
        self._categories = np.zeros(1 + _PRODUCTS_MAX, np.int32)
        self._before = np.zeros(STEPS_BACK, np.int32)
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
            IdentityRulesPut: self._identity_rules_put,
            LinkDeclared: self._link_declared,
            SuggestionRejected: self._suggestion_rejected,
        }

    def apply(self, record: Record) -> None:
        """Fold one record as read from the log."""
        self.apply_record(record.offset, decode(record.kind, record.payload))

    def apply_record(self, offset: int, record: LogRecord) -> None:
        """Fold one record that is at hand."""
        self._handlers[type(record)](offset, record)
        self.world.offset = offset + 1

    def apply_event(self, offset: int, logged: LoggedEvent, event: Event, key: bytes) -> None:
        """Fold an event that is decoded already and whose id is known to be new: the way from the door."""
        self.world.seen.note(key, logged.r)
        self._fold_event(offset, logged, event)
        self.world.offset = offset + 1

    def apply_decision(self, offset: int, decision: LoggedDecision, key: str) -> None:
        """Fold a decision whose id is known: the way from the cascade."""
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
        profile = self._resolve(offset, event, t)
        name = name_of(event)
        properties = event.properties or {}
        items, categories = self._items_of(properties)
        if profile is not None:
            _mark_version(profile, offset)
            _declare(profile, event, logged)
            if profile.hints or _has_hint(event):
                self._hints.take(profile, event, t)
            self._observe(profile, (name, t), items, categories)
            if name == _PURCHASE:
                _observe_purchase(profile, properties, items, t)
        if name in _EXPOSURES or name in world.goals:
            self._attribute(profile, name, t, Facts(properties, set(items)))

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

    def _observe(
        self, profile: Profile, when: tuple[str, float], items: list[str], categories: list[str]
    ) -> None:
        """Count an event in the visitor's record and, where it is about items, in the rankers."""
        name, t = when
        world = self.world
        is_touched = name not in _EXPOSURES
        for place, item in enumerate(items):
            self._items[place] = self._index_of(item) if is_touched else world.catalogue.find(item)
        for place, category in enumerate(categories):
            self._categories[place] = world.vocabulary.category(category)
        event = world.vocabulary.event(name)
        arguments = (t, event, self._categories, len(categories), self._items, len(items), is_touched)
        while (steps := observe(profile.state, *arguments, self._before)) < 0:
            profile.state = grown(profile.state)
        if not items or not is_touched:
            return
        before = self._before[:steps] if steps else _NONE_BEFORE
        weight = weight_of(name)
        for place in range(len(items)):
            index = self._items.item(place)
            if index >= 0:
                observe_item(world.popularity, world.covisitation, (index, t, weight), before)

    def _index_of(self, item: str) -> int:
        index, is_new = self.world.catalogue.seen(item)
        if is_new:
            self.world.shelve(index)
        elif index < 0:
            self.world.count("items.refused")
        return index

    def _items_of(self, properties: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Return the items that an event names, and the categories it is about."""
        items: list[str] = []
        categories: list[str] = []
        self._read_line(properties, items, categories)
        products = properties.get("products")
        if isinstance(products, list):
            for line in products[:_PRODUCTS_MAX]:
                if isinstance(line, dict):
                    self._read_line(line, items, categories)
        return items, categories

    def _read_line(self, line: dict[str, Any], items: list[str], categories: list[str]) -> None:
        """Add what one line of an order, or an event itself, is about."""
        key = _text(line, _ITEM_FIELDS)
        category = line.get("category")
        if key is not None:
            if key not in items:
                items.append(key)
            item = self.world.catalogue.get(key)
            if item is not None and item.categories:
                category = item.categories[0]
        if isinstance(category, str):
            category = category[:_CATEGORY_LENGTH_MAX]
            if category and category not in categories:
                categories.append(category)

    def _attribute(self, profile: Profile | None, name: str, t: float, facts: Facts) -> None:
        if name == "Decision Viewed" and facts.decision_id is not None:
            self._attribution.exposure(facts.decision_id, t)
        elif name in _EXPOSURES and profile is not None:
            properties = facts.properties
            placement = _text(properties, ("placement", "experimentId", "experiment_id", "experimentName"))
            arm = _text(properties, ("variationId", "variation_id", "variationName", "variant"))
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
            profile.gpc = profile.gpc or decision.gpc
        self._attribution.decision_made(key, decision, profile)

    def _outcome(self, _offset: int, outcome: LoggedOutcome) -> None:
        # Events are named by whoever has the public key; they must not take an outcome's name.
        if not self.world.seen.add(key_of(f"outcome {outcome.m}"), outcome.r):
            self.world.count("events.duplicate")
            return
        value = 1.0 if outcome.value is None else outcome.value
        self._attribution.outcome(outcome.decision_id, outcome.goal, outcome.t, value)

    def _items_put(self, _offset: int, put: ItemsPut) -> None:
        for item in put.items:
            self.world.shelve(self.world.catalogue.put(item))

    def _item_patched(self, _offset: int, change: ItemPatched) -> None:
        item = self.world.catalogue.get(change.id)
        if item is not None:
            self.world.shelve(self.world.catalogue.put(patched(item, change.patch)))

    def _item_deleted(self, _offset: int, deleted: ItemDeleted) -> None:
        index = self.world.catalogue.remove(deleted.id)
        if index is not None:
            self.world.shelve(index)

    def _placement_put(self, _offset: int, put: PlacementPut) -> None:
        self.world.put_placement(put.placement)

    def _placement_deleted(self, _offset: int, deleted: PlacementDeleted) -> None:
        self.world.delete_placement(deleted.key)

    def _consent_changed(self, offset: int, change: ConsentChanged) -> None:
        profile = self._resolver.found_on(change.identifier, Seen("consent", "", change.r))
        _mark_version(profile, offset)
        profile.consent |= change.consent
        refused = {purpose for purpose, is_allowed in change.consent.items() if not is_allowed}
        kept = [purpose for purpose in profile.refusals if purpose not in change.consent]
        profile.refusals = sorted({*kept, *refused})
        if profile.consent.get(PURPOSE) is not True:
            self._hints.forget(profile)

    def _suppressed(self, _offset: int, record: Suppressed) -> None:
        self.world.suppress(record.hashes, is_lifted=record.is_lifted)

    def _link_revoked(self, _offset: int, record: LinkRevoked) -> None:
        self.world.revocations.fold(record)

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


def _observe_purchase(profile: Profile, properties: dict[str, Any], items: list[str], t: float) -> None:
    profile.state[ORDERS] += 1.0
    profile.state[VALUE] += _number(properties, "revenue", "total", "value")
    for item in items:
        profile.purchases.pop(item, None)
        profile.purchases[item] = t
    while len(profile.purchases) > PURCHASES_MAX:
        del profile.purchases[next(iter(profile.purchases))]


def _declare(profile: Profile, event: Event, logged: LoggedEvent) -> None:
    """Take over what the event says of the person: traits and consent."""
    if logged.gpc:
        profile.gpc = True
    context = event.context
    if event.type == "group" and event.group_id:
        _join_group(profile, event.group_id)
    declared = declared_traits(event)
    if declared:
        _merge_traits(profile, declared)
    consent = context.consent.category_preferences if context is not None and context.consent else None
    if event.event == "Segment Consent Preference Updated" and event.properties:
        preferences = event.properties.get("categoryPreferences")
        consent = preferences if isinstance(preferences, dict) else consent
    if consent:
        for category, is_allowed in consent.items():
            purpose = category.lower()
            if isinstance(is_allowed, bool) and not (is_allowed and purpose in profile.refusals):
                profile.consent[purpose] = is_allowed


def _join_group(profile: Profile, group_id: str) -> None:
    """Note an account that the person belongs to: others do, too, so it joins nobody."""
    profile.groups = [*(each for each in profile.groups if each != group_id), group_id][-GROUPS_MAX:]


def _has_hint(event: Event) -> bool:
    context = event.context
    return context is not None and (context.fingerprint is not None or context.external_ids is not None)


def _merge_traits(profile: Profile, declared: dict[str, Any]) -> None:
    """Set traits up to their limits; a trait set to null goes."""
    traits = profile.traits
    before = dict(traits)
    for name, value in declared.items():
        if value is None:
            traits.pop(name, None)
        elif (name in traits or len(traits) < TRAITS_MAX) and entries_in(value) <= TRAIT_ENTRIES_MAX:
            traits[name] = value
    if traits != before and len(msgspec.json.encode(traits)) > TRAITS_BYTES_MAX:
        profile.traits = before


def _text(values: dict[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, str) and value:
            return value[:500]
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return None


def _number(values: dict[str, Any], *names: str) -> float:
    """Return the first of `names` that is a number, as text too: shops send "12.50", and goals take it."""
    for name in names:
        value = values.get(name)
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                number = float(value)
            except ValueError:
                continue
            if abs(number) < 1e12:  # noqa: PLR2004 (a sum of such values stays finite)
                return number
    return 0.0
