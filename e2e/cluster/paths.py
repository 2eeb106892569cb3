"""Where things lie."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
GO_SOURCES = Path(__file__).resolve().parent / "go"


def cache() -> Path:
    """Return the directory of what is dear to build and safe to delete, outside any clone."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "greenroom"


def clusters() -> Path:
    """Return the directory that holds one directory for each embedded cluster of this machine."""
    return Path(os.environ.get("GREENROOM_CLUSTERS") or "/var/lib/greenroom/clusters")
