"""The alias flip, decision by decision."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom_operator.api.modeldeployment import PromotionState
from greenroom_operator.controller.preparation import PodView
from greenroom_operator.controller.promotion import (
    Promotion,
    PromotionInput,
    PromotionPlan,
    plan_promotion,
)
from greenroom_runtime.contract.flags import FlagStore
from greenroom_runtime.contract.report import FailureReason, VersionReport, VersionState
from tests.support.builders import (
    NOW,
    NOW_AS_ATTEMPT,
    digest,
    failed,
    flag_store,
    mute_pod,
    pod_view,
    version_report,
)

DEADLINE = timedelta(minutes=10)


def promotion(version: str, state: PromotionState, *, age: timedelta = timedelta(seconds=5)) -> Promotion:
    """Return an attempt that began so long ago."""
    return Promotion(version=version, state=state, started=NOW - age)


def begun(version: str) -> str:
    """Return how the flag store names an attempt that begins now."""
    return f"{version}@{NOW_AS_ATTEMPT}"


def preparing(version: str, **age: Any) -> Promotion:
    """Return an attempt under way."""
    return promotion(version, PromotionState.PREPARING, **age)


def plan(
    target: str,
    flags: FlagStore | None,
    *pods: PodView,
    promotion: Promotion | None = None,
    **more: Any,
) -> PromotionPlan:
    """Decide at the usual moment with the usual deadline."""
    world = PromotionInput(
        target=target, flags=flags, promotion=promotion, pods=pods, deadline=DEADLINE, **more
    )
    return plan_promotion(world, now=NOW)


def state_of(plan: PromotionPlan) -> PromotionState | None:
    """Return where the attempt is."""
    return plan.promotion.state if plan.promotion else None


# The first flag store, and one that was lost


def test_first_creation_takes_what_git_says() -> None:
    """Without a flag store and a history, spec.version is production at once and nothing is promoted."""
    made = plan("v1", None)

    assert made.flags == FlagStore(production="v1", resident=("v1",))
    assert made.promotion is None
    assert not made.active


def test_lost_flag_store_is_made_anew_from_status() -> None:
    """A flag store that was deleted comes back with what pods served, not with an unproven spec.version."""
    made = plan("v3", None, proven="v2", pins={"v2": digest("v2"), "v1": digest("v1")})

    assert made.flags == flag_store("v2", pinned=["v2"])


def test_lost_flag_store_keeps_the_attempt() -> None:
    """The attempt that was under way, and a refusal above all, outlives the flag store."""
    refused = promotion("v3", PromotionState.REFUSED)
    first = plan("v3", None, proven="v2", promotion=refused)
    second = plan("v3", first.flags, promotion=first.promotion)

    assert first.promotion == refused
    assert state_of(second) is PromotionState.REFUSED
    assert second.flags.production == "v2"


# Prepare


def test_a_version_that_is_asked_for_again_is_another_revision() -> None:
    """What pods said of a version in an attempt before does not pass for what they say in this one."""
    flags = flag_store("v2")
    pod = pod_view("v2", flags=flags)
    first = plan("v3", flags, pod)
    taken_back = plan("v2", first.flags, pod, promotion=first.promotion)
    world = PromotionInput(target="v3", flags=taken_back.flags, promotion=None, pods=[pod], deadline=DEADLINE)
    again = plan_promotion(world, now=NOW + timedelta(milliseconds=1))

    assert again.flags.resident == first.flags.resident
    assert again.flags.revision != first.flags.revision


def test_one_pod_goes_first() -> None:
    """Of several pods one prepares alone; production and its pin stay."""
    flags = flag_store("v2", pinned=["v2"])
    pods = [pod_view("v2", name=name, flags=flags) for name in ("churn-b", "churn-a")]
    made = plan("v3", flags, *pods)

    assert made.flags == flag_store("v2", "v3", pinned=["v2"], first="churn-a", attempt=begun("v3"))
    assert state_of(made) is PromotionState.PREPARING
    assert made.promotion is not None
    assert made.promotion.started == NOW
    assert made.active


def test_the_scout_gets_traffic_and_reports() -> None:
    """A pod that is not ready, or does not report, would say nothing of production: it does not go first."""
    flags = flag_store("v2")
    made = plan(
        "v3",
        flags,
        pod_view("v2", name="churn-a", flags=flags, ready=False),
        mute_pod(name="churn-b"),
        pod_view("v2", name="churn-c", flags=flags),
    )

    assert made.flags.first == "churn-c"


def test_pods_are_replaced_before_the_version_is_proven() -> None:
    """With a new image and a new version at once, it is the new image's pods that prove the version."""
    flags = flag_store("v2", pinned=["v2"])
    pod = pod_view("v2", flags=flags)
    waiting = plan("v3", flags, pod, rolling=True)

    assert waiting.flags == flags
    assert state_of(waiting) is PromotionState.PREPARING
    begun_later = plan("v3", flags, pod, promotion=waiting.promotion)
    assert "v3" in begun_later.flags.resident
    nobody = pod_view("v2", flags=flags, ready=False)
    assert "v3" in plan("v3", flags, nobody, rolling=True).flags.resident


