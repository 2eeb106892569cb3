"""Train a regressor of diabetes progression on scikit-learn's bundled data and package it.

    python examples/diabetes/train.py --to models

writes models/v1 and models/holdout.jsonl: rows that it has not seen, with the pipeline's own answers.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import greenroom


def train(to: Path) -> None:
    """Write the bundle v1 and the held-back rows under ``to``."""
    x, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    x_train, x_held, y_train, y_held = train_test_split(x, y, test_size=0.25, random_state=7)
    trained = make_pipeline(StandardScaler(), Ridge()).fit(x_train, y_train)
    greenroom.package(
        trained,
        x_train,
        y_train.to_list(),
        name="diabetes",
        version="v1",
        to=to,
        overwrite=True,
        created=datetime(2026, 11, 1, tzinfo=UTC),
    )
    with (to / "holdout.jsonl").open("w", encoding="utf-8") as file:
        for row, answer in zip(
            x_held.to_dict(orient="records"), trained.predict(x_held).tolist(), strict=True
        ):
            file.write(json.dumps({"features": row, "answers": {"v1": {"prediction": answer}}}) + "\n")
    print(f"{to / 'v1'}: R2 {trained.score(x_held, y_held):.2f} on {len(x_held)} held-back patients")


def main() -> None:
    """Train what the command line asks for."""
    parser = argparse.ArgumentParser(description="Train and package the diabetes model.")
    parser.add_argument("--to", type=Path, required=True, help="directory that gets v1/ and holdout.jsonl")
    train(parser.parse_args().to)


if __name__ == "__main__":
    main()
