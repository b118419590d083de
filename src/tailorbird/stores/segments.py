"""The log on disk: one folder of segment files, shared by one process at a time.

    LOCK                              held by the process that has the log open
    00000000000000000000.log          segments; the name is the offset from which one holds records
    00000000000000316542.log          the last one is active: it alone grows
    quarantine/<segment>-<position>.bin   copies of damaged bytes, as they were met

Group commit as in PostgreSQL, without a timer: appends collect in memory, one write hands them over
at the end of the event loop's turn, and one thread syncs; its next fdatasync covers whatever was
written during the last. So one producer waits for one sync, and sixty-four share it.

Only the tail of the last segment is ever cut, and only when it is what a cut-short write leaves.
Other damage is copied to quarantine once and stepped over; the records behind it are served.

Files are read with `pread`, not mapped: a disk error is then an exception, where a map would kill
the process. A reader keeps the file it began with, even while `rewrite` puts another in its place.
"""

import asyncio
import errno
import fcntl
import os
import queue
import re
import threading
import weakref
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tailorbird import limits
from tailorbird.errors import ConflictError, OverloadedError, StorageError
from tailorbird.stores.frame import (
    HEADER_BYTES,
    Parsed,
    encode,
    is_torn,
    measure,
    parse,
    resynchronise,
    skim,
)
from tailorbird.stores.log import NOTHING, Entry, LogHealth, Record

BLOCK_BYTES: Final = 64 * 1024  # Read at once, and the stride of the index: a get walks one.
CLOSE_SECONDS_MAX: Final = 60.0  # A disk that cannot sync in a minute is not going to.
FILE_MODE: Final = 0o600  # The log holds personal data: nobody but its owner reads it.

_NAME: Final = re.compile(r"\d{20}\.log")
_sync_data: Final = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync.


