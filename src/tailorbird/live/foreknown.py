"""What a fold must know of a log before its first record.

Links that were revoked, features that are counted.
"""

from tailorbird.live.revocations import revoked_in
from tailorbird.live.world import World
from tailorbird.schema.feature import FeaturesPut
from tailorbird.schema.records import KINDS, decode
from tailorbird.stores.log import Log

_FEATURES = KINDS[FeaturesPut]


def foreknow(world: World, log: Log, stop: int | None = None) -> None:
    """Tell an empty world what the log, up to `stop` or its end, says of the whole of it."""
    world.revocations.keep_apart(revoked_in(log, stop))
    declared = None
    for record in log.read(0, stop):
        if record.kind == _FEATURES:
            declared = decode(record.kind, record.payload)
    if isinstance(declared, FeaturesPut):
        world.features.count_for(declared)
