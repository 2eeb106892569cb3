"""What ``greenroom status`` shows of a status: a person sees what matters, and nothing of the machinery."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from greenroom.plan import render
from greenroom.shadow_view import ShadowSeen
from greenroom.status import PodSeen, Seen, draw, find_port, has_container
from greenroom_operator.api.modeldeployment import ModelDeployment, ModelDeploymentStatus
from greenroom_operator.controller.shadow_counts import Counted, Told, dump_counted
from greenroom_runtime.contract import names
from greenroom_runtime.contract.report import Failure, FailureReason, PodReport, VersionReport, VersionState
from greenroom_runtime.contract.shadow import (
    DIFFERENCE_BOUNDS,
    EndReason,
    ProcessEnd,
    ProcessReport,
    ShadowCounts,
    ShadowReport,
)
from tests.support.manifests import model_deployment, patched

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
    "shadow": {
        "version": "v5",
        "state": "Comparing",
        "summary": "0.4%",
        "requests": 90122,
        "disagreements": 361,
        "disagreementPercent": "0.4",
        "errors": 2,
        "notComparable": 3,
        "dropped": 12,
        "latencyRatio": "1.1",
        "segments": [{"name": "country=NO", "requests": 1200, "disagreements": 70}],
        "verdict": "Inconclusive",
        "message": "errors: 0 of 900 user buckets not answered",
        "evidence": "secret machinery",
        "counted": "secret machinery",
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


def screen(
    status: dict[str, Any], *pods: PodSeen, shadows: tuple[ShadowSeen, ...] = (), colours: bool = False
) -> str:
    """Return what is drawn, without colours unless they are asked for."""
    deployment = {
        "metadata": {"name": "churn", "namespace": "ml"},
        "spec": {"version": "v4"},
        "status": status,
    }
    console = Console(
        file=StringIO(), width=200, force_terminal=colours, color_system="standard" if colours else None
    )
    console.print(draw(Seen(deployment=deployment, pods=pods, shadows=shadows)))
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
        "v5  Comparing",
        (
            "90122 requests, 361 answered otherwise (0.4%), 2 not answered, 3 not comparable, 12 dropped, "
            "1.1 times as long as production"
        ),
        "errors: 0 of 900 user buckets not answered",
        "country=NO   1200       70",
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


def counted_shadow(**differences: int) -> dict[str, Any]:
    """Return a shadow's status that has counted so many answers up to each bound."""
    bounds = [f"{bound:g}" for bound in DIFFERENCE_BOUNDS]
    numbers = [differences.pop(bound, 0) for bound in (*bounds, "beyond")]
    counts = ShadowCounts(differences=tuple(numbers))
    report = ShadowReport(pod="churn-0", instance="a", process=ProcessReport(epoch="e", counts=counts))
    counted = Counted(shadows={"u": Told(instance="a")}).hear("u", report, epoch="e")
    return {"shadow": {"version": "v5", "state": "Comparing", "counted": dump_counted(counted)}}


def test_differences_are_drawn_as_bars() -> None:
    """Blocks on a terminal with colours, plain characters elsewhere; bounds and shares in words."""
    status = counted_shadow(**{"0.001": 30, "0.05": 9, "0.1": 1, "beyond": 0})
    plain = [line.split() for line in screen(status).splitlines() if line.startswith("<=")]
    assert [(line[1], *line[2:4]) for line in plain if len(line) > 4] == [
        ("0.001", "30", "75.0%"),
        ("0.05", "9", "22.5%"),
        ("0.1", "1", "2.5%"),
    ]
    assert [line[4] for line in plain if len(line) > 4] == ["#" * 40, "#" * 12, "##"]
    assert "█" * 40 in screen(status, colours=True)


def test_many_classes_are_drawn_by_powers_of_ten() -> None:
    """From the first difference to the last, however far they are apart."""
    shown = screen(counted_shadow(**{"1e-06": 5, "2e-05": 2, "0.0001": 1, "0.5": 4, "beyond": 2}))
    bars = [line.split()[:3] for line in shown.splitlines() if "#" in line]
    assert bars == [
        ["<=", "1e-06", "5"],
        ["<=", "0.0001", "3"],
        ["<=", "1", "4"],
        [">", "5e+06", "2"],
    ]


def test_each_shadow_is_shown_with_what_it_holds_or_with_why_not() -> None:
    """Its version's state, what it has compared, how its process ended; or why it says nothing."""
    end = ProcessEnd(reason=EndReason.CRASHED, message="signal 9", seconds_ago=2.0)
    process = ProcessReport(
        version=VersionReport(name="v5", state=VersionState.READY), counts=ShadowCounts(compared=77)
    )
    report = ShadowReport(pod="churn-0", instance="a", running=True, ends=3, end=end, process=process)
    seen = (
        ShadowSeen(pod="churn-0", report=report),
        ShadowSeen(pod="churn-1", silence="the cluster refuses: no right to get pods/proxy"),
    )
    lines = [line.split() for line in screen(STATUS, shadows=seen).splitlines() if line.startswith("churn-")]
    assert lines[0] == ["churn-0", "v5", "Ready", "77", "3", "Crashed:", "signal", "9"]
    assert " ".join(lines[1]).endswith("no report: the cluster refuses: no right to get pods/proxy")


def test_what_programs_read_has_the_shadow_in_it() -> None:
    """Status without the operator's own machinery, the histogram, and each shadow's report."""
    status = counted_shadow(**{"0.1": 4})
    deployment = {"metadata": {"name": "churn", "namespace": "ml"}, "spec": {"version": "v2"}}
    report = ShadowReport(pod="churn-0", instance="a", process=ProcessReport())
    seen = Seen(
        deployment=deployment | {"status": status},
        pods=(),
        shadows=(ShadowSeen(pod="churn-0", report=report),),
    )
    told = seen.to_data()
    assert told["status"]["shadow"] == {
        "version": "v5",
        "state": "Comparing",
        "histogram": [{"upTo": 0.1, "answers": 4}],
    }
    assert told["shadows"][0]["report"]["instance"] == "a"
    assert "trials" not in told["shadows"][0]["report"]["process"]


@pytest.mark.parametrize(
    ("placement", "ports"),
    [("Sidecar", [(8081, 8082)]), ("Deployment", [(8081, None), (None, 8082)])],
)
def test_pods_are_asked_where_the_operator_has_them_report(
    placement: str, ports: list[tuple[int | None, int | None]]
) -> None:
    """Serving containers and shadows, in the same pods or apart, each on its own port."""
    document = patched(model_deployment(), {"spec": {"shadow": {"version": "v5", "placement": placement}}})
    children = render(ModelDeployment.model_validate(document), image="runtime")
    pods = [child["spec"]["template"] for child in children if child["kind"] == "Deployment"]
    found = [
        (
            find_port(pod, "admin", 0) if has_container(pod, names.SERVING_CONTAINER) else None,
            find_port(pod, "shadow", 0) if has_container(pod, names.SHADOW_CONTAINER) else None,
        )
        for pod in pods
    ]
    assert sorted(found, key=str) == sorted(ports, key=str)
