"""Tests that may be looked at at any time, as often as one likes: bets against a hypothesis.

A test is a player who bets against a null hypothesis at odds that are fair, or worse, where it is true. So
the money is a supermartingale under the null, and by Ville's inequality it ever becomes 1/alpha times what it
was with a probability of at most alpha, however often somebody looks (Waudby-Smith & Ramdas, *Estimating
means of bounded random variables by betting*, JRSS B 2024). The money is split over several alternatives,
each of which is a likelihood ratio; their sum is such a test as well.

`RateTest` and `TableTest` ask into which of two arms events fall, given how many there were, so that a rate
that both arms share may be anything and drift as it likes (Lindon & Malek, *Anytime-valid inference for
multinomial count data*, NeurIPS 2022). `log_rate_below` and `log_rate_above` ask of a single arm's trials how
many are hits; their money depends on nothing but how many there were, so nobody has to remember it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, expm1, inf, lgamma, log, log1p

from pydantic import FiniteFloat, NonNegativeInt

_FIRST_ROUND = 64
_SEARCH_STEPS = 60
_CERTAIN = 1e-12
_NEVER_WEIGHT = 0.5
_PARTS_OF_BOUND = (0.1, 0.25, 0.5)
_RARER, _COMMONER = 0.5, 2.0
"""The odds that the trials of one arm are expected to have, as parts of the bound's."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """What happened between two looks."""

    rollout: int
    """Cells of the rollout's arm that an event may have hit."""
    production: int
    """Those of production's."""
    rollout_events: int
    """Cells of the rollout's arm that were hit; at most all."""
    production_events: int

    @property
    def events(self) -> int:
        """How many cells were hit, in both arms."""
        return self.rollout_events + self.production_events


@dataclass(frozen=True, kw_only=True)
class Money:
    """A player's money, who began with 1."""

    stakes: tuple[FiniteFloat, ...]
    """The logarithm of what is staked on each alternative."""
    rounds: NonNegativeInt = 0
    """How often cash was added to the stakes; 0 where everything was staked at once."""

    @property
    def log_total(self) -> float:
        """The logarithm of all of it, cash included."""
        return log_sum([*self.stakes, -log(self.rounds + 1)] if self.rounds else self.stakes)


@dataclass(frozen=True, kw_only=True)
class Test(ABC):
    """One hypothesis, and what is betted on against it."""

    alternatives: tuple[float, ...]
    """How many times as often the rollout's cells are hit as production's: all on one side of the null."""
    weights: tuple[float, ...]
    """How money is split over the alternatives; they add up to 1."""

    def stake_all(self) -> Money:
        """Return the money of a player who stakes everything at once."""
        return Money(stakes=tuple(map(log, self.weights)))

    def begin(self) -> Money:
        """Return the money of a player who stakes half of it, and keeps the rest for later rounds."""
        return self.top_up(Money(stakes=(-inf,) * len(self.weights)))

    def top_up(self, money: Money) -> Money:
        """Begin another round: move some of the cash to the stakes.

        Who has lost everything by betting on harm while there was none has nothing to bet with when it comes.
        So 1/2 of the money is for the first round, 1/6 for the second, 1/(n(n+1)) for the n-th.
        """
        rounds = money.rounds + 1
        part = -log(rounds * (rounds + 1))
        stakes = tuple(
            log_sum([stake, log(weight) + part])
            for stake, weight in zip(money.stakes, self.weights, strict=True)
        )
        return Money(stakes=stakes, rounds=rounds)

    def bet(self, money: Money, window: Window) -> Money:
        """Return what has become of the money after a window."""
        if not window.events or not window.rollout or not window.production:
            return money
        won = self._log_ratios(window)
        stakes = tuple(stake + one for stake, one in zip(money.stakes, won, strict=True))
        return replace(money, stakes=stakes)

    @abstractmethod
    def _log_ratios(self, window: Window) -> list[float]:
        """Return how much likelier the window is under each alternative than under the null, as logarithms.

        Under the null the mean of the exponential of each is at most 1, given all that happened before.
        """


