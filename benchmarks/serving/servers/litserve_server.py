# mypy: disable-error-code="import-not-found,misc,untyped-decorator"
"""LitServe as its documentation shows: an API class with decode, predict and encode."""

import os
from typing import Any

import litserve

from benchmarks.serving.servers.scoring import open_session, score


class Scorer(litserve.LitAPI):
    """Answers rows by name."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Open the session."""
        self.session = open_session(os.environ["BENCH_MODEL"])

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take the features."""
        features: dict[str, Any] = request["features"]
        return features

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        """Answer one row."""
        return score(self.session, x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Answer as it is."""
        return output


if __name__ == "__main__":
    litserve.LitServer(Scorer(), accelerator="cpu", devices=1, workers_per_device=1).run(
        host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False, log_level="warning"
    )
