"""Affinities.

What a person is drawn to among the values of a facet (categories, brands, tags, clusters, a path).
"""

from tailorbird.features.base import Affine, Builder
from tailorbird.features.counters import COLUMNS
from tailorbird.features.paths import reader
from tailorbird.schema.feature import Affinity, HalfLife

OWN_FACETS = ("category", "brand", "tag", "cluster")
"""Facets that items have; the others are paths into events."""


def affinity(made: Affinity, builder: Builder) -> None:
    """Add the variables of an affinity."""
    if made.of not in OWN_FACETS:
        reader(made.of, builder.path)
    dimension = builder.facet(made.of)
    for place, half_life in enumerate(made.half_lives):
        builder.affinities.append(_affine(made, builder, dimension, half_life, is_first=place == 0))


def _affine(
    made: Affinity, builder: Builder, dimension: int, half_life: HalfLife, *, is_first: bool
) -> Affine:
    name = made.name
    tops = [builder.slot(f"{name}_top{rank}_share") for rank in range(1, 1 + made.top)] if is_first else []
    entropy = builder.slot(f"{name}_entropy") if is_first else -1
    values = builder.slot(f"{name}_values") if is_first else -1
    total = builder.slot(f"{name}_total_{half_life}")
    buckets = [builder.slot(f"{name}_bucket_{bucket:02d}_{half_life}") for bucket in range(made.buckets)]
    return Affine(
        dimension=dimension,
        column=COLUMNS.index(f"decayed_{half_life}"),
        total=total,
        top=tops[0] if tops else -1,
        top_count=len(tops),
        entropy=entropy,
        values=values,
        bucket=buckets[0] if buckets else -1,
        bucket_count=len(buckets),
    )


AFFINE_WIDTH = len(Affine._fields)
