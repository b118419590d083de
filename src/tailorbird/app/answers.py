"""What the doors answer, as types: the OpenAPI document is made of them, and the tests hold answers to them.

The doors build these answers as plain objects, where they know what is in them; here stands what a client
may rely on. Times are ISO 8601 in UTC.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tailorbird.app.learner import Account
from tailorbird.policies.base import ArmSums
from tailorbird.schema.clusters import Trial
from tailorbird.schema.computed import ComputedAttribute, Importance, LossDifference, Metrics, Training
from tailorbird.schema.decision import Step
from tailorbird.schema.feature import Feature, FeatureConfig
from tailorbird.schema.placement import Placement, Time
from tailorbird.schema.segment import EventSequence


class Answer(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Base of all: names in camelCase, and no field that is not declared."""


# --- events and flags -------------------------------------------------------------------------------


class FaultAnswer(Answer):
    """One thing that is wrong with an input."""

    path: str
    rule: str
    value: Any


class EventsAnswer(Answer):
    """The events are durable; `errors` are those that were refused, the first hundred."""

    success: bool
    accepted: int | UnsetType = UNSET
    rejected: int | UnsetType = UNSET
    errors: list[FaultAnswer] | UnsetType = UNSET


class FlagAnswer(Answer):
    """An evaluation as OpenFeature has it; without a value the default in the code holds."""

    key: str
    reason: str | UnsetType = UNSET
    value: Any = UNSET
    variant: str | UnsetType = UNSET
    metadata: dict[str, bool | str | int | float] | UnsetType = UNSET
    error_code: str | UnsetType = UNSET
    error_details: str | UnsetType = UNSET


class FlagsAnswer(Answer):
    """Every flag's evaluation."""

    flags: list[FlagAnswer]
    metadata: dict[str, bool | str | int | float]


class RejectAnswer(Answer):
    """A refused event: which rule it broke, with what value (as JSON), and what it was."""

    offset: int
    received_at: str
    door: str
    path: str
    rule: str
    value: str
    body: str


class RejectsAnswer(Answer):
    """A page of refused events, and how many broke each rule since the start."""

    rejects: list[RejectAnswer]
    counts: dict[str, int]


class StillRejected(Answer):
    """A refused event that still breaks a rule."""

    offset: int
    path: str
    rule: str


class ReplayedAnswer(Answer):
    """How many refused events passed now, and which did not."""

    replayed: int
    rejected: list[StillRejected]


# --- catalogue, placements and decisions --------------------------------------------------------------


class WrittenAnswer(Answer):
    """How many items were written."""

    written: int


class PlacementsAnswer(Answer):
    """Every placement."""

    placements: list[Placement]


class ModelAnswer(Answer):
    """A fitted model with its account, without its trees."""

    key: str
    attribute: ComputedAttribute
    version: str
    is_accepted: bool
    reason: str
    metrics: Metrics
    baseline: Metrics
    difference: LossDifference
    training: Training
    importances: list[Importance]


class FoundCluster(Answer):
    """A model segment in words."""

    id: str
    name: str
    size: int
    share: float
    description: str


class ClustersAnswer(Answer):
    """The clusters in force, and what was tried."""

    version: int
    people: int
    silhouette: float | None
    stability: float
    unclustered: float
    tried: list[Trial]
    cautions: list[str]
    clusters: list[FoundCluster]


class ModelsAnswer(Answer):
    """What was learned last."""

    account: Account
    is_learning: bool
    models: list[ModelAnswer]
    clusters: ClustersAnswer | None


class FeaturesAnswer(Answer):
    """What is declared of features."""

    config: FeatureConfig
    definitions: list[Feature]
    variables: int
    version: str
    is_folding: bool
    """Whether the log is being folded again for what is new: until then that is missing."""
    fold_lag_ms: float
    """From when the latest event was received to when every feature knew of it."""


class FeatureAnswer(Answer):
    """One definition and what it gives."""

    definition: Feature
    variables: list[str]
    purpose: str
    is_folding: bool
    last_event_at: Time | None
    """Time of the newest event that counted for it since the server's start."""


class LearnedArm(Answer):
    """What a policy knows of one candidate."""

    id: str
    trials: int
    successes: int
    probability: float
    """With which it is drawn where all are eligible, floors and caps included."""
    alpha: float | UnsetType = UNSET
    beta: float | UnsetType = UNSET
    """The posterior, of Thompson sampling."""
    sums: ArmSums | UnsetType = UNSET


class PolicyAnswer(Answer):
    """What a placement's policy has learned."""

    placement: str
    version: int
    arms: list[LearnedArm]


class PolicyName(Answer):
    """Which policy chose, at which of its versions."""

    key: str
    version: str


class ArmChance(Answer):
    """A candidate of the draw, and its probability."""

    id: str
    probability: float


class ChosenAnswer(Answer):
    """One choice of a decision, with its propensity and the reasons as sentences."""

    id: str
    rank: int
    propensity: float
    score: float
    because: list[str]


class OutcomeAnswer(Answer):
    """The goal that a decision reached."""

    at: str | None
    value: float


class DecisionAnswer(Answer):
    """A decision as it was made, why, and what became of it."""

    decision_id: str
    placement: str
    at: str
    decided_at: str
    profile_id: str | None
    arm: str
    reason: str
    rung: str
    policy: PolicyName
    drawn: str | None
    arms: list[ArmChance]
    uniform: float
    """The number that was drawn with, in [0, 1)."""
    explored: bool
    choices: list[ChosenAnswer]
    steps: list[Step]
    profile_version: int
    took_ms: float
    timings_us: dict[str, int]
    exposed_at: str | None
    outcome: OutcomeAnswer | None


