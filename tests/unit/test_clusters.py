"""Model segments: known kinds are found, told in words, told to a visitor, and keep their names."""

import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet
import pytest
from sklearn.metrics import adjusted_rand_score
from tests.needs import recorded
from tests.shoppers import KINDS, VARIABLES, shoppers

from tailorbird.app.datasets import online_retail
from tailorbird.errors import InvalidInputError
from tailorbird.schema.clusters import Cluster, ClusterModel, ClusterSettings, Dbscan, Hdbscan, KMeans
from tailorbird.segment.assigner import Assigner
from tailorbird.segment.choose import choose
from tailorbird.segment.clusters import fit

PEOPLE = 900
QUICK = KMeans(clusters_max=5, bootstraps=2)
METHODS: tuple[ClusterSettings, ...] = (QUICK, Hdbscan(bootstraps=2), Dbscan(bootstraps=2))
MATRIX, TRUTH = shoppers(np.random.default_rng(7), PEOPLE)


def fitted(
    matrix=MATRIX, variables=VARIABLES, settings=QUICK, seed=1, previous=None, memberships=None
) -> ClusterModel:
    return fit(matrix, variables, settings, np.random.default_rng(seed), previous, memberships)


@functools.cache
def fitted_by(settings: ClusterSettings) -> ClusterModel:
    """Return the model of everybody, fitted once a method."""
    return fitted(settings=settings)


@pytest.fixture
def model() -> ClusterModel:
    return fitted_by(QUICK)


def told(model: ClusterModel, matrix=MATRIX, variables=VARIABLES) -> list[str | None]:
    return Assigner(model, variables).assign_all(matrix)


def of_kind(model: ClusterModel, kind: str, matrix=MATRIX, truth=TRUTH) -> Cluster:
    """Return the cluster that most of a kind are told."""
    ids = [
        found for found, index in zip(told(model, matrix), truth, strict=True) if index == KINDS.index(kind)
    ]
    most = max(set(ids), key=ids.count)
    return next(found for found in model.clusters if found.id == most)


def names_by_id(model: ClusterModel) -> dict[str, str]:
    return {found.id: found.name for found in model.clusters}


# --- what is found -----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: type(settings).__name__)
def test_each_method_finds_the_kinds_that_there_are(settings):
    model = fitted_by(settings)
    ids = np.array([found or "none" for found in told(model)])
    is_told = ids != "none"
    assert len(model.clusters) == len(KINDS)
    assert is_told.mean() >= 0.7
    assert adjusted_rand_score(TRUTH[is_told], ids[is_told]) >= 0.95
    assert model.stability >= 0.7
    assert model.cautions == ()


@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: type(settings).__name__)
def test_sizes_and_shares_are_of_those_who_are_told_the_cluster(settings):
    model = fitted_by(settings)
    ids = told(model)
    assert {found.id: found.size for found in model.clusters} == {
        found.id: ids.count(found.id) for found in model.clusters
    }
    assert [found.size for found in model.clusters] == sorted((c.size for c in model.clusters), reverse=True)
    assert sum(found.share for found in model.clusters) + model.unclustered == pytest.approx(1.0)
    assert model.unclustered == pytest.approx(ids.count(None) / PEOPLE)


def test_every_number_of_clusters_is_tried_and_the_taken_one_is_among_them(model):
    assert [trial.parameter for trial in model.tried] == [2, 3, 4, 5]
    (taken,) = [trial for trial in model.tried if trial.parameter == model.parameter]
    assert taken.clusters == len(model.clusters) == 4
    assert taken.silhouette == max(trial.silhouette for trial in model.tried)


def test_the_same_people_and_seed_give_the_same_model_to_the_bit(model):
    assert msgspec.msgpack.encode(fitted()) == msgspec.msgpack.encode(model)


def test_a_few_enormous_values_found_no_cluster():
    matrix = MATRIX.copy()
    matrix[:3, :2] *= 1e6
    model = fitted(matrix)
    assert len(model.clusters) == 4
    assert adjusted_rand_score(TRUTH[3:], told(model, matrix)[3:]) >= 0.95


def test_clusters_of_a_handful_are_passed_over():
    generator = np.random.default_rng(3)
    blobs = generator.normal(size=(600, 2)) + np.repeat([[20.0, 20.0], [60.0, 20.0]], 300, axis=0)
    blobs[:4] = [40.0, 9000.0]
    model = fitted(blobs.astype(np.float32), ("x", "y"), KMeans(clusters_max=4, bootstraps=3, share_min=0.02))
    assert len(model.clusters) == 2
    assert min(found.share for found in model.clusters) > 0.4


