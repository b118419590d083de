"""Keyed hashes: fixed, uniform, and not to be confused with one another; and the ids made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.hashing import digest, is_same, token, unit_interval
from tailorbird.live.decision_ids import decision_id, offset_of

SECRET = bytes(range(32))


def test_a_hash_is_blake2b_of_the_parts():
    """Fixed for good, for other languages too; these are of OpenSSL 3: `openssl mac ... BLAKE2BMAC`."""
    parts = ("holdout", "anonymous_id:a-1")
    assert token(SECRET, *parts) == "20f5a71ce0cad4edce4acbdd817f6d5c"
    assert token(SECRET, *parts, size=8) == "52be256a9de0df92"
    assert unit_interval(SECRET, *parts) == (0x52BE256A9DE0DF92 >> 11) / 2**53


@given(
    st.lists(st.text(alphabet=st.characters(exclude_characters="\x1f"), max_size=4), min_size=1, max_size=4)
)
def test_parts_do_not_run_into_one_another(parts):
    joined = "".join(parts)
    if len(parts) > 1:
        assert digest(SECRET, *parts) != digest(SECRET, joined)
    assert digest(SECRET, *parts) == digest(SECRET, *parts)


def test_secret_and_size_are_part_of_the_hash():
    assert digest(SECRET, "a") != digest(bytes(32), "a")
    assert [len(digest(SECRET, "a", size=size)) for size in (1, 16, 64)] == [1, 16, 64]
    assert digest(SECRET, "a", size=8) != digest(SECRET, "a", size=16)[:8]


@given(st.text(max_size=20) | st.just("\ud800"))
def test_a_unit_interval_is_one(text):
    assert 0.0 <= unit_interval(SECRET, text) < 1.0


def test_unit_intervals_are_spread_evenly():
    tenths = [0] * 10
    for number in range(20_000):
        tenths[int(unit_interval(SECRET, "x", str(number)) * 10)] += 1
    # A chi-square of nine degrees of freedom passes 27.9 once in a thousand; the inputs are fixed.
    assert sum((count - 2000) ** 2 / 2000 for count in tenths) < 27.9


def test_secrets_are_compared_whole():
    assert is_same("secret", "secret")
    assert not is_same("secret", "secre")
    assert not is_same("é", "e")


# --- decision ids -------------------------------------------------------------------------------------


@given(st.integers(0, 2**53))
def test_a_decisions_id_leads_back_to_its_place(offset):
    assert offset_of(SECRET, decision_id(SECRET, offset)) == offset


def test_an_id_that_another_installation_gave_out_is_not_ours():
    assert offset_of(SECRET, decision_id(bytes(32), 7)) is None


@pytest.mark.parametrize(
    "change", [str.upper, lambda text: text + "0", lambda text: text.replace("d-", "d-0")]
)
def test_an_id_that_was_changed_is_not_ours(change):
    assert offset_of(SECRET, change(decision_id(SECRET, 1234))) is None


@given(st.text(max_size=30) | st.text(alphabet="d-0123456789abcdef_+ ", max_size=30))
def test_any_text_is_an_id_of_ours_or_none(text):
    assert offset_of(SECRET, text) is None
