"""The space that clusters are looked for in: from a thousand sparse, heavy-tailed variables to a few scores.

Counts, decayed counts, seconds and money span five orders of magnitude and are mostly zero. So, in this
order: variables that hardly vary are dropped (standardised, one visitor in a thousand would stand 30
deviations out); sign(x) log(1 + |x|), then standardised, then clipped, so that no single visitor founds a
cluster; of variables that say the same one is kept, so that ten windows of one counter do not count tenfold;
then principal components.

The components come from the exact correlation matrix, which is summed over blocks of rows: at this width it
costs less than a randomised decomposition would, needs no generator, and holds one block in memory. Kept
are those whose variance is beyond what uncorrelated variables would show by chance, (1 + sqrt(p / n))^2,
the upper edge of Marchenko and Pastur (1967), and never more than the settings allow: telling a visitor's
cluster is a product with a (p, components) matrix. Windows of one counter go together without telling kinds
of visitors apart, and give a long flat tail of components. So a component of variance v is weighed by
sqrt(1 - w / v), with w the variance of the first that is not kept: the shrinkage of probabilistic principal
components (Tipping and Bishop 1999), with the tail taken as the noise.

Imports NumPy alone: `assigner.py` rests on it, and that runs while a visitor waits.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.schema.clusters import Dropped, Space

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LIMIT = 5.0  # Standard deviations. Of the logarithm: beyond are a few in a thousand even of counts.
RARE_SHARE, RARE_PEOPLE = 0.005, 5  # At 0.5 %, a one-hot's ones stand 14 deviations out, before clipping.
DUPLICATE_CORRELATION = 0.98
COMPONENTS_MIN = 6  # Up to six variables, as recency, frequency and money, are all kept.

_NOTHING = 1e-6  # Of the largest variance.
_ROWS = 4096  # 17 MiB of float32 at 1,100 variables; a few such blocks are held at once.
_STRIP = 64  # Columns whose medians are taken together.
_STORED = np.dtype("<f4")


class Projection:
    """A space, ready for rows whose columns are `names`."""

    def __init__(self, space: Space, names: Sequence[str]) -> None:
        """Find the variables of `space` among `names`.

        Raises:
            InvalidInputError: A variable is not among the names, or the space's arrays do not fit together.
        """
        place = {name: column for column, name in enumerate(names)}
        missing = [name for name in space.variables if name not in place]
        if missing:
            raise InvalidInputError(Fault("names", "must hold every variable of the model", missing))
        self._variables = space.variables
        count = len(space.variables)
        self._columns = np.array([place[name] for name in space.variables], np.intp)
        self._means = unpack(space.means, (count,), "space.means")
        scales = unpack(space.scales, (count,), "space.scales")
        if not (scales > 0.0).all():
            raise InvalidInputError(Fault("space.scales", "must be positive", float(scales.min())))
        self._rates = 1.0 / scales
        self._limit = np.float32(space.limit)
        self._axes = unpack(space.axes, (count, -1), "space.axes")
        self._offset = unpack(space.offset, (self._axes.shape[1],), "space.offset")

    @property
    def variables(self) -> tuple[str, ...]:
        """Return the space's variables, in their order."""
        return self._variables

    @property
    def components(self) -> int:
        """Return how many scores a visitor has."""
        return int(self._axes.shape[1])

    def chosen(self, rows: Floats) -> Floats:
        """Return the space's variables of `rows`, which have one column a name; shape (..., p)."""
        return rows.take(self._columns, axis=-1)

    def standardised(self, rows: Floats) -> Floats:
        """Return z of `rows`, shape (..., p)."""
        z = signed_log(self.chosen(rows))
        z -= self._means
        z *= self._rates
        return z.clip(-self._limit, self._limit, out=z)

    def scores(self, rows: Floats) -> Floats:
        """Return the scores of `rows`, shape (..., components)."""
        return self.along(self.standardised(rows))

    def along(self, z: Floats) -> Floats:
        """Return the scores of standardised rows."""
        scores: Floats = z @ self._axes
        scores -= self._offset
        return scores

    def scores_of_all(self, matrix: Floats) -> Floats:
        """Return the scores of a large matrix, a block of rows at a time."""
        scores = np.empty((len(matrix), self.components), np.float32)
        for rows in blocks(len(matrix)):
            scores[rows] = self.scores(matrix[rows])
        return scores


def fit_space(matrix: Floats, names: Sequence[str], components_max: int) -> tuple[Space, tuple[Dropped, ...]]:
    """Return the space of visitors' variables, and the variables that are not in it.

    Args:
        matrix: Shape (people, variables), finite.
        names: One a column.
        components_max: The most scores that a visitor may have.

    Raises:
        InvalidInputError: No variable varies.
    """
    moments = _moments(matrix)
    dropped = dict(_still(matrix, names, moments))
    varying = [column for column, name in enumerate(names) if name not in dropped]
    if not varying:
        raise InvalidInputError(
            Fault("matrix", "must hold a variable that differs between visitors", len(names))
        )
    means, covariance = _covariance(matrix, varying, moments)
    kept, duplicates = _distinct(covariance, [names[column] for column in varying])
    chosen = [varying[index] for index in kept]
    axes, explained = _axes(covariance[np.ix_(kept, kept)], len(matrix), components_max)
    space = Space(
        variables=tuple(names[column] for column in chosen),
        means=pack(moments.means[chosen]),
        scales=pack(moments.deviations[chosen]),
        limit=LIMIT,
        axes=pack(axes),
        offset=pack(means[kept] @ axes),
        explained=explained,
    )
    left_out = dropped | duplicates
    return space, tuple(left_out[name] for name in names if name in left_out)


