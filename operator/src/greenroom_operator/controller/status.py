"""What a user is told: observed world and plan -> status, conditions, events. Pure."""

from collections.abc import Sequence
from datetime import datetime

from greenroom_operator.api.fields import Condition, ConditionStatus
from greenroom_operator.api.modeldeployment import (
    HISTORY_LENGTH,
    GoldenResult,
    HistoryEntry,
    LastFailure,
    ModelDeploymentStatus,
    PredictionLogStatus,
    PromotionState,
    VersionStatus,
)
from greenroom_operator.api.modeldeployment import Promotion as PromotionStatus
from greenroom_operator.api.rollout import RolloutStatus
from greenroom_operator.api.times import format_timestamp, parse_duration, parse_timestamp
from greenroom_operator.controller.conditions import (
    ConditionType,
    Reason,
    Situation,
    Verdict,
    build_conditions,
    find_condition,
    keep_condition,
)
from greenroom_operator.controller.context import Observed
from greenroom_operator.controller.features import (
    build_features,
    build_features_condition,
    find_features_news,
)
from greenroom_operator.controller.prediction_log import build_prediction_log
from greenroom_operator.controller.preparation import Refusal
from greenroom_operator.controller.promotion import Promotion
from greenroom_operator.controller.release import ReleasePlan
from greenroom_operator.controller.rollout_status import (
    build_rollout,
    find_rollout_history,
    find_rollout_transition,
    judge_ended_rollout,
    judge_rollout,
)
from greenroom_operator.controller.shadow_status import (
    build_shadow,
    build_shadow_condition,
    find_shadow_transitions,
)
from greenroom_operator.controller.texts import Transition, clip
from greenroom_operator.resources.ownership import build_selector
from greenroom_operator.resources.service import service_url
from greenroom_runtime.contract import names
from greenroom_runtime.contract.report import VersionReport, VersionState


def read_promotion(status: ModelDeploymentStatus, *, now: datetime) -> Promotion | None:
    """Return the promotion that status remembers."""
    known = status.promotion
    if known is None:
        return None
    started = parse_timestamp(known.start_time) if known.start_time else now
    return Promotion(version=known.version, state=known.state, started=started)


def judge(observed: Observed, plan: ReleasePlan, *, now: datetime) -> Verdict:
    """Decide which row of the truth table holds, and what to say about it."""
    if observed.deployment.spec.replicas == 0:
        return Verdict(situation=Situation.SCALED_TO_ZERO, message="spec.replicas is 0: nothing serves")
    if observed.workload.ready == 0:
        return _judge_unserved(observed, plan, now=now)
    refusal = _tell_refusal(observed, plan) or _tell_stuck(observed, plan)
    if refusal is not None:
        return Verdict(situation=Situation.PROMOTION_REFUSED, message=refusal)
    if _nobody_answers(observed):
        message = (
            f"pods serve, but do not answer the operator on port {names.ADMIN_PORT}: "
            "is a NetworkPolicy in the way?"
        )
        return Verdict(situation=Situation.NOT_REPORTING, message=message)
    if plan.promotion is not None and plan.promoting:
        return Verdict(situation=Situation.PROMOTING, message=_tell_promotion(observed, plan, plan.promotion))
    return (
        judge_ended_rollout(observed, plan)
        or _judge_pods(observed, production=plan.flags.production)
        or judge_rollout(observed, plan)
        or _judge_steady(observed, production=plan.flags.production)
    )


def _nobody_answers(observed: Observed) -> bool:
    """Whether every pod that gets traffic has been asked in vain, for long enough to say so."""
    serving = [view for view in observed.views if view.ready]
    return bool(serving) and all(view.report is None and view.silent for view in serving)


def _judge_pods(observed: Observed, *, production: str) -> Verdict | None:
    """Judge pods of which at least one serves; None where they are as they should be."""
    deployment, workload = observed.deployment, observed.workload
    wanted = deployment.spec.replicas
    if workload.deadline_exceeded:
        message = (
            f"new pods do not come up within {deployment.spec.progress_deadline}; "
            f"{production} goes on serving: {_advise(observed)}"
        )
        return Verdict(situation=Situation.UPDATE_STALLED, message=message)
    if workload.ready < wanted:
        message = f"{workload.ready} of {wanted} pods serve {production}"
        return Verdict(situation=Situation.PARTLY_AVAILABLE, message=message)
    if not workload.current or workload.updated < wanted or workload.replicas > wanted:
        return Verdict(situation=Situation.UPDATING, message=f"pods are being replaced; {production} serves")
    return None


