"""Views of what is stored: a person, a decision, a placement's policy, refused events."""

from typing import Any

import msgspec

from tailorbird.clock import format_time
from tailorbird.features.state import FIRST_SEEN, LAST_SEEN, recents
from tailorbird.live.facts import members_at, profile_facts
from tailorbird.live.profiles import holdout_position
from tailorbird.live.variables import by_name, cluster_of
from tailorbird.live.world import ALL_PLACEMENTS, World
from tailorbird.policies.base import PolicyState, trials
from tailorbird.policies.mixing import mixed_for
from tailorbird.policies.thompson import posterior
from tailorbird.policies.union import probabilities
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.outcome import Mark
from tailorbird.schema.placement import Placement, Thompson
from tailorbird.schema.profile import Profile

_INTEREST = frozenset({"primaryInterest"})


def profile_view(world: World, secret: bytes, profile: Profile, at: float) -> dict[str, Any]:
    """Return everything that is known of a person, as of `at`."""
    position = holdout_position(secret, profile.assignment_key)
    state = profile.state
    members = members_at(world, profile, at)
    return {
        "profileId": profile.id,
        "identifiers": [
            {
                "type": name.partition(":")[0],
                "value": name.partition(":")[2],
                "firstSeen": format_time(first),
                "lastSeen": format_time(last),
            }
            for name, (first, last) in profile.identifiers.items()
        ],
        "links": [
            {
                "identifier": link.identifier,
                "rule": link.rule,
                "messageId": link.message_id,
                "at": format_time(link.t),
                "mergedProfile": link.merged or None,
            }
            for link in profile.links
        ],
        "traits": profile.traits,
        "computedAttributes": {
            key: {
                "value": computed.value,
                "segment": computed.segment,
                "modelVersion": computed.model_version,
                "at": format_time(computed.t),
            }
            for key, computed in sorted(profile.computed.items())
        },
        "cluster": _cluster(world, profile, at),
        "features": by_name(world, profile, at),
        "featureLayoutVersion": world.features.reading.version,
        "primaryInterest": profile_facts(world, profile, _INTEREST, at)["primaryInterest"] or None,
        "segments": list(members),
        "segmentsSince": {key: format_time(since) for key, since in members.items()},
        "segmentChanges": [
            {
                "segment": passage.segment,
                "change": "entered" if passage.is_entered else "left",
                "at": format_time(passage.t),
                "messageId": passage.message_id or None,
            }
            for passage in reversed(profile.passages)
        ],
        "recentEvents": _recent_events(world, profile),
        "purchases": list(profile.purchases),
        "consent": profile.consent,
        "groups": profile.groups,
        "refusedLinks": profile.refused,
        "globalPrivacyControl": profile.gpc,
        "arm": "holdout" if position < world.holdout_share else "personalized",
        "assignment": {
            "key": profile.assignment_key,
            "position": position,
            "mergedArms": profile.is_arm_merged,
        },
        "firstSeen": format_time(state.item(FIRST_SEEN)),
        "lastSeen": format_time(state.item(LAST_SEEN)),
        "version": profile.version,
        "placements": {
            key: {
                "arm": at_placement.arm,
                "decisions": at_placement.decisions,
                "exposures": at_placement.exposures,
                "outcomes": at_placement.outcomes,
                "value": at_placement.value,
            }
            for key, at_placement in profile.placements.items()
            if key != ALL_PLACEMENTS
        },
    }


def _cluster(world: World, profile: Profile, at: float) -> dict[str, Any] | None:
    found = cluster_of(world, profile, at)
    return None if found is None else {"id": found.id, "name": found.name, "description": found.description}


def _recent_events(world: World, profile: Profile) -> list[dict[str, Any]]:
    """Return the latest events, newest first."""
    times, codes = recents(profile.state)
    name, ids = world.vocabulary.name, world.catalogue.ids
    return [
        {
            "event": name(event),
            "timestamp": format_time(t),
            "item": ids[item] if item >= 0 else None,
            "category": name(category) if category >= 0 else None,
        }
        for t, (event, item, category) in zip(
            reversed(times.tolist()), reversed(codes.T.tolist()), strict=True
        )
    ]


def decision_view(
    key: str, decision: LoggedDecision, mark: Mark | None, because: list[list[str]]
) -> dict[str, Any]:
    """Return a decision as it was made, why, and what became of it."""
    return {
        "decisionId": key,
        "placement": decision.placement,
        "at": format_time(decision.t),
        "decidedAt": format_time(decision.r),
        "profileId": decision.profile,
        "arm": decision.holdout,
        "reason": decision.reason,
        "rung": decision.rung,
        "policy": {"key": decision.policy, "version": str(decision.policy_version)},
        "drawn": decision.arm,
        "arms": [
            {"id": arm, "probability": probability}
            for arm, probability in zip(decision.arms, decision.probabilities, strict=True)
        ],
        "uniform": decision.seed,
        "explored": decision.explored,
        "choices": [
            {
                "id": choice.id,
                "rank": rank,
                "propensity": choice.propensity,
                "score": choice.score,
                "because": reasons,
            }
            for rank, (choice, reasons) in enumerate(zip(decision.choices, because, strict=True), 1)
        ],
        "steps": msgspec.to_builtins(decision.steps),
        "profileVersion": decision.profile_version,
        "tookMs": decision.took_ms,
        "timingsUs": decision.timings_us,
        "exposedAt": _time(mark.exposed_at if mark else None),
        "outcome": {"at": _time(mark.rewarded_at), "value": mark.value}
        if mark is not None and mark.rewarded_at is not None
        else None,
    }


def policy_view(placement: Placement, state: PolicyState | None) -> dict[str, Any]:
    """Return what a placement's policy has learned, arm by arm.

    `probability` is what an arm is drawn with where all are eligible, floor and caps included.
    """
    state = state or PolicyState(arms={})
    arms = placement.arms
    counted = trials(state.arms, arms, placement.learn_from)
    raw = probabilities(placement.policy, state, arms, placement.learn_from, None)
    chances = mixed_for(placement, arms, raw).tolist()
    rows = []
    for arm, (tries, successes), chance in zip(arms, counted, chances, strict=True):
        row = {"id": arm, "trials": tries, "successes": successes, "probability": chance}
        if isinstance(placement.policy, Thompson):
            alpha, beta = posterior(placement.policy, state, arm, placement.learn_from)
            row |= {"alpha": alpha, "beta": beta}
        sums = state.arms.get(arm)
        row |= {} if sums is None else {"sums": msgspec.to_builtins(sums)}
        rows.append(row)
    return {"placement": placement.key, "version": state.version, "arms": rows}


def _time(t: float | None) -> str | None:
    return None if t is None else format_time(t)
