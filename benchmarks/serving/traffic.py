"""Requests at a constant rate, each with its time: what wrk, which sends as fast as it can, does not tell."""

import math
import socket
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from benchmarks.serving.process import ServerError, read_response
from greenroom_runtime.contract import names

_VERSION_HEADER = names.HEADER_VERSION.lower()
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One request."""

    due: float
    """When it was to be sent, by ``time.monotonic``."""
    ms: float
    """From then to its answer: a request that had to wait for the one before it has waited."""
    version: str
    """Which answered; empty where the request failed."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of time that is looked at by itself."""

    start: float
    end: float


class Traffic:
    """Threads with a kept-alive connection each, sending until the ``with`` block ends."""

    def __init__(self, port: int, requests: Sequence[bytes], *, connections: int, rate: float) -> None:
        self._port = port
        self._requests = requests
        self._connections = connections
        self._rate = rate
        self._stopped = threading.Event()
        self._sent: list[list[Sent]] = [[] for _ in range(connections)]
        self._begin = time.monotonic()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(connections)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def latest(self) -> list[Sent]:
        """Return the newest request of each connection."""
        return [sent[-1] for sent in self._sent if sent]

    def everything(self) -> list[Sent]:
        """Return all requests so far."""
        return [one for sent in self._sent for one in list(sent)]

    def wait_for(self, condition: Callable[[Sequence[Sent]], bool], *, seconds: float) -> float:
        """Return when the newest requests fulfil the condition; ServerError where they do not in time."""
        ends = time.monotonic() + seconds
        while not condition(self.latest()):
            if time.monotonic() > ends:
                raise ServerError(f"not within {seconds:g} s; the newest requests: {self.latest()}")
            time.sleep(0.002)
        return time.monotonic()

    def _run(self, number: int) -> None:
        connection: socket.socket | None = None
        sent = self._sent[number]
        turn = number
        while not self._stopped.is_set():
            due = self._begin + turn / self._rate
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", self._port), timeout=_SECONDS)
                connection.sendall(self._requests[turn % len(self._requests)])
                response = read_response(connection)
                version = response.headers.get(_VERSION_HEADER, "") if response.status == 200 else ""
            except (OSError, ServerError):
                version = ""
                _close(connection)
                connection = None
            sent.append(Sent(due=due, ms=(time.monotonic() - due) * 1000, version=version))
            turn += self._connections
        _close(connection)


def _close(connection: socket.socket | None) -> None:
    if connection is not None:
        connection.close()


def within(sent: Iterable[Sent], windows: Sequence[Window]) -> list[float]:
    """Return the latencies in ms of what was due in the windows, which are in order and apart."""
    starts = [window.start for window in windows]
    found = []
    for one in sent:
        index = bisect_right(starts, one.due) - 1
        if index >= 0 and one.due < windows[index].end:
            found.append(one.ms)
    return found


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values do not exceed; NaN of none."""
    ranked = sorted(values)
    if not ranked:
        return float("nan")
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]
