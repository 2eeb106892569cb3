"""The embedded cluster, in earnest: it works, several work side by side, and nothing of it stays."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from e2e.cluster import cgroups, images, paths, sweep
from e2e.cluster.embedded import Embedded
from e2e.cluster.network import NETWORKS
from e2e.cluster.node import PAUSE_IMAGE
from e2e.cluster.record import HOLDER, Record


@pytest.fixture(autouse=True)
def _as_root() -> None:
    """Fail with the remedy, rather than be silent about what was not tried."""
    if os.geteuid() != 0:
        pytest.fail("the embedded cluster needs root: sudo make e2e")


IMAGE = "localhost/greenroom/hello:test"
DOCKERFILE = r"""
FROM debian:trixie-slim
COPY hello.pl /hello.pl
USER 65532
CMD ["perl", "/hello.pl"]
"""
HELLO = r"""
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die;
while (my $client = $server->accept) {
    while (<$client>) { last if /^\r\n$/ }
    print $client "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    close $client;
}
"""
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "hello"},
    "spec": {
        "selector": {"matchLabels": {"app": "hello"}},
        "template": {
            "metadata": {"labels": {"app": "hello"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "hello",
                        "image": IMAGE,
                        "imagePullPolicy": "Never",
                        "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
                        "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "runAsNonRoot": True,
                            "capabilities": {"drop": ["ALL"]},
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                    }
                ],
            },
        },
    },
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "idle"},
    "spec": {
        "containers": [
            {
                "name": "idle",
                "image": PAUSE_IMAGE,
                "imagePullPolicy": "Never",
                "volumeMounts": [{"name": "memory", "mountPath": "/memory"}],
            }
        ],
        "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}],
    },
}
OWNER = """
import sys, time
from e2e.cluster.embedded import Embedded
Embedded.up(sys.argv[1])
print("up", flush=True)
time.sleep(600)
"""


def name(suffix: str) -> str:
    """Return a name for a cluster of this run."""
    return f"test-{os.getpid()}-{suffix}"


def kubectl(cluster: Embedded, *words: str, stdin: object = None) -> str:
    """Run kubectl, with a manifest if one is given."""
    command: list[str | Path] = [cluster.bin / "kubectl", "--kubeconfig", cluster.kubeconfig, *words]
    given = json.dumps(stdin) if stdin else None
    return subprocess.run(command, capture_output=True, check=True, text=True, input=given).stdout


def run_idle_pod(cluster: Embedded) -> None:
    """Run a pod that has mounts, and wait until it is ready."""
    kubectl(cluster, "apply", "--filename=-", stdin=POD)
    kubectl(cluster, "wait", "--for=condition=Ready", "pod/idle", "--timeout=120s")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Embedded]:
    """Give the cluster of the tests that leave it as it is."""
    cluster = Embedded.up(name("shared"))
    yield cluster
    cluster.down()


@pytest.fixture(scope="module")
def hello(cluster: Embedded, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the ClusterIP of a Service of pods of an image that was built here."""
    context = tmp_path_factory.mktemp("hello")
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "hello.pl").write_text(HELLO)
    cluster.build_and_load(IMAGE, context / "Dockerfile", context)
    kubectl(cluster, "apply", "--filename=-", stdin=DEPLOYMENT)
    kubectl(cluster, "expose", "deployment", "hello", "--port=80", "--target-port=8080")
    kubectl(cluster, "rollout", "status", "deployment/hello", "--timeout=120s")
    address = kubectl(cluster, "get", "service", "hello", "--output=jsonpath={.spec.clusterIP}")
    while not answers(address):
        # kube-proxy writes its rules a moment after the pod is ready.
        time.sleep(0.1)
    return address


def read(address: str) -> bytes:
    """Return what an address answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/", timeout=60) as response:
        answer: bytes = response.read()
        return answer


def answers(address: str) -> bool:
    """Whether somebody answers there."""
    try:
        read(address)
    except OSError:
        return False
    return True


def test_services_and_pods_answer_in_the_ordinary_network(cluster: Embedded, hello: str) -> None:
    """A test process reaches ClusterIPs and pods directly."""
    pod = kubectl(
        cluster, "get", "pods", "--selector=app=hello", "--output=jsonpath={.items[0].status.podIP}"
    )
    assert read(hello) == b"hello"
    assert read(f"{pod}:8080") == b"hello"


def test_connection_before_its_service_is_not_remembered(cluster: Embedded, hello: str) -> None:
    """What was refused because its Service was not there yet is answered later, on the same port, too."""
    services = next(each.services for each in NETWORKS if IPv4Address(hello) in each.services)
    address = str(services[4000])
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(OSError, match="No route to host"):
        connect_from(port, address)
    expose = ("expose", "deployment", "hello", "--name=later", f"--cluster-ip={address}")
    kubectl(cluster, *expose, "--port=80", "--target-port=8080")
    while not answers(address):
        time.sleep(0.1)
    connect_from(port, address)


def connect_from(port: int, address: str) -> None:
    """Connect to port 80 of an address from a port of this machine, and hang up at once."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("", port))
        client.settimeout(10)
        client.connect((address, 80))


@pytest.mark.usefixtures("hello")
def test_pods_find_services_by_name(cluster: Embedded) -> None:
    """The cluster's DNS answers in pods; kubectl exec works."""
    found = kubectl(cluster, "exec", "deployment/hello", "--", "getent", "hosts", "kubernetes.default")
    assert "kubernetes.default.svc.cluster.local" in found


