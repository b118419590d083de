"""The clusters in force, and which one a visitor is in: told when asked, from the variables of that moment.

What tells it is a stage (`segment.assigner`), which this room may not import: the composition root hands it
over.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tailorbird.errors import InvalidInputError
from tailorbird.live.table import Table
from tailorbird.schema.clusters import Cluster, ClusterModel

Assign = Callable[[NDArray[np.float32]], str | None]
"""Returns the id of the cluster of one visitor's variables, None for none."""
Prepare = Callable[[ClusterModel, tuple[str, ...]], Assign]
"""Makes a model ready for variables of these names."""

_KEY = "clusters"


class ModelSegments:
    """The cluster model of one state."""

    def __init__(self, table: Table[ClusterModel]) -> None:
        self._table = table
        self.model = table.get(_KEY)
        self.prepare: Prepare | None = None
        """Given by whoever may import what tells clusters; without it nobody is in any."""
        self._assign: Assign | None = None
        self._ready_for = ""

    def put(self, model: ClusterModel) -> None:
        """Take over the clusters that were found last."""
        self._table.put(_KEY, model)
        self.model = model
        self._ready_for = ""

    def of(self, variables: NDArray[np.float32], names: tuple[str, ...], layout: str) -> Cluster | None:
        """Return the cluster that variables lie in; None for none, or where the model knows others."""
        if self.model is None or self.prepare is None:
            return None
        if self._ready_for != layout:
            self._ready_for = layout
            try:
                self._assign = self.prepare(self.model, names)
            except InvalidInputError:
                self._assign = None  # Other features are declared: until the next fit nobody is in any.
        if self._assign is None:
            return None
        found = self._assign(np.nan_to_num(variables, nan=0.0))
        return next((cluster for cluster in self.model.clusters if cluster.id == found), None)
