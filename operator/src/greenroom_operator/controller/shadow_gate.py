"""The gate of a shadow: does its version answer as production does, without errors, and quickly enough.

Pure decisions. Shadows tell what the first request of each bucket of users came to
(`greenroom_runtime.contract.shadow`). Each bucket is a trial, so that a user who asks a thousand times counts
as often as one who asks once. There are three rates, and each has a bound:

- **disagreement**: of the buckets that the shadow answered, those that it answered otherwise than production;
- **errors**: of all buckets, those that it could not answer;
- **latency**: of the buckets that it answered, those for which it took more than ``max_latency_ratio`` times
  as long as production. Half of them is the bound: that is a sign test of pairs, and asks for the median.

A rate is proven to be below its bound, or above, by the money of a bet (`betting.log_rate_below`,
`betting.log_rate_above`), at any time and as often as one likes. The money depends on the counts alone. So
buckets are all that is remembered, and the order in which they are told does not matter.

A version passes where all three are proven to be below. One that is beyond any bound passes with a
probability of at most `BETA`: however good it is otherwise, that one test has to err. It fails where any is
proven to be above; one that keeps to all of them is failed with a probability of at most `ALPHA`, which the
three share. Both hold for an epoch: another one is another comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any, ClassVar, Final

from pydantic import ConfigDict, TypeAdapter
from pydantic.alias_generators import to_camel

from greenroom_operator.controller.betting import log_rate_above, log_rate_below
from greenroom_operator.controller.gate import ALPHA, BETA, MAX_CRASHES, GateVerdict, Outcome
from greenroom_runtime.contract.evidence import WIDE_BUCKETS, WideBitmap, WideBitmapText
from greenroom_runtime.contract.report import INT64_MAX
from greenroom_runtime.contract.shadow import Count, ShadowTrials

MAX_SLOW: Final = 0.5
"""So much of the trials may be slow: what is slow says ``max_latency_ratio``."""
_FAIL: Final = log(3 / ALPHA)  # any of three tests may win it
_PASS: Final = log(1 / BETA)  # all of three must
_SPENT: Final = WIDE_BUCKETS * 15 // 16
"""So many buckets, and too few are left to learn much from."""
_NO_MORE: Final = (
    "not proven, and no more can be learnt: nearly all user buckets are used, a person has to decide"
)
_CLEAR_DIGITS: Final = 2


@dataclass(frozen=True, kw_only=True)
class ShadowPolicy:
    """What a version must keep to."""

    min_requests: int = 1000
    """Requests that both versions answered, before it may pass."""
    max_disagreement_percent: float = 2.0
    """So many of a hundred user buckets may be answered otherwise."""
    max_error_percent: float = 0.1
    """So many of a hundred may not be answered."""
    max_latency_ratio: float = 1.5
    """How many times as long as production it may take: the flag store's ``latency_ratio``."""


@dataclass(frozen=True, kw_only=True)
class ShadowEvidence:
    """What is known of one shadow in one epoch, as status remembers it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(alias_generator=to_camel, extra="forbid")

    epoch: str
    """The flag store's, which names what is compared."""
    requests: Count = 0
    """That both versions answered."""
    crashes: Count = 0
    """How often a shadow process ended unasked: it crashed, hung or ran out of memory."""
    seen: WideBitmapText = field(default_factory=WideBitmap)
    """Buckets that are decided."""
    failed: WideBitmapText = field(default_factory=WideBitmap)
    """Of those, which the shadow could not answer."""
    disagreed: WideBitmapText = field(default_factory=WideBitmap)
    """Of those that it answered, which it answered otherwise."""
    slow: WideBitmapText = field(default_factory=WideBitmap)
    """Of those that it answered, for which it took too long."""

    def __post_init__(self) -> None:
        """Refuse what `gather` never makes of anything."""
        if (self.failed - self.seen).bits or ((self.disagreed | self.slow) - self.answered).bits:
            raise ValueError("the evidence of a shadow tells of buckets that it has not")

    @property
    def answered(self) -> WideBitmap:
        """Buckets that the shadow answered."""
        return self.seen - self.failed


def gather(
    evidence: ShadowEvidence | None,
    *,
    epoch: str,
    trials: Sequence[ShadowTrials],
    crashes: int,
    requests: int,
) -> ShadowEvidence:
    """Return the evidence with what shadows tell added to it; another epoch begins anew.

    ``trials`` are what those tell that count this epoch, in an order that does not depend on what they tell.
    ``crashes`` and ``requests`` are sums over all shadows since the epoch began, and never fall. So gathering
    the same again changes nothing.

    A bucket is decided by the first report that has it. Several shadows see the same users, each another
    request of theirs; if a bucket were a hit wherever one of them has a hit, two would find nearly twice the
    rate. What a report says of buckets that it has not seen is not looked at.
    """
    known = evidence if evidence is not None and evidence.epoch == epoch else ShadowEvidence(epoch=epoch)
    seen, failed, disagreed, slow = known.seen, known.failed, known.disagreed, known.slow
    for told in trials:
        new = told.seen - seen
        answered = new - told.failed
        seen |= new
        failed |= told.failed & new
        disagreed |= told.disagreed & answered
        slow |= told.slow & answered
    return ShadowEvidence(
        epoch=epoch,
        requests=_rise(known.requests, requests),
        crashes=_rise(known.crashes, crashes),
        seen=seen,
        failed=failed,
        disagreed=disagreed,
        slow=slow,
    )


