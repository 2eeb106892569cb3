"""A shadow's gate: what is proven, and that a bucket counts once, whoever tells it how often."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom_operator.controller.gate import MAX_CRASHES, Outcome
from greenroom_operator.controller.shadow_gate import (
    ShadowEvidence,
    ShadowPolicy,
    ShadowVerdict,
    dump_evidence,
    gather,
    judge,
    parse_evidence,
)
from greenroom_runtime.contract.evidence import WIDE_BUCKETS, WideBitmap
from greenroom_runtime.contract.shadow import ShadowTrials

EPOCH = "v4@1"
POLICY = ShadowPolicy()
REQUESTS = 5000
"""More than the policy asks for."""


def first(count: int) -> WideBitmap:
    """Return the first buckets, so many."""
    return WideBitmap((1 << count) - 1)


def trials(seen: int, *, failed: int = 0, disagreed: int = 0, slow: int = 0) -> ShadowTrials:
    """Return what a shadow tells of the first buckets: those that failed come after all others."""
    return ShadowTrials(
        seen=first(seen),
        failed=first(seen) - first(seen - failed),
        disagreed=first(disagreed),
        slow=first(slow),
    )


def gathered(
    *told: ShadowTrials,
    known: ShadowEvidence | None = None,
    epoch: str = EPOCH,
    crashes: int = 0,
    requests: int = REQUESTS,
) -> ShadowEvidence:
    """Return the evidence after these reports."""
    return gather(known, epoch=epoch, trials=told, crashes=crashes, requests=requests)


def judged(told: ShadowTrials, *, policy: ShadowPolicy = POLICY, requests: int = REQUESTS) -> ShadowVerdict:
    """Return the verdict after one report."""
    return judge(gathered(told, requests=requests), policy)


def test_nothing_is_known_at_first() -> None:
    """Without a single trial the verdict is inconclusive, and says how many each proof takes at least."""
    verdict = judge(gathered(requests=0), POLICY)
    assert (
        verdict.outcome is verdict.disagreement is verdict.errors is verdict.latency is Outcome.INCONCLUSIVE
    )
    assert verdict.message == (
        "0 of 1000 requests so far; "
        "disagreement: 0 of 0 user buckets answered otherwise: "
        "below 2 % is not proven yet, and takes some 170 buckets if that stays so; "
        "errors: 0 of 0 user buckets not answered: "
        "below 0.1 % is not proven yet, and takes some 3,400 buckets if that stays so; "
        "latency: 0 of 0 user buckets took more than 1.5 times as long: "
        "below half is not proven yet, and takes some 5 buckets if that stays so"
    )


def test_a_version_that_answers_alike_passes() -> None:
    """Some 3,400 buckets without an error prove that fewer than 0.1 % have one, which takes longest."""
    assert judged(trials(3300)).outcome is Outcome.INCONCLUSIVE
    verdict = judged(trials(3400, disagreed=20, slow=700))
    assert verdict.outcome is verdict.disagreement is verdict.errors is verdict.latency is Outcome.PASS
    assert verdict.message == (
        "disagreement: 20 of 3400 user buckets answered otherwise, proven to be below 2 %; "
        "errors: 0 of 3400 user buckets not answered, proven to be below 0.1 %; "
        "latency: 700 of 3400 user buckets took more than 1.5 times as long, proven to be below half"
    )


@pytest.mark.parametrize(
    ("told", "disagreement", "errors", "latency"),
    [
        pytest.param(trials(168), "Pass", "Inconclusive", "Pass", id="none of 168 disagrees"),
        pytest.param(trials(167), "Inconclusive", "Inconclusive", "Pass", id="none of 167 does"),
        pytest.param(trials(1700, disagreed=17), "Pass", "Inconclusive", "Pass", id="1 % disagree"),
        pytest.param(
            trials(16_000, disagreed=320), "Inconclusive", "Pass", "Pass", id="as many as may disagree do"
        ),
        pytest.param(trials(1200, disagreed=48), "Fail", "Inconclusive", "Pass", id="4 % disagree"),
        pytest.param(trials(100, disagreed=10), "Fail", "Inconclusive", "Pass", id="10 % disagree"),
        pytest.param(trials(50, disagreed=3), "Inconclusive", "Inconclusive", "Pass", id="three users do"),
        pytest.param(trials(1200, failed=12), "Pass", "Fail", "Pass", id="1 % are not answered"),
        pytest.param(trials(4, failed=4), "Inconclusive", "Fail", "Inconclusive", id="nobody is"),
        pytest.param(trials(16_000, failed=16), "Pass", "Inconclusive", "Pass", id="as many as may fail do"),
        pytest.param(trials(600, slow=240), "Pass", "Inconclusive", "Pass", id="40 % take too long"),
        pytest.param(trials(4000, slow=2000), "Pass", "Pass", "Inconclusive", id="half take too long"),
        pytest.param(trials(600, slow=360), "Pass", "Inconclusive", "Fail", id="60 % take too long"),
        pytest.param(trials(20, slow=20), "Inconclusive", "Inconclusive", "Fail", id="all take too long"),
    ],
)
def test_what_is_proven(told: ShadowTrials, disagreement: str, errors: str, latency: str) -> None:
    """Each rate is proven to be within its bound or beyond it, or it is too early to tell."""
    verdict = judged(told)
    assert (verdict.disagreement, verdict.errors, verdict.latency) == (disagreement, errors, latency)
    fails = "Fail" in (disagreement, errors, latency)
    assert (verdict.outcome is Outcome.FAIL) == fails


def test_one_rate_beyond_its_bound_is_enough_to_fail() -> None:
    """A version that is slow and otherwise perfect is failed, and the message says what failed it."""
    verdict = judged(trials(5000, slow=4000))
    assert verdict.outcome is Outcome.FAIL
    assert (
        "4000 of 5000 user buckets took more than 1.5 times as long, proven to be above half"
        in verdict.message
    )


def test_too_few_requests_do_not_pass() -> None:
    """Whatever is proven, the policy's number of requests is waited for."""
    few = judged(trials(3400), policy=ShadowPolicy(min_requests=4000), requests=3999)
    assert few.outcome is Outcome.INCONCLUSIVE
    assert few.message.startswith("3999 of 4000 requests so far; ")
    assert judged(trials(3400), policy=ShadowPolicy(min_requests=4000), requests=4000).outcome is Outcome.PASS


