"""Shadows, decision by decision, on a small stage whose status goes through its own YAML between passes."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from greenroom_operator.controller.actions import Verb
from greenroom_operator.controller.conditions import ConditionType, find_condition
from greenroom_runtime.contract.report import MirrorReport
from greenroom_runtime.contract.shadow import (
    DIFFERENCE_BOUNDS,
    SECONDS_BOUNDS,
    EndReason,
    ProcessEnd,
    SegmentCounts,
    ShadowCounts,
)
from tests.support.builders import digest
from tests.support.stage import CLEAN, ShadowLife, Stage, agreeing, differing

HEALTHY, READY, DEGRADED = ConditionType.SHADOW_HEALTHY, ConditionType.READY, ConditionType.DEGRADED
PROGRESSING, STALLED = ConditionType.PROGRESSING, ConditionType.STALLED


def stage(
    *, rollout: dict[str, Any] | None = None, gate: dict[str, Any] | None = None, **shadow: Any
) -> Stage:
    """Return a steady v2 with a shadow of v4, whose gate decides as soon as it can."""
    steady = Stage().settle()
    at_once = {"minDuration": "0s"} | (gate or {})
    return steady.edit(shadow={"version": "v4", "gate": at_once} | shadow, rollout=rollout)


def waiting(**shadow: Any) -> Stage:
    """Return a rollout of v4 that waits for its shadow's verdict."""
    return stage(rollout={"version": "v4", "percent": 10}, onSuccess="Rollout", **shadow)


def passed(shadowed: Stage) -> Stage:
    """Let the shadow pass."""
    shadowed.shadows["churn-a"] = agreeing()
    return shadowed.wait(5)


def failed(shadowed: Stage) -> Stage:
    """Let the shadow fail its gate."""
    shadowed.shadows["churn-a"] = differing()
    return shadowed.wait(5)


# What is mirrored


def test_the_flag_store_has_the_shadow_and_pods_hold_nothing_more() -> None:
    """Its version is told to shadows alone: what is resident stays what it was."""
    shadowed = stage(percent=12.5, gate={"maxLatencyRatio": "2"})

    assert shadowed.mirrored is not None
    assert (shadowed.mirrored.version, shadowed.mirrored.hundredths) == ("v4", 1250)
    assert (shadowed.mirrored.salt, shadowed.mirrored.latency_ratio) == ("ml/churn", 2.0)
    assert shadowed.flags is not None
    assert shadowed.flags.resident == ("v2",)


def test_the_first_proof_pins_the_bytes() -> None:
    """What the first shadow has proven is what the others may hold: status and flag store say so."""
    shadowed = Stage().settle()
    shadowed.shadows = {"churn-b": ShadowLife(edition="other", silent=True)}
    shadowed.edit(shadow={"version": "v4"})
    shadowed.shadows["churn-b"] = ShadowLife(edition="other")
    shadowed.wait(5)

    assert shadowed.shadow.digest == digest("v4")
    assert shadowed.flags is not None
    assert shadowed.flags.digests["v4"] == digest("v4")
    assert shadowed.shadow.state == "Broken"
    assert "the shadow of pod churn-b cannot hold v4: DigestChanged" in (shadowed.shadow.error or "")


def test_a_pin_that_pods_obey_wins() -> None:
    """Where pods hold the version for users, the shadow is compared with these very bytes."""
    shadowed = stage(rollout={"version": "v4", "percent": 10})
    assert shadowed.flags is not None
    shadowed.flags = replace(
        shadowed.flags, digests={**shadowed.flags.digests, "v4": digest("v4", edition="2")}
    )
    shadowed.obeyed = shadowed.flags

    shadowed.make_pass()

    assert shadowed.shadow.digest == digest("v4", edition="2")


def test_a_rollout_is_held_to_the_bytes_that_the_shadow_has_proven() -> None:
    """What was compared is what users get: the pin is there before a pod proves the version."""
    shadowed = passed(waiting())

    asked = next(flags for flags in shadowed.written if "v4" in flags.resident)
    assert asked.digests["v4"] == digest("v4")
    assert shadowed.share == 10


