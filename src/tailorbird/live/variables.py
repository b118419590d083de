"""Variables of a profile: the one place where features are read, for decisions, segments, models and views.

What a visitor refuses is missing here, whatever asks: a definition's variables by its purpose, and what is
counted without being declared by that of personalization. So is what the fold does not keep yet.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailorbird.features.program import DEFAULT_PURPOSE, Program, Refuses
from tailorbird.features.state import new_state
from tailorbird.features.surroundings import lenient_context
from tailorbird.features.view import common_features, feature, features, is_counted_name
from tailorbird.live.world import World
from tailorbird.schema.clusters import Cluster
from tailorbird.schema.events import Event
from tailorbird.schema.profile import Profile


def refuses(profile: Profile | None, purpose: str, *, gpc_opts_out: bool) -> bool:
    """Return whether a person does not want to be known for a purpose."""
    if profile is None:
        return False
    allowed = profile.consent.get(purpose)
    # A signal given in a browser holds until the person says otherwise by name.
    return allowed is False or (allowed is None and profile.gpc and gpc_opts_out)


def refusals(world: World, profile: Profile | None) -> Refuses:
    """Return a function that tells to which purposes a person says no."""
    gpc_opts_out = world.gpc_opts_out
    return lambda purpose: refuses(profile, purpose, gpc_opts_out=gpc_opts_out)


def vector(
    world: World, profile: Profile | None, at: float, context: Mapping[str, Any] | None = None
) -> NDArray[np.float32]:
    """Return all variables of a profile as of `at`, in the order of `World.features.reading.names`.

    Args:
        world: Whose features are declared, and whose words they are about.
        profile: Whose; None for somebody of whom nothing is known.
        at: Epoch seconds.
        context: What a request says of its surroundings.

    Returns:
        float32, shape (variables,); nan where missing.
    """
    event = None
    if context:
        event = Event(type="", message_id="", context=lenient_context(dict(context)))
    sets = world.features
    found = sets.reading.vector(profile, at, refusals(world, profile), event)
    if len(sets.unfolded):
        found[sets.unfolded] = np.nan
    return found


def stranger(world: World, at: float, context: Mapping[str, Any]) -> Profile:
    """Return what is presumed of a visitor of whom nothing is known but what the request says."""
    profile = Profile(id="", assignment_key="", state=new_state(at))
    program = world.features.counting
    if program.priors and context:
        program.presume(profile, Event("", "", context=lenient_context(dict(context))), at)
    return profile


class Reader:
    """Reads variables of one profile at one moment by name; the whole vector at most once."""

    def __init__(self, world: World, profile: Profile, at: float) -> None:
        self._world = world
        self._profile = profile
        self._at = at
        self._vector: NDArray[np.float32] | None = None

    def read(self, name: str) -> float | None:
        """Return one variable; None for one that is missing, or that there is not."""
        world, profile = self._world, self._profile
        program = world.features.reading
        slot = program.index.get(name)
        if slot is None:
            if refuses(profile, DEFAULT_PURPOSE, gpc_opts_out=world.gpc_opts_out):
                return None
            return feature(profile.state, world.vocabulary, name, self._at)
        if self._vector is None:
            value = self._alone(program, slot)
            if value is not None:
                return None if math.isnan(value) else value
            self._vector = vector(world, profile, self._at)
        value = self._vector.item(slot)
        return None if math.isnan(value) else value

    def is_variable(self, name: str) -> bool:
        """Return whether a name is that of a variable, missing or not: no trait stands in for one."""
        world = self._world
        return name in world.features.reading.index or is_counted_name(name)

    def _alone(self, program: Program, slot: int) -> float | None:
        purpose = program.purposes[slot]
        if refuses(self._profile, purpose, gpc_opts_out=self._world.gpc_opts_out):
            return math.nan
        if len(self._world.features.unfolded):
            return None
        return program.value(self._profile, slot, self._at)


def by_name(world: World, profile: Profile, at: float) -> dict[str, float]:
    """Return every variable of a profile that is not missing: those declared, and what else it counted."""
    program = world.features.reading
    values = vector(world, profile, at).tolist()
    declared = {
        name: value for name, value in zip(program.names, values, strict=True) if not math.isnan(value)
    }
    if refuses(profile, DEFAULT_PURPOSE, gpc_opts_out=world.gpc_opts_out):
        return declared
    counted = features(profile.state, world.vocabulary, at)
    return {name: value for name, value in counted.items() if name not in program.index} | declared


def short_names(world: World, profile: Profile, at: float) -> dict[str, float]:
    """Return the variables that have short names, seen or not: `views_7d` is 0.0 for a newcomer."""
    if refuses(profile, DEFAULT_PURPOSE, gpc_opts_out=world.gpc_opts_out):
        return {}
    return common_features(profile.state, world.vocabulary, at)


def cluster_of(world: World, profile: Profile, at: float) -> Cluster | None:
    """Return the model segment that a person is in as of `at`, None for none."""
    if world.clusters.model is None or refuses(profile, DEFAULT_PURPOSE, gpc_opts_out=world.gpc_opts_out):
        return None
    program = world.features.reading
    return world.clusters.of(vector(world, profile, at), program.names, program.version)
