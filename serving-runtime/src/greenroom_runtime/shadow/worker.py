"""The one thread that asks the shadow's version, row by row."""

import asyncio
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from greenroom_runtime.models.door import Finding
from greenroom_runtime.models.session import ModelSession, Prediction, Row
from greenroom_runtime.models.trial import ALLOCATION_FAILURES
from greenroom_runtime.shadow.ends import OUT_OF_MEMORY_CODE

_SHOWN = 8
"""Features that an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the shadow made of one row."""

    prediction: Prediction | None = None
    error: str = ""
    """Why there is none, without a value of a feature."""
    lacking: tuple[str, ...] = ()
    """Features that it takes and the row has not: then it was not asked."""
    seconds: float = 0.0
    """In the model alone."""


class Worker:
    """Answers rows in a thread of its own, so that a slow model stops nothing else."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._row_since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """How long the present row has taken so far; 0 between rows."""
        since = self._row_since
        return 0.0 if since is None else self._clock() - since

    async def answer(self, session: ModelSession, rows: Sequence[Row]) -> list[Answer]:
        """Return the version's answers, in order."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._answer, session, rows)

    def close(self) -> None:
        """Begin nothing more; what runs cannot be stopped."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _answer(self, session: ModelSession, rows: Sequence[Row]) -> list[Answer]:
        answers = []
        for row in rows:
            self._row_since = self._clock()
            answers.append(answer_row(session, row, clock=self._clock))
            self._row_since = None
        return answers


def answer_row(session: ModelSession, row: Row, *, clock: Callable[[], float]) -> Answer:
    """Ask the version as a serving process would; the process ends where memory is refused."""
    door = session.door
    if lacking := door.names - row.keys():
        return Answer(lacking=tuple(sorted(lacking)))
    known = frozenset(row)
    if not door.fits(row, known=known):
        return Answer(error=_refusal(door.findings(row, known=known)))
    started = clock()
    try:
        (prediction,) = session.predict((row,))
    except Exception as error:  # noqa: BLE001 whatever the model raises is its answer
        leave_when_starved(error)
        return Answer(error=f"the model failed: {type(error).__name__}", seconds=clock() - started)
    seconds = clock() - started
    if not _is_finite(prediction):
        return Answer(error="the answer is not finite", seconds=seconds)
    return Answer(prediction=prediction, seconds=seconds)


def leave_when_starved(error: BaseException) -> None:
    """End the process where memory was refused: what is left of it may be half done."""
    if isinstance(error, MemoryError) or any(text in str(error) for text in ALLOCATION_FAILURES):
        os._exit(OUT_OF_MEMORY_CODE)


def _refusal(findings: Sequence[Finding]) -> str:
    told = [f"{finding.feature!r} is {finding.problem}" for finding in findings[:_SHOWN]]
    more = len(findings) - len(told)
    return f"the version would refuse the features: {', '.join(told)}{f' and {more} more' if more else ''}"


def _is_finite(prediction: Prediction) -> bool:
    value, probabilities = prediction.prediction, prediction.probabilities
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return probabilities is None or all(map(math.isfinite, probabilities))
