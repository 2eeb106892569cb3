"""What every provider of a cluster gives to its users."""

import os
from pathlib import Path
from typing import Protocol


class ClusterError(Exception):
    """Something that the user can understand, and mostly can put right."""


class Cluster(Protocol):
    """A Kubernetes cluster that is up."""

    @property
    def name(self) -> str:
        """The name under which `down` finds it."""

    @property
    def kubeconfig(self) -> Path:
        """An administrator's kubeconfig that works from this machine's ordinary network."""

    @property
    def bin(self) -> Path:
        """The directory of a `kubectl` and a `helm` that fit."""

    @property
    def logs(self) -> Path | None:
        """Where the components write their logs, if this machine can see that."""

    @property
    def exec_prefix(self) -> list[str]:
        """Put before a command, runs it in the cluster's network, where ClusterIPs and pods answer."""

    @property
    def routed(self) -> bool:
        """Whether ClusterIPs and pod addresses answer in this machine's ordinary network too."""

    def load_image(self, archive: Path) -> None:
        """Make the image of a docker-archive known to the node, so that pods never pull it."""

    def build_and_load(self, image: str, dockerfile: Path, context: Path | None = None) -> None:
        """Build a Dockerfile of ours as `image` and load it."""


def environment(cluster: Cluster) -> dict[str, str]:
    """Return this process's environment with the cluster's kubectl, helm and kubeconfig in it."""
    path = f"{cluster.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return os.environ | {"PATH": path, "KUBECONFIG": str(cluster.kubeconfig)}
