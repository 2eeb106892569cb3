"""Environments for what cannot live beside our dependencies: one a dependency group, made by uv."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def python_with(group: str) -> str:
    """Return the Python of ``.tools/<group>``, where exactly this dependency group is installed."""
    environment = ROOT / ".tools" / group
    command = [_uv(), "sync", "--locked", "--quiet", "--only-group", group, "--python", sys.executable]
    subprocess.run(
        command, cwd=ROOT, check=True, env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)}
    )
    return str(environment / "bin" / "python")


def _uv() -> str:
    found = os.environ.get("UV") or shutil.which("uv")
    if found:
        return found
    local = ROOT / ".tools" / "uv" / "bin" / "uv"
    if local.exists():
        return str(local)
    message = "uv is neither in $UV, nor on PATH, nor in .tools/uv: run `make setup`"
    raise RuntimeError(message)
