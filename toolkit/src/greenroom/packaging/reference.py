"""How the training data was distributed, which live data is compared with: the reference for drift."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from greenroom.packaging.frame import Row
from greenroom.packaging.parity import Answers
from greenroom_runtime.contract.bundle import Distribution, Feature, Reference, Value

_BINS = 10
_CATEGORIES = 100
"""The most frequent ones; the others are counted together."""
_PROBABILITY_EDGES = tuple(edge / _BINS for edge in range(1, _BINS))


def read_reference(
    rows: Sequence[Row], features: Sequence[Feature], answers: Answers, classes: Sequence[Value] | None
) -> Reference:
    """Return the reference of the training rows and of the training pipeline's answers to them."""
    predictions = answers.predictions
    if classes is None:
        prediction = _of_numbers("prediction", predictions)
        probabilities: tuple[Distribution, ...] = ()
    else:
        prediction = _of_texts("prediction", [_spell(value) for value in predictions])
        probabilities = tuple(
            _of_numbers(_spell(label), answers.scores[:, at].tolist(), edges=_PROBABILITY_EDGES)
            for at, label in enumerate(classes)
        )
    return Reference(
        rows=len(rows),
        features=tuple(_of_feature(rows, feature) for feature in features),
        prediction=prediction,
        probabilities=probabilities,
    )


def _of_feature(rows: Sequence[Row], feature: Feature) -> Distribution:
    values = [row[feature.name] for row in rows]
    if feature.sensitive:  # its values are nobody's to see, in a drift report either
        return Distribution(name=feature.name, missing=sum(value is None for value in values))
    if feature.dtype in ("string", "bool"):
        return _of_texts(feature.name, [None if value is None else _spell(value) for value in values])
    return _of_numbers(feature.name, values)


def _spell(value: Value) -> str:
    """Return a label or a boolean as JSON spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _of_texts(name: str, values: Sequence[str | None]) -> Distribution:
    counts = Counter(value for value in values if value is not None)
    kept = sorted(
        text for text, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_CATEGORIES]
    )
    others = counts.total() - sum(counts[text] for text in kept)
    return Distribution(
        name=name,
        missing=sum(value is None for value in values),
        categories=tuple(kept),
        counts=(*(counts[text] for text in kept), others),
    )


def _of_numbers(name: str, values: Sequence[Any], *, edges: Sequence[float] | None = None) -> Distribution:
    present = np.array([value for value in values if value is not None], dtype="float64")
    bounds = np.array(_edges(present) if edges is None else edges)
    counts = np.bincount(np.searchsorted(bounds, present, side="left"), minlength=len(bounds) + 1)
    return Distribution(
        name=name,
        missing=len(values) - len(present),
        edges=tuple(bounds.tolist()),
        counts=tuple(counts.tolist()),
    )


def _edges(present: Any) -> Any:
    """Return the deciles; of few distinct values each one but the greatest, which is the last bin."""
    distinct = np.unique(present)
    if len(distinct) <= _BINS:
        return distinct[:-1]
    deciles = np.quantile(present, [number / _BINS for number in range(1, _BINS)], method="inverted_cdf")
    return np.unique(deciles[deciles < distinct[-1]])
