"""A made-up shop, for where no recorded one is at hand, in which what goes together wins."""

from typing import Final

import numpy as np

from tailorbird.app.datasets.shop import LINE_SECONDS, Basket, Line, Shop, one_at_a_time
from tailorbird.schema.item import Item

SEED: Final = 7
LINES: Final = 30_000


def simulate(seed: int, lines_count: int) -> Shop:
    """Return a made-up shop of `lines_count` lines (at least 1), in which what goes together wins.

    Each of 240 items has one companion. The next item of a basket is the last one's companion in 55
    of 100 cases, of the visitor's two favourite kinds in 20, and from the bestsellers' long tail in
    25. So strategies that see what was bought together must win, and those that do not must lose.

    >>> simulate(7, 1000).lines_count
    1000
    """
    maker = _Simulator(np.random.Generator(np.random.PCG64(seed)))
    baskets: list[Basket] = []
    left = lines_count
    while left > 0:
        basket = maker.basket(len(baskets), left)
        baskets.append(basket)
        left -= len(basket.lines)
    return Shop(
        name="simulated",
        items=maker.items,
        baskets=one_at_a_time(baskets),
        lines_read=lines_count,
        left_out={},
        notes=("made up by a seeded generator: nobody bought any of this",),
    )


class _Simulator:
    """The made-up shop's catalogue, visitors and habits, drawn from one generator."""

    kinds_count = 24
    items_per_kind = 10
    visitors_count = 500
    opened = 1_704_067_200.0  # 2024-01-01.
    baskets_apart_seconds = 900.0

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        size = self.kinds_count * self.items_per_kind
        prices = generator.uniform(1, 40, size).round(2)
        self.items = tuple(
            Item(
                id=f"item-{index:03d}",
                title=f"Thing {index}",
                price=float(prices[index]),
                categories=(f"kind-{index // self.items_per_kind:02d}",),
            )
            for index in range(size)
        )
        self.companions = generator.permutation(size)
        popular = 1.0 / (1.0 + generator.permutation(size))
        self.popular = popular / popular.sum()
        self.tastes = generator.integers(0, self.kinds_count, (self.visitors_count, 2))

    def basket(self, index: int, lines_max: int) -> Basket:
        """Return the basket of that index, of 1 to `lines_max` distinct items."""
        visitor = int(self.generator.integers(self.visitors_count))
        size = min(lines_max, 3 + int(self.generator.poisson(6)))
        chosen: list[int] = []
        while len(chosen) < size:
            item = self._next(visitor, chosen)
            if item not in chosen:
                chosen.append(item)
        start = self.opened + index * self.baskets_apart_seconds
        lines = tuple(
            Line(start + place * LINE_SECONDS, self.items[item].id, 1, self.items[item].price or 0.0)
            for place, item in enumerate(chosen)
        )
        name = None if visitor % 10 == 0 else f"visitor-{visitor:03d}"
        return Basket(id=f"basket-{index:06d}", visitor=name, lines=lines)

    def _next(self, visitor: int, chosen: list[int]) -> int:
        habit = self.generator.random()
        if chosen and habit < 0.55:  # noqa: PLR2004 - the shares are said in `simulate`
            return int(self.companions[chosen[-1]])
        if habit < 0.75:  # noqa: PLR2004
            kind = int(self.tastes[visitor, self.generator.integers(2)])
            return kind * self.items_per_kind + int(self.generator.integers(self.items_per_kind))
        return int(self.generator.choice(len(self.items), p=self.popular))