@pytest.mark.parametrize(
    "change",
    [
        {"version": "v5"},
        {"tolerance": "0.2"},
        {"gate": {"maxLatencyRatio": "3"}},
    ],
    ids=str,
)
def test_another_comparison_is_another_epoch(change: dict[str, Any]) -> None:
    """What other things are compared, or otherwise, is counted anew, and a verdict is forgotten."""
    shadowed = passed(stage())
    assert shadowed.shadow.verdict == "Pass"
    before = shadowed.shadow.epoch
    shadowed.shadows.clear()

    shadowed.edit(shadow={"version": "v4"} | change)

    assert shadowed.shadow.epoch != before
    assert (shadowed.shadow.verdict, shadowed.shadow.requests) == ("Inconclusive", 0)


@pytest.mark.parametrize(
    "change",
    [{"percent": 1}, {"onSuccess": "Rollout"}, {"gate": {"minRequests": 5, "maxErrorPercent": "3"}}],
    ids=str,
)
def test_the_same_comparison_goes_on(change: dict[str, Any]) -> None:
    """The share and what the gate asks for may change without losing what was counted."""
    shadowed = passed(stage())
    before = shadowed.shadow.epoch

    shadowed.edit(shadow={"version": "v4"} | change)

    assert (shadowed.shadow.epoch, shadowed.shadow.verdict) == (before, "Pass")


def test_another_production_is_another_epoch() -> None:
    """A promotion goes on as if there were no shadow; what it is compared with afterwards is counted anew."""
    shadowed = passed(stage())
    before = shadowed.shadow.epoch
    shadowed.shadows.clear()

    shadowed.edit(version="v3")

    assert shadowed.flags is not None
    assert shadowed.flags.production == "v3"
    assert shadowed.shadow.epoch != before
    assert shadowed.shadow.verdict == "Inconclusive"
    commit = next(flags for flags in shadowed.written if flags.production == "v3")
    assert commit.shadow is None or commit.shadow.epoch != before


def test_rules_name_the_segments() -> None:
    """Requests of those that spec.rollout's rules name are counted apart, 32 pairs at most, each once."""
    rules = [
        {"name": f"r{number}", "attribute": "country", "in": [f"C{number}", f"C{number + 1}"]}
        for number in range(32)
    ]
    shadowed = stage(rollout={"version": "v3", "percent": 10, "rules": rules})

    assert shadowed.mirrored is not None
    segments = shadowed.mirrored.segments
    assert len(segments) == len(set(segments)) == 32
    assert segments[:3] == (("country", "C0"), ("country", "C1"), ("country", "C2"))


def test_production_is_not_shadowed() -> None:
    """Once it is production the shadow is over, and a rollback begins it anew."""
    shadowed = passed(stage())
    shadowed.shadows.clear()
    shadowed.edit(version="v4")
    assert shadowed.mirrored is None
    assert (shadowed.shadow.state, shadowed.shadow.verdict) == ("Over", None)
    assert shadowed.condition(HEALTHY) == ("True", "ShadowOver")

    shadowed.edit(version="v2")

    assert shadowed.mirrored is not None
    assert (shadowed.shadow.state, shadowed.shadow.verdict) == ("Waiting", "Inconclusive")


def test_a_shadow_that_is_taken_out_leaves_no_trace() -> None:
    """Flag, pin, status and condition go."""
    shadowed = passed(stage())
    shadowed.edit(shadow=None)

    assert shadowed.flags is not None
    assert shadowed.flags.shadow is None
    assert "v4" not in shadowed.flags.digests
    assert shadowed.status.shadow is None
    assert shadowed.condition(HEALTHY) == ("", "")


def test_nothing_else_is_compared_while_pods_are_replaced() -> None:
    """Old pods would count with the old tolerance: the new comparison begins once they are gone."""
    shadowed = passed(stage())
    shadowed.shadows.clear()
    shadowed.rolling = True
    shadowed.edit(shadow={"version": "v4", "tolerance": "0.3"})
    assert shadowed.mirrored is None
    assert shadowed.shadow.state == "Preparing"
    assert shadowed.condition(READY) == ("True", "Serving")

    shadowed.rolling = False
    shadowed.settle()

    assert shadowed.mirrored is not None
    assert (shadowed.shadow.verdict, shadowed.shadow.requests) == ("Inconclusive", 0)


