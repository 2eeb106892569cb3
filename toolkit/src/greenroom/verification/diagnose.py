"""What a difference looks like the work of: the usual ways in which serving and training part."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from greenroom_runtime.contract.bundle import Value

_TYPE = (
    "only the last digits differ: one side computes in another type, such as float32 for float64; keep the "
    "default dtype of the training frame"
)
_SCALE = (
    "scaled otherwise than in training; is a mean or a standard deviation written into the code, or taken "
    "from other data?"
)
_ORDER = "the features are in another order than in training: go by name, never by position"
_MISSING = "a value is missing on one side only: nulls are handled otherwise than in training"
_LAST_DIGITS = 1e-5
"""Relative; what single precision leaves of a few operations."""
_MIN_ROWS = 3
"""Two points lie on a line whatever they are."""


def diagnose(
    rows: Sequence[Mapping[str, Value]], differing: Sequence[bool], expected: Any, found: Any
) -> tuple[str, ...]:
    """Return what may be the cause, in sentences; empty where nothing known fits.

    ``expected`` and ``found`` are the preprocessed features, [rows, columns], or None where unknown.
    """
    nulls = _only_nulls(rows, differing)
    if nulls:
        return (nulls,)
    if expected is None or found is None or expected.shape != found.shape:
        return ()
    causes: dict[str, list[str]] = {}
    for column in range(expected.shape[1]):
        if not _same(expected[:, column], found[:, column]).all():
            cause, told = _column(expected, found, column)
            causes.setdefault(cause, []).append(told)
    return tuple(f"{cause}: {_list(told)}" for cause, told in causes.items() if cause)


def _only_nulls(rows: Sequence[Mapping[str, Value]], differing: Sequence[bool]) -> str:
    has_null = [any(value is None for value in row.values()) for row in rows]
    if not any(differing) or not all(
        null for null, differs in zip(has_null, differing, strict=True) if differs
    ):
        return ""
    names = sorted(
        {
            name
            for row, differs in zip(rows, differing, strict=True)
            if differs
            for name, value in row.items()
            if value is None
        }
    )
    return (
        f"only rows with nulls differ (in {_list(names)}): nulls are handled otherwise than in training; "
        "impute with what the training pipeline learned"
    )


def _column(expected: Any, found: Any, column: int) -> tuple[str, str]:
    """Return the cause that fits one preprocessed column, and what is to be told of the column."""
    name = f"preprocessed[{column}]"
    one, other = expected[:, column].astype("float64"), found[:, column].astype("float64")
    present = np.isfinite(one) & np.isfinite(other)
    if (np.isnan(one) != np.isnan(other)).any():
        return _MISSING, name
    if (np.abs(one - other)[present] <= _LAST_DIGITS * np.maximum(1, np.abs(one[present]))).all():
        return _TYPE, name
    if line := _line(one[present], other[present]):
        return _SCALE, f"{name} = {line[0]:.6g} * expected {line[1]:+.6g}"
    for another in range(expected.shape[1]):
        if another != column and _line(expected[:, another].astype("float64")[present], other[present]):
            return _ORDER, f"{name} follows what belongs into preprocessed[{another}]"
    return "", ""


def _line(one: Any, other: Any) -> tuple[float, float] | None:
    """Return slope and offset where one is a line of the other, None where it is none or constant."""
    if one.size < _MIN_ROWS or np.ptp(one) == 0 or np.ptp(other) == 0 or np.unique(one).size < _MIN_ROWS:
        return None
    low, high = int(one.argmin()), int(one.argmax())
    slope = (other[high] - other[low]) / (one[high] - one[low])
    offset = other[low] - slope * one[low]
    misses = np.abs(slope * one + offset - other)
    fits = (misses <= 1e-4 * max(1.0, float(np.abs(other).max()))).all()
    return (float(slope), float(offset)) if fits else None


def _same(one: Any, other: Any) -> Any:
    return (one == other) | (np.isnan(one) & np.isnan(other))


def _list(told: Sequence[str]) -> str:
    shown = ", ".join(told[:4])
    return f"{shown} and {len(told) - 4} more" if len(told) > 4 else shown  # noqa: PLR2004
