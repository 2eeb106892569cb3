"""What the embedded cluster and the image builds need from the distribution."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import paths
from e2e.cluster.locks import lock
from e2e.cluster.model import ClusterError
from e2e.cluster.progress import step
from e2e.cluster.shell import run_long, search_path

CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))


@dataclass(frozen=True)
class Package:
    """A Debian package, and a program by which one sees that it, or its like, is there."""

    name: str
    program: str


NODE = (
    Package("containerd", "containerd"),
    Package("runc", "runc"),
    Package("iptables", "iptables"),
    Package("conntrack", "conntrack"),
    Package("iproute2", "ip"),
    Package("openssl", "openssl"),
    Package("util-linux", "nsenter"),
    Package("mount", "mount"),
    Package("containernetworking-plugins", "cni"),
)
IMAGES = (Package("buildah", "buildah"), Package("debootstrap", "debootstrap"))
API_SERVER = (Package("openssl", "openssl"),)
GITOPS = (Package("git", "git"), Package("redis-server", "redis-server"), Package("util-linux", "setpriv"))


def install(packages: tuple[Package, ...]) -> None:
    """Install what is missing where that is possible, else say what to install."""
    if not _missing(packages):
        return
    names = " ".join(_missing(packages))
    if os.geteuid() != 0 or find("apt-get") is None:
        raise ClusterError(f"these programs are missing; install the packages: {names}")
    with (
        lock(paths.cache() / "locks" / "apt", "installs Debian packages"),
        step(f"apt-get install {names}", "1 min"),
    ):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run_long(["apt-get", "update", "-q"], "apt-get update", env=quiet)
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *_missing(packages)]
        run_long(command, "apt-get install", env=quiet)


def find(program: str) -> str | None:
    """Return where a program lies, the administrator's directories included."""
    return shutil.which(program, path=search_path())


def cni_directory() -> Path:
    """Return where the CNI plugins lie."""
    for directory in CNI_DIRECTORIES:
        if (directory / "bridge").exists():
            return directory
    raise ClusterError("no CNI plugins; install the package containernetworking-plugins")


def _missing(packages: tuple[Package, ...]) -> list[str]:
    return [package.name for package in packages if not _present(package)]


def _present(package: Package) -> bool:
    if package.program == "cni":
        return any((directory / "bridge").exists() for directory in CNI_DIRECTORIES)
    return find(package.program) is not None
