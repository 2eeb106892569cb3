from pathlib import Path

import pytest

from tests.support.examples import TrainedExample, train_diabetes, train_penguins
from tests.toolkit.command import MANIFEST


@pytest.fixture(scope="session")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> TrainedExample:
    """Train the penguin models v1, v2 and v3-broken once."""
    return train_penguins(tmp_path_factory.mktemp("penguins"))


@pytest.fixture(scope="session")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> TrainedExample:
    """Train the diabetes regressor v1 once."""
    return train_diabetes(tmp_path_factory.mktemp("diabetes"))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Copy the example's YAML, to be edited."""
    path = tmp_path / "modeldeployment.yaml"
    path.write_text(MANIFEST)
    return path


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the directory that the commands take for temporary files."""
    return tmp_path_factory.mktemp("t")  # short: the path of a socket may not be long