def _judge_steady(observed: Observed, *, production: str) -> Verdict:
    wanted = observed.deployment.spec.replicas
    pods = "1 pod" if wanted == 1 else f"{wanted} pods"
    return Verdict(situation=Situation.STEADY, message=f"{production} serves on {pods}")


def _advise(observed: Observed) -> str:
    return f"see kubectl describe pods -l {names.LABEL_DEPLOYMENT}={observed.deployment.metadata.name}"


def _judge_unserved(observed: Observed, plan: ReleasePlan, *, now: datetime) -> Verdict:
    production, spec = plan.flags.production, observed.deployment.spec
    failed = _find_production_failure(observed, production)
    if failed is not None and not plan.promoting:
        return Verdict(
            situation=Situation.FIRST_VERSION_REFUSED,
            message=clip(f"{production} was refused: {failed.reason}: {failed.message}"),
        )
    since = _waiting_since(observed, now=now)
    if since is None or now - since >= parse_duration(spec.progress_deadline):
        message = f"no pod serves {production} within {spec.progress_deadline}: {_advise(observed)}"
        return Verdict(situation=Situation.DEADLINE_EXCEEDED, message=message)
    return Verdict(situation=Situation.PODS_STARTING, message=_tell_start(observed, production))


def _waiting_since(observed: Observed, *, now: datetime) -> datetime | None:
    """Return when the wait for a first ready pod began; None once it was too long for this very spec."""
    before = observed.deployment.status
    ready = find_condition(before.conditions, ConditionType.READY)
    progressing = find_condition(before.conditions, ConditionType.PROGRESSING)
    if ready is None or progressing is None or ready.status is ConditionStatus.TRUE:
        return now
    if progressing.status is ConditionStatus.TRUE:
        return max(
            parse_timestamp(ready.last_transition_time), parse_timestamp(progressing.last_transition_time)
        )
    gave_up = progressing.reason == Reason.PROGRESS_DEADLINE_EXCEEDED.value
    same_spec = before.observed_generation == observed.deployment.metadata.generation
    return None if gave_up and same_spec else now


def _tell_start(observed: Observed, production: str) -> str:
    for view in sorted(observed.views, key=lambda view: view.name):
        seen = view.report.version(production) if view.report else None
        if seen is not None and seen.message:
            return clip(
                f"waiting for a pod to serve {production}: {view.name} is {seen.state}: {seen.message}"
            )
    return f"waiting for a pod to serve {production}"


def _find_production_failure(observed: Observed, production: str) -> Refusal | None:
    """Return why no pod serves production, where every pod that reports says that it cannot."""
    reports = [(view, view.report) for view in sorted(observed.views, key=lambda v: v.name) if view.report]
    failures = [
        Refusal.by_pod(view.name, version=production, failure=seen.failure)
        for view, report in reports
        if (seen := report.version(production)) is not None and seen.failure is not None
    ]
    return failures[0] if failures and len(failures) == len(reports) else None


def _find_stuck(observed: Observed, plan: ReleasePlan) -> Refusal | None:
    """Return why a pod that gets traffic does not switch: it was not heard when the others proved it."""
    for view in sorted(observed.views, key=lambda view: view.name):
        seen = view.version(plan.flags.production, revision=plan.flags.revision) if view.ready else None
        if seen is not None and seen.failure is not None:
            return Refusal.by_pod(view.name, version=seen.name, failure=seen.failure)
    return None


def _tell_stuck(observed: Observed, plan: ReleasePlan) -> str | None:
    stuck = _find_stuck(observed, plan)
    if stuck is None:
        return None
    return clip(
        f"pod {stuck.pod} cannot serve {stuck.version}, and goes on with the version before: "
        f"{stuck.reason}: {stuck.message}"
    )


