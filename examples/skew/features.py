"""The serving code that somebody writes beside the training code: once right, and wrong in four ways.

Each function takes the customers as they come and returns what the model is given. From this directory:

    greenroom verify models/v1 --preprocessing features:right

`right` is equal to what the training pipeline gave its model, to the last bit; the others are found out.
"""

from typing import Any

import numpy as np
import pandas as pd
from train import NUMBERS, fit  # type: ignore[import-not-found]  # of this directory

PIPELINE = fit()
_IMPUTE, _SCALE = (step for _, step in PIPELINE["columns"].named_transformers_["numbers"].steps)
_PLANS = PIPELINE["columns"].named_transformers_["plan"].categories_[0]


def right(frame: pd.DataFrame) -> Any:
    """Do what training did, with what training learned."""
    numbers = frame[NUMBERS].fillna(dict(zip(NUMBERS, _IMPUTE.statistics_, strict=True)))
    return beside_plans((numbers - _SCALE.mean_) / _SCALE.scale_, frame)


def hard_coded(frame: pd.DataFrame) -> Any:
    """Scale by numbers from a notebook."""
    numbers = frame[NUMBERS].fillna(dict(zip(NUMBERS, _IMPUTE.statistics_, strict=True)))
    return beside_plans((numbers - [54, 50_000, 6]) / [21, 20_000, 6], frame)


def other_nulls(frame: pd.DataFrame) -> Any:
    """Take 0 for an income that is not known, where training took the median."""
    return beside_plans((frame[NUMBERS].fillna(0) - _SCALE.mean_) / _SCALE.scale_, frame)


def other_order(frame: pd.DataFrame) -> Any:
    """Go by position, with the columns as an alphabet has them since somebody sorted a SELECT."""
    numbers = frame[["age", "visits", "income"]].set_axis(NUMBERS, axis=1)
    numbers = numbers.fillna(dict(zip(NUMBERS, _IMPUTE.statistics_, strict=True)))
    return beside_plans((numbers - _SCALE.mean_) / _SCALE.scale_, frame)


def other_dtype(frame: pd.DataFrame) -> Any:
    """Compute in float32, which a faster library has for its default."""
    numbers = frame[NUMBERS].astype("float32")
    numbers = numbers.fillna(dict(zip(NUMBERS, _IMPUTE.statistics_.astype("float32"), strict=True)))
    scaled = (numbers - _SCALE.mean_.astype("float32")) / _SCALE.scale_.astype("float32")
    return beside_plans(scaled, frame)


def beside_plans(numbers: pd.DataFrame, frame: pd.DataFrame) -> Any:
    """Put the one-hot columns of the plan beside the numbers."""
    plans = np.column_stack([(frame["plan"] == plan).to_numpy(dtype="float64") for plan in _PLANS])
    return np.column_stack([numbers.to_numpy(), plans])


def predict(frame: pd.DataFrame) -> tuple[Any, Any]:
    """Answer as a server without a bundle would: labels and probabilities, by the right features."""
    scores = PIPELINE["model"].predict_proba(right(frame))
    return PIPELINE["model"].classes_[scores.argmax(axis=1)], scores
