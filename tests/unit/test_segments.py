"""The log on disk: torn tails, damage, full disks, crashes, and what a rewrite leaves behind."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.errors import ConflictError, OverloadedError, StorageError
from tailorbird.stores import segments as module
from tailorbird.stores.frame import HEADER_BYTES, encode
from tailorbird.stores.log import Record
from tailorbird.stores.memory import MemoryLog
from tailorbird.stores.segments import BLOCK_BYTES, SegmentLog

PATIENCE_SECONDS = 30  # How long a test waits for a thread or a child before it fails.


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def open_log(directory):
    """A function that opens the log again, closing the one that was open."""
    opened = []

    def open_again(**options):
        while opened:
            opened.pop().close()
        opened.append(SegmentLog(directory, **options))
        return opened[0]

    yield open_again
    while opened:
        opened.pop().close()


def payload_of(number):
    return b"record %d " % number * (number % 5 + 1)


def fill(log, count, start=0):
    for number in range(start, start + count):
        log.append(number % 256, payload_of(number))
    log.flush()
    return [Record(number, number % 256, payload_of(number)) for number in range(start, start + count)]


def segment_paths(directory):
    return sorted(directory.glob("*.log"))


def frame_of(record):
    return encode(*record)


def positions_of(records):
    """Return where each record's frame begins, and where the last one ends."""
    positions = [0]
    for record in records:
        positions.append(positions[-1] + len(frame_of(record)))
    return positions


def all_bytes(directory):
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


# --- opening ---


def test_everything_is_there_after_opening_again(open_log):
    records = fill(open_log(segment_bytes=300), 100)
    log = open_log(segment_bytes=300)
    assert log.end == 100
    assert list(log.read()) == records
    assert [log.get(offset) for offset in range(100)] == records
    assert log.health() == (0, 100, 0, 0, 0)


def test_close_writes_what_was_not_flushed(open_log):
    open_log().append(1, b"unflushed")
    assert list(open_log().read()) == [Record(0, 1, b"unflushed")]


def test_segments_are_named_by_their_first_offset(open_log, directory):
    log = open_log(segment_bytes=1)
    for number in range(3):
        fill(log, 1, start=number)
    assert [path.name for path in segment_paths(directory)] == [
        "00000000000000000000.log",
        "00000000000000000001.log",
        "00000000000000000002.log",
    ]


def test_a_second_opener_is_refused_by_name(open_log, directory):
    open_log()
    with pytest.raises(ConflictError, match=f"{directory}: in use by another process"):
        SegmentLog(directory)


def test_another_process_is_refused_until_the_log_is_closed(open_log, directory):
    script = (
        "import sys; from pathlib import Path\n"
        "from tailorbird.errors import ConflictError\n"
        "from tailorbird.stores.segments import SegmentLog\n"
        "try: SegmentLog(Path(sys.argv[1])).close(); print('opened')\n"
        "except ConflictError: print('refused')\n"
    )
    log = open_log()
    assert run_child(script, directory) == "refused"
    log.close()
    assert run_child(script, directory) == "opened"


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be opened"):
        SegmentLog(tmp_path / "file" / "log")


@pytest.mark.parametrize("name", ["segment_bytes", "pending_bytes_max"])
def test_a_size_below_one_is_refused_by_name(directory, name):
    with pytest.raises(ValueError, match=name):
        SegmentLog(directory, **{name: 0})


def test_files_belong_to_their_owner_alone(open_log, directory):
    fill(open_log(segment_bytes=1), 2)
    assert {path.stat().st_mode & 0o077 for path in directory.iterdir()} == {0}


def test_a_closed_log_refuses_everything(open_log):
    log = open_log()
    log.close()
    for call in (lambda: log.append(1, b""), log.read, lambda: log.get(0)):
        with pytest.raises(StorageError, match="closed"):
            call()
    with pytest.raises(StorageError, match="closed"):
        asyncio.run(log.durable())
    with pytest.raises(StorageError, match="closed"):
        log.rewrite(bool)


# --- torn tails ---


def test_a_torn_last_record_is_cut_at_every_length(open_log, directory):
    records = fill(open_log(), 4)
    whole = b"".join(frame_of(record) for record in records)
    last = len(frame_of(records[-1]))
    for length in range(last):
        open_log().close()
        (path,) = segment_paths(directory)
        path.write_bytes(whole[: len(whole) - last + length])
        log = open_log()
        assert log.health() == (0, 3, 0, 0, length)
        assert list(log.read()) == records[:3]
        assert log.append(9, b"next") == 3
        log = open_log()
        assert list(log.read()) == [*records[:3], Record(3, 9, b"next")]
        assert log.health() == (0, 4, 0, 0, 0)


