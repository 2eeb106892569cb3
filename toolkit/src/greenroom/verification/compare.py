"""One answer beside another: labels and preprocessed features exactly, scores within what was proven."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np

from greenroom.sensitive import HIDDEN, public_row
from greenroom.verification.report import Check, Finding, Outcome, Part
from greenroom_runtime.contract.bundle import Bundle, GoldenSample, Value
from greenroom_runtime.models.verification import DEFAULT_TOLERANCE, agree

MAX_FINDINGS = 10
"""Of one row; what is wrong with the first is wrong with the rest."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one side says to one row; what it does not say is not compared."""

    prediction: Value | EllipsisType = ...
    probabilities: Sequence[float] | None = None
    preprocessed: Any = None
    """A vector of the graph's own type."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Compares answers as a bundle asks for it."""

    bundle: Bundle

    @property
    def tolerance(self) -> float:
        """How far apart scores may be."""
        return self.bundle.parity.tolerance if self.bundle.parity else DEFAULT_TOLERANCE

    @property
    def _hides(self) -> bool:
        return any(feature.sensitive for feature in self.bundle.signature.features)

    def expected_of(self, sample: GoldenSample, dtype: Any) -> Answer:
        """Return what the training pipeline answered; ``dtype`` is that of the preprocessed features."""
        vector = None
        if sample.preprocessed is not None and dtype is not None:
            values = [math.nan if value is None else float(value) for value in sample.preprocessed]
            vector = np.array(values, dtype=dtype)
        return Answer(prediction=sample.prediction, probabilities=sample.probabilities, preprocessed=vector)

    def check(
        self, part: Part, name: str, *, row: Mapping[str, Value], expected: Answer, found: Answer
    ) -> Check:
        """Return one row's check."""
        findings = self.findings(expected, found)
        message = ""
        if findings:
            message = f"differing values: {len(findings)}; scores may differ by {self.tolerance:.3g}"
        return Check(
            part=part,
            name=name,
            outcome=Outcome.FAILED if findings else Outcome.PASSED,
            message=message,
            features=public_row(row, self.bundle.signature.features) if findings else {},
            findings=findings[:MAX_FINDINGS],
        )

    def findings(self, expected: Answer, found: Answer) -> tuple[Finding, ...]:
        """Return every value that differs."""
        return (
            *self._prediction(expected, found),
            *self._probabilities(expected, found),
            *self._preprocessed(expected, found),
        )

    def _prediction(self, expected: Answer, found: Answer) -> list[Finding]:
        one, other = expected.prediction, found.prediction
        if isinstance(one, EllipsisType) or isinstance(other, EllipsisType):
            return []
        outputs = self.bundle.signature.outputs
        classifier = outputs.classes is not None or outputs.probabilities is not None
        if agree(one, other, tolerance=None if classifier else self.tolerance):
            return []
        return [Finding(where="prediction", expected=one, found=other, error=_apart(one, other, classifier))]

    def _probabilities(self, expected: Answer, found: Answer) -> list[Finding]:
        if expected.probabilities is None or found.probabilities is None:
            return []
        pairs = list(zip(expected.probabilities, found.probabilities, strict=False))
        if len(expected.probabilities) != len(found.probabilities):
            counts = len(expected.probabilities), len(found.probabilities)
            return [Finding(where="number of probabilities", expected=counts[0], found=counts[1])]
        classes = self.bundle.signature.outputs.classes or range(len(pairs))
        return [
            Finding(where=f"probability of {label!r}", expected=one, found=other, error=_apart(one, other))
            for label, (one, other) in zip(classes, pairs, strict=False)
            if not agree(one, other, tolerance=self.tolerance)
        ]

    def _preprocessed(self, expected: Answer, found: Answer) -> list[Finding]:
        one, other = expected.preprocessed, found.preprocessed
        if one is None or other is None:
            return []
        if one.shape != other.shape:
            return [Finding(where="preprocessed columns", expected=one.size, found=other.size)]
        differing = np.flatnonzero(~((one == other) | (np.isnan(one) & np.isnan(other))))
        findings = []
        for column in differing.tolist():
            pair = (one[column].item(), other[column].item())
            shown = (HIDDEN, HIDDEN) if self._hides else pair
            error = None if self._hides else _apart(*pair)
            where = f"preprocessed[{column}]"
            findings.append(Finding(where=where, expected=shown[0], found=shown[1], error=error))
        return findings


def _apart(one: Value, other: Value, labels: bool = False) -> float | None:  # noqa: FBT001, FBT002
    numbers = [value for value in (one, other) if isinstance(value, int | float)]
    if labels or len(numbers) != 2:  # noqa: PLR2004 both of them
        return None
    return error if math.isfinite(error := abs(float(numbers[0]) - float(numbers[1]))) else None
