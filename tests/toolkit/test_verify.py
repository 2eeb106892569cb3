import copy
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest

import greenroom
from examples.skew import train as skew
from greenroom.sensitive import HIDDEN
from greenroom.verification import Outcome, Part, SubjectError, Verification
from greenroom.verification.diagnose import diagnose
from greenroom.verification.junit import to_junit
from greenroom.verification.report import Check, Finding
from greenroom.verification.subject import load
from tests.support.bundles import edit_manifest, endless_graph, write_classifier, write_regressor
from tests.support.examples import EXAMPLES
from tests.support.foreign import classifier_onnx, write_plain
from tests.toolkit.command import PATIENCE_SECONDS, Command, seeing_ended

SKEW = EXAMPLES / "skew"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the example: v1, and pipeline.joblib."""
    to = tmp_path_factory.mktemp("skew")
    subprocess.run([sys.executable, str(SKEW / "train.py"), "--to", str(to)], check=True, capture_output=True)
    return to


def run_verify(*arguments: str, cwd: Path = SKEW) -> subprocess.CompletedProcess[str]:
    """Run `greenroom verify …` in the directory of the serving code, as CI does."""
    command = [str(Path(sys.executable).with_name("greenroom")), "verify", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=180, check=False)


def failed(verification: Verification) -> set[Part]:
    """Return the parts in which something failed."""
    return {check.part for check in verification.failed}


@pytest.mark.parametrize(
    ("function", "cause", "rows"),
    [
        ("hard_coded", "scaled otherwise than in training", 60),
        ("other_nulls", "only rows with nulls differ (in income)", 17),
        ("other_order", "preprocessed[1] follows what belongs into preprocessed[2]", 60),
        ("other_dtype", "only the last digits differ", 60),
    ],
)
def test_serving_code_that_parts_from_training_is_found_out(
    function: str, cause: str, rows: int, source: Path, tmp_path: Path
) -> None:
    """Each of the four usual ways ends with exit code 1, the row, both values, and what it looks like."""
    report = tmp_path / "reports" / "verify.xml"
    done = run_verify(str(source / "v1"), "--preprocessing", f"features:{function}", "--junit", str(report))
    assert (done.returncode, done.stderr) == (1, "")
    assert f"failed  preprocessing: {rows} of 60" in done.stdout
    assert "expected " in done.stdout
    assert cause in done.stdout
    suite = ET.parse(report).getroot()[0]  # noqa: S314 our own
    assert (suite.get("tests"), suite.get("failures")) == ("124", str(rows))
    failures = [case for case in suite if case.find("failure") is not None]
    assert {case.get("classname") for case in failures} == {"greenroom.churn.v1.preprocessing"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--preprocessing", "features:right"),
        ("--against", "features:predict"),
        ("--against", "features:PIPELINE.predict_proba"),
        ("--against", "{source}/pipeline.joblib", "--rows", "300"),
    ],
    ids=["preprocessing", "function of both", "probabilities alone", "joblib"],
)
def test_code_that_answers_alike_is_verified(arguments: tuple[str, ...], source: Path) -> None:
    """The exit code is 0, and the data says what was compared."""
    typed = [argument.format(source=source) for argument in arguments]
    done = run_verify(str(source / "v1"), *typed, "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["verified"] is True
    assert told["failures"] == []
    assert told["checks"]["golden samples"] == {"passed": 60}
    assert told["checks"].keys() >= {"files", "proof", "golden samples"}


def scale_by_hand(pipeline: Any) -> None:
    """Write another mean and standard deviation into the pipeline."""
    scaler = pipeline["columns"].named_transformers_["numbers"][1]
    scaler.mean_, scaler.scale_ = np.array([54.0, 5e4, 6.0]), np.array([21.0, 2e4, 6.0])


def impute_by_zero(pipeline: Any) -> None:
    """Let nulls be 0."""
    imputer = pipeline["columns"].named_transformers_["numbers"][0]
    imputer.statistics_ = np.zeros(3)


def swap_columns(bundle: Path) -> None:
    """Feed the graph its columns in another order."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    numbers = manifest["signature"]["tensors"][0]["features"]
    manifest["signature"]["tensors"][0]["features"] = [numbers[0], numbers[2], numbers[1]]
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def with_graph(bundle: Path, graph: bytes) -> None:
    """Replace the graph under digests that are right."""
    (bundle / "model.onnx").write_bytes(graph)
    manifest = json.loads((bundle / "bundle.json").read_text())
    for file in manifest["files"]:
        if file["path"] == "model.onnx":
            file.update(sha256=sha256(graph).hexdigest(), size=len(graph))
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def package_another(to: Path, change: Callable[[Any], None]) -> bytes:
    """Return the graph of a pipeline that was changed after training."""
    frame, left = skew.customers()
    pipeline = copy.deepcopy(skew.fit())
    change(pipeline)
    path = greenroom.package(pipeline, frame, left.to_list(), name="churn", version="v1", to=to)
    return (path / "model.onnx").read_bytes()


