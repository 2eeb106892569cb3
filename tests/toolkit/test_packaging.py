import errno
import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, PowerTransformer, StandardScaler
from sklearn.svm import LinearSVC

import greenroom
from greenroom.packaging import export as export_module
from greenroom.packaging.hostile import UNSEEN
from greenroom_runtime.contract.bundle import Bundle, GoldenSample
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.verification import replay

NUMBERS = ["age", "income"]
CREATED = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def frame() -> pd.DataFrame:
    """600 customers: integers, floats with gaps, text with gaps, a column that no pipeline reads."""
    dice = np.random.default_rng(0)
    rows = 600
    frame = pd.DataFrame(
        {
            "age": dice.integers(18, 90, rows),
            "income": dice.normal(5e4, 2e4, rows).round(2),
            "plan": dice.choice(["basic", "plus", "é ü"], rows),
            "note": ["x"] * rows,
        }
    )
    frame.loc[::7, "income"] = np.nan
    frame.loc[::11, "plan"] = None
    return frame


@pytest.fixture
def labels(frame: pd.DataFrame) -> pd.Series:
    """Whether a customer leaves."""
    return ((frame["age"] > 40) & (frame["income"].fillna(0) > 4e4) | (frame["plan"] == "plus")).astype(int)


def columns(texts: Any = None) -> ColumnTransformer:
    """Impute, scale and encode the columns that the pipelines read."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = texts or OneHotEncoder(handle_unknown="ignore")
    return ColumnTransformer([("n", numbers, NUMBERS), ("t", texts, ["plan"])], sparse_threshold=0)


def package(pipeline: Any, frame: pd.DataFrame, to: Path, **more: Any) -> Path:
    """Package as churn v1, at a fixed moment, unless told otherwise."""
    arguments = {"name": "churn", "version": "v1", "created": CREATED, **more}
    return greenroom.package(pipeline, frame, to=to, **arguments)


def read_bundle(path: Path) -> Bundle:
    """Read bundle.json by the contract."""
    return Bundle.model_validate_json((path / "bundle.json").read_bytes())


def read_golden(path: Path) -> list[GoldenSample]:
    """Read golden.jsonl by the contract."""
    lines = (path / "golden.jsonl").read_bytes().splitlines()
    return [GoldenSample.model_validate_json(line) for line in lines]


def left_behind(to: Path) -> list[str]:
    """List what a directory holds, hidden things too."""
    return sorted(entry.name for entry in to.iterdir()) if to.exists() else []


IMPUTED_TEXT = make_pipeline(
    SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore")
)
MOST_FREQUENT_TEXT = make_pipeline(
    SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
)
PIPELINES = {
    "logistic": lambda: Pipeline([("c", columns()), ("m", LogisticRegression())]),
    "gradient boosting": lambda: Pipeline([("c", columns()), ("m", GradientBoostingClassifier())]),
    "random forest": lambda: Pipeline([("c", columns()), ("m", RandomForestClassifier(20, random_state=0))]),
    "histogram boosting": lambda: Pipeline([("c", columns()), ("m", HistGradientBoostingClassifier())]),
    "text imputed by a constant": lambda: Pipeline(
        [("c", columns(IMPUTED_TEXT)), ("m", LogisticRegression())]
    ),
    "text imputed by the most frequent": lambda: Pipeline(
        [("c", columns(MOST_FREQUENT_TEXT)), ("m", LogisticRegression())]
    ),
    "columns by selector": lambda: make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include="number")),
            (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
            sparse_threshold=0,
        ),
        LogisticRegression(),
    ),
    "regression": lambda: Pipeline([("c", columns()), ("m", Ridge())]),
    "forest regression": lambda: Pipeline(
        [("c", columns()), ("m", RandomForestRegressor(10, random_state=0))]
    ),
}


@pytest.mark.parametrize("make", PIPELINES.values(), ids=PIPELINES.keys())
def test_the_bundle_answers_as_the_pipeline(
    make: Callable[[], Any], frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """Every row of the training frame gets the pipeline's own answer from the serving code."""
    pipeline = make().fit(frame, labels)
    path = package(pipeline, frame, tmp_path)
    bundle = read_bundle(path)
    assert bundle.parity is not None
    session = ModelSession(path, bundle=bundle)
    names = [feature.name for feature in bundle.signature.features]
    rows: Any = frame[names].astype(object).where(frame[names].notna(), None).to_dict(orient="records")
    answers = session.predict(rows)
    if bundle.signature.outputs.classes is None:
        found = [answer.prediction for answer in answers]
        assert found == pytest.approx(pipeline.predict(frame).tolist(), abs=bundle.parity.tolerance)
    else:
        assert [answer.prediction for answer in answers] == pipeline.predict(frame).tolist()
        expected = pipeline.predict_proba(frame)
        assert (
            np.abs(expected - [answer.probabilities for answer in answers]).max() <= bundle.parity.tolerance
        )
    assert replay(session, path) == len(read_golden(path))