def test_a_single_pod_prepares_without_a_scout() -> None:
    """Where there is one pod, nobody goes first."""
    flags = flag_store("v2", pinned=["v2"])

    assert plan("v3", flags, pod_view("v2", flags=flags)).flags == flag_store(
        "v2", "v3", pinned=["v2"], attempt=begun("v3")
    )


def test_pods_that_all_fail_to_serve_prepare_together() -> None:
    """A bad first version leaves no ready pod to go first: all prepare the next one."""
    flags = flag_store("v1")
    bad = failed("v1")
    pods = [pod_view(bad, name=name, flags=flags, ready=False) for name in ("churn-a", "churn-b")]

    assert plan("v2", flags, *pods).flags == flag_store("v1", "v2", attempt=begun("v2"))


@pytest.mark.parametrize(
    "state", [VersionState.PENDING, VersionState.FETCHING, VersionState.PROVING, VersionState.LOADING]
)
def test_the_others_wait_for_the_scout(state: VersionState) -> None:
    """While the scout is at work nothing changes."""
    flags = flag_store("v2", "v3", pinned=["v2"], first="churn-a")
    scout = pod_view("v2", version_report("v3", state), name="churn-a", flags=flags)
    made = plan("v3", flags, scout, pod_view("v2", name="churn-b", flags=flags), promotion=preparing("v3"))

    assert made.flags == flags
    assert made.promotion == preparing("v3")


def test_all_follow_the_scout() -> None:
    """Once the scout has it Ready all prepare it, with the bytes pinned that the scout has proven."""
    flags = flag_store("v2", "v3", pinned=["v2"], first="churn-a")
    pods = [pod_view("v2", "v3", name="churn-a", flags=flags), pod_view("v2", name="churn-b", flags=flags)]
    made = plan("v3", flags, *pods, promotion=preparing("v3"))

    assert made.flags == flag_store("v2", "v3", pinned=["v2", "v3"])
    assert state_of(made) is PromotionState.PREPARING


def test_a_scout_that_is_gone_is_replaced() -> None:
    """Where the scout has been deleted another pod goes first."""
    flags = flag_store("v2", "v3", first="churn-a")
    pods = [pod_view("v2", name=name, flags=flags) for name in ("churn-b", "churn-c")]

    assert plan("v3", flags, *pods, promotion=preparing("v3")).flags.first == "churn-b"


def test_a_scout_that_has_fallen_stays_the_scout() -> None:
    """A pod that dies of a version comes back and says so; no second pod is risked meanwhile."""
    flags = flag_store("v2", "v3", first="churn-a")
    fallen, other = mute_pod(name="churn-a", ready=False), pod_view("v2", name="churn-b", flags=flags)

    assert plan("v3", flags, fallen, other, promotion=preparing("v3")).flags == replace(
        flags, digests={"v2": digest("v2")}
    )


