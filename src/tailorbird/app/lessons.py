"""What the process that learns is asked, and what it answers: all that the server knows of learning.

Apart from `learning`, so that the server need not import the libraries that learn.
"""

import msgspec

from tailorbird.schema.clusters import ClusterModel, ClusterSettings
from tailorbird.schema.computed import ComputedAttribute, ComputedModel, ComputedValue
from tailorbird.train.skew import SkewReport


class LearnRequest(msgspec.Struct, frozen=True):
    """What is to be learned."""

    folder: str
    attributes: tuple[ComputedAttribute, ...]
    clusters: ClusterSettings | None
    gpc_opts_out: bool = True
    seed: int = 7


class Learned(msgspec.Struct, frozen=True):
    """What was learned."""

    models: list[ComputedModel]
    clusters: ClusterModel | None
    values: dict[str, dict[str, ComputedValue]]
    """By profile, what is to be logged: of accepted models only."""
    skipped: dict[str, str]
    """By attribute (or `clusters`), why nothing was learned of it."""
    people: int
    skew: SkewReport
    """Of the variables that sampled decisions were made with."""
