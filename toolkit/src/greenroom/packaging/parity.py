"""The proof: the exported graph answers every hostile row as the training pipeline does."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier

from greenroom.packaging.errors import Difference, ExportError, PackagingError, ParityError
from greenroom.packaging.export import Export
from greenroom.packaging.frame import to_frame, to_tensors
from greenroom.packaging.hostile import HostileRow
from greenroom.sensitive import public_row, spell_error
from greenroom_runtime.contract.bundle import Feature, Parity, Value

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one side says to the rows, in their order."""

    predictions: list[Value]
    scores: Any
    """Class probabilities [rows, classes], or values [rows, 1] of a regressor."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One export against the training pipeline."""

    export: Export
    parity: Parity
    differences: tuple[Difference, ...]
    label: type
    """How the graph spells labels: what is True to scikit-learn may be 1 to the graph."""

    @property
    def badness(self) -> tuple[int, float]:
        """Flips first, then the error beyond what is tolerated; the least is the best export."""
        return self.parity.label_flips, max(self.parity.max_abs_error, self.parity.tolerance)


def ask_pipeline(
    pipeline: Any, rows: Sequence[HostileRow], like: pd.DataFrame, features: Sequence[Feature]
) -> Answers:
    """Return the training pipeline's own answers; PackagingError where it refuses a hostile row."""
    frame = to_frame([row.features for row in rows], like, features)
    try:
        return ask_frame(pipeline, frame)
    except PackagingError:
        raise
    except Exception as error:
        raise PackagingError(_refusal(pipeline, rows, like, features, error)) from error


def ask_frame(pipeline: Any, frame: pd.DataFrame) -> Answers:
    """Return the pipeline's answers to a frame; raises what the pipeline raises, and ExportError."""
    predictions = np.asarray(pipeline.predict(frame))
    scores = _pipeline_scores(pipeline, frame, predictions)
    if predictions.ndim != 1:
        raise ExportError("the pipeline answers several values a row: package one pipeline for each of them")
    return Answers(predictions=[plain(value) for value in predictions], scores=scores)


def _pipeline_scores(pipeline: Any, frame: pd.DataFrame, predictions: Any) -> Any:
    if not is_classifier(pipeline):
        return predictions.reshape(len(frame), -1).astype("float64")
    return np.asarray(pipeline.predict_proba(frame))


def _refusal(
    pipeline: Any,
    rows: Sequence[HostileRow],
    like: pd.DataFrame,
    features: Sequence[Feature],
    error: Exception,
) -> str:
    for row in rows:
        try:
            pipeline.predict(to_frame([row.features], like, features))
        except Exception as own:  # noqa: BLE001 whatever the pipeline raises is its refusal
            return (
                f"the training pipeline itself refuses a row of kind {row.kind!r}: "
                f"{spell_error(own, features)}\n  {_show(row.features, features)}\n"
                "The exported graph would answer it all the same. "
                "Let the pipeline take such rows: OneHotEncoder(handle_unknown='ignore') for unseen "
                "categories, a SimpleImputer for nulls."
            )
    return f"the training pipeline fails on hostile rows: {spell_error(error, features)}"


def ask_graph(export: Export, rows: Sequence[HostileRow], features: Sequence[Feature]) -> Answers:
    """Return the exported graph's answers; ExportError where onnxruntime cannot load or run it."""
    found = run_graph(
        export.graph,
        export.outputs,
        to_tensors([row.features for row in rows], features, export.tensors),
    )
    predictions = np.asarray(found[0]).reshape(len(rows), -1)[:, 0]
    scores = found[1] if export.probabilities else predictions.reshape(-1, 1)
    return Answers(predictions=[plain(value) for value in predictions], scores=scores)


