"""Locks between processes; the kernel frees them when their holder dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster.progress import say


@contextmanager
def lock(path: Path, waiting_for: str) -> Iterator[None]:
    """Hold the lock file, saying what is waited for if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process: {waiting_for} …")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
