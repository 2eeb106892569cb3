"""Pods may answer anything, or nothing, and the operator goes on."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from greenroom_operator.kinds import Key
from greenroom_operator.pods import Observation, PodReports
from greenroom_runtime.contract.report import PodReport

CHURN = Key("ml", "churn")
UID = "uid-1"
REPORT = {"pod": "churn-x", "model": "churn", "ready": True, "versions": [{"name": "v1", "state": "Ready"}]}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Following:
    """Pod reports being asked for, and who was told of changes."""

    def __init__(self, port: int) -> None:
        self.reports = PodReports(port=port)
        self.told: asyncio.Queue[Key] = asyncio.Queue()

    async def change(self) -> Observation[PodReport]:
        """Wait until somebody is told, then return what is known."""
        assert await self.told.get() == CHURN
        observation = self.reports.observation(UID)
        assert observation is not None
        return observation


@asynccontextmanager
async def pod(handler: Handler) -> AsyncIterator[Following]:
    """Run a pod's admin server on a loopback address, and ask it."""
    application = web.Application()
    application.router.add_get("/report", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    following = Following(runner.addresses[0][1])
    task = asyncio.create_task(following.reports.run(following.told.put_nowait))
    try:
        yield following
    finally:
        task.cancel()
        await asyncio.wait({task})
        await runner.cleanup()


def answering(content: bytes | str | dict[str, Any], **more: Any) -> Handler:
    """Return a handler that always gives this answer."""

    async def handler(_: web.Request) -> web.Response:
        body = json.dumps(content) if isinstance(content, dict) else content
        return web.Response(body=body, content_type="application/json", **more)

    return handler


def counted(**changes: Any) -> dict[str, Any]:
    """Return a report with evidence in which one thing is not as it can be."""
    return {**REPORT, "evidence": {"epoch": "v2@1", "version": "v2", **changes}}


def telling(**changes: Any) -> dict[str, Any]:
    """Return a report in which one thing about a version is not as it can be."""
    return {**REPORT, "versions": [{"name": "v1", "state": "Ready", **changes}]}


async def test_a_report_is_read() -> None:
    """What a pod says of itself is known soon after it is watched."""
    async with pod(answering(REPORT)) as following:
        following.reports.watch(CHURN, {UID: "127.0.0.1"}, every=30)
        observation = await following.change()
    assert observation.report is not None
    assert observation.report.version("v1") is not None
    assert observation.error == ""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answering(b""), "no report"),
        (answering(b"\xff\xfe{}"), "no report"),
        (answering("[" * 50_000), "no report"),
        (answering("null"), "no report"),
        (answering({}), "no report: pod"),
        (answering({**REPORT, "ready": "yes"}), "no report: ready"),
        (
            answering({**REPORT, "versions": [{"name": "v1", "state": "Splendid"}]}),
            "no report: versions.0.state",
        ),
        (answering({**REPORT, "requests": -1}), "no report: requests"),
        (answering({**REPORT, "production": "../v1"}), "no report: production"),
        (answering(telling(digest="sha256:1")), "no report: versions.0.digest"),
        (answering(telling(memory_bytes=2**63)), "no report: versions.0.memory_bytes"),
        (answering({**REPORT, "prediction_log": {"logged": 2**63}}), "no report: prediction_log.logged"),
        (answering(telling(failure={"reason": "Crashed", "message": "", "sample": -1})), "failure.sample"),
        (answering(counted(epoch="")), "no report: evidence.epoch"),
        (answering(counted(version="V 2")), "no report: evidence.version"),
        (answering(counted(rollout={"seen": 7})), "evidence.rollout.seen: Value error, a bitmap is a text"),
        (answering(counted(rollout={"seen": "eJx="})), "evidence.rollout.seen"),
        (answering(counted(production={"failed": "x" * 60_000})), "at most 1024 characters"),
        (answering(counted(production={"requests": 2**63})), "evidence.production.requests"),
        (answering({**REPORT, "schema_version": 2}), "upgrade the operator"),
        (answering({**REPORT, "model": "x" * 64}), "no report: model"),
        (answering("x" * (64 * 1024 + 1)), "longer than 65536 bytes"),
        (answering(REPORT, status=503), "answered 503"),
        (answering(REPORT, status=302, headers={"Location": "http://169.254.169.254/"}), "answered 302"),
        (answering(REPORT, status=204), "answered 204"),
    ],
)
async def test_what_is_no_report_is_an_error_in_words(answer: Handler, error: str) -> None:
    """Garbage, too much, a redirect or a newer schema: a text that says which, never an exception."""
    async with pod(answer) as following:
        following.reports.watch(CHURN, {UID: "127.0.0.1"}, every=30)
        observation = await following.change()
    assert observation.report is None
    assert error in observation.error
    assert len(observation.error) <= 300
    assert observation.error.isprintable()


async def test_an_endless_answer_is_cut_off() -> None:
    """A pod that streams without end costs 64 KiB, not the operator's memory."""
    written = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            written += 65536

    async with pod(flood) as following:
        following.reports.watch(CHURN, {UID: "127.0.0.1"}, every=30)
        observation = await following.change()
    assert "longer than" in observation.error
    assert written < 64 * 1024 * 1024


async def test_a_pod_that_does_not_answer_is_given_up_on() -> None:
    """A pod that hangs costs two seconds of one of many slots."""

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with pod(hang) as following:
        following.reports.watch(CHURN, {UID: "127.0.0.1"}, every=30)
        assert "did not answer within" in (await following.change()).error


