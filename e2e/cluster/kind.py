"""A cluster by kind, where Docker answers."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Self

from e2e.cluster import debian, golang, paths
from e2e.cluster.model import ClusterError
from e2e.cluster.process import Identity
from e2e.cluster.progress import step
from e2e.cluster.shell import run, run_long, succeeds


class Kind:
    """A cluster of one node in a container."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bin = golang.tools((golang.NODE, golang.HELM))
        self.logs: Path | None = None
        self.kubeconfig = paths.cache() / "kind" / name / "kubeconfig"

    @classmethod
    def usable(cls) -> bool:
        """Whether kind is installed and Docker's daemon answers."""
        return debian.find("kind") is not None and succeeds(["docker", "info"])

    @classmethod
    def up(cls, name: str, *, keep: bool) -> Self:
        """Create a cluster; one of that name that a dead test run has left is deleted before."""
        cluster = cls(name)
        if name in _clusters():
            if not cluster._abandoned():
                raise ClusterError(f"there is a kind cluster {name} already")
            cluster.down()
        cluster.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        if not keep:
            cluster._owner.write_text(json.dumps(Identity.mine().document()))
        with step(f"kind create cluster {name}", "1 min"):
            options = ["--wait=120s", "--kubeconfig", str(cluster.kubeconfig)]
            run_long(["kind", "create", "cluster", "--name", name, *options], "kind create cluster")
        return cluster

    @classmethod
    def find(cls, name: str) -> Self | None:
        """Return the running cluster of that name."""
        return cls(name) if name in _clusters() else None

    @property
    def exec_prefix(self) -> list[str]:
        """Put before a command, runs it in the node's container, with what its image has (curl, for one)."""
        return ["docker", "exec", f"{self.name}-control-plane"]

    @property
    def routed(self) -> bool:
        """Whether ClusterIPs answer in this machine's ordinary network: they do not."""
        return False

    def load_image(self, archive: Path) -> None:
        """Make the image of an archive known to the node."""
        run_long(["kind", "load", "image-archive", str(archive), "--name", self.name], "kind load")

    def build_and_load(self, image: str, dockerfile: Path, context: Path | None = None) -> None:
        """Build a Dockerfile of ours with Docker and load the image."""
        with step(f"building {image}"):
            build = [
                "docker",
                "build",
                "--tag",
                image,
                "--file",
                str(dockerfile),
                str(context or paths.REPOSITORY),
            ]
            run_long(build, f"docker build {image}")
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "image.tar"
            run(["docker", "save", "--output", archive, image])
            self.load_image(archive)

    def down(self) -> None:
        """Delete the cluster."""
        run_long(["kind", "delete", "cluster", "--name", self.name], "kind delete")
        shutil.rmtree(self.kubeconfig.parent, ignore_errors=True)

    @property
    def _owner(self) -> Path:
        return self.kubeconfig.parent / "owner.json"

    def _abandoned(self) -> bool:
        return self._owner.exists() and not Identity.parse(json.loads(self._owner.read_text())).alive


def _clusters() -> list[str]:
    return run(["kind", "get", "clusters"]).split()
