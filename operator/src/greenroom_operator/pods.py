"""The only module that speaks to serving pods and to shadows: what each has loaded, as it sees itself."""

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, ClassVar, Final, Generic, TypeVar

import aiohttp
from pydantic import ValidationError

from greenroom_operator.kinds import Key
from greenroom_runtime.contract import report, shadow
from greenroom_runtime.contract.names import ADMIN_PORT, REPORT_PATH, SHADOW_PORT
from greenroom_runtime.contract.report import MAX_BYTES, BreakerState, LogReport, PodReport
from greenroom_runtime.contract.shadow import ShadowReport

_TIMEOUT: Final = aiohttp.ClientTimeout(total=2)
_CONCURRENCY: Final = 32
_ERROR_LENGTH: Final = 300


Report = TypeVar("Report", PodReport, ShadowReport)


@dataclass(frozen=True)
class Observation(Generic[Report]):
    """What is known of one pod."""

    report: Report | None
    """The last report that was understood; None before the first."""
    at: float
    """When that was, on the monotonic clock; before the first, when the pod was first asked."""
    error: str
    """Why the newest attempt gave no report; empty when it did."""
    former: Report | None = None
    """What another life told last that ended in this pod, where lives have names."""


class _Pod(Generic[Report]):
    """One pod that is followed."""

    def __init__(self, key: Key, ip: str, *, every: float) -> None:
        self.key = key
        self.ip = ip
        self.every = every
        self.sooner = asyncio.Event()
        self.observation: Observation[Report] | None = None
        self.task: asyncio.Task[None] | None = None

    def end(self) -> None:
        if self.task is not None:
            self.task.cancel()


