"""The gate's verdicts, and that evidence may come in any order, twice, late, and from before a restart."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom_operator.controller.gate import (
    MAX_CRASHES,
    Evidence,
    GatePolicy,
    GateVerdict,
    Outcome,
    dump_evidence,
    judge,
    parse_evidence,
)
from greenroom_runtime.contract.evidence import BUCKETS, ArmEvidence, Bitmap, RolloutEvidence

POLICY = GatePolicy()
EPOCH = "v3@1"
REQUESTS = 5000
"""More than any policy here asks for."""


def evidence(epoch: str = EPOCH, *, policy: GatePolicy = POLICY, before: Evidence | None = None) -> Evidence:
    """Begin an epoch of a rollout of v3."""
    return Evidence.begin(epoch, version="v3", policy=policy, before=before)


def report(*, rollout: ArmEvidence, production: ArmEvidence, epoch: str = EPOCH) -> RolloutEvidence:
    """Return what a pod tells."""
    return RolloutEvidence(epoch=epoch, version="v3", rollout=rollout, production=production)


def some(size: int, share: float) -> Bitmap:
    """Return this share of the first buckets, spread evenly: more buckets are a superset of fewer."""
    return Bitmap.of(bucket for bucket in range(size) if int((bucket + 1) * share) > int(bucket * share))


def arm(seen: int = 0, *, failed: float = 0, slow: float = 0, requests: int = REQUESTS) -> ArmEvidence:
    """Return an arm with so many buckets, all of them timed, and these shares of them failed and slow."""
    return ArmEvidence(
        seen=some(seen, 1),
        failed=some(seen, failed),
        timed=some(seen, 1),
        slow=some(seen, slow),
        requests=requests,
    )


def told(*arms: tuple[ArmEvidence, ArmEvidence], policy: GatePolicy = POLICY) -> GateVerdict:
    """Return the verdict after these reports of the rollout's and production's arms, one after another."""
    known = evidence(policy=policy)
    for rollout, production in arms:
        known = known.observe([report(rollout=rollout, production=production)])
    return judge(known, policy)


def growing(
    count: int, *, failed: float = 0, other_failed: float = 0, slow: float = 0.1, other_slow: float = 0.25
) -> list[tuple[ArmEvidence, ArmEvidence]]:
    """Return reports of arms that grow to so many buckets, with these shares of failed and slow ones."""
    return [
        (arm(size, failed=failed, slow=slow), arm(size, failed=other_failed, slow=other_slow))
        for size in range(count // 20, count + 1, count // 20)
    ]


def test_nothing_is_known_at_first() -> None:
    """An epoch without evidence is inconclusive, and says what is missing."""
    verdict = judge(evidence(), POLICY)
    assert verdict.outcome is verdict.errors is verdict.latency is Outcome.INCONCLUSIVE
    assert verdict.message == (
        "0 of 1000 requests so far; "
        "errors: 0 of 0 user buckets against 0 of 0 of production's: not proven yet; "
        "latency: no answer of the rollout's timed yet"
    )


def test_a_version_without_errors_passes() -> None:
    """Some 400 user buckets without an error prove that less than 1 % fail; there is no event to compare."""
    assert told(*growing(400)).errors is Outcome.INCONCLUSIVE
    verdict = told(*growing(420))
    assert verdict.outcome is verdict.errors is verdict.latency is Outcome.PASS
    assert verdict.message == (
        "errors: 0 of 420 user buckets against 0 of 420 of production's; "
        "latency: 42 of 420 user buckets slow against 105 of 420 of production's"
    )


def test_as_many_errors_as_production_pass() -> None:
    """A model that fails for 5 % of users passes where production does so, too; it takes more users."""
    assert told(*growing(1000, failed=0.05, other_failed=0.05)).errors is Outcome.INCONCLUSIVE
    assert told(*growing(3000, failed=0.05, other_failed=0.05)).errors is Outcome.PASS


def test_more_errors_fail() -> None:
    """Ten times as many users with errors as production has fail the version; the message has the numbers."""
    verdict = told(*growing(600, failed=0.1, other_failed=0.01))
    assert verdict.outcome is verdict.errors is Outcome.FAIL
    assert verdict.message.startswith(
        "errors: 60 of 600 user buckets against 6 of 600 of production's, more than 1.5 times as many users"
    )


def test_a_few_errors_prove_nothing() -> None:
    """Three unlucky users are no reason to abort."""
    verdict = told(*growing(100, failed=0.03))
    assert verdict.outcome is verdict.errors is Outcome.INCONCLUSIVE
    assert "errors: 3 of 100 user buckets against 0 of 100 of production's: not proven yet" in verdict.message


def test_slower_answers_fail() -> None:
    """A version whose answers are above its threshold more often than production's is too slow."""
    verdict = told(*growing(600, slow=0.5))
    assert (verdict.outcome, verdict.errors) == (Outcome.FAIL, Outcome.PASS)
    assert "300 of 600 user buckets slow against 150 of 600" in verdict.message
    assert verdict.message.endswith("more than 1.3 times as slow")


