"""One fixture for each port; every test that asks for it runs on every adapter."""

import pytest

from tailorbird.stores.memory import MemoryLog, MemoryState, MemoryWarehouse
from tailorbird.stores.parquet import ParquetWarehouse
from tailorbird.stores.segments import SegmentLog
from tailorbird.stores.sqlite import SqliteState

TABLES = ("profiles", "group")  # The second is a word of SQL: names must be quoted.


@pytest.fixture(params=["memory", "disk"])
def log(request, tmp_path):
    """An empty log. On disk its segments are so small that most tests cross several."""
    opened = MemoryLog() if request.param == "memory" else SegmentLog(tmp_path / "log", segment_bytes=200)
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "disk"])
def state(request, tmp_path):
    """An empty state with the tables of `TABLES`."""
    opened = MemoryState(TABLES) if request.param == "memory" else SqliteState(tmp_path / "state.db", TABLES)
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "disk"])
def reopened(request, tmp_path):
    """A function that opens the same warehouse again, as a restart does; memory has only the one."""
    kept = MemoryWarehouse()
    return lambda: kept if request.param == "memory" else ParquetWarehouse(tmp_path / "warehouse")


@pytest.fixture
def warehouse(reopened):
    """An empty warehouse."""
    return reopened()
