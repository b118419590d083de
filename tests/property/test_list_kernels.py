"""The compiled arithmetic of lists against the same rules written plainly.

Scores to be ranked are such that sums and halvings are exact, so that ties are ties in both.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tailorbird.decide.kernels import REMOVED, find_candidates, rank_list
from tailorbird.rankers.popularity import HALF_LIFE_SECONDS

STEPS_BACK = 4
NEIGHBOURS = 6
NOW = 1_700_000_000.0
TICK = 80
lawfully = settings(max_examples=200, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def some(rng: np.random.Generator, size: int, most: int) -> np.ndarray:
    """Return up to `most` distinct indices below `size`."""
    count = int(rng.integers(0, min(most, size) + 1))
    return rng.permutation(size)[:count].astype(np.int32)


def neighbours(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return followers and weights as the fold keeps them: distinct, from the left, -1 for none."""
    followers = np.full((size, NEIGHBOURS), -1, np.int32)
    weights = np.zeros((size, NEIGHBOURS), np.float32)
    for row in range(size):
        found = some(rng, size, NEIGHBOURS)
        followers[row, : len(found)] = found
        weights[row, : len(found)] = rng.random(len(found)) + 0.01
    return followers, weights


class Shop(NamedTuple):
    """What `find_candidates` reads, drawn at random."""

    own: np.ndarray
    followers: np.ndarray
    weights: np.ndarray
    popular: np.ndarray
    is_member: np.ndarray
    named: np.ndarray
    switches: np.ndarray
    limit: int
    stock: np.ndarray
    published: np.ndarray
    expires: np.ndarray
    blocked: tuple[np.ndarray, np.ndarray, np.ndarray]


def shop_of(seed: int, *, is_named: bool, limit: int) -> Shop:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 50))
    followers, weights = neighbours(rng, size)
    named = some(rng, size, size) if is_named else some(rng, 0, 0)
    return Shop(
        own=some(rng, size, 20),
        followers=followers,
        weights=weights,
        popular=some(rng, size, size),
        is_member=rng.random(size) < 0.8,
        named=named,
        switches=np.array([is_named, *(rng.random(3) < 0.7)]),
        limit=max(limit, len(named)),
        stock=rng.integers(-1, 3, size),
        published=np.where(rng.random(size) < 0.2, NOW + 1.0, NOW),
        expires=np.where(rng.random(size) < 0.2, NOW, NOW + 1.0),
        blocked=(some(rng, size, 3), some(rng, size, 3), some(rng, size, 3)),
    )


def compiled(
    shop: Shop, scratch: tuple[np.ndarray, ...], tick: int
) -> tuple[dict[int, tuple[float, float]], list[int]]:
    """Return what the kernel finds, each item with its scores, and what it counts as removed."""
    items = np.full(shop.limit, -7, np.int32)
    covisits, recency = np.zeros(shop.limit, np.float32), np.zeros(shop.limit, np.float32)
    removed = np.zeros(len(REMOVED), np.int64)
    count = find_candidates(
        shop.own, STEPS_BACK, shop.followers, shop.weights, shop.popular, shop.is_member, shop.named,
        shop.switches, shop.limit, shop.stock, shop.published, shop.expires, NOW, *shop.blocked,
        *scratch, tick, items, covisits, recency, removed,
    )  # fmt: skip
    assert len(set(items[:count].tolist())) == count, "each is taken once"
    scores = zip(covisits[:count].tolist(), recency[:count].tolist(), strict=True)
    return dict(zip(items[:count].tolist(), scores, strict=True)), removed.tolist()


def covisits_of(shop: Shop) -> dict[int, np.float32]:
    scores: dict[int, np.float32] = {}
    for position, row in enumerate(shop.own[:STEPS_BACK]):
        total = shop.weights[row].sum()
        for item, weight in zip(shop.followers[row].tolist(), shop.weights[row], strict=True):
            if item >= 0:
                score = scores.get(item, np.float32(0.0))
                scores[item] = score + weight / total / np.float32(position + 1)
    return scores


