"""Computed attributes: from a fitted model and the present rows to what each person gets.

What is computed is a number for each person, for spend also the segment it lies in. A model answers only
for the very features that it learned from, and only if it beat its baseline.
"""

import lightgbm
import numpy as np
from numpy.typing import NDArray

from tailorbird.errors import ConflictError, Fault, InvalidInputError
from tailorbird.schema.computed import ComputedModel, ComputedValue, LifetimeValue
from tailorbird.segment.calibration import calibrated
from tailorbird.segment.fitting import Matrix, check_layout, predicted


def compute(model: ComputedModel, matrix: Matrix, names: tuple[str, ...]) -> NDArray[np.float64]:
    """Return what the model says of each row, shape (n,): probabilities, or expected spend.

    Args:
        model: One that was accepted.
        matrix: Features as of now, float32 of shape (n, d).
        names: Of its d columns.

    Raises:
        ConflictError: The model did not beat its baseline, so it is not to be served.
        InvalidInputError: The features are not those that it learned from.
    """
    key = model.attribute.key
    if not model.is_accepted:
        raise ConflictError(f"{key}: the model is not served: {model.reason}")
    check_layout(matrix, names)
    if names != model.features:
        raise InvalidInputError(Fault(key, *_other_layout(model.features, names)))
    if not len(matrix):
        return np.zeros(0)
    return calibrated(predicted(lightgbm.Booster(model_str=model.trees), matrix), model.calibration)


def computed_values(model: ComputedModel, values: NDArray[np.float64], t: float) -> list[ComputedValue]:
    """Return what each person gets, in the order of `values`, computed as of `t` (epoch seconds)."""
    version = model.version
    segments = segments_of(model, values)
    return [
        ComputedValue(value, segment, version, t)
        for value, segment in zip(values.tolist(), segments, strict=True)
    ]


def segments_of(model: ComputedModel, values: NDArray[np.float64]) -> list[str] | list[None]:
    """Return the segment that each value lies in; None where the attribute has none."""
    if not isinstance(model.attribute, LifetimeValue):
        return [None] * len(values)
    names = [segment.name for segment in model.attribute.segments]
    return [names[index] for index in np.searchsorted(model.segment_edges, values, side="right")]


def _other_layout(learned: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, str]:
    """Return the rule that another layout breaks, and the first column that differs."""
    rule = (
        f"the features must be the {len(learned)} that the model learned from, in their order; fit it again"
    )
    pairs = enumerate(zip(learned, given, strict=False))
    first = next((f"column {index} is {b!r}, not {a!r}" for index, (a, b) in pairs if a != b), "")
    return rule, first or f"{len(given)} features"
