"""Laws of model segments: names do not hang on chance, ids are given once, pairings are one to one."""

import functools

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.shoppers import VARIABLES, shoppers

from tailorbird.errors import InvalidInputError
from tailorbird.schema.clusters import ClusterModel, Dbscan, Difference, Hdbscan, KMeans
from tailorbird.segment.assigner import Assigner, nearest
from tailorbird.segment.clusters import fit
from tailorbird.segment.match import matched_by_members
from tailorbird.segment.words import description, names

PEOPLE = 400
MATRIX, KIND = shoppers(np.random.default_rng(11), PEOPLE)
seeds = st.integers(0, 2**32 - 1)
kinds = st.sets(st.integers(0, 3), min_size=2).map(sorted)
labels = st.lists(st.integers(-1, 4), min_size=1, max_size=60)
phrases = st.sampled_from(["buys often", "new", "drawn to shoes", "spends much"])


def fitted(matrix, seed, previous=None, variables=VARIABLES, count=4) -> ClusterModel:
    asked = KMeans(clusters_min=count, clusters_max=count, bootstraps=2)
    return fit(matrix, variables, asked, np.random.default_rng(seed), previous)


@functools.cache
def first() -> ClusterModel:
    return fitted(MATRIX, 1)


def by_id(model: ClusterModel) -> dict[str, tuple[str, int]]:
    return {found.id: (found.name, found.size) for found in model.clusters}


@settings(max_examples=12, deadline=None)
@given(seeds, seeds)
def test_neither_seed_nor_order_of_people_and_variables_changes_names(seed, shuffle):
    generator = np.random.default_rng(shuffle)
    people, columns = generator.permutation(PEOPLE), generator.permutation(len(VARIABLES))
    variables = [VARIABLES[column] for column in columns]
    again = fitted(MATRIX[people][:, columns], seed, first(), variables)
    assert by_id(again) == by_id(first())


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(kinds, seeds), min_size=2, max_size=4))
def test_an_id_that_was_once_gone_never_comes_back(nights):
    model, seen, gone = first(), set(by_id(first())), set()
    for present, seed in nights:
        previous, model = model, fitted(MATRIX[np.isin(KIND, present)], seed, model, count=len(present))
        ids = set(by_id(model))
        assert ids.isdisjoint(gone)
        assert len({found.name for found in model.clusters}) == len(ids) == len(present)
        assert model.next_number == previous.next_number + len(ids - seen)
        gone |= seen - ids
        seen |= ids


@settings(max_examples=8, deadline=None)
@given(seeds)
def test_a_model_that_was_stored_goes_on_as_the_one_in_memory(seed):
    stored = msgspec.json.decode(msgspec.json.encode(first()), type=ClusterModel)
    left, right = fitted(MATRIX, seed, stored), fitted(MATRIX, seed, first())
    assert msgspec.msgpack.encode(left) == msgspec.msgpack.encode(right)
    assert Assigner(left, VARIABLES).assign_all(MATRIX) == Assigner(right, VARIABLES).assign_all(MATRIX)


@settings(max_examples=40, deadline=None)
@given(
    seeds,
    st.integers(50, 70),
    st.integers(1, 9),
    st.sampled_from([0.05, 1.0, 30.0]),
    st.sampled_from([KMeans(clusters_max=7, bootstraps=2), Hdbscan(bootstraps=2), Dbscan(bootstraps=2)]),
)
def test_few_people_with_many_ties_are_refused_or_all_accounted_for(seed, people, width, rate, asked):
    generator = np.random.default_rng(seed)
    matrix = generator.poisson(rate, (people, width)).astype(np.float32)
    matrix = np.column_stack([matrix, matrix.sum(axis=1), -matrix[:, 0]])
    variables = [f"x_{index}" for index in range(width + 2)]
    try:
        model = fit(matrix, variables, asked, generator)
    except InvalidInputError:
        assert rate < 1.0
        return
    told = Assigner(model, variables).assign_all(matrix)
    assert [told.count(found.id) for found in model.clusters] == [found.size for found in model.clusters]
    assert {None, *(found.id for found in model.clusters)} >= set(told)
    assert len({found.name for found in model.clusters}) == len(model.clusters)


@settings(max_examples=200, deadline=None)
@given(labels, seeds)
def test_old_clusters_are_given_to_at_most_one_new_one_each(after, seed):
    new = np.array(after)
    old = np.random.default_rng(seed).integers(-1, 3, len(new))
    memberships = [None if label < 0 else f"c-{label}" for label in old]
    pairs = matched_by_members(new, 5, memberships, ["c-0", "c-1", "c-2"])
    assert len(set(pairs.values())) == len(pairs)
    for left, right in pairs.items():
        both, either = ((new == left) & (old == right)).sum(), ((new == left) | (old == right)).sum()
        assert both / either >= 0.4


@settings(max_examples=200, deadline=None)
@given(labels)
def test_the_same_members_are_the_same_clusters(after):
    memberships = [None if label < 0 else f"c-{label}" for label in after]
    pairs = matched_by_members(np.array(after), 5, memberships, [f"c-{label}" for label in range(5)])
    assert pairs == {label: label for label in set(after) - {-1}}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(phrases, max_size=3, unique=True), max_size=8), st.data())
def test_names_are_unique_and_kept_ones_stay(found, data):
    differences = [[Difference(phrase, phrase, 2.0, 1.0, 1.0) for phrase in each] for each in found]
    chosen = data.draw(st.sets(st.integers(0, 7)))
    kept = {index: f"Kept {index}" for index in chosen if index < len(found)}
    named = names(differences, kept)
    assert len(set(named)) == len(named) == len(found)
    assert {index: named[index] for index in kept} == kept
    assert named == names(differences, kept)
    assert all(description(each, frozenset()).endswith(".") for each in differences)


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(1, 6), st.booleans())
def test_nearest_is_what_comparing_with_each_centroid_says(seed, count, is_bounded):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(50, 3)).astype(np.float32)
    centroids = generator.normal(size=(count, 3)).astype(np.float32)
    radii = generator.uniform(0.5, 2.0, count) if is_bounded else np.full(count, np.inf)
    found, distances = nearest(scores, centroids, radii.astype(np.float32))
    for row, label, distance in zip(scores, found, distances, strict=True):
        lengths = np.linalg.norm(centroids - row, axis=1)
        ratios = lengths / radii if is_bounded else lengths
        best = ratios.argmin()
        assert distance == np.float32(lengths[best]) or abs(distance - lengths[best]) < 1e-5
        assert label == (best if not is_bounded or ratios[best] <= 1.0 else -1)
