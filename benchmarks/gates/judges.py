"""Who decides about a step: our gate, a z-test that is peeked at, fixed thresholds as Flagger has them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import sqrt

from benchmarks.gates.cases import HOLD_SECONDS, Case
from benchmarks.gates.world import SCRAPES, VERSION, Step
from greenroom_operator.controller.gate import Evidence, GatePolicy, Outcome, judge

POLICY = GatePolicy()
Z_OF_ONE_PERCENT = 2.326


class Judge(ABC):
    """Comes to an outcome at each scrape of each step."""

    def begin(self, step: Step) -> None:
        """Begin a step."""
        self.step = step

    @abstractmethod
    def look(self, scrape: int) -> Outcome:
        """Return the outcome at a scrape; each is looked at, in order."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """When in the first step our gate's evidence sufficed for a verdict, the hold left aside."""

    seconds: float
    users: int
    """Buckets of the rollout's arm."""
    requests: int
    """Of the rollout's users."""


class Gate(Judge):
    """Greenroom's."""

    def __init__(self) -> None:
        self.evidence: Evidence | None = None
        self.first_verdict: Verdict | None = None

    def begin(self, step: Step) -> None:
        """Begin an epoch, with the Fail tests of the one before carried on."""
        super().begin(step)
        self.evidence = Evidence.begin(step.epoch, version=VERSION, policy=POLICY, before=self.evidence)

    def look(self, scrape: int) -> Outcome:
        """Observe what pods report, and judge."""
        assert self.evidence is not None
        self.evidence = self.evidence.observe([self.step.evidence(scrape)])
        outcome = judge(self.evidence, POLICY).outcome
        if outcome is not Outcome.INCONCLUSIVE and self.first_verdict is None and self.step.number == 0:
            self.first_verdict = Verdict(
                seconds=float(SCRAPES[scrape]),
                users=self.evidence.rollout.seen.count,
                requests=self.evidence.rollout.requests,
            )
        return outcome


class ZTest(Judge):
    """Proportions of failed requests, compared at each scrape at a level of 1 %; who holds out passes."""

    def look(self, scrape: int) -> Outcome:
        """Compare all requests since the step began."""
        step = self.step
        requests = int(step.rollout_requests[scrape]), int(step.production_requests[scrape])
        errors = int(step.rollout_errors[scrape]), int(step.production_errors[scrape])
        if min(requests) and sum(errors):
            pooled = sum(errors) / sum(requests)
            deviation = sqrt(pooled * (1 - pooled) * (1 / requests[0] + 1 / requests[1]))
            if errors[0] / requests[0] - errors[1] / requests[1] > Z_OF_ONE_PERCENT * deviation:
                return Outcome.FAIL
        return Outcome.PASS if SCRAPES[scrape] >= HOLD_SECONDS else Outcome.INCONCLUSIVE


class Thresholds(Judge):
    """Each minute errors must be at most 1.5 times the usual, or 1 %, and the 99th percentile 1.3 times.

    The fifth minute that is not so fails the step, the tenth passes it. It is set by somebody who knows what
    is usual.
    """

    MAX_FAILED_CHECKS = 5

    def __init__(self, case: Case) -> None:
        self._max_errors = max(0.01, 1.5 * case.errors)

    def begin(self, step: Step) -> None:
        """Begin a step without a failed check."""
        super().begin(step)
        self._checked = -1
        self._failed = 0

    def look(self, scrape: int) -> Outcome:
        """Check the minute that is over, if one is."""
        if SCRAPES[scrape] % 60:
            return Outcome.INCONCLUSIVE
        step, before = self.step, self._checked
        requests, errors, long_ones = (
            counts[scrape] - (counts[before] if before >= 0 else 0)
            for counts in (step.rollout_requests, step.rollout_errors, step.rollout_long)
        )
        self._checked = scrape
        self._failed += bool(errors > self._max_errors * requests or long_ones > 0.01 * requests)
        if self._failed >= self.MAX_FAILED_CHECKS:
            return Outcome.FAIL
        return Outcome.PASS if SCRAPES[scrape] >= HOLD_SECONDS else Outcome.INCONCLUSIVE
