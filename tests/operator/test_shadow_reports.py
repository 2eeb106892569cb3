"""Shadows may answer anything, or nothing, and the operator goes on."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from greenroom_operator.kinds import Key
from greenroom_operator.pods import Observation, ShadowReports
from greenroom_runtime.contract.evidence import WIDE_BUCKETS, WideBitmap
from greenroom_runtime.contract.report import MAX_BYTES
from greenroom_runtime.contract.shadow import (
    DIFFERENCE_BOUNDS,
    SECONDS_BOUNDS,
    ProcessReport,
    SegmentCounts,
    ShadowCounts,
    ShadowReport,
    ShadowTrials,
)

CHURN, UID = Key("ml", "churn"), "uid-1"
REPORT: dict[str, Any] = {"pod": "churn-x", "instance": "1", "running": True, "process": {"epoch": "v4@1#a"}}


@dataclass
class Supervisor:
    """A shadow's supervisor as the operator sees it, and what it is made of this."""

    answer: Any = field(default_factory=lambda: json.loads(json.dumps(REPORT)))
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Queue[Key] = field(default_factory=asyncio.Queue)
    reports: ShadowReports = field(default_factory=ShadowReports)

    async def tell(self, _: web.Request) -> web.Response:
        """Answer what a test wants."""
        self.asked.set()
        return web.Response(body=self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer))

    async def change(self) -> Observation[ShadowReport]:
        """Wait until somebody is told, then return what is known."""
        assert await self.told.get() == CHURN
        observation = self.reports.observation(UID)
        assert observation is not None
        return observation

    async def ask_often(self) -> None:
        """Wait until it has been asked some more times."""
        for _ in range(4):
            self.asked.clear()
            await self.asked.wait()


@asynccontextmanager
async def supervisor(answer: Any = None) -> AsyncIterator[Supervisor]:
    """Run one on a loopback address, and ask it all the while."""
    shadow = Supervisor() if answer is None else Supervisor(answer=answer)
    application = web.Application()
    application.router.add_get("/report", shadow.tell)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    shadow.reports = ShadowReports(port=runner.addresses[0][1])
    task = asyncio.create_task(shadow.reports.run(shadow.told.put_nowait))
    shadow.reports.watch(CHURN, {UID: "127.0.0.1"}, every=0.01)
    try:
        yield shadow
    finally:
        task.cancel()
        await asyncio.wait({task})
        await runner.cleanup()


async def test_the_largest_report_is_read() -> None:
    """All buckets, all classes and all segments at once are within what is read of an answer."""
    half = WideBitmap(random.Random(7).getrandbits(WIDE_BUCKETS))  # noqa: S311 - keeps no secret
    many = 2**62
    counts = ShadowCounts(
        received=many,
        differences=(many,) * (len(DIFFERENCE_BOUNDS) + 1),
        seconds=(many,) * (len(SECONDS_BOUNDS) + 1),
        production_seconds=(many,) * (len(SECONDS_BOUNDS) + 1),
        segments=(SegmentCounts(compared=many, disagreed=many),) * 32,
    )
    trials = ShadowTrials(seen=half, failed=half, disagreed=half, slow=half)
    process = ProcessReport(epoch="v4@1#a", counts=counts, trials=trials)
    largest = ShadowReport(pod="churn-x", instance="1", process=process).model_dump_json().encode()
    assert len(largest) < MAX_BYTES
    async with supervisor(largest) as shadow:
        observation = await shadow.change()
    assert observation.report is not None
    assert observation.report.process == process


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "no report"),
        (b"[" * 50_000, "no report"),
        ({}, "no report: pod"),
        ({"pod": "churn-x"}, "no report: instance"),
        ({**REPORT, "instance": "x" * 65}, "no report: instance"),
        ({**REPORT, "ends": -1}, "no report: ends"),
        ({**REPORT, "ends": 2**63}, "no report: ends"),
        ({**REPORT, "end": {"reason": "Bored", "message": "", "seconds_ago": 1}}, "no report: end.reason"),
        ({**REPORT, "process": {"epoch": "a b"}}, "no report: process.epoch"),
        ({**REPORT, "process": {"counts": {"compared": "1"}}}, "no report: process.counts.compared"),
        (
            {**REPORT, "process": {"counts": {"differences": [0] * 99}}},
            "no report: process.counts.differences",
        ),
        ({**REPORT, "process": {"trials": {"seen": "eJx="}}}, "no report: process.trials.seen"),
        ({**REPORT, "schema_version": 2}, "upgrade the operator"),
        (b"x" * (64 * 1024 + 1), "longer than 65536 bytes"),
    ],
)
async def test_what_is_no_report_is_an_error_in_words(answer: Any, error: str) -> None:
    """Garbage, too much or a newer schema: a text that says which, never an exception."""
    async with supervisor(answer) as shadow:
        observation = await shadow.change()
    assert observation.report is None
    assert error in observation.error


async def test_counters_alone_are_no_news() -> None:
    """What is compared all the while does not keep the operator busy; a process that ended does."""
    async with supervisor() as shadow:
        await shadow.change()
        process = shadow.answer["process"]
        process["counts"] = {"received": 5, "compared": 5}
        process["trials"] = {"seen": str(WideBitmap.of([7]))}
        await shadow.ask_often()
        assert shadow.told.empty()
        shadow.answer |= {"ends": 1, "end": {"reason": "Crashed", "message": "SIGSEGV", "seconds_ago": 0.1}}
        observation = await shadow.change()
        shadow.answer["end"]["seconds_ago"] = 7
        await shadow.ask_often()
        assert shadow.told.empty()
    assert observation.report is not None
    assert observation.report.ends == 1


async def test_the_last_words_of_another_life_are_kept() -> None:
    """A supervisor that was killed counts from 0 on: what it had told before is not forgotten with it."""
    async with supervisor() as shadow:
        shadow.answer["process"]["counts"] = {"received": 9, "compared": 9}
        await shadow.change()
        shadow.answer = {**REPORT, "instance": "2"}
        observation = await shadow.change()
        await shadow.ask_often()
    later = shadow.reports.observation(UID)
    assert later is not None
    assert later.former == observation.former
    assert observation.former is not None
    assert observation.former.instance == "1"
    assert observation.former.process is not None
    assert observation.former.process.counts.compared == 9
