"""Directories that hold ``model.onnx`` alone."""

from pathlib import Path

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from greenroom_runtime.contract.report import FailureReason, VersionState
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.source import DirectorySource
from greenroom_runtime.models.store import BundleStore, StoredBundle
from tests.support import foreign
from tests.support.bundles import regressor_graph, with_external_data, write_classifier
from tests.support.foreign import MATRIX, VALUES, write_plain
from tests.support.serving import ServingProcess, flags


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    """Open an empty store on an empty source."""
    (tmp_path / "source").mkdir()
    return BundleStore(tmp_path / "models", source=DirectorySource(tmp_path / "source"))


async def obtain(store: BundleStore, tmp_path: Path, model: bytes) -> StoredBundle:
    """Publish the model as v1 and obtain it."""
    write_plain(tmp_path / "source", "v1", model)
    return await store.obtain("v1", pinned=None)


def row_of(numbers: foreign.Array) -> dict[str, float]:
    """Return one row of the matrix as the features that a plain graph gets."""
    return {f"X_{at}": float(number) for at, number in enumerate(numbers)}


def test_a_plain_directory_is_served(tmp_path: Path) -> None:
    """It answers as the pipeline does, golden samples are told to be absent, and a bad one harms nobody."""
    write_plain(tmp_path / "source", "v1", foreign.classifier_onnx())
    write_plain(tmp_path / "source", "v2", foreign.regressor_onnx())
    write_plain(tmp_path / "source", "newer", foreign.with_opset(foreign.regressor_onnx(), 99))
    write_plain(tmp_path / "source", "garbage", b"\x80\x04 a pickle")
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        pod.flags.write(flags("v1", "v2", "newer", "garbage"))
        report = pod.wait_settled()
        told = {version.name: version for version in report.versions}
        assert [told[name].golden for name in ("v1", "v2")] == ["Absent", "Absent"]
        answer = pod.predict(row_of(MATRIX[0])).json()
        expected = foreign.trained_classifier()
        assert answer["prediction"] == expected.predict(MATRIX[:1])[0]
        assert answer["probabilities"] == pytest.approx(
            dict(zip(expected.classes_, expected.predict_proba(MATRIX[:1])[0], strict=True)), abs=1e-6
        )
        newer = told["newer"].failure
        assert newer is not None
        assert newer.reason is FailureReason.NOT_LOADABLE
        assert (newer.found, newer.expected.startswith("at most opset ")) == ("opset 99", True)
        assert "target_opset=" in newer.message
        assert told["garbage"].state is VersionState.FAILED


async def test_a_regressor_answers_as_it_was_trained(store: BundleStore, tmp_path: Path) -> None:
    """One output is a value."""
    stored = await obtain(store, tmp_path, foreign.regressor_onnx())
    session = ModelSession(stored.path, bundle=stored.bundle)
    assert stored.bundle.framework.startswith("skl2onnx ")
    assert stored.bundle.signature.outputs.probabilities is None
    assert session.predict([row_of(MATRIX[3])])[0].prediction == pytest.approx(VALUES[3], abs=1e-4)


async def test_classes_are_read_from_the_graph(store: BundleStore, tmp_path: Path) -> None:
    """The graph's own classifier knows what its probabilities are of."""
    stored = await obtain(store, tmp_path, foreign.classifier_onnx())
    assert stored.bundle.signature.outputs.classes == ("high", "low")


async def test_a_stack_s_inner_classes_are_not_taken_for_its_own(store: BundleStore, tmp_path: Path) -> None:
    """Inner classifiers number the classes themselves; the stack's are then told by number, never wrongly."""
    stack = StackingClassifier([("inner", LogisticRegression())], final_estimator=GaussianNB(), cv=2).fit(
        MATRIX, np.where(foreign.NAMES == "high", 5, 7)
    )
    model = to_onnx(stack, MATRIX[:1], options={id(stack): {"zipmap": False}}).SerializeToString()
    assert b"classlabels" in model
    stored = await obtain(store, tmp_path, model)
    assert stored.bundle.signature.outputs.probabilities is not None
    assert stored.bundle.signature.outputs.classes is None