@pytest.mark.parametrize("address", ["127.0.0.2", "not an address", "", "::1"])
async def test_a_pod_that_cannot_be_reached_is_an_error_in_words(address: str) -> None:
    """Nobody listens there, or it is no address at all."""
    async with pod(answering(REPORT)) as following:
        following.reports.watch(CHURN, {UID: address}, every=30)
        assert "failed" in (await following.change()).error


async def test_counters_alone_are_no_news_but_all_else_is() -> None:
    """A busy pod does not keep the operator busy; a version that becomes Ready does."""
    asked = asyncio.Event()
    log: dict[str, Any] = {"logged": 1, "dropped": 1, "pending": 1, "error": "timeout 1"}
    report: dict[str, Any] = {**REPORT, "requests": 0, "fallbacks": 0, "prediction_log": log}

    async def count(_: web.Request) -> web.Response:
        report["requests"] += 1
        report["fallbacks"] += 1
        report["evidence"] = {"epoch": "v2@1", "version": "v2", "rollout": {"requests": report["requests"]}}
        log.update(dict.fromkeys(("logged", "dropped", "pending"), report["requests"]))
        log["error"] = f"timeout {report['requests']}"
        asked.set()
        return web.json_response(report)

    async with pod(count) as following:
        following.reports.watch(CHURN, {UID: "127.0.0.1"}, every=0.01)
        await following.change()
        for _ in range(5):
            asked.clear()
            await asked.wait()
        assert following.told.empty()
        report["production"] = "v2"
        observation = await following.change()
    assert observation.report is not None
    assert observation.report.production == "v2"
    assert observation.report.requests > 5


@pytest.mark.parametrize("change", [{"error": "disk full"}, {"dropped": 1}], ids=str)
async def test_a_log_that_begins_to_fail_is_news(change: dict[str, Any]) -> None:
    """The first loss and the first complaint are told; how many there are is not."""
    log: dict[str, Any] = {"logged": 1}

    async def tell(_: web.Request) -> web.Response:
        return web.json_response({**REPORT, "prediction_log": log})

    async with pod(tell) as following:
        following.reports.watch(CHURN, {UID: "127.0.0.1"}, every=0.01)
        await following.change()
        log.update(change)
        observation = await following.change()
    assert observation.report is not None
    assert observation.report.prediction_log is not None


async def test_a_source_of_features_that_is_left_alone_is_news() -> None:
    """How often it is asked is not, nor that it is tried now and then while it fails."""
    asked = asyncio.Event()
    redis: dict[str, Any] = {"state": "Closed", "calls": 0}

    async def tell(_: web.Request) -> web.Response:
        redis["calls"] += 1
        if redis["state"] != "Closed":
            redis["state"] = "HalfOpen" if redis["calls"] % 2 else "Open"
        asked.set()
        features = {"memory": redis["calls"], "redis_state": redis}
        return web.json_response({**REPORT, "features": features})

    async with pod(tell) as following:
        following.reports.watch(CHURN, {UID: "127.0.0.1"}, every=0.01)
        await following.change()
        redis["state"] = "Open"
        observation = await following.change()
        for _ in range(5):
            asked.clear()
            await asked.wait()
        assert following.told.empty()
    assert observation.report is not None
    assert observation.report.features is not None


async def test_a_pod_that_stops_answering_is_told_once_and_its_last_word_is_kept() -> None:
    """One lost answer does not make the operator forget what it knew, and silence is told, not repeated."""
    broken, asked = False, asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        asked.set()
        return web.Response(status=500) if broken else web.json_response(REPORT)

    async with pod(answer) as following:
        following.reports.watch(CHURN, {UID: "127.0.0.1"}, every=0.01)
        healthy = await following.change()
        broken = True
        silent = await following.change()
        assert silent.report == healthy.report
        assert silent.at >= healthy.at
        assert "500" in silent.error
        for _ in range(3):
            asked.clear()
            await asked.wait()
        assert following.told.empty()
        broken = False
        assert (await following.change()).error == ""


async def test_only_the_pods_named_last_are_asked() -> None:
    """A pod that is gone is forgotten, with what it said."""
    asked = 0

    async def count(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response(REPORT)

    async with pod(count) as following:
        following.reports.watch(CHURN, {UID: "127.0.0.1", "uid-2": "127.0.0.1"}, every=30)
        await following.change()
        await following.change()
        following.reports.watch(CHURN, {"uid-2": "127.0.0.1"}, every=30)
        assert following.reports.observation(UID) is None
        assert following.reports.observation("uid-2") is not None
        following.reports.forget(CHURN)
        assert following.reports.observation("uid-2") is None
        assert asked == 2


async def test_a_quicker_pace_begins_at_once() -> None:
    """While something converges nobody waits for the pace of quiet times to end."""
    asked = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        asked.set()
        return web.json_response(REPORT)

    async with pod(answer) as following:
        following.reports.watch(CHURN, {UID: "127.0.0.1"}, every=3600)
        await following.change()
        asked.clear()
        following.reports.watch(CHURN, {UID: "127.0.0.1"}, every=1)
        async with asyncio.timeout(60):
            await asked.wait()


async def test_pods_named_before_the_asking_begins_are_asked_then() -> None:
    """The order of starting does not matter."""
    async with pod(answering(REPORT)) as following:
        late = PodReports(port=following.reports._port)
        late.watch(CHURN, {UID: "127.0.0.1"}, every=30)
        told: asyncio.Queue[Key] = asyncio.Queue()
        task = asyncio.create_task(late.run(told.put_nowait))
        assert await told.get() == CHURN
        task.cancel()
        await asyncio.wait({task})
