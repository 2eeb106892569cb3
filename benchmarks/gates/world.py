"""A simulated release: users with habits of their own, by whose requests buckets fill, fail and are slow.

What a user does is a case's; what is drawn anew for each release is what hashes make of a user's name: the
version, whether it is counted, the bucket. It is kept through all steps. A user's good and failed answers are
two Poisson processes, and so are a bucket's, as the sums of its users': of each the first one in a step is
drawn at once instead of request by request. Latency is lognormal; each pod has a quantile of its own latest
answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

from benchmarks.gates.cases import HOLD_SECONDS, PATIENCE_SECONDS, STEPS, Case, Frailty
from greenroom_runtime.contract.evidence import (
    BUCKETS,
    SLOW_QUANTILE,
    ArmEvidence,
    Bitmap,
    RolloutEvidence,
)

Floats = np.ndarray[Any, np.dtype[np.float64]]
Whole = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

VERSION = "v2"
MAX_LATENCY_RATIO = 1.3
SCRAPES: Floats = np.concatenate(
    [
        np.arange(10.0, 60.0, 10.0),
        np.arange(60.0, HOLD_SECONDS, 30.0),
        np.arange(HOLD_SECONDS, PATIENCE_SECONDS + 1, 120.0),
    ]
)
"""When somebody looks, in seconds since a step began."""
_PODS = 3
_RECENT = 256
_NOISE = 3.0
_DRIFT_SECONDS = 900.0
_IN_CLUSTER, _CLUSTERED_ERRORS = 0.02, 0.8
"""Two of a hundred users have four of five errors."""
_HASH_BITS = 26
"""Of each of the two uniform numbers that are made of a user's 64 bits; the rest is the bucket."""
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Habits:
    """What each of a case's users does, whatever version it has."""

    requests: Floats
    """A second."""
    errors: Floats
    """Failed ones, with production's version."""
    worse_errors: Floats
    """With the rollout's."""


@lru_cache(maxsize=1)
def habits(case: Case) -> Habits:
    """Return the users of a case: who sends how many requests, and how many of them fail."""
    rng = np.random.default_rng(case.users)
    requests: Floats = np.arange(1.0, case.users + 1) ** -case.zipf
    requests *= case.requests_per_second / requests.sum()
    frailty = rng.gamma(0.25, 4.0, case.users) if case.frailty is Frailty.GAMMA else np.ones(case.users)
    luck: Floats = rng.random(case.users)
    chances = [_chance(case, harm, frailty, luck) for harm in (1.0, case.error_ratio)]
    return Habits(requests, requests * chances[0], requests * chances[1])


def _chance(case: Case, harm: float, frailty: Floats, luck: Floats) -> Floats:
    """Return how likely each user's request fails, where the version does so many times as much harm."""
    chance = case.errors * harm * frailty
    if case.frailty in (Frailty.CLUSTERED, Frailty.SAME_USERS):
        more_users, more_often = (harm, 1.0) if case.frailty is Frailty.CLUSTERED else (1.0, harm)
        often = case.errors * _CLUSTERED_ERRORS / _IN_CLUSTER * more_often
        seldom = case.errors * (1 - _CLUSTERED_ERRORS) / (1 - _IN_CLUSTER) * harm
        chance = np.where(luck < _IN_CLUSTER * more_users, often, seldom)
    return np.minimum(chance, 1.0)


class World:
    """One release, drawn at random."""

    def __init__(self, case: Case, seed: Sequence[int]) -> None:
        self.case = case
        self.rng = np.random.default_rng(seed)
        hashes = self.rng.bit_generator.random_raw(case.users)
        self.route: Floats = (hashes >> (64 - _HASH_BITS)) / 2**_HASH_BITS
        """Where between 0 and 1 the router's hash puts each user."""
        self.thin: Floats = (hashes >> (64 - 2 * _HASH_BITS) & (2**_HASH_BITS - 1)) / 2**_HASH_BITS
        """Where the second hash does."""
        self.bucket: Whole = (hashes & (BUCKETS - 1)).astype(np.int64)

    def step(self, number: int) -> "Step":
        """Begin a step of the rollout."""
        return Step(self, number)


@dataclass(frozen=True)
class _Arm:
    """One arm of a step: when each of its buckets had what for the first time; infinite for never."""

    seen: Floats
    failed: Floats
    timed: Floats
    slow: Flags
    """Whether the timed answer was slow."""
    request_rate: float
    """Of all of the arm's users, a second."""
    error_rate: float

    def evidence(self, time: float, requests: int) -> ArmEvidence:
        timed = self.timed <= time
        return ArmEvidence.model_construct(
            seen=_bitmap(self.seen <= time),
            failed=_bitmap(self.failed <= time),
            timed=_bitmap(timed),
            slow=_bitmap(timed & self.slow),
            requests=requests,
            errors=0,
        )


