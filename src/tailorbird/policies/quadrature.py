"""P(arm is best) for independent Beta posteriors: the exact propensity of Thompson sampling.

Reads the posteriors' alphas and betas, writes probabilities. No random numbers and no clock: the
answer is a pure function of its input, bit for bit, so a decision replays exactly after a restart.

The idea. Thompson sampling shows arm k with probability `p_k = ∫ f_k(u) Π_{j≠k} F_j(u) du`
(Thompson 1933; Russo et al. 2018, "A Tutorial on Thompson Sampling"): a one-dimensional integral.

* In `u = log(x / (1 - x))` the Beta density is `x^alpha (1-x)^beta / B(alpha, beta)`: smooth and
  log-concave, without the poles that it has in x where alpha or beta is under 1. Its mode is
  `log(alpha / beta)`, its scale there `sqrt(1/alpha + 1/beta)`.
* The line is cut into panels of eight Gauss-Legendre nodes. A panel is at most `PANEL_WIDTH` scales
  of the narrowest arm that has mass at or right of it, but may grow with the distance from that
  arm's mode. So arms of 10^5 trials and new ones share an axis of some 100 nodes, where equal steps
  would need 10^5.
* Left of the highest of the arms' left ends the best arm cannot lie, so the axis begins there. The
  distribution functions are summed from the right, where every arm's mass has ended.
* Densities and distribution functions are kept by arm. When one arm moves, only its row is computed
  again. The products are taken from both sides, so nothing is divided by a small number.
* What an arm asks of the axis (mode, ends, scale) is rounded outward to a lattice: the axis seldom
  changes while an arm learns, and still depends on the alphas and betas only.

Rows, so that the products of one panel run through memory in order:

    rows[0, panel, arm, node]   density times quadrature weight
    rows[1, panel, arm, node]   distribution function

Measured by `python -m benchmarks.thompson`: absolute errors under 1e-7 over alphas and betas from
0.3 to 1e6 and up to 100 arms; where one arm moved, some 5 µs at 10 arms and 20 µs at 100.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit, types
from numpy.polynomial import legendre
from numpy.typing import NDArray

from tailorbird.errors import Fault, InvalidInputError

PANEL_WIDTH = 2.0
"""Width of a panel, in scales of the narrowest arm in it: errors near 1e-7 at 10 arms and 100."""
PANEL_GROWTH = 0.25
"""An arm's panels may be this fraction of the distance from its mode; tails are smooth there."""
TAIL_NATS = 16.0
"""An arm ends where its density is exp(-16), about 1e-7, of its peak."""
SUM_ERROR_MAX = 1e-4
"""Where the unnormalised probabilities miss 1 by more, panels are halved."""
REFINEMENTS_MAX = 3
PARAMETER_MIN = 1e-6
PARAMETER_MAX = 1e12
"""Parameters are moved to these bounds; past them doubles lose the digits that the answer needs."""