async def test_open_columns_are_counted_by_the_signature(store: BundleStore, tmp_path: Path) -> None:
    """A graph that takes any number of columns is served with those that MLflow's signature names."""
    model = foreign.scoring_onnx([None, "features"])
    foreign.write_mlflow(tmp_path / "source", "v1", model, inputs=foreign.COLUMNS)
    stored = await store.obtain("v1", pinned=None)
    session = ModelSession(stored.path, bundle=stored.bundle)
    assert session.predict([{"age": 1.0, "income": 2.0, "visits": 3}])[0].prediction == 6.0


async def test_the_same_bytes_have_the_same_digest(tmp_path: Path) -> None:
    """Whichever pod reads them, from wherever: so the digest can be pinned. Other bytes have another."""
    digests = []
    for place, model in (("a", foreign.scoring_onnx([None, 3])), ("b", foreign.scoring_onnx([None, 3]))):
        write_plain(tmp_path / place, "v1", model)
        store = BundleStore(tmp_path / f"models-{place}", source=DirectorySource(tmp_path / place))
        digests.append((await store.obtain("v1", pinned=None)).digest)
    assert digests[0] == digests[1]
    (tmp_path / "b" / "v1" / "model.onnx").write_bytes(foreign.scoring_onnx([None, 4]))
    assert (await store.obtain("v1", pinned=digests[0])).digest == digests[0], "what is stored is as pinned"
    other = BundleStore(tmp_path / "models-c", source=DirectorySource(tmp_path / "b"))
    with pytest.raises(VersionError) as caught:
        await other.obtain("v1", pinned=digests[0])
    assert caught.value.failure.reason is FailureReason.DIGEST_CHANGED
    assert not list((tmp_path / "models-c").glob(".stage-*"))


async def test_the_digest_outlives_a_release(store: BundleStore, tmp_path: Path) -> None:
    """It is of the published bytes, and so does not hang on what this release makes of them."""
    stored = await obtain(store, tmp_path, foreign.scoring_onnx([None, 3]))
    made = stored.path / "bundle.json"
    made.write_text(stored.bundle.model_copy(update={"framework": "another release"}).model_dump_json())
    assert (await store.obtain("v1", pinned=stored.digest)).digest == stored.digest


async def test_one_row_at_a_time(store: BundleStore, tmp_path: Path) -> None:
    """A graph with a first dimension of one never shares a run."""
    stored = await obtain(store, tmp_path, foreign.scoring_onnx([1, 3]))
    assert stored.bundle.batching.max_rows == 1


async def test_inputs_of_one_column_are_features(store: BundleStore, tmp_path: Path) -> None:
    """They keep their own names and types."""
    stored = await obtain(store, tmp_path, foreign.several_inputs_onnx())
    told = [(one.name, one.dtype) for one in stored.bundle.signature.features]
    assert told == [("age", "float32"), ("income", "float32"), ("visits", "int64")]
    session = ModelSession(stored.path, bundle=stored.bundle)
    assert session.predict([{"age": 1.0, "income": 2.0, "visits": 3}])[0].prediction == 6.0


