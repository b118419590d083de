"""Requests at the edge of HTTP to a hot door: each has one meaning, or is refused and hung up on."""

from collections import Counter

import pytest
from tests.integration.api import encoded, request, statuses

from tailorbird.limits import PUBLIC_BODY_BYTES_MAX

TRACK = {"type": "track", "event": "Seen"}


@pytest.fixture
def who(api):
    return api.name("wire")


@pytest.fixture
def post(api, who):
    """Make the bytes of one event of `who`, with more header lines."""

    def make(*lines, event="Seen", key_name="Authorization"):
        body = encoded(TRACK | {"event": event, "userId": who})
        return request("POST", "/v1/track", body, f"{key_name}: Bearer {api.server.write_key}", *lines)

    return make


def seen(api, who):
    """Return how many events of `who` have come in, by name."""
    profile = api.profile(f"user_id:{who}")
    return Counter() if profile is None else Counter(event["event"] for event in profile["recentEvents"])


LENGTH = b"Content-Length: 5\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(LENGTH + LENGTH, id="a length twice"),
        pytest.param(LENGTH + b"content-length: 6\r\n", id="two lengths"),
        pytest.param(b"cONTENT-lENGTH: 0\r\n" + LENGTH, id="two lengths, written differently"),
        pytest.param(b"Content-Length: 5, 5\r\n", id="a list of lengths"),
        pytest.param(b"Content-Length: -5\r\n", id="a negative length"),
        pytest.param(b"Content-Length: +5\r\n", id="a length with a sign"),
        pytest.param(b"Content-Length: 5_0\r\n", id="a length as Python writes it"),
        pytest.param(b"Content-Length: 0x5\r\n", id="a hexadecimal length"),
        pytest.param(b"Content-Length: \r\n", id="an empty length"),
        pytest.param(b"Content-Length: \xb2\r\n", id="a length that is no ASCII"),
        pytest.param(b"Content-Length: 99999999999999999999999\r\n", id="a length beyond 64 bits"),
        pytest.param(b"Content-Length : 5\r\n", id="a blank before the colon"),
        pytest.param(b"X: 1\r\n Content-Length: 5\r\n" + LENGTH, id="a folded header"),
        pytest.param(LENGTH + CHUNKED, id="length and chunks"),
        pytest.param(CHUNKED + LENGTH, id="chunks and length"),
        pytest.param(b"Transfer-Encoding: identity\r\n" + LENGTH, id="an unknown encoding and a length"),
        pytest.param(b"Transfer-Encoding: chunked, gzip\r\n", id="chunks that are not the last encoding"),
        pytest.param(b"X: 1\nY: 2\r\n" + LENGTH, id="a bare line feed"),
        pytest.param(b"X: 1\rY: 2\r\n" + LENGTH, id="a bare carriage return"),
        pytest.param(b"X: \x00\r\n" + LENGTH, id="a zero byte"),
        pytest.param(b"No colon\r\n" + LENGTH, id="a line that is no header"),
    ],
)
@pytest.mark.parametrize("is_later", [False, True])
def test_a_request_whose_end_is_in_doubt_is_refused_and_nothing_behind_it_is_read(
    api, who, post, lines, is_later
):
    before = post(event="Before") if is_later else b""
    doubtful = b"POST /v1/track HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n"
    heard = api.talk(before + doubtful + b"abcde" + post(event="Behind"))
    assert statuses(heard) == ([200, 400] if is_later else [400])
    assert b"connection: close" in heard
    assert seen(api, who) == ({"Before": 1} if is_later else {})


@pytest.mark.parametrize("end", [b"\n", b"\r"])
def test_lines_that_end_otherwise_are_refused(api, post, end):
    assert statuses(api.talk(post().replace(b"\r\n", end))) == [400]


def test_a_body_is_never_read_as_a_request(api, who, post):
    smuggled = post(event="Smuggled")
    outer = request("POST", "/v1/track", smuggled, f"Authorization: Bearer {api.server.write_key}")
    assert statuses(api.talk(outer + post())) == [400, 200]
    assert seen(api, who) == {"Seen": 1}


@pytest.mark.parametrize("key_name", ["authorization", "AUTHORIZATION", "auTHORization"])
def test_names_of_headers_may_be_written_in_any_case(api, who, post, key_name):
    sent = post(key_name=key_name).replace(b"Content-Length", b"content-LENGTH")
    assert statuses(api.talk(sent + sent)) == [200, 200]
    assert seen(api, who) == {"Seen": 2}


def test_a_length_may_have_blanks_and_zeros(api, who, post):
    length = post().partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
    for written in (b"   %b  " % length, b"000%b" % length, b"%030d" % int(length)):
        sent = post().replace(b"Content-Length: %b" % length, b"Content-Length: %b" % written)
        assert statuses(api.talk(sent + sent)) == [200, 200]
    assert seen(api, who) == {"Seen": 6}


def test_a_body_that_is_too_large_is_refused_before_it_is_all_there(api, who, post):
    head = request("POST", "/v1/track", b"").replace(
        b"Length: 0", b"Length: %d" % (PUBLIC_BODY_BYTES_MAX + 1)
    )
    heard = api.talk(head + b" " * (PUBLIC_BODY_BYTES_MAX + 1) + post())
    assert statuses(heard) == [400, 200]
    assert b"at most 1048576 bytes" in heard
    assert seen(api, who) == {"Seen": 1}
    assert statuses(api.talk(head.replace(b"1048577", b"9" * 15) + b" " * PUBLIC_BODY_BYTES_MAX * 2)) == [400]


def test_the_largest_body_is_read(api):
    key = f"Authorization: Bearer {api.server.write_key}"
    heard = api.talk(request("POST", "/v1/track", b"[" + b" " * (PUBLIC_BODY_BYTES_MAX - 1), key))
    assert statuses(heard) == [400]
    assert b"at most 1048576 bytes" not in heard


def test_a_page_asks_first_and_then_posts_on_the_same_connection(api, who, post):
    origin = "Origin: https://shop.example"
    asked = request("OPTIONS", "/v1/track", b"", origin, "Access-Control-Request-Method: POST")
    heard = api.talk(asked + post(origin) + asked + post(origin) + request("GET", "/healthz") + post(origin))
    assert statuses(heard) == [204, 200, 204, 200, 200, 200]
    assert heard.count(b"access-control-allow-origin: https://shop.example\r\n") == 5
    assert seen(api, who) == {"Seen": 3}


def test_what_follows_a_wish_to_close_is_not_read(api, who, post):
    heard = api.talk(post("Connection: close") + post())
    assert statuses(heard) == [200]
    assert b"\r\nconnection: close\r\n" in heard
    assert seen(api, who) == {"Seen": 1}


def test_a_wish_to_close_counts_also_beside_another(api, post):
    assert b"\r\nconnection: close\r\n" in api.talk(post("Connection: keep-alive", "Connection: close"))
    assert b"\r\nconnection: close\r\n" in api.talk(post("Connection: TE, close"))


def test_a_body_that_ends_too_soon_counts_for_nothing(api, who, post):
    for cut in (1, 10):
        assert statuses(api.talk(post()[:-cut], shut=True)) == []
    assert seen(api, who) == {}
