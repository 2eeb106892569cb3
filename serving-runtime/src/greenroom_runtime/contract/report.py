"""What a pod tells the operator: ``GET /report`` on the admin port, at most 64 KiB."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from greenroom_runtime.contract import names
from greenroom_runtime.contract.evidence import RolloutEvidence

SCHEMA_VERSION = 1
MAX_BYTES = 64 * 1024
INT64_MAX = 2**63 - 1
"""What the operator passes on must fit into a status."""


class ReportModel(BaseModel):
    """Base of the report's parts: frozen; a newer runtime's fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class VersionState(StrEnum):
    """Where a pod is with one version."""

    PENDING = "Pending"
    """Known, not begun: another version is being prepared, or another pod goes first."""
    FETCHING = "Fetching"
    """Its files are on their way; a source that does not answer keeps it here, with a message."""
    PROVING = "Proving"
    """A trial process loads it, warms it and replays its golden samples."""
    LOADING = "Loading"
    """Proven; the serving process loads it."""
    READY = "Ready"
    FAILED = "Failed"
    """Not tried again until it has left the resident versions once."""


class FailureReason(StrEnum):
    """Why a version is Failed."""

    NO_SUCH_VERSION = "NoSuchVersion"
    INVALID_BUNDLE = "InvalidBundle"
    DIGEST_MISMATCH = "DigestMismatch"
    DIGEST_CHANGED = "DigestChanged"
    """Its bundle is not the one that was pinned under this name."""
    NOT_LOADABLE = "NotLoadable"
    GOLDEN_MISMATCH = "GoldenMismatch"
    GOLDEN_ABSENT = "GoldenAbsent"
    CRASHED = "Crashed"
    """Its trial process died, or the serving process did while it was loading it."""
    TRIAL_TIMEOUT = "TrialTimeout"
    OUT_OF_MEMORY = "OutOfMemory"
    NO_SPACE = "NoSpace"


class Failure(ReportModel):
    """One failed version, told so that a person can act on it."""

    reason: FailureReason
    message: str = Field(max_length=2048)
    """What was expected, what was found, and the remedy where there is one."""
    file: str = Field(default="", max_length=256)
    sample: int | None = Field(default=None, ge=0, le=INT64_MAX)
    """Zero-based line of ``golden.jsonl``."""
    expected: str = Field(default="", max_length=512)
    found: str = Field(default="", max_length=512)


class VersionReport(ReportModel):
    """One version in one pod."""

    name: str = Field(max_length=63)
    state: VersionState
    message: str = Field(default="", max_length=2048)
    """What it waits for, while it is not Ready."""
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """``sha256:…`` of its ``bundle.json``; empty until it is fetched."""
    golden: str = Field(default="", max_length=16)
    """``Passed`` or ``Absent``; empty until it is proven."""
    memory_bytes: int = Field(default=0, ge=0, le=INT64_MAX)
    """Measured in the trial."""
    failure: Failure | None = None


class LogReport(ReportModel):
    """The prediction log's accounts: of all predictions so far, what became of their records.

    ``logged + dropped + sampled_out + pending`` is their number.
    """

    logged: int = Field(default=0, ge=0, le=INT64_MAX)
    """Synced to disk, written to stdout, or acknowledged by the receiver."""
    dropped: int = Field(default=0, ge=0, le=INT64_MAX)
    """Lost: the queue was full, the disk was, or the receiver was away for too long."""
    sampled_out: int = Field(default=0, ge=0, le=INT64_MAX)
    pending: int = Field(default=0, ge=0, le=INT64_MAX)
    error: str = Field(default="", max_length=512)
    """What the sink complains of; empty while it is well."""


class BreakerState(StrEnum):
    """Whether an upstream is asked."""

    CLOSED = "Closed"
    """It is."""
    OPEN = "Open"
    """It has failed, and is left alone for a while."""
    HALF_OPEN = "HalfOpen"
    """One call finds out whether it is back."""


class UpstreamReport(ReportModel):
    """One source of features, as this pod finds it."""

    state: BreakerState = BreakerState.CLOSED
    error: str = Field(default="", max_length=512)
    """What is wrong with it, without an entity or a value; empty while it is asked."""
    calls: int = Field(default=0, ge=0, le=INT64_MAX)
    failures: int = Field(default=0, ge=0, le=INT64_MAX)


class FeatureReport(ReportModel):
    """The feature cache's accounts: where the features came from that requests had left out."""

    memory: int = Field(default=0, ge=0, le=INT64_MAX)
    redis: int = Field(default=0, ge=0, le=INT64_MAX)
    compute: int = Field(default=0, ge=0, le=INT64_MAX)
    stale: int = Field(default=0, ge=0, le=INT64_MAX)
    default: int = Field(default=0, ge=0, le=INT64_MAX)
    failed: int = Field(default=0, ge=0, le=INT64_MAX)
    """Rows that could not be answered, since no source could."""
    redis_state: UpstreamReport | None = None
    """None where there is no Redis."""
    compute_state: UpstreamReport | None = None


class MirrorReport(ReportModel):
    """What became of production's answers: ``offered = sampled_out + sent + dropped + pending``.

    It counts from the start of the process on, whatever the shadow.
    """

    offered: int = Field(default=0, ge=0, le=INT64_MAX)
    sampled_out: int = Field(default=0, ge=0, le=INT64_MAX)
    """Not of the share that is mirrored."""
    sent: int = Field(default=0, ge=0, le=INT64_MAX)
    dropped: int = Field(default=0, ge=0, le=INT64_MAX)
    """The shadow was absent or slow, or the frame too large."""
    pending: int = Field(default=0, ge=0, le=INT64_MAX)
    error: str = Field(default="", max_length=512)
    """Why frames are dropped now; empty while they are not."""


class PodReport(ReportModel):
    """The state of one serving process, as it sees itself."""

    schema_version: int = SCHEMA_VERSION
    pod: str = Field(max_length=253)
    model: str = Field(max_length=names.MODEL_MAX_LENGTH)
    revision: str = Field(default="", max_length=64)
    """The flag store's revision that it obeys; empty before the first."""
    production: str = Field(
        default="", max_length=names.VERSION_MAX_LENGTH, pattern=f"^$|{names.VERSION_PATTERN}"
    )
    """The version that answers as production now; empty while there is none."""
    ready: bool = False
    draining: bool = False
    flags_error: str = Field(default="", max_length=2048)
    """Why the newest flag document was refused; empty when it is obeyed."""
    versions: tuple[VersionReport, ...] = Field(default=(), max_length=64)
    requests: int = Field(default=0, ge=0, le=INT64_MAX)
    """Prediction requests answered since the process started, errors included."""
    errors: int = Field(default=0, ge=0, le=INT64_MAX)
    """Those answered with a 5xx."""
    fallbacks: int = Field(default=0, ge=0, le=INT64_MAX)
    """Those that production answered although the user should have had another version."""
    prediction_log: LogReport | None = None
    """None where no log is kept."""
    features: FeatureReport | None = None
    """None where no features are fetched."""
    evidence: RolloutEvidence | None = None
    """None while the flag store names no epoch."""
    mirror: MirrorReport | None = None
    """None while nothing is mirrored."""

    def version(self, name: str) -> VersionReport | None:
        """Return what it says of one version, None when it says nothing."""
        return next((version for version in self.versions if version.name == name), None)
