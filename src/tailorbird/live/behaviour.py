"""What one event changes in one person's profile: the part of the fold that needs nobody else.

The fold (`process`) and history (`train`) both go through here, so that what is counted behind the door and
what is counted for a past moment are the same, to the last bit.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird.features.paths import number_of, texts_of
from tailorbird.features.program import Program
from tailorbird.features.sheet import Sheet
from tailorbird.features.state import NO_CELL_ROOM, ORDERS, VALUE, fold_event, grown, grown_cells
from tailorbird.features.vocabulary import Vocabulary
from tailorbird.limits import GROUPS_MAX, PURCHASES_MAX, TRAIT_ENTRIES_MAX, TRAITS_BYTES_MAX, TRAITS_MAX
from tailorbird.live.catalogue import Catalogue
from tailorbird.live.feature_sets import FeatureSets
from tailorbird.live.identifiers import declared_traits
from tailorbird.rules.cel import entries_in
from tailorbird.schema.events import Event, LoggedEvent
from tailorbird.schema.profile import Profile

EXPOSURES = ("Decision Viewed", "Experiment Viewed")
PURCHASE = "Order Completed"

_ITEM_FIELDS = ("product_id", "productId", "item_id", "itemId", "sku", "article_id", "content_id")
_PRODUCTS_MAX = 50  # Lines of one order that count for items and categories; more is a bulk import.
_FACETS_MAX = 64  # Values of all facets that one event counts.
_CATEGORY_LENGTH_MAX = 200  # As the catalogue's own.


class About(NamedTuple):
    """What an event is about: ids of items, categories, values of facets (`brand:Nike`); each once."""

    items: list[str]
    categories: list[str]
    facets: list[str]


class Behaviour:
    """Counts events in profiles, with the vocabulary and the catalogue of one world."""

    def __init__(
        self, vocabulary: Vocabulary, catalogue: Catalogue, features: FeatureSets, steps_back: int
    ) -> None:
        """Make ready; `steps_back` is how many items before an event `observe` gives."""
        self._vocabulary = vocabulary
        self._catalogue = catalogue
        self._features = features
        self._sheet = Sheet()
        self.indices = self._sheet.items
        """Of the items of the event at hand; written by whoever calls `observe`."""
        self._before = np.zeros(steps_back, np.int32)

    @property
    def program(self) -> Program:
        """Return the features that are counted for."""
        return self._features.counting

    def about(self, event: Event) -> About:
        """Return what an event is about."""
        about, program = About([], [], []), self.program
        properties = event.properties
        if properties:
            own_facets = program.own_facets
            self._read_line(properties, own_facets, about)
            products = properties.get("products")
            if isinstance(products, list):
                for line in products[:_PRODUCTS_MAX]:
                    if isinstance(line, dict):
                        self._read_line(line, own_facets, about)
        for name, read in program.facet_paths:
            value = read(event)
            if value is not None:
                _add_facets(about.facets, name, value)
        return about

    def declare(self, profile: Profile, event: Event, logged: LoggedEvent) -> Iterable[str]:
        """Take over what an event says of its person, traits and consent; return the traits' names."""
        if logged.gpc and not profile.gpc:
            profile.gpc = True
            profile.is_segments_due = True
        if event.type == "group" and event.group_id:
            _join_group(profile, event.group_id)
        declared = declared_traits(event)
        if declared:
            _declare_traits(profile, declared)
            self.program.follow_traits(profile, logged.t)
        _declare_consent(profile, event)
        return declared or ()

    def codes_of(self, name: str, about: About) -> list[int]:
        """Return the codes of what an event counts by name: its own, then categories and facets."""
        vocabulary = self._vocabulary
        categories = [vocabulary.category(text) for text in about.categories]
        return [vocabulary.event(name), *categories, *(vocabulary.facet(text) for text in about.facets)]

    def observe(self, profile: Profile, event: Event, name: str, t: float, about: About) -> NDArray[np.int32]:
        """Count an event of a profile; return the indices of the items before it, newest first.

        `indices` holds those of the event's own items.
        """
        program, sheet = self.program, self._sheet
        codes = self.codes_of(name, about)
        category = codes[1] if about.categories else -1
        sheet.begin(t, codes, category, len(about.items), is_touched=name not in EXPOSURES)
        early = program.early
        sheet.weigh_early(early.extra_weight if program.is_declared else 0.0, early.half_life_seconds)
        program.count(event, name, sheet)
        program.keep(profile, event, name, t, sheet)
        sheet.end()
        keys, values = program.surroundings(event, t)
        while (steps := fold_event(profile.state, sheet.array, keys, values, self._before)) < 0:
            grow = grown_cells if steps == NO_CELL_ROOM else grown
            profile.state = grow(profile.state)
        if program.priors:
            program.presume(profile, event, t)
        if name == PURCHASE:
            _observe_purchase(profile, event.properties or {}, about.items, t)
        return self._before[:steps]

    def _read_line(self, line: dict[str, Any], own_facets: tuple[str, ...], about: About) -> None:
        """Add what one line of an order, or an event itself, is about."""
        key = text_in(line, _ITEM_FIELDS)
        category = line.get("category")
        item = None
        if key is not None:
            if key not in about.items:
                about.items.append(key)
            item = self._catalogue.get(key)
            if item is not None and item.categories:
                category = item.categories[0]
        if isinstance(category, str):
            category = category[:_CATEGORY_LENGTH_MAX]
            if category and category not in about.categories:
                about.categories.append(category)
        for facet in own_facets:
            value = line.get(_FACET_FIELDS[facet])
            if value is None and item is not None:
                value = list(item.tags) if facet == "tag" else item.attributes.get(_FACET_FIELDS[facet])
            if value is not None:
                _add_facets(about.facets, facet, value)


