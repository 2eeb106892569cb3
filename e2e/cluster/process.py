"""Processes that outlive the call that started them, and are killed only if they are still themselves."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from e2e.cluster.model import ClusterError
from e2e.cluster.shell import environment


@dataclass(frozen=True)
class Identity:
    """A process id and the moment, in ticks since boot, at which its process began: ids are used again."""

    pid: int
    began: int

    @classmethod
    def of(cls, pid: int) -> "Identity":
        """Return the identity of a living process."""
        began = _began(pid)
        if began is None:
            raise ClusterError(f"process {pid} has ended")
        return cls(pid, began)

    @classmethod
    def mine(cls) -> "Identity":
        """Return the identity of this process."""
        return cls.of(os.getpid())

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Identity":
        """Read what `document` wrote."""
        return cls(int(document["pid"]), int(document["began"]))

    def document(self) -> dict[str, int]:
        """Return it for a JSON file."""
        return asdict(self)

    @property
    def alive(self) -> bool:
        """Whether that very process runs; a zombie does not."""
        return _began(self.pid) == self.began

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to that very process, if it is there."""
        try:
            handle = os.pidfd_open(self.pid)
        except (ProcessLookupError, OSError):
            return
        try:
            # The handle was opened before the check, so it cannot come to mean another process after it.
            if self.alive:
                signal.pidfd_send_signal(handle, how)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def boot_id() -> str:
    """Return what tells this boot of the machine from others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _began(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in brackets, may hold spaces and brackets of its own.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


@dataclass(frozen=True)
class Component:
    """A program that runs as long as its cluster."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


class Components:
    """The components of one cluster that this process has started."""

    def __init__(self, logs: Path, started: Callable[[str, Identity], None]) -> None:
        self._logs = logs
        self._started = started
        self._known: dict[str, Component] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, component: Component) -> Identity:
        """Start a component in a session of its own, so that a Ctrl-C for the tests does not reach it."""
        log = self.log(component.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                component.command,
                env=environment(component.env),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._known[component.name] = component
        self._running[component.name] = process
        identity = Identity.of(process.pid)
        self._started(component.name, identity)
        return identity

    def restart(self, name: str) -> Identity:
        """Start a component again as it was started before, ending it first where it still runs."""
        self.stop(name)
        return self.start(self._known[name])

    def kill(self, name: str) -> None:
        """End a component as a crash would."""
        self._end(name, signal.SIGKILL)

    def stop(self, name: str) -> None:
        """Ask a component to end, and wait until it has."""
        self._end(name, signal.SIGTERM)

    def check(self) -> None:
        """Raise with the end of its log if a component has ended by itself."""
        for name, process in self._running.items():
            if (code := process.poll()) is not None:
                raise ClusterError(f"{name} ended with code {code}; its log ends:\n{self.tail(name)}")

    def pid(self, name: str) -> int:
        """Return a component's process id."""
        return self._running[name].pid

    def log(self, name: str) -> Path:
        """Return the file to which a component writes."""
        return self._logs / f"{name}.log"

    def tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines that a component wrote."""
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])

    def reap(self) -> None:
        """Collect what has been killed, so that no zombie stays behind."""
        for process in self._running.values():
            process.wait()
        self._running.clear()

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self._running.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(
    condition: Callable[[], bool], what: str, components: Components, seconds: float = 180.0
) -> None:
    """Wait for a condition; a component that ends meanwhile ends the wait with its log."""
    deadline = time.monotonic() + seconds
    while not condition():
        components.check()
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {seconds:.0f} s; see the logs")
        time.sleep(0.05)
