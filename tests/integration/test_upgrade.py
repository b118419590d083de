"""Clients that offer HTTP/2 with a plain request, as Java's does, are served in HTTP/1.1."""

import http.client
import socket

import pytest

BODY = b'{"type":"track","event":"Seen","userId":"offers-%s"}'


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
@pytest.mark.parametrize("is_split", [False, True])
def test_an_offer_to_upgrade_is_passed_over_and_the_body_is_read(server, offer, is_split):
    body = BODY % offer
    head = (
        (
            b"POST /v1/track HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: " + offer + b"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nAuthorization: Bearer "
        )
        + server.write_key.encode()
        + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with socket.create_connection(("127.0.0.1", server.port), 5.0) as connection:
        for part in (head, body) if is_split else (head + body,):
            connection.sendall(part)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert server.profile(f"user_id:offers-{offer.decode()}") is not None


def test_a_client_may_offer_with_every_request(server):
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5.0)
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    key = {"Authorization": f"Bearer {server.write_key}"}
    for method, path in (
        ("POST", "/v1/track"),
        ("GET", "/healthz"),
        ("POST", "/v1/track"),
        ("POST", "/v1/track"),
    ):
        client.request(method, path, BODY % b"always" if method == "POST" else None, offer | key)
        assert client.getresponse().read() in (b'{"success":true}', b"ok")
    client.close()
    assert len(server.profile("user_id:offers-always")["recentEvents"]) == 3
