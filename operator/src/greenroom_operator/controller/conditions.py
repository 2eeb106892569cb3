"""The truth table: what each situation means for the conditions.

Conditions follow the Kubernetes API conventions; ``Reconciling`` and ``Stalled`` follow kstatus and are
present only while true.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from greenroom_operator.api.fields import Condition, ConditionStatus
from greenroom_operator.api.times import format_timestamp


class ConditionType(StrEnum):
    """The conditions of a ModelDeployment."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    FEATURES_HEALTHY = "FeaturesHealthy"
    """Only where features are fetched; no row of the truth table knows it, and Ready never depends on it."""
    SHADOW_HEALTHY = "ShadowHealthy"
    """Only where there is a shadow; likewise."""


class Reason(StrEnum):
    """Every reason that a condition or an event may have."""

    NOT_OBSERVED = "NotObserved"
    PODS_STARTING = "PodsStarting"
    VERIFICATION_FAILED = "VerificationFailed"
    SERVING = "Serving"
    COMPLETE = "Complete"
    PROMOTING = "Promoting"
    UPDATING = "Updating"
    PARTLY_AVAILABLE = "PartlyAvailable"
    RECONCILE_DISABLED = "ReconcileDisabled"
    SCALED_TO_ZERO = "ScaledToZero"
    NOT_REPORTING = "NotReporting"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    NAME_CONFLICT = "NameConflict"
    INVALID_SPEC = "InvalidSpec"
    FORBIDDEN = "Forbidden"
    FEATURES_FETCHED = "FeaturesFetched"
    FEATURE_SOURCE_FAILING = "FeatureSourceFailing"
    COMPARING = "Comparing"
    WAITING = "Waiting"
    SHADOW_PREPARING = "ShadowPreparing"
    SHADOW_BROKEN = "ShadowBroken"
    SHADOW_PASSED = "ShadowPassed"
    SHADOW_FAILED = "ShadowFailed"
    SHADOW_OVER = "ShadowOver"
    WAITING_FOR_SHADOW = "WaitingForShadow"
    ROLLING_OUT = "RollingOut"
    ROLLOUT_COMPLETE = "RolloutComplete"
    PAUSED = "Paused"
    ROLLOUT_REFUSED = "RolloutRefused"
    ROLLOUT_ABORTED = "RolloutAborted"
    PROMOTED = "Promoted"
    ROLLOUT_STARTED = "RolloutStarted"
    ROLLOUT_STEPPED = "RolloutStepped"
    ROLLOUT_RESUMED = "RolloutResumed"
    ROLLOUT_WITHDRAWN = "RolloutWithdrawn"
    ACTION_IGNORED = "ActionIgnored"
    PREDICTION_LOG_FAILING = "PredictionLogFailing"
    PREDICTION_LOG_RECOVERED = "PredictionLogRecovered"
    FEATURE_SOURCE_RECOVERED = "FeatureSourceRecovered"
    SHADOW_RECOVERED = "ShadowRecovered"
    """From Promoted on they are an event's, never a condition's."""


