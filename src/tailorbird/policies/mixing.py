"""From a policy's probabilities to those that are drawn from and logged, and the draw itself.

Floors mix in, then caps clip. Both are part of the logged propensity; the draw reads nothing else.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.schema.placement import Placement

SUM_TOLERANCE = 1e-9


def mixed_for(
    placement: Placement, arms: Sequence[str], probabilities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a policy's distribution over `arms` with the floor and the caps that a placement declares."""
    caps = {variant.id: variant.cap for variant in placement.variants}
    return with_floors_and_caps(
        probabilities, placement.floor, np.array([caps.get(arm, 1.0) for arm in arms])
    )


def with_floors_and_caps(
    probabilities: NDArray[np.float64], floor: float, caps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a policy's distribution with no arm under its floor or over its cap.

    Args:
        probabilities: What the policy says, shape (arms,), a distribution.
        floor: Each arm's least probability f, in [0, 1]. With K arms, `p = f + (1 - K f) w`; where
            more than 1 / f arms are eligible, each gets 1 / K.
        caps: Each arm's largest probability, shape (arms,), in [0, 1].

    Returns:
        A distribution, shape (arms,). What a cap cuts off goes to the arms under theirs, in
        proportion to what they have. A cap under the floor wins. Where all caps together leave less
        than 1, they are raised in proportion; caps that are all zero are not heeded.

    Raises:
        InvalidInputError: The shapes differ, or a number is out of its range.

    >>> with_floors_and_caps(np.array([0.7, 0.2, 0.1]), 0.1, np.array([0.5, 1.0, 1.0])).round(4)
    array([0.5   , 0.2927, 0.2073])
    """
    probabilities = np.ascontiguousarray(probabilities, np.float64)
    caps = np.ascontiguousarray(caps, np.float64)
    mixed = np.empty(len(probabilities))
    is_vector = probabilities.ndim == 1 and probabilities.shape == caps.shape
    if not is_vector or not _mix(probabilities, float(floor), caps, mixed):
        raise InvalidInputError(*_faults(probabilities, floor, caps))
    return mixed


def draw(probabilities: Sequence[float], uniform: float) -> int:
    """Return the arm that `uniform`, in [0, 1), falls on: the inverse distribution function.

    An arm of probability 0 is never returned; what rounding leaves over at the end falls on the
    last arm that has any.

    Raises:
        InvalidInputError: `uniform` is outside [0, 1), or no arm has a probability.

    >>> [draw([0.0, 0.5, 0.5, 0.0], uniform) for uniform in (0.0, 0.5, 1.0 - 2.0**-53)]
    [1, 2, 2]
    """
    if not 0.0 <= uniform < 1.0:
        raise InvalidInputError(Fault("uniform", "must be in [0, 1)", uniform))
    below, last = 0.0, -1
    for arm, probability in enumerate(probabilities):
        if probability > 0.0:
            below += probability
            last = arm
            if uniform < below:
                return arm
    if last < 0:
        raise InvalidInputError(Fault("probabilities", "must hold a positive one", probabilities))
    return last


def _faults(probabilities: NDArray[np.float64], floor: float, caps: NDArray[np.float64]) -> list[Fault]:
    """Return what is wrong with input that was refused."""
    faults = []
    if probabilities.ndim != 1 or probabilities.shape != caps.shape:
        shapes = (probabilities.shape, caps.shape)
        faults.append(Fault("caps", "must be one-dimensional, as long as probabilities", shapes))
    if not (np.all(probabilities >= 0.0) and abs(probabilities.sum() - 1.0) <= SUM_TOLERANCE):
        rule = "must be zero or more and sum to 1"
        faults.append(Fault("probabilities", rule, probabilities.tolist()))
    if not 0.0 <= floor <= 1.0:
        faults.append(Fault("floor", "must be in [0, 1]", floor))
    if not np.all((caps >= 0.0) & (caps <= 1.0)):
        faults.append(Fault("caps", "must be in [0, 1]", caps.tolist()))
    return faults


_Vector = NDArray[np.float64]
_Function = TypeVar("_Function", bound=Callable[..., Any])
_real = types.float64
_vector = types.Array(_real, 1, "C")
_read_vector = types.Array(_real, 1, "C", readonly=True)


def _compiled(signature: Any) -> Callable[[_Function], _Function]:  # noqa: ANN401
    """Compile for one signature, now or from the cache on disk: never within a request."""
    decorator: Callable[[_Function], _Function] = njit(signature, cache=True, nogil=True, error_model="numpy")
    return decorator


@_compiled(types.boolean(_read_vector, _real, _read_vector))
def _are_valid(probabilities: _Vector, floor: float, caps: _Vector) -> bool:
    """Tell whether every number is in its range; NaN is in none."""
    total = 0.0
    for arm in range(len(probabilities)):
        if not (probabilities[arm] >= 0.0 and 0.0 <= caps[arm] <= 1.0):
            return False
        total += probabilities[arm]
    return abs(total - 1.0) <= SUM_TOLERANCE and 0.0 <= floor <= 1.0


@_compiled(types.void(_vector, _read_vector))
def _fill(shares: _Vector, caps: _Vector) -> None:
    """Clip `shares` at `caps` and hand on what is cut off; caps sum to more than 1.

    Each round but the last clips an arm that was not clipped before: at most as many as arms.
    """
    for _ in range(len(shares)):
        excess, free, room = 0.0, 0.0, 0.0
        for arm in range(len(shares)):
            if shares[arm] >= caps[arm]:
                excess += shares[arm] - caps[arm]
                shares[arm] = caps[arm]
            else:
                free += shares[arm]
                room += caps[arm] - shares[arm]
        if excess <= 0.0 or room <= 0.0:
            return
        for arm in range(len(shares)):
            if shares[arm] < caps[arm]:
                if free > 0.0:
                    shares[arm] += excess * (shares[arm] / free)
                else:  # Nobody under a cap has a share to go by: by the room left.
                    shares[arm] += excess * ((caps[arm] - shares[arm]) / room)


@_compiled(types.boolean(_read_vector, _real, _read_vector, _vector))
def _mix(probabilities: _Vector, floor: float, caps: _Vector, mixed: _Vector) -> bool:
    """Write the mixed probabilities; return False, and write nothing, where input is invalid."""
    if not _are_valid(probabilities, floor, caps):
        return False
    arms = len(probabilities)
    floor = min(floor, 1.0 / arms)
    for arm in range(arms):
        mixed[arm] = floor + (1.0 - arms * floor) * probabilities[arm]
    room = caps.sum()
    if room > 1.0:
        _fill(mixed, caps)
    elif room > 0.0:
        for arm in range(arms):
            mixed[arm] = caps[arm] / room
    return True
