"""The ModelDeployment: which versions of a model serve, as the user wrote it and as pods report it."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from greenroom_operator.api.base import ApiModel, Rule, atomic_list, list_map, rules, server_default
from greenroom_operator.api.features import Features, FeaturesStatus
from greenroom_operator.api.fields import (
    Affinity,
    Condition,
    Duration,
    EnvVar,
    Message,
    ModelVersion,
    NodeLabels,
    ObjectMeta,
    ObjectName,
    PodAnnotations,
    PodLabels,
    ResourceRequirements,
    SecretRef,
    Timestamp,
    Tolerations,
    TopologySpreadConstraints,
    Word,
    between,
)
from greenroom_operator.api.predictions import PredictionLog
from greenroom_operator.api.rollout import Rollout, RolloutStatus
from greenroom_operator.api.shadow import Shadow, ShadowStatus
from greenroom_operator.api.source import Source
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import Limits as RuntimeLimits

GROUP: Final = names.GROUP
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "ModelDeployment"
PLURAL: Final = "modeldeployments"
SINGULAR: Final = "modeldeployment"
SHORT_NAMES: Final = ("md",)
CATEGORIES: Final = ("greenroom",)

NAME_MAX_LENGTH: Final = 40
"""Leaves room for the suffixes of children and pods within 63 characters."""
HISTORY_LENGTH: Final = 10

_RUNTIME_LIMITS = RuntimeLimits()


class ImagePullPolicy(StrEnum):
    """When kubelet pulls the serving image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class GoldenPolicy(StrEnum):
    """Whether a version must come with golden samples."""

    OPTIONAL = "Optional"
    REQUIRED = "Required"


class PromotionState(StrEnum):
    """Where a change of ``spec.version`` is."""

    PREPARING = "Preparing"
    COMMITTING = "Committing"
    COMPLETE = "Complete"
    REFUSED = "Refused"


class GoldenResult(StrEnum):
    """What the golden samples of a version said."""

    PASSED = "Passed"
    ABSENT = "Absent"


class Limits(ApiModel):
    """Bounds on what one pod accepts."""

    body_bytes: Annotated[int, Field(ge=1024, le=1024**3)] = _RUNTIME_LIMITS.body_bytes
    """Largest request body in bytes; a larger one is answered with 413. Default 16777216."""
    concurrency: Annotated[int, Field(ge=1, le=100_000)] = _RUNTIME_LIMITS.concurrency
    """Requests that one pod works on at once; more is answered with 429. Default 256."""
    batch_rows: Annotated[int, Field(ge=1, le=1_000_000)] = _RUNTIME_LIMITS.batch_rows
    """Most rows in one request to /predict/batch or to an infer path of the Open Inference Protocol; more is
    answered with 413. Default 10000."""


class Verification(ApiModel):
    """What a version must prove before it may answer anybody."""

    golden: GoldenPolicy = GoldenPolicy.OPTIONAL
    """Optional replays the golden samples where a version has them; Required refuses a version without.
    Default Optional."""


