"""What users are told of observed worlds, and that they are told it once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from greenroom_operator.api.modeldeployment import (
    HistoryEntry,
    ModelDeploymentStatus,
    PromotionState,
)
from greenroom_operator.api.modeldeployment import Promotion as PromotionStatus
from greenroom_operator.controller.conditions import (
    ConditionType,
    Reason,
    Situation,
    Verdict,
    build_conditions,
    find_condition,
)
from greenroom_operator.controller.context import Observed
from greenroom_operator.controller.preparation import PodView
from greenroom_operator.controller.promotion import (
    Promotion,
    PromotionInput,
)
from greenroom_operator.controller.release import ReleasePlan, plan_release
from greenroom_operator.controller.rollout import RolloutInput
from greenroom_operator.controller.status import (
    build_blocked_status,
    build_status,
    find_transitions,
    judge,
    next_look,
    read_promotion,
)
from greenroom_operator.controller.texts import MESSAGE_MAX
from greenroom_runtime.contract.flags import FlagStore, dump_flags
from greenroom_runtime.contract.report import FailureReason, VersionState
from tests.support.builders import (
    NAME,
    NOW,
    digest,
    failed,
    flag_store,
    model_deployment,
    mute_pod,
    pod_view,
    stored_child,
    stored_workload,
    version_report,
)

LATER = NOW + timedelta(minutes=2)
STEADY = flag_store("v1", pinned=["v1"])


def observe(
    *views: PodView,
    flags: FlagStore = STEADY,
    workload: Mapping[str, Any] | None = None,
    status: ModelDeploymentStatus | None = None,
    **deployment: Any,
) -> Observed:
    """Return a world; the Deployment's own account agrees with the pods unless told otherwise."""
    known = status.model_dump(mode="json", by_alias=True, exclude_none=True) if status else None
    parts = {"version": flags.production, "replicas": len(views) or 1} | deployment
    ready = sum(view.ready for view in views)
    return Observed(
        deployment=model_deployment(status=known, **parts),
        children=[
            workload or stored_workload(ready=ready, replicas=len(views)),
            stored_child("ConfigMap", f"{NAME}-flags", data={"flags.json": dump_flags(flags)}),
        ],
        pods=[],
        views=views,
    )


def plan(flags: FlagStore = STEADY, promotion: Promotion | None = None) -> ReleasePlan:
    """Return a plan as it was made."""
    return ReleasePlan(flags=flags, promotion=promotion)


def attempt(version: str, state: PromotionState) -> Promotion:
    """Return an attempt that began at the usual moment."""
    return Promotion(version=version, state=state, started=NOW)


def situation(observed: Observed, made: ReleasePlan | None = None, *, now: datetime = NOW) -> Situation:
    """Return the row that is judged to hold."""
    return judge(observed, made or plan(), now=now).situation


def status_of(
    observed: Observed, made: ReleasePlan | None = None, *, now: datetime = NOW
) -> ModelDeploymentStatus:
    """Judge and build in one go."""
    made = made or plan()
    return build_status(observed, made, judge(observed, made, now=now), now=now)


def remembered(situation: Situation, *, now: datetime = NOW, **fields: Any) -> ModelDeploymentStatus:
    """Return a status of an earlier pass."""
    verdict = Verdict(situation=situation, message="then")
    conditions = build_conditions(verdict, before=(), generation=1, now=now)
    return ModelDeploymentStatus(observed_generation=1, conditions=conditions, **fields)


def serving(name: str = "churn-a", **report: Any) -> PodView:
    """Return a ready pod that serves v1."""
    return pod_view("v1", name=name, flags=STEADY, **report)


# Which situation


def test_steady() -> None:
    """All pods serve and nothing is under way."""
    assert situation(observe(serving(), serving("churn-b"))) is Situation.STEADY


def test_a_completed_promotion_is_steady() -> None:
    """The last promotion stays in status and changes nothing."""
    assert situation(observe(serving()), plan(promotion=attempt("v1", PromotionState.COMPLETE))) is (
        Situation.STEADY
    )


