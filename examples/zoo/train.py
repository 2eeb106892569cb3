"""Train one model of each kind on scikit-learn's bundled data and on synthetic data, and package them.

    python examples/zoo/train.py --to models/zoo [--only NAME …]

writes models/zoo/NAME, a bundle for each, and models/zoo/NAME.requests.jsonl: a few requests, with what the
training pipeline itself answers to them. Nothing is downloaded. One model is refused on purpose.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, RobustScaler, StandardScaler

import greenroom

CREATED = datetime(2026, 11, 1, tzinfo=UTC)
"""Fixed, so that training again gives the same bytes."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A fitted pipeline, what it was fitted on, and rows to ask it."""

    kind: str
    pipeline: Any
    x: pd.DataFrame
    y: pd.Series
    ask: pd.DataFrame
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of greenroom.package."""


def breast_cancer() -> Trained:
    """Tell two classes apart by 30 measurements; a linear model, numbers as labels."""
    x, y = datasets.load_breast_cancer(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return fit("binary, linear", pipeline, x, y, refuse_outside=["mean radius"])


def iris() -> Trained:
    """Tell three classes apart without any preprocessing; texts as labels."""
    bunch = datasets.load_iris(as_frame=True)
    y = bunch.target.map(dict(enumerate(bunch.target_names.tolist())))
    return fit("multiclass, linear, no pipeline", LogisticRegression(max_iter=1000), bunch.data, y)


def wine() -> Trained:
    """Tell three classes apart by boosted trees behind a scaling."""
    bunch = datasets.load_wine(as_frame=True)
    y = bunch.target.map({0: "Barolo", 1: "Grignolino", 2: "Barbera"})
    pipeline = make_pipeline(RobustScaler(), GradientBoostingClassifier(n_estimators=40, random_state=0))
    return fit("multiclass, gradient boosting", pipeline, bunch.data, y)


def digits() -> Trained:
    """Tell ten classes apart by 64 pixels; tied votes of a forest go where scikit-learn has them go."""
    x, y = datasets.load_digits(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(40, random_state=0))
    return fit("multiclass, random forest", pipeline, x, y)


def diabetes() -> Trained:
    """Answer with a number."""
    x, y = datasets.load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    pipeline = make_pipeline(StandardScaler(), GradientBoostingRegressor(n_estimators=60, random_state=0))
    return fit("regression, gradient boosting", pipeline, x, y)


def reviews() -> Trained:
    """Judge a sentence, the one feature; words with accents and apostrophes are words."""
    dice = np.random.default_rng(5)
    liked = ["superb", "café", "naïve", "charming", "brilliant", "don't miss"]
    disliked = ["dull", "clichéd", "can't recommend", "tedious", "weak", "Ärger"]
    common = ["the", "film", "plot", "actor", "and", "a", "was", "story", "it", "music"]
    texts, labels = [], []
    for number in range(600):
        opinion = liked if number % 2 else disliked
        words = [*dice.choice(common, 6), *dice.choice(opinion, 2), *dice.choice([*liked, *disliked], 1)]
        dice.shuffle(words)
        text = " ".join(words)
        texts.append(text.upper() if number % 7 == 0 else f"{text.capitalize()}!")
        labels.append("positive" if number % 2 else "negative")
    x, y = pd.DataFrame({"text": texts}), pd.Series(labels)
    words_first = ColumnTransformer([("words", TfidfVectorizer(ngram_range=(1, 2)), "text")])
    trained = fit("binary, text", make_pipeline(words_first, LogisticRegression()), x, y)
    more = pd.DataFrame({"text": ["A SUPERB café… don't miss it", "", "Ünknown words: naïveté"]})
    return ask(trained, more)


def churn() -> Trained:
    """Mix floats with nulls, whole numbers, booleans and texts; true and false as labels."""
    x = customers(rows=900, seed=1)
    rich, seldom = x["income"].fillna(0) > x["income"].mean(), x["visits"] < x["visits"].mean()
    y = rich & seldom | (x["plan"] == "plus") & ~x["member"]
    pipeline = make_pipeline(mixed_columns(), HistGradientBoostingClassifier(max_iter=40, random_state=0))
    trained = fit(
        "binary, histogram boosting", pipeline, x, y, sensitive=["income"], refuse_outside=["visits"]
    )
    return ask(trained, strangers())


def spending() -> Trained:
    """Answer with a number from the same columns; a plan that training has not seen is refused."""
    x = customers(rows=900, seed=2)
    y = x["income"].fillna(30_000) / 100 + 20 * x["visits"] + 300 * (x["plan"] == "plus")
    pipeline = make_pipeline(mixed_columns(), RandomForestRegressor(30, random_state=0))
    return fit("regression, random forest", pipeline, x, y, refuse_unseen=["plan"])


def sensors() -> Trained:
    """Weigh 200 readings."""
    dice = np.random.default_rng(3)
    readings = dice.normal(size=(500, 200)) * dice.uniform(0.1, 100, 200)
    x = pd.DataFrame(readings, columns=[f"sensor_{number:03}" for number in range(200)])
    y = pd.Series(readings @ dice.normal(size=200))
    return fit("regression, linear, wide", make_pipeline(StandardScaler(), Ridge()), x, y)


def discriminant() -> Trained:
    """Be refused: the exporter's linear discriminant analysis gives other scores than scikit-learn's."""
    x, y = datasets.load_breast_cancer(return_X_y=True, as_frame=True)
    return fit("binary, refused on purpose", LinearDiscriminantAnalysis(), x, y)


MODELS: dict[str, Callable[[], Trained]] = {
    "breast-cancer": breast_cancer,
    "iris": iris,
    "wine": wine,
    "digits": digits,
    "diabetes": diabetes,
    "reviews": reviews,
    "churn": churn,
    "spending": spending,
    "sensors": sensors,
    "discriminant": discriminant,
}


def fit(kind: str, pipeline: Any, x: pd.DataFrame, y: pd.Series, **options: Any) -> Trained:
    """Fit on all rows but each seventh; the first of these are the ones to ask."""
    held_back = np.arange(len(x)) % 7 == 6  # noqa: PLR2004
    x_train, y_train = x[~held_back], y[~held_back]
    pipeline.fit(x_train, y_train)
    return Trained(
        kind=kind, pipeline=pipeline, x=x_train, y=y_train, ask=x[held_back].head(5), options=options
    )


def ask(trained: Trained, more: pd.DataFrame) -> Trained:
    """Add rows to ask."""
    rows = pd.concat([trained.ask, more], ignore_index=True)[trained.x.columns].astype(trained.x.dtypes)
    return Trained(**{**vars(trained), "ask": rows})


def customers(*, rows: int, seed: int) -> pd.DataFrame:
    """Return synthetic customers: each type that a feature may have, with gaps."""
    dice = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "income": dice.normal(4e4, 1.5e4, rows).round(2),
            "distance": dice.exponential(20, rows),
            "visits": dice.integers(0, 20, rows),
            "member": dice.random(rows) < 0.5,  # noqa: PLR2004
            "plan": dice.choice(["basic", "plus", "größer"], rows),
            "city": dice.choice(["Oslo", "São Paulo", "Łódź"], rows),
        }
    )
    frame.loc[::6, "income"] = np.nan
    frame.loc[::9, "city"] = None
    return frame


def strangers() -> pd.DataFrame:
    """Return customers with gaps and with categories that training has never seen."""
    return pd.DataFrame(
        {
            "income": [np.nan, 1e7, 0.0],
            "distance": [0.0, 1e-9, 4e4],
            "visits": [0, 19, 7],
            "member": [True, False, True],
            "plan": ["gold", "", "PLUS"],
            "city": [None, "Oslo ", "Bergen"],
        }
    )


def mixed_columns() -> ColumnTransformer:
    """Impute and scale numbers, encode texts; what is unseen is no category."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [
            ("numbers", numbers, make_column_selector(dtype_include="number")),
            ("flags", "passthrough", make_column_selector(dtype_include="bool")),
            ("texts", texts, make_column_selector(dtype_exclude=["number", "bool"])),
        ],
        sparse_threshold=0,
    )


