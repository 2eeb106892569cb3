"""Records as CloudEvents 1.0 over HTTP, as receivers of KServe's inference logger expect them.

A record becomes two events with the request's id, in the binary content mode: attributes are headers, the
body is the data. That is what KServe's agent sends and what its receivers are known to read; the batched mode
would be cheaper and is understood by few. https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import aiohttp
import orjson

from greenroom_runtime.contract import names
from greenroom_runtime.predictions.shipping import Parcel, UndeliveredError
from greenroom_runtime.retry_after import retry_after_seconds

REQUEST_TYPE: Final = "org.kubeflow.serving.inference.request"
RESPONSE_TYPE: Final = "org.kubeflow.serving.inference.response"
AUTHORIZATION: Final = f"{names.ENV_LOG_PREFIX}AUTHORIZATION"
"""The variable with the header of that name."""
_SHARED = ("id", "time", "model", "namespace", "version", "role", "reason")
_REQUEST = (*_SHARED, "entity", "features", "feature_source")
_LATER = ("feature_age_seconds",)
"""Members of the request that segments of an older release lack."""
_RESPONSE = (*_SHARED, "prediction", "probabilities", "latency_ms", "status", "error")
_SHADOW = "shadow"
_COMPARED = ("comparison",)
"""Member of a shadow's response."""
_ENDPOINTS = {"rollout": "canary", "shadow": "shadow"}
_IN_FLIGHT = 8
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 15.0
_ANSWER_BYTES = 64 * 1024
"""Read of an answer, so that its connection can be used again; one that says more is left."""
_REFUSED = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)
"""The event's own fault: it would be refused again. Everything else is the receiver's, and may pass."""
_SHARE = 0.2
"""Of a core: an event costs more than the prediction that it tells of."""
_PRINTABLE = "".join(chr(number) for number in range(0x21, 0x7F) if chr(number) not in '"%')


class HttpReceiver:
    """Posts each record's two events."""

    def __init__(
        self,
        uri: str,
        *,
        model: str,
        namespace: str,
        environment: Mapping[str, str],
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """ValueError for a URI that cannot be posted to."""
        parts = urlsplit(uri)
        if parts.username is not None:
            message = (
                f"the log's uri has credentials: put them into {AUTHORIZATION}, as 'Basic …' or 'Bearer …'"
            )
            raise ValueError(message)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            # Without the value, which the pod's report would show: it may hold a password all the same.
            message = "the log's uri cannot be posted to: use http://HOST/PATH or https://HOST/PATH"
            raise ValueError(message)
        self._uri = uri
        self._place = f"{parts.scheme}://{parts.netloc}"
        self._cpu_clock = cpu_clock
        self._headers = {
            "Content-Type": "application/json",
            "ce-specversion": "1.0",
            "ce-source": f"/{names.GROUP}/{namespace}/{model}",
            "ce-inferenceservicename": model,
            "ce-namespace": namespace,
            "ce-component": "predictor",
        }
        if authorization := environment.get(AUTHORIZATION, "").strip():
            self._headers["Authorization"] = authorization

    async def __aenter__(self) -> Self:
        """Open the connections' pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_IN_FLIGHT),
            timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            trust_env=True,
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self._session.close()

    async def deliver(self, parcel: Parcel, *, hurry: asyncio.Event) -> None:
        """Post the events of the parcel's records, a few at once."""
        while parcel.lines:
            began = self._cpu_clock()
            lines = [parcel.lines.popleft() for _ in range(min(_IN_FLIGHT, len(parcel.lines)))]
            outcomes = await asyncio.gather(
                *(self._post(line, parcel) for line in lines), return_exceptions=True
            )
            failed = [
                (line, outcome)
                for line, outcome in zip(lines, outcomes, strict=True)
                if isinstance(outcome, BaseException)
            ]
            parcel.lines.extendleft(line for line, _ in reversed(failed))
            if failed:
                raise failed[0][1]
            if not hurry.is_set():
                await asyncio.sleep((self._cpu_clock() - began) * (1 / _SHARE - 1))

    async def _post(self, line: bytes, parcel: Parcel) -> None:
        try:
            record = orjson.loads(line)
            later, compared = (
                tuple(member for member in members if member in record) for members in (_LATER, _COMPARED)
            )
            request, response = _data(record, _REQUEST + later), _data(record, _RESPONSE + compared)
        except (ValueError, KeyError, TypeError):  # adopted, and not written by this release
            parcel.refused["", ""] += 1
            return
        taken = await self._post_event(REQUEST_TYPE, record, data=request)
        taken = await self._post_event(RESPONSE_TYPE, record, data=response) and taken
        if not taken:
            parcel.refused[record["version"], record["role"]] += 1

    async def _post_event(self, kind: str, record: Mapping[str, Any], *, data: bytes) -> bool:
        """Return whether the receiver took it; False when it never will."""
        headers = {
            **self._headers,
            "ce-type": kind,
            "ce-id": quote(record["id"], safe=_PRINTABLE),
            "ce-time": record["time"],
            "ce-endpoint": _ENDPOINTS.get(record["role"], "default"),
        }
        if record["role"] == _SHADOW:  # a source has each id once, and production's event has this one
            headers["ce-source"] += f"/{_SHADOW}"
        try:
            async with self._session.post(
                self._uri, data=data, headers=headers, allow_redirects=False
            ) as answer:
                await answer.content.read(_ANSWER_BYTES)
        except TimeoutError as error:
            raise UndeliveredError(f"{self._place} did not answer in {_ANSWER_SECONDS:g} s") from error
        except aiohttp.ClientError as error:
            raise UndeliveredError(f"{self._place} cannot be reached: {error}") from error
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return True
        if answer.status in _REFUSED:
            return False
        retry_after = retry_after_seconds(answer.headers.get("Retry-After", ""), now=datetime.now(UTC))
        raise UndeliveredError(f"{self._place} answered {answer.status}", retry_after=retry_after)


def _data(record: Mapping[str, Any], members: tuple[str, ...]) -> bytes:
    return orjson.dumps({member: record[member] for member in members})
