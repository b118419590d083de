"""Units of the readout: which moments a visitor is counted in at a placement."""

from tailorbird.live.table import Table
from tailorbird.live.world import ArmsMoments, World, moments_key
from tailorbird.schema.profile import AtPlacement


def moments_of(world: World, placement: str, at: AtPlacement) -> list[ArmsMoments]:
    """Return the moments that hold a unit, to change: of each of its segments, and last the placement's."""
    own = _of(world.moments, placement)
    if not at.segments:
        return [own]
    return [*[_of(world.moments_in, moments_key(placement, key)) for key in at.segments], own]


def _of(table: Table[ArmsMoments], key: str) -> ArmsMoments:
    moments = table.change(key)
    if moments is None:
        table.put(key, moments := ArmsMoments())
    return moments