def test_pods_that_are_replaced_for_another_reason_go_on_counting() -> None:
    """A new image, say, is the same comparison."""
    shadowed = passed(stage())
    shadowed.rolling = True
    shadowed.wait(60)
    assert shadowed.mirrored is not None
    assert shadowed.shadow.verdict == "Pass"


@pytest.mark.parametrize(("told", "verdict"), [("agreeing", "Pass"), ("differing", "Fail")])
def test_there_is_no_verdict_before_its_time(told: str, verdict: str) -> None:
    """What is proven within minDuration is told, with the time from when on it counts, and decides then."""
    shadowed = stage(gate={"minDuration": "5m"})
    shadowed.shadows["churn-a"] = {"agreeing": agreeing, "differing": differing}[told]()
    shadowed.wait(280)
    assert shadowed.shadow.verdict == "Inconclusive"
    assert "no verdict before 20" in (shadowed.shadow.message or "")
    assert not {"ShadowPassed", "ShadowFailed"} & set(shadowed.reasons)

    shadowed.wait(30)

    assert shadowed.shadow.verdict == verdict
    assert "no verdict before" not in (shadowed.shadow.message or "")


def test_another_comparison_begins_its_time_anew() -> None:
    """MinDuration is of what is compared now: another production has its own five minutes."""
    shadowed = stage(gate={"minDuration": "5m"})
    shadowed.wait(290)
    shadowed.edit(version="v3")
    shadowed.shadows["churn-a"] = agreeing()
    shadowed.wait(60)
    assert shadowed.shadow.verdict == "Inconclusive"

    shadowed.wait(280)

    assert shadowed.shadow.verdict == "Pass"


# What status says


def test_status_has_the_numbers_that_people_ask_for() -> None:
    """Counts of all shadows together, shares, a ratio of medians, and how far numbers are apart."""
    rules = [{"name": "nordics", "attribute": "country", "in": ["NO", "SE"]}]
    shadowed = stage(rollout={"version": "v3", "percent": 0, "rules": rules})
    slow, quick = [0] * (len(SECONDS_BOUNDS) + 1), [0] * (len(SECONDS_BOUNDS) + 1)
    slow[5], quick[4] = 1000, 1000  # up to 1 ms, up to 0.5 ms
    differences = [0] * (len(DIFFERENCE_BOUNDS) + 1)
    differences[3], differences[12], differences[-1] = 900, 99, 1
    counts = ShadowCounts(
        received=1010,
        compared=1000,
        disagreed=4,
        failed=2,
        not_comparable=8,
        seconds=tuple(slow),
        production_seconds=tuple(quick),
        differences=tuple(differences),
        segments=(SegmentCounts(compared=600, disagreed=3), SegmentCounts(compared=100)),
    )
    mirror = MirrorReport(offered=1020, sent=1010, dropped=10)
    shadowed.shadows = {
        "churn-a": ShadowLife(counts=counts, mirror=mirror),
        "churn-b": ShadowLife(counts=counts),
    }
    shadowed.wait(30)

    status = shadowed.shadow
    assert (status.requests, status.disagreements, status.errors) == (2004, 8, 4)
    assert (status.not_comparable, status.dropped) == (16, 10)
    assert (status.summary, status.disagreement_percent) == ("0.4%", "0.4")
    assert status.latency_ratio == "2.2"
    assert status.differences == "p50 <=1e-05, p99 <=0.01, max >5e+06"
    told = [(segment.name, segment.requests, segment.disagreements) for segment in status.segments]
    assert told == [("country=NO", 1200, 6), ("country=SE", 200, 0)]
    assert status.state == "Comparing"


def test_status_is_written_every_thirty_seconds_at_most() -> None:
    """Counters change all the while, status does not; evidence and what each shadow told are one write."""
    shadowed = stage()
    changes = 0
    for number in range(60):
        before = shadowed.shadow
        shadowed.shadows["churn-a"] = agreeing(users=number, requests=100 + number)
        shadowed.now += timedelta(seconds=2)
        shadowed.settle()
        after = shadowed.shadow
        changes += before != after
        assert (before.evidence == after.evidence) == (before.counted == after.counted)
    assert changes <= 6


def test_a_second_pass_writes_nothing() -> None:
    """At rest neither flag store nor status changes, for hours."""
    shadowed = passed(stage())
    shadowed.wait(30)
    status, written = shadowed.status, len(shadowed.written)

    shadowed.wait(7200, every=60)

    assert (shadowed.status, len(shadowed.written)) == (status, written)