def test_the_last_pod_left_needs_no_scout() -> None:
    """Where the scout is gone and one pod is left, that one prepares for all."""
    flags = flag_store("v2", "v3", first="churn-a")
    made = plan("v3", flags, pod_view("v2", name="churn-b", flags=flags), promotion=preparing("v3"))

    assert made.flags.first == ""
    assert "v3" in made.flags.resident


# Commit


def test_committed_when_every_ready_pod_has_it() -> None:
    """The alias moves, the old production stays at hand as previous, both stay pinned."""
    flags = flag_store("v2", "v3", pinned=["v2", "v3"])
    pods = [pod_view("v2", "v3", name=name, flags=flags) for name in ("churn-a", "churn-b")]
    made = plan("v3", flags, *pods, promotion=preparing("v3"))

    assert made.flags == flag_store("v3", previous="v2", pinned=["v2", "v3"])
    assert state_of(made) is PromotionState.COMMITTING
    assert made.active


def test_pods_that_get_no_traffic_do_not_hold_up() -> None:
    """A pod that is starting comes up on production, whatever that is then."""
    flags = flag_store("v2", "v3")
    ready = pod_view("v2", "v3", name="churn-a", flags=flags)
    starting = pod_view(version_report("v2", VersionState.FETCHING), name="churn-b", flags=flags, ready=False)
    made = plan("v3", flags, ready, starting, mute_pod(name="churn-c", ready=False))

    assert made.flags.production == "v3"


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(mute_pod(name="churn-b"), id="says nothing"),
        pytest.param(mute_pod(name="churn-b", silent=True), id="is silent"),
        pytest.param(pod_view("v2", name="churn-b", flags=flag_store("v2", "v3")), id="does not know it"),
        pytest.param(
            pod_view(
                "v2",
                version_report("v3", VersionState.LOADING),
                name="churn-b",
                flags=flag_store("v2", "v3"),
            ),
            id="still loads it",
        ),
        pytest.param(
            pod_view("v2", "v3", name="churn-b", flags=flag_store("v2", "v3", first="churn-b")),
            id="had it under another flag store",
        ),
        pytest.param(pod_view("v2", "v3", name="churn-b"), id="obeys no flag store"),
    ],
)
def test_one_ready_pod_without_proof_is_enough_to_wait(last: PodView) -> None:
    """Production does not move before the last pod that gets traffic has it, under this very revision."""
    flags = flag_store("v2", "v3")
    made = plan("v3", flags, pod_view("v2", "v3", flags=flags), last, promotion=preparing("v3"))

    assert made.flags.production == "v2"
    assert state_of(made) is PromotionState.PREPARING


def test_where_no_pod_is_ready_all_that_report_must_have_it() -> None:
    """The way out of a bad first version: one pod that has proven the next one, and none that has not."""
    flags = flag_store("v1", "v2")
    proven = pod_view(failed("v1"), "v2", flags=flags, ready=False)
    behind = pod_view(failed("v1"), name="churn-b", flags=flags, ready=False)
    mute = mute_pod(name="churn-c", ready=False)

    assert plan("v2", flags, proven, behind, mute).flags.production == "v1"
    assert plan("v2", flags, mute).flags.production == "v1"
    assert plan("v2", flags, proven, mute).flags.production == "v2"


def test_a_production_that_no_pod_could_serve_is_not_kept() -> None:
    """A bad first version is of no use as previous."""
    flags = flag_store("v1", "v2")
    made = plan("v2", flags, pod_view(failed("v1"), "v2", flags=flags, ready=False))

    assert made.flags == flag_store("v2", pinned=["v2"])


