"""Greenroom and the penguins' models on a cluster, for benchmarks that need real pods."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e import installation
from e2e.cluster import Cluster
from e2e.penguins import NAME, Penguins
from e2e.store import ModelStore
from e2e.terminal import ROOT, Terminal
from tests.support.kubectl import Kubectl

NAMESPACE = "bench"


@contextmanager
def installed(cluster: Cluster) -> Iterator[tuple[Penguins, Terminal, list[dict[str, Any]]]]:
    """Install Greenroom and its models; yield the example, a terminal and rows to ask about."""
    terminal = Terminal.of(cluster)
    installation.load_images(cluster)
    installation.install(terminal, values={"clusterWide": True})
    with tempfile.TemporaryDirectory() as directory:
        kubectl = Kubectl(cluster.bin / "kubectl", cluster.kubeconfig, Path(directory) / "cache")
        kubectl("create", "namespace", NAMESPACE)
        store = ModelStore.deploy(cluster, terminal, namespace=NAMESPACE)
        models = Path(directory) / NAME
        train = ROOT / "examples" / "penguins" / "train.py"
        subprocess.run([sys.executable, train, "--to", models], check=True, stdout=sys.stderr)
        store.upload(models, prefix=NAME)
        kubectl("apply", "--namespace", NAMESPACE, "--filename=-", document=store.secret("models-store"))
        lines = (models / "holdout.jsonl").read_text(encoding="utf-8").splitlines()
        yield Penguins(kubectl, NAMESPACE), terminal, [json.loads(line)["features"] for line in lines]
