"""A user's day with `kubectl greenroom`, on real pods: what it says is so, and what it does is done."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import TrainedModels
from e2e.penguins import NAME, Penguins
from e2e.terminal import Terminal

pytestmark = pytest.mark.usefixtures("operator")

STEPS = {"version": "v2", "steps": [{"percent": 20, "hold": "1h"}, {"percent": 50, "hold": "1h"}]}
"""Nothing rises by itself while a test lasts."""


@dataclass(frozen=True)
class Plugin:
    """`kubectl greenroom …` in a namespace, as it is typed where the toolkit is installed."""

    terminal: Terminal
    namespace: str
    temporary: Path

    def __call__(self, *arguments: str) -> str:
        """Run it and return standard output; AssertionError with what it said where it fails."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def data(self, *arguments: str) -> Any:
        """Return what it prints as JSON."""
        return json.loads(self(*arguments, "--output=json"))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it and return what came back, unjudged."""
        own = str(Path(sys.executable).parent)
        path = f"{own}{os.pathsep}{self.terminal.env['PATH']}"
        return subprocess.run(
            ["kubectl", "greenroom", *arguments, "--namespace", self.namespace],
            env={**self.terminal.env, "PATH": path, "TMPDIR": str(self.temporary)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def plugin(terminal: Terminal, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    """Return the command for the test's namespace; afterwards nothing is left behind."""
    temporary = tmp_path_factory.mktemp("t")  # short: the path of a socket may not be long
    yield Plugin(terminal, namespace, temporary)
    assert list(temporary.iterdir()) == []


def _versions_by_pod(status: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Return, for each pod, its production and the state of each version that it holds."""
    reports = [pod["report"] for pod in status["pods"]]
    return [
        (report["production"], {version["name"]: version["state"] for version in report["versions"]})
        for report in reports
    ]


def _user_of(plugin: Plugin, version: str) -> str:
    """Return a user who gets a version, as `flags explain` says."""
    for number in range(20):
        told = plugin.data("flags", "explain", NAME, "--user", f"user-{number}")
        if told["version"] == version:
            return f"user-{number}"
    message = f"none of 20 users gets {version}"
    raise AssertionError(message)


def test_a_rollout_in_the_hands_of_a_person(
    penguins: Penguins, plugin: Plugin, models: TrainedModels, tmp_path: Path
) -> None:
    """Look, pause, raise, abort, try again: each is done in the cluster, seen in pods, and told the same."""
    penguins.apply(rollout=STEPS)
    penguins.until_rollout("Holding", percent="20")
    lives = penguins.lives()
    seen = plugin.data("status", NAME)
    assert (seen["status"]["version"], seen["status"]["rollout"]["summary"]) == ("v1", "v2 (20%)")
    assert _versions_by_pod(seen) == [("v1", {"v1": "Ready", "v2": "Ready"})] * 2
    lines = plugin("status", NAME).splitlines()
    assert {line.split()[0] for line in lines if "v1 Ready, v2 Ready" in line} == set(lives)

    row = models.holdout[0]
    (tmp_path / "row.json").write_text(json.dumps(row["features"]), encoding="utf-8")
    typed = ("predict", NAME, "--json", str(tmp_path / "row.json"), "--user")
    user = _user_of(plugin, "v2")
    answer = plugin.data(*typed, user)
    assert (answer["version"], answer["reason"]) == ("v2", "percentage")
    assert answer["prediction"] == row["answers"]["v2"]["prediction"]

    assert plugin("pause", NAME) == "pause of v2: done; v2 (20%, paused)\n"
    assert plugin("promote-step", NAME) == "promote-step of v2: done; v2 (50%, paused)\n"
    penguins.until_rollout("Paused", percent="50")
    assert penguins.flags.rollout is not None
    assert penguins.flags.rollout.hundredths == 5000
    assert plugin("resume", NAME) == "resume of v2: done; v2 (50%)\n"
    penguins.until_rollout("Holding", percent="50")

    assert plugin("abort", NAME) == "abort of v2: done; v2 (aborted)\n"
    penguins.until_rollout("Aborted")
    assert plugin.data(*typed, user)["version"] == "v1"
    refused = plugin.run("promote-step", NAME)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "its rollout is Aborted" in refused.stderr

    assert plugin("retry", NAME).startswith("retry of v2: done; v2 (")
    penguins.until_rollout("Holding", percent="20")
    assert plugin.data(*typed, user)["version"] == "v2"
    assert penguins.lives() == lives


def test_promoted_and_rolled_back(penguins: Penguins, plugin: Plugin) -> None:
    """`promote` and `rollback` print the change, and make it when told to; every pod flips, none restarts."""
    penguins.apply(rollout=STEPS)
    penguins.until_rollout("Holding", percent="20")
    lives = penguins.lives()
    assert plugin("promote", NAME) == f"in the YAML of {NAME}:\n-  version: v1\n+  version: v2\n"
    assert penguins.found["spec"]["version"] == "v1"
    plugin("promote", NAME, "--apply")
    penguins.until_promoted("v2")
    assert [production for production, _ in _versions_by_pod(plugin.data("status", NAME))] == ["v2", "v2"]
    assert plugin("rollback", NAME, "--apply").endswith("-  version: v2\n+  version: v1\n")
    penguins.until_promoted("v1")
    seen = plugin.data("status", NAME)
    assert [production for production, _ in _versions_by_pod(seen)] == ["v1", "v1"]
    assert seen["status"]["previousVersion"] == "v2"
    assert penguins.lives() == lives


def test_a_refused_version_is_shown_and_tried_again(penguins: Penguins, plugin: Plugin) -> None:
    """`status` shows the sample that differs; `retry` of a version that is asked for proves it anew."""
    penguins.apply()
    plugin("promote", NAME, "v3-broken", "--apply")
    penguins.until_refused("v3-broken")
    seen = plugin.data("status", NAME)
    failure = seen["status"]["lastFailure"]
    assert (failure["version"], failure["reason"]) == ("v3-broken", "GoldenMismatch")
    assert {production for production, _ in _versions_by_pod(seen)} == {"v1"}
    shown = plugin("status", NAME)
    assert "asked for v3-broken" in shown
    assert failure["found"] in shown
    attempts = len(seen["status"]["history"])
    assert plugin("retry", NAME).startswith("retry of v3-broken: done; v3-broken (")
    penguins.until(
        lambda found: (
            len(found["status"]["history"]) > attempts and found["status"]["promotion"]["state"] == "Refused"
        )
    )
    assert plugin.data("status", NAME)["status"]["version"] == "v1"


@pytest.mark.parametrize("placement", ["Sidecar", "Deployment"])
def test_shadows_are_shown(placement: str, penguins: Penguins, plugin: Plugin) -> None:
    """`status` tells of the shadow, and of each pod that has one, wherever it runs."""
    penguins.apply(shadow={"version": "v2", "placement": placement})
    penguins.until(lambda found: found["status"].get("shadow", {}).get("state") == "Waiting")
    seen = plugin.data("status", NAME)
    held = [one["report"]["process"]["version"] for one in seen["shadows"]]
    assert [(one["name"], one["state"]) for one in held] == [("v2", "Ready")] * len(held)
    assert len(held) == (2 if placement == "Sidecar" else 1)
    assert len(seen["pods"]) == 2
    assert "v2 Ready" in plugin("status", NAME)
