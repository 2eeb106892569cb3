"""A cluster's own control groups: they hold its processes, so that all of them can be found and ended."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from e2e.cluster.model import ClusterError
from e2e.cluster.process import Identity

MOUNT = Path("/sys/fs/cgroup")
NEEDED = ("cpu", "memory", "pids")
PREFIX = "greenroom-"


def unified() -> bool:
    """Whether this machine has cgroup v2 alone."""
    return (MOUNT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """Return the directory of each hierarchy: one with v2, one for each controller with v1, or both."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(fields[1]) for fields in mounts if fields[2] in {"cgroup", "cgroup2"}]


def group(cluster: str) -> str:
    """Return the path of a cluster's group in each hierarchy; the kubelet makes its pods' groups below."""
    return f"/{PREFIX}{cluster}"


def create(cluster: str) -> Path:
    """Make a cluster's groups; return the one that its components enter."""
    for hierarchy in hierarchies():
        if unified():
            _enable_controllers(hierarchy)
        top = hierarchy / group(cluster)[1:]
        top.mkdir(exist_ok=True)
        # With v1 a new cpuset has neither processors nor memory, and nothing can run in it.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not unified() and (hierarchy / name).exists():
                (top / name).write_text((hierarchy / name).read_text())
    components = _register(cluster) / "components"
    components.mkdir(exist_ok=True)
    return components


def processes(cluster: str) -> Iterator[int]:
    """Yield the ids of all processes in a cluster's groups: components, shims, pods and what they started."""
    for directory, _, files in os.walk(_register(cluster)):
        if "cgroup.procs" in files:
            try:
                yield from map(int, (Path(directory) / "cgroup.procs").read_text().split())
            except OSError:
                continue


def kill(cluster: str, seconds: float = 60.0) -> None:
    """End all processes of a cluster, and wait until they have gone."""
    deadline = time.monotonic() + seconds
    while alive := [pid for pid in processes(cluster) if pid]:
        for pid in alive:
            _kill(cluster, pid)
        if time.monotonic() > deadline:
            raise ClusterError(f"processes of the cluster {cluster} do not end: {alive}")
        time.sleep(0.02)


def remove(cluster: str, seconds: float = 60.0) -> None:
    """Remove a cluster's empty groups."""
    deadline = time.monotonic() + seconds
    for hierarchy in hierarchies():
        top = hierarchy / group(cluster)[1:]
        while top.exists() and not _remove_tree(top):
            # The last process has gone, but the kernel has not yet noticed everywhere.
            if time.monotonic() > deadline:
                raise ClusterError(f"the control group {top} is still busy")
            time.sleep(0.05)


def enter(directory: Path) -> tuple[str, ...]:
    """Return the prefix of a command that is to run in a group; its descendants stay there."""
    return ("/bin/sh", "-c", f'echo $$ > "{directory}/cgroup.procs" && exec "$@"', "enter")


def _register(cluster: str) -> Path:
    # With v1 each hierarchy knows the processes by itself; one that containers are moved in is enough.
    hierarchy = MOUNT if unified() else MOUNT / "pids"
    return hierarchy / group(cluster)[1:]


def _kill(cluster: str, pid: int) -> None:
    try:
        identity = Identity.of(pid)
    except ClusterError:
        return
    # Read again, now that the identity is fixed: between the two the id could have changed its owner.
    if pid in processes(cluster):
        identity.kill(signal.SIGKILL)


def _remove_tree(top: Path) -> bool:
    try:
        for directory, _, _ in os.walk(top, topdown=False):
            Path(directory).rmdir()
    except OSError:
        return False
    return True


def _enable_controllers(hierarchy: Path) -> None:
    offered = (hierarchy / "cgroup.controllers").read_text().split()
    enabled = (hierarchy / "cgroup.subtree_control").read_text().split()
    for controller in (name for name in offered if name not in enabled):
        try:
            (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as failure:
            if controller in NEEDED:
                raise ClusterError(
                    f"cannot enable the {controller} controller in {hierarchy}: run outside of a container, "
                    "or in one with a cgroup namespace of its own whose processes are in a child group"
                ) from failure