_NODES = 8
_PANELS_FIRST = 24
_NEWTON_STEPS = 4
_SERIES_FROM = 8.0
_EXPONENT_MAX = 50.0
_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def best_probabilities(alphas: NDArray[np.float64], betas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability of each arm that its success rate is the highest, from scratch.

    Args:
        alphas: Beta parameter of successes, shape (arms,), positive and finite.
        betas: Beta parameter of failures, shape (arms,), positive and finite.

    Returns:
        Probabilities, shape (arms,), each in [0, 1], summing to 1 within 1e-12; read-only.

    Raises:
        InvalidInputError: The shapes differ, or a parameter is not positive and finite.

    >>> best_probabilities(np.array([1.0, 1.0]), np.array([1.0, 2.0])).round(6)
    array([0.666667, 0.333333])
    """
    return BestProbabilities().compute(alphas, betas)


class BestProbabilities:
    """`best_probabilities` with a memory: only what moved since the last call is computed again.

    Same input, same bits, whatever was computed before. One instance serves one placement and one
    thread at a time.
    """

    __slots__ = ("_panel_width", "_probabilities", "_seen", "_work")

    def __init__(self, panel_width: float = PANEL_WIDTH) -> None:
        self._panel_width = panel_width
        self._work = _work(arms=0, panels=_PANELS_FIRST)
        self._seen = (b"", b"")
        self._probabilities: NDArray[np.float64] = np.empty(0)

    def compute(self, alphas: NDArray[np.float64], betas: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what `best_probabilities` returns, and raise what it raises.

        The array returned never changes; while nothing moves it is the same one.
        """
        alphas = np.ascontiguousarray(alphas, np.float64)
        betas = np.ascontiguousarray(betas, np.float64)
        if alphas.shape != betas.shape or alphas.shape != self._probabilities.shape:
            _check_shapes(alphas, betas)
            self._forget(len(alphas))
        seen = (alphas.tobytes(), betas.tobytes())
        if seen != self._seen:
            self._probabilities = self._moved(alphas, betas)
            self._seen = seen
        return self._probabilities

    def _moved(self, alphas: NDArray[np.float64], betas: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the new probabilities, on finer panels where these do not sum to 1."""
        probabilities = np.empty(len(alphas))
        total = self._update(alphas, betas, probabilities)
        if abs(total - 1.0) > SUM_ERROR_MAX and self._panel_width > _PANEL_WIDTH_MIN:
            return BestProbabilities(self._panel_width / 2.0).compute(alphas, betas)
        probabilities.flags.writeable = False
        return probabilities

    def _update(
        self,
        alphas: NDArray[np.float64],
        betas: NDArray[np.float64],
        probabilities: NDArray[np.float64],
    ) -> float:
        """Fill `probabilities`; make room and begin again where the axis outgrew its arrays."""
        total: float = _update(alphas, betas, self._panel_width, self._work, probabilities)
        if total == _INVALID:
            raise InvalidInputError(*_faults("alphas", alphas), *_faults("betas", betas))
        if total < _INVALID:
            self._work = _work(len(alphas), panels=-round(total))
            total = _update(alphas, betas, self._panel_width, self._work, probabilities)
        return total

    def _forget(self, arms: int) -> None:
        """Make room for `arms` arms, none of which has been seen."""
        self._work = _work(arms, panels=len(self._work.edges) - 1)
        self._seen = (b"", b"")
        self._probabilities = np.empty(arms)


class _Work(NamedTuple):
    """What is kept between calls, with room for `panels` panels."""

    needs: NDArray[np.float64]
    """Posterior of each arm and what it asks of the axis, shape (arms, 6); NaN: not yet seen."""
    edges: NDArray[np.float64]
    """Ends of the panels, shape (panels + 1,); infinite after the last."""
    axis: NDArray[np.float64]
    """log x and log (1 - x) at the nodes, shape (2, panels, 8)."""
    rows: NDArray[np.float64]
    """As drawn above, shape (2, panels, arms, 8)."""


def _work(arms: int, panels: int) -> _Work:
    return _Work(
        needs=np.full((arms, 6), np.nan),
        edges=np.full(panels + 1, np.nan),
        axis=np.empty((2, panels, _NODES)),
        rows=np.empty((2, panels, arms, _NODES)),
    )


def _check_shapes(alphas: NDArray[np.float64], betas: NDArray[np.float64]) -> None:
    if alphas.ndim != 1 or alphas.shape != betas.shape:
        rule = "must be one-dimensional, of the shape of betas"
        raise InvalidInputError(Fault("alphas", rule, (alphas.shape, betas.shape)))


def _faults(name: str, parameters: NDArray[np.float64]) -> list[Fault]:
    return [
        Fault(f"{name}[{arm}]", "must be positive and finite", parameter)
        for arm, parameter in enumerate(parameters.tolist())
        if not 0.0 < parameter < math.inf
    ]


def _panel_rules() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and weights on [-1, 1], and what each value adds to integrals right of a node.

    Row j, column i of the last is the integral from node i to 1 of the polynomial that is 1 at node
    j and 0 at the others, by its Legendre expansion.
    """
    nodes, weights = legendre.leggauss(_NODES)
    values = legendre.legvander(nodes, _NODES)
    orders = np.arange(1, _NODES)
    right = np.empty((_NODES, _NODES))  # ∫ of P_n from node i to 1, times (2n + 1) / 2.
    right[:, 0] = (1.0 - nodes) / 2.0
    right[:, 1:] = (values[:, orders - 1] - values[:, orders + 1]) / 2.0
    return nodes, weights, weights[:, None] * (values[:, :_NODES] @ right.T)


_GAUSS_NODES, _GAUSS_WEIGHTS, _RIGHT_OF_NODE = _panel_rules()
_PANEL_WIDTH_MIN = PANEL_WIDTH / 2.0**REFINEMENTS_MAX
_INVALID = -1.0

# Columns of an arm's needs: the posterior that they are of, and what it asks of the axis.
_ALPHA, _BETA, _MODE, _LEFT, _RIGHT, _WIDTH = range(6)

_Table = NDArray[np.float64]
_Function = TypeVar("_Function", bound=Callable[..., Any])
_real, _index = types.float64, types.int64
_read_vector = types.Array(_real, 1, "C", readonly=True)
_vector, _table, _cube, _rows = (types.Array(_real, dimensions, "C") for dimensions in (1, 2, 3, 4))
_kept = types.NamedTuple((_table, _vector, _cube, _rows), _Work)  # type: ignore[no-untyped-call]


def _compiled(signature: Any) -> Callable[[_Function], _Function]:  # noqa: ANN401
    """Compile for one signature, now or from the cache on disk: never within a request."""
    decorator: Callable[[_Function], _Function] = njit(signature, cache=True, nogil=True, error_model="numpy")
    return decorator


@_compiled(_real(_real))
def _stirling_error(z: float) -> float:
    """Return log gamma(z) less Stirling's formula for it (Loader 2000, `stirlerr`)."""
    if z < _SERIES_FROM:
        return math.lgamma(z) - ((z - 0.5) * math.log(z) - z + _HALF_LOG_TWO_PI)
    square = z * z
    return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * square)) / square) / square) / z


