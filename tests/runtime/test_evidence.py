"""What pods count of a rollout's users: whom, how often, in which buckets; and over real HTTP."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract.evidence import ArmEvidence, Bitmap, RolloutEvidence
from greenroom_runtime.contract.flags import WHOLE, FlagStore, Rollout, Rule
from greenroom_runtime.contract.report import VersionState
from greenroom_runtime.routing.evidence import ArmCounter, EvidenceCounter, count_evidence
from greenroom_runtime.routing.router import compile_router
from tests.support.bundles import REGRESSOR_ROWS, fragile_graph, write_classifier, write_regressor
from tests.support.plain_http import http
from tests.support.serving import ServingProcess, flags

HALF = Rollout(version="v2", hundredths=5000, salt="ml/churn", epoch="v2@1")
USERS = [f"user-{number}" for number in range(40_000)]


def counter(**changes: Any) -> EvidenceCounter:
    """Return a counter for a rollout to half of the users."""
    return EvidenceCounter(replace(HALF, **changes))


def warm(counting: EvidenceCounter, seconds: Callable[[int], float] = lambda _: 1.0) -> None:
    """Let production answer until it is known what is slow, to one user."""
    for number in range(64):
        counting.count(counting.production, "warm", status=200, seconds=seconds(number))


def told(arm: ArmEvidence) -> tuple[int, int, int, int]:
    """Return how many buckets were seen, failed, timed and slow."""
    return arm.seen.count, arm.failed.count, arm.timed.count, arm.slow.count


def bucket_of(counting: EvidenceCounter, arm: ArmCounter, user: str) -> int:
    """Count one answer, return the bucket that it is in, -1 for none, and forget it."""
    arm.threshold = math.inf
    counting.count(arm, user, status=200, seconds=1)
    bucket = arm.marks.find(1)
    if bucket >= 0:
        arm.marks[bucket] = 0
    return bucket


@pytest.mark.parametrize("hundredths", [100, 1000, 5000, 9000])
def test_both_arms_count_as_many_users(hundredths: int) -> None:
    """Whatever the share, a user is counted with the same probability in either arm: the smaller share."""
    rollout = replace(HALF, hundredths=hundredths)
    router = compile_router(FlagStore(production="v1", resident=("v1", "v2"), rollout=rollout))
    counting = EvidenceCounter(rollout)
    arms = {"percentage": counting.rollout, "default": counting.production}
    counted: Counter[str] = Counter()
    for user in USERS:
        reason = router.choose(user, {}).reason
        counted[reason] += bucket_of(counting, arms[reason], user) >= 0
    assert sum(arm.requests for arm in arms.values()) == len(USERS)
    expected = min(hundredths, WHOLE - hundredths) / WHOLE * len(USERS)
    for reason in arms:
        assert abs(counted[reason] - expected) < 4.5 * math.sqrt(expected)


@pytest.mark.parametrize("reason", ["percentage", "default"])
def test_buckets_know_nothing_of_the_version(reason: str) -> None:
    """Users of each arm fill all buckets evenly: the hash that chose the arm does not choose the bucket."""
    router = compile_router(FlagStore(production="v1", resident=("v1", "v2"), rollout=HALF))
    counting = counter()
    users = [user for user in USERS if router.choose(user, {}).reason == reason]
    regions = Counter(bucket_of(counting, counting.rollout, user) // 64 for user in users)
    expected = len(users) / 64
    chi_squared = sum((regions[region] - expected) ** 2 / expected for region in range(64))
    assert chi_squared < 120  # of 63 degrees of freedom: one of 50,000 is above


@pytest.mark.parametrize(
    ("user", "bucket"),
    [("user-0", 650), ("user-1", 876), ("17", 2939), ("Åse", 720), ("😀", 1149), (" ", 555)],
)
def test_a_user_has_the_same_bucket_in_each_pod_and_release(user: str, bucket: int) -> None:
    """Pods are merged by bucket, so the hash never changes."""
    counting = counter()
    assert bucket_of(counting, counting.rollout, user) == bucket


def test_a_users_errors_count_once() -> None:
    """However often one user fails it is one bucket; the plain counts are of all answers."""
    counting = counter()
    for status in (500, 503, 200, 500, 500):
        counting.count(counting.rollout, "ann", status=status, seconds=1)
    arm = counting.report().rollout
    assert told(arm) == (1, 1, 0, 0)
    assert (arm.requests, arm.errors) == (5, 4)


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 499])
def test_refused_requests_are_not_counted(status: int) -> None:
    """What is wrong with a request says nothing of a version."""
    counting = counter()
    counting.count(counting.rollout, "ann", status=status, seconds=1)
    assert counting.report().rollout == ArmEvidence()


def test_a_key_that_no_hash_could_decide_about_is_not_counted() -> None:
    """Half of a surrogate pair gets production without any draw."""
    counting = counter()
    counting.count(counting.production, "\ud800", status=200, seconds=1)
    assert counting.report().production == ArmEvidence()


def test_nothing_is_slow_before_it_is_known_what_is() -> None:
    """Until 64 of production's answers are known nobody is timed; then the first answer of each bucket is."""
    counting = counter()
    for number in range(63):
        counting.count(counting.production, "ann", status=200, seconds=number)
    counting.count(counting.rollout, "bob", status=200, seconds=99)
    assert told(counting.report().rollout) == (1, 0, 0, 0)
    counting.count(counting.production, "ann", status=200, seconds=1e9)
    assert told(counting.report().production) == (1, 0, 0, 0)  # the one that completes them has no say
    counting.count(counting.rollout, "bob", status=200, seconds=99)
    assert told(counting.report().rollout) == (1, 0, 1, 1)


