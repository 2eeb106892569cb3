"""What Greenroom promises of shadows, on real pods under load: they harm nobody, and say what they saw."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from e2e.availability import Availability
from e2e.conftest import TrainedModels
from e2e.faulty import EVERY, Fault, write_corrupt, write_faulty
from e2e.penguins import NAME, Penguins, reached
from e2e.terminal import Terminal
from e2e.traffic import Traffic
from greenroom_runtime.contract.report import VersionState
from greenroom_runtime.contract.shadow import ShadowCounts, ShadowReport

pytestmark = pytest.mark.usefixtures("operator")

REPLICAS = 2
RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "320Mi"}}
LENIENT = {
    "minDuration": "0s",
    "minRequests": 50,
    "maxDisagreementPercent": "30",
    "maxErrorPercent": "20",
    "maxLatencyRatio": "100",
}
"""A gate that two busy cores and some hundred users can pass in seconds."""
USERS = [f"user-{number}" for number in range(600)]


def shadow(version: str, **more: Any) -> dict[str, Any]:
    """Return the member ``shadow`` of a spec, by which labels alone are compared."""
    return {
        "version": version,
        "resources": RESOURCES,
        "tolerance": "1",
        "gate": {"minDuration": "0s"},
        **more,
    }


@contextmanager
def load(penguins: Penguins, url: str, models: TrainedModels) -> Iterator[Traffic]:
    """Send kept-alive and new connections' requests; afterwards none has failed and no pod was unready."""
    with (
        Availability(
            penguins.kubectl, namespace=penguins.namespace, name=NAME, replicas=REPLICAS
        ) as availability,
        Traffic(url, models.rows, users=USERS) as traffic,
    ):
        yield traffic
    assert traffic.failed == []
    assert availability.outages == []


def condition(found: dict[str, Any]) -> dict[str, Any]:
    """Return ShadowHealthy of a ModelDeployment; an empty one where it is not there."""
    conditions = found.get("status", {}).get("conditions", ())
    return next((one for one in conditions if one["type"] == "ShadowHealthy"), {})


def until_broken(penguins: Penguins, *words: str) -> dict[str, Any]:
    """Wait until ShadowHealthy is False, with these words; return the ModelDeployment as it then was."""

    def holds(found: dict[str, Any]) -> bool:
        told = condition(found)
        return told.get("status") == "False" and all(word in json.dumps(told) for word in words)

    return penguins.until(holds)


def until_comparing(penguins: Penguins, version: str, *, requests: int = 1) -> dict[str, Any]:
    """Wait until status tells of so many compared requests of a version; return its status."""

    def holds(found: dict[str, Any]) -> bool:
        status = found.get("status", {}).get("shadow", {})
        return bool(status.get("version") == version and status.get("requests", 0) >= requests)

    status: dict[str, Any] = penguins.until(holds)["status"]["shadow"]
    return status


def counts(reports: dict[str, ShadowReport]) -> dict[str, ShadowCounts]:
    """Return what the shadows have counted, by pod."""
    return {name: counts_of(report) for name, report in reports.items()}


def counts_of(report: ShadowReport) -> ShadowCounts:
    """Return what one shadow has counted."""
    return report.process.counts if report.process else ShadowCounts()


def hear(
    penguins: Penguins, holds: Callable[[ShadowReport], bool] = lambda _: True
) -> dict[str, ShadowReport]:
    """Wait until the shadow of each pod answers, and something is true of its report; return them all."""
    return penguins.until_shadows(
        lambda reports: len(reports) == REPLICAS and all(map(holds, reports.values()))
    )


def sums(penguins: Penguins) -> ShadowCounts:
    """Return received, compared and disagreed of all pods."""
    of_pods = counts(hear(penguins)).values()
    return ShadowCounts(
        received=sum(one.received for one in of_pods),
        compared=sum(one.compared for one in of_pods),
        disagreed=sum(one.disagreed for one in of_pods),
    )


def goes_on(traffic: Traffic, answers: int = 400) -> None:
    """Wait for so many answers more."""
    now = len(traffic.answers)
    traffic.wait_until(lambda known: len(known) >= now + answers)


def in_shadows(penguins: Penguins, script: str) -> None:
    """Run a line of Python in the shadow container of each pod."""
    for pod in penguins.pods():
        name = pod["metadata"]["name"]
        penguins("exec", name, "--container=shadow", "--", "python", "-c", script)


KILL = """
import os, signal
for process in set(filter(str.isdigit, os.listdir("/proc"))) - {str(os.getpid())}:
    with open(f"/proc/{process}/cmdline") as line:
        if "greenroom_runtime.shadow.process" in line.read():
            os.kill(int(process), signal.SIGSEGV)
"""
UNLINK = "import os; os.unlink('/run/greenroom/shadow/frames.sock')"
AWAIT = """
import os, time
while not os.path.exists("/run/greenroom/shadow/frames.sock"):
    time.sleep(0.1)
"""