@pytest.mark.parametrize(
    ("model", "words", "found"),
    [
        (foreign.classifier_onnx(zipmap=True), "'zipmap': False", "sequence"),
        (foreign.scoring_onnx([8, 3]), "exactly 8 rows at a time", "float32 [8, 3]"),
        (foreign.scoring_onnx([None, "features"]), "how many features it takes", "float32 [?, ?]"),
        (foreign.scoring_onnx([None, 3, 3]), "no matrix of rows and features", "float32 [?, 3, 3]"),
        (foreign.summing_onnx({"x": [None]}), "no matrix of rows and features", "float32 [?]"),
        (foreign.summing_onnx({"x": [None, 3]}, dtype=6), "let the graph cast it", "int32 [?, 3]"),
        (foreign.summing_onnx({"x": [None, 3]}), "not one answer a row", "float32 [?, 3]"),
        (foreign.summing_onnx({"x": [None, 1]}, outputs=3), "which outputs are the answer", "output_2"),
        (foreign.summing_onnx({"x_0": [None, 1], "x": [None, 2]}), "declared twice", ""),
        (foreign.summing_onnx({"n" * 300: [None, 1]}), "at most 256 characters", "nnn"),
        (foreign.scoring_onnx([None, 20_000]), "at most 10000 items", ""),
    ],
    ids=[
        "zipmap",
        "fixed rows",
        "open columns",
        "image",
        "vector",
        "int32",
        "matrix out",
        "outputs",
        "names",
        "long name",
        "too wide",
    ],
)
async def test_what_does_not_fit_is_told_with_the_remedy(
    model: bytes, words: str, found: str, store: BundleStore, tmp_path: Path
) -> None:
    """Each graph that cannot be served as it is says what to export instead."""
    with pytest.raises(VersionError) as caught:
        await obtain(store, tmp_path, model)
    failure = caught.value.failure
    assert (failure.reason, failure.file) == (FailureReason.INVALID_BUNDLE, "model.onnx")
    assert words in failure.message
    assert found in failure.found


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04pickle",
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\xff" * 64,
        b"\x0b",
        foreign.regressor_onnx()[:-40],
    ],
    ids=["empty", "pickle", "length", "ones", "group", "truncated"],
)
async def test_garbage_is_not_loadable(content: bytes, store: BundleStore, tmp_path: Path) -> None:
    """No bytes whatever do more than fail."""
    with pytest.raises(VersionError) as caught:
        await obtain(store, tmp_path, content)
    assert caught.value.failure.reason is FailureReason.NOT_LOADABLE


@pytest.mark.parametrize(
    ("model", "found", "expected"),
    [
        (foreign.with_opset(regressor_graph(0.0), 99), "opset 99", "at most opset"),
        (foreign.with_opset(foreign.classifier_onnx(), 77, domain="ai.onnx.ml"), "opset 77", "at most opset"),
        (foreign.with_operator(regressor_graph(0.0), "Nonsense"), "Nonsense", "operators of onnxruntime"),
        (foreign.with_operator(regressor_graph(0.0), "Own", domain="my.own"), "my.own:Own", "operators of"),
    ],
    ids=["opset", "opset of a domain", "operator", "domain"],
)
async def test_what_onnxruntime_does_not_know_is_named(
    model: bytes, found: str, expected: str, store: BundleStore, tmp_path: Path
) -> None:
    """A model that is too new, or of somebody's own operators, says so, with both sides and the remedy."""
    stored = await obtain(store, tmp_path, model)
    with pytest.raises(VersionError) as caught:
        ModelSession(stored.path, bundle=stored.bundle)
    failure = caught.value.failure
    assert (failure.reason, failure.found) == (FailureReason.NOT_LOADABLE, found)
    assert failure.expected.startswith(expected)
    assert "export it" in failure.message


def test_weights_outside_are_refused_by_the_trial(tmp_path: Path) -> None:
    """A plain directory may not reach outside of its file either; the message says how to export it."""
    write_classifier(tmp_path / "source", "v1")
    write_plain(tmp_path / "source", "v2", with_external_data(regressor_graph(0.0), "weights.bin"))
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        pod.flags.write(flags("v1", "v2"))
        failure = pod.wait_failed("v2", FailureReason.INVALID_BUNDLE).version("v2").failure  # type: ignore[union-attr]
        assert failure is not None
        assert "save_as_external_data=False" in failure.message


async def test_half_a_bundle_is_no_plain_model(store: BundleStore, tmp_path: Path) -> None:
    """Golden samples without bundle.json are a publication that is not complete, never served unproven."""
    (write_classifier(tmp_path / "source", "v1") / "bundle.json").unlink()
    with pytest.raises(VersionError, match="publication is not complete") as caught:
        await store.obtain("v1", pinned=None)
    assert caught.value.failure.reason is FailureReason.NO_SUCH_VERSION
