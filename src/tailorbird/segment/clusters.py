"""Model segments: clusters found among visitors' variables, told in words, and named as in the model before.

Reads a matrix of visitors and the last model, writes a new model. The matrix may be memory-mapped: it is read
a block of rows at a time, and but for the scores nothing of its size is made.

The steps: the space (`space.py`), clusters of a sample for every parameter and the best of them (`choose.py`,
`solve.py`), for k-means a last fit to all; then each visitor is told a cluster as `assigner.py` would, and
from that come sizes, words (`words.py`) and names (`match.py`).
"""

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.limits import CLUSTER_PEOPLE_MAX, CLUSTER_PEOPLE_MIN, CLUSTER_VARIABLES_MAX
from tailorbird.schema.clusters import Cluster, ClusterModel, ClusterSettings, KMeans
from tailorbird.segment.assigner import NONE, Labels, nearest
from tailorbird.segment.choose import Chosen, choose, silhouette
from tailorbird.segment.match import carried, matched_by_members, matched_by_profiles
from tailorbird.segment.solve import Solution, lloyd
from tailorbird.segment.space import Doubles, Floats, Projection, blocks, fit_space, pack
from tailorbird.segment.words import Means, description, differences, names

_SILHOUETTE_MIN = 0.25  # Below it "no substantial structure" was found (Kaufman and Rousseeuw 1990).
_AGREEMENT_MIN = 0.8
_PEOPLE_PER_NEIGHBOUR = 4  # A bootstrap has some 63 % of all; surroundings are to be less than half of that.
_INERTIA_SLACK = 1.01  # A solution near the last one is taken if it is at most so much worse.


def fit(
    matrix: Floats,
    variables: Sequence[str],
    settings: ClusterSettings,
    rng: Generator,
    previous: ClusterModel | None = None,
    memberships: Sequence[str | None] | None = None,
) -> ClusterModel:
    """Return the clusters of visitors.

    Args:
        matrix: float32, shape (people, variables), finite; zero where a thing never happened.
        variables: Their names, such as `orders_30d` or `recency_seconds`; each once.
        settings: The method and its bounds.
        rng: Draws samples and starts. The same data, settings and generator give the same model.
        previous: The model before, whose names and ids go on where clusters are the same.
        memberships: The cluster id of each visitor by `previous`, None for none, where that is known.

    Raises:
        InvalidInputError: Too few visitors, nothing that varies, numbers that are not finite, or names,
            memberships or settings that do not fit.
    """
    _check(matrix, variables)
    _check_settings(settings, len(matrix))
    _check_previous(len(matrix), previous, memberships)
    space, dropped = fit_space(matrix, variables, settings.components_max)
    projection = Projection(space, variables)
    scores = projection.scores_of_all(matrix)
    chosen = choose(settings, scores, rng, previous)
    start = None if previous is None else projection.along(carried(previous, space.variables))
    solution = _by_size(_settled(settings, scores, chosen.solution, rng, start), scores)
    means = _means(matrix, projection, solution.labels, len(solution.centroids))
    kept = _kept(solution.labels, means.inside_z.astype(np.float32), space.variables, previous, memberships)
    clusters, next_number = _clusters(solution, means, space.variables, kept)
    final = silhouette(scores, solution.labels, rng)
    return ClusterModel(
        version=1 if previous is None else previous.version + 1,
        settings=settings,
        people=len(matrix),
        space=space,
        dropped=dropped,
        clusters=clusters,
        unclustered=float((solution.labels == NONE).mean()),
        parameter=chosen.trial.parameter,
        silhouette=final,
        stability=chosen.trial.stability,
        agreement=chosen.trial.agreement,
        tried=chosen.tried,
        cautions=tuple(_cautions(settings, chosen, final)),
        next_number=next_number,
    )


# --- what is wrong with the input ------------------------------------------------------------------------