def test_without_pods_it_is_taken_unproven() -> None:
    """Scaled to zero: nobody can prove it and nobody is served; the next pod's start does."""
    flags = flag_store("v2", pinned=["v2"])
    made = plan("v3", flags, proven="v2", wanted=0)

    assert made.flags == flag_store("v3", previous="v2", pinned=["v2"])
    assert state_of(made) is PromotionState.COMMITTING
    assert state_of(plan("v3", made.flags, promotion=made.promotion)) is PromotionState.COMPLETE


def test_before_the_first_pod_serves_it_is_taken_unproven() -> None:
    """A first version that is corrected before any pod could serve it needs no proof to be replaced."""
    made = plan("v2", flag_store("v1"), wanted=1)

    assert made.flags.production == "v2"


def test_pods_that_are_only_just_gone_are_waited_for() -> None:
    """The one pod is evicted in the middle of an attempt: the next finds what is proven in production."""
    under_way = preparing("v3")
    made = plan("v3", flag_store("v2", "v3"), promotion=under_way, proven="v2", wanted=1)

    assert made.flags == flag_store("v2", "v3")
    assert made.promotion == under_way


def test_pods_that_hold_different_bytes_have_proven_nothing() -> None:
    """Two pods that fetched different bytes under one name: one's are pinned, and then the other refuses."""
    flags = flag_store("v2", "v3", pinned=["v2"])
    pods = [
        pod_view("v2", "v3", name="churn-a", flags=flags),
        pod_view("v2", version_report("v3", edition="altered"), name="churn-b", flags=flags),
    ]
    pinned = plan("v3", flags, *pods, promotion=preparing("v3"))
    again = [
        pod_view("v2", "v3", name="churn-a", flags=pinned.flags),
        pod_view("v2", version_report("v3", edition="altered"), name="churn-b", flags=pinned.flags),
    ]
    refused = plan("v3", pinned.flags, *again, promotion=pinned.promotion)

    assert pinned.flags == flag_store("v2", "v3", pinned=["v2", "v3"])
    assert state_of(refused) is PromotionState.REFUSED
    assert refused.promotion is not None
    assert refused.promotion.refusal is not None
    assert (refused.promotion.refusal.reason, refused.promotion.refusal.pod) == ("DigestChanged", "churn-b")


# Settle


def test_complete_when_every_ready_pod_serves_it() -> None:
    """Committing lasts until each pod that gets traffic answers with it under this flag store."""
    flags = flag_store("v3", previous="v2")
    committing = promotion("v3", PromotionState.COMMITTING)
    switched = pod_view("v2", "v3", flags=flags)
    behind = pod_view("v2", "v3", name="churn-b", flags=flags, production="v2")
    elsewhere = pod_view("v2", "v3", name="churn-b", flags=flag_store("v2", "v3"), production="v3")

    for waiting in (behind, elsewhere, mute_pod(name="churn-b")):
        assert state_of(plan("v3", flags, switched, waiting, promotion=committing)) is (
            PromotionState.COMMITTING
        )
    complete = plan("v3", flags, switched, replace(switched, name="churn-b"), promotion=committing)
    assert state_of(complete) is PromotionState.COMPLETE
    assert complete.flags.resident == ("v2", "v3")


def test_a_flip_is_not_complete_while_no_pod_gets_traffic() -> None:
    """Pods that are starting have not switched, whatever they say; without pods nobody is waited for."""
    flags = flag_store("v3", previous="v2")
    committing = promotion("v3", PromotionState.COMMITTING)
    starting = pod_view("v2", "v3", flags=flags, ready=False)

    assert state_of(plan("v3", flags, starting, promotion=committing)) is PromotionState.COMMITTING
    assert state_of(plan("v3", flags, promotion=committing)) is PromotionState.COMPLETE


