"""Placements: the touchpoints of a site, what may be shown there, how it is chosen, what it is for.

Written as JSON through `PUT /admin/v1/placements/{key}` or as TOML in `placements/*.toml`; the same types.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tailorbird.limits import (
    COUNT_MAX,
    IDENTIFIER_LENGTH_MAX,
    RULE_LENGTH_MAX,
    RULES_MAX,
    VARIANTS_MAX,
)

Key = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$",
        description="Letters, digits and . _ : / -, beginning with a letter or digit.",
    ),
]
Time = Annotated[
    str, Meta(extra_json_schema={"format": "date-time"}, description="ISO 8601, UTC without a zone.")
]
Identity = Annotated[str, Meta(min_length=1, max_length=IDENTIFIER_LENGTH_MAX)]
Expression = Annotated[str, Meta(min_length=1, max_length=RULE_LENGTH_MAX, description="A CEL expression.")]
LearnFrom = Literal["auto", "exposures", "decisions"]
"""What counts as a trial; `auto`: exposures once one is reported, else decisions."""
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(ge=0.0, le=366 * 86400.0)]
Positive = Annotated[float, Meta(gt=0.0, le=1e6)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Configuration is strict: a misspelt field is an error that names it."""


class Variant(_Record, frozen=True):
    """One thing that may be shown."""

    id: Identity
    value: Any = None
    """What the site gets: any JSON value."""
    rule: Expression | None = None
    """Eligible only where this is true; without it, always."""
    cap: Share = 1.0
    """The largest probability that it may be shown with."""
    template: str | None = None
    """HTML with `{{ name }}` places for the fields of `value`, for `format=html`."""


class Thompson(_Record, frozen=True, tag="thompson", tag_field="type"):
    """Beta Thompson sampling on whether the goal was reached (Thompson 1933; Chapelle and Li 2011)."""

    prior_alpha: Positive = 1.0
    prior_beta: Positive = 1.0


class Fixed(_Record, frozen=True, tag="fixed", tag_field="type"):
    """Fixed weights; an arm that is not named weighs nothing, and no weights at all means equal ones."""

    weights: dict[str, Annotated[float, Meta(ge=0.0, le=1e9)]] = {}


Policy = Thompson | Fixed


class Goal(_Record, frozen=True):
    """What counts as success of a decision."""

    event: Annotated[str, Meta(min_length=1, max_length=500)]
    value: Expression | None = None
    """CEL over `properties` (and `event`); without it each outcome is worth 1."""
    window_seconds: Seconds = 86400.0
    """How long after the decision an outcome still counts."""
    match: Literal["any", "item"] = "any"
    """`item`: only an event that names one of the items shown counts."""


class Rule(_Record, frozen=True):
    """A business rule over `item`, `profile`, `context` and `now`."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    when: Expression
    then: Literal["exclude", "only"] = "exclude"
    """`exclude` what matches, or keep `only` what matches."""


class FrequencyCap(_Record, frozen=True):
    """At most `count` times the same choice to one visitor within `window_seconds`."""

    count: Annotated[int, Meta(ge=1, le=100)]
    window_seconds: Seconds = 86400.0


class Constraints(_Record, frozen=True):
    """What must hold of every answer, whatever the policy says."""

    diversity_share: Share = 0.2
    """At least this share of a list from outside the visitor's primary interest cluster."""
    frequency_cap: FrequencyCap | None = None
    exclude_purchased: bool = False
    in_stock: bool = True
    """Leave out items whose `stock` is known and zero."""


Source = Literal["popularity", "covisitation", "recency"]


class CandidateQuery(_Record, frozen=True):
    """Which items of the catalogue a list may hold, and how they are found."""

    query: Expression | None = None
    """CEL over `item`; without it, every item."""
    sources: Annotated[tuple[Source, ...], Meta(min_length=1, max_length=3)] = (
        "popularity",
        "covisitation",
        "recency",
    )
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Strategy(_Record, frozen=True):
    """An arm of a list's policy: a weighting of candidate sources."""

    id: Identity
    weights: Annotated[dict[Source, Annotated[float, Meta(ge=0.0, le=1e6)]], Meta(min_length=1, max_length=3)]


class Placement(_Record, frozen=True):
    """A touchpoint and everything that was declared about it."""

    key: Key
    kind: Literal["variant", "list"] = "variant"
    enabled: bool = True
    variants: Annotated[tuple[Variant, ...], Meta(max_length=VARIANTS_MAX)] = ()
    candidates: CandidateQuery | None = None
    strategies: Annotated[tuple[Strategy, ...], Meta(max_length=16)] = ()
    count: Annotated[int, Meta(ge=1, le=COUNT_MAX)] = 10
    """Items in a list, where the request does not say."""
    policy: Policy = Thompson()
    floor: Share = 0.0
    """Each candidate's least probability; all floors together at most 1."""
    holdout: Share | None = None
    """Share of visitors who get the unpersonalized answer; without it, the installation's."""
    sticky_seconds: Seconds = 0.0
    """The same visitor in the same session gets the same decision for so long."""
    goal: Goal | None = None
    learn_from: LearnFrom = "auto"
    """What counts as a trial. `auto`: exposures, once the first one is reported; until then, decisions."""
    rules: Annotated[tuple[Rule, ...], Meta(max_length=RULES_MAX)] = ()
    constraints: Constraints = Constraints()
    fallback: str | None = None
    """The variant that is shown where nothing else can be; without it, the first one."""
    consent: Annotated[str, Meta(min_length=1, max_length=100)] = "personalization"
    """The purpose that the visitor must not have refused."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Return the ids that the policy chooses among: variants, or a list's strategies."""
        chosen = self.variants if self.kind == "variant" else self.strategies
        return tuple(arm.id for arm in chosen)
