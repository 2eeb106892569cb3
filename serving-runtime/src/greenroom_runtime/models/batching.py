"""Runs of a model: a request alone while traffic is light, several together when they queue.

A run costs tens of microseconds whatever it carries, and two or three more for each further row. A
model that is quick runs on the event loop: the first request of a turn of the loop alone and at once; any
other of the same turn shows that requests queue, and they share a run at its end. So nothing ever
waits for company that may not come. A model that is slow runs in threads; what arrives while all
are busy shares the next run.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from greenroom_runtime.models.session import ModelSession, Prediction, Row

QUICK_SECONDS = 0.002
"""Longest run on the event loop; whatever takes longer goes to a thread."""

_PATIENCE_SECONDS = 0.0005
"""Longest that a row waits for company while each turn of the loop brings more."""


class Run(NamedTuple):
    """One run of the model, for the metrics."""

    rows: int
    seconds: float
    """In the model alone."""
    queued: Sequence[float]
    """How long each row had waited for it, in seconds."""


class _Waiting(NamedTuple):
    row: Row
    since: float
    answer: "asyncio.Future[Prediction]"


@dataclass(kw_only=True, eq=False)
class Batcher:
    """Answers rows with one session. Belongs to one event loop."""

    session: ModelSession
    row_seconds: float
    """What a row alone takes, as measured when the session was warmed."""
    executor: Executor
    threads: int
    """Runs at once in the executor."""
    on_run: Callable[[Run], None] = lambda _: None
    clock: Callable[[], float] = time.perf_counter
    _queue: "deque[_Waiting]" = field(default_factory=deque)
    _turn_ends: bool = False
    """Whether a look at the queue at the end of this turn of the loop is on its way."""
    _crowded: bool = False
    """Whether the last turn had more than one request."""
    _seen: int = 0
    """Rows that waited at the end of the last turn."""
    _busy: int = 0
    """Runs in the executor now."""

    def __post_init__(self) -> None:
        """Derive what one run may carry."""
        self.quick = self.row_seconds < QUICK_SECONDS
        self.max_rows = self.session.bundle.batching.max_rows
        if self.quick:
            # As if each row cost what the first one does, so that no run holds the loop up for long.
            self.max_rows = max(1, min(self.max_rows, int(QUICK_SECONDS / max(self.row_seconds, 1e-6))))

    async def predict(self, row: Row) -> Prediction:
        """Answer one row that has passed the door; raises whatever the model raises on this very row."""
        if self.quick and not self._crowded and not self._turn_ends:
            self._await_turns_end()
            return self._run_alone(row)
        answer: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(row, self.clock(), answer))
        if self.quick:
            self._await_turns_end()
        else:
            self._start_runs()
        try:
            return await answer
        finally:
            del answer  # its error would refer to this frame, and so to itself

    async def predict_many(self, rows: Sequence[Row]) -> list[Prediction | Exception]:
        """Answer many rows of one request in the executor, in order; an exception for each that fails.

        They are run apart from the queue: a large request does not make small ones wait for its end.
        """
        loop = asyncio.get_running_loop()
        answers: list[Prediction | Exception] = []
        for start in range(0, len(rows), self.max_rows):
            chunk = rows[start : start + self.max_rows]
            started = self.clock()
            answers += await loop.run_in_executor(self.executor, _predict_each, self.session, chunk)
            self.on_run(Run(len(chunk), self.clock() - started, ()))
        return answers

    def _run_alone(self, row: Row) -> Prediction:
        started = self.clock()
        (prediction,) = self.session.predict((row,))
        self.on_run(Run(1, self.clock() - started, (0.0,)))
        return prediction

    def _await_turns_end(self) -> None:
        if not self._turn_ends:
            self._turn_ends = True
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn_ends = False
        if self._grows():
            self._await_turns_end()
            return
        batch = self._take()
        self._crowded = len(batch) > 1 or bool(self._queue)
        if self._queue:
            self._await_turns_end()
        if batch:
            started = self.clock()
            answers = _predict_each(self.session, [waiting.row for waiting in batch])
            self._answer(batch, answers, started=started)

    def _grows(self) -> bool:
        """Tell whether this turn has brought more to a crowd: so may the next, and the run waits for it."""
        rows, before = len(self._queue), self._seen
        self._seen = rows
        if not self._crowded or not before < rows < self.max_rows:
            self._seen = 0
            return False
        return self.clock() - self._queue[0].since < _PATIENCE_SECONDS

    def _take(self) -> list[_Waiting]:
        """Take what one run may carry, without those whose client has gone."""
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self.max_rows:
            waiting = self._queue.popleft()
            if not waiting.answer.done():
                batch.append(waiting)
        return batch

    def _start_runs(self) -> None:
        while self._busy < self.threads and (batch := self._take()):
            self._busy += 1
            rows = [waiting.row for waiting in batch]
            started = self.clock()
            run = asyncio.get_running_loop().run_in_executor(self.executor, _predict_each, self.session, rows)
            run.add_done_callback(partial(self._end_run, batch=batch, started=started))

    def _end_run(
        self,
        run: "asyncio.Future[Sequence[Prediction | Exception]]",
        *,
        batch: list[_Waiting],
        started: float,
    ) -> None:
        self._busy -= 1
        if run.cancelled():
            for waiting in batch:
                waiting.answer.cancel()
            return
        self._start_runs()
        self._answer(batch, run.result(), started=started)

    def _answer(
        self, batch: list[_Waiting], answers: Sequence[Prediction | Exception], *, started: float
    ) -> None:
        seconds = self.clock() - started
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)
        self.on_run(Run(len(batch), seconds, [started - waiting.since for waiting in batch]))


def _predict_each(session: ModelSession, rows: Sequence[Row]) -> Sequence[Prediction | Exception]:
    """Run the rows together; where that fails one by one, so that each fails for itself only."""
    try:
        return session.predict(rows)
    except Exception as error:  # noqa: BLE001 whatever the model raises is the answer to its row
        if len(rows) == 1:
            return [error.with_traceback(None)]  # that would hold the rows, and in a thread hold itself
    return [answer for row in rows for answer in _predict_each(session, [row])]
