"""How two answers are compared: labels exactly, numbers by tolerance, whatever comes."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract.bundle import Value
from greenroom_runtime.shadow.compare import Answered, Outcome, compare

TOLERANCE = 0.1
labels = st.text(max_size=3) | st.booleans() | st.integers(-3, 3)
numbers = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def classified(draw: st.DrawFn) -> Answered:
    """Draw a classifier's answer."""
    classes = draw(st.lists(labels, min_size=1, max_size=4, unique_by=lambda label: (type(label), label)))
    size = len(classes)
    probabilities = draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    return Answered(prediction=draw(st.sampled_from(classes)), probabilities=probabilities, classes=classes)


answers = (
    classified()
    | st.builds(Answered, prediction=labels)
    | st.builds(Answered, prediction=numbers)
    | st.builds(Answered, error=st.just("it failed"))
    | st.builds(
        Answered,
        prediction=st.none() | labels | numbers,
        probabilities=st.none() | st.lists(numbers, max_size=3),
        classes=st.none() | st.lists(st.none() | labels | numbers, max_size=3),
    )
)
"""What a model may answer, and what no model should."""


def classifier(
    label: Value, probabilities: Sequence[float], classes: Sequence[Value] | None = None
) -> Answered:
    """Return a classifier's answer."""
    return Answered(prediction=label, probabilities=probabilities, classes=classes)


@given(production=answers, shadow=answers, tolerance=st.floats(0, 1))
def test_any_two_answers_have_one_outcome(production: Answered, shadow: Answered, tolerance: float) -> None:
    """Whatever both sides say there is a verdict, and its parts do not contradict each other."""
    verdict = compare(production, shadow, tolerance=tolerance)
    compared = verdict.outcome in (Outcome.AGREED, Outcome.DISAGREED)
    assert compared or (verdict.difference is None and not verdict.missing)
    assert verdict.difference is None or verdict.difference >= 0
    if verdict.outcome is Outcome.AGREED:
        assert not verdict.missing
        assert verdict.difference is None or verdict.difference <= tolerance


@given(classified() | st.builds(Answered, prediction=labels) | st.builds(Answered, prediction=numbers))
def test_an_answer_agrees_with_itself(answer: Answered) -> None:
    """The same answer twice agrees, NaN and infinities included, at no tolerance at all."""
    assert compare(answer, answer, tolerance=0.0).outcome is Outcome.AGREED


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_numbers_compare_both_ways_alike(one: float, other: float) -> None:
    """Which of two numbers is production's makes no difference."""
    there = compare(Answered(prediction=one), Answered(prediction=other), tolerance=TOLERANCE)
    back = compare(Answered(prediction=other), Answered(prediction=one), tolerance=TOLERANCE)
    assert there == back
    assert (there.outcome is Outcome.AGREED) == (abs(one - other) <= TOLERANCE)


@given(classified(), st.randoms(use_true_random=False))
def test_the_order_of_classes_means_nothing(answer: Answered, random: Any) -> None:
    """Probabilities are matched by their class's label."""
    assert answer.classes is not None
    assert answer.probabilities is not None
    pairs = list(zip(answer.classes, answer.probabilities, strict=True))
    random.shuffle(pairs)
    other = classifier(answer.prediction, [value for _, value in pairs], [label for label, _ in pairs])
    assert compare(answer, other, tolerance=0.0).outcome is Outcome.AGREED


@pytest.mark.parametrize(
    ("production", "shadow", "outcome"),
    [
        ("yes", "yes", Outcome.AGREED),
        ("yes", "no", Outcome.DISAGREED),
        ("yes", "Yes", Outcome.DISAGREED),
        (1, 1, Outcome.AGREED),
        (1, True, Outcome.DISAGREED),
        (1, "1", Outcome.DISAGREED),
        (1.0, 1.09, Outcome.AGREED),
        (1.0, 1.2, Outcome.DISAGREED),
        (math.nan, math.nan, Outcome.AGREED),
        (math.nan, 1.0, Outcome.DISAGREED),
        (math.inf, math.inf, Outcome.AGREED),
        (math.inf, -math.inf, Outcome.DISAGREED),
        ("yes", 1.0, Outcome.NOT_COMPARABLE),
        (1, 1.0, Outcome.NOT_COMPARABLE),
    ],
)
def test_predictions(production: Value, shadow: Value, outcome: Outcome) -> None:
    """Labels are equal or not, numbers near or not, and a label is no number."""
    found = compare(Answered(prediction=production), Answered(prediction=shadow), tolerance=TOLERANCE)
    assert found.outcome is outcome


