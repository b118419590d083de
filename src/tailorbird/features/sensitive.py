"""The sensitive list: what may be stored if it is sent, and is read by nothing unless allowed by name.

A name is sensitive where one of the terms stands in it as whole words: `householdIncome` holds `income`. What
is read of a person goes through here: definitions of features when they are declared, traits and surroundings
when rules and segments see them.
"""

import functools
import re
from typing import Any

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.features.vocabulary import slug
from tailorbird.schema.feature import Context, Feature, Sensitive, Trait

TERMS = (
    *(
        "health",
        "medical",
        "diagnosis",
        "disease",
        "illness",
        "medication",
        "therapy",
        "disability",
        "disabled",
    ),
    *(
        "pregnant",
        "pregnancy",
        "fertility",
        "genetic",
        "biometric",
        "blood type",
        "blood pressure",
        "weight kg",
        "mental",
    ),
    *(
        "income",
        "salary",
        "wage",
        "wages",
        "earnings",
        "wealth",
        "net worth",
        "credit score",
        "debt",
        "bankruptcy",
        "benefits recipient",
    ),
    *("religion", "religious", "church", "faith", "denomination", "belief", "beliefs"),
    *("relationship status", "marital status", "marital", "married", "divorced", "widowed", "spouse"),
    *("sexual orientation", "sexuality", "orientation", "sex life", "gender identity", "transgender"),
    *("ethnicity", "ethnic", "ethnic origin", "race", "racial", "caste", "skin color", "nationality"),
    *("political", "politics", "party affiliation", "voting", "trade union", "union membership"),
    *("criminal", "conviction", "arrest", "immigration status", "refugee"),
    *(
        "latitude",
        "longitude",
        "lat",
        "lng",
        "lon",
        "gps",
        "latlng",
        "coords",
        "geolocation",
        "coordinates",
        "precise location",
    ),
    *("street address", "home address", "address", "ssn", "social security number", "passport"),
)
"""Special categories of GDPR article 9, and what else hurts.

Money, relationships, whereabouts to the metre.
"""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class SensitiveList:
    """The built-in terms, with an operator's proxies and exceptions."""

    def __init__(self, declared: Sensitive) -> None:
        self._terms = tuple(f"_{_words(term)}_" for term in (*TERMS, *declared.add))
        self._allowed = {_words(name): purpose.lower() for name, purpose in declared.allow.items()}
        self.purpose_of = functools.lru_cache(maxsize=4096)(self._purpose_of)

    def _purpose_of(self, name: str) -> str | None:
        """Return the purpose for which an attribute may be read: "" for any, None where it may not be."""
        words = _words(name)
        allowed = self._allowed.get(words)
        if allowed is not None:
            return allowed
        return None if any(term in f"_{words}_" for term in self._terms) else ""

    def readable(self, values: dict[str, Any], refuses: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return what may be read of declared values; `refuses` tells to which purposes a person says no.

        >>> SensitiveList(Sensitive()).readable({"plan": "pro", "income": 1}, lambda purpose: False)
        {'plan': 'pro'}
        """
        kept = {}
        for name, value in values.items():
            purpose = self.purpose_of(name)
            if purpose is None or (purpose and refuses(purpose)):
                continue
            kept[name] = self._inside(value, refuses)
        return kept

    def _inside(self, value: Any, refuses: Any) -> Any:  # noqa: ANN401
        """Return what may be read of a value that holds others, in lists too."""
        if isinstance(value, dict):
            return self.readable(value, refuses)
        return [self._inside(entry, refuses) for entry in value] if isinstance(value, list) else value


def check_reads(definition: Feature, sensitive: SensitiveList, path: str) -> str:
    """Return the purpose of a definition: its own, or that for which what it reads is allowed.

    Raises:
        InvalidInputError: It reads a sensitive attribute that is not allowed, or two of different purposes.
    """
    purpose = definition.purpose.lower()
    bound = ""
    for name in _names_read(definition):
        allowed = sensitive.purpose_of(name)
        if allowed is None:
            rule = f'"{name}" is on the sensitive list: allow it there with a purpose, or leave it out'
            raise InvalidInputError(Fault(path, rule, definition.name))
        if bound and allowed and bound != allowed:
            raise InvalidInputError(
                Fault(path, "reads attributes allowed for different purposes", definition.name)
            )
        bound = bound or allowed
    return bound or purpose


def check_path(path: str, sensitive: SensitiveList, at: str) -> None:
    """Refuse a path into events that leads to what is on the sensitive list, allowed or not.

    Raises:
        InvalidInputError: It does.
    """
    for name in path.split(".")[1:]:
        if sensitive.purpose_of(name.removesuffix("[]")) != "":
            raise InvalidInputError(Fault(at, f'"{name}" is on the sensitive list', path))


def _names_read(definition: Feature) -> list[str]:
    """Return the names of attributes that a definition reads."""
    paths = [*getattr(definition, "where", {})]
    value = getattr(definition, "value", None)
    if value is not None:
        paths.append(value)
    of = getattr(definition, "of", "")
    if "." in of:
        paths.append(of)
    names = [name.removesuffix("[]") for path in paths for name in path.split(".")[1:]]
    if isinstance(definition, Trait):
        names.append(definition.trait)
    if isinstance(definition, Context) and "." not in definition.of:
        names.append(definition.of)
    return names


def _words(name: str) -> str:
    return slug(_CAMEL.sub("_", name))