def signed_log(values: Floats) -> Floats:
    """Return sign(x) log(1 + |x|), which keeps zeros and tames tails.

    >>> signed_log(np.array([0.0, -1.0, 1e6], np.float32)).round(2).tolist()
    [0.0, -0.6899999976158142, 13.8199996948...]
    """
    return np.copysign(np.log1p(np.abs(values)), values)


def blocks(count: int) -> Iterator[slice]:
    """Return the slices that cut `count` rows into blocks."""
    return (slice(start, start + _ROWS) for start in range(0, count, _ROWS))


def pack(values: NDArray[np.floating]) -> bytes:
    """Return an array as the records of a model hold it."""
    return values.astype(_STORED).tobytes()


def unpack(data: bytes, shape: tuple[int, ...], path: str) -> Floats:
    """Return the array of a model's record.

    Raises:
        InvalidInputError: The bytes do not fill the shape, or a number is not finite; `path` names the field.
    """
    try:
        values = np.frombuffer(data, _STORED).reshape(shape).astype(np.float32)
    except ValueError as error:
        rule = f"must hold float32 numbers of shape {shape}"
        raise InvalidInputError(Fault(path, rule, f"{len(data)} bytes")) from error
    if not np.isfinite(values).all():
        raise InvalidInputError(Fault(path, "must be finite"))
    return values


class _Moments(NamedTuple):
    """Of sign(x) log(1 + |x|), each of shape (variables,)."""

    means: Doubles
    deviations: Doubles


def _moments(matrix: Floats) -> _Moments:
    total, square = np.zeros((2, matrix.shape[1]))
    for rows in blocks(len(matrix)):
        logs = signed_log(matrix[rows]).astype(np.float64)
        total += logs.sum(axis=0)
        square += np.einsum("ij,ij->j", logs, logs)
    means = total / len(matrix)
    return _Moments(means, np.sqrt(np.maximum(square / len(matrix) - means**2, 0.0)))


def _still(matrix: Floats, names: Sequence[str], moments: _Moments) -> Iterator[tuple[str, Dropped]]:
    """Yield what does not vary, or only for a few, by name."""
    others_min = max(RARE_SHARE * len(matrix), RARE_PEOPLE)
    for start in range(0, len(names), _STRIP):
        strip = np.ascontiguousarray(matrix[:, start : start + _STRIP].T)
        others = (strip != np.median(strip, axis=1, keepdims=True)).sum(axis=1)
        for column, count in enumerate(others, start):
            name = names[column]
            # What float32 cannot tell from its mean, such as money in the billions, is constant too.
            if count == 0 or moments.deviations[column] <= 1e-5 * (1.0 + abs(moments.means[column])):
                yield name, Dropped(name, "constant")
            elif count < others_min:
                yield name, Dropped(name, "rare")


def _covariance(matrix: Floats, columns: list[int], moments: _Moments) -> tuple[Doubles, Doubles]:
    """Return the mean and the covariance of z over the columns; clipping has moved both a little."""
    means = moments.means[columns].astype(np.float32)
    rates = (1.0 / moments.deviations[columns]).astype(np.float32)
    total, product = np.zeros(len(columns)), np.zeros((len(columns), len(columns)))
    for rows in blocks(len(matrix)):
        z = np.clip((signed_log(matrix[rows][:, columns]) - means) * rates, -LIMIT, LIMIT)
        total += z.sum(axis=0, dtype=np.float64)
        product += z.T @ z
    mean = total / len(matrix)
    return mean, product / len(matrix) - np.outer(mean, mean)


def _distinct(covariance: Doubles, names: list[str]) -> tuple[list[int], dict[str, Dropped]]:
    """Return the columns of which no earlier one says the same, and the others by name."""
    deviations = np.sqrt(covariance.diagonal())
    alike = np.abs(covariance) >= DUPLICATE_CORRELATION * np.outer(deviations, deviations)
    kept: list[int] = []
    duplicates: dict[str, Dropped] = {}
    for column, name in enumerate(names):
        same = alike[column, kept].nonzero()[0]
        if same.size:
            duplicates[name] = Dropped(name, "duplicate", names[kept[same[0]]])
        else:
            kept.append(column)
    return kept, duplicates


def _axes(covariance: Doubles, people: int, components_max: int) -> tuple[Doubles, float]:
    """Return weighed principal axes, shape (p, components), and the share of variance along them.

    An axis has no direction; its largest entry is made positive, so that a fit gives the same one again.
    """
    variances, vectors = np.linalg.eigh(covariance)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    count = len(covariance)
    edge = variances.mean() * (1.0 + np.sqrt(count / people)) ** 2
    real = max(int((variances > edge).sum()), COMPONENTS_MIN)
    # An axis along which nothing varies, such as that of a sum beside its parts, would hold rounding alone.
    components = min(real, components_max, int((variances > _NOTHING * variances[0]).sum()))
    axes, kept = vectors[:, :components], variances[:components]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(components)])
    noise = max(variances[components], 0.0) if components < count else 0.0
    weights = np.sqrt(1.0 - noise / kept)
    return axes * signs * weights, float(kept.sum() / variances.sum())
