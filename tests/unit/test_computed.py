"""Computed attributes on made-up buyers: what is foretold, how it is judged, what is refused."""

import msgspec
import numpy as np
import pytest
from tests.buyers import BEGIN, DAY, NAMES, buyers

from tailorbird.errors import ConflictError, InvalidInputError
from tailorbird.schema.computed import (
    Churn,
    ClassifierMetrics,
    ComputedAttribute,
    ComputedModel,
    Engagement,
    LifetimeValue,
    LossDifference,
    ValueSegment,
)
from tailorbird.segment.baselines import fit_threshold
from tailorbird.segment.calibration import calibrated, fit_platt, fit_scale
from tailorbird.segment.computed import compute, computed_values, segments_of
from tailorbird.segment.fitting import fit, verdict
from tailorbird.segment.occurrences import Occurrences
from tailorbird.segment.scoring import calibration_error, classifier_metrics, value_metrics

CHURN, ENGAGEMENT, VALUE = Churn(), Engagement(), LifetimeValue()


@pytest.fixture(scope="module")
def known():
    return buyers(1)


@pytest.fixture(scope="module")
def models(known):
    return {
        attribute.key: fit(attribute, known.snapshots, known.occurrences, known.until)
        for attribute in (CHURN, ENGAGEMENT, VALUE)
    }


def foretold(model, known):
    """Return what a model says of everybody at the holdout's cut."""
    rows = known.snapshots.at(model.training.holdout_cut)
    return compute(model, rows.matrix, rows.names)


# --- what is foretold -----------------------------------------------------------------------------


def test_the_probability_of_churn_is_that_of_buying_nothing(known, models):
    truth = np.exp(-known.rates * CHURN.horizon_days)
    assert np.abs(foretold(models["churn_risk"], known) - truth).mean() < 0.09


def test_engagement_is_the_probability_of_coming_back_within_its_horizon(known, models):
    truth = 1.0 - np.exp(-known.rates * ENGAGEMENT.horizon_days)
    assert np.abs(foretold(models["engagement"], known) - truth).mean() < 0.09


def test_expected_spend_is_the_rate_times_the_mean_times_the_horizon(known, models):
    truth = known.rates * known.means * VALUE.horizon_days
    expected = foretold(models["lifetime_value"], known)
    assert np.corrcoef(np.log(truth), np.log(expected))[0, 1] > 0.93
    assert 0.8 < expected.sum() / truth.sum() < 1.2


def test_models_beat_their_baselines_where_there_is_something_to_know(models):
    for model in models.values():
        assert model.is_accepted, model.reason
        assert model.difference.high < 0.0


def test_the_features_that_tell_something_are_named_first(models):
    assert models["churn_risk"].importances[0].feature == "rate"
    assert {one.feature for one in models["lifetime_value"].importances[:2]} == {"rate", "spend"}
    assert sum(one.share for one in models["churn_risk"].importances) == pytest.approx(1.0)


def test_nothing_is_learned_from_features_that_are_somebody_elses():
    strangers = buyers(2, is_told=False)
    churn = fit(CHURN, strangers.snapshots, strangers.occurrences, strangers.until)
    value = fit(VALUE, strangers.snapshots, strangers.occurrences, strangers.until)
    assert 0.44 < churn.metrics.auc < 0.56
    assert abs(value.metrics.spearman) < 0.12
    assert not churn.is_accepted
    assert not value.is_accepted


def test_what_happens_after_the_last_horizon_changes_no_model(known):
    seen = known.occurrences
    more = Occurrences(
        np.append(seen.people, [0, 1, 2]),
        np.append(seen.times, known.until + DAY * np.array([1.0, 2.0, 30.0])),
        np.append(seen.values, [1e6, 1e6, 1e6]),
    )
    before = fit(VALUE, known.snapshots, seen, known.until)
    assert fit(VALUE, known.snapshots, more, known.until) == before


def test_the_judged_period_changes_nothing_that_was_fitted(known):
    seen = known.occurrences
    before = fit(CHURN, known.snapshots, seen, known.until)
    kept = seen.times <= before.training.holdout_cut
    people = np.unique(seen.people)
    silent = Occurrences(
        np.append(seen.people[kept], people[::2]),
        np.append(seen.times[kept], np.full(len(people[::2]), known.until)),
        np.append(seen.values[kept], np.ones(len(people[::2]))),
    )
    after = fit(CHURN, known.snapshots, silent, known.until)
    assert (after.trees, after.calibration) == (before.trees, before.calibration)
    assert after.metrics != before.metrics


def test_the_same_rows_and_seed_give_the_same_model_and_another_seed_another(known, models):
    arguments = (CHURN, known.snapshots, known.occurrences, known.until)
    assert fit(*arguments) == models["churn_risk"]
    assert fit(*arguments, seed=8).trees != models["churn_risk"].trees


