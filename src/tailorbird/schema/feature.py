"""Definitions of features: what of a person's behaviour becomes a variable.

Written as TOML in `tailorbird.toml` or as JSON through `/admin/v1/features`; the union `Feature` is the only
registry of their kinds. A definition yields one or more variables, named after it: a count "product_viewed"
with the window 7d gives `product_viewed_7d`.

A *path* names a place in an event: `properties.revenue`, `traits.plan`, `context.device.type`;
`properties.products[].price` means each entry of a list.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tailorbird.limits import FEATURE_VALUES_MAX, FEATURES_MAX
from tailorbird.schema.placement import Positive

Name = Annotated[
    str,
    Meta(pattern=r"^[a-z][a-z0-9_]{0,99}$", description="Lower case letters, digits and _, a letter first."),
]
_PATH = r"(properties|traits|context)(\.[A-Za-z0-9_$ -]+(\[\])?)+"
Path = Annotated[
    str,
    Meta(
        max_length=200,
        pattern=rf"^{_PATH}$",
        description="`properties`, `traits` or `context`, then names; `[]` after one that is a list.",
    ),
]
Facet = Annotated[
    str,
    Meta(
        max_length=200,
        pattern=rf"^(category|brand|tag|cluster|{_PATH})$",
        description="category, brand, tag, cluster, or a path.",
    ),
]
Surrounding = Annotated[
    str,
    Meta(
        max_length=200,
        pattern=rf"^(device|language|region|referrer|campaign_source|campaign_medium|campaign_name|{_PATH})$",
        description="One of the seven words, or a path in `context`.",
    ),
]
EventName = Annotated[str, Meta(min_length=1, max_length=500)]
Value = str | int | float | bool
Where = Annotated[dict[Path, Value | list[Value]], Meta(max_length=8)]
"""Only events in which each path holds the value, or one of the values."""
Purpose = Annotated[str, Meta(min_length=1, max_length=100)]

Window = Literal["1h", "1d", "7d", "30d", "90d"]
HalfLife = Literal["1h", "1d", "7d", "30d"]
Windows = Annotated[tuple[Window, ...], Meta(max_length=5)]
HalfLives = Annotated[tuple[HalfLife, ...], Meta(max_length=4)]
ALL_WINDOWS: Windows = ("1h", "1d", "7d", "30d", "90d")
ALL_HALF_LIVES: HalfLives = ("1h", "1d", "7d", "30d")


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Configuration is strict: a misspelt field is an error that names it."""


class _Feature(_Record, frozen=True, kw_only=True, tag_field="type"):
    """What every definition has."""

    name: Name
    purpose: Purpose = "personalization"
    """For a visitor who refuses this purpose the variables read as missing, everywhere."""


class Count(_Feature, frozen=True, tag="count"):
    """How often an event happened: in all, in windows, and decayed by half-lives.

    `NAME_count`, `NAME_7d`, `NAME_decayed_7d`. Windows are exact to a tile: 5 minutes of 1h, an hour of 1d,
    a day of the others.
    """

    event: EventName
    where: Where = {}
    windows: Windows = ALL_WINDOWS
    half_lives: HalfLives = ALL_HALF_LIVES


class Sum(_Feature, frozen=True, tag="sum"):
    """The sum of a number that events carry: `NAME`, `NAME_7d`, `NAME_decayed_7d`."""

    event: EventName
    value: Path
    where: Where = {}
    windows: Windows = ALL_WINDOWS
    half_lives: HalfLives = ALL_HALF_LIVES


class Mean(_Feature, frozen=True, tag="mean"):
    """The mean of a number that events carry: `NAME`, `NAME_7d`; missing where none did."""

    event: EventName
    value: Path
    where: Where = {}
    windows: Windows = ALL_WINDOWS


class Distinct(_Feature, frozen=True, tag="distinct"):
    """How many different values were met: `NAME`, `NAME_30d`.

    HyperLogLog (Flajolet et al. 2007) of 512 registers: exact for the first few, within some 4 % beyond. A
    window is exact to a sixth of its length. Without `event`, of all events that carry the value.
    """

    value: Path
    event: EventName | None = None
    where: Where = {}
    windows: Annotated[tuple[Literal["1d", "7d", "30d", "90d"], ...], Meta(max_length=4)] = ()


class Rate(_Feature, frozen=True, tag="rate"):
    """How often an event happens a day, within windows: `NAME_7d`."""

    event: EventName
    where: Where = {}
    windows: Windows = ("7d", "30d", "90d")


class Ratio(_Feature, frozen=True, tag="ratio"):
    """One count or sum over another, by the names of their definitions: `NAME`, `NAME_7d`.

    Missing where the denominator is 0.
    """

    numerator: Name
    denominator: Name
    windows: Windows = ("1d", "7d", "30d", "90d")


class Last(_Feature, frozen=True, tag="last"):
    """The number that an event carried last: `NAME`; missing where none did."""

    value: Path
    event: EventName | None = None
    where: Where = {}


class TimeSince(_Feature, frozen=True, tag="time_since"):
    """Seconds since an event happened last: `NAME`; missing where it never did."""

    event: EventName
    where: Where = {}


class Affinity(_Feature, frozen=True, tag="affinity"):
    """What a person is drawn to among categories, brands, tags, content clusters, or values at a path.

    Each value has a decayed count `w`; `p = w / sum(w)`. For the first half-life H: `NAME_top1_share` and so
    on (the largest `p`), `NAME_entropy` (`-sum(p log p)`, nats), `NAME_values` (how many are kept). For each
    half-life: `NAME_total_H`, and `NAME_bucket_00_H` and so on: the sum of `w` of the values that hash into a
    bucket.
    """

    of: Facet
    half_lives: Annotated[HalfLives, Meta(min_length=1)] = ("30d", "1d")
    top: Annotated[int, Meta(ge=0, le=10)] = 3
    buckets: Annotated[int, Meta(ge=0, le=64)] = 16


