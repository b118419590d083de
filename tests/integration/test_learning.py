"""Models learn from an installation's own past, are judged, and what they say of people is part of the state."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tailorbird.app.engine import Engine, Options, catch_up
from tailorbird.app.keeper import Keeper
from tailorbird.app.learner import Learner, LearnSettings
from tailorbird.app.learning import learn
from tailorbird.app.lessons import LearnRequest
from tailorbird.clock import ManualClock
from tailorbird.decide.compiled import check
from tailorbird.decide.visitor import Request
from tailorbird.features.defaults import CATALOGUES
from tailorbird.live.facts import profile_facts
from tailorbird.live.profiles import by_identifier
from tailorbird.live.world import TABLES
from tailorbird.process.worker import Fold
from tailorbird.schema.clusters import KMeans
from tailorbird.schema.computed import Churn, LifetimeValue
from tailorbird.schema.decision import PlacementRequest, VisitorRef
from tailorbird.schema.events import LoggedEvent
from tailorbird.schema.feature import FeatureConfig
from tailorbird.schema.placement import Placement
from tailorbird.schema.records import PlacementPut
from tailorbird.stores.sqlite import SqliteState

HERO = {"key": "hero", "variants": [{"id": "a"}, {"id": "b"}]}
DAY = 86_400.0
BEGIN = 1_700_000_000.0
DAYS = 70
PEOPLE = 360
ATTRIBUTES = (Churn(horizon_days=14), LifetimeValue(horizon_days=14))
SETTINGS = LearnSettings(ATTRIBUTES, KMeans(clusters_max=3, bootstraps=3), 24.0, gpc_opts_out=True)


def past() -> Iterator[tuple[float, int, str, dict]]:
    """Yield (time, person, event, properties): a third buy every few days, the others once or twice and go."""
    generator = np.random.default_rng(5)
    acts = []
    for person in range(PEOPLE):
        is_loyal = person % 3 == 0
        start = generator.uniform(0, 20)
        gaps = generator.exponential(4.0 if is_loyal else 40.0, 30)
        for day in (start + np.cumsum(gaps))[: 30 if is_loyal else 2]:
            price = float(generator.integers(40, 90) if is_loyal else generator.integers(5, 20))
            if day < DAYS:
                acts.append((day, person, "Product Viewed", {"product_id": f"p{person % 7}", "price": price}))
                acts.append((day + 0.01, person, "Order Completed", {"revenue": price}))
    yield from sorted(acts, key=lambda act: act[0])


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[Engine]:
    clock = ManualClock(BEGIN)
    folder = tmp_path_factory.mktemp("learning") / "data"
    made = Engine(folder, Options(bytes(range(32)), holdout_share=0.0, seed=1, sample_share=1.0), clock)
    made.recover()
    computed = {"type": "computed", "name": "churn", "attribute": "churn_risk"}
    config = msgspec.convert({"catalogues": list(CATALOGUES), "definitions": [computed]}, FeatureConfig)
    made.declare_features(config)
    for place, (day, person, event, properties) in enumerate(past()):
        t = float(BEGIN + day * DAY)
        clock.advance(t - clock.now())
        body = {
            "type": "track",
            "messageId": f"m-{place}",
            "userId": f"u-{person}",
            "event": event,
            "properties": properties,
        }
        made.write(LoggedEvent(t, t, body["messageId"], msgspec.Raw(json.dumps(body).encode())))
    clock.advance(BEGIN + DAYS * DAY - clock.now())
    made.write(PlacementPut(clock.now(), check(msgspec.convert(HERO, Placement))))
    for person in range(6):
        asked = Request(VisitorRef(None, f"u-{person}"), [PlacementRequest("hero")], {"locale": "de-AT"})
        made.decider.decide(asked)
    asyncio.run(made.checkpoint())
    yield made
    made.close()


@pytest.fixture(scope="module")
def learned(engine):
    asyncio.run(engine.checkpoint())
    return learn(LearnRequest(str(engine.folder), ATTRIBUTES, SETTINGS.clusters))


def test_models_are_fitted_on_the_past_and_beat_their_baselines(learned):
    assert learned.skipped == {}
    assert [model.attribute.key for model in learned.models] == ["churn_risk", "lifetime_value"]
    churn = learned.models[0]
    assert churn.metrics.auc > 0.75
    assert len(churn.features) >= 1_000
    for model in learned.models:
        for cut in (*model.training.fit_cuts, model.training.calibrate_cut, model.training.holdout_cut):
            assert cut + 14 * DAY <= BEGIN + DAYS * DAY, "every horizon is over"


def test_clusters_tell_the_loyal_from_the_others(learned, engine):
    clusters = learned.clusters
    assert len(clusters.clusters) >= 2
    assert sum(cluster.size for cluster in clusters.clusters) <= PEOPLE


def test_with_too_short_a_past_nothing_is_learned_and_it_is_said_why(engine):
    found = learn(LearnRequest(str(engine.folder), (Churn(horizon_days=60),), None))
    assert found.models == []
    assert "three horizons" in found.skipped["churn_risk"]


def test_what_was_learned_is_logged_read_and_kept_over_a_rebuild(engine, tmp_path):
    learner = Learner(engine, SETTINGS)
    account = asyncio.run(learner.learn())
    assert account.failure == ""
    assert account.people == account.changed > 300
    assert account.skew.compared >= 5
    assert account.skew.skewed == [], "served as history says"
    accepted = [model.attribute.key for model in learner.models if model.is_accepted]
    assert "churn_risk" in accepted
    loyal, gone = (by_identifier(engine.world, f"user_id:u-{person}") for person in (0, 1))
    assert loyal.computed["churn_risk"].value < gone.computed["churn_risk"].value
    now = engine.clock.now()
    facts = profile_facts(engine.world, loyal, frozenset({"churn", "computed", "cluster"}), now)
    assert facts["computed"]["churn_risk"] == loyal.computed["churn_risk"].value
    assert facts["churn"] == pytest.approx(facts["computed"]["churn_risk"])
    assert facts["cluster"] in [cluster.name for cluster in engine.world.clusters.model.clusters]
    again = Learner(engine, SETTINGS)
    assert again.account == account
    assert [model.version for model in again.models] == [model.version for model in learner.models]
    asyncio.run(engine.checkpoint())
    world = engine.new_world(SqliteState(tmp_path / "state.db", TABLES))
    catch_up(Fold(world, engine.options.secret, engine.log), engine.log, Keeper(None))
    assert world.store.digest() == engine.world.store.digest()
    world.store.close()
    artifacts = sorted(Path(engine.folder, "artifacts").glob("*.json"))
    assert any(file.name.startswith("clusters-") for file in artifacts)


def test_a_second_run_with_nothing_new_changes_hardly_anybody_and_keeps_names(engine):
    learner = Learner(engine, SETTINGS)
    before = [cluster.name for cluster in engine.world.clusters.model.clusters]
    account = asyncio.run(learner.learn())
    assert account.changed == 0
    assert [cluster.name for cluster in engine.world.clusters.model.clusters] == before