def read_as_float32(bundle: Path) -> None:
    """Let the graph take its numbers as a frame of float32 would hand them over."""
    model = onnx.load_from_string((bundle / "model.onnx").read_bytes())
    for node in model.graph.node:
        node.input[:] = ["as_float64" if name == "numeric" else name for name in node.input]
    casts = [
        onnx.helper.make_node("Cast", ["numeric"], ["as_float32"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Cast", ["as_float32"], ["as_float64"], to=onnx.TensorProto.DOUBLE),
    ]
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with_graph(bundle, model.SerializeToString())


@pytest.mark.parametrize(
    ("skewed", "cause"),
    [
        (scale_by_hand, "scaled otherwise than in training"),
        (impute_by_zero, "only rows with nulls differ"),
        (swap_columns, "the features are in another order"),
        (read_as_float32, "only the last digits differ"),
    ],
    ids=["hard-coded scaling", "nulls", "order", "dtype"],
)
def test_a_graph_that_parts_from_training_is_found_out(
    skewed: Callable[[Any], None], cause: str, source: Path, tmp_path: Path
) -> None:
    """Golden samples of the pipeline that was trained refuse the graph of any other; the cause is named."""
    bundle = shutil.copytree(source / "v1", tmp_path / "v1")
    if skewed in (swap_columns, read_as_float32):
        skewed(bundle)
    else:
        with_graph(bundle, package_another(tmp_path / "other", skewed))
    found = greenroom.verify(bundle)
    assert failed(found) == {Part.PROOF, Part.GOLDEN}
    assert any(cause in told for told in found.causes), found.causes
    assert "GoldenMismatch" in found.failed[0].message


def test_hostile_rows_find_what_golden_samples_do_not(source: Path) -> None:
    """Code that is right on the samples and wrong elsewhere is found by rows made of them."""
    samples = [json.loads(line) for line in (source / "v1" / "golden.jsonl").read_text().splitlines()]
    known = {sample["features"]["age"] for sample in samples}
    pipeline = skew.fit()

    def almost(frame: Any) -> Any:
        scores = pipeline.predict_proba(frame)
        scores[~frame["age"].isin(known)] = 0.5
        return scores

    found = greenroom.verify(source / "v1", against=almost, rows=400)
    assert failed(found) == {Part.HOSTILE}
    assert "the code answers" in found.failed[0].message
    assert greenroom.verify(source / "v1", against=almost, rows=0).ok


def test_a_damaged_bundle_is_not_loaded(source: Path, tmp_path: Path) -> None:
    """Files that are missing, cut or altered are named; nothing else is tried with them."""
    bundle = shutil.copytree(source / "v1", tmp_path / "v1")
    (bundle / "golden.jsonl").unlink()
    (bundle / "model.onnx").write_bytes(b"cut")
    found = greenroom.verify(bundle)
    assert [(check.name, check.outcome) for check in found.checks] == [
        ("golden.jsonl", Outcome.FAILED),
        ("model.onnx", Outcome.FAILED),
        ("reference.json", Outcome.PASSED),
        ("as in a pod", Outcome.SKIPPED),
    ]
    assert [finding.where for finding in found.checks[1].findings] == ["size", "sha256"]


def test_a_graph_that_does_not_load_fails_its_proof(tmp_path: Path) -> None:
    """It is one failed check with the reason that a pod would report."""
    bundle = write_classifier(tmp_path, "v1")
    with_graph(bundle, b"no graph")
    found = greenroom.verify(bundle)
    assert failed(found) == {Part.PROOF}
    assert "NotLoadable" in found.failed[0].message or "InvalidBundle" in found.failed[0].message


def test_a_proof_that_takes_too_long_is_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends a model that computes for ever, and the command with 130, and not minutes later."""
    bundle = write_regressor(tmp_path, "v1")
    with_graph(bundle, endless_graph())
    with Command("verify", str(bundle), state=tmp_path) as command:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not command.children():
            assert time.monotonic() < deadline, command.lines
            time.sleep(0.05)
        with seeing_ended(*command.children()):
            assert command.interrupt() == 130


def test_values_of_sensitive_features_are_not_shown(source: Path, tmp_path: Path) -> None:
    """A CI's log is read by many: neither rows nor preprocessed values of a bundle with such features."""
    bundle = shutil.copytree(source / "v1", tmp_path / "v1")
    manifest = json.loads((bundle / "bundle.json").read_text())
    for feature in manifest["signature"]["features"]:
        feature["sensitive"] = feature["name"] == "income"
    edit_manifest(bundle, signature=manifest["signature"])
    found = greenroom.verify(bundle, preprocessing=lambda frame: np.zeros((len(frame), 6)))
    assert failed(found) == {Part.PREPROCESSING}
    for check in found.failed:
        assert check.features["income"] == HIDDEN
        assert check.features["age"] != HIDDEN
        assert {finding.expected for finding in check.findings} == {HIDDEN}

    def raises(frame: Any) -> Any:
        raise ValueError(frame["income"].tolist())

    with pytest.raises(SubjectError, match=r"rows: ValueError \(sensitive\)"):
        greenroom.verify(bundle, against=raises)
    with pytest.raises(SubjectError, match=r"rows: ValueError \(sensitive\)"):
        greenroom.verify(bundle, preprocessing=raises)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{nowhere}",), "holds no bundle.json (No such file or directory)"),
        (("{plain}",), "holds no bundle.json"),
        (("{v1}", "--against", "nowhere:pipeline"), "cannot be imported: No module named 'nowhere'"),
        (("{v1}", "--junit", "{garbage}/bundle.json/x.xml"), "cannot be written"),
    ],
)
def test_what_cannot_be_verified_is_told_apart(
    arguments: tuple[str, ...], message: str, source: Path, tmp_path: Path
) -> None:
    """The exit code is 2, with one line that says problem and remedy: it is no verdict on the bundle."""
    garbage = tmp_path / "garbage"
    garbage.mkdir()
    (garbage / "bundle.json").write_text("{}")
    places = {
        "nowhere": tmp_path / "nowhere",
        "plain": write_plain(tmp_path, "plain", classifier_onnx()),
        "garbage": garbage,
        "v1": source / "v1",
    }
    done = run_verify(*(argument.format(**places) for argument in arguments))
    assert done.returncode == 2
    assert done.stderr.startswith("greenroom: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("numpy:nothing", "has no attribute 'nothing'"),
        ("pipeline.onnx", "neither MODULE:NAME nor a file that ends in .joblib"),
        ("nowhere.joblib", "no such file"),
        ("garbage.joblib", "cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_told(
    place: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt name, no file, no pickle: one error, whatever the unpickler raises."""
    monkeypatch.chdir(tmp_path)
    Path("garbage.joblib").write_bytes(b"no pickle")
    with pytest.raises(SubjectError, match=message):
        load(place)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1, 2], "a list cannot be asked"),
        (lambda frame: frame["none"], "raises on the golden samples' rows: KeyError"),
        (lambda frame: frame.head(3)["age"], "give one for each"),
        (lambda _: 1, "give one for each"),
        (lambda frame: [None] * len(frame), "cannot be served"),
        (lambda frame: frame, "the probabilities are no matrix of numbers"),
        (lambda frame: (frame["age"], frame["age"]), "give one for each class"),
    ],
)
def test_code_that_does_not_answer_is_told(answer: Any, message: str, source: Path) -> None:
    """Code that raises, or answers other rows than it was asked, is no verdict on the bundle."""
    with pytest.raises(SubjectError, match=message):
        greenroom.verify(source / "v1", against=answer)


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        (lambda frame: frame, "no matrix of numbers"),
        (lambda _: np.zeros((3, 6)), r"gives \(3, 6\) for 60 rows"),
        (lambda frame: frame["none"], "the preprocessing raises"),
    ],
)
def test_preprocessing_that_gives_no_matrix_is_told(preprocess: Any, message: str, source: Path) -> None:
    """Neither is preprocessing that raises, or that gives something else than a row of numbers each."""
    with pytest.raises(SubjectError, match=message):
        greenroom.verify(source / "v1", preprocessing=preprocess)


def test_junit_holds_whatever_a_row_holds() -> None:
    """Control characters and half surrogate pairs, which XML has not, do not spoil the report."""
    check = Check(
        part=Part.GOLDEN,
        name="golden sample 0",
        outcome=Outcome.FAILED,
        message="\x00\x1b[31m & <",
        features={"text": "\ud800\ufffe"},
        findings=(Finding(where="prediction", expected="\x07", found="\U0001f427"),),
    )
    document = to_junit(Verification(model="a&b", version="v1", checks=(check,)))
    (failure,) = ET.fromstring(document).iter("failure")  # noqa: S314 our own
    assert failure.get("message") == "\ufffd\ufffd[31m & <"
    assert "\U0001f427" in str(failure.text)


EXPECTED = np.array([[1.0, 10.0, 0.5], [2.0, 30.0, 0.25], [4.0, 20.0, 0.125], [8.0, 50.0, 1.0]])
ROWS: list[dict[str, Any]] = [{"a": 1.0}, {"a": 2.0}, {"a": None}, {"a": 4.0}]


@pytest.mark.parametrize(
    ("change", "causes"),
    [
        (lambda found: found, []),
        (lambda found: found * 2 + 1, ["scaled otherwise"]),
        (lambda found: found[:, [1, 0, 2]], ["in another order"]),
        (lambda found: found * (1 + 1e-7), ["only the last digits"]),
        (lambda found: np.where(found == 10, np.nan, found), ["missing on one side only"]),
        (lambda found: found**2 + np.sin(found), []),
        (lambda found: found[:, :2], []),
    ],
)
def test_a_cause_is_named_where_it_fits(change: Callable[[Any], Any], causes: list[str]) -> None:
    """Each known way has its own words; what fits none of them is left without."""
    found = change(EXPECTED)
    told = diagnose(ROWS, [True] * 4, EXPECTED, found)
    assert len(told) == len(causes)
    assert all(cause in words for cause, words in zip(causes, told, strict=True))


def test_nulls_are_blamed_only_where_nothing_else_differs() -> None:
    """They are, where each differing row has one and at least one row differs."""
    assert "in a" in diagnose(ROWS, [False, False, True, False], None, None)[0]
    assert diagnose(ROWS, [True, False, True, False], None, None) == ()
    assert diagnose(ROWS, [False] * 4, None, None) == ()
