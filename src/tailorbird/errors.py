"""Every error that Tailorbird raises on purpose, ordered by what the caller does about it.

TailorbirdError
├── InvalidInputError      the request can never succeed: mend it (HTTP 400)
├── UnauthorizedError      no key, or an unknown one (401)
├── ForbiddenError         the key may not do this (403)
├── NotFoundError          nothing is known by that name (404)
├── ConflictError          the thing changed, or is busy (409)
├── OverloadedError        retry after a while (429)
├── StorageError           the disk refused; retry after a while (503)
├── CorruptLogError        bytes on disk do not match their checksum, or cannot be read
└── ConfigurationError     start-up stops: the file, key and rule are named (exit code 2)
"""

import json
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """One thing that is wrong with an input: where, by which rule, and what was found."""

    path: str
    rule: str
    value: Any = None


class TailorbirdError(Exception):
    """Base of every error raised on purpose."""

    status = 500
    title = "Internal error"


class InvalidInputError(TailorbirdError):
    """The input breaks a rule and never succeeds as it is; `faults` names each break."""

    status = 400
    title = "Invalid input"

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__("; ".join(map(_told, faults)))


class UnauthorizedError(TailorbirdError):
    """No key was sent, or one that is not known."""

    status = 401
    title = "Unauthorized"


class ForbiddenError(TailorbirdError):
    """The key is known and may not do this."""

    status = 403
    title = "Forbidden"


class NotFoundError(TailorbirdError):
    """Nothing is known by that name."""

    status = 404
    title = "Not found"


class ConflictError(TailorbirdError):
    """The request cannot be carried out in the present state; look again, then retry."""

    status = 409
    title = "Conflict"


class OverloadedError(TailorbirdError):
    """A bounded queue is full; retry after `retry_after_seconds`."""

    status = 429
    title = "Too many requests"

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class StorageError(TailorbirdError):
    """The disk refused a write. Nothing was acknowledged; may be retried."""

    status = 503
    title = "Storage unavailable"
    retry_after_seconds = 5


class CorruptLogError(TailorbirdError):
    """Bytes on disk do not match their checksum, or are not what they should be."""


class ConfigurationError(TailorbirdError):
    """A configuration file is wrong; the message names file, key, value and rule."""


def _told(fault: Fault) -> str:
    found = "" if fault.value is None else f" (found {shorten(fault.value)})"
    return f"{fault.path}: {fault.rule}{found}"


def shorten(value: Any, length_max: int = 80) -> str:  # noqa: ANN401
    """Return `value` as JSON cut to `length_max` characters, so that messages stay bounded.

    >>> shorten(["a", None]), shorten("x" * 100, 9)
    ('["a", null]', '"xxxxxxx…')
    """
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= length_max else text[: length_max - 1] + "…"
