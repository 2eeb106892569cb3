"""A process that outlives the owner of a cluster, to end the cluster if the owner could not."""

import os
import select
import subprocess
import sys
from pathlib import Path

from e2e.cluster import paths, sweep
from e2e.cluster.process import Identity
from e2e.cluster.record import Kind, Record
from e2e.cluster.shell import environment


class Guard:
    """The guard of the cluster whose record lies in a directory."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "e2e.cluster.guard", str(directory)],
            cwd=paths.REPOSITORY,
            env=environment({"PYTHONPATH": str(paths.REPOSITORY)}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End it: the cluster ends in order, or is to stay."""
        self._process.kill()
        self._process.wait()


def watch(directory: Path) -> None:
    """Wait for the end of the cluster's owner, then clean up after it."""
    record = Record.load(directory)
    if record is None or record.owner is None:
        return
    wait_for_end(record.owner)
    if record.kind is Kind.EMBEDDED:
        with sweep.registry():
            sweep.remove_abandoned(directory)
    else:
        sweep.remove_abandoned(directory)


def wait_for_end(process: Identity) -> None:
    """Return once that very process has ended."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # Opened first, compared after: the handle cannot come to mean another process.
        if process.alive:
            select.select([handle], [], [])
    finally:
        os.close(handle)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
