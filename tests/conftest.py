"""For all tests of the parts."""

import signal

from hypothesis import settings

from tests.support.reruns import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]

# Its own limit of 200 ms an example would be an assertion on how busy the machine is.
settings.register_profile("greenroom", deadline=None)
settings.load_profile("greenroom")


def pytest_configure() -> None:
    """Let the commands that tests start hear Ctrl-C and the end of a terminal.

    Whoever started pytest in the background or by ``nohup`` has both ignored, which goes down to all of them.
    """
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
