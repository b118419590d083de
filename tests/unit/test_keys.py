"""Who may do what: a key's role, however it is written, and nothing without one."""

import base64

import pytest

from tailorbird.app.config import Keys, key_hash
from tailorbird.app.exchange import Exchange
from tailorbird.app.keys import Gate, Role
from tailorbird.errors import ForbiddenError, UnauthorizedError

SECRET = bytes(range(32)).hex()
KEYS = Keys(SECRET, "wk_1", key_hash(SECRET, "sk_1"), key_hash(SECRET, "ak_1"))


def carrying(key: str | None) -> Exchange:
    headers = {} if key is None else {b"authorization": f"Bearer {key}".encode()}
    return Exchange("POST", "/", b"", headers, b"")


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("wk_1", Role.WRITE),
        ("wk_1:secret", Role.WRITE),
        ("sk_1", Role.SERVER),
        ("ak_1", Role.ADMIN),
        ("sk_1:x", Role.NOBODY),
        ("wk_2", Role.NOBODY),
        ("", Role.NOBODY),
        ("é", Role.NOBODY),
        (KEYS.server_hash, Role.NOBODY),
        (KEYS.secret, Role.NOBODY),
    ],
)
def test_a_key_has_its_role(key, role):
    gate = Gate(KEYS)
    assert gate.role_of(key) is role
    assert gate.role_of(key) is role, "the second time, from memory"
    assert gate.role(carrying(key)) is role


def test_without_a_key_one_is_nobody():
    assert Gate(KEYS).role(carrying(None)) is Role.NOBODY
    broken = Exchange("GET", "/", b"", {b"authorization": b"Basic ???"}, b"")
    assert Gate(KEYS).role(broken) is Role.NOBODY


def test_each_role_may_do_what_the_lower_ones_may():
    gate = Gate(KEYS)
    for key, role in (("wk_1", Role.WRITE), ("sk_1", Role.SERVER), ("ak_1", Role.ADMIN)):
        for least in (Role.WRITE, Role.SERVER, Role.ADMIN):
            if role >= least:
                assert gate.require(carrying(key), least) is role
            else:
                with pytest.raises(ForbiddenError, match=f"it needs the {least.name.lower()} key"):
                    gate.require(carrying(key), least)


@pytest.mark.parametrize("key", [None, "", "wk_2", "sk_1 "])
def test_an_unknown_key_is_no_key(key):
    padded = key if key is None else base64.b64encode(key.encode()).decode()
    with pytest.raises(UnauthorizedError):
        Gate(KEYS).require(carrying(padded), Role.WRITE)


def test_guesses_are_not_remembered():
    gate = Gate(KEYS)
    for number in range(1_000):
        gate.role_of(f"guess-{number}")
        gate.role_of(f"wk_1:{number}")
    assert len(gate._remembered) <= 64