@_compiled(_real(_real, _real))
def _log_normaliser(alpha: float, beta: float) -> float:
    """Return -log B(alpha, beta), small terms first, so that no digits are lost to large ones.

    Source: Loader (2000), "Fast and accurate computation of binomial probabilities".
    """
    size = alpha + beta
    errors = _stirling_error(size) - _stirling_error(alpha) - _stirling_error(beta)
    root = 0.5 * math.log(alpha * (beta / size)) - _HALF_LOG_TWO_PI
    return errors + root + alpha * math.log1p(beta / alpha) + beta * math.log1p(alpha / beta)


@_compiled(types.UniTuple(_real, 2)(_real, _real))  # type: ignore[no-untyped-call]
def _bounded(alpha: float, beta: float) -> tuple[float, float]:
    """Return the parameters within bounds; too large ones shrink together and keep the mean."""
    shrink = min(1.0, PARAMETER_MAX / max(alpha, beta))
    return max(alpha * shrink, PARAMETER_MIN), max(beta * shrink, PARAMETER_MIN)


@_compiled(_real(_real, _real))
def _reach(toward: float, away: float) -> float:
    """Return how far from the mode the density has fallen by `TAIL_NATS`, or a little farther.

    Toward the right `toward` is alpha and `away` is beta; toward the left, the reverse. The fall is
    `n (log(1 + q (e^d - 1)) - q d)` with `n = toward + away` and `q = toward / n`; the same, for
    large q, is `n (log(1 + r (e^-d - 1)) + r d)` with `r = 1 - q`. It is convex in the distance d,
    so each step of Newton's ends at or beyond the root.
    """
    size = toward + away
    share, rest = toward / size, away / size
    curvature = toward * rest
    distance = 2.0 * math.log1p(0.5 * math.sqrt(2.0 * TAIL_NATS / curvature))
    for _ in range(_NEWTON_STEPS):
        if toward >= away:
            change = math.expm1(-distance)
            fall = size * (math.log1p(rest * change) + rest * distance)
            slope = -curvature * change / (1.0 + rest * change)
        elif distance < _EXPONENT_MAX:
            change = math.expm1(distance)
            fall = size * (math.log1p(share * change) - share * distance)
            slope = curvature * change / (1.0 + share * change)
        else:
            fall = size * math.log(share) + away * distance
            slope = away
        distance -= (fall - TAIL_NATS) / slope
    return distance


