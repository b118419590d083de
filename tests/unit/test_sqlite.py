"""The state on disk: crashes, full disks, and files that are something else."""

import subprocess
import sys

import pytest

from tailorbird.errors import CorruptLogError, StorageError
from tailorbird.stores.sqlite import SqliteState
from tailorbird.stores.state import Change, Expiry

PATIENCE_SECONDS = 30


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "state.db"


@pytest.fixture
def open_state(path):
    """A function that opens the state again, closing the one that was open."""
    opened = []

    def open_again(tables=("profiles",)):
        while opened:
            opened.pop().close()
        opened.append(SqliteState(path, tables))
        return opened[0]

    yield open_again
    while opened:
        opened.pop().close()


def rows_of(count, value):
    return [Change("profiles", f"{number:05d}", value) for number in range(count)]


def test_everything_is_there_after_opening_again(open_state):
    state = open_state()
    state.commit(7, rows_of(500, b"x" * 5_000))
    digest = state.digest()
    state = open_state()
    assert state.offset == 7
    assert state.count("profiles") == 500
    assert state.get("profiles", "00499") == b"x" * 5_000
    assert state.digest() == digest


def test_a_table_may_be_added_later(open_state):
    open_state().commit(7, rows_of(1, b"x"))
    state = open_state(("profiles", "order"))
    state.commit(8, [Change("order", "a", b"1")])
    assert state.get("profiles", "00000") == b"x"
    assert state.get("order", "a") == b"1"


@pytest.mark.parametrize(
    "name", ["", "meta", "Profiles", "1st", 'a"b', "a b", "a;", "sqlite_x", "ä", "x" * 64]
)
def test_a_name_that_breaks_the_rule_is_refused(path, name):
    with pytest.raises(ValueError, match="a name is small letters"):
        SqliteState(path, ["profiles", name])


def test_a_name_given_twice_is_refused(path):
    with pytest.raises(ValueError, match="given twice"):
        SqliteState(path, ["profiles", "profiles"])


def test_files_belong_to_their_owner_alone(open_state, path):
    open_state().commit(1, rows_of(1, b"x"))
    modes = {file.name: file.stat().st_mode & 0o077 for file in path.parent.iterdir()}
    assert modes == {"state.db": 0, "state.db-wal": 0, "state.db-shm": 0}


def test_a_full_disk_changes_nothing_and_a_later_commit_works(open_state):
    state = open_state()
    state.commit(1, rows_of(10, b"old"))
    pages = state._writer.execute("PRAGMA page_count").fetchone()[0]
    state._writer.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(StorageError, match="full"):
        state.commit(2, rows_of(100, b"x" * 5_000))
    assert state.offset == 1
    assert list(state.scan("profiles")) == [(f"{number:05d}", b"old") for number in range(10)]
    state._writer.execute("PRAGMA max_page_count = 1000000")
    state.commit(2, rows_of(100, b"x" * 5_000))
    assert state.count("profiles") == 100
    assert open_state().offset == 2


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tailorbird.errors import StorageError
from tailorbird.stores.sqlite import SqliteState
from tailorbird.stores.state import Change

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
state = SqliteState(Path(sys.argv[1]), ["profiles"])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
offset = 0
try:
    for offset in range(1, 1_000):
        state.commit(offset, [Change("profiles", str(offset), b"x" * 1_000)])
except StorageError:
    assert state.offset == offset - 1
    assert state.get("profiles", str(offset)) is None
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
state.commit(offset, [Change("profiles", str(offset), b"x" * 1_000)])
state.close()
print(offset)
"""


def test_a_real_limit_on_the_file_is_survived(open_state, path):
    printed = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    ).stdout
    state = open_state()
    assert 10 < int(printed) < 999
    assert state.offset == state.count("profiles") == int(printed)


def test_a_file_that_is_no_database_is_a_clear_error(path):
    path.parent.mkdir()
    path.write_bytes(b"This is no database. " * 100)
    with pytest.raises(CorruptLogError, match=r"delete it.*rebuilt from the log"):
        SqliteState(path, ["profiles"])


def test_a_damaged_file_is_a_clear_error(open_state, path):
    state = open_state()
    state.commit(1, rows_of(2_000, b"x" * 200))
    state.close()
    content = bytearray(path.read_bytes())
    roots = 5 * 4_096  # The schema and the four trees' first pages.
    content[roots:] = b"\xaa" * (len(content) - roots)
    path.write_bytes(content)
    state = open_state()
    for call in (
        lambda: state.get("profiles", "01000"),
        lambda: list(state.scan("profiles")),
        lambda: state.count("profiles"),
        lambda: state.commit(2, rows_of(2_000, b"y")),
        state.digest,
    ):
        with pytest.raises(CorruptLogError, match="delete it"):
            call()


def test_a_folder_in_place_of_the_file_is_a_clear_error(path):
    path.mkdir(parents=True)
    with pytest.raises(StorageError, match="the disk refused"):
        SqliteState(path, ["profiles"])


def test_a_scan_left_half_done_blocks_no_commit(open_state):
    state = open_state()
    state.commit(1, rows_of(1_000, b"old"))
    scanning = state.scan("profiles")
    next(scanning)
    for offset in range(2, 5):
        state.commit(offset, rows_of(1_000, b"new"))
    scanning.close()
    assert state.get("profiles", "00000") == b"new"


def test_erased_values_are_in_no_file_once_closed(open_state, path):
    state = open_state()
    state.commit(1, [*rows_of(100, b"nothing"), Change("profiles", "ada", b"secret of Ada" * 900)])
    state.commit(2, [Change("profiles", "ada", None)], [Expiry("profiles", "00050")])
    assert state.count("profiles") == 50
    state.close()
    assert all(b"Ada" not in file.read_bytes() for file in path.parent.iterdir())


COMMITS = """
import sys
from pathlib import Path
from tailorbird.stores.sqlite import SqliteState
from tailorbird.stores.state import Change, Expiry

state = SqliteState(Path(sys.argv[1]), ["profiles", "days"])
for offset in range(state.offset + 1, 100_000):
    rows = [Change("profiles", f"{number:04d}", b"%d" % offset) for number in range(900)]
    day = Change("days", f"{offset:08d}", b"%d" % offset)
    state.commit(offset, [*rows, day], [Expiry("days", f"{offset:08d}")])
    print(offset, flush=True)
"""


def test_a_commit_is_there_whole_or_not_at_all_when_the_process_is_killed(open_state, path):
    for lines in (1, 7, 30):
        with subprocess.Popen(
            [sys.executable, "-c", COMMITS, str(path)], stdout=subprocess.PIPE, text=True
        ) as child:
            promised = [child.stdout.readline() for _ in range(lines)][-1]
            child.kill()
            promised = ([promised] + [line for line in child.stdout if line.endswith("\n")])[-1]
        state = open_state(("profiles", "days"))
        assert state.offset >= int(promised)
        value = b"%d" % state.offset
        assert list(state.scan("profiles")) == [(f"{n:04d}", value) for n in range(900)]
        assert list(state.scan("days")) == [(f"{state.offset:08d}", value)]
        state.close()
