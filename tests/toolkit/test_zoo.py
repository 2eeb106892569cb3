"""The model zoo: every model of it served by one real process, answering as its training pipeline does."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greenroom_runtime.contract.bundle import Bundle
from greenroom_runtime.contract.report import VersionState
from tests.support.examples import EXAMPLES
from tests.support.serving import ServingProcess, flags

MODELS = (
    "breast-cancer",
    "churn",
    "diabetes",
    "digits",
    "iris",
    "reviews",
    "sensors",
    "spending",
    "wine",
)
REFUSED = "discriminant"


def train(to: Path, *options: str) -> str:
    """Run the zoo's own script; return what it prints."""
    command = [sys.executable, str(EXAMPLES / "zoo" / "train.py"), "--to", str(to), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Train the whole zoo once: its directory, and what the script said."""
    to = tmp_path_factory.mktemp("zoo")
    return to, train(to)


@pytest.fixture(scope="module")
def pod(zoo: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """Hold every model of the zoo as a version in one serving process."""
    with ServingProcess(tmp_path_factory.mktemp("pod"), source_uri=zoo[0].as_uri(), name="zoo") as pod:
        pod.flags.write(flags(*MODELS))
        pod.wait_settled()
        yield pod


def bundle(zoo: tuple[Path, str], name: str) -> Bundle:
    """Read a model's bundle.json by the contract."""
    return Bundle.model_validate_json((zoo[0] / name / "bundle.json").read_bytes())


def requests(zoo: tuple[Path, str], name: str) -> list[dict[str, Any]]:
    """Read a model's example requests, with what its training pipeline answers."""
    lines = (zoo[0] / f"{name}.requests.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def serve(pod: ServingProcess, name: str) -> None:
    """Let a model be the production version."""
    others = [other for other in MODELS if other != name]
    pod.flags.write(flags(name, *others))
    pod.wait_ready(name)


def test_the_table_has_a_line_for_each_model(zoo: tuple[Path, str]) -> None:
    """Those that are packaged have a bundle and no flipped label; the one that is refused has none."""
    directory, table = zoo
    assert {path.parent.name for path in directory.glob("*/bundle.json")} == set(MODELS)
    for name in MODELS:
        parity = bundle(zoo, name).parity
        assert parity is not None
        assert parity.rows >= 1000
        assert parity.label_flips == 0
        assert parity.max_abs_error <= parity.tolerance
        assert any(line.startswith(f"{name} ") for line in table.splitlines())
    (refused,) = (line for line in table.splitlines() if line.startswith(REFUSED))
    assert "refused: the export does not answer as the training pipeline does" in refused


def test_each_model_passes_its_golden_samples_in_a_pod(pod: ServingProcess) -> None:
    """All are proven beside each other in one process, and each becomes Ready."""
    report = pod.report()
    assert {(version.name, version.state, version.golden) for version in report.versions} == {
        (name, VersionState.READY, "Passed") for name in MODELS
    }


@pytest.mark.parametrize("name", MODELS)
def test_each_request_is_answered_as_the_pipeline_answers(
    name: str, zoo: tuple[Path, str], pod: ServingProcess
) -> None:
    """Through HTTP: labels are equal, scores and values within the bound that packaging proved."""
    serve(pod, name)
    parity = bundle(zoo, name).parity
    assert parity is not None
    asked = requests(zoo, name)
    assert len(asked) >= 5
    for request in asked:
        answer = pod.predict(request["features"])
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["version"] == name
        if request["probabilities"] is None:
            assert told["prediction"] == pytest.approx(request["prediction"], abs=parity.tolerance)
        else:
            assert told["prediction"] == request["prediction"]
            found = list(told["probabilities"].values())
            assert found == pytest.approx(request["probabilities"], abs=parity.tolerance)


def test_the_zoo_has_every_kind_of_input_and_answer(zoo: tuple[Path, str]) -> None:
    """Types, nulls, categories, several tensors, labels of each type, and width are all there."""
    bundles = [bundle(zoo, name) for name in MODELS]
    features = [feature for one in bundles for feature in one.signature.features]
    assert {feature.dtype for feature in features} == {"float64", "int64", "bool", "string"}
    assert {feature.dtype for feature in features if feature.nullable} == {"float64", "string"}
    assert any(feature.unseen == "Refuse" for feature in features)
    assert any(feature.outside == "Refuse" for feature in features)
    assert any(feature.sensitive for feature in features)
    assert {len(one.signature.tensors) for one in bundles} == {1, 2}
    assert max(len(one.signature.features) for one in bundles) == 200
    classes = [one.signature.outputs.classes for one in bundles]
    assert {type(labels[0]) for labels in classes if labels} == {int, str}
    assert classes.count(None) == 3
    exact = {one.name for one in bundles if one.parity is not None and one.parity.preprocessed == "Exact"}
    assert exact == set(MODELS) - {"iris", "reviews"}


@pytest.mark.parametrize(
    ("name", "feature", "value", "problem"),
    [
        ("spending", "plan", "gold", "unseen"),
        ("breast-cancer", "mean radius", 1e6, "outside"),
        ("churn", "visits", 1000, "outside"),
        ("churn", "visits", 1.5, "mistyped"),
    ],
)
def test_what_a_signature_refuses_is_named(
    name: str, feature: str, value: object, *, problem: str, zoo: tuple[Path, str], pod: ServingProcess
) -> None:
    """A category or a number that the model may not see is a 422 that says so."""
    serve(pod, name)
    answer = pod.predict(requests(zoo, name)[0]["features"] | {feature: value})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["feature"], error["problem"]) == (feature, problem)


def test_one_model_can_be_trained_alone_and_again(zoo: tuple[Path, str], tmp_path: Path) -> None:
    """--only makes that one and no other, of the same bytes as among all."""
    table = train(tmp_path, "--only", "churn")
    assert "1 models" in table
    assert sorted(path.name for path in tmp_path.iterdir()) == ["churn", "churn.requests.jsonl"]
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert path.read_bytes() == (zoo[0] / path.relative_to(tmp_path)).read_bytes(), path
