"""Model segments: how clusters of visitors are looked for, and what a fitted model of them is.

Arrays are bytes: float32, little-endian, by rows. So a model is the same in JSON (base64) and in MessagePack,
and is read without a learning library.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

_Share = Annotated[float, Meta(gt=0.0, lt=1.0)]
_Components = Annotated[int, Meta(ge=2, le=64)]
_Bootstraps = Annotated[int, Meta(ge=2, le=100)]
_Neighbours = Annotated[int, Meta(ge=2, le=200)]
_ClusterCount = Annotated[int, Meta(ge=2, le=50)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Configuration and what is stored are strict: a misspelt field is an error that names it."""


class KMeans(_Record, frozen=True, tag="kmeans", tag_field="type"):
    """Every visitor belongs to the nearest of k centroids (Lloyd 1982; Arthur and Vassilvitskii 2007)."""

    clusters_min: _ClusterCount = 2
    clusters_max: _ClusterCount = 10
    """Each number from `clusters_min` to this one is tried."""
    share_min: _Share = 0.01
    """The smallest cluster's least share of visitors: a handful of outliers is no segment, but left out."""
    components_max: _Components = 32
    """Dimensions that clusters are looked for in."""
    bootstraps: _Bootstraps = 10
    """Fits to resampled visitors, from which the stability of each number of clusters comes."""
    stability_min: _Share = 0.7
    """Mean adjusted Rand index below which a number of clusters is taken only where none reaches it."""


class Hdbscan(_Record, frozen=True, tag="hdbscan", tag_field="type"):
    """Dense regions of any density; the others stay unclustered (Campello, Moulavi and Sander 2013)."""

    shares: Annotated[tuple[_Share, ...], Meta(min_length=1, max_length=10)] = (0.02, 0.05, 0.1)
    """Least shares of visitors in a cluster, each of which is tried."""
    neighbours: _Neighbours = 10
    """Visitors, oneself among them, within whose distance a visitor's surroundings count as dense."""
    components_max: _Components = 8
    """Dimensions that clusters are looked for in; in many, nothing is dense."""
    bootstraps: _Bootstraps = 10
    stability_min: _Share = 0.7


class Dbscan(_Record, frozen=True, tag="dbscan", tag_field="type"):
    """Regions of one density; the others stay unclustered (Ester, Kriegel, Sander and Xu 1996)."""

    reaches: Annotated[tuple[_Share, ...], Meta(min_length=1, max_length=10)] = (0.5, 0.7, 0.8, 0.9, 0.95)
    """Shares of visitors whose surroundings are to count as dense, each of which is tried.

    The radius is that quantile of the distance to the `neighbours`-th visitor.
    """
    share_min: _Share = 0.02
    """The least share of visitors in a cluster; smaller ones are unclustered."""
    neighbours: _Neighbours = 10
    components_max: _Components = 8
    bootstraps: _Bootstraps = 10
    stability_min: _Share = 0.7


ClusterSettings = KMeans | Hdbscan | Dbscan


class Dropped(_Record, frozen=True):
    """A variable that clusters do not depend on, and why."""

    variable: str
    reason: Literal["constant", "rare", "duplicate"]
    """`rare`: nearly everybody has the same value. `duplicate`: it says what `of` says."""
    of: str | None = None


class Space(_Record, frozen=True):
    """How a visitor's variables become the few numbers that clusters are told apart by.

    For a visitor x, z = clip((sign(x) log(1 + |x|) - means) / scales, -limit, limit), and the scores are
    z axes - offset.
    """

    variables: tuple[str, ...]
    """Names of x, in order; p of them."""
    means: bytes
    """Shape (p,)."""
    scales: bytes
    """Shape (p,): standard deviations."""
    limit: float
    axes: bytes
    """Shape (p, components): weighed principal axes of z."""
    offset: bytes
    """Shape (components,)."""
    explained: float
    """Share of z's variance along the axes, 0 to 1."""


class Difference(_Record, frozen=True):
    """A variable that tells a cluster from everybody else."""

    variable: str
    phrase: str
    """In words: "buys often"."""
    inside: float
    """Mean among the cluster's visitors, in the variable's own unit."""
    outside: float
    """Mean among all others."""
    effect: float
    """Difference of the means of z, which is in standard deviations; ranked by its size."""


class Cluster(_Record, frozen=True):
    """One segment that was found."""

    id: str
    """`c-1`, `c-2` and so on: the same one as in the model before where it was matched, else never used."""
    name: str
    """Unique in the model; kept from the model before where it was matched."""
    size: int
    """Visitors."""
    share: float
    description: str
    """One sentence: how it differs from everybody else, with the means."""
    differences: tuple[Difference, ...]
    centroid: bytes
    """Shape (components,): mean scores of its core."""
    radius: float | None
    """Distance from the centroid within which a visitor belongs; null: any."""
    profile: bytes
    """Shape (p,): mean z of its visitors."""


class Trial(_Record, frozen=True):
    """One setting that was tried, on a sample of visitors."""

    parameter: float
    """Number of clusters, least share (`hdbscan`) or reach (`dbscan`)."""
    clusters: int
    silhouette: float | None
    """Mean of those who are in a cluster, -1 to 1 (Rousseeuw 1987); null where there are not two clusters."""
    stability: float
    """Mean adjusted Rand index with what resampled visitors gave (Hubert and Arabie 1985): 1 where it
    is the same, 0 where it is as chance would have it, or where there is no cluster."""
    smallest: float
    """Share of visitors in the smallest cluster."""
    unclustered: float
    """Share of visitors in none."""
    agreement: float
    """Adjusted Rand index of what the method found with what is told from centroids and radii."""


class ClusterModel(_Record, frozen=True):
    """Model segments as they were found; what `segment/assigner.py` reads."""

    version: int
    """Counts the fits: 1, then one more than the model before."""
    settings: ClusterSettings
    people: int
    """Visitors that it was fitted to."""
    space: Space
    dropped: tuple[Dropped, ...]
    clusters: tuple[Cluster, ...]
    """The largest first."""
    unclustered: float
    """Share of visitors in no cluster."""
    parameter: float
    """The one of `tried` that was taken."""
    silhouette: float | None
    """As `Trial.silhouette`, of the final clusters."""
    stability: float
    agreement: float
    tried: tuple[Trial, ...]
    cautions: tuple[str, ...]
    """Sentences: what speaks against relying on these clusters."""
    next_number: int
    """The next new cluster's id is `c-` and this number."""


class ClustersFound(msgspec.Struct, frozen=True, tag_field="k", tag="clusters_found"):
    """The clusters that are told from now on."""

    r: float
    model: ClusterModel