class Step:
    """A step of a rollout, as it is seen at each scrape."""

    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self.epoch = f"{VERSION}@{number}"
        self._world, self._case, self._rng = world, world.case, world.rng
        self._phase = self._rng.uniform(0, _DRIFT_SECONDS)
        self._noise, self._thresholds = self._draw_latency()
        done = habits(self._case)
        share, case = STEPS[number], self._case
        rolled_out = world.route < share
        self._rollout = self._arm(
            rolled_out,
            rate=(1 - share) / share,
            requests=done.requests,
            errors=done.worse_errors if number >= case.from_step else done.errors,
            slower=case.slower / MAX_LATENCY_RATIO,
        )
        self._production = self._arm(
            ~rolled_out, rate=share / (1 - share), requests=done.requests, errors=done.errors, slower=1.0
        )
        self._count()

    def evidence(self, scrape: int) -> RolloutEvidence:
        """Return what pods report at a scrape, merged."""
        time = float(SCRAPES[scrape])
        return RolloutEvidence.model_construct(
            epoch=self.epoch,
            version=VERSION,
            rollout=self._rollout.evidence(time, int(self.rollout_requests[scrape])),
            production=self._production.evidence(time, int(self.production_requests[scrape])),
        )

    def _count(self) -> None:
        """Draw what is counted of all users until each scrape, for those who look at requests."""
        spans = np.diff(SCRAPES, prepend=0.0)
        busy = spans * self._drift(SCRAPES)
        draw, long_share = self._rng.poisson, self._long_share()
        self.rollout_requests: Whole = np.cumsum(draw(self._rollout.request_rate * spans))
        self.production_requests: Whole = np.cumsum(draw(self._production.request_rate * spans))
        self.rollout_errors: Whole = np.cumsum(draw(self._rollout.error_rate * busy))
        self.production_errors: Whole = np.cumsum(draw(self._production.error_rate * busy))
        self.rollout_long: Whole = np.cumsum(draw(self._rollout.request_rate * spans * long_share))

    def _arm(self, theirs: Flags, *, rate: float, requests: Floats, errors: Floats, slower: float) -> _Arm:
        counted = np.flatnonzero(theirs if rate >= 1 else theirs & (self._world.thin < rate))
        buckets, failing = self._world.bucket[counted], errors[counted]
        failed = self._first(buckets, failing, drifts=self._case.drifts)
        timed = self._first(buckets, requests[counted] - failing)
        return _Arm(
            seen=np.minimum(failed, timed),
            failed=failed,
            timed=timed,
            slow=self._slow(timed, slower=slower),
            request_rate=_sum(requests, theirs),
            error_rate=_sum(errors, theirs),
        )

    def _first(self, buckets: Whole, rates: Floats, *, drifts: bool = False) -> Floats:
        """Return when each bucket has its first event, of users who have so many a second."""
        together = np.bincount(buckets, weights=rates, minlength=BUCKETS)
        with np.errstate(divide="ignore"):
            times: Floats = self._rng.exponential(size=BUCKETS) / together
        if drifts:
            clock = np.arange(0.0, PATIENCE_SECONDS + 60, 10.0)
            elapsed = np.cumsum(self._drift(clock) * 10.0)
            times = np.interp(times, elapsed, clock, right=np.inf)
        return times

    def _drift(self, times: Floats) -> Floats:
        if not self._case.drifts:
            return np.ones_like(times)
        turned: Floats = 2 - np.cos((times + self._phase) / _DRIFT_SECONDS * 2 * np.pi)
        return turned

    def _draw_latency(self) -> tuple[Floats, Floats]:
        """Return each pod's noise by scrape, and its threshold: a quantile of the answers before."""
        shape = (_PODS, len(SCRAPES) + 1)
        noise = np.zeros(shape)
        if self._case.noisy:
            noise[0] = np.log(_NOISE) * (self._rng.random(shape[1]) < 0.5)
        recent = self._rng.beta(_RECENT * SLOW_QUANTILE, _RECENT * (1 - SLOW_QUANTILE), shape)
        return noise, np.roll(noise, 1, axis=1) + _quantiles(recent) * self._case.spread

    def _slow(self, timed: Floats, *, slower: float) -> Flags:
        scrape = np.searchsorted(SCRAPES, timed)
        pod = self._rng.integers(0, _PODS, BUCKETS)
        answer = (
            np.log(slower) + self._noise[pod, scrape] + self._case.spread * self._rng.normal(size=BUCKETS)
        )
        slow: Flags = answer > self._thresholds[pod, scrape]
        return slow

    def _long_share(self) -> float:
        """Return how many of the rollout's answers are above 1.3 times the usual 99th percentile."""
        bound = _NORMAL.inv_cdf(0.99) * self._case.spread + np.log(MAX_LATENCY_RATIO / self._case.slower)
        pods = (bound - self._noise.mean(axis=1)) / self._case.spread
        return float(np.mean([1 - _NORMAL.cdf(pod) for pod in pods]))


_LEVELS = np.linspace(0.001, 0.999, 999)
_AT_LEVELS = np.array([_NORMAL.inv_cdf(level) for level in _LEVELS])


def _quantiles(levels: Floats) -> Floats:
    """Return the standard normal distribution's."""
    quantiles: Floats = np.interp(levels, _LEVELS, _AT_LEVELS)
    return quantiles


def _sum(rates: Floats, theirs: Flags) -> float:
    return float(np.bincount(theirs, weights=rates, minlength=2)[1])


def _bitmap(flags: Flags) -> Bitmap:
    return Bitmap(int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little"))
