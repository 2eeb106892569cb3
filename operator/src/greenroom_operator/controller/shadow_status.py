"""What a user is told of a shadow, and what the operator itself remembers of it in status. Pure.

Nothing of it is part of Ready or Degraded: whatever a shadow does, production is served as promised.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from greenroom_operator.api.fields import Condition, ConditionStatus
from greenroom_operator.api.modeldeployment import ModelDeploymentStatus
from greenroom_operator.api.shadow import SegmentStatus, ShadowState, ShadowStatus
from greenroom_operator.api.times import format_timestamp, parse_timestamp
from greenroom_operator.controller.conditions import (
    ConditionType,
    Reason,
    build_condition,
    find_condition,
)
from greenroom_operator.controller.context import Observed
from greenroom_operator.controller.gate import Outcome
from greenroom_operator.controller.release import ReleasePlan
from greenroom_operator.controller.shadow import LATCHED, ShadowProgress, holds
from greenroom_operator.controller.shadow_counts import Counted, ShadowView, dump_counted, parse_counted
from greenroom_operator.controller.shadow_gate import ShadowEvidence, dump_evidence, parse_evidence
from greenroom_operator.controller.texts import Transition, clip
from greenroom_operator.resources.service import shadow_name
from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import WHOLE
from greenroom_runtime.contract.report import VersionState
from greenroom_runtime.contract.shadow import DIFFERENCE_BOUNDS, SECONDS_BOUNDS, EndReason, ShadowCounts

COUNTED_EVERY: Final = timedelta(seconds=30)
TROUBLED_FOR: Final = timedelta(minutes=5)
"""How long a shadow is called broken after its process has ended: one that does not stay up never is well."""
_COUNTERS: Final = (
    "summary",
    "requests",
    "disagreements",
    "disagreement_percent",
    "errors",
    "not_comparable",
    "dropped",
    "latency_ratio",
    "differences",
    "segments",
    "message",
    "error",
    "evidence",
    "counted",
    "observed_time",
)
"""What changes all the while, and is written every 30 seconds, or with something that matters."""
_PASSING: Final = re.compile(r"\bpod [a-z0-9.-]+|[0-9]+")
"""What changes of a message while the same is wrong: which pod complains first, and numbers."""
_ENDED: Final[Mapping[EndReason, str]] = {
    EndReason.CRASHED: "crashed",
    EndReason.HUNG: "hung",
    EndReason.OUT_OF_MEMORY: "ran out of memory",
}


def read_shadow(status: ModelDeploymentStatus) -> ShadowProgress | None:
    """Return the shadow that status remembers."""
    known = status.shadow
    if known is None:
        return None
    latched = known.verdict in {outcome.value for outcome in LATCHED}
    return ShadowProgress(
        version=known.version,
        over=known.state is ShadowState.OVER,
        digest=known.digest or "",
        epoch=known.epoch or "",
        begun=parse_timestamp(known.start_time) if known.start_time else None,
        attempt=known.attempt or "",
        counted=_read_counted(known.counted),
        evidence=_read_evidence(known.evidence),
        verdict=Outcome(known.verdict) if known.verdict and latched else Outcome.INCONCLUSIVE,
        message=known.message or "" if latched else "",
    )


def _read_counted(text: str | None) -> Counted:
    """Return what was counted; nothing where that is not to be read any more: shadows tell it again."""
    try:
        return parse_counted(text) if text else Counted()
    except ValueError:
        return Counted()


def _read_evidence(text: str | None) -> ShadowEvidence | None:
    try:
        return parse_evidence(json.loads(text)) if text else None
    except ValueError:
        return None


def build_shadow(observed: Observed, plan: ReleasePlan, *, now: datetime) -> ShadowStatus | None:
    """Return what status should remember: counters every 30 seconds, all else at once.

    Counters, and what each shadow had told by then, are never apart: both are this one part of status.
    """
    before, progress = observed.deployment.status.shadow, plan.shadow
    if progress is None:
        return None
    if progress.over:
        return ShadowStatus(
            version=progress.version,
            state=ShadowState.OVER,
            message=f"{progress.version} is production: there is nothing to compare",
        )
    found = _describe(observed, plan, progress, now=now)
    if before is None or _gist(before) != _gist(found) or before.observed_time is None:
        return found
    if _read_counted(before.counted).lives != progress.counted.lives:
        return found
    same = before == found.model_copy(update={"observed_time": before.observed_time})
    return before if same or now - parse_timestamp(before.observed_time) < COUNTED_EVERY else found


def _gist(status: ShadowStatus) -> dict[str, Any]:
    counters = set(_COUNTERS) - ({"message"} if status.state is ShadowState.WAITING else set())
    return status.model_dump(exclude=counters)


def _describe(
    observed: Observed, plan: ReleasePlan, progress: ShadowProgress, *, now: datetime
) -> ShadowStatus:
    total = progress.counted.total
    state, told = _find_state(observed, plan, progress)
    compared = progress.compares or bool(progress.epoch)
    percent = _spell_percent(total.disagreed, of=total.compared)
    waits = state in (ShadowState.PREPARING, ShadowState.WAITING) and progress.verdict not in LATCHED
    return ShadowStatus(
        version=progress.version,
        digest=progress.digest or None,
        state=state,
        summary=f"{percent}%" if percent else None,
        requests=total.compared + total.failed if compared else None,
        disagreements=total.disagreed if compared else None,
        disagreement_percent=percent or None,
        errors=total.failed if compared else None,
        not_comparable=total.not_comparable if compared else None,
        dropped=progress.counted.dropped if compared else None,
        latency_ratio=_spell_latency_ratio(total) or None,
        differences=_spell_differences(total) or None,
        segments=_build_segments(plan, total),
        verdict=progress.verdict.value if compared else None,
        message=clip(told if waits else progress.message) or None,
        error=clip(told) if state is ShadowState.BROKEN else None,
        epoch=progress.epoch or None,
        start_time=format_timestamp(progress.begun) if progress.begun else None,
        attempt=progress.attempt or None,
        evidence=_write_evidence(progress.evidence) if progress.evidence else None,
        counted=dump_counted(progress.counted),
        observed_time=format_timestamp(now),
    )


def _write_evidence(evidence: ShadowEvidence) -> str:
    return json.dumps(dump_evidence(evidence), separators=(",", ":"), sort_keys=True)


def _build_segments(plan: ReleasePlan, total: ShadowCounts) -> tuple[SegmentStatus, ...]:
    segments = plan.flags.shadow.segments if plan.flags.shadow else ()
    counted = [*total.segments, *[None] * len(segments)]
    return tuple(
        SegmentStatus(
            name=f"{attribute}={value}",
            requests=counts.compared if counts else 0,
            disagreements=counts.disagreed if counts else 0,
        )
        for (attribute, value), counts in zip(segments, counted, strict=False)
    )


# Numbers for people


def _spell_percent(part: int, *, of: int) -> str:
    """Return a share in percent with two figures that count, empty of nothing: ``0.4``, ``12``."""
    if not of:
        return ""
    percent = Decimal(100 * part) / Decimal(of)
    return f"{float(percent):.2g}" if percent < 10 else f"{float(percent):.0f}"  # noqa: PLR2004 two figures


def _spell_latency_ratio(total: ShadowCounts) -> str:
    ours = _find_quantile(total.seconds, SECONDS_BOUNDS, 0.5)
    production = _find_quantile(total.production_seconds, SECONDS_BOUNDS, 0.5)
    return f"{ours / production:.2g}" if ours and production else ""


def _find_quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float:
    """Return the value that this share of what was counted is not above, between two bounds as if even."""
    wanted, below = share * sum(counts), 0
    for at, count in enumerate(counts):
        if count and below + count >= wanted:
            lower = bounds[at - 1] if at else bounds[0] / 2
            upper = bounds[at] if at < len(bounds) else bounds[-1] * 2
            return float(lower * (upper / lower) ** ((wanted - below) / count))
        below += count
    return 0.0


def _spell_differences(total: ShadowCounts) -> str:
    """Return within which bounds half, 99 % and all of the differences are."""
    if not sum(total.differences):
        return ""
    return ", ".join(
        f"{name} {_spell_bound(total.differences, share)}"
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    )


def _spell_bound(counts: Sequence[int], share: float) -> str:
    wanted, so_far = share * sum(counts), 0
    for count, bound in zip(counts, DIFFERENCE_BOUNDS, strict=False):
        so_far += count
        if so_far >= wanted:
            return f"<={bound:g}"
    return f">{DIFFERENCE_BOUNDS[-1]:g}"


# How it is


def _find_state(observed: Observed, plan: ReleasePlan, progress: ShadowProgress) -> tuple[ShadowState, str]:
    """Return the state, and why it is that one; what was known stays until shadows have had time to speak."""
    before = observed.deployment.status.shadow
    present = [view for view in observed.shadows if not view.gone]
    if progress.halted:
        return ShadowState.PREPARING, _tell_preparation(progress, present)
    known = before is not None and (before.version, before.epoch) == (progress.version, progress.epoch)
    if before is not None and known and any(view.unheard for view in present):
        return before.state, (before.error or before.message or "")
    if trouble := _find_trouble(observed, progress, present):
        return ShadowState.BROKEN, trouble
    held = [view for view in present if _has(view, progress)]
    if not progress.compares or not progress.digest or not held:  # what is pinned is counted anew
        return ShadowState.PREPARING, _tell_preparation(progress, present)
    if waiting := _tell_wait(observed, plan, progress):
        return ShadowState.WAITING, waiting
    return ShadowState.COMPARING, f"its answers are compared with those of {plan.flags.production}"


def _has(view: ShadowView, progress: ShadowProgress) -> bool:
    report = view.report
    running = report is not None and report.running and report.process is not None
    return (
        running
        and report is not None
        and report.process is not None
        and holds(report.process, version=progress.version, epoch=progress.epoch)
    )


def _find_trouble(observed: Observed, progress: ShadowProgress, present: Sequence[ShadowView]) -> str:
    """Say what is wrong with the first shadow that something is wrong with; empty where nothing is."""
    views = sorted(present, key=lambda view: view.pod)
    for view in views:
        if view.report is not None and (
            trouble := _find_failure(view, progress) or _find_end(view, progress)
        ):
            return trouble
    if views and all(view.report is None and view.silent for view in views):
        return (
            f"shadows do not answer the operator on port {names.SHADOW_PORT}: "
            "is a NetworkPolicy in the way, or does the container not come up?"
        )
    if observed.shadow_workload.deadline_exceeded:
        return f"the pods of Deployment {shadow_name(observed.deployment)} do not come up: describe them"
    return _find_drops(observed, progress, views)


def _find_failure(view: ShadowView, progress: ShadowProgress) -> str:
    process = view.report.process if view.report else None
    if process is None:
        return ""
    if process.flags_error:
        return f"the shadow of pod {view.pod} refuses the flag store: {process.flags_error}"
    seen, remedy = process.version, f"the action retry/{progress.version} tries again"
    if seen is None or seen.name != progress.version:
        return ""
    if seen.state is VersionState.FAILED:
        why = f": {seen.failure.reason}: {seen.failure.message}" if seen.failure else ""
        return (
            f"the shadow of pod {view.pod} cannot hold {progress.version}{why}; once that is mended, {remedy}"
        )
    proven = holds(process, version=progress.version, epoch=progress.epoch)
    if proven and progress.digest and seen.digest != progress.digest:
        return (
            f"the shadow of pod {view.pod} holds {seen.digest}, but {progress.digest} was proven under this "
            f"name; {remedy}"
        )
    return ""


def _find_end(view: ShadowView, progress: ShadowProgress) -> str:
    report = view.report
    if report is None or report.end is None or report.end.seconds_ago > TROUBLED_FOR.total_seconds():
        return ""
    end, known = report.end, progress.counted.shadows.get(view.uid)
    if known is not None and report.ends <= known.ends_before:
        return ""  # of what was compared before: another version has not earned it
    return f"the shadow process of pod {view.pod} {_ENDED[end.reason]}: {end.message}"


def _find_drops(observed: Observed, progress: ShadowProgress, views: Sequence[ShadowView]) -> str:
    """Say that nothing arrives, although there is a shadow that could take it."""
    if not any(_has(view, progress) for view in views):
        return ""
    serving = [view for view in sorted(observed.views, key=lambda view: view.name) if view.ready]
    mirrors = [(view.name, view.report.mirror) for view in serving if view.report]
    if not mirrors or not all(mirror is not None and mirror.error for _, mirror in mirrors):
        return ""
    pod, mirror = mirrors[0]
    return f"pod {pod} cannot hand requests to its shadow: {mirror.error if mirror else ''}"


def _tell_preparation(progress: ShadowProgress, present: Sequence[ShadowView]) -> str:
    if progress.halted and progress.attempt and not progress.epoch:
        return f"shadows let go of {progress.version}, to try it again"
    if progress.halted:
        return "it is compared once pods have been replaced"
    if not present:
        return "there is no pod with a shadow yet"
    for view in sorted(present, key=lambda view: view.pod):
        seen = view.report.process.version if view.report and view.report.process else None
        if seen is not None and seen.name == progress.version and seen.message:
            return f"{view.pod} is {seen.state}: {seen.message}"
    return f"shadows prove {progress.version}"


def _tell_wait(observed: Observed, plan: ReleasePlan, progress: ShadowProgress) -> str:
    """Say why there is nothing to compare; empty where there is."""
    rollout = plan.flags.rollout
    if rollout is not None and rollout.hundredths == WHOLE:
        return (
            f"no production traffic: {rollout.version} is rolled out to all users, and only the answers of "
            f"{plan.flags.production} are compared"
        )
    shadow = plan.flags.shadow
    if shadow is not None and not shadow.hundredths:
        return "spec.shadow.percent is 0: no requests are mirrored"
    if observed.deployment.spec.replicas == 0:
        return "spec.replicas is 0: nothing serves"
    total = progress.counted.total
    return "" if total.received else "no request has been mirrored yet"


# The condition


def build_shadow_condition(
    observed: Observed, shadow: ShadowStatus | None, *, now: datetime
) -> tuple[Condition, ...]:
    """Return the condition ShadowHealthy, nothing where there is no shadow."""
    deployment = observed.deployment
    if shadow is None:
        return ()
    status, reason, message = _judge_health(shadow)
    before = find_condition(deployment.status.conditions, ConditionType.SHADOW_HEALTHY)
    unchanged = before is not None and before.status == status
    if before is not None and unchanged and before.reason == reason.value and reason is Reason.SHADOW_BROKEN:
        message = before.message if _is_same_trouble(before.message, clip(message)) else message
    condition = build_condition(
        ConditionType.SHADOW_HEALTHY,
        status=status,
        reason=reason,
        message=clip(message),
        before=before,
        generation=deployment.metadata.generation,
        now=now,
    )
    return (condition,)


def _is_same_trouble(one: str, other: str) -> bool:
    return _PASSING.sub("", one) == _PASSING.sub("", other)


def _judge_health(shadow: ShadowStatus) -> tuple[ConditionStatus, Reason, str]:
    told, version = shadow.message or "", shadow.version
    if shadow.state is ShadowState.BROKEN:
        return ConditionStatus.FALSE, Reason.SHADOW_BROKEN, shadow.error or told
    if shadow.verdict == Outcome.FAIL:
        return ConditionStatus.FALSE, Reason.SHADOW_FAILED, f"{version} has failed: {told}"
    if shadow.verdict == Outcome.PASS:
        return ConditionStatus.TRUE, Reason.SHADOW_PASSED, f"{version} has passed: {told}"
    if shadow.state is ShadowState.COMPARING:
        told = f"{version} is compared with production; the gate has not decided yet"
    return *_QUIET[shadow.state], told


_QUIET: Final[Mapping[ShadowState, tuple[ConditionStatus, Reason]]] = {
    ShadowState.PREPARING: (ConditionStatus.UNKNOWN, Reason.SHADOW_PREPARING),
    ShadowState.COMPARING: (ConditionStatus.TRUE, Reason.COMPARING),
    ShadowState.WAITING: (ConditionStatus.TRUE, Reason.WAITING),
    ShadowState.OVER: (ConditionStatus.TRUE, Reason.SHADOW_OVER),
}


# Events


def find_shadow_transitions(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> list[Transition]:
    """Return what has changed of the shadow for a person: a verdict, and whether it works."""
    old, new = before.shadow, after.shadow
    if new is None:
        return []
    known = old if old is not None and old.version == new.version else None
    found = [_find_verdict(known, new), _find_health(known, new, after)]
    return [transition for transition in found if transition is not None]


def _find_verdict(old: ShadowStatus | None, new: ShadowStatus) -> Transition | None:
    if old is not None and (old.verdict, old.epoch) == (new.verdict, new.epoch):
        return None
    if new.verdict not in {outcome.value for outcome in LATCHED}:
        return None
    passed = new.verdict == Outcome.PASS
    reason = Reason.SHADOW_PASSED if passed else Reason.SHADOW_FAILED
    told = f"the shadow {new.version} has {'passed' if passed else 'failed'}: {new.message or ''}"
    return Transition(warning=not passed, reason=reason.value, message=clip(told))


def _find_health(
    old: ShadowStatus | None, new: ShadowStatus, after: ModelDeploymentStatus
) -> Transition | None:
    state = old.state if old is not None else ShadowState.PREPARING
    if new.state is ShadowState.BROKEN and state is not ShadowState.BROKEN:
        condition = find_condition(after.conditions, ConditionType.SHADOW_HEALTHY)
        message = condition.message if condition else new.error or ""
        return Transition(
            warning=True,
            reason=Reason.SHADOW_BROKEN.value,
            message=clip(f"{message}; answers are not affected"),
        )
    if new.state not in (ShadowState.COMPARING, ShadowState.WAITING):
        return None
    news = {
        ShadowState.BROKEN: (Reason.SHADOW_RECOVERED, "works again"),
        ShadowState.PREPARING: (Reason.COMPARING, "is proven: its answers are compared with production's"),
    }
    if state not in news:
        return None
    reason, told = news[state]
    return Transition(warning=False, reason=reason.value, message=f"the shadow {new.version} {told}")
