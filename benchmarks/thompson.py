"""Exact Thompson propensities: how fast, how exact, and how much faster than NumPy and SciPy.

    python -m benchmarks.thompson [--json] [--fast] [--check]

Figures, each a median over batches, in microseconds, at 10 arms and at 100:

    update    one arm's posterior moves; all probabilities again
    cached    nothing moved since
    scratch   all arms new: the first decision after a start
    learn     one exposure counted in the sums; then a decision, with floor, caps and draw
    decide    a decision where nothing moved, with floor, caps and draw
    floor     `update` in NumPy and SciPy: rows kept likewise, on equal steps in the logit

`error` is the largest absolute error of any probability over random and hard cases with 2 to 100
arms and alphas and betas from 0.3 to 1e6. The reference is Gauss-Legendre with 20 nodes between
each two of all arms' quantiles, with SciPy's incomplete beta function.
"""

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy import special

from benchmarks.report import main
from tailorbird.policies.base import PolicyState, decided, exposed, rewarded
from tailorbird.policies.mixing import draw, with_floors_and_caps
from tailorbird.policies.quadrature import BestProbabilities, best_probabilities
from tailorbird.policies.union import probabilities
from tailorbird.schema.placement import Thompson

Vector = NDArray[np.float64]
ARMS = (10, 100)
ARM_COUNTS = (2, 3, 5, 10, 30, 100)
RATE = 0.05
SEED = 20


def measure(_folder: Path, *, is_fast: bool) -> dict[str, float]:
    """Return every figure by name."""
    batches, cases = (15, 12) if is_fast else (60, 60)
    figures: dict[str, float] = {}
    for arms in ARMS:
        for name, act, size in actions(arms):
            figures[f"{name}_us_{arms}_arms"] = median_us(act, batches, size)
    figures["error"] = max(error(*case) for case in posteriors(cases))
    figures["floor_error"] = max(floor_error(*case) for case in typical(5))
    return figures


def median_us(act: Callable[[int], object], batches: int, size: int) -> float:
    """Return the median over batches of the mean time of `act`, in microseconds."""
    steps = count()
    act(next(steps))
    times = []
    for _ in range(batches):
        started = time.perf_counter_ns()
        for _ in range(size):
            act(next(steps))
        times.append((time.perf_counter_ns() - started) / size / 1e3)
    return round(float(np.median(times)), 3)


def actions(arms: int) -> Iterator[tuple[str, Callable[[int], object], int]]:
    """Yield the name of each figure, what to time, and how often in a batch."""
    generator = np.random.default_rng(SEED)
    tried = generator.integers(500, 5_000, arms)
    alphas = 1.0 + generator.binomial(tried, RATE)
    betas = 1.0 + tried - alphas
    cache, floor = BestProbabilities(), ScipyQuadrature(alphas, betas)

    def update(step: int) -> Vector:
        betas[step % arms] += 1.0
        return cache.compute(alphas, betas)

    def update_floor(step: int) -> Vector:
        betas[step % arms] += 1.0
        return floor.compute(alphas, betas, step % arms)

    yield "update", update, 200
    yield "cached", lambda _: cache.compute(alphas, betas), 1_000
    yield "scratch", lambda _: best_probabilities(alphas, betas), 20
    yield "floor", update_floor, 5
    yield from whole_decisions(arms, tried, alphas)


def whole_decisions(
    arms: int, tried: NDArray[np.int64], alphas: Vector
) -> Iterator[tuple[str, Callable[[int], object], int]]:
    """Yield the figures that go through the sums and the draw, as a decision does."""
    ids = tuple(f"variant-{arm}" for arm in range(arms))
    state, cache, caps = PolicyState(), BestProbabilities(), np.full(arms, 0.9)
    for arm, times, alpha in zip(ids, tried, alphas, strict=True):
        for trial in range(times):
            decided(state, arm)
            exposed(state, arm, is_rewarded=False)
            if trial < alpha - 1.0:
                rewarded(state, arm, is_exposed=True, value=1.0)
    uniforms = np.random.default_rng(SEED).random(4096).tolist()

    def decide(step: int) -> int:
        said = probabilities(Thompson(), state, ids, "auto", cache)
        return draw(with_floors_and_caps(said, 0.1 / arms, caps), uniforms[step % 4096])

    def learn(step: int) -> int:
        exposed(state, ids[step % arms], is_rewarded=False)
        return decide(step)

    yield "learn", learn, 200
    yield "decide", decide, 500


class ScipyQuadrature:
    """The same integral as one would write it with NumPy and SciPy: the floor to compare with."""

    def __init__(self, alphas: Vector, betas: Vector, steps: int = 200) -> None:
        x = np.concatenate([special.betaincinv(alphas, betas, q) for q in (1e-8, 1.0 - 1e-8)])
        self._u = np.linspace(special.logit(x.min()), special.logit(x.max()), steps)
        self._x = special.expit(self._u)
        rows = [self._row(alpha, beta) for alpha, beta in zip(alphas, betas, strict=True)]
        self._density, self._below = (np.array(row) for row in zip(*rows, strict=True))

    def compute(self, alphas: Vector, betas: Vector, moved: int) -> Vector:
        """Return the probabilities after arm `moved` did."""
        self._density[moved], self._below[moved] = self._row(alphas[moved], betas[moved])
        ones = np.ones((1, len(self._u)))
        before = np.cumprod(np.concatenate([ones, self._below[:-1]]), axis=0)
        after = np.cumprod(np.concatenate([ones, self._below[:0:-1]]), axis=0)[::-1]
        found: Vector = np.trapezoid(self._density * before * after, self._u, axis=1)
        return found / found.sum()

    def _row(self, alpha: float, beta: float) -> tuple[Vector, Vector]:
        logs = alpha * np.log(self._x) + beta * np.log1p(-self._x) - special.betaln(alpha, beta)
        return np.exp(logs), special.betainc(alpha, beta, self._x)


