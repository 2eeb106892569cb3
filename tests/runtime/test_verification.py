"""The golden replay against sessions of this process: what it compares, how closely, and what it tells."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from greenroom_runtime.contract.bundle import (
    Batching,
    Bundle,
    GoldenSample,
    Outputs,
    Signature,
    Value,
)
from greenroom_runtime.contract.report import Failure
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.verification import replay
from tests.support.bundles import (
    CLASSIFIER_ROWS,
    CLASSIFIER_SIGNATURE,
    COUNTRIES,
    Row,
    classifier_graph,
    classify,
    edit_manifest,
    regressor_graph,
    write_bundle,
    write_regressor,
)

SHOWN = CLASSIFIER_SIGNATURE.outputs.model_copy(update={"preprocessed": "columns"})


def show(graph: bytes, name: str, kind: int = TensorProto.FLOAT) -> bytes:
    """Make a tensor of the graph one of its outputs."""
    model = onnx.load_from_string(graph)
    model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    content: bytes = model.SerializeToString()
    return content


def columns(row: Row) -> tuple[float, ...]:
    """Compute what the classifier's own model is given, as its training pipeline would."""
    numbers = (float(row[name] or 0) for name in ("visits", "age", "income"))
    country = COUNTRIES.get(str(row["country"] or ""), 0.0)
    return tuple(float(np.float32(number)) for number in (*numbers, country))


def sample(row: Row, preprocessed: tuple[Value, ...] | None) -> GoldenSample:
    """Return what the training pipeline answers to a row."""
    label, probabilities = classify(row, 0.0)
    return GoldenSample(
        features=row, prediction=label, probabilities=probabilities, preprocessed=preprocessed
    )


def write(
    source: Path,
    *,
    preprocessed: tuple[Value, ...] | None = None,
    signature: Signature = CLASSIFIER_SIGNATURE,
    graph: bytes | None = None,
) -> Path:
    """Write a classifier whose samples hold preprocessed features; the third's may be other ones."""
    golden = [sample(row, columns(row)) for row in CLASSIFIER_ROWS]
    if preprocessed is not None:
        golden[2] = sample(CLASSIFIER_ROWS[2], preprocessed)
    return write_bundle(
        source,
        "v1",
        model=show(classifier_graph(0.0), "columns") if graph is None else graph,
        signature=signature.model_copy(update={"outputs": SHOWN}),
        golden=golden,
    )


def load(directory: Path) -> ModelSession:
    """Load a bundle as a pod does."""
    bundle = Bundle.model_validate_json((directory / "bundle.json").read_bytes())
    return ModelSession(directory, bundle=bundle)


def refused(directory: Path) -> Failure:
    """Replay what must not pass, and return what is told of it."""
    with pytest.raises(VersionError) as error:
        replay(load(directory), directory)
    return error.value.failure


def test_preprocessed_features_that_are_the_pipelines_pass(tmp_path: Path) -> None:
    """Each sample is replayed, nulls and unseen categories among them."""
    directory = write(tmp_path)
    assert replay(load(directory), directory) == len(CLASSIFIER_ROWS)


def test_samples_without_preprocessed_features_are_compared_by_their_answers(tmp_path: Path) -> None:
    """A packager that records none, for some rows or for all, is served as before."""
    golden = [sample(row, None if at else columns(row)) for at, row in enumerate(CLASSIFIER_ROWS)]
    signature = CLASSIFIER_SIGNATURE.model_copy(update={"outputs": SHOWN})
    graph = show(classifier_graph(0.0), "columns")
    directory = write_bundle(tmp_path, "v1", model=graph, signature=signature, golden=golden)
    assert replay(load(directory), directory) == len(CLASSIFIER_ROWS)


def test_one_bit_of_a_preprocessed_feature_is_found(tmp_path: Path) -> None:
    """The next float32 is another value, however close the scores are; sample, column and values are told."""
    right = columns(CLASSIFIER_ROWS[2])
    wrong = float(np.nextafter(np.float32(right[1]), np.float32(math.inf)))
    failure = refused(write(tmp_path, preprocessed=(right[0], wrong, *right[2:])))
    assert (failure.reason, failure.file, failure.sample) == ("GoldenMismatch", "golden.jsonl", 2)
    assert (failure.expected, failure.found) == (repr(wrong), repr(right[1]))
    assert "column 1, 1 of 4 differ" in failure.message


