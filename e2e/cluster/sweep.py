"""Removing clusters: one's own in order, and those whose owner died without doing so."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from e2e.cluster import cgroups, network, paths
from e2e.cluster.locks import lock
from e2e.cluster.model import ClusterError
from e2e.cluster.node import PRIVATE
from e2e.cluster.process import boot_id
from e2e.cluster.progress import say
from e2e.cluster.record import HOLDER, Kind, Record

API_SERVER_PREFIX = "greenroom-api-server-"
KEEP_LOGS = "GREENROOM_CLUSTER_LOGS"


def remove(record: Record) -> None:
    """End everything that belongs to a cluster and remove its files."""
    _keep_logs(record)
    if record.boot == boot_id():
        if record.kind is Kind.EMBEDDED and HOLDER in record.processes:
            network.disconnect(record.processes[HOLDER])
        for identity in record.processes.values():
            identity.kill()
        _wait_for_end(record)
        if record.kind is Kind.EMBEDDED:
            # With its last process go its mounts and network namespaces: they are private to it.
            cgroups.kill(record.name)
            cgroups.remove(record.name)
    _remove_directory(record.directory)
    if record.kind is Kind.EMBEDDED and not any(records()):
        _remove_mount_points()


def records() -> Iterator[Record]:
    """Yield the embedded clusters of this machine."""
    for directory in sorted(paths.clusters().glob("*/")):
        if record := Record.load(directory):
            yield record


def registry() -> AbstractContextManager[None]:
    """Hold the lock under which clusters come and go."""
    return lock(paths.clusters().parent / "clusters.lock", "starts or removes a cluster")


def remove_abandoned(directory: Path) -> None:
    """Remove the cluster of a directory if its owner has died, or the machine has been restarted since."""
    record = Record.load(directory)
    if record and record.abandoned:
        say(f"removing {record.kind} {record.name}, whose owner has gone")
        remove(record)


def remove_abandoned_clusters() -> None:
    """Remove all embedded clusters whose owners have died."""
    for record in list(records()):
        remove_abandoned(record.directory)


def remove_abandoned_api_servers() -> None:
    """Remove the API servers of this user whose owners have died."""
    for directory in Path(tempfile.gettempdir()).glob(f"{API_SERVER_PREFIX}*"):
        # Others can write to the temporary directory too: what is not this user's is not read.
        if directory.is_dir() and not directory.is_symlink() and directory.stat().st_uid == os.geteuid():
            remove_abandoned(directory)


def keep_logs(record: Record, target: Path) -> None:
    """Copy a cluster's logs to a directory of its name below the target."""
    logs = record.directory / "logs"
    if logs.exists():
        shutil.copytree(logs, target / record.name, dirs_exist_ok=True, ignore_dangling_symlinks=True)


def _keep_logs(record: Record) -> None:
    if target := os.environ.get(KEEP_LOGS):
        keep_logs(record, Path(target))


def _wait_for_end(record: Record, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while alive := [name for name, identity in record.processes.items() if identity.alive]:
        if time.monotonic() > deadline:
            raise ClusterError(f"{', '.join(alive)} of {record.name} do not end")
        time.sleep(0.02)


def _remove_mount_points() -> None:
    # Made for the clusters to mount their own directories over; a machine's own kubelet has files in its.
    for path in PRIVATE.values():
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _remove_directory(directory: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while directory.exists():
        # A mount namespace is taken apart a moment after its last process: until then files are busy.
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists() and time.monotonic() > deadline:
            raise ClusterError(f"cannot remove {directory}")
        time.sleep(0.02)
