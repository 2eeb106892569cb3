"""What a user is told of fetched features: where they come from, and which source is left alone."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from greenroom_operator.api.features import FeaturesStatus, SourceState
from greenroom_operator.api.fields import Condition
from greenroom_operator.api.modeldeployment import ModelDeploymentStatus
from greenroom_operator.controller.conditions import (
    ConditionType,
    Reason,
    Situation,
    Verdict,
    find_condition,
)
from greenroom_operator.controller.context import Observed
from greenroom_operator.controller.features import build_features
from greenroom_operator.controller.preparation import PodView
from greenroom_operator.controller.release import ReleasePlan
from greenroom_operator.controller.status import build_blocked_status, build_status, find_transitions, judge
from greenroom_runtime.contract.flags import dump_flags
from greenroom_runtime.contract.report import BreakerState, FeatureReport, UpstreamReport
from tests.support.builders import (
    NAME,
    NOW,
    flag_store,
    model_deployment,
    mute_pod,
    pod_report,
    stored_child,
    stored_workload,
)

FLAGS = flag_store("v1", pinned=["v1"])
WELL = UpstreamReport()
AWAY = UpstreamReport(state=BreakerState.OPEN, error="Redis cannot be reached", calls=9, failures=9)
SPEC: dict[str, Any] = {"redis": {"url": "redis://cache"}, "compute": {"url": "http://features.ml/{entity}"}}
SOON = NOW + timedelta(seconds=29)
LATER = NOW + timedelta(seconds=30)


def pod(
    name: str = "churn-a",
    *,
    redis_state: UpstreamReport = WELL,
    compute_state: UpstreamReport = WELL,
    **counts: int,
) -> PodView:
    """Return a pod that serves and says this of its features."""
    features = FeatureReport(redis_state=redis_state, compute_state=compute_state, **counts)
    report = pod_report("v1", pod=name, flags=FLAGS)
    return PodView(name=name, ready=True, report=report.model_copy(update={"features": features}))


def observe(
    *views: PodView, status: ModelDeploymentStatus | None = None, features: dict[str, Any] | None = SPEC
) -> Observed:
    """Return a steady world with these pods."""
    known = status.model_dump(mode="json", by_alias=True, exclude_none=True) if status else None
    spec = {"features": features} if features is not None else {}
    return Observed(
        deployment=model_deployment(status=known, version="v1", replicas=len(views), **spec),
        children=[
            stored_workload(ready=len(views)),
            stored_child("ConfigMap", f"{NAME}-flags", data={"flags.json": dump_flags(FLAGS)}),
        ],
        pods=[],
        views=views,
    )


def told(*views: PodView, before: FeaturesStatus | None = None, now: datetime = NOW) -> FeaturesStatus | None:
    """Return what status says of features."""
    return build_features(observe(*views, status=ModelDeploymentStatus(features=before)), now=now)


def status_of(
    *views: PodView,
    before: ModelDeploymentStatus | None = None,
    features: dict[str, Any] | None = SPEC,
    now: datetime = NOW,
) -> ModelDeploymentStatus:
    """Return the whole status of a pass."""
    observed = observe(*views, status=before, features=features)
    plan = ReleasePlan(flags=FLAGS, promotion=None)
    return build_status(observed, plan, judge(observed, plan, now=now), now=now)


def healthy(status: ModelDeploymentStatus) -> Condition:
    """Return the condition FeaturesHealthy."""
    condition = find_condition(status.conditions, ConditionType.FEATURES_HEALTHY)
    assert condition is not None
    return condition


def test_shares_are_those_of_all_pods() -> None:
    """By rows, in whole percent: they settle, so that a busy pod does not write a status at each pass."""
    found = told(pod(memory=900, redis=60, compute=20), pod("churn-b", memory=10, stale=5, failed=5))
    assert found is not None
    assert found.summary == "memory 91%, redis 6%, compute 2%"
    assert (found.stale_percent, found.default_percent, found.failed_percent) == (0, 0, 0)
    assert (found.redis, found.compute, found.pods_failing, found.error) == (
        SourceState.ASKED,
        SourceState.ASKED,
        0,
        None,
    )


def test_a_pod_that_has_fetched_nothing_has_no_shares() -> None:
    """A new pod divides nothing by nothing."""
    found = told(pod())
    assert found is not None
    assert found.summary == "nothing was fetched"


def test_without_features_there_is_nothing_to_tell() -> None:
    """Neither status nor a condition, and none is left when they are taken out of the spec."""
    before = status_of(pod(memory=1))
    after = status_of(pod(memory=1), before=before, features=None)
    assert after.features is None
    assert find_condition(after.conditions, ConditionType.FEATURES_HEALTHY) is None
    assert find_transitions(before, after) == []


def test_a_source_that_one_pod_leaves_alone_is_told() -> None:
    """With the first such pod and what it complains of."""
    half = AWAY.model_copy(update={"state": BreakerState.HALF_OPEN})
    found = told(pod("churn-c", redis_state=half), pod("churn-a"), pod("churn-b", redis_state=AWAY))
    assert found is not None
    assert (found.redis, found.compute) == (SourceState.LEFT_ALONE, SourceState.ASKED)
    assert (found.pods_failing, found.pod, found.error) == (2, "churn-b", "Redis cannot be reached")


def test_no_pod_has_told_yet() -> None:
    """A pod of an older runtime, or one that has not been asked, knows nothing of features."""
    silent = pod_report("v1", flags=FLAGS)
    assert told(PodView(name="churn-a", ready=True, report=silent)) is None
    condition = healthy(status_of(mute_pod()))
    assert (condition.status, condition.reason) == ("Unknown", Reason.NOT_OBSERVED.value)


@pytest.mark.parametrize(("now", "expected"), [(SOON, 100), (LATER, 50)])
def test_shares_move_every_30_seconds(now: datetime, expected: int) -> None:
    """However quickly they change."""
    before = told(pod(memory=10))
    found = told(pod(memory=10, redis=10), before=before, now=now)
    assert found is not None
    assert found.memory_percent == expected


def test_nothing_new_is_no_write() -> None:
    """The same shares an hour later are the same status, to the letter."""
    before = told(pod(memory=1000))
    assert told(pod(memory=2000), before=before, now=NOW + timedelta(hours=1)) == before


def test_beginning_and_end_of_a_failure_are_told_at_once() -> None:
    """Wording and the number of pods wait."""
    well = told(pod(memory=1))
    failing = told(pod(memory=1, redis_state=AWAY), before=well, now=SOON)
    assert failing is not None
    assert failing.redis is SourceState.LEFT_ALONE
    slow = AWAY.model_copy(update={"error": "Redis did not answer within 20 ms"})
    assert told(pod(memory=1, redis_state=slow), before=failing, now=SOON) == failing
    recovered = told(pod(memory=1), before=failing, now=SOON)
    assert recovered is not None
    assert recovered.redis is SourceState.ASKED


def test_what_was_known_waits_for_pods_that_have_not_spoken() -> None:
    """An operator that has just started does not take silence for health."""
    before = told(pod(redis_state=AWAY))
    assert told(mute_pod(), before=before, now=LATER) == before
    assert told(pod("churn-b"), mute_pod(), before=before, now=LATER) == before


def test_ready_does_not_depend_on_features() -> None:
    """Production is sacred: a source that fails changes neither Ready nor Degraded."""
    well, failing = status_of(pod()), status_of(pod(redis_state=AWAY, compute_state=AWAY))
    assert [one for one in failing.conditions if one.type != "FeaturesHealthy"] == [
        one for one in well.conditions if one.type != "FeaturesHealthy"
    ]
    assert (healthy(well).status, healthy(failing).status) == ("True", "False")


def test_the_condition_says_what_is_wrong_and_since_when() -> None:
    """Its time moves with its status alone."""
    well = status_of(pod())
    failing = status_of(pod(redis_state=AWAY), before=well, now=SOON)
    condition = healthy(failing)
    assert (condition.reason, condition.last_transition_time) == (
        Reason.FEATURE_SOURCE_FAILING.value,
        "2026-11-03T09:30:29Z",
    )
    assert "pod churn-a leaves a source of features alone: Redis cannot be reached" in condition.message
    worse = status_of(pod(redis_state=AWAY, compute_state=AWAY), before=failing, now=LATER)
    assert healthy(worse).last_transition_time == condition.last_transition_time


def test_a_pass_that_cannot_look_keeps_the_condition() -> None:
    """What was known of features does not go because somebody has disabled reconciling."""
    before = status_of(pod(redis_state=AWAY))
    verdict = Verdict(situation=Situation.DISABLED, message="disabled")
    after = build_blocked_status(before, verdict, generation=2, now=LATER)
    assert healthy(after) == healthy(before)
    assert after.features == before.features


def test_a_failure_is_one_warning_and_its_end_one_word() -> None:
    """Events tell when it begins and when it is over."""
    well = status_of(pod())
    failing = status_of(pod(redis_state=AWAY), before=well)
    (warning,) = find_transitions(well, failing)
    assert (warning.warning, warning.reason) == (True, Reason.FEATURE_SOURCE_FAILING.value)
    assert warning.message == (
        "pod churn-a leaves a source of features alone, and goes on with the others: Redis cannot be reached"
    )
    worse = status_of(pod(redis_state=AWAY, compute_state=AWAY), before=failing)
    assert find_transitions(failing, worse) == []
    (recovery,) = find_transitions(worse, status_of(pod(), before=worse))
    assert (recovery.warning, recovery.reason) == (False, Reason.FEATURE_SOURCE_RECOVERED.value)
