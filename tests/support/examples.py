"""The example models, trained once a test session by the examples' own scripts."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@dataclass(frozen=True)
class TrainedExample:
    """A source directory: one bundle a version, and rows that none was trained on."""

    source: Path
    """Holds ``v1/``, ``v2/`` …, each a bundle, and ``holdout.jsonl``."""

    def bundle(self, version: str) -> Path:
        """Return a version's directory."""
        return self.source / version

    def holdout(self, version: str) -> list[dict[str, Any]]:
        """Return held-back rows: ``features``, and what this version's training pipeline answered."""
        lines = (self.source / "holdout.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [{"features": row["features"], **row["answers"][version]} for row in rows]


def train_penguins(to: Path) -> TrainedExample:
    """Train v1, v2 and v3-broken (whose golden samples do not match its graph) into ``to``."""
    return _train("penguins", to, "--with-broken")


def train_diabetes(to: Path) -> TrainedExample:
    """Train the regressor v1 into ``to``."""
    return _train("diabetes", to)


def _train(example: str, to: Path, *options: str) -> TrainedExample:
    script = EXAMPLES / example / "train.py"
    subprocess.run([sys.executable, str(script), "--to", str(to), *options], check=True, capture_output=True)
    return TrainedExample(to)
