"""Frames: what is written comes back, and damage is told from an early end."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.stores import frame
from tailorbird.stores.frame import (
    HEADER_BYTES,
    MAGIC,
    encode,
    hash_rows,
    is_torn,
    measure,
    parse,
    resynchronise,
    skim,
)
from tailorbird.stores.log import Record

records = st.lists(
    st.tuples(st.integers(0, 2**40), st.integers(0, 255), st.binary(max_size=50)),
    min_size=1,
    max_size=6,
    unique_by=lambda record: record[0],
).map(lambda found: [Record(*record) for record in sorted(found)])


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(frame).failed == 0


def test_the_layout_is_the_one_that_is_drawn():
    frame_bytes = encode(0x0807060504030201, 9, b"AB")
    magic, length, checksum = "ff 54 62 fe", "02 00 00 00", "1c d1 af 9e"
    offset, kind, payload = "01 02 03 04 05 06 07 08", "09", "41 42"
    assert frame_bytes.hex(" ") == " ".join((magic, length, checksum, offset, kind, payload))


def test_the_magic_is_in_no_text():
    with pytest.raises(UnicodeDecodeError):
        MAGIC.decode()
    assert min(MAGIC[0], MAGIC[-1]) >= 0xF5  # Bytes that UTF-8 never uses.


@given(records)
def test_frames_come_back_as_records(records):
    buffer = b"".join(encode(*record) for record in records)
    assert parse(buffer) == (records, len(buffer), False)


@given(records, st.data())
def test_a_cut_is_no_damage(records, data):
    buffer = b"".join(encode(*record) for record in records)
    cut = data.draw(st.integers(0, len(buffer)))
    found, position, is_damaged = parse(buffer[:cut])
    assert not is_damaged
    assert found == records[: len(found)]
    assert cut == position or is_torn(buffer[position:cut])


@given(records, st.data())
def test_a_flipped_bit_is_never_taken_for_a_record(records, data):
    buffer = bytearray(b"".join(encode(*record) for record in records))
    bit = data.draw(st.integers(0, 8 * len(buffer) - 1))
    buffer[bit // 8] ^= 1 << bit % 8
    found = parse(bytes(buffer)).records
    assert found == records[: len(found)]
    assert len(found) < len(records)


@given(st.binary(max_size=100), records)
def test_the_next_sound_frame_is_found_behind_garbage(garbage, records):
    buffer = garbage + b"".join(encode(*record) for record in records)
    position = resynchronise(buffer, 0)
    assert position <= len(garbage)
    if MAGIC not in garbage + MAGIC[:3]:
        assert position == len(garbage)


def test_garbage_alone_gives_the_place_where_a_magic_may_begin():
    assert resynchronise(b"garbage", 0) == 4
    assert resynchronise(b"", 0) == 0


def test_an_offset_that_lies_behind_is_damage():
    buffer = encode(5, 1, b"five") + encode(5, 1, b"again") + encode(6, 1, b"six")
    assert parse(buffer) == ([Record(5, 1, b"five")], len(encode(5, 1, b"five")), True)
    assert parse(buffer, offset_min=6) == ([], 0, True)
    assert resynchronise(buffer, 6) == len(buffer) - len(encode(6, 1, b"six"))


def test_skim_stops_at_the_first_offset_that_is_not_lower():
    buffer = encode(2, 1, b"two") + encode(5, 1, b"five") + encode(9, 1, b"nine")
    two = len(encode(2, 1, b"two"))
    five = two + len(encode(5, 1, b"five"))
    assert [skim(buffer, offset) for offset in (0, 2, 3, 5, 6, 9)] == [0, 0, two, two, five, five]
    assert skim(buffer, 10) == len(buffer)
    assert skim(buffer[: five + HEADER_BYTES], 10) == len(buffer)


def test_measure_goes_by_the_header():
    buffer = encode(2, 1, b"two")
    assert measure(buffer) == measure(buffer[:HEADER_BYTES]) == len(buffer)
    assert measure(buffer[:5]) == measure(b"") == HEADER_BYTES
    assert measure(b"\xffTb?" + buffer[4:]) == 0
    assert measure(buffer[:4] + b"\xff" * 4 + buffer[8:]) == 0


def test_torn_is_a_beginning_or_zeros():
    buffer = encode(2, 1, b"two")
    assert all(is_torn(buffer[:length]) for length in range(len(buffer)))
    assert is_torn(bytes(100))
    assert not is_torn(buffer)
    assert not is_torn(b"?" + buffer[:10])


def test_rows_that_run_together_hash_apart():
    hashes = {
        hash_rows(rows)
        for rows in (
            [],
            [("a", "b", b"c")],
            [("ab", "", b"c")],
            [("a", "bc", b"")],
            [("a", "b", b""), ("a", "c", b"")],
        )
    }
    assert len(hashes) == 5