class ModelDeploymentSpec(ApiModel):
    """What should serve. The operator never writes it."""

    source: Source
    """Where the model's versions lie."""
    version: ModelVersion
    """The version that the alias production points at: the name of its directory under source.uri. Changing
    it proves the new version on every pod first and then switches without a restart; a version that fails
    its proof changes nothing for users. Put numbers in quotes: "2026.10"."""
    rollout: Rollout | None = None
    """Another version for some users, while production stays spec.version: a fixed share, chosen groups, or
    steps that rise by themselves while a gate watches."""
    shadow: Shadow | None = None
    """A version that sees production's traffic and is never served: its answers are compared with
    production's."""
    replicas: Annotated[int, Field(ge=0, le=1000), server_default(1)] = 1
    """Number of pods. 0 stops serving."""
    image: (
        Annotated[
            str,
            Field(max_length=512),
            Rule(
                "self.matches(r'^[a-zA-Z0-9][^\\s]*$')",
                "must be an image reference such as registry.example.com/greenroom-runtime:0.1.0",
                subject="self",
            ),
        ]
        | None
    ) = None
    """The serving runtime's image. Default: the one of the operator's own release."""
    image_pull_policy: ImagePullPolicy | None = None
    """Always, IfNotPresent or Never. Default: Kubernetes' own choice by the image's tag."""
    image_pull_secrets: Annotated[tuple[SecretRef, ...], Field(max_length=16), list_map("name")] = ()
    """Secrets of type kubernetes.io/dockerconfigjson to pull the image with."""
    resources: ResourceRequirements | None = None
    """Requests and limits of the serving container. A memory limit also bounds the trial in which a new
    version is proven."""
    limits: Limits = Limits()
    """Bounds on what one pod accepts."""
    prediction_log: PredictionLog = PredictionLog()
    """Where the records of predictions go: by default all of them to files on the pod's own disk. Nothing
    that goes wrong with them delays or changes an answer."""
    features: Features | None = None
    """Where features are from that a request leaves out. Default: requests bring all of them."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), list_map("name")] = ()
    """More environment variables of the serving container."""
    verification: Verification = Verification()
    """What a version must prove before it may answer anybody."""
    progress_deadline: Annotated[Duration, between("1s", "24h")] = "10m"
    """How long pods may take until they serve before the ModelDeployment is reported as Stalled, such as
    10m. Default 10m."""
    drain: Annotated[Duration, between("0s", "10m")] = "5s"
    """How long a pod that is being stopped goes on answering, so that no request is lost while it is taken
    out of the Service. Default 5s."""
    service_account_name: ObjectName | None = None
    """The pods' ServiceAccount, for a cloud's workload identity. Default: one of their own without rights."""
    pod_labels: PodLabels = Field(default_factory=dict)
    """More labels of the pods."""
    pod_annotations: PodAnnotations = Field(default_factory=dict)
    """More annotations of the pods."""
    node_selector: NodeLabels = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: Tolerations = ()
    """Taints that the pods tolerate, as in a Pod."""
    affinity: Affinity | None = None
    """Where the pods like to be, as in a Pod."""
    topology_spread_constraints: TopologySpreadConstraints = ()
    """How the pods spread over nodes and zones, as in a Pod. Default: softly over both."""
    priority_class_name: ObjectName | None = None
    """The pods' PriorityClass."""


class VersionStatus(ApiModel):
    """One version that pods hold, and the bytes that its name stands for."""

    name: Annotated[str, Field(max_length=63)]
    """The version."""
    digest: Annotated[str, Field(max_length=71)] = ""
    """sha256:… of its bundle.json, pinned by its first proof; other bytes under this name are refused."""
    pods_ready: Annotated[int, Field(ge=0)] = 0
    """Pods that hold it, proven."""
    golden: GoldenResult | None = None
    """Passed, or Absent where it has no golden samples."""
    memory: Word | None = None
    """What it took in its trial, such as 118Mi."""


class Promotion(ApiModel):
    """The last change of ``spec.version``."""

    version: Annotated[str, Field(max_length=63)]
    """The version that is to become production."""
    state: PromotionState
    """Preparing until every pod has proven it, Committing until every pod answers with it, then Complete;
    Refused when it failed its proof."""
    start_time: Timestamp | None = None
    """When it began."""
    pods_ready: Annotated[int, Field(ge=0)] = 0
    """Pods that have done what the state waits for."""
    pods_total: Annotated[int, Field(ge=0)] = 0
    """Pods that it waits for."""
    reason: Word | None = None
    """Why it waits or was refused, in one word."""
    message: Message | None = None
    """Why it waits or was refused."""


class LastFailure(ApiModel):
    """The newest proof that failed, in full."""

    version: Annotated[str, Field(max_length=63)]
    """The version that failed."""
    pod: Annotated[str, Field(max_length=253)] = ""
    """The pod that said so."""
    reason: Word
    """NoSuchVersion, InvalidBundle, DigestMismatch, GoldenMismatch and the like."""
    message: Message
    """What was expected, what was found, and the remedy."""
    file: Annotated[str, Field(max_length=256)] | None = None
    """The file that it is about."""
    sample: Annotated[int, Field(ge=0)] | None = None
    """The golden sample that differed: the zero-based line of golden.jsonl."""
    expected: Annotated[str, Field(max_length=512)] | None = None
    """What the training pipeline had answered."""
    found: Annotated[str, Field(max_length=512)] | None = None
    """What the pod answered."""
    time: Timestamp
    """When it was first seen."""