def test_slow_at_the_bound_is_neither() -> None:
    """A version that is as slow as it may be just so, neither fails nor passes."""
    assert told(*growing(4000, slow=0.25)).latency is Outcome.INCONCLUSIVE


def test_no_slow_answers_at_all_pass() -> None:
    """Where no answer of either arm is slow the version is quick enough, although no event says so."""
    assert told(*growing(40, slow=0, other_slow=0)).latency is Outcome.PASS


def test_too_few_requests_do_not_pass() -> None:
    """Whatever is proven, the policy's number of requests is waited for."""
    few = [(arm(size, requests=size), arm(size, slow=0.25)) for size in (200, 500)]
    verdict = told(*few)
    assert verdict.errors is verdict.latency is Outcome.PASS
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.message.startswith("500 of 1000 requests so far; ")
    assert told(*few, policy=replace(POLICY, min_requests=500)).outcome is Outcome.PASS


def test_crashes_fail() -> None:
    """Three crashes fail a version whatever its answers are; fewer are told, in later epochs, too."""
    known = evidence().crash(1)
    assert "have crashed once while it was routable" in judge(known, POLICY).message
    known = evidence("v3@2", before=known.crash(1))
    assert "have crashed 2 times" in judge(known, POLICY).message
    assert judge(known, POLICY).outcome is Outcome.INCONCLUSIVE
    assert known.crash(-5) == known.crash(0) == known
    for rollout, production in growing(420):
        known = known.observe([report(rollout=rollout, production=production, epoch="v3@2")])
    assert judge(known, POLICY).outcome is Outcome.PASS
    failed = judge(known.crash(1), POLICY)
    assert failed.outcome is Outcome.FAIL
    assert f"have crashed {MAX_CRASHES} times" in failed.message


