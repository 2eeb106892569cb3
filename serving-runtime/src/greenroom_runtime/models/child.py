"""How a process behaves that works for the serving process. Imports little: a trial's start is waited for."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_NICENESS = 10


def stand_back(parent: int) -> None:
    """Die with the parent, and let production go first to the processor and last to the OOM killer."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we asked
        sys.exit("the serving process has ended")
    os.nice(_NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