class Situation(StrEnum):
    """A row of the truth table."""

    JUST_CREATED = "just created"
    PODS_STARTING = "first pods start"
    FIRST_VERSION_REFUSED = "the first version is refused"
    STEADY = "steady"
    PROMOTING = "preparing or committing a promotion"
    UPDATING = "pods are being replaced, enough serve"
    UPDATE_STALLED = "pods are being replaced and the new ones do not serve in time"
    PROMOTION_REFUSED = "promotion refused, old version serves"
    WAITING_FOR_SHADOW = "rollout waits for its shadow's verdict"
    ROLLING_OUT = "a rollout's version is being proven, or pods do not obey its share yet"
    ROLLED_OUT_IN_PART = "some users have the rollout's version, and pods obey its share"
    ROLLOUT_COMPLETE = "rollout complete, Git still says the old version"
    PAUSED = "rollout paused, or its gate waits for a person"
    ROLLOUT_REFUSED = "rollout refused in preparation, production serves"
    ROLLOUT_FAILED = "rollout aborted by its gate, production serves"
    ROLLOUT_ABORTED = "rollout aborted by a person"
    DISABLED = "reconcile: disabled"
    PARTLY_AVAILABLE = "some pods down, enough serve"
    SCALED_TO_ZERO = "scaled to zero on purpose"
    NOT_REPORTING = "pods serve, but do not report to the operator"
    DEADLINE_EXCEEDED = "nothing serves past the deadline"
    NAME_CONFLICT = "a child's name is taken by something that is not ours"
    INVALID_SPEC = "spec invalid in a way CEL cannot see"
    FORBIDDEN = "a quota, a policy or a missing right forbids a child"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a situation makes of each condition; None keeps what was there."""

    reason: Reason
    ready: bool | None
    progressing: bool | None
    degraded: bool | None
    reconciling: bool = False
    stalled: bool = False
    progressing_reason: Reason | None = None
    """Where it is not the row's."""