def _check(matrix: Floats, variables: Sequence[str]) -> None:
    if matrix.dtype != np.float32 or matrix.ndim != 2:  # noqa: PLR2004
        found = f"{matrix.dtype} of shape {matrix.shape}"
        raise InvalidInputError(Fault("matrix", "must be float32 of shape (people, variables)", found))
    people, count = matrix.shape
    if not CLUSTER_PEOPLE_MIN <= people <= CLUSTER_PEOPLE_MAX:
        rule = f"must hold {CLUSTER_PEOPLE_MIN} to {CLUSTER_PEOPLE_MAX} people"
        raise InvalidInputError(Fault("matrix", rule, people))
    if not 1 <= count <= CLUSTER_VARIABLES_MAX:
        raise InvalidInputError(Fault("matrix", f"must hold 1 to {CLUSTER_VARIABLES_MAX} variables", count))
    if len(variables) != count:
        raise InvalidInputError(Fault("variables", f"must name each of the {count} columns", len(variables)))
    if len(set(variables)) != count:
        twice = sorted({name for name in variables if list(variables).count(name) > 1})
        raise InvalidInputError(Fault("variables", "must name each column differently", twice))
    _check_finite(matrix, variables)


def _check_finite(matrix: Floats, variables: Sequence[str]) -> None:
    for rows in blocks(len(matrix)):
        is_bad = ~np.isfinite(matrix[rows])
        if is_bad.any():
            row, column = (int(index[0]) for index in is_bad.nonzero())
            value = float(matrix[rows][row, column])
            path = f"matrix[{rows.start + row}, {variables[column]}]"
            raise InvalidInputError(Fault(path, "must be finite", str(value)))


def _check_settings(settings: ClusterSettings, people: int) -> None:
    if isinstance(settings, KMeans):
        if settings.clusters_min > settings.clusters_max:
            rule = f"must be at most clustersMax, {settings.clusters_max}"
            raise InvalidInputError(Fault("clustersMin", rule, settings.clusters_min))
    elif settings.neighbours * _PEOPLE_PER_NEIGHBOUR > people:
        rule = f"must be at most one in {_PEOPLE_PER_NEIGHBOUR} of {people} people"
        raise InvalidInputError(Fault("neighbours", rule, settings.neighbours))


def _check_previous(
    people: int, previous: ClusterModel | None, memberships: Sequence[str | None] | None
) -> None:
    if memberships is None:
        return
    if previous is None:
        raise InvalidInputError(Fault("memberships", "must come with the model that they are of"))
    if len(memberships) != people:
        raise InvalidInputError(Fault("memberships", f"must be one for each of {people}", len(memberships)))


# --- clusters of all visitors ----------------------------------------------------------------------------


def _settled(
    settings: ClusterSettings, scores: Floats, sampled: Solution, rng: Generator, start: Floats | None
) -> Solution:
    """Return the clusters of all: for k-means from where the sample's, or the last model's, lie.

    Of two nearly equal local optima the one near the last model is taken, so that its clusters go on.
    """
    if not isinstance(settings, KMeans):
        return sampled
    fresh = lloyd(scores, rng, sampled.centroids)
    if start is None or len(start) != len(fresh.centroids):
        return fresh
    near = lloyd(scores, rng, start)
    return near if _inertia(scores, near) <= _INERTIA_SLACK * _inertia(scores, fresh) else fresh


def _inertia(scores: Floats, solution: Solution) -> float:
    distances = nearest(scores, solution.centroids, solution.radii)[1].astype(np.float64)
    return float(distances @ distances)


def _by_size(solution: Solution, scores: Floats) -> Solution:
    """Return the clusters that somebody is told, the largest first, with what each visitor is told."""
    labels, _ = nearest(scores, solution.centroids, solution.radii)
    sizes = np.bincount(labels[labels != NONE], minlength=len(solution.centroids))
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    places = np.full(len(sizes) + 1, NONE)  # One more, where NONE points.
    places[order] = np.arange(len(order))
    return Solution(solution.centroids[order], solution.radii[order], places[labels])