def _rise(known: int, told: int) -> int:
    return min(max(known, told), INT64_MAX)


@dataclass(frozen=True, kw_only=True)
class ShadowVerdict(GateVerdict):
    """What the evidence says by a policy."""

    disagreement: Outcome


@dataclass(frozen=True, kw_only=True)
class _Rate:
    """Trials, how many of them are hits, and what their share is held against."""

    name: str
    trials: int
    hits: int
    bound: float

    @property
    def outcome(self) -> Outcome:
        if log_rate_above(self.bound, trials=self.trials, hits=self.hits) >= _FAIL:
            return Outcome.FAIL
        below = log_rate_below(self.bound, trials=self.trials, hits=self.hits)
        return Outcome.PASS if below >= _PASS else Outcome.INCONCLUSIVE

    @property
    def trials_to_pass(self) -> int | None:
        """How many trials a Pass takes if their share of hits stays as it is; None where all will not do."""
        share = self.hits / self.trials if self.trials else 0.0
        few, many = self.trials, WIDE_BUCKETS
        if log_rate_below(self.bound, trials=many, hits=share * many) < _PASS:
            return None
        while few < many:
            middle = (few + many) // 2
            if log_rate_below(self.bound, trials=middle, hits=share * middle) < _PASS:
                few = middle + 1
            else:
                many = middle
        return many


def judge(evidence: ShadowEvidence, policy: ShadowPolicy) -> ShadowVerdict:
    """Read the verdict off the evidence; whatever it is, it may be asked for at any time."""
    answered = evidence.answered.count
    disagreement = _Rate(
        name="disagreement",
        trials=answered,
        hits=evidence.disagreed.count,
        bound=policy.max_disagreement_percent / 100,
    )
    errors = _Rate(
        name="errors",
        trials=evidence.seen.count,
        hits=evidence.failed.count,
        bound=policy.max_error_percent / 100,
    )
    latency = _Rate(name="latency", trials=answered, hits=evidence.slow.count, bound=MAX_SLOW)
    outcomes = [rate.outcome for rate in (disagreement, errors, latency)]
    if Outcome.FAIL in outcomes or evidence.crashes >= MAX_CRASHES:
        outcome = Outcome.FAIL
    elif set(outcomes) == {Outcome.PASS} and evidence.requests >= policy.min_requests:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.INCONCLUSIVE
    rates = [
        _tell(disagreement, hits="answered otherwise", bound=f"{policy.max_disagreement_percent:g} %"),
        _tell(errors, hits="not answered", bound=f"{policy.max_error_percent:g} %"),
        _tell(latency, hits=f"took more than {policy.max_latency_ratio:g} times as long", bound="half"),
    ]
    failed = [text for text, each in zip(rates, outcomes, strict=True) if each is Outcome.FAIL]
    others = [text for text in rates if text not in failed]
    told = [*failed, _tell_crashes(evidence), _tell_requests(evidence, policy), *others]
    return ShadowVerdict(
        outcome=outcome,
        message="; ".join(filter(None, told)),
        disagreement=outcomes[0],
        errors=outcomes[1],
        latency=outcomes[2],
    )


def _tell_crashes(evidence: ShadowEvidence) -> str:
    if not evidence.crashes:
        return ""
    times = "once" if evidence.crashes == 1 else f"{evidence.crashes} times"
    return f"the shadow process has ended {times} unasked, {MAX_CRASHES} times fail it"


def _tell_requests(evidence: ShadowEvidence, policy: ShadowPolicy) -> str:
    requests = evidence.requests
    return f"{requests} of {policy.min_requests} requests so far" if requests < policy.min_requests else ""


def _tell(rate: _Rate, *, hits: str, bound: str) -> str:
    """Say what the counts have come to, and what is still needed."""
    counts = f"{rate.name}: {rate.hits} of {rate.trials} user buckets {hits}"
    match rate.outcome:
        case Outcome.FAIL:
            return f"{counts}, proven to be above {bound}"
        case Outcome.PASS:
            return f"{counts}, proven to be below {bound}"
    if rate.bound <= 0:
        return f"{counts}: that there are none at all is never proven, raise the bound of {bound}"
    if rate.trials > _SPENT:
        return f"{counts}: below {bound} is {_NO_MORE}"
    needed = rate.trials_to_pass
    far = "will not be" if needed is None else f"takes some {_roughly(needed)} buckets"
    return f"{counts}: below {bound} is not proven yet, and {far} if that stays so"


def _roughly(count: int) -> str:
    """Round up, so that the number stays the same while counts change a little."""
    unit = 10 ** max(len(str(count)) - _CLEAR_DIGITS, 0)
    return f"{-(-count // unit) * unit:,}"


_EVIDENCE: Final = TypeAdapter(ShadowEvidence)


def dump_evidence(evidence: ShadowEvidence) -> dict[str, Any]:
    """Return the form in status: texts and numbers, the same for the same evidence; 11 KiB at most."""
    document: dict[str, Any] = _EVIDENCE.dump_python(evidence, mode="json", by_alias=True)
    return document


def parse_evidence(document: Mapping[str, Any]) -> ShadowEvidence:
    """Read what `dump_evidence` returns; ValueError for anything else, as after an upgrade or an edit."""
    return _EVIDENCE.validate_python(document)
