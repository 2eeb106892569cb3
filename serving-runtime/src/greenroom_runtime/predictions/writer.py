"""The thread between the queue and the disk."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from greenroom_runtime.predictions.batch import Batch
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

    def append(self, batch: Batch) -> int:
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
        batch: Batch,
        every_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.trouble = Trouble("writer")
        self.wake = threading.Event()
        self._queue = queue
        self._sink = sink
        self._speller = speller
        self._ledger = ledger
        self._batch = batch
        self._every_seconds = every_seconds
        self._clock = clock
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

    def work(self, *, flush: bool = True) -> bool:
        """Spell what waits now, and hand it to the sink when told to or when it makes a whole batch.

        False where the sink is stuck; the next call goes on from there.
        """
        try:
            left = len(self._queue.waiting)
            while left:
                left -= self._spell(left)
                if left:
                    self._flush()
            if flush:
                self._flush()
                self._sink.tidy()
                self.trouble.end()
        except OSError as error:
            self.trouble.begin(str(error))
            return False
        return True

    def _flush(self) -> None:
        while self._batch:
            self._batch.drop(self._sink.append(self._batch))

    def _spell(self, most: int) -> int:
        """Take records until the batch is full; return how many."""
        waiting = self._queue.waiting
        taken = 0
        while taken < most:
            account, record, weight = waiting[0]
            line = self._line(account, record)
            if line and not self._batch.add(line, account):
                break
            waiting.popleft()
            self._queue.bytes_out += weight
            taken += 1
            if taken % _SLICE == 0 and taken < most and not self._stopping.is_set():
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
            self._spell_until(due)
            self._try_to_work(flush=True)
        while not self._try_to_work(flush=True) and self._clock() < self._give_up_at:
            time.sleep(_RETRY_SECONDS)
        try:
            self._sink.close()
        except OSError as error:
            self.trouble.begin(str(error))

    def _spell_until(self, due: float) -> None:
        """Keep the queue short meanwhile: what a request leaves behind is soon free again for the next."""
        while (left := due - self._clock()) > 0 and not self._stopping.is_set():
            # What is stuck is tried again in time, not whenever the queue grows.
            (self._stopping if self.trouble.text else self.wake).wait(left)
            self.wake.clear()
            if not self.trouble.text:
                self._try_to_work(flush=False)

    def _try_to_work(self, *, flush: bool) -> bool:
        try:
            return self.work(flush=flush)
        except Exception as error:  # a thread that died would be a log that has ended
            log.exception("a defect in the prediction log")
            self.trouble.begin(f"a defect: {error!r}")
            return False
