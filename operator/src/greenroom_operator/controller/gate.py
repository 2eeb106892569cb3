"""The gate of a rollout: is its version as good as production's, worse, or is it too early to tell.

Pure decisions. Pods count users in buckets (`greenroom_runtime.contract.evidence`). Here their reports are
merged, what is new in them is betted on (`betting`), and a verdict is read off the money, at any time and as
often as one likes. There are four tests, two to fail the version and two to pass it; a null hypothesis is
given up where its test has won enough against it:

- **errors, Fail**: users of the rollout fail at most ``max_error_ratio`` times as often as production's.
- **errors, Pass**: they fail at least that many times as often *and* at least ``tolerated_error_percent`` of
  them fail at once. So a version without a single error passes, too.
- **latency, Fail**: first answers of the rollout are slow at most as often as production's. What is slow
  takes care of ``max_latency_ratio``: the rollout's answers are held against a threshold that is so many
  times production's.
- **latency, Pass**: they are slow at least as often *and* in at least half as many cases as production's are
  by the threshold's definition.

A version within the bounds is failed, in any of the steps of its rollout, with a probability of at most
`ALPHA`: the money of the Fail tests is carried on from step to step, and either of the two may win half of
what that takes. A version beyond a bound passes a step with a probability of at most `BETA`; the Pass tests
begin anew in each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import log
from typing import Any, ClassVar, Final

from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, TypeAdapter
from pydantic.alias_generators import to_camel

from greenroom_operator.controller.betting import (
    Money,
    RateTest,
    TableTest,
    Test,
    Window,
    is_new_round,
    log_proof_below,
    log_sum,
)
from greenroom_runtime.contract.evidence import (
    BUCKETS,
    SLOW_QUANTILE,
    ArmEvidence,
    Bitmap,
    RolloutEvidence,
)

ALPHA: Final = 0.01
"""The probability that a rollout of a version within the bounds is failed."""
BETA: Final = 0.05
"""The probability that a version beyond a bound passes a step."""
MAX_CRASHES: Final = 3
"""So many crashes of serving processes, and the version fails whatever the tests say."""
_FAIL: Final = log(2 / ALPHA)  # either of two tests may win it
_PASS: Final = log(1 / BETA)
_HALF: Final = log(0.5)
_SPENT: Final = BUCKETS * 15 // 16
"""So many buckets in both arms, and too few are left to learn much from."""
_NO_MORE: Final = "not proven, and nearly all user buckets of this step are spent: a person has to decide"
_DECIMALS: Final = 4
_INT64_MAX: Final = 2**63 - 1
_CAMEL: Final = ConfigDict(alias_generator=to_camel, allow_inf_nan=False)

_HARMFUL: Final = (1.15, 1.33, 1.6, 2.5, 6.0, 25.0)
_HARMFUL_WEIGHTS: Final = (0.15, 0.25, 0.2, 0.15, 0.15, 0.1)
_FIT: Final = (0.8, 0.5, 0.2, 0.05)
_FIT_WEIGHTS: Final = (0.5, 0.2, 0.1, 0.1, 0.1)
_SLOWER: Final = TableTest(alternatives=(1.15, 1.4, 2.0, 4.0, 20.0), weights=(0.2,) * 5)
_NOT_SLOWER: Final = TableTest(alternatives=(0.9, 0.7, 0.5, 0.2, 0.02), weights=(0.2,) * 5)


class Outcome(StrEnum):
    """What the evidence says."""

    PASS = "Pass"  # noqa: S105 no password
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """What a version must keep to."""

    min_requests: int = 1000
    """Answers to the rollout's users before it may pass a step."""
    max_error_ratio: float = 1.5
    """How many times as often as production's users the rollout's may fail."""
    max_latency_ratio: float = 1.3
    """How many times as long as production the version may take: the flag store's ``latency_ratio``."""
    tolerated_error_percent: float = 1.0
    """So many of a hundred users may fail at once whatever the ratio is."""


