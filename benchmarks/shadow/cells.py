"""Who takes the frames, and where: each cell is measured beside the same server without a shadow."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import httpx2

from benchmarks.serving.load import LOAD_CORE, SERVER_CORE
from benchmarks.serving.process import ServerError, free_ports
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import RuntimeConfig
from greenroom_runtime.contract.report import VersionState
from greenroom_runtime.contract.shadow import ShadowReport
from greenroom_runtime.shadow.frame import MAX_PACKET
from tests.support.frame_reader import listen

BOTH_CORES: Final = (SERVER_CORE, LOAD_CORE)
_PATIENCE_SECONDS = 60.0
_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One way to be mirrored."""

    name: str
    about: str
    reader: str = ""
    """``reads`` only reads, ``stopped`` hangs, ``process`` is the shadow itself; empty for nobody."""
    reader_cores: Sequence[int] = (LOAD_CORE,)
    server_cores: Sequence[int] = (SERVER_CORE,)
    goal: float | None = None
    """What is to be left of the throughput."""


CELLS: Final = (
    Cell(name="absent", about="nobody listens", goal=0.9),
    Cell(name="stopped", about="who listens hangs", reader="stopped", goal=0.9),
    Cell(name="apart", about="read, on another core than the server's", reader="reads", goal=0.9),
    Cell(
        name="free",
        about="read; server, reader and load on the same two cores",
        reader="reads",
        reader_cores=BOTH_CORES,
        server_cores=BOTH_CORES,
        goal=0.9,
    ),
    Cell(
        name="process-apart", about="the shadow process, on another core than the server's", reader="process"
    ),
    Cell(
        name="process-free",
        about="the shadow process; server, it and load on the same two cores",
        reader="process",
        reader_cores=BOTH_CORES,
        server_cores=BOTH_CORES,
    ),
)


@contextmanager
def reading(cell: Cell, path: Path, *, config: RuntimeConfig, state: Path) -> Iterator[None]:
    """Take frames as the cell says until the block ends."""
    path.unlink(missing_ok=True)
    if not cell.reader:
        yield
        return
    if cell.reader == "process":
        with _shadow(cell, config=config, state=state):
            yield
        return
    command = [sys.executable, "-m", "benchmarks.shadow.cells", f"unix:{path}"]
    with _pinned(command, cores=cell.reader_cores) as process:
        _wait(path.exists, "nobody listens")
        if cell.reader == "stopped":
            process.send_signal(signal.SIGSTOP)
        yield


@contextmanager
def _shadow(cell: Cell, *, config: RuntimeConfig, state: Path) -> Iterator[None]:
    """Run the shadow's supervisor and its process, and wait until it holds its version."""
    (port,) = free_ports(1)
    place = state / "shadow"
    place.mkdir(exist_ok=True)
    own = config.model_copy(update={"models_dir": str(place / "models")})
    (place / names.CONFIG_FILE).write_text(own.to_json())
    command = [sys.executable, "-m", "greenroom_runtime.shadow", "--config", str(place / names.CONFIG_FILE)]
    environment = {names.ENV_MEMORY_LIMIT: str(1 << 30)}
    with _pinned([*command, "--port", str(port)], cores=cell.reader_cores, environment=environment):
        _wait(lambda: _is_ready(port), "the shadow is not ready")
        yield


def _is_ready(port: int) -> bool:
    try:
        answer = httpx2.get(f"http://127.0.0.1:{port}{names.REPORT_PATH}", timeout=10)
    except httpx2.TransportError:
        return False
    process = ShadowReport.model_validate_json(answer.content).process
    return bool(process and process.version and process.version.state is VersionState.READY)


def _wait(condition: object, complaint: str) -> None:
    assert callable(condition)
    ends = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > ends:
            raise ServerError(complaint)
        time.sleep(0.02)


@contextmanager
def _pinned(
    command: Sequence[str], *, cores: Sequence[int], environment: Mapping[str, str] = _NO_ENVIRONMENT
) -> Iterator["subprocess.Popen[bytes]"]:
    listed = ",".join(map(str, cores))
    process = subprocess.Popen(
        ["taskset", "--cpu-list", listed, *command],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def pin(pid: int, cores: Sequence[int]) -> None:
    """Let all threads of a process run on these cores from now on."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def read_and_forget(address: str) -> None:
    """Take packets from one connection after the other, for ever, and look at none."""
    with listen(address) as listening:
        while True:
            connection, _ = listening.accept()
            with connection:
                _drain(connection)


def _drain(connection: socket.socket) -> None:
    room = bytearray(MAX_PACKET)
    while connection.recv_into(room):
        pass


if __name__ == "__main__":
    read_and_forget(sys.argv[1])