def _means(matrix: Floats, projection: Projection, labels: Labels, count: int) -> Means:
    """Return the means of raw variables and of z, by cluster and of all others."""
    places = np.where(labels == NONE, count, labels)
    shape = (count + 1, len(projection.variables))
    raw, z, is_flag = np.zeros(shape), np.zeros(shape), np.ones(shape[1], bool)
    for rows in blocks(len(matrix)):
        chosen = projection.chosen(matrix[rows])
        membership = (places[rows, None] == np.arange(count + 1)).T.astype(np.float64)
        raw += membership @ chosen
        z += membership @ projection.standardised(matrix[rows])
        is_flag &= ((chosen == 0.0) | (chosen == 1.0)).all(axis=0)
    sizes = np.bincount(places, minlength=count + 1).astype(np.float64)
    return Means(*_inside_and_outside(raw, sizes), *_inside_and_outside(z, sizes), is_flag)


def _inside_and_outside(sums: Doubles, sizes: Doubles) -> tuple[Doubles, Doubles]:
    """Return means by cluster and of all others; where there are no others, they are as those inside.

    The others are added up, not taken off the total: what is zero among them comes out as zero.
    """
    count = len(sizes) - 1
    inside = sums[:count] / sizes[:count, None]
    others = 1.0 - np.eye(count, count + 1)
    people = (others @ sizes)[:, None]
    return inside, np.where(people > 0.0, others @ sums / np.maximum(people, 1.0), inside)


# --- names, words and cautions ---------------------------------------------------------------------------


class _Kept(NamedTuple):
    """What goes on from the model before."""

    previous: ClusterModel | None
    pairs: dict[int, int]
    """Index of the old cluster by that of the new one."""

    def cluster(self, index: int) -> Cluster | None:
        """Return the old cluster that a new one is."""
        return self.previous.clusters[self.pairs[index]] if self.previous and index in self.pairs else None


def _kept(
    labels: Labels,
    profiles: Floats,
    variables: Sequence[str],
    previous: ClusterModel | None,
    memberships: Sequence[str | None] | None,
) -> _Kept:
    if previous is None:
        return _Kept(None, {})
    if memberships is not None and any(each is not None for each in memberships):
        ids = [found.id for found in previous.clusters]
        return _Kept(previous, matched_by_members(labels, len(profiles), memberships, ids))
    return _Kept(previous, matched_by_profiles(profiles, variables, previous))


def _ids(count: int, kept: _Kept) -> tuple[list[str], int]:
    """Return an id for each cluster, and the number of the next new one."""
    following = 1 if kept.previous is None else kept.previous.next_number
    ids = []
    for index in range(count):
        old = kept.cluster(index)
        ids.append(f"c-{following}" if old is None else old.id)
        following += old is None
    return ids, following


def _clusters(
    solution: Solution, means: Means, variables: Sequence[str], kept: _Kept
) -> tuple[tuple[Cluster, ...], int]:
    """Return the records of the clusters, and the number of the next new one."""
    sizes = np.bincount(solution.labels[solution.labels != NONE])
    found = [differences(means, index, variables) for index in range(len(sizes))]
    flags = frozenset(compress(variables, means.is_flag))
    ids, following = _ids(len(sizes), kept)
    olds = ((index, kept.cluster(index)) for index in range(len(sizes)))
    titles = names(found, {index: old.name for index, old in olds if old is not None})
    clusters = tuple(
        Cluster(
            id=ids[index],
            name=titles[index],
            size=int(size),
            share=float(size / len(solution.labels)),
            description=description(found[index], flags),
            differences=found[index],
            centroid=pack(solution.centroids[index]),
            radius=float(solution.radii[index]) if np.isfinite(solution.radii[index]) else None,
            profile=pack(means.inside_z[index]),
        )
        for index, size in enumerate(sizes)
    )
    return clusters, following


def _cautions(settings: ClusterSettings, chosen: Chosen, final: float | None) -> Iterator[str]:
    trial = chosen.trial
    if final is None:
        yield "Fewer than two clusters were found."
        return
    if final < _SILHOUETTE_MIN:
        yield f"Clusters overlap: their silhouette, {final:.2f}, is below {_SILHOUETTE_MIN}."
    if not chosen.is_sound:
        yield (
            f"Nothing tried has a stability of {settings.stability_min:g} and large enough clusters: "
            f"the most stable was taken, with {trial.stability:.2f}."
        )
    if trial.agreement < _AGREEMENT_MIN:
        yield (
            f"Clusters are no balls: what the method found and what is told by distance agree to "
            f"{trial.agreement:.2f} (adjusted Rand index)."
        )