def test_commit_whose_status_was_lost_is_completed() -> None:
    """The operator died between flag store and status: the next pass goes on from the flag store."""
    flags = flag_store("v3", previous="v2", pinned=["v2", "v3"])
    pods = [pod_view("v2", "v3", flags=flags)]

    assert state_of(plan("v3", flags, *pods, promotion=preparing("v3"))) is PromotionState.COMPLETE
    assert plan("v3", flags, *pods).promotion is None
    refused = promotion("v3", PromotionState.REFUSED)
    assert plan("v3", flags, *pods, promotion=refused).promotion is None


def test_steady_changes_nothing() -> None:
    """A world at rest keeps its flag store, and the last promotion in status."""
    flags = flag_store("v3", previous="v2", pinned=["v2", "v3"])
    complete = promotion("v3", PromotionState.COMPLETE, age=timedelta(days=6))
    made = plan("v3", flags, pod_view("v2", "v3", flags=flags), promotion=complete)

    assert made == PromotionPlan(flags=flags, promotion=complete)
    assert not made.active


# Refuse


@pytest.mark.parametrize("reason", list(FailureReason))
@pytest.mark.parametrize("ready", [True, False])
def test_any_failure_on_any_pod_refuses(reason: FailureReason, *, ready: bool) -> None:
    """Whatever the reason, and whether or not the pod gets traffic: production stays, the version goes."""
    flags = flag_store("v2", "v3", pinned=["v2", "v3"])
    broken = failed("v3", reason, message="why and what to do", sample=3, expected="1", found="0")
    pods = [
        pod_view("v2", "v3", flags=flags),
        pod_view("v2", broken, name="churn-b", flags=flags, ready=ready),
    ]
    made = plan("v3", flags, *pods, promotion=preparing("v3"))

    assert made.flags == flag_store("v2", pinned=["v2"])
    assert state_of(made) is PromotionState.REFUSED
    assert made.promotion is not None
    refusal = made.promotion.refusal
    assert refusal is not None
    assert (refusal.version, refusal.pod, refusal.reason, refusal.message) == (
        "v3",
        "churn-b",
        reason.value,
        "why and what to do",
    )
    assert refusal.failure == broken.failure
    assert not made.active


def test_the_scouts_failure_spares_the_others() -> None:
    """What fails on the first pod never reaches a second one."""
    flags = flag_store("v2", "v3", pinned=["v2"], first="churn-a")
    pods = [
        pod_view("v2", failed("v3"), name="churn-a", flags=flags),
        pod_view("v2", name="churn-b", flags=flags),
    ]
    made = plan("v3", flags, *pods, promotion=preparing("v3"))

    assert state_of(made) is PromotionState.REFUSED
    assert made.flags == flag_store("v2", pinned=["v2"])


def test_a_failure_under_another_revision_is_old() -> None:
    """A report under another flag store may be of an attempt long past."""
    flags = flag_store("v2", "v3", pinned=["v2"])
    old = pod_view("v2", failed("v3"), flags=flag_store("v2", "v3"))

    assert state_of(plan("v3", flags, old, promotion=preparing("v3"))) is PromotionState.PREPARING


def test_a_failed_previous_does_not_matter_to_others() -> None:
    """Only the target's failure refuses the target."""
    flags = flag_store("v2", "v3")
    pods = [pod_view(failed("v2"), "v3", flags=flags)]

    assert plan("v3", flags, *pods, promotion=preparing("v3")).flags.production == "v3"


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ([], "there is no pod to prove it"),
        ([mute_pod(ready=False)], "pod churn-a does not report on it"),
        ([mute_pod(silent=True)], "pod churn-a does not report on it"),
        (
            [
                pod_view(
                    "v2",
                    version_report("v3", VersionState.FETCHING, message="s3://models does not answer"),
                    flags=flag_store("v2", "v3"),
                )
            ],
            "pod churn-a is Fetching: s3://models does not answer",
        ),
    ],
)
def test_what_takes_too_long_is_refused(pods: list[PodView], said: str) -> None:
    """Past the deadline production stays, and the refusal says who was missing."""
    late = preparing("v3", age=DEADLINE)
    made = plan("v3", flag_store("v2", "v3"), *pods, promotion=late, proven="v2")

    assert state_of(made) is PromotionState.REFUSED
    assert "v3" not in made.flags.resident
    assert made.promotion is not None
    assert made.promotion.refusal is not None
    assert made.promotion.refusal.reason == "DeadlineExceeded"
    assert made.promotion.refusal.message == f"not proven within 10m: {said}"


