"""The packed record of what one person did: an array of float64, changed and read by compiled kernels.

    slot                  holds
    0                     first seen, epoch seconds
    1                     last seen
    2                     start of the latest session
    3, 4                  sessions; events in the latest one
    5, 6                  sum of revenue; orders
    7                     code of the primary interest (see `vocabulary`), -1 for none
    8, 9, 10              counters, recent events, own items in use
    16 … 65               times of recent events, oldest first
    66 … 140              as int32: their event codes, item indices (-1: none), category codes (-1: none)
    141 … 190             as int32: own items, distinct, oldest first; the event that touched each last
    192 … 223             as int32: the code that each counter counts
    224 …                 counters, 37 slots each: `last`, then a row of 71 float32 (see `counters`)

As objects the same took some thirty times the memory, and most of an event's time in the interpreter. One
kernel call folds an event; growing is the only thing left to Python. Rooms: 4 counters at first, doubled
up to `COUNTER_KEYS_MAX`, when the one used least of late gives way.

`pack` leaves out words of zeros, of which a row of tiles is full, behind a bitmap of those that are there.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tailorbird.features.counters import ROW_WIDTH, advance, merge_row, read_column
from tailorbird.features.vocabulary import CATEGORY, KINDS
from tailorbird.limits import COUNTER_KEYS_MAX, RECENT_EVENTS_MAX

State = NDArray[np.float64]

FIRST_SEEN, LAST_SEEN, SESSION_STARTED, SESSIONS, SESSION_DEPTH = range(5)
VALUE, ORDERS, INTEREST, COUNTERS, RECENTS, OWN = range(5, 11)

SESSION_GAP_SECONDS = 1800.0
"""A visitor away for so long begins a new session (the web analytics convention)."""

_RING = RECENT_EVENTS_MAX
_TIMES = 16
_CODES = _TIMES + _RING
_OWN = _CODES + 3 * _RING // 2
_KEYS = _OWN + _RING + 1
_ROWS = _KEYS + COUNTER_KEYS_MAX // 2
_STRIDE = 1 + (ROW_WIDTH + 1) // 2
_FIRST_CAPACITY = 4
_MONTHLY = 4  # The 30-day decayed count in a counter's row.
_MONTH_SECONDS = 30 * 86400.0
_NO_ROOM = -1
_WORD_BITS = 32


def new_state(t: float) -> State:
    """Return the record of somebody met at `t` of whom nothing is known."""
    state = np.zeros(_ROWS + _FIRST_CAPACITY * _STRIDE)
    state[FIRST_SEEN] = state[LAST_SEEN] = t
    state[INTEREST] = -1.0
    return state


def grown(state: State) -> State:
    """Return the record with room for twice as many counters, up to the limit."""
    capacity = min(2 * ((len(state) - _ROWS) // _STRIDE), COUNTER_KEYS_MAX)
    larger = np.zeros(_ROWS + capacity * _STRIDE)
    larger[: len(state)] = state
    return larger


@njit("i8(f8[::1], i8)", cache=True, nogil=True)
def find_counter(state, code):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the position of the counter of `code`, -1 where it was never counted."""
    keys = state[_KEYS:_ROWS].view(np.int32)
    for position in range(int(state[COUNTERS])):
        if keys[position] == code:
            return position
    return -1


