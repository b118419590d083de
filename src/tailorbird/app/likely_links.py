"""Likely links: people whose declared traits agree, compared in a batch by Splink. They are only suggested.

Splink compares people pair by pair with the model of Fellegi and Sunter (1969): for each trait, how likely
is it that two records agree if they are one person's (m, stated here), and if they are two people's (u,
counted here among all pairs)? Pairs are looked for where an e-mail address, a telephone number, or last name
and postcode agree.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
from splink import DuckDBAPI, Linker, SettingsCreator, block_on
from splink import comparison_library as comparisons

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.limits import PEOPLE_COMPARED_MAX
from tailorbird.live.profiles import user_of
from tailorbird.live.revocations import Pair, pair_of
from tailorbird.schema.profile import Profile

SOURCE = "splink"

_TRAITS = {
    "email": ("email",),
    "phone": ("phone", "phoneNumber", "phone_number"),
    "first_name": ("firstName", "first_name"),
    "last_name": ("lastName", "last_name"),
    "postcode": ("postalCode", "postal_code", "zip", "postcode"),
    "birthday": ("birthday", "dateOfBirth", "date_of_birth"),
}
"""What is compared, and the names that Segment's specification and others have for it."""
_AGREE = {
    "email": 0.9, "phone": 0.8, "first_name": 0.8, "last_name": 0.8, "postcode": 0.8, "birthday": 0.95,
}  # fmt: skip
"""How likely two records of one person agree on a trait (m): people have a second address, and move."""
_NAMES = ("first_name", "last_name")
_NEARLY = 0.9  # Of Jaro and Winkler's similarity: a letter or two are another.
_BLOCKS = (("email",), ("phone",), ("last_name", "postcode"), ("first_name", "last_name", "birthday"))
"""Only people who agree on one of these are compared at all."""
_PAIRS_BEFORE = 1_000  # As if so many pairs had differed before any was seen: few people tell little.


class Likely(NamedTuple):
    """Two people who may be one, and how likely that is."""

    identifiers: Pair
    score: float


class Compared(NamedTuple):
    """One person's traits as they are compared."""

    identifier: str
    user: str | None
    traits: dict[str, str]


def compared(people: Iterable[Profile]) -> list[Compared]:
    """Return the people of whom at least two traits can be compared.

    Raises:
        InvalidInputError: They are more than can be compared at once.
    """
    found = []
    for profile in people:
        traits = dict(_traits(profile.traits))
        if len(traits) > 1:
            found.append(Compared(profile.assignment_key, user_of(profile), traits))
        if len(found) > PEOPLE_COMPARED_MAX:
            raise InvalidInputError(Fault("people", f"at most {PEOPLE_COMPARED_MAX} with traits", len(found)))
    return found


def likely_links(people: list[Compared], score_min: float) -> list[Likely]:
    """Return pairs of people who are one with at least this probability; the likeliest first.

    Two known users are left out: they are never merged.
    """
    columns = [name for name in _TRAITS if sum(name in each.traits for each in people) > 1]
    if len(people) < 2 or not columns:  # noqa: PLR2004 (nobody to compare with)
        return []
    users = {each.identifier: each.user for each in people}
    found = []
    for one, other, score in _predicted(people, columns, score_min):
        if users[one] is None or users[other] is None:
            found.append(Likely(pair_of(one, other), score))
    return sorted(found, key=lambda likely: (-likely.score, likely.identifiers))


def row_of(likely: Likely) -> dict[str, Any]:
    """Return two people who may be one as a declared link that waits for somebody's yes."""
    return {
        "identifiers": likely.identifiers,
        "source": SOURCE,
        "confidence": likely.score,
        "needsReview": True,
    }


def _predicted(
    people: list[Compared], columns: list[str], score_min: float
) -> Iterator[tuple[str, str, float]]:
    """Yield what Splink predicts: two identifiers, and the probability that they are one person's."""
    usable = [block for block in _BLOCKS if set(block) <= set(columns)]
    if not usable:
        return
    columns_of = {name: [each.traits.get(name) for each in people] for name in columns}
    table = pa.table({"unique_id": [each.identifier for each in people], **columns_of})
    chances = {name: _chance(values) for name, values in columns_of.items()}
    settings = SettingsCreator(
        link_type="dedupe_only",
        comparisons=[_comparison(name, chance) for name, chance in chances.items()],
        blocking_rules_to_generate_predictions=[block_on(*block) for block in usable],
        # One double in expectation for each person: as many matches as people, of n (n - 1) / 2 pairs.
        probability_two_random_records_match=min(2.0 / (len(people) - 1), 0.5),
    )
    linker = Linker(DuckDBAPI().register(table), settings)
    logging.getLogger("splink").setLevel(logging.ERROR)  # It talks while it works.
    predicted = linker.inference.predict(threshold_match_probability=score_min)
    for row in predicted.as_record_list():
        yield row["unique_id_l"], row["unique_id_r"], float(row["match_probability"])


def _comparison(name: str, chance: float) -> Any:  # noqa: ANN401 (Splink's own)
    """Return how a trait is compared: the same, for names nearly so, or not."""
    same = _AGREE[name]
    if name not in _NAMES:
        compared = comparisons.ExactMatch(name)
        return compared.configure(m_probabilities=[same, 1 - same], u_probabilities=[chance, 1 - chance])
    near = (1 - same) / 2
    # As many other names are nearly the same, about, as have the same bearers.
    return comparisons.JaroWinklerAtThresholds(name, [_NEARLY]).configure(
        m_probabilities=[same, near, near], u_probabilities=[chance, chance, 1 - 2 * chance]
    )


def _chance(values: list[str | None]) -> float:
    """Return how likely two different people agree on a trait by chance (u), at most a third."""
    counts = Counter(value for value in values if value is not None)
    known = counts.total()
    agreeing = sum(count * (count - 1) for count in counts.values()) / 2
    return min((agreeing + 1) / (known * (known - 1) / 2 + _PAIRS_BEFORE), 1 / 3)


def _traits(traits: dict[str, Any]) -> Iterator[tuple[str, str]]:
    address = traits.get("address")
    places = (traits, address if isinstance(address, dict) else {})
    for name, spellings in _TRAITS.items():
        values = (place.get(spelling) for place in places for spelling in spellings)
        text = next((str(value) for value in values if isinstance(value, str | int) and value != ""), None)
        if text is not None and (plain := _plain(name, text)):
            yield name, plain


def _plain(name: str, text: str) -> str:
    """Return a value as it is compared: small letters without accents; of telephone numbers the digits."""
    if name == "phone":
        return "".join(letter for letter in text if letter.isdigit())
    parts = unicodedata.normalize("NFKD", text.strip().lower())
    return "".join(letter for letter in parts if not unicodedata.combining(letter))
