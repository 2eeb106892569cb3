"""Why shadow processes end, and how long the next one waits. Pure, and the standard library only."""

import signal
from dataclasses import dataclass, field
from typing import Final

OUT_OF_MEMORY_CODE: Final = 77
"""The exit code of a shadow process that was refused memory."""
UNUSABLE_CODE: Final = 2
"""The exit code of a shadow process that cannot begin with its configuration."""
CRASHED: Final = "Crashed"
HUNG: Final = "Hung"
OUT_OF_MEMORY: Final = "OutOfMemory"
REASONS: Final = (CRASHED, HUNG, OUT_OF_MEMORY)
"""As ``contract.shadow.EndReason`` spells them, which needs pydantic; a test holds the two equal."""
MESSAGE_LETTERS: Final = 1024
_STARVED: Final = ("MemoryError", "bad_alloc", "Cannot allocate memory", "failed to map segment")
"""How libraries die of a data limit."""
_MIB: Final = 2**20


@dataclass(frozen=True, kw_only=True)
class End:
    """How a shadow process ended that should not have."""

    reason: str
    message: str
    at: float
    """On the supervisor's clock."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why the supervisor killed a process."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What is known of a process that has ended."""

    code: int
    """Its exit code; negative: the signal that ended it."""
    verdict: Verdict | None
    """None where it was not killed by us."""
    peak_bytes: int
    limited: bool
    """Whether it had a limit of its data."""
    oom_kills: int
    """How many processes the kernel killed for memory in the container meanwhile."""
    last_words: str
    """The last line that it wrote to stderr."""


def explain(ended: Ended, *, at: float) -> End:
    """Return why a process ended, told so that a person can act on it."""
    reason, message = _judge(ended)
    peak = f"it had {ended.peak_bytes // _MIB} MiB of memory at its peak"
    words = f"; its last words: {ended.last_words}" if ended.last_words else ""
    return End(reason=reason, message=f"{message}; {peak}{words}"[:MESSAGE_LETTERS], at=at)


def _judge(ended: Ended) -> tuple[str, str]:
    if ended.verdict is not None:
        return ended.verdict.reason, ended.verdict.message
    code = ended.code
    remedy = "raise spec.shadow.resources.limits.memory or use a smaller model"
    if code == OUT_OF_MEMORY_CODE:
        return OUT_OF_MEMORY, f"the process was refused memory: {remedy}"
    if code == -signal.SIGKILL and ended.oom_kills:
        return OUT_OF_MEMORY, f"the process was killed by the kernel for want of memory: {remedy}"
    if code == UNUSABLE_CODE:
        return CRASHED, "the process cannot begin with its configuration, exit code 2"
    how = f"by {_signal(-code)}" if code < 0 else f"with exit code {code}"
    if ended.limited and any(word in ended.last_words for word in _STARVED):
        return OUT_OF_MEMORY, f"the process was ended {how}, most likely for want of memory: {remedy}"
    return CRASHED, f"the process was ended {how}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"


@dataclass(kw_only=True)
class Backoff:
    """How long to wait before the next process: twice as long each time, until one has lived for a while."""

    first: float
    longest: float
    proven: float
    """Seconds that a process lives before the next wait is the first one again."""
    _next: float = field(init=False)

    def __post_init__(self) -> None:
        self._next = self.first

    def after(self, lived: float) -> float:
        """Return the seconds to wait after a process that lived so long."""
        if lived >= self.proven:
            self._next = self.first
        wait, self._next = self._next, min(self._next * 2, self.longest)
        return wait
