"""Point-in-time rows of a recorded shop: what is in them, and what never may be."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from tests.house import House

from tailorbird.app import datasets
from tailorbird.app.cli import main
from tailorbird.app.computing import ATTRIBUTES, cuts_of, occurrences_of, past_of
from tailorbird.app.datasets.complete_journey import SENSITIVE_TRAITS
from tailorbird.app.datasets.events import events_of
from tailorbird.app.datasets.shop import Basket, Line, Notice, Shop
from tailorbird.clock import ManualClock
from tailorbird.errors import InvalidInputError
from tailorbird.features.defaults import CATALOGUES
from tailorbird.live.variables import vector
from tailorbird.schema.computed import Churn, Engagement, LifetimeValue
from tailorbird.schema.item import Item

DAY = 86_400.0
BEGIN = 1_700_000_000.0
ITEMS = tuple(Item(id=f"i-{k}", title=f"Thing {k}", categories=(f"kind-{k % 3}",)) for k in range(5))


def basket(key, visitor, day, *items, price=2.0):
    lines = tuple(Line(BEGIN + day * DAY + k, f"i-{item}", 1, price) for k, item in enumerate(items))
    return Basket(key, visitor, lines)


def shop(*baskets, notices=()):
    return Shop("test", ITEMS, tuple(baskets), 0, {}, notices=tuple(notices))


BASKETS = (
    basket("b-1", "ann", 1, 0, 1),
    basket("b-2", "bob", 2, 2),
    basket("b-3", None, 3, 2),
    basket("b-4", "ann", 9, 3),
    basket("b-5", "cyd", 12, 4),
    basket("b-6", "ann", 20, 4),
)
CUTS = BEGIN + DAY * np.array([5.0, 14.0])


def test_a_row_is_what_a_server_knew_at_the_cut():
    past = past_of(shop(*BASKETS), CUTS)
    for cut in CUTS:
        house = House(clock=ManualClock(BEGIN), features={"catalogues": list(CATALOGUES)})
        for t, event in events_of(shop(*BASKETS)):
            if t <= cut and "userId" in event:
                house.send(
                    user=event["userId"], at=t - BEGIN, **{k: event[k] for k in ("event", "properties")}
                )
        rows = past.snapshots.at(cut)
        for person, row in zip(rows.people, rows.matrix, strict=True):
            name = ("ann", "bob", "cyd")[person]
            expected = vector(house.world, house.profile(f"user_id:{name}"), cut)
            np.testing.assert_array_equal(row, expected)


def test_people_are_in_the_rows_from_their_first_event_on():
    past = past_of(shop(*BASKETS), CUTS)
    assert past.snapshots.at(CUTS[0]).people.tolist() == [0, 1]
    assert past.snapshots.at(CUTS[1]).people.tolist() == [0, 1, 2]


def test_what_comes_after_a_cut_changes_no_row():
    other = (*BASKETS[:5], basket("b-6", "ann", 15, 0, 1, 2, price=900.0), basket("b-7", "dan", 16, 0))
    before, after = past_of(shop(*BASKETS), CUTS), past_of(shop(*other), CUTS)
    np.testing.assert_array_equal(before.snapshots.matrix, after.snapshots.matrix)
    assert (before.snapshots.people == after.snapshots.people).all()
    assert len(before.acts) != len(after.acts)


def test_what_comes_before_a_cut_changes_its_rows():
    other = (basket("b-1", "ann", 1, 0, 1, price=900.0), *BASKETS[1:])
    before, after = past_of(shop(*BASKETS), CUTS), past_of(shop(*other), CUTS)
    assert (before.snapshots.matrix[0] != after.snapshots.matrix[0]).any()


def test_traits_change_no_row_and_name_no_feature():
    traits = dict.fromkeys(SENSITIVE_TRAITS.values(), "x")
    said = shop(*BASKETS, notices=[Notice("n-1", "ann", BEGIN, traits)])
    plain = past_of(shop(*BASKETS), CUTS).snapshots
    np.testing.assert_array_equal(past_of(said, CUTS).snapshots.matrix, plain.matrix)
    words = {word for name in plain.names for word in name.split("_")}
    assert not words & {"age", "income", "household", "marital", "kids", "home"}


def test_an_event_of_a_notice_is_in_the_rows():
    coupon = Notice("n-1", "ann", BEGIN + 2 * DAY, {"coupon_id": "c"}, "Coupon Applied")
    with_coupon = past_of(shop(*BASKETS, notices=[coupon]), CUTS)
    assert (with_coupon.snapshots.matrix[0] != past_of(shop(*BASKETS), CUTS).snapshots.matrix[0]).any()


def test_visitors_without_a_name_are_nobodys_rows():
    past = past_of(shop(*BASKETS), CUTS)
    assert {act.person for act in past.acts} == {0, 1, 2}


def test_each_column_holds_what_its_name_says():
    past = past_of(shop(*BASKETS), CUTS)
    names = past.snapshots.names
    assert len(names) == len(set(names)) == past.snapshots.matrix.shape[1]
    ann = dict(zip(names, past.snapshots.at(CUTS[1]).matrix[0].tolist(), strict=True))
    assert ann["order_completed_count"] == ann["orders"] == 2.0
    assert ann["order_completed_7d"] == 1.0
    assert ann["product_added_count"] == 3.0
    assert ann["value"] == 6.0
    assert ann["recency_seconds"] == pytest.approx(5 * DAY, abs=5.0)


def test_a_definition_counts_what_it_is_about():
    acts = past_of(shop(*BASKETS), CUTS).acts
    assert len(occurrences_of(acts, Engagement()).times) == len(acts)
    assert len(occurrences_of(acts, Engagement(events=("Product Added",))).times) == 6
    assert len(occurrences_of(acts, Churn()).times) == 5
    assert occurrences_of(acts, LifetimeValue()).values.tolist() == [4.0, 2.0, 2.0, 2.0, 2.0]
    assert occurrences_of(acts, LifetimeValue(value="nothing")).values.sum() == 0.0


def test_a_definition_about_what_nobody_did_is_refused():
    acts = past_of(shop(*BASKETS), CUTS).acts
    with pytest.raises(InvalidInputError, match="nobody in the log"):
        occurrences_of(acts, Churn(event="Signed Up"))


def test_cuts_are_whole_weeks_back_from_the_last_event():
    year = shop(*(basket(f"b-{day}", "ann", day, 0) for day in range(0, 200, 5)))
    cuts = cuts_of(year, ATTRIBUTES)
    last = events_of(year)[-1][0]
    assert ((last - cuts) % (7 * DAY) == 0.0).all()
    assert cuts.max() == last - 7 * DAY
    assert (np.diff(cuts) > 0).all()


def test_a_log_of_few_weeks_or_without_customers_is_refused():
    with pytest.raises(InvalidInputError, match="three horizons"):
        cuts_of(shop(*BASKETS), ATTRIBUTES)
    with pytest.raises(InvalidInputError, match="must have customers"):
        cuts_of(shop(BASKETS[2]), ATTRIBUTES)


def test_the_command_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(datasets, "shared", lambda _: None)
    assert main(["compute", "--dataset", "completejourney", "--json"]) == 2
    assert "completejourney is not here" in json.loads(capsys.readouterr().out)["error"]
    assert main(["compute"]) == 2
    assert "the Online Retail log is not here" in capsys.readouterr().err


def test_the_command_refuses_a_log_that_is_too_short(capsys):
    assert main(["compute", "--dataset", "simulated"]) == 1
    assert "three horizons" in capsys.readouterr().err


def test_the_command_names_an_extra_that_is_not_installed(monkeypatch, capsys):
    def missing(name):
        raise ModuleNotFoundError(name="lightgbm")

    monkeypatch.setattr("tailorbird.app.cli.import_module", missing)
    assert main(["compute"]) == 2
    assert "compute needs the module lightgbm" in capsys.readouterr().err


def write_invoices(path, customers=230, days=120):
    """Write a log in which every third customer stays and the others leave after a while."""
    generator = np.random.Generator(np.random.PCG64(11))
    lines = ["InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID"]
    for day in range(days):
        date = (datetime(2011, 1, 1, 9, tzinfo=UTC) + timedelta(days=day)).strftime("%Y-%m-%d %H:%M:%S")
        for customer in range(1, customers + 1):
            is_there = day == 0 or customer % 3 == 0 or day < 20 + customer % 100
            if is_there and (day == 0 or generator.random() < 0.07):
                price = 2 + customer % 7
                lines.append(f"{len(lines)},22086,PAPER KIT,1,{date},{price},{customer}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_the_command_prints_metrics_beside_baselines_and_what_is_not_served(tmp_path, capsys):
    """So few people tell too little: the recency threshold is hard to beat, and that is said."""
    log = write_invoices(tmp_path / "invoices.csv")
    code = main(["compute", "--dataset", log, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["features"] >= 1_000
    kinds = [one["attribute"]["type"] for one in found["attributes"]]
    assert kinds == ["engagement", "churn", "lifetime_value"]
    churn = found["attributes"][1]
    measures = {"auc", "logLoss", "brier", "calibrationError"}
    assert churn["metrics"].keys() == churn["baseline"].keys() >= measures
    assert not churn["isAccepted"]
    assert code == 1
    assert main(["compute", "--dataset", log]) == code
    text = capsys.readouterr().out
    assert f"{churn['metrics']['auc']:.4f}" in text
    assert f"{churn['baseline']['logLoss']:.4f}" in text
    assert f"NOT SERVED: {churn['reason']}" in text
    assert text.count("recency threshold") == 2
    assert text.count("mean of past spend") == 1