class SegmentLog:
    """A log in segment files. Implements `tailorbird.stores.log.Log`.

    `append`, `flush` and `durable` belong to the event loop. `read`, `get` and `rewrite` may also
    run in a worker thread meanwhile.

    A flush that fails forgets what was appended before it, and tells its caller and everyone who
    waits in `durable`. So flush, or await `durable`, in the same step as `append`: with another
    await between, somebody else may have flushed, and heard of the failure instead.
    """

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = limits.SEGMENT_BYTES,
        pending_bytes_max: int = limits.PENDING_BYTES_MAX,
    ) -> None:
        """Open the log in `directory`, which is made if need be.

        Args:
            directory: The folder; nothing else may be kept in it.
            segment_bytes: A segment that has reached this size is followed by a new one.
            pending_bytes_max: Bytes that may wait for the disk, written or not.

        Raises:
            ConflictError: Another process has the log open.
            StorageError: The folder cannot be read or written.
            ValueError: `segment_bytes` or `pending_bytes_max` is below 1.
        """
        for name, value in (
            ("segment_bytes", segment_bytes),
            ("pending_bytes_max", pending_bytes_max),
        ):
            if value < 1:
                raise ValueError(f"{name}: at least 1 (found {value})")
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._pending_bytes_max = pending_bytes_max
        self._lock = threading.Lock()  # Guards what is pending, the segments, the quarantine.
        self._rewriting = threading.Lock()
        self._frames: list[bytes] = []  # Appended, not yet written.
        self._waiters: list[asyncio.Future[None]] = []  # Waiting for the frames above.
        self._turn_of: asyncio.AbstractEventLoop | None = None  # The loop that is going to flush.
        self._bytes_appended = 0
        self._is_closed = False
        self._bytes_torn = 0
        self._lock_fd, self._directory_fd = _hold(directory), -1
        try:
            self._directory_fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
            self._quarantine = _Quarantine(directory / "quarantine")
            self._segments = self._open_segments()
            self._end = self._recover(self._segments[-1])
            self._sync_all()
            self._syncer = _Syncer(self._directory_fd, pending_bytes_max // 2)
        except (OSError, StorageError) as error:
            self._let_go()
            raise StorageError(f"log {directory}: cannot be opened: {error}") from error

    @property
    def end(self) -> int:
        """Return the offset that the next record gets."""
        return self._end

    def append(self, kind: int, payload: bytes) -> int:
        """Return the offset of a new record of `kind` (0 to 255).

        Raises:
            InvalidInputError: `kind` is out of range, or `payload` larger than a frame can hold.
            OverloadedError: More bytes than `pending_bytes_max` wait for the disk.
            StorageError: The log is closed, or an earlier sync failed.
        """
        with self._lock:
            offset = self._end
            frame = encode(offset, kind, payload)
            bytes_appended = self._bytes_appended + len(frame)
            if bytes_appended - self._syncer.bytes_synced > self._pending_bytes_max:
                raise OverloadedError(
                    f"log {self._directory}: {self._pending_bytes_max} bytes wait for the disk"
                )
            if self._syncer.failure or self._is_closed:
                raise self._refusal()
            self._frames.append(frame)
            self._bytes_appended = bytes_appended
            self._end = offset + 1
        return offset

    def flush(self) -> None:
        """Hand everything appended to the operating system, in one write.

        Raises:
            StorageError: The disk refused; what could not be written is forgotten.
        """
        with self._lock:
            self._write()

    async def durable(self) -> None:
        """Return when everything appended before this call survives a power cut.

        Raises:
            StorageError: The disk refused.
        """
        waiter = asyncio.get_running_loop().create_future()
        self.when_durable(waiter)
        await waiter

    def when_durable(self, future: "asyncio.Future[None]") -> None:
        """Settle `future` of the running loop as `durable` would return: None, or a StorageError.

        What was flushed already goes to the syncer at once; what was not, at the end of the turn.

        Raises:
            StorageError: The log is closed, or an earlier sync failed; the future stays as it is.
        """
        with self._lock:
            if self._syncer.failure or self._is_closed:
                raise self._refusal()
            if self._bytes_appended == self._syncer.bytes_synced:
                future.set_result(None)
            elif not self._frames:
                self._syncer.add(self._active, 0, [future])
            else:
                self._waiters.append(future)
                loop = future.get_loop()
                if self._turn_of is not loop:
                    self._turn_of = loop
                    loop.call_soon(self._end_turn)

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Yield the records with `start <= offset < stop` that are there now, in order.

        Gaps are left out. Damaged stretches are quarantined and left out.

        Raises:
            StorageError: The disk refused.
        """
        with self._lock:
            self._refuse_if_closed()
            self._write()
            stop = self._end if stop is None else min(stop, self._end)
            segments = self._segments
        first = max(_index_of(segments, start), 0)
        return self._read(segments[first:], start, stop)

    def get(self, offset: int) -> Record | None:
        """Return the record at `offset`, or None where none is.

        Raises:
            StorageError: The disk refused.
        """
        with self._lock:
            self._refuse_if_closed()
            if self._frames and offset >= self._end - len(self._frames):
                self._write()
            segments = self._segments
        index = _index_of(segments, offset)
        if index < 0 or offset >= self._end:
            return None
        record = segments[index].record_at(segments[index].locate(offset))
        if record is not None and record.offset == offset:
            return record
        # None here, or the way was damaged: look again, checking every frame.
        return next(self._read(segments[index : index + 1], offset, offset + 1), None)

    def rewrite(self, is_kept: Callable[[Record], bool], instead: Mapping[int, Entry] = NOTHING) -> int:
        """Remove for good every record that `is_kept` refuses; return how many went.

        Segments that hold such a record are written anew beside the old one and renamed over it, so
        a crash leaves each whole, with or without it. Damaged stretches go too, from the segments
        and from quarantine: nobody can tell whose they are. A read that began before goes on over
        the old file.

        Args:
            is_kept: Answers the same whenever it is asked about a record; may be asked twice.
            instead: What records say from now on, by offset; `is_kept` is not asked about them.

        Raises:
            StorageError: The disk refused; call again to finish.
        """
        removed = 0
        try:
            with self._rewriting:
                with self._lock:
                    self._refuse_if_closed()
                    self._write()
                    segments = self._segments
                for segment in segments:
                    removed += self._rewrite(segment, is_kept, instead)
                with self._lock:
                    self._quarantine.clear()
        except OSError as error:
            raise StorageError(f"log {self._directory}: cannot be rewritten: {error}") from error
        return removed

    def health(self) -> LogHealth:
        """Return what the log knows about itself; each damaged stretch counts as one record."""
        with self._lock:
            segments = self._segments
            damage = self._quarantine.sizes.values()
            records_corrupt, bytes_quarantined = len(damage), sum(damage)
        first = next(self._read(segments, 0, self._end), None)
        return LogHealth(
            start=self._end if first is None else first.offset,
            end=self._end,
            records_corrupt=records_corrupt,
            bytes_quarantined=bytes_quarantined,
            bytes_torn=self._bytes_torn,
        )

    def close(self) -> None:
        """Make everything durable and let go of the files. A second call does nothing.

        Raises:
            StorageError: The disk refused; the files are let go of all the same.
        """
        with self._rewriting:
            if self._is_closed:
                return
            try:
                with self._lock:
                    self._is_closed = True
                    self._write()
            finally:
                self._syncer.close()
                self._let_go()
        if self._syncer.failure:
            raise StorageError(self._syncer.failure)

    # --- writing ---

    @property
    def _active(self) -> "_Segment":
        return self._segments[-1]

    def _end_turn(self) -> None:
        with suppress(StorageError):  # Each waiter was told.
            self.flush()

    def _write(self) -> None:
        """Write what is pending and pass on who waits for it. Call with the lock held."""
        frames, waiters = self._frames, self._waiters
        self._frames, self._waiters, self._turn_of = [], [], None
        data = b"".join(frames)
        try:
            if frames:
                self._write_frames(self._end - len(frames), data)
        except OSError as error:
            self._end -= len(frames)
            self._bytes_appended -= len(data)
            failure = f"log {self._directory}: cannot be written: {error}"
            _settle(waiters, failure)
            raise StorageError(failure) from error
        if frames or waiters:
            self._syncer.add(self._active, len(data), waiters)

    def _write_frames(self, offset: int, data: bytes) -> None:
        if self._syncer.failure:
            raise OSError(errno.EIO, self._syncer.failure)
        if self._active.size >= self._segment_bytes:
            self._roll(offset)
        self._active.write(offset, data)

    def _roll(self, base: int) -> None:
        """Begin a new segment at `base`. The name carries the log's end, which so is never lost."""
        segment = _Segment.create(self._directory / f"{base:020d}.log", base)
        self._segments = [*self._segments, segment]
        self._syncer.add_directory()

    def _refusal(self) -> StorageError:
        return StorageError(self._syncer.failure or f"log {self._directory}: it is closed")

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise self._refusal()

    # --- reading ---

    def _read(self, segments: list["_Segment"], start: int, stop: int) -> Iterator[Record]:
        for segment in segments:
            if segment.base >= stop:
                return
            for records in self._sound(segment, start):
                if records[0].offset >= start and records[-1].offset < stop:
                    yield from records
                else:
                    yield from (record for record in records if start <= record.offset < stop)
                if records[-1].offset >= stop - 1:
                    return

    def _sound(self, segment: "_Segment", start: int) -> Iterator[list[Record]]:
        """Yield the sound records of `segment` by the block, from at most `start` on."""
        if start > segment.base:
            segment.locate(start)  # Fills the index up to there, so that little is read in vain.
        for stretch in segment.stretches(*segment.point_before(start)):
            if stretch.records:
                yield stretch.records
            else:
                self._keep_damage(segment, stretch)

    def _keep_damage(self, segment: "_Segment", stretch: "_Stretch") -> None:
        name = f"{segment.path.stem}-{stretch.start}.bin"
        content = segment.content(stretch.start, stretch.stop - stretch.start)
        with self._lock:
            if segment in self._segments:  # Else a rewrite took the bytes away, and away they stay.
                self._quarantine.keep(name, content)

    # --- rewriting ---

    def _rewrite(
        self, segment: "_Segment", is_kept: Callable[[Record], bool], instead: Mapping[int, Entry]
    ) -> int:
        judged = _judge(segment, is_kept, instead)
        if not judged.is_to_change:
            return 0
        if self._seal(segment):  # Judge also what came between.
            judged = _judge(segment, is_kept, instead)
        refused = judged.refused
        replacement = self._copy(segment, frozenset(refused), instead)
        if replacement is None:
            segment.path.unlink()
        else:
            replacement.path.replace(segment.path)
            replacement.path = segment.path
        with self._lock:
            put = [] if replacement is None else [replacement]
            index = self._segments.index(segment)
            self._segments = [*self._segments[:index], *put, *self._segments[index + 1 :]]
        os.fsync(self._directory_fd)
        return len(refused)

    def _seal(self, segment: "_Segment") -> bool:
        """Return whether `segment` was active; if so, a new one is now, already on disk."""
        with self._lock:
            if segment is not self._active:
                return False
            self._write()
            self._roll(self._end)
        os.fsync(self._directory_fd)
        return True

    def _copy(
        self, segment: "_Segment", refused: frozenset[int], instead: Mapping[int, Entry]
    ) -> "_Segment | None":
        """Return a synced copy under a temporary name without what is refused; None when empty."""
        path = segment.path.with_suffix(".tmp")
        path.unlink(missing_ok=True)
        copy = _Segment.create(path, segment.base)
        try:
            for stretch in segment.stretches():
                kept = [record for record in stretch.records if record.offset not in refused]
                if kept:
                    frames = [
                        encode(record.offset, *instead.get(record.offset, record[1:])) for record in kept
                    ]
                    copy.write(kept[0].offset, b"".join(frames))
            os.fsync(copy.fd)
        except BaseException:
            path.unlink()
            raise
        if copy.size:
            return copy
        path.unlink()
        return None

    # --- opening and closing ---

    def _open_segments(self) -> list["_Segment"]:
        for leftover in self._directory.glob("*.tmp"):  # Of a rewrite that a crash cut short.
            leftover.unlink()
        paths = sorted(path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))
        if paths:
            return [_Segment(path, int(path.stem)) for path in paths]
        return [_Segment.create(self._directory / f"{0:020d}.log", 0)]

    def _recover(self, segment: "_Segment") -> int:
        """Cut a torn tail off the last segment, quarantine other damage; return the log's end."""
        end = segment.base
        for stretch in segment.stretches():
            size = stretch.stop - stretch.start
            if stretch.records:
                end = stretch.records[-1].offset + 1
            elif stretch.stop == segment.size and is_torn(segment.content(stretch.start, size)):
                self._bytes_torn = size
                segment.cut(stretch.start)
            else:
                self._keep_damage(segment, stretch)
                # As many records may have been here; the offset of none is given out again.
                end += size // HEADER_BYTES + 1
        return end

    def _sync_all(self) -> None:
        """Make what was found as durable as what is to come.

        A process that was killed may have left bytes that the kernel has and the disk has not. A
        file that is synced already costs a few microseconds.
        """
        for segment in self._segments:
            _sync_data(segment.fd)
        os.fsync(self._directory_fd)

    def _let_go(self) -> None:
        self._segments = []
        if self._directory_fd >= 0:
            os.close(self._directory_fd)
        os.close(self._lock_fd)  # Which unlocks it.
        self._directory_fd = self._lock_fd = -1


