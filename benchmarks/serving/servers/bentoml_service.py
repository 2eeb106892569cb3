# mypy: disable-error-code="import-not-found,misc,untyped-decorator"
"""BentoML services as its documentation shows: an API with typed parameters, plain and asynchronous."""

import os
from typing import Any

import bentoml

from benchmarks.serving.servers.scoring import open_session, score

SETTINGS: dict[str, Any] = {"workers": 1, "logging": {"access": {"enabled": False}}}


@bentoml.service(**SETTINGS)
class Scorer:
    """Answers rows by name, in a thread."""

    def __init__(self) -> None:
        self.session = open_session(os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, features: dict[str, Any], user_id: str) -> dict[str, Any]:  # noqa: ARG002
        """Answer one row."""
        return score(self.session, features)


@bentoml.service(**SETTINGS)
class AsyncScorer:
    """The same on the event loop."""

    def __init__(self) -> None:
        self.session = open_session(os.environ["BENCH_MODEL"])

    @bentoml.api
    async def predict(self, features: dict[str, Any], user_id: str) -> dict[str, Any]:  # noqa: ARG002
        """Answer one row."""
        return score(self.session, features)