def crash(penguins: Penguins, models: TrainedModels) -> str:
    """Let each shadow process die of a segmentation fault, three times over."""
    del models
    for _ in range(3):
        until_comparing(penguins, "v2")
        running = hear(penguins, lambda report: report.running)
        known = {name: report.ends for name, report in running.items()}
        in_shadows(penguins, KILL)
        until_ended(penguins, known)
    return "crashed"


def until_ended(penguins: Penguins, known: dict[str, int]) -> None:
    """Wait until more shadow processes have ended in each pod than these."""
    penguins.until_shadows(
        lambda reports: all(name in reports and reports[name].ends > ends for name, ends in known.items())
    )


def use(fault: Fault, *, told: str) -> Callable[[Penguins, TrainedModels], str]:
    """Let the shadow be a version that goes wrong on every request."""

    def cause(penguins: Penguins, models: TrainedModels) -> str:
        version = f"v5-{fault}"
        write_faulty(models.directory / "v1", version=version, fault=fault, above=EVERY)
        models.store.upload(models.directory / version, prefix=f"penguins/{version}")
        penguins.apply(shadow=shadow(version), wait=False)
        return told

    return cause


def name_a_version_that_is_not_there(penguins: Penguins, models: TrainedModels) -> str:
    """Let the shadow be a version that the source does not have."""
    del models
    penguins.apply(shadow=shadow("v99"), wait=False)
    return "NoSuchVersion"


def name_a_corrupt_version(penguins: Penguins, models: TrainedModels) -> str:
    """Let the shadow be a version whose model is not what its bundle.json says."""
    write_corrupt(models.directory / "v1", version="v6-corrupt")
    models.store.upload(models.directory / "v6-corrupt", prefix="penguins/v6-corrupt")
    penguins.apply(shadow=shadow("v6-corrupt"), wait=False)
    return "DigestMismatch"


CAUSES: dict[str, Callable[[Penguins, TrainedModels], str]] = {
    "crashes": crash,
    "raises": use(Fault.RAISES, told="not answered, proven to be above"),
    "hangs": use(Fault.HANGS, told="hung"),
    "leaks": use(Fault.LEAKS, told="ran out of memory"),
    "is-slow": use(Fault.SLOW, told="times as long, proven to be above"),
    "is-missing": name_a_version_that_is_not_there,
    "is-corrupt": name_a_corrupt_version,
}


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES.keys())
def test_a_bad_shadow_harms_nobody(
    cause: Callable[[Penguins, TrainedModels], str],
    penguins: Penguins,
    terminal: Terminal,
    models: TrainedModels,
) -> None:
    """Whatever is wrong with a shadow: no pod turns unready, no request fails, and status says what it is."""
    penguins.apply(shadow=shadow("v2"))
    lives = penguins.lives()
    with reached(terminal, penguins.namespace) as url, load(penguins, url, models) as traffic:
        word = cause(penguins, models)
        found = until_broken(penguins, word)
        goes_on(traffic)
    assert {answer.version for answer in traffic.answers} == {"v1"}
    assert penguins.lives() == lives
    conditions = {one["type"]: one["status"] for one in found["status"]["conditions"]}
    assert (conditions["Ready"], conditions["Degraded"]) == ("True", "False")


def test_a_socket_that_is_deleted_comes_back(
    penguins: Penguins, terminal: Terminal, models: TrainedModels
) -> None:
    """Without its socket a shadow makes another one, and frames arrive again; no request notices."""
    penguins.apply(shadow=shadow("v2"))
    until_ready(penguins, "v2")
    with reached(terminal, penguins.namespace) as url, load(penguins, url, models) as traffic:
        until_comparing(penguins, "v2")
        in_shadows(penguins, UNLINK)
        in_shadows(penguins, AWAIT)
        goes_on(traffic)
        before = counts(hear(penguins))
        hear(penguins, lambda report: counts_of(report).compared > before[report.pod].compared + 50)


