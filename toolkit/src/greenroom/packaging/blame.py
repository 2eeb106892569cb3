"""Which step of a pipeline its export gets wrong: what the model is given, or what the model makes of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from greenroom.packaging.export import Export, steps_of
from greenroom.packaging.frame import to_frame, to_tensors
from greenroom.packaging.hostile import HostileRow
from greenroom.packaging.parity import run_graph
from greenroom_runtime.contract.bundle import Feature

_CLOSE = 1e-5
"""Relative: what lies nearer has gone through float32, and is no mistake."""


def find_culprit(
    export: Export, pipeline: Any, rows: Sequence[HostileRow], like: pd.DataFrame, features: Sequence[Feature]
) -> str:
    """Return a sentence that names the step, and what to do where that is known; empty where unclear."""
    *before, (name, model) = steps_of(pipeline)
    if not before or export.model_input is None:
        return _blame_model(name, model, alone=not before)
    try:
        differing = _differing_columns(export, before, rows, like, features)
    except Exception:  # noqa: BLE001 this explains an error that is known already, and must not hide it
        return ""
    if differing is None:
        return "The steps before the model give another number of columns than their export."
    if not differing.any():
        return _blame_model(name, model, alone=False)
    return _blame_steps(before, differing)


def _differing_columns(
    export: Export,
    before: list[tuple[str, Any]],
    rows: Sequence[HostileRow],
    like: pd.DataFrame,
    features: Sequence[Feature],
) -> Any:
    """Return for each row and preprocessed column whether graph and pipeline part; None for other shapes."""
    graph = onnx.load_from_string(export.graph)
    graph.graph.output.append(onnx.ValueInfoProto(name=export.model_input))
    plain = [row.features for row in rows]
    feed = to_tensors(plain, features, export.tensors)
    (found,) = run_graph(graph.SerializeToString(), [str(export.model_input)], feed)
    own = Pipeline(before).transform(to_frame(plain, like, features))
    expected = np.asarray(own.toarray() if hasattr(own, "toarray") else own).astype("float64")
    if expected.shape != found.shape:
        return None
    return ~np.isclose(expected, found.astype("float64"), rtol=_CLOSE, atol=_CLOSE, equal_nan=True)


def _blame_model(name: str, model: Any, *, alone: bool) -> str:
    kind = type(model).__name__
    categories = getattr(model, "is_categorical_", None)
    told = f"The model itself, {name!r} ({kind}), is what the converter gets wrong"
    told += "." if alone else "; what it is given is right."
    if categories is not None and np.any(categories):
        told += (
            " It splits on categories (categorical_features), which the converter takes for numbers: "
            "encode them by OneHotEncoder(handle_unknown='ignore') and leave categorical_features out."
        )
    return told


def _blame_steps(before: list[tuple[str, Any]], differing: Any) -> str:
    rows = int(differing.any(axis=1).sum())
    name, first = before[0]
    if len(before) > 1 or not isinstance(first, ColumnTransformer):
        kinds = ", ".join(f"{step!r} ({type(one).__name__})" for step, one in before)
        return f"What the model is given differs in {rows} rows: the converter gets one of {kinds} wrong."
    guilty = [
        f"{part!r} ({_kind(first.named_transformers_[part])}) in {count} rows"
        for part, place in first.output_indices_.items()
        if (count := int(differing[:, place].any(axis=1).sum()))
    ]
    return f"Of {name!r} the converter gets wrong: {', '.join(guilty)}."


def _kind(transformer: Any) -> str:
    if isinstance(transformer, Pipeline):
        return " and ".join(type(step).__name__ for _, step in steps_of(transformer))
    return type(transformer).__name__
