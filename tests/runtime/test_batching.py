"""Runs of a model: alone, together, and each row for itself when one fails."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from greenroom_runtime.contract.bundle import BUNDLE_FILE, Batching, Bundle
from greenroom_runtime.models.batching import QUICK_SECONDS, Batcher, Run
from greenroom_runtime.models.session import ModelSession, Prediction, Row
from tests.support.bundles import CLASSIFIER_ROWS, write_classifier

QUICK, SLOW = QUICK_SECONDS / 100, QUICK_SECONDS * 2


class Watched(ModelSession):
    """A real session that tells its runs, fails on a poisoned row and can be held up."""

    def __init__(self, directory: Path, *, max_rows: int = 64) -> None:
        raw = (directory / BUNDLE_FILE).read_bytes()
        bundle = Bundle.model_validate_json(raw).model_copy(update={"batching": Batching(max_rows=max_rows)})
        super().__init__(directory, bundle=bundle)
        self.runs: list[int] = []
        self.hold = threading.Event()
        self.hold.set()

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """Answer, unless a row is poisoned."""
        self.hold.wait()
        self.runs.append(len(rows))
        if any(row.get("poison") for row in rows):
            message = "poison"
            raise ValueError(message)
        return super().predict(rows)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Write a bundle."""
    write_classifier(tmp_path, "v1")
    return tmp_path / "v1"


def _batcher(session: ModelSession, seconds: float, *, threads: int = 1) -> tuple[Batcher, list[Run]]:
    runs: list[Run] = []
    executor = ThreadPoolExecutor(threads)
    batcher = Batcher(
        session=session, row_seconds=seconds, executor=executor, threads=threads, on_run=runs.append
    )
    return batcher, runs


async def test_light_traffic_is_never_batched(bundle: Path) -> None:
    """One request at a time is run at once, in the very turn of the loop in which it came."""
    session = Watched(bundle)
    batcher, runs = _batcher(session, QUICK)
    for row in CLASSIFIER_ROWS:
        await batcher.predict(row)
        await asyncio.sleep(0)
    assert session.runs == [1] * len(CLASSIFIER_ROWS)
    assert all(run.queued == (0.0,) for run in runs)


async def test_requests_of_one_turn_share_a_run(bundle: Path) -> None:
    """Requests that come together run together, and each gets what it would have got alone."""
    session = Watched(bundle)
    batcher, runs = _batcher(session, QUICK)
    rows = [CLASSIFIER_ROWS[n % len(CLASSIFIER_ROWS)] for n in range(20)]
    alone = [session.predict([row])[0].prediction for row in rows]
    session.runs.clear()
    answers = await asyncio.gather(*(batcher.predict(row) for row in rows))
    assert session.runs == [1, 19]
    assert [answer.prediction for answer in answers] == alone
    answers = await asyncio.gather(*(batcher.predict(row) for row in rows))
    assert session.runs == [1, 19, 20]  # after a crowded turn the first one waits for the others, too
    assert sum(run.rows for run in runs) == 40
    await batcher.predict(rows[0])
    await batcher.predict(rows[0])
    assert session.runs[-2:] == [1, 1]
    assert runs[-1].queued == (0.0,)  # and when the crowd has gone, it is run at once again


@pytest.mark.parametrize("seconds", [QUICK, SLOW], ids=["quick", "slow"])
async def test_a_row_that_fails_fails_alone(bundle: Path, seconds: float) -> None:
    """What the model raises on one row reaches that row's request and no other of its run."""
    session = Watched(bundle)
    batcher, _ = _batcher(session, seconds)
    poisoned = {**CLASSIFIER_ROWS[0], "poison": True}
    rows: list[Row] = [CLASSIFIER_ROWS[0], poisoned, CLASSIFIER_ROWS[1], CLASSIFIER_ROWS[2]]
    for _ in range(2):
        answers = await asyncio.gather(*(batcher.predict(row) for row in rows), return_exceptions=True)
        assert [isinstance(answer, ValueError) for answer in answers] == [False, True, False, False]


@pytest.mark.parametrize("seconds", [QUICK, SLOW], ids=["quick", "slow"])
async def test_a_cancelled_request_never_poisons_its_run(bundle: Path, seconds: float) -> None:
    """Who has gone is left out, or overheard; the others are answered."""
    session = Watched(bundle)
    batcher, _ = _batcher(session, seconds)
    if seconds == SLOW:
        session.hold.clear()
    tasks = [asyncio.create_task(batcher.predict(row)) for row in CLASSIFIER_ROWS[:3]]
    await asyncio.sleep(0)
    tasks[1].cancel()
    session.hold.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], Prediction)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert isinstance(answers[2], Prediction)


async def test_a_slow_model_runs_off_the_loop_and_its_queue_shares_the_next_run(bundle: Path) -> None:
    """While a thread is in the model, the loop turns; whoever comes meanwhile goes together."""
    session = Watched(bundle)
    batcher, _ = _batcher(session, SLOW)
    session.hold.clear()
    tasks = [asyncio.create_task(batcher.predict(CLASSIFIER_ROWS[0])) for _ in range(9)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    session.hold.set()
    await asyncio.gather(*tasks)
    assert session.runs == [1, 8]


@pytest.mark.parametrize(("seconds", "limit", "expected"), [(QUICK, 4, 4), (QUICK_SECONDS / 3, 64, 3)])
async def test_a_run_is_bounded(bundle: Path, seconds: float, limit: int, expected: int) -> None:
    """No run carries more rows than the bundle says, nor than the event loop can spare the time for."""
    session = Watched(bundle, max_rows=limit)
    batcher, _ = _batcher(session, seconds)
    answers = await asyncio.gather(*(batcher.predict(CLASSIFIER_ROWS[0]) for _ in range(11)))
    assert len(answers) == 11
    assert max(session.runs) == expected
    assert sum(session.runs) == 11


async def test_many_rows_of_one_request_are_answered_in_order(bundle: Path) -> None:
    """A large request is run in pieces, in a thread, each row for itself."""
    session = Watched(bundle, max_rows=4)
    batcher, runs = _batcher(session, QUICK)
    rows: list[Row] = [CLASSIFIER_ROWS[n % len(CLASSIFIER_ROWS)] for n in range(10)]
    rows[5] = {**rows[5], "poison": True}
    outcomes = await batcher.predict_many(rows)
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [n == 5 for n in range(10)]
    assert [run.rows for run in runs] == [4, 4, 2]
