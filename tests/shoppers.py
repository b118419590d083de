"""Shoppers of known kinds, for tests of segments: sparse counts, windows, money, seconds, flags, and noise."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

KINDS = ("buyers", "browsers", "shoe lovers", "gone")
VARIABLES = (
    "orders_90d",
    "revenue_sum_90d",
    "recency_seconds",
    "product_viewed_7d",
    "product_viewed_30d",
    "category_shoes_decayed_30d",
    "category_hats_decayed_30d",
    "device_mobile",
    "sessions",
    *(f"noise_{index}_count" for index in range(5)),
)
DAY = 86400.0

Matrix = NDArray[np.float32]
Kinds = NDArray[np.int64]

_ORDERS = np.array([30.0, 2.5, 2.5, 2.5])
_VIEWS = np.array([6.0, 90.0, 6.0, 6.0])
_SHOES = np.array([2.0, 2.0, 30.0, 2.0])
_DAYS = np.array([3.0, 3.0, 3.0, 150.0])
_MOBILE = np.array([0.3, 0.9, 0.5, 0.5])
_SESSIONS = np.array([8.0, 8.0, 8.0, 8.0])


def shoppers(
    generator: Generator, people: int, kinds: tuple[int, ...] = (0, 1, 2, 3)
) -> tuple[Matrix, Kinds]:
    """Return shoppers' variables, shape (people, VARIABLES), and the index of each one's kind."""
    kind = generator.choice(kinds, people)

    def about(means: NDArray[np.float64], spread: float = 0.35) -> NDArray[np.float64]:
        return means[kind] * generator.lognormal(0.0, spread, people)

    orders = about(_ORDERS).round()
    week = about(_VIEWS)
    columns = [
        orders,
        (1.0 + orders) * generator.lognormal(3.0, 0.4, people),
        about(_DAYS) * DAY,
        week.round(),
        (week * generator.uniform(1.0, 6.0, people)).round(),
        about(_SHOES),
        generator.lognormal(0.5, 0.35, people),
        generator.uniform(size=people) < _MOBILE[kind],
        1.0 + about(_SESSIONS).round(),
        *generator.poisson(0.1, (3, people)),
        *generator.poisson(4.0, (2, people)),
    ]
    return np.column_stack(columns).astype(np.float32), kind
