"""MLflow's model directories."""

import json
from pathlib import Path
from typing import Any

import pytest

from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.source import DirectorySource
from greenroom_runtime.models.store import BundleStore, StoredBundle
from tests.support import foreign
from tests.support.foreign import COLUMNS, MATRIX, write_mlflow
from tests.support.serving import ServingProcess, flags

TENSOR = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}
NESTED = "[" * 20_000


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    """Open an empty store on an empty source."""
    (tmp_path / "source").mkdir()
    return BundleStore(tmp_path / "models", source=DirectorySource(tmp_path / "source"))


async def obtain(store: BundleStore, tmp_path: Path, model: bytes, **document: Any) -> StoredBundle:
    """Publish an MLflow model as v1 and obtain it."""
    write_mlflow(tmp_path / "source", "v1", model, **document)
    return await store.obtain("v1", pinned=None)


def test_an_mlflow_model_is_served(tmp_path: Path) -> None:
    """By the columns of its signature; optional ones may be null; golden samples are told to be absent."""
    write_mlflow(tmp_path / "source", "v1", foreign.classifier_onnx(), inputs=COLUMNS)
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        pod.flags.write(flags("v1"))
        report = pod.wait_ready("v1")
        assert report.versions[0].golden == "Absent"
        row = dict(zip(("age", "income", "visits"), (0.5, -1.5, 2), strict=True))
        answer = pod.predict(row).json()
        model = foreign.trained_classifier()
        assert answer["prediction"] == model.predict([list(row.values())])[0]
        assert pod.predict({**row, "income": None}).status_code != 422
        assert pod.predict({**row, "age": None}).status_code == 422
        assert pod.predict({"age": 1.0}).status_code == 422


async def test_columns_become_features(store: BundleStore, tmp_path: Path) -> None:
    """Names, types and whether they are required come from the signature; date and writers from the file."""
    stored = await obtain(store, tmp_path, foreign.classifier_onnx(), inputs=COLUMNS)
    told = [(one.name, one.dtype, one.nullable) for one in stored.bundle.signature.features]
    assert told == [("age", "float64", False), ("income", "float32", True), ("visits", "int64", False)]
    assert stored.bundle.created == "2026-11-01T12:30:00Z"
    assert stored.bundle.framework.startswith("skl2onnx ")
    assert stored.bundle.framework.endswith(", MLflow 3.17.2")
    assert {file.path for file in stored.bundle.files} == {"MLmodel", "model.onnx"}


async def test_columns_of_several_inputs(store: BundleStore, tmp_path: Path) -> None:
    """Each column feeds the input of its name, as MLflow itself feeds it."""
    stored = await obtain(store, tmp_path, foreign.several_inputs_onnx(), inputs=COLUMNS)
    session = ModelSession(stored.path, bundle=stored.bundle)
    assert session.predict([{"age": 1.0, "income": 2.0, "visits": 3}])[0].prediction == 6.0


async def test_columns_written_before_mlflow_2_10(store: BundleStore, tmp_path: Path) -> None:
    """Then a column was "optional" rather than not "required"."""
    columns = [{"type": "double", "name": name} for name in ("a", "b")]
    columns.append({"type": "double", "name": "c", "optional": True})  # type: ignore[dict-item]
    stored = await obtain(store, tmp_path, foreign.classifier_onnx(), inputs=columns)
    assert [one.nullable for one in stored.bundle.signature.features] == [False, False, True]


@pytest.mark.parametrize(
    "inputs",
    [[TENSOR], [{**TENSOR, "name": "X"}], None, [{"type": "float"}] * 3],
    ids=["tensor", "named tensor", "no signature", "nameless columns"],
)
async def test_without_names_the_graph_s_own_are_taken(
    inputs: Any, store: BundleStore, tmp_path: Path
) -> None:
    """A tensor's columns have none, nor has a model that was logged without a signature."""
    stored = await obtain(store, tmp_path, foreign.classifier_onnx(), inputs=inputs)
    session = ModelSession(stored.path, bundle=stored.bundle)
    row = {f"X_{at}": float(number) for at, number in enumerate(MATRIX[0])}
    assert session.predict([row])[0].prediction in ("high", "low")


async def test_other_bytes_have_another_digest(store: BundleStore, tmp_path: Path) -> None:
    """MLmodel counts too: another signature under the same name is another version."""
    first = await obtain(store, tmp_path, foreign.classifier_onnx(), inputs=COLUMNS)
    renamed = [{**column, "name": f"new_{column['name']}"} for column in COLUMNS]
    write_mlflow(tmp_path / "other", "v1", foreign.classifier_onnx(), inputs=renamed)
    other = BundleStore(tmp_path / "models-2", source=DirectorySource(tmp_path / "other"))
    with pytest.raises(VersionError) as caught:
        await other.obtain("v1", pinned=first.digest)
    assert caught.value.failure.reason is FailureReason.DIGEST_CHANGED


