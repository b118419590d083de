"""The packed record of what one person did: an array of float64, changed and read by compiled kernels.

    slot                  holds
    0                     first seen, epoch seconds
    1                     last seen
    2                     start of the latest session
    3, 4                  sessions; events in the latest one
    5, 6                  sum of revenue; orders
    7                     code of the primary interest (see `vocabulary`), -1 for none
    8 … 11                counters, recent events, own items and cells in use
    12, 13                room for cells, for counters: even numbers
    16 … 65               times of recent events, oldest first
    66 … 140              as int32: their event codes, item indices (-1: none), category codes (-1: none)
    141 … 190             as int32: own items, distinct, oldest first; the event that touched each last
    192 …                 as int32: the code of each cell; then the cells, 2 slots each: value, stamp
    then                  as int32: the code that each counter counts
    then                  counters, 67 slots each: `last`, then a row of 131 float32 (see `counters`)

A **cell** keeps one number for a definition of a feature: the last value of a property (its stamp is the
time), what was added up in a session (its stamp is the session's start), an estimate (until when it holds).

As objects the same took some thirty times the memory, and most of an event's time in the interpreter. One
kernel call folds an event; growing is the only thing left to Python. Rooms: 4 counters and no cell at first,
doubled as needed. What events and categories may claim ends at `COUNTER_KEYS_MAX`: then the one used least of
late gives way; counters that an operator declared never do.

`pack` leaves out words of zeros, of which a row of tiles is full, behind a bitmap of those that are there.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tailorbird.features import sheet as sheets
from tailorbird.features.counters import ROW_WIDTH, advance, merge_row, read_column
from tailorbird.features.vocabulary import CATEGORY, FACET, KINDS, SERIES
from tailorbird.limits import COUNTER_KEYS_MAX, RECENT_EVENTS_MAX

State = NDArray[np.float64]

FIRST_SEEN, LAST_SEEN, SESSION_STARTED, SESSIONS, SESSION_DEPTH = range(5)
VALUE, ORDERS, INTEREST, COUNTERS, RECENTS, OWN, CELLS, CELL_ROOM, COUNTER_ROOM = range(5, 14)

KEEP_LAST, SET, ADD_IN_SESSION, MOST_IN_SESSION, LAST_IN_SESSION = range(5)
"""What `keep` does with a cell's value and its stamp."""
_OF_SESSION = (ADD_IN_SESSION, MOST_IN_SESSION, LAST_IN_SESSION)

SESSION_GAP_SECONDS = 1800.0
"""A visitor away for so long begins a new session (the web analytics convention)."""

_RING = RECENT_EVENTS_MAX
_TIMES = 16
_CODES = _TIMES + _RING
_OWN = _CODES + 3 * _RING // 2
_CELLS = _OWN + _RING + 1  # Room for one slot more, so that what follows begins at an even place.
_STRIDE = 1 + (ROW_WIDTH + 1) // 2
_FIRST_CAPACITY = 4
_MONTHLY = 4  # The 30-day decayed count in a counter's row.
_MONTH_SECONDS = 30 * 86400.0
_NO_ROOM = -1
NO_CELL_ROOM = -2
_WORD_BITS = 32


def new_state(t: float) -> State:
    """Return the record of somebody met at `t` of whom nothing is known."""
    state = np.zeros(_size(0, _FIRST_CAPACITY))
    state[FIRST_SEEN] = state[LAST_SEEN] = t
    state[INTEREST] = -1.0
    state[COUNTER_ROOM] = _FIRST_CAPACITY
    return state


def _size(cells: int, counters: int) -> int:
    """Return the slots of a record with room for so many cells and counters, both even."""
    return _CELLS + cells // 2 + 2 * cells + counters // 2 + counters * _STRIDE