@dataclass(frozen=True, kw_only=True)
class Wealth:
    """The money of the four tests."""

    __pydantic_config__: ClassVar[ConfigDict] = _CAMEL

    error_fail: Money
    error_pass: Money
    latency_fail: Money
    latency_pass: Money

    @classmethod
    def begin(cls, max_error_ratio: float, *, before: "Wealth | None" = None) -> "Wealth":
        """Return the money at the beginning of an epoch; that of the Fail tests is carried on."""
        harmful = _harmful(max_error_ratio)
        return cls(
            error_fail=harmful.top_up(before.error_fail) if before else harmful.begin(),
            error_pass=_fit(max_error_ratio).stake_all(),
            latency_fail=_SLOWER.top_up(before.latency_fail) if before else _SLOWER.begin(),
            latency_pass=_NOT_SLOWER.stake_all(),
        )

    def bet_on_errors(self, window: Window, *, max_error_ratio: float, new_round: bool) -> "Wealth":
        """Return the money after errors, with the stakes topped up afterwards where a round begins."""
        harmful = _harmful(max_error_ratio)
        money = harmful.bet(self.error_fail, window)
        return replace(
            self,
            error_fail=harmful.top_up(money) if new_round else money,
            error_pass=_fit(max_error_ratio).bet(self.error_pass, window),
        )

    def bet_on_latency(self, window: Window, *, new_round: bool) -> "Wealth":
        """Return the money after first answers were timed, with the stakes topped up likewise."""
        money = _SLOWER.bet(self.latency_fail, window)
        return replace(
            self,
            latency_fail=_SLOWER.top_up(money) if new_round else money,
            latency_pass=_NOT_SLOWER.bet(self.latency_pass, window),
        )


def _harmful(max_error_ratio: float) -> Test:
    return RateTest(
        null=max_error_ratio,
        alternatives=tuple(max_error_ratio * factor for factor in _HARMFUL),
        weights=_HARMFUL_WEIGHTS,
    )


def _fit(max_error_ratio: float) -> Test:
    """Half of the money is on "as often as production's", which is what most versions are."""
    equal = min(1.0, 0.97 * max_error_ratio)
    return RateTest(
        null=max_error_ratio,
        alternatives=(equal, *(max_error_ratio * factor for factor in _FIT)),
        weights=_FIT_WEIGHTS,
    )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one rollout, as status remembers it."""

    __pydantic_config__: ClassVar[ConfigDict] = _CAMEL

    epoch: str
    """The flag store's: what pods say of another one is not looked at."""
    version: str
    max_error_ratio: PositiveFloat
    """The bounds that are betted on: the policy's when the epoch began."""
    max_latency_ratio: PositiveFloat
    rollout: ArmEvidence = field(default_factory=ArmEvidence)
    """Merged over pods and time, within the epoch."""
    production: ArmEvidence = field(default_factory=ArmEvidence)
    failed_at_once: NonNegativeInt = 0
    """Buckets of the rollout's arm that had failed already when they were seen for the first time."""
    wealth: Wealth
    crashes: NonNegativeInt = 0
    """Of serving processes, while the version was routable, in all epochs."""

    @classmethod
    def begin(
        cls, epoch: str, *, version: str, policy: GatePolicy, before: "Evidence | None" = None
    ) -> "Evidence":
        """Return an epoch without evidence; ``before`` is the one before it in the same rollout, if any.

        The Fail tests of ``before`` go on where the bounds are the same, so that all epochs together fail a
        version wrongly with a probability of at most `ALPHA`. The Pass tests begin anew.
        """
        bounds = policy.max_error_ratio, policy.max_latency_ratio
        known = before and (before.max_error_ratio, before.max_latency_ratio)
        return cls(
            epoch=epoch,
            version=version,
            max_error_ratio=policy.max_error_ratio,
            max_latency_ratio=policy.max_latency_ratio,
            wealth=Wealth.begin(
                policy.max_error_ratio, before=before.wealth if before and known == bounds else None
            ),
            crashes=before.crashes if before else 0,
        )

    def observe(self, reports: Sequence[RolloutEvidence]) -> "Evidence":
        """Return the evidence with what these pods report added to it.

        Reports are what pods have counted since the epoch began, so it does not matter how often they are
        observed, and one that is lost is made up for by the next. Those of another epoch or version say
        nothing here.
        """
        told = [one for one in reports if (one.epoch, one.version) == (self.epoch, self.version)]
        rollout = _merge(self.rollout, [one.rollout for one in told])
        production = _merge(self.production, [one.production for one in told])
        if (rollout, production) == (self.rollout, self.production):
            return self
        new = (rollout.seen - self.rollout.seen) & rollout.failed
        return replace(
            self,
            rollout=rollout,
            production=production,
            failed_at_once=self.failed_at_once + new.count,
            wealth=self._bet(rollout, production),
        )

    def crash(self, count: int) -> "Evidence":
        """Return the evidence with so many more crashes of serving processes."""
        return replace(self, crashes=min(self.crashes + max(count, 0), _INT64_MAX))

    def _bet(self, rollout: ArmEvidence, production: ArmEvidence) -> Wealth:
        failures = Window(
            rollout=BUCKETS - self.rollout.failed.count,
            production=BUCKETS - self.production.failed.count,
            rollout_events=rollout.failed.count - self.rollout.failed.count,
            production_events=production.failed.count - self.production.failed.count,
        )
        timed = Window(
            rollout=rollout.timed.count - self.rollout.timed.count,
            production=production.timed.count - self.production.timed.count,
            rollout_events=rollout.slow.count - self.rollout.slow.count,
            production_events=production.slow.count - self.production.slow.count,
        )
        failed = self.rollout.failed.count + self.production.failed.count
        slow = self.rollout.slow.count + self.production.slow.count
        return self.wealth.bet_on_errors(
            failures,
            max_error_ratio=self.max_error_ratio,
            new_round=is_new_round(before=failed, after=failed + failures.events),
        ).bet_on_latency(timed, new_round=is_new_round(before=slow, after=slow + timed.events))


