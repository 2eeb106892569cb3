"""The API server alone, in earnest."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import ApiServer, paths
from e2e.cluster.process import Identity
from e2e.cluster.record import Record

OWNER = """
import time
from e2e.cluster import ApiServer
with ApiServer() as server:
    print(server.kubeconfig.parent, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """Give the API server of the tests that leave it running."""
    with ApiServer() as server:
        yield server


def kubectl(server: ApiServer, *words: str) -> str:
    """Run kubectl."""
    command: list[str | Path] = [server.bin / "kubectl", "--kubeconfig", server.kubeconfig, *words]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def test_version_is_the_one_that_clients_expect(server: ApiServer) -> None:
    """The API server reports the version of Kubernetes from which it is built."""
    assert json.loads(kubectl(server, "get", "--raw", "/version"))["gitVersion"].startswith("v1.34.")


def test_objects_survive_a_crash_and_a_restart(server: ApiServer) -> None:
    """After a kill it answers at the same place, and what was stored is there."""
    kubectl(server, "create", "configmap", "survivor")
    url = server.url
    server.kill()
    with pytest.raises(subprocess.CalledProcessError):
        kubectl(server, "get", "configmap", "survivor")
    server.restart()
    assert server.url == url
    assert "survivor" in kubectl(server, "get", "configmaps", "--output=name")


def test_two_at_once_are_strangers(server: ApiServer) -> None:
    """Two API servers have ports and objects of their own."""
    with ApiServer() as other:
        assert other.url != server.url
        kubectl(other, "create", "configmap", "only-here")
        assert "only-here" not in kubectl(server, "get", "configmaps", "--output=name")


def test_controllers_collect_garbage() -> None:
    """With controllers, what belongs to a deleted object is deleted."""
    with ApiServer(controllers=True) as server:
        kubectl(server, "create", "deployment", "web", "--image=none")
        kubectl(server, "wait", "--for=create", "replicasets", "--selector=app=web", "--timeout=60s")
        kubectl(server, "delete", "deployment", "web")
        kubectl(server, "wait", "--for=delete", "replicasets", "--selector=app=web", "--timeout=60s")


def test_end_leaves_nothing() -> None:
    """After its end there is no process and no file of it."""
    with ApiServer() as server:
        directory = server.kubeconfig.parent
        processes = _recorded(directory)
    assert not any(process.alive for process in processes)
    assert not directory.exists()


def test_killed_owner_leaves_nothing() -> None:
    """After a kill -9 of its owner, its guard removes it."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=paths.REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        directory = Path(owner.stdout.readline().strip())
        processes = _recorded(directory)
        assert all(process.alive for process in processes)
        os.kill(owner.pid, signal.SIGKILL)
    while directory.exists():
        time.sleep(0.05)
    assert not any(process.alive for process in processes)


def _recorded(directory: Path) -> list[Identity]:
    record = Record.load(directory)
    assert record is not None
    return list(record.processes.values())
