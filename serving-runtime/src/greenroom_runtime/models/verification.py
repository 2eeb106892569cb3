"""Golden replay: the model must answer what the training pipeline itself answered."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from greenroom_runtime.contract.bundle import GOLDEN_FILE, GoldenSample, Signature, Value
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.door import describe
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.session import ModelSession, Prediction

DEFAULT_TOLERANCE = 1e-6
"""For a bundle without a parity report; onnxruntime's last bits differ by that between batch sizes."""
_BATCH_ROWS = 256


def replay(session: ModelSession, directory: Path) -> int:
    """Replay every golden sample, row by row and in batches; return how many there are.

    VersionError(GoldenMismatch) names the first sample that differs, with what was expected and found.
    """
    parity = session.bundle.parity
    tolerance = parity.tolerance if parity else DEFAULT_TOLERANCE
    samples = _read(session, directory / GOLDEN_FILE)
    count = 0
    while chunk := list(islice(samples, _BATCH_ROWS)):
        single = [_predict(session, [sample], first=count + at)[0] for at, sample in enumerate(chunk)]
        batch = _predict(session, chunk, first=count)
        for answers, how in ((single, "alone"), (batch, f"in a batch of {len(chunk)}")):
            for at, (sample, answer) in enumerate(zip(chunk, answers, strict=True)):
                _compare(
                    sample,
                    answer,
                    number=count + at,
                    how=how,
                    tolerance=tolerance,
                    signature=session.bundle.signature,
                )
        count += len(chunk)
    return count


def _read(session: ModelSession, path: Path) -> Iterator[GoldenSample]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            try:
                sample = GoldenSample.model_validate_json(line)
            except ValidationError as error:
                message = f"{GOLDEN_FILE} line {number + 1}: {error.errors()[0]['msg']}"
                raise VersionError(
                    FailureReason.INVALID_BUNDLE, message, file=GOLDEN_FILE, sample=number
                ) from error
            if findings := session.door.findings(sample.features):
                message = f"{GOLDEN_FILE} line {number + 1}: {describe(findings)}"
                raise VersionError(FailureReason.INVALID_BUNDLE, message, file=GOLDEN_FILE, sample=number)
            yield sample


def _predict(session: ModelSession, samples: Sequence[GoldenSample], *, first: int) -> list[Prediction]:
    try:
        return session.predict([sample.features for sample in samples])
    except MemoryError:
        raise
    except Exception as error:
        message = f"the model fails on golden sample {first}: {error}"
        raise VersionError(
            FailureReason.GOLDEN_MISMATCH, message, file=GOLDEN_FILE, sample=first, found="an error"
        ) from error


def _compare(
    sample: GoldenSample, answer: Prediction, *, number: int, how: str, tolerance: float, signature: Signature
) -> None:
    classifier = signature.outputs.classes is not None or signature.outputs.probabilities is not None
    if not _agree(sample.prediction, answer.prediction, tolerance=None if classifier else tolerance):
        raise _mismatch(
            "prediction", sample.prediction, answer.prediction, number=number, how=how, tolerance=tolerance
        )
    if sample.probabilities is None:
        return
    expected, found = list(sample.probabilities), answer.probabilities or []
    agree = len(expected) == len(found) and all(
        _agree(one, other, tolerance=tolerance) for one, other in zip(expected, found, strict=True)
    )
    if not agree:
        raise _mismatch("probabilities", expected, found, number=number, how=how, tolerance=tolerance)


def _agree(expected: Value, found: Value, *, tolerance: float | None) -> bool:
    """Compare exactly, or numbers within the tolerance; NaN and null are the same nothing."""
    if _absent(expected) or _absent(found):
        return _absent(expected) and _absent(found)
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in (expected, found)
    )
    if tolerance is not None and numbers:
        return expected == found or math.fabs(float(expected) - float(found)) <= tolerance  # type: ignore[arg-type]
    return type(expected) is type(found) and expected == found


def _absent(value: Value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _mismatch(
    what: str, expected: object, found: object, *, number: int, how: str, tolerance: float
) -> VersionError:
    message = (
        f"golden sample {number}, {how}: the {what} is not the training pipeline's (scores may differ by "
        f"{tolerance:g}); package the model again and see the parity that it prints"
    )
    return VersionError(
        FailureReason.GOLDEN_MISMATCH,
        message,
        file=GOLDEN_FILE,
        sample=number,
        expected=repr(expected),
        found=repr(found),
    )
