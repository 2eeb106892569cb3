"""Records and logs for tests of the prediction log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from greenroom_runtime.contract import config
from greenroom_runtime.predictions.ledger import Counts
from greenroom_runtime.predictions.log import Bounds, PredictionLog, open_log
from greenroom_runtime.predictions.record import Comparison, Record

DEADLINE_SECONDS = 60.0
"""How long a test waits for what must come; only ever reached on failure."""
QUICK = Bounds(sync_seconds=0.01, http_seconds=0.01, retry_seconds=0.01, longest_retry_seconds=0.05)
CLASSES = ("no", "yes")


def record(number: int = 0, **changes: Any) -> Record:
    """Return an answered prediction's record."""
    given: dict[str, Any] = {
        "id": f"request-{number}",
        "time": 1_795_000_000.25 + number,
        "version": "v1",
        "role": "production",
        "reason": "default",
        "entity": "u1",
        "features": {"age": 41.5, "visits": 3, "country": "NO", "member": True, "income": None},
        "feature_source": "request",
        "status": 200,
        "latency_ms": 1.25,
        "prediction": "yes",
        "probabilities": [0.25, 0.75],
        "classes": CLASSES,
        "size": 200,
    }
    return Record(**(given | changes))


def shadowed(number: int = 0, outcome: str = "agreed", **changes: Any) -> Record:
    """Return the record of a shadow that was asked what `record` tells of."""
    compared = Comparison(
        version="v1",
        prediction="yes",
        probabilities=[0.25, 0.75],
        classes=CLASSES,
        latency_ms=1.25,
        outcome=outcome,
        difference=0.0 if outcome == "agreed" else 0.5,
        segments=["country=NO"] if number % 2 else ["country=SE", "tier=gold"],
    )
    known = {"version": "v2", "role": "shadow", "reason": "shadow", "features": None, "feature_source": ""}
    return record(number, comparison=compared, always=outcome != "agreed", **(known | changes))


def refused(number: int = 0, **changes: Any) -> Record:
    """Return the record of a request that was answered with an error."""
    error = {"status": 422, "prediction": None, "probabilities": None, "classes": None, "error": "1 missing"}
    return record(number, **(error | changes))


@contextmanager
def prediction_log(
    directory: Path,
    *,
    bounds: Bounds = QUICK,
    pod: str = "pod-0",
    environment: dict[str, str] | None = None,
    stdout: int = 1,
    **settings: Any,
) -> Iterator[PredictionLog]:
    """Keep a log in the directory until the block ends."""
    log = open_log(
        config.PredictionLog(directory=str(directory), **settings),
        model="churn",
        namespace="ml",
        pod=pod,
        environment=environment or {},
        bounds=bounds,
        stdout=stdout,
    )
    try:
        yield log
    finally:
        log.close(DEADLINE_SECONDS)


def lines(directory: Path) -> list[dict[str, Any]]:
    """Return what the sealed segments hold, oldest first; every line must be whole."""
    return [
        orjson.loads(line)
        for path in sorted(directory.glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


def number_of(counts: Counts) -> int:
    """Return how many predictions the counts account for."""
    return counts.logged + counts.dropped + counts.sampled_out + counts.pending


def total(log: PredictionLog) -> Counts:
    """Return the sums of a log's accounts."""
    return sum(log.counts().values(), Counts())


def wait_until(condition: Callable[[], object], *, told: Callable[[], object] = lambda: "") -> None:
    """Poll until the condition holds; ``told`` is shown when it never does."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not before the deadline: {told()}"
        time.sleep(0.005)
