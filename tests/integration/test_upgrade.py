"""Clients that offer HTTP/2 with a plain request, as Java's does, are served in HTTP/1.1."""

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