def _merge(known: ArmEvidence, reports: Sequence[ArmEvidence]) -> ArmEvidence:
    """Add what is new. A bucket is slow or not as it was when it was first told to be timed."""
    seen, failed, timed, slow = known.seen, known.failed, known.timed, Bitmap()
    for arm in reports:
        seen |= arm.seen | arm.failed | arm.timed
        failed |= arm.failed
        timed |= arm.timed
        slow |= arm.slow
    return ArmEvidence(
        seen=seen,
        failed=failed,
        timed=timed,
        slow=known.slow | slow & timed - known.timed,
        requests=_add(known.requests, [arm.requests for arm in reports]),
        errors=_add(known.errors, [arm.errors for arm in reports]),
    )


def _add(known: int, counts: Sequence[int]) -> int:
    """Sum what pods have counted; where one of them has begun anew, go on with what is known."""
    return min(max(known, sum(counts)), _INT64_MAX)


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """What the evidence says by a policy."""

    outcome: Outcome
    message: str
    """Why, with numbers, and what is still needed."""
    errors: Outcome
    latency: Outcome


def judge(evidence: Evidence, policy: GatePolicy) -> GateVerdict:
    """Read the verdict off the evidence; whatever it is, it may be asked for at any time."""
    bounds = evidence.max_error_ratio, evidence.max_latency_ratio
    if bounds != (policy.max_error_ratio, policy.max_latency_ratio):
        return GateVerdict(
            outcome=Outcome.INCONCLUSIVE,
            message=(
                f"the bounds are not those of the evidence, {bounds[0]:g} for errors and {bounds[1]:g} for "
                "latency: it has to be gathered anew"
            ),
            errors=Outcome.INCONCLUSIVE,
            latency=Outcome.INCONCLUSIVE,
        )
    errors, latency = _judge_errors(evidence, policy), _judge_latency(evidence)
    if Outcome.FAIL in (errors, latency) or evidence.crashes >= MAX_CRASHES:
        outcome = Outcome.FAIL
    elif errors is latency is Outcome.PASS and evidence.rollout.requests >= policy.min_requests:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.INCONCLUSIVE
    told = [
        _tell_crashes(evidence),
        _tell_requests(evidence, policy),
        _tell_errors(evidence, errors),
        _tell_latency(evidence, latency),
    ]
    return GateVerdict(outcome=outcome, message="; ".join(filter(None, told)), errors=errors, latency=latency)


def _judge_errors(evidence: Evidence, policy: GatePolicy) -> Outcome:
    few = log_proof_below(
        policy.tolerated_error_percent / 100,
        trials=evidence.rollout.seen.count,
        hits=evidence.failed_at_once,
    )
    return _decide(evidence.wealth.error_fail, [evidence.wealth.error_pass.log_total, few])


