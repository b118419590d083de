"""What a recorded or made-up shop is: a catalogue, baskets in the order in which they began, notices.

Every loader of this package gives a `Shop`; `events` makes Segment events of it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from tailorbird.schema.item import Item

LINE_SECONDS: Final = 1.0  # Between two lines of a basket: the logs have one time for all of them.


class Line(NamedTuple):
    """One thing put into a basket: when (epoch seconds), which item, how many, at what price."""

    t: float
    item: str
    quantity: int
    price: float


class Basket(msgspec.Struct, frozen=True):
    """One visit that ended in an order. `visitor` is a customer's id; None is a nameless one."""

    id: str
    visitor: str | None
    lines: tuple[Line, ...]

    @property
    def start(self) -> float:
        """Return the time of the first line, epoch seconds."""
        return self.lines[0].t


class Notice(msgspec.Struct, frozen=True):
    """Something else that is known of a customer: who they are (`identify`), or one more thing they did.

    `event` names what was done; without it, `fields` are traits.
    """

    id: str
    visitor: str
    start: float
    """When, epoch seconds."""
    fields: dict[str, Any]
    event: str | None = None


class Shop(msgspec.Struct, frozen=True):
    """A catalogue and the baskets that were filled from it, by the time they began."""

    name: str
    items: tuple[Item, ...]
    baskets: tuple[Basket, ...]
    lines_read: int
    left_out: dict[str, int]
    """Lines of the log that are no purchase of a product, by why."""
    notes: tuple[str, ...] = ()
    """What a reader must know about how the data came to be."""
    notices: tuple[Notice, ...] = ()
    """By time."""
    currency: str = "GBP"

    @property
    def lines_count(self) -> int:
        """Return how many lines the baskets have together."""
        return lines_in(self.baskets)


def lines_in(baskets: Iterable[Basket]) -> int:
    """Return how many lines baskets have together."""
    return sum(len(basket.lines) for basket in baskets)


def one_at_a_time(baskets: Iterable[Basket]) -> tuple[Basket, ...]:
    """Return the baskets by start, lines a second apart, one at a time for each customer."""
    free_at: dict[str, float] = {}
    moved = []
    for basket in sorted(baskets, key=lambda basket: basket.start):
        t = free_at.get(basket.visitor or basket.id, 0.0)
        lines = []
        for line in basket.lines:
            t = max(line.t, t + LINE_SECONDS)
            lines.append(line._replace(t=t))
        free_at[basket.visitor or basket.id] = t + LINE_SECONDS
        moved.append(msgspec.structs.replace(basket, lines=tuple(lines)))
    return tuple(sorted(moved, key=lambda basket: basket.start))


def shared(path: Path) -> Path | None:
    """Return what lies at `shared/<path>` beside the checkout or the working directory, if it is there."""
    beside = (Path.cwd().parent, Path(__file__).resolve().parents[5])
    return next((folder / "shared" / path for folder in beside if (folder / "shared" / path).exists()), None)
