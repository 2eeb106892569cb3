"""How much of a core a process gets that others want, too: as kubelet weighs containers, by cgroups."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.serving.process import ServerError, Tree

_ROOT = Path("/sys/fs/cgroup")
_SHARES, _WEIGHT = 51, 2
"""What kubelet makes of 50m CPU, with cgroup v1 and v2; what is in no container has 1024, and 100."""
_PATIENCE_SECONDS = 10.0


@contextmanager
def giving_way(tree: Tree) -> Iterator[None]:
    """Weigh processes, and what they start, as a shadow's container is by default; kill them at the end.

    Niceness would not do: the kernel weighs sessions as a whole, and a version is proven in one of its own.
    ServerError where that cannot be asked of the kernel.
    """
    unified = (_ROOT / "cgroup.controllers").exists()
    group = (_ROOT if unified else _ROOT / "cpu") / f"greenroom-bench-{tree.pid}"
    try:
        group.mkdir()
        weight, value = ("cpu.weight", _WEIGHT) if unified else ("cpu.shares", _SHARES)
        (group / weight).write_text(str(value))
        for member in tree.pids():
            (group / "cgroup.procs").write_text(str(member))
    except OSError as error:
        message = f"the shadow cannot be weighed ({error}): run as root, where the controller cpu is on"
        raise ServerError(message) from error
    try:
        yield
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """Kill all that is left in the group, and remove it."""
    ends = time.monotonic() + _PATIENCE_SECONDS
    while True:
        for pid in map(int, (group / "cgroup.procs").read_text().split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.02)
        else:
            return