def test_the_deadline_is_not_early() -> None:
    """One second before it the attempt goes on."""
    almost = preparing("v3", age=DEADLINE - timedelta(seconds=1))

    assert state_of(plan("v3", flag_store("v2", "v3"), mute_pod(silent=True), promotion=almost)) is (
        PromotionState.PREPARING
    )


def test_late_proof_is_proof() -> None:
    """An operator that was away for longer than the deadline finds all proven, and commits."""
    flags = flag_store("v2", "v3")
    made = plan("v3", flags, pod_view("v2", "v3", flags=flags), promotion=preparing("v3", age=2 * DEADLINE))

    assert made.flags.production == "v3"


def test_the_deadline_waits_for_the_first_answers() -> None:
    """An operator that has just come back does not refuse before it has asked the pods."""
    late = preparing("v3", age=2 * DEADLINE)

    assert state_of(plan("v3", flag_store("v2", "v3"), mute_pod(), promotion=late)) is (
        PromotionState.PREPARING
    )


# Refused stays refused


def test_what_was_promoted_before_is_proven_anew() -> None:
    """Promoted long ago and not production any more, as after a lost flag store: a new attempt and clock."""
    done = promotion("v3", PromotionState.COMPLETE, age=timedelta(days=1))
    flags = flag_store("v2")
    again = plan("v3", flags, pod_view("v2", flags=flags), promotion=done)

    assert again.promotion == Promotion(version="v3", state=PromotionState.PREPARING, started=NOW)


def test_refused_stays_refused() -> None:
    """Neither time nor a pod that has it Ready after all brings a refused version back."""
    refused = promotion("v3", PromotionState.REFUSED, age=timedelta(days=1))
    flags = flag_store("v2", "v3")
    made = plan("v3", flags, pod_view("v2", "v3", flags=flags), promotion=refused)

    assert made.promotion == refused
    assert made.flags == flag_store("v2", pinned=["v2"])


def test_refused_without_pods_is_not_taken_unproven() -> None:
    """Scaling to zero is no way around a refusal."""
    made = plan("v3", flag_store("v2"), promotion=promotion("v3", PromotionState.REFUSED))

    assert made.flags.production == "v2"


@pytest.mark.parametrize("ready", [True, False])
def test_retry_of_production_gives_it_another_chance(ready: bool) -> None:  # noqa: FBT001
    """Pods on which production failed may try again; other bytes are taken only where it serves nobody."""
    flags = flag_store("v1", pinned=["v1"])
    pod = pod_view(failed("v1"), ready=ready, flags=flags)
    made = plan("v1", flags, pod, retry=True)

    assert made.flags.attempt == begun("v1")
    assert set(made.flags.digests) == ({"v1"} if ready else set())
    assert made.promotion is None


def test_retry_begins_anew() -> None:
    """A person's retry is a new attempt with a new clock, a new scout and no pin."""
    flags = flag_store("v2", pinned=["v2"])
    pods = [pod_view("v2", name=name, flags=flags) for name in ("churn-a", "churn-b")]
    refused = promotion("v3", PromotionState.REFUSED, age=timedelta(days=1))
    made = plan("v3", flags, *pods, promotion=refused, retry=True)

    assert made.promotion == Promotion(version="v3", state=PromotionState.PREPARING, started=NOW)
    assert made.flags == flag_store("v2", "v3", pinned=["v2"], first="churn-a", attempt=begun("v3"))


