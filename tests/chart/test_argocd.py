"""The patch of Argo CD's ConfigMap."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e.cluster import ApiServer
from tests.chart.rendering import CHART, Manifest, only, render, run_helm
from tests.support.argocd import ACTIONS, KIND
from tests.support.kubectl import Kubectl

ASKED = ("--set", "argocd.customizations=true")
PATCH = ("--show-only", "templates/argocd-cm.yaml", *ASKED)
HEALTH = "resource.customizations.health.greenroom.dev_ModelDeployment"
CUSTOM_ACTIONS = "resource.customizations.actions.greenroom.dev_ModelDeployment"


@pytest.fixture(scope="module")
def patch() -> Manifest:
    """Return the patch as docs/gitops.md renders it."""
    (manifest,) = render(*PATCH)
    return manifest


@pytest.fixture(scope="module")
def api_server() -> Iterator[ApiServer]:
    """Start an API server without nodes."""
    with ApiServer() as server:
        yield server


@pytest.fixture(scope="module")
def kubectl(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Return the administrator's kubectl, where Argo CD's ConfigMap is as it is after its installation."""
    cache = tmp_path_factory.mktemp("kubectl-cache")
    kubectl = Kubectl(api_server.bin / "kubectl", api_server.kubeconfig, cache)
    kubectl("create", "namespace", "argocd")
    kubectl("create", "namespace", "ml")
    labels = {"app.kubernetes.io/name": "argocd-cm", "app.kubernetes.io/part-of": "argocd"}
    metadata = {"name": "argocd-cm", "namespace": "argocd", "labels": labels}
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"url": "https://argo"}}
    kubectl("apply", "--filename=-", document=theirs)
    return kubectl


def test_no_release_has_it() -> None:
    """Unless asked for, nothing is rendered for Argo CD."""
    assert all(manifest["metadata"]["name"] != "argocd-cm" for manifest in render())


def test_the_patch_has_each_script_unchanged(patch: Manifest) -> None:
    """What Argo CD is given is what the folder has and its tests test, to the letter."""
    actions = yaml.safe_load(patch["data"][CUSTOM_ACTIONS])
    files = {path.parent.name: path.read_text(encoding="utf-8") for path in ACTIONS.glob("*/action.lua")}

    assert patch["data"].keys() == {HEALTH, CUSTOM_ACTIONS}
    assert patch["data"][HEALTH] == (KIND / "health.lua").read_text(encoding="utf-8")
    assert actions["discovery.lua"] == (ACTIONS / "discovery.lua").read_text(encoding="utf-8")
    assert {action["name"]: action["action.lua"] for action in actions["definitions"]} == files


def test_the_patch_touches_nothing_else_of_argo_cd(patch: Manifest, kubectl: Kubectl, tmp_path: Path) -> None:
    """By the command of docs/gitops.md, once and again, it adds its keys; all else stays Argo CD's.

    A server-side apply would not do: kubectl hands it all that was applied from the client before, which it
    then removes.
    """
    before = kubectl.get("configmap", "argocd-cm", "--namespace", "argocd")
    file = tmp_path / "greenroom-argocd-cm.yaml"
    file.write_text(yaml.safe_dump(patch), encoding="utf-8")
    for _ in range(2):
        kubectl("--namespace", "argocd", "patch", "configmap", "argocd-cm", f"--patch-file={file}")
    after = kubectl.get("configmap", "argocd-cm", "--namespace", "argocd")

    assert after["data"] == before["data"] | patch["data"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]


def test_argo_cd_may_be_elsewhere() -> None:
    """The namespace is a value, and so is only a namespace's name."""
    manifest = only(render(*PATCH, "--set", "argocd.namespace=gitops"), "ConfigMap")

    assert manifest["metadata"]["namespace"] == "gitops"


def test_an_installation_refuses_to_own_it(api_server: ApiServer, kubectl: Kubectl) -> None:
    """Asked for in an installation, it is refused with the command to use, and nothing is installed."""
    arguments = ("--kubeconfig", api_server.kubeconfig, "--namespace", "ml", *ASKED)
    done = run_helm("install", "gr", CHART, *arguments)

    assert done.returncode != 0
    assert "is part of no release" in done.stderr
    assert "kubectl patch configmap argocd-cm" in done.stderr
    assert kubectl.get("deployments", "--namespace", "ml")["items"] == []
