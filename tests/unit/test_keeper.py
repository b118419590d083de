"""The keeper and the warehouse's files: bounds, crashes, damage, and what the state must never be ahead of."""

import stat

import pytest

from tailorbird.app import keeper as keeping
from tailorbird.app.keeper import Keeper, open_keeper
from tailorbird.errors import CorruptLogError, StorageError
from tailorbird.process.observer import UNOBSERVED
from tailorbird.schema.item import ItemDeleted
from tailorbird.stores import parquet
from tailorbird.stores.memory import MemoryWarehouse
from tailorbird.stores.parquet import MANIFEST, ParquetWarehouse, discard
from tailorbird.stores.warehouse import EventRow

NOON = 1_700_049_600.0


def event(offset):
    return EventRow(
        offset, NOON, NOON, NOON, "p", f"m-{offset}", None, None, "track", "Seen", b"{}", gpc=False
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "warehouse"


def filled(folder, count=5):
    kept = ParquetWarehouse(folder)
    for offset in range(count):
        kept.write(offset + 1, NOON, {"events": [event(offset)]})
    return kept


def offsets(folder):
    return [row.offset for row in ParquetWarehouse(folder).read("events")]


def tell(keeper, offset, received=NOON):
    keeper.observer.begin(offset, received)
    keeper.observer.declared(ItemDeleted(received, f"i-{offset}"))


def test_rows_are_written_only_as_far_as_the_log_is_durable():
    kept = MemoryWarehouse()
    keeper = Keeper(kept)
    tell(keeper, 0)
    keeper.hand_over(1)
    tell(keeper, 1)
    keeper.hand_over(2)
    keeper.write_until(1)
    assert [row.offset for row in kept.read("declarations")] == [0]
    keeper.write_until(2)
    assert [row.offset for row in kept.read("declarations")] == [0, 1]


def test_rows_that_the_disk_refused_are_written_by_the_next_try():
    class Full(MemoryWarehouse):
        is_full = True

        def write(self, stop, newest, rows):
            if self.is_full:
                raise StorageError("the disk is full")
            super().write(stop, newest, rows)

    kept = Full()
    keeper = Keeper(kept)
    tell(keeper, 0)
    with pytest.raises(StorageError):
        keeper.write_all(1)
    tell(keeper, 1)
    kept.is_full = False
    keeper.write_all(2)
    assert [row.offset for row in kept.read("declarations")] == [0, 1]
    assert kept.offset == 2


def test_rows_in_memory_are_bounded_by_being_written_and_at_last_by_refusing(monkeypatch):
    monkeypatch.setattr(keeping, "HISTORY_BYTES", 5_000)
    monkeypatch.setattr(keeping, "HISTORY_BYTES_MAX", 10_000)
    keeper = Keeper(MemoryWarehouse())
    for offset in range(10):
        tell(keeper, offset)
    assert (keeper.is_due, keeper.is_full) == (True, False)
    keeper.hand_over(10)
    for offset in range(10, 20):
        tell(keeper, offset)
    assert keeper.is_full, "what waits for the disk counts, too"
    keeper.write_until(10)
    assert not keeper.is_full


def test_the_newest_receipt_time_outlives_a_restart(folder):
    keeper = open_keeper(folder, state_offset=0, log_end=0)
    tell(keeper, 0, NOON)
    tell(keeper, 1, NOON - 60.0)
    keeper.write_all(2)
    again = open_keeper(folder, state_offset=2, log_end=3)
    tell(again, 2, NOON - 30.0)
    again.write_all(3)
    rows = list(ParquetWarehouse(folder).read("declarations"))
    assert [row.known_at for row in rows] == [NOON] * 3
    assert [row.r for row in rows] == [NOON, NOON - 60.0, NOON - 30.0]


def test_without_a_warehouse_nothing_is_kept():
    keeper = Keeper(None)
    assert keeper.observer is UNOBSERVED
    keeper.write_all(5)
    assert not keeper.is_behind(5)
    assert keeper.count({"p"}, {1}) == 0


@pytest.mark.parametrize(
    ("state_offset", "log_end", "is_kept", "is_behind"),
    [(5, 5, True, False), (3, 9, True, False), (6, 9, True, True), (0, 9, False, False), (4, 4, False, True)],
)
def test_a_warehouse_is_kept_where_it_is_of_the_state_s_fold(
    folder, state_offset, log_end, is_kept, is_behind
):
    filled(folder)
    keeper = open_keeper(folder, state_offset, log_end)
    assert offsets(folder) == (list(range(5)) if is_kept else [])
    assert keeper.is_behind(state_offset) == is_behind


def test_a_damaged_warehouse_is_begun_anew(folder):
    filled(folder)
    (folder / MANIFEST).write_bytes(b'{"format": 1, "off')
    with pytest.raises(CorruptLogError, match=r"manifest\.json: is broken"):
        ParquetWarehouse(folder)
    assert open_keeper(folder, 5, 5).is_behind(5)
    assert offsets(folder) == []


def test_a_file_that_is_missing_or_cut_short_is_damage(folder):
    path = filled(folder).paths("events")[2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptLogError, match="is missing or cut short"):
        ParquetWarehouse(folder)
    path.unlink()
    with pytest.raises(CorruptLogError, match="is missing or cut short"):
        ParquetWarehouse(folder)


def test_a_manifest_of_another_format_is_not_read(folder):
    filled(folder)
    manifest = folder / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b'"format":1', b'"format":2'))
    with pytest.raises(CorruptLogError, match="is of format 2"):
        ParquetWarehouse(folder)