def test_retry_does_not_disturb_an_attempt_under_way() -> None:
    """Asking again for what is being tried changes nothing."""
    flags = flag_store("v2", "v3", pinned=["v2"])
    pods = [pod_view("v2", version_report("v3", VersionState.PROVING), flags=flags)]

    assert plan("v3", flags, *pods, promotion=preparing("v3"), retry=True) == plan(
        "v3", flags, *pods, promotion=preparing("v3")
    )


# Changes in the middle


def test_git_takes_the_attempt_back() -> None:
    """spec.version back to production in the middle: the version goes, the attempt is forgotten."""
    for state in PromotionState:
        flags = flag_store("v2", "v3", pinned=["v2", "v3"], first="churn-a")
        made = plan("v2", flags, pod_view("v2", flags=flags), promotion=promotion("v3", state))

        assert made.flags == flag_store("v2", pinned=["v2"])
        assert made.promotion is None


def test_a_second_change_starts_over() -> None:
    """Another version in the middle: a new attempt with a clock and a scout of its own."""
    flags = flag_store("v2", "v3", pinned=["v2", "v3"])
    pods = [pod_view("v2", "v3", name=name, flags=flags) for name in ("churn-a", "churn-b")]
    made = plan("v4", flags, *pods, promotion=preparing("v3", age=2 * DEADLINE))

    assert made.flags == flag_store("v2", "v4", pinned=["v2"], first="churn-a", attempt=begun("v4"))
    assert made.promotion == Promotion(version="v4", state=PromotionState.PREPARING, started=NOW)


def test_a_change_during_the_switch_starts_from_the_new_production() -> None:
    """Another version while pods still switch: v3 is production already, and stays until v4 is proven."""
    flags = flag_store("v3", previous="v2", pinned=["v2", "v3"])
    pods = [
        pod_view("v2", "v3", flags=flags),
        pod_view("v2", "v3", name="churn-b", flags=flag_store("v2", "v3"), production="v2"),
    ]
    made = plan("v4", flags, *pods, promotion=promotion("v3", PromotionState.COMMITTING))

    assert (made.flags.production, made.flags.resident) == ("v3", ("v3", "v4"))
    assert state_of(made) is PromotionState.PREPARING


def test_after_a_refusal_another_version_has_its_chance() -> None:
    """A new spec.version after a refusal is a new attempt."""
    flags = flag_store("v2")
    made = plan("v4", flags, pod_view("v2", flags=flags), promotion=promotion("v3", PromotionState.REFUSED))

    assert made.promotion == Promotion(version="v4", state=PromotionState.PREPARING, started=NOW)


def test_rollback_to_the_previous_is_one_flag_change() -> None:
    """The previous version is resident and proven on all pods: the alias moves in the first pass."""
    flags = flag_store("v3", previous="v2", pinned=["v2", "v3"])
    pods = [pod_view("v2", "v3", name=name, flags=flags) for name in ("churn-a", "churn-b")]
    made = plan("v2", flags, *pods, promotion=promotion("v3", PromotionState.COMPLETE))

    assert made.flags == flag_store("v2", previous="v3", pinned=["v2", "v3"])
    assert state_of(made) is PromotionState.COMMITTING


def test_rollback_waits_for_a_pod_that_lacks_it() -> None:
    """A pod that has not fetched the previous version yet is waited for, without a scout."""
    flags = flag_store("v3", previous="v2", pinned=["v2", "v3"])
    pods = [pod_view("v2", "v3", flags=flags), pod_view("v3", name="churn-b", flags=flags)]
    made = plan("v2", flags, *pods)

    assert made.flags == flags
    assert state_of(made) is PromotionState.PREPARING


def test_the_next_promotion_frees_the_previous() -> None:
    """A third version takes the previous one's place in memory."""
    flags = flag_store("v2", previous="v1", pinned=["v1", "v2"])
    made = plan("v3", flags, pod_view("v1", "v2", flags=flags))

    assert made.flags == flag_store("v2", "v3", pinned=["v2"], attempt=begun("v3"))


# Pins


