"""Golden replay: the model must answer what the training pipeline itself answered.

Labels and preprocessed features are compared exactly, scores within the bound that was proven at packaging:
onnxruntime's float32 ends in other bits on other processors and with other numbers of rows in one run.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import ValidationError

from greenroom_runtime.contract.bundle import GOLDEN_FILE, GoldenSample, Signature, Value
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.door import describe
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.session import Array, ModelSession, Prediction, Row

DEFAULT_TOLERANCE = 1e-6
"""For a bundle without a parity report; onnxruntime's last bits differ by that between batch sizes."""
_BATCH_ROWS = 256
Answer = TypeVar("Answer")


def replay(session: ModelSession, directory: Path) -> int:
    """Replay every golden sample, row by row and in batches as large as requests may share; count them.

    VersionError(GoldenMismatch) names the first sample that differs, with what was expected and found.
    """
    parity = session.bundle.parity
    tolerance = parity.tolerance if parity else DEFAULT_TOLERANCE
    samples = read_golden(session, directory / GOLDEN_FILE)
    count = 0
    batch_rows = min(_BATCH_ROWS, session.bundle.batching.max_rows)
    while chunk := list(islice(samples, batch_rows)):
        for at, sample in enumerate(chunk):
            _replay_together(session, [sample], first=count + at, how="alone", tolerance=tolerance)
        if len(chunk) > 1:
            how = f"in a batch of {len(chunk)}"
            _replay_together(session, chunk, first=count, how=how, tolerance=tolerance)
        count += len(chunk)
    return count


def _replay_together(
    session: ModelSession, samples: Sequence[GoldenSample], *, first: int, how: str, tolerance: float
) -> None:
    """Replay samples in one run of the model."""
    signature = session.bundle.signature
    rows = [sample.features for sample in samples]
    if signature.outputs.preprocessed is not None and any(sample.preprocessed for sample in samples):
        found = _run(session.preprocess, rows, first=first)
        if found.dtype.kind != "f" or found.ndim != 2 or len(found) != len(rows):  # noqa: PLR2004
            wanted = f"floats of shape ({len(rows)}, columns)"
            raise _preprocessing_mismatch(wanted, f"{found.dtype} of shape {found.shape}", first, how)
        for at, sample in enumerate(samples):
            _compare_preprocessed(sample, found[at], number=first + at, how=how, signature=signature)
    answers = _run(session.predict, rows, first=first)
    for at, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        _compare(
            sample,
            answer,
            number=first + at,
            how=how,
            tolerance=tolerance,
            signature=session.bundle.signature,
        )


def read_golden(session: ModelSession, path: Path) -> Iterator[GoldenSample]:
    """Yield the samples of a file; VersionError(InvalidBundle) for a line that the door refuses."""
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


def _run(run: Callable[[Sequence[Row]], Answer], rows: Sequence[Row], *, first: int) -> Answer:
    try:
        return run(rows)
    except MemoryError:
        raise
    except Exception as error:
        message = f"the model fails on golden sample {first}: {error}"
        raise VersionError(
            FailureReason.GOLDEN_MISMATCH, message, file=GOLDEN_FILE, sample=first, found="an error"
        ) from error


def _compare_preprocessed(
    sample: GoldenSample, found: Array, *, number: int, how: str, signature: Signature
) -> None:
    if sample.preprocessed is None:
        return
    try:  # samples hold numbers of the graph's own type, NaN as null, so that a cast changes nothing
        values = [math.nan if value is None else float(value) for value in sample.preprocessed]
    except ValueError as error:
        message = f"{GOLDEN_FILE} line {number + 1}: a preprocessed feature is no number: {error}"
        raise VersionError(FailureReason.INVALID_BUNDLE, message, file=GOLDEN_FILE, sample=number) from error
    expected = np.array(values, dtype=found.dtype)
    if expected.shape != found.shape:
        raise _preprocessing_mismatch(f"{expected.size} columns", f"{found.size} columns", number, how)
    nothing = np.isnan(expected) & np.isnan(found)
    differing = np.flatnonzero(~((expected == found) | nothing))
    if differing.size:
        column = int(differing[0])
        told = [repr(side[column].item()) for side in (expected, found)]
        if any(feature.sensitive for feature in signature.features):
            told = ["not shown: a feature is sensitive"] * 2
        where = f"{how} (column {column}, {differing.size} of {found.size} differ)"
        raise _preprocessing_mismatch(told[0], told[1], number, where)


def _preprocessing_mismatch(expected: str, found: str, number: int, how: str) -> VersionError:
    message = (
        f"golden sample {number}, {how}: the preprocessed features are not exactly the training pipeline's; "
        "package the model again, from that very pipeline"
    )
    return VersionError(
        FailureReason.GOLDEN_MISMATCH,
        message,
        file=GOLDEN_FILE,
        sample=number,
        expected=expected,
        found=found,
    )


def _compare(
    sample: GoldenSample, answer: Prediction, *, number: int, how: str, tolerance: float, signature: Signature
) -> None:
    classifier = signature.outputs.classes is not None or signature.outputs.probabilities is not None
    if not agree(sample.prediction, answer.prediction, tolerance=None if classifier else tolerance):
        raise _mismatch(
            "prediction", sample.prediction, answer.prediction, number=number, how=how, tolerance=tolerance
        )
    if sample.probabilities is None:
        return
    expected, found = list(sample.probabilities), answer.probabilities or []
    alike = len(expected) == len(found) and all(
        agree(one, other, tolerance=tolerance) for one, other in zip(expected, found, strict=True)
    )
    if not alike:
        raise _mismatch("probabilities", expected, found, number=number, how=how, tolerance=tolerance)


def agree(expected: Value, found: Value, *, tolerance: float | None) -> bool:
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
