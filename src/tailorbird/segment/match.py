"""Which cluster of a new model is which one of the last: so that a name goes on meaning the same people.

Where it is known what the last model told each visitor, clusters are the same when their members overlap.
Where it is not, when their profiles lie close: mean z over the variables that both models have, each
standardised by its own model, so that a season in which everybody buys more moves nobody. Each pairing is one
to one and the best in sum (Kuhn 1955), and a pair that is too weak is none.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from tailorbird.schema.clusters import ClusterModel
from tailorbird.segment.assigner import Labels
from tailorbird.segment.space import Doubles, Floats, unpack

OVERLAP_MIN = 0.4  # Jaccard index: some 57 % of either's members are the other's too.
DISTANCE_MAX = 0.5  # Of the way to the nearest other cluster: beyond half, it would be that one.


def matched_by_members(
    labels: Labels, count: int, memberships: Sequence[str | None], ids: Sequence[str]
) -> dict[int, int]:
    """Return the old cluster's index by the new one's.

    Args:
        labels: The new cluster of each visitor, 0 to `count` - 1, or NONE; shape (people,).
        count: New clusters.
        memberships: The id of the old cluster of each visitor; ids that are not in `ids` count as none.
        ids: Of the old clusters.
    """
    place = {old: index for index, old in enumerate(ids)}
    before = np.array([place.get(old, len(ids)) if old is not None else len(ids) for old in memberships])
    after = np.where(labels < 0, count, labels)
    both = np.zeros((count + 1, len(ids) + 1))
    np.add.at(both, (after, before), 1.0)
    either = both.sum(axis=1, keepdims=True) + both.sum(axis=0, keepdims=True) - both
    overlap = both[:-1, :-1] / np.maximum(either[:-1, :-1], 1.0)
    return _paired(-overlap, overlap >= OVERLAP_MIN)


def matched_by_profiles(profiles: Floats, variables: Sequence[str], previous: ClusterModel) -> dict[int, int]:
    """Return the old cluster's index by the new one's; without a shared variable there is none.

    Args:
        profiles: Mean z of each new cluster, shape (clusters, variables).
        variables: Their names.
        previous: The last model.
    """
    is_shared = np.isin(variables, previous.space.variables)
    if not is_shared.any() or not len(profiles) or not previous.clusters:
        return {}
    new, old = profiles[:, is_shared], carried(previous, variables)[:, is_shared]
    apart = _distances(new, old)
    between = _distances(old, old)
    np.fill_diagonal(between, np.inf)
    # An only cluster has the whole space around it: a visitor's distance from the mean of all.
    room = np.minimum(between.min(axis=1), np.sqrt(is_shared.sum()))
    return _paired(apart, apart <= DISTANCE_MAX * room)


def carried(previous: ClusterModel, variables: Sequence[str]) -> Floats:
    """Return the profiles of the last model's clusters over `variables`; 0, the mean, where it lacks one."""
    place = {name: column for column, name in enumerate(previous.space.variables)}
    columns = np.array([place.get(name, len(place)) for name in variables])
    shape = (len(place),)
    rows = [
        np.append(unpack(found.profile, shape, f"clusters[{found.id}].profile"), np.float32(0.0))
        for found in previous.clusters
    ]
    return np.array(rows, np.float32).reshape(-1, len(place) + 1)[:, columns]


def _paired(cost: Doubles, is_allowed: NDArray[np.bool_]) -> dict[int, int]:
    """Return the cheapest allowed pairing; a forbidden pair costs more than any sum of allowed ones."""
    worst = 1.0 + np.abs(cost).sum()
    rows, columns = linear_sum_assignment(np.where(is_allowed, cost, worst))
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {row: column for row, column in pairs if is_allowed[row, column]}


def _distances(left: Floats, right: Floats) -> Doubles:
    apart = left[:, None, :].astype(np.float64) - right
    lengths: Doubles = np.sqrt(np.einsum("ijk,ijk->ij", apart, apart))
    return lengths