class PredictionLogStatus(ApiModel):
    """What is wrong with the prediction log. Answers are not affected."""

    pods_failing: Annotated[int, Field(ge=0)] = 0
    """Pods that cannot write or send records now."""
    dropped: Annotated[int, Field(ge=0)] = 0
    """Records that are lost for good, of all pods that there are, since each of them started."""
    pod: Annotated[str, Field(max_length=253)]
    """The first pod that it is about."""
    error: Annotated[str, Field(max_length=512)] | None = None
    """What that pod complains of now."""
    time: Timestamp
    """When this was last counted: at most every 30 seconds."""


class HistoryEntry(ApiModel):
    """One thing that happened to production or to a rollout."""

    time: Timestamp
    """When."""
    version: Annotated[str, Field(max_length=63)]
    """The version that it happened to."""
    event: Word
    """What happened, in one word, such as Promoted, Refused, RolloutComplete or RolloutAborted."""
    message: Message | None = None
    """What happened, in a sentence."""


class ModelDeploymentStatus(ApiModel):
    """What serves, as pods report it. Written by the operator only."""

    observed_generation: int | None = None
    """The metadata.generation that this status is about."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), list_map("type")] = ()
    """Ready: production is served as promised. Progressing: something is under way. Degraded: a person should
    look. Reconciling and Stalled are there only while they are true."""
    version: Annotated[str, Field(max_length=63)] | None = None
    """The version that production points at, as pods report it."""
    previous_version: Annotated[str, Field(max_length=63)] | None = None
    """The version before it, for an instant way back."""
    versions: Annotated[tuple[VersionStatus, ...], Field(max_length=64), list_map("name")] = ()
    """The versions that pods hold."""
    promotion: Promotion | None = None
    """The last change of spec.version."""
    rollout: RolloutStatus | None = None
    """How far spec.rollout is."""
    shadow: ShadowStatus | None = None
    """How spec.shadow fares."""
    replicas: Annotated[int, Field(ge=0)] | None = None
    """Pods that there are."""
    ready_replicas: Annotated[int, Field(ge=0)] | None = None
    """Pods that serve."""
    replica_summary: Word | None = None
    """Pods that serve and pods that are wanted, such as 3/3."""
    selector: Annotated[str, Field(max_length=1024)] | None = None
    """Selects the pods, for kubectl and autoscalers."""
    url: Annotated[str, Field(max_length=512)] | None = None
    """Where the cluster reaches production, such as http://churn.ml.svc."""
    last_failure: LastFailure | None = None
    """The newest proof that failed."""
    prediction_log: PredictionLogStatus | None = None
    """What is wrong with the prediction log; absent while all is well."""
    features: FeaturesStatus | None = None
    """Where fetched features come from; absent where none are fetched."""
    last_handled_action: Annotated[str, Field(max_length=512)] | None = None
    """The newest value of the annotation greenroom.dev/action that was carried out."""
    history: Annotated[tuple[HistoryEntry, ...], Field(max_length=HISTORY_LENGTH), atomic_list()] = ()
    """What happened to production and to rollouts, newest first."""


class ModelDeployment(ApiModel):
    """A model whose versions are released safely: proven before they answer, switched without a restart."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "metadata.name becomes a Service's name: lower-case letters, digits and '-', beginning with "
                "a letter and ending with a letter or digit, such as churn",
                subject="self.metadata.name",
            ),
            Rule(
                f"size(self.metadata.name) <= {NAME_MAX_LENGTH}",
                f"metadata.name is at most {NAME_MAX_LENGTH} characters, since the names of pods and "
                "Services begin with it",
                subject="self.metadata.name",
            ),
        )
    )

    metadata: ObjectMeta
    spec: ModelDeploymentSpec
    """What should serve."""
    # kstatus takes an object without a status for done; this default makes it wait for the operator.
    status: Annotated[ModelDeploymentStatus, server_default({"observedGeneration": -1})] = (
        ModelDeploymentStatus()
    )
    """What serves, as pods report it. Written by the operator only."""