def grown(state: State) -> State:
    """Return the record with room for more counters: for eight, or a quarter of what there is."""
    room = int(state[COUNTER_ROOM])
    return _moved(state, int(state[CELL_ROOM]), room + max(8, room // 8 * 2))


def grown_cells(state: State) -> State:
    """Return the record with room for twice as many cells."""
    return _moved(state, max(2 * int(state[CELL_ROOM]), _FIRST_CAPACITY), int(state[COUNTER_ROOM]))


def _moved(state: State, cells: int, counters: int) -> State:
    """Return the record with room for so many cells and counters, each part in its new place."""
    larger = np.zeros(_size(cells, counters))
    larger[:_CELLS] = state[:_CELLS]
    larger[CELL_ROOM], larger[COUNTER_ROOM] = cells, counters
    edges = (_CELLS, _cell_values(state), _keys(state), _rows(state), len(state))
    begins = (_CELLS, _cell_values(larger), _keys(larger), _rows(larger))
    for begin, end, place in zip(edges, edges[1:], begins, strict=False):
        larger[place : place + end - begin] = state[begin:end]
    return larger


@njit("i8(f8[::1])", cache=True, nogil=True)
def _cell_values(state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return where the cells' values begin."""
    return _CELLS + int(state[CELL_ROOM]) // 2


@njit("i8(f8[::1])", cache=True, nogil=True)
def _keys(state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return where the counters' codes begin."""
    return _cell_values(state) + 2 * int(state[CELL_ROOM])


@njit("i8(f8[::1])", cache=True, nogil=True)
def _rows(state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return where the counters begin."""
    return _keys(state) + int(state[COUNTER_ROOM]) // 2


@njit("UniTuple(i8, 3)(f8[::1])", cache=True, nogil=True)
def counter_places(state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return where the counters' codes begin, where the counters begin, and how long each is."""
    return _keys(state), _rows(state), _STRIDE


@njit("UniTuple(i8, 2)(f8[::1])", cache=True, nogil=True)
def cell_places(state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return where the cells' keys begin, and where their values begin."""
    return _CELLS, _cell_values(state)


RING_TIMES, RING_CODES = _TIMES, _CODES
"""Where the times of recent events begin, and where their codes begin."""


@njit("i8(f8[::1], i8)", cache=True, nogil=True)
def find_counter(state, code):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the position of the counter of `code`, -1 where it was never counted."""
    keys = state[_keys(state) : _rows(state)].view(np.int32)
    for position in range(int(state[COUNTERS])):
        if keys[position] == code:
            return position
    return -1


@njit("f8(f8[::1], i8, i8, f8)", cache=True, nogil=True)
def read_counter(state, position, column, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return one of `COLUMNS` of the counter at `position`, as of `at`."""
    base = _rows(state) + position * _STRIDE
    return read_column(state[base + 1 : base + _STRIDE].view(np.float32), state[base], column, at)


@njit("f8(f8[::1], i8)", cache=True, nogil=True)
def _strength(state, position):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return log2 of a counter's 30-day decayed count at a common time."""
    base = _rows(state) + position * _STRIDE
    decayed = state[base + 1 : base + _STRIDE].view(np.float32)[_MONTHLY]
    return state[base] / _MONTH_SECONDS + (np.log2(decayed) if decayed > 0.0 else -1e9)


@njit("i8(f8[::1], i8)", cache=True, nogil=True)
def _claim(state, code):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the position of a zeroed counter for `code`, -1 where the record has to grow first."""
    keys = state[_keys(state) : _rows(state)].view(np.int32)
    used = int(state[COUNTERS])
    weakest, claimed = -1, 0
    if code % KINDS != SERIES and used >= COUNTER_KEYS_MAX:
        for position in range(used):
            if keys[position] % KINDS == SERIES:
                continue
            claimed += 1
            ahead = 1.0 if weakest < 0 else _strength(state, weakest) - _strength(state, position)
            if ahead > 0.0 or (ahead == 0.0 and keys[position] < keys[weakest]):
                weakest = position
    if claimed < COUNTER_KEYS_MAX:
        if used >= int(state[COUNTER_ROOM]):
            return _NO_ROOM
        keys[used] = code
        state[COUNTERS] = used + 1
        return used
    keys[weakest] = code
    base = _rows(state) + weakest * _STRIDE
    state[base : base + _STRIDE] = 0.0
    return weakest


@njit("i8(f8[::1], i8, f8, f8, f8)", cache=True, nogil=True)
def count(state, code, t, amount, weight):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Count `amount` of `code` at `t`, and `weight` in what decays; return the counter's position.

    -1 where the record has to grow first.
    """
    position = find_counter(state, code)
    if position < 0:
        position = _claim(state, code)
    if position >= 0:
        base = _rows(state) + position * _STRIDE
        row = state[base + 1 : base + _STRIDE].view(np.float32)
        advance(row, state[base : base + 1], t, amount, weight)
    return position


def cell_key(code: int, mode: int) -> int:
    """Return the key of the cell that is kept under `code` in `mode`: odd for those of a session."""
    return 2 * code + (mode in _OF_SESSION)


@njit("i8(f8[::1], i8)", cache=True, nogil=True)
def find_cell(state, key):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the slot of a cell's value, its stamp behind it; -1 where there is none."""
    values = _cell_values(state)
    keys = state[_CELLS:values].view(np.int32)
    for position in range(int(state[CELLS])):
        if keys[position] == key:
            return values + 2 * position
    return -1


@njit("i8(f8[::1], i8)", cache=True, nogil=True)
def _claim_cell(state, key):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the slot of a cell, an empty one where it is new; there must be room."""
    slot = find_cell(state, key)
    if slot < 0:
        used = int(state[CELLS])
        values = _cell_values(state)
        state[_CELLS:values].view(np.int32)[used] = key
        state[CELLS] = used + 1
        slot = values + 2 * used
        state[slot], state[slot + 1] = 0.0, -np.inf
    return slot


@njit("b1(f8[::1], i4[::1], f8[:, ::1])", cache=True, nogil=True)
def _has_cell_room(state, surroundings, cells):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return whether the record has room for the cells that are not there yet."""
    if int(state[CELLS]) + len(surroundings) + len(cells) <= int(state[CELL_ROOM]):
        return True  # Whichever of them are new.
    missing = 0
    for key in surroundings:
        missing += 1 if find_cell(state, key) < 0 else 0
    for place in range(len(cells)):
        missing += 1 if find_cell(state, int(cells[place, 0])) < 0 else 0
    return int(state[CELLS]) + missing <= int(state[CELL_ROOM])


@njit("void(f8[::1], i8, i8, f8, f8)", cache=True, nogil=True)
def _keep_one(state, key, mode, value, stamp):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Keep one value in its cell, as `keep` says; there is room."""
    slot = _claim_cell(state, key)
    if mode in (KEEP_LAST, SET):
        if mode == SET or stamp >= state[slot + 1]:
            state[slot], state[slot + 1] = value, stamp
        return
    session = state[SESSION_STARTED]
    if state[slot + 1] != session or mode == LAST_IN_SESSION:
        state[slot] = value
    elif mode == ADD_IN_SESSION:
        state[slot] += value
    else:
        state[slot] = max(state[slot], value)
    state[slot + 1] = session


@njit("b1(f8[::1], i8, i8, f8, f8)", cache=True, nogil=True)
def keep(state, key, mode, value, stamp):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Keep a value in a cell; return whether there was room, else nothing is kept.

    `KEEP_LAST` keeps the value whose stamp is the latest; `SET` this one, whatever was there. The others
    belong to the session at hand, whose start is their stamp, whatever is given.
    """
    if find_cell(state, key) < 0 and int(state[CELLS]) >= int(state[CELL_ROOM]):
        return False
    _keep_one(state, key, mode, value, stamp)
    return True


@njit("void(f8[::1], f8[::1])", cache=True, nogil=True)
def _merge_cells(into, other):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Keep of each cell the latest value; of a session's cells those of the session at hand.

    There is room.
    """
    values = _cell_values(other)
    keys = other[_CELLS:values].view(np.int32)
    session = into[SESSION_STARTED]
    for position in range(int(other[CELLS])):
        theirs = values + 2 * position
        slot = _claim_cell(into, keys[position])
        mine_is_at_hand, theirs_is_at_hand = into[slot + 1] == session, other[theirs + 1] == session
        if keys[position] % 2 == 1 and mine_is_at_hand != theirs_is_at_hand:
            is_theirs = theirs_is_at_hand
        elif other[theirs + 1] == into[slot + 1]:
            is_theirs = other[theirs] > into[slot]
        else:
            is_theirs = other[theirs + 1] > into[slot + 1]
        if is_theirs:
            into[slot], into[slot + 1] = other[theirs], other[theirs + 1]


@njit("b1(f8[::1], i8, i8)", cache=True, nogil=True)
def is_stronger(state, one, other):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return whether category `one` leads `other`, compared at the same moment; ties go to the older code.

    All categories decay at the same rate, so their order changes only when one of them is counted: the
    leader is kept as events come, where seeking it among all took 40 µs a decision.
    """
    mine, theirs = find_counter(state, one), find_counter(state, other)
    if mine < 0 or theirs < 0:
        return theirs < 0
    a, b = _rows(state) + mine * _STRIDE, _rows(state) + theirs * _STRIDE
    weight = float(state[a + 1 : a + _STRIDE].view(np.float32)[_MONTHLY])
    against = float(state[b + 1 : b + _STRIDE].view(np.float32)[_MONTHLY])
    lag = (state[a] - state[b]) / _MONTH_SECONDS
    # Both are brought to the later of the two times, so that no power overflows.
    if lag >= 0.0:
        against *= 2.0**-lag
    else:
        weight *= 2.0**lag
    return weight > against or (weight == against and one < other)


@njit("void(f8[::1], f8)", cache=True, nogil=True)
def observe_session(state, t):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Count an event at `t` in the visitor's session; a late event belongs to the session at hand."""
    if state[SESSIONS] == 0.0 or t - state[LAST_SEEN] > SESSION_GAP_SECONDS:
        state[SESSIONS] += 1.0
        state[SESSION_STARTED] = t
        state[SESSION_DEPTH] = 0.0
    state[SESSION_DEPTH] += 1.0
    state[FIRST_SEEN] = min(state[FIRST_SEEN], t)
    state[LAST_SEEN] = max(state[LAST_SEEN], t)


@njit("void(f8[::1], f8, i8, i8, i8)", cache=True, nogil=True)
def _remember(state, t, event, item, category):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Put an event into the ring of recent ones, in the order of their times."""
    times = state[_TIMES:_CODES]
    codes = state[_CODES:_OWN].view(np.int32)
    size = int(state[RECENTS])
    place = size
    while place > 0 and times[place - 1] > t:
        place -= 1
    if size == _RING:
        if place == 0:
            return
        place -= 1
        for position in range(place):
            times[position] = times[position + 1]
            for part in range(3):
                codes[part * _RING + position] = codes[part * _RING + position + 1]
    else:
        for position in range(size, place, -1):
            times[position] = times[position - 1]
            for part in range(3):
                codes[part * _RING + position] = codes[part * _RING + position - 1]
        state[RECENTS] = size + 1
    times[place] = t
    codes[place] = event
    codes[_RING + place] = item
    codes[2 * _RING + place] = category


@njit("void(f8[::1], i8, i8)", cache=True, nogil=True)
def _touch(state, item, event):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Make `item` the newest of the visitor's own."""
    own = state[_OWN : _CELLS - 1].view(np.int32)
    size = int(state[OWN])
    place = 0
    while place < size and own[place] != item:
        place += 1
    if place == size:
        if size < _RING:
            state[OWN] = size + 1
        else:
            place = 0
    for position in range(place, int(state[OWN]) - 1):
        own[position] = own[position + 1]
        own[_RING + position] = own[_RING + position + 1]
    last = int(state[OWN]) - 1
    own[last] = item
    own[_RING + last] = event


@njit("b1(f8[::1], i4[::1])", cache=True, nogil=True)
def _has_room(state, codes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return whether the record has room for the counters that an event still lacks."""
    if int(state[COUNTERS]) + len(codes) <= int(state[COUNTER_ROOM]):
        return True  # Whichever of them are new.
    missing = 0
    for code in codes:
        missing += 1 if find_counter(state, code) < 0 else 0
    return int(state[COUNTERS]) + missing <= int(state[COUNTER_ROOM])


@njit("b1(f8[::1], i4[::1])", cache=True, nogil=True)
def _is_settled(state, codes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return whether so many counters are claimed that new ones take others' places, and need no room."""
    claimed = 0
    for code in state[_keys(state) : _rows(state)].view(np.int32)[: int(state[COUNTERS])]:
        claimed += 1 if code % KINDS != SERIES else 0
    if claimed < COUNTER_KEYS_MAX:
        return False
    for code in codes:
        if code % KINDS == SERIES and find_counter(state, code) < 0:
            return False
    return True


@njit("void(f8[::1], i8)", cache=True, nogil=True)
def lead(state, category):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Make `category` the primary interest where it leads the present one."""
    leader = int(state[INTEREST])
    if leader != category and (leader < 0 or is_stronger(state, category, leader)):
        state[INTEREST] = category


@njit("void(f8[::1], i4[::1], f8[::1], f8, f8)", cache=True, nogil=True)
def _count_all(state, codes, amounts, t, early):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Count every code; categories and facets weigh `early` in what decays, and one may come to lead."""
    for place in range(len(codes)):
        code, amount = int(codes[place]), amounts[place]
        kind = code % KINDS
        is_weighted = kind in (CATEGORY, FACET)
        count(state, code, t, amount, amount * early if is_weighted else amount)
        if kind == CATEGORY:
            lead(state, code)


@njit("i8(f8[::1], i8, i4[::1])", cache=True, nogil=True)
def _write_before(state, item, before):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write own items, newest first, without `item`; return how many."""
    own = state[_OWN : _CELLS - 1].view(np.int32)
    found = 0
    for position in range(int(state[OWN]) - 1, -1, -1):
        if found == len(before):
            break
        if own[position] != item:
            before[found] = own[position]
            found += 1
    return found


@njit("f8(f8[::1], f8, f8, f8)", cache=True, nogil=True)
def _early_weight(state, t, extra, half_life):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return what an event weighs in affinities: 1 + `extra` at first, the extra halved each `half_life`."""
    return 1.0 + extra * 2.0 ** (-max(t - state[FIRST_SEEN], 0.0) / half_life) if extra > 0.0 else 1.0


@njit("i8(f8[::1], f8, i4[::1], f8[::1], f8, f8, i8, i4[::1], b1, i4[::1])", cache=True, nogil=True)
def observe(  # type: ignore[no-untyped-def]  # noqa: ANN201
    state,  # noqa: ANN001
    t,  # noqa: ANN001
    codes,  # noqa: ANN001
    amounts,  # noqa: ANN001
    early_extra,  # noqa: ANN001
    early_half_life,  # noqa: ANN001
    category,  # noqa: ANN001
    items,  # noqa: ANN001
    is_touched,  # noqa: ANN001
    before,  # noqa: ANN001
):
    """Fold one event; return how many items were written to `before`, -1 where the record has to grow.

    Args:
        state: The record; unchanged where it has to grow first.
        t: The event's own time, epoch seconds.
        codes: What it counts for, distinct; the first is its own name's.
        amounts: How much of each, shape (codes,).
        early_extra: What a newcomer's event weighs beyond 1 in affinities.
        early_half_life: Seconds of tenure after which half of that is left.
        category: Code of the first category that it is about, -1 for none.
        items: Indices of the items that it names; -1 for one without an index.
        is_touched: Whether naming an item is an act of the visitor's (a report of what was shown is not).
        before: Out, for an event about a single item: as many of the own items before it as there is room
            for, newest first, without it.
    """
    if not _has_room(state, codes) and not _is_settled(state, codes):
        return _NO_ROOM
    observe_session(state, t)
    _count_all(state, codes, amounts, t, _early_weight(state, t, early_extra, early_half_life))
    first = items[0] if len(items) > 0 else -1
    _remember(state, t, codes[0], first, category)
    if not is_touched:
        return 0
    # An order repeats what was added before; only single items say what followed what.
    found = _write_before(state, first, before) if len(items) == 1 else 0
    for item in items:
        if item >= 0:
            _touch(state, item, codes[0])
    return found


@njit("i8(f8[::1], f8[::1], i4[::1], f8[::1], i4[::1])", cache=True, nogil=True)
def fold_event(state, sheet, surroundings, values, before):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Fold one event: count it, then keep what it says in cells.

    Args:
        state: The record; unchanged where it has to grow first.
        sheet: What the event counts and keeps, see `sheet`.
        surroundings: Keys of the cells of its surroundings, kept as of the event's time (`KEEP_LAST`).
        values: What is kept in each of those.
        before: Out, see `observe`.

    Returns:
        What `observe` does; `NO_CELL_ROOM` where cells have to grow.
    """
    t = sheet[sheets.T]
    codes = sheet[sheets.CODES_BEGIN : sheets.AMOUNTS_BEGIN].view(np.int32)[: int(sheet[sheets.CODES])]
    amounts = sheet[sheets.AMOUNTS_BEGIN :][: int(sheet[sheets.CODES])]
    items = sheet[sheets.ITEMS_BEGIN : sheets.CELLS_BEGIN].view(np.int32)[: int(sheet[sheets.ITEMS])]
    cells = sheet[sheets.CELLS_BEGIN :].reshape(-1, sheets.CELL_WIDTH)[: int(sheet[sheets.CELLS])]
    if not _has_cell_room(state, surroundings, cells):
        return NO_CELL_ROOM
    extra, half_life = sheet[sheets.EARLY_EXTRA], sheet[sheets.EARLY_HALF_LIFE]
    category, is_touched = int(sheet[sheets.CATEGORY]), sheet[sheets.IS_TOUCHED] != 0.0
    found = observe(state, t, codes, amounts, extra, half_life, category, items, is_touched, before)
    if found == _NO_ROOM:
        return _NO_ROOM
    for place in range(len(surroundings)):
        _keep_one(state, surroundings[place], KEEP_LAST, values[place], t)
    for place in range(len(cells)):
        key, mode, value, stamp = cells[place]
        _keep_one(state, int(key), int(mode), value, stamp)
    return found


def recents(state: State) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return recent events, oldest first: times, shape (n,), and codes, (3, n): event, item, category."""
    size = int(state[RECENTS])
    codes = state[_CODES:_OWN].view(np.int32).reshape(3, _RING)
    return state[_TIMES : _TIMES + size], codes[:, :size]


def own_items(state: State) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the visitor's own items, newest first, and the code of the event that touched each last."""
    size = int(state.item(OWN))
    own = state[_OWN : _CELLS - 1].view(np.int32)
    return own[:size][::-1], own[_RING : _RING + size][::-1]


def counted(state: State) -> NDArray[np.int32]:
    """Return the codes that are counted, shape (counters,), in the order of their counters."""
    keys: NDArray[np.int32] = state[_keys(state) : _rows(state)].view(np.int32)[: int(state[COUNTERS])]
    return keys


def counter_rows(state: State) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return views of the counters' `last`, shape (counters,), and rows, shape (counters, ROW_WIDTH)."""
    table = state[_rows(state) :].reshape(-1, _STRIDE)[: int(state[COUNTERS])]
    return table[:, 0], table[:, 1:].view(np.float32)[:, :ROW_WIDTH]


def merged(older: State, newer: State) -> State:
    """Return the record of one person who was two; `older` is the one met first.

    Sums add up, the latest session is that of whoever was seen last, rings keep the newest of both.
    """
    state = older.copy()
    latest = newer if newer[LAST_SEEN] >= older[LAST_SEEN] else older
    state[SESSION_STARTED], state[SESSION_DEPTH] = latest[SESSION_STARTED], latest[SESSION_DEPTH]
    state[FIRST_SEEN] = min(older[FIRST_SEEN], newer[FIRST_SEEN])
    state[LAST_SEEN] = latest[LAST_SEEN]
    for slot in (SESSIONS, VALUE, ORDERS):
        state[slot] += newer[slot]
    _merge_recents(state, newer)
    items, events = own_items(newer)
    for item, event in zip(items[::-1].tolist(), events[::-1].tolist(), strict=True):
        _touch(state, item, event)
    for position in range(len(counted(newer))):
        while _merge_counter(state, newer, position) < 0:
            state = grown(state)
    while int(state[CELL_ROOM]) < int(state[CELLS]) + int(newer[CELLS]):
        state = grown_cells(state)
    _merge_cells(state, newer)
    _settle_interest(state)
    return state


def _merge_recents(state: State, newer: State) -> None:
    times, codes = recents(newer)
    for t, (event, item, category) in zip(times.tolist(), codes.T.tolist(), strict=True):
        _remember(state, t, event, item, category)


@njit("i8(f8[::1], f8[::1], i8)", cache=True, nogil=True)
def _merge_counter(into, other, position):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    code = other[_keys(other) : _rows(other)].view(np.int32)[position]
    mine = find_counter(into, code)
    if mine < 0:
        mine = _claim(into, code)
    if mine >= 0:
        a, b = _rows(into) + mine * _STRIDE, _rows(other) + position * _STRIDE
        row = other[b + 1 : b + _STRIDE].copy()
        merge_row(into[a + 1 : a + _STRIDE].view(np.float32), into[a : a + 1], row.view(np.float32), other[b])
    return mine


@njit("void(f8[::1])", cache=True, nogil=True)
def _settle_interest(state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Find the primary interest among all categories that are counted."""
    keys = state[_keys(state) : _rows(state)].view(np.int32)
    leader = -1
    for position in range(int(state[COUNTERS])):
        code = keys[position]
        if code % KINDS == CATEGORY and (leader < 0 or is_stronger(state, code, leader)):
            leader = code
    state[INTEREST] = leader


@njit("i8(u4[::1], u4[::1])", cache=True, nogil=True)
def _squeeze(words, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write a bitmap of the words that are not zero, then those; return how many words were written."""
    maps = (len(words) + _WORD_BITS - 1) // _WORD_BITS
    out[:maps] = 0
    size = maps
    for place in range(len(words)):
        if words[place] != 0:
            out[place // _WORD_BITS] |= np.uint32(1) << np.uint32(place % _WORD_BITS)
            out[size] = words[place]
            size += 1
    return size


@njit("void(u4[::1], u4[::1])", cache=True, nogil=True)
def _expand(squeezed, words):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    at = (len(words) + _WORD_BITS - 1) // _WORD_BITS
    for place in range(len(words)):
        if squeezed[place // _WORD_BITS] >> np.uint32(place % _WORD_BITS) & np.uint32(1):
            words[place] = squeezed[at]
            at += 1
        else:
            words[place] = 0


def pack(state: State) -> bytes:
    """Return the record as bytes, in the byte order of this machine: equal records give equal bytes."""
    words = state.view(np.uint32)
    out = np.empty(2 + len(words) + len(words) // _WORD_BITS, np.uint32)
    out[0] = len(state)
    size = _squeeze(words, out[1:])
    return out[: 1 + size].tobytes()


def unpack(payload: bytes) -> State:
    """Return the record of `pack`'s bytes."""
    words = np.frombuffer(payload, np.uint32).copy()
    state = np.empty(int(words[0]))
    _expand(words[1:], state.view(np.uint32))
    return state