def test_only_people_who_ever_did_it_are_asked_about(known):
    late = known.occurrences.people % 2 == 0
    half = Occurrences(
        known.occurrences.people[late], known.occurrences.times[late], known.occurrences.values[late]
    )
    model = fit(CHURN, known.snapshots, half, known.until)
    assert model.training.holdout_rows == 1000


# --- segments and values --------------------------------------------------------------------------


def test_segments_hold_about_their_declared_shares_and_spend_more_the_higher(models):
    figures = models["lifetime_value"].metrics.segments
    assert [one.name for one in figures] == ["low", "mid", "high", "top"]
    shares = np.array([one.rows for one in figures]) / sum(one.rows for one in figures)
    assert shares == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.06)
    assert [one.spent for one in figures] == sorted(one.spent for one in figures)


def test_a_value_lies_in_the_segment_that_begins_at_or_below_it(models):
    model = models["lifetime_value"]
    first = model.segment_edges[0]
    assert segments_of(model, np.array([0.0, np.nextafter(first, 0.0), first, 1e9])) == [
        "low",
        "low",
        "mid",
        "top",
    ]


def test_a_computed_value_says_by_which_model_and_as_of_when(models):
    churn, value = models["churn_risk"], models["lifetime_value"]
    (one,) = computed_values(churn, np.array([0.25]), BEGIN)
    assert (one.value, one.segment, one.model_version, one.t) == (0.25, None, churn.version, BEGIN)
    assert computed_values(value, np.array([1e9]), BEGIN)[0].segment == "top"
    assert churn.version != value.version


def test_one_segment_alone_holds_everybody(known):
    one = LifetimeValue(segments=(ValueSegment("all", 0.0),))
    model = fit(one, known.snapshots, known.occurrences, known.until)
    assert segments_of(model, np.array([0.0, 5.0])) == ["all", "all"]


@pytest.mark.parametrize("quantiles", [(0.5,), (0.0, 0.5, 0.5), (0.0, 0.9, 0.5), ()])
def test_segments_that_leave_somebody_out_or_do_not_rise_are_refused(quantiles):
    fields = {"type": "lifetime_value", "segments": [{"name": f"s{q}", "above": q} for q in quantiles]}
    with pytest.raises(msgspec.ValidationError, match="segments"):
        msgspec.convert(fields, ComputedAttribute)


def test_a_definition_is_read_from_what_an_operator_writes():
    text = b'{"type": "churn", "key": "gone", "horizonDays": 60}'
    assert msgspec.json.decode(text, type=ComputedAttribute) == Churn(key="gone", horizon_days=60.0)
    with pytest.raises(msgspec.ValidationError, match="horizon_day"):
        msgspec.json.decode(b'{"type": "churn", "horizon_day": 60}', type=ComputedAttribute)


# --- what is refused ------------------------------------------------------------------------------


def test_another_layout_of_features_is_refused_and_the_first_difference_named(known, models):
    rows = known.snapshots.at(known.snapshots.cuts[0])
    turned = ("spend", "rate", *NAMES[2:])
    with pytest.raises(InvalidInputError, match="column 0 is 'spend', not 'rate'"):
        compute(models["churn_risk"], rows.matrix, turned)
    with pytest.raises(InvalidInputError, match="4 features"):
        compute(models["churn_risk"], np.ascontiguousarray(rows.matrix[:, :4]), NAMES[:4])


@pytest.mark.parametrize(
    ("matrix", "names", "rule"),
    [
        (np.zeros((2, 5)), NAMES, "must be float32"),
        (np.zeros(5, np.float32), NAMES, "must be float32"),
        (np.zeros((2, 4), np.float32), NAMES, "must name each column once"),
        (np.zeros((2, 5), np.float32), (*NAMES[:4], "rate"), "must name each column once"),
    ],
)
def test_a_matrix_of_another_kind_is_refused(models, matrix, names, rule):
    with pytest.raises(InvalidInputError, match=rule):
        compute(models["churn_risk"], matrix, names)


def test_nobody_gets_nothing(models):
    assert compute(models["churn_risk"], np.zeros((0, 5), np.float32), NAMES).shape == (0,)


def test_a_model_that_was_not_accepted_is_not_served(models):
    refused = msgspec.structs.replace(models["churn_risk"], is_accepted=False, reason="it is no better")
    with pytest.raises(ConflictError, match="churn_risk: the model is not served: it is no better"):
        compute(refused, np.zeros((1, 5), np.float32), NAMES)


def test_a_log_of_less_than_three_horizons_is_refused(known):
    short = Churn(horizon_days=60.0)
    with pytest.raises(InvalidInputError, match="three horizons"):
        fit(short, known.snapshots, known.occurrences, known.until)


