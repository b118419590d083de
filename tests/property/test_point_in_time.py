"""Laws of the past: features as of t are those that were served at t, bit for bit, and the skew meter sees it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.house import SECRET, House

from tailorbird.app.keeper import Keeper
from tailorbird.app.past import rows_of
from tailorbird.decide.decider import Settings
from tailorbird.features.defaults import CATALOGUES
from tailorbird.live.variables import vector
from tailorbird.live.world import TABLES, World
from tailorbird.process.worker import Fold
from tailorbird.schema.decision import LoggedDecision
from tailorbird.schema.records import ConsentChanged
from tailorbird.stores.history import LABELS, History
from tailorbird.stores.memory import MemoryState, MemoryWarehouse
from tailorbird.stores.parquet import ParquetWarehouse
from tailorbird.train.dataset import Past, features_as_of
from tailorbird.train.skew import SkewMeter

FEATURES = {
    "catalogues": list(CATALOGUES),
    "priors": [{"when": {"context.campaign.source": "blog"}, "of": "category", "value": "hats"}],
}
devices, users = st.sampled_from(["d1", "d2", "d3"]), st.sampled_from(["u1", "u2"])
products = st.sampled_from(["i1", "i2", "i3"])
contexts = st.sampled_from(
    [{}, {"campaign": {"source": "blog"}}, {"timezone": "Asia/Tokyo", "locale": "de-AT"}]
)
steps = st.one_of(
    st.tuples(st.just("view"), devices, st.none() | users, products, contexts),
    st.tuples(st.just("buy"), devices, st.none() | users, products, contexts),
    st.tuples(st.just("search"), devices, st.none(), products, contexts),
    st.tuples(st.just("identify"), devices, users, st.sampled_from(["pro", "free"]), contexts),
    st.tuples(st.just("decide"), devices, st.none() | users, products, contexts),
    st.tuples(
        st.just("consent"), devices, users, st.sampled_from(["analytics", "personalization"]), contexts
    ),
    st.tuples(st.just("stock"), devices, st.none(), st.sampled_from(["hats", "shoes"]), contexts),
    st.tuples(st.just("late"), devices, st.none(), products, contexts),
)


def behave(house: House, step: tuple[Any, ...]) -> None:
    kind, device, user, what, context = step
    seen = {"product_id": what, "price": 7.5, "brand": f"brand of {what}", "author": "n", "category": "socks"}
    match kind:
        case "view":
            house.send(device, user, event="Product Viewed", properties=seen, context=context)
        case "late":
            house.send(device, user, at=-90_000.0, event="Product Viewed", properties=seen, context=context)
        case "buy":
            bought = {"revenue": 12.5, "products": [seen | {"quantity": 2}]}
            house.send(device, user, event="Order Completed", properties=bought, context=context)
        case "search":
            house.send(device, user, event="Products Searched", properties={"query": what}, context=context)
        case "identify":
            house.send(device, user, type="identify", traits={"plan": what, "seats": 3}, context=context)
        case "decide":
            house.decide(device, "hero", user=user, context=context)
        case "consent":
            house.write(ConsentChanged(house.clock.now(), f"user_id:{user}", {what: False}))
        case "stock":
            house.stock({"id": "i1", "categories": [what], "tags": ["new"], "attributes": {"brand": "B"}})


def watched() -> tuple[House, Keeper]:
    house = House()
    keeper = Keeper(MemoryWarehouse())
    house.fold = Fold(house.world, SECRET, house.log, keeper.observer)
    house.declare_features(**FEATURES)
    house.decider._settings = Settings(0.0, sample_share=1.0)
    house.declare("hero", variants=[{"id": "a"}, {"id": "b"}], stickySeconds=0)
    return house, keeper


def kept(keeper: Keeper, end: int, folder: str) -> ParquetWarehouse:
    keeper.hand_over(end)
    warehouse = ParquetWarehouse(Path(folder) / "w")
    for stop, newest, _, rows in keeper._waiting:
        warehouse.write(stop, newest, rows)
    return warehouse


def past_of(house: House) -> Past:
    world = World(MemoryState(TABLES))
    world.vocabulary.load(house.world.words())
    return Past(world, house.world.features.reading.put)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=1, max_size=20))
def test_features_as_of_a_time_are_those_that_were_served_then(history):
    house, keeper = watched()
    served: list[tuple[str, float, np.ndarray]] = []
    for step in history:
        house.clock.advance(4_000.0)
        behave(house, step)
        for name in ("anonymous_id:d1", "anonymous_id:d2", "anonymous_id:d3", "user_id:u1", "user_id:u2"):
            entry = house.world.identifiers.get(name)
            profile = None if entry is None else house.world.profiles.get(entry.profile)
            if profile is not None:
                now = house.clock.now() + 10.0
                served.append((profile.id, now, vector(house.world, profile, now)))
    with tempfile.TemporaryDirectory() as folder:
        warehouse = kept(keeper, house.log.end, folder)
        columns = [list(range(len(served))), [who for who, *_ in served], [t for _, t, _ in served]]
        labels = pa.table(dict(zip(LABELS.names, columns, strict=True)), schema=LABELS)
        with History(warehouse.folder, 256) as opened:
            found = list(features_as_of(past_of(house), rows_of(opened, labels), batch_rows=3))
    again = {
        number: row for batch in found for number, row in zip(batch.label_ids, batch.matrix, strict=True)
    }
    assert len(again) == len(served)
    for number, (_, _, expected) in enumerate(served):
        np.testing.assert_array_equal(again[number], expected)


def decisions_in(
    house: House, keeper: Keeper, tamper: int | None = None
) -> tuple[Past, list[dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        warehouse = kept(keeper, house.log.end, folder)
        people = sorted({row.profile for row in warehouse.read("decisions") if row.profile})
        end = [house.clock.now() + 1.0] * len(people)
        labels = pa.table({"label_id": range(len(people)), "profile": people, "t": end}, schema=LABELS)
        with History(warehouse.folder, 256) as opened:
            rows = list(rows_of(opened, labels))
    for row in rows:
        if tamper is not None and row["what"] == "decision":
            body = json.loads(row["payload"])
            values = np.frombuffer(
                msgspec.json.decode(row["payload"], type=LoggedDecision).values, np.float32
            ).copy()
            values[tamper] += 1.0
            body["values"] = msgspec.json.decode(msgspec.json.encode(values.tobytes()))
            row["payload"] = json.dumps(body, separators=(",", ":"))
    return past_of(house), rows


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=1, max_size=20))
def test_the_skew_meter_finds_no_difference_between_what_was_served_and_what_history_says(history):
    house, keeper = watched()
    count = 0
    for step in history:
        house.clock.advance(4_000.0)
        before = house.log.end
        behave(house, step)
        count += step[0] == "decide" and house.log.end > before
    reading = house.world.features.reading
    past, rows = decisions_in(house, keeper)
    meter = SkewMeter(past, reading.names, reading.version)
    meter.take(rows)
    report = meter.report()
    assert report.skewed == []
    assert report.outrun == report.other_layout == 0


def test_the_skew_meter_names_the_variable_that_differs_and_by_how_much():
    house, keeper = watched()
    house.send("d1", event="Product Viewed", properties={"price": 5})
    for _ in range(3):
        house.clock.advance(60.0)
        house.decide("d1", "hero")
    reading = house.world.features.reading
    past, rows = decisions_in(house, keeper, tamper=reading.index["product_viewed_count"])
    meter = SkewMeter(past, reading.names, reading.version)
    meter.take(rows)
    report = meter.report()
    assert [(skew.name, skew.differed, skew.largest) for skew in report.skewed] == [
        ("product_viewed_count", 3, 1.0)
    ]
    assert report.compared == 3
    other = SkewMeter(past_of(house), reading.names, "another layout")
    other.take(rows)
    assert (other.report().compared, other.report().other_layout) == (0, 3)
