"""What every log does, whatever it is kept in."""

import asyncio
import threading

import pytest

from tailorbird.errors import InvalidInputError
from tailorbird.stores.frame import PAYLOAD_BYTES_MAX, encode
from tailorbird.stores.log import Entry, Record


def fill(log, count, start=0):
    """Append `count` numbered records; return them."""
    return [
        Record(log.append(number % 256, payload), number % 256, payload)
        for number in range(start, start + count)
        for payload in [b"record %d" % number]
    ]


def test_offsets_count_records_from_zero(log):
    assert log.end == 0
    assert [log.append(1, b"a"), log.append(2, b"b"), log.append(1, b"a")] == [0, 1, 2]
    assert log.end == 3


def test_read_returns_what_was_appended_in_order(log):
    records = fill(log, 50)
    assert list(log.read()) == records


def test_records_come_back_as_they_were(log):
    payloads = [b"", b"\0" * 40, bytes(range(256)), b"x" * 200_000, b"after"]
    for kind, payload in zip((0, 1, 127, 254, 255), payloads, strict=True):
        log.append(kind, payload)
    assert [(r.kind, r.payload) for r in log.read()] == [
        (0, payloads[0]),
        (1, payloads[1]),
        (127, payloads[2]),
        (254, payloads[3]),
        (255, payloads[4]),
    ]
    assert [log.get(offset).payload for offset in range(5)] == payloads
    assert isinstance(log.get(2), Record)


def test_a_record_that_holds_a_record_is_one_record(log):
    payload = encode(1, 9, b"forged") + encode(2, 9, b"forged")
    log.append(1, payload)
    log.append(1, b"true")
    assert list(log.read()) == [Record(0, 1, payload), Record(1, 1, b"true")]
    assert log.get(1).payload == b"true"


@pytest.mark.parametrize(("start", "stop"), [(0, None), (7, None), (0, 13), (7, 13), (12, 13), (19, 99)])
def test_read_honours_its_bounds(log, start, stop):
    records = fill(log, 20)
    assert list(log.read(start, stop)) == records[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(20, None), (99, 200), (7, 7), (9, 3), (0, 0), (0, -1)])
def test_read_outside_the_log_is_empty(log, start, stop):
    fill(log, 20)
    assert list(log.read(start, stop)) == []


def test_read_from_before_the_start_begins_at_the_start(log):
    assert list(log.read(-5)) == fill(log, 0)
    records = fill(log, 3)
    assert list(log.read(-5)) == records


def test_read_returns_what_was_there_when_it_began(log):
    records = fill(log, 10)
    reading = log.read()
    first = next(reading)
    fill(log, 10, start=10)
    assert [first, *reading] == records


def test_get_finds_each_record_and_nothing_else(log):
    records = fill(log, 50)
    log.flush()
    more = fill(log, 5, start=50)
    assert [log.get(offset) for offset in range(55)] == records + more
    assert log.get(55) is None
    assert log.get(-1) is None


def test_get_finds_each_record_after_one_large_flush(log):
    payloads = [b"%d" % number * 40 for number in range(3_000)]
    for payload in payloads:
        log.append(1, payload)
    log.flush()
    for offset in (2_999, 0, 1_500, 1_499, 2_998, 1, 750, 2_250):
        assert log.get(offset) == Record(offset, 1, payloads[offset])


@pytest.mark.parametrize("kind", [-1, 256])
def test_a_kind_out_of_range_is_refused_and_takes_no_offset(log, kind):
    with pytest.raises(InvalidInputError, match="kind"):
        log.append(kind, b"x")
    assert log.append(1, b"x") == 0


def test_a_payload_too_large_is_refused_and_takes_no_offset(log):
    with pytest.raises(InvalidInputError, match="payload"):
        log.append(1, bytes(PAYLOAD_BYTES_MAX + 1))
    assert log.append(1, b"x") == 0


def test_durable_returns_when_nothing_waits(log):
    asyncio.run(log.durable())
    fill(log, 1)
    asyncio.run(log.durable())
    asyncio.run(log.durable())


def test_many_producers_wait_together(log):
    async def produce(producer):
        for number in range(5):
            log.append(producer, b"%d" % number)
            await log.durable()

    async def produce_all():
        await asyncio.gather(*(produce(producer) for producer in range(64)))

    asyncio.run(produce_all())
    assert log.end == 320
    for producer in range(64):
        of_one = [record.payload for record in log.read() if record.kind == producer]
        assert of_one == [b"0", b"1", b"2", b"3", b"4"]


