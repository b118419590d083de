"""Time as text and back, and a clock that moves when told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.clock import TIME_MAX, ManualClock, SystemClock, format_time, parse_time


@given(st.integers(0, int(TIME_MAX) * 1000))
def test_a_time_to_the_millisecond_survives_the_round_trip(milliseconds):
    text = format_time(milliseconds / 1000.0)
    assert text.endswith("Z")
    assert round(parse_time(text) * 1000.0) == milliseconds


@pytest.mark.parametrize(
    "text",
    ["2024-01-02T03:04:05Z", "2024-01-02T03:04:05+00:00", "2024-01-02T04:04:05+01:00", "2024-01-02T03:04:05",
     "2024-01-02 03:04:05", "20240102T030405Z"],
)  # fmt: skip
def test_one_moment_has_many_spellings(text):
    assert parse_time(text) == 1_704_164_645.0


def test_the_ends_of_time():
    assert parse_time("1970-01-01T00:00:00Z") == 0.0
    assert parse_time("2100-01-01T00:00:00Z") == TIME_MAX


@pytest.mark.parametrize(
    "text", ["", "now", "1704164645", "2024-02-30", "1969-12-31T23:59:59Z", "2100-01-01T00:00:01Z"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 (the words are Python's own)
        parse_time(text)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_a_value_error(text):
    try:
        assert 0.0 <= parse_time(text) <= TIME_MAX
    except (ValueError, OverflowError):
        return


def test_a_manual_clock_moves_when_told():
    clock = ManualClock(5.0)
    clock.advance(2.5)
    assert clock.now() == clock.elapsed() == 7.5


def test_the_systems_clock_goes_forward():
    clock = SystemClock()
    assert clock.elapsed() <= clock.elapsed()
    assert 0.0 < clock.now() < TIME_MAX
