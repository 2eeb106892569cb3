"""Ctrl-C, SIGTERM and SIGHUP as what a loop looks at, so that it ends between two steps and cleans up."""

import signal
import threading
from types import FrameType


class StopSignal:
    """Set by the first SIGINT, SIGTERM or SIGHUP; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._number = 0
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: it is to outlive its terminal
            signal.signal(signal.SIGHUP, self._stop)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._number = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep, or return True as soon as somebody wants an end."""
        return self._event.wait(seconds)

    @property
    def exit_code(self) -> int:
        """Return the code that shells expect: 130 after Ctrl-C, 143 after SIGTERM, 0 while nobody asked."""
        return 128 + self._number if self._number else 0
