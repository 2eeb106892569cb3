"""The model's inputs by name, and one run of the session: what every contender has in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

NUMBERS = ["age", "balance", "calls", "days", "events", "fees", "gain", "hours"]
TEXTS = ["place", "plan"]
NUMERIC_INPUT, TEXT_INPUT = "numeric", "text"
OUTPUTS = ["label", "probabilities"]
"""Names that ``greenroom.package`` gives in a graph."""


def open_session(path: Path | str) -> ort.InferenceSession:
    """Open the model as the runtime does: one thread, which never spins."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feed(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return one row as the graph's inputs."""
    return {
        NUMERIC_INPUT: np.array([[features[name] for name in NUMBERS]], dtype=np.float64),
        TEXT_INPUT: np.array([[features[name] for name in TEXTS]], dtype=object),
    }


def score(session: ort.InferenceSession, features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the label and the probability of class 1 for one row."""
    label, probabilities = session.run(OUTPUTS, feed(features))
    return {"prediction": int(label.reshape(1)[0]), "probability": float(probabilities[0, 1])}
