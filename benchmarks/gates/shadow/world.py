"""A simulated shadow: users with habits of their own, by whose first requests buckets become trials.

A user's requests are a Poisson process, and so are a bucket's, as the sums of its users'. So of each bucket
and pod the time of the first one is drawn at once, and then whose it is, and what it comes to. What all
requests come to is drawn look by look, for those who count requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from benchmarks.gates.shadow.cases import (
    LOOK_SECONDS,
    MAX_LATENCY_RATIO,
    PATIENCE_SECONDS,
    Opinion,
    ShadowCase,
)
from benchmarks.gates.world import Flags, Floats, Whole
from greenroom_runtime.contract.evidence import WIDE_BUCKETS, WideBitmap
from greenroom_runtime.contract.shadow import ShadowTrials

LOOKS = int(PATIENCE_SECONDS / LOOK_SECONDS)
_WAVE_SECONDS = 600.0
_LATER_SECONDS = 600.0
_NOISE_SECONDS, _NOISY_SECONDS, _NOISE = 300.0, 60.0, 2.0
_TIMES: Floats = np.linspace(LOOK_SECONDS / 2, PATIENCE_SECONDS - LOOK_SECONDS / 2, LOOKS)


@dataclass(frozen=True)
class Trials:
    """What the first request of each bucket came to, in one pod or in all."""

    look: Whole
    """The first look that finds it; as many as there are looks, or more, for never."""
    failed: Flags
    disagreed: Flags
    slow: Flags

    def report(self, look: int) -> ShadowTrials:
        """Return what the pod tells at a look."""
        seen = self.look <= look
        return ShadowTrials(
            seen=_bitmap(seen),
            failed=_bitmap(seen & self.failed),
            disagreed=_bitmap(seen & self.disagreed),
            slow=_bitmap(seen & self.slow),
        )


@dataclass(frozen=True)
class Counts:
    """What requests, or buckets, have come to until each look."""

    requests: Whole
    failed: Whole
    disagreed: Whole
    slow: Whole

    @property
    def answered(self) -> Whole:
        """Those that the shadow answered."""
        answered: Whole = self.requests - self.failed
        return answered


@lru_cache(maxsize=1)
def rates(case: ShadowCase) -> Floats:
    """Return how many requests of each of a case's users are mirrored in a second."""
    requests: Floats = np.arange(1.0, case.users + 1) ** -case.zipf
    requests *= case.requests_per_second * case.sampled / requests.sum()
    return requests


class ShadowWorld:
    """One shadow, drawn at random."""

    def __init__(self, case: ShadowCase, seed: Sequence[int]) -> None:
        self.case = case
        self._rng = np.random.default_rng(seed)
        requests = rates(case)
        if case.opinion is Opinion.SOME_USERS:
            theirs = requests * (self._rng.random(case.users) < case.disagreement)
        else:
            theirs = requests * case.disagreement
        clock = _TIMES + self._rng.uniform(0, PATIENCE_SECONDS)
        self._drift, self._slow = _drift(case, clock), _slow(case, clock)
        self._rate, self._disagreement = float(requests.sum()), float(theirs.sum() / requests.sum())
        buckets, likely = self._fill(requests, theirs)
        self.pods = [self._draw(buckets / case.pods, likely) for _ in range(case.pods)]
        self.trials = _merge(self.pods)

    def _fill(self, requests: Floats, theirs: Floats) -> tuple[Floats, Floats]:
        """Return how many requests a second each bucket has, and how likely one is answered otherwise."""
        if not self.case.with_ids:
            evenly = np.full(WIDE_BUCKETS, self._rate / WIDE_BUCKETS)
            return evenly, np.full(WIDE_BUCKETS, self._disagreement)
        hashes = self._rng.integers(0, WIDE_BUCKETS, self.case.users)
        buckets, likely = np.zeros((2, WIDE_BUCKETS))
        buckets += np.bincount(hashes, weights=requests, minlength=WIDE_BUCKETS)
        likely += np.bincount(hashes, weights=theirs, minlength=WIDE_BUCKETS)
        likely /= np.maximum(buckets, np.finfo(float).tiny)
        return buckets, likely

    def _draw(self, buckets: Floats, likely: Floats) -> Trials:
        with np.errstate(divide="ignore"):
            times: Floats = self._rng.exponential(size=WIDE_BUCKETS) / buckets
        look = np.minimum(times / LOOK_SECONDS, LOOKS).astype(np.int64)
        at = np.minimum(look, LOOKS - 1)
        luck: Floats = self._rng.random((3, WIDE_BUCKETS))
        failed: Flags = luck[0] < self.case.errors
        return Trials(
            look=look,
            failed=failed,
            disagreed=~failed & (luck[1] < likely * self._drift[at]),
            slow=~failed & (luck[2] < self._slow[at]),
        )

    def count_buckets(self) -> Counts:
        """Return what the buckets come to that the operator knows."""
        trials = self.trials
        return Counts(
            *(
                np.cumsum(np.bincount(trials.look[which], minlength=LOOKS)[:LOOKS])
                for which in (slice(None), trials.failed, trials.disagreed, trials.slow)
            )
        )

    def count_requests(self) -> Counts:
        """Return what all requests come to."""
        requests = self._rng.poisson(self._rate * LOOK_SECONDS, LOOKS)
        failed = self._rng.binomial(requests, self.case.errors)
        otherwise = np.minimum(self._disagreement * self._drift, 1.0)
        disagreed = self._rng.binomial(requests - failed, otherwise)
        slow = self._rng.binomial(requests - failed, self._slow)
        return Counts(*(np.cumsum(each) for each in (requests, failed, disagreed, slow)))


def _merge(pods: Sequence[Trials]) -> Trials:
    """Have each bucket decided by the pod that tells of it first, and of several by the first of them."""
    if len(pods) == 1:
        return pods[0]
    looks = np.stack([pod.look for pod in pods])
    first = looks.argmin(axis=0), np.arange(WIDE_BUCKETS)
    failed, disagreed, slow = (
        np.stack([getattr(pod, name) for pod in pods])[first] for name in ("failed", "disagreed", "slow")
    )
    return Trials(look=looks[first], failed=failed, disagreed=disagreed, slow=slow)


def _drift(case: ShadowCase, clock: Floats) -> Floats:
    """Return how many times as likely as usual an answer is another one, at each look."""
    drift = np.ones(LOOKS)
    if case.drifts:
        drift += np.sin(clock / _WAVE_SECONDS * 2 * np.pi)
    if case.later_disagreement is not None:
        drift[_TIMES >= _LATER_SECONDS] = case.later_disagreement / case.disagreement
    return drift


def _slow(case: ShadowCase, clock: Floats) -> Floats:
    """Return how likely an answer takes too long, at each look."""
    usual, noisy = (
        NormalDist().cdf(np.log(case.slower * noise / MAX_LATENCY_RATIO) / case.spread)
        for noise in (1.0, _NOISE)
    )
    slow: Floats = np.where(case.noisy & (clock % _NOISE_SECONDS < _NOISY_SECONDS), noisy, usual)
    return slow


def _bitmap(flags: Flags) -> WideBitmap:
    return WideBitmap(int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little"))
