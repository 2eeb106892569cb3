"""What may be wrong with a shadow: versions that are, what is done to one that is well, and how it shows."""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from e2e.faulty import Fault, write_corrupt, write_faulty
from greenroom_runtime.contract.report import VersionState
from greenroom_runtime.contract.shadow import ShadowReport

Act = Callable[[int, Path], None]
"""Harms a shadow, given its supervisor's process and its socket."""

MISSING, CORRUPT = "v99", "v2-corrupt"
COMPARES, FAILS, STANDS = "compares", "fails", "compares nothing"
_FEATURE = "age"
"""A number of each row of the benchmark, always above 0."""
_BETWEEN_SECONDS = 1.0


def faulty(fault: Fault) -> str:
    """Return the version that has the fault on every row."""
    return f"v2-{fault}"


def write_versions(source: Path, to: Path) -> None:
    """Write a version that is well, and beside it each that is not; the missing one is left out."""
    good = to / source.name
    shutil.copytree(source, good)
    for fault in Fault:
        write_faulty(good, version=faulty(fault), fault=fault, above=0.0, feature=_FEATURE)
    write_corrupt(good, version=CORRUPT)


def crash(supervisor: int, _: Path) -> None:
    """Let the shadow process die of a segmentation fault, if there is one."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
    for child in map(int, children.split()):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGSEGV)


def unlink(_: int, path: Path) -> None:
    """Delete the socket."""
    path.unlink(missing_ok=True)


@contextmanager
def again_and_again(act: Act | None, supervisor: int, path: Path) -> Iterator[None]:
    """Harm the shadow once a second until the block ends, where there is something to be done."""
    if act is None:
        yield
        return
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(_BETWEEN_SECONDS):
            act(supervisor, path)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def symptom(report: ShadowReport) -> str:
    """Return what a shadow says of itself, in a word or two."""
    if report.end is not None:
        return report.end.reason
    process = report.process
    if process is None or process.version is None:
        return STANDS
    if process.version.state is VersionState.FAILED and process.version.failure is not None:
        return process.version.failure.reason
    counts = process.counts
    if counts.failed:
        return FAILS
    return COMPARES if counts.compared else STANDS


EXPECTED: Final = {
    Fault.RAISES: (FAILS,),
    Fault.HANGS: (STANDS, "Hung"),
    Fault.LEAKS: ("OutOfMemory",),
    Fault.SLOW: (COMPARES,),
}
"""How a version's fault shows; a hang is told after 20 s."""
