"""A shadow process as its supervisor holds it: its pipes, and what came through them."""

import fcntl
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from greenroom_runtime.shadow import bounded
from greenroom_runtime.shadow.ends import Verdict
from greenroom_runtime.shadow.memory import descendants

TELL_DESCRIPTOR: Final = 3
"""Where the process tells its reports."""
RESUME_DESCRIPTOR: Final = 4
"""Where it reads what the process before had told: nothing, or the report as JSON."""
MOST_LINE: Final = 512 * 1024
"""Bytes of one line of what it tells."""
MOST_PATIENCE: Final = 86_400.0
"""Seconds; JSON has integers that are no float."""
_MOST_WORDS: Final = 4096
_READ_BYTES: Final = 64 * 1024
_LOWEST: Final = 16
"""A descriptor of ours that is no target: what is copied onto itself would be closed at exec."""


class Words:
    """Cuts what a process tells into lines; one that is too long is left out as a whole."""

    def __init__(self) -> None:
        self._part = bytearray()
        self._skipping = False

    def take(self, content: bytes) -> list[bytes]:
        """Return the lines that are whole now."""
        *ends, rest = content.split(b"\n")
        lines: list[bytes] = []
        for end in ends:
            if not self._skipping and len(self._part) + len(end) <= MOST_LINE:
                lines.append(bytes(self._part) + end)
            self._part.clear()
            self._skipping = False
        self._part += rest
        if self._skipping or len(self._part) > MOST_LINE:
            self._part.clear()
            self._skipping = True
        return lines


@dataclass(frozen=True, kw_only=True)
class Told:
    """One line of what a process tells."""

    process: dict[str, Any]
    """Its report, a ``contract.shadow.ProcessReport``."""
    metrics: str | None
    """What Prometheus scrapes; None in most lines."""
    patience: float
    """Seconds that it may say nothing from now on, if that is more than usual: it loads a model."""


def parse_told(line: bytes) -> Told | None:
    """Return what a line tells; None for what is no such line."""
    try:
        told = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("process"), dict):
        return None
    metrics, patience = told.get("metrics"), told.get("patience")
    return Told(
        process=told["process"],
        metrics=metrics if isinstance(metrics, str) else None,
        patience=min(patience, MOST_PATIENCE) if isinstance(patience, int | float) else 0.0,
    )


def _refuse_constant(text: str) -> None:
    """Refuse NaN and infinities, which the operator's JSON has not."""
    raise ValueError(text)


@dataclass(kw_only=True, eq=False)
class Child:
    """One process that was started."""

    pid: int
    began: float
    heard: float
    """When it last told something that could be read, or was started."""
    told: int
    """The end of the pipe where it tells; -1 once it is closed."""
    errors: int
    """The same of its stderr."""
    oom_kills: int
    """Of the container, when it was started."""
    spoke: bool = False
    patience: float = 0.0
    """Seconds of silence that it asked for last."""
    asked: bool = False
    peak_bytes: int = 0
    verdict: Verdict | None = None
    words: Words = field(default_factory=Words)
    stderr: bytes = b""
    """The last of what it wrote there."""

    def kill(self) -> None:
        """End it and all that it started, whatever they do about it."""
        # Found first: once it is gone, what it started is nobody's child that could be told from others.
        doomed = [self.pid, *descendants(self.pid)]
        with suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid in doomed:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def ask_to_end(self) -> None:
        """Send it SIGTERM, once."""
        if self.asked:
            return
        self.asked = True
        with suppress(OSError):
            os.kill(self.pid, signal.SIGTERM)

    def keep_error(self, content: bytes) -> None:
        """Remember the last of what it wrote to stderr."""
        self.stderr = (self.stderr + content)[-_MOST_WORDS:]

    @property
    def last_words(self) -> str:
        """The last line of its stderr."""
        lines = [line for line in self.stderr.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:512] if lines else ""

    def close(self) -> None:
        """Close what is left of its pipes."""
        for descriptor in (self.told, self.errors):
            if descriptor >= 0:
                os.close(descriptor)
        self.told = self.errors = -1


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    data_bytes: int | None,
    resume: bytes,
    now: float,
    oom_kills: int,
) -> Child:
    """Start a process in a group of its own; OSError where the system has no room for one."""
    bounding = [sys.executable, "-m", bounded.__name__, str(os.getpid()), str(data_bytes or 0), *command]
    told, telling = os.pipe()
    errors, erring = os.pipe()
    kept = os.memfd_create("resume")  # unlike a pipe's, its room is no question
    ours, theirs = [told, errors], [telling, erring, kept]
    try:
        os.write(kept, resume)
        os.lseek(kept, 0, os.SEEK_SET)
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOWEST) for descriptor in theirs]
        try:
            pid = os.posix_spawn(
                sys.executable,
                bounding,
                dict(environment),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, high[0], TELL_DESCRIPTOR),
                    (os.POSIX_SPAWN_DUP2, high[1], 2),
                    (os.POSIX_SPAWN_DUP2, high[2], RESUME_DESCRIPTOR),
                ],
                setpgroup=0,
                setsigmask=[],
                setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD],
            )
        finally:
            for descriptor in high:
                os.close(descriptor)
    except BaseException:
        for descriptor in ours:
            os.close(descriptor)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    for descriptor in ours:
        os.set_blocking(descriptor, False)
    return Child(pid=pid, began=now, heard=now, told=told, errors=errors, oom_kills=oom_kills)


def read(descriptor: int) -> bytes | None:
    """Return what is there now; empty at the end, None for nothing yet."""
    try:
        return os.read(descriptor, _READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""
