"""One HTTP exchange, free of any server: what every door is a function of.

A door is `(Exchange) -> Response`, or a coroutine of one. The thin protocol of the hot doors and the
comfortable routing of the others both call doors, so a door does not know how it was reached.
"""

import asyncio
import base64
import binascii
import functools
import zlib
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from tailorbird.errors import (
    Fault,
    InvalidInputError,
    OverloadedError,
    StorageError,
    TailorbirdError,
    shorten,
)
from tailorbird.limits import BODY_BYTES_MAX

Headers = dict[bytes, bytes]
"""The first value of each name."""
Spelling = Mapping[bytes, bytes]
"""How names of headers are written, by lower-case name; those that are not in it are in lower case."""

JSON = b"application/json"
PROBLEM = b"application/problem+json"
HTML = b"text/html; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"

_SHOWN_LENGTH_MAX = 80
_SHOWN_MAX = 1e15  # Longer numbers are shortened like text.
_GZIP_MAGIC = b"\x1f\x8b"
_PACKED = frozenset((b"gzip", b"deflate"))


class Response(NamedTuple):
    """An answer. `headers` come beside content type, length and CORS, which are added for every door."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class WhenDurable(NamedTuple):
    """An answer to be given when what it acknowledges is safe.

    A future of a whole turn of the event loop, not a coroutine of each request: three coroutines and
    a task cost as much as folding an event.
    """

    durable: "asyncio.Future[None]"
    response: Response
    otherwise: "Callable[[], Response] | None" = None
    """What to answer where it is not safe; None to say why."""

    def settled(self) -> Response:
        """Return the answer, once the future is done: the response, or what there is to say without."""
        error = self.durable.exception()
        if error is None:
            return self.response
        if self.otherwise is not None and isinstance(error, StorageError):
            return self.otherwise()
        if isinstance(error, TailorbirdError):
            return problem(error)
        raise error


Answer = Response | WhenDurable | Awaitable[Response]
"""What a door gives back."""


class Exchange(msgspec.Struct, eq=False, gc=False):
    """A request, read lazily: most doors need two of its headers.

    A struct, for it is made for every request: that takes a third of the time of a class's.
    """

    method: str
    path: str
    query_string: bytes
    headers: Headers
    _body: bytes
    spelling: Spelling = MappingProxyType({})
    params: dict[str, str] = {}
    _is_packed: bool | None = None
    _query: dict[str, str] | None = None

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of this lower-case name."""
        return self.headers.get(self.spelling.get(name, name))

    def text_header(self, name: bytes) -> str | None:
        """Return a header as text."""
        value = self.header(name)
        return None if value is None else value.decode("latin-1")

    @property
    def query(self) -> dict[str, str]:
        """Return the query's parameters, the last of each name."""
        if self._query is None:
            text = self.query_string.decode("latin-1")
            try:
                parsed = parse_qs(text, keep_blank_values=True, max_num_fields=100)
            except ValueError as error:
                raise InvalidInputError(Fault("query", "at most 100 parameters")) from error
            self._query = {name: values[-1] for name, values in parsed.items()}
        return self._query

    @property
    def body(self) -> bytes:
        """Return the body, unpacked: see `unpacked`."""
        return self.unpacked(BODY_BYTES_MAX)

    def unpacked(self, bytes_max: int) -> bytes:
        """Return the body, unpacked where it is gzip by its header or by its first bytes.

        Raises:
            InvalidInputError: It is no whole gzip, or larger than `bytes_max` when unpacked.
        """
        if self._is_packed is None:
            is_gzip = self._body.startswith(_GZIP_MAGIC)
            self._is_packed = is_gzip or self.header(b"content-encoding") in _PACKED
        if self._is_packed:
            self._body = _unpacked(self._body, bytes_max)
            self._is_packed = False
        return self._body

    @property
    def has_gpc(self) -> bool:
        """Return whether the browser sent Global Privacy Control."""
        return self.header(b"sec-gpc") == b"1"

    def credential(self) -> str | None:
        """Return the key of the request: Basic user, Bearer, `X-Write-Key`, `X-API-Key` or query."""
        authorization = self.header(b"authorization")
        if authorization is not None:
            return _key_in(authorization)
        for name in (b"x-write-key", b"x-api-key"):
            found = self.text_header(name)
            if found:
                return found
        if self.query_string:
            query = self.query
            return query.get("writeKey") or query.get("write_key") or query.get("client_key")
        return None


def json_response(value: Any, status: int = 200) -> Response:  # noqa: ANN401
    """Return `value` as JSON."""
    return Response(status, msgspec.json.encode(value))


def problem(error: TailorbirdError) -> Response:
    """Return an error as problem details (RFC 9457)."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": str(error),
    }
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, InvalidInputError):
        body["errors"] = faults_out(error.faults)
    elif isinstance(error, OverloadedError | StorageError):
        headers = ((b"retry-after", str(error.retry_after_seconds).encode()),)
    elif error.status == 401:  # noqa: PLR2004
        headers = ((b"www-authenticate", b'Basic realm="tailorbird"'),)
    return Response(error.status, msgspec.json.encode(body), PROBLEM, headers)


def faults_out(faults: tuple[Fault, ...] | list[Fault]) -> list[dict[str, Any]]:
    """Return faults as the `errors` of a problem; values are shortened, they may be large."""
    return [{"path": f.path, "rule": f.rule, "value": _short(f.value)} for f in faults]


def _short(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, str):
        return value if len(value) <= _SHOWN_LENGTH_MAX else value[: _SHOWN_LENGTH_MAX - 1] + "…"
    return (
        value
        if value is None or (isinstance(value, bool | int | float) and abs(value) < _SHOWN_MAX)
        else shorten(value)
    )


@functools.lru_cache(maxsize=64)
def _key_in(authorization: bytes) -> str | None:
    """Return the key in an `Authorization` header. A few clients send the same one again and again."""
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() == b"basic":
        return _basic_user(value.strip())
    return value.strip().decode("latin-1")


def _basic_user(value: bytes) -> str | None:
    try:
        return base64.b64decode(value, validate=True).decode("utf-8").partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return None


def _unpacked(body: bytes, bytes_max: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib, told apart by the header
    try:
        out = unpacker.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise InvalidInputError(Fault("body", f"must be whole gzip data: {error}")) from error
    if len(out) > bytes_max:
        raise InvalidInputError(Fault("body", f"at most {bytes_max} bytes when unpacked"))
    if not unpacker.eof:
        raise InvalidInputError(Fault("body", "must be whole gzip data: it ends too soon"))
    if unpacker.unused_data:
        raise InvalidInputError(Fault("body", "must be whole gzip data: something follows it"))
    return out


def flag(exchange: Exchange, name: str) -> bool:
    """Return a parameter of the query that is true or false; false where it is not said."""
    text = exchange.query.get(name, "false")
    if text.lower() not in _YES_OR_NO:
        raise InvalidInputError(Fault(name, "true or false", text))
    return _YES_OR_NO[text.lower()]


_YES_OR_NO = {"true": True, "1": True, "": True, "false": False, "0": False}
