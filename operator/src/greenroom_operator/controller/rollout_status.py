"""What a user is told of a rollout, and what the operator itself remembers of it in status. Pure."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from greenroom_operator.api.modeldeployment import HistoryEntry, ModelDeploymentStatus
from greenroom_operator.api.rollout import Rollout as RolloutSpec
from greenroom_operator.api.rollout import RolloutState, RolloutStatus
from greenroom_operator.api.times import format_timestamp, parse_timestamp
from greenroom_operator.controller.conditions import Reason, Situation, Verdict
from greenroom_operator.controller.context import Observed
from greenroom_operator.controller.gate import Evidence, dump_evidence, parse_evidence
from greenroom_operator.controller.release import ReleasePlan
from greenroom_operator.controller.rollout import BY_PERSON, Progress, find_step
from greenroom_operator.controller.texts import Transition, clip

COUNTED_EVERY: Final = timedelta(seconds=30)
_COUNTERS: Final = (
    "held_seconds",
    "observed_time",
    "requests",
    "user_buckets",
    "user_buckets_with_errors",
    "message",
    "evidence",
    "start_time",
)
"""What changes all the while, and is written every 30 seconds, or with something that matters.

A crash matters: a pod tells of its newest one only.
"""


def read_progress(status: ModelDeploymentStatus, *, now: datetime) -> Progress | None:
    """Return the rollout that status remembers."""
    known = status.rollout
    if known is None:
        return None
    return Progress(
        version=known.version,
        state=known.state,
        started=_read_time(known.start_time) or now,
        digest=known.digest or "",
        begun=_read_time(known.begin_time),
        hundredths=_read_percent(known.percent),
        held=timedelta(seconds=known.held_seconds or 0),
        observed=_read_time(known.observed_time),
        paused=bool(known.paused_by_action),
        evidence=_read_evidence(known.evidence),
        crashed=_read_time(known.last_crash_time),
        reason=known.reason or "",
        message=known.message or "",
    )


def _read_time(text: str | None) -> datetime | None:
    return parse_timestamp(text) if text else None


def _read_percent(text: str) -> int:
    return round(float(text) * 100)


def _read_evidence(text: str | None) -> Evidence | None:
    """Return what was counted; None where that is not to be read any more, so that it is counted anew."""
    if text is None:
        return None
    try:
        return parse_evidence(json.loads(text))
    except ValueError:
        return None


def build_rollout(observed: Observed, plan: ReleasePlan, *, now: datetime) -> RolloutStatus | None:
    """Return what status should remember: counters every 30 seconds, all else at once."""
    before, progress = observed.deployment.status.rollout, plan.rollout
    if progress is None:
        return None
    found = _describe(progress, observed.deployment.spec.rollout)
    if before is None or _gist(before) != _gist(found) or before.observed_time is None:
        return found
    return before if now - parse_timestamp(before.observed_time) < COUNTED_EVERY else found


def _gist(status: RolloutStatus) -> dict[str, Any]:
    gist = status.model_dump(exclude=set(_COUNTERS))
    return gist if status.observed_time is not None else gist | {"message": status.message}


def _describe(progress: Progress, spec: RolloutSpec | None) -> RolloutStatus:
    evidence, verdict = progress.evidence, progress.verdict
    at = find_step(spec, progress.hundredths) if spec and spec.steps and not progress.is_over else None
    return RolloutStatus(
        version=progress.version,
        digest=progress.digest or None,
        state=progress.state,
        summary=_summarize(progress, spec),
        percent=spell_percent(progress.hundredths),
        step=at + 1 if at is not None and progress.begun else None,
        steps=len(spec.steps) if spec and spec.steps else None,
        start_time=format_timestamp(progress.started),
        begin_time=format_timestamp(progress.begun) if progress.begun else None,
        held_seconds=int(progress.held.total_seconds()) if progress.observed else None,
        observed_time=format_timestamp(progress.observed) if progress.observed else None,
        paused_by_action=progress.paused or None,
        requests=evidence.rollout.requests if evidence else None,
        user_buckets=evidence.rollout.seen.count if evidence else None,
        user_buckets_with_errors=evidence.rollout.failed.count if evidence else None,
        verdict=verdict.outcome.value if verdict else None,
        reason=progress.reason or None,
        message=clip(progress.message) or None,
        evidence=_write_evidence(evidence) if evidence else None,
        last_crash_time=format_timestamp(progress.crashed) if progress.crashed and evidence else None,
    )


def _write_evidence(evidence: Evidence) -> str:
    return json.dumps(dump_evidence(evidence), separators=(",", ":"), sort_keys=True)


_ENDINGS: Final[Mapping[RolloutState, str]] = {
    RolloutState.WAITING_FOR_SHADOW: "waiting",
    RolloutState.PREPARING: "preparing",
    RolloutState.ABORTED: "aborted",
    RolloutState.REFUSED: "refused",
}


def _summarize(progress: Progress, spec: RolloutSpec | None) -> str | None:
    """Return the column's text; none once the version is production."""
    if progress.state is RolloutState.PROMOTED:
        return None
    share = _ENDINGS.get(progress.state) or f"{spell_percent(progress.hundredths)}%"
    if progress.state is RolloutState.PAUSED:
        share += ", paused"
    if progress.state not in _ENDINGS and spec and spec.rules:
        share += f" + {len(spec.rules)} rules" if len(spec.rules) > 1 else " + 1 rule"
    return f"{progress.version} ({share})"


