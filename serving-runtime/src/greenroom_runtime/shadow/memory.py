"""What the container may take of memory, what it has taken, and which processes took it."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from greenroom_runtime.contract import names

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_KILL_SHARE: Final = 0.8
"""Of the limit: between two looks a process may take tens of megabytes."""
_DATA_SHARE: Final = 0.9
_DATA_SPARE: Final = 16 * 2**20
"""The supervisor, sockets and page tables."""
_LEAST_DATA: Final = 96 * 2**20
"""Interpreter, numpy and onnxruntime alone need 80 MB of data."""
_UNLIMITED: Final = 2**60
"""What cgroup v1 calls no limit is above it."""
_ROOT: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Bounds:
    """What the processes below the supervisor may take."""

    limit_bytes: int | None
    """The container's; None where nobody set one, and then nothing is guarded."""

    @property
    def kill_bytes(self) -> int | None:
        """What they may have together before they are killed."""
        return None if self.limit_bytes is None else int(self.limit_bytes * _KILL_SHARE)

    @property
    def data_bytes(self) -> int | None:
        """RLIMIT_DATA of each: memory above it is refused, which a process survives long enough to say so."""
        return None if self.limit_bytes is None else int(self.limit_bytes * _DATA_SHARE) - _DATA_SPARE

    @property
    def complaint(self) -> str:
        """Why no process can begin within the limit; empty where one can."""
        data = self.data_bytes
        if data is None or data >= _LEAST_DATA:
            return ""
        least = int((_LEAST_DATA + _DATA_SPARE) / _DATA_SHARE)
        return (
            f"a memory limit of {self.limit_bytes} bytes is too small for a shadow, which needs {least} "
            "without a model: raise spec.shadow.resources.limits.memory"
        )


@dataclass(frozen=True, kw_only=True)
class Cgroup:
    """The container's memory controller. A file that is absent or strange says nothing: None."""

    directory: Path
    unified: bool
    """Version 2."""

    def limit(self) -> int | None:
        """Return its limit in bytes."""
        limit = _number(self.directory / ("memory.max" if self.unified else "memory.limit_in_bytes"))
        return None if limit is None or limit >= _UNLIMITED else limit

    def taken(self) -> int | None:
        """Return the bytes that the kernel cannot take back: files in memory, read or written, it can.

        A tmpfs counts, and so do the kernel's own structures.
        """
        usage = _number(self.directory / ("memory.current" if self.unified else "memory.usage_in_bytes"))
        if usage is None:
            return None
        files = _table(self.directory / "memory.stat")
        prefix = "" if self.unified else "total_"
        return usage - files.get(f"{prefix}inactive_file", 0) - files.get(f"{prefix}active_file", 0)

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed in it for want of memory."""
        events = _table(self.directory / ("memory.events" if self.unified else "memory.oom_control"))
        return events.get("oom_kill", 0)


def find_cgroup(root: Path = _ROOT, *, membership: Path = Path("/proc/self/cgroup")) -> Cgroup | None:
    """Return the cgroup that this process is in; None where there is none to be seen.

    In a container its own is mounted as the root, whatever path the host knows it by.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        unified = not controllers
        if not unified and "memory" not in controllers.split(","):
            continue
        mount = root if unified else root / "memory"
        for directory in (mount / path.strip("/"), mount):
            if (directory / ("memory.current" if unified else "memory.usage_in_bytes")).exists():
                return Cgroup(directory=directory, unified=unified)
    return None


def find_limit(environment: Mapping[str, str], cgroup: Cgroup | None) -> int | None:
    """Return the container's memory limit in bytes; None where nobody set one.

    The lower one counts: where no limit is set the downward API tells what the node has.
    """
    told = environment.get(names.ENV_MEMORY_LIMIT, "").strip()
    known = [int(told)] if told.isascii() and told.isdigit() and int(told) else []
    own = cgroup.limit() if cgroup is not None else None
    return min([*known, *([own] if own is not None else [])], default=None)


def resident_bytes(leader: int, others: list[int]) -> int:
    """Return what a process has in memory, and what others have besides the libraries that they share."""
    pages, _ = _pages(leader)
    for other in others:
        resident, shared = _pages(other)
        pages += resident - shared
    return pages * _PAGE


def descendants(pid: int) -> list[int]:
    """Return the process's children, their children and so on, those that have ended included."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        children = set(_children(waiting.pop())) - found
        found |= children
        waiting += children
    return list(found)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):  # it has ended meanwhile, or one of its threads
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 each look costs
            with suppress(OSError):
                children += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split())
    return children


def _pages(pid: int) -> tuple[int, int]:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 each look costs
            _, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):  # it has ended
        return 0, 0
    return int(resident), int(shared)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _table(path: Path) -> dict[str, int]:
    """Return the file's lines of a name and a number."""
    try:
        pairs = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    two = 2
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == two and pair[1].isdigit()}