def test_pods_start() -> None:
    """Nothing serves yet, and the wait has just begun."""
    fetching = version_report("v1", VersionState.FETCHING, message="s3://models does not answer")
    starting = pod_view(fetching, flags=STEADY, ready=False)

    verdict = judge(observe(starting), plan(), now=NOW)
    assert verdict.situation is Situation.PODS_STARTING
    assert verdict.message == (
        "waiting for a pod to serve v1: churn-a is Fetching: s3://models does not answer"
    )
    assert situation(observe(workload=stored_workload(ready=0, replicas=0))) is Situation.PODS_STARTING


def test_first_version_refused() -> None:
    """Every pod that reports says that it cannot serve production."""
    views = [pod_view(failed("v1"), flags=STEADY, ready=False), mute_pod(name="churn-b", ready=False)]
    verdict = judge(observe(*views), plan(), now=NOW)

    assert verdict.situation is Situation.FIRST_VERSION_REFUSED
    assert verdict.message == "v1 was refused: GoldenMismatch: sample 3: expected 1, found 0"


def test_one_pod_that_may_still_serve_is_hope() -> None:
    """One failed pod beside one that is still at work is a start, not a refusal."""
    views = [
        pod_view(failed("v1"), flags=STEADY, ready=False),
        pod_view(version_report("v1", VersionState.PROVING), name="churn-b", flags=STEADY, ready=False),
    ]
    assert situation(observe(*views)) is Situation.PODS_STARTING


def test_the_way_out_of_a_bad_first_version_is_a_start() -> None:
    """While the next version is being proven the bad one is no longer the news."""
    preparing = plan(flag_store("v1", "v2"), attempt("v2", PromotionState.PREPARING))
    assert situation(observe(pod_view(failed("v1"), flags=STEADY, ready=False)), preparing) is (
        Situation.PODS_STARTING
    )


@pytest.mark.parametrize(("waited", "expected"), [(599, "PODS_STARTING"), (600, "DEADLINE_EXCEEDED")])
def test_nothing_serves_past_the_deadline(waited: int, expected: str) -> None:
    """The deadline counts from when nothing began to serve."""
    observed = observe(mute_pod(ready=False), status=remembered(Situation.PODS_STARTING))

    assert situation(observed, now=NOW + timedelta(seconds=waited)) is Situation[expected]


def test_past_the_deadline_stays_past_it() -> None:
    """It ends when a pod serves or the spec changes, and not because status has changed."""
    gave_up = remembered(Situation.DEADLINE_EXCEEDED)

    assert situation(observe(mute_pod(ready=False), status=gave_up), now=LATER) is (
        Situation.DEADLINE_EXCEEDED
    )
    assert situation(observe(mute_pod(ready=False), status=gave_up, generation=2), now=LATER) is (
        Situation.PODS_STARTING
    )
    assert situation(observe(serving(), status=gave_up), now=LATER) is Situation.STEADY


@pytest.mark.parametrize("before", [Situation.STEADY, Situation.SCALED_TO_ZERO, Situation.NAME_CONFLICT])
def test_the_deadline_starts_when_pods_begin_to_be_missing(before: Situation) -> None:
    """Days of good service, or of wanting none, are not counted."""
    old = remembered(before, now=NOW - timedelta(days=3))

    assert situation(observe(mute_pod(ready=False), status=old)) is Situation.PODS_STARTING


def test_scaled_to_zero_is_on_purpose() -> None:
    """It is said before anything else, whatever the pods that are still there do."""
    assert situation(observe(replicas=0, workload=stored_workload(ready=0))) is Situation.SCALED_TO_ZERO
    assert situation(observe(serving(), replicas=0)) is Situation.SCALED_TO_ZERO


