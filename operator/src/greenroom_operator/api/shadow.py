"""A shadow: a version that sees production's traffic and is never served, and the gate that judges it."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from greenroom_operator.api.base import ApiModel, Rule, list_map, rules
from greenroom_operator.api.fields import (
    Duration,
    Message,
    ModelVersion,
    ResourceRequirements,
    Timestamp,
    Word,
    between,
)
from greenroom_operator.api.rollout import Percent, Ratio
from greenroom_runtime.contract import names
from greenroom_runtime.contract.flag_forms import MAX_VALUE_LENGTH
from greenroom_runtime.contract.shadow_flag import MAX_SEGMENTS

MIN_MEMORY: Final = "192Mi"
DEFAULT_RESOURCES: Final[dict[str, Any]] = {
    "requests": {"cpu": "50m", "memory": "192Mi"},
    "limits": {"memory": "512Mi"},
}
"""Its memory must have a limit: what it takes beyond is to end the shadow, not the pod."""
EVIDENCE_MAX_LENGTH: Final = 64 * 1024
COUNTED_MAX_LENGTH: Final = 512 * 1024
_FIELD_LENGTH: Final = 63

_SHARE_PATTERN = "^[0-9]{1,3}([.][0-9]{1,4})?$"
Share = Annotated[
    str,
    Field(max_length=8),
    Rule(
        f"self.matches('{_SHARE_PATTERN}') && double(self) > 0.0 && double(self) < 100.0",
        'a share that is tolerated is a percentage above 0 and below 100 in quotes, such as "0.1"; that '
        "there is nothing at all no number of requests could prove",
        subject="self",
    ),
]
"""A percentage that is tolerated, as text."""

_MEMORY_LIMITED = Rule(
    "has(self.limits) && 'memory' in self.limits && (!isQuantity(string(self.limits['memory'])) || "
    f"!quantity(string(self.limits['memory'])).isLessThan(quantity('{MIN_MEMORY}')))",
    f"a shadow needs limits.memory of at least {MIN_MEMORY}, by which its process is watched and ended "
    "before the pod comes to harm: 256Mi and twice the model's size, or leave resources out",
)


class ShadowPlacement(StrEnum):
    """Where the shadow runs."""

    SIDECAR = "Sidecar"
    DEPLOYMENT = "Deployment"


class ShadowSuccess(StrEnum):
    """What follows once the gate has passed the shadow."""

    REPORT = "Report"
    ROLLOUT = "Rollout"


class ShadowGate(ApiModel):
    """What must be proven of the shadow."""

    min_requests: Annotated[int, Field(ge=0, le=1_000_000_000)] = 1000
    """Requests that both versions must have answered before it passes. Default 1000."""
    min_duration: Annotated[Duration, between("0s", "168h")] = "5m"
    """How long answers must have been compared before there is a verdict, such as 5m: a minute that is
    unlike others should not decide. Default 5m."""
    max_disagreement_percent: Share = "2"
    """Share of users, in percent and in quotes, whose first answer may disagree with production's. Default
    "2"."""
    max_error_percent: Share = "0.1"
    """Share of users, in percent and in quotes, whom the shadow may fail where production answers. The
    smaller a share, the more users a proof needs: some 4 / share. Default "0.1"."""
    max_latency_ratio: Ratio = "1.5"
    """How many times as long as production it may take for a request, in quotes. Default "1.5"."""


class Shadow(ApiModel):
    """A version that is asked what production is asked, and whose answers nobody gets."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.replicas) || (has(self.placement) && self.placement == 'Deployment')",
                "a sidecar is in every pod: remove replicas, or set placement: Deployment",
            )
        )
    )

    version: ModelVersion
    """The version that is compared. Where it equals spec.version the shadow is over."""
    percent: Percent = 100.0
    """Share of requests that are mirrored, in percent with at most two decimals, chosen by request id.
    Default 100."""
    tolerance: Annotated[
        str,
        Field(max_length=24),
        Rule(
            "self.matches('^[0-9]{1,9}([.][0-9]{1,12})?$')",
            'a tolerance is a number of at least 0 in quotes, such as "0.1" or "0"',
            subject="self",
        ),
    ] = "0.1"
    """Numbers, and probabilities, that are further apart than this disagree; labels must be the same. In
    quotes. Another tolerance replaces the pods. Default "0.1"."""
    placement: ShadowPlacement = ShadowPlacement.SIDECAR
    """Sidecar runs it in every pod, beside the serving container; Deployment in pods of its own, so that not
    even a node short of memory connects the two. Default Sidecar."""
    replicas: Annotated[int, Field(ge=0, le=100)] | None = None
    """Number of pods of its own, with placement Deployment only. Default 1."""
    resources: Annotated[ResourceRequirements, _MEMORY_LIMITED] | None = None
    """Requests and limits of the shadow container. Default: 192Mi of memory and at most 512Mi, enough for a
    model of 128Mi."""
    gate: ShadowGate = ShadowGate()
    """What must be proven before the verdict is Pass, and what makes it Fail."""
    on_success: ShadowSuccess = ShadowSuccess.REPORT
    """Report tells the verdict; Rollout lets spec.rollout of the same version begin only once it is Pass.
    Default Report."""


