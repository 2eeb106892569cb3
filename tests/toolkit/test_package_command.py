"""``greenroom package`` as a process, and the reference for drift that a bundle holds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import greenroom
from examples.skew import train as skew
from greenroom_runtime.contract.bundle import Bundle, Reference
from tests.support.examples import EXAMPLES


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the example's customers, their label and a column more, as CSV and as Parquet."""
    directory = tmp_path_factory.mktemp("data")
    frame, left = skew.customers()
    table = frame.assign(left=left, note="x")
    table.to_csv(directory / "train.csv", index=False)
    with duckdb.connect() as connection:
        connection.register("customers", table)
        connection.execute(f"COPY customers TO '{directory / 'train.parquet'}' (FORMAT parquet)")
    (directory / "empty.csv").write_text("")
    (directory / "train.xlsx").write_text("")
    table.drop(columns=["plan"]).to_csv(directory / "narrow.csv", index=False)
    return directory


def run_package(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `greenroom package …` in the directory of the training code."""
    command = [str(Path(sys.executable).with_name("greenroom")), "package", *arguments]
    cwd = EXAMPLES / "skew"
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.parametrize(
    ("pipeline", "file"), [("train:fit", "train.csv"), ("features:PIPELINE", "train.parquet")]
)
def test_package_writes_a_bundle(pipeline: str, file: str, data: Path, tmp_path: Path) -> None:
    """From a pipeline or a function that returns one, and a table that has more columns than it needs."""
    done = run_package(
        *(pipeline, "--data", str(data / file), "--target", "left", "--name", "churn", "--version", "v3"),
        *("--to", str(tmp_path), "--sensitive", "income", "--refuse-unseen", "plan", "-o", "json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    bundle = Bundle.model_validate_json((tmp_path / "v3" / "bundle.json").read_bytes())
    assert (told["model"], told["version"], told["features"]) == ("churn", "v3", 4)
    assert told["parity"]["label_flips"] == 0
    features = {feature.name: feature for feature in bundle.signature.features}
    assert features["income"].sensitive
    assert features["plan"].unseen == "Refuse"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train:fit", "--data", "{data}/none.csv"), 1, "no such file: name the training data"),
        (("train:fit", "--data", "{data}/narrow.csv"), 1, "the data has no columns ['plan']"),
        (("train:fit", "--data", "{data}/train.csv", "--version", "production"), 1, "is no version's name"),
        (("train:nothing", "--data", "{data}/train.csv"), 2, "has no attribute 'nothing'"),
        (
            ("features:right", "--data", "{data}/train.csv"),
            1,
            "name a fitted pipeline, or a function without",
        ),
    ],
)
def test_what_cannot_be_packaged_is_one_clear_error(
    arguments: tuple[str, ...], code: int, message: str, data: Path, tmp_path: Path
) -> None:
    """It is told on standard error with the remedy, and nothing is written."""
    typed = [argument.format(data=data) for argument in arguments]
    done = run_package("--version", "v3", *typed, "--name", "churn", "--to", str(tmp_path / "to"))
    assert done.returncode == code
    assert done.stderr.startswith("greenroom: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "to").exists()


def reference_of(path: Path) -> Reference:
    """Read a bundle's reference.json by the contract."""
    return Reference.model_validate_json((path / "reference.json").read_bytes())


def test_the_reference_counts_the_training_data(tmp_path: Path) -> None:
    """Each row is in one bin of each feature, or missing; what the pipeline answered is counted, too."""
    frame, left = skew.customers()
    path = greenroom.package(skew.fit(), frame, left.to_list(), name="c", version="v1", to=tmp_path)
    reference = reference_of(path)
    assert reference.rows == len(frame)
    for told in (*reference.features, reference.prediction, *reference.probabilities):
        assert sum(told.counts) + told.missing == len(frame), told.name
    by_name = {told.name: told for told in reference.features}
    income = by_name["income"]
    assert income.missing == frame["income"].isna().sum()
    edges = np.array(income.edges)
    bins = np.searchsorted(edges, frame["income"].dropna())
    assert income.counts == tuple(np.bincount(bins, minlength=len(edges) + 1))
    assert min(income.counts) > 0
    assert by_name["plan"].categories == ("basic", "family", "plus")
    assert by_name["plan"].counts == (*frame["plan"].value_counts().sort_index(), 0)
    assert reference.prediction.categories == ("leaves", "stays")
    assert [told.name for told in reference.probabilities] == ["leaves", "stays"]
    assert any(
        file.path == "reference.json"
        for file in Bundle.model_validate_json((path / "bundle.json").read_bytes()).files
    )


def test_the_reference_shows_nothing_of_sensitive_features(tmp_path: Path) -> None:
    """Only how many are missing."""
    frame, left = skew.customers()
    path = greenroom.package(
        skew.fit(), frame, left.to_list(), name="c", version="v1", to=tmp_path, sensitive=["income", "plan"]
    )
    hidden = [told for told in reference_of(path).features if told.name in ("income", "plan")]
    assert [(told.edges, told.categories, told.counts) for told in hidden] == [(None, None, ())] * 2
    assert hidden[0].missing > 0


@pytest.mark.parametrize(
    ("column", "edges", "counts"),
    [
        ([5] * 40, (), (40,)),
        ([0, 1] * 20, (0.0,), (20, 20)),
        ([1] * 30 + list(range(2, 12)), (1.0, 3.0, 7.0), (30, 2, 4, 4)),
    ],
    ids=["constant", "two values", "one value dominates"],
)
def test_bins_of_few_values(column: list[int], edges: Any, counts: Any, tmp_path: Path) -> None:
    """Few values have a bin each; deciles that fall together are one edge."""
    frame = pd.DataFrame({"x": column})
    path = greenroom.package(
        make_pipeline(StandardScaler(), Ridge()).fit(frame, range(40)),
        frame,
        name="c",
        version="v1",
        to=tmp_path,
    )
    (told,) = reference_of(path).features
    assert (told.edges, told.counts) == (edges, counts)
    assert reference_of(path).probabilities == ()


def test_rare_categories_are_counted_together(tmp_path: Path) -> None:
    """Of more than a hundred the most frequent are kept."""
    cities = [f"city {number:03}" for number in range(150)] + ["city 149"] * 5
    frame = pd.DataFrame({"city": cities, "member": [True, False, True, False, True] * 31})
    columns = ColumnTransformer(
        [("t", OneHotEncoder(handle_unknown="ignore"), ["city"]), ("b", "passthrough", ["member"])]
    )
    pipeline = make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1] * 77 + [0])
    (city, member) = reference_of(
        greenroom.package(pipeline, frame, name="c", version="v1", to=tmp_path)
    ).features
    assert len(city.categories or ()) == 100
    assert "city 149" in (city.categories or ())
    assert city.counts[-1] == 50
    assert (member.categories, member.counts) == (("false", "true"), (62, 93, 0))