def test_where_there_are_no_kinds_the_model_says_so():
    noise = np.random.default_rng(5).lognormal(3.0, 1.0, (600, 12)).astype(np.float32)
    model = fitted(noise, [f"x_{index}" for index in range(12)])
    assert any("overlap" in caution for caution in model.cautions)


def test_where_nothing_is_dense_nobody_is_in_a_cluster():
    noise = np.random.default_rng(5).lognormal(3.0, 1.0, (400, 6)).astype(np.float32)
    model = fitted(noise, list("abcdef"), Hdbscan(bootstraps=2))
    assert model.clusters == ()
    assert model.silhouette is None
    assert model.cautions[0] == "Fewer than two clusters were found."
    assert Assigner(model, list("abcdef")).assign(noise[0]) == (None, math.inf)
    assert set(told(model, noise, list("abcdef"))) == {None}


def test_clusters_that_are_no_balls_are_cautioned_about():
    generator = np.random.default_rng(2)
    angles = generator.uniform(0.0, 2.0 * math.pi, 800)
    radii = np.where(np.arange(800) < 200, 0.15, 3.0) + generator.normal(0.0, 0.05, 800)
    rings = np.column_stack([radii * np.cos(angles), radii * np.sin(angles)]).astype(np.float32)
    model = fitted(rings, ("x", "y"), Dbscan(bootstraps=2, reaches=(0.95,)))
    assert model.agreement < 0.8
    assert any("no balls" in caution for caution in model.cautions)


def test_variables_that_say_nothing_new_are_dropped_with_the_reason():
    generator = np.random.default_rng(1)
    rare = (np.arange(PEOPLE) < 3).astype(np.float32)
    more = np.column_stack(
        [MATRIX, np.full(PEOPLE, 4.0), rare, MATRIX[:, 0] * 2.0 + 1.0, generator.normal(size=PEOPLE)]
    )
    model = fitted(more.astype(np.float32), (*VARIABLES, "always", "hardly", "orders_twice", "chance"))
    dropped = {each.variable: (each.reason, each.of) for each in model.dropped}
    assert dropped["always"] == ("constant", None)
    assert dropped["hardly"] == ("rare", None)
    assert "chance" in model.space.variables
    assert set(dropped) | set(model.space.variables) == {
        *VARIABLES,
        "always",
        "hardly",
        "orders_twice",
        "chance",
    }
    assert set(dropped).isdisjoint(model.space.variables)


def test_of_variables_that_say_the_same_the_first_is_kept():
    matrix = np.column_stack([MATRIX, MATRIX[:, 8]])
    model = fitted(matrix, (*VARIABLES, "visits"))
    assert [(each.variable, each.of) for each in model.dropped if each.reason == "duplicate"] == [
        ("visits", "sessions")
    ]


# --- words -------------------------------------------------------------------------------------------


def test_a_cluster_is_told_by_what_sets_it_apart_with_the_means(model):
    buyers = of_kind(model, "buyers")
    is_buyer = np.array(told(model)) == buyers.id
    orders = MATRIX[:, 0]
    (difference,) = [each for each in buyers.differences if each.variable == "orders_90d"]
    assert difference.inside == pytest.approx(orders[is_buyer].mean(), rel=1e-6)
    assert difference.outside == pytest.approx(orders[~is_buyer].mean(), rel=1e-6)
    assert (
        f"orders_90d {orders[is_buyer].mean():.1f} against {orders[~is_buyer].mean():.2g}"
        in buyers.description
    )
    assert "uys often" in buyers.description
    assert of_kind(model, "shoe lovers").name == "Drawn to shoes"
    assert "ot seen for long: recency 1" in of_kind(model, "gone").description
    assert "mobile 9" in of_kind(model, "browsers").description


def test_differences_are_ranked_and_each_family_speaks_once(model):
    for found in model.clusters:
        effects = [abs(each.effect) for each in found.differences]
        assert effects == sorted(effects, reverse=True)
        assert effects[-1] >= 0.2
        families = {each.variable.removesuffix("_7d").removesuffix("_30d") for each in found.differences}
        assert len(families) == len(found.differences)
        for each in found.differences:
            assert (each.effect > 0) == (each.inside > each.outside)


def test_names_are_unique_and_made_of_the_words(model):
    names = [found.name for found in model.clusters]
    assert len(set(names)) == len(names)
    for found in model.clusters:
        assert found.name.lower().startswith(found.differences[0].phrase.lower())


