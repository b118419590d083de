"""How bytes are framed: a record in the log's files, a row under the state's hash. Pure.

One record on disk, little-endian; the checksum (CRC-32 as in zlib) covers offset, kind and payload:

    0       4        8       12                20     21
    ├───────┼────────┼───────┼─────────────────┼──────┼───────────┤
    │ magic │ length │ crc32 │ offset          │ kind │ payload … │
    └───────┴────────┴───────┴─────────────────┴──────┴───────────┘
      4 B     u32      u32     u64               u8     `length` B

A damaged stretch is stepped over by looking for the next magic that begins a sound frame: sane
length, right checksum, larger offset. The magic holds bytes that no UTF-8 text contains, so nobody
can smuggle a frame into the log in the text of an event and wait for damage to bring it to light.
"""

import hashlib
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple
from zlib import crc32

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.limits import BODY_BYTES_MAX
from tailorbird.stores.log import Record

MAGIC: Final = b"\xffTb\xfe"
KIND_MAX: Final = 255
PAYLOAD_BYTES_MAX: Final = 2 * BODY_BYTES_MAX  # The largest request and what is noted beside it.

_HEADER: Final = struct.Struct("<4sIIQB")
_BEFORE_CHECKED: Final = struct.Struct("<4sII")
_CHECKED: Final = struct.Struct("<QB")
_ROW: Final = struct.Struct("<III")
_CHECKED_FROM: Final = _BEFORE_CHECKED.size
HEADER_BYTES: Final = _HEADER.size


class Parsed(NamedTuple):
    """Sound records one after the other, where they end, and whether damage is what ended them."""

    records: list[Record]
    position: int
    is_damaged: bool


def check(kind: int, payload: bytes) -> None:
    """Refuse what no frame can hold.

    Raises:
        InvalidInputError: `kind` is not 0 to 255, or `payload` is larger than `PAYLOAD_BYTES_MAX`.
    """
    if not 0 <= kind <= KIND_MAX:
        raise InvalidInputError(Fault("kind", f"a record's kind is 0 to {KIND_MAX}", kind))
    if len(payload) > PAYLOAD_BYTES_MAX:
        rule = f"a record's payload has at most {PAYLOAD_BYTES_MAX} bytes"
        raise InvalidInputError(Fault("payload", rule, len(payload)))


def encode(offset: int, kind: int, payload: bytes) -> bytes:
    """Return the frame of one record.

    Raises:
        InvalidInputError: As `check`.

    >>> frame = encode(7, 1, b"hello")
    >>> parse(frame).records
    [Record(offset=7, kind=1, payload=b'hello')]
    """
    if not 0 <= kind <= KIND_MAX or len(payload) > PAYLOAD_BYTES_MAX:
        check(kind, payload)
    checked = _CHECKED.pack(offset, kind) + payload
    return _BEFORE_CHECKED.pack(MAGIC, len(payload), crc32(checked)) + checked


def parse(buffer: bytes, offset_min: int = 0) -> Parsed:
    """Return the sound frames at the start of `buffer`, up to a damaged or cut-off one.

    Args:
        buffer: Bytes that begin where a frame should begin.
        offset_min: The lowest offset that the next record can have; a lower one is damage.
    """
    records: list[Record] = []
    add, unpack, view = records.append, _HEADER.unpack_from, memoryview(buffer)
    position, size = 0, len(buffer)
    while (start := position + HEADER_BYTES) <= size:
        magic, length, checksum, offset, kind = unpack(buffer, position)
        if magic != MAGIC or length > PAYLOAD_BYTES_MAX or offset < offset_min:
            return Parsed(records, position, is_damaged=True)
        if (stop := start + length) > size:
            break
        if crc32(view[position + _CHECKED_FROM : stop]) != checksum:
            return Parsed(records, position, is_damaged=True)
        add(Record(offset, kind, buffer[start:stop]))
        position, offset_min = stop, offset + 1
    return Parsed(records, position, is_damaged=False)


def skim(buffer: bytes, offset: int) -> int:
    """Return where the first frame with at least `offset` begins, going by lengths alone.

    Faster than `parse` and not to be trusted: nothing is checked but the magic. The result is where
    something that is no frame begins when that comes first; it may lie past the buffer's end.
    """
    unpack, position, last = _HEADER.unpack_from, 0, len(buffer) - HEADER_BYTES
    while position <= last:
        magic, length, _, found, _ = unpack(buffer, position)
        if found >= offset or magic != MAGIC or length > PAYLOAD_BYTES_MAX:
            break
        position += HEADER_BYTES + length
    return position


def measure(buffer: bytes) -> int:
    """Return how many bytes the frame at the start of `buffer` has by its header; 0 if none.

    A header that the buffer's end cuts off gives `HEADER_BYTES`.
    """
    if not MAGIC.startswith(buffer[: len(MAGIC)]):
        return 0
    if len(buffer) < HEADER_BYTES:
        return HEADER_BYTES
    _, length, _, _, _ = _HEADER.unpack_from(buffer)
    return HEADER_BYTES + length if length <= PAYLOAD_BYTES_MAX else 0


def resynchronise(buffer: bytes, offset_min: int) -> int:
    """Return where the first frame begins that is sound, or that only the buffer's end cuts off.

    Without one that is where the last three bytes begin, for they may be the start of a magic.
    """
    position = buffer.find(MAGIC)
    while position >= 0:
        size = measure(buffer[position : position + HEADER_BYTES])
        parsed = parse(buffer[position : position + size], offset_min)
        if parsed.records or (size and not parsed.is_damaged):
            return position
        position = buffer.find(MAGIC, position + 1)
    return max(len(buffer) - len(MAGIC) + 1, 0)


def is_torn(tail: bytes) -> bool:
    """Return whether `tail` is what a write that was cut short leaves at the end of a file.

    That is the beginning of a frame whose rest is missing, or zeros (space given but never filled).
    """
    return measure(tail) > len(tail) or not tail.strip(b"\0")


def hash_rows(rows: Iterable[tuple[str, str, bytes]]) -> str:
    """Return the BLAKE2b hash of (table, key, value) rows in the order given, as hexadecimal.

    Every part is preceded by its length, so that no two sequences of rows give the same bytes.
    """
    state = hashlib.blake2b(digest_size=32)
    for table, key, value in rows:
        name, text = table.encode(), key.encode()
        state.update(_ROW.pack(len(name), len(text), len(value)) + name + text)
        state.update(value)
    return state.hexdigest()
