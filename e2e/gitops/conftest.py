"""Argo CD beside the cluster, once a session; a repository and an Application for each test."""

import re
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import Cluster
from e2e.conftest import STORE_SECRET, TrainedModels
from e2e.gitops.application import Application
from e2e.gitops.argocd import ArgoCD
from e2e.gitops.repository import Repository
from e2e.penguins import EXAMPLE
from e2e.terminal import Terminal
from tests.support.kubectl import Kubectl


@pytest.fixture(scope="session")
def argocd(cluster: Cluster, terminal: Terminal) -> Iterator[ArgoCD]:
    """Start Argo CD, configured by its own manifests and the chart's patch."""
    with ArgoCD(cluster, terminal) as running:
        yield running


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """Return the name of a namespace that Git makes."""
    stem = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:36].strip("-")
    return f"gitops-{stem}-{uuid.uuid4().hex[:6]}"


@pytest.fixture
def repository(tmp_path: Path, namespace: str, models: TrainedModels) -> Repository:
    """Return a repository that has all a user needs: namespace, credentials, and the example."""
    repository = Repository.new(tmp_path / "models.git")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    repository.commit(
        "Serve penguins",
        {
            "namespace.yaml": {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": namespace, "labels": labels},
            },
            "secret.yaml": models.store.secret(STORE_SECRET),
            "modeldeployment.yaml": yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")),
        },
    )
    return repository


@pytest.fixture
def application(
    argocd: ArgoCD, kubectl: Kubectl, repository: Repository, namespace: str, operator: str
) -> Iterator[Application]:
    """Return the Application of that repository, not created yet; what it has made goes with the test."""
    assert operator
    application = Application(argocd, kubectl, repository, namespace)
    yield application
    application.delete()
    kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failed test what Argo CD has to say about it."""
    report = yield
    found: Any = getattr(item, "funcargs", {}).get("argocd")
    if report.when == "call" and report.failed and isinstance(found, ArgoCD):
        names = ("argocd-application-controller", "argocd-repo-server", "argocd-server")
        report.sections += [(name, found.log(name)) for name in names]
    return report
