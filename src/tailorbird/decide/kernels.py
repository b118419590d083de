"""The arithmetic of a list, compiled: candidates with their constraints, then ranking and propensities.

In NumPy the same steps took some three hundred calls and 300 µs a list, nearly all of it overhead; here
they take about 15 µs. Both kernels work on the rows that the fold keeps (followers, popularity, stock)
and on scratch arrays of the catalogue's size that are left as they were found.

`find_candidates` walks the sources, in this order: the items that the request names, or else the visitor's
own, what follows them, and what is popular; each is taken once, if it is a member and no constraint
removes it, until the limit is reached. What a constraint removed is counted by its position in `REMOVED`.

`rank_list` lets every strategy make its list and keeps the drawn one. Slots for items from outside the
primary cluster are reserved, not drawn: a slot takes the best item of all while more slots than outside
items owed remain, and the best from outside from then on. So each strategy gives exactly one list, and
the propensity of a slot is the sum of the probabilities of the strategies that put the same item there.
"""

import numpy as np
from numba import njit

from tailorbird.rankers.popularity import HALF_LIFE_SECONDS
from tailorbird.schema.placement import Source

REMOVED = ("exclude", "excludePurchased", "frequencyCap", "stock", "dates")
SOURCES: tuple[Source, ...] = ("popularity", "covisitation", "recency")
"""The order of sources in a strategy's weights and in `leading`."""

_TICKS = 8  # Marks of one call: its tick plus 1 to 3 for what is blocked, plus 4 for what is taken.
_TAKEN = 4


@njit(
    "b1(i8, b1[:], i8[:], i8, i8[:], b1, f8[:], f8[:], f8)",
    cache=True,
    nogil=True,
)
def _is_free(item, is_member, marks, tick, stock, in_stock, published, expires, t):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0913
    """Return whether nothing removes an item that was not taken yet."""
    if not is_member[item] or marks[item] > tick or (in_stock and stock[item] == 0):
        return False
    return published[item] <= t < expires[item]


@njit(
    "f4(i4[:], f4[:], f4[:], b1, i8, b1[:], i8[:], i8, i8[:], b1, f8[:], f8[:], f8)",
    cache=True,
    nogil=True,
)
def _weakest_that_fits(  # type: ignore[no-untyped-def]  # noqa: ANN202, PLR0913
    followers,  # noqa: ANN001
    scores,  # noqa: ANN001
    recency,  # noqa: ANN001
    has_recency,  # noqa: ANN001
    room,  # noqa: ANN001
    is_member,  # noqa: ANN001
    marks,  # noqa: ANN001
    tick,  # noqa: ANN001
    stock,  # noqa: ANN001
    in_stock,  # noqa: ANN001
    published,  # noqa: ANN001
    expires,  # noqa: ANN001
    t,  # noqa: ANN001
):
    """Return the score of the `room`-th strongest follower that nothing removes, 0 where there are fewer.

    Selecting takes a third of the time of sorting some five hundred followers.
    """
    free = np.empty(len(followers), np.float32)
    size = 0
    for item in followers:
        if has_recency and recency[item] > 0.0:
            continue  # The visitor's own come first, and are taken by then.
        if _is_free(item, is_member, marks, tick, stock, in_stock, published, expires, t):
            free[size] = scores[item]
            size += 1
    if size < room:
        return np.float32(0.0)
    if room <= 0:
        return np.float32(np.inf)
    return np.partition(free[:size], size - room)[size - room]