def write(name: str, trained: Trained, *, to: Path) -> str:
    """Package a model beside its requests; return its line of the table."""
    path = greenroom.package(
        trained.pipeline,
        trained.x,
        trained.y.tolist(),
        name=name,
        version=name,
        to=to,
        overwrite=True,
        created=CREATED,
        **trained.options,
    )
    with (to / f"{name}.requests.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(request, ensure_ascii=False) + "\n" for request in requests(trained))
    parity = json.loads((path / "bundle.json").read_text(encoding="utf-8"))["parity"]
    size = sum(file.stat().st_size for file in path.iterdir())
    preprocessing = "exact" if parity["preprocessed"] == "Exact" else "-"
    told = f"{parity['rows']:5}  {parity['max_abs_error']:9.1e}  {parity['label_flips']:5}"
    return f"{told}  {preprocessing:13}  {size / 1024:6.0f} KiB"


def requests(trained: Trained) -> Iterator[dict[str, Any]]:
    """Yield each row to ask as JSON features, with the training pipeline's own answer."""
    answers = trained.pipeline.predict(trained.ask).tolist()
    scores = trained.pipeline.predict_proba(trained.ask) if is_classifier(trained.pipeline) else None
    rows = trained.ask.astype(object).where(trained.ask.notna(), None)
    for index, row in enumerate(rows.to_dict(orient="records")):
        yield {
            "features": row,
            "prediction": answers[index],
            "probabilities": None if scores is None else scores[index].tolist(),
        }


def train(to: Path, names: list[str]) -> None:
    """Train the named models and print a table of them."""
    started = time.perf_counter()
    columns = "rows      error  flips  preprocessing       size"
    print(f"{'name':14} {'kind':32} features  {columns}")
    for name in names:
        trained = MODELS[name]()
        print(f"{name:14} {trained.kind:32} {trained.x.shape[1]:8}  ", end="", flush=True)
        try:
            print(write(name, trained, to=to))
        except greenroom.ParityError as refusal:
            print(f"refused: {str(refusal).splitlines()[0]}")
    print(
        f"{len(names)} models in {time.perf_counter() - started:.0f} s: greenroom serve {to} --version NAME"
    )


def main() -> None:
    """Train what the command line asks for."""
    parser = argparse.ArgumentParser(description="Train and package one model of each kind.")
    parser.add_argument("--to", type=Path, required=True, help="directory that gets a bundle for each model")
    parser.add_argument("--only", action="append", choices=MODELS, metavar="NAME", help="may be repeated")
    arguments = parser.parse_args()
    train(arguments.to, arguments.only or list(MODELS))


if __name__ == "__main__":
    main()
