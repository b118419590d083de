"""Choosing among numbers of clusters, or densities: by silhouette, among those that are stable.

The silhouette of a visitor compares the distance to the own cluster with that to the next one (Rousseeuw
1987); visitors in no cluster weigh it down by their share. A number of clusters is stable when resampled
visitors give the same clusters again: for each bootstrap, clusters are found among the distinct visitors that
it drew (a point drawn twice would look dense), all visitors are told theirs, and the two answers are compared
by the adjusted Rand index (Hubert and Arabie 1985; Hennig 2007). It is all done on a sample of visitors,
since more would say the same.
"""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from sklearn.metrics import adjusted_rand_score, silhouette_score

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.limits import CLUSTER_DENSITY_SAMPLE_MAX, CLUSTER_JUDGES_MAX, CLUSTER_SAMPLE_MAX
from tailorbird.schema.clusters import ClusterModel, ClusterSettings, KMeans, Trial
from tailorbird.segment.assigner import NONE, Labels, nearest
from tailorbird.segment.solve import Solution, parameters, solve
from tailorbird.segment.space import Floats

SLACK = 0.03  # Of silhouette: less than a fit to other visitors differs by, and not worth new names.


class Chosen(NamedTuple):
    """What was tried, and the one that was taken."""

    trial: Trial
    solution: Solution
    """Of the sample."""
    tried: tuple[Trial, ...]
    is_sound: bool
    """Whether the trial holds what the settings ask."""


def choose(
    settings: ClusterSettings, scores: Floats, rng: Generator, previous: ClusterModel | None = None
) -> Chosen:
    """Return the best clusters of `scores`, shape (people, components).

    What the model before had taken is kept while it is nearly as good: names are worth more than a hundredth.
    Where nothing is stable, the most stable of all that has two clusters is taken.

    Raises:
        InvalidInputError: As `fit` of `clusters.py`: too few different people.
    """
    sample = drawn(scores, sample_max(settings), rng)
    pairs = [_try(settings, sample, parameter, rng) for parameter in _possible(settings, sample)]
    good = [pair for pair in pairs if _is_good(settings, pair[0])]
    if good:
        trial, solution = _best(good, settings, previous)
    else:
        trial, solution = max(pairs, key=lambda pair: (pair[0].silhouette is not None, pair[0].stability))
    return Chosen(trial, solution, tuple(trial for trial, _ in pairs), bool(good))


def sample_max(settings: ClusterSettings) -> int:
    """Return how many visitors clusters are looked for among."""
    return CLUSTER_SAMPLE_MAX if isinstance(settings, KMeans) else CLUSTER_DENSITY_SAMPLE_MAX


def drawn(scores: Floats, count: int, rng: Generator) -> Floats:
    """Return at most `count` rows, drawn without replacement, in their order."""
    if len(scores) <= count:
        return scores
    return scores[np.sort(rng.choice(len(scores), count, replace=False))]


def silhouette(scores: Floats, labels: Labels, rng: Generator) -> float | None:
    """Return the mean silhouette of those in a cluster, of a sample; None without two clusters."""
    is_clustered = labels != NONE
    scores, labels = scores[is_clustered], labels[is_clustered]
    if len(labels) > CLUSTER_JUDGES_MAX:
        rows = rng.choice(len(labels), CLUSTER_JUDGES_MAX, replace=False)
        scores, labels = scores[rows], labels[rows]
    count = len(np.unique(labels))
    if not 2 <= count < len(labels):  # noqa: PLR2004
        return None
    return float(silhouette_score(scores.astype(np.float64), labels))


def _possible(settings: ClusterSettings, sample: Floats) -> tuple[float, ...]:
    """Return what can be tried: no more clusters than different visitors.

    Raises:
        InvalidInputError: There are fewer different visitors than the least number of clusters.
    """
    asked = parameters(settings)
    if not isinstance(settings, KMeans):
        return asked
    different = len(np.unique(sample, axis=0))
    if different < settings.clusters_min:
        rule = f"must hold clustersMin, {settings.clusters_min}, people who differ"
        raise InvalidInputError(Fault("matrix", rule, different))
    return tuple(count for count in asked if count <= different)


def _try(
    settings: ClusterSettings, sample: Floats, parameter: float, rng: Generator
) -> tuple[Trial, Solution]:
    solution = solve(settings, sample, parameter, rng)
    labels = _told(solution, sample)
    agreements = [
        adjusted_rand_score(labels, _told(solve(settings, again, parameter, rng), sample))
        for again in (_resampled(sample, rng) for _ in range(settings.bootstraps))
    ]
    sizes = np.bincount(labels[labels != NONE], minlength=len(solution.centroids))
    trial = Trial(
        parameter=float(parameter),
        clusters=len(solution.centroids),
        silhouette=silhouette(sample, labels, rng),
        stability=float(np.mean(agreements)) if len(sizes) else 0.0,
        smallest=float(sizes.min(initial=len(labels)) / len(labels)),
        unclustered=float((labels == NONE).mean()),
        agreement=float(adjusted_rand_score(solution.labels, labels)),
    )
    return trial, solution


def _told(solution: Solution, scores: Floats) -> Labels:
    return nearest(scores, solution.centroids, solution.radii)[0]


def _resampled(sample: Floats, rng: Generator) -> Floats:
    return sample[np.unique(rng.integers(len(sample), size=len(sample)))]


def _is_good(settings: ClusterSettings, trial: Trial) -> bool:
    share_min = settings.share_min if isinstance(settings, KMeans) else 0.0
    return (
        trial.silhouette is not None
        and trial.stability >= settings.stability_min
        and trial.smallest >= share_min
    )


def _best(
    good: list[tuple[Trial, Solution]], settings: ClusterSettings, previous: ClusterModel | None
) -> tuple[Trial, Solution]:
    best = max(good, key=lambda pair: _quality(pair[0]))
    if previous is None or type(previous.settings) is not type(settings):
        return best
    same = [pair for pair in good if pair[0].parameter == previous.parameter]
    return same[0] if same and _quality(same[0][0]) >= _quality(best[0]) - SLACK else best


def _quality(trial: Trial) -> float:
    assert trial.silhouette is not None, "only trials with two clusters are compared"
    return trial.silhouette * (1.0 - trial.unclustered)