@njit("f8(f8[::1], i8, i8, f8)", cache=True, nogil=True)
def read_counter(state, position, column, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return one of `COLUMNS` of the counter at `position`, as of `at`."""
    base = _ROWS + position * _STRIDE
    return read_column(state[base + 1 : base + _STRIDE].view(np.float32), state[base], column, at)


@njit("f8(f8[::1], i8)", cache=True, nogil=True)
def _strength(state, position):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return log2 of a counter's 30-day decayed count at a common time."""
    base = _ROWS + position * _STRIDE
    decayed = state[base + 1 : base + _STRIDE].view(np.float32)[_MONTHLY]
    return state[base] / _MONTH_SECONDS + (np.log2(decayed) if decayed > 0.0 else -1e9)


@njit("i8(f8[::1], i8)", cache=True, nogil=True)
def _claim(state, code):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the position of a zeroed counter for `code`, -1 where the record has to grow first."""
    keys = state[_KEYS:_ROWS].view(np.int32)
    used = int(state[COUNTERS])
    if used < COUNTER_KEYS_MAX:
        if _ROWS + (used + 1) * _STRIDE > len(state):
            return _NO_ROOM
        keys[used] = code
        state[COUNTERS] = used + 1
        return used
    weakest = 0
    for position in range(1, used):
        ahead = _strength(state, weakest) - _strength(state, position)
        if ahead > 0.0 or (ahead == 0.0 and keys[position] < keys[weakest]):
            weakest = position
    keys[weakest] = code
    state[_ROWS + weakest * _STRIDE : _ROWS + (weakest + 1) * _STRIDE] = 0.0
    return weakest


@njit("i8(f8[::1], i8, f8, f8)", cache=True, nogil=True)
def count(state, code, t, amount):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Count `amount` of `code` at `t`; return the counter's position, -1 where the record has to grow."""
    position = find_counter(state, code)
    if position < 0:
        position = _claim(state, code)
    if position >= 0:
        base = _ROWS + position * _STRIDE
        advance(state[base + 1 : base + _STRIDE].view(np.float32), state[base : base + 1], t, amount)
    return position


@njit("b1(f8[::1], i8, i8)", cache=True, nogil=True)
def is_stronger(state, one, other):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return whether category `one` leads `other`, compared at the same moment; ties go to the older code.

    All categories decay at the same rate, so their order changes only when one of them is counted: the
    leader is kept as events come, where seeking it among all took 40 µs a decision.
    """
    mine, theirs = find_counter(state, one), find_counter(state, other)
    if mine < 0 or theirs < 0:
        return theirs < 0
    a, b = _ROWS + mine * _STRIDE, _ROWS + theirs * _STRIDE
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
    own = state[_OWN : _KEYS - 1].view(np.int32)
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


@njit("b1(f8[::1], i8, i4[::1])", cache=True, nogil=True)
def _has_room(state, event, categories):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return whether the record has room for the counters that an event still lacks."""
    missing = 1 if find_counter(state, event) < 0 else 0
    for category in categories:
        missing += 1 if find_counter(state, category) < 0 else 0
    used = min(int(state[COUNTERS]) + missing, COUNTER_KEYS_MAX)
    return _ROWS + used * _STRIDE <= len(state)


@njit("void(f8[::1], i4[::1], f8)", cache=True, nogil=True)
def _count_categories(state, categories, t):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for category in categories:
        count(state, category, t, 1.0)
        leader = int(state[INTEREST])
        if leader != category and (leader < 0 or is_stronger(state, category, leader)):
            state[INTEREST] = category


@njit("i8(f8[::1], i8, i4[::1])", cache=True, nogil=True)
def _write_before(state, item, before):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write own items, newest first, without `item`; return how many."""
    own = state[_OWN : _KEYS - 1].view(np.int32)
    found = 0
    for position in range(int(state[OWN]) - 1, -1, -1):
        if found == len(before):
            break
        if own[position] != item:
            before[found] = own[position]
            found += 1
    return found


@njit("i8(f8[::1], f8, i8, i4[::1], i8, i4[::1], i8, b1, i4[::1])", cache=True, nogil=True)
def observe(  # type: ignore[no-untyped-def]  # noqa: ANN201, PLR0913, PLR0917, D417
    state,  # noqa: ANN001
    t,  # noqa: ANN001
    event,  # noqa: ANN001
    categories,  # noqa: ANN001
    categories_count,  # noqa: ANN001
    items,  # noqa: ANN001
    items_count,  # noqa: ANN001
    is_touched,  # noqa: ANN001
    before,  # noqa: ANN001
):
    """Fold one event; return how many items were written to `before`, -1 where the record has to grow.

    Args:
        state: The record; unchanged where it has to grow first.
        t: The event's own time, epoch seconds.
        event: Its code.
        categories: Codes of what it is about, the first `categories_count` of the array; distinct.
        items: Indices of the items that it names, the first `items_count`; -1 for one without an index.
        is_touched: Whether naming an item is an act of the visitor's (a report of what was shown is not).
        before: Out, for an event about a single item: as many of the own items before it as there is room
            for, newest first, without it.
    """
    categories, items = categories[:categories_count], items[:items_count]
    if not _has_room(state, event, categories):
        return _NO_ROOM
    observe_session(state, t)
    count(state, event, t, 1.0)
    _count_categories(state, categories, t)
    first = items[0] if items_count > 0 else -1
    _remember(state, t, event, first, categories[0] if categories_count > 0 else -1)
    if not is_touched:
        return 0
    # An order repeats what was added before; only single items say what followed what.
    found = _write_before(state, first, before) if items_count == 1 else 0
    for item in items:
        if item >= 0:
            _touch(state, item, event)
    return found


def recents(state: State) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return recent events, oldest first: times, shape (n,), and codes, (3, n): event, item, category."""
    size = int(state[RECENTS])
    codes = state[_CODES:_OWN].view(np.int32).reshape(3, _RING)
    return state[_TIMES : _TIMES + size], codes[:, :size]


def own_items(state: State) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the visitor's own items, newest first, and the code of the event that touched each last."""
    size = int(state.item(OWN))
    own = state[_OWN : _KEYS - 1].view(np.int32)
    return own[:size][::-1], own[_RING : _RING + size][::-1]


def counted(state: State) -> NDArray[np.int32]:
    """Return the codes that are counted, shape (counters,), in the order of their counters."""
    keys: NDArray[np.int32] = state[_KEYS:_ROWS].view(np.int32)[: int(state[COUNTERS])]
    return keys


def counter_rows(state: State) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return views of the counters' `last`, shape (counters,), and rows, shape (counters, ROW_WIDTH)."""
    table = state[_ROWS:].reshape(-1, _STRIDE)[: int(state[COUNTERS])]
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
    _settle_interest(state)
    return state


def _merge_recents(state: State, newer: State) -> None:
    times, codes = recents(newer)
    for t, (event, item, category) in zip(times.tolist(), codes.T.tolist(), strict=True):
        _remember(state, t, event, item, category)


@njit("i8(f8[::1], f8[::1], i8)", cache=True, nogil=True)
def _merge_counter(into, other, position):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    code = other[_KEYS:_ROWS].view(np.int32)[position]
    mine = find_counter(into, code)
    if mine < 0:
        mine = _claim(into, code)
    if mine >= 0:
        a, b = _ROWS + mine * _STRIDE, _ROWS + position * _STRIDE
        row = other[b + 1 : b + _STRIDE].copy()
        merge_row(into[a + 1 : a + _STRIDE].view(np.float32), into[a : a + 1], row.view(np.float32), other[b])
    return mine


@njit("void(f8[::1])", cache=True, nogil=True)
def _settle_interest(state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Find the primary interest among all categories that are counted."""
    keys = state[_KEYS:_ROWS].view(np.int32)
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
