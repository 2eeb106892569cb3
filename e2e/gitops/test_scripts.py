"""The folder of our kind, run by Argo CD's own Lua: what tests/gitops holds with another one."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import golang
from e2e.cluster.shell import run
from e2e.gitops.argocd import PATCH
from e2e.terminal import ROOT
from tests.support.argocd import ACTIONS, KIND

HEALTH = yaml.safe_load((KIND / "health_test.yaml").read_text(encoding="utf-8"))["tests"]
TESTS = yaml.safe_load((ACTIONS / "action_test.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with Argo CD's ConfigMap as the chart patches it, and an empty Secret."""
    directory = tmp_path_factory.mktemp("argocd")
    programs = golang.build(golang.ARGOCD)
    helm = golang.build(golang.HELM) / "helm"
    patch = yaml.safe_load(run([helm, *PATCH[1:]], cwd=ROOT))
    theirs = yaml.safe_load((programs / "argocd-cm.yaml").read_text(encoding="utf-8"))
    theirs["data"] |= patch["data"]
    (directory / "argocd-cm.yaml").write_text(yaml.safe_dump(theirs), encoding="utf-8")
    secret = (programs / "argocd-secret.yaml").read_text(encoding="utf-8")
    (directory / "argocd-secret.yaml").write_text(secret, encoding="utf-8")
    return directory


def ask(configured: Path, verb: str, *arguments: str | Path) -> str:
    """Return what Argo CD's command line says of an object in a file."""
    settings = ("--argocd-cm-path", "argocd-cm.yaml", "--argocd-secret-path", "argocd-secret.yaml")
    command = (golang.build(golang.ARGOCD) / "argocd", "admin", "settings", "resource-overrides", verb)
    return run([*command, *arguments, *settings], cwd=configured)


@pytest.mark.parametrize("case", HEALTH, ids=lambda case: case["inputPath"])
def test_health(configured: Path, case: dict[str, Any]) -> None:
    """Argo CD gives each object of the folder the health that health_test.yaml says."""
    expected = case["healthStatus"]
    said = ask(configured, "health", KIND / case["inputPath"])

    assert said.splitlines() == [f"STATUS: {expected['status']}", f"MESSAGE: {expected['message']}"]


@pytest.mark.parametrize("case", TESTS["discoveryTests"], ids=lambda case: case["inputPath"])
def test_discovery(configured: Path, case: dict[str, Any]) -> None:
    """Argo CD offers for each object of the folder the actions that action_test.yaml says."""
    said = ask(configured, "list-actions", ACTIONS / case["inputPath"]).splitlines()[1:]

    assert dict(line.split() for line in said) == {
        action["name"]: json.dumps(action["disabled"]) for action in case["result"]
    }


@pytest.mark.parametrize(
    "case",
    [case for case in TESTS["actionTests"] if "expectedOutputPath" in case],
    ids=lambda case: f"{case['action']} {case['inputPath']}",
)
def test_actions(configured: Path, case: dict[str, Any]) -> None:
    """Argo CD's action gives the annotation the value that the folder's expected object has."""
    found = yaml.safe_load((ACTIONS / case["expectedOutputPath"]).read_text(encoding="utf-8"))
    value = found["metadata"]["annotations"]["greenroom.dev/action"]
    said = ask(configured, "run-action", ACTIONS / case["inputPath"], case["action"])

    assert f"greenroom.dev/action: {value}" in said
    assert len([line for line in said.splitlines() if line.startswith(("<", ">"))]) <= 2
