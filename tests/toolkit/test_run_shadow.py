"""``greenroom run`` with a shadow: the operator's decisions, the real supervisor, and real requests."""

import os
import re
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greenroom.local.process import LocalShadow
from greenroom_runtime.contract.config import RuntimeConfig, ShadowConfig
from greenroom_runtime.contract.shadow import ShadowReport
from tests.support.examples import TrainedExample
from tests.support.plain_http import http
from tests.toolkit.command import MANIFEST, PATIENCE_SECONDS, Command, children, predict, seeing_ended

GATE = (
    '{minDuration: 0s, minRequests: 400, maxDisagreementPercent: "20", maxErrorPercent: "1", '
    'maxLatencyRatio: "100"}'
)
"""Bounds that are proven by some hundred requests, on a machine that is busy with other things."""
TOLERANCE = 0.1


def ask_for(manifest: Path, shadow: str, *more: str) -> None:
    """Edit the shadow, and what else the specification is to have."""
    lines = [f"shadow: {shadow}", *more]
    manifest.write_text(MANIFEST + "".join(f"  {line}\n" for line in lines))


def wait_ready(command: Command, version: str) -> str:
    """Wait until the shadow is compared; return where it reports."""
    command.wait_for(f"the shadow {version} is ready")
    found = re.search(r"http://\S+", command.wait_for("report  http"))
    assert found
    return found[0]


def wait_for_report(url: str, condition: Callable[[ShadowReport], object]) -> ShadowReport:
    """Ask for the shadow's report until it fulfils the condition."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition(report := ShadowReport.model_validate(http.get(url).json())):
        assert time.monotonic() < deadline, f"not before the deadline; the last report: {report!r}"
        time.sleep(0.02)
    return report


def compared(report: ShadowReport) -> int:
    """Return how many answers were compared."""
    return report.process.counts.compared if report.process else 0


def disagreed(report: ShadowReport) -> int:
    """Return how many of them differed."""
    return report.process.counts.disagreed if report.process else 0


def connect(url: str, reports: str, features: dict[str, Any]) -> None:
    """Ask until an answer has been compared.

    The serving process looks for its shadow once a second at most, and drops what comes before.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not compared(ShadowReport.model_validate(http.get(reports).json())):
        assert time.monotonic() < deadline, "nothing was compared"
        predict(url, features)
        time.sleep(0.1)


def differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two pipelines answer otherwise, by label or by a probability."""
    pairs = zip(one["probabilities"], other["probabilities"], strict=True)
    return one["prediction"] != other["prediction"] or any(abs(a - b) > TOLERANCE for a, b in pairs)


def test_run_compares_a_shadow(penguins: TrainedExample, manifest: Path, state: Path) -> None:
    """It disagrees where the pipelines do, and passes; an edited share is obeyed; no process is left."""
    ask_for(manifest, f"{{version: v2, gate: {GATE}}}")
    production, shadow = penguins.holdout("v1"), penguins.holdout("v2")
    disagree = [differ(one, other) for one, other in zip(production, shadow, strict=True)]
    rows = [row["features"] for row in production] * 6
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    with Command(*arguments, state=state) as command:
        url = command.wait_for_url()
        reports = wait_ready(command, "v2")
        connect(url, reports, rows[disagree.index(False)])
        for number, features in enumerate(rows):
            assert predict(url, features, user_id=f"user-{number}")["version"] == "v1"
        told = wait_for_report(
            reports, lambda report: compared(report) > len(rows) and disagreed(report) >= 6 * sum(disagree)
        ).process
        assert told is not None
        assert (told.counts.disagreed, told.counts.failed) == (6 * sum(disagree), 0)
        assert "answered otherwise, proven to be below 20 %" in command.wait_for("the shadow v2 has passed")
        ask_for(manifest, f"{{version: v2, percent: 50, gate: {GATE}}}")
        command.wait_for("the shadow v2: 50 % of requests are compared with v1")
        processes = command.children()
        assert len(processes) == 2
        manifest.write_text(MANIFEST)
        command.wait_for("the configuration changed")
        command.wait_for("v2 is no longer shadowed")
        command.wait_for_url()
        processes += command.children()
        assert len(set(processes)) == 3
        assert command.interrupt() == 130
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert list(state.iterdir()) == []


def test_run_tells_what_a_shadow_cannot_hold(penguins: TrainedExample, manifest: Path, state: Path) -> None:
    """A version that fails its proof breaks the shadow and no answer; another one takes no restart."""
    ask_for(manifest, "{version: v3-broken}")
    features = penguins.holdout("v1")[0]["features"]
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    with Command(*arguments, state=state) as command:
        trouble = command.wait_for("the shadow v3-broken is broken")
        assert "GoldenMismatch" in trouble
        assert "answers are not affected" in trouble
        while not any(" serves at " in line for line in command.lines):
            command.wait_for("")
        url = re.findall(r"http://\S+", "".join(line for line in command.lines if " serves at " in line))[0]
        assert predict(url, features)["version"] == "v1"
        processes = command.children()
        ask_for(manifest, "{version: v2}")
        wait_ready(command, "v2")
        ask_for(manifest, "{version: v1}")
        command.wait_for("the shadow is over: v1 is production")
        ask_for(manifest, '{version: v2, tolerance: "-1"}')
        assert "spec.shadow.tolerance" in command.wait_for("v1 stays asked for")
        assert command.children() == processes


def test_run_lives_with_a_shadow_that_dies(penguins: TrainedExample, manifest: Path, state: Path) -> None:
    """Its process is started again, and so is its supervisor; answers go on, and counts, too."""
    ask_for(manifest, "{version: v2, resources: {limits: {memory: 300Mi}}}")
    features = penguins.holdout("v1")[0]["features"]
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    with Command(*arguments, state=state) as command:
        url = command.wait_for_url()
        reports = wait_ready(command, "v2")
        metrics = http.get(reports.removesuffix("report") + "metrics").text
        assert f"greenroom_shadow_memory_limit_bytes {300 * 2**20}" in metrics.splitlines()
        connect(url, reports, features)
        serving, supervisor = command.children()
        before = wait_for_report(reports, compared)
        os.kill(children(supervisor)[0], signal.SIGKILL)
        assert "the shadow process of pod local crashed" in command.wait_for("the shadow v2 is broken")
        assert predict(url, features)["version"] == "v1"
        wait_for_report(reports, lambda report: report.running and compared(report) >= compared(before))
        os.kill(supervisor, signal.SIGKILL)
        command.wait_for("the shadow's supervisor ended with exit code -9; starting it again")
        assert predict(url, features)["version"] == "v1"
        command.wait_for("the shadow v2: ")
        assert serving in command.children()


def test_no_process_outlives_a_run_that_is_killed(
    penguins: TrainedExample, manifest: Path, state: Path
) -> None:
    """After `kill -9` the server ends, the shadow's supervisor, and the process below that."""
    ask_for(manifest, "{version: v2}")
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    with Command(*arguments, state=state) as command:
        command.wait_for_url()
        wait_ready(command, "v2")
        serving, supervisor = command.children()
        with seeing_ended(serving, supervisor, *children(supervisor)):
            assert command.interrupt(signal.SIGKILL) == -signal.SIGKILL


def test_a_rollout_waits_for_its_shadow(penguins: TrainedExample, manifest: Path, state: Path) -> None:
    """With onSuccess: Rollout nobody gets the version before its shadow has passed; then users do."""
    rollout = "rollout: {version: v2, percent: 40}"
    shadow = f"{{version: v2, placement: Deployment, onSuccess: Rollout, gate: {GATE}}}"
    ask_for(manifest, shadow, rollout)
    rows = [row["features"] for row in penguins.holdout("v1")]
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    with Command(*arguments, state=state) as command:
        command.wait_for("the shadow has pods of its own in a cluster")
        command.wait_for("the rollout of v2 waits: it begins once its shadow has passed")
        url = command.wait_for_url()
        connect(url, wait_ready(command, "v2"), rows[0])
        for number in range(600):
            answer = predict(url, rows[number % len(rows)], user_id=f"user-{number}")
            if any("the shadow v2 has passed" in line for line in command.lines):
                break
            assert answer["version"] == "v1"
        command.wait_for("the shadow v2 has passed")
        command.wait_for("v2 serves 40 % of users")
        versions = {predict(url, rows[0], user_id=f"user-{number}")["version"] for number in range(40)}
        assert versions == {"v1", "v2"}


def test_frames_take_another_way_where_a_path_is_too_long(tmp_path: Path) -> None:
    """A Unix socket's path has a limit: what is deeper goes over TCP, as to a shadow with its own pods."""
    config = RuntimeConfig(name="churn", source_uri="file:///models", shadow=ShadowConfig())
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with tempfile.TemporaryDirectory() as near, LocalShadow(Path(near)) as shadow:
        assert shadow.localize(config).shadow == ShadowConfig(
            address=f"unix:{near}/frames.sock", predictions_dir=f"{near}/shadow-predictions"
        )
    with LocalShadow(deep) as shadow:
        found = shadow.localize(config).shadow
        assert found is not None
        assert found.address.startswith("tcp:127.0.0.1:")
        assert shadow.localize(config.model_copy(update={"shadow": None})).shadow is None
