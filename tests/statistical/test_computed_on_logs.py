"""On recorded logs, split by time, the computed attributes beat what anybody would say without a model."""

import pytest
from tests.needs import recorded

from tailorbird.app.computing import computed_models
from tailorbird.app.datasets import complete_journey, load, online_retail

LOGS = {"online-retail": online_retail.FILE, "completejourney": complete_journey.FOLDER}


@pytest.fixture(scope="module", params=LOGS)
def models(request):
    """Return the models of one log by their keys, or skip by its name."""
    recorded(LOGS[request.param])
    return {model.attribute.key: model for model in computed_models(load(request.param))}


def test_all_of_them_are_accepted(models):
    assert models.keys() == {"engagement", "churn_risk", "lifetime_value"}
    assert {model.reason for model in models.values() if not model.is_accepted} == set()


def test_probabilities_beat_a_threshold_on_recency_in_every_measure_of_skill(models):
    for key in ("engagement", "churn_risk"):
        found, baseline = models[key].metrics, models[key].baseline
        assert found.auc > baseline.auc + 0.03
        assert found.log_loss < baseline.log_loss
        assert found.brier < baseline.brier
        assert found.calibration_error < 0.1


def test_expected_spend_beats_the_mean_of_past_spend_in_every_measure(models):
    found, baseline = models["lifetime_value"].metrics, models["lifetime_value"].baseline
    assert found.mae < baseline.mae
    assert found.rmsle < baseline.rmsle
    assert found.spearman > baseline.spearman + 0.02
    assert found.decile_lift > baseline.decile_lift


def test_segments_spend_more_the_higher_they_are(models):
    segments = models["lifetime_value"].metrics.segments
    assert [one.name for one in segments] == ["low", "mid", "high", "top"]
    assert [one.spent for one in segments] == sorted(one.spent for one in segments)


def test_no_outcome_that_was_learned_from_lies_in_the_judged_period(models):
    for model in models.values():
        horizon = model.attribute.horizon_days * 86_400.0
        training = model.training
        assert max(training.fit_cuts) + horizon <= training.calibrate_cut + 1.0
        assert training.calibrate_cut + horizon <= training.holdout_cut + 1.0
