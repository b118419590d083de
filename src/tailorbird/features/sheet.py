"""What one event hands to the kernel that folds it: one array of float64, filled in anew for each event.

    slot          holds
    0             the event's time, epoch seconds
    1, 2          what a newcomer's event weighs beyond 1, and seconds of tenure after which half is left
    3             code of the first category that it is about, -1 for none
    4             1 where naming an item is an act of the visitor's (a report of what was shown is not)
    5, 6, 7       codes, items and cells in use
    8 … 263       as int32: what the event counts for, the first its own name
    264 … 775     how much of each
    776 … 801     as int32: indices of the items that it names, -1 for one without an index
    802 …         cells to keep, 4 slots each: key, mode, value, stamp (see `state`)

One array, because each array that a kernel is called with costs it a tenth of a microsecond; memory views,
because a number is written through one in half the time that NumPy takes.
"""

from typing import Any

import numpy as np

T, EARLY_EXTRA, EARLY_HALF_LIFE, CATEGORY, IS_TOUCHED, CODES, ITEMS, CELLS = range(8)

CODES_MAX = 512  # Counters that one event changes: its own, categories, facets, and those of definitions.
ITEMS_MAX = 52
CELLS_MAX = 256

CODES_BEGIN = 8
AMOUNTS_BEGIN = CODES_BEGIN + CODES_MAX // 2
ITEMS_BEGIN = AMOUNTS_BEGIN + CODES_MAX
CELLS_BEGIN = ITEMS_BEGIN + ITEMS_MAX // 2
CELL_WIDTH = 4
_SIZE = CELLS_BEGIN + CELL_WIDTH * CELLS_MAX


class Sheet:
    """Filled in by whoever knows what an event is about, read by `state.fold_event`.

    Attributes:
        array: As above.
        items: A view of the items' indices; written by whoever resolves them.
    """

    def __init__(self) -> None:
        self.array = np.zeros(_SIZE)
        self.items: Any = self.array[ITEMS_BEGIN:CELLS_BEGIN].view(np.int32).data
        self._head: Any = self.array[:CODES_BEGIN].data
        self._codes: Any = self.array[CODES_BEGIN:AMOUNTS_BEGIN].view(np.int32).data
        self._amounts: Any = self.array[AMOUNTS_BEGIN:ITEMS_BEGIN].data
        self._cells: Any = self.array[CELLS_BEGIN:].data
        self._codes_size = self._cells_size = 0

    def begin(self, t: float, names: list[int], category: int, items: int, *, is_touched: bool) -> None:
        """Begin an event that counts once for each of `names`, and names so many items."""
        head, codes, amounts = self._head, self._codes, self._amounts
        head[T], head[CATEGORY], head[IS_TOUCHED], head[ITEMS] = t, category, is_touched, items
        place = 0
        for code in names:
            codes[place], amounts[place] = code, 1.0
            place += 1
        self._codes_size, self._cells_size = place, 0

    def weigh_early(self, extra: float, half_life: float) -> None:
        """Say what a newcomer's event weighs beyond 1 in affinities, and after how long half of that."""
        self._head[EARLY_EXTRA], self._head[EARLY_HALF_LIFE] = extra, half_life

    def count(self, code: int, amount: float) -> None:
        """Add a counter; beyond `CODES_MAX` none is."""
        place = self._codes_size
        if place < CODES_MAX:
            self._codes[place], self._amounts[place] = code, amount
            self._codes_size = place + 1

    def keep(self, key: int, mode: int, value: float, stamp: float) -> None:
        """Add a cell; beyond `CELLS_MAX` none is."""
        place = self._cells_size
        if place < CELLS_MAX:
            cells, at = self._cells, CELL_WIDTH * place
            cells[at], cells[at + 1], cells[at + 2], cells[at + 3] = key, mode, value, stamp
            self._cells_size = place + 1

    def end(self) -> None:
        """Write how much there is."""
        self._head[CODES], self._head[CELLS] = self._codes_size, self._cells_size