# --- telling a visitor ---------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: type(settings).__name__)
def test_one_visitor_is_told_what_all_are_told(settings):
    model = fitted_by(settings)
    assigner = Assigner(model, VARIABLES)
    assert [assigner.assign(row).cluster_id for row in MATRIX] == assigner.assign_all(MATRIX)


def test_the_order_of_a_layout_and_what_else_it_holds_do_not_matter(model):
    order = np.random.default_rng(4).permutation(len(VARIABLES))
    layout = ["something_else", *(VARIABLES[column] for column in order)]
    matrix = np.column_stack([np.full(PEOPLE, 1e9, np.float32), MATRIX[:, order]])
    assert told(model, matrix, layout) == told(model)


def test_who_is_like_nobody_is_in_no_dense_cluster():
    assigner = Assigner(fitted_by(METHODS[1]), VARIABLES)
    stranger = np.full(len(VARIABLES), 1e6, np.float32)
    cluster_id, distance = assigner.assign(stranger)
    assert cluster_id is None
    assert distance > assigner.assign(MATRIX[0]).distance
    assert math.isfinite(distance)


def test_a_newcomer_without_any_event_is_told_a_cluster_of_k_means(model):
    assert Assigner(model, VARIABLES).assign(np.zeros(len(VARIABLES), np.float32)).cluster_id in names_by_id(
        model
    )


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(3, np.float32),
        np.full(len(VARIABLES), np.nan, np.float32),
        np.full(len(VARIABLES), np.inf, np.float32),
        np.zeros((1, len(VARIABLES)), np.float32),
    ],
)
def test_a_vector_that_does_not_fit_is_refused(model, vector):
    with pytest.raises(InvalidInputError, match="vector"):
        Assigner(model, VARIABLES).assign(vector)


@pytest.mark.parametrize("matrix", [MATRIX[:, 1:], MATRIX[0], np.full_like(MATRIX, np.nan)])
def test_a_matrix_that_does_not_fit_is_refused(model, matrix):
    with pytest.raises(InvalidInputError, match="matrix"):
        Assigner(model, VARIABLES).assign_all(matrix)


def test_a_layout_without_a_variable_of_the_model_is_refused_by_name(model):
    with pytest.raises(InvalidInputError, match="orders_90d"):
        Assigner(model, VARIABLES[1:])


@pytest.mark.parametrize("field", ["means", "scales", "axes", "offset"])
def test_a_damaged_model_is_refused_by_field(model, field):
    for damage in (getattr(model.space, field)[:-3], b"\xff" * len(getattr(model.space, field))):
        space = msgspec.structs.replace(model.space, **{field: damage})
        with pytest.raises(InvalidInputError, match=rf"space\.{field}"):
            Assigner(msgspec.structs.replace(model, space=space), VARIABLES)


def test_a_model_whose_scales_are_not_positive_is_refused(model):
    space = msgspec.structs.replace(model.space, scales=bytes(len(model.space.scales)))
    with pytest.raises(InvalidInputError, match=r"space\.scales: must be positive"):
        Assigner(msgspec.structs.replace(model, space=space), VARIABLES)


@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: type(settings).__name__)
@pytest.mark.parametrize("codec", [msgspec.json, msgspec.msgpack])
def test_a_model_survives_being_written_and_read(settings, codec):
    model = fitted_by(settings)
    read = codec.decode(codec.encode(model), type=ClusterModel)
    assert read == model
    assert told(read) == told(model)


# --- names that stay ---------------------------------------------------------------------------------


def test_another_seed_and_another_order_of_people_keep_ids_and_names(model):
    order = np.random.default_rng(9).permutation(PEOPLE)
    again = fitted(MATRIX[order], seed=123, previous=model)
    assert names_by_id(again) == names_by_id(model)
    assert again.version == model.version + 1
    assert adjusted_rand_score(told(again), told(model)) >= 0.99


def test_people_who_come_and_go_keep_names(model):
    matrix, truth = shoppers(np.random.default_rng(70), 700)
    again = fitted(matrix, previous=model)
    assert names_by_id(again) == names_by_id(model)
    for kind in KINDS:
        assert of_kind(again, kind, matrix, truth).id == of_kind(model, kind).id


def test_a_season_in_which_everybody_does_more_keeps_names(model):
    matrix = MATRIX.copy()
    matrix[:, [0, 1, 3, 4, 5, 8]] *= 3.0
    again = fitted(matrix, previous=model)
    assert names_by_id(again) == names_by_id(model)