def test_a_tail_of_zeros_is_cut(open_log, directory):
    records = fill(open_log(), 3)
    open_log().close()
    with segment_paths(directory)[0].open("ab") as file:
        file.write(bytes(5_000))
    log = open_log()
    assert list(log.read()) == records
    assert log.health() == (0, 3, 0, 0, 5_000)


def test_a_torn_first_record_of_a_new_segment_keeps_the_end(open_log, directory):
    records = fill(open_log(segment_bytes=1), 1) + fill(open_log(segment_bytes=1), 1, start=1)
    open_log().close()
    path = segment_paths(directory)[-1]
    path.write_bytes(path.read_bytes()[:-1])
    log = open_log()
    assert list(log.read()) == records[:1]
    assert log.append(1, b"next") == 1


def test_a_damaged_last_record_is_not_cut_and_its_offset_not_given_out_again(open_log, directory):
    records = fill(open_log(), 4)
    open_log().close()
    (path,) = segment_paths(directory)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    log = open_log()
    assert list(log.read()) == records[:3]
    size = len(frame_of(records[3]))
    assert log.health()[2:] == (1, size, 0)
    assert log.end > 3 + 1
    offset = log.append(1, b"next")
    log = open_log()
    assert list(log.read()) == [*records[:3], Record(offset, 1, b"next")]
    assert log.health()[2:] == (1, size, 0)


# --- damage ---


def test_any_flipped_byte_harms_its_own_record_alone(open_log, directory):
    records = fill(open_log(), 5)
    open_log().close()
    (path,) = segment_paths(directory)
    whole = path.read_bytes()
    starts = positions_of(records)
    for position in range(starts[2], starts[3]):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        log = open_log()
        others = records[:2] + records[3:]
        assert list(log.read()) == others
        assert [log.get(offset) for offset in range(5)] == [*records[:2], None, *records[3:]]
        assert log.end == 5
        size = starts[3] - starts[2]
        assert log.health() == (0, 5, 1, size, 0)
        copy = directory / "quarantine" / f"{path.stem}-{starts[2]}.bin"
        assert copy.read_bytes() == damaged[starts[2] : starts[3]]
        assert list(open_log().read()) == others
        assert open_log().health() == (0, 5, 1, size, 0)
        log = open_log()
        log.close()
        copy.unlink()


def test_garbage_between_records_is_stepped_over(open_log, directory):
    records = fill(open_log(), 6)
    open_log().close()
    (path,) = segment_paths(directory)
    whole, starts = path.read_bytes(), positions_of(records)
    fake = encode(1, 1, b"an offset that has been")  # Sound, but of an offset that lies behind.
    header = encode(5, 1, b"x" * 1_000)[:HEADER_BYTES]  # Claims more than follows.
    garbage = [os.urandom(50), b"\xffTb\xfe" * 9, fake, header, os.urandom(3 * BLOCK_BYTES)]
    for junk in garbage:
        path.write_bytes(whole[: starts[3]] + junk + whole[starts[3] :])
        log = open_log()
        assert list(log.read()) == records
        assert [log.get(offset) for offset in range(6)] == records
        assert log.health() == (0, 6, 1, len(junk), 0)
        assert log.append(1, b"next") == 6
        assert list(open_log().read())[:6] == records
        open_log().close()
        (directory / "quarantine" / f"{path.stem}-{starts[3]}.bin").unlink()


def test_damage_in_an_older_segment_is_met_when_it_is_read(open_log, directory):
    log = open_log(segment_bytes=200)
    records = [record for number in range(30) for record in fill(log, 1, start=number)]
    log.close()
    first = segment_paths(directory)[0]
    whole = bytearray(first.read_bytes())
    position = positions_of(records)[1]
    whole[position + HEADER_BYTES] ^= 1
    first.write_bytes(whole)
    log = open_log()
    assert log.health()[2:] == (0, 0, 0)
    assert log.get(1) is None
    size = len(frame_of(records[1]))
    assert log.health()[2:] == (1, size, 0)
    assert list(log.read()) == [records[0], *records[2:]]
    assert list(log.read(1, 3)) == records[2:3]
    assert log.health()[2:] == (1, size, 0)


