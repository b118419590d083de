"""Finding clusters among scores, by scikit-learn; each method comes down to centroids and radii.

What a visitor is told while waiting is the nearest centroid, within its radius where the method knows
outsiders. So every method is brought to that form here, and its silhouette and stability are measured in that
form: what is reported is what is served. A cluster of a density method that is no ball loses by it, which
`Trial.agreement` says.
"""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from sklearn import cluster
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import ThreadpoolController

from tailorbird.schema.clusters import ClusterSettings, Dbscan, Hdbscan, KMeans
from tailorbird.segment.assigner import NONE, Labels, nearest
from tailorbird.segment.space import Floats

STARTS = 3  # k-means++ starts of each fit; the best one is kept.

_ROUNDS = 3  # Of leaving outliers out: those near, after those far off.
_CORE = 0.5  # HDBSCAN's membership strength from which a visitor counts for the centroid.
_RADIUS_SHARE = 0.95  # Of a cluster's visitors are within its radius.
_EDGE = 1.0001  # The visitor at the quantile is inside, however a distance is rounded.
_RADIUS_MIN = 1e-3  # Where all visitors of a cluster are alike: above the rounding of their distances.

_THREADS = ThreadpoolController()  # Made once: it looks through every library that is loaded.


class Solution(NamedTuple):
    """Clusters of some visitors."""

    centroids: Floats
    """Shape (clusters, components)."""
    radii: Floats
    """Shape (clusters,); infinite where everybody belongs to a cluster."""
    labels: Labels
    """Shape (people,): what the method itself said; NONE for nothing."""


def parameters(settings: ClusterSettings) -> tuple[float, ...]:
    """Return what is to be tried."""
    match settings:
        case KMeans():
            return tuple(range(settings.clusters_min, settings.clusters_max + 1))
        case Hdbscan():
            return settings.shares
        case Dbscan():
            return settings.reaches


def solve(settings: ClusterSettings, scores: Floats, parameter: float, rng: Generator) -> Solution:
    """Return the clusters of `scores`, shape (people, components), at one of `parameters`."""
    match settings:
        case KMeans():
            return _kmeans(settings, scores, round(parameter), rng)
        case Hdbscan():
            return _hdbscan(settings, scores, parameter)
        case Dbscan():
            return _dbscan(settings, scores, parameter)


def lloyd(scores: Floats, rng: Generator, begin: int | Floats) -> Solution:
    """Return k-means clusters, from the best of some k-means++ starts of `begin`, or from given centroids."""
    if isinstance(begin, int):
        method = cluster.KMeans(begin, n_init=STARTS, random_state=int(rng.integers(2**31)))
    else:
        method = cluster.KMeans(len(begin), init=begin, n_init=1)
    # Threads add up in the order in which they finish: on one, the same data and seed give the same bits.
    with _THREADS.limit(limits=1):
        method.fit(scores.astype(np.float64))  # Distances of float32 are computed thrice as slowly.
    centroids = method.cluster_centers_.astype(np.float32)
    return Solution(centroids, np.full(len(centroids), np.inf, np.float32), method.labels_.astype(np.int64))


def _kmeans(settings: KMeans, scores: Floats, count: int, rng: Generator) -> Solution:
    """Return k-means clusters that each hold their least share, where leaving outliers out gives such.

    A few visitors who are far from all, however tails were tamed, would take a centroid for themselves: they
    are left out, and the rest is looked at again. In the end they are told the nearest one, like all others.
    """
    rest = scores
    for _ in range(_ROUNDS):
        # No more centroids than there are different visitors.
        solution = lloyd(rest, rng, min(count, len(np.unique(rest, axis=0))))
        is_small = np.bincount(solution.labels) < settings.share_min * len(scores)
        if not is_small.any() or is_small.all():
            break
        rest = rest[~is_small[solution.labels]]
    labels, _ = nearest(scores, solution.centroids, solution.radii)
    return Solution(solution.centroids, solution.radii, labels)


def _hdbscan(settings: Hdbscan, scores: Floats, share: float) -> Solution:
    size = max(round(share * len(scores)), settings.neighbours)
    method = cluster.HDBSCAN(min_cluster_size=size, min_samples=settings.neighbours, copy=True)
    method.fit(scores)
    return _balls(scores, method.labels_.astype(np.int64), method.probabilities_ >= _CORE)


def _dbscan(settings: Dbscan, scores: Floats, reach: float) -> Solution:
    neighbours = NearestNeighbors(n_neighbors=settings.neighbours).fit(scores)
    farthest = neighbours.kneighbors(scores)[0][:, -1]
    method = cluster.DBSCAN(
        eps=max(float(np.quantile(farthest, reach)), _RADIUS_MIN), min_samples=settings.neighbours
    )
    method.fit(scores)
    is_core = np.zeros(len(scores), bool)
    is_core[method.core_sample_indices_] = True
    labels = _without_small(method.labels_.astype(np.int64), settings.share_min)
    return _balls(scores, labels, is_core)


def _without_small(labels: Labels, share_min: float) -> Labels:
    """Return the labels, counted up anew, with clusters of less than a share of all dissolved."""
    sizes = np.bincount(labels[labels != NONE])
    is_kept = sizes >= share_min * len(labels)
    renumbered = np.append(np.where(is_kept, is_kept.cumsum() - 1, NONE), NONE)  # The last for NONE itself.
    return renumbered[labels]


def _balls(scores: Floats, labels: Labels, is_core: NDArray[np.bool_]) -> Solution:
    """Return the balls around the cores of clusters; a cluster without a core is its own."""
    centroids, radii = [], []
    for label in range(int(labels.max(initial=NONE)) + 1):
        members = scores[labels == label]
        core = scores[(labels == label) & is_core]
        centroid = (core if len(core) else members).mean(axis=0)
        lengths = np.linalg.norm(members - centroid, axis=1)
        centroids.append(centroid)
        radii.append(max(_EDGE * float(np.quantile(lengths, _RADIUS_SHARE)), _RADIUS_MIN))
    shape = (-1, scores.shape[1])
    return Solution(np.array(centroids, np.float32).reshape(shape), np.array(radii, np.float32), labels)
