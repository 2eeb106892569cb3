"""Running other programs."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from e2e.cluster.model import ClusterError
from e2e.cluster.progress import say

Command = Sequence[str | Path]
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""An ordinary user's PATH on Debian lacks these."""
HEARTBEAT = 30.0


def search_path() -> str:
    """Return PATH with the administrator's directories."""
    here = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*here, *(directory for directory in SBIN if directory not in here)])


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment, with the administrator's PATH and `extra`."""
    return os.environ | {"PATH": search_path()} | dict(extra or {})


def run(
    command: Command,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: IO[bytes] | None = None,
    text: str | None = None,
) -> str:
    """Run a command to its end and return its standard output; raise ClusterError with what it said."""
    finished = subprocess.run(
        [str(word) for word in command],
        env=environment(env),
        cwd=cwd,
        stdin=None if text is not None else (stdin or subprocess.DEVNULL),
        input=None if text is None else text.encode(),
        capture_output=True,
        check=False,
    )
    output = finished.stdout.decode(errors="replace")
    if finished.returncode != 0:
        raise ClusterError(
            _failure(command, finished.returncode, finished.stderr.decode(errors="replace"), output)
        )
    return output


def succeeds(command: Command, *, env: Mapping[str, str] | None = None) -> bool:
    """Return whether a command ends well."""
    try:
        run(command, env=env)
    except (ClusterError, OSError):
        return False
    return True


def run_long(
    command: Command, what: str, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run a command that may take minutes, with a sign of life from time to time."""
    began = time.monotonic()
    with subprocess.Popen(
        [*_ends_with_us(), *(str(word) for word in command)],
        env=environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
        reader.start()
        while True:
            try:
                code = process.wait(timeout=HEARTBEAT)
                break
            except subprocess.TimeoutExpired:
                say(f"still at it: {what}, {time.monotonic() - began:.0f} s")
        reader.join()
    if code != 0:
        raise ClusterError(_failure(command, code, b"".join(said).decode(errors="replace"), ""))


def _ends_with_us() -> list[str]:
    # Nobody waits for a build of minutes whose asker was killed.
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv", path=search_path()) else []


def _failure(command: Command, code: int, errors: str, output: str) -> str:
    words = " ".join(str(word) for word in command)
    said = (errors.strip() or output.strip())[-4000:]
    return f"`{words}` ended with code {code}: {said}"