@pytest.mark.parametrize(
    ("document", "words", "found"),
    [
        ({"inputs": COLUMNS, "flavors": {"sklearn": {"pickled_model": "m.pkl"}}}, "never loaded", "sklearn"),
        ({"inputs": COLUMNS, "flavors": None}, "never loaded", "no flavors"),
        ({"flavors": {"onnx": {"data": "../../model.onnx"}}}, "must be model.onnx", "../../model.onnx"),
        ({"inputs": COLUMNS[:2]}, "another number of columns", "3"),
        ({"inputs": [{"type": "datetime", "name": "when"}]}, "type that cannot be served", "datetime"),
        ({"inputs": [{"type": {"items": "double"}, "name": "many"}]}, "cannot be served", "items"),
        ({"inputs": [{"type": "double", "name": ["list"]}]}, "cannot be served", "double"),
        ({"inputs": [{"type": "double", "name": "a"}] * 3}, "declared twice", ""),
        ({"inputs": [{"type": "tensor"}]}, "no dtype and shape", "tensor"),
        (
            {"inputs": [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]},
            "is not the graph's",
            "float64 [-1, 3]",
        ),
        ({"inputs": "{not json"}, "is no JSON", ""),
        ({"inputs": NESTED}, "is no JSON", ""),
        ({"inputs": "{}"}, "no list", "{}"),
    ],
    ids=[
        *("pickle", "no flavors", "data elsewhere", "too few columns", "moment", "array", "name", "twice"),
        *("tensor", "other tensor", "no JSON", "nested", "no list"),
    ],
)
async def test_what_does_not_fit_is_told(
    document: dict[str, Any], words: str, found: str, store: BundleStore, tmp_path: Path
) -> None:
    """Each MLmodel that cannot be served names file, expected and found, and often the remedy."""
    with pytest.raises(VersionError) as caught:
        await obtain(store, tmp_path, foreign.classifier_onnx(), **document)
    failure = caught.value.failure
    assert failure.reason is FailureReason.INVALID_BUNDLE
    assert failure.file in ("MLmodel", "model.onnx")
    assert words in failure.message
    assert found in failure.found


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00garbage",
        b"a: [unclosed",
        b"just a text",
        b"- a\n- list",
        NESTED.encode(),
        b"a: &a [x, x]\n" + b"".join(b"b%d: &b%d [*a, *a]\n" % (at, at) for at in range(1000)),
        b"a: &a {x: 1}\n" + b"b: {<<: [" + b"*a, " * 5000 + b"*a]}\n",
        b"flavors: !!python/object/apply:os.system ['true']",
        b"x" * (300 * 1024),
    ],
    ids=["empty", "bytes", "unclosed", "text", "list", "nested", "aliases", "merges", "tag", "huge"],
)
async def test_garbage_is_refused(content: bytes, store: BundleStore, tmp_path: Path) -> None:
    """No YAML whatever does more than fail: nothing is unfolded, merged, constructed or read without end."""
    (write_mlflow(tmp_path / "source", "v1", b"") / "MLmodel").write_bytes(content)
    with pytest.raises(VersionError) as caught:
        await store.obtain("v1", pinned=None)
    assert caught.value.failure.reason is FailureReason.INVALID_BUNDLE
    assert caught.value.failure.file == "MLmodel"


async def test_a_model_of_another_flavor_needs_no_onnx_file(store: BundleStore, tmp_path: Path) -> None:
    """What mlflow.sklearn has saved is told for what it is, although it has no model.onnx."""
    flavors = {
        "python_function": {"loader_module": "mlflow.sklearn"},
        "sklearn": {"pickled_model": "model.pkl"},
    }
    directory = write_mlflow(tmp_path / "source", "v1", b"", inputs=COLUMNS, flavors=flavors)
    (directory / "model.onnx").rename(directory / "model.pkl")
    with pytest.raises(VersionError, match=r"mlflow\.onnx\.log_model") as caught:
        await store.obtain("v1", pinned=None)
    assert caught.value.failure.found == "python_function, sklearn"


async def test_an_onnx_flavor_without_its_file(store: BundleStore, tmp_path: Path) -> None:
    """An upload that is not complete says which file is missing."""
    (write_mlflow(tmp_path / "source", "v1", b"", inputs=COLUMNS) / "model.onnx").unlink()
    with pytest.raises(VersionError, match=r"model\.onnx is missing") as caught:
        await store.obtain("v1", pinned=None)
    assert caught.value.failure.reason is FailureReason.INVALID_BUNDLE


async def test_a_link_that_leaves_the_directory_is_refused(store: BundleStore, tmp_path: Path) -> None:
    """Nothing outside of the version's directory is read in its name."""
    directory = write_mlflow(tmp_path / "source", "v1", b"", inputs=COLUMNS)
    (directory / "MLmodel").unlink()
    (directory / "MLmodel").symlink_to("/etc/hostname")
    with pytest.raises(VersionError, match="no regular file") as caught:
        await store.obtain("v1", pinned=None)
    assert caught.value.failure.reason is FailureReason.INVALID_BUNDLE


def test_the_signature_is_written_as_mlflow_writes_it(tmp_path: Path) -> None:
    """The tests' own MLmodel has the inputs as JSON in a text, which is MLflow's way."""
    text = (write_mlflow(tmp_path, "v1", b"", inputs=COLUMNS) / "MLmodel").read_text()
    assert f"inputs: '{json.dumps(COLUMNS)[:20]}" in text
