"""The training frame as the bundle's contract sees it: typed features, rows of JSON values, tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from greenroom.packaging.errors import FrameError
from greenroom_runtime.contract.bundle import Dtype, Feature, Tensor, Value

MISSING_TEXT = "__missing__"
"""What an exported graph takes for a missing string; ONNX strings know no null."""

MAX_CATEGORIES = 100
Row = dict[str, Value]


@dataclass(frozen=True, kw_only=True)
class Policies:
    """What the door does beyond the types; each is a set of columns."""

    sensitive: frozenset[str] = frozenset()
    refuse_unseen: frozenset[str] = frozenset()
    refuse_outside: frozenset[str] = frozenset()


def check_frame(frame: pd.DataFrame) -> None:
    """Refuse a frame that has no rows or whose columns could not be told apart by name."""
    if not isinstance(frame, pd.DataFrame):
        raise FrameError(
            f"X is a {type(frame).__name__}, and features need names: pass the pandas DataFrame that the "
            "pipeline was fitted on"
        )
    if frame.empty:
        raise FrameError("X has no rows or no columns: pass the frame that the pipeline was fitted on")
    if unnamed := [name for name in frame.columns if not isinstance(name, str) or not name]:
        raise FrameError(f"column names are text; these are not: {unnamed}: rename them and fit again")
    if twice := sorted(set(frame.columns[frame.columns.duplicated()])):
        raise FrameError(
            f"columns appear twice: {twice}: a request could not say which it means; rename them"
        )


def read_features(frame: pd.DataFrame, policies: Policies) -> tuple[Feature, ...]:
    """Return the typed features of a checked frame, in its column order; FrameError names the column."""
    features = tuple(_read_feature(name, frame[name], policies) for name in frame.columns)
    for feature in features:
        if feature.unseen == "Refuse" and feature.dtype != "string":
            raise FrameError(
                f"refuse_unseen has the column {feature.name!r}, which is {feature.dtype} and has no "
                "categories: leave it out, or use refuse_outside for a number"
            )
        if feature.outside == "Refuse" and feature.dtype in ("string", "bool"):
            raise FrameError(
                f"refuse_outside has the column {feature.name!r}, which is {feature.dtype} and has no range: "
                "leave it out, or use refuse_unseen for a text"
            )
    return features


def publish(feature: Feature) -> Feature:
    """Return the feature as the bundle shows it: of a sensitive one only values that the door needs."""
    if not feature.sensitive:
        return feature
    hidden: dict[str, None] = {}
    if feature.unseen == "Accept":
        hidden["categories"] = None
    if feature.outside == "Accept":
        hidden |= {"minimum": None, "maximum": None}
    return feature.model_copy(update=hidden)


def _read_feature(name: str, column: "pd.Series[Any]", policies: Policies) -> Feature:
    dtype = _dtype(name, column)
    present = column.dropna()
    common: dict[str, Any] = {
        "name": name,
        "dtype": dtype,
        "nullable": bool(column.isna().any()),
        "sensitive": name in policies.sensitive,
        "unseen": "Refuse" if name in policies.refuse_unseen else "Accept",
        "outside": "Refuse" if name in policies.refuse_outside else "Accept",
    }
    if present.empty:
        raise FrameError(f"column {name!r} has no value at all: leave it out of the pipeline")
    if dtype == "string":
        categories = tuple(sorted({str(value) for value in present}))
        if MISSING_TEXT in categories:
            raise FrameError(
                f"column {name!r} has the value {MISSING_TEXT!r}, which stands for null: rename it"
            )
        few = len(categories) <= MAX_CATEGORIES or name in policies.refuse_unseen
        return Feature(**common, null_as=MISSING_TEXT, categories=categories if few else None)
    if dtype == "bool":
        return Feature(**common)
    numbers = present.to_numpy(dtype="float64")
    if not np.isfinite(numbers).all():
        raise FrameError(
            f"column {name!r} has infinite values, which JSON cannot carry: replace them by null"
        )
    return Feature(**common, minimum=float(numbers.min()), maximum=float(numbers.max()))


def _dtype(name: str, column: "pd.Series[Any]") -> Dtype:
    kind = column.dtype
    if pd.api.types.is_bool_dtype(kind):
        return "bool"
    if pd.api.types.is_integer_dtype(kind):
        return "int64"
    if pd.api.types.is_float_dtype(kind):
        return "float32" if str(kind).lower() == "float32" else "float64"
    if (
        isinstance(kind, pd.CategoricalDtype)
        or kind == np.dtype(object)
        or pd.api.types.is_string_dtype(kind)
    ):
        return _text_or_refuse(name, column)
    raise FrameError(
        f"column {name!r} is {kind}, which a request cannot carry: turn it into numbers or text before the "
        "pipeline, for instance with .dt.year or .astype(str), and fit again"
    )


def _text_or_refuse(name: str, column: "pd.Series[Any]") -> Dtype:
    if types := sorted({type(value).__name__ for value in column.dropna() if not isinstance(value, str)}):
        raise FrameError(
            f"column {name!r} should be text and has values of type {', '.join(types)}: make it one type, "
            "for instance with .astype('Int64') or .astype(str), and fit again"
        )
    return "string"


def to_rows(frame: pd.DataFrame, features: Sequence[Feature]) -> list[Row]:
    """Return the frame's rows as JSON carries them: Python values, None for what is missing."""
    columns = [_to_values(frame[feature.name], feature) for feature in features]
    names = [feature.name for feature in features]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _to_values(column: "pd.Series[Any]", feature: Feature) -> list[Value]:
    python = {"string": str, "bool": bool, "int64": int, "float32": float, "float64": float}[feature.dtype]
    missing = column.isna()
    return [None if absent else python(value) for value, absent in zip(column, missing, strict=True)]


def to_frame(rows: Sequence[Row], like: pd.DataFrame, features: Sequence[Feature]) -> pd.DataFrame:
    """Return rows as the frame that the training pipeline takes, typed like the training frame."""
    return pd.DataFrame({feature.name: _to_column(rows, like[feature.name], feature) for feature in features})


def _to_column(rows: Sequence[Row], like: "pd.Series[Any]", feature: Feature) -> "pd.Series[Any]":
    values = [row[feature.name] for row in rows]
    if like.dtype == np.dtype(object) or isinstance(like.dtype, pd.CategoricalDtype):
        nulls = like[like.isna()]
        null = nulls.iloc[0] if len(nulls) else None
        return pd.Series([null if value is None else value for value in values], dtype=object)
    return pd.Series(values, dtype=like.dtype)


def to_tensors(rows: Sequence[Row], features: Sequence[Feature], tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Return the graph's inputs for rows of JSON values: one [rows, columns] array a tensor."""
    by_name = {feature.name: feature for feature in features}
    return {
        tensor.name: np.column_stack(
            [_to_array(rows, by_name[name], tensor.dtype) for name in tensor.features]
        )
        for tensor in tensors
    }


def _to_array(rows: Sequence[Row], feature: Feature, dtype: Dtype) -> Any:
    values = [row[feature.name] for row in rows]
    if dtype == "string":
        return np.array([feature.null_as if value is None else value for value in values], dtype=object)
    return np.array(values, dtype=dtype)  # numpy turns None into NaN
