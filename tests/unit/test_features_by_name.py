"""What is counted without being declared, by name, and the category that a visitor is drawn to most."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.people import Person

from tailorbird.features.counters import COLUMNS, HALF_LIFE_SECONDS
from tailorbird.features.state import (
    INTEREST,
    LAST_SEEN,
    ORDERS,
    SESSION_DEPTH,
    SESSION_STARTED,
    SESSIONS,
    VALUE,
)
from tailorbird.features.view import (
    ALIASES,
    SCALARS,
    feature,
    features,
    scalars,
)
from tailorbird.features.vocabulary import CATEGORY, EVENT, slug

NOW = 1_700_000_000.0
BLOCK = len(COLUMNS)


def visitor(**slots: float) -> Person:
    person = Person(NOW - 1000.0)
    person.state[LAST_SEEN] = NOW
    for name, value in slots.items():
        person.state[SLOTS[name]] = value
    return person


SLOTS = {
    "sessions": SESSIONS,
    "session_started": SESSION_STARTED,
    "session_depth": SESSION_DEPTH,
    "value": VALUE,
    "orders": ORDERS,
}


def counted(*keys: str) -> Person:
    person = visitor()
    for key in keys:
        person.count(key, NOW)
    return person


def one(person: Person, name: str, at: float = NOW) -> float | None:
    return feature(person.state, person.vocabulary, name, at)


def interest(person: Person) -> str:
    return person.vocabulary.name(int(person.state[INTEREST]))


def test_every_column_of_a_counter_has_a_name():
    person = counted("e:Product Viewed", "e:Product Viewed", "c:Running Shoes")
    named = features(person.state, person.vocabulary, NOW)
    assert named["product_viewed_count"] == named["product_viewed_7d"] == 2.0
    assert named["product_viewed_decayed_1h"] == 2.0
    assert named["category_running_shoes_30d"] == 1.0
    assert len(named) == len(SCALARS) + 2 * BLOCK
    for name, value in named.items():
        assert one(person, name) == value


@pytest.mark.parametrize(("short", "event"), sorted(ALIASES.items()))
def test_short_names_stand_for_the_commonest_events(short, event):
    person = counted(f"e:{event}")
    assert one(person, f"{short}_7d") == one(person, f"{slug(event)}_7d") == 1.0


def test_what_was_never_seen_is_zero_and_what_is_no_feature_is_none():
    assert one(visitor(), "views_7d") == 0.0
    assert one(visitor(), "category_hats_decayed_1d") == 0.0
    assert [one(visitor(), name) for name in ("views", "views_2d", "plan", "_7d", "")] == [None] * 5


def test_scalars_tell_of_the_session_while_it_lasts():
    person = visitor(sessions=2, session_started=NOW - 60.0, session_depth=4, value=30.0, orders=2)
    assert dict(zip(SCALARS, scalars(person.state, NOW + 10.0), strict=True)) == {
        "sessions": 2.0,
        "session_depth": 4.0,
        "session_seconds": 70.0,
        "recency_seconds": 10.0,
        "tenure_seconds": 1010.0,
        "value": 30.0,
        "orders": 2.0,
        "value_per_order": 15.0,
    }
    later = dict(zip(SCALARS, scalars(person.state, NOW + 1801.0), strict=True))
    assert later["session_depth"] == later["session_seconds"] == 0.0
    assert one(person, "recency_seconds", NOW - 50.0) == 0.0, "never negative, whatever time is asked for"


names = st.sampled_from(["shoes", "hats", "bags", "socks"])
shifts = st.integers(-60, 60).map(lambda days: days * 86400.0)


def strongest(history: list[tuple[str, float]]) -> set[str]:
    """Return the categories whose decayed count is the highest, by going over all events."""
    last = max(t for _, t in history)
    weights: dict[str, float] = {}
    for name, t in history:
        weights[name] = weights.get(name, 0.0) + 2.0 ** ((t - last) / HALF_LIFE_SECONDS[-1])
    top = max(weights.values())
    return {name for name, weight in weights.items() if weight > top * (1 - 1e-5)}


@settings(max_examples=60, deadline=None)
@given(history=st.lists(st.tuples(names, shifts.map(lambda shift: NOW + shift)), min_size=1, max_size=20))
def test_the_leading_category_is_the_one_with_the_highest_decayed_count(history):
    person, other = visitor(), Person(NOW)
    for name, t in history:
        person.view("Product Viewed", t, name)
    assert interest(person) in strongest(history)
    other.merge(person)
    other.vocabulary = person.vocabulary
    assert interest(other) in strongest(history)


def test_of_two_categories_as_strong_the_one_first_heard_of_leads():
    for order in (("hats", "shoes"), ("shoes", "hats")):
        person = visitor()
        person.vocabulary.category("hats")
        for name in order:
            person.view("Product Viewed", NOW, name)
        assert interest(person) == "hats"


def test_a_million_made_up_names_end_in_one_bucket(monkeypatch):
    monkeypatch.setattr("tailorbird.features.vocabulary.VOCABULARY_MAX", 3)
    person = visitor()
    for index in range(5):
        person.view(f"Custom {index}", NOW, f"cat {index}")
    named = features(person.state, person.vocabulary, NOW)
    assert named["custom_0_count"] == named["custom_1_count"] == named["category_cat_1_count"] == 1.0
    assert named["other_count"] == named["category_other_count"] == 3.0
    assert "custom_2_count" not in named


def test_made_up_names_do_not_take_the_places_of_standard_and_declared_ones(monkeypatch):
    monkeypatch.setattr("tailorbird.features.vocabulary.VOCABULARY_MAX", 3)
    person = visitor()
    for index in range(5):
        person.view(f"Custom {index}", NOW, f"cat {index}")
    person.vocabulary.reserve(EVENT, "Newsletter Joined")
    person.vocabulary.reserve(CATEGORY, "shoes")
    for name in ("Product Added", "Newsletter Joined", "Custom 9"):
        person.view(name, NOW, "shoes")
    named = features(person.state, person.vocabulary, NOW)
    assert named["product_added_count"] == named["newsletter_joined_count"] == 1.0
    assert named["category_shoes_count"] == 3.0
    assert named["other_count"] == 4.0


def test_names_of_one_stem_are_one_feature():
    person = visitor()
    for name in (
        "My Event",
        "my_event",
        "MY-EVENT",
        "product  viewed",
        "Product Viewed",
        "Товар",
        "!!!",
        "😀",
    ):
        person.view(name, NOW)
    named = features(person.state, person.vocabulary, NOW)
    assert named["my_event_count"] == one(person, "my_event_count") == 3.0
    assert named["product_viewed_count"] == one(person, "views_count") == 2.0
    assert named["товар_count"] == one(person, "товар_count") == 1.0
    assert sum(name.startswith("name_") and name.endswith("_count") for name in named) == 2