def test_preprocessed_values_of_a_model_with_sensitive_features_are_not_shown(tmp_path: Path) -> None:
    """Which column came of which feature is not known, so no value is told."""
    features = tuple(
        feature.model_copy(update={"sensitive": feature.name == "age"})
        for feature in CLASSIFIER_SIGNATURE.features
    )
    signature = CLASSIFIER_SIGNATURE.model_copy(update={"features": features})
    failure = refused(write(tmp_path, preprocessed=(250.0, 12345.5, 0.0, -0.5), signature=signature))
    assert "column 1" in failure.message
    assert "12345.5" not in failure.model_dump_json()
    assert "77.25" not in failure.model_dump_json()


@pytest.mark.parametrize(
    ("preprocessed", "reason", "told"),
    [
        ((1.0, 2.0), "GoldenMismatch", "2 columns"),
        ((250.0, None, 0.0, -0.5), "GoldenMismatch", "nan"),
        ((250.0, "much", 0.0, -0.5), "InvalidBundle", "no number"),
    ],
    ids=["too few", "null", "text"],
)
def test_preprocessed_features_of_another_kind_are_refused(
    preprocessed: tuple[Value, ...], reason: str, told: str, tmp_path: Path
) -> None:
    """Another number of columns, a null where there is a number, and text are each named."""
    failure = refused(write(tmp_path, preprocessed=preprocessed))
    assert (failure.reason, failure.sample) == (reason, 2)
    assert told in failure.model_dump_json()


def test_an_output_that_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    """A bundle that calls its labels preprocessed features is told what was expected and found."""
    directory = write(tmp_path)
    outputs = SHOWN.model_copy(update={"preprocessed": "label"})
    signature = CLASSIFIER_SIGNATURE.model_copy(update={"outputs": outputs})
    edit_manifest(directory, signature=signature.model_dump(mode="json"))
    failure = refused(directory)
    assert failure.reason == "GoldenMismatch"
    assert (failure.expected, failure.found) == ("floats of shape (1, columns)", "object of shape (1,)")


def test_an_output_that_the_graph_has_not_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    """The signature must fit the graph before anything is replayed."""
    directory = write(tmp_path, graph=classifier_graph(0.0))
    with pytest.raises(VersionError) as error:
        load(directory)
    assert error.value.failure.reason == "InvalidBundle"
    assert error.value.failure.expected == "a tensor 'columns'"


def test_a_graph_for_one_row_at_a_time_is_replayed_one_row_at_a_time(tmp_path: Path) -> None:
    """A first dimension that is fixed to 1 passes with batches of one row, and not with larger ones."""
    model = onnx.load_from_string(regressor_graph(0.0))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    directory = write_regressor(tmp_path, "v1")
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    assert refused(directory).reason == "GoldenMismatch"
    edit_manifest(directory, batching=Batching(max_rows=1).model_dump())
    assert replay(load(directory), directory) == 3


@pytest.mark.parametrize("max_rows", [2, 3, 64])
def test_samples_are_replayed_in_batches_as_large_as_requests_may_share(
    max_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run of the model has one row, or at most the bundle's own number of rows."""
    directory = write_regressor(tmp_path, "v1")
    edit_manifest(directory, batching=Batching(max_rows=max_rows).model_dump())
    session = load(directory)
    sizes = []
    predict = session.predict

    def counted(rows: Any) -> Any:
        sizes.append(len(rows))
        return predict(rows)

    monkeypatch.setattr(session, "predict", counted)
    assert replay(session, directory) == 3
    assert max(sizes) == min(max_rows, 3)
    assert sum(sizes) == {2: 5, 3: 6, 64: 6}[max_rows]


def test_a_regressor_may_show_its_input(tmp_path: Path) -> None:
    """Float64 is compared as float64; booleans are its numbers."""
    shown = Outputs(prediction="value", preprocessed="x2")
    model = onnx.load_from_string(regressor_graph(0.0))
    model.graph.node.insert(0, helper.make_node("Identity", ["x"], ["x2"]))
    row: Row = {"x1": 0.1, "x2": 0.2, "member": True}
    golden = GoldenSample(features=row, prediction=0.2 - 0.6 + 10, preprocessed=(0.1, 0.2, 1.0))
    directory = write_regressor(tmp_path, "v1", golden=[golden])
    (directory / "model.onnx").write_bytes(show(model.SerializeToString(), "x2", TensorProto.DOUBLE))
    document = Bundle.model_validate_json((directory / "bundle.json").read_bytes())
    signature = document.signature.model_copy(update={"outputs": shown})
    edit_manifest(directory, signature=signature.model_dump(mode="json"))
    assert replay(load(directory), directory) == 1
