"""Who takes the frames, and where: each cell is measured beside the same server without a shadow."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx2

from benchmarks.serving.greenroom_server import CANDIDATE
from benchmarks.serving.load import LOAD_CORE, SERVER_CORE
from benchmarks.serving.process import ServerError, Tree, free_ports
from benchmarks.shadow import faults
from benchmarks.shadow.faults import Act, faulty, symptom
from benchmarks.shadow.weight import giving_way
from e2e.faulty import Fault
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import RuntimeConfig
from greenroom_runtime.contract.report import VersionState
from greenroom_runtime.contract.shadow import ShadowReport
from greenroom_runtime.shadow.frame import MAX_PACKET
from tests.support.frame_reader import listen

BOTH_CORES: Final = (SERVER_CORE, LOAD_CORE)
VERSIONS: Final = "versions"
"""Where the shadow finds its version, below the state."""
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
    p99_goal: float | None = None
    """The most that the p99 may be, of that without."""
    gives_way: bool = False
    """Whether it has little more than the load leaves of its core: as near to one of its own as two allow."""
    version: str = CANDIDATE
    memory_bytes: int = 1 << 30
    """The container's limit."""
    act: Act | None = None
    """What is done to it, once a second."""
    shows: Sequence[str] = (faults.COMPARES,)
    """What it may say of itself after the load; else the cell has not measured what it is about."""


def _fault(name: str, about: str, **differs: Any) -> Cell:
    return Cell(name=name, about=about, reader="process", p99_goal=1.1, gives_way=True, **differs)


def _faulty(fault: Fault, about: str, **differs: Any) -> Cell:
    return _fault(fault.value, about, version=faulty(fault), shows=faults.EXPECTED[fault], **differs)


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
FAULTS: Final = (
    _fault("well", "nothing is wrong with it"),
    _fault("crashes", "crashes in a loop", act=faults.crash, shows=("Crashed",)),
    _faulty(Fault.RAISES, "raises on every input"),
    _faulty(Fault.HANGS, "hangs"),
    _faulty(Fault.LEAKS, "leaks memory to its limit", memory_bytes=320 << 20),
    _faulty(Fault.SLOW, "is 100 times slower"),
    _fault("is-missing", "its version does not exist", version=faults.MISSING, shows=("NoSuchVersion",)),
    _fault("is-corrupt", "its bundle is corrupt", version=faults.CORRUPT, shows=("DigestMismatch",)),
    _fault("socket", "its socket is deleted", act=faults.unlink),
)
"""The shadow process, and what may be wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Who takes frames, as a process."""

    tree: Tree
    port: int = 0
    """Of the shadow's report; 0 where it is no shadow."""

    def report(self) -> ShadowReport:
        """Return what the shadow says of itself; TransportError while it says nothing."""
        answer = httpx2.get(f"http://127.0.0.1:{self.port}{names.REPORT_PATH}", timeout=10)
        return ShadowReport.model_validate_json(answer.content)


@contextmanager
def reading(cell: Cell, path: Path, *, config: RuntimeConfig, state: Path) -> Iterator[Reader | None]:
    """Take frames as the cell says until the block ends."""
    path.unlink(missing_ok=True)
    if not cell.reader:
        yield None
        return
    if cell.reader == "process":
        with _shadow(cell, config=config, state=state) as reader:
            yield reader
        return
    command = [sys.executable, "-m", "benchmarks.shadow.cells", f"unix:{path}"]
    with _pinned(command, cores=cell.reader_cores) as process:
        _wait(path.exists, "nobody listens")
        if cell.reader == "stopped":
            process.send_signal(signal.SIGSTOP)
        yield Reader(tree=_tree(process))


@contextmanager
def _shadow(cell: Cell, *, config: RuntimeConfig, state: Path) -> Iterator[Reader]:
    """Run the shadow's supervisor and its process, and wait until it holds its version or cannot."""
    (port,) = free_ports(1)
    place = state / "shadow"
    place.mkdir(exist_ok=True)
    source = (state / VERSIONS).as_uri()
    own = config.model_copy(update={"models_dir": str(place / "models"), "source_uri": source})
    (place / names.CONFIG_FILE).write_text(own.to_json())
    command = [sys.executable, "-m", "greenroom_runtime.shadow", "--config", str(place / names.CONFIG_FILE)]
    environment = {names.ENV_MEMORY_LIMIT: str(cell.memory_bytes)}
    with _pinned(
        [*command, "--port", str(port)], cores=cell.reader_cores, environment=environment
    ) as process:
        reader = Reader(tree=_tree(process), port=port)
        _wait(lambda: _is_settled(reader, cell.version), "the shadow neither holds its version nor says why")
        with giving_way(reader.tree) if cell.gives_way else nullcontext():
            yield reader


def _is_settled(reader: Reader, version: str) -> bool:
    try:
        process = reader.report().process
    except httpx2.TransportError:
        return False
    held = process and process.version
    return bool(held and held.name == version and held.state in (VersionState.READY, VersionState.FAILED))


def require_symptom(cell: Cell, reader: Reader) -> None:
    """Wait until the shadow shows what is wrong with it: ServerError where nothing was, and so not measured.

    A shadow that hardly gets a processor takes its time to run out of memory.
    """
    expected = " or ".join(cell.shows)
    _wait(lambda: symptom(reader.report()) in cell.shows, f"{cell.name}: the shadow does not show {expected}")


def _tree(process: "subprocess.Popen[bytes]") -> Tree:
    return Tree(pid=process.pid, log=Path(os.devnull))


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