def _judge_latency(evidence: Evidence) -> Outcome:
    few = log_proof_below(
        (1 - SLOW_QUANTILE) / 2, trials=evidence.rollout.timed.count, hits=evidence.rollout.slow.count
    )
    return _decide(evidence.wealth.latency_fail, [evidence.wealth.latency_pass.log_total, few])


def _decide(fail: Money, passes: Sequence[float]) -> Outcome:
    """Compare the money with what gives a hypothesis up; a Pass has two halves, either of which may win."""
    if fail.log_total >= _FAIL:
        return Outcome.FAIL
    won = log_sum([_HALF + money for money in passes])
    return Outcome.PASS if won >= _PASS else Outcome.INCONCLUSIVE


def _tell_crashes(evidence: Evidence) -> str:
    if not evidence.crashes:
        return ""
    times = "once" if evidence.crashes == 1 else f"{evidence.crashes} times"
    return f"serving processes have crashed {times} while it was routable, {MAX_CRASHES} times fail it"


def _tell_requests(evidence: Evidence, policy: GatePolicy) -> str:
    requests = evidence.rollout.requests
    return f"{requests} of {policy.min_requests} requests so far" if requests < policy.min_requests else ""


def _tell_errors(evidence: Evidence, outcome: Outcome) -> str:
    rollout, production = evidence.rollout, evidence.production
    counts = (
        f"errors: {rollout.failed.count} of {rollout.seen.count} user buckets against "
        f"{production.failed.count} of {production.seen.count} of production's"
    )
    worse = f"more than {evidence.max_error_ratio:g} times as many users"
    return _tell_outcome(counts, outcome, worse=worse, spent=(rollout.failed, production.failed))


def _tell_latency(evidence: Evidence, outcome: Outcome) -> str:
    rollout, production = evidence.rollout, evidence.production
    if outcome is Outcome.INCONCLUSIVE and not rollout.timed.count:
        return "latency: no answer of the rollout's timed yet"
    counts = (
        f"latency: {rollout.slow.count} of {rollout.timed.count} user buckets slow against "
        f"{production.slow.count} of {production.timed.count} of production's"
    )
    worse = f"more than {evidence.max_latency_ratio:g} times as slow"
    return _tell_outcome(counts, outcome, worse=worse, spent=(rollout.timed, production.timed))


def _tell_outcome(counts: str, outcome: Outcome, *, worse: str, spent: Sequence[Bitmap]) -> str:
    """Say what the counts have come to; ``spent`` are the buckets of either arm that are used up."""
    if outcome is Outcome.FAIL:
        return f"{counts}, {worse}"
    if outcome is Outcome.PASS:
        return counts
    exhausted = min(buckets.count for buckets in spent) > _SPENT
    return f"{counts}: {_NO_MORE if exhausted else 'not proven yet'}"


_EVIDENCE: Final = TypeAdapter(Evidence)


def dump_evidence(evidence: Evidence) -> dict[str, Any]:
    """Return the form in status: texts and numbers, the same for the same evidence."""
    wealth = evidence.wealth
    rounded = Wealth(
        error_fail=_round(wealth.error_fail),
        error_pass=_round(wealth.error_pass),
        latency_fail=_round(wealth.latency_fail),
        latency_pass=_round(wealth.latency_pass),
    )
    document: dict[str, Any] = _EVIDENCE.dump_python(
        replace(evidence, wealth=rounded), mode="json", by_alias=True
    )
    return document


def parse_evidence(document: Mapping[str, Any]) -> Evidence:
    """Read what `dump_evidence` returns; ValueError for anything else, as after an upgrade or an edit."""
    evidence = _EVIDENCE.validate_python(document)
    begun = Wealth.begin(evidence.max_error_ratio)
    for name in ("error_fail", "error_pass", "latency_fail", "latency_pass"):
        found, known = (len(getattr(wealth, name).stakes) for wealth in (evidence.wealth, begun))
        if found != known:
            raise ValueError(f"the evidence has {found} stakes of {name}, this release has {known}")
    return evidence


def _round(money: Money) -> Money:
    return replace(money, stakes=tuple(round(stake, _DECIMALS) for stake in money.stakes))
