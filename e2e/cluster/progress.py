"""What a user sees while something takes its time."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str) -> None:
    """Print one line for the user; standard output stays free for what a command answers."""
    print(f"cluster: {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str, about: str = "") -> Iterator[None]:
    """Say what begins, and how long it is expected to take; then how long it took."""
    say(f"{text} (about {about}) …" if about else f"{text} …")
    began = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - began:.1f} s")
