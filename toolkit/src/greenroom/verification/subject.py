"""What a bundle is verified against: a fitted pipeline, or a function that answers a frame."""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier

from greenroom.packaging.errors import ExportError
from greenroom.packaging.export import steps_of
from greenroom.packaging.frame import Row
from greenroom.packaging.parity import plain
from greenroom.sensitive import spell_error
from greenroom.verification.compare import Answer
from greenroom.verification.errors import SubjectError
from greenroom_runtime.contract.bundle import Bundle, Feature, Value

PICKLES = (".joblib", ".pkl", ".pickle")


def load(place: str) -> Any:
    """Return the object that ``module:name`` or the path of a joblib file says.

    A joblib file is a pickle, and loading it runs code of whoever wrote it: this is for a person's own
    files, on that person's machine. No server of ours does it.
    """
    module, colon, name = place.partition(":")
    if colon and not Path(place).exists():
        return _import(module, name)
    if not place.endswith(PICKLES):
        raise SubjectError(
            f"{place!r} is neither MODULE:NAME nor a file that ends in {', '.join(PICKLES)}: name one of them"
        )
    if not Path(place).is_file():
        raise SubjectError(f"{place}: no such file: save the fitted pipeline with joblib.dump(pipeline, …)")
    import joblib  # noqa: PLC0415

    try:
        return joblib.load(place)
    except Exception as error:  # an unpickler raises whatever it likes
        raise SubjectError(
            f"{place} cannot be loaded: {type(error).__name__}: {error}: load it with the versions of the "
            "libraries, and the code, that it was saved with"
        ) from error


def _import(module: str, name: str) -> Any:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: an installed command's path lacks it
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise SubjectError(
            f"{module}:{name} cannot be imported: {error}: call greenroom from the directory that holds it, "
            "or install what it needs"
        ) from error
    except Exception as error:
        raise SubjectError(f"{module}:{name} cannot be imported: {type(error).__name__}: {error}") from error
    return found


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Answers rows for a bundle, by a person's own code."""

    own: Any
    """An estimator with ``predict``, or a function of a DataFrame."""
    bundle: Bundle

    def answer(self, rows: Sequence[Row], *, null: Any, dtype: Any) -> list[Answer]:
        """Return its answers; SubjectError where it raises, or gives another number of rows.

        ``null`` is how a missing text is spelled, ``dtype`` the type of the preprocessed features, None
        where they are not asked for.
        """
        if hasattr(self.own, "predict"):
            return self._ask_estimator(rows, null=null, dtype=dtype)
        if not callable(self.own):
            raise SubjectError(
                f"a {type(self.own).__name__} cannot be asked: name a fitted pipeline, or a function "
                "that takes a DataFrame"
            )
        frame = frame_of(rows, self.bundle.signature.features, null=null)
        given = self._call(self.own, frame)
        predictions, scores = given if isinstance(given, tuple) and len(given) == 2 else (given, None)  # noqa: PLR2004
        predictions = np.asarray(predictions)
        if predictions.ndim == 2 and predictions.shape[1] > 1 and scores is None:  # noqa: PLR2004
            predictions, scores = None, predictions
        return self._answers(len(rows), predictions, scores, None)

    def _call(self, function: Callable[..., Any], frame: pd.DataFrame) -> Any:
        try:
            return function(frame)
        except Exception as error:
            raise SubjectError(
                f"the code raises on the golden samples' rows: "
                f"{spell_error(error, self.bundle.signature.features)}: a version must answer every row that "
                "its door lets in"
            ) from error

    def _ask_estimator(self, rows: Sequence[Row], *, null: Any, dtype: Any) -> list[Answer]:
        frame = frame_of(rows, self.bundle.signature.features, null=null)
        if (fitted := getattr(self.own, "feature_names_in_", None)) is not None:
            frame = frame[[name for name in fitted if name in frame.columns]]
        predictions = self._call(self.own.predict, frame)
        classes = self.bundle.signature.outputs.classes
        scores = None
        if classes is not None and is_classifier(self.own) and hasattr(self.own, "predict_proba"):
            scores = self._in_order(self._call(self.own.predict_proba, frame), classes)
        preprocessed = None
        if dtype is not None and len(steps_of(self.own)) > 1:
            preprocessed = matrix_of(self._call(self.own[:-1].transform, frame), dtype)
        return self._answers(len(rows), np.asarray(predictions), scores, preprocessed)

    def _in_order(self, scores: Any, classes: Sequence[Value]) -> Any:
        """Return probabilities in the order of the bundle's classes; as they are where the classes differ."""
        own = [_spell(plain(label), like=classes[0]) for label in self.own.classes_]
        if sorted(map(str, own)) != sorted(map(str, classes)):
            return scores
        return np.asarray(scores)[:, [own.index(label) for label in classes]]

    def _answers(self, rows: int, predictions: Any, scores: Any, preprocessed: Any) -> list[Answer]:
        for what, given in (("predictions", predictions), ("probabilities", scores)):
            if given is not None and (np.ndim(given) == 0 or len(given) != rows):
                raise SubjectError(f"it gives {np.shape(given)} {what} for {rows} rows: give one for each")
        if scores is not None:
            scores = matrix_of(scores, "float64", what="probabilities")
            if scores.ndim != 2:  # noqa: PLR2004 a matrix
                raise SubjectError(f"it gives {scores.shape} probabilities: give one for each class")
        outputs = self.bundle.signature.outputs
        like = outputs.classes[0] if outputs.classes else None
        return [
            Answer(
                prediction=... if predictions is None else _label(predictions[at], like),
                probabilities=None if scores is None else scores[at].tolist(),
                preprocessed=None if preprocessed is None else preprocessed[at],
            )
            for at in range(rows)
        ]


def _label(value: Any, like: Value) -> Value | EllipsisType:
    try:
        return _spell(plain(np.asarray(value).reshape(-1)[0]), like=like)
    except ExportError as error:
        raise SubjectError(str(error)) from error


def _spell(label: Value, *, like: Value) -> Value:
    """Return a label as the graph spells labels: what is True to scikit-learn may be 1 to the graph."""
    if isinstance(label, bool) and isinstance(like, int) and not isinstance(like, bool):
        return int(label)
    return label


def matrix_of(values: Any, dtype: Any, *, what: str = "preprocessed features") -> Any:
    """Return what somebody's code gives as a matrix of a type, the graph's own."""
    values = values.toarray() if hasattr(values, "toarray") else values
    try:
        return np.asarray(values).astype(dtype)
    except (TypeError, ValueError) as error:
        raise SubjectError(
            f"the {what} are no matrix of numbers: give a row of numbers for each row"
        ) from error


def frame_of(rows: Sequence[Row], features: Sequence[Feature], *, null: Any) -> pd.DataFrame:
    """Return rows as the frame of the signature's types; ``null`` spells a missing text."""
    return pd.DataFrame({feature.name: _column(rows, feature, null=null) for feature in features})


def _column(rows: Sequence[Row], feature: Feature, *, null: Any) -> "pd.Series[Any]":
    values = [row.get(feature.name) for row in rows]
    missing = any(value is None for value in values)
    if feature.dtype == "string":
        return pd.Series([null if value is None else value for value in values], dtype=object)
    if feature.dtype == "bool":
        return pd.Series(values, dtype=object if missing else "bool")
    if feature.dtype == "int64" and not missing:
        return pd.Series(values, dtype="int64")
    return pd.Series(values, dtype="float32" if feature.dtype == "float32" else "float64")