@njit(
    "i8(i4[:], i8, i4[:,:], f4[:,:], i4[:], b1[:], i4[:], b1[:], i8, i8[:], f8[:], f8[:], f8,"
    " i4[:], i4[:], i4[:], f4[:], f4[:], i8[:], i8, i4[:], f4[:], f4[:], i8[:])",
    cache=True,
    nogil=True,
)
def find_candidates(  # type: ignore[no-untyped-def]  # noqa: ANN201, PLR0913, D417
    own,  # noqa: ANN001
    steps_back,  # noqa: ANN001
    followers,  # noqa: ANN001
    weights,  # noqa: ANN001
    popular,  # noqa: ANN001
    is_member,  # noqa: ANN001
    named,  # noqa: ANN001
    switches,  # noqa: ANN001
    limit,  # noqa: ANN001
    stock,  # noqa: ANN001
    published,  # noqa: ANN001
    expires,  # noqa: ANN001
    t,  # noqa: ANN001
    excluded,  # noqa: ANN001
    bought,  # noqa: ANN001
    capped,  # noqa: ANN001
    scores,  # noqa: ANN001
    recency,  # noqa: ANN001
    marks,  # noqa: ANN001
    tick,  # noqa: ANN001
    items,  # noqa: ANN001
    item_scores,  # noqa: ANN001
    item_recency,  # noqa: ANN001
    removed,  # noqa: ANN001
):
    """Write the candidates into `items` with their covisitation and recency; return how many.

    Args:
        own: The visitor's items, newest first.
        switches: Whether items are named, covisitation is a source, recency is one, stock counts.
        scores, recency, marks: Scratch of the catalogue's size; `marks` below `tick`, the others 0.
        removed: Counts by `REMOVED`, added to.
    """
    is_named, has_covisits, has_recency, in_stock = switches
    for position in range(len(own)):
        recency[own[position]] = 1.0 / (position + 1)
    touched = np.empty(steps_back * followers.shape[1], np.int32)
    found = 0
    if has_covisits:
        for position in range(min(len(own), steps_back)):
            row = own[position]
            total = np.float32(0.0)
            for slot in range(followers.shape[1]):
                total += weights[row, slot]
            if total <= 0.0:
                continue
            for slot in range(followers.shape[1]):
                item = followers[row, slot]
                if item == -1:
                    break
                if scores[item] == 0.0:
                    touched[found] = item
                    found += 1
                scores[item] += weights[row, slot] / total / np.float32(position + 1)
    for item in excluded:
        marks[item] = tick + 1
    for item in bought:
        marks[item] = tick + 2
    for item in capped:
        marks[item] = tick + 3
    order = touched[:found]
    # Not all may fit: then those weaker than the weakest that does are not looked at.
    least = np.float32(0.0)
    if found + len(own) > limit:
        room = limit
        if has_recency:
            for item in own:
                if _is_free(item, is_member, marks, tick, stock, in_stock, published, expires, t):
                    room -= 1
        least = _weakest_that_fits(
            order,
            scores,
            recency,
            has_recency,
            room,
            is_member,
            marks,
            tick,
            stock,
            in_stock,
            published,
            expires,
            t,
        )
    count = 0
    for source in range(5):
        if source == 0:
            pool = named
        elif source == 1:
            pool = own
        elif source <= 3:  # noqa: PLR2004
            pool = order
        else:
            pool = popular
        if (source == 0) != is_named or (source == 1 and not has_recency):
            continue
        for item in pool:
            if count >= limit and not is_named:
                break
            # Followers stronger than `least` all fit; of those just as strong, the first ones may.
            if source == 2 and scores[item] <= least:  # noqa: PLR2004
                continue
            if source == 3 and scores[item] != least:  # noqa: PLR2004
                continue
            if not is_member[item]:
                continue
            mark = marks[item] - tick
            if mark == _TAKEN:
                continue
            marks[item] = tick + _TAKEN
            if mark >= 1:
                removed[mark - 1] += 1
                continue
            if in_stock and stock[item] == 0:
                removed[3] += 1
                continue
            if t < published[item] or t >= expires[item]:
                removed[4] += 1
                continue
            items[count] = item
            item_scores[count] = scores[item]
            item_recency[count] = recency[item]
            count += 1
    for position in range(len(own)):
        recency[own[position]] = 0.0
    for position in range(found):
        scores[touched[position]] = 0.0
    return count


