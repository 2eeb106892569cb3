"""One HTTP exchange of the path that predictions take: bare ASGI, since frameworks cost more than models."""

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from typing import Any, Protocol

import structlog

from greenroom_runtime.api.errors import CONTENT_TYPE, ProblemError, defect
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import Limits
from greenroom_runtime.tracing import Tracing, trace_id

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS = 30.0
"""How long a client may take to send its body."""
_SWEEP_SECONDS = 1.0
_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE_PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")
_PROCESS = os.urandom(10).hex()
"""Begins the id of each request that brings none: random once, since each time would be a system call."""
_numbers = count(1)
_ID_HEADER = names.HEADER_REQUEST_ID.lower().encode()
_JSON = b"application/json"


class ClientGoneError(Exception):
    """The client left before its request was whole: there is nobody to answer."""


@dataclass(slots=True)
class Request:
    """A whole request that has been let in."""

    id: str
    path: str
    headers: Mapping[bytes, bytes]
    """By lower-case name; of repeated ones the last."""
    body: bytes
    started: float
    """On the endpoint's clock, in seconds."""
    trace_id: str = ""
    """The W3C trace that it is part of; 32 hexadecimal digits, or empty."""


@dataclass(slots=True)
class Reply:
    """What is sent back."""

    body: bytes
    headers: Headers = field(default_factory=list)
    content_type: bytes = _JSON


class Refusals(Protocol):
    """Counts requests that were refused before any prediction was tried."""

    def refused(self, request_id: str, problem: ProblemError, *, started: float) -> None:
        """Count one, and record it."""


@dataclass(kw_only=True)
class Admission:
    """Bounds what clients may keep busy: how many requests at once, and how slowly a body may come."""

    limits: Limits
    running: int = 0
    _deadlines: dict["asyncio.Task[Any]", float] = field(default_factory=dict)
    """Who waits for a body, and until when on the monotonic clock."""
    _late: set["asyncio.Task[Any]"] = field(default_factory=set)

    async def sweep(self) -> None:
        """Give up, for ever, on bodies that do not come.

        A timer for each request would cost as much as its routing; so one look a second cancels who is late.
        """
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            for task in [task for task, deadline in self._deadlines.items() if deadline < now]:
                self._late.add(task)
                task.cancel()

    async def body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Return the whole body; ProblemError where it is too large or too slow."""
        limit = self.limits.body_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 an ASGI application runs in one
        self._deadlines[task] = time.monotonic() + BODY_SECONDS
        try:
            return await _receive(receive, limit=limit)
        except asyncio.CancelledError:
            if task not in self._late or task.uncancel() > 0:
                raise
            raise _too_slow() from None
        finally:
            del self._deadlines[task]
            self._late.discard(task)


@dataclass(kw_only=True)
class Endpoint:
    """An ASGI application that answers POST requests, each with a reply or a problem document."""

    answer: Callable[[Request], Awaitable[Reply]]
    admission: Admission
    refusals: Refusals
    spell: Callable[[ProblemError, str], bytes] = lambda problem, request_id: problem.body(
        request_id=request_id
    )
    """Spells a problem, given the request's id."""
    problem_type: bytes = CONTENT_TYPE.encode()
    """The content type of what ``spell`` returns."""
    encodings: frozenset[bytes] = frozenset({b"identity"})
    """The content encodings that ``answer`` understands."""
    tracing: Tracing | None = None
    clock: Callable[[], float] = time.perf_counter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = self.clock()
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        if self.tracing is None:
            trace, span = _sampled_trace(headers.get(b"traceparent")), None
        else:
            span = self.tracing.begin(scope, headers)
            trace = trace_id(span)
        status = 200
        try:
            reply = await self._admit(
                scope, receive, Request(request_id, scope["path"], headers, b"", started, trace)
            )
        except ProblemError as problem:
            status, reply = self._refuse(problem, request_id, started=started)
        except ClientGoneError:
            return
        except Exception:
            log.exception("a defect: a request has failed", request_id=request_id)
            status, reply = self._refuse(defect(), request_id, started=started)
        if self.tracing is not None and span is not None:
            self.tracing.end(span, status=status, request_id=request_id, headers=reply.headers)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", reply.content_type),
                    (b"content-length", b"%d" % len(reply.body)),
                    (_ID_HEADER, request_id.encode()),
                    *reply.headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": reply.body})

    def _refuse(self, problem: ProblemError, request_id: str, *, started: float) -> tuple[int, Reply]:
        # Its traceback holds the request, whose parts may hold it: a circle, with a body that may be large.
        problem.__traceback__ = None
        if not problem.counted:
            self.refusals.refused(request_id, problem, started=started)
        headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        return problem.status.value, Reply(self.spell(problem, request_id), headers, self.problem_type)

    async def _admit(self, scope: Scope, receive: Receive, request: Request) -> Reply:
        """Let the request in, wait for its body and answer it."""
        admission = self.admission
        if admission.running >= admission.limits.concurrency:
            raise _too_many(admission.limits.concurrency)
        admission.running += 1
        try:
            self._refuse_method_and_encoding(scope, request.headers)
            request.body = await admission.body(request.headers, receive)
            return await self.answer(request)
        finally:
            admission.running -= 1

    def _refuse_method_and_encoding(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        if scope["method"] != "POST":
            detail = f"{scope['path']} answers POST, not {scope['method']}"
            raise ProblemError(
                status=HTTPStatus.METHOD_NOT_ALLOWED, kind="method", detail=detail, headers={"Allow": "POST"}
            )
        encoding = headers.get(b"content-encoding")
        if encoding is not None and encoding not in self.encodings:
            detail = f"the body is encoded as {encoding.decode('latin-1')!r}: send it as it is"
            raise ProblemError(status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE, kind="encoding", detail=detail)


async def _receive(receive: Receive, *, limit: int) -> bytes:
    message = await receive()
    chunk: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body", False) and len(chunk) <= limit:
        return chunk
    chunks, size = [chunk], len(chunk)
    while message.get("more_body", False) and size <= limit:
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        chunks.append(chunk)
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    if size > limit:
        raise _too_large(limit)
    return b"".join(chunks)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(_ID_HEADER)
    if given is not None and _SANE_ID.fullmatch(given):
        return given.decode()
    return f"{_PROCESS}{next(_numbers):012x}"


def _sampled_trace(parent: bytes | None) -> str:
    """Return the id of the caller's trace (W3C Trace Context), empty where it has none that is kept."""
    match = _TRACE_PARENT.fullmatch(parent) if parent is not None else None
    return match[1].decode() if match and int(match[2], 16) & 1 else ""


def _too_large(limit: int) -> ProblemError:
    # What is left of the body is never read, so the connection cannot be used again.
    return ProblemError(
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        kind="too-large",
        detail=f"the body is larger than {limit} bytes",
        headers={"Connection": "close"},
    )


def _too_slow() -> ProblemError:
    return ProblemError(
        status=HTTPStatus.REQUEST_TIMEOUT,
        kind="timeout",
        detail=f"the body was not here after {BODY_SECONDS:g} s",
        headers={"Connection": "close"},
    )


def _too_many(limit: int) -> ProblemError:
    return ProblemError(
        status=HTTPStatus.TOO_MANY_REQUESTS,
        kind="too-many",
        detail=f"{limit} requests are being worked on: try again later, or add replicas",
        headers={"Retry-After": "1"},
    )
