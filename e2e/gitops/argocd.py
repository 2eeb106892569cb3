"""Argo CD itself: its controller, repo server and API server as processes of this machine, for a cluster."""

import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import yaml

from e2e.cluster import Cluster, debian, golang
from e2e.cluster.process import Component, Components, wait_until
from e2e.terminal import Terminal

NAMESPACE = "argocd"
LOOPBACK = "127.0.0.1"
PATCH = (
    *("helm", "template", "greenroom", "charts/greenroom"),
    *("--show-only", "templates/argocd-cm.yaml", "--set", "argocd.customizations=true"),
)
"""How docs/gitops.md renders what Argo CD needs to know of a ModelDeployment."""
PROJECT = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "AppProject",
    "metadata": {"name": "default", "namespace": NAMESPACE},
    "spec": {
        "sourceRepos": ["*"],
        "destinations": [{"server": "*", "namespace": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    },
}
"""What an Application may do unless somebody says otherwise."""
# Nobody is left to end them if these tests are killed.
ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")


class ArgoCD:
    """A context manager: Argo CD as its own manifests configure it, and with the chart's patch.

    It is no part of the cluster: it reaches its API server as kubectl does, from outside.
    """

    def __init__(self, cluster: Cluster, terminal: Terminal) -> None:
        self._cluster = cluster
        self._terminal = terminal
        self._directory: Path
        self._components: Components
        self._ports: dict[str, int]
        self._programs: Path

    @property
    def url(self) -> str:
        """Where its API server answers, without authentication."""
        return f"http://{self._address('server')}"

    @property
    def cli(self) -> tuple[str, ...]:
        """Return the beginning of a command of its command line."""
        server = ("--server", self._address("server"), "--plaintext")
        return (str(self._programs / "argocd"), *server, "--config", str(self._directory / "config"))

    def __enter__(self) -> Self:
        debian.install(debian.GITOPS)
        self._programs = golang.build(golang.ARGOCD)
        self._directory = Path(tempfile.mkdtemp(prefix="greenroom-argocd-"))
        self._components = Components(self._directory / "logs", lambda _name, _identity: None)
        self._ports = _free_ports("redis", "repo", "repo-metrics", "controller-metrics", "server", "metrics")
        try:
            self._configure()
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._terminal.run("kubectl", "delete", "namespace", NAMESPACE, "--wait=true")

    def get(self, path: str, **query: str) -> Any:
        """Return what its API server answers below /api/v1/applications/."""
        self._components.check()
        with httpx2.Client(trust_env=False, timeout=60) as client:
            answer = client.get(f"{self.url}/api/v1/applications/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def run(self, *arguments: str) -> str:
        """Run its command line and return what it says; ClusterError when it fails."""
        return self._terminal.run(*self.cli, *arguments)

    def log(self, name: str, lines: int = 40) -> str:
        """Return the end of what one of its processes wrote."""
        return self._components.tail(name, lines)

    def _configure(self) -> None:
        """Put its kinds and its configuration into the cluster, and our patch into that."""
        run, kubectl = self._terminal.run, self._terminal.kubectl
        # Before anything else: where there is an Argo CD already, it is somebody's.
        run("kubectl", "create", "namespace", NAMESPACE)
        for file in sorted(self._programs.glob("*-crd.yaml")):
            # Too large for the annotation of a client-side apply.
            run("kubectl", "apply", "--server-side", "--force-conflicts", "--filename", str(file))
        for name in ("argocd-cm", "argocd-rbac-cm", "argocd-secret"):
            kubectl(NAMESPACE, "apply", "--filename", str(self._programs / f"{name}.yaml"))
        patch = self._directory / "greenroom-argocd-cm.yaml"
        patch.write_text(run(*PATCH), encoding="utf-8")
        kubectl(NAMESPACE, "patch", "configmap", "argocd-cm", "--patch-file", str(patch))
        for crd in ("applications", "appprojects"):
            run("kubectl", "wait", "--for=condition=Established", f"crd/{crd}.argoproj.io", "--timeout=60s")
        run("kubectl", "apply", "--filename=-", stdin=yaml.safe_dump(PROJECT))

    def _start(self) -> None:
        redis, repo = self._address("redis"), self._address("repo")
        shared = (
            *(f"--redis={redis}", f"--repo-server={repo}", "--repo-server-plaintext"),
            *(f"--namespace={NAMESPACE}", "--loglevel=warn"),
        )
        self._run(
            "redis-server",
            *("--bind", LOOPBACK, "--port", str(self._ports["redis"]), "--save", "", "--appendonly", "no"),
        )
        self._wait_for("redis", "redis-server")
        self._run(
            "argocd-repo-server",
            *(f"--address={LOOPBACK}", f"--port={self._ports['repo']}", "--disable-tls"),
            *(f"--metrics-address={LOOPBACK}", f"--metrics-port={self._ports['repo-metrics']}"),
            *(f"--redis={redis}", "--loglevel=warn"),
        )
        self._wait_for("repo", "argocd-repo-server")
        self._run(
            "argocd-server",
            *shared,
            *(f"--address={LOOPBACK}", f"--port={self._ports['server']}", "--insecure", "--disable-auth"),
            *(f"--metrics-address={LOOPBACK}", f"--metrics-port={self._ports['metrics']}"),
        )
        self._wait_for("server", "argocd-server")
        self._run(
            "argocd-application-controller", *shared, f"--metrics-port={self._ports['controller-metrics']}"
        )
        self._wait_for("controller-metrics", "argocd-application-controller")

    def _run(self, name: str, *arguments: str) -> None:
        program = debian.find(name) or str(self._programs / name)
        self._components.start(Component(name, (*ENDS_WITH_US, program, *arguments), self._environment()))

    def _environment(self) -> Mapping[str, str]:
        here = {name: self._directory / name for name in ("home", "tmp", "ssh", "tls")}
        for directory in here.values():
            directory.mkdir(exist_ok=True)
        return {
            "KUBECONFIG": str(self._cluster.kubeconfig),
            # What an Application calls https://kubernetes.default.svc is the cluster of the kubeconfig.
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_SSH_DATA_PATH": str(here["ssh"]),
            "ARGOCD_TLS_DATA_PATH": str(here["tls"]),
            "ARGOCD_ASK_PASS_SOCK": str(here["tmp"] / "ask-pass.sock"),
            "HOME": str(here["home"]),
            "TMPDIR": str(here["tmp"]),
            "PATH": self._terminal.env["PATH"],
        }

    def _address(self, name: str) -> str:
        return f"{LOOPBACK}:{self._ports[name]}"

    def _wait_for(self, port: str, what: str) -> None:
        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((LOOPBACK, self._ports[port])) == 0

        wait_until(answers, what, self._components)

    def _close(self) -> None:
        for name in ("argocd-application-controller", "argocd-server", "argocd-repo-server", "redis-server"):
            self._components.stop(name)
        shutil.rmtree(self._directory, ignore_errors=True)


def _free_ports(*names: str) -> dict[str, int]:
    """Return ports of loopback on which nobody listens, each of its own."""
    probes = [socket.create_server((LOOPBACK, 0)) for _ in names]
    try:
        return {name: probe.getsockname()[1] for name, probe in zip(names, probes, strict=True)}
    finally:
        for probe in probes:
            probe.close()