@dataclass(frozen=True, kw_only=True)
class RateTest(Test):
    """Whether the rollout's cells are hit ``null`` times as often: cells are hit once and then are out.

    The setting is the logrank test's, with cells instead of patients (Grünwald, Ly, Pérez-Ortiz & ter Schure,
    *The safe logrank test*, 2021). Users are hashed into the cells of both arms, each as likely as any other.
    So if the arms are alike, the cell of the next user who has an event for the first time is any of those
    that are left with the same probability, whatever has happened before: whether some users have far more
    events than others, whether events come in bursts, whether their rate drifts. And who has had an event
    has none of the cells that are left. Where the rollout's users are hit ``theta`` times as often, each of
    its cells weighs ``theta``.

    The order of several events in a window is not known. They are draws without replacement, and such are
    below independent draws of the same mean in the convex order (Hoeffding 1963, for equal weights). What
    the player pays out is convex in the number of the rollout's, so a binomial likelihood of the right mean
    pays out too little if anything. For unequal weights the draws have Wallenius' distribution, whose mean is
    taken as that of draws in continuous time: with hundreds of cells that is right to some thousandths of a
    percent.
    """

    null: float

    def _log_ratios(self, window: Window) -> list[float]:
        null = _share(window, self.null)
        shares = [_share(window, theta) for theta in self.alternatives]
        return [
            window.rollout_events * log(share / null)
            + window.production_events * log((1 - share) / (1 - null))
            for share in shares
        ]


@dataclass(frozen=True, kw_only=True)
class TableTest(Test):
    """Whether a trial is a hit as often in both arms: the cells are trials, each decided in its window.

    With the margins of the table given, the hits of the rollout's arm have a hypergeometric distribution
    under the null, and Fisher's noncentral one with the odds ``theta`` otherwise; the ratio of the two is
    taken exactly. If the rollout's probability is on the far side of the null the ratio's mean is smaller
    still, as the likelihood ratios are monotone. (Turner, Ly & Grünwald, *Generic e-variables for exact
    sequential k-sample tests that allow for optional stopping*, JSPI 2024, have others for the same tables.)
    """

    def _log_ratios(self, window: Window) -> list[float]:
        events, spare = window.events, window.production - window.events
        fewest = max(0, -spare)
        ways = [0.0]  # to have so many of the events in the rollout's arm, in proportion to the fewest
        for hits in range(fewest, min(window.rollout, events)):
            more = (window.rollout - hits) * (events - hits) / ((hits + 1) * (spare + hits + 1))
            ways.append(ways[-1] + log(more))
        hits, every_way = window.rollout_events - fewest, log_sum(ways)
        log_odds = [log(theta) for theta in self.alternatives]
        return [
            hits * odds + every_way - log_sum([way + more * odds for more, way in enumerate(ways)])
            for odds in log_odds
        ]


