"""A cluster, Greenroom installed in it by its chart, and trained models in an S3 server: once a session."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e import installation
from e2e.cluster import Cluster, ClusterError, provide, providers
from e2e.penguins import Penguins, reached
from e2e.store import ModelStore
from e2e.terminal import ROOT, Terminal
from tests.support.kubectl import Kubectl
from tests.support.reruns import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]
collect_ignore = ["gitops"]
"""Has a target of its own, `make e2e-gitops`; pytest collects it where it is named."""
STORE_NAMESPACE = "greenroom-store"
STORE_SECRET = "models-store"
"""The name by which the examples' ModelDeployments know their credentials."""


@dataclass(frozen=True)
class TrainedModels:
    """The example models: on this machine as they were trained, and in the cluster's S3 server."""

    directory: Path
    """Holds v1/, v2/, v3-broken/ and holdout.jsonl."""
    store: ModelStore
    uri: str

    @property
    def holdout(self) -> list[dict[str, Any]]:
        """Rows that no version has seen: ``features``, and the pipelines' own ``answers`` by version."""
        lines = (self.directory / "holdout.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Features that no version has seen."""
        return [row["features"] for row in self.holdout]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Give a cluster that goes with this session; E2E_CLUSTER=dev takes the running one of that name."""
    if name := os.environ.get("E2E_CLUSTER"):
        running = providers.find(name)
        if running is None:
            pytest.exit(
                f"E2E_CLUSTER={name}: there is no such cluster; start it: make cluster CLUSTER_NAME={name}"
            )
        yield running
    else:
        with provide(f"e2e-{os.getpid()}") as fresh:
            yield fresh


@pytest.fixture(scope="session")
def terminal(cluster: Cluster) -> Terminal:
    """Return a terminal of the cluster's administrator, with a way to its Services: `reach`."""
    return Terminal.of(cluster)


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Return the cluster's kubectl, as administrator."""
    return Kubectl(cluster.bin / "kubectl", cluster.kubeconfig, tmp_path_factory.mktemp("kubectl-cache"))


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> dict[str, str]:
    """Build our images and put them on the node; return their names by the chart's values."""
    installation.load_images(cluster)
    return installation.images()


@pytest.fixture(scope="session")
def operator(images: dict[str, str], terminal: Terminal) -> Iterator[str]:
    """Install the chart for all namespaces; return the namespace of the operator, which is ready."""
    assert images
    installation.install(terminal, values={"clusterWide": True})
    yield installation.NAMESPACE
    log = terminal.kubectl(installation.NAMESPACE, "logs", f"deployment/{installation.RELEASE}", "--tail=-1")
    # A 403 alone is no proof: a namespace on its way out answers so to everybody.
    refused = [line for line in log.splitlines() if "is forbidden: User" in line]
    assert refused == [], "the chart grants less than the operator asks for"


@pytest.fixture(scope="session")
def models(
    cluster: Cluster, terminal: Terminal, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> TrainedModels:
    """Train and package the penguin models and put them into an S3 server in the cluster."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STORE_NAMESPACE}}
    kubectl("apply", "--filename=-", document=namespace)
    store = ModelStore.deploy(cluster, terminal, namespace=STORE_NAMESPACE)
    directory = tmp_path_factory.mktemp("models") / "penguins"
    train = ROOT / "examples" / "penguins" / "train.py"
    subprocess.run([sys.executable, train, "--to", directory, "--with-broken"], check=True, timeout=300)
    store.upload(directory, prefix="penguins")
    return TrainedModels(directory=directory, store=store, uri=f"s3://{store.bucket}/penguins")


@pytest.fixture
def namespace(request: pytest.FixtureRequest, kubectl: Kubectl, models: TrainedModels) -> Iterator[str]:
    """Give a namespace that goes with this test, enforces `restricted` and has the models' Secret."""
    stem = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    name = f"e2e-{stem}-{uuid.uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl(
        "apply",
        "--filename=-",
        document={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
    )
    kubectl("--namespace", name, "apply", "--filename=-", document=models.store.secret(STORE_SECRET))
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def penguins(kubectl: Kubectl, namespace: str) -> Penguins:
    """Return the example in a namespace of its own; nothing is applied yet."""
    return Penguins(kubectl, namespace)


@pytest.fixture
def url(penguins: Penguins, terminal: Terminal) -> Iterator[str]:
    """Apply the example, wait until it is Ready, and return where its Service answers."""
    penguins.apply()
    with reached(terminal, penguins.namespace) as url:
        yield url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Limit the time of each test here, but not that of its fixtures: the first one builds images."""
    for item in items:
        if item.path.is_relative_to(ROOT / "e2e") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failed test what the cluster has to say about it."""
    report = yield
    arguments = getattr(item, "funcargs", {})
    if report.when == "call" and report.failed and "namespace" in arguments:
        report.sections.append(("cluster", _evidence(arguments["terminal"], arguments["namespace"])))
    return report


def _evidence(terminal: Terminal, namespace: str) -> str:
    commands = (
        ("get", "md,pods,services,configmaps", "--output=wide"),
        ("describe", "md"),
        ("describe", "pods"),
        ("get", "events", "--sort-by=.lastTimestamp"),
    )
    said = []
    for command in commands:
        try:
            said.append(terminal.kubectl(namespace, *command)[-6000:])
        except ClusterError as failure:
            said.append(str(failure))
    return "\n".join([*said, installation.diagnosis(terminal)])
