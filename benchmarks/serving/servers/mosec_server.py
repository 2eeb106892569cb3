# mypy: disable-error-code="import-not-found,misc,untyped-decorator"
"""Mosec as its documentation shows: a worker behind its server in Rust; one row at a time, or in batches.

BENCH_BATCH says how many rows may share a run; Mosec's own default is 1.
"""

import os
from typing import Any

import numpy as np
from mosec import Server, Worker

from benchmarks.serving.servers.scoring import (
    NUMBERS,
    NUMERIC_INPUT,
    OUTPUTS,
    TEXT_INPUT,
    TEXTS,
    open_session,
    score,
)

BATCH = int(os.environ.get("BENCH_BATCH", "1"))
WAIT_MS = 1


class Scorer(Worker):
    """Answers rows by name."""

    def __init__(self) -> None:
        self.session = open_session(os.environ["BENCH_MODEL"])

    def forward(self, data: Any) -> Any:
        """Answer one request, or as many as have queued."""
        if BATCH == 1:
            return score(self.session, data["features"])
        rows = [request["features"] for request in data]
        labels, probabilities = self.session.run(
            OUTPUTS,
            {
                NUMERIC_INPUT: np.array([[row[name] for name in NUMBERS] for row in rows], dtype=np.float64),
                TEXT_INPUT: np.array([[row[name] for name in TEXTS] for row in rows], dtype=object),
            },
        )
        return [
            {"prediction": label, "probability": yes}
            for label, (_, yes) in zip(labels.tolist(), probabilities.tolist(), strict=True)
        ]


if __name__ == "__main__":
    server = Server()
    batching = {} if BATCH == 1 else {"max_batch_size": BATCH, "max_wait_time": WAIT_MS}
    server.append_worker(Scorer, num=1, **batching)
    server.run()