def test_promoting() -> None:
    """Preparing and committing, with production serving; it goes before missing pods."""
    flags = flag_store("v1", "v2", first="churn-a")
    observed = observe(serving(), mute_pod(name="churn-b", ready=False), flags=flags)
    first = judge(observed, plan(flags, attempt("v2", PromotionState.PREPARING)), now=NOW)
    switching = plan(flag_store("v2", previous="v1"), attempt("v2", PromotionState.COMMITTING))

    assert first.situation is Situation.PROMOTING
    assert first.message == "churn-a proves v2 before the others; v1 serves"
    assert judge(observed, switching, now=NOW).message == "pods are switching to v2"


def test_promotion_refused() -> None:
    """The refusal goes before missing pods and pods that are being replaced, as long as one serves."""
    refused = plan(promotion=attempt("v2", PromotionState.REFUSED))
    down = mute_pod(name="churn-b", ready=False)

    assert situation(observe(serving(), down), refused) is Situation.PROMOTION_REFUSED
    assert situation(observe(down), refused) is Situation.PODS_STARTING


def test_partly_available() -> None:
    """Fewer pods serve than are wanted, and one at least does."""
    verdict = judge(observe(serving(), mute_pod(name="churn-b", ready=False)), plan(), now=NOW)

    assert verdict.situation is Situation.PARTLY_AVAILABLE
    assert verdict.message == "1 of 2 pods serve v1"


@pytest.mark.parametrize(
    "workload",
    [
        pytest.param(stored_workload(ready=2, current=False), id="not yet seen by its controller"),
        pytest.param(stored_workload(ready=2, updated=1), id="one pod is old"),
        pytest.param(stored_workload(ready=2, replicas=3, updated=2), id="one pod too many"),
    ],
)
def test_updating(workload: Mapping[str, Any]) -> None:
    """Enough pods serve and not all are of the newest template."""
    observed = observe(serving(), serving("churn-b"), workload=workload)

    assert situation(observed) is Situation.UPDATING


def test_update_stalled() -> None:
    """New pods that do not come up are told, even where enough old ones serve."""
    stalled = stored_workload(ready=1, replicas=2, updated=1, deadline_exceeded=True)

    assert situation(observe(serving(), workload=stalled)) is Situation.UPDATE_STALLED


def test_not_reporting() -> None:
    """Pods serve and none of them answers the operator, for long enough; it goes before promotions."""
    silent = mute_pod(silent=True)
    switching = plan(flag_store("v2", previous="v1"), attempt("v2", PromotionState.COMMITTING))

    assert situation(observe(silent)) is Situation.NOT_REPORTING
    assert situation(observe(silent), switching) is Situation.NOT_REPORTING
    assert situation(observe(silent, serving("churn-b"))) is Situation.STEADY


def test_an_operator_that_has_just_started_accuses_nobody() -> None:
    """Pods that have not been asked yet are not silent: a restart of the operator is no news."""
    assert situation(observe(mute_pod(), mute_pod(name="churn-b"))) is Situation.STEADY


def test_watches_may_disagree_for_a_moment() -> None:
    """A pod is known to be down before its Deployment says so: nobody is accused of silence."""
    observed = observe(mute_pod(ready=False, silent=True), workload=stored_workload(ready=1))

    assert situation(observed) is Situation.STEADY


# What status says


