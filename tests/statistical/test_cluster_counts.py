"""How often the silhouette, among stable numbers of clusters, picks the number that is true."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from tailorbird.schema.clusters import KMeans
from tailorbird.segment.assigner import Assigner
from tailorbird.segment.clusters import fit

pytestmark = pytest.mark.statistical

RUNS = 10
PEOPLE = 800
VARIABLES = [f"event_{index}_7d" for index in range(24)]


def counts(generator: np.random.Generator, kinds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return overdispersed counts; each kind is fond of four of twenty variables, four others are noise."""
    kind = generator.integers(kinds, size=PEOPLE)
    rates = np.full((kinds, len(VARIABLES)), 0.7)
    for index in range(kinds):
        rates[index, 4 * index : 4 * index + 4] = 9.0
    activity = generator.gamma(4.0, 0.25, (PEOPLE, 1))
    return generator.poisson(rates[kind] * activity).astype(np.float32), kind


@pytest.mark.parametrize("kinds", [3, 4, 5])
def test_the_silhouette_picks_the_true_number_of_kinds(kinds):
    picked, agreements = [], []
    for run in range(RUNS):
        generator = np.random.default_rng([kinds, run])
        matrix, truth = counts(generator, kinds)
        model = fit(matrix, VARIABLES, KMeans(clusters_max=7, bootstraps=3), generator)
        picked.append(len(model.clusters))
        agreements.append(adjusted_rand_score(truth, Assigner(model, VARIABLES).assign_all(matrix)))
    # With nine in ten as the true share, fewer than seven of ten would be seen in 1.3 % of such tests.
    assert picked.count(kinds) >= 7, picked
    assert np.median(agreements) >= 0.9