class Reports(ABC, Generic[Report]):
    """Asks pods for their reports, each at its own pace, and tells when one says something new.

    A pod may answer anything: at most 64 KiB are read, for at most two seconds, and no redirect is followed.
    What is no report becomes an error text, never an exception. Nobody is asked before ``run``.
    """

    default_port: ClassVar[int]
    model: type[Report]
    """What a report is read as."""
    schema_version: ClassVar[int]
    """The newest that this operator knows."""

    def __init__(self, *, port: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._port = port if port is not None else self.default_port
        self._clock = clock
        self._pods: dict[str, _Pod[Report]] = {}
        self._uids: dict[Key, set[str]] = {}
        self._slots = asyncio.Semaphore(_CONCURRENCY)
        self._session: aiohttp.ClientSession | None = None
        self._on_change: Callable[[Key], None] = lambda _: None

    @abstractmethod
    def gist(self, report: Report) -> tuple[Any, ...]:
        """Return what of a report calls for a new decision."""

    def is_other_life(self, before: Report, after: Report) -> bool:  # noqa: ARG002 - lives may have no names
        """Tell whether numbers of the report before are not part of those of the report after."""
        return False

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

    def observation(self, uid: str) -> Observation[Report] | None:
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

    def _replace(self, uid: str, pod: _Pod[Report]) -> None:
        if (known := self._pods.get(uid)) is not None:
            known.end()
        self._pods[uid] = pod
        self._follow(pod)

    def _follow(self, pod: _Pod[Report]) -> None:
        if self._session is not None:
            pod.task = asyncio.create_task(self._ask_forever(pod, self._session))

    async def _ask_forever(self, pod: _Pod[Report], session: aiohttp.ClientSession) -> None:
        while True:
            pod.sooner.clear()
            async with self._slots:
                outcome = await self._ask(pod, session)
            before, pod.observation = pod.observation, self._observe(pod.observation, outcome)
            if before is None or self._gist(before) != self._gist(pod.observation):
                self._on_change(pod.key)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pod.every):
                    await pod.sooner.wait()

    def _observe(self, before: Observation[Report] | None, outcome: Report | str) -> Observation[Report]:
        if isinstance(outcome, str):
            if before is None:
                return Observation(None, self._clock(), outcome)
            return replace(before, error=outcome)
        former = before.former if before is not None else None
        if before is not None and before.report is not None and self.is_other_life(before.report, outcome):
            former = before.report
        return Observation(outcome, self._clock(), "", former)

    def _gist(self, observation: Observation[Report]) -> tuple[Any, ...]:
        """Return what calls for a new decision: neither the counters nor how an error is worded."""
        gist = self.gist(observation.report) if observation.report is not None else None
        return gist, bool(observation.error)

    async def _ask(self, pod: _Pod[Report], session: aiohttp.ClientSession) -> Report | str:
        """Return the pod's report, or in words why there is none."""
        try:
            host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
            address = f"http://{host}:{self._port}{REPORT_PATH}"
            async with session.get(
                address, allow_redirects=False, headers={"Accept-Encoding": "identity"}
            ) as answer:
                if answer.status != HTTPStatus.OK:
                    return f"GET {REPORT_PATH} answered {answer.status}"
                return self._parse(await _read(answer.content))
        except TimeoutError:
            return f"GET {REPORT_PATH} did not answer within {_TIMEOUT.total} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _shorten(f"GET {REPORT_PATH} failed: {error}")

    def _parse(self, content: bytes) -> Report | str:
        if len(content) > MAX_BYTES:
            return f"its report is longer than {MAX_BYTES} bytes"
        try:
            found = self.model.model_validate_json(content, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            return _shorten(f"it answers with something that is no report: {place}: {first['msg']}")
        if found.schema_version > self.schema_version:
            return (
                f"its report has schema version {found.schema_version}, this operator reads up to "
                f"{self.schema_version}: upgrade the operator"
            )
        return found


async def _read(stream: aiohttp.StreamReader) -> bytes:
    content = b""
    async for chunk in stream.iter_any():
        content += chunk
        if len(content) > MAX_BYTES:
            break
    return content


_COUNTERS: Final[Mapping[str, Any]] = {
    "requests": 0,
    "errors": 0,
    "fallbacks": 0,
    "prediction_log": None,
    "evidence": None,
    "features": None,
    "mirror": None,
}


class PodReports(Reports[PodReport]):
    """What serving pods say."""

    default_port = ADMIN_PORT
    model = PodReport
    schema_version = report.SCHEMA_VERSION

    def gist(self, report: PodReport) -> tuple[Any, ...]:
        """Leave out what is counted; that something goes wrong, or no more, is news."""
        log, known = report.prediction_log or LogReport(), report.model_copy(update=_COUNTERS)
        mirrors = report.mirror is not None and bool(report.mirror.error)
        return known, bool(log.error), bool(log.dropped), mirrors, _sources_asked(report)


class ShadowReports(Reports[ShadowReport]):
    """What shadows say, wherever they are."""

    default_port = SHADOW_PORT
    model = ShadowReport
    schema_version = shadow.SCHEMA_VERSION

    def gist(self, report: ShadowReport) -> tuple[Any, ...]:
        """Leave out what is counted; that a process ended, or makes progress, is news."""
        process = report.process
        if process is None:
            return report.instance, report.running, report.ends, None
        told = (
            process.revision,
            bool(process.flags_error),
            process.production,
            process.version,
            process.epoch,
        )
        return report.instance, report.running, report.ends, told

    def is_other_life(self, before: ShadowReport, after: ShadowReport) -> bool:
        """Tell whether there is another supervisor, which counts from 0 on."""
        return before.instance != after.instance


def _sources_asked(report: PodReport) -> tuple[bool, ...]:
    """Return which sources of features the pod asks; not how often, nor when it last tried one that fails."""
    if report.features is None:
        return ()
    upstreams = (report.features.redis_state, report.features.compute_state)
    return tuple(one is None or one.state is BreakerState.CLOSED for one in upstreams)


def _shorten(text: str) -> str:
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _ERROR_LENGTH else line[: _ERROR_LENGTH - 1] + "…"
