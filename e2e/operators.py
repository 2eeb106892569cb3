"""The operator's own pods, for tests that kill it."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from e2e.reader import Reader
from tests.support.kubectl import Kubectl

SELECTOR = "app.kubernetes.io/name=greenroom"


def _operator_pods(reader: Reader, namespace: str) -> list[dict[str, Any]]:
    path = f"/api/v1/namespaces/{namespace}/pods"
    found: list[dict[str, Any]] = reader.get(path, labelSelector=SELECTOR)["items"]
    return found


def count_restarts(kubectl: Kubectl, namespace: str) -> int:
    """Return how often the operator's containers were started again."""
    return sum(
        container["restartCount"]
        for pod in _operator_pods(Reader(kubectl.kubeconfig), namespace)
        for container in pod["status"].get("containerStatuses", ())
    )


def kill_operator(kubectl: Kubectl, namespace: str) -> None:
    """Kill the operator's process as the kernel would, by its pid on this machine."""
    pods = _operator_pods(Reader(kubectl.kubeconfig), namespace)
    uids = {pod["metadata"]["uid"] for pod in pods}
    killed = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = (process / "cmdline").read_bytes()
            groups = (process / "cgroup").read_text()
        except OSError:
            continue
        if b"greenroom_operator" in command and any(uid in groups for uid in uids):
            os.kill(int(process.name), signal.SIGKILL)
            killed += 1
    assert killed, "the operator's process was not found: this test needs its node to be this machine"


def replace_operator(kubectl: Kubectl, namespace: str, *, patience: float = 180) -> None:
    """Kill the operator's process, take its pod away, and wait until another one is ready.

    kubelet waits ever longer before it starts the same container again, up to minutes.
    """
    reader = Reader(kubectl.kubeconfig)
    before = {pod["metadata"]["uid"] for pod in _operator_pods(reader, namespace)}
    kill_operator(kubectl, namespace)
    kubectl("delete", "pods", "--namespace", namespace, "-l", SELECTOR, "--force", "--grace-period=0")
    deadline = time.monotonic() + patience
    while not any(
        container["ready"]
        for pod in _operator_pods(reader, namespace)
        if pod["metadata"]["uid"] not in before
        for container in pod["status"].get("containerStatuses", ())
    ):
        assert time.monotonic() < deadline, f"no other operator is ready in {patience:g} s"
        time.sleep(0.2)