def test_harm_is_failed_before_there_are_enough_requests() -> None:
    """A Fail does not wait for the policy's number of requests."""
    assert judged(trials(100, disagreed=50), requests=100).outcome is Outcome.FAIL


def test_crashes_fail() -> None:
    """Three unasked ends of a shadow process fail its version, however well it answers between them."""
    twice, thrice = (gathered(trials(3400), crashes=MAX_CRASHES - less) for less in (1, 0))
    assert judge(twice, POLICY).outcome is Outcome.PASS
    assert judge(thrice, POLICY).outcome is Outcome.FAIL
    assert judge(thrice, POLICY).message.startswith(
        "the shadow process has ended 3 times unasked, 3 times fail it; "
    )


def test_a_bound_of_zero_is_never_proven() -> None:
    """Who allows no error at all gets no Pass, is told so, and the first error is a Fail."""
    policy = ShadowPolicy(max_error_percent=0)
    verdict = judged(trials(WIDE_BUCKETS), policy=policy)
    assert (verdict.outcome, verdict.errors) == (Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE)
    assert "that there are none at all is never proven, raise the bound of 0 %" in verdict.message
    assert judged(trials(1, failed=1), policy=policy).errors is Outcome.FAIL


def test_a_bound_of_a_hundred_is_always_proven() -> None:
    """Who does not care whether answers agree has it proven from the start, and never refuted."""
    policy = ShadowPolicy(max_disagreement_percent=100)
    assert judge(gathered(), policy).disagreement is Outcome.PASS
    assert judged(trials(1000, disagreed=1000), policy=policy).disagreement is Outcome.PASS


def test_bounds_may_be_changed_at_any_time() -> None:
    """Buckets are judged by the policy of the moment: nothing has to be counted anew."""
    told = gathered(trials(1500, disagreed=60))
    assert judge(told, POLICY).disagreement is Outcome.FAIL
    assert judge(told, ShadowPolicy(max_disagreement_percent=8)).disagreement is Outcome.PASS


def test_the_message_says_when_no_more_can_be_learnt() -> None:
    """Where nearly all buckets are used without a proof a person has to decide."""
    message = judged(trials(16_000, disagreed=300)).message
    assert "below 2 % is not proven, and no more can be learnt: nearly all user buckets are used" in message


def test_the_message_says_when_it_will_not_be_proven() -> None:
    """Where more buckets would be needed than there are, one need not wait for them to be used."""
    message = judged(trials(2000, disagreed=39)).message
    assert (
        "39 of 2000 user buckets answered otherwise: below 2 % is not proven yet, and will not be" in message
    )