def test_a_failure_after_a_healthy_time_is_noticed() -> None:
    """Money that was lost while the version was well does not hide the harm of a later hour."""
    known = evidence()
    for well in growing(2000, failed=0.3, other_failed=0.3):
        known = known.observe([report(rollout=well[0], production=well[1])])
    assert judge(known, POLICY).errors is Outcome.PASS
    for count in range(0, 201, 20):
        ill = ArmEvidence(failed=Bitmap.of(range(3000, 3000 + count)))
        other = ArmEvidence(failed=Bitmap.of(range(3000, 3000 + count // 10)))
        known = known.observe([report(rollout=ill, production=other)])
    assert judge(known, POLICY).errors is Outcome.FAIL


def test_a_failure_in_a_later_step_is_noticed() -> None:
    """A step that went well makes the next one hardly slower to fail."""
    known = evidence()
    for rollout, production in growing(2000, failed=0.3, other_failed=0.3):
        known = known.observe([report(rollout=rollout, production=production)])
    later = evidence("v3@2", before=known)
    ill, well = arm(100, failed=0.5), arm(100, failed=0.05)
    assert (
        judge(later.observe([report(rollout=ill, production=well, epoch="v3@2")]), POLICY).errors
        is Outcome.FAIL
    )


def test_an_epoch_carries_suspicion_on() -> None:
    """The Fail tests go on in the next epoch where the bounds are the same, the Pass tests begin anew."""
    suspicious, fresh = evidence(), evidence("v3@2")
    for rollout, production in growing(300, failed=0.06, other_failed=0.02):
        suspicious = suspicious.observe([report(rollout=rollout, production=production)])
    assert judge(suspicious, POLICY).outcome is Outcome.INCONCLUSIVE
    carried = evidence("v3@2", before=suspicious)
    assert carried.wealth.error_fail.log_total == pytest.approx(suspicious.wealth.error_fail.log_total)
    assert carried.wealth.error_fail.log_total > fresh.wealth.error_fail.log_total
    assert carried.wealth.error_pass == fresh.wealth.error_pass
    assert carried.rollout == ArmEvidence()
    other = replace(POLICY, max_error_ratio=2.0)
    assert evidence("v3@2", policy=other, before=suspicious).wealth == evidence("v3@2", policy=other).wealth


def test_bounds_that_changed_need_new_evidence() -> None:
    """Money that was won against one bound says nothing of another; the message says what to do."""
    known = evidence()
    verdict = judge(known, replace(POLICY, max_error_ratio=1.2))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the bounds are not those of the evidence, 1.5 for errors and 1.3 for latency" in verdict.message
    assert judge(known, replace(POLICY, min_requests=5)).message.startswith("0 of 5 requests")


def test_spent_buckets_are_told() -> None:
    """Where nearly all buckets of both arms have failed nothing more is learnt: a person has to decide."""
    verdict = told(
        (arm(4096, failed=1, slow=0.25), arm(4096, failed=1, slow=0.25)),
    )
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert (
        verdict.message.count("nearly all user buckets of this step are spent: a person has to decide") == 2
    )


@pytest.mark.parametrize("change", [{"epoch": "v3@0"}, {"version": "v2"}])
def test_other_epochs_and_versions_say_nothing(change: dict[str, str]) -> None:
    """A pod that still counts the step before is not listened to."""
    stale = report(rollout=arm(50, failed=1), production=arm(50)).model_copy(update=change)
    assert evidence().observe([stale]) == evidence()


def test_a_bucket_is_slow_or_not_as_first_told() -> None:
    """What another pod makes of a bucket that is timed already does not change it: it is one trial."""
    first = ArmEvidence(timed=Bitmap.of([1, 2]), slow=Bitmap.of([2]))
    second = ArmEvidence(timed=Bitmap.of([1, 2, 3]), slow=Bitmap.of([1, 3, 9]))
    known = evidence().observe([report(rollout=first, production=first)])
    known = known.observe([report(rollout=second, production=second)])
    assert known.rollout.slow == Bitmap.of([2, 3])
    assert known.rollout.seen == Bitmap.of([1, 2, 3])


def test_requests_are_summed_over_pods_and_never_fall() -> None:
    """Two pods' requests are added up; one that began anew takes nothing back."""
    pods = [report(rollout=arm(requests=count), production=arm(requests=1)) for count in (300, 400)]
    known = evidence().observe(pods)
    assert (known.rollout.requests, known.production.requests) == (700, 2)
    assert known.observe(pods[:1]).rollout.requests == 700
    many = [report(rollout=arm(requests=2**63 - 1), production=arm())] * 3
    assert known.observe(many).rollout.requests == 2**63 - 1


def bitmaps() -> st.SearchStrategy[Bitmap]:
    """Draw sets of buckets: few, any, or all."""
    return st.one_of(
        st.sets(st.integers(0, BUCKETS - 1), max_size=30).map(Bitmap.of),
        st.integers(0, BUCKETS).map(lambda count: Bitmap((1 << count) - 1)),
        st.integers(0, 2**32).map(
            lambda seed: Bitmap(random.Random(seed).getrandbits(BUCKETS))  # noqa: S311 no secret
        ),
    )


arms = st.builds(
    ArmEvidence,
    seen=bitmaps(),
    failed=bitmaps(),
    timed=bitmaps(),
    slow=bitmaps(),
    requests=st.integers(0, 2**63 - 1),
    errors=st.integers(0, 2**63 - 1),
)
reports = st.builds(
    RolloutEvidence, epoch=st.just(EPOCH), version=st.just("v3"), rollout=arms, production=arms
)
policies = st.builds(
    GatePolicy,
    min_requests=st.sampled_from([0, 1000]),
    max_error_ratio=st.sampled_from([0.01, 1.0, 1.01, 1.5, 100.0]),
    tolerated_error_percent=st.sampled_from([0.0, 1.0, 100.0]),
)


@settings(max_examples=60)
@given(scrapes=st.lists(st.lists(reports, max_size=3), max_size=4), policy=policies)
def test_any_counts_have_a_verdict(scrapes: Sequence[Sequence[RolloutEvidence]], policy: GatePolicy) -> None:
    """Whatever pods tell, contradictions included, there is a verdict in words, and no number is NaN."""
    known = evidence(policy=policy)
    for scrape in scrapes:
        known = known.observe(scrape)
        assert judge(known, policy).message
        json.dumps(dump_evidence(known), allow_nan=False)
    wealth = known.wealth
    for money in (wealth.error_fail, wealth.error_pass, wealth.latency_fail, wealth.latency_pass):
        assert math.isfinite(money.log_total)


@settings(max_examples=60)
@given(scrapes=st.lists(st.lists(reports, max_size=3), max_size=3))
def test_observing_twice_changes_nothing(scrapes: Sequence[Sequence[RolloutEvidence]]) -> None:
    """The same reports again, or some of them, are no news."""
    known = evidence()
    for scrape in scrapes:
        known = known.observe(scrape)
        assert known.observe(scrape) == known
        assert known.observe(scrape[:1]) == known
        assert known.observe([]) == known


@settings(max_examples=60)
@given(scrape=st.lists(reports, max_size=4), seed=st.randoms(use_true_random=False))
def test_the_order_of_pods_does_not_matter(scrape: list[RolloutEvidence], seed: random.Random) -> None:
    """Reports that are observed together give the same evidence in any order."""
    shuffled = list(scrape)
    seed.shuffle(shuffled)
    assert evidence().observe(shuffled) == evidence().observe(scrape)


@settings(max_examples=60)
@given(scrapes=st.lists(st.lists(reports, max_size=2), max_size=4))
def test_a_restart_changes_no_verdict(scrapes: Sequence[Sequence[RolloutEvidence]]) -> None:
    """An operator that reads its evidence from status before each scrape comes to the same verdict."""
    steady = restarted = evidence()
    for scrape in scrapes:
        steady = steady.observe(scrape)
        restarted = parse_evidence(json.loads(json.dumps(dump_evidence(restarted)))).observe(scrape)
    assert (steady.rollout, steady.production) == (restarted.rollout, restarted.production)
    assert steady.failed_at_once == restarted.failed_at_once
    assert restarted.wealth.error_fail.stakes == pytest.approx(steady.wealth.error_fail.stakes, abs=1e-3)
    assert restarted.wealth.latency_pass.stakes == pytest.approx(steady.wealth.latency_pass.stakes, abs=1e-3)
    assert judge(restarted, POLICY).outcome is judge(steady, POLICY).outcome


def test_evidence_in_status_is_the_same_for_the_same_evidence() -> None:
    """What was read is written as it was, so that a pass without news writes nothing; it is small."""
    known = evidence()
    for rollout, production in growing(4000, failed=0.02, other_failed=0.01):
        known = known.observe([report(rollout=rollout, production=production)])
    document = dump_evidence(known.crash(1))
    assert dump_evidence(parse_evidence(document)) == document
    assert document["epoch"] == EPOCH
    assert document["wealth"]["errorFail"]["rounds"] == 2
    half = Bitmap(random.Random(1).getrandbits(BUCKETS))  # noqa: S311 no secret
    full = ArmEvidence(seen=half, failed=half, timed=half, slow=half)
    assert len(json.dumps(dump_evidence(replace(known, rollout=full, production=full)))) < 8192


def _without(place: str) -> dict[str, Any]:
    document = dump_evidence(evidence())
    del document[place]
    return document


def _with_wealth(**change: Any) -> dict[str, Any]:
    document = dump_evidence(evidence())
    document["wealth"] |= change
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "epoch"),
        (_without("wealth"), "wealth"),
        (
            _with_wealth(errorFail={"stakes": [0.0], "rounds": 1}),
            "1 stakes of error_fail, this release has 6",
        ),
        (_with_wealth(errorFail={"stakes": ["x"] * 6, "rounds": 1}), "wealth.errorFail.stakes"),
        (_with_wealth(errorFail={"stakes": [math.nan] * 6, "rounds": 1}), "finite number"),
        (_with_wealth(latencyPass={"stakes": [0.0] * 5, "rounds": -1}), "wealth.latencyPass.rounds"),
        (dump_evidence(evidence()) | {"maxErrorRatio": 0}, "maxErrorRatio"),
        (dump_evidence(evidence()) | {"crashes": -1}, "crashes"),
        (dump_evidence(evidence()) | {"rollout": {"seen": "garbage"}}, "rollout.seen"),
        (dump_evidence(evidence()) | {"rollout": None}, "rollout"),
    ],
)
def test_what_is_no_evidence_is_told(document: dict[str, Any], words: str) -> None:
    """A status that was edited, or another release's, is a ValueError that names the part."""
    with pytest.raises(ValueError, match=words):
        parse_evidence(document)