class Sequence(_Feature, frozen=True, tag="sequence"):
    """The last N events.

    `NAME_1_event` (a number that stands for its name), `NAME_1_seconds_ago`, and so on.
    """

    length: Annotated[int, Meta(ge=1, le=50)] = 10


class Session(_Feature, frozen=True, tag="session"):
    """What happened in the visit that goes on: `NAME`; 0 once it has ended.

    `depth` and `seconds` are those of the visit; `count`, `sum`, `max` and `last` are of an event's value.
    """

    measure: Literal["depth", "seconds", "count", "sum", "max", "last"]
    event: EventName | None = None
    value: Path | None = None
    where: Where = {}


class Number(_Record, frozen=True, tag="number", tag_field="type"):
    """The number as it is; true is 1; text counts where it is a number."""


class OneHot(_Record, frozen=True, tag="one_hot", tag_field="type"):
    """One variable a value, `NAME_VALUE`, and `NAME_other`: 1 where it is that value, else 0."""

    values: Annotated[tuple[str, ...], Meta(min_length=1, max_length=FEATURE_VALUES_MAX)]


class Hashed(_Record, frozen=True, tag="hashed", tag_field="type"):
    """One variable a bucket, `NAME_bucket_00`: 1 where the value hashes into it, else 0."""

    buckets: Annotated[int, Meta(ge=1, le=64)] = 16


Encoder = Number | OneHot | Hashed


class Trait(_Feature, frozen=True, tag="trait"):
    """A trait that was declared, encoded."""

    trait: Annotated[str, Meta(min_length=1, max_length=100)]
    encode: Encoder = Number()


class Context(_Feature, frozen=True, tag="context"):
    """What the latest event said of the visitor's surroundings, encoded.

    `device` (mobile, tablet, desktop, bot), `language`, `region`, `referrer` (direct, internal, search,
    social, email, paid, referral), `campaign_source`, `campaign_medium`, `campaign_name`, or any path in
    `context`.
    """

    of: Surrounding
    encode: Encoder


class LocalTime(_Feature, frozen=True, tag="local_time"):
    """The hour of the week where the visitor is (`context.timezone`; UTC where it is not said).

    `NAME_hour_00` to `_23` and `NAME_day_0` (Monday) to `_6`, 1 or 0; `NAME_sin`, `NAME_cos` of the week's
    turn.
    """


class Computed(_Feature, frozen=True, tag="computed"):
    """A computed attribute (churn risk, lifetime value), as last computed: `NAME`; missing before."""

    attribute: Name


Feature = (
    Count
    | Sum
    | Mean
    | Distinct
    | Rate
    | Ratio
    | Last
    | TimeSince
    | Affinity
    | Sequence
    | Session
    | Trait
    | Context
    | LocalTime
    | Computed
)

CatalogueName = Literal["commerce", "media", "saas"]


class EarlyEvents(_Record, frozen=True):
    """How much more the first events of a newcomer weigh in affinities.

    `1 + extra · 2^(-tenure / half-life)`.
    """

    extra_weight: Annotated[float, Meta(ge=0.0, le=100.0)] = 1.0
    half_life_seconds: Annotated[float, Meta(gt=0.0, le=366 * 86400.0)] = 86400.0


class Prior(_Record, frozen=True):
    """What is presumed of a newcomer: so many events' worth of affinity to a value, decaying like others.

    Given once, when an event matches: a campaign, a referrer, an answer at onboarding.
    """

    when: Annotated[dict[Path, Value | list[Value]], Meta(min_length=1, max_length=8)]
    of: Literal["category", "brand", "tag", "cluster"]
    value: Annotated[str, Meta(min_length=1, max_length=200)]
    weight: Positive = 3.0


class Sensitive(_Record, frozen=True):
    """What is never read.

    The built-in list (`features.sensitive`), with proxies added and exceptions allowed.
    """

    add: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...], Meta(max_length=500)] = ()
    """Names of further attributes, such as `postcode`, that give away what must not be known."""
    allow: dict[Annotated[str, Meta(min_length=1, max_length=100)], Purpose] = {}
    """Attributes that may be read after all, each for one purpose, and only of who agreed to that purpose."""


class FeatureConfig(_Record, frozen=True):
    """All that an operator says of features."""

    catalogues: Annotated[tuple[CatalogueName, ...], Meta(max_length=3)] = ("commerce", "media", "saas")
    """Built-in definitions to begin with; none of them: an empty list."""
    definitions: Annotated[tuple[Feature, ...], Meta(max_length=FEATURES_MAX)] = ()
    """Own definitions; one with the name of a built-in one takes its place."""
    without: Annotated[tuple[Name, ...], Meta(max_length=FEATURES_MAX)] = ()
    """Built-in definitions to leave out."""
    early_events: EarlyEvents = EarlyEvents()
    priors: Annotated[tuple[Prior, ...], Meta(max_length=FEATURES_MAX)] = ()
    sensitive: Sensitive = Sensitive()


class FeaturesPut(msgspec.Struct, frozen=True, tag_field="k", tag="features_put"):
    """The features of an installation, all of them; the built-in ones written out as they were then."""

    r: float
    config: FeatureConfig
    definitions: tuple[Feature, ...]