def test_the_rollout_is_measured_against_more_than_production() -> None:
    """Above production's quantile is slow there, and above the ratio times it in the rollout."""
    counting = counter(latency_ratio=1.5)
    warm(counting, lambda number: 1.0 if number < 49 else 9.0)
    for user, seconds in (("a", 1.0), ("b", 1.01)):
        counting.count(counting.production, user, status=200, seconds=seconds)
    for user, seconds in (("a", 1.5), ("b", 1.51)):
        counting.count(counting.rollout, user, status=200, seconds=seconds)
    evidence = counting.report()
    assert told(evidence.production) == (3, 0, 2, 1)
    assert told(evidence.rollout) == (2, 0, 2, 1)


def test_only_the_first_good_answer_is_timed() -> None:
    """A bucket is one trial: neither an error nor a later answer changes it."""
    counting = counter()
    warm(counting)
    for status, seconds in ((500, 99.0), (200, 1.0), (200, 99.0), (500, 99.0)):
        counting.count(counting.rollout, "ann", status=status, seconds=seconds)
    assert told(counting.report().rollout) == (1, 1, 1, 0)


def test_what_is_slow_is_learnt_again() -> None:
    """When all answers take longer, those of both arms, the version is not taken to be slow."""
    counting = counter()
    warm(counting)
    assert counting.production.threshold == 1.0
    for _ in range(256):
        counting.count(counting.production, "warm", status=200, seconds=5.0)
    assert (counting.production.threshold, counting.rollout.threshold) == (5.0, 5.0 * HALF.latency_ratio)


@given(
    answers=st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from(["a", "b", "c", "\ud800", "x" * 1024]),
            st.sampled_from([200, 422, 500, 503]),
            st.floats(0, 1e9),
        ),
        max_size=200,
    )
)
def test_counts_agree_with_each_other(answers: list[tuple[bool, str, int, float]]) -> None:
    """Whatever is answered: failed and timed buckets were seen, slow ones timed, errors are requests."""
    counting = counter()
    for of_rollout, key, status, seconds in answers:
        arm = counting.rollout if of_rollout else counting.production
        counting.count(arm, key, status=status, seconds=seconds)
    report = RolloutEvidence.model_validate_json(counting.report().model_dump_json(), strict=True)
    for evidence in (report.rollout, report.production):
        assert evidence.failed - evidence.seen == evidence.timed - evidence.seen == Bitmap()
        assert evidence.slow - evidence.timed == Bitmap()
        assert evidence.seen.count <= evidence.requests
        assert evidence.failed.count <= evidence.errors <= evidence.requests


@pytest.mark.parametrize("rollout", [None, replace(HALF, epoch=""), replace(HALF, hundredths=0)])
def test_nothing_is_counted_where_nothing_can_be_compared(rollout: Rollout | None) -> None:
    """Without an epoch, a rollout, or users in both arms there is no counter."""
    assert count_evidence(rollout, before=counter()) is None
    assert count_evidence(replace(HALF, hundredths=WHOLE), before=None) is None


def test_an_epoch_goes_on_while_only_rules_change() -> None:
    """Another document of the same epoch loses no count; another epoch, share or ratio begins anew."""
    before = count_evidence(HALF, before=None)
    rules = (Rule(name="beta", attribute="cohorts", values=("beta",)),)
    assert count_evidence(replace(HALF, rules=rules), before=before) is before
    for change in ({"epoch": "v2@2"}, {"hundredths": 4000}, {"latency_ratio": 2.0}, {"key": "account"}):
        assert count_evidence(replace(HALF, **change), before=before) is not before


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """Serve regressors: v1, and v2 that fails where x2 is 100 or more; v3 takes other features."""
    root = tmp_path_factory.mktemp("evidence")
    write_regressor(root / "source", "v1")
    write_regressor(root / "source", "v2", model=fragile_graph())
    write_classifier(root / "source", "v3")
    with ServingProcess(root / "pod", source_uri=(root / "source").as_uri()) as pod:
        yield pod