def test_rewrite_removes_what_is_refused_and_moves_nothing(log):
    records = fill(log, 60)
    assert log.rewrite(lambda record: record.offset % 3 != 0) == 20
    kept = [record for record in records if record.offset % 3 != 0]
    assert list(log.read()) == kept
    assert list(log.read(10, 31)) == [record for record in kept if 10 <= record.offset < 31]
    assert [log.get(offset) for offset in range(60)] == [
        None if record.offset % 3 == 0 else record for record in records
    ]


def test_rewrite_shows_whole_records(log):
    records, seen = fill(log, 20), []
    assert log.rewrite(lambda record: seen.append(record) is None) == 0
    assert seen == records
    assert list(log.read()) == records


def test_offsets_of_erased_records_are_not_given_out_again(log):
    fill(log, 30)
    assert log.rewrite(lambda record: record.offset < 10) == 20
    assert log.end == 30
    assert log.append(1, b"next") == 30
    assert log.rewrite(lambda record: False) == 11
    assert list(log.read()) == []
    assert log.append(1, b"next") == 31
    assert list(log.read()) == [Record(31, 1, b"next")]


def test_rewrite_of_nothing_removes_nothing(log):
    assert log.rewrite(lambda record: False) == 0
    assert log.append(1, b"first") == 0


def test_rewrite_again_finds_nothing_more(log):
    fill(log, 20)
    assert log.rewrite(lambda record: record.kind > 5) == 6
    assert log.rewrite(lambda record: record.kind > 5) == 0


def test_a_record_may_be_replaced_where_it_is(log):
    records = fill(log, 20)
    instead = {3: Entry(9, b"another"), 19: Entry(7, b""), 99: Entry(1, b"never there")}
    asked = []
    assert log.rewrite(lambda record: asked.append(record.offset) or record.offset != 4, instead) == 1
    assert not {3, 19} & set(asked)
    expected = {record.offset: record for record in records if record.offset != 4}
    expected |= {3: Record(3, 9, b"another"), 19: Record(19, 7, b"")}
    assert list(log.read()) == list(expected.values())
    assert [log.get(offset) for offset in (3, 4, 19, 99)] == [expected[3], None, expected[19], None]
    assert log.end == 20


def test_a_predicate_that_fails_harms_nothing(log):
    records = fill(log, 20)

    def is_kept(record):
        if record.offset == 15:
            raise LookupError(record.offset)
        return record.offset > 3

    with pytest.raises(LookupError):
        log.rewrite(is_kept)
    kept = [record for record in records if record.offset > 3]
    assert list(log.read(4)) == kept
    assert log.append(1, b"next") == 20


def test_a_read_goes_on_while_records_are_erased(log):
    records = fill(log, 40)
    reading = log.read()
    begun = [next(reading) for _ in range(5)]
    log.rewrite(lambda record: record.offset not in (2, 30))
    rest = list(reading)
    kept = [record for record in records if record.offset not in (2, 30)]
    assert [record for record in begun + rest if record.offset not in (2, 30)] == kept


def test_appending_goes_on_while_a_thread_rewrites(log):
    fill(log, 200)
    log.flush()
    has_begun = threading.Event()

    def is_kept(record):
        has_begun.set()
        return record.offset % 2 == 0 or record.offset >= 200

    removed = []
    rewriter = threading.Thread(target=lambda: removed.append(log.rewrite(is_kept)))
    rewriter.start()
    assert has_begun.wait(10)
    for number in range(200, 500):
        assert log.append(1, b"%d" % number) == number
        log.flush()
        assert log.get(number).payload == b"%d" % number
    rewriter.join(30)
    assert removed == [100]
    assert [record.offset for record in log.read()] == [*range(0, 200, 2), *range(200, 500)]


def test_health_tells_start_and_end(log):
    assert log.health()[:2] == (0, 0)
    fill(log, 20)
    log.flush()
    assert log.health() == (0, 20, 0, 0, 0)
    log.rewrite(lambda record: record.offset >= 7)
    assert log.health() == (7, 20, 0, 0, 0)
    log.rewrite(lambda record: False)
    assert log.health() == (20, 20, 0, 0, 0)


def test_closing_twice_does_nothing(log):
    fill(log, 3)
    log.close()
    log.close()
