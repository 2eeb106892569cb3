"""How two versions' answers to one row differ. Pure.

Labels are compared exactly, numbers by tolerance, and probabilities by tolerance under their class's label,
in whatever order either version has them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from greenroom_runtime.contract.bundle import Value

_Key = tuple[str, Value]


class Outcome(StrEnum):
    """What became of a row that both versions were to answer."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    NOT_COMPARABLE = "not_comparable"
    """The row lacks features that the shadow takes, or one answer is a label and the other a number."""
    FAILED = "failed"
    """Production answered and the shadow could not."""
    PRODUCTION_FAILED = "production_failed"
    BOTH_FAILED = "both_failed"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One version's answer to one row."""

    prediction: Value = None
    probabilities: Sequence[float] | None = None
    classes: Sequence[Value] | None = None
    """The labels of the probabilities; None where they are numbered from 0."""
    error: str = ""
    """Why there is none; empty where there is."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What comparing two answers comes to."""

    outcome: Outcome
    difference: float | None = None
    """The greatest of numbers; infinite where one is no number. None where there are no numbers."""
    missing: bool = False
    """Whether the shadow lacks an output that production has."""


NOT_COMPARABLE: Final = Verdict(outcome=Outcome.NOT_COMPARABLE)


def compare(production: Answered, shadow: Answered, *, tolerance: float) -> Verdict:
    """Return how the shadow's answer differs from production's."""
    if production.error or shadow.error:
        return Verdict(outcome=_blame(production, shadow))
    if _is_number(production) != _is_number(shadow) or not (_is_whole(production) and _is_whole(shadow)):
        return NOT_COMPARABLE
    if _is_number(production):
        apart = _apart(production.prediction, shadow.prediction)
        return Verdict(outcome=_agreement(apart <= tolerance), difference=apart)
    difference, missing = _compare_probabilities(production, shadow)
    same = _key(production.prediction) == _key(shadow.prediction)
    within = difference is None or difference <= tolerance
    outcome = _agreement(same and within and not missing)
    return Verdict(outcome=outcome, difference=difference, missing=missing)


def _blame(production: Answered, shadow: Answered) -> Outcome:
    if production.error and shadow.error:
        return Outcome.BOTH_FAILED
    return Outcome.PRODUCTION_FAILED if production.error else Outcome.FAILED


def _agreement(agreed: bool) -> Outcome:  # noqa: FBT001 it is all there is
    return Outcome.AGREED if agreed else Outcome.DISAGREED


def _is_number(answer: Answered) -> bool:
    """Tell a regressor's answer: a label may be a float, too, and then has probabilities beside it."""
    return isinstance(answer.prediction, float) and answer.probabilities is None


def _is_whole(answer: Answered) -> bool:
    """Tell whether each probability has a class."""
    both = answer.classes is not None and answer.probabilities is not None
    return not both or len(answer.classes or ()) == len(answer.probabilities or ())


def _compare_probabilities(production: Answered, shadow: Answered) -> tuple[float | None, bool]:
    """Return the greatest difference, and whether the shadow lacks what production has.

    A class that production does not have is as probable as nothing to it: so a new class disagrees where the
    shadow believes in it.
    """
    if production.probabilities is None:
        return None, False
    if shadow.probabilities is None:
        return None, True
    expected, found = _by_class(production), _by_class(shadow)
    differences = [_apart(expected.get(label, 0.0), value) for label, value in found.items()]
    return max(differences, default=None), bool(expected.keys() - found.keys())


def _by_class(answer: Answered) -> Mapping[_Key, float]:
    probabilities = answer.probabilities or ()
    classes = range(len(probabilities)) if answer.classes is None else answer.classes
    return {_key(label): value for label, value in zip(classes, probabilities, strict=True)}


def _key(label: Value) -> _Key:
    """Return what equal labels have in common: 1 and 1.0 are one label, True and "1" are others."""
    if isinstance(label, bool) or not isinstance(label, int | float):
        return type(label).__name__, label
    return ("nan", None) if isinstance(label, float) and math.isnan(label) else ("number", label)


def _apart(one: Value, other: Value) -> float:
    """Return how far apart two numbers are; NaN is as far as can be from all but itself."""
    if not isinstance(one, int | float) or not isinstance(other, int | float):
        return math.inf
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    difference = abs(one - other)
    return math.inf if math.isnan(difference) else difference
