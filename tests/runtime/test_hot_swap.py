"""Production moves from one version to another under load, and no client notices anything but the answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest

from greenroom_runtime.contract import names
from tests.support.bundles import CLASSIFIER_ROWS, classify, write_classifier
from tests.support.serving import DEADLINE_SECONDS, ServingProcess, flags

ROW = CLASSIFIER_ROWS[0]
BIASES = {"v1": 0.0, "v2": -9.0}
"""Far enough apart that an answer says which version gave it."""
CONNECTIONS = 8


@dataclass(kw_only=True)
class Load:
    """Requests without a pause, from clients that keep their connection and clients that do not."""

    url: str
    stopped: bool = False
    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    seen: dict[int, list[str]] = field(default_factory=dict)
    """Versions in the order in which one client saw them."""

    async def run(self, client_number: int, *, keep_alive: bool) -> None:
        """Ask until stopped."""
        seen = self.seen.setdefault(client_number, [])
        limits = httpx2.Limits(max_keepalive_connections=1 if keep_alive else 0)
        async with httpx2.AsyncClient(limits=limits, timeout=DEADLINE_SECONDS) as client:
            while not self.stopped:
                await self._ask(client, seen)

    async def _ask(self, client: httpx2.AsyncClient, seen: list[str]) -> None:
        try:
            response = await client.post(self.url + "/predict", json={"features": ROW})
        except httpx2.HTTPError as error:
            self.wrong.append(repr(error))
            return
        self.answers += 1
        if response.status_code != 200:
            self.wrong.append(response.text)
            return
        answer: dict[str, Any] = response.json()
        version = response.headers[names.HEADER_VERSION]
        seen.append(version)
        label, (_, yes) = classify(ROW, BIASES[version])
        apart = abs(answer["probabilities"]["yes"] - yes)
        if answer["prediction"] != label or apart > 1e-5 or answer["version"] != version:
            self.wrong.append(response.text)

    async def reach(self, condition: Callable[[], bool]) -> None:
        """Wait until the load has come so far."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():  # noqa: ASYNC110 an answer is no event
                await asyncio.sleep(0.005)


@pytest.fixture
def pod(tmp_path: Path) -> Any:
    """Serve v1, with v2 prepared."""
    for version, bias in BIASES.items():
        write_classifier(tmp_path / "source", version, bias=bias)
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        pod.flags.write(flags("v1", "v2"))
        pod.wait_settled()
        yield pod


async def test_flip_under_load_fails_no_request(pod: ServingProcess) -> None:
    """No request fails, each client goes from v1 to v2 once and never back, and the process is the same."""
    load = Load(url=pod.url)
    async with asyncio.TaskGroup() as clients:
        for number in range(CONNECTIONS):
            clients.create_task(load.run(number, keep_alive=number % 2 == 0))
        await load.reach(lambda: load.answers > 20 * CONNECTIONS)
        pod.flags.write(flags("v2", "v1", previous="v1"))
        await load.reach(lambda: all(seen.count("v2") > 10 for seen in load.seen.values()))
        load.stopped = True
    assert load.wrong == []
    for seen in load.seen.values():
        assert [pair for pair in pairwise(seen) if pair[0] != pair[1]] == [("v1", "v2")]
    assert pod.process.poll() is None
    assert sum(line["event"] == "serving" for line in pod.log) == 1


async def test_many_flips_under_load_mix_no_answers(pod: ServingProcess) -> None:
    """Flipped to and fro, each answer is wholly of the version that it names, and none fails."""
    load = Load(url=pod.url)
    async with asyncio.TaskGroup() as clients:
        for number in range(CONNECTIONS):
            clients.create_task(load.run(number, keep_alive=True))
        for swap in range(20):
            production, other = ("v1", "v2") if swap % 2 else ("v2", "v1")
            pod.flags.write(flags(production, other))
            lengths = {number: len(seen) for number, seen in load.seen.items()}
            await load.reach(lambda want=production, lengths=lengths: _all_saw(load, want, lengths))  # type: ignore[misc]
        load.stopped = True
    assert load.wrong == []
    assert load.answers == sum(len(seen) for seen in load.seen.values())


async def test_a_soak_of_prepared_swaps_fails_no_request(pod: ServingProcess) -> None:
    """Each time the version before departs whole and the next is fetched, proven and loaded under load."""
    load = Load(url=pod.url)
    async with asyncio.TaskGroup() as clients:
        for number in range(CONNECTIONS):
            clients.create_task(load.run(number, keep_alive=number % 2 == 0))
        for swap in range(8):
            production = "v1" if swap % 2 else "v2"
            pod.flags.write(flags(production))
            lengths = {number: len(seen) for number, seen in load.seen.items()}
            await load.reach(lambda want=production, lengths=lengths: _all_saw(load, want, lengths))  # type: ignore[misc]
        load.stopped = True
    assert load.wrong == []
    report = pod.wait_until(lambda _: _stored(pod.models) == ["production", "v1"])
    assert [version.name for version in report.versions] == ["v1"]
    assert (report.requests, report.errors) == (load.answers, 0)


def _stored(models: Path) -> list[str]:
    return sorted(entry.name for entry in models.iterdir() if not entry.name.startswith("."))


def _all_saw(load: Load, version: str, since: dict[int, int]) -> bool:
    return len(load.seen) == CONNECTIONS and all(
        version in seen[since.get(number, 0) :] for number, seen in load.seen.items()
    )