def test_too_few_people_are_refused_with_their_number():
    few = buyers(3, 150)
    with pytest.raises(InvalidInputError, match=r"at least 200 people .* calibrate \(found 150\)"):
        fit(CHURN, few.snapshots, few.occurrences, few.until)


def test_people_who_all_do_the_same_are_refused(known):
    people = np.arange(2000)
    once = Occurrences(people, np.full(2000, BEGIN), np.ones(2000))
    with pytest.raises(InvalidInputError, match="must differ in what came of them"):
        fit(CHURN, known.snapshots, once, known.until)


def test_snapshots_whose_arrays_differ_in_length_are_refused(known):
    broken = known.snapshots._replace(people=known.snapshots.people[:-1])
    with pytest.raises(InvalidInputError, match="must be as many"):
        fit(CHURN, broken, known.occurrences, known.until)


@pytest.mark.parametrize(
    ("people", "times", "values", "rule"),
    [
        ([0, 1], [1.0], [1.0], "as many"),
        ([], [], [], "at least one"),
        ([-1], [1.0], [1.0], "people from 0"),
        ([0], [np.nan], [1.0], "finite"),
        ([0], [1.0], [np.inf], "finite"),
    ],
)
def test_occurrences_that_do_not_fit_one_another_are_refused(people, times, values, rule):
    with pytest.raises(InvalidInputError, match=rule):
        Occurrences(np.array(people, np.int64), np.array(times), np.array(values))


# --- verdict, baselines, calibration, measures ----------------------------------------------------


def classifier(auc: float) -> ClassifierMetrics:
    return ClassifierMetrics(100, 0.5, auc, 0.6, 0.2, 0.02)


@pytest.mark.parametrize(
    ("auc", "high", "is_accepted", "reason"),
    [
        (0.8, -0.01, True, "it beats the baseline by 0.05"),
        (0.8, 0.01, False, "its loss is not surely below"),
        (0.7, -0.01, False, "it ranks people no better"),
    ],
)
def test_a_model_must_lose_surely_less_and_rank_better(auc, high, is_accepted, reason):
    found = verdict(classifier(auc), classifier(0.7), LossDifference(-0.05, -0.09, high))
    assert found[0] == is_accepted
    assert found[1].startswith(reason)


def test_the_threshold_on_recency_lies_where_people_are_gone():
    since = np.arange(1000.0)
    threshold = fit_threshold(since, (since > 600).astype(float))
    assert 580 < threshold.seconds < 620
    assert threshold.below < 0.05
    assert threshold.above > 0.95


def test_overconfident_probabilities_are_mended_and_keep_their_order():
    generator = np.random.Generator(np.random.PCG64(4))
    odds = generator.normal(0.0, 1.0, 4000)
    happened = (generator.random(4000) < 1.0 / (1.0 + np.exp(-odds))).astype(float)
    bold = 1.0 / (1.0 + np.exp(-3.0 * odds))
    platt = fit_platt(bold, happened)
    assert platt.slope == pytest.approx(1.0 / 3.0, abs=0.03)
    mended = calibrated(bold, platt)
    assert calibration_error(happened, mended) < 0.03 < calibration_error(happened, bold)
    assert (np.argsort(mended, kind="stable") == np.argsort(bold, kind="stable")).all()


def test_a_factor_that_chance_explains_is_left_at_one():
    generator = np.random.Generator(np.random.PCG64(5))
    spent = generator.lognormal(0.0, 2.5, 300)
    assert fit_scale(np.full(300, spent.mean() * 0.97), spent).factor == 1.0
    assert fit_scale(np.full(300, 1.0), np.full(300, 1.2)).factor == pytest.approx(1.2)


def test_measures_are_those_of_a_worked_example():
    happened = np.array([1.0, 0.0, 1.0, 0.0])
    found = classifier_metrics(happened, np.array([0.8, 0.4, 0.6, 0.6]), np.array([4.0, 1.0, 3.0, 2.0]))
    assert found.auc == 1.0
    assert found.brier == pytest.approx((0.04 + 0.16 + 0.16 + 0.36) / 4)
    assert found.log_loss == pytest.approx(-np.log([0.8, 0.6, 0.6, 0.4]).mean())
    values = value_metrics(np.array([0.0, 10.0] * 10), np.array([0.0, 8.0] * 10))
    assert values.mae == 1.0
    assert values.spearman == 1.0
    assert values.decile_lift == 2.0
    assert values.rmsle == pytest.approx(np.log(11 / 9) / 2**0.5)


def test_constant_expectations_have_no_rank_correlation():
    assert value_metrics(np.arange(10.0), np.ones(10)).spearman == 0.0


def test_an_artifact_is_json_and_comes_back_whole(models):
    for model in models.values():
        text = msgspec.json.encode(model)
        assert msgspec.json.decode(text, type=ComputedModel) == model
        assert msgspec.json.decode(text, type=ComputedModel).version == model.version