_FACET_FIELDS = {"brand": "brand", "tag": "tags", "cluster": "cluster"}


def _add_facets(facets: list[str], name: str, value: Any) -> None:  # noqa: ANN401
    for text in texts_of(value):
        facet = f"{name}:{text}"
        if len(facets) < _FACETS_MAX and facet not in facets:
            facets.append(facet)


def _observe_purchase(profile: Profile, properties: dict[str, Any], items: list[str], t: float) -> None:
    profile.state[ORDERS] += 1.0
    profile.state[VALUE] += _worth(properties)
    for item in items:
        profile.purchases.pop(item, None)
        profile.purchases[item] = t
    while len(profile.purchases) > PURCHASES_MAX:
        del profile.purchases[next(iter(profile.purchases))]


def _worth(properties: dict[str, Any]) -> float:
    """Return what an order was worth: shops send "12.50", too."""
    for name in ("revenue", "total", "value"):
        value = properties.get(name)
        number = None if isinstance(value, bool | list) else number_of(value)
        if number is not None:
            return number
    return 0.0


def _join_group(profile: Profile, group_id: str) -> None:
    """Note an account that the person belongs to: others do, too, so it joins nobody."""
    profile.groups = [*(each for each in profile.groups if each != group_id), group_id][-GROUPS_MAX:]


def _declare_traits(profile: Profile, declared: dict[str, Any]) -> None:
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


def _declare_consent(profile: Profile, event: Event) -> None:
    context = event.context
    consent = context.consent.category_preferences if context is not None and context.consent else None
    if event.event == "Segment Consent Preference Updated" and event.properties:
        preferences = event.properties.get("categoryPreferences")
        consent = preferences if isinstance(preferences, dict) else consent
    if consent:
        for category, is_allowed in consent.items():
            purpose = category.lower()
            if isinstance(is_allowed, bool) and not (is_allowed and purpose in profile.refusals):
                # What is read of a person depends on it, so their segments are looked at as a whole.
                profile.is_segments_due |= profile.consent.get(purpose) is not is_allowed
                profile.consent[purpose] = is_allowed


def change_consent(profile: Profile, consent: dict[str, bool]) -> None:
    """Set what a person allows and refuses by name; events cannot allow again what was refused here."""
    profile.consent |= consent
    refused = {purpose for purpose, is_allowed in consent.items() if not is_allowed}
    kept = [purpose for purpose in profile.refusals if purpose not in consent]
    profile.refusals = sorted({*kept, *refused})


def text_in(values: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """Return the first of `names` that holds a text or a whole number."""
    for name in names:
        value = values.get(name)
        if value is None:
            continue  # Nearly all: an event has one of them at most.
        if isinstance(value, str) and value:
            return value[:500]
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return None
