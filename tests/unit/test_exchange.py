"""One exchange: bodies that are packed, keys in their many places, and errors as problem details."""

import base64
import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.app.exchange import Exchange, faults_out, json_response, problem
from tailorbird.errors import (
    ConflictError,
    Fault,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    StorageError,
    UnauthorizedError,
)
from tailorbird.limits import BODY_BYTES_MAX


def exchange(body: bytes = b"", query: bytes = b"", **headers: str) -> Exchange:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Exchange("POST", "/v1/batch", query, named, body)


def refusal(body: bytes, **headers: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        _ = exchange(body, **headers).body
    return str(caught.value)


# --- bodies -------------------------------------------------------------------------------------------


@given(st.binary(max_size=200).filter(lambda body: body[:2] != b"\x1f\x8b"))
def test_a_packed_body_is_what_was_packed(content):
    assert exchange(content).body == content
    for packed in (gzip.compress(content), gzip.compress(content, compresslevel=0)):
        assert exchange(packed).body == content, "by its first bytes"
        assert exchange(packed, content_encoding="gzip").body == content
    assert exchange(zlib.compress(content), content_encoding="deflate").body == content


def test_a_body_is_unpacked_once():
    inner = gzip.compress(b"{}")
    sent = exchange(gzip.compress(inner), content_encoding="gzip")
    assert sent.body == inner
    assert sent.body == inner, "and is the same whenever it is asked for"


def test_an_unpacked_body_is_bounded():
    assert "at most 8388608 bytes when unpacked" in refusal(gzip.compress(b"0" * (BODY_BYTES_MAX + 1)))
    assert len(exchange(gzip.compress(b"0" * BODY_BYTES_MAX)).body) == BODY_BYTES_MAX


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (gzip.compress(b"hello")[:-4], "it ends too soon"),
        (b"\x1f\x8b", "it ends too soon"),
        (b"\x1f\x8bnonsense", "must be whole gzip data"),
        (gzip.compress(b"hello") + b"more", "something follows it"),
        (gzip.compress(b"hello") + gzip.compress(b"more"), "something follows it"),
    ],
)
def test_a_body_that_is_no_whole_gzip_is_refused(body, rule):
    assert rule in refusal(body)


def test_a_header_that_says_gzip_is_believed():
    assert "must be whole gzip data" in refusal(b"{}", content_encoding="gzip")
    assert exchange(b"{}", content_encoding="identity").body == b"{}"


# --- query --------------------------------------------------------------------------------------------


def test_the_last_of_each_name_counts():
    assert exchange(query=b"a=1&b=%C3%A9&a=2&c=").query == {"a": "2", "b": "é", "c": ""}


def test_parameters_are_bounded():
    assert len(exchange(query=b"&".join(b"a%d=1" % number for number in range(100))).query) == 100
    with pytest.raises(InvalidInputError, match="at most 100 parameters"):
        _ = exchange(query=b"&".join(b"a=1" for _ in range(101))).query


@given(st.binary(max_size=60))
def test_any_query_can_be_read(query):
    assert isinstance(exchange(query=query).query, dict)


# --- keys ---------------------------------------------------------------------------------------------


def basic(text: bytes) -> str:
    return f"Basic {base64.b64encode(text).decode()}"


@pytest.mark.parametrize(
    ("sent", "credential"),
    [
        (exchange(authorization=basic(b"wk_1:")), "wk_1"),
        (exchange(authorization=basic(b"wk_1:secret:more")), "wk_1"),
        (exchange(authorization=basic(b"wk_1")), "wk_1"),
        (exchange(authorization=basic(b"wk_1:").replace("Basic", "bAsIc")), "wk_1"),
        (exchange(authorization="Bearer sk_1"), "sk_1"),
        (exchange(authorization="Basic ???"), None),
        (exchange(authorization="Basic /w=="), None),
        (exchange(authorization="Basic"), ""),
        (exchange(x_write_key="wk_1"), "wk_1"),
        (exchange(x_api_key="sk_1"), "sk_1"),
        (exchange(x_write_key="wk_1", x_api_key="sk_1"), "wk_1"),
        (exchange(authorization="Bearer sk_1", x_write_key="wk_1"), "sk_1"),
        (exchange(query=b"writeKey=wk_1"), "wk_1"),
        (exchange(query=b"write_key=wk_1"), "wk_1"),
        (exchange(query=b"client_key=wk_1"), "wk_1"),
        (exchange(query=b"placement=hero"), None),
        (exchange(), None),
    ],
)
def test_a_key_is_found_wherever_clients_put_it(sent, credential):
    assert sent.credential() == credential


def test_headers_are_found_by_name():
    sent = exchange(sec_gpc="1", user_agent="x")
    assert sent.has_gpc
    assert sent.header(b"user-agent") == b"x"
    assert sent.text_header(b"accept") is None
    assert not exchange(sec_gpc="0").has_gpc


# --- answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (InvalidInputError(Fault("a.b", "must be c", 7)), 400, {}),
        (UnauthorizedError("who?"), 401, {b"www-authenticate": b'Basic realm="tailorbird"'}),
        (ForbiddenError("no"), 403, {}),
        (NotFoundError("what?"), 404, {}),
        (ConflictError("busy"), 409, {}),
        (OverloadedError("full", 7), 429, {b"retry-after": b"7"}),
        (StorageError("disk"), 503, {b"retry-after": b"5"}),
    ],
)
def test_an_error_is_a_problem_with_its_status(error, status, headers):
    response = problem(error)
    body = json.loads(response.body)
    assert (response.status, body["status"], response.content_type) == (
        status,
        status,
        b"application/problem+json",
    )
    assert dict(response.headers) == headers
    assert body["title"]
    assert body["detail"] == str(error)
    assert ("errors" in body) == (status == 400)


def test_faults_name_path_rule_and_a_value_that_is_not_too_long():
    faults = [
        Fault("a", "r", "x" * 500),
        Fault("b", "r", 10**30),
        Fault("c", "r", True),
        Fault("d", "r"),
        Fault("e", "r", object),
    ]
    out = faults_out(faults)
    assert [entry["path"] for entry in out] == ["a", "b", "c", "d", "e"]
    assert len(out[0]["value"]) <= 80
    assert (out[1]["value"], out[2]["value"], out[3]["value"]) == (str(10**30), True, None)
    assert json_response(out).status == 200
