"""``wrk`` pinned to a core of its own, sending requests that were built beforehand."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1
_SCRIPT = Path(__file__).with_name("replay.lua")
_LATE_SECONDS = 10
"""wrk counts an answer that takes longer as a timeout."""


class LoadError(Exception):
    """wrk did not run, or did not say what it has measured."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one run of wrk has seen."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    errors: int
    """Answers that are not 2xx, and connections that failed."""


def require_wrk() -> None:
    """Install wrk where that is possible; LoadError says how where it is not."""
    if shutil.which("wrk"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LoadError("wrk is missing; install it: sudo apt-get install wrk")
    subprocess.run(["apt-get", "-qq", "update"], check=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(
        ["apt-get", "-qq", "install", "-y", "wrk"], check=True, env=environment, stdout=subprocess.DEVNULL
    )


def run_wrk(port: int, requests: Path, *, connections: int, seconds: int) -> Load:
    """Load the server for so many seconds."""
    command = [
        *("taskset", "--cpu-list", str(LOAD_CORE)),
        *("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"),
        *("--timeout", f"{_LATE_SECONDS}s", "--latency", "--script", str(_SCRIPT)),
        *(f"http://127.0.0.1:{port}", "--", str(requests)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        raise LoadError(f"wrk ended with {done.returncode}: {done.stderr[-500:]}{done.stdout[-500:]}")
    return parse_wrk(done.stdout)


def parse_wrk(output: str) -> Load:
    """Read the line of JSON that ``replay.lua`` prints below wrk's own report; LoadError without one."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            said = json.loads(line)
            return Load(
                requests=said["requests"],
                seconds=said["seconds"],
                p50_us=said["p50_us"],
                p99_us=said["p99_us"],
                errors=said["bad_statuses"] + said["socket_errors"],
            )
    raise LoadError(f"wrk reported nothing: {output[-500:]!r}")