def _tell_refusal(observed: Observed, plan: ReleasePlan) -> str | None:
    """Say the same in the pass that refuses and in all that follow, which know it from status."""
    promotion, status = plan.promotion, observed.deployment.status
    if promotion is None or promotion.state is not PromotionState.REFUSED:
        return None
    version = promotion.version
    if promotion.refusal is not None:
        pod, told = promotion.refusal.pod, (promotion.refusal.reason, promotion.refusal.message)
    else:
        known, failure = status.promotion, status.last_failure
        pod = failure.pod if failure and failure.version == version else ""
        told = (known.reason or "", known.message or "") if known else ("", "")
    where = f" on pod {pod}" if pod else ""
    why = "".join(f": {part}" for part in told if part)
    return clip(f"{version} was refused{where}{why}; {plan.flags.production} goes on serving")


def _tell_promotion(observed: Observed, plan: ReleasePlan, promotion: Promotion) -> str:
    flags = plan.flags
    if promotion.state is PromotionState.COMMITTING:
        return f"pods are switching to {flags.production}"
    if promotion.version not in flags.resident:
        return f"{promotion.version} is proven once pods have been replaced; {flags.production} serves"
    if flags.first:
        return f"{flags.first} proves {promotion.version} before the others; {flags.production} serves"
    waiting = [
        f"{view.name}: {seen.message}"
        for view in sorted(observed.views, key=lambda view: view.name)
        if (seen := view.report.version(promotion.version) if view.report else None) and seen.message
    ]
    told = f"pods prove {promotion.version}; {flags.production} serves"
    return clip(f"{told} ({waiting[0]})" if waiting else told)


def build_status(
    observed: Observed, plan: ReleasePlan, verdict: Verdict, *, now: datetime, action: str | None = None
) -> ModelDeploymentStatus:
    """Return the whole status of a pass that could observe and plan."""
    deployment, workload, before = observed.deployment, observed.workload, observed.deployment.status
    generation = deployment.metadata.generation
    features = build_features(observed, now=now)
    rollout, shadow = build_rollout(observed, plan, now=now), build_shadow(observed, plan, now=now)
    return ModelDeploymentStatus(
        observed_generation=generation,
        conditions=(
            *build_conditions(verdict, before=before.conditions, generation=generation, now=now),
            *build_features_condition(observed, features, now=now),
            *build_shadow_condition(observed, shadow, now=now),
        ),
        version=_find_served(observed) or before.version,
        previous_version=plan.flags.previous or None,
        versions=_build_versions(observed, plan),
        promotion=_build_promotion(observed, plan),
        rollout=rollout,
        shadow=shadow,
        replicas=workload.replicas,
        ready_replicas=workload.ready,
        replica_summary=f"{workload.ready}/{deployment.spec.replicas}",
        selector=",".join(f"{key}={value}" for key, value in sorted(build_selector(deployment).items())),
        url=service_url(deployment),
        last_failure=_build_last_failure(observed, plan, now=now),
        prediction_log=build_prediction_log(observed, now=now),
        features=features,
        last_handled_action=action or before.last_handled_action,
        history=_build_history(observed, plan, rollout, now=now),
    )


def build_blocked_status(
    deployment_status: ModelDeploymentStatus, verdict: Verdict, *, generation: int, now: datetime
) -> ModelDeploymentStatus:
    """Return the status of a pass that could not plan: all that was known stays, the conditions say why."""
    conditions = build_conditions(
        verdict, before=deployment_status.conditions, generation=generation, now=now
    )
    known = deployment_status.conditions
    kept = (
        *keep_condition(known, ConditionType.FEATURES_HEALTHY),
        *keep_condition(known, ConditionType.SHADOW_HEALTHY),
    )
    return deployment_status.model_copy(
        update={"observed_generation": generation, "conditions": (*conditions, *kept)}
    )


def _find_served(observed: Observed) -> str | None:
    """Return the version that every ready pod says it serves; None while they differ or say nothing."""
    served = {view.report.production for view in observed.views if view.ready and view.report}
    return served.pop() or None if len(served) == 1 else None


def _build_versions(observed: Observed, plan: ReleasePlan) -> tuple[VersionStatus, ...]:
    known = {version.name: version for version in observed.deployment.status.versions}
    unheard = any(view.unheard for view in observed.views)
    return tuple(
        known[version]
        if unheard and version in known
        else _build_version(
            version, _reports_of(observed, version), digest=plan.flags.digests.get(version, "")
        )
        for version in sorted(plan.flags.resident)
    )


def _reports_of(observed: Observed, version: str) -> list[VersionReport]:
    seen = [view.report.version(version) for view in observed.views if view.report]
    return [report for report in seen if report is not None]