def plainly(shop: Shop) -> tuple[dict[int, tuple[float, float]], list[int]]:
    """Return the same as `compiled`, by the rules of the module's own text."""
    is_named, has_covisits, has_recency, in_stock = shop.switches.tolist()
    scores = covisits_of(shop) if has_covisits else {}
    recency = {item: float(np.float32(1.0 / (at + 1))) for at, item in enumerate(shop.own.tolist())}
    why = {item: which for which, items in enumerate(shop.blocked) for item in items.tolist()}
    sources: list[list[int]] = [shop.named.tolist()]
    if not is_named:
        followers = sorted(scores, key=lambda item: -scores[item])
        sources = [shop.own.tolist() if has_recency else [], followers, shop.popular.tolist()]
    found: dict[int, tuple[float, float]] = {}
    removed = [0] * len(REMOVED)
    looked_at: set[int] = set()
    for item in (item for source in sources for item in source):
        if len(found) >= shop.limit and not is_named:
            break
        if item in looked_at or not shop.is_member[item]:
            continue
        looked_at.add(item)
        if item in why:
            removed[why[item]] += 1
        elif in_stock and shop.stock[item] == 0:
            removed[3] += 1
        elif not shop.published[item] <= NOW < shop.expires[item]:
            removed[4] += 1
        else:
            found[item] = (float(scores.get(item, 0.0)), recency.get(item, 0.0))
    return found, removed


def clean_scratch(size: int) -> tuple[np.ndarray, ...]:
    return np.zeros(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.int64)


def assert_same_candidates(shop: Shop, found: Any, expected: Any) -> None:
    assert found[0].keys() == expected[0].keys()
    for item, (covisit, recency) in expected[0].items():
        np.testing.assert_allclose(found[0][item], (covisit, recency), rtol=1e-5)
    assert found[1] == expected[1]


@lawfully
@given(seed=seeds, is_named=st.booleans(), limit=st.integers(1, 24))
def test_candidates_are_those_of_the_plain_rules(seed, is_named, limit):
    shop = shop_of(seed, is_named=is_named, limit=limit)
    scores = sorted(covisits_of(shop).values())
    # Of two followers that are as strong, either may be the last one that is let in.
    assume(all(b - a > 1e-5 for a, b in itertools.pairwise(scores)) or len(shop.stock) <= limit)
    assert_same_candidates(shop, compiled(shop, clean_scratch(len(shop.stock)), TICK), plainly(shop))


def test_when_not_all_followers_fit_the_strongest_do():
    followers, weights = np.full((8, NEIGHBOURS), -1, np.int32), np.zeros((8, NEIGHBOURS), np.float32)
    followers[0, :2], weights[0, :2] = (6, 7), (0.1, 0.9)
    shop = shop_of(0, is_named=False, limit=1)._replace(
        own=np.arange(5, dtype=np.int32), followers=followers, weights=weights, popular=np.zeros(0, np.int32),
        is_member=np.ones(8, np.bool_), switches=np.array([False, True, True, False]), limit=6,
        stock=np.ones(8, np.int64), published=np.zeros(8), expires=np.full(8, np.inf),
        blocked=(np.zeros(0, np.int32),) * 3,
    )  # fmt: skip
    assert set(compiled(shop, clean_scratch(8), TICK)[0]) == {0, 1, 2, 3, 4, 7}


def test_of_followers_just_as_strong_no_more_are_let_in_than_there_is_room_for():
    followers, weights = np.full((8, NEIGHBOURS), -1, np.int32), np.zeros((8, NEIGHBOURS), np.float32)
    followers[0, :4], weights[0, :4] = (4, 5, 6, 7), (1.0, 1.0, 1.0, 2.0)
    shop = shop_of(0, is_named=False, limit=1)._replace(
        own=np.zeros(1, np.int32), followers=followers, weights=weights, popular=np.array([1, 2], np.int32),
        is_member=np.ones(8, np.bool_), switches=np.array([False, True, True, False]), limit=3,
        stock=np.ones(8, np.int64), published=np.zeros(8), expires=np.full(8, np.inf),
        blocked=(np.zeros(0, np.int32),) * 3,
    )  # fmt: skip
    assert list(compiled(shop, clean_scratch(8), TICK)[0]) == [0, 7, 4]


