"""Who decides about a shadow: our gate, a z-test that is peeked at, fixed thresholds as Flagger has them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import log
from statistics import NormalDist

import numpy as np

from benchmarks.gates.shadow.cases import LOOK_SECONDS
from benchmarks.gates.shadow.world import LOOKS, Counts
from benchmarks.gates.world import Flags, Floats, Whole
from greenroom_operator.controller.betting import log_rate_above, log_rate_below
from greenroom_operator.controller.gate import ALPHA, BETA, Outcome
from greenroom_operator.controller.shadow_gate import MAX_SLOW, ShadowPolicy
from greenroom_runtime.contract.evidence import WIDE_BUCKETS

POLICY = ShadowPolicy()
_BOUNDS = (POLICY.max_disagreement_percent / 100, POLICY.max_error_percent / 100, MAX_SLOW)
_FEWEST_EXPECTED = 5
_CHECKS, _FAILED_CHECKS, _CHECK_SECONDS = 10, 5, 60.0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a judge has come to."""

    outcome: Outcome
    """Inconclusive where it has come to nothing."""
    look: int | None = None


@dataclass(frozen=True)
class Bounds:
    """What our gate makes of a rate, by the number of trials: only two counts decide."""

    most_to_pass: Whole
    """With so many hits or fewer it is proven to be below; -1 for never."""
    fewest_to_fail: Whole
    """With so many hits or more it is proven to be above."""


@cache
def bounds(bound: float) -> Bounds:
    """Return what the gate's own tests decide, as a table: millions of looks take one."""
    most_to_pass, fewest_to_fail = np.empty((2, WIDE_BUCKETS + 1), np.int64)
    most, fewest = -1, 1
    for trials in range(WIDE_BUCKETS + 1):
        while log_rate_below(bound, trials=trials, hits=most + 1) >= log(1 / BETA):
            most += 1
        while fewest <= trials and log_rate_above(bound, trials=trials, hits=fewest) < log(3 / ALPHA):
            fewest += 1
        most_to_pass[trials], fewest_to_fail[trials] = most, fewest
    return Bounds(most_to_pass, fewest_to_fail)


def gate(buckets: Counts, requests: Counts, *, min_duration: float = 0.0) -> Decision:
    """Greenroom's: each bucket of users is a trial; before ``min_duration`` seconds it gives no verdict."""

    def judge(trials: Whole, hits: Whole, bound: float) -> tuple[Flags, Flags]:
        table = bounds(bound)
        return hits <= table.most_to_pass[trials], hits >= table.fewest_to_fail[trials]

    return _decide(buckets, requests, judge, first_look=int(min_duration / LOOK_SECONDS))


def z_test(_: Counts, requests: Counts) -> Decision:
    """Each request is a trial, at the gate's own levels, once as many hits are expected as it takes."""
    pass_z, fail_z = NormalDist().inv_cdf(1 - BETA), NormalDist().inv_cdf(1 - ALPHA / 3)

    def judge(trials: Whole, hits: Whole, bound: float) -> tuple[Flags, Flags]:
        z: Floats = (hits - bound * trials) / np.sqrt(np.maximum(trials, 1) * bound * (1 - bound))
        enough = trials * bound >= _FEWEST_EXPECTED
        return enough & (z <= -pass_z), enough & (z >= fail_z)

    return _decide(requests, requests, judge)


def thresholds(_: Counts, requests: Counts) -> Decision:
    """Each minute's rates must be within the bounds; the fifth that is not fails it, the tenth passes it.

    A minute without a request does not count.
    """
    every = int(_CHECK_SECONDS / LOOK_SECONDS)
    looks = np.arange(every - 1, LOOKS, every)
    asked, answered, failed, disagreed, slow = (
        np.diff(counts[looks], prepend=0)
        for counts in (
            requests.requests,
            requests.answered,
            requests.failed,
            requests.disagreed,
            requests.slow,
        )
    )
    most_otherwise, most_errors, most_slow = _BOUNDS
    missed = (disagreed > most_otherwise * answered) | (failed > most_errors * asked)
    missed |= slow > most_slow * answered
    checks, misses = np.cumsum(asked > 0), np.cumsum(missed)
    return _first(looks, passed=checks >= _CHECKS, failed=misses >= _FAILED_CHECKS)


def _decide(
    counts: Counts,
    requests: Counts,
    judge: Callable[[Whole, Whole, float], tuple[Flags, Flags]],
    *,
    first_look: int = 0,
) -> Decision:
    """Pass where all three rates do and there are enough requests, fail where any does."""
    rates = (
        (counts.answered, counts.disagreed),
        (counts.requests, counts.failed),
        (counts.answered, counts.slow),
    )
    judged = [judge(trials, hits, bound) for (trials, hits), bound in zip(rates, _BOUNDS, strict=True)]
    passed = np.logical_and.reduce([one[0] for one in judged]) & (requests.answered >= POLICY.min_requests)
    failed = np.logical_or.reduce([one[1] for one in judged])
    looks = np.arange(first_look, LOOKS)
    return _first(looks, passed=passed[first_look:], failed=failed[first_look:])


def _first(looks: Whole, *, passed: Flags, failed: Flags) -> Decision:
    decided = passed | failed
    if not decided.any():
        return Decision(outcome=Outcome.INCONCLUSIVE)
    first = int(decided.argmax())
    return Decision(outcome=Outcome.FAIL if failed[first] else Outcome.PASS, look=int(looks[first]))


OTHERS: dict[str, Callable[[Counts, Counts], Decision]] = {"z-test": z_test, "thresholds": thresholds}
OURS = "gate"