def test_what_a_shadow_that_is_gone_told_last_is_kept() -> None:
    """Its pod was removed between two writes: what it had been heard to say is in the sums, once."""
    shadowed = stage()
    shadowed.shadows = {"churn-a": agreeing(requests=100), "churn-b": agreeing(requests=10)}
    shadowed.wait(31)
    assert shadowed.shadow.requests == 110
    last = agreeing(requests=150)
    shadowed.pods.pop("churn-a")
    shadowed.gone = {"churn-a": last}
    shadowed.now += timedelta(seconds=1)
    shadowed.settle()
    assert shadowed.shadow.requests == 160

    shadowed.gone = {}
    shadowed.wait(60)

    assert shadowed.shadow.requests == 160


def test_a_new_operator_takes_nothing_for_broken() -> None:
    """Until shadows have had the time to speak, what was known of them stays."""
    shadowed = passed(stage())
    shadowed.wait(30)
    before = shadowed.status
    shadowed.deaf = True
    shadowed.wait(10)
    assert shadowed.status == before


# Health


def test_a_version_that_cannot_be_proven_breaks_the_shadow_and_nothing_else() -> None:
    """ShadowHealthy says where and why; production is Ready, and nothing is Degraded."""
    shadowed = Stage().settle()
    shadowed.shadows["churn-b"] = ShadowLife(fails=True)
    shadowed.edit(shadow={"version": "v4"})

    assert shadowed.condition(HEALTHY) == ("False", "ShadowBroken")
    assert shadowed.condition(READY) == ("True", "Serving")
    assert shadowed.condition(DEGRADED) == ("False", "Serving")
    assert shadowed.condition(STALLED) == ("", "")
    assert "GoldenMismatch" in (shadowed.shadow.error or "")
    assert shadowed.reasons.count("ShadowBroken") == 1
    shadowed.wait(600, every=60)
    assert shadowed.reasons.count("ShadowBroken") == 1


def test_retry_has_shadows_try_again() -> None:
    """Shadows let go of it, so that one that had given up begins anew, under another epoch."""
    shadowed = Stage().settle()
    shadowed.shadows["churn-b"] = ShadowLife(fails=True)
    shadowed.edit(shadow={"version": "v4"})
    assert shadowed.flags is not None
    before = shadowed.flags
    written = len(shadowed.written)
    shadowed.shadows.clear()

    shadowed.act(Verb.RETRY, "v4")

    told = shadowed.written[written:]
    assert [flags.shadow is not None for flags in told] == [False, True, True]
    assert [flags.digests.get("v4") for flags in told] == [None, None, digest("v4")]
    assert shadowed.mirrored is not None
    assert before.shadow is not None
    assert shadowed.mirrored.epoch != before.shadow.epoch
    assert shadowed.condition(HEALTHY) == ("True", "Waiting")
    assert shadowed.reasons[-2:] == ["ShadowBroken", "Comparing"]
    assert shadowed.objections == []


def test_retry_accepts_other_bytes() -> None:
    """What was published again under the same name is pinned anew."""
    shadowed = stage()
    shadowed.shadows = {pod: ShadowLife(edition="2") for pod in shadowed.pods}
    shadowed.wait(5)
    assert shadowed.shadow.state == "Broken"

    shadowed.act(Verb.RETRY, "v4")

    assert shadowed.shadow.digest == digest("v4", edition="2")
    assert shadowed.shadow.state == "Waiting"


def test_retry_forgets_a_verdict() -> None:
    """A shadow that has failed is judged anew, from nothing."""
    shadowed = failed(stage())
    assert shadowed.shadow.verdict == "Fail"
    shadowed.shadows.clear()

    shadowed.act(Verb.RETRY, "v4")

    assert (shadowed.shadow.verdict, shadowed.shadow.requests) == ("Inconclusive", 0)
    assert shadowed.shadow.epoch is not None


