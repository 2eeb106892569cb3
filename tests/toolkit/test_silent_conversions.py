"""Conversions that are known to change labels without a word: here they are exact, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from xgboost import XGBClassifier, XGBRegressor

import greenroom
from greenroom.packaging.boosting import register_boosting
from greenroom.packaging.parity import run_graph
from greenroom_runtime.contract.bundle import Bundle
from greenroom_runtime.models.session import ModelSession

ROWS = 2000
Trap = tuple[Any, pd.DataFrame, "pd.Series[Any]"]
"""A fitted pipeline, its frame, and the labels."""


def customers(rows: int = ROWS, *, seed: int = 0) -> tuple[pd.DataFrame, "pd.Series[Any]"]:
    """Return whole numbers that fall on thresholds of trees, a float with gaps, a text; and a label."""
    dice = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": dice.integers(18, 90, rows),
            "visits": dice.integers(0, 30, rows),
            "income": dice.normal(5e4, 2e4, rows).round(-2),
            "plan": dice.choice(["basic", "plus", "family"], rows),
        }
    )
    left = (frame["age"] > 45) & (frame["income"] < 5.5e4) | (frame["visits"] > 20) & (
        frame["plan"] == "plus"
    )
    frame.loc[::7, "income"] = np.nan
    return frame, left.astype(int)


def scaled(model: Any) -> Pipeline:
    """Scale numbers and encode texts before the model."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer(
        [
            ("n", numbers, ["age", "visits", "income"]),
            ("t", OneHotEncoder(handle_unknown="ignore"), ["plan"]),
        ],
        sparse_threshold=0,
    )
    return Pipeline([("columns", columns), ("model", model)])


def differing(path: Path, pipeline: Any, frame: pd.DataFrame) -> int:
    """Return how many rows the bundle's own graph labels otherwise than the pipeline."""
    bundle = Bundle.model_validate_json((path / "bundle.json").read_bytes())
    names = [feature.name for feature in bundle.signature.features]
    rows: Any = frame[names].astype(object).where(frame[names].notna(), None).to_dict(orient="records")
    found = [answer.prediction for answer in ModelSession(path, bundle=bundle).predict(rows)]
    return int((np.asarray(found) != np.asarray(pipeline.predict(frame))).sum())


def package(pipeline: Any, frame: pd.DataFrame, labels: Any, to: Path) -> Path:
    """Package as churn v1."""
    return greenroom.package(pipeline, frame, list(labels), name="churn", version="v1", to=to)


def differing_by_default(pipeline: Any, frame: pd.DataFrame) -> int:
    """Return how many rows the exporter's own default, one float32 input a column, labels otherwise."""
    kinds = {name: StringTensorType if frame[name].dtype.kind in "OT" else FloatTensorType for name in frame}
    inputs = [(name, kind([None, 1])) for name, kind in kinds.items()]
    options = {"zipmap": False}
    graph = to_onnx(pipeline, initial_types=inputs, options=options, target_opset={"": 21, "ai.onnx.ml": 3})
    feed = {
        str(name): frame[[name]].to_numpy(dtype=object if kind is StringTensorType else "float32")
        for name, kind in kinds.items()
    }
    found = run_graph(graph.SerializeToString(), [graph.graph.output[0].name], feed)[0]
    return int((np.asarray(found).reshape(-1) != np.asarray(pipeline.predict(frame))).sum())


def boosted() -> Trap:
    """Return trees behind a scaling, which in float32 moves rows across thresholds."""
    frame, left = customers(10_000)
    pipeline = scaled(XGBClassifier(n_estimators=60)).fit(frame, left)
    register_boosting(pipeline)
    return pipeline, frame, left


def numbered() -> Trap:
    """Return account numbers far above 2^24, neighbours of which are one number in float32."""
    dice = np.random.default_rng(3)
    frame = pd.DataFrame(
        {"account": 2**30 + dice.integers(0, 4000, ROWS), "visits": dice.integers(0, 9, ROWS)}
    )
    left = (frame["account"] - 2**30 > 2000).astype(int)
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, left), frame, left


def worded() -> Trap:
    """Return texts with accents and apostrophes, of which the exporter's own pattern knows neither."""
    dice = np.random.default_rng(0)
    words = ["café", "cafe", "don't", "dont", "naïve", "Ärger", "film", "plot"]
    frame = pd.DataFrame({"text": [" ".join(dice.choice(words, 4)) for _ in range(ROWS)]})
    liked = pd.Series(["yes" if "é" in text or "'" in text else "no" for text in frame["text"]])
    columns = ColumnTransformer([("t", TfidfVectorizer(), "text")], sparse_threshold=0)
    return make_pipeline(columns, LogisticRegression()).fit(frame, liked), frame, liked


def test_xgboost_behind_a_scaling_is_exact(tmp_path: Path) -> None:
    """The default conversion moves rows across thresholds; a bundle answers each of 10,000 right."""
    pipeline, frame, left = boosted()
    assert differing_by_default(pipeline, frame) > 0, "the default is right, and the test proves nothing"
    assert differing(package(pipeline, frame, left, tmp_path), pipeline, frame) == 0