def test_status_of_a_steady_world() -> None:
    """Every field, for two pods that serve v2 with v1 at hand."""
    flags = flag_store("v2", previous="v1", pinned=["v1", "v2"])
    views = [
        pod_view(
            version_report("v1", memory_bytes=100 * 2**20),
            version_report("v2", memory_bytes=size * 2**20, golden="Absent"),
            name=name,
            flags=flags,
        )
        for name, size in (("churn-a", 117), ("churn-b", 121))
    ]
    status = status_of(observe(*views, flags=flags, generation=7), plan(flags)).model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude={"conditions"}
    )

    assert status == {
        "observedGeneration": 7,
        "version": "v2",
        "previousVersion": "v1",
        "versions": [
            {"name": "v1", "digest": digest("v1"), "podsReady": 2, "golden": "Passed", "memory": "112Mi"},
            {"name": "v2", "digest": digest("v2"), "podsReady": 2, "golden": "Absent", "memory": "128Mi"},
        ],
        "replicas": 2,
        "readyReplicas": 2,
        "replicaSummary": "2/2",
        "selector": "app.kubernetes.io/name=greenroom-serving,greenroom.dev/deployment=churn",
        "url": "http://churn.ml.svc",
        "history": [],
    }


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ([serving(), serving("churn-b", production="v2")], "v0"),
        ([serving(), serving("churn-b")], "v1"),
        ([serving(), pod_view(name="churn-b", ready=False, production="v2")], "v1"),
        ([serving(), mute_pod(name="churn-b")], "v1"),
        ([serving(production="")], "v0"),
        ([mute_pod()], "v0"),
        ([], "v0"),
    ],
)
def test_version_is_what_ready_pods_agree_on(views: Sequence[PodView], expected: str) -> None:
    """While pods differ, or say nothing, status.version is what it was."""
    before = remembered(Situation.STEADY, version="v0")

    assert status_of(observe(*views, status=before)).version == expected


def test_first_version_is_unknown_until_a_pod_serves() -> None:
    """The spec's word is not enough for status.version."""
    assert status_of(observe(mute_pod(ready=False))).version is None


def refuse(observed: Observed, *, now: datetime = NOW) -> ReleasePlan:
    """Let the real decision refuse v2, which churn-a has failed with all details."""
    known = read_promotion(observed.deployment.status, now=now)
    world = PromotionInput(target="v2", flags=observed.flags, promotion=known, pods=observed.views)
    return plan_release(world, RolloutInput(spec=None, progress=None, salt="ml/churn"), now=now)


def test_last_failure_tells_all() -> None:
    """Version, pod, file, sample, expected and found of a refusal are in status, and stay after it."""
    flags = flag_store("v1", "v2", pinned=["v1"])
    broken = failed(
        "v2",
        FailureReason.GOLDEN_MISMATCH,
        message="golden.jsonl:4: expected Adelie, found Gentoo",
        file="golden.jsonl",
        sample=3,
        expected="Adelie",
        found="Gentoo",
    )
    before = remembered(Situation.PROMOTING)
    observed = observe(pod_view("v1", broken, flags=flags), flags=flags, status=before, version="v2")
    status = status_of(observed, refuse(observed))

    assert status.last_failure is not None
    assert status.last_failure.model_dump(by_alias=True, exclude_none=True) == {
        "version": "v2",
        "pod": "churn-a",
        "reason": "GoldenMismatch",
        "message": "golden.jsonl:4: expected Adelie, found Gentoo",
        "file": "golden.jsonl",
        "sample": 3,
        "expected": "Adelie",
        "found": "Gentoo",
        "time": "2026-11-03T09:30:00Z",
    }
    assert status.promotion is not None
    assert (status.promotion.state, status.promotion.reason) == (PromotionState.REFUSED, "GoldenMismatch")
    assert find_condition(status.conditions, ConditionType.STALLED) is not None

    again = observe(pod_view("v1", flags=STEADY), status=status, version="v2")
    later = status_of(again, refuse(again, now=LATER), now=LATER)
    assert later == status.model_copy(update={"versions": later.versions})


def test_a_refusal_is_told_in_the_same_words_after_other_trouble() -> None:
    """What Stalled said meanwhile, of another trouble, is not taken for the refusal's reason."""
    flags = flag_store("v1", "v2", pinned=["v1"])
    views = [pod_view("v1", failed("v2"), flags=flags)]
    observed = observe(*views, flags=flags, status=remembered(Situation.PROMOTING), version="v2")
    refused = status_of(observed, refuse(observed))
    conflict = Verdict(situation=Situation.NAME_CONFLICT, message="Service churn is not ours")
    blocked = build_blocked_status(refused, conflict, generation=1, now=LATER)
    again = observe(serving(), status=blocked, version="v2")
    stalled = find_condition(status_of(again, refuse(again)).conditions, ConditionType.STALLED)

    assert stalled is not None
    assert stalled.message == (
        "v2 was refused on pod churn-a: GoldenMismatch: sample 3: expected 1, found 0; v1 goes on serving"
    )
    assert stalled == find_condition(refused.conditions, ConditionType.STALLED)