@_compiled(types.void(_vector, _real, _real, _real))
def _set_need(need: _Table, alpha: float, beta: float, panel_width: float) -> None:
    """Write what a posterior asks of the axis, on a lattice of its own scale."""
    need[_ALPHA], need[_BETA] = alpha, beta
    alpha, beta = _bounded(alpha, beta)
    # A half more keeps panels within reach of the density's poles at ±iπ, however few the trials.
    scale = math.sqrt(1.0 / (alpha + 0.5) + 1.0 / (beta + 0.5))
    width = panel_width * math.sqrt(2.0 ** math.floor(2.0 * math.log2(scale)))
    mode = math.log(alpha / beta)
    need[_MODE] = math.floor(mode / width + 0.5) * width
    need[_LEFT] = math.floor((mode - _reach(beta, alpha)) / width) * width
    need[_RIGHT] = math.ceil((mode + _reach(alpha, beta)) / width) * width
    need[_WIDTH] = width


@_compiled(_index(_table, _vector))
def _walk(needs: _Table, edges: _Table) -> int:
    """Lay panels from left to right into `edges`; return how many, even if it holds fewer.

    Each panel is 3e-7 or wider and they grow with distance: no input asks for more than some 1,000.
    """
    edge, end = needs[0, _LEFT], needs[0, _RIGHT]
    for arm in range(1, len(needs)):
        edge = max(edge, needs[arm, _LEFT])
        end = max(end, needs[arm, _RIGHT])
    edges[:] = math.inf
    edges[0] = edge
    panels = 0
    while edge < end:
        width = math.inf
        for arm in range(len(needs)):
            if needs[arm, _RIGHT] > edge:
                growing = PANEL_GROWTH * abs(edge - needs[arm, _MODE])
                width = min(width, max(needs[arm, _WIDTH], growing))
        edge += width
        panels += 1
        if panels < len(edges):
            edges[panels] = edge
    return panels


@_compiled(types.void(_vector, _index, _cube))
def _set_axis(edges: _Table, panels: int, axis: _Table) -> None:
    """Write log x and log (1 - x) at the nodes of every panel."""
    for panel in range(panels):
        middle = 0.5 * (edges[panel] + edges[panel + 1])
        half = 0.5 * (edges[panel + 1] - edges[panel])
        for node in range(_NODES):
            u = middle + half * _GAUSS_NODES[node]
            smaller = -math.log1p(math.exp(-abs(u)))
            axis[0, panel, node] = min(u, 0.0) + smaller
            axis[1, panel, node] = min(-u, 0.0) + smaller


@_compiled(_real(_real, _real, _real, _real))
def _mass_beyond(u: float, alpha: float, beta: float, log_normaliser: float) -> float:
    """Return the mass right of `u`, far right of the mode: density over its logarithm's slope."""
    smaller = -math.log1p(math.exp(-abs(u)))
    log_x, log_y = min(u, 0.0) + smaller, min(-u, 0.0) + smaller
    slope = beta * math.exp(log_x) - alpha * math.exp(log_y)
    return math.exp(alpha * log_x + beta * log_y + log_normaliser) / slope


