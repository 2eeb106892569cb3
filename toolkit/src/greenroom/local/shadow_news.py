"""What is said of a shadow while it runs on this machine: each thing once, and counts now and then. Pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from greenroom_operator.api.shadow import ShadowState, ShadowStatus
from greenroom_operator.controller.gate import Outcome
from greenroom_operator.controller.rollout_status import spell_percent
from greenroom_operator.controller.shadow import LATCHED
from greenroom_runtime.contract.flags import FlagStore, Shadow

_COUNTS_SECONDS: Final = 3.0
"""Between two lines that tell of what changes all the while."""

News = tuple[str, str]
"""A kind of event and its text, as a screen prints them."""


@dataclass(kw_only=True)
class ShadowNews:
    """What was said so far, so that only what is new is said."""

    version: str = ""
    state: ShadowState | None = None
    epoch: str = ""
    """The one that it was said to be ready for."""
    share: str = ""
    verdict: str = ""
    error: str = ""
    counts: str = ""
    at: float = -math.inf
    """When counts, or trouble in other words, were last told."""
    greets: bool = False
    """Whether the newest look found it ready for the first time."""

    def find(
        self, status: ShadowStatus | None, flags: FlagStore, *, obeyed: bool, now: float
    ) -> Iterator[News]:
        """Yield what is new; ``obeyed`` tells whether both processes follow this very flag store."""
        self.greets = False
        if status is None:
            if self.version and self.state is not ShadowState.OVER:
                yield "note", f"{self.version} is no longer shadowed"
            self._begin("")
            return
        if status.version != self.version:
            self._begin(status.version)
            if status.state is not ShadowState.OVER:
                yield "busy", f"proving the shadow {status.version} …"
        if status.state is ShadowState.OVER:
            yield from self._find_end(status)
        elif status.state is ShadowState.BROKEN:
            yield from self._find_trouble(status, now=now)
        elif flags.shadow is not None and obeyed and status.state is not ShadowState.PREPARING:
            yield from self._find_readiness(status, flags, flags.shadow)
        if status.epoch and status.epoch == self.epoch:
            yield from self._find_counts(status, now=now)
            yield from self._find_verdict(status)

    def _begin(self, version: str) -> None:
        self.version, self.state, self.epoch, self.share = version, None, "", ""
        self.verdict = self.error = self.counts = ""

    def _find_end(self, status: ShadowStatus) -> Iterator[News]:
        if self.state is not ShadowState.OVER:
            yield "note", f"the shadow is over: {status.message}"
        self.state = ShadowState.OVER

    def _find_trouble(self, status: ShadowStatus, *, now: float) -> Iterator[News]:
        """Tell of trouble at once, and of the same in other words now and then."""
        error = status.error or ""
        again = self.state is ShadowState.BROKEN
        if again and (error == self.error or now - self.at < _COUNTS_SECONDS):
            return
        self.state, self.error, self.at = ShadowState.BROKEN, error, now
        yield "bad", f"the shadow {status.version} is broken: {error}; answers are not affected"

    def _find_readiness(self, status: ShadowStatus, flags: FlagStore, shadow: Shadow) -> Iterator[News]:
        if flags.production not in flags.digests:
            return  # what is compared is about to get another name
        share = spell_percent(shadow.hundredths)
        mirrored = f"{share} % of requests are compared with {flags.production}"
        if self.epoch != shadow.epoch:
            self.greets = not self.epoch
            yield "good", f"the shadow {status.version} is ready: {mirrored}"
            self.verdict = self.counts = ""
        elif self.state is ShadowState.BROKEN:
            yield "good", f"the shadow {status.version} works again: {mirrored}"
        elif self.share != share:
            yield "note", f"the shadow {status.version}: {mirrored}"
        self.state, self.epoch, self.share, self.error = status.state, shadow.epoch, share, ""

    def _find_counts(self, status: ShadowStatus, *, now: float) -> Iterator[News]:
        counts = spell_counts(status)
        if counts in ("", self.counts) or now - self.at < _COUNTS_SECONDS:
            return
        self.counts, self.at = counts, now
        yield "quiet", f"the shadow {status.version}: {counts}"

    def _find_verdict(self, status: ShadowStatus) -> Iterator[News]:
        verdict = status.verdict or ""
        if verdict == self.verdict or verdict not in {outcome.value for outcome in LATCHED}:
            return
        self.verdict = verdict
        passed = verdict == Outcome.PASS
        told = f"the shadow {status.version} has {'passed' if passed else 'failed'}: {status.message}"
        yield "good" if passed else "bad", told


def spell_counts(status: ShadowStatus) -> str:
    """Return what came of requests in a few words, empty where there were none."""
    others = {
        "not answered": status.errors,
        "not comparable": status.not_comparable,
        "dropped": status.dropped,
    }
    if not status.requests and not any(others.values()):
        return ""
    share = f" ({status.summary})" if status.summary else ""
    told = [f"{status.requests or 0} requests, {status.disagreements or 0} answered otherwise{share}"]
    told += [f"{number} {name}" for name, number in others.items() if number]
    if status.latency_ratio:
        told.append(f"{status.latency_ratio} times as long")
    return ", ".join(told)
