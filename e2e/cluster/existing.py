"""A cluster that is there already, used only when the user asks for it."""

import os
from pathlib import Path

from e2e.cluster import golang
from e2e.cluster.model import ClusterError
from e2e.cluster.progress import say


class Existing:
    """The cluster of KUBECONFIG."""

    def __init__(self, kubeconfig: Path) -> None:
        self.name = "existing"
        self.kubeconfig = kubeconfig
        self.bin = golang.tools((golang.NODE, golang.HELM))
        self.logs: Path | None = None

    @classmethod
    def named_by_environment(cls) -> "Existing":
        """Return the cluster to which KUBECONFIG, or kubectl's own default, points."""
        path = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        if not path.is_file():
            raise ClusterError(f"CLUSTER=kubeconfig asks for the cluster of {path}, which is not there")
        say(f"using the existing cluster of {path}")
        return cls(path)

    @property
    def exec_prefix(self) -> list[str]:
        """Refuse: nobody knows how to get into that network."""
        raise ClusterError(
            "commands cannot be run in the network of an existing cluster; use kubectl port-forward"
        )

    @property
    def routed(self) -> bool:
        """Whether pods can be reached from here: that is not known."""
        return False

    def load_image(self, archive: Path) -> None:
        """Refuse: only its owner knows how its nodes get images."""
        raise ClusterError(
            f"{archive.name} cannot be loaded into an existing cluster; push it to its registry"
        )

    def build_and_load(self, image: str, dockerfile: Path, context: Path | None = None) -> None:
        """Say what is expected of the user: the image, under that name."""
        del dockerfile, context
        say(f"the existing cluster is expected to have, or to be able to pull, {image}")

    def down(self) -> None:
        """Leave it as it is."""
