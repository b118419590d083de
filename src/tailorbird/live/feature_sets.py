"""The features of an installation in its state: those that the fold counts for, and those that are read.

Which counters the fold keeps must be known before its first record, or what came before would be missing: a
fold from the start looks for the last declaration in the log (`live.foreknown`). What is *read* is what was
declared last. Where that needs counters which this fold does not keep, the state is stale: the log is folded
again beside the traffic, and until then the variables concerned read as missing. A change that needs none
(another window, a ratio of two counts, a definition less) holds at once.
"""

import numpy as np
from numpy.typing import NDArray

from tailorbird.features.program import NO_FEATURES, Program
from tailorbird.features.vocabulary import Vocabulary
from tailorbird.live.table import Table
from tailorbird.schema.feature import FeaturesPut

COUNTED, DECLARED = "counted", "declared"


class FeatureSets:
    """Both sets of one state.

    Attributes:
        counting: What the fold keeps counters for.
        reading: What is declared, and read.
        unfolded: Places of the variables of `reading` that need counters which are not kept.
    """

    def __init__(self, table: Table[FeaturesPut], vocabulary: Vocabulary) -> None:
        self._table = table
        self._vocabulary = vocabulary
        self.counting = Program(table.get(COUNTED) or NO_FEATURES, vocabulary)
        declared = table.get(DECLARED)
        same = declared is None or declared == self.counting.put
        self.reading = self.counting if same else Program(declared or NO_FEATURES, vocabulary)
        self.unfolded: NDArray[np.int64] = np.zeros(0, np.int64)
        self._compare()

    @property
    def is_declared(self) -> bool:
        """Return whether features were ever declared here."""
        return self.reading.put is not NO_FEATURES

    @property
    def is_stale(self) -> bool:
        """Return whether the state has to be folded again for what is declared to be right."""
        return self.is_declared and self.reading.needs != self.counting.needs

    def count_for(self, put: FeaturesPut) -> None:
        """Fold with the counters that `put` needs; said before the first record."""
        self.counting = Program(put, self._vocabulary)
        self._table.put(COUNTED, put)
        self._compare()

    def fold(self, put: FeaturesPut, *, is_first: bool) -> None:
        """Take note of a declaration; `is_first` says that nothing was folded before it."""
        if is_first and self.counting.put is NO_FEATURES:
            self.count_for(put)
        self.reading = Program(put, self._vocabulary)
        self._table.put(DECLARED, put)
        if not self.is_stale:
            self.counting = self.reading
            self._table.put(COUNTED, put)
        self._compare()

    def _compare(self) -> None:
        kept = {*self.counting.needs}
        self.unfolded = np.array(
            [slot for slot, needs in enumerate(self.reading.needs_of) if not kept.issuperset(needs)], np.int64
        )
