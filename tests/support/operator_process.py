"""The operator as it runs in its pod: a process of its own, told by flags, heard by its log."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class OperatorProcess:
    """A context manager: ends the process when the test is over, however it went."""

    def __init__(self, kubeconfig: Path, *flags: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "greenroom_operator", "--listen=127.0.0.1", "--port=0", *flags],
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self._news: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resume()
        self._process.kill()
        self._process.wait()

    def wait_for(self, event: str, *, seconds: float = 60) -> dict[str, Any]:
        """Return the next line of the log that is this event; lines before it are read past."""
        try:
            while (line := self._news.get(timeout=seconds)) is not None:
                if line["event"] == event:
                    return line
        except queue.Empty:
            pass
        raise AssertionError(f"no {event!r} in the operator's log:\n{self._told()}")

    def ended(self, *, seconds: float = 60) -> int:
        """Wait until the process has ended and return its exit code."""
        return self._process.wait(timeout=seconds)

    def pause(self) -> None:
        """Stop the process as a frozen machine would."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on."""
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to end, as kubelet does."""
        self._process.terminate()

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()

    def get(self, path: str) -> tuple[int, str]:
        """Ask its health server; return status and text."""
        address = next(line for line in self.lines if line["event"] == "health and metrics")["address"]
        try:
            with urllib.request.urlopen(f"{address}{path}", timeout=60) as answer:  # noqa: S310 - loopback
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, series: str) -> float:
        """Return the value of one series, such as ``leader``, 0 when there is none."""
        _, exposition = self.get("/metrics")
        return next(self._values(exposition, f"greenroom_operator_{series} "), 0.0)

    def writes(self) -> float:
        """Return how many calls that may change a watched object it has sent."""
        _, exposition = self.get("/metrics")
        return sum(
            value
            for verb in ("apply", "apply_status", "annotate", "delete")
            for value in self._values(exposition, "greenroom_operator_api_calls_total{", f'verb="{verb}"')
        )

    def _values(self, exposition: str, start: str, part: str = "") -> Iterator[float]:
        for line in exposition.splitlines():
            if line.startswith(start) and part in line:
                yield float(line.rpartition(" ")[2])

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"event": text.rstrip()}
            self.lines.append(line)
            self._news.put(line)
        self._news.put(None)

    def _told(self) -> str:
        return "\n".join(json.dumps(line) for line in self.lines)
