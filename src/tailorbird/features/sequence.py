"""Sequences in the recent events of one person: "viewed twice, then searched, within 2 days".

Steps are spelled out one event each, shape (steps, 3): the codes of event, item and category that an event
must have, -1 for any. The order is that of the events' own times, so an event that comes late counts in its
place.

One pass over the events keeps, for each number of steps done, the latest time at which that many can have
begun: the shortest sequence is the one whose beginning is the latest, so nothing else need be kept.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

NEVER = -np.inf
ANY = -1


@njit("f8(f8[:], i4[:, :], i8[:, ::1], f8, f8)", cache=True, nogil=True)
def _completed(times, codes, steps, within, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    count = len(steps)
    begun = np.full(count, -np.inf)
    found = -np.inf
    for place in range(len(times)):
        t = times[place]
        if t > at:
            break
        # From the last step to the first, so that one event is not two steps at once.
        for step in range(count - 1, -1, -1):
            is_it = codes[0, place] == steps[step, 0]
            for part in range(1, 3):
                is_it = is_it and (steps[step, part] == ANY or codes[part, place] == steps[step, part])
            if is_it:
                begin = t if step == 0 else begun[step - 1]
                if t - begin <= within:
                    begun[step] = begin
        if begun[count - 1] > -np.inf:
            found = t
            begun[count - 1] = -np.inf
    return found


def completed(
    recents: tuple[NDArray[np.float64], NDArray[np.int32]],
    steps: NDArray[np.int64],
    within_seconds: float,
    at: float,
) -> float:
    """Return when the newest sequence was completed, epoch seconds; `NEVER` where none was by `at`.

    Args:
        recents: Times, shape (events,), ascending, and codes, (3, events), as of `features.state.recents`.
        steps: Shape (steps, 3): event, item, category; `ANY` for any.
        within_seconds: From the first event of a sequence to its last.
        at: Events after it are left out.
    """
    times, codes = recents
    found: float = _completed(times, codes, steps, within_seconds, at)
    return found