@pytest.mark.parametrize(
    "model",
    [
        XGBClassifier(n_estimators=20),
        XGBRegressor(n_estimators=20),
        LGBMClassifier(n_estimators=20, verbose=-1),
        LGBMRegressor(n_estimators=20, verbose=-1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_boosting_libraries_are_packaged(model: Any, tmp_path: Path) -> None:
    """Classifiers of several labels and regressors, with nulls that the trees themselves send their way."""
    frame, left = customers()
    target = left + 2 * (frame["age"] > 80) if is_classifier(model) else left * 10.5 + frame["age"]
    columns = ColumnTransformer(
        [
            ("n", StandardScaler(), ["age", "visits", "income"]),
            ("t", OneHotEncoder(handle_unknown="ignore"), ["plan"]),
        ],
        sparse_threshold=0,
    )
    pipeline = Pipeline([("columns", columns), ("model", model)]).fit(frame, target)
    path = package(pipeline, frame, target, tmp_path)
    bundle = Bundle.model_validate_json((path / "bundle.json").read_bytes())
    library = type(model).__module__.partition(".")[0]
    assert f", {library} " in bundle.framework
    assert bundle.parity is not None
    assert bundle.parity.rows == 2000
    if is_classifier(model):
        assert differing(path, pipeline, frame) == 0


def test_a_model_of_boosting_without_a_converter_is_refused(tmp_path: Path) -> None:
    """It is named, with those that can be exported."""
    frame, _ = customers(300)

    class Own(LGBMRegressor):  # type: ignore[misc]
        """A class that only looks like LightGBM's."""

    Own.__module__ = "lightgbm.sklearn"
    pipeline = make_pipeline(StandardScaler(), Own(n_estimators=2, verbose=-1))
    pipeline.fit(frame[["age", "visits"]], frame["age"])
    with pytest.raises(greenroom.ExportError, match="Own cannot be exported: use one of LGBMClassifier"):
        greenroom.package(pipeline, frame[["age", "visits"]], name="c", version="v1", to=tmp_path)


def test_whole_numbers_beyond_float32_are_exact(tmp_path: Path) -> None:
    """The default conversion rounds them; a bundle reads them as they are."""
    pipeline, frame, left = numbered()
    assert differing_by_default(pipeline, frame) > 0, "the default is right, and the test proves nothing"
    assert differing(package(pipeline, frame, left, tmp_path), pipeline, frame) == 0


def test_words_with_accents_and_apostrophes_are_exact(tmp_path: Path) -> None:
    """The default knows ASCII letters only; a bundle takes texts apart as scikit-learn does."""
    pipeline, frame, liked = worded()
    assert differing(package(pipeline, frame, liked, tmp_path), pipeline, frame) == 0


@pytest.mark.parametrize(
    ("make", "part", "defect"),
    [
        (boosted, "greenroom.packaging.ARITHMETICS", ("float32",)),
        (numbered, "greenroom.packaging.ARITHMETICS", ("float32",)),
        (worded, "greenroom.packaging.export._know_words", lambda *_: None),
    ],
)
def test_a_conversion_that_changes_labels_is_refused(
    make: Callable[[], Trap], part: str, defect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hostile rows find each of these mistakes without the care that avoids it; and nothing is written."""
    pipeline, frame, labels = make()
    monkeypatch.setattr(part, defect)
    with pytest.raises(greenroom.ParityError) as refusal:
        package(pipeline, frame, labels, tmp_path)
    assert any(difference.label_differs for difference in refusal.value.differences)
    assert not list(tmp_path.iterdir())


def boosted_by_position() -> Pipeline:
    """Encode the text as numbers that the trees take for categories."""
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("t", encode, ["plan"])], remainder="passthrough", sparse_threshold=0)
    model = HistGradientBoostingClassifier(categorical_features=[0], max_iter=20)
    return Pipeline([("columns", columns), ("model", model)])


def boosted_by_dtype() -> HistGradientBoostingClassifier:
    """Let the trees find the categories by the frame's own types."""
    return HistGradientBoostingClassifier(max_iter=20)


def split_by_category(make: Callable[[], Any]) -> Trap:
    """Return trees that split on categories whose order means nothing."""
    dice = np.random.default_rng(1)
    frame, _ = customers()
    frame["plan"] = dice.choice(list("abcdefghij"), ROWS)
    left = frame["plan"].isin(["b", "e", "h", "j"]).astype(int)
    frame["plan"] = frame["plan"].astype("category")
    return make().fit(frame, left), frame, left


def test_categories_of_histogram_boosting_are_refused(tmp_path: Path) -> None:
    """The exporter takes them for numbers, and labels change; the model is named, and the way out."""
    pipeline, frame, left = split_by_category(boosted_by_position)
    assert differing_by_default(pipeline, frame) > 0, "the default is right: let it be packaged"
    with pytest.raises(greenroom.ParityError) as refusal:
        package(pipeline, frame, left, tmp_path)
    assert "'model' (HistGradientBoostingClassifier)" in str(refusal.value)
    assert "leave categorical_features out" in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_categories_by_dtype_are_refused(tmp_path: Path) -> None:
    """Trees that find them by the frame's own types take texts and numbers at once, which no graph does."""
    pipeline, frame, left = split_by_category(boosted_by_dtype)
    with pytest.raises(greenroom.ExportError, match="begin the pipeline with a ColumnTransformer"):
        package(pipeline, frame, left, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_step_that_is_converted_wrong_is_named(tmp_path: Path) -> None:
    """KNNImputer is: the transformer that holds it, and in how many rows it differs."""
    frame, left = customers(600)
    numbers = make_pipeline(KNNImputer(), StandardScaler())
    columns = ColumnTransformer(
        [("n", numbers, ["age", "income"]), ("t", OneHotEncoder(handle_unknown="ignore"), ["plan"])],
        sparse_threshold=0,
    )
    pipeline = Pipeline([("columns", columns), ("model", LogisticRegression())]).fit(frame, left)
    told = r"Of 'columns' the converter gets wrong: 'n' \(KNNImputer and StandardScaler\) in \d+ rows\."
    with pytest.raises(greenroom.ParityError, match=told):
        package(pipeline, frame, left, tmp_path)