def test_labels_that_are_numbers() -> None:
    """Beside probabilities a number is a label, compared exactly: 1 and 1.0 are one, 1.05 is another."""
    one = classifier(1, [0.5, 0.5], [0, 1])
    assert compare(one, classifier(1.0, [0.5, 0.5], [0.0, 1.0]), tolerance=0.1).outcome is Outcome.AGREED
    assert compare(one, classifier(1.05, [0.5, 0.5], [0, 1]), tolerance=0.1).outcome is Outcome.DISAGREED


def test_probabilities_out_of_tolerance_disagree() -> None:
    """The same label with probabilities too far apart disagrees, and the greatest difference is told."""
    production = classifier("yes", [0.4, 0.6], ["no", "yes"])
    found = compare(production, classifier("yes", [0.1, 0.9], ["no", "yes"]), tolerance=TOLERANCE)
    assert found.outcome is Outcome.DISAGREED
    assert found.difference == pytest.approx(0.3)
    assert not found.missing


def test_a_class_that_the_shadow_lacks_is_a_missing_output() -> None:
    """Production's class without a probability of the shadow's is missing, and disagrees."""
    production = classifier("yes", [0.4, 0.6, 0.0], ["no", "yes", "maybe"])
    found = compare(production, classifier("yes", [0.4, 0.6], ["no", "yes"]), tolerance=TOLERANCE)
    assert (found.outcome, found.missing) == (Outcome.DISAGREED, True)


@pytest.mark.parametrize(("new", "outcome"), [(0.05, Outcome.AGREED), (0.3, Outcome.DISAGREED)])
def test_a_class_that_production_lacks_counts_by_its_probability(new: float, outcome: Outcome) -> None:
    """A new class is as probable as nothing to production."""
    production = classifier("yes", [0.4, 0.6], ["no", "yes"])
    shadow = classifier("yes", [0.4, 0.6, new], ["no", "yes", "maybe"])
    found = compare(production, shadow, tolerance=TOLERANCE)
    assert (found.outcome, found.missing) == (outcome, False)


def test_probabilities_that_are_missing() -> None:
    """Probabilities that only production has are missing; those that only the shadow has are no matter."""
    with_them, without = classifier("yes", [0.4, 0.6], ["no", "yes"]), Answered(prediction="yes")
    assert compare(with_them, without, tolerance=TOLERANCE).missing
    assert compare(without, with_them, tolerance=TOLERANCE).outcome is Outcome.AGREED


def test_classes_without_labels_are_numbered() -> None:
    """Probabilities without labels have 0, 1, … as theirs."""
    numbered = classifier(1, [0.4, 0.6])
    assert compare(numbered, classifier(1, [0.6, 0.4], [1, 0]), tolerance=0).outcome is Outcome.AGREED


def test_more_probabilities_than_classes_cannot_be_compared() -> None:
    """What is no answer of a model is not compared."""
    odd = classifier("yes", [0.4, 0.6, 0.7], ["no", "yes"])
    assert compare(odd, odd, tolerance=TOLERANCE).outcome is Outcome.NOT_COMPARABLE


@pytest.mark.parametrize(
    ("production", "shadow", "outcome"),
    [
        ("", "it failed", Outcome.FAILED),
        ("it failed", "", Outcome.PRODUCTION_FAILED),
        ("it failed", "so did I", Outcome.BOTH_FAILED),
    ],
)
def test_errors_of_either_side(production: str, shadow: str, outcome: Outcome) -> None:
    """An error is its own outcome, by whose it is."""
    sides = (Answered(prediction=None if error else 1.0, error=error) for error in (production, shadow))
    assert compare(*sides, tolerance=TOLERANCE).outcome is outcome