@pytest.mark.parametrize("state", [None, PromotionState.COMPLETE, PromotionState.REFUSED])
def test_production_that_fails_again_and_again_is_told_once(state: PromotionState | None) -> None:
    """Pods that try production again do not rewrite status, whatever promotion was before."""
    promotion = attempt("v1", state) if state else None
    observed = observe(pod_view(failed("v1"), flags=STEADY, ready=False), status=remembered(Situation.STEADY))
    first = status_of(observed, plan(promotion=promotion))
    again = observe(pod_view(failed("v1"), flags=STEADY, ready=False), status=first)

    assert first.last_failure is not None
    assert first.last_failure.version == "v1"
    assert status_of(again, plan(promotion=promotion), now=LATER) == first


@pytest.mark.parametrize(
    ("state", "event"), [(PromotionState.COMPLETE, "Promoted"), (PromotionState.REFUSED, "Refused")]
)
def test_history_is_short_and_newest_first(state: PromotionState, event: str) -> None:
    """Each outcome is one entry, at the top; the eleventh falls off."""
    old = tuple(
        HistoryEntry(time=f"2026-11-01T00:00:{59 - index}Z", version=f"v{index}", event="Promoted")
        for index in range(10)
    )
    known = PromotionStatus(version="v1", state=PromotionState.COMMITTING)
    before = remembered(Situation.PROMOTING, history=old, promotion=known)
    made = plan(promotion=attempt("v1", state))
    status = status_of(observe(serving(), status=before), made)

    assert [(entry.version, entry.event) for entry in status.history] == [
        ("v1", event),
        *((entry.version, entry.event) for entry in old[:9]),
    ]
    again = status_of(observe(serving(), status=status), made, now=LATER)
    assert again.history == status.history


@pytest.mark.parametrize("length", [MESSAGE_MAX, 2048])
def test_long_messages_are_cut(length: int) -> None:
    """A pod's longest message still fits into status, cut where one can see it."""
    flags = flag_store("v1", "v2")
    views = [pod_view("v1", failed("v2", message="x" * length), flags=flags)]
    observed = observe(*views, flags=flags, version="v2")
    status = status_of(observed, refuse(observed))

    assert all(len(condition.message) <= MESSAGE_MAX for condition in status.conditions)
    stalled = find_condition(status.conditions, ConditionType.STALLED)
    assert stalled is not None
    assert stalled.message.endswith("x…")


def test_what_is_blocked_keeps_what_was_known() -> None:
    """A pass that could not act changes conditions only."""
    before = remembered(Situation.STEADY, version="v1", replicas=3, url="http://churn.ml.svc")
    verdict = Verdict(situation=Situation.DISABLED, message="annotation says so")
    blocked = build_blocked_status(before, verdict, generation=2, now=LATER)

    assert blocked.model_copy(update={"conditions": (), "observed_generation": 1}) == before.model_copy(
        update={"conditions": ()}
    )
    assert blocked.observed_generation == 2


# Said once

