"""For all tests of the parts."""

from hypothesis import settings

from tests.support.reruns import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]

# Its own limit of 200 ms an example would be an assertion on how busy the machine is.
settings.register_profile("greenroom", deadline=None)
settings.load_profile("greenroom")
