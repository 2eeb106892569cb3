"""Files that are on the disk when the call returns."""

import os
from pathlib import Path
from typing import Literal


def write_synced(path: Path, content: bytes, *, mode: Literal["wb", "xb"] = "wb") -> None:
    """Write a file and wait for the disk; with ``xb`` FileExistsError where there is one already."""
    with path.open(mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Wait until the disk has the directory's entries, renames included."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