def test_one_retry_serves_a_promotion_and_its_shadow() -> None:
    """A refused promotion of the version that is shadowed, too: both begin anew, with the new bytes, once."""
    shadowed = stage()
    shadowed.pods["churn-a"] = {"v4"}
    shadowed.edit(version="v4")
    assert shadowed.status.promotion is not None
    assert shadowed.status.promotion.state == "Refused"
    shadowed.pods["churn-a"] = set()
    shadowed.shadows = {pod: ShadowLife(edition="") for pod in shadowed.pods}

    shadowed.act(Verb.RETRY, "v4")

    assert shadowed.flags is not None
    assert shadowed.flags.production == "v4"
    assert shadowed.shadow.state == "Over"


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (EndReason.CRASHED, "the shadow process of pod churn-b crashed: SIGSEGV"),
        (EndReason.HUNG, "the shadow process of pod churn-b hung: SIGSEGV"),
        (EndReason.OUT_OF_MEMORY, "the shadow process of pod churn-b ran out of memory: SIGSEGV"),
    ],
)
def test_a_process_that_does_not_stay_up_is_broken(reason: EndReason, text: str) -> None:
    """For minutes after it ended, so that the condition does not flap with a process that comes and goes."""
    shadowed = stage()
    end = ProcessEnd(reason=reason, message="SIGSEGV", seconds_ago=1)
    shadowed.shadows["churn-b"] = ShadowLife(ends=1, end=end)
    shadowed.wait(5)
    assert shadowed.condition(HEALTHY) == ("False", "ShadowBroken")
    assert text in (shadowed.shadow.error or "")

    late = end.model_copy(update={"seconds_ago": 301})
    shadowed.shadows["churn-b"] = ShadowLife(ends=1, end=late)
    shadowed.wait(5)

    assert shadowed.condition(HEALTHY) == ("True", "Waiting")
    assert shadowed.reasons[-2:] == ["ShadowBroken", "ShadowRecovered"]


def test_another_version_is_not_blamed_for_the_one_before() -> None:
    """A process that ended is no trouble of what is compared since; its next end is."""
    shadowed = stage()
    end = ProcessEnd(reason=EndReason.CRASHED, message="SIGSEGV", seconds_ago=1)
    shadowed.shadows["churn-b"] = ShadowLife(ends=1, end=end)
    shadowed.wait(5)
    assert shadowed.shadow.state == "Broken"

    shadowed.edit(shadow={"version": "v5"})
    shadowed.wait(5)
    assert shadowed.condition(HEALTHY) == ("True", "Waiting")

    shadowed.shadows["churn-b"] = ShadowLife(ends=2, end=end)
    shadowed.wait(5)
    assert shadowed.condition(HEALTHY) == ("False", "ShadowBroken")


def test_what_is_wrong_now_is_told() -> None:
    """The condition tells another trouble, and goes on telling the same one of the pod that had it first."""
    shadowed = stage()

    def told() -> str:
        found = find_condition(shadowed.status.conditions, HEALTHY)
        return found.message if found else ""

    crash = ProcessEnd(reason=EndReason.CRASHED, message="SIGSEGV; it had 91 MiB", seconds_ago=1)
    shadowed.shadows["churn-b"] = ShadowLife(ends=1, end=crash)
    shadowed.wait(5)
    first = told()
    assert "pod churn-b crashed: SIGSEGV; it had 91 MiB" in first

    other = crash.model_copy(update={"message": "SIGSEGV; it had 87 MiB"})
    shadowed.shadows["churn-a"] = ShadowLife(ends=1, end=other)
    shadowed.wait(31)
    assert told() == first

    starved = ProcessEnd(reason=EndReason.OUT_OF_MEMORY, message="killed at 80 %", seconds_ago=1)
    shadowed.shadows["churn-a"] = ShadowLife(ends=2, end=starved)
    shadowed.wait(31)
    assert "ran out of memory" in told()


def test_three_ends_in_an_epoch_fail_the_shadow() -> None:
    """Ends that were before the epoch are not its own."""
    shadowed = stage()
    shadowed.shadows["churn-b"] = ShadowLife(ends=2)
    shadowed.wait(5)
    shadowed.edit(shadow={"version": "v5", "gate": {"minDuration": "0s"}})
    shadowed.shadows["churn-b"] = ShadowLife(ends=4)
    shadowed.wait(5)
    assert shadowed.shadow.verdict == "Inconclusive"

    shadowed.shadows["churn-b"] = ShadowLife(ends=5)
    shadowed.wait(5)

    assert shadowed.shadow.verdict == "Fail"
    assert shadowed.condition(HEALTHY) == ("False", "ShadowFailed")


