"""What every policy shares: the sums that it learns from.

A policy answers one question: given these sums, with what probability is each arm to be shown? It
draws nothing and keeps nothing. Sums of two logs add up to the sums of both, in any order.
"""

from copy import copy

import msgspec


class ArmSums(msgspec.Struct, gc=False):
    """What was seen of one arm: a commutative monoid under field-wise addition."""

    decided: int = 0
    """Times it was drawn."""
    exposed: int = 0
    """Of those, times that it was reported as shown."""
    rewarded_decided: int = 0
    """Decisions whose goal was reached, shown or not."""
    rewarded_exposed: int = 0
    """Of the exposed decisions, those whose goal was reached."""
    value: float = 0.0
    """Sum of the values of the counted outcomes."""


class PolicyState(msgspec.Struct, gc=False):
    """Sums by arm, and the copy of them that decisions are made from.

    Probabilities are computed from `published`, which follows `arms` at once when an outcome is
    counted, and else when trials have grown by `PUBLISH_SHARE`: with thousands of trials one more
    changes nothing but the last digits. It follows the sums alone, so folding the log again gives
    the same copy at the same offset. `version` counts the copies.
    """

    arms: dict[str, ArmSums] = {}
    version: int = 0
    published: dict[str, ArmSums] = {}
    counted: int = 0
    """Decisions and exposures counted."""
    unpublished: int = 0
    """Of those, how many `published` does not know."""


PUBLISH_SHARE = 64
"""A new copy when one in so many trials is new: below 64 trials, with each."""


def trials(sums_by_arm: dict[str, ArmSums], arms: tuple[str, ...], learn_from: str) -> list[tuple[int, int]]:
    """Return (trials, successes) for each arm; an arm that was never seen has (0, 0).

    With `learn_from` "auto" the trials are exposures as soon as one exposure of any arm is known,
    so that a site that never reports exposures still learns, and one that does is not misled by
    decisions that nobody saw.
    """
    by_exposure = learn_from == "exposures" or (
        learn_from == "auto" and any(sums.exposed for sums in sums_by_arm.values())
    )
    seen = [sums_by_arm.get(arm, _NOTHING) for arm in arms]
    if by_exposure:
        return [(sums.exposed, sums.rewarded_exposed) for sums in seen]
    return [(sums.decided, sums.rewarded_decided) for sums in seen]


_NOTHING = ArmSums()


def decided(state: PolicyState, arm: str) -> None:
    """Count that a decision drew `arm`.

    Of each decision this, `exposed` and `rewarded` are to be counted at most once each; in whatever
    order they come, the sums are the same.
    """
    _sums(state, arm).decided += 1
    _counted(state)


def exposed(state: PolicyState, arm: str, *, is_rewarded: bool) -> None:
    """Count that a decision for `arm` was shown; `is_rewarded`: its goal is already counted."""
    sums = _sums(state, arm)
    sums.exposed += 1
    sums.rewarded_exposed += is_rewarded
    if is_rewarded:
        state.counted += 1
        publish(state)
    else:
        _counted(state)


def rewarded(state: PolicyState, arm: str, *, is_exposed: bool, value: float) -> None:
    """Count that a decision for `arm` reached its goal; `is_exposed`: its exposure is counted.

    `value` is what the outcome is worth, in the unit of the goal.
    """
    sums = _sums(state, arm)
    sums.rewarded_decided += 1
    sums.rewarded_exposed += is_exposed
    sums.value += value
    publish(state)


def merged(a: PolicyState, b: PolicyState) -> PolicyState:
    """Return the sums of both, as if one had seen all that either saw; neither is changed."""
    return PolicyState(
        arms=_merged_sums(a.arms, b.arms),
        version=a.version + b.version,
        published=_merged_sums(a.published, b.published),
        counted=a.counted + b.counted,
        unpublished=a.unpublished + b.unpublished,
    )


def publish(state: PolicyState) -> None:
    """Let decisions be made from the sums as they are now."""
    state.version += 1
    state.unpublished = 0
    state.published = {arm: copy(sums) for arm, sums in state.arms.items()}


def _counted(state: PolicyState) -> None:
    state.counted += 1
    state.unpublished += 1
    if state.unpublished * PUBLISH_SHARE >= state.counted:
        publish(state)


def _merged_sums(a: dict[str, ArmSums], b: dict[str, ArmSums]) -> dict[str, ArmSums]:
    return {arm: _added(a.get(arm, _NOTHING), b.get(arm, _NOTHING)) for arm in a | b}


def _added(a: ArmSums, b: ArmSums) -> ArmSums:
    return ArmSums(*(getattr(a, name) + getattr(b, name) for name in ArmSums.__struct_fields__))


def _sums(state: PolicyState, arm: str) -> ArmSums:
    """Return the sums of `arm`, to be changed."""
    return state.arms.setdefault(arm, ArmSums())
