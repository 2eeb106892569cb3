"""How etcd, the API server, the controllers and the scheduler are called."""

import base64
import json
import secrets
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster import pki
from e2e.cluster.process import Component

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """The ports of a control plane."""

    api: int = 6443
    etcd: int = 2379
    etcd_peer: int = 2380
    controllers: int = 10257
    scheduler: int = 10259


@dataclass(frozen=True)
class ControlPlane:
    """A control plane whose files lie in one directory."""

    directory: Path
    binaries: Path
    address: str
    """Where its clients reach it."""
    ports: Ports
    services: str
    """The range of the ClusterIPs."""
    flags: tuple[str, ...] = ()
    """More flags for the API server."""
    prefix: tuple[str, ...] = ()
    """What brings a component to its place: its cgroup and its namespaces."""

    @property
    def url(self) -> str:
        """Return the address of the API server."""
        return f"https://{self.address}:{self.ports.api}"

    @property
    def kubeconfig(self) -> Path:
        """Return an administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    @property
    def keys(self) -> pki.Pki:
        """Return the keys and certificates."""
        return pki.Pki(self.directory / "pki")

    @property
    def token(self) -> str:
        """Return an administrator's token."""
        return (self.keys.directory / "tokens.csv").read_text().partition(",")[0]

    def prepare(self, *addresses: str) -> None:
        """Write the keys, the administrator's token and the kubeconfig."""
        pki.create(self.keys.directory, [LOOPBACK, self.address, *addresses])
        token = secrets.token_hex(16)
        (self.keys.directory / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(
            json.dumps(kubeconfig(self.url, self.keys.ca.read_text(), token), indent=2)
        )

    def etcd(self) -> Component:
        """Return the store."""
        client, peer = f"http://{LOOPBACK}:{self.ports.etcd}", f"http://{LOOPBACK}:{self.ports.etcd_peer}"
        return self._component(
            "etcd",
            f"--data-dir={self.directory / 'etcd'}",
            # The store need not outlive a power failure; without this each write waits for the disk.
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--quota-backend-bytes=8589934592",
            "--log-level=warn",
        )

    def api_server(self) -> Component:
        """Return the API server."""
        keys = self.keys
        return self._component(
            "kube-apiserver",
            f"--etcd-servers=http://{LOOPBACK}:{self.ports.etcd}",
            f"--secure-port={self.ports.api}",
            f"--service-cluster-ip-range={self.services}",
            f"--tls-cert-file={keys.certificate('apiserver')}",
            f"--tls-private-key-file={keys.key('apiserver')}",
            f"--cert-dir={keys.directory}",
            f"--kubelet-certificate-authority={keys.ca}",
            f"--kubelet-client-certificate={keys.certificate('kubelet-client')}",
            f"--kubelet-client-key={keys.key('kubelet-client')}",
            # Else logs and exec look the node's name up in a DNS that does not know it.
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={keys.service_accounts_public}",
            f"--service-account-signing-key-file={keys.service_accounts}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--token-auth-file={keys.directory / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--max-requests-inflight=2000",
            "--max-mutating-requests-inflight=1000",
            *self.flags,
        )

    def controllers(self, *flags: str) -> Component:
        """Return the controller manager: garbage collection, Deployments, endpoints and the like."""
        return self._component(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--secure-port={self.ports.controllers}",
            f"--cert-dir={self.keys.directory}",
            f"--service-account-private-key-file={self.keys.service_accounts}",
            f"--root-ca-file={self.keys.ca}",
            "--use-service-account-credentials=true",
            "--authentication-skip-lookup",
            "--leader-elect=false",
            *flags,
        )

    def scheduler(self) -> Component:
        """Return the scheduler."""
        return self._component(
            "kube-scheduler",
            f"--kubeconfig={self.kubeconfig}",
            f"--secure-port={self.ports.scheduler}",
            f"--cert-dir={self.keys.directory}",
            "--authentication-skip-lookup",
            "--leader-elect=false",
        )

    def request(self, path: str, seconds: float = 5.0) -> bytes:
        """Ask the API server as its administrator; raise OSError if it does not answer, or not well."""
        context = ssl.create_default_context(cafile=str(self.keys.ca))
        return fetch(self.url + path, seconds, {"Authorization": f"Bearer {self.token}"}, context)

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            self.request("/readyz")
        except OSError:
            return False
        return True

    def _component(self, name: str, *flags: str) -> Component:
        return Component(name, (*self.prefix, str(self.binaries / name), *flags))


def fetch(
    url: str,
    seconds: float = 5.0,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> bytes:
    """Return what a server of a cluster of ours answers; raise OSError if it does not, or not well."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - ours, see above
    # No proxy: this machine's environment may name one, and it knows nothing of the cluster.
    handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    with urllib.request.build_opener(*handlers).open(request, timeout=seconds) as response:
        answer: bytes = response.read()
        return answer


def kubeconfig(url: str, authority: str, token: str) -> dict[str, Any]:
    """Return a kubeconfig for one user of one cluster."""
    data = base64.b64encode(authority.encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "greenroom", "cluster": {"server": url, "certificate-authority-data": data}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [
            {
                "name": "greenroom",
                "context": {"cluster": "greenroom", "user": "admin", "namespace": "default"},
            }
        ],
        "current-context": "greenroom",
    }
