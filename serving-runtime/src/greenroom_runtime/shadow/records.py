"""What the prediction log gets of a row that a shadow answered."""

from collections.abc import Sequence

from greenroom_runtime.predictions.record import Comparison, Record
from greenroom_runtime.shadow.compare import Answered, Outcome, Verdict
from greenroom_runtime.shadow.frame import Frame

ROLE = "shadow"
_OK, _FAILED = 200, 500


def record_of(
    frame: Frame,
    verdict: Verdict,
    answer: Answered,
    *,
    version: str,
    seconds: float,
    segments: Sequence[str],
) -> Record:
    """Return the shadow's record: the request's id and time, and no features, which production's record has.

    What disagrees is recorded whatever the share, as errors are.
    """
    return Record(
        id=frame.id,
        time=frame.time,
        version=version,
        role=ROLE,
        reason=ROLE,
        entity="" if frame.key == frame.id else frame.key,
        features=None,
        feature_source="",
        status=_FAILED if answer.error else _OK,
        latency_ms=seconds * 1000,
        prediction=answer.prediction,
        probabilities=answer.probabilities,
        classes=answer.classes,
        error=answer.error,
        comparison=Comparison(
            version=frame.version,
            prediction=frame.prediction,
            probabilities=frame.probabilities,
            classes=frame.classes,
            latency_ms=frame.seconds * 1000,
            outcome=verdict.outcome,
            difference=verdict.difference,
            segments=[segments[place] for place in frame.segments if 0 <= place < len(segments)],
        ),
        always=verdict.outcome is not Outcome.AGREED,
    )