class _Stretch(NamedTuple):
    """Part of a segment, from position `start` to `stop`; no records mean that it is damaged."""

    start: int
    stop: int
    records: list[Record]


class _Segment:
    """One file of frames, with a sparse index of (offset, position) that grows as it is read.

    Every point of the index is a frame that was written here or whose checksum was verified.
    """

    def __init__(self, path: Path, base: int, flags: int = os.O_RDWR) -> None:
        self.path = path
        self.base = base
        self.fd = os.open(path, flags | os.O_CLOEXEC, FILE_MODE)
        # Readers of a replaced file go on with it: the last to let go of this object closes it.
        weakref.finalize(self, os.close, self.fd)
        self.size = os.fstat(self.fd).st_size  # What lies behind are remains of a failed write.
        self._has_remains = False
        self._offsets = array("Q")
        self._positions = array("Q")
        self._index_lock = threading.Lock()
        self._noted = -BLOCK_BYTES  # The position last looked at: a point or near one.

    @classmethod
    def create(cls, path: Path, base: int) -> "_Segment":
        """Return a new segment; the caller syncs the directory."""
        return cls(path, base, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def write(self, offset: int, data: bytes) -> None:
        """Add whole frames, the first being that of `offset`; all of them or, on OSError, none.

        A failed write leaves remains behind the end. They may hold whole frames that must not come
        to life again, so they are cut before anything else is written.
        """
        if self._has_remains:
            self.cut(self.size)
        try:
            _write_all(self.fd, data, self.size)
        except OSError:
            self._has_remains = True
            with suppress(OSError):
                self.cut(self.size)
            raise
        self._note(offset, self.size)
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Make the file end at `size`."""
        os.ftruncate(self.fd, size)
        self.size = size
        self._has_remains = False

    def content(self, position: int, size: int = BLOCK_BYTES) -> bytes:
        """Return up to `size` bytes from `position`, fewer only at the segment's end.

        Raises:
            StorageError: The disk refused, or something cut the file.
        """
        size = min(size, self.size - position)
        try:
            data = os.pread(self.fd, size, position)
        except OSError as error:
            raise StorageError(f"log segment {self.path}: cannot be read: {error}") from error
        if len(data) < size:
            raise StorageError(f"log segment {self.path}: something cut it to {position + len(data)}")
        return data

    def stretches(self, position: int = 0, offset_min: int | None = None) -> Iterator[_Stretch]:
        """Yield what the file holds from `position`, where a frame begins, to its present end."""
        offset_min = self.base if offset_min is None else offset_min
        size = self.size
        while position < size:
            records, length, _ = self._parse(position, offset_min)
            if records:
                self._note(records[0].offset, position)
                offset_min = records[-1].offset + 1
            stop = position + length if records else self._resume(position + 1, offset_min)
            yield _Stretch(position, stop, records)
            position = stop

    def point_before(self, offset: int) -> tuple[int, int]:
        """Return position and offset of the nearest point of the index at or before `offset`."""
        with self._index_lock:
            index = bisect_right(self._offsets, offset) - 1
            return (self._positions[index], self._offsets[index]) if index >= 0 else (0, self.base)

    def locate(self, offset: int) -> int:
        """Return where the record at `offset` begins, if it is there and no damage misled the walk.

        Walks from the index by the lengths of frames alone and adds to the index on the way.
        """
        position = self.point_before(offset)[0]
        while position < self.size:
            buffer = self.content(position)
            step = skim(buffer, offset)
            position += step
            if step + HEADER_BYTES <= len(buffer) or not step:
                break
            if (record := self.record_at(position)) is not None:
                self._note(record.offset, position)
        return position

    def record_at(self, position: int) -> Record | None:
        """Return the sound record whose frame begins at `position`, or None."""
        if position >= self.size:
            return None
        size = measure(self.content(position, HEADER_BYTES))
        records = parse(self.content(position, size), self.base).records if size else []
        return records[0] if records else None

    def _parse(self, position: int, offset_min: int) -> Parsed:
        buffer = self.content(position)
        parsed = parse(buffer, offset_min)
        if not parsed.records and not parsed.is_damaged and (size := measure(buffer)) > len(buffer):
            return parse(self.content(position, size), offset_min)  # Larger than a block.
        return parsed

    def _resume(self, position: int, offset_min: int) -> int:
        """Return where the first sound frame at or after `position` begins, else the end."""
        while position < self.size:
            position += resynchronise(self.content(position), offset_min)
            record = self.record_at(position)
            if record is not None and record.offset >= offset_min:
                return position
            position += 1
        return self.size

    def _note(self, offset: int, position: int) -> None:
        """Add a point to the index unless another is near."""
        if 0 <= position - self._noted < BLOCK_BYTES // 2:
            return
        self._noted = position
        with self._index_lock:
            index = bisect_left(self._positions, position)
            near = self._positions[max(index - 1, 0) : index + 1]
            if all(abs(point - position) >= BLOCK_BYTES // 2 for point in near):
                self._positions.insert(index, position)
                self._offsets.insert(index, offset)


class _Syncer:
    """The thread that makes written bytes durable and wakes who waits for them.

    A failed sync is final. The kernel reports a lost page once and then calls it clean, so that a
    second fdatasync would succeed over a hole (PostgreSQL's "fsyncgate" of 2018). The log refuses
    from then on, until somebody has looked at the disk and starts the process again.
    """

    def __init__(self, directory_fd: int, bytes_unsynced_max: int) -> None:
        self.failure: str | None = None
        self.bytes_synced = 0
        self._bytes_written = 0
        self._bytes_unsynced_max = bytes_unsynced_max
        self._directory_fd = directory_fd
        self._has_new_file = False
        self._segments: list[_Segment] = []  # Written to since the last sync.
        self._waiters: list[asyncio.Future[None]] = []
        self._is_closing = False
        self._lock = threading.Lock()
        # A condition of `threading` is Python all through; this bell costs a tenth of one a turn.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_rung = False
        self._thread = threading.Thread(target=self._run, name="log-syncer", daemon=True)
        self._thread.start()

    def add(self, segment: _Segment, bytes_count: int, waiters: list[asyncio.Future[None]]) -> None:
        """Take note of what was written and who waits for it."""
        with self._lock:
            self._bytes_written += bytes_count
            if segment not in self._segments:
                self._segments.append(segment)
            self._waiters += waiters
            # While nobody waits there is time, until so much is unsynced that appends are refused soon.
            if self._waiters or self._bytes_written - self.bytes_synced > self._bytes_unsynced_max:
                self._ring()

    def add_directory(self) -> None:
        """Take note that a file was made."""
        with self._lock:
            self._has_new_file = True

    def close(self) -> None:
        """Sync what was written and end the thread."""
        with self._lock:
            self._is_closing = True
            self._ring()
        self._thread.join(CLOSE_SECONDS_MAX)
        if self._thread.is_alive():
            self.failure = f"the disk did not sync within {CLOSE_SECONDS_MAX:.0f} s"

    def _ring(self) -> None:
        """Wake the thread, unless it is to look again anyway. Call with the lock held."""
        if not self._is_rung:
            self._is_rung = True
            self._bell.put(None)

    def _run(self) -> None:
        while self._serve():
            pass

    def _serve(self) -> bool:
        """Wait for work and do it; return whether more may come."""
        self._bell.get()
        with self._lock:
            self._is_rung = False
            is_closing, bytes_written = self._is_closing, self._bytes_written
            segments, self._segments = self._segments, []
            waiters, self._waiters = self._waiters, []
            has_new_file, self._has_new_file = self._has_new_file, False
        if self.failure is None:
            self.failure = self._sync(segments, has_new_file=has_new_file)
        if self.failure is None:
            self.bytes_synced = bytes_written
        _settle(waiters, self.failure)
        return not is_closing

    def _sync(self, segments: list[_Segment], *, has_new_file: bool) -> str | None:
        """Sync files and directory; return what went wrong."""
        try:
            for segment in segments:
                _sync_data(segment.fd)
            if has_new_file:
                os.fsync(self._directory_fd)
        except OSError as error:
            return f"the log could not be synced; look at the disk, then start again: {error}"
        return None


class _Quarantine:
    """Copies of damaged bytes, for whoever wants to mend them; `sizes` is bytes by file name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        paths = directory.iterdir() if directory.is_dir() else ()
        self.sizes = {path.name: path.stat().st_size for path in paths}

    def keep(self, name: str, content: bytes) -> None:
        """Copy `content` once."""
        if name in self.sizes:
            return
        self.sizes[name] = len(content)
        with suppress(OSError):  # A full disk must not stop a read; the segment has the bytes too.
            self._directory.mkdir(mode=0o700, exist_ok=True)
            (self._directory / name).write_bytes(content)

    def clear(self) -> None:
        """Delete every copy."""
        if self._directory.is_dir():
            for path in self._directory.iterdir():
                path.unlink()
            _sync_directory(self._directory)
        self.sizes.clear()


class _Judged(NamedTuple):
    """The offsets that go from a segment, and whether it is to be written anew."""

    refused: list[int]
    is_to_change: bool


def _judge(segment: _Segment, is_kept: Callable[[Record], bool], instead: Mapping[int, Entry]) -> _Judged:
    """Return which records `is_kept` refuses; a damaged stretch or a replaced record changes, too."""
    refused: list[int] = []
    is_to_change = False
    for stretch in segment.stretches():
        is_to_change = is_to_change or not stretch.records
        for record in stretch.records:
            if record.offset in instead:
                is_to_change = True
            elif not is_kept(record):
                refused.append(record.offset)
    return _Judged(refused, is_to_change or bool(refused))


def _index_of(segments: list[_Segment], offset: int) -> int:
    """Return the index of the segment that may hold `offset`; -1 when it lies before all."""
    return bisect_right(segments, offset, key=_base_of) - 1


def _base_of(segment: _Segment) -> int:
    return segment.base


def _write_all(fd: int, data: bytes, position: int) -> None:
    """Write `data` at `position`, however many writes the kernel makes of it."""
    written = os.pwrite(fd, data, position)
    if written == len(data):
        return
    view = memoryview(data)
    while written < len(data):
        count = os.pwrite(fd, view[written:], position + written)
        if not count:
            raise OSError(errno.ENOSPC, "nothing more could be written")
        written += count


def _settle(waiters: Iterable["asyncio.Future[None]"], failure: str | None) -> None:
    """Wake all waiters from any thread, one call per event loop (there is but one in a server)."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waiter in waiters:
        by_loop.setdefault(waiter.get_loop(), []).append(waiter)
    for loop, futures in by_loop.items():
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(_resolve, futures, failure)


def _resolve(futures: list["asyncio.Future[None]"], failure: str | None) -> None:
    for future in futures:
        if future.done():  # Cancelled: its caller gave up.
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(StorageError(failure))


def _hold(directory: Path) -> int:
    """Return the descriptor of the directory's lock, which is now ours."""
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True)
            _sync_directory(directory.parent)
        lock_fd = os.open(directory / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise StorageError(f"log {directory}: cannot be opened: {error}") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock_fd)
        raise ConflictError(
            f"log {directory}: in use by another process; stop that one or choose another folder"
        ) from error
    return lock_fd


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
