import pytest

from tests.support.examples import TrainedExample, train_diabetes, train_penguins


@pytest.fixture(scope="session")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> TrainedExample:
    """Train the penguin models v1, v2 and v3-broken once."""
    return train_penguins(tmp_path_factory.mktemp("penguins"))


@pytest.fixture(scope="session")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> TrainedExample:
    """Train the diabetes regressor v1 once."""
    return train_diabetes(tmp_path_factory.mktemp("diabetes"))
