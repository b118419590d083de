"""Whatever happens to people, the sums of the readout and of the policies equal a count over all of them."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.house import SECRET, House

from tailorbird.live.profiles import holdout_position
from tailorbird.live.world import ALL_PLACEMENTS, ArmsMoments
from tailorbird.policies.base import ArmSums
from tailorbird.schema.profile import Profile
from tailorbird.stats.moments import add_unit

SHARE = 0.5
GOAL = {"event": "Order Completed", "value": "properties.revenue", "windowSeconds": 3600}
PLACEMENTS = {
    "hero": {"variants": [{"id": "a"}, {"id": "b"}], "goal": GOAL, "policy": {"type": "fixed"}},
    "banner": {"variants": [{"id": "a"}, {"id": "b"}], "goal": GOAL, "holdout": 0.3},
}
lawfully = settings(max_examples=60, deadline=None)

anonymous = st.sampled_from(["a1", "a2", "a3", "a4"])
users = st.sampled_from(["u1", "u2"])
someone = st.tuples(anonymous | st.none(), users | st.none()).filter(any)
placements = st.sampled_from(sorted(PLACEMENTS))
happenings = st.one_of(
    st.tuples(st.just("decide"), someone, placements, st.booleans()),
    st.tuples(st.just("decide"), someone, placements, st.just(False)),
    st.tuples(st.just("buy"), someone, st.sampled_from([0.0, -2000.0, -5000.0])),
    st.tuples(st.just("report"), st.integers(0, 20), st.sampled_from(["Decision Viewed", "Order Completed"])),
    st.tuples(st.just("experiment"), anonymous, placements),
    st.tuples(st.just("identify"), anonymous, users),
    st.tuples(st.just("alias"), anonymous | users, users),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 1000.0, 4000.0])),
)


class Lives:
    """A house, and what happens in it."""

    def __init__(self) -> None:
        self.house = House(holdout_share=SHARE)
        self.decided: list[str] = []
        for key, fields in PLACEMENTS.items():
            self.house.declare(key, **fields)

    def decide(self, who: tuple[str | None, str | None], key: str, is_refused: bool) -> None:
        answer = self.house.decide(who[0], key, user=who[1], gpc=is_refused)
        self.decided.append(answer.decision_id)

    def buy(self, who: tuple[str | None, str | None], at: float) -> None:
        self.house.send(*who, event="Order Completed", properties={"revenue": 2.5}, at=at)

    def report(self, nth: int, name: str) -> None:
        if self.decided:
            key = self.decided[nth % len(self.decided)]
            self.house.send("reporter", event=name, properties={"decisionId": key, "revenue": 0.25})

    def experiment(self, who: str, key: str) -> None:
        self.house.send(who, event="Experiment Viewed", properties={"experimentId": key})

    def identify(self, who: str, user: str) -> None:
        self.house.send(who, user, type="identify")

    def alias(self, previous: str, user: str) -> None:
        self.house.send(user=user, type="alias", previousId=previous)

    def wait(self, seconds: float) -> None:
        self.house.clock.advance(seconds)


def lived(history: list[tuple]) -> Lives:
    lives = Lives()
    for kind, *rest in history:
        getattr(lives, kind)(*rest)
        lives.house.clock.advance(1.0)
    return lives


def people(house: House) -> list[Profile]:
    return [profile for _, profile in house.world.profiles.scan()]


@lawfully
@given(st.lists(happenings, max_size=40))
def test_moments_are_the_sum_over_all_people(history):
    house = lived(history).house
    for key in (*PLACEMENTS, ALL_PLACEMENTS):
        expected = ArmsMoments()
        for profile in people(house):
            at = profile.placements.get(key)
            if at is not None and at.arm:
                add_unit(expected.of(at.arm), at)
        found = house.world.moments.get(key) or ArmsMoments()
        for arm in ("personalized", "holdout"):
            for name in expected.of(arm).__struct_fields__:
                assert getattr(found.of(arm), name) == pytest.approx(getattr(expected.of(arm), name)), (
                    key,
                    arm,
                    name,
                )


@lawfully
@given(st.lists(happenings, max_size=40))
def test_what_policies_learned_is_a_count_over_all_decisions(history):
    lives = lived(history)
    house = lives.house
    expected: dict[str, dict[str, ArmSums]] = {key: {} for key in PLACEMENTS}
    for key in lives.decided:
        mark = house.mark(key)
        if mark.is_learned:
            sums = expected[mark.placement].setdefault(mark.arm, ArmSums())
            sums.decided += 1
            sums.exposed += mark.exposed_at is not None
            sums.rewarded_decided += mark.rewarded_at is not None
            sums.rewarded_exposed += mark.exposed_at is not None and mark.rewarded_at is not None
            sums.value += mark.value
    for key in PLACEMENTS:
        state = house.world.policies.get(key)
        assert (state.arms if state is not None else {}) == expected[key]


@lawfully
@given(st.lists(happenings, max_size=40))
def test_everybody_is_one_person_and_no_two_users_are_the_same(history):
    house = lived(history).house
    everybody = {profile.id: profile for profile in people(house)}
    for name, entry in house.world.identifiers.scan():
        assert entry.profile in everybody, f"{name} leads to nobody"
        assert name in everybody[entry.profile].identifiers or name.startswith("profile:")
    for profile in everybody.values():
        names = Counter(name.partition(":")[0] for name in profile.identifiers)
        assert names["user_id"] <= 1
        for name in profile.identifiers:
            assert house.world.identifiers.get(name).profile == profile.id
        assert profile.assignment_key in profile.identifiers


@lawfully
@given(st.lists(happenings, max_size=40))
def test_a_persons_arm_is_that_of_their_assignment_key(history):
    house = lived(history).house
    for profile in people(house):
        position = holdout_position(SECRET, profile.assignment_key)
        for key, at in profile.placements.items():
            share = PLACEMENTS.get(key, {}).get("holdout", SHARE)
            assert at.arm in ("", "holdout" if position < share else "personalized")