def test_what_a_crash_left_counts_for_nothing_and_goes(folder):
    kept = filled(folder)
    left = kept.paths("events")[0].with_name("00000000000000000005-00000000000000000009.parquet")
    left.write_bytes(b"half a file")
    (folder / "events" / "x.tmp").write_bytes(b"")
    assert offsets(folder) == list(range(5))
    keeper = open_keeper(folder, 5, 9)
    assert not left.exists()
    assert not list(folder.rglob("*.tmp"))
    assert not keeper.is_behind(5)


def test_a_write_that_fails_changes_nothing(folder, monkeypatch):
    kept = filled(folder)

    def refuse(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parquet.os, "fsync", refuse)
        with pytest.raises(StorageError, match="No space left"):
            kept.write(7, NOON, {"events": [event(5), event(6)]})
    assert (kept.offset, offsets(folder)) == (5, list(range(5)))
    kept.write(7, NOON, {"events": [event(5), event(6)]})
    assert offsets(folder) == list(range(7))


def test_small_files_of_a_day_are_merged_into_one(folder, monkeypatch):
    monkeypatch.setattr(parquet, "FILES_SMALL_MAX", 4)
    monkeypatch.setattr(parquet, "ROWS_SMALL_MAX", 8)
    kept = filled(folder, 3)
    assert len(kept.paths("events")) == 3
    kept = filled(folder, 30)
    paths = kept.paths("events")
    assert len(paths) <= 30 // 8 + 4
    assert sorted(folder.rglob("*.parquet")) == sorted(paths), "what was merged is gone"
    assert offsets(folder) == list(range(30))


def test_a_damaged_small_file_does_not_keep_new_rows_from_being_written(folder, monkeypatch):
    monkeypatch.setattr(parquet, "FILES_SMALL_MAX", 4)
    kept = filled(folder, 3)
    path = kept.paths("events")[0]
    path.write_bytes(bytes(path.stat().st_size))
    kept.write(9, NOON, {"events": [event(8)]})
    assert kept.offset == 9
    with pytest.raises(StorageError, match="cannot be read"):
        list(kept.read("events"))


def test_files_are_readable_by_their_owner_only(folder):
    filled(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 6
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_discarded_warehouse_is_gone(folder):
    filled(folder)
    discard(folder)
    assert not folder.exists()
    discard(folder)