@given(seen=st.integers(0, 4000), hits=st.integers(0, 60))
def test_what_is_said_to_be_needed_is_enough(seen: int, hits: int) -> None:
    """As many buckets as the message asks for, with the same share of hits, are a proof."""
    hits = min(seen, hits)
    message = judged(trials(seen, disagreed=hits)).message.split("; ")[0]
    if "takes some" in message:
        needed = int(message.split("takes some ")[1].split()[0].replace(",", ""))
        assert needed >= seen
        share = hits / seen if seen else 0.0
        enough = min(needed, WIDE_BUCKETS)
        assert judged(trials(enough, disagreed=int(share * enough))).disagreement is Outcome.PASS


@given(
    seen=st.integers(1, 3000), hits=st.integers(0, 200), rate=st.sampled_from(["disagreed", "failed", "slow"])
)
def test_more_hits_are_never_better(seen: int, hits: int, rate: str) -> None:
    """Another hit among as many buckets never makes a verdict better."""
    order = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL]
    hits = min(hits, seen - 1)
    before, after = (_outcome_of(judged(trials(seen, **{rate: count})), rate) for count in (hits, hits + 1))
    assert order.index(before) <= order.index(after)


def _outcome_of(verdict: ShadowVerdict, rate: str) -> Outcome:
    return {"disagreed": verdict.disagreement, "failed": verdict.errors, "slow": verdict.latency}[rate]


# Buckets count once.


def test_a_bucket_is_decided_by_the_first_report_that_has_it() -> None:
    """Several shadows see the same users: if any of their hits counted, rates would be inflated."""
    agreed, other = trials(1000), trials(1000, disagreed=500, slow=900)
    assert gathered(agreed, other).disagreed.count == 0
    assert gathered(other, agreed).disagreed.count == 500
    assert gathered(agreed, trials(1200, disagreed=1200)).disagreed == first(1200) - first(1000)


def test_a_shadow_that_begins_anew_changes_nothing_that_is_known() -> None:
    """A pod that was replaced sees users again, and what their first request came to is known already."""
    known = gathered(trials(1000, failed=5, disagreed=20, slow=300))
    again = gathered(trials(900, failed=900), known=known)
    assert again == known
    later = gathered(trials(1100, disagreed=1100), known=known)
    assert (later.seen.count, later.failed.count, later.disagreed.count) == (1100, 5, 120)


def test_another_epoch_begins_anew() -> None:
    """Nothing of one comparison counts for the next."""
    known = gathered(trials(1000, failed=5), crashes=2)
    anew = gathered(trials(10), known=known, epoch="v5@1", requests=10)
    assert anew == gathered(trials(10), epoch="v5@1", requests=10)


def test_sums_that_fall_are_not_believed() -> None:
    """Requests and crashes of an epoch stay what they were, should the caller's sums ever fall."""
    known = gathered(crashes=2, requests=900)
    later = gathered(known=known, crashes=0, requests=100)
    assert (later.crashes, later.requests) == (2, 900)
    assert gathered(requests=2**70, crashes=-1).requests == 2**63 - 1


def test_what_is_told_of_buckets_that_are_not_seen_is_not_looked_at() -> None:
    """A report of nothing but hits is a report of nothing; one that failed and disagreed has failed."""
    everything = first(WIDE_BUCKETS)
    garbage = ShadowTrials(failed=everything, disagreed=everything, slow=everything)
    assert gathered(garbage) == gathered()
    bounded = gathered(garbage.model_copy(update={"seen": first(3)}))
    assert (bounded.seen, bounded.failed) == (first(3), first(3))
    assert not bounded.disagreed.bits | bounded.slow.bits


@st.composite
def reports(draw: st.DrawFn) -> ShadowTrials:
    """Draw what a shadow may tell, garbage included."""
    some = st.builds(WideBitmap.of, st.sets(st.integers(0, 40)))
    return ShadowTrials(seen=draw(some), failed=draw(some), disagreed=draw(some), slow=draw(some))


@st.composite
def lives(draw: st.DrawFn) -> list[ShadowTrials]:
    """Draw what one life of a shadow tells again and again: what is decided stays, and more is added."""
    told, so_far = [], ShadowTrials()
    for more in draw(st.lists(reports(), min_size=1, max_size=4)):
        new = more.seen - so_far.seen
        so_far = ShadowTrials(
            seen=so_far.seen | new,
            failed=so_far.failed | more.failed & new,
            disagreed=so_far.disagreed | more.disagreed & new,
            slow=so_far.slow | more.slow & new,
        )
        told.append(so_far)
    return told


@given(told=st.lists(reports(), max_size=5))
def test_a_report_counts_once_however_often_it_is_gathered(told: list[ShadowTrials]) -> None:
    """Gathering the same again changes nothing, in whatever order."""
    known = gathered(*told)
    assert gathered(*told, known=known) == gathered(*reversed(told), known=known) == known


