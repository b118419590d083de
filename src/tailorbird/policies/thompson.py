"""Beta Thompson sampling: each arm's rate of success has a Beta posterior.

An arm is shown with the probability that its rate is the highest (Thompson 1933; Chapelle and Li
2011, "An Empirical Evaluation of Thompson Sampling"), by quadrature instead of by sampling, so the
probability that is logged is the one that is drawn from.
"""

import numpy as np
from numpy.typing import NDArray

from tailorbird.policies.base import PolicyState, trials
from tailorbird.policies.quadrature import BestProbabilities
from tailorbird.schema.placement import Thompson


def probabilities(
    spec: Thompson,
    state: PolicyState,
    arms: tuple[str, ...],
    learn_from: str,
    cache: BestProbabilities | None = None,
) -> NDArray[np.float64]:
    """Return the probability of each arm, shape (arms,); read-only.

    `cache` saves computing again what did not move since it was last used; it changes no bit.
    """
    posteriors = _posteriors(spec, trials(state.published, arms, learn_from))
    return (cache or BestProbabilities()).compute(*posteriors)


def posterior(spec: Thompson, state: PolicyState, arm: str, learn_from: str) -> tuple[float, float]:
    """Return (alpha, beta) of an arm's Beta posterior: the prior's, plus successes and failures."""
    alphas, betas = _posteriors(spec, trials(state.arms, (arm,), learn_from))
    return float(alphas[0]), float(betas[0])


def _posteriors(
    spec: Thompson, seen: list[tuple[int, int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return alphas and betas; where outcomes run ahead of their trials, there are no failures."""
    alphas = [spec.prior_alpha + successes for _, successes in seen]
    betas = [spec.prior_beta + (tried - successes if tried > successes else 0) for tried, successes in seen]
    return np.array(alphas, np.float64), np.array(betas, np.float64)