@_compiled(types.void(_index, _kept, _index))
def _set_row(arm: int, work: _Work, panels: int) -> None:
    """Write an arm's density and distribution function, from right to left."""
    needs, edges, axis, rows = work
    alpha, beta = _bounded(needs[arm, _ALPHA], needs[arm, _BETA])
    log_normaliser = _log_normaliser(alpha, beta)
    above = _mass_beyond(edges[panels], alpha, beta, log_normaliser)
    density = np.empty(_NODES)
    right = np.empty(_NODES)
    for panel in range(panels - 1, -1, -1):
        half = 0.5 * (edges[panel + 1] - edges[panel])
        for node in range(_NODES):
            exponent = alpha * axis[0, panel, node] + beta * axis[1, panel, node]
            density[node] = half * math.exp(exponent + log_normaliser)
            right[node] = above
        for source in range(_NODES):
            for node in range(_NODES):
                right[node] += _RIGHT_OF_NODE[source, node] * density[source]
        for node in range(_NODES):
            rows[0, panel, arm, node] = _GAUSS_WEIGHTS[node] * density[node]
            rows[1, panel, arm, node] = min(1.0, max(0.0, 1.0 - right[node]))
            above += _GAUSS_WEIGHTS[node] * density[node]


@_compiled(_real(_rows, _index, _vector))
def _combine(rows: _Table, panels: int, probabilities: _Table) -> float:
    """Write the normalised probabilities; return what they summed to before.

    The eight nodes of a panel are eight lanes of the processor, added up in one order at the end.
    """
    arms = rows.shape[2]
    sums = np.zeros((arms, _NODES))
    after = np.ones((arms, _NODES))  # Product of the distribution functions of all later arms.
    before = np.empty(_NODES)  # The same of all earlier arms.
    for panel in range(panels):
        for arm in range(arms - 1, 0, -1):
            for node in range(_NODES):
                after[arm - 1, node] = after[arm, node] * rows[1, panel, arm, node]
        before[:] = 1.0
        for arm in range(arms):
            for node in range(_NODES):
                sums[arm, node] += rows[0, panel, arm, node] * (before[node] * after[arm, node])
                before[node] *= rows[1, panel, arm, node]
    total = 0.0
    for arm in range(arms):
        probabilities[arm] = sums[arm].sum()
        total += probabilities[arm]
    for arm in range(arms):
        probabilities[arm] /= total
    return float(total)


@_compiled(types.boolean(_read_vector, _read_vector))
def _are_valid(alphas: _Table, betas: _Table) -> bool:
    """Tell whether every parameter is positive and finite."""
    for arm in range(len(alphas)):
        if not (0.0 < alphas[arm] < math.inf and 0.0 < betas[arm] < math.inf):
            return False
    return True


@_compiled(_real(_read_vector, _read_vector, _real, _kept, _vector))
def _update(alphas: _Table, betas: _Table, panel_width: float, work: _Work, probabilities: _Table) -> float:
    """Bring `work` up to date with `alphas` and `betas` and write `probabilities`.

    Returns the unnormalised sum, `_INVALID` (nothing was touched), or, below that, minus the number
    of panels that `work` must have room for (call again with a fresh one).
    """
    if not _are_valid(alphas, betas):
        return _INVALID
    needs, edges = work.needs, work.edges
    moved = np.zeros(len(alphas), np.bool_)
    for arm in range(len(alphas)):
        if not (needs[arm, _ALPHA] == alphas[arm] and needs[arm, _BETA] == betas[arm]):
            moved[arm] = True
            _set_need(needs[arm], alphas[arm], betas[arm], panel_width)
    laid = np.empty(len(edges))
    panels = _walk(needs, laid)
    if panels >= len(edges):
        return -float(panels)
    if not (laid == edges).all():
        edges[:] = laid
        _set_axis(edges, panels, work.axis)
        moved[:] = True
    for arm in range(len(alphas)):
        if moved[arm]:
            _set_row(arm, work, panels)
    return _combine(work.rows, panels, probabilities)