@given(told=st.lists(reports(), max_size=6), cut=st.integers(0, 6))
def test_one_look_or_several(told: list[ShadowTrials], cut: int) -> None:
    """Reports that are gathered at once come to the same as one after another, status between them."""
    known = parse_evidence(json.loads(json.dumps(dump_evidence(gathered(*told[:cut])))))
    assert gathered(*told[cut:], known=known) == gathered(*told)


@given(life=lives(), missed=st.sets(st.integers(0, 3)))
def test_a_lost_report_is_made_up_for_by_the_next(life: list[ShadowTrials], missed: set[int]) -> None:
    """Of one shadow any of the reports may be lost but the last, come twice, or come late."""
    heard = [one for place, one in enumerate(life[:-1]) if place not in missed]
    assert gathered(*heard, life[-1], *heard) == gathered(life[-1])


@given(pods=st.lists(lives(), min_size=1, max_size=4), data=st.data())
def test_each_bucket_has_the_outcome_of_one_request(
    pods: list[list[ShadowTrials]], data: st.DataObject
) -> None:
    """Whatever pods come, go and tell, in whatever order: a bucket is what the first of them told of it."""
    told = data.draw(st.permutations([one for life in pods for one in life]))
    evidence = gathered(*told)
    for bucket in range(41):
        bit = WideBitmap.of([bucket])
        outcomes = [_outcomes(one, bit) for one in told if (one.seen & bit).bits]
        if not outcomes:
            assert not (evidence.seen & bit).bits
        else:
            failed, disagreed, slow = outcomes[0]
            known = tuple(
                bool((which & bit).bits) for which in (evidence.failed, evidence.disagreed, evidence.slow)
            )
            assert known == (failed, disagreed and not failed, slow and not failed)


def _outcomes(told: ShadowTrials, bit: WideBitmap) -> tuple[bool, bool, bool]:
    return bool((told.failed & bit).bits), bool((told.disagreed & bit).bits), bool((told.slow & bit).bits)


# Status.


@given(told=st.lists(reports(), max_size=4), crashes=st.integers(0, 2**70), requests=st.integers(0, 2**70))
def test_evidence_outlives_the_operator(told: list[ShadowTrials], crashes: int, requests: int) -> None:
    """What is written to status is read again as it was, and written alike."""
    known = gathered(*told, crashes=crashes, requests=requests)
    document = dump_evidence(known)
    assert parse_evidence(json.loads(json.dumps(document))) == known
    assert dump_evidence(parse_evidence(document)) == document


@settings(max_examples=20)
@given(bits=st.lists(st.integers(0, 2**WIDE_BUCKETS - 1), min_size=4, max_size=4))
def test_evidence_is_bounded(bits: Sequence[int]) -> None:
    """Whatever shadows tell, status grows by 11 KiB at most."""
    seen, failed, disagreed, slow = map(WideBitmap, bits)
    known = gathered(ShadowTrials(seen=seen, failed=failed, disagreed=disagreed, slow=slow))
    assert len(json.dumps(dump_evidence(known))) <= 11 * 1024 + 300


VALID = dump_evidence(gathered(trials(100, failed=3, disagreed=2)))


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({}, id="empty"),
        pytest.param([], id="a list"),
        pytest.param({**VALID, "epoch": 3}, id="no epoch"),
        pytest.param({**VALID, "requests": -1}, id="a negative count"),
        pytest.param({**VALID, "requests": 2**63}, id="a huge count"),
        pytest.param({**VALID, "crashes": "often"}, id="no count"),
        pytest.param({**VALID, "seen": "AAAA"}, id="no bitmap"),
        pytest.param({**VALID, "seen": "A" * 100_000}, id="a huge bitmap"),
        pytest.param({**VALID, "seen": VALID["failed"]}, id="hits of buckets that are not seen"),
        pytest.param({**VALID, "failed": VALID["disagreed"]}, id="failed, and answered otherwise"),
        pytest.param({**VALID, "wealth": {}}, id="of another release"),
    ],
)
def test_other_documents_are_refused(document: Any) -> None:
    """Status that somebody edited, or another release wrote, is a ValueError and no evidence."""
    with pytest.raises(ValueError, match="ShadowEvidence"):
        parse_evidence(document)


def test_evidence_cannot_tell_of_buckets_that_it_has_not() -> None:
    """Hits outside of what was seen are no evidence, whoever makes it."""
    with pytest.raises(ValueError, match="buckets that it has not"):
        replace(gathered(), failed=first(1))
