"""The command ``greenroom`` as a process, as a person at a terminal meets it."""

import json
import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests.support.examples import EXAMPLES

PATIENCE_SECONDS = 90.0
MANIFEST = (EXAMPLES / "penguins" / "modeldeployment.yaml").read_text()
"""The example's ModelDeployment."""


class Command:
    """One running ``greenroom …``; killed with its children when the ``with`` block ends."""

    def __init__(self, *arguments: str, state: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "greenroom", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(state)},
        )
        self.lines: list[str] = []
        self._unread: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.lines.append(line.rstrip())
            self._unread.put(line.rstrip())
        self._unread.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_for(self, words: str) -> str:
        """Return the next line with these words; AssertionError with everything said when it never comes."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._unread.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                break
            if words in line:
                return line
        raise AssertionError(f"it never said {words!r}, but:\n" + "\n".join(self.lines))

    def wait_for_url(self) -> str:
        """Return where it serves, once it does."""
        found = re.search(r"http://\S+", self.wait_for(" serves at "))
        assert found
        return found[0]

    def serving_pid(self) -> int:
        """Return the runtime's process."""
        return self.children()[0]

    def children(self) -> list[int]:
        """Return the processes that it has started, in that order."""
        return children(self._process.pid)

    def interrupt(self, number: int = signal.SIGINT) -> int:
        """Send the signal; return the exit code."""
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_SECONDS)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, in that order: each thread's."""
    found: list[int] = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name)):
        with suppress(OSError):  # a thread may end at any time
            found += map(int, (task / "children").read_text().split())
    return found


@contextmanager
def seeing_ended(*pids: int) -> Iterator[None]:
    """See that these processes have ended, each by itself, some time after the ``with`` block.

    By descriptors that are opened before it, since a process whose parent is gone may stay as a zombie.
    """
    with ExitStack() as stack:
        left = {os.pidfd_open(pid): pid for pid in pids}
        for descriptor in left:
            stack.callback(os.close, descriptor)
        poll = select.poll()
        for descriptor in left:
            poll.register(descriptor, select.POLLIN)
        yield
        deadline = time.monotonic() + PATIENCE_SECONDS
        while left:
            ended = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            assert ended, (
                f"still there: {[Path(f'/proc/{pid}/cmdline').read_text() for pid in left.values()]}"
            )
            for descriptor, _ in ended:
                poll.unregister(descriptor)
                del left[descriptor]


def run_to_end(
    *arguments: str, interpreter: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [sys.executable, *interpreter, "-m", "greenroom", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def predict(url: str, features: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Ask for one prediction on a connection of its own."""
    body = json.dumps({"features": features, **more}).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 loopback
        answered: dict[str, Any] = json.load(answer)
        return answered