def _build_version(name: str, reports: Sequence[VersionReport], *, digest: str) -> VersionStatus:
    ready = [report for report in reports if report.state is VersionState.READY]
    golden = next((report.golden for report in ready if report.golden), "")
    memory = max((report.memory_bytes for report in ready), default=0)
    return VersionStatus(
        name=name,
        digest=digest,
        pods_ready=len(ready),
        golden=GoldenResult(golden) if golden in set(GoldenResult) else None,
        # Whole steps of 16Mi: pods differ a little, and a restart must not rewrite the status.
        memory=f"{-(-memory // 2**24) * 16}Mi" if memory else None,
    )


def _build_promotion(observed: Observed, plan: ReleasePlan) -> PromotionStatus | None:
    promotion = plan.promotion
    if promotion is None:
        return None
    known = observed.deployment.status.promotion
    if known is not None and (known.version, known.state) != (promotion.version, promotion.state):
        known = None
    counted = None if plan.promoting else known
    refusal = promotion.refusal
    done = [
        view
        for view in observed.views
        if view.report
        and _has_done(view.report.version(promotion.version), view.report.production, promotion)
    ]
    return PromotionStatus(
        version=promotion.version,
        state=promotion.state,
        start_time=format_timestamp(promotion.started),
        pods_ready=counted.pods_ready if counted else len(done),
        pods_total=counted.pods_total if counted else len(observed.views),
        reason=refusal.reason if refusal else (known.reason if known else None),
        message=clip(refusal.message) if refusal else (known.message if known else None),
    )


def _has_done(seen: VersionReport | None, production: str, promotion: Promotion) -> bool:
    if promotion.state in (PromotionState.COMMITTING, PromotionState.COMPLETE):
        return production == promotion.version
    return seen is not None and seen.state is VersionState.READY


def _build_last_failure(observed: Observed, plan: ReleasePlan, *, now: datetime) -> LastFailure | None:
    before = observed.deployment.status.last_failure
    refused = (plan.promotion.refusal if plan.promotion else None) or (
        plan.rollout.refusal if plan.rollout else None
    )
    refusal = refused
    if refusal is None and observed.workload.ready == 0 and not plan.promoting:
        refusal = _find_production_failure(observed, plan.flags.production)
    refusal = refusal or _find_stuck(observed, plan)
    if refusal is None:
        return before
    fresh = refusal is refused
    same = before is not None and (before.version, before.reason) == (refusal.version, refusal.reason)
    if same and not fresh:
        return before  # a pod that tries again and fails again is no news
    failure = refusal.failure
    return LastFailure(
        version=refusal.version,
        pod=refusal.pod,
        reason=refusal.reason,
        message=clip(refusal.message),
        file=(failure.file or None) if failure else None,
        sample=failure.sample if failure else None,
        expected=(failure.expected or None) if failure else None,
        found=(failure.found or None) if failure else None,
        time=format_timestamp(now),
    )


def _build_history(
    observed: Observed, plan: ReleasePlan, rollout: RolloutStatus | None, *, now: datetime
) -> tuple[HistoryEntry, ...]:
    before = observed.deployment.status
    news = [
        _find_promotion_history(before, plan.promotion, now=now),
        find_rollout_history(before.rollout, rollout, now=now),
    ]
    return (*(entry for entry in news if entry is not None), *before.history)[:HISTORY_LENGTH]


def _find_promotion_history(
    before: ModelDeploymentStatus, promotion: Promotion | None, *, now: datetime
) -> HistoryEntry | None:
    known = before.promotion
    if promotion is None or promotion.state not in (PromotionState.COMPLETE, PromotionState.REFUSED):
        return None
    if known is not None and (known.version, known.state) == (promotion.version, promotion.state):
        return None
    promoted = promotion.state is PromotionState.COMPLETE
    refusal = promotion.refusal
    return HistoryEntry(
        time=format_timestamp(now),
        version=promotion.version,
        event=Reason.PROMOTED.value if promoted else "Refused",
        message=clip(f"{refusal.reason}: {refusal.message}") if refusal else None,
    )