def test_the_first_proof_pins_the_bytes() -> None:
    """Production's digest is pinned as soon as a pod has proven it."""
    flags = flag_store("v1")

    assert plan("v1", flags, pod_view("v1", flags=flags)).flags == flag_store("v1", pinned=["v1"])


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(version_report("v1", edition="altered"), id="other bytes"),
        pytest.param(failed("v1"), id="failed"),
        pytest.param(version_report("v1", VersionState.PROVING), id="unproven"),
    ],
)
def test_a_pin_stays(seen: VersionReport) -> None:
    """Once pinned, nothing that a pod says moves the pin of production."""
    flags = flag_store("v1", pinned=["v1"])

    assert plan("v1", flags, pod_view(seen, flags=flags)).flags == flags


def test_only_proofs_under_this_revision_pin() -> None:
    """A digest out of an old report may be the one that a retry was asked for."""
    flags = flag_store("v1", "v2")

    made = plan("v2", flags, pod_view("v1", "v2", flags=flag_store("v1")), promotion=preparing("v2"))
    assert made.flags.digests == {}


# Fixed points

VERSIONS = ("v1", "v2", "v3")

reports = st.one_of(
    st.sampled_from(VersionState).map(lambda state: lambda name: version_report(name, state)),
    st.just(failed),
)
flag_stores = st.builds(
    lambda production, others, pinned, first: flag_store(
        production, *others, pinned=sorted(pinned & {production, *others}), first=first
    ),
    st.sampled_from(VERSIONS),
    st.sets(st.sampled_from(VERSIONS)),
    st.sets(st.sampled_from(VERSIONS)),
    st.sampled_from(["", "churn-0", "churn-9"]),
)


@st.composite
def worlds(draw: st.DrawFn) -> PromotionInput:
    """Draw any world, likely or not."""
    flags = draw(st.none() | flag_stores)
    pods = []
    for index in range(draw(st.integers(0, 3))):
        name, ready = f"churn-{index}", draw(st.booleans())
        if draw(st.booleans()):
            pods.append(mute_pod(name=name, ready=ready, silent=draw(st.booleans())))
            continue
        told = [draw(reports)(version) for version in draw(st.sets(st.sampled_from(VERSIONS)))]
        obeyed = draw(st.sampled_from([flags, flag_store("v1")]))
        pods.append(pod_view(*told, name=name, ready=ready, flags=obeyed))
    known = draw(
        st.none()
        | st.builds(
            promotion,
            st.sampled_from(VERSIONS),
            st.sampled_from(PromotionState),
            age=st.sampled_from([timedelta(seconds=5), DEADLINE]),
        )
    )
    return PromotionInput(
        target=draw(st.sampled_from(VERSIONS)),
        flags=flags,
        promotion=known,
        proven=draw(st.sampled_from(["", *VERSIONS])),
        pods=pods,
        wanted=draw(st.integers(0, 3)),
        deadline=DEADLINE,
        retry=draw(st.booleans()),
    )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(world=worlds())
def test_plans_come_to_rest(world: PromotionInput) -> None:
    """Passes over a world whose pods do nothing soon decide nothing new, and one world gives one plan."""
    retry, seen = world.retry, []
    for _ in range(6):
        made = plan_promotion(world, now=NOW)
        assert made == plan_promotion(world, now=NOW)
        assert made.flags.production in made.flags.resident
        seen.append(made)
        # A retry is acknowledged in the pass that obeys it.
        world = replace(world, flags=made.flags, promotion=made.promotion, retry=False)

    assert seen[-1] == seen[-2], f"retry {retry}: {seen}"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(world=worlds())
def test_production_moves_to_the_target_or_not_at_all(world: PromotionInput) -> None:
    """No world makes a plan name a production other than the one before and spec.version."""
    made = plan_promotion(world, now=NOW)
    before = world.flags.production if world.flags else world.proven

    assert made.flags.production in {before, world.target}
    assert len(made.flags.resident) <= 2
