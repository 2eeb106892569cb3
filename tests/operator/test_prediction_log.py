"""What a user is told of the prediction log: where it fails, and what is lost; nothing while it is well."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from greenroom_operator.api.modeldeployment import ModelDeploymentStatus, PredictionLogStatus
from greenroom_operator.controller.conditions import Reason
from greenroom_operator.controller.context import Observed
from greenroom_operator.controller.prediction_log import build_prediction_log
from greenroom_operator.controller.preparation import PodView
from greenroom_operator.controller.release import ReleasePlan
from greenroom_operator.controller.status import build_status, find_transitions, judge
from greenroom_runtime.contract.flags import dump_flags
from greenroom_runtime.contract.report import LogReport
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
FULL = "no space left on device: raise predictionLog.maxDisk"
SOON = NOW + timedelta(seconds=29)
LATER = NOW + timedelta(seconds=30)


def pod(name: str = "churn-a", **log: Any) -> PodView:
    """Return a pod that serves and says this of its log."""
    report = pod_report("v1", pod=name, flags=FLAGS)
    return PodView(
        name=name, ready=True, report=report.model_copy(update={"prediction_log": LogReport(**log)})
    )


def observe(*views: PodView, status: ModelDeploymentStatus | None = None) -> Observed:
    """Return a steady world with these pods."""
    known = status.model_dump(mode="json", by_alias=True, exclude_none=True) if status else None
    return Observed(
        deployment=model_deployment(status=known, version="v1", replicas=len(views)),
        children=[
            stored_workload(ready=len(views)),
            stored_child("ConfigMap", f"{NAME}-flags", data={"flags.json": dump_flags(FLAGS)}),
        ],
        pods=[],
        views=views,
    )


def told(
    *views: PodView, before: PredictionLogStatus | None = None, now: datetime = NOW
) -> PredictionLogStatus | None:
    """Return what status says of the log."""
    return build_prediction_log(observe(*views, status=ModelDeploymentStatus(prediction_log=before)), now=now)


def status_of(*views: PodView, before: ModelDeploymentStatus | None = None) -> ModelDeploymentStatus:
    """Return the whole status of a pass."""
    observed = observe(*views, status=before)
    plan = ReleasePlan(flags=FLAGS, promotion=None)
    return build_status(observed, plan, judge(observed, plan, now=NOW), now=NOW)


def test_a_log_that_is_well_is_not_mentioned() -> None:
    """However much is logged: no counter of a healthy log is ever written."""
    assert told(pod(logged=10**9, sampled_out=5, pending=3), pod("churn-b")) is None
    assert told() is None


def test_a_pod_without_a_log_is_not_mentioned() -> None:
    """Nor is one that keeps none, or is too old to know of logs."""
    silent = pod().report
    assert silent is not None
    unlogged = silent.model_copy(update={"prediction_log": None})
    assert told(PodView(name="churn-a", ready=True, report=unlogged)) is None


def test_a_failing_log_is_told_with_its_pod() -> None:
    """The first failing pod speaks, the losses of all are added up."""
    views = [pod("churn-c", error=FULL), pod("churn-a", dropped=2), pod("churn-b", error=FULL, dropped=40)]
    found = told(*views)

    assert found == PredictionLogStatus(
        pods_failing=2, dropped=42, pod="churn-b", error=FULL, time="2026-11-03T09:30:00Z"
    )


def test_losses_are_told_after_the_failure_too() -> None:
    """What is lost stays lost as long as the pod lives."""
    found = told(pod(dropped=7))

    assert found is not None
    assert (found.pods_failing, found.dropped, found.error) == (0, 7, None)


def test_a_number_that_no_status_can_hold_is_cut() -> None:
    """Each pod's own count fits, or its report is refused; their sum may not make the status one."""
    found = told(pod(dropped=2**63 - 1), pod("churn-b", dropped=2**63 - 1))

    assert found is not None
    assert found.dropped == 2**63 - 1


@pytest.mark.parametrize(("now", "expected"), [(SOON, 1), (LATER, 2)])
def test_counters_move_every_30_seconds(now: datetime, expected: int) -> None:
    """A log that loses records at each request does not write a status at each pass."""
    before = told(pod(dropped=1, error="a"))
    found = told(pod(dropped=2, error="b"), before=before, now=now)

    assert found is not None
    assert found.dropped == expected


def test_nothing_new_is_no_write() -> None:
    """The same losses an hour later are the same status, to the letter."""
    before = told(pod(dropped=1, error=FULL))

    assert told(pod(dropped=1, error=FULL), before=before, now=NOW + timedelta(hours=1)) == before


def test_beginning_and_end_of_a_failure_are_told_at_once() -> None:
    """Only counters and wording wait."""
    lost = told(pod(dropped=1))
    failing = told(pod(dropped=1, error=FULL), before=lost, now=SOON)
    assert failing is not None
    assert failing.error == FULL
    recovered = told(pod(dropped=1), before=failing, now=SOON)
    assert recovered is not None
    assert recovered.error is None
    assert told(pod(), before=failing, now=SOON) is None


def test_what_was_known_waits_for_pods_that_have_not_spoken() -> None:
    """An operator that has just started does not take silence for health."""
    before = told(pod(dropped=1, error=FULL))

    assert told(mute_pod(), before=before, now=LATER) == before
    assert told(pod("churn-b"), mute_pod(), before=before, now=LATER) == before
    assert told(pod("churn-b"), mute_pod(silent=True), before=before, now=LATER) is None


def test_conditions_know_nothing_of_the_log() -> None:
    """Production is sacred: a log that fails changes neither Ready nor anything else that tools wait for."""
    well, failing = status_of(pod()), status_of(pod(error=FULL, dropped=1))

    assert failing.conditions == well.conditions
    assert failing.prediction_log is not None


def test_a_failure_is_one_warning_and_its_end_one_word() -> None:
    """Events tell when it begins and when it is over, never how much has been lost meanwhile."""
    well = status_of(pod())
    failing = status_of(pod(error=FULL), before=well)
    (warning,) = find_transitions(well, failing)
    assert (warning.warning, warning.reason) == (True, Reason.PREDICTION_LOG_FAILING.value)
    assert warning.message == f"pod churn-a cannot log predictions, its answers are not affected: {FULL}"

    worse = status_of(pod(error="other words", dropped=900), before=failing)
    assert find_transitions(failing, worse) == []
    (recovery,) = find_transitions(worse, status_of(pod(dropped=900), before=worse))
    assert (recovery.warning, recovery.reason) == (False, Reason.PREDICTION_LOG_RECOVERED.value)


def test_first_losses_are_one_warning() -> None:
    """A queue that overflowed for a moment is told once."""
    well = status_of(pod())
    lost = status_of(pod(dropped=3), before=well)
    (warning,) = find_transitions(well, lost)

    assert warning.warning
    assert "churn-a has lost records of predictions" in warning.message
    assert find_transitions(lost, status_of(pod(dropped=4), before=lost)) == []
    assert find_transitions(lost, status_of(pod(), before=lost)) == []
