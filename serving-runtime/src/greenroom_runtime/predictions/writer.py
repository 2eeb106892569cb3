"""The thread between the queue and the disk."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from greenroom_runtime.predictions.ledger import Account, Ledger
from greenroom_runtime.predictions.record import Record
from greenroom_runtime.predictions.spelling import Speller

log = structlog.get_logger(__name__)

_SLICE = 32
_BREATH_SECONDS = 50e-6
"""Between slices, so that an answer never waits for the interpreter lock longer than a slice takes."""
_RETRY_SECONDS = 0.05


class Sink(Protocol):
    """Where lines go; called by one thread."""

    def append(self, lines: Sequence[bytes], accounts: Sequence[Account]) -> int:
        """Take lines from the first on, account for them and return how many; OSError when it is none."""

    def tidy(self) -> None:
        """Do what time asks for; OSError when it does not work."""

    def close(self) -> None:
        """Leave everything in order; OSError when it does not work."""


@dataclass(slots=True)
class Queue:
    """What waits for the writer: the request path appends, the writer takes.

    Each number has one side that changes it; the bytes that wait are their difference.
    """

    waiting: deque[tuple[Account, Record, int]]
    bytes_in: int = 0
    bytes_out: int = 0


class Trouble:
    """What a thread complains of; logged when it begins and when it ends, not each time."""

    def __init__(self, of: str) -> None:
        self._of = of
        self.text = ""

    def begin(self, text: str) -> None:
        """Say it, and log it unless there was trouble already."""
        if not self.text:
            log.warning("the prediction log is in trouble", part=self._of, error=text)
        self.text = text

    def end(self) -> None:
        """All is well again."""
        if self.text:
            log.info("the prediction log is well again", part=self._of)
        self.text = ""


class Writer:
    """Takes records from the queue and gives their lines to the sink."""

    def __init__(
        self,
        queue: Queue,
        *,
        sink: Sink,
        speller: Speller,
        ledger: Ledger,
        batch_bytes: int,
        every_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.trouble = Trouble("writer")
        self.wake = threading.Event()
        self._queue = queue
        self._sink = sink
        self._speller = speller
        self._ledger = ledger
        self._batch_bytes = batch_bytes
        self._every_seconds = every_seconds
        self._clock = clock
        self._lines: list[bytes] = []
        self._accounts: list[Account] = []
        self._unspeakable = False
        self._stopping = threading.Event()
        self._give_up_at = 0.0
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self, deadline_seconds: float) -> None:
        """Write what waits and end, both in bounded time."""
        self._give_up_at = self._clock() + deadline_seconds
        self._stopping.set()
        self.wake.set()
        if self._thread.is_alive():
            self._thread.join(deadline_seconds)

    def work(self) -> bool:
        """Write what waits now; False where that is stuck, and then it is tried again the next time."""
        try:
            left = len(self._queue.waiting)
            while self._lines or left:
                if not self._lines:
                    left -= self._fill(left)
                if self._lines:
                    taken = self._sink.append(self._lines, self._accounts)
                    del self._lines[:taken], self._accounts[:taken]
            self._sink.tidy()
        except OSError as error:
            self.trouble.begin(str(error))
            return False
        self.trouble.end()
        return True

    def _fill(self, most: int) -> int:
        """Take records until they make a batch; return how many."""
        waiting = self._queue.waiting
        size = taken = 0
        while taken < most:
            account, record, weight = waiting[0]
            line = self._line(account, record)
            if self._lines and size + len(line) > self._batch_bytes:
                break
            waiting.popleft()
            self._queue.bytes_out += weight
            taken += 1
            if line:
                size += len(line)
                self._lines.append(line)
                self._accounts.append(account)
            if taken % _SLICE == 0 and not self._stopping.is_set():
                time.sleep(_BREATH_SECONDS)
        return taken

    def _line(self, account: Account, record: Record) -> bytes:
        try:
            return self._speller.line(record)
        except Exception as error:  # noqa: BLE001 whatever is wrong with one record, the others are written
            self._ledger.lost(Counter([account]))
            if not self._unspeakable:
                log.warning("a prediction is not recorded", id=record.id, error=str(error))
            self._unspeakable = True
            return b""

    def _run(self) -> None:
        due = self._clock()
        while not self._stopping.is_set():
            due = max(due + self._every_seconds, self._clock())
            # What is stuck is tried again in time, not whenever the queue grows.
            (self._stopping if self.trouble.text else self.wake).wait(max(0.0, due - self._clock()))
            self.wake.clear()
            self._try_to_work()
        while not self._try_to_work() and self._clock() < self._give_up_at:
            time.sleep(_RETRY_SECONDS)
        try:
            self._sink.close()
        except OSError as error:
            self.trouble.begin(str(error))

    def _try_to_work(self) -> bool:
        try:
            return self.work()
        except Exception as error:  # a thread that died would be a log that has ended
            log.exception("a defect in the prediction log")
            self.trouble.begin(f"a defect: {error!r}")
            return False