TRUTH_TABLE: Final[dict[Situation, Row]] = {
    Situation.JUST_CREATED: Row(
        reason=Reason.NOT_OBSERVED, ready=None, progressing=None, degraded=None, reconciling=True
    ),
    Situation.PODS_STARTING: Row(
        reason=Reason.PODS_STARTING, ready=False, progressing=True, degraded=False, reconciling=True
    ),
    Situation.FIRST_VERSION_REFUSED: Row(
        reason=Reason.VERIFICATION_FAILED, ready=False, progressing=False, degraded=True, stalled=True
    ),
    Situation.STEADY: Row(
        reason=Reason.SERVING,
        ready=True,
        progressing=False,
        degraded=False,
        progressing_reason=Reason.COMPLETE,
    ),
    Situation.PROMOTING: Row(
        reason=Reason.PROMOTING,
        ready=True,
        progressing=True,
        degraded=False,
        reconciling=True,
    ),
    Situation.UPDATING: Row(
        reason=Reason.UPDATING,
        ready=True,
        progressing=True,
        degraded=False,
        reconciling=True,
    ),
    Situation.UPDATE_STALLED: Row(
        reason=Reason.PROGRESS_DEADLINE_EXCEEDED,
        ready=True,
        progressing=False,
        degraded=True,
        stalled=True,
    ),
    Situation.PROMOTION_REFUSED: Row(
        reason=Reason.VERIFICATION_FAILED,
        ready=True,
        progressing=False,
        degraded=True,
        stalled=True,
    ),
    Situation.WAITING_FOR_SHADOW: Row(
        reason=Reason.WAITING_FOR_SHADOW, ready=True, progressing=True, degraded=False
    ),
    Situation.ROLLING_OUT: Row(
        reason=Reason.ROLLING_OUT, ready=True, progressing=True, degraded=False, reconciling=True
    ),
    Situation.ROLLED_OUT_IN_PART: Row(
        reason=Reason.ROLLING_OUT, ready=True, progressing=True, degraded=False
    ),
    Situation.ROLLOUT_COMPLETE: Row(
        reason=Reason.ROLLOUT_COMPLETE, ready=True, progressing=False, degraded=False
    ),
    Situation.PAUSED: Row(reason=Reason.PAUSED, ready=True, progressing=False, degraded=False),
    Situation.ROLLOUT_REFUSED: Row(
        reason=Reason.ROLLOUT_REFUSED, ready=True, progressing=False, degraded=True, stalled=True
    ),
    Situation.ROLLOUT_FAILED: Row(
        reason=Reason.ROLLOUT_ABORTED, ready=True, progressing=False, degraded=True, stalled=True
    ),
    Situation.ROLLOUT_ABORTED: Row(
        reason=Reason.ROLLOUT_ABORTED, ready=True, progressing=False, degraded=False
    ),
    Situation.DISABLED: Row(reason=Reason.RECONCILE_DISABLED, ready=None, progressing=False, degraded=False),
    Situation.PARTLY_AVAILABLE: Row(
        reason=Reason.PARTLY_AVAILABLE, ready=True, progressing=True, degraded=False, reconciling=True
    ),
    Situation.SCALED_TO_ZERO: Row(
        reason=Reason.SCALED_TO_ZERO, ready=False, progressing=False, degraded=False
    ),
    Situation.NOT_REPORTING: Row(reason=Reason.NOT_REPORTING, ready=True, progressing=None, degraded=True),
    Situation.DEADLINE_EXCEEDED: Row(
        reason=Reason.PROGRESS_DEADLINE_EXCEEDED, ready=False, progressing=False, degraded=True, stalled=True
    ),
    Situation.NAME_CONFLICT: Row(
        reason=Reason.NAME_CONFLICT, ready=None, progressing=False, degraded=True, stalled=True
    ),
    Situation.INVALID_SPEC: Row(
        reason=Reason.INVALID_SPEC, ready=None, progressing=False, degraded=True, stalled=True
    ),
    Situation.FORBIDDEN: Row(
        reason=Reason.FORBIDDEN, ready=None, progressing=False, degraded=True, stalled=True
    ),
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The situation, and what to tell about it."""

    situation: Situation
    message: str


def build_conditions(
    verdict: Verdict, *, before: Sequence[Condition], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return the conditions of a situation; a time of transition moves only with the status."""
    row = TRUTH_TABLE[verdict.situation]
    known = {condition.type: condition for condition in before}
    wanted: list[tuple[ConditionType, bool | None, Reason]] = [
        (ConditionType.READY, row.ready, row.reason),
        (ConditionType.PROGRESSING, row.progressing, row.progressing_reason or row.reason),
        (ConditionType.DEGRADED, row.degraded, row.reason),
    ]
    if row.reconciling:
        wanted.append((ConditionType.RECONCILING, True, row.reason))
    if row.stalled:
        wanted.append((ConditionType.STALLED, True, row.reason))
    return tuple(
        _build_row_condition(
            name,
            value=value,
            reason=reason,
            message=verdict.message,
            before=known.get(name),
            generation=generation,
            now=now,
        )
        for name, value, reason in wanted
    )


def _build_row_condition(
    name: ConditionType,
    *,
    value: bool | None,
    reason: Reason,
    message: str,
    before: Condition | None,
    generation: int,
    now: datetime,
) -> Condition:
    if value is None and before is not None:
        return before  # its generation too: nothing has been observed of the newer spec
    if value is None:
        status, reason = ConditionStatus.UNKNOWN, Reason.NOT_OBSERVED
    else:
        status = ConditionStatus.TRUE if value else ConditionStatus.FALSE
    return build_condition(
        name, status=status, reason=reason, message=message, before=before, generation=generation, now=now
    )


def build_condition(
    name: ConditionType,
    *,
    status: ConditionStatus,
    reason: Reason,
    message: str,
    before: Condition | None,
    generation: int,
    now: datetime,
) -> Condition:
    """Return one condition; its time of transition moves only with the status."""
    unchanged = before is not None and before.status == status
    return Condition(
        type=name.value,
        status=status,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if unchanged and before else format_timestamp(now),
        reason=reason.value,
        message=message,
    )


def find_condition(conditions: Sequence[Condition], name: ConditionType) -> Condition | None:
    """Return one condition, None where it is not there."""
    return next((condition for condition in conditions if condition.type == name.value), None)


def keep_condition(conditions: Sequence[Condition], name: ConditionType) -> tuple[Condition, ...]:
    """Return one condition as it was, for a pass that could not look; nothing where it is not there."""
    condition = find_condition(conditions, name)
    return () if condition is None else (condition,)
