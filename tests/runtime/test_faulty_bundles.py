"""Every kind of broken version ends as Failed with a reason, and production has not felt it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from greenroom_runtime.contract.bundle import GOLDEN_FILE, MODEL_FILE, Feature, GoldenSample, Outputs, Tensor
from greenroom_runtime.contract.report import FailureReason, PodReport, VersionReport
from tests.support import bundles, foreign
from tests.support.bundles import (
    CLASSIFIER_ROWS,
    CLASSIFIER_SIGNATURE,
    REGRESSOR_ROWS,
    REGRESSOR_SIGNATURE,
    edit_manifest,
    write_bundle,
    write_classifier,
    write_regressor,
)
from tests.support.serving import ServingProcess, flags


def _truncated(source: Path) -> None:
    model = write_classifier(source, "truncated") / MODEL_FILE
    model.write_bytes(model.read_bytes()[:-100])


def _altered(source: Path) -> None:
    model = write_classifier(source, "altered") / MODEL_FILE
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)


def _file_missing(source: Path) -> None:
    (write_classifier(source, "file-missing") / GOLDEN_FILE).unlink()


def _garbage_manifest(source: Path) -> None:
    (write_classifier(source, "garbage-manifest") / "bundle.json").write_bytes(b"\xff{not json")


def _empty_manifest(source: Path) -> None:
    (write_classifier(source, "empty-manifest") / "bundle.json").write_bytes(b"")


def _newer_manifest(source: Path) -> None:
    edit_manifest(write_classifier(source, "newer-manifest"), schema_version=99)


def _renamed(source: Path) -> None:
    edit_manifest(write_classifier(source, "renamed"), version="other")


def _path_outside(source: Path) -> None:
    files = [{"path": "../v1/model.onnx", "sha256": "0" * 64, "size": 1}]
    edit_manifest(write_classifier(source, "path-outside"), files=files)


def _link_outside(source: Path) -> None:
    directory = write_classifier(source, "link-outside")
    (directory / MODEL_FILE).unlink()
    (directory / MODEL_FILE).symlink_to("/etc/hostname")


def _not_onnx(source: Path) -> None:
    write_bundle(source, "not-onnx", model=b"\x80\x04 a pickle", signature=CLASSIFIER_SIGNATURE)


def _other_graph(source: Path) -> None:
    model = bundles.regressor_graph(0.0)
    write_bundle(source, "other-graph", model=model, signature=CLASSIFIER_SIGNATURE)


def _no_such_output(source: Path) -> None:
    signature = REGRESSOR_SIGNATURE.model_copy(update={"outputs": Outputs(prediction="nothing")})
    write_regressor(source, "no-such-output", signature=signature)


def _null_golden(source: Path) -> None:
    features = tuple(
        Feature(name=feature.name, dtype=feature.dtype, nullable=True)
        for feature in REGRESSOR_SIGNATURE.features
    )
    signature = REGRESSOR_SIGNATURE.model_copy(update={"features": features})
    sample = GoldenSample(features={"x1": None, "x2": 1.0, "member": True}, prediction=7.0)
    write_regressor(source, "null-golden", signature=signature, golden=[sample])


def _nullable_integer(source: Path) -> None:
    features = (Feature(name="x1", dtype="int64", nullable=True),)
    tensors = (Tensor(name="x", dtype="int64", features=("x1",)),)
    signature = REGRESSOR_SIGNATURE.model_copy(update={"features": features, "tensors": tensors})
    write_regressor(source, "nullable-integer", signature=signature, golden=None)


def _external_data(source: Path) -> None:
    model = bundles.with_external_data(bundles.classifier_graph(0.0), "../../../etc/hostname")
    write_bundle(source, "external-data", model=model, signature=CLASSIFIER_SIGNATURE)


def _golden_label(source: Path) -> None:
    sample = GoldenSample(features=CLASSIFIER_ROWS[0], prediction="no", probabilities=None)
    write_classifier(source, "golden-label", golden=[sample])


def _golden_score(source: Path) -> None:
    sample = GoldenSample(features=REGRESSOR_ROWS[0], prediction=6.001)
    write_regressor(source, "golden-score", golden=[sample])


def _golden_unfit(source: Path) -> None:
    sample = GoldenSample(features={"age": 1.0}, prediction="no")
    write_classifier(source, "golden-unfit", golden=[sample])


def _warmup_unfit(source: Path) -> None:
    write_classifier(source, "warmup-unfit", warmup=[{"age": "old"}])


def _endless(source: Path) -> None:
    write_bundle(source, "endless", model=bundles.endless_graph(), signature=REGRESSOR_SIGNATURE)


def _opset(source: Path) -> None:
    model = foreign.with_opset(bundles.regressor_graph(0.0), 99)
    write_bundle(source, "opset", model=model, signature=REGRESSOR_SIGNATURE)


def _operator(source: Path) -> None:
    model = foreign.with_operator(bundles.regressor_graph(0.0), "Own", domain="my.own")
    write_bundle(source, "operator", model=model, signature=REGRESSOR_SIGNATURE)


def _file_and_directory(source: Path) -> None:
    write_regressor(source, "file-and-directory", extra_files={"a/b": b""})
    directory = source / "file-and-directory"
    files = json.loads((directory / "bundle.json").read_text())["files"]
    edit_manifest(directory, files=[*files, {"path": "a", "sha256": "0" * 64, "size": 0}])


def _half_published(source: Path) -> None:
    (write_classifier(source, "half-published") / "bundle.json").unlink()


def _plain_zipmap(source: Path) -> None:
    foreign.write_plain(source, "plain-zipmap", foreign.classifier_onnx(zipmap=True))


def _plain_truncated(source: Path) -> None:
    foreign.write_plain(source, "plain-truncated", foreign.classifier_onnx()[:-40])


def _mlflow_pickle(source: Path) -> None:
    foreign.write_mlflow(source, "mlflow-pickle", b"", flavors={"sklearn": {"pickled_model": "model.pkl"}})


BROKEN: dict[str, tuple[Callable[[Path], None] | None, FailureReason, str]] = {
    "absent": (None, FailureReason.NO_SUCH_VERSION, "publish the version"),
    "truncated": (_truncated, FailureReason.DIGEST_MISMATCH, "model.onnx has"),
    "altered": (_altered, FailureReason.DIGEST_MISMATCH, "model.onnx has other content"),
    "file-missing": (_file_missing, FailureReason.DIGEST_MISMATCH, "golden.jsonl is missing"),
    "garbage-manifest": (_garbage_manifest, FailureReason.INVALID_BUNDLE, "Invalid JSON"),
    "empty-manifest": (_empty_manifest, FailureReason.INVALID_BUNDLE, "Invalid JSON"),
    "newer-manifest": (_newer_manifest, FailureReason.INVALID_BUNDLE, "schema version 99"),
    "renamed": (_renamed, FailureReason.INVALID_BUNDLE, "'other', not 'renamed'"),
    "path-outside": (_path_outside, FailureReason.INVALID_BUNDLE, "files.0.path"),
    "link-outside": (_link_outside, FailureReason.INVALID_BUNDLE, "no regular file inside the bundle"),
    "not-onnx": (_not_onnx, FailureReason.NOT_LOADABLE, "no ONNX"),
    "other-graph": (_other_graph, FailureReason.INVALID_BUNDLE, "the signature and the graph differ"),
    "no-such-output": (_no_such_output, FailureReason.INVALID_BUNDLE, "outputs"),
    "null-golden": (_null_golden, FailureReason.GOLDEN_MISMATCH, "the training pipeline's"),
    "nullable-integer": (_nullable_integer, FailureReason.INVALID_BUNDLE, "type of input 'x'"),
    "external-data": (_external_data, FailureReason.INVALID_BUNDLE, "outside of the file"),
    "golden-label": (_golden_label, FailureReason.GOLDEN_MISMATCH, "golden sample 0"),
    "golden-score": (_golden_score, FailureReason.GOLDEN_MISMATCH, "golden sample 0"),
    "golden-unfit": (_golden_unfit, FailureReason.INVALID_BUNDLE, "'income' is missing"),
    "warmup-unfit": (_warmup_unfit, FailureReason.INVALID_BUNDLE, "warm-up row 0"),
    "opset": (_opset, FailureReason.NOT_LOADABLE, "is written for opset 99"),
    "operator": (_operator, FailureReason.NOT_LOADABLE, "my.own:Own"),
    "file-and-directory": (_file_and_directory, FailureReason.INVALID_BUNDLE, "a directory"),
    "half-published": (_half_published, FailureReason.NO_SUCH_VERSION, "not complete"),
    "plain-zipmap": (_plain_zipmap, FailureReason.INVALID_BUNDLE, "'zipmap': False"),
    "plain-truncated": (_plain_truncated, FailureReason.NOT_LOADABLE, "no ONNX"),
    "mlflow-pickle": (_mlflow_pickle, FailureReason.INVALID_BUNDLE, "never loaded"),
    "endless": (_endless, FailureReason.TRIAL_TIMEOUT, "did not end within"),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodReport]:
    """Give one pod a good production version and all the broken ones."""
    root = tmp_path_factory.mktemp("faults")
    write_classifier(root / "source", "v1")
    for write, _, _ in BROKEN.values():
        if write is not None:
            write(root / "source")
    proof = {"trial_seconds": 10.0}
    with ServingProcess(root / "pod", source_uri=(root / "source").as_uri(), proof=proof) as pod:
        pod.flags.write(flags("v1", *BROKEN))
        pod.wait_ready("v1")
        settled = pod.wait_settled()
        assert pod.predict(CLASSIFIER_ROWS[0]).status_code == 200
        stored = {entry.name for entry in pod.models.iterdir()}
        assert not {name for name in stored if name.startswith((".stage", ".loading"))}
        yield settled


def _told(report: PodReport, name: str) -> VersionReport:
    told = report.version(name)
    assert told is not None
    return told


@pytest.mark.parametrize("name", BROKEN)
def test_broken_version_is_refused_with_its_reason(report: PodReport, name: str) -> None:
    """The report names the reason and says what was found."""
    _, reason, words = BROKEN[name]
    failure = _told(report, name).failure
    assert failure is not None
    assert (failure.reason, words in failure.message) == (reason, True), failure


def test_broken_versions_leave_production_serving(report: PodReport) -> None:
    """Whatever the others do, production is ready and the document is obeyed."""
    assert report.ready
    assert report.production == "v1"
    assert report.revision == flags("v1", *BROKEN).revision


def test_golden_mismatch_names_sample_and_values(report: PodReport) -> None:
    """A person sees which sample differed, what was expected and what was found."""
    failure = _told(report, "golden-score").failure
    assert failure is not None
    assert (failure.file, failure.sample, failure.expected, failure.found) == (GOLDEN_FILE, 0, "6.001", "6.0")
