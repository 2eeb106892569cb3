"""Rows that seek trouble: real ones, and real ones with nulls, unseen categories, extremes, thresholds."""

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from greenroom.packaging.frame import Row
from greenroom_runtime.contract.bundle import Feature

UNSEEN = ("", " ", "unseen", "nan", "None", "0", "Ünïcödé's", "ΣΊΣΥΦΟΣ", "İı", "a" * 200)
"""Among them letters that change when their case does, in number or by their place in the word."""


@dataclass(frozen=True, kw_only=True)
class HostileRow:
    """One row of raw features and what is hostile about it."""

    kind: str
    features: Row


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What hostile values are made from."""

    rows: Sequence[Row]
    features: Sequence[Feature]
    values: dict[str, list[Any]]
    """Each feature's distinct training values, sorted, without nulls."""
    dice: random.Random

    def some(self, candidates: Sequence[Feature]) -> list[Feature]:
        """Return a random half of the candidates, one at least."""
        return [f for f in candidates if self.dice.random() < 0.5] or [self.dice.choice(candidates)]  # noqa: PLR2004


def hostile_rows(
    rows: Sequence[Row], features: Sequence[Feature], *, count: int, seed: int
) -> list[HostileRow]:
    """Return ``count`` rows, the kinds taking turns; the same seed gives the same rows."""
    source = _Source(
        rows=rows,
        features=features,
        values={feature.name: _distinct(rows, feature.name) for feature in features},
        dice=random.Random(seed),  # noqa: S311 reproducible on purpose
    )
    makers = _makers(features)
    return [
        HostileRow(kind=kind, features=make(source, dict(source.dice.choice(rows))))
        for kind, make in (makers[index % len(makers)] for index in range(count))
    ]


def _distinct(rows: Sequence[Row], name: str) -> list[Any]:
    return sorted({value for row in rows if (value := row[name]) is not None})


def _makers(features: Sequence[Feature]) -> list[tuple[str, Callable[[_Source, Row], Row]]]:
    makers: list[tuple[str, Callable[[_Source, Row], Row]]] = [
        ("ordinary", _ordinary),
        ("recombined", _recombined),
    ]
    if _nullable(features):
        makers.append(("null", _null))
    if _open(features):
        makers.append(("unseen category", _unseen))
    if _numeric(features):
        makers += [("extreme", _extreme), ("threshold", _threshold)]
    return makers


def _nullable(features: Sequence[Feature]) -> list[Feature]:
    return [feature for feature in features if feature.nullable]


def _open(features: Sequence[Feature]) -> list[Feature]:
    """Return the texts that may be anything; what the door refuses is no row of the model's."""
    return [feature for feature in features if feature.dtype == "string" and feature.unseen == "Accept"]


def _numeric(features: Sequence[Feature]) -> list[Feature]:
    return [feature for feature in features if feature.dtype in ("int64", "float32", "float64")]


def _ordinary(_source: _Source, row: Row) -> Row:
    return row


def _recombined(source: _Source, _row: Row) -> Row:
    return {feature.name: source.dice.choice(source.rows)[feature.name] for feature in source.features}


def _null(source: _Source, row: Row) -> Row:
    return row | {feature.name: None for feature in source.some(_nullable(source.features))}


def _unseen(source: _Source, row: Row) -> Row:
    for feature in source.some(_open(source.features)):
        known, other = (str(source.dice.choice(source.values[feature.name])) for _ in range(2))
        varied = (known.upper(), known.lower(), f"{known} ", f"{known}, {other}'s")
        row[feature.name] = source.dice.choice((*UNSEEN, *varied))
    return row


def _extreme(source: _Source, row: Row) -> Row:
    for feature in source.some(_numeric(source.features)):
        low, high = feature.minimum or 0.0, feature.maximum or 0.0
        span = (high - low) or 1.0
        beyond = (low - span, high + span, low - 10 * span, high + 10 * span, 0.0)
        value = source.dice.choice((low, high) if feature.outside == "Refuse" else (low, high, *beyond))
        row[feature.name] = int(value) if feature.dtype == "int64" else value
    return row


def _threshold(source: _Source, row: Row) -> Row:
    """Put numbers half way between two neighbours of the training data, where trees split."""
    for feature in source.some(_numeric(source.features)):
        values = source.values[feature.name]
        if len(values) > 1:
            at = min(bisect_left(values, source.dice.uniform(values[0], values[-1])) or 1, len(values) - 1)
            middle = (values[at - 1] + values[at]) / 2
            row[feature.name] = int(middle) if feature.dtype == "int64" else middle
    return row
