"""Train a churn model on synthetic customers, save its pipeline as a data scientist does, and package it.

    python examples/skew/train.py --to models

writes models/v1, a bundle, and models/pipeline.joblib, the fitted pipeline itself.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import greenroom

CREATED = datetime(2026, 11, 1, tzinfo=UTC)
NUMBERS = ["age", "income", "visits"]


def customers() -> tuple[pd.DataFrame, pd.Series]:
    """Return features with gaps, and whether each customer left."""
    dice = np.random.default_rng(11)
    frame = pd.DataFrame(
        {
            "age": dice.integers(18, 90, 800),
            "income": dice.normal(5e4, 2e4, 800).round(2),
            "visits": dice.exponential(6, 800),
            "plan": dice.choice(["basic", "plus", "family"], 800),
        }
    )
    left = (frame["age"] > 45) & (frame["income"] < 5.5e4) | (frame["visits"] < 1)  # noqa: PLR2004
    frame.loc[::7, "income"] = np.nan
    return frame, left.map({True: "leaves", False: "stays"})


def fit() -> Pipeline:
    """Return the fitted pipeline; each call gives the same."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = ColumnTransformer(
        [("numbers", numbers, NUMBERS), ("plan", OneHotEncoder(handle_unknown="ignore"), ["plan"])],
        sparse_threshold=0,
    )
    frame, left = customers()
    return Pipeline([("columns", columns), ("model", LogisticRegression())]).fit(frame, left)


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description="Train and package a churn model.")
    parser.add_argument("--to", type=Path, required=True, help="directory that gets v1/ and pipeline.joblib")
    to: Path = parser.parse_args().to
    frame, left = customers()
    path = greenroom.package(
        fit(), frame, left.to_list(), name="churn", version="v1", to=to, overwrite=True, created=CREATED
    )
    joblib.dump(fit(), to / "pipeline.joblib")
    print(f"{path} and {to / 'pipeline.joblib'}")


if __name__ == "__main__":
    main()
