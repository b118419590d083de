"""What every warehouse does, whatever it is kept in."""

import pytest

from tailorbird.schema.decision import LoggedChoice
from tailorbird.stores.warehouse import (
    PEOPLE,
    TABLES,
    ConsentRow,
    DecisionRow,
    DeclarationRow,
    EventRow,
    ExposureRow,
    LinkRow,
    MergeRow,
    OutcomeRow,
)

NOON = 1_700_049_600.0  # 2023-11-15T12:00:00Z
DAY = 86_400.0


def event(offset, profile="p-1", at=NOON, **more):
    fields = {"anonymous_id": "a-1", "user_id": None, "type": "track", "name": "Seen", "gpc": False}
    payload = b'{"messageId":"m-%d","n":"\xc3\xbc"}' % offset
    return EventRow(offset, at, at, t=at - 1.5, profile=profile, message_id=f"m-{offset}",
                    **{**fields, "payload": payload, **more})  # fmt: skip


def decision(offset, choices=(), **more):
    fields = {
        "t": NOON, "profile": "p-1", "decision_id": f"d-{offset}", "placement": "hero",
        "choices": list(choices), "arms": ["a", "b"], "probabilities": [0.1, 0.9], "arm": "a",
        "holdout": "none", "policy": "thompson", "policy_version": 7, "rung": "live",
        "reason": "SPLIT", "payload": b"{}",
    }  # fmt: skip
    return DecisionRow(offset, NOON, NOON, **{**fields, **more})


def every_table(offset):
    """One row of each table, with what is easily lost: nothing, emptiness, other alphabets, all digits."""
    choices = [LoggedChoice("i-1", 1 / 3, -0.0, "popular"), LoggedChoice("i-2", 2 / 3, 1e-300, "")]
    return {
        "declarations": [DeclarationRow(offset, NOON, NOON, 4, b'{"items":[]}')],
        "links": [LinkRow(offset, NOON, NOON, 'anonymous_id:"\x00\U0001f600', "p-1")],
        "merges": [MergeRow(offset, NOON, NOON, "p-1", "p-2", True)],
        "consents": [ConsentRow(offset, NOON, NOON, "p-1", b"{}")],
        "events": [event(offset), event(offset, None, anonymous_id="", user_id="ü", gpc=True, payload=b"{}")],
        "decisions": [decision(offset, choices), decision(offset, arms=[], probabilities=[], arm=None)],
        "exposures": [ExposureRow(offset, NOON, NOON, 0.1 + 0.2, None, "d-1", "hero")],
        "outcomes": [OutcomeRow(offset, NOON, NOON, NOON, "p-1", "d-1", "hero", -12.5)],
    }


def everything(warehouse):
    return {table: list(warehouse.read(table)) for table in TABLES}


def offsets(warehouse, table="events"):
    return [row.offset for row in warehouse.read(table)]


def test_a_new_warehouse_is_empty(warehouse):
    assert (warehouse.offset, warehouse.newest) == (0, 0.0)
    assert everything(warehouse) == {table: [] for table in TABLES}
    assert {size.rows for size in warehouse.sizes().values()} == {0}
    assert warehouse.count({"p-1"}, {0}) == 0


def test_rows_come_back_as_they_were(warehouse, reopened):
    rows = every_table(0)
    assert rows.keys() == TABLES.keys()
    warehouse.write(1, NOON, rows)
    for opened in (warehouse, reopened()):
        assert everything(opened) == rows
        assert (opened.offset, opened.newest) == (1, NOON)
        assert {table: size.rows for table, size in opened.sizes().items()} == {
            table: len(found) for table, found in rows.items()
        }
    assert repr(everything(reopened())["decisions"]) == repr(rows["decisions"]), "minus zero, too"


def test_writes_follow_one_another_in_the_order_of_the_log(warehouse, reopened):
    for start in range(0, 300, 10):
        warehouse.write(start + 10, NOON + start, {"events": [event(n) for n in range(start, start + 10)]})
        assert warehouse.offset == start + 10
    assert offsets(warehouse) == offsets(reopened()) == list(range(300))
    assert reopened().newest == NOON + 290


def test_what_is_told_again_is_there_once(warehouse):
    warehouse.write(10, NOON, {"events": [event(n) for n in range(10)]})
    warehouse.write(14, NOON, {"events": [event(n, "p-2") for n in range(6, 14)]})
    assert offsets(warehouse) == list(range(14))
    assert [row.profile for row in warehouse.read("events")] == ["p-1"] * 10 + ["p-2"] * 4


@pytest.mark.parametrize("stop", [0, 9, 10])
def test_a_write_that_leads_nowhere_new_changes_nothing(warehouse, stop):
    warehouse.write(10, NOON, {"events": [event(3)]})
    warehouse.write(stop, NOON + 5, {"events": [event(3)], "links": [LinkRow(3, NOON, NOON, "x:y", "p")]})
    assert (warehouse.offset, warehouse.newest) == (10, NOON)
    assert offsets(warehouse) == [3]
    assert offsets(warehouse, "links") == []


def test_a_write_without_rows_moves_on(warehouse, reopened):
    warehouse.write(5, NOON, {})
    assert (reopened().offset, reopened().newest) == (5, NOON)


def test_rows_of_many_days_stay_in_order(warehouse):
    times = [NOON + n * DAY / 3 for n in range(30)]
    warehouse.write(30, times[-1], {"events": [event(n, at=at) for n, at in enumerate(times)]})
    assert offsets(warehouse) == list(range(30))


def test_reading_goes_on_over_what_was_there(warehouse):
    warehouse.write(2, NOON, {"events": [event(0), event(1)]})
    reading = warehouse.read("events")
    warehouse.write(4, NOON, {"events": [event(2), event(3)]})
    assert [row.offset for row in reading] == [0, 1]


def test_people_are_counted_in_every_table_that_names_them(warehouse):
    assert PEOPLE["merges"] == ("older", "newer")
    warehouse.write(1, NOON, every_table(0))
    warehouse.write(3, NOON, {"events": [event(1, "p-3"), event(2, "p-4")]})
    assert (
        warehouse.count({"p-1"}, ()) == 7
    )  # A link, a merge, a consent, an event, two decisions, an outcome.
    assert warehouse.count({"p-2", "p-9"}, ()) == 1
    assert warehouse.count((), {1, 2, 99}) == 2
    assert warehouse.count({"p-3"}, {1, 2}) == 2, "a row counts once"
    assert warehouse.count((), ()) == 0
    assert warehouse.count((), {0}) == 10, "with the rows that name nobody"


def test_an_unknown_table_is_refused(warehouse):
    with pytest.raises(ValueError, match="'people' is unknown"):
        warehouse.read("people")