def run_graph(graph: bytes, outputs: Sequence[str], feed: dict[str, Any]) -> list[Any]:
    """Return the named outputs for these inputs; ExportError where onnxruntime cannot load or run it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised; the log would say it twice
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        found: list[Any] = session.run(list(outputs), feed)
    except Exception as error:
        raise ExportError(
            f"onnxruntime cannot run the exported graph: {str(error).splitlines()[0]}"
        ) from error
    return found


def compare(
    export: Export, rows: Sequence[HostileRow], expected: Answers, found: Answers, *, tolerance: float
) -> Comparison:
    """Compare answers row by row: labels exactly, scores within ``tolerance``.

    For a regressor the tolerance is relative to the median size of its predictions.
    """
    regression = export.probabilities is None
    errors = _errors(expected.scores, found.scores)
    bound = tolerance * max(1.0, float(np.median(np.abs(expected.scores)))) if regression else tolerance
    differences = []
    for index, row in enumerate(rows):
        flipped = not regression and expected.predictions[index] != found.predictions[index]
        if flipped or not errors[index] <= bound:
            differences.append(
                Difference(
                    kind=row.kind,
                    features=row.features,
                    expected=expected.predictions[index],
                    found=found.predictions[index],
                    error=float(errors[index]),
                    label_differs=flipped,
                )
            )
    differences.sort(key=lambda difference: (not difference.label_differs, -difference.error))
    parity = Parity(
        rows=len(rows),
        label_flips=sum(difference.label_differs for difference in differences),
        max_abs_error=float(errors.max()),
        tolerance=bound,
    )
    return Comparison(
        export=export, parity=parity, differences=tuple(differences), label=type(found.predictions[0])
    )


def _errors(expected: Any, found: Any) -> Any:
    if expected.shape != found.shape:
        return np.full(len(expected), np.inf)
    errors = np.abs(expected - found.astype("float64")).max(axis=1)
    return np.where(np.isnan(errors), np.inf, errors)


def refuse(
    best: Comparison, failures: Sequence[str], features: Sequence[Feature], *, culprit: str
) -> ParityError:
    """Return the error that says which rows differ, which step is the ``culprit``, and what to do."""
    differences, parity = best.differences, best.parity
    kinds = Counter(difference.kind for difference in differences)
    summary = (
        f"the export does not answer as the training pipeline does: {len(differences)} of {parity.rows} rows "
        f"differ, {parity.label_flips} of them in the label; largest score error {parity.max_abs_error:.3g}, "
        f"tolerated {parity.tolerance:.3g} (arithmetic: {best.export.arithmetic})"
    )
    by_kind = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    lines = [summary, f"differing rows by kind: {by_kind}"]
    lines += [
        f"  expected {item.expected!r}, found {item.found!r}, score error {item.error:.3g} "
        f"({item.kind}): {_show(item.features, features)}"
        for item in _distinct(differences)[:SHOWN]
    ]
    lines += [f"another arithmetic failed: {failure}" for failure in dict.fromkeys(failures)]
    lines += [culprit] if culprit else []
    lines.append(_remedy(kinds, [feature.name for feature in features if feature.dtype == "float32"]))
    return ParityError("\n".join(lines), differences=differences)


def _distinct(differences: Sequence[Difference]) -> list[Difference]:
    """Return the first difference of each row: hostile rows repeat where the frame does."""
    return list({json.dumps(item.features): item for item in reversed(differences)}.values())[::-1]


def _remedy(kinds: Counter[str], narrow: Sequence[str]) -> str:
    if set(kinds) == {"null"}:
        return (
            "Only rows with nulls differ: put a SimpleImputer first for each nullable column, and fit again."
        )
    if set(kinds) == {"unseen category"}:
        return (
            "Only unseen texts differ: use OneHotEncoder(handle_unknown='ignore') for categories, or a "
            "vectorizer with lowercase=False for sentences, and fit again."
        )
    if narrow:
        return (
            f"The columns {', '.join(narrow)} are float32 and a request carries float64: fit on "
            "X.astype({column: 'float64'}), so that both sides round alike. Nothing was written."
        )
    return (
        "Replace the step that the converter gets wrong, use "
        "GradientBoosting or RandomForest where a float64 tree does not survive, or pass a larger tolerance= "
        "if only scores differ and you accept it. Nothing was written."
    )


def _show(row: dict[str, Value], features: Sequence[Feature]) -> str:
    return json.dumps(public_row(row, features), ensure_ascii=False)


def plain(value: Any) -> Value:
    """Return a numpy scalar as the Python value that JSON carries."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int | float | str):
        return value
    raise ExportError(f"labels of type {type(value).__name__} cannot be served: use text or whole numbers")