# --- people -------------------------------------------------------------------------------------------


class IdentifierAnswer(Answer):
    """By what a person is known, and from when to when."""

    type: str
    value: str
    first_seen: str
    last_seen: str


class LinkAnswer(Answer):
    """Why an identifier is a person's: by which rule of which message."""

    identifier: str
    rule: str
    message_id: str
    at: str
    merged_profile: str | None


class RecentEvent(Answer):
    """One of the latest events."""

    event: str
    timestamp: str
    item: str | None
    category: str | None


class Assignment(Answer):
    """How a person's holdout arm was got: a keyed hash of `key` gives `position`, in [0, 1)."""

    key: str
    position: float
    merged_arms: bool


class PlacementHistory(Answer):
    """A person's history at one placement."""

    arm: str
    decisions: int
    exposures: int
    outcomes: int
    value: float


class SegmentPassage(Answer):
    """A rule segment entered or left; by no event where time or a declaration did it."""

    segment: str
    change: Literal["entered", "left"]
    at: str
    message_id: str | None


class ComputedAnswer(Answer):
    """What a person was computed to be, by which model, as of when."""

    value: float
    segment: str | None
    model_version: str
    at: Time


class ClusterAnswer(Answer):
    """The model segment that a person is in."""

    id: str
    name: str
    description: str


class ProfileAnswer(Answer):
    """Everything that is known of a person."""

    profile_id: str
    identifiers: list[IdentifierAnswer]
    links: list[LinkAnswer]
    traits: dict[str, Any]
    computed_attributes: dict[str, ComputedAnswer]
    cluster: ClusterAnswer | None
    features: dict[str, float]
    feature_layout_version: str
    primary_interest: str | None
    segments: list[str]
    """Keys of those that the person is in."""
    segments_since: dict[str, str]
    segment_changes: list[SegmentPassage]
    """The latest twenty, newest first."""
    recent_events: list[RecentEvent]
    purchases: list[str]
    consent: dict[str, bool]
    groups: list[str]
    refused_links: dict[str, int]
    """By rule, how often an identifier that came with the person's was not joined to them."""
    global_privacy_control: bool
    arm: str
    assignment: Assignment
    first_seen: str
    last_seen: str
    version: int
    placements: dict[str, PlacementHistory]
    recent_decisions: list[DecisionAnswer] | UnsetType = UNSET


class SegmentSummary(Answer):
    """A rule segment, and how many people are in it."""

    key: str
    description: str
    rule: str | None
    sequence: EventSequence | None
    enabled: bool
    size: int


class SegmentsAnswer(Answer):
    """Every rule segment."""

    segments: list[SegmentSummary]
    evaluated_at: str | None
    """When everybody was last evaluated; null until they are by what is declared now."""


class ConsentAnswer(Answer):
    """What a person allows, by purpose."""

    consent: dict[str, bool]


class RevokedLink(Answer):
    """A link that is revoked."""

    identifiers: list[str]


class RevokedLinksAnswer(Answer):
    """Every link that is revoked."""

    links: list[RevokedLink]


class RevocationAnswer(Answer):
    """Whether a link is revoked now, and whose each identifier is."""

    revoked: bool
    profiles: dict[str, str | None]


class DeclaredAnswer(Answer):
    """What became of declared links; `errors` are of wrong rows, then of refused ones, the first hundred."""

    linked: int
    suggested: int
    refused: int
    """Two people still: a rule of identity or a revocation stands between them."""
    wrong: int
    errors: list[FaultAnswer]


class SuggestedLink(Answer):
    """Two identifiers that may be one person's, who says so, and whose each is now."""

    identifiers: list[str]
    source: str
    score: float
    suggested_at: str
    rejected: bool
    profiles: dict[str, str | None]


class SuggestionsAnswer(Answer):
    """Suggested links, those with the highest scores first."""

    suggestions: list[SuggestedLink]


# --- privacy (OpenDSR's names are in snake_case) and health --------------------------------------------


class DsrAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """How far a request of a data subject is; `result` is the document or the proof."""

    subject_request_type: str
    api_version: str | UnsetType = UNSET
    controller_id: str | UnsetType = UNSET
    subject_request_id: str | UnsetType = UNSET
    received_time: str | UnsetType = UNSET
    expected_completion_time: str | UnsetType = UNSET
    results_url: str | UnsetType = UNSET
    request_status: str | UnsetType = UNSET
    completed_time: str | UnsetType = UNSET
    failure: str | UnsetType = UNSET
    encoded_request: str | UnsetType = UNSET
    status_callbacks: str | UnsetType = UNSET
    results_count: int | UnsetType = UNSET
    result: dict[str, Any] | UnsetType = UNSET


class IdentityKind(msgspec.Struct, forbid_unknown_fields=True):
    """A type and format of identity that is understood."""

    identity_type: str
    identity_format: str


class DiscoveryAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """Which requests and identities are understood."""

    api_version: str
    supported_identities: list[IdentityKind]
    supported_subject_request_types: list[str]
    processor_certificate: str | None


class SuppressionsAnswer(Answer):
    """How many hashes are refused at the door."""

    count: int


class SuppressedAnswer(Answer):
    """How many hashes are refused now that were not: a value counts in each field that it may come in."""

    suppressed: int


class LiftedAnswer(Answer):
    """How many hashes are let in again."""

    lifted: int


class GpcAnswer(Answer):
    """Whether Global Privacy Control is honoured (W3C, `/.well-known/gpc.json`)."""

    gpc: bool
    last_update: str


class ReadyAnswer(Answer):
    """Whether requests can be answered, and the state of what that depends on."""

    ready: bool
    dependencies: dict[str, dict[str, Any]]
