"""Every policy behind one function. A new policy is a file beside this one and a case here."""

import numpy as np
from numpy.typing import NDArray

from tailorbird.policies import fixed, thompson
from tailorbird.policies.base import PolicyState
from tailorbird.policies.quadrature import BestProbabilities
from tailorbird.schema.placement import Fixed, Policy, Thompson


def probabilities(
    policy: Policy,
    state: PolicyState,
    arms: tuple[str, ...],
    learn_from: str,
    cache: BestProbabilities | None = None,
) -> NDArray[np.float64]:
    """Return the probability with which `policy` shows each arm, shape (arms,), summing to 1.

    Args:
        policy: What the placement declares.
        state: What was seen so far; it is not changed.
        arms: Ids of the arms to choose among, each once.
        learn_from: What counts as a trial, as `Placement.learn_from`.
        cache: Kept between calls for the same placement and arms, it saves time and changes no bit.
    """
    match policy:
        case Thompson():
            return thompson.probabilities(policy, state, arms, learn_from, cache)
        case Fixed():
            return fixed.probabilities(policy, arms)
