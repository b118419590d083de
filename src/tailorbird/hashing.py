"""Keyed hashes: holdout arms, seeds, ids and suppressed identifiers.

BLAKE2b (RFC 7693) with the installation's secret as key: equal on every door and machine that holds
the secret, and not to be guessed or reversed by dictionary without it.
"""

import functools
import hashlib
import hmac

UNIT_BITS = 53  # A double holds 53 bits exactly, so every value of the unit interval is reachable.


def digest(secret: bytes, *parts: str, size: int = 16) -> bytes:
    """Return `size` bytes (1 to 64) of the keyed hash of `parts`.

    U+001F stands between parts, so none but the last may hold one.
    """
    keyed = _keyed(secret, size).copy()
    keyed.update("\x1f".join(parts).encode("utf-8", "surrogatepass"))
    return keyed.digest()


@functools.lru_cache(maxsize=64)
def _keyed(secret: bytes, size: int) -> "hashlib.blake2b":
    """Return a hasher that has taken in the key: copying it is cheaper than keying another."""
    return hashlib.blake2b(digest_size=size, key=secret)


def checksum(content: "memoryview | bytes") -> str:
    """Return 16 hexadecimal characters that tell contents apart; no secret is in them."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def token(secret: bytes, *parts: str, size: int = 16) -> str:
    """Return the keyed hash of `parts` as `2 * size` hexadecimal characters."""
    return digest(secret, *parts, size=size).hex()


def unit_interval(secret: bytes, *parts: str) -> float:
    """Return a number in [0, 1), uniform over inputs, fixed for given `secret` and `parts`."""
    return (int.from_bytes(digest(secret, *parts, size=8), "big") >> (64 - UNIT_BITS)) / (1 << UNIT_BITS)


def is_same(left: str, right: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(left.encode(), right.encode())