@njit(
    "void(i4[:], f4[:], f4[:], f8[:], f8[:], f8, f8[:,:], f8[:], i8, i4[:], i8, f8,"
    " i4[:], i4[:,:], f4[:,:], i8, i4[:], f8[:], f8[:], i8[:], i8[:])",
    cache=True,
    nogil=True,
)
def rank_list(  # type: ignore[no-untyped-def]  # noqa: ANN201, PLR0913, D417
    items,  # noqa: ANN001
    covisits,  # noqa: ANN001
    recency,  # noqa: ANN001
    popular,  # noqa: ANN001
    last,  # noqa: ANN001
    newest,  # noqa: ANN001
    strategies,  # noqa: ANN001
    probabilities,  # noqa: ANN001
    drawn,  # noqa: ANN001
    clusters,  # noqa: ANN001
    primary,  # noqa: ANN001
    share,  # noqa: ANN001
    own,  # noqa: ANN001
    followers,  # noqa: ANN001
    weights,  # noqa: ANN001
    steps_back,  # noqa: ANN001
    chosen,  # noqa: ANN001
    propensities,  # noqa: ANN001
    chosen_scores,  # noqa: ANN001
    leading,  # noqa: ANN001
    origins,  # noqa: ANN001
):
    """Write the drawn strategy's list.

    Args:
        items, covisits, recency: The candidates and their scores.
        popular, last, newest: Popularity by item, the time of each, and the time to compare at.
        strategies: Shape (strategies, 3): weights of `SOURCES`.
        probabilities: Each strategy's, shape (strategies,); `drawn` is the one that was drawn.
        primary: The visitor's primary cluster, -1 for none; `share`: of slots owed to others.
        chosen: Out: item of each slot, shape (slots,), at most as many as items.
        propensities, chosen_scores: Out: of each slot.
        leading: Out: index in `SOURCES` of what gave most of the score.
        origins: Out: position in `own` of the item that the chosen one follows most strongly.
    """
    n = len(items)
    slots = len(chosen)
    parts = np.zeros((3, n))
    outside = 0
    for i in range(n):
        item = items[i]
        parts[0, i] = popular[item] * 2.0 ** (-(newest - last[item]) / HALF_LIFE_SECONDS)
        parts[1, i] = covisits[i]
        parts[2, i] = recency[i]
        if clusters[item] != primary:
            outside += 1
    for source in range(3):
        top = 0.0
        for i in range(n):
            top = max(top, parts[source, i])
        if top > 0.0:
            for i in range(n):
                parts[source, i] /= top
    owed_all = 0
    if primary >= 0:
        owed_all = min(int(np.ceil(share * slots - 1e-9)), outside)
    mine = np.full(slots, -1, np.int32)
    theirs = np.full(slots, -1, np.int32)
    score = np.zeros(n)
    order = 0
    for turn in range(len(strategies)):
        # The drawn one goes first, so that the others can be compared with it.
        strategy = drawn if turn == 0 else order
        if turn > 0:
            if order == drawn:
                order += 1
                strategy = order
            order += 1
            if probabilities[strategy] == 0.0:
                continue
        for i in range(n):
            score[i] = (
                strategies[strategy, 0] * parts[0, i]
                + strategies[strategy, 1] * parts[1, i]
                + strategies[strategy, 2] * parts[2, i]
            )
        taken = np.zeros(n, np.bool_)
        owed = owed_all
        into = mine if turn == 0 else theirs
        for slot in range(slots):
            must_be_outside = owed >= slots - slot
            best = -1
            for i in range(n):
                if taken[i] or (must_be_outside and clusters[items[i]] == primary):
                    continue
                if (
                    best < 0
                    or score[i] > score[best]
                    or (
                        score[i] == score[best]
                        and (
                            parts[0, i] > parts[0, best]
                            or (parts[0, i] == parts[0, best] and items[i] < items[best])
                        )
                    )
                ):
                    best = i
            taken[best] = True
            into[slot] = best
            if owed > 0 and clusters[items[best]] != primary:
                owed -= 1
            if turn == 0:
                chosen_scores[slot] = score[best]
        for slot in range(slots):
            if turn == 0 or mine[slot] == theirs[slot]:
                propensities[slot] += probabilities[strategy]
    for slot in range(slots):
        best = mine[slot]
        chosen[slot] = items[best]
        strongest = 0.0
        leading[slot] = 0
        for source in range(3):
            given = strategies[drawn, source] * parts[source, best]
            if given > strongest:
                strongest = given
                leading[slot] = source
        origins[slot] = 0
        if leading[slot] == 1:
            strongest = -1.0
            for position in range(min(len(own), steps_back)):
                row = own[position]
                total = 0.0
                link = 0.0
                for other in range(followers.shape[1]):
                    total += weights[row, other]
                    if followers[row, other] == items[best]:
                        link = weights[row, other]
                if total > 0.0 and link / total / (position + 1) > strongest:
                    strongest = link / total / (position + 1)
                    origins[slot] = position