def spell_percent(hundredths: int) -> str:
    """Return a share as people write it: ``10``, ``0.5``."""
    return f"{hundredths / 100:g}"


# Conditions


def judge_ended_rollout(observed: Observed, plan: ReleasePlan) -> Verdict | None:
    """Return the verdict on a rollout that a person should look at; None where there is none."""
    progress = plan.rollout
    if progress is None or progress.reason == BY_PERSON:
        return None
    serves = f"{plan.flags.production} serves everybody"
    if progress.state is RolloutState.REFUSED:
        pod = _find_pod(observed, progress)
        where = f" on pod {pod}" if pod else ""
        message = f"the rollout of {progress.version} was refused{where}: {_why(progress)}; {serves}"
        return Verdict(situation=Situation.ROLLOUT_REFUSED, message=clip(message))
    if progress.state is RolloutState.ABORTED:
        message = f"the gate aborted the rollout of {progress.version}: {progress.message}; {serves}"
        return Verdict(situation=Situation.ROLLOUT_FAILED, message=clip(message))
    return None


def _find_pod(observed: Observed, progress: Progress) -> str:
    if progress.refusal is not None:
        return progress.refusal.pod
    failure = observed.deployment.status.last_failure
    return failure.pod if failure is not None and failure.version == progress.version else ""


def _why(progress: Progress) -> str:
    return ": ".join(part for part in (progress.reason, progress.message) if part)


def judge_rollout(observed: Observed, plan: ReleasePlan) -> Verdict | None:
    """Return the verdict on a rollout beside a production that is served as promised; None without one."""
    progress, production = plan.rollout, plan.flags.production
    if progress is None or progress.state is RolloutState.PROMOTED:
        return None
    version = progress.version
    match progress.state:
        case RolloutState.WAITING_FOR_SHADOW:
            situation = Situation.WAITING_FOR_SHADOW
            message = (
                f"the rollout of {version} waits for its shadow: {progress.message}; {production} serves"
            )
        case RolloutState.PREPARING:
            situation = Situation.ROLLING_OUT
            message = f"preparing the rollout of {version}: {progress.message}; {production} serves"
        case RolloutState.ABORTED:
            situation = Situation.ROLLOUT_ABORTED
            message = f"the rollout of {version} was aborted by an action; {production} serves everybody"
        case RolloutState.COMPLETE if _is_obeyed(observed, plan):
            situation = Situation.ROLLOUT_COMPLETE
            message = f"{version} serves all users; to make it production set spec.version: {version}"
        case RolloutState.COMPLETE:
            situation = Situation.ROLLING_OUT
            message = f"{version} is to serve all users; pods are told"
        case RolloutState.PAUSED:
            situation, message = (
                Situation.PAUSED,
                f"{_tell_share(observed, progress)}: {_why_paused(observed, progress)}",
            )
        case _:
            obeyed = _is_obeyed(observed, plan)
            situation = Situation.ROLLED_OUT_IN_PART if obeyed else Situation.ROLLING_OUT
            waiting = "" if obeyed else "; pods are told"
            message = f"{_tell_share(observed, progress)}, {production} everybody else{waiting}"
    return Verdict(situation=situation, message=clip(message))


def _why_paused(observed: Observed, progress: Progress) -> str:
    spec = observed.deployment.spec.rollout
    if spec is not None and spec.paused:
        return "spec.rollout.paused is true"
    if progress.paused:
        return "paused by an action, until the action resume"
    return "the gate cannot decide: the actions promote-step or abort, or more users, end this"


def _tell_share(observed: Observed, progress: Progress) -> str:
    spec, version = observed.deployment.spec.rollout, progress.version
    if progress.begun is None:
        return f"{version} is proven on every pod and serves nobody yet"
    at = find_step(spec, progress.hundredths) if spec and spec.steps else None
    step = f" (step {at + 1} of {len(spec.steps)})" if at is not None and spec and spec.steps else ""
    rules = " and those of the rules" if spec and spec.rules else ""
    return f"{version} serves {spell_percent(progress.hundredths)} % of users{rules}{step}"


