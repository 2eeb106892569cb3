from pathlib import Path

import pytest

from greenroom.local.manifest import parse_manifest
from greenroom_runtime.contract.bundle import Bundle
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.verification import replay
from tests.support.examples import EXAMPLES, TrainedExample, train_penguins


def open_session(path: Path) -> ModelSession:
    """Load a bundle as the serving process does."""
    return ModelSession(path, bundle=Bundle.model_validate_json((path / "bundle.json").read_bytes()))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_held_back_penguins_get_the_training_pipelines_own_answers(
    penguins: TrainedExample, version: str
) -> None:
    """Rows that no model has seen: every label is equal, every probability within the proven bound."""
    session = open_session(penguins.bundle(version))
    rows = penguins.holdout(version)
    assert len(rows) == 86
    assert any(None in row["features"].values() for row in rows)
    for row, answer in zip(rows, session.predict([row["features"] for row in rows]), strict=True):
        assert answer.prediction == row["prediction"]
        assert answer.probabilities == pytest.approx(row["probabilities"], abs=1e-5)


def test_held_back_patients_get_the_training_pipelines_own_answers(diabetes: TrainedExample) -> None:
    """A regressor's values agree within the bound that its packaging recorded."""
    session = open_session(diabetes.bundle("v1"))
    rows = diabetes.holdout("v1")
    answers = session.predict([row["features"] for row in rows])
    assert session.bundle.parity is not None
    expected = pytest.approx([row["prediction"] for row in rows], abs=session.bundle.parity.tolerance)
    assert [answer.prediction for answer in answers] == expected


def test_the_broken_version_differs_only_in_what_golden_samples_find(penguins: TrainedExample) -> None:
    """Its signature and digests are right; the replay of its golden samples refuses it."""
    with pytest.raises(VersionError, match="GoldenMismatch"):
        replay(open_session(penguins.bundle("v3-broken")), penguins.bundle("v3-broken"))


def test_training_twice_gives_the_same_bytes(penguins: TrainedExample, tmp_path: Path) -> None:
    """Bundles are reproducible, so that a digest can be compared across machines of one kind."""
    again = train_penguins(tmp_path)
    for path in sorted(penguins.source.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again.source / path.relative_to(penguins.source)).read_bytes(), path


def test_the_examples_manifest_is_one_that_a_cluster_takes() -> None:
    """The YAML has no unknown field and asks for v1."""
    path = EXAMPLES / "penguins" / "modeldeployment.yaml"
    assert parse_manifest(path.read_bytes(), path=path).spec.version == "v1"