def find_transitions(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> list[Transition]:
    """Return what has changed for a person; the same status twice is no news."""
    found = []
    if promotion := _find_promotion_transition(before, after):
        found.append(promotion)
    if rollout := find_rollout_transition(before, after):
        found.append(rollout)
    told = {transition.message for transition in found}
    for name in (ConditionType.READY, ConditionType.DEGRADED):
        transition = _find_condition_transition(name, before.conditions, after.conditions)
        if transition is not None and transition.message not in told:
            found.append(transition)
            told.add(transition.message)
    if not found and (recovery := _find_recovery(before.conditions, after.conditions)):
        found.append(recovery)
    if logging := _find_log_transition(before.prediction_log, after.prediction_log):
        found.append(logging)
    if fetching := find_features_news(before.features, after.features):
        found.append(Transition(**fetching._asdict()))
    return [*found, *find_shadow_transitions(before, after)]


def _find_promotion_transition(
    before: ModelDeploymentStatus, after: ModelDeploymentStatus
) -> Transition | None:
    old, new = before.promotion, after.promotion
    if new is None or (old is not None and (old.version, old.state) == (new.version, new.state)):
        return None
    if new.state is PromotionState.PREPARING:
        message = f"{new.version} is being proven; {before.version or 'nothing'} serves"
        return Transition(warning=False, reason=Reason.PROMOTING.value, message=message)
    if new.state is PromotionState.COMPLETE:
        return Transition(
            warning=False, reason=Reason.PROMOTED.value, message=f"production is {new.version} on every pod"
        )
    if new.state is PromotionState.REFUSED:
        degraded = find_condition(after.conditions, ConditionType.DEGRADED)
        message = degraded.message if degraded else (new.message or "")
        return Transition(warning=True, reason=Reason.VERIFICATION_FAILED.value, message=message)
    return None


def _find_condition_transition(
    name: ConditionType, before: Sequence[Condition], after: Sequence[Condition]
) -> Transition | None:
    old, new = find_condition(before, name), find_condition(after, name)
    if new is None or new.status is ConditionStatus.UNKNOWN or (old is not None and old.status == new.status):
        return None
    good = ConditionStatus.TRUE if name is ConditionType.READY else ConditionStatus.FALSE
    if new.status is good and name is ConditionType.DEGRADED:
        return None  # Ready or the promotion tell it, or the recovery does
    unknown_before = old is None or old.status is ConditionStatus.UNKNOWN
    if unknown_before and new.reason == Reason.PODS_STARTING.value:
        return None  # nothing was ready before either
    intended = new.status is good or new.reason == Reason.SCALED_TO_ZERO.value
    return Transition(warning=not intended, reason=new.reason, message=new.message)


def _find_recovery(before: Sequence[Condition], after: Sequence[Condition]) -> Transition | None:
    """Return that nobody needs to look any more, where pods served all the while."""
    old, new = find_condition(before, ConditionType.DEGRADED), find_condition(after, ConditionType.DEGRADED)
    if old is None or old.status is not ConditionStatus.TRUE or new is None:
        return None
    if new.status is not ConditionStatus.FALSE:
        return None
    return Transition(warning=False, reason=new.reason, message=new.message)


def _find_log_transition(
    before: PredictionLogStatus | None, after: PredictionLogStatus | None
) -> Transition | None:
    """Return that pods cannot log predictions, or have lost the first ones, or that none complains now."""
    failed_before = before is not None and before.error is not None
    reason = Reason.PREDICTION_LOG_FAILING.value
    if after is not None and after.error is not None and not failed_before:
        message = f"pod {after.pod} cannot log predictions, its answers are not affected: {after.error}"
        return Transition(warning=True, reason=reason, message=message)
    if after is not None and before is None:
        message = f"pod {after.pod} has lost records of predictions; its answers are not affected"
        return Transition(warning=True, reason=reason, message=message)
    if failed_before and (after is None or after.error is None):
        return Transition(
            warning=False,
            reason=Reason.PREDICTION_LOG_RECOVERED.value,
            message="no pod complains of its prediction log any more",
        )
    return None


def next_look(observed: Observed, plan: ReleasePlan) -> float:
    """Return the seconds after which time alone may change the verdict.

    A deadline, a hold that is over, a pod that has gone silent; and counters tell nobody that they change.
    """
    waiting = observed.workload.ready == 0 and observed.deployment.spec.replicas > 0
    return 5.0 if plan.active or plan.watched or waiting else 60.0