class ShadowState(StrEnum):
    """Where a shadow is."""

    PREPARING = "Preparing"
    COMPARING = "Comparing"
    WAITING = "Waiting"
    BROKEN = "Broken"
    OVER = "Over"


class SegmentStatus(ApiModel):
    """What came of the requests of one segment."""

    name: Annotated[str, Field(max_length=_FIELD_LENGTH + 1 + MAX_VALUE_LENGTH)]
    """Attribute and value, as a rule of spec.rollout names them, such as country=NO."""
    requests: Annotated[int, Field(ge=0)] = 0
    """Requests that both versions answered."""
    disagreements: Annotated[int, Field(ge=0)] = 0
    """Those of them whose answers disagree."""


class ShadowStatus(ApiModel):
    """How the shadow fares."""

    version: Annotated[str, Field(max_length=names.VERSION_MAX_LENGTH)]
    """The version that is compared."""
    digest: Annotated[str, Field(max_length=71)] | None = None
    """sha256:… of its bundle.json, pinned by its first proof; other bytes under this name are refused."""
    state: ShadowState
    """Preparing until a shadow has proven it, Comparing while it is given requests, Waiting while there are
    none, Broken where it cannot be proven, does not stay up or cannot be reached, Over once it is
    production."""
    summary: Word | None = None
    """Share of answers that disagree, such as 0.4%."""
    requests: Annotated[int, Field(ge=0)] | None = None
    """Requests that production answered and the shadow was asked."""
    disagreements: Annotated[int, Field(ge=0)] | None = None
    """Those that it answered otherwise."""
    disagreement_percent: Word | None = None
    """Their share of what both answered, such as 0.4."""
    errors: Annotated[int, Field(ge=0)] | None = None
    """Those that it could not answer."""
    not_comparable: Annotated[int, Field(ge=0)] | None = None
    """Requests that lack what the shadow takes, and that it was not asked therefore."""
    dropped: Annotated[int, Field(ge=0)] | None = None
    """Requests that did not reach the shadow: it was absent, or slower than the traffic."""
    latency_ratio: Word | None = None
    """How many times as long as production it took, by the median, such as 1.1."""
    differences: Word | None = None
    """How far numbers are apart, by upper bounds, such as p50 <=0.001, p99 <=0.02, max <=0.1."""
    segments: Annotated[tuple[SegmentStatus, ...], Field(max_length=MAX_SEGMENTS), list_map("name")] = ()
    """The same by what the rules of spec.rollout name, at most 32."""
    verdict: Word | None = None
    """What the gate says: Pass, Fail or Inconclusive. Pass and Fail stay while the same is compared."""
    message: Message | None = None
    """What the gate has counted, or what the shadow waits for."""
    error: Message | None = None
    """What is wrong with it; only while it is Broken."""
    epoch: Annotated[str, Field(max_length=200)] | None = None
    """Names what is compared; another one begins to count anew."""
    start_time: Timestamp | None = None
    """When that began."""
    attempt: Word | None = None
    """The newest action retry that it was begun anew for, for the operator itself."""
    evidence: Annotated[str, Field(max_length=EVIDENCE_MAX_LENGTH)] | None = None
    """What the gate has counted, for the operator itself."""
    counted: Annotated[str, Field(max_length=COUNTED_MAX_LENGTH)] | None = None
    """What each shadow had counted when this was written, for the operator itself."""
    observed_time: Timestamp | None = None
    """When all this was counted: at most every 30 seconds."""