def begin(pod: ServingProcess, rollout: Rollout) -> None:
    """Roll this out, and wait until that is obeyed."""
    store = flags("v1", rollout.version, rollout=rollout)
    pod.flags.write(store)
    pod.wait_until(lambda report: report.revision == store.revision)
    pod.wait_settled()


def evidence_of(pod: ServingProcess) -> RolloutEvidence:
    """Return what the pod reports."""
    evidence = pod.report().evidence
    assert evidence is not None
    return evidence


ROW = dict(REGRESSOR_ROWS[0])
FATAL = {**ROW, "x2": 1000.0}


def test_a_pod_counts_what_becomes_of_users(pod: ServingProcess) -> None:
    """Over HTTP: buckets and counts are those of the users whom the percentage gave either version."""
    begin(pod, replace(HALF, epoch="v2@http"))
    router = compile_router(flags("v1", "v2", rollout=HALF))
    expected = counter(epoch="v2@http")
    with httpx2.Client(base_url=pod.url, timeout=30) as client:
        for number in range(240):
            user, fatal = f"user-{number % 160}", number % 5 == 0
            body = {"features": FATAL if fatal else ROW, "user_id": user}
            status = client.post("/predict", json=body).status_code
            rolled_out = router.choose(user, {}).version == "v2"
            assert status == (500 if fatal and rolled_out else 200)
            arm = expected.rollout if rolled_out else expected.production
            expected.count(arm, user, status=status, seconds=1)
    found, wanted = evidence_of(pod), expected.report()
    assert (found.epoch, found.version) == ("v2@http", "v2")
    for ours, theirs in ((found.rollout, wanted.rollout), (found.production, wanted.production)):
        assert (ours.seen, ours.failed) == (theirs.seen, theirs.failed)
        assert (ours.requests, ours.errors) == (theirs.requests, theirs.errors)
        assert ours.timed.count > 0
    assert found.rollout.failed.count > 0
    assert found.production.failed.count == 0


def test_another_epoch_begins_anew(pod: ServingProcess) -> None:
    """What was counted before is not in the next epoch's report, and without an epoch there is none."""
    begin(pod, replace(HALF, epoch="v2@a"))
    for number in range(20):
        assert pod.predict(ROW, user_id=f"user-{number}").status_code == 200
    first = evidence_of(pod)
    assert first.rollout.requests + first.production.requests == 20
    begin(pod, replace(HALF, epoch="v2@b"))
    assert evidence_of(pod) == RolloutEvidence(epoch="v2@b", version="v2")
    begin(pod, replace(HALF, epoch=""))
    assert pod.predict(ROW, user_id="user-1").status_code == 200
    assert pod.report().evidence is None


def test_users_who_were_not_drawn_are_not_counted(pod: ServingProcess) -> None:
    """Neither users of rules, nor requests without a key, nor paths, nor refusals are evidence."""
    rule = Rule(name="beta", attribute="cohorts", values=("beta",))
    begin(pod, replace(HALF, epoch="v2@drawn", rules=(rule,)))
    assert (
        pod.predict(ROW, user_id="ann", context={"cohorts": "beta"}).headers["x-version-reason"]
        == "rule:beta"
    )
    assert pod.predict(ROW).status_code == 200
    assert pod.predict({}, user_id="ann").status_code == 422
    tensor = {"name": "x1", "shape": [1, 1], "datatype": "FP64", "data": [1.0]}
    others = [{**tensor, "name": "x2"}, {**tensor, "name": "member", "datatype": "BOOL", "data": [True]}]
    addressed = http.post(
        pod.url + "/v2/models/churn/versions/v2/infer", json={"inputs": [tensor, *others]}, timeout=30
    )
    assert addressed.status_code == 200, addressed.text
    assert evidence_of(pod) == RolloutEvidence(epoch="v2@drawn", version="v2")


def test_what_the_rollout_could_not_answer_counts_for_nobody(pod: ServingProcess) -> None:
    """Where its users fall back, or the pod lacks the version, production's users are not counted either."""
    for version, state in (("v3", VersionState.READY), ("v4", VersionState.FAILED)):
        begin(pod, replace(HALF, version=version, epoch=f"{version}@1"))
        pod.wait_state(version, state)
        reasons = {
            pod.predict(ROW, user_id=f"user-{number}").headers["x-version-reason"] for number in range(20)
        }
        assert reasons == {"default", "fallback"}
        assert evidence_of(pod) == RolloutEvidence(epoch=f"{version}@1", version=version)
