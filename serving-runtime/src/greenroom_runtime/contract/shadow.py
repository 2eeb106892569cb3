"""What a shadow tells the operator, by ``GET /report`` of its supervisor.

All numbers rise while an epoch lasts, and begin at 0 with another one or with another ``instance``. They
outlive the shadow process: its supervisor gives the next one what the last one had told.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from greenroom_runtime.contract import names
from greenroom_runtime.contract.evidence import EPOCH_PATTERN, WideBitmap, WideBitmapText
from greenroom_runtime.contract.report import INT64_MAX, LogReport, ReportModel, VersionReport
from greenroom_runtime.contract.shadow_flag import MAX_SEGMENTS

SCHEMA_VERSION: Final = 1
DIFFERENCE_BOUNDS: Final = tuple(float(f"{digit}e{power}") for power in range(-6, 7) for digit in (1, 2, 5))
"""Upper bounds, inclusive, of the classes that differences of numbers are counted in; one more is above."""
SECONDS_BOUNDS: Final = tuple(float(f"{digit}e{power}") for power in range(-5, 2) for digit in (1, 2, 5))
"""The same for how long a model takes for a row."""

Count = Annotated[int, Field(ge=0, le=INT64_MAX)]


class SegmentCounts(ReportModel):
    """What was counted of the requests of one segment."""

    compared: Count = 0
    disagreed: Count = 0


class ShadowCounts(ReportModel):
    """What became of frames. Each is counted once.

    ``received = stale + unready + not_comparable + compared + failed + production_failed + both_failed``.
    """

    received: Count = 0
    stale: Count = 0
    """Of another epoch."""
    unready: Count = 0
    """That came while the version was not ready."""
    not_comparable: Count = 0
    """That lack features which the shadow takes, or whose answers are a label and a number."""
    compared: Count = 0
    """That both versions answered."""
    disagreed: Count = 0
    """Of those, that have another label, a number or a probability out of tolerance, or lack an output."""
    missing: Count = 0
    """Of those, that lack an output which production has."""
    failed: Count = 0
    """That production answered and the shadow could not."""
    production_failed: Count = 0
    """That the shadow answered and production could not."""
    both_failed: Count = 0
    differences: Annotated[tuple[Count, ...], Field(max_length=len(DIFFERENCE_BOUNDS) + 1)] = ()
    """Of compared answers, by the greatest difference of numbers, in the classes of `DIFFERENCE_BOUNDS`;
    empty for none yet. A label alone is not a number."""
    seconds: Annotated[tuple[Count, ...], Field(max_length=len(SECONDS_BOUNDS) + 1)] = ()
    """Of compared answers, by the time that the shadow took."""
    production_seconds: Annotated[tuple[Count, ...], Field(max_length=len(SECONDS_BOUNDS) + 1)] = ()
    """The same of production."""
    segments: Annotated[tuple[SegmentCounts, ...], Field(max_length=MAX_SEGMENTS)] = ()
    """In the order of the flag store's segments."""


class ShadowTrials(ReportModel):
    """What the first request of each bucket of users came to; a request without a user is its own.

    So that one user's many requests are one trial.
    """

    seen: WideBitmapText = WideBitmap()
    """Buckets with a request that production answered and the shadow could have."""
    failed: WideBitmapText = WideBitmap()
    """Of those, whose first one the shadow could not answer."""
    disagreed: WideBitmapText = WideBitmap()
    """Of those, whose first one it answered otherwise."""
    slow: WideBitmapText = WideBitmap()
    """Of those, whose first one took it more than the flag store's ratio times as long as production."""


class ProcessReport(ReportModel):
    """What the shadow process tells its supervisor, several times a second."""

    revision: Annotated[str, Field(max_length=64)] = ""
    """The flag store's revision that it obeys; empty before the first."""
    flags_error: Annotated[str, Field(max_length=2048)] = ""
    """Why the newest flag document was refused; empty when it is obeyed."""
    production: Annotated[str, Field(max_length=names.VERSION_MAX_LENGTH)] = ""
    """The version whose answers it compares with; empty while it compares nothing."""
    version: VersionReport | None = None
    """The version that it holds, or is to hold; None where the flag store names none."""
    epoch: Annotated[str, Field(pattern=f"^{EPOCH_PATTERN}$")] = ""
    """What is counted; empty where nothing is."""
    counts: ShadowCounts = ShadowCounts()
    trials: ShadowTrials = ShadowTrials()
    prediction_log: LogReport | None = None
    """None where no log is kept."""


class EndReason(StrEnum):
    """Why a shadow process ended that should not have."""

    CRASHED = "Crashed"
    HUNG = "Hung"
    """It was killed, since its heart had stopped to beat."""
    OUT_OF_MEMORY = "OutOfMemory"
    """It was killed near the container's limit, or was refused memory."""


class ProcessEnd(ReportModel):
    """How the newest shadow process ended that should not have."""

    reason: EndReason
    message: Annotated[str, Field(max_length=1024)]
    """The exit code or signal, what it had of memory, and the last it had written to stderr."""
    seconds_ago: Annotated[float, Field(ge=0)]


class ShadowReport(ReportModel):
    """One shadow, as its supervisor tells it: also while there is no shadow process."""

    schema_version: int = SCHEMA_VERSION
    pod: Annotated[str, Field(max_length=253)]
    model: Annotated[str, Field(max_length=names.MODEL_MAX_LENGTH)] = ""
    instance: Annotated[str, Field(max_length=64)]
    """Names this life of the supervisor, whose numbers begin at 0."""
    running: bool = False
    """Whether there is a shadow process now."""
    ends: Count = 0
    """How often a process ended that should not have."""
    end: ProcessEnd | None = None
    """The newest such end."""
    process: ProcessReport | None = None
    """What the newest process told last; None before it has told anything."""
