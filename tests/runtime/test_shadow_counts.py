"""What an epoch comes to: each frame counted once, each bucket of users by its first request."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract.flags import Shadow
from greenroom_runtime.contract.shadow import (
    DIFFERENCE_BOUNDS,
    SECONDS_BOUNDS,
    ProcessReport,
    ShadowCounts,
    ShadowTrials,
)
from greenroom_runtime.shadow.compare import Outcome, Verdict
from greenroom_runtime.shadow.counts import Classes, Tally
from tests.support.shadows import frame

SECONDS = 0.5
"""What production takes, as `frame` says."""


def shadow(epoch: str = "e1", *, ratio: float = 2.0, segments: int = 0) -> Shadow:
    """Return a flag store's shadow."""
    return Shadow(
        version="v2",
        hundredths=100,
        salt="ml/churn",
        epoch=epoch,
        latency_ratio=ratio,
        segments=tuple(("country", f"c{number}") for number in range(segments)),
    )


def tally(**told: int) -> Tally:
    """Return a tally of a new epoch."""
    return Tally.of(shadow(segments=told.get("segments", 0)), before=Tally(ProcessReport()))


def verdict(
    outcome: Outcome = Outcome.AGREED, difference: float | None = None, *, missing: bool = False
) -> Verdict:
    """Return what a comparison came to."""
    return Verdict(outcome=outcome, difference=difference, missing=missing)


def handed_on(tally: Tally) -> Tally:
    """Return what the next process makes of what the last one told."""
    counts, trials = tally.report()
    told = ProcessReport(epoch=tally.epoch, counts=counts, trials=trials)
    return Tally(ProcessReport.model_validate_json(told.model_dump_json()))


def accounted(counts: ShadowCounts) -> int:
    """Return what the contract says that all frames are."""
    return (
        counts.stale
        + counts.unready
        + counts.not_comparable
        + counts.compared
        + counts.failed
        + counts.production_failed
        + counts.both_failed
    )


events = st.tuples(
    st.sampled_from([*Outcome, "stale", "unready", "restart", "another epoch"]),
    st.integers(0, 50),
    st.floats(0, 10) | st.just(math.inf) | st.just(math.nan),
    st.booleans(),
)


@given(st.lists(events, max_size=60))
def test_each_frame_is_counted_once(happened: list[tuple[str, int, float, bool]]) -> None:
    """Received is the sum of all that may become of a frame, whatever happens, restarts included."""
    counting, received, epoch = tally(), 0, 1
    for what, user, difference, missing in happened:
        match what:
            case "stale":
                counting.stale()
            case "unready":
                counting.unready()
            case "restart":
                counting = Tally.of(shadow(f"e{epoch}"), before=handed_on(counting))
                continue
            case "another epoch":
                epoch, received = epoch + 1, 0
                counting = Tally.of(shadow(f"e{epoch}"), before=counting)
                continue
            case _:
                counting.count(
                    frame(key=f"u{user}"),
                    verdict(Outcome(what), difference, missing=missing),
                    seconds=difference,
                )
        received += 1
        counts, trials = counting.report()
        assert counts.received == received == accounted(counts)
        assert counts.disagreed <= counts.compared
        assert sum(counts.seconds) == sum(counts.production_seconds) == counts.compared
        some = trials.failed | trials.disagreed | trials.slow
        assert (some - trials.seen).count == 0
        assert (trials.failed & (trials.disagreed | trials.slow)).count == 0
    assert handed_on(counting).report() == counting.report()


@pytest.mark.parametrize("bounds", [DIFFERENCE_BOUNDS, SECONDS_BOUNDS])
def test_upper_bounds_are_inclusive(bounds: tuple[float, ...]) -> None:
    """A value that is a bound is of its class, the next one above is of the next; NaN is above all."""
    for place, bound in enumerate(bounds):
        at, above = Classes(bounds), Classes(bounds)
        at.add(bound)
        above.add(math.nextafter(bound, math.inf))
        assert at.report().index(1) == place
        assert above.report().index(1) == place + 1
    for value in (math.inf, math.nan):
        classes = Classes(bounds)
        classes.add(value)
        assert classes.report()[-1] == 1


def test_a_bucket_is_tried_once() -> None:
    """A user's first request is the trial; what follows says nothing new."""
    counting = tally()
    counting.count(frame(key="ann"), verdict(Outcome.AGREED), seconds=SECONDS)
    counting.count(frame(key="ann"), verdict(Outcome.FAILED), seconds=SECONDS)
    counting.count(frame(key="ann"), verdict(Outcome.DISAGREED), seconds=SECONDS * 9)
    counts, trials = counting.report()
    assert (counts.compared, counts.failed, counts.disagreed) == (2, 1, 1)
    assert (trials.seen.count, trials.failed.count, trials.disagreed.count, trials.slow.count) == (1, 0, 0, 0)


@pytest.mark.parametrize("outcome", [Outcome.NOT_COMPARABLE, Outcome.PRODUCTION_FAILED, Outcome.BOTH_FAILED])
def test_no_trial_without_an_answer_of_productions(outcome: Outcome) -> None:
    """What production did not answer, or cannot be compared, leaves the bucket to the next request."""
    counting = tally()
    counting.count(frame(key="ann"), verdict(outcome), seconds=0.0)
    assert counting.report()[1] == ShadowTrials()
    counting.count(frame(key="ann"), verdict(Outcome.FAILED), seconds=0.0)
    assert counting.report()[1].failed.count == 1


@pytest.mark.parametrize(("seconds", "slow"), [(SECONDS * 2, 0), (math.nextafter(SECONDS * 2, 9), 1)])
def test_slow_is_more_than_the_ratio(seconds: float, slow: int) -> None:
    """An answer is slow that took more than the ratio times production's time."""
    counting = tally()
    counting.count(frame(), verdict(), seconds=seconds)
    assert counting.report()[1].slow.count == slow


def test_segments_are_counted_apart() -> None:
    """Each segment counts its own requests, in the flag store's order; others' places mean nothing."""
    counting = tally(segments=2)
    counting.count(frame(1, segments=[0]), verdict(), seconds=SECONDS)
    counting.count(frame(2, segments=[0, 1, 1]), verdict(Outcome.DISAGREED), seconds=SECONDS)
    counting.count(frame(3, segments=[7, -1]), verdict(), seconds=SECONDS)
    first, second = counting.report()[0].segments
    assert (first.compared, first.disagreed, second.compared, second.disagreed) == (2, 1, 1, 1)


def test_another_epoch_is_all_anew() -> None:
    """Another epoch begins at 0; the same one goes on."""
    counting = tally()
    counting.count(frame(), verdict(), seconds=SECONDS)
    assert Tally.of(shadow("e1"), before=counting).report()[0].received == 1
    assert Tally.of(shadow("e2"), before=counting).report() == (ShadowCounts(), ShadowTrials())


def test_users_have_other_buckets_in_another_epoch() -> None:
    """A bucket is a hash of epoch and key, so that no two users are always one trial."""
    seen = set()
    for epoch in ("e1", "e2"):
        counting = Tally.of(shadow(epoch), before=Tally(ProcessReport()))
        counting.count(frame(), verdict(), seconds=SECONDS)
        seen.add(counting.report()[1].seen)
    assert len(seen) == 2
