"""What can change a field of `profile` that rules read: which events, which traits, and whether time does.

Segments are evaluated on every event. That only those are whose fields can have changed rests on this page;
`tests/property/test_segment_laws.py` holds it to evaluating all of them.
"""

from typing import NamedTuple

from tailorbird.features.base import SINCE
from tailorbird.features.counters import COLUMNS
from tailorbird.features.program import Program
from tailorbird.features.state import new_state
from tailorbird.features.view import ALIASES, feature
from tailorbird.features.vocabulary import Vocabulary, slug

STEADY = float("inf")
"""Time alone does not change the field."""


# What happens beside counting, in the place of a stem: no stem has such a character.
SESSION = "#session"  # A session began.
USER = "#user"  # The event names a user.
CATEGORIZED = "#category"  # The event is about some category.
DECLARED = "#traits"  # The event declares traits.


class Need(NamedTuple):
    """When a field has to be read again."""

    stem: str = ""
    """After an event or about a category of this stem (see `features.vocabulary`), or one of the above."""
    trait: str = ""
    """After this trait was declared."""
    is_any: bool = False
    """After any event."""
    step_seconds: float = STEADY
    """When time moves from one multiple of it to the next; 0 for whenever time moves."""

    @property
    def is_timed(self) -> bool:
        """Return whether time alone may change the field."""
        return self.step_seconds < STEADY


_COLUMN_STEPS = {
    "decayed_1h": 0.0,
    "decayed_1d": 0.0,
    "decayed_7d": 0.0,
    "decayed_30d": 0.0,
    "count": STEADY,
    "1h": 300.0,
    "1d": 3600.0,
    "7d": 86400.0,
    "30d": 86400.0,
    "90d": 86400.0,
}
"""Columns of a counter, the longer names first, with the width of their tiles (see `features.counters`)."""
_ORDER = slug("Order Completed")
_STEMS = {
    "sessions": SESSION,
    "value": _ORDER,
    "orders": _ORDER,
    "value_per_order": _ORDER,
    "purchases": _ORDER,
    "primaryInterest": CATEGORIZED,
    "isKnown": USER,
    "traits": DECLARED,
}
"""Fields that one thing changes, and time does not."""
_ANY = ("id", "computed", "consent", "groups", "recentItems")
_NOBODY = new_state(0.0)
_NO_WORDS = Vocabulary(lambda _name, _code: None)


def is_number(field: str, program: Program) -> bool:
    """Return whether a field is a feature: a number, where it is not missing."""
    return field in program.index or feature(_NOBODY, _NO_WORDS, field, 0.0) is not None


def need_of(field: str, program: Program) -> Need:
    """Return when a field of `profile` can change, with the features that are declared.

    Consent can change any of them: who gives or takes it back is evaluated as a whole.

    >>> from tailorbird.features.program import NO_FEATURES
    >>> need_of("views_7d", Program(NO_FEATURES, _NO_WORDS))
    Need(stem='product_viewed', trait='', is_any=False, step_seconds=86400.0)
    """
    if field == "primaryInterest" and program.priors:
        return Need(is_any=True)
    if field in _STEMS:
        return Need(stem=_STEMS[field])
    if field in program.index:
        return _declared_need(field, program)
    if field in _ANY or not is_number(field, program):
        return Need(is_any=True) if field in _ANY else Need(trait=field)
    for column, step in _COLUMN_STEPS.items():
        stem = field.removesuffix(f"_{column}")
        if stem != field:
            event = ALIASES.get(stem)
            return Need(stem=stem if event is None else slug(event), step_seconds=step)
    return Need(is_any=True, step_seconds=0.0)


def _declared_need(field: str, program: Program) -> Need:
    """Return when a declared variable can change: one column of an event's own counter with that event."""
    origin = program.origin(field)
    if origin is None:
        return Need(is_any=True, step_seconds=0.0)
    stem, column = origin
    return Need(stem=stem, step_seconds=0.0 if column == SINCE else _COLUMN_STEPS[COLUMNS[column]])