def test_a_supervisor_that_was_killed_counts_as_an_end() -> None:
    """It never ends by itself: three other lives in one pod fail the shadow, and nothing counted is lost."""
    shadowed = stage()
    for life in "1234":
        shadowed.shadows["churn-a"] = replace(agreeing(users=0, requests=10), instance=life)
        shadowed.wait(5)

    assert shadowed.shadow.verdict == "Fail"
    assert shadowed.shadow.requests == 40


def test_a_shadow_that_does_not_answer_is_broken_once_that_is_sure() -> None:
    """Every shadow is silent: the message names the port and the usual reason."""
    shadowed = stage()
    shadowed.shadows = {pod: ShadowLife(silent=True) for pod in shadowed.pods}
    shadowed.wait(5)

    assert shadowed.condition(HEALTHY) == ("False", "ShadowBroken")
    assert "port 8082" in (shadowed.shadow.error or "")


def test_a_mirror_that_hands_over_nothing_is_broken() -> None:
    """Shadows are well, and nothing reaches them from any pod; from one of two is another matter."""
    error = MirrorReport(offered=9, dropped=9, error="no shadow listens")
    shadowed = stage()
    shadowed.shadows = {"churn-a": ShadowLife(mirror=error)}
    shadowed.wait(5)
    assert shadowed.shadow.state == "Waiting"

    shadowed.shadows["churn-b"] = ShadowLife(mirror=error)
    shadowed.wait(5)

    assert shadowed.condition(HEALTHY) == ("False", "ShadowBroken")
    assert "pod churn-a cannot hand requests to its shadow: no shadow listens" in (
        shadowed.shadow.error or ""
    )


def test_a_rollout_to_all_users_leaves_no_production_traffic() -> None:
    """Only production's answers are compared, and there are none: status says so."""
    shadowed = stage(rollout={"version": "v3", "percent": 100})
    shadowed.settle()

    assert shadowed.condition(HEALTHY) == ("True", "Waiting")
    assert "no production traffic: v3 is rolled out to all users" in (shadowed.shadow.message or "")


def test_a_verdict_is_told_once_and_stays() -> None:
    """Pass and Fail are latched: what is counted afterwards changes neither verdict nor condition."""
    shadowed = passed(stage())
    message = shadowed.shadow.message
    shadowed.shadows["churn-b"] = differing()
    shadowed.wait(120)

    assert (shadowed.shadow.verdict, shadowed.shadow.message) == ("Pass", message)
    assert shadowed.reasons.count("ShadowPassed") == 1
    assert shadowed.condition(HEALTHY) == ("True", "ShadowPassed")
    assert shadowed.shadow.disagreements == 2000


def test_a_verdict_survives_trouble() -> None:
    """A shadow that breaks after its verdict is broken; the verdict and its words are not forgotten."""
    shadowed = passed(stage())
    message = shadowed.shadow.message
    shadowed.shadows = {pod: ShadowLife(silent=True) for pod in shadowed.pods}
    shadowed.wait(60)
    assert shadowed.condition(HEALTHY) == ("False", "ShadowBroken")
    assert (shadowed.shadow.verdict, shadowed.shadow.message) == ("Pass", message)

    shadowed.shadows.clear()
    shadowed.wait(5)

    assert shadowed.condition(HEALTHY) == ("True", "ShadowPassed")


# A rollout that waits


def test_a_rollout_waits_for_its_shadow() -> None:
    """Its version is not even proven on pods before; status, condition and event say what it waits for."""
    shadowed = waiting()
    shadowed.wait(600, every=30)

    assert shadowed.state == "WaitingForShadow"
    assert shadowed.flags is not None
    assert shadowed.flags.resident == ("v2",)
    assert shadowed.status.rollout is not None
    assert shadowed.status.rollout.summary == "v4 (waiting)"
    assert shadowed.condition(READY) == ("True", "WaitingForShadow")
    assert shadowed.condition(PROGRESSING) == ("True", "WaitingForShadow")
    assert shadowed.condition(DEGRADED) == ("False", "WaitingForShadow")
    assert shadowed.reasons.count("WaitingForShadow") == 1


