"""Two processes, one lease, a real API server."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from e2e.cluster import ApiServer
from greenroom_operator.controller.elector import Elector
from greenroom_operator.kube import Kube
from greenroom_operator.metrics import Metrics
from tests.support.kubectl import Kubectl

_NAMES = (f"elector-{number}" for number in itertools.count())

Leader = subprocess.Popen[str]


@pytest.fixture
def namespace(kubectl: Kubectl) -> str:
    """Return the namespace of a lease and of what its holders write."""
    name = next(_NAMES)
    kubectl("create", "namespace", name)
    kubectl("create", "configmap", "log", "-n", name, "--from-literal=log=")
    return name


@pytest.fixture
def compete(api_server: ApiServer, namespace: str) -> Iterator[Callable[[str], Leader]]:
    """Return a function that starts a careless candidate."""
    started: list[Leader] = []

    def compete(letter: str) -> Leader:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.careless_leader", namespace, letter],
            env={**os.environ, "KUBECONFIG": str(api_server.kubeconfig)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield compete
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def wait_for_line(process: Leader, *wanted: str) -> str:
    """Wait until a candidate prints one of these lines, and return which."""
    assert process.stdout is not None
    return next(text.strip() for text in process.stdout if text.strip() in wanted)


def test_a_leader_that_was_frozen_overwrites_nothing_when_it_wakes(
    compete: Callable[[str], Leader], kubectl: Kubectl, namespace: str
) -> None:
    """It is succeeded, and what it had decided before is refused by the server though no clock was asked."""

    def log() -> str:
        text: str = kubectl.get("configmap", "log", "-n", namespace)["data"]["log"]
        return text

    def wait_for(pattern: str) -> None:
        deadline = time.monotonic() + 120
        while not re.fullmatch(pattern, log()):
            assert time.monotonic() < deadline, f"the log never became {pattern}: {log()}"
            time.sleep(0.1)

    first = compete("a")
    wait_for_line(first, "leading")
    second = compete("b")
    for _ in range(3):
        wait_for_line(first, "deciding")
    first.send_signal(signal.SIGSTOP)
    wait_for_line(second, "leading")
    wait_for("a+b{2,}")
    before = log()
    first.send_signal(signal.SIGCONT)
    assert wait_for_line(first, "refused", "accepted") == "refused"
    assert first.wait(timeout=60) == 0
    wait_for(re.escape(before) + "b+")


async def test_a_lease_is_taken_renewed_and_given_up(
    api_server: ApiServer, kubectl: Kubectl, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server accepts what we write into it, an empty holder included."""
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig))
    async with await Kube.connect(metrics=Metrics()) as kube:
        first, second = (
            Elector(kube, namespace=namespace, name="given-up", identity=name, on_lost=lambda _: None)
            for name in ("a", "b")
        )
        await first.acquire()
        await first.release()
        assert not first.valid()
        await second.acquire()
        assert second.valid()
        spec = kubectl.get("lease", "given-up", "-n", namespace)["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("b", 15, 2)