def test_the_id_of_a_cluster_that_is_gone_is_never_given_again(model):
    gone = of_kind(model, "buyers")
    fewer = fitted(*_without("buyers"), KMeans(clusters_min=3, clusters_max=4, bootstraps=2), previous=model)
    assert names_by_id(fewer) == {k: v for k, v in names_by_id(model).items() if k != gone.id}
    back = fitted(settings=KMeans(clusters_min=4, clusters_max=4, bootstraps=2), previous=fewer)
    assert set(names_by_id(back)) == (set(names_by_id(model)) - {gone.id}) | {"c-5"}
    assert back.next_number == 6


def test_members_carry_names_where_no_variable_is_left(model):
    others = [f"renamed_{name}" for name in VARIABLES]
    by_profile = fitted(variables=others, previous=model)
    assert set(names_by_id(by_profile)).isdisjoint(names_by_id(model))
    by_members = fitted(variables=others, previous=model, memberships=told(model))
    assert names_by_id(by_members) == names_by_id(model)


def test_memberships_of_unknown_clusters_or_none_match_nothing_wrong(model):
    assert names_by_id(fitted(previous=model, memberships=[None] * PEOPLE)) == names_by_id(model)
    strangers = fitted(previous=model, memberships=["c-99"] * PEOPLE)
    assert set(names_by_id(strangers)).isdisjoint(names_by_id(model))


def test_a_name_that_an_operator_gave_is_kept(model):
    first, *others = model.clusters
    renamed = msgspec.structs.replace(
        model, clusters=(msgspec.structs.replace(first, name="Regulars"), *others)
    )
    assert names_by_id(fitted(seed=5, previous=renamed))[first.id] == "Regulars"


def test_a_number_of_clusters_stays_while_it_is_nearly_as_good(model):
    """Two pairs of groups: two clusters are a little better than four, unless four were there before."""
    generator = np.random.default_rng(0)
    corners = np.array([[0.0, 0.0], [0.0, 5.5], [12.0, 0.0], [12.0, 5.5]])
    scores = (corners[np.arange(800) % 4] + generator.normal(size=(800, 2))).astype(np.float32)
    settings = KMeans(clusters_max=5, bootstraps=3)
    fresh = choose(settings, scores, np.random.default_rng(1))
    by_number = {trial.parameter: trial.silhouette for trial in fresh.tried}
    assert fresh.trial.parameter == 2
    assert 0.0 < by_number[2] - by_number[4] < 0.03
    before = msgspec.structs.replace(model, parameter=4.0)
    assert choose(settings, scores, np.random.default_rng(1), before).trial.parameter == 4
    worse = msgspec.structs.replace(model, parameter=5.0)
    assert choose(settings, scores, np.random.default_rng(1), worse).trial.parameter == 2


def _without(kind: str) -> tuple[np.ndarray, tuple[str, ...]]:
    return MATRIX[KINDS.index(kind) != TRUTH], VARIABLES


# --- bad input -----------------------------------------------------------------------------------------


def bad_inputs() -> Iterator:
    holed = MATRIX.copy()
    holed[417, 3] = np.nan
    endless = MATRIX.copy()
    endless[0, 0] = -np.inf
    twice = ("orders_90d", *VARIABLES[:-1])
    yield pytest.param(MATRIX[:20], VARIABLES, QUICK, "50 to", id="too few people")
    yield pytest.param(np.ones_like(MATRIX), VARIABLES, QUICK, "differs between", id="all constant")
    yield pytest.param(holed, VARIABLES, QUICK, r"matrix\[417, product_viewed_7d\]: must be finite", id="nan")
    yield pytest.param(endless, VARIABLES, QUICK, r"matrix\[0, orders_90d\].*-inf", id="infinite")
    yield pytest.param(MATRIX, VARIABLES[:-1], QUICK, "each of the 14 columns", id="a name too few")
    yield pytest.param(MATRIX, twice, QUICK, "orders_90d", id="a name twice")
    yield pytest.param(MATRIX.astype(np.float64), VARIABLES, QUICK, "float32", id="another type")
    yield pytest.param(MATRIX[0], VARIABLES, QUICK, "float32 of shape", id="one dimension")
    yield pytest.param(MATRIX[:, :0], (), QUICK, "1 to", id="no variable")
    yield pytest.param(
        MATRIX, VARIABLES, KMeans(clusters_min=5, clusters_max=3), "clustersMax", id="bounds crossed"
    )


@pytest.mark.parametrize("settings", [Hdbscan(neighbours=20), Dbscan(neighbours=20)])
def test_more_neighbours_than_people_can_have_are_refused(settings):
    with pytest.raises(InvalidInputError, match="neighbours: must be at most one in 4 of 60 people"):
        fitted(MATRIX[:60], settings=settings)


