"""Recency: the visitor's own items, the newest first ("take up where you left off", "buy again")."""

import numpy as np
from numpy.typing import NDArray


def scores(recent: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return `1 / position` for items given newest first, shape (len(recent),), in (0, 1].

    >>> scores(np.array([7, 3], np.int32)).tolist()
    [1.0, 0.5]
    """
    return (1.0 / np.arange(1, len(recent) + 1)).astype(np.float32)
