"""Train two penguin classifiers on the data of the package palmerpenguins and package them.

    python examples/penguins/train.py --to models

writes models/v1 (logistic regression), models/v2 (gradient boosting) and models/holdout.jsonl: rows that
neither has seen, with the answers of the training pipelines themselves. With ``--with-broken`` it adds
v3-broken, a bundle whose graph scales its inputs otherwise than the pipeline that was trained.
The same command gives the same bytes.
"""

import argparse
import copy
import json
import shutil
import tempfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from palmerpenguins import load_penguins
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import greenroom

NAME = "penguins"
NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
TEXTS = ["island", "sex"]
CREATED = datetime(2026, 11, 1, tzinfo=UTC)
MODELS = {
    "v1": LogisticRegression(max_iter=1000),
    "v2": GradientBoostingClassifier(n_estimators=60, max_depth=3, random_state=0),
}


def pipeline(model: Any) -> Pipeline:
    """Return the unfitted pipeline: impute, scale and encode by column, then the model."""
    numbers = Pipeline([("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
    texts = Pipeline(
        [
            ("impute", SimpleImputer(strategy="constant", fill_value="unknown")),
            ("encode", OneHotEncoder(handle_unknown="ignore")),
        ]
    )
    columns = ColumnTransformer([("numbers", numbers, NUMBERS), ("texts", texts, TEXTS)], sparse_threshold=0)
    return Pipeline([("columns", columns), ("model", model)])


def split() -> tuple[pd.DataFrame, pd.DataFrame, pd.Series, pd.Series]:
    """Return features to train on and held back, then the species of each."""
    penguins = load_penguins()
    features, species = penguins[NUMBERS + TEXTS], penguins["species"]
    parts = train_test_split(features, species, test_size=0.25, random_state=7, stratify=species)
    return parts[0], parts[1], parts[2], parts[3]


def train(to: Path, *, with_broken: bool = False) -> dict[str, Pipeline]:
    """Write the bundles and the held-back rows under ``to``; return the fitted pipelines by version."""
    x_train, x_held, y_train, y_held = split()
    fitted = {version: pipeline(model).fit(x_train, y_train) for version, model in MODELS.items()}
    for version, trained in fitted.items():
        package(trained, x_train, y_train, version=version, to=to)
        print(
            f"{to / version}: {trained.score(x_held, y_held):.1%} of {len(x_held)} held-back penguins right"
        )
    write_holdout(to / "holdout.jsonl", x_held, fitted)
    if with_broken:
        write_broken(fitted["v1"], x_train, y_train, to=to)
        print(f"{to / 'v3-broken'}: its graph scales otherwise than its pipeline; Greenroom must refuse it")
    return fitted


def package(trained: Pipeline, x: pd.DataFrame, y: pd.Series, *, version: str, to: Path) -> Path:
    """Package one trained pipeline, anew where it is there already."""
    return greenroom.package(
        trained, x, y.to_list(), name=NAME, version=version, to=to, overwrite=True, created=CREATED
    )


def write_holdout(path: Path, x: pd.DataFrame, fitted: dict[str, Pipeline]) -> None:
    """Write each held-back row as JSON features, with every version's own answer."""
    answers = {
        version: (trained.predict(x).tolist(), trained.predict_proba(x).tolist())
        for version, trained in fitted.items()
    }
    rows = json.loads(x.to_json(orient="records", double_precision=15))
    with path.open("w", encoding="utf-8") as file:
        for index, row in enumerate(rows):
            by_version = {
                version: {"prediction": labels[index], "probabilities": scores[index]}
                for version, (labels, scores) in answers.items()
            }
            file.write(json.dumps({"features": row, "answers": by_version}, ensure_ascii=False) + "\n")


def write_broken(trained: Pipeline, x: pd.DataFrame, y: pd.Series, *, to: Path) -> None:
    """Write v3-broken: golden samples of the trained pipeline, the graph of one with a hard-coded scaling.

    Its digests are right, so that only the replay of its golden samples can find it out.
    """
    skewed = copy.deepcopy(trained)
    scaler = skewed.named_steps["columns"].named_transformers_["numbers"].named_steps["scale"]
    scaler.mean_, scaler.scale_ = scaler.mean_ * 0.9, scaler.scale_ * 1.5
    target = package(trained, x, y, version="v3-broken", to=to)
    with tempfile.TemporaryDirectory() as elsewhere:
        wrong = package(skewed, x, y, version="v3-broken", to=Path(elsewhere))
        shutil.copy(wrong / "model.onnx", target / "model.onnx")
    graph = (target / "model.onnx").read_bytes()
    bundle = json.loads((target / "bundle.json").read_text())
    for file in bundle["files"]:
        if file["path"] == "model.onnx":
            file.update(sha256=sha256(graph).hexdigest(), size=len(graph))
    (target / "bundle.json").write_text(json.dumps(bundle, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    """Train what the command line asks for."""
    parser = argparse.ArgumentParser(description="Train and package the penguin models.")
    parser.add_argument(
        "--to", type=Path, required=True, help="directory that gets v1/, v2/ and holdout.jsonl"
    )
    parser.add_argument("--with-broken", action="store_true", help="add v3-broken, which must be refused")
    arguments = parser.parse_args()
    train(arguments.to, with_broken=arguments.with_broken)


if __name__ == "__main__":
    main()
