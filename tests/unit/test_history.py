"""People as of a past time: which rows come, and where the labels stand among them."""

import pyarrow as pa
import pytest

from tailorbird.errors import InvalidInputError, StorageError
from tailorbird.stores.history import LABELS, NAMED_LABELS, History
from tailorbird.stores.parquet import ParquetWarehouse
from tailorbird.stores.warehouse import (
    TABLES,
    ConsentRow,
    DeclarationRow,
    EventRow,
    LinkRow,
    MergeRow,
    OutcomeRow,
)


def event(offset, profile, at):
    return EventRow(
        offset, at, at, at - 0.25, profile, f"m-{offset}", None, None, "track", "Seen",
        b'{"n":%d}' % offset, offset % 2 == 0,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state-000001"


def history(folder, stop=100, **rows):
    ParquetWarehouse(folder).write(stop, 1e9, rows)
    return History(folder, memory_mib=256)


def labels(*rows):
    return pa.Table.from_pylist([dict(zip(LABELS.names, row, strict=True)) for row in rows], schema=LABELS)


def ask(opened, *rows):
    """Return (what, offset or label id, profile) of each row of the stream."""
    found = [row for batch in opened.rows_as_of(labels(*rows)) for row in batch.to_pylist()]
    return [
        (row["what"], row["label_id"] if row["what"] == "label" else row["offset"], row["profile"])
        for row in found
    ]


EVENTS = [
    event(1, "p", 10.0),
    event(2, "q", 11.0),
    event(3, None, 11.0),
    event(4, "other", 11.5),
    event(5, "p", 12.0),
    event(6, "p", 12.0),
    event(8, "p", 13.0),
]
MERGE = MergeRow(6, 12.0, 12.0, "p", "q", is_direct=True)


def test_a_label_stands_behind_what_was_known_at_its_time(folder):
    with history(folder, events=EVENTS) as opened:
        assert ask(opened, (1, "p", 12.0), (2, "p", 11.9), (3, "p", 9.0)) == [
            ("label", 3, "p"),
            ("event", 1, "p"),
            ("label", 2, "p"),
            ("event", 5, "p"),
            ("event", 6, "p"),
            ("label", 1, "p"),
        ]


def test_who_became_part_of_a_person_comes_with_them_from_then_on(folder):
    with history(folder, events=EVENTS, merges=[MERGE]) as opened:
        assert ask(opened, (1, "p", 11.5)) == [("event", 1, "p"), ("label", 1, "p")]
        assert ask(opened, (1, "p", 99.0)) == [
            ("event", 1, "p"),
            ("event", 2, "q"),
            ("event", 5, "p"),
            ("merge", 6, "p"),
            ("event", 6, "p"),
            ("event", 8, "p"),
            ("label", 1, "p"),
        ]


def test_a_profile_that_went_stands_for_whom_it_became_part_of(folder):
    with history(folder, events=EVENTS, merges=[MERGE]) as opened:
        assert ask(opened, (1, "q", 11.0), (2, "q", 12.0)) == [
            ("event", 1, "p"),
            ("event", 2, "q"),
            ("label", 1, "q"),
            ("event", 5, "p"),
            ("merge", 6, "p"),
            ("event", 6, "p"),
            ("label", 2, "p"),
        ]


def test_merges_of_merges_are_followed_all_the_way(folder):
    merges = [
        MergeRow(4, 4.0, 4.0, "b", "c", is_direct=True),
        MergeRow(6, 6.0, 6.0, "a", "b", is_direct=True),
        MergeRow(6, 6.0, 6.0, "a", "c", is_direct=False),
    ]
    events = [event(n, who, float(n)) for n, who in enumerate("abcabaa")]
    with history(folder, events=events, merges=merges) as opened:
        assert ask(opened, (1, "c", 5.0), (2, "c", 6.0)) == [
            ("event", 0, "a"),
            ("event", 1, "b"),
            ("event", 2, "c"),
            ("event", 3, "a"),
            ("merge", 4, "b"),
            ("event", 4, "b"),
            ("event", 5, "a"),
            ("label", 1, "b"),
            ("merge", 6, "a"),
            ("event", 6, "a"),
            ("label", 2, "a"),
        ]


def test_a_clock_that_was_set_back_does_not_let_a_label_see_the_future(folder):
    late = event(2, "p", 20.0)
    back = EventRow(3, 5.0, 20.0, 5.0, "p", "m-3", None, None, "track", "Seen", b"{}", gpc=False)
    with history(folder, events=[event(1, "p", 4.0), late, back]) as opened:
        assert ask(opened, (1, "p", 10.0)) == [("event", 1, "p"), ("label", 1, "p")]
        assert [row[:2] for row in ask(opened, (1, "p", 20.0))] == [
            ("event", 1), ("event", 2), ("event", 3), ("label", 1),
        ]  # fmt: skip


def test_what_is_not_a_person_s_comes_as_far_as_it_is_needed(folder):
    rows = {
        "events": EVENTS,
        "declarations": [DeclarationRow(0, 1.0, 1.0, 4, b"{}"), DeclarationRow(9, 14.0, 14.0, 5, b"{}")],
        "consents": [ConsentRow(7, 12.5, 12.5, "p", b'{"k":"consent"}')],
        "outcomes": [OutcomeRow(8, 13.0, 13.0, 13.0, "p", "d-1", "hero", 2.5)],
    }
    with history(folder, **rows) as opened:
        found = [row for batch in opened.rows_as_of(labels((7, "p", 13.0))) for row in batch.to_pylist()]
    assert [(row["what"], row["offset"]) for row in found] == [
        ("declaration", 0), ("event", 1), ("event", 5), ("event", 6), ("consent", 7), ("event", 8),
        ("outcome", 8), ("label", None),
    ]  # fmt: skip
    declared, first, outcome, label = found[0], found[1], found[6], found[7]
    assert (declared["kind"], declared["payload"], declared["profile"]) == (4, "{}", None)
    assert (first["detail"], first["payload"], first["t"], first["r"]) == ("m-1", '{"n":1}', 9.75, 10.0)
    assert (first["gpc"], found[3]["gpc"]) == (False, True)
    assert (outcome["detail"], outcome["value"]) == ("d-1", 2.5)
    assert (label["label_id"], label["known_at"], label["payload"]) == (7, 13.0, None)


def test_each_row_comes_once_however_many_labels_ask_for_it(folder):
    many = [(n, "p" if n % 2 else "q", 9.0 + n % 6) for n in range(500)]
    with history(folder, events=EVENTS, merges=[MERGE]) as opened:
        found = ask(opened, *many)
    assert [row for row in found if row[0] != "label"] == [
        ("event", 1, "p"), ("event", 2, "q"), ("event", 5, "p"), ("merge", 6, "p"), ("event", 6, "p"),
        ("event", 8, "p"),
    ]  # fmt: skip
    assert sorted(row[1] for row in found if row[0] == "label") == list(range(500))


def test_an_empty_warehouse_gives_the_labels_alone(folder):
    with History(folder) as opened:
        assert ask(opened, (1, "p", 5.0)) == [("label", 1, "p")]
        assert ask(opened) == []
        assert opened.tables.keys() == TABLES.keys()
        assert [list(opened.stream(table)) for table in opened.tables.values()] == [[]] * len(TABLES)


def test_identifiers_name_whom_they_named_then(folder):
    links = [
        LinkRow(1, 10.0, 10.0, "anonymous_id:a", "p"),
        LinkRow(5, 12.0, 12.0, "anonymous_id:a", "q"),
        LinkRow(6, 12.0, 12.0, "user_id:u", "q"),
    ]
    asked = [
        (1, "anonymous_id:a", 9.9),
        (2, "anonymous_id:a", 10.0),
        (3, "anonymous_id:a", 12.0),
        (4, "user_id:u", 50.0),
    ]
    table = pa.Table.from_pylist(
        [dict(zip(NAMED_LABELS.names, row, strict=True)) for row in asked], schema=NAMED_LABELS
    )
    with history(folder, links=links) as opened:
        found = opened.profiles_named(table).to_pylist()
    assert [(row["label_id"], row["profile"]) for row in found] == [(2, "p"), (3, "q"), (4, "q")]


@pytest.mark.parametrize(
    ("row", "path"),
    [((None, "p", 1.0), "label_id"), ((1, None, 1.0), "profile"), ((1, "p", float("nan")), "labels.t")],
)
def test_labels_that_lack_something_are_refused(folder, row, path):
    with History(folder) as opened, pytest.raises(InvalidInputError, match=path):
        list(opened.rows_as_of(labels(row)))


def test_labels_without_a_column_are_refused(folder):
    with History(folder) as opened, pytest.raises(InvalidInputError, match="profile"):
        list(opened.rows_as_of(pa.table({"label_id": [1], "t": [1.0]})))


def test_a_file_that_is_gone_is_told(folder):
    with history(folder, events=EVENTS) as opened:
        for path in ParquetWarehouse(folder).paths("events"):
            path.unlink()
        with pytest.raises(StorageError, match="open it again"):
            list(opened.rows_as_of(labels((1, "p", 5.0))))


def test_tables_have_a_day_and_answer_sql(folder):
    with history(folder, events=EVENTS) as opened:
        (batch,) = opened.stream(opened.tables["events"].select("day").distinct())
        assert [str(row["day"]) for row in batch.to_pylist()] == ["1970-01-01"]
        found = opened.connection.con.sql("select count(*) from events where payload->>'$.n' > '4'")
        assert found.fetchall() == [(3,)]