@lawfully
@given(seeds, st.lists(st.booleans(), min_size=2, max_size=5))
def test_the_scratch_is_left_as_it_was_found(seed, calls):
    shops = [shop_of(seed, is_named=is_named, limit=30) for is_named in calls]
    scratch = clean_scratch(len(shops[0].stock))
    for turn, shop in enumerate(shops):
        found = compiled(shop, scratch, TICK + 8 * turn)
        assert not scratch[0].any()
        assert not scratch[1].any()
        assert scratch[2].max() < TICK + 8 * (turn + 1)
        assert_same_candidates(shop, found, plainly(shop))


# --- ranking ------------------------------------------------------------------------------------------


class Contest(NamedTuple):
    """What `rank_list` reads, drawn at random."""

    items: np.ndarray
    covisits: np.ndarray
    recency: np.ndarray
    popular: np.ndarray
    last: np.ndarray
    strategies: np.ndarray
    probabilities: np.ndarray
    drawn: int
    clusters: np.ndarray
    primary: int
    share: float
    own: np.ndarray
    followers: np.ndarray
    weights: np.ndarray
    slots: int


def contest_of(seed: int) -> Contest:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 16))
    items = rng.permutation(size + 5)[:size].astype(np.int32)
    followers, weights = neighbours(rng, size + 5)
    arms = int(rng.integers(1, 5))
    chances = rng.integers(0, 4, arms) + (rng.random() < 0.5)
    chances = chances if chances.any() else np.ones(arms)
    drawn = int(rng.choice(np.flatnonzero(chances)))
    ages = rng.integers(0, 3, size + 5) * HALF_LIFE_SECONDS
    return Contest(
        items=items,
        covisits=(rng.integers(0, 3, size) / 4.0).astype(np.float32),
        recency=(rng.integers(0, 3, size) / 2.0).astype(np.float32),
        popular=rng.integers(0, 4, size + 5).astype(np.float64),
        last=NOW - ages,
        strategies=rng.integers(0, 3, (arms, 3)).astype(np.float64),
        probabilities=chances / chances.sum(),
        drawn=drawn,
        clusters=rng.integers(-1, 3, size + 5).astype(np.int32),
        primary=int(rng.integers(-1, 3)),
        share=float(rng.choice([0.0, 0.2, 0.5, 1.0])),
        own=rng.permutation(size + 5)[: int(rng.integers(0, 7))].astype(np.int32),
        followers=followers,
        weights=weights,
        slots=int(rng.integers(1, size + 1)),
    )


class Ranked(NamedTuple):
    """What `rank_list` writes."""

    chosen: np.ndarray
    propensities: np.ndarray
    scores: np.ndarray
    leading: np.ndarray
    origins: np.ndarray


def ranked(contest: Contest) -> Ranked:
    slots = contest.slots
    out = Ranked(
        np.empty(slots, np.int32),
        np.zeros(slots),
        np.zeros(slots),
        np.zeros(slots, np.int64),
        np.zeros(slots, np.int64),
    )
    rank_list(
        contest.items, contest.covisits, contest.recency, contest.popular, contest.last, NOW, contest.strategies,
        contest.probabilities, contest.drawn, contest.clusters, contest.primary, contest.share, contest.own,
        contest.followers, contest.weights, STEPS_BACK, *out,
    )  # fmt: skip
    return out


def parts_of(contest: Contest) -> list[list[float]]:
    """Return each candidate's popularity, covisitation and recency, the best of each being 1."""
    decayed = contest.popular * 2.0 ** (-(NOW - contest.last) / HALF_LIFE_SECONDS)
    parts = [decayed[contest.items].tolist(), contest.covisits.tolist(), contest.recency.tolist()]
    return [[value / max(part) if max(part) > 0.0 else 0.0 for value in part] for part in parts]