def test_a_length_that_leads_onto_another_frame_hides_no_record(open_log, directory):
    log = open_log()
    for number in range(5):
        log.append(1, b"%d" % number)
    log.append(1, b"end")
    log.close()
    (path,) = segment_paths(directory)
    whole = bytearray(path.read_bytes())
    size = HEADER_BYTES + 1
    whole[size + 4 : size + 8] = (1 + 2 * size).to_bytes(4, "little")  # Record 1 swallows 2 and 3.
    path.write_bytes(whole)
    log = open_log()
    assert [log.get(offset) and log.get(offset).payload for offset in range(6)] == [
        b"0",
        None,
        b"2",
        b"3",
        b"4",
        b"end",
    ]
    assert [record.offset for record in log.read(2)] == [2, 3, 4, 5]


def test_a_file_cut_from_outside_is_a_clear_error(open_log, directory):
    log = open_log()
    fill(log, 10)
    os.truncate(segment_paths(directory)[0], 20)
    with pytest.raises(StorageError, match="something cut it"):
        list(log.read())
    with pytest.raises(StorageError, match="something cut it"):
        log.get(5)


# --- reading ---


def test_reads_and_gets_cross_blocks_and_segments(open_log):
    sizes = [10, BLOCK_BYTES - HEADER_BYTES - 31, 3 * BLOCK_BYTES, 0, 1, BLOCK_BYTES, 500]
    payloads = [bytes([number % 251]) * sizes[number % 7] for number in range(100)]
    log = open_log(segment_bytes=10 * BLOCK_BYTES)
    for payload in payloads:
        log.append(1, payload)
        log.flush()
    for _ in range(2):
        for offset in (99, 50, 0, 98, 51, 2, 33, 34, 35):
            assert log.get(offset).payload == payloads[offset]
        assert [record.payload for record in log.read(57)] == payloads[57:]
        assert [record.payload for record in log.read()] == payloads
        log = open_log()


# --- writing ---


def test_a_write_in_small_pieces_arrives_whole(open_log, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, bytes(data)[:7], at))
    records = fill(open_log(), 10)
    monkeypatch.undo()
    assert list(open_log().read()) == records