def test_fewer_different_people_than_clusters_are_refused():
    flag = (np.arange(100) % 3 == 0).astype(np.float32)[:, None]
    with pytest.raises(InvalidInputError, match="clustersMin, 3, people who differ"):
        fitted(flag, ("device_mobile",), KMeans(clusters_min=3))


@pytest.mark.parametrize(("matrix", "variables", "settings", "said"), list(bad_inputs()))
def test_input_that_cannot_give_clusters_is_refused_with_the_reason(matrix, variables, settings, said):
    with pytest.raises(InvalidInputError, match=said):
        fitted(matrix, variables, settings)


def test_memberships_must_fit_the_people_and_come_with_their_model(model):
    with pytest.raises(InvalidInputError, match="one for each of 900"):
        fitted(previous=model, memberships=["c-1"])
    with pytest.raises(InvalidInputError, match="with the model"):
        fitted(memberships=["c-1"] * PEOPLE)


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "kmeans", "clustersMax": 51}',
        '{"type": "kmeans", "clusters": 3}',
        '{"type": "hdbscan", "shares": []}',
        '{"type": "dbscan", "reaches": [1.0]}',
        '{"type": "spectral"}',
        '{"type": "kmeans", "bootstraps": 1}',
    ],
)
def test_settings_out_of_their_bounds_are_refused(text):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=ClusterSettings)


def test_a_single_flag_splits_people_in_two():
    flag = (np.random.default_rng(6).uniform(size=(200, 1)) < 0.4).astype(np.float32)
    model = fitted(flag, ("device_mobile",), KMeans(bootstraps=2))
    assert [trial.clusters for trial in model.tried] == [2]
    assert {found.description for found in model.clusters} == {
        "Mostly device mobile: device_mobile 100 % against 0 %.",
        "Rarely device mobile: device_mobile 0 % against 100 %.",
    }


def test_the_guide_shows_the_defaults_and_names_every_setting():
    guide = (Path(__file__).parents[2] / "docs/guides/segments.md").read_text(encoding="utf-8")
    shown = re.findall(
        r'^```json\n(\{"type": "(?:kmeans|hdbscan|dbscan)".*?)^```', guide, re.MULTILINE | re.DOTALL
    )
    assert [msgspec.json.decode(text, type=ClusterSettings) for text in shown] == [
        KMeans(),
        Hdbscan(),
        Dbscan(),
    ]
    fields = {
        field.encode_name for kind in (KMeans, Hdbscan, Dbscan) for field in msgspec.structs.fields(kind)
    }
    assert {name for name in fields if f"`{name}`" not in guide} == set()


# --- real customers --------------------------------------------------------------------------------------


def customers() -> tuple[np.ndarray, tuple[str, ...]]:
    """Return recency, frequency, money and breadth of each customer of Online Retail."""
    table = pyarrow.parquet.read_table(recorded(online_retail.FILE)).to_pandas().dropna(subset=["CustomerID"])
    bought = table[(table.Quantity > 0) & (table.UnitPrice > 0)]
    bought = bought.assign(
        value=bought.Quantity * bought.UnitPrice,
        at=bought.InvoiceDate.astype("datetime64[s]").astype("int64"),
    )
    by = bought.groupby("CustomerID")
    columns = [
        bought["at"].max() - by["at"].max(),
        by.InvoiceNo.nunique(),
        by.value.sum(),
        by.StockCode.nunique(),
        by["at"].max() - by["at"].min(),
    ]
    names = ("recency_seconds", "orders_count", "revenue_sum_365d", "items", "tenure_seconds")
    return np.column_stack(columns).astype(np.float32), names


def test_real_customers_fall_into_stable_clusters_that_keep_their_names():
    matrix, variables = customers()
    model = fitted(matrix, variables, KMeans(bootstraps=5))
    assert model.people == len(matrix) > 2_500
    assert model.stability >= 0.8
    assert model.silhouette > 0.3
    again = fitted(matrix, variables, KMeans(bootstraps=5), seed=77, previous=model)
    assert names_by_id(again) == names_by_id(model)
    half = np.random.default_rng(1).uniform(size=len(matrix)) < 0.5
    of_half = fitted(matrix[half], variables, KMeans(bootstraps=5), seed=78, previous=model)
    assert names_by_id(of_half) == names_by_id(model)
    best = max(
        model.clusters,
        key=lambda found: next(d.inside for d in found.differences if d.variable == "orders_count"),
    )
    assert "buys often" in best.description.lower()
