"""What ``greenroom status`` shows of a status: a person sees what matters, and nothing of the machinery."""

from io import StringIO
from typing import Any

from rich.console import Console

from greenroom.status import PodSeen, Seen, draw
from greenroom_operator.api.modeldeployment import ModelDeploymentStatus
from greenroom_runtime.contract.report import Failure, FailureReason, PodReport, VersionReport, VersionState

STATUS: dict[str, Any] = {
    "version": "v2",
    "replicaSummary": "2/3",
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "PartlyAvailable",
            "message": "2 of 3 pods serve",
            "lastTransitionTime": "2026-11-26T10:00:00Z",
        },
        {
            "type": "Degraded",
            "status": "True",
            "reason": "RolloutAborted",
            "message": "the gate says that v3 does harm",
            "lastTransitionTime": "2026-11-26T10:00:00Z",
        },
    ],
    "rollout": {
        "version": "v3",
        "state": "Holding",
        "summary": "v3 (10%)",
        "percent": "10",
        "step": 2,
        "steps": 3,
        "requests": 5120,
        "userBuckets": 3120,
        "userBucketsWithErrors": 3,
        "verdict": "Inconclusive",
        "message": "held for 2h",
        "evidence": "secret machinery",
    },
    "promotion": {"version": "v4", "state": "Refused", "message": "its golden samples differ"},
    "lastFailure": {
        "version": "v4",
        "pod": "churn-1",
        "reason": "GoldenMismatch",
        "message": "golden sample 3",
        "expected": "'leaves'",
        "found": "'stays'",
        "time": "2026-11-26T10:00:00Z",
    },
    "features": {
        "summary": "memory 92%, redis 8%",
        "redis": "LeftAlone",
        "pod": "churn-0",
        "error": "connection refused",
        "time": "2026-11-26T10:00:00Z",
    },
    "predictionLog": {
        "podsFailing": 1,
        "dropped": 7,
        "pod": "churn-0",
        "error": "No space left on device",
        "time": "2026-11-26T10:00:00Z",
    },
    "history": [
        {"time": "2026-11-26T10:00:00Z", "version": "v2", "event": "Promoted", "message": "from v1"},
    ],
}


def screen(status: dict[str, Any], *pods: PodSeen) -> str:
    """Return what is drawn, without colours."""
    deployment = {
        "metadata": {"name": "churn", "namespace": "ml"},
        "spec": {"version": "v4"},
        "status": status,
    }
    console = Console(file=StringIO(), width=200)
    console.print(draw(Seen(deployment=deployment, pods=pods)))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_status_here_is_one_that_an_operator_writes() -> None:
    """Field by field, by its own models."""
    read = ModelDeploymentStatus.model_validate(STATUS)
    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True).keys() == STATUS.keys()


def test_each_part_of_a_status_is_shown() -> None:
    """Production, what it is asked for, rollout and gate, failure, features, log and history."""
    shown = screen(STATUS)
    for words in (
        "ml/churn  production v2  replicas 2/3  PartlyAvailable  asked for v4",
        "the gate says that v3 does harm",
        "v3 (10%)  Holding  step 2 of 3",
        "5120 requests; buckets of users that met an error: 3 of 3120",
        "gate: Inconclusive",
        "v4: Refused  its golden samples differ",
        "v4 on churn-1: GoldenMismatch: golden sample 3",
        "expected  'leaves'",
        "redis fails, and is left alone",
        "churn-0: connection refused",
        "1 pods cannot write it, 7 records lost; churn-0: No space left on device",
        "Promoted",
    ):
        assert words in shown, words
    assert "machinery" not in shown


def test_pods_are_shown_with_their_versions_or_with_why_not() -> None:
    """A version's state in each pod, with the reason where it failed."""
    failure = Failure(reason=FailureReason.CRASHED, message="it crashed")
    versions = (
        VersionReport(name="v2", state=VersionState.READY),
        VersionReport(name="v3", state=VersionState.FAILED, failure=failure),
    )
    report = PodReport(pod="churn-0", model="churn", production="v2", ready=True, versions=versions)
    shown = screen(
        {},
        PodSeen(name="churn-0", phase="Running", ready=True, report=report),
        PodSeen(name="churn-1", phase="Pending", ready=False, silence="it has no address yet"),
    )
    lines = {line.split()[0]: line for line in shown.splitlines() if line.startswith("churn-")}
    assert "yes" in lines["churn-0"]
    assert "v2 Ready, v3 Failed (Crashed)" in lines["churn-0"]
    assert "no report: it has no address yet" in lines["churn-1"]


def test_a_deployment_without_a_status_is_shown() -> None:
    """The operator has not seen it yet, or does not run."""
    shown = screen({})
    assert "NotObserved" in shown
    assert "asked for v4" in shown