WORLDS = {
    "steady": (observe(serving(), serving("churn-b")), plan()),
    "starting": (observe(mute_pod(ready=False)), plan()),
    "refused at first": (observe(pod_view(failed("v1"), flags=STEADY, ready=False)), plan()),
    "scaled to zero": (observe(replicas=0, workload=stored_workload(ready=0)), plan()),
    "preparing": (
        observe(
            pod_view(
                "v1",
                version_report("v2", VersionState.FETCHING, message="s3://models does not answer"),
                flags=flag_store("v1", "v2"),
            ),
            flags=flag_store("v1", "v2"),
        ),
        plan(flag_store("v1", "v2"), attempt("v2", PromotionState.PREPARING)),
    ),
    "committing": (
        observe(serving(production="v1"), flags=flag_store("v2", previous="v1")),
        plan(flag_store("v2", previous="v1"), attempt("v2", PromotionState.COMMITTING)),
    ),
    "complete": (observe(serving()), plan(promotion=attempt("v1", PromotionState.COMPLETE))),
    "refused": (observe(serving()), plan(promotion=attempt("v2", PromotionState.REFUSED))),
    "partly": (observe(serving(), mute_pod(name="churn-b", ready=False)), plan()),
    "updating": (observe(serving(), workload=stored_workload(ready=1, current=False)), plan()),
    "silent": (observe(mute_pod(silent=True)), plan()),
    "stalled": (observe(serving(), workload=stored_workload(ready=1, deadline_exceeded=True)), plan()),
}


@pytest.mark.parametrize("world", WORLDS)
def test_the_same_world_is_the_same_status(world: str) -> None:
    """A later pass over its own result writes nothing and tells nothing, however many requests came."""
    observed, made = WORLDS[world]
    first = status_of(observed, made)
    busier = [
        replace(view, report=view.report.model_copy(update={"requests": 10**6, "errors": 17}))
        if view.report
        else view
        for view in observed.views
    ]
    again = replace(
        observed,
        deployment=observed.deployment.model_copy(update={"status": first}),
        views=busier,
    )
    second = status_of(again, made, now=LATER)

    assert second == first
    assert find_transitions(first, second) == []


def test_an_operator_that_has_just_started_writes_nothing() -> None:
    """Before the pods have been asked again, status says what it said."""
    first = status_of(observe(serving(), serving("churn-b")))
    observed = observe(mute_pod(), mute_pod(name="churn-b"), status=first)

    assert status_of(observed, now=LATER) == first
    silent = observe(mute_pod(silent=True), mute_pod(name="churn-b", silent=True), status=first)
    assert [version.pods_ready for version in status_of(silent).versions] == [0]


# Events


def transitions(*worlds: tuple[Observed, ReleasePlan]) -> list[tuple[bool, str, str]]:
    """Pass over worlds in turn, each remembering the last, and return what the last pass told."""
    status = ModelDeploymentStatus()
    found: list[tuple[bool, str, str]] = []
    for observed, made in worlds:
        deployment = observed.deployment.model_copy(update={"status": status})
        after = status_of(replace(observed, deployment=deployment), made)
        found = [
            (transition.warning, transition.reason, transition.message)
            for transition in find_transitions(status, after)
        ]
        status = after
    return found


def test_a_start_is_no_news_and_serving_is() -> None:
    """Nothing is told of pods that start for the first time; then one event says that they serve."""
    starting = WORLDS["starting"]

    assert transitions(starting) == []
    assert transitions(starting, WORLDS["complete"]) != []
    assert transitions(starting, (observe(serving()), plan())) == [
        (False, Reason.SERVING.value, "v1 serves on 1 pod")
    ]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("steady", "preparing", (False, "Promoting", "v2 is being proven; v1 serves")),
        ("committing", "complete", (False, "Promoted", "production is v1 on every pod")),
        ("preparing", "refused", (True, "VerificationFailed", "v2 was refused; v1 goes on serving")),
        ("steady", "scaled to zero", (False, "ScaledToZero", "spec.replicas is 0: nothing serves")),
        ("steady", "starting", (True, "PodsStarting", "waiting for a pod to serve v1")),
        ("steady", "silent", (True, "NotReporting", "pods serve, but do not answer the operator")),
        ("silent", "steady", (False, "Serving", "v1 serves on 2 pods")),
        ("stalled", "steady", (False, "Serving", "v1 serves on 2 pods")),
        ("steady", "stalled", (True, "ProgressDeadlineExceeded", "new pods do not come up within 10m")),
        ("refused", "steady", (False, "Serving", "v1 serves on 2 pods")),
        ("refused", "preparing", (False, "Promoting", "v2 is being proven; v1 serves")),
        ("starting", "refused at first", (True, "VerificationFailed", "v1 was refused: GoldenMismatch")),
        ("refused at first", "steady", (False, "Serving", "v1 serves on 2 pods")),
    ],
)
def test_each_transition_is_told_once(before: str, after: str, told: tuple[bool, str, str]) -> None:
    """One event for one change, a warning where a person should look."""
    ((warning, reason, message),) = transitions(WORLDS[before], WORLDS[after])

    assert (warning, reason) == told[:2]
    assert message.startswith(told[2])


