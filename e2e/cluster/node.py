"""How the parts of a node are called: containerd, the kubelet, kube-proxy and CoreDNS."""

import io
import json
import platform
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from e2e.cluster import cgroups, debian
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.network import Network
from e2e.cluster.process import Component

# Where programs expect things, inside the node's own mount namespace.
RUN = Path("/run")
SOCKET = RUN / "containerd" / "containerd.sock"
PRIVATE = {
    "kubelet": Path("/var/lib/kubelet"),
    "cni": Path("/var/lib/cni"),
    "log": Path("/var/log"),
}
"""Directories of the cluster's own that lie over those of the machine, as the node sees it."""
PAUSE_IMAGE = "localhost/greenroom/pause:1"
DOMAIN = "cluster.local"
DNS_READY = "8181/ready"
PROXY_READY = "10256/healthz"


@dataclass(frozen=True)
class Node:
    """A node whose files lie in one directory."""

    name: str
    directory: Path
    binaries: Path
    network: Network
    plane: ControlPlane
    prefix: tuple[str, ...]

    def prepare(self) -> None:
        """Write the configuration files."""
        for content, path in (
            (self._containerd(), self._containerd_file),
            (json.dumps(self._cni(), indent=2), self._cni_directory / "10-pods.conflist"),
            (json.dumps(self._kubelet(), indent=2), self._kubelet_file),
            (json.dumps(self._proxy(), indent=2), self._proxy_file),
            (self._corefile(), self._corefile_file),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def containerd(self) -> Component:
        """Return the container runtime."""
        return self._component(
            "containerd", debian.find("containerd") or "containerd", f"--config={self._containerd_file}"
        )

    def kubelet(self) -> Component:
        """Return the kubelet."""
        return self._component(
            "kubelet",
            str(self.binaries / "kubelet"),
            f"--config={self._kubelet_file}",
            f"--kubeconfig={self.plane.kubeconfig}",
            f"--root-dir={PRIVATE['kubelet']}",
            f"--cert-dir={self.directory / 'pki'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.network.node}",
        )

    def proxy(self) -> Component:
        """Return kube-proxy."""
        return self._component(
            "kube-proxy", str(self.binaries / "kube-proxy"), f"--config={self._proxy_file}"
        )

    def dns(self) -> Component:
        """Return CoreDNS."""
        return self._component("coredns", str(self.binaries / "coredns"), "-conf", str(self._corefile_file))

    def ctr(self, *words: str) -> list[str]:
        """Return a call of containerd's own client."""
        return [
            *self.prefix,
            debian.find("ctr") or "ctr",
            "--address",
            str(SOCKET),
            "--namespace",
            "k8s.io",
            *words,
        ]

    @property
    def _containerd_file(self) -> Path:
        return self.directory / "etc" / "containerd.toml"

    @property
    def _kubelet_file(self) -> Path:
        return self.directory / "etc" / "kubelet.json"

    @property
    def _proxy_file(self) -> Path:
        return self.directory / "etc" / "kube-proxy.json"

    @property
    def _corefile_file(self) -> Path:
        return self.directory / "etc" / "Corefile"

    @property
    def _cni_directory(self) -> Path:
        return self.directory / "etc" / "cni"

    def _component(self, name: str, *command: str) -> Component:
        return Component(name, (*self.prefix, *command))

    def _containerd(self) -> str:
        # restrict_oom_score_adj: without CAP_SYS_RESOURCE a negative score makes runc die with
        # "can't get final child's PID from pipe: EOF".
        return f"""\
version = 2
root = "{self.directory}/containerd"
state = "{RUN}/containerd/state"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{debian.cni_directory()}"
    conf_dir = "{self._cni_directory}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter(self.directory)}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""

    def _cni(self) -> dict[str, Any]:
        addresses = {
            "type": "host-local",
            "ranges": [[{"subnet": str(self.network.pods)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(self.directory / "addresses"),
        }
        bridge = {
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "hairpinMode": True,
            "ipMasq": False,
        }
        # Without portmap a hostPort would be accepted and lead nowhere.
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge | {"ipam": addresses}, ports]}

    def _kubelet(self) -> dict[str, Any]:
        keys = self.plane.keys
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(keys.ca)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": str(keys.certificate("kubelet")),
            "tlsPrivateKeyFile": str(keys.key("kubelet")),
            "cgroupDriver": "cgroupfs",
            # Of its own, or the kubelets of two clusters remove each other's pods as orphans.
            "cgroupRoot": cgroups.group(self.directory.name),
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "volumePluginDir": str(self.directory / "volume-plugins"),
            "failSwapOn": False,
            "failCgroupV1": False,
            "resolvConf": "",
            "clusterDNS": [str(self.network.node)],
            "clusterDomain": DOMAIN,
            # A developer's full disk is no reason to stop pods or to delete images that cannot be pulled.
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            "localStorageCapacityIsolation": False,
            "nodeStatusUpdateFrequency": "5s",
            "maxPods": 200,
        }

    def _proxy(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": str(self.plane.kubeconfig)},
            "clusterCIDR": str(self.network.pods),
            "conntrack": {"maxPerCore": 0, "min": 0},
            "hostnameOverride": self.name,
        }

    def _corefile(self) -> str:
        return f"""\
.:53 {{
  bind {self.network.node}
  errors
  ready {self.network.node}:8181
  kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
    kubeconfig {self.plane.kubeconfig} greenroom
    pods insecure
    ttl 5
  }}
  cache 5
}}
"""


def snapshotter(directory: Path) -> str:
    """Return how containerd can keep images there: an overlay on an overlay does not work."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    best = ("", "")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if existing.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return "native" if best[1] in {"overlay", "fuse-overlayfs"} else "overlayfs"


def pause_archive(binary: Path, target: Path) -> None:
    """Pack the pause program as an image: an archive of one layer of one file."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        info = tarfile.TarInfo("pause")
        info.size, info.mode = binary.stat().st_size, 0o755
        with binary.open("rb") as program:
            tar.addfile(info, program)
    digest = sha256(layer.getvalue()).hexdigest()
    configuration = {
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        for name, content in (
            ("layer.tar", layer.getvalue()),
            ("config.json", json.dumps(configuration).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def architecture() -> str:
    """Return this machine's architecture as image manifests call it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
