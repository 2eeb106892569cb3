"""The only module that speaks to serving pods: what each of them has loaded, as it sees itself."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from pydantic import ValidationError

from greenroom_operator.kinds import Key
from greenroom_runtime.contract.names import ADMIN_PORT, REPORT_PATH
from greenroom_runtime.contract.report import MAX_BYTES, SCHEMA_VERSION, BreakerState, LogReport, PodReport

_TIMEOUT: Final = aiohttp.ClientTimeout(total=2)
_CONCURRENCY: Final = 32
_ERROR_LENGTH: Final = 300


@dataclass(frozen=True)
class Observation:
    """What is known of one pod."""

    report: PodReport | None
    """The last report that was understood; None before the first."""
    at: float
    """When that was, on the monotonic clock; before the first, when the pod was first asked."""
    error: str
    """Why the newest attempt gave no report; empty when it did."""


class _Pod:
    """One pod that is followed."""

    def __init__(self, key: Key, ip: str, *, every: float) -> None:
        self.key = key
        self.ip = ip
        self.every = every
        self.sooner = asyncio.Event()
        self.observation: Observation | None = None
        self.task: asyncio.Task[None] | None = None

    def end(self) -> None:
        if self.task is not None:
            self.task.cancel()


class PodReports:
    """Asks pods for their reports, each at its own pace, and tells when one says something new.

    A pod may answer anything: at most 64 KiB are read, for at most two seconds, and no redirect is followed.
    What is no report becomes an error text, never an exception. Nobody is asked before ``run``.
    """

    def __init__(self, *, port: int = ADMIN_PORT, clock: Callable[[], float] = time.monotonic) -> None:
        self._port = port
        self._clock = clock
        self._pods: dict[str, _Pod] = {}
        self._uids: dict[Key, set[str]] = {}
        self._slots = asyncio.Semaphore(_CONCURRENCY)
        self._session: aiohttp.ClientSession | None = None
        self._on_change: Callable[[Key], None] = lambda _: None

    def watch(self, key: Key, pods: Mapping[str, str], *, every: float) -> None:
        """Ask exactly these pods (uid to IP) of a ModelDeployment, every so many seconds.

        A new pod, or one that is to be asked more often, is asked at once; the key's others are forgotten.
        """
        for uid in self._uids.get(key, set()) - pods.keys():
            if uid in self._pods and self._pods[uid].key == key:
                self._pods.pop(uid).end()
        for uid, ip in pods.items():
            known = self._pods.get(uid)
            if known is None or (known.key, known.ip) != (key, ip):
                self._replace(uid, _Pod(key, ip, every=every))
            elif known.every != every:
                known.every = every
                known.sooner.set()
        if pods:
            self._uids[key] = set(pods)
        else:
            self._uids.pop(key, None)

    def observation(self, uid: str) -> Observation | None:
        """Return what is known of a pod; None when it is not watched, or has not been asked yet."""
        pod = self._pods.get(uid)
        return pod.observation if pod is not None else None

    def forget(self, key: Key) -> None:
        """Ask no pod of a ModelDeployment any more."""
        self.watch(key, {}, every=1)

    async def run(self, on_change: Callable[[Key], None]) -> None:
        """Ask until cancelled.

        ``on_change`` is called when a report differs from the one before in more than its counters, when a
        pod was asked for the first time, has stopped answering, or has begun to again; not for every answer.
        """
        async with aiohttp.ClientSession(
            timeout=_TIMEOUT,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # 64 KiB can decompress to gigabytes
            connector=aiohttp.TCPConnector(limit=_CONCURRENCY),
        ) as session:
            self._session, self._on_change = session, on_change
            for pod in self._pods.values():
                self._follow(pod)
            try:
                await asyncio.Future()
            finally:
                self._session = None
                for pod in self._pods.values():
                    pod.end()

    def _replace(self, uid: str, pod: _Pod) -> None:
        if (known := self._pods.get(uid)) is not None:
            known.end()
        self._pods[uid] = pod
        self._follow(pod)

    def _follow(self, pod: _Pod) -> None:
        if self._session is not None:
            pod.task = asyncio.create_task(self._ask_forever(pod, self._session))

    async def _ask_forever(self, pod: _Pod, session: aiohttp.ClientSession) -> None:
        while True:
            pod.sooner.clear()
            async with self._slots:
                outcome = await self._ask(pod, session)
            before, pod.observation = pod.observation, self._observe(pod.observation, outcome)
            if before is None or _gist(before) != _gist(pod.observation):
                self._on_change(pod.key)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pod.every):
                    await pod.sooner.wait()

    def _observe(self, before: Observation | None, outcome: PodReport | str) -> Observation:
        if isinstance(outcome, PodReport):
            return Observation(outcome, self._clock(), "")
        return Observation(None, self._clock(), outcome) if before is None else replace(before, error=outcome)

    async def _ask(self, pod: _Pod, session: aiohttp.ClientSession) -> PodReport | str:
        """Return the pod's report, or in words why there is none."""
        try:
            host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
            address = f"http://{host}:{self._port}{REPORT_PATH}"
            async with session.get(
                address, allow_redirects=False, headers={"Accept-Encoding": "identity"}
            ) as answer:
                if answer.status != HTTPStatus.OK:
                    return f"GET {REPORT_PATH} answered {answer.status}"
                return _parse(await _read(answer.content))
        except TimeoutError:
            return f"GET {REPORT_PATH} did not answer within {_TIMEOUT.total} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _shorten(f"GET {REPORT_PATH} failed: {error}")


async def _read(stream: aiohttp.StreamReader) -> bytes:
    content = b""
    async for chunk in stream.iter_any():
        content += chunk
        if len(content) > MAX_BYTES:
            break
    return content


def _parse(content: bytes) -> PodReport | str:
    if len(content) > MAX_BYTES:
        return f"its report is longer than {MAX_BYTES} bytes"
    try:
        report = PodReport.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        return _shorten(f"it answers with something that is no report: {place}: {first['msg']}")
    if report.schema_version > SCHEMA_VERSION:
        return (
            f"its report has schema version {report.schema_version}, this operator reads up to "
            f"{SCHEMA_VERSION}: upgrade the operator"
        )
    return report


_COUNTERS: Final[Mapping[str, Any]] = {
    "requests": 0,
    "errors": 0,
    "fallbacks": 0,
    "prediction_log": None,
    "evidence": None,
    "features": None,
}


def _gist(observation: Observation) -> tuple[Any, ...]:
    """Return what calls for a new decision: neither the counters nor how an error is worded."""
    report = observation.report
    if report is None:
        return None, bool(observation.error)
    log = report.prediction_log or LogReport()
    known = report.model_copy(update=_COUNTERS)
    return known, bool(log.error), bool(log.dropped), bool(observation.error), _sources_asked(report)


def _sources_asked(report: PodReport) -> tuple[bool, ...]:
    """Return which sources of features the pod asks; not how often, nor when it last tried one that fails."""
    if report.features is None:
        return ()
    upstreams = (report.features.redis_state, report.features.compute_state)
    return tuple(one is None or one.state is BreakerState.CLOSED for one in upstreams)


def _shorten(text: str) -> str:
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _ERROR_LENGTH else line[: _ERROR_LENGTH - 1] + "…"
