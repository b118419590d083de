"""Telling which cluster a visitor belongs to, while the visitor waits.

An `Assigner` is prepared once for a model and a layout of the feature vector. It imports NumPy alone, so a
process that answers visitors need not load what fitted the model.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.schema.clusters import ClusterModel
from tailorbird.segment.space import Floats, Projection, blocks, unpack

Labels = NDArray[np.int64]
NONE = -1


class Assignment(NamedTuple):
    """A visitor's cluster, None where the visitor is in none, and the distance to its centroid.

    The distance is in the model's scores. For a visitor in no cluster it is that to the cluster that came
    nearest; infinite where a model has no clusters.
    """

    cluster_id: str | None
    distance: float


class Assigner:
    """A model's clusters, ready for vectors of one layout."""

    def __init__(self, model: ClusterModel, names: Sequence[str]) -> None:
        """Prepare for vectors whose entries are `names`, which may hold more than the model's variables.

        Raises:
            InvalidInputError: A variable of the model is missing, or the model's arrays do not fit together.
        """
        self._size = len(names)
        self._projection = Projection(model.space, names)
        self._ids = tuple(cluster.id for cluster in model.clusters)
        shape = (self._projection.components,)
        centroids = [
            unpack(found.centroid, shape, f"clusters[{found.id}].centroid") for found in model.clusters
        ]
        self._centroids = np.array(centroids, np.float32).reshape(-1, *shape)
        self._radii = np.array(
            [math.inf if c.radius is None else c.radius for c in model.clusters], np.float32
        )

    def assign(self, vector: Floats) -> Assignment:
        """Return the cluster of one visitor, shape (names,).

        Raises:
            InvalidInputError: The vector has another shape than the layout, or is not finite.
        """
        if vector.shape != (self._size,):
            raise InvalidInputError(Fault("vector", f"must have shape ({self._size},)", list(vector.shape)))
        if not np.isfinite(vector).all():
            raise InvalidInputError(Fault("vector", "must be finite"))
        if not self._ids:
            return Assignment(None, math.inf)
        labels, distances = _nearest(self._projection.scores(vector)[None], self._centroids, self._radii)
        label = labels.item(0)
        return Assignment(None if label == NONE else self._ids[label], distances.item(0))

    def assign_all(self, matrix: Floats) -> list[str | None]:
        """Return the cluster id of each row, shape (people, names), None for those in none.

        Raises:
            InvalidInputError: The matrix has another width than the layout, or is not finite.
        """
        if matrix.ndim != 2 or matrix.shape[1] != self._size:  # noqa: PLR2004
            raise InvalidInputError(
                Fault("matrix", f"must have shape (people, {self._size})", list(matrix.shape))
            )
        found: list[str | None] = []
        ids = (*self._ids, None)  # The last one is where NONE points.
        for rows in blocks(len(matrix)):
            if not np.isfinite(matrix[rows]).all():
                raise InvalidInputError(Fault("matrix", "must be finite"))
            labels, _ = nearest(self._projection.scores(matrix[rows]), self._centroids, self._radii)
            found += [ids[label] for label in labels]
        return found


def nearest(scores: Floats, centroids: Floats, radii: Floats) -> tuple[Labels, Floats]:
    """Return the cluster of each row of `scores`, NONE for no cluster, and the distance to its centroid.

    Where no radius is bounded it is the nearest centroid. With radii it is the one of least distance over
    radius, and none where that is above 1: of a narrow cluster and a wide one around it, those in the middle
    are the narrow one's. Distances of rows in no cluster are to the centroid that came nearest in that sense.

    Args:
        scores: Shape (people, components).
        centroids: Shape (clusters, components).
        radii: Shape (clusters,), positive; all infinite or none.
    """
    labels, distances = np.full(len(scores), NONE, np.int64), np.full(len(scores), np.inf, np.float32)
    if len(centroids):
        for rows in blocks(len(scores)):
            labels[rows], distances[rows] = _nearest(scores[rows], centroids, radii)
    return labels, distances


def _nearest(scores: Floats, centroids: Floats, radii: Floats) -> tuple[Labels, Floats]:
    """Return the same for one block, with a cluster at least."""
    apart = scores[:, None, :] - centroids
    squares = np.einsum("ijk,ijk->ij", apart, apart)
    is_bounded = radii[0] < np.inf
    compared = squares / (radii * radii) if is_bounded else squares
    best = compared.argmin(axis=1)
    each = np.arange(len(best))
    labels = np.where(compared[each, best] <= 1.0, best, NONE) if is_bounded else best
    return labels, np.sqrt(squares[each, best])