def owed_of(contest: Contest) -> int:
    """Return how many slots belong to items from outside the primary cluster."""
    if contest.primary < 0:
        return 0
    outside = sum(contest.clusters[item] != contest.primary for item in contest.items)
    return min(int(np.ceil(contest.share * contest.slots - 1e-9)), int(outside))


def list_of(contest: Contest, strategy: int) -> tuple[list[int], list[float]]:
    """Return the items of a strategy's list and their scores, slot by slot."""
    parts = parts_of(contest)
    a, b, c = contest.strategies[strategy].tolist()
    scores = [a * parts[0][i] + b * parts[1][i] + c * parts[2][i] for i in range(len(contest.items))]
    left, owed, chosen = set(range(len(contest.items))), owed_of(contest), []
    for slot in range(contest.slots):
        allowed = [
            i
            for i in left
            if owed < contest.slots - slot or contest.clusters[contest.items[i]] != contest.primary
        ]
        best = min(allowed, key=lambda i: (-scores[i], -parts[0][i], contest.items[i]))
        left.remove(best)
        chosen.append(best)
        if owed and contest.clusters[contest.items[best]] != contest.primary:
            owed -= 1
    return [int(contest.items[i]) for i in chosen], [scores[i] for i in chosen]


@lawfully
@given(seeds)
def test_the_drawn_list_is_that_of_the_plain_rules(seed):
    contest = contest_of(seed)
    found = ranked(contest)
    chosen, scores = list_of(contest, contest.drawn)
    assert found.chosen.tolist() == chosen
    np.testing.assert_allclose(found.scores, scores, rtol=1e-12)


@lawfully
@given(seeds)
def test_a_slots_propensity_is_that_of_all_strategies_that_put_the_same_item_there(seed):
    contest = contest_of(seed)
    found = ranked(contest)
    expected = np.zeros(contest.slots)
    for strategy, chance in enumerate(contest.probabilities.tolist()):
        same = np.array(list_of(contest, strategy)[0]) == found.chosen
        expected += chance * same
    np.testing.assert_allclose(found.propensities, expected, rtol=1e-12)
    assert (found.propensities > 0.0).all()


@lawfully
@given(seeds)
def test_over_all_draws_the_propensities_of_a_slot_sum_to_one(seed):
    contest = contest_of(seed)
    chances: list[dict[int, float]] = [{} for _ in range(contest.slots)]
    for drawn in np.flatnonzero(contest.probabilities).tolist():
        found = ranked(contest._replace(drawn=drawn))
        for slot, item in enumerate(found.chosen.tolist()):
            before = chances[slot].setdefault(item, found.propensities[slot])
            assert abs(before - found.propensities[slot]) < 1e-12
    assert all(abs(sum(slot.values()) - 1.0) < 1e-12 for slot in chances)


@lawfully
@given(seeds)
def test_the_declared_share_comes_from_outside_the_primary_interest(seed):
    contest = contest_of(seed)
    found = ranked(contest)
    outside = sum(contest.clusters[item] != contest.primary for item in found.chosen.tolist())
    assert outside >= owed_of(contest)


@lawfully
@given(seeds)
def test_each_choice_says_what_gave_most_of_its_score(seed):
    contest = contest_of(seed)
    found = ranked(contest)
    parts, position_of = parts_of(contest), {item: i for i, item in enumerate(contest.items.tolist())}
    weights = contest.strategies[contest.drawn].tolist()
    own = contest.own[:STEPS_BACK].tolist()
    for slot, item in enumerate(found.chosen.tolist()):
        given_by = [weights[source] * parts[source][position_of[item]] for source in range(3)]
        assert found.leading[slot] == int(np.argmax(given_by))
        if found.leading[slot] == 1 and own:
            links = [
                float(contest.weights[row][contest.followers[row] == item].sum() / total) / (at + 1)
                if (total := contest.weights[row].sum()) > 0.0
                else -1.0
                for at, row in enumerate(own)
            ]
            np.testing.assert_allclose(links[found.origins[slot]], max(links), rtol=1e-6)
