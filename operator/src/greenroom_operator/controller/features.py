"""What a person must know of fetched features: where they come from, and which source fails. Pure.

Nothing of it is part of Ready: a source that fails is what the others, and defaults, are for.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from greenroom_operator.api.features import FeaturesStatus, SourceState
from greenroom_operator.api.fields import Condition, ConditionStatus
from greenroom_operator.api.times import format_timestamp, parse_timestamp
from greenroom_operator.controller.conditions import (
    ConditionType,
    Reason,
    build_condition,
    find_condition,
)
from greenroom_operator.controller.context import Observed
from greenroom_runtime.contract.report import BreakerState, FeatureReport, UpstreamReport

COUNTED_EVERY: Final = timedelta(seconds=30)
_SOURCES: Final = ("memory", "redis", "compute", "stale", "default", "failed")


class News(NamedTuple):
    """Something worth an event."""

    warning: bool
    reason: str
    message: str


def build_features(observed: Observed, *, now: datetime) -> FeaturesStatus | None:
    """Return where features come from, None where none are fetched or no pod has told yet.

    What was known stays until every pod that gets traffic has had the time to speak, shares and wording for
    30 seconds: only the beginning and the end of a failure are told at once.
    """
    if observed.deployment.spec.features is None:
        return None
    before = observed.deployment.status.features
    if before is not None and any(view.unheard for view in observed.views):
        return before
    found = _count(observed, now=now)
    if before is None or found is None:
        return found or before
    same = before == found.model_copy(update={"time": before.time})
    recent = now - parse_timestamp(before.time) < COUNTED_EVERY
    begun_or_ended = (before.redis, before.compute) != (found.redis, found.compute)
    return before if same or (recent and not begun_or_ended) else found


def _count(observed: Observed, *, now: datetime) -> FeaturesStatus | None:
    views = sorted(observed.views, key=lambda view: view.name)
    told = [(view.name, view.report.features) for view in views if view.report and view.report.features]
    if not told:
        return None
    counts = {source: sum(getattr(report, source) for _, report in told) for source in _SOURCES}
    total = sum(counts.values())
    shares = {source: round(100 * count / total) if total else 0 for source, count in counts.items()}
    failing = [(pod, error) for pod, report in told if (error := _complaint(report))]
    summary = ", ".join(f"{source} {share}%" for source, share in shares.items() if share)
    return FeaturesStatus(
        summary=summary or "nothing was fetched",
        **{f"{source}_percent": share for source, share in shares.items()},
        redis=_state([report.redis_state for _, report in told]),
        compute=_state([report.compute_state for _, report in told]),
        pods_failing=len(failing),
        pod=failing[0][0] if failing else None,
        error=failing[0][1] if failing else None,
        time=format_timestamp(now),
    )


def _complaint(report: FeatureReport) -> str:
    upstreams = (report.redis_state, report.compute_state)
    errors = [one.error or "it fails" for one in upstreams if one and one.state is not BreakerState.CLOSED]
    return "; ".join(errors)[:512]


def _state(upstreams: Sequence[UpstreamReport | None]) -> SourceState | None:
    there = [one for one in upstreams if one is not None]
    if not there:
        return None
    asked = all(one.state is BreakerState.CLOSED for one in there)
    return SourceState.ASKED if asked else SourceState.LEFT_ALONE


def build_features_condition(
    observed: Observed, features: FeaturesStatus | None, *, now: datetime
) -> tuple[Condition, ...]:
    """Return the condition FeaturesHealthy, nothing where no features are fetched."""
    deployment = observed.deployment
    if deployment.spec.features is None:
        return ()
    if features is None:
        status, reason = ConditionStatus.UNKNOWN, Reason.NOT_OBSERVED
        message = "no pod has told yet where its features come from"
    elif features.error is not None:
        status, reason = ConditionStatus.FALSE, Reason.FEATURE_SOURCE_FAILING
        message = f"pod {features.pod} leaves a source of features alone: {features.error}"
    else:
        status, reason = ConditionStatus.TRUE, Reason.FEATURES_FETCHED
        message = "pods ask every source of features"
    before = find_condition(deployment.status.conditions, ConditionType.FEATURES_HEALTHY)
    condition = build_condition(
        ConditionType.FEATURES_HEALTHY,
        status=status,
        reason=reason,
        message=message,
        before=before,
        generation=deployment.metadata.generation,
        now=now,
    )
    return (condition,)


def find_features_news(before: FeaturesStatus | None, after: FeaturesStatus | None) -> News | None:
    """Return that pods have begun to leave a source alone, or that none does any more."""
    failed_before = before is not None and before.error is not None
    if after is None:
        return None
    if after.error is not None and not failed_before:
        message = (
            f"pod {after.pod} leaves a source of features alone, and goes on with the others: {after.error}"
        )
        return News(warning=True, reason=Reason.FEATURE_SOURCE_FAILING.value, message=message)
    if after.error is None and failed_before:
        message = "pods ask every source of features again"
        return News(warning=False, reason=Reason.FEATURE_SOURCE_RECOVERED.value, message=message)
    return None