def is_new_round(*, before: int, after: int) -> bool:
    """Tell whether the number of events has reached 64, or twice as many as in the round before."""
    return (after // _FIRST_ROUND).bit_length() > (before // _FIRST_ROUND).bit_length()


def log_proof_below(bound: float, *, trials: int, hits: int) -> float:
    """Return the logarithm of the money of a test of "each trial is a hit with at least this probability".

    Half of it is on "never", which is what is hoped for: 331 trials without a hit make 20 of 1 against 1 %.
    A bound of 0 or less is never proven.
    """
    if bound <= 0:
        return -inf
    bound = min(bound, 1 - _CERTAIN)
    logs = [log(_NEVER_WEIGHT) - trials * log1p(-bound)] if not hits else []
    for part in _PARTS_OF_BOUND:
        missed = log1p(-bound * part) - log1p(-bound)
        logs.append(
            log((1 - _NEVER_WEIGHT) / len(_PARTS_OF_BOUND)) + hits * log(part) + (trials - hits) * missed
        )
    return log_sum(logs)


def log_rate_below(bound: float, *, trials: int, hits: float) -> float:
    """Return the logarithm of the money against "the trials so far are hits with at least this probability".

    On the average, that is: each trial may have a probability of its own, which may depend on those before.
    The money is how likely the trials are by what is expected of those who keep to the bound, divided by how
    likely they are at the bound. Half of what is expected is "never", half a beta distribution around half of
    the bound's odds.

    That is a mean of ratios, one for each rate. Of a rate below the bound it is a product of a martingale and
    of factors that together are at most 1 whenever the average is at the bound or above it. Rates above the
    bound add no more than their weight, as long as the share of hits is below it; where it is not, the money
    is what it would be at that share, which is at most 1. So the money is 20 with a probability of at most
    1/20 at any time at which the hypothesis is true.

    A beta distribution makes the mean a closed form of two counts (Robbins, *Statistical methods related to
    the law of the iterated logarithm*, 1970): there are no stakes to remember, and in which order the trials
    came is not asked. It has some weight at each rate, where a list of alternatives would never prove
    anything of rates between the bound and the nearest of them.

    ``hits`` may be a fraction, where one asks what would be known. A bound of 0 or less is never proven, one
    of 1 or more always.
    """
    if not 0 < bound < 1:
        return -inf if bound <= 0 else inf
    expected = _log_beta_mean(_RARER * bound / (1 - bound), trials=trials, hits=hits)
    never = 0.0 if hits <= 0 else -inf
    worst = max(bound, hits / trials) if trials else bound
    mean = log_sum([log(_NEVER_WEIGHT) + never, log(1 - _NEVER_WEIGHT) + expected])
    return mean - _log_likelihood(worst, trials=trials, hits=hits)


def log_rate_above(bound: float, *, trials: int, hits: float) -> float:
    """Return the same against "with at most this probability": the mean is around twice the bound's odds.

    A bound of 0 or less is refuted by the first hit, one of 1 or more never.
    """
    if not 0 < bound < 1:
        return inf if bound <= 0 < hits else -inf
    expected = _log_beta_mean(_COMMONER * bound / (1 - bound), trials=trials, hits=hits)
    best = min(bound, hits / trials) if trials else bound
    return expected - _log_likelihood(best, trials=trials, hits=hits)


def _log_beta_mean(odds: float, *, trials: int, hits: float) -> float:
    """Return the mean of the trials' likelihood over the beta distribution (1, 1 / odds)."""
    misses, rare = trials - hits, 1 / odds
    return log(rare) + lgamma(hits + 1) + lgamma(misses + rare) - lgamma(trials + 1 + rare)


def _log_likelihood(rate: float, *, trials: int, hits: float) -> float:
    misses = trials - hits
    return (hits * log(rate) if hits > 0 else 0.0) + (misses * log1p(-rate) if misses > 0 else 0.0)


def log_sum(logs: Sequence[float]) -> float:
    """Return the logarithm of the sum of what these are the logarithms of."""
    top = max(logs)
    return top if top == -inf else top + log(sum([exp(one - top) for one in logs]))


def _share(window: Window, theta: float) -> float:
    """Return the mean share of the rollout's arm in the window's events, where its cells weigh ``theta``.

    In continuous time a cell is left at ``t`` with probability ``exp(-t)``, the rollout's with ``exp(-theta
    t)``; the ``t`` is looked for at which as many are hit as there were events.
    """
    rollout, production, events = window.rollout, window.production, window.events
    if events >= rollout + production:
        return rollout / (rollout + production)
    if events == 1:
        return theta * rollout / (theta * rollout + production)
    time = events / (theta * rollout + production)
    for _ in range(_SEARCH_STEPS):  # Newton's method rises to the root and never passes it
        hit, other = -expm1(-theta * time), -expm1(-time)
        missing = events - rollout * hit - production * other
        step = missing / (theta * rollout * (1 - hit) + production * (1 - other))
        time += step
        if step <= 1e-7 * time:
            break
    share = rollout * -expm1(-theta * time) / events
    return min(max(share, _CERTAIN), 1 - _CERTAIN)
