"""How a process behaves that works for the serving process.

``python -m greenroom_runtime.models.child PARENT POLICY MODULE ARGUMENT…`` stands back, and then runs the
module: importing it takes the processor, too.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_NICENESS = 10


class Policy(StrEnum):
    """How it shares the processor with the serving process (sched(7))."""

    IDLE = "idle"
    """It gets what nobody wants, and gives it back at once: a request waits for no slice of milliseconds."""
    NICE = "nice"
    """It gets a tenth even where the processor is busy all the time."""


def main() -> None:
    """Stand back and run the module as the main one."""
    parent, policy, module, *arguments = sys.argv[1:]
    stand_back(int(parent), policy=Policy(policy))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def stand_back(parent: int, *, policy: Policy) -> None:
    """Die with the parent, and let production go first to the processor and last to the OOM killer."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we asked
        sys.exit("the serving process has ended")
    os.nice(_NICENESS)
    if policy is Policy.IDLE:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def stand_back_as_thread() -> None:
    """Let the other threads go first to the processor.

    Not by the idle policy: a thread that is hardly ever let run, and holds the interpreter's lock, would stop
    production.
    """
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


if __name__ == "__main__":
    main()