def refuse_after(count, monkeypatch):
    """Let the disk take `count` bytes of the next write, then none."""
    pwrite, room = os.pwrite, [count]

    def write(fd, data, position):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = pwrite(fd, bytes(data)[: room[0]], position)
        room[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", write)


@pytest.mark.parametrize("count", [0, 1, 30, 75])
def test_a_full_disk_loses_what_was_not_written_and_nothing_else(open_log, monkeypatch, count):
    log = open_log()
    records = fill(log, 5)
    refuse_after(count, monkeypatch)
    assert [log.append(1, b"lost" * 5), log.append(1, b"lost" * 5)] == [5, 6]
    with pytest.raises(StorageError, match="No space left"):
        log.flush()
    assert log.end == 5
    assert list(log.read()) == records
    assert log.get(5) is None
    monkeypatch.undo()
    records += fill(log, 3, start=5)
    assert list(log.read()) == records
    assert list(open_log().read()) == records
    assert open_log().health() == (0, 8, 0, 0, 0)


def test_remains_that_could_not_be_cut_never_come_to_life(open_log, monkeypatch):
    log = open_log()
    records = fill(log, 2)
    refuse_after(100, monkeypatch)
    ftruncate = os.ftruncate
    refusals = [OSError(errno.EIO, "once"), OSError(errno.EIO, "twice")]

    def truncate(fd, size):
        if refusals:
            raise refusals.pop()
        ftruncate(fd, size)

    monkeypatch.setattr(os, "ftruncate", truncate)
    for _ in range(6):
        log.append(1, b"lost")
    with pytest.raises(StorageError):
        log.flush()
    assert list(log.read()) == records
    log.append(1, b"lost too")
    with pytest.raises(StorageError):
        log.flush()
    monkeypatch.undo()
    log.append(1, b"good")
    log.flush()
    log = open_log()
    assert list(log.read()) == [*records, Record(2, 1, b"good")]
    assert log.health() == (0, 3, 0, 0, 0)


def test_a_segment_that_cannot_be_made_fails_the_flush_and_then_works(open_log, monkeypatch):
    log = open_log(segment_bytes=1)
    records = fill(log, 1)
    with monkeypatch.context() as patch:
        patch.setattr(module._Segment, "create", refuse_to_create)
        log.append(1, b"lost")
        with pytest.raises(StorageError, match="Too many open files"):
            log.flush()
    records += fill(log, 2, start=1)
    assert list(open_log().read()) == records


def refuse_to_create(path, base):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tailorbird.errors import StorageError
from tailorbird.stores.segments import SegmentLog

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = SegmentLog(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    for number in range(1_000):
        assert log.append(1, b"before %d " % number * 20) == number
        if number % 3 == 2:
            log.flush()
except StorageError as error:
    end = log.end
    assert end % 3 == 0
assert [record.offset for record in log.read()] == list(range(end))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert log.append(2, b"after") == end
log.close()
print(end)
"""


def test_a_real_limit_on_the_file_is_survived(open_log, directory):
    end = int(run_child(FULL_DISK, directory))
    assert 100 < end < 1_000
    log = open_log()
    assert [record.kind for record in log.read()] == [1] * end + [2]
    assert log.health() == (0, end + 1, 0, 0, 0)


# --- durability ---


class SlowDisk:
    """Holds every sync until it is let go; counts them."""

    def __init__(self, monkeypatch):
        self.count = 0
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.failure = None
        monkeypatch.setattr(module, "_sync_data", self.sync)

    def sync(self, fd):
        self.count += 1
        self.has_begun.set()
        assert self.may_end.wait(PATIENCE_SECONDS)
        if self.failure:
            raise self.failure


def test_whoever_comes_during_a_sync_shares_the_next_one(open_log, monkeypatch):
    log = open_log()
    disk = SlowDisk(monkeypatch)

    async def produce():
        log.append(1, b"x")
        await log.durable()

    async def produce_all():
        first = asyncio.create_task(produce())
        await asyncio.to_thread(disk.has_begun.wait, PATIENCE_SECONDS)
        rest = [asyncio.create_task(produce()) for _ in range(50)]
        await asyncio.sleep(0)  # Each appends and waits.
        await asyncio.sleep(0)  # The turn ends with one write.
        assert not first.done()
        disk.may_end.set()
        await asyncio.gather(first, *rest)

    asyncio.run(produce_all())
    assert disk.count == 2
    assert log.end == 51


def test_one_turn_is_one_write(open_log, monkeypatch):
    log = open_log()
    pwrite, sizes = os.pwrite, []

    def write(fd, data, position):
        sizes.append(len(data))
        return pwrite(fd, data, position)

    monkeypatch.setattr(os, "pwrite", write)

    async def produce_all():
        for _ in range(64):
            log.append(1, b"x" * 100)
        await asyncio.gather(*(log.durable() for _ in range(64)))

    asyncio.run(produce_all())
    assert sizes == [64 * (HEADER_BYTES + 100)]


def test_a_write_that_fails_is_told_to_everyone_who_waits(open_log, monkeypatch):
    log = open_log()

    async def produce():
        log.append(1, b"x")
        await log.durable()

    async def produce_all():
        return await asyncio.gather(*(produce() for _ in range(5)), return_exceptions=True)

    with monkeypatch.context() as patch:
        refuse_after(0, patch)
        errors = asyncio.run(produce_all())
    assert [type(error) for error in errors] == [StorageError] * 5
    assert log.end == 0
    assert asyncio.run(produce_all()) == [None] * 5
    assert log.end == 5


def test_a_sync_that_fails_is_final(open_log, monkeypatch):
    log = open_log()
    fill(log, 3)
    disk = SlowDisk(monkeypatch)
    disk.failure = OSError(errno.EIO, os.strerror(errno.EIO))
    disk.may_end.set()

    async def produce_all():
        return await asyncio.gather(*(log.durable() for _ in range(5)), return_exceptions=True)

    errors = asyncio.run(produce_all())
    assert [type(error) for error in errors] == [StorageError] * 5
    disk.failure = None
    with pytest.raises(StorageError, match="Input/output error"):
        log.append(1, b"x")
    with pytest.raises(StorageError, match="Input/output error"):
        asyncio.run(log.durable())
    assert [record.offset for record in log.read()] == [0, 1, 2]
    with pytest.raises(StorageError, match="Input/output error"):
        log.close()
    assert open_log().append(1, b"x") == 3


def test_too_much_that_waits_for_the_disk_is_refused_until_it_is_synced(open_log, monkeypatch):
    log = open_log(pending_bytes_max=10_000)
    disk = SlowDisk(monkeypatch)

    def append_until_refused():
        for _ in range(1_000):
            log.append(1, b"x" * 500)
            log.flush()

    with pytest.raises(OverloadedError, match="10000 bytes wait"):
        append_until_refused()
    end = log.end
    assert end == 10_000 // (500 + HEADER_BYTES)
    disk.may_end.set()
    asyncio.run(log.durable())
    assert log.append(1, b"x" * 500) == end


def test_flushing_alone_is_synced_before_appends_are_refused(open_log, monkeypatch):
    log = open_log(pending_bytes_max=10_000)
    disk = SlowDisk(monkeypatch)
    disk.may_end.set()
    fill(log, 1)
    assert disk.count == 0
    log.append(1, b"x" * 6_000)
    log.flush()
    assert disk.has_begun.wait(PATIENCE_SECONDS)


def test_a_waiter_that_gives_up_harms_nobody(open_log, monkeypatch):
    log = open_log()
    disk = SlowDisk(monkeypatch)

    async def produce_all():
        log.append(1, b"x")
        impatient, patient = (asyncio.create_task(log.durable()) for _ in range(2))
        await asyncio.to_thread(disk.has_begun.wait, PATIENCE_SECONDS)
        impatient.cancel()
        disk.may_end.set()
        await patient
        assert impatient.cancelled()

    asyncio.run(produce_all())


def test_a_loop_that_ended_leaves_the_log_usable(open_log):
    log = open_log()

    async def leave():
        log.append(1, b"x")
        waiting = asyncio.create_task(log.durable())
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(leave())
    log.append(1, b"y")
    asyncio.run(log.durable())
    assert log.end == 2


# --- rewriting ---


def test_erased_bytes_are_in_no_file(open_log, directory):
    log = open_log(segment_bytes=500)
    for number in range(60):
        log.append(1, b"secret of Ada" if number % 7 == 3 else b"nothing")
        log.flush()
    log = open_log(segment_bytes=500)
    path = segment_paths(directory)[1]
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"secret of Ada") - 1] ^= 1  # A secret in a record that is damaged.
    path.write_bytes(whole)
    assert len(list(log.read())) == 59
    assert b"secret of Ada" in b"".join(path.read_bytes() for path in (directory / "quarantine").iterdir())
    removed = log.rewrite(lambda record: b"Ada" not in record.payload)
    assert removed == 8
    assert b"Ada" not in all_bytes(directory)
    assert log.health()[2:] == (0, 0, 0)
    assert [record.payload for record in open_log().read()] == [b"nothing"] * 51


def test_segments_without_a_refused_record_are_left_alone(open_log, directory):
    log = open_log(segment_bytes=100)
    for number in range(30):
        fill(log, 1, start=number)
    before = {path.name: path.stat().st_ino for path in segment_paths(directory)}
    log.rewrite(lambda record: record.offset != 10)
    after = {path.name: path.stat().st_ino for path in segment_paths(directory)}
    assert sum(before[name] != after.get(name) for name in before) == 1


def test_the_end_is_kept_when_everything_is_erased(open_log, directory):
    log = open_log()
    fill(log, 10)
    assert log.rewrite(lambda record: False) == 10
    assert [path.name for path in segment_paths(directory)] == ["00000000000000000010.log"]
    log = open_log()
    assert log.end == 10
    assert log.append(1, b"next") == 10


def test_a_reader_of_the_old_file_brings_nothing_back(open_log, directory):
    log = open_log()
    records = fill(log, 2_000)
    log.close()
    (path,) = segment_paths(directory)
    whole = bytearray(path.read_bytes())
    whole[positions_of(records)[1_990] + HEADER_BYTES] ^= 1
    log = open_log()
    path.write_bytes(whole)
    reading = log.read()
    next(reading)
    log.rewrite(lambda record: record.offset != 1_991)
    assert len(list(reading)) == 1_998
    assert list((directory / "quarantine").glob("*")) == []
    assert log.health()[2:] == (0, 0, 0)


def test_a_full_disk_fails_a_rewrite_and_harms_nothing(open_log, directory, monkeypatch):
    log = open_log()
    records = fill(log, 20)
    with monkeypatch.context() as patch:
        refuse_after(100, patch)
        with pytest.raises(StorageError, match="No space left"):
            log.rewrite(lambda record: record.offset != 3)
    assert list(log.read()) == records
    assert list(directory.glob("*.tmp")) == []
    assert log.rewrite(lambda record: record.offset != 3) == 1


# --- crashes ---


def run_child(script, *arguments):
    """Run `script` in another process; return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    ).stdout.strip()


DURABLE_APPENDS = """
import asyncio, sys
from pathlib import Path
from tailorbird.stores.segments import SegmentLog

async def produce(log, producer):
    while True:
        offset = log.append(producer, b"%d" % producer * 50)
        await log.durable()
        print(offset, producer, flush=True)

async def produce_all(log):
    await asyncio.gather(*(produce(log, producer) for producer in range(8)))

asyncio.run(produce_all(SegmentLog(Path(sys.argv[1]), segment_bytes=2_000)))
"""


def test_nothing_that_was_durable_is_lost_when_the_process_is_killed(open_log, directory):
    for lines in (1, 50, 300):
        with subprocess.Popen(
            [sys.executable, "-c", DURABLE_APPENDS, str(directory)],
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            promised = [child.stdout.readline() for _ in range(lines)]
            child.kill()
            promised += [line for line in child.stdout if line.endswith("\n")]
        log = open_log()
        for line in promised:
            offset, producer = map(int, line.split())
            assert log.get(offset) == Record(offset, producer, b"%d" % producer * 50)
        assert [record.offset for record in log.read()] == list(range(log.end))
        assert log.health().records_corrupt == 0
        log.close()


CRASHING_REWRITE = """
import os, signal, sys
from pathlib import Path
from tailorbird.stores.segments import SegmentLog

replace, unlink, fsync = Path.replace, Path.unlink, os.fsync
left = [int(sys.argv[3])]

def die_at(name, call):
    def called(*arguments, **options):
        if name == sys.argv[2]:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return called

log = SegmentLog(Path(sys.argv[1]), segment_bytes=400)
Path.replace = die_at("replace", replace)
Path.unlink = die_at("unlink", unlink)
os.fsync = die_at("fsync", fsync)
log.rewrite(lambda record: record.offset % 5)
"""


@pytest.mark.parametrize(
    ("step", "count"),
    [("fsync", 1), ("fsync", 2), ("replace", 1), ("replace", 3), ("fsync", 5), ("unlink", 1)],
)
def test_a_crash_during_a_rewrite_leaves_every_segment_whole(open_log, directory, step, count):
    log = open_log(segment_bytes=400)
    records = [record for number in range(60) for record in fill(log, 1, start=number)]
    log.close()
    child = subprocess.run(
        [sys.executable, "-c", CRASHING_REWRITE, str(directory), step, str(count)],
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert child.returncode == -signal.SIGKILL
    log = open_log(segment_bytes=400)
    assert list(directory.glob("*.tmp")) == []
    assert log.end == 60
    kept = [record for record in records if record.offset % 5]
    assert [record for record in log.read() if record.offset % 5] == kept
    log.rewrite(lambda record: record.offset % 5)
    assert list(log.read()) == kept
    assert log.append(1, b"next") == 60


# --- the law ---

operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 255), st.binary(max_size=60)),
        st.tuples(st.just("flush")),
        st.tuples(st.just("durable")),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("rewrite"), st.integers(1, 4), st.integers(0, 3)),
        st.tuples(st.just("get"), st.integers(-1, 40)),
        st.tuples(st.just("read"), st.integers(-1, 40), st.none() | st.integers(0, 40)),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(operations=operations, segment_bytes=st.integers(1, 300))
def test_any_history_equals_that_of_the_log_in_memory(operations, segment_bytes):
    with tempfile.TemporaryDirectory() as folder:
        model, log = MemoryLog(), SegmentLog(Path(folder), segment_bytes=segment_bytes)
        try:
            for name, *arguments in operations:
                if name == "reopen":
                    log.close()
                    log = SegmentLog(Path(folder), segment_bytes=segment_bytes)
                else:
                    assert apply(log, name, arguments) == apply(model, name, arguments)
                assert log.end == model.end
            assert list(log.read()) == list(model.read())
            assert log.health() == model.health()
        finally:
            log.close()


def apply(log, name, arguments):
    """Do one operation on either log; return what it returns."""
    if name == "rewrite":
        modulus, rest = arguments
        return log.rewrite(lambda record: record.offset % modulus != rest)
    if name == "durable":
        return asyncio.run(log.durable())
    if name == "read":
        return list(log.read(*arguments))
    return getattr(log, name)(*arguments)
