"""The operator's own pods, for tests that kill it."""

import os
import signal
from pathlib import Path
from typing import Any

from tests.support.kubectl import Kubectl


def _operator_pods(kubectl: Kubectl, namespace: str) -> list[dict[str, Any]]:
    selector = "app.kubernetes.io/name=greenroom"
    found: list[dict[str, Any]] = kubectl.get("pods", "--namespace", namespace, "-l", selector)["items"]
    return found


def count_restarts(kubectl: Kubectl, namespace: str) -> int:
    """Return how often the operator's containers were started again."""
    return sum(
        container["restartCount"]
        for pod in _operator_pods(kubectl, namespace)
        for container in pod["status"].get("containerStatuses", ())
    )


def kill_operator(kubectl: Kubectl, namespace: str) -> None:
    """Kill the operator's process as the kernel would, by its pid on this machine."""
    uids = {pod["metadata"]["uid"] for pod in _operator_pods(kubectl, namespace)}
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
