"""Draws, and samples from the posteriors, against the probabilities that are logged."""

import numpy as np
import pytest
from scipy import stats

from tailorbird.policies.mixing import draw, with_floors_and_caps
from tailorbird.policies.quadrature import best_probabilities

pytestmark = pytest.mark.statistical

POSTERIORS = [
    ([1, 1, 1], [1, 1, 1]),
    ([3, 5, 2, 1], [60, 70, 55, 1]),
    ([1, 5_001, 5_101], [1, 95_001, 94_901]),
    ([0.3, 0.5, 4.0], [0.3, 2.0, 1.5]),
    (np.linspace(20, 40, 30), np.full(30, 500.0)),
]
DRAWS = 20_000
SAMPLES = 200_000


@pytest.mark.parametrize(("alphas", "betas"), POSTERIORS)
def test_draws_follow_the_logged_probabilities(alphas, betas):
    said = best_probabilities(np.array(alphas, np.float64), np.array(betas, np.float64))
    mixed = with_floors_and_caps(said, 0.01, np.full(len(said), 0.8))
    uniforms = np.random.default_rng(20).random(DRAWS)
    counts = np.bincount([draw(mixed, uniform) for uniform in uniforms], minlength=len(mixed))
    # One test in a thousand would fail by chance, were it not seeded.
    assert stats.chisquare(counts, DRAWS * mixed / mixed.sum()).pvalue > 1e-3


@pytest.mark.parametrize(("alphas", "betas"), POSTERIORS)
def test_probabilities_are_how_often_a_posterior_sample_is_the_highest(alphas, betas):
    said = best_probabilities(np.array(alphas, np.float64), np.array(betas, np.float64))
    samples = np.random.default_rng(21).beta(alphas, betas, size=(SAMPLES, len(said)))
    frequencies = np.bincount(samples.argmax(axis=1), minlength=len(said)) / SAMPLES
    sigma = np.sqrt(said * (1.0 - said) / SAMPLES)
    assert np.all(np.abs(frequencies - said) <= 4.0 * sigma + 1e-5)