def test_it_begins_once_the_shadow_has_passed() -> None:
    """The verdict is in status before anybody acts on it; then the version is proven and routed as ever."""
    shadowed = waiting()
    shadowed.shadows["churn-a"] = agreeing()
    shadowed.now += timedelta(seconds=5)
    shadowed.make_pass()
    assert (shadowed.shadow.verdict, shadowed.state) == ("Pass", "WaitingForShadow")

    shadowed.settle()

    assert (shadowed.state, shadowed.share) == ("Running", 10)
    assert shadowed.reasons[-3:] == ["ShadowPassed", "RollingOut", "RolloutStarted"]


def test_it_goes_on_waiting_once_the_shadow_has_failed() -> None:
    """And says why."""
    shadowed = failed(waiting())
    shadowed.wait(3600, every=60)

    assert (shadowed.state, shadowed.share) == ("WaitingForShadow", 0)
    assert shadowed.status.rollout is not None
    assert "its shadow has failed: disagreement: 2000 of 8000" in (shadowed.status.rollout.message or "")
    assert shadowed.condition(HEALTHY) == ("False", "ShadowFailed")
    assert shadowed.condition(DEGRADED) == ("False", "WaitingForShadow")


def test_what_has_begun_does_not_wait_again() -> None:
    """Another epoch, a shadow that fails, or one that is to hold it only now: users keep their version."""
    shadowed = passed(waiting())
    shadowed.shadows.clear()
    shadowed.edit(
        shadow={
            "version": "v4",
            "onSuccess": "Rollout",
            "gate": {"maxLatencyRatio": "3", "minDuration": "0s"},
        },
    )
    failed(shadowed)
    assert shadowed.shadow.verdict == "Fail"
    assert (shadowed.state, shadowed.share) == ("Running", 10)

    begun = stage(rollout={"version": "v4", "percent": 10})
    begun.edit(shadow={"version": "v4", "onSuccess": "Rollout"})
    assert (begun.state, begun.share) == ("Running", 10)


def test_a_verdict_on_something_else_lets_nothing_begin() -> None:
    """Production changed between verdict and beginning: what passed is not what would be rolled out."""
    shadowed = waiting()
    shadowed.shadows["churn-a"] = agreeing()
    shadowed.now += timedelta(seconds=5)
    shadowed.make_pass()
    assert shadowed.shadow.verdict == "Pass"
    shadowed.shadows.clear()

    shadowed.edit(version="v3")

    assert shadowed.flags is not None
    assert shadowed.flags.production == "v3"
    assert (shadowed.state, shadowed.shadow.verdict) == ("WaitingForShadow", "Inconclusive")


@pytest.mark.parametrize(
    "shadow", [None, {"version": "v4"}, {"version": "v5", "onSuccess": "Rollout"}], ids=str
)
def test_a_rollout_that_no_shadow_holds_any_more_begins(shadow: dict[str, Any] | None) -> None:
    """Without the shadow, or with one that is to hold something else, spec asks for a plain rollout."""
    shadowed = waiting().edit(shadow=shadow)
    assert (shadowed.state, shadowed.share) == ("Running", 10)


def test_a_person_may_begin_it_without_a_verdict() -> None:
    """promote-step, with steps or without."""
    shadowed = failed(waiting()).act(Verb.PROMOTE_STEP, "v4")
    assert (shadowed.state, shadowed.share) == ("Running", 10)
    assert shadowed.objections == []


def test_a_person_may_abort_it() -> None:
    """Then a Pass begins nothing; the action retry has it wait again."""
    shadowed = waiting().act(Verb.ABORT, "v4")
    assert shadowed.state == "Aborted"
    passed(shadowed)
    assert (shadowed.state, shadowed.share) == ("Aborted", 0)
    shadowed.shadows.clear()

    shadowed.act(Verb.RETRY, "v4")

    assert shadowed.state == "WaitingForShadow"