def _is_obeyed(observed: Observed, plan: ReleasePlan) -> bool:
    """Whether every pod that gets traffic obeys the flag store and holds the version."""
    progress, revision = plan.rollout, plan.flags.revision
    serving = [view for view in observed.views if view.ready]
    return progress is not None and all(view.holds(progress.version, revision=revision) for view in serving)


# Events and history


def find_rollout_transition(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> Transition | None:
    """Return what has changed of the rollout for a person; None for counters and the like."""
    old, new = before.rollout, after.rollout
    if new is None:
        return _find_withdrawal(old, after)
    if old is None or old.version != new.version:
        old = None
    if old is not None and (old.state, old.percent) == (new.state, new.percent):
        return None
    reason, warning, message = _tell_state(old, new, after)
    return Transition(warning=warning, reason=reason.value, message=message) if message else None


def _find_withdrawal(old: RolloutStatus | None, after: ModelDeploymentStatus) -> Transition | None:
    if (
        old is None
        or old.begin_time is None
        or old.state
        in (
            RolloutState.PROMOTED,
            RolloutState.ABORTED,
            RolloutState.REFUSED,
        )
    ):
        return None
    message = f"{old.version} is rolled out no more: {after.version or 'production'} serves everybody"
    return Transition(warning=False, reason=Reason.ROLLOUT_WITHDRAWN.value, message=message)


def _tell_state(
    old: RolloutStatus | None, new: RolloutStatus, after: ModelDeploymentStatus
) -> tuple[Reason, bool, str]:
    """Return reason, whether it is a warning, and what to say; nothing to say where it is no news."""
    share = f"{new.version} serves {new.percent} % of users"
    share += f" (step {new.step} of {new.steps})" if new.step and new.steps else ""
    if new.state in (RolloutState.REFUSED, RolloutState.ABORTED):
        return _tell_end(new, after)
    if new.state in (RolloutState.RUNNING, RolloutState.HOLDING):
        return _tell_routed(old, new, share=share)
    if new.state is RolloutState.PAUSED:
        return Reason.PAUSED, False, f"{share}; {new.message}"
    if new.state is RolloutState.COMPLETE:
        message = f"{new.version} serves all users; to make it production set spec.version: {new.version}"
        return Reason.ROLLOUT_COMPLETE, False, message
    if new.state is RolloutState.WAITING_FOR_SHADOW:
        return Reason.WAITING_FOR_SHADOW, False, f"the rollout of {new.version} waits: {new.message}"
    waited = old is None or old.state is RolloutState.WAITING_FOR_SHADOW
    fresh = new.state is RolloutState.PREPARING and waited
    # What is promoted is told by the promotion.
    return Reason.ROLLING_OUT, False, f"{new.version} is being proven for its rollout" if fresh else ""


def _tell_end(new: RolloutStatus, after: ModelDeploymentStatus) -> tuple[Reason, bool, str]:
    if new.reason == BY_PERSON:
        message = f"the rollout of {new.version} was aborted by an action"
        return Reason.ROLLOUT_ABORTED, False, message
    degraded = [condition.message for condition in after.conditions if condition.type == "Degraded"]
    refused = new.state is RolloutState.REFUSED
    reason = Reason.ROLLOUT_REFUSED if refused else Reason.ROLLOUT_ABORTED
    return reason, True, degraded[0] if degraded else (new.message or "")


def _tell_routed(old: RolloutStatus | None, new: RolloutStatus, *, share: str) -> tuple[Reason, bool, str]:
    if old is None or old.begin_time is None:
        return Reason.ROLLOUT_STARTED, False, share
    if old.percent != new.percent:
        return Reason.ROLLOUT_STEPPED, False, share
    resumed = old.state is RolloutState.PAUSED
    return Reason.ROLLOUT_RESUMED, False, f"{share}, and it goes on" if resumed else ""


_HISTORY: Final[Mapping[RolloutState, Reason]] = {
    RolloutState.COMPLETE: Reason.ROLLOUT_COMPLETE,
    RolloutState.ABORTED: Reason.ROLLOUT_ABORTED,
    RolloutState.REFUSED: Reason.ROLLOUT_REFUSED,
}


def find_rollout_history(
    before: RolloutStatus | None, after: RolloutStatus | None, *, now: datetime
) -> HistoryEntry | None:
    """Return what is worth remembering for long: a rollout began, was completed, aborted or refused."""
    if after is None:
        return None
    known = before if before is not None and before.version == after.version else None
    state = known.state if known else None
    event = _HISTORY.get(after.state) if after.state is not state else None
    began = after.begin_time is not None and (known is None or known.begin_time is None)
    if event is None and not began:
        return None
    message = f"{after.percent} % of users" if event is None else after.message
    return HistoryEntry(
        time=format_timestamp(now),
        version=after.version,
        event=(event or Reason.ROLLOUT_STARTED).value,
        message=message,
    )