def test_the_signature_says_what_the_frame_had(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """Types, gaps, categories and ranges come from the frame; a column that nothing reads is left out."""
    path = package(PIPELINES["logistic"]().fit(frame, labels), frame, tmp_path)
    features = {feature.name: feature for feature in read_bundle(path).signature.features}
    assert list(features) == ["age", "income", "plan"]
    assert (features["age"].dtype, features["age"].nullable) == ("int64", False)
    assert (features["age"].minimum, features["age"].maximum) == (frame["age"].min(), frame["age"].max())
    assert (features["income"].dtype, features["income"].nullable) == ("float64", True)
    assert (features["plan"].dtype, features["plan"].nullable) == ("string", True)
    assert features["plan"].categories == ("basic", "plus", "é ü")


def test_parity_is_proven_over_a_thousand_rows_and_recorded(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """The parity report counts at least 1,000 rows, no flipped label, and an error within the bound."""
    path = package(PIPELINES["random forest"]().fit(frame, labels), frame, tmp_path)
    parity = read_bundle(path).parity
    assert parity is not None
    assert parity.rows >= 1000
    assert parity.label_flips == 0
    assert parity.max_abs_error <= parity.tolerance == 1e-5


def test_tied_votes_of_a_forest_go_to_the_first_class(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """With few trees ties are common, and each gets the label that scikit-learn gives it."""
    species = np.where(labels == 1, "leaves", np.where(frame["age"] > 30, "stays", "asks"))
    pipeline = Pipeline([("c", columns()), ("m", RandomForestClassifier(6, random_state=0))])
    path = package(pipeline.fit(frame, species), frame, tmp_path, parity_rows=4000)
    parity = read_bundle(path).parity
    assert parity is not None
    assert parity.label_flips == 0
    strangers = frame.assign(age=frame["age"].sample(frac=1, random_state=0).to_numpy())
    scores = np.sort(pipeline.predict_proba(strangers))
    assert (scores[:, -1] == scores[:, -2]).any(), "the frame has no tie, and the test proves nothing"


def test_golden_samples_seek_trouble(frame: pd.DataFrame, labels: pd.Series, tmp_path: Path) -> None:
    """Nulls, unseen categories and values beyond the training range are among the golden samples."""
    pipeline = PIPELINES["logistic"]().fit(frame, labels)
    samples = read_golden(package(pipeline, frame, tmp_path))
    plans = {sample.features["plan"] for sample in samples}
    ages = [sample.features["age"] for sample in samples]
    assert None in plans
    assert plans - {"basic", "plus", "é ü", None}
    assert any(sample.features["income"] is None for sample in samples)
    assert any(isinstance(age, int) and not 18 <= age < 90 for age in ages)
    own = pipeline.predict_proba(
        pd.DataFrame([sample.features | {"note": "x"} for sample in samples])[frame.columns]
    )
    assert own.tolist() == [list(sample.probabilities or ()) for sample in samples]


@pytest.mark.parametrize("name", ["logistic", "gradient boosting", "histogram boosting", "random forest"])
def test_golden_samples_hold_what_the_model_itself_was_given(
    name: str, frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """Each sample has the pipeline's own preprocessed features, rounded once to the type of the graph."""
    pipeline = PIPELINES[name]().fit(frame, labels)
    path = package(pipeline, frame, tmp_path)
    bundle, samples = read_bundle(path), read_golden(path)
    assert bundle.parity is not None
    assert bundle.parity.preprocessed == "Exact"
    session = ModelSession(path, bundle=bundle)
    dtype = session.preprocess([samples[0].features]).dtype
    rows = pd.DataFrame([sample.features for sample in samples]).assign(note="x")[frame.columns]
    own = pipeline[:-1].transform(rows).astype(dtype)
    assert [list(sample.preprocessed or ()) for sample in samples] == own.tolist()
    assert session.preprocess([sample.features for sample in samples]).tolist() == own.tolist()


def test_a_changed_scaling_is_found_where_no_score_shows_it(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """A wrong preprocessing step in front of a feature that the trees hardly use is refused all the same."""
    pipeline = PIPELINES["gradient boosting"]().fit(frame, labels)
    path = package(pipeline, frame, tmp_path)
    scaler = pipeline[0].named_transformers_["n"][1]
    scaler.mean_ = scaler.mean_ + np.array([0.0, 1e-3])
    other = package(pipeline, frame, tmp_path / "skewed")
    session = ModelSession(other, bundle=read_bundle(path))
    with pytest.raises(VersionError, match="preprocessed features are not exactly"):
        replay(session, path)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (
            [PowerTransformer(), LogisticRegression()],
            "Pow, Scaler may end in other bits on another processor",
        ),
        ([LogisticRegression()], "no step before its model"),
        ([GradientBoostingClassifier(n_estimators=5)], "no step before its model"),
    ],
    ids=["powers", "a linear model alone", "trees alone"],
)
def test_preprocessed_features_that_cannot_be_exact_are_left_out(
    steps: list[Any], told: str, frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """The bundle is written without them and says why; its answers are proven all the same."""
    numbers = frame[["age"]]
    path = package(make_pipeline(*steps).fit(numbers, labels), numbers, tmp_path)
    bundle = read_bundle(path)
    assert bundle.parity is not None
    assert told in bundle.parity.preprocessed
    assert bundle.signature.outputs.preprocessed is None
    assert {sample.preprocessed for sample in read_golden(path)} == {None}


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("words", [TfidfVectorizer, CountVectorizer])
def test_texts_are_taken_apart_as_in_training(words: Any, tmp_path: Path, *, lowercase: bool) -> None:
    """Accents, apostrophes, other scripts and letter case end in the same words, whatever the locale here."""
    dice = np.random.default_rng(0)
    known = ["café", "don't", "naïve", "Ärger", "CAFÉ", "Łódź", "łódź", "x", "a1_b", "北京", "été's"]
    texts = [" ".join(dice.choice(known, 4)) for _ in range(300)]
    frame = pd.DataFrame({"text": texts})
    labels = ["yes" if "é" in text else "no" for text in texts]
    taken = ColumnTransformer([("t", words(lowercase=lowercase), "text")], sparse_threshold=0)
    pipeline = make_pipeline(taken, LogisticRegression()).fit(frame, labels)
    path = package(pipeline, frame, tmp_path)
    strangers = ["Café, café: don't!", "ärger ÄRGER", "ŁÓDŹ-北京", "a1_b-x", "", "\tété\n«s»"]
    session = ModelSession(path, bundle=read_bundle(path))
    answers = session.predict([{"text": text} for text in strangers])
    expected = pipeline.predict_proba(pd.DataFrame({"text": strangers}))
    assert np.abs(expected - [answer.probabilities for answer in answers]).max() < 1e-6


def test_unseen_categories_can_be_refused(frame: pd.DataFrame, labels: pd.Series, tmp_path: Path) -> None:
    """The door refuses them, so a pipeline that would raise on them can be packaged; no sample has one."""
    encoder = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    pipeline = make_pipeline(columns(encoder), LogisticRegression()).fit(frame, labels)
    path = package(pipeline, frame, tmp_path, refuse_unseen=["plan"])
    session = ModelSession(path, bundle=read_bundle(path))
    row = read_golden(path)[0].features
    assert [finding.problem for finding in session.door.findings(row | {"plan": "gold"})] == ["unseen"]
    assert session.door.findings(row | {"plan": "plus"}) == []
    assert {sample.features["plan"] for sample in read_golden(path)} == {"basic", "plus", "é ü", None}


def test_every_category_is_recorded_where_others_are_refused(tmp_path: Path) -> None:
    """More than a hundred categories are left out of a bundle only while nobody needs them."""
    frame = pd.DataFrame({"city": [f"city {number % 150}" for number in range(600)]})
    pipeline = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    pipeline.fit(frame, [0, 1] * 300)
    for version, refused, count in (("v1", (), 0), ("v2", ("city",), 150)):
        path = package(pipeline, frame, tmp_path, version=version, refuse_unseen=refused)
        (feature,) = read_bundle(path).signature.features
        assert len(feature.categories or ()) == count


def test_numbers_out_of_range_can_be_refused(frame: pd.DataFrame, labels: pd.Series, tmp_path: Path) -> None:
    """The door refuses what training never saw, of the named columns alone."""
    pipeline = PIPELINES["logistic"]().fit(frame, labels)
    path = package(pipeline, frame, tmp_path, refuse_outside={"age"})
    door = ModelSession(path, bundle=read_bundle(path)).door
    row = read_golden(path)[0].features
    assert [finding.problem for finding in door.findings(row | {"age": 17})] == ["outside"]
    assert door.findings(row | {"age": 18, "income": 1e9}) == []
    ages = [sample.features["age"] for sample in read_golden(path)]
    assert all(18 <= age < 90 for age in ages if isinstance(age, int))


def test_a_sensitive_column_leaves_no_value_in_the_signature(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """Neither its categories nor its range are recorded, unless the door is to refuse others."""
    pipeline = PIPELINES["logistic"]().fit(frame, labels)
    path = package(pipeline, frame, tmp_path, sensitive=["income", "plan"])
    features = {feature.name: feature for feature in read_bundle(path).signature.features}
    assert {name for name, feature in features.items() if feature.sensitive} == {"income", "plan"}
    assert (features["income"].minimum, features["income"].maximum) == (None, None)
    assert features["plan"].categories is None
    assert features["age"].minimum is not None
    both = package(pipeline, frame, tmp_path, version="v2", sensitive=["plan"], refuse_unseen=["plan"])
    assert read_bundle(both).signature.features[2].categories == ("basic", "plus", "é ü")


@pytest.mark.parametrize("encoder", [OneHotEncoder(), OneHotEncoder(handle_unknown="ignore")])
def test_a_refusal_shows_no_value_of_a_sensitive_column(
    encoder: Any, frame: pd.DataFrame, labels: pd.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where the export differs nor where the pipeline raises, in words that have the value."""
    monkeypatch.setattr(export_module, "_spell_missing", lambda _graph: None)
    pipeline = make_pipeline(columns(encoder), LogisticRegression()).fit(frame, labels)
    with pytest.raises(greenroom.PackagingError, match=r'"plan": "\(sensitive\)"') as refused:
        package(pipeline, frame, tmp_path, sensitive=["plan"])
    texts = [*frame["plan"].dropna().unique(), "unseen", *UNSEEN[-4:]]
    assert not any(text in str(refused.value).replace("unseen categor", "") for text in texts)


def test_how_many_rows_may_share_a_run_is_recorded(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """64 unless told otherwise."""
    pipeline = PIPELINES["logistic"]().fit(frame, labels)
    assert read_bundle(package(pipeline, frame, tmp_path)).batching.max_rows == 64
    other = package(pipeline, frame, tmp_path, version="v2", max_batch_rows=1)
    assert read_bundle(other).batching.max_rows == 1


def test_the_digests_are_those_of_the_files(frame: pd.DataFrame, labels: pd.Series, tmp_path: Path) -> None:
    """bundle.json lists every other file with its size and SHA-256."""
    path = package(PIPELINES["logistic"]().fit(frame, labels), frame, tmp_path)
    files = {file.path: file for file in read_bundle(path).files}
    assert left_behind(path) == sorted([*files, "bundle.json"])
    for name, file in files.items():
        content = (path / name).read_bytes()
        assert (file.size, file.sha256) == (len(content), sha256(content).hexdigest())


def test_the_same_arguments_give_the_same_bytes(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """Packaging twice makes equal files; another seed makes other golden samples."""
    pipeline = PIPELINES["gradient boosting"]().fit(frame, labels)
    one, two = (package(pipeline, frame, tmp_path / name) for name in ("one", "two"))
    other = package(pipeline, frame, tmp_path / "other", seed=1)
    for name in ("bundle.json", "golden.jsonl", "model.onnx"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert (one / "golden.jsonl").read_bytes() != (other / "golden.jsonl").read_bytes()


def test_float32_scaling_alone_would_move_rows_across_thresholds(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual float32 export of a forest is refused, with the rows and what to do; nothing is written."""
    monkeypatch.setattr("greenroom.packaging.ARITHMETICS", ("float32",))
    pipeline = PIPELINES["random forest"]().fit(frame, labels)
    with pytest.raises(greenroom.ParityError, match=r"of 2000 rows differ.*float32") as refused:
        package(pipeline, frame, tmp_path)
    assert "threshold" in str(refused.value)
    assert "Nothing was written" in str(refused.value)
    worst = refused.value.differences[0]
    assert set(worst.features) == {"age", "income", "plan"}
    assert worst.error > 1e-5
    assert left_behind(tmp_path) == []


def test_float32_columns_before_trees_are_refused_with_the_remedy(tmp_path: Path) -> None:
    """Where a request's float64 and training's float32 part, the refusal names the columns."""
    dice = np.random.default_rng(0)
    frame = pd.DataFrame({"score": dice.normal(size=600).astype("float32")})
    labels = (frame["score"] > 0.3).astype(int) ^ (dice.random(600) > 0.8)
    pipeline = make_pipeline(StandardScaler(), GradientBoostingClassifier()).fit(frame, labels)
    with pytest.raises(greenroom.ParityError, match=r"score are float32.*astype"):
        package(pipeline, frame, tmp_path)


def test_a_graph_that_takes_nulls_otherwise_is_refused(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exporter that spells a missing text wrongly is found out by rows with nulls alone."""
    monkeypatch.setattr(export_module, "_spell_missing", lambda _graph: None)
    pipeline = PIPELINES["logistic"]().fit(frame, labels)
    with pytest.raises(greenroom.ParityError, match="rows differ") as refused:
        package(pipeline, frame, tmp_path)
    assert any(difference.features["plan"] is None for difference in refused.value.differences)
    assert left_behind(tmp_path) == []


def test_a_step_without_an_equal_in_onnx_is_named(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """A FunctionTransformer around Python code cannot be exported, and the error says so."""
    pipeline = make_pipeline(columns(), FunctionTransformer(np.tanh), LogisticRegression())
    with pytest.raises(greenroom.ExportError, match="FunctionTransformer"):
        package(pipeline.fit(frame, labels), frame, tmp_path)
    assert left_behind(tmp_path) == []


def test_a_pipeline_that_refuses_unseen_categories_is_refused(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """The graph would answer what the pipeline raises on: the error shows the row and the remedy."""
    pipeline = make_pipeline(columns(OneHotEncoder()), LogisticRegression()).fit(frame, labels)
    with pytest.raises(greenroom.PackagingError, match=r"unseen category.*\n.*\n?.*handle_unknown='ignore'"):
        package(pipeline, frame, tmp_path)


def test_a_classifier_without_probabilities_is_refused(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """Labels alone cannot be compared closely; the error names a way out."""
    pipeline = make_pipeline(columns(), LinearSVC()).fit(frame, labels)
    with pytest.raises(greenroom.ExportError, match="CalibratedClassifierCV"):
        package(pipeline, frame, tmp_path)


def test_a_version_is_not_overwritten_unasked(frame: pd.DataFrame, labels: pd.Series, tmp_path: Path) -> None:
    """An existing version stays as it is, byte for byte, unless overwrite=True says otherwise."""
    pipeline = PIPELINES["logistic"]().fit(frame, labels)
    path = package(pipeline, frame, tmp_path)
    before = (path / "bundle.json").read_bytes()
    with pytest.raises(greenroom.VersionExistsError, match="overwrite=True"):
        package(pipeline, frame, tmp_path, seed=1)
    assert (path / "bundle.json").read_bytes() == before
    package(pipeline, frame, tmp_path, seed=1, overwrite=True)
    assert (path / "bundle.json").read_bytes() != before
    assert left_behind(tmp_path) == ["v1"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_what_was_there(
    frame: pd.DataFrame,
    labels: pd.Series,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    overwrite: bool,
) -> None:
    """When writing fails the error says so; no half bundle is left, and an older one is untouched."""
    pipeline = PIPELINES["logistic"]().fit(frame, labels)
    before = (package(pipeline, frame, tmp_path) / "bundle.json").read_bytes() if overwrite else b""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(greenroom.PackagingError, match="No space left"):
        package(pipeline, frame, tmp_path, overwrite=overwrite)
    assert left_behind(tmp_path) == (["v1"] if overwrite else [])
    if overwrite:
        assert (tmp_path / "v1" / "bundle.json").read_bytes() == before


def test_a_target_that_cannot_be_written_is_named(
    frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """A file where the directory should be is an error with its path, not a traceback of the library."""
    (tmp_path / "file").write_text("")
    with pytest.raises(greenroom.PackagingError, match="file"):
        package(PIPELINES["logistic"]().fit(frame, labels), frame, tmp_path / "file")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.iloc[:0], "no rows"),
        (lambda frame: frame[[]], "no columns"),
        (lambda frame: frame.to_numpy(), "pass the pandas DataFrame"),
        (lambda frame: frame.set_axis(["age", "age", "plan", "note"], axis=1), "twice.*age"),
        (lambda frame: frame.set_axis(["age", 3, "plan", "note"], axis=1), "not: \\[3\\]"),
        (lambda frame: frame[["income", "age", "plan", "note"]], "same order"),
        (lambda frame: frame.drop(columns="income"), "fitted on the columns"),
    ],
    ids=[
        "no rows",
        "no columns",
        "no frame",
        "duplicates",
        "a number for a name",
        "another order",
        "one less",
    ],
)
def test_a_frame_that_does_not_fit_is_refused(
    spoil: Callable[[pd.DataFrame], Any], message: str, frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """Each error says what is wrong with the frame; nothing is written."""
    pipeline = PIPELINES["logistic"]().fit(frame, labels)
    with pytest.raises(greenroom.FrameError, match=message):
        package(pipeline, spoil(frame), tmp_path)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", 1, None], "values of type int"),
        ([b"a", b"b", b"c"], "values of type bytes"),
        ([{}, {"a": 1}, None], "values of type dict"),
        (pd.to_datetime(["2026-01-01"] * 3), r"datetime64.*\.dt\.year"),
        (pd.to_timedelta([1, 2, 3], unit="h"), "timedelta64"),
        ([1 + 2j, 3j, 4j], "complex128"),
        ([1.0, np.inf, 2.0], "infinite"),
        ([None, None, None], "no value at all"),
        (["a", "__missing__", None], "stands for null"),
        (pd.Categorical([1, 2, 3]), "values of type int"),
    ],
    ids=[
        "mixed",
        "bytes",
        "objects",
        "moments",
        "durations",
        "complex",
        "infinite",
        "empty",
        "marker",
        "categories",
    ],
)
def test_a_column_that_a_request_cannot_carry_is_named(
    values: Sequence[Any], message: str, tmp_path: Path
) -> None:
    """The error names the column, what is in it, and what to make of it."""
    frame = pd.DataFrame({"fine": range(3), "odd": values})
    pipeline = make_pipeline(ColumnTransformer([("n", "passthrough", ["fine"])]), LogisticRegression())
    pipeline.fit(frame, [0, 1, 0])
    pipeline.steps[0][1].transformers_[0] = ("n", "passthrough", ["fine", "odd"])
    with pytest.raises(greenroom.FrameError, match=message) as refused:
        package(pipeline, frame, tmp_path)
    assert "'odd'" in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"version": "production"}, "no version's name"),
        ({"version": "V 2"}, "no version's name"),
        ({"version": "../v2"}, "no version's name"),
        ({"version": "v" * 64}, "at most 63"),
        ({"name": ""}, "name is empty"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"parity_rows": 10}, "fewer than 1000"),
        ({"max_batch_rows": 0}, "max_batch_rows is 0"),
        ({"max_batch_rows": 65537}, "to 65536"),
        ({"sensitive": ["e-mail"]}, "sensitive names what is no feature of the pipeline: \\['e-mail'\\]"),
        ({"sensitive": ["note"]}, "no feature.*it reads \\['age', 'income', 'plan'\\]"),
        ({"sensitive": "plan"}, "pass several names, as in sensitive=\\['plan'\\]"),
        ({"refuse_unseen": ["age"]}, "refuse_unseen.*'age'.*int64.*refuse_outside"),
        ({"refuse_outside": ["plan"]}, "refuse_outside.*'plan'.*string.*refuse_unseen"),
        ({"y": [0, 1]}, "y has 2 values"),
        ({"y": ["maybe"] * 600}, "never learned: \\['maybe'\\]"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(
    arguments: dict[str, Any], message: str, frame: pd.DataFrame, labels: pd.Series, tmp_path: Path
) -> None:
    """Each error names the argument and what to pass instead; nothing is written."""
    pipeline = PIPELINES["logistic"]().fit(frame, labels)
    with pytest.raises(greenroom.PackagingError, match=message):
        package(pipeline, frame, tmp_path, **arguments)
    assert left_behind(tmp_path) == []


def test_a_pipeline_that_is_not_fitted_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    """So is something that is no estimator at all."""
    for pipeline in (PIPELINES["logistic"](), object()):
        with pytest.raises(greenroom.PackagingError, match="not a fitted"):
            package(pipeline, frame, tmp_path)


def test_text_and_numbers_through_one_step_are_refused(tmp_path: Path) -> None:
    """Without a ColumnTransformer a mixed frame has no exact export; the error says to use one."""
    frame = pd.DataFrame({"plan": ["a", "b"] * 20, "age": range(40)})
    pipeline = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    with pytest.raises(greenroom.ExportError, match="ColumnTransformer"):
        package(pipeline.fit(frame, [0, 1] * 20), frame, tmp_path)


def test_bool_labels_and_nullable_integers_are_served_as_numbers(tmp_path: Path) -> None:
    """True is the label 1; an integer column with gaps takes null."""
    dice = np.random.default_rng(0)
    frame = pd.DataFrame({"age": pd.array(dice.integers(18, 90, 200), dtype="Int64")})
    frame.loc[::9, "age"] = pd.NA
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    path = package(pipeline.fit(frame, frame["age"].fillna(0) > 50), frame, tmp_path)
    bundle = read_bundle(path)
    assert bundle.signature.outputs.classes == (0, 1)
    assert (bundle.signature.features[0].dtype, bundle.signature.features[0].nullable) == ("int64", True)
    assert {type(json.loads(line)["prediction"]) for line in (path / "golden.jsonl").open()} == {int}
