"""What was measured, as it is saved."""

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One contender under one load in one round."""

    contender: str
    round: int
    connections: int
    requests: int
    rps: float
    p50_us: float
    p99_us: float
    cpu_us: float
    """Of all the server's processes, for each request."""
    errors: int


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of one contender."""

    contender: str
    round: int
    cold_start_s: float
    """From the command to the first prediction."""
    rss_mib: float
    pss_mib: float
    """Both after the load."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it was measured; a load beside ours makes absolute numbers worthless and ratios rough."""

    cpu: str
    cores: int
    kernel: str
    python: str
    load_before: float
    """The machine's load average over a minute before anything was started."""


@dataclass(kw_only=True)
class Results:
    """A whole comparison."""

    date: str
    seconds: float
    rounds: int
    machine: Machine
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    """By contender, the pinned packages of its environment."""
    cells: list[Cell] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Why a contender has no numbers, or fewer."""

    def contenders(self) -> list[str]:
        """Return who has numbers, in the order of measuring."""
        return list(dict.fromkeys(cell.contender for cell in self.cells))


def dump(measured: Any, path: Path) -> None:
    """Write a dataclass as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(measured), indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> Results:
    """Read a comparison again."""
    said = json.loads(path.read_text())
    said["machine"] = Machine(**said["machine"])
    said["cells"] = [Cell(**cell) for cell in said["cells"]]
    said["starts"] = [Start(**start) for start in said["starts"]]
    return Results(**said)


def this_machine() -> Machine:
    """Describe it."""
    return Machine(
        cpu=_cpu_model(Path("/proc/cpuinfo").read_text().splitlines()),
        cores=os.cpu_count() or 0,
        kernel=platform.release(),
        python=platform.python_version(),
        load_before=os.getloadavg()[0],
    )


def _cpu_model(lines: Iterable[str]) -> str:
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