def test_a_shadow_says_what_it_saw(penguins: Penguins, terminal: Terminal, models: TrainedModels) -> None:
    """Every answer is compared once, and as many disagree as the pipelines' own answers do."""
    differs = Counter(
        index
        for index, row in enumerate(models.holdout)
        if row["answers"]["v1"]["prediction"] != row["answers"]["v2"]["prediction"]
    )
    penguins.apply(shadow=shadow("v2"))
    with reached(terminal, penguins.namespace) as url:
        until_ready(penguins, "v2")
        before = sums(penguins).received
        with Traffic(url, models.rows, users=USERS, kept=2, fresh=0) as traffic:
            goes_on(traffic, 4 * len(models.rows))
        sent = len(traffic.answers)
        penguins.until_shadows(
            lambda reports: sum(one.received for one in counts(reports).values()) - before >= sent
        )
        seen = sums(penguins)
    assert (seen.received - before, seen.compared - before) == (sent, sent)
    rounds = dict.fromkeys(traffic.versions_by_client(), 0)
    expected = 0
    for answer in traffic.answers:
        expected += rounds[answer.client] % len(models.rows) in differs
        rounds[answer.client] += 1
    assert seen.disagreed == expected
    status = until_comparing(penguins, "v2", requests=sent)
    assert status["disagreements"] == expected
    row = penguins("get", "md", NAME).splitlines()[1]
    assert status["summary"] in row.split()


def until_ready(penguins: Penguins, version: str) -> None:
    """Wait until the version's bytes are pinned, and all pods and their shadows compare under that epoch."""

    def holds(reports: dict[str, ShadowReport]) -> bool:
        # Status is written before the flag store, which shadows obey later still.
        status, flags = penguins.found["status"].get("shadow", {}), penguins.flags
        if "digest" not in status or flags.shadow is None or flags.shadow.epoch != status["epoch"]:
            return False
        told = [one.process for one in reports.values() if one.process is not None]
        ready = [one for one in told if one.version and one.version.state is VersionState.READY]
        held = [(one.epoch, one.version.name) for one in ready if one.version]
        return held == [(flags.shadow.epoch, version)] * REPLICAS

    penguins.until_shadows(holds)
    revision = penguins.flags.revision
    penguins.until_reported(
        lambda reports: [one.revision for one in reports.values()] == [revision] * REPLICAS
    )


def test_a_shadow_comes_changes_and_goes_under_load(
    penguins: Penguins, terminal: Terminal, models: TrainedModels
) -> None:
    """Adding a shadow, another version, another share and taking it away drop no request."""
    penguins.apply()
    with reached(terminal, penguins.namespace) as url, load(penguins, url, models) as traffic:
        penguins.apply(shadow=shadow("v2"))
        until_comparing(penguins, "v2")
        lives = penguins.lives()
        write_faulty(models.directory / "v2", version="v7", above=10_000.0)
        models.store.upload(models.directory / "v7", prefix="penguins/v7")
        penguins.apply(shadow=shadow("v7"), wait=False)
        until_comparing(penguins, "v7")
        penguins.apply(shadow=shadow("v7", percent=10), wait=False)
        penguins.until(lambda found: condition(found).get("status") == "True")
        assert penguins.lives() == lives
        penguins.apply(shadow=None)
        penguins.until(lambda found: "shadow" not in found["status"] and not condition(found))
        penguins.until(
            lambda _: [len(pod["spec"]["containers"]) for pod in penguins.pods()] == [1] * REPLICAS
        )
        goes_on(traffic)
    assert {answer.version for answer in traffic.answers} == {"v1"}


def test_a_pass_starts_the_rollout(penguins: Penguins, terminal: Terminal, models: TrainedModels) -> None:
    """With onSuccess: Rollout the rollout waits for the shadow's verdict, and begins once it passes."""
    penguins.apply(
        shadow=shadow("v2", gate=LENIENT, onSuccess="Rollout"),
        rollout={"version": "v2", "percent": 50},
    )
    assert penguins.found["status"]["rollout"]["state"] == "WaitingForShadow"
    with reached(terminal, penguins.namespace) as url, load(penguins, url, models) as traffic:
        penguins.until_rollout("Running", percent="50")
        traffic.wait_until(lambda answers: {answer.version for answer in answers} == {"v1", "v2"})
    assert penguins.found["status"]["shadow"]["verdict"] == "Pass"
    penguins.until_told("ShadowPassed")


def test_pods_of_its_own(penguins: Penguins, terminal: Terminal, models: TrainedModels) -> None:
    """A shadow with pods of its own is fed by all serving pods; its end harms nobody, and it comes back."""
    penguins.apply(shadow=shadow("v2", placement="Deployment"))
    with reached(terminal, penguins.namespace) as url, load(penguins, url, models) as traffic:
        until_comparing(penguins, "v2")
        assert all(len(pod["spec"]["containers"]) == 1 for pod in penguins.pods())
        lives = penguins.lives()
        selector = f"greenroom.dev/deployment={NAME},app.kubernetes.io/component=shadow"
        requests = until_comparing(penguins, "v2")["requests"]
        penguins("delete", "pods", "--selector", selector, "--wait=true")
        until_comparing(penguins, "v2", requests=requests + 200)
        goes_on(traffic)
    assert penguins.lives() == lives
