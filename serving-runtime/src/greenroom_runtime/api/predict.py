"""``POST /predict``: a bare ASGI callable, since this is the path that every prediction takes."""

import asyncio
import math
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
import structlog

from greenroom_runtime.api.errors import CONTENT_TYPE, ProblemError
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import Limits
from greenroom_runtime.metrics import Metrics
from greenroom_runtime.models.door import Finding
from greenroom_runtime.models.residents import LoadedVersion, Residents
from greenroom_runtime.models.session import Prediction

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PATH = "/predict"
MEMBERS = frozenset({"features", "user_id", "context"})
_BODY_SECONDS = 30.0
"""How long a client may take to send its body."""
_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_MAX_FINDINGS = 1000
_REASON_DEFAULT = b"default"
_ID_HEADER = names.HEADER_REQUEST_ID.lower().encode()
_VERSION_HEADER = names.HEADER_VERSION.lower().encode()
_REASON_HEADER = names.HEADER_REASON.lower().encode()


class ClientGoneError(Exception):
    """The client left before its request was whole: there is nobody to answer."""


@dataclass(kw_only=True)
class Predict:
    """Answers prediction requests with the production version."""

    model: str
    residents: Residents
    limits: Limits
    metrics: Metrics
    clock: Callable[[], float] = time.perf_counter
    _running: int = 0
    _failing: set[str] = field(default_factory=set)
    """Versions whose failures are in the log already."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = self.clock()
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        version = ""
        extra: Headers = []
        try:
            if self._running >= self.limits.concurrency:
                raise _too_many(self.limits.concurrency)
            self._running += 1
            try:
                body = await self._body(scope, headers, receive)
                loaded = find_production(self.residents)
                version = loaded.name
                extra = [(_VERSION_HEADER, version.encode()), (_REASON_HEADER, _REASON_DEFAULT)]
                answer = await self._answer(loaded, body, request_id=request_id)
            finally:
                self._running -= 1
            status, content_type = HTTPStatus.OK, "application/json"
        except ProblemError as problem:
            status, content_type, answer = problem.status, CONTENT_TYPE, problem.body(request_id=request_id)
            extra += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        except ClientGoneError:
            return
        self.metrics.answered(version, code=status.value, seconds=self.clock() - started)
        await send(
            {
                "type": "http.response.start",
                "status": status.value,
                "headers": [
                    (b"content-type", content_type.encode()),
                    (b"content-length", str(len(answer)).encode()),
                    (_ID_HEADER, request_id.encode()),
                    *extra,
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer})

    async def _body(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        if scope["method"] != "POST":
            detail = f"{PATH} answers POST, not {scope['method']}"
            raise ProblemError(
                status=HTTPStatus.METHOD_NOT_ALLOWED, kind="method", detail=detail, headers={"Allow": "POST"}
            )
        encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
        if encoding != "identity":
            detail = f"the body is encoded as {encoding!r}: send it as it is"
            raise ProblemError(status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE, kind="encoding", detail=detail)
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limits.body_bytes:
            raise _too_large(self.limits.body_bytes)
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                return await self._receive(receive)
        except TimeoutError:
            detail = f"the body was not here after {_BODY_SECONDS:g} s"
            raise ProblemError(
                status=HTTPStatus.REQUEST_TIMEOUT,
                kind="timeout",
                detail=detail,
                headers={"Connection": "close"},
            ) from None

    async def _receive(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > self.limits.body_bytes:
                raise _too_large(self.limits.body_bytes)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _answer(self, loaded: LoadedVersion, body: bytes, *, request_id: str) -> bytes:
        features = _features(body)
        findings = loaded.session.door.findings(features, known=self.residents.known_features)
        if findings:
            raise _unfit(findings)
        prediction = await self._infer(loaded, features)
        labels = loaded.session.bundle.signature.outputs.classes
        answer: dict[str, Any] = {"prediction": prediction.prediction}
        if prediction.probabilities is not None:
            classes: Sequence[object] = labels or range(len(prediction.probabilities))
            answer["probabilities"] = dict(zip(classes, prediction.probabilities, strict=True))
        answer |= {"model": self.model, "version": loaded.name, "request_id": request_id}
        return orjson.dumps(answer, option=orjson.OPT_NON_STR_KEYS)

    async def _infer(self, loaded: LoadedVersion, features: Mapping[str, Any]) -> Prediction:
        started = self.clock()
        try:
            if loaded.quick:
                (prediction,) = loaded.session.predict([features])
            else:
                (prediction,) = await asyncio.to_thread(loaded.session.predict, [features])
            _refuse_not_finite(prediction)
        except Exception as error:
            if loaded.name not in self._failing:
                self._failing = {loaded.name}
                log.warning("the model fails on a request", version=loaded.name, error=str(error))
            detail = f"version {loaded.name} failed on these features: {type(error).__name__}"
            raise ProblemError(
                status=HTTPStatus.INTERNAL_SERVER_ERROR, kind="model-failed", detail=detail
            ) from error
        self.metrics.inferred(loaded.name, seconds=self.clock() - started)
        return prediction


def find_production(residents: Residents) -> LoadedVersion:
    """Return the version that answers now; a 503 that says what it waits for where none does."""
    if residents.production is None:
        detail = f"no version serves: {residents.waiting_for()}"
        raise ProblemError(
            status=HTTPStatus.SERVICE_UNAVAILABLE,
            kind="not-ready",
            detail=detail,
            headers={"Retry-After": "5"},
        )
    return residents.production


def _features(body: bytes) -> Mapping[str, Any]:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"the body is not JSON: {error} (NaN and Infinity are no JSON either)"
        raise ProblemError(status=HTTPStatus.BAD_REQUEST, kind="json", detail=detail) from error
    if not isinstance(request, dict) or not isinstance(request.get("features"), dict):
        raise _malformed('the body must be an object like {"features": {"name": value}}')
    if unknown := sorted(request.keys() - MEMBERS):
        raise _malformed(f"unknown members {unknown[:16]}: features belong into the member `features`")
    if not isinstance(request.get("user_id", ""), str | int):
        raise _malformed("`user_id` must be a string")
    if not isinstance(request.get("context", {}), dict):
        raise _malformed("`context` must be an object")
    features: dict[str, Any] = request["features"]
    return features


def _malformed(detail: str) -> ProblemError:
    return ProblemError(status=HTTPStatus.UNPROCESSABLE_ENTITY, kind="request", detail=detail)


def _unfit(findings: Sequence[Finding]) -> ProblemError:
    told = [
        {key: value[:256] for key, value in asdict(finding).items() if value}
        for finding in findings[:_MAX_FINDINGS]
    ]
    counts = ", ".join(
        f"{count} {problem}"
        for problem in ("missing", "unexpected", "mistyped")
        if (count := sum(finding.problem == problem for finding in findings))
    )
    detail = f"the features do not fit the model's signature: {counts}; GET /schema shows it"
    extra = {"errors": told, "errors_total": len(findings)}
    return ProblemError(status=HTTPStatus.UNPROCESSABLE_ENTITY, kind="features", detail=detail, extra=extra)


def _too_large(limit: int) -> ProblemError:
    detail = f"the body is larger than {limit} bytes"
    # What is left of the body is never read, so the connection cannot be used again.
    return ProblemError(
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        kind="too-large",
        detail=detail,
        headers={"Connection": "close"},
    )


def _too_many(limit: int) -> ProblemError:
    detail = f"{limit} requests are being worked on: try again later, or add replicas"
    return ProblemError(
        status=HTTPStatus.TOO_MANY_REQUESTS, kind="too-many", detail=detail, headers={"Retry-After": "1"}
    )


def _refuse_not_finite(prediction: Prediction) -> None:
    numbers = [prediction.prediction, *(prediction.probabilities or ())]
    if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
        message = "the answer is not finite"
        raise ArithmeticError(message)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(_ID_HEADER)
    if given is not None and _SANE_ID.fullmatch(given):
        return given.decode("ascii")
    return os.urandom(16).hex()
