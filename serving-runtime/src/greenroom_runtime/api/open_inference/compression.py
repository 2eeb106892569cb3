"""Compressed request bodies, as tritonclient sends them when it is told to."""

import zlib
from http import HTTPStatus

from greenroom_runtime.api.errors import ProblemError

_WINDOWS = {b"gzip": 31, b"deflate": 15}
"""What zlib calls these content codings (RFC 9110, section 8.4.1)."""
ENCODINGS = frozenset({b"identity", *_WINDOWS})


def inflate(body: bytes, *, encoding: bytes, limit: int) -> bytes:
    """Return the body as it was before, if that is at most ``limit`` bytes; ProblemError otherwise.

    ``encoding`` is one of ``ENCODINGS``. Never more than the limit is inflated.
    """
    if encoding not in _WINDOWS:
        return body
    inflater = zlib.decompressobj(_WINDOWS[encoding])
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise _corrupt(str(error)) from error
    if len(inflated) > limit:
        detail = f"the body is larger than {limit} bytes when it is inflated"
        raise ProblemError(status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, kind="too-large", detail=detail)
    if not inflater.eof:
        raise _corrupt("it ends too early")
    if inflater.unused_data:
        raise _corrupt("more bytes follow its end")
    return inflated


def _corrupt(why: str) -> ProblemError:
    detail = f"the body is not compressed as its header Content-Encoding says: {why}"
    return ProblemError(status=HTTPStatus.BAD_REQUEST, kind="compression", detail=detail)
