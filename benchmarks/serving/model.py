"""The model that every contender serves: eight scaled numbers, two one-hot texts, trees, one graph."""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import greenroom
from benchmarks.serving.servers.scoring import NUMBERS, TEXTS, open_session, score
from greenroom_runtime.contract.bundle import MODEL_FILE

if TYPE_CHECKING:
    import onnxruntime as ort

NAME = "bench"
PLACES = ["east", "north", "south", "west"]
PLANS = ["basic", "family", "free", "team"]
TREES = {"v1": 100, "v2": 100, "w1": 200, "w2": 200}
"""By version: v1 and v2 answer in the comparison, w1 and w2 take turns in the swaps."""
_TRAINING_ROWS = 4000
_REQUEST_ROWS = 4096
_CREATED = datetime(2026, 11, 1, tzinfo=UTC)

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server said of one row."""

    label: int
    probability: float
    """Of class 1."""
    version: str | None = None
    """Which model said it, where the server tells."""


class Zoo:
    """The packaged versions, rows to ask about, and what each version answers to them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rows: list[Row] = json.loads((directory / "rows.json").read_text())
        self._sessions: dict[str, ort.InferenceSession] = {}

    def graph(self, version: str) -> Path:
        """Return the ONNX file, which is all that the peers are given."""
        return self.directory / version / MODEL_FILE

    def answer(self, version: str, row: Row) -> Answer:
        """Return what the version's graph says, asked without any server."""
        if version not in self._sessions:
            self._sessions[version] = open_session(self.graph(version))
        said = score(self._sessions[version], row)
        return Answer(label=said["prediction"], probability=said["probability"], version=version)


def prepare(cache: Path) -> Zoo:
    """Return the models, trained and packaged at most once for each content of this file."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    directory = cache / "models" / key
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".stage-"))
        try:
            _train(stage)
            stage.rename(directory)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return Zoo(directory)


def _train(to: Path) -> None:
    random = np.random.default_rng(20261101)
    frame = _frame(random, _TRAINING_ROWS)
    signal = (
        frame[NUMBERS[0]] / 50
        - frame[NUMBERS[1]] / 1000
        + 2 * (frame["place"] == "north")
        + (frame["plan"] == "team") * frame[NUMBERS[2]] / 50
    )
    labels = (signal + random.normal(size=len(frame)) > signal.median()).astype(int)
    for version, trees in TREES.items():
        seed = int(version[1:])
        sample = frame.sample(frac=0.8, random_state=seed)
        pipeline = _pipeline(trees, seed=seed).fit(sample, labels[sample.index])
        greenroom.package(pipeline, sample, name=NAME, version=version, to=to, created=_CREATED)
    rows = json.loads(_frame(random, _REQUEST_ROWS).to_json(orient="records", double_precision=10))
    (to / "rows.json").write_text(json.dumps(rows))


def _frame(random: np.random.Generator, rows: int) -> pd.DataFrame:
    numbers = {
        name: random.normal(loc=100, scale=10 ** (1 + index / 4), size=rows).round(4)
        for index, name in enumerate(NUMBERS)
    }
    return pd.DataFrame(
        {**numbers, TEXTS[0]: random.choice(PLACES, size=rows), TEXTS[1]: random.choice(PLANS, size=rows)}
    )


def _pipeline(trees: int, *, seed: int) -> Pipeline:
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), NUMBERS),
            ("texts", OneHotEncoder(handle_unknown="ignore"), TEXTS),
        ],
        sparse_threshold=0,
    )
    model = GradientBoostingClassifier(n_estimators=trees, max_depth=3, random_state=seed)
    return Pipeline([("columns", columns), ("model", model)])