@pytest.mark.parametrize("by", ["action", "spec"])
def test_paused_it_waits_for_both(by: str) -> None:
    """Its shadow has passed, and nobody is routed before it is resumed."""
    shadowed = waiting()
    if by == "action":
        shadowed.act(Verb.PAUSE, "v4")
    else:
        shadowed.edit(rollout={"version": "v4", "percent": 10, "paused": True})
    passed(shadowed)
    assert (shadowed.state, shadowed.share) == ("Paused", 0)

    if by == "action":
        shadowed.act(Verb.RESUME, "v4")
    else:
        shadowed.edit(rollout={"version": "v4", "percent": 10})

    assert (shadowed.state, shadowed.share) == ("Running", 10)


def test_promoting_it_ends_the_wait() -> None:
    """A person who sets spec.version waits for no shadow: it is proven and promoted as ever."""
    shadowed = waiting().edit(version="v4")
    assert shadowed.flags is not None
    assert shadowed.flags.production == "v4"
    assert (shadowed.state, shadowed.shadow.state) == ("Promoted", "Over")


# Writes that are lost


@pytest.mark.parametrize("lost", ["flags", "status"])
@pytest.mark.parametrize("after", range(6))
def test_an_operator_that_dies_between_writes_begins_a_rollout_once(lost: str, after: int) -> None:
    """It dies in its n-th pass after the shadow has passed; another one goes on, to the same end."""
    shadowed = waiting()
    shadowed.shadows["churn-a"] = agreeing()
    shadowed.now += timedelta(seconds=5)
    for number in range(after + 1):
        shadowed.make_pass(dies_before=lost if number == after else "")
    shadowed.settle()

    assert (shadowed.state, shadowed.share, shadowed.shadow.verdict) == ("Running", 10, "Pass")
    assert shadowed.reasons.count("RolloutStarted") <= 1


@pytest.mark.parametrize("lost", ["flags", "status"])
@pytest.mark.parametrize("after", range(5))
def test_an_operator_that_dies_after_a_failure_lets_nothing_begin(lost: str, after: int) -> None:
    """A Fail that is in status stays one, whatever shadows say afterwards."""
    shadowed = waiting()
    shadowed.shadows["churn-a"] = differing()
    shadowed.now += timedelta(seconds=5)
    for number in range(after + 1):
        shadowed.make_pass(dies_before=lost if number == after else "")
    known = shadowed.shadow.verdict
    if known == "Fail":
        shadowed.shadows["churn-a"] = agreeing()
    shadowed.settle()
    shadowed.wait(60)

    assert (shadowed.state, shadowed.share) == ("WaitingForShadow", 0)


def test_lost_status_counts_the_same_epoch_on() -> None:
    """Shadows tell again what they have counted under the epoch of the flag store."""
    shadowed = stage()
    shadowed.shadows["churn-a"] = agreeing(users=10, requests=70)
    shadowed.wait(35)
    before = shadowed.mirrored
    shadowed.status = type(shadowed.status)()
    shadowed.settle()

    assert shadowed.mirrored == before
    assert shadowed.shadow.requests == 70


def test_a_lost_flag_store_is_written_again() -> None:
    """Where it is gone, status says what was compared."""
    shadowed = passed(stage())
    before, shadowed.flags = shadowed.flags, None
    shadowed.settle()
    assert before is not None
    assert shadowed.flags is not None
    assert shadowed.flags.shadow is not None
    assert shadowed.flags.shadow.version == "v4"


def test_status_that_cannot_be_read_any_more_is_counted_anew() -> None:
    """Edited by hand, or written by another release: shadows tell it again, nothing ends."""
    shadowed = stage()
    shadowed.shadows["churn-a"] = agreeing(users=10, requests=70)
    shadowed.wait(35)
    spoilt = shadowed.shadow.model_copy(update={"counted": "eJw=", "evidence": "[]"})
    shadowed.status = shadowed.status.model_copy(update={"shadow": spoilt})
    shadowed.wait(35)

    assert shadowed.shadow.requests == 70
    assert shadowed.shadow.verdict == "Inconclusive"


def test_a_shadow_and_a_rollout_of_another_version_do_not_meet() -> None:
    """Steps rise while another version is shadowed, and neither waits for the other."""
    shadowed = Stage().settle()
    shadowed.traffic = CLEAN
    shadowed.edit(rollout={"version": "v3", "steps": [{"percent": 10}]}, shadow={"version": "v4"})
    shadowed.wait(60)

    assert shadowed.state == "Complete"
    assert shadowed.mirrored is not None
    assert shadowed.mirrored.version == "v4"