def test_there_is_no_way_out(cluster: Embedded) -> None:
    """From the cluster's network nothing but this machine can be reached."""
    routes = subprocess.run(
        [*cluster.exec_prefix, "ip", "route"], capture_output=True, check=True, text=True
    ).stdout
    assert routes
    assert "default" not in routes


def test_unchanged_image_is_not_archived_again(tmp_path: Path) -> None:
    """The same sources give the same image and the same archive, not a new one."""
    (tmp_path / "Dockerfile").write_text("FROM debian:trixie-slim\nENV A=1\n")
    first = images.build("localhost/greenroom/same:test", tmp_path / "Dockerfile", tmp_path)
    written = first.archive.stat().st_ino
    second = images.build("localhost/greenroom/same:test", tmp_path / "Dockerfile", tmp_path)
    assert second == first
    assert second.archive.stat().st_ino == written


def test_components_can_be_killed_and_restarted(cluster: Embedded) -> None:
    """A test may kill the API server of a cluster and bring it back."""
    cluster.components.kill("kube-apiserver")
    with pytest.raises(subprocess.CalledProcessError):
        kubectl(cluster, "get", "nodes")
    cluster.components.restart("kube-apiserver")
    cluster.wait_ready()
    assert "node" in kubectl(cluster, "get", "nodes")


def test_two_side_by_side_and_down_without_trace() -> None:
    """Two clusters started at once run their own pods; after `down` nothing of them is on this machine."""
    with ThreadPoolExecutor() as pool:
        clusters = list(pool.map(Embedded.up, (name("left"), name("right"))))
    try:
        for cluster in clusters:
            run_idle_pod(cluster)
        for cluster in clusters:
            assert kubectl(cluster, "get", "pods", "--output=name").split() == ["pod/idle"]
        before = [Trace(cluster.name) for cluster in clusters]
        assert all(len(trace.found()) > 3 for trace in before)
    finally:
        for cluster in clusters:
            cluster.down()
    assert [trace.found() for trace in before] == [[], []]


def test_killed_owner_leaves_no_trace() -> None:
    """After a kill -9 of the process that started it, a cluster's guard removes it."""
    owner = start_owner(name("orphan"))
    trace = Trace(name("orphan"))
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    while trace.found():
        time.sleep(0.05)


def test_next_start_cleans_up_after_killed_owner_and_guard() -> None:
    """If the guard was killed too, the next start of any cluster removes what was left."""
    owner = start_owner(name("lost"))
    trace = Trace(name("lost"))
    for guard in trace.guards():
        os.kill(guard, signal.SIGKILL)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert trace.found() != []
    with sweep.registry():
        sweep.remove_abandoned_clusters()
    assert trace.found() == []


def start_owner(cluster: str) -> "subprocess.Popen[str]":
    """Start a process that starts a cluster with a pod in it, and lives on."""
    command = [sys.executable, "-c", OWNER, cluster]
    owner = subprocess.Popen(command, cwd=paths.REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    running = Embedded.find(cluster)
    assert running is not None
    run_idle_pod(running)
    return owner


class Trace:
    """What a running cluster is on this machine, to be looked for once it is down."""

    def __init__(self, cluster: str) -> None:
        self._directory = paths.clusters() / cluster
        record = Record.load(self._directory)
        assert record is not None
        assert record.network is not None
        self._group = cgroups.group(cluster)
        self._addresses = NETWORKS[record.network].whole
        self._namespaces = self._namespaces_of(record.processes[HOLDER].pid)

    def found(self) -> list[str]:
        """Return all that is there of the cluster."""
        return [*self._files(), *self._groups(), *self._processes(), *self._mounts(), *self._routes()]

    def guards(self) -> list[int]:
        """Return the process ids of the cluster's guards."""
        return [pid for pid, command in _commands() if f"guard\0{self._directory}\0" in command]

    @staticmethod
    def _namespaces_of(pid: int) -> set[str]:
        try:
            return {str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in ("net", "mnt")}
        except OSError:
            return set()

    def _files(self) -> list[str]:
        return [str(self._directory)] if self._directory.exists() else []

    def _groups(self) -> list[str]:
        groups = [hierarchy / self._group[1:] for hierarchy in cgroups.hierarchies()]
        return [str(group) for group in groups if group.exists()]

    def _processes(self) -> list[str]:
        found = []
        for pid, command in _commands():
            groups = _text(f"/proc/{pid}/cgroup")
            mine = f"{self._group}/" in groups or str(self._directory) in command
            if mine or self._namespaces_of(pid) & self._namespaces:
                found.append(f"process {pid} {command}")
        return found

    def _mounts(self) -> list[str]:
        mounts = {line for pid, _ in _commands() for line in _text(f"/proc/{pid}/mountinfo").splitlines()}
        return [line for line in mounts if f"{self._directory}/" in line or f"{self._group}/" in line]

    def _routes(self) -> list[str]:
        routes = json.loads(subprocess.run(["ip", "-json", "route"], capture_output=True, check=True).stdout)
        targets = [IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
        return [f"route {target}" for target in targets if target.overlaps(self._addresses)]


def _commands() -> list[tuple[int, str]]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    # What has ended and waits for init to collect it has neither files nor namespaces, nor a command line.
    commands = [(pid, _text(f"/proc/{pid}/cmdline")) for pid in pids]
    return [(pid, command) for pid, command in commands if command]


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
