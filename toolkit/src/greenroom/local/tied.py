"""A process that ends with the command that started it, however that ends.

``python -m greenroom.local.tied MODULE ARGUMENT…`` runs the module as the main one. Its standard input is a
pipe that nobody writes to, and of which the command alone holds the other end: the system closes it, also
where the command was killed and could tell nobody. The standard library only, as of a shadow's supervisor.
"""

import os
import runpy
import signal
import sys
import threading
import time
from typing import Final

END_SECONDS: Final = 20.0
"""How long it may take to end in order: longer than the prediction log may take for its last records."""


def main() -> None:
    """Watch over the command, and run the module."""
    _, module, *arguments = sys.argv
    threading.Thread(target=_end_with_command, daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_command() -> None:
    """Wait for the end of standard input, then end this process: politely, then not."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
