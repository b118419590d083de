"""What decisions log of the variables that they were made with."""

import numpy as np
from tests.house import House

from tailorbird.decide.decider import Settings
from tailorbird.hashing import checksum
from tailorbird.live.variables import vector

VARIANTS = [{"id": "a"}, {"id": "b"}]


def home(**settings) -> House:
    made = House(features={"catalogues": ["commerce"]})
    made.decider._settings = Settings(0.0, **settings)
    made.declare("hero", variants=VARIANTS)
    made.declare("side", variants=VARIANTS)
    made.send("a", event="Product Viewed", properties={"price": 5})
    return made


def logged(made: House, **asked):
    decision = made.decide("a", "hero", **asked).decision
    assert decision is not None
    return decision


def test_a_sampled_decision_logs_the_values_that_were_read():
    made = home(sample_share=1.0)
    context = {"campaign": {"source": "blog", "medium": "cpc"}}
    decision = logged(made, context=context)
    values = np.frombuffer(decision.values, np.float32)
    expected = vector(made.world, made.profile("anonymous_id:a"), decision.t, context)
    np.testing.assert_array_equal(values, expected)
    program = made.world.features.reading
    assert values[program.index["referrer_paid"]] == 1.0
    assert decision.vector == f"{program.version}:{checksum(values.tobytes())}"
    assert decision.context == context


def test_with_every_vector_read_all_personalized_decisions_log_a_digest():
    made = home(reads_every_vector=True, sample_share=0.0)
    decision = logged(made)
    assert decision.vector.startswith(made.world.features.reading.version)
    assert decision.values == b""


def test_else_only_a_sample_does():
    made = home(sample_share=0.2)
    found = [bool(made.decide(f"v{number}", "hero").decision.values) for number in range(400)]
    assert 40 < sum(found) < 120


def test_a_visitor_who_is_not_personalized_is_not_read():
    made = home(sample_share=1.0)
    made.send(
        "a", event="Page Viewed", context={"consent": {"categoryPreferences": {"personalization": False}}}
    )
    assert logged(made).vector == ""


def test_without_features_nothing_is_logged_of_them():
    made = House()
    made.decider._settings = Settings(0.0, reads_every_vector=True, sample_share=1.0)
    made.declare("hero", variants=VARIANTS)
    assert logged(made).vector == ""
