"""An environment of its own for each contender, made by uv from pinned versions."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements")


def install(name: str, *, to: Path) -> Path:
    """Return the environment's ``bin``; it is made anew only when the pins have changed."""
    pins = REQUIREMENTS / f"{name}.txt"
    directory = to / name
    marker = directory / "installed.sha256"
    wanted = hashlib.sha256(pins.read_bytes()).hexdigest()
    if not marker.is_file() or marker.read_text() != wanted:
        sys.stderr.write(f"== installing {name} into {directory}\n")
        uv = os.environ.get("UV", "uv")
        python = str(directory / "bin" / "python")
        subprocess.run(
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(directory)], check=True
        )
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", python, "--requirement", str(pins)], check=True
        )
        # As its image would be: compiled, or a start would pay for that.
        compiled = [python, "-m", "compileall", "-q", "-j", "0", str(directory / "lib")]
        subprocess.run(compiled, check=False, stdout=subprocess.DEVNULL)
        marker.write_text(wanted)
    return directory / "bin"


def install_runtime(*, to: Path) -> Path:
    """Return the ``bin`` of an environment with the serving runtime and nothing else, as its image has it."""
    directory = to / "greenroom"
    command = [os.environ.get("UV", "uv"), "sync", "--locked", "--no-dev", "--extra", "runtime"]
    subprocess.run(
        [*command, "--quiet", "--compile-bytecode"],
        check=True,
        cwd=ROOT,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(directory), "UV_PYTHON": sys.executable},
    )
    return directory / "bin"


def pinned(name: str) -> Mapping[str, str]:
    """Return the versions by package."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().split()
    return dict(line.split("==", 1) for line in lines if "==" in line)