@pytest.mark.parametrize(
    ("before", "after"), [("preparing", "committing"), ("steady", "partly"), ("partly", "updating")]
)
def test_small_changes_are_no_events(before: str, after: str) -> None:
    """What changes neither Ready nor Degraded nor a promotion's outcome is in conditions only."""
    assert transitions(WORLDS[before], WORLDS[after]) == []


@pytest.mark.parametrize("situation", [Situation.NAME_CONFLICT, Situation.INVALID_SPEC, Situation.FORBIDDEN])
def test_what_blocks_a_new_object_is_told_by_its_own_reason(situation: Situation) -> None:
    """That Ready is Unknown is no event; what stands in the way is one."""
    verdict = Verdict(situation=situation, message="why")
    before = ModelDeploymentStatus()
    after = build_blocked_status(before, verdict, generation=1, now=NOW)

    (transition,) = find_transitions(before, after)
    assert (transition.warning, transition.message) == (True, "why")
    assert transition.reason == find_condition(after.conditions, ConditionType.DEGRADED).reason  # type: ignore[union-attr]


def test_waiting_for_a_predecessor_is_no_event() -> None:
    """An object that waits for a deleted one's children is Unknown, and so is its later start."""
    verdict = Verdict(situation=Situation.JUST_CREATED, message="waiting for what a deleted one left")
    waiting = build_blocked_status(ModelDeploymentStatus(), verdict, generation=1, now=NOW)

    assert find_transitions(ModelDeploymentStatus(), waiting) == []
    starting = status_of(observe(mute_pod(ready=False), status=waiting))
    assert find_transitions(waiting, starting) == []


def test_a_pod_that_cannot_switch_is_told() -> None:
    """A pod that nobody heard when the others proved the version fails it: a person should look."""
    flags = flag_store("v2", previous="v1")
    stuck = pod_view(failed("v2"), "v1", name="churn-b", flags=flags, production="v1")
    observed = observe(pod_view("v2", "v1", flags=flags), stuck, flags=flags)
    made = plan(flags, attempt("v2", PromotionState.COMMITTING))
    verdict = judge(observed, made, now=NOW)

    assert verdict.situation is Situation.PROMOTION_REFUSED
    assert "churn-b cannot serve v2" in verdict.message
    status = status_of(observed, made)
    assert status.last_failure is not None
    assert (status.last_failure.version, status.last_failure.pod) == ("v2", "churn-b")


# When to look again


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        ("steady", 60.0),
        ("complete", 60.0),
        ("refused", 60.0),
        ("scaled to zero", 60.0),
        ("starting", 5.0),
        ("preparing", 5.0),
        ("committing", 5.0),
    ],
)
def test_time_matters_most_where_there_is_a_deadline(world: str, expected: float) -> None:
    """At rest a look each minute notices pods that have gone silent."""
    assert next_look(*WORLDS[world]) == expected


def test_a_promotion_survives_status() -> None:
    """What status remembers of an attempt is what the next pass reads."""
    made = plan(flag_store("v1", "v2"), attempt("v2", PromotionState.PREPARING))
    status = status_of(observe(serving(), flags=made.flags), made)

    assert read_promotion(status, now=LATER) == made.promotion
    assert read_promotion(ModelDeploymentStatus(), now=LATER) is None