def typical(cases: int) -> Iterator[tuple[Vector, Vector]]:
    """Yield posteriors with like numbers of trials: the ones that equal steps can handle."""
    generator = np.random.default_rng(SEED)
    for _ in range(cases):
        tried = generator.integers(500, 5_000, generator.choice(ARMS))
        alphas = 1.0 + generator.binomial(tried, RATE)
        yield alphas, 2.0 + tried - alphas


def posteriors(cases: int) -> Iterator[tuple[Vector, Vector]]:
    """Yield hard cases, then random ones."""
    fresh = np.ones(1)
    yield np.ones(100), np.ones(100)
    yield np.full(100, 0.3), np.full(100, 0.3)
    yield np.append(fresh, np.full(9, 5e3)), np.append(fresh, np.full(9, 95e3))
    yield np.append(fresh, 5e3 + 70.0 * np.arange(99)), np.append(fresh, np.full(99, 1e6))
    yield np.array([500.0, 1.0]), np.array([500.0, 1e5])
    yield np.array([1e6, 1e6 + 1e3, 1e4, 100, 1]), np.array([1e6, 1e6, 1e4, 100, 1])
    yield np.array([0.3, 0.3, 1.0, 1e6]), np.array([1e6, 1e5, 1e6, 0.3])
    yield from typical(5)
    generator = np.random.default_rng(SEED)
    for case in range(cases):
        yield random_posteriors(generator, int(generator.choice(ARM_COUNTS)), case % 3)


def random_posteriors(generator: np.random.Generator, arms: int, kind: int) -> tuple[Vector, Vector]:
    """Return arms of any scale, arms of any scale with nearly one rate, or nearly new ones."""
    if kind == 0:
        alphas, betas = 10.0 ** generator.uniform(-0.52, 6.0, (2, arms))
    elif kind == 1:
        tried = 10.0 ** generator.uniform(0.5, 6.0, arms)
        rate = generator.uniform(0.01, 0.99)
        spread = np.sqrt(rate * (1.0 - rate) / tried)
        rates = np.clip(rate + spread * generator.normal(size=arms), 0.001, 0.999)
        alphas, betas = tried * rates, tried * (1.0 - rates)
    else:
        alphas, betas = generator.uniform(0.3, 4.0, (2, arms))
    return np.clip(alphas, 0.3, 1e6), np.clip(betas, 0.3, 1e6)


def error(alphas: Vector, betas: Vector) -> float:
    """Return the largest absolute error of any arm."""
    return float(np.abs(best_probabilities(alphas, betas) - reference(alphas, betas)).max())


def floor_error(alphas: Vector, betas: Vector) -> float:
    """Return the same of the floor."""
    found = ScipyQuadrature(alphas, betas).compute(alphas, betas, moved=0)
    return float(np.abs(found - reference(alphas, betas)).max())


def reference(alphas: Vector, betas: Vector) -> Vector:
    """Return P(best) by Gauss-Legendre between all arms' quantiles, on the logit axis."""
    u, weights = reference_axis(alphas, betas)
    x, y = special.expit(u), special.expit(-u)
    log_x, log_y = special.log_expit(u), special.log_expit(-u)
    rows = list(zip(alphas, betas, strict=True))
    below = [np.where(x < 0.5, special.betainc(a, b, x), special.betaincc(b, a, y)) for a, b in rows]
    before, after = [np.ones_like(u)], [np.ones_like(u)]
    for row in below[:-1]:
        before.append(before[-1] * row)
    for row in below[:0:-1]:
        after.append(after[-1] * row)
    density = [np.exp(a * log_x + b * log_y - special.betaln(a, b)) for a, b in rows]
    products = zip(density, before, reversed(after), strict=True)
    found = np.array([weights @ (f * left * right) for f, left, right in products])
    assert abs(found.sum() - 1.0) < 1e-7, "the reference missed something"
    return found / found.sum()


def reference_axis(alphas: Vector, betas: Vector, panels_max: int = 250) -> tuple[Vector, Vector]:
    """Return nodes and weights, 20 between each two of (at most `panels_max` of) the quantiles."""
    tails = np.concatenate([10.0 ** np.arange(-13.0, -1.0), np.linspace(0.05, 0.95, 10)])[:, None]
    lower, upper = (
        special.betaincinv(alphas, betas, tails),
        special.betaincinv(betas, alphas, tails),
    )
    edges = np.concatenate([special.logit(lower).ravel(), -special.logit(upper).ravel()])
    least = special.logit(lower[0]).max()  # Below it no arm is the best.
    edges = np.unique(edges[np.isfinite(edges) & (edges >= least)])
    if len(edges) > panels_max:
        edges = edges[np.linspace(0, len(edges) - 1, panels_max).astype(int)]
    nodes, weights = legendre.leggauss(20)
    middle, half = (edges[1:] + edges[:-1]) / 2.0, (edges[1:] - edges[:-1]) / 2.0
    return (middle[:, None] + half[:, None] * nodes).ravel(), (half[:, None] * weights).ravel()


if __name__ == "__main__":
    main("thompson", __doc__, measure)
