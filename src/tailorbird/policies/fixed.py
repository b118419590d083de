"""Fixed weights: a split that learns nothing."""

import numpy as np
from numpy.typing import NDArray

from tailorbird.schema.placement import Fixed


def probabilities(spec: Fixed, arms: tuple[str, ...]) -> NDArray[np.float64]:
    """Return each arm's share of the weight of `arms`, shape (arms,); equal ones where none weighs.

    >>> probabilities(Fixed(weights={"a": 3.0, "b": 1.0}), ("a", "b", "c"))
    array([0.75, 0.25, 0.  ])
    """
    weights = np.array([spec.weights.get(arm, 0.0) for arm in arms], np.float64)
    if not weights.any():
        weights = np.ones(len(arms))
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
