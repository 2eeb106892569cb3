"""Proving a version on every pod before it may answer anybody: what promotions and rollouts share.

Pure decisions. One pod proves it first, then all do; a version counts as proven when every pod that gets
traffic says so under the flag store in force.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from greenroom_runtime.contract.flags import FlagStore
from greenroom_runtime.contract.report import Failure, FailureReason, PodReport, VersionReport, VersionState


@dataclass(frozen=True, kw_only=True)
class PodView:
    """One pod that is not on its way out, as last observed."""

    name: str
    ready: bool
    """Its Ready condition: whether it gets traffic."""
    report: PodReport | None = None
    """The newest report; None when it has not reported, or not lately."""
    silent: bool = False
    """Whether it has been asked for long enough: without, a missing report may just not be here yet."""
    crashed: datetime | None = None
    """When its serving process last ended by itself; None where it never has."""

    @property
    def unheard(self) -> bool:
        """Whether it gets traffic and has not had the time to say anything, as when the operator starts."""
        return self.ready and self.report is None and not self.silent

    def version(self, version: str, *, revision: str) -> VersionReport | None:
        """Return what it says of a version, provided that it obeys this revision of the flag store."""
        if self.report is None or self.report.revision != revision:
            return None
        return self.report.version(version)

    def holds(self, version: str, *, revision: str) -> bool:
        """Tell whether it has proven and loaded a version, as it says under this revision."""
        seen = self.version(version, revision=revision)
        return seen is not None and seen.state is VersionState.READY


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a version may not answer."""

    version: str
    reason: str
    message: str
    pod: str = ""
    failure: Failure | None = None

    @classmethod
    def by_pod(cls, pod: str, *, version: str, failure: Failure) -> "Refusal":
        """Return the refusal that a pod's failure is."""
        return cls(version=version, reason=failure.reason, message=failure.message, pod=pod, failure=failure)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """One version on its way to being proven by every pod."""

    version: str
    flags: FlagStore
    """The flag store in force."""
    pods: Sequence[PodView]
    rolling: bool
    """Whether pods are being, or are about to be, replaced by such of another template."""
    started: datetime
    deadline: timedelta

    def find_failure(self) -> Refusal | None:
        """Return why a pod cannot hold the version, as it says under the flag store in force."""
        pinned = self.flags.digests.get(self.version, "")
        for pod in self._pods_by_name:
            seen = pod.version(self.version, revision=self.flags.revision)
            if seen is not None and seen.state is VersionState.FAILED and seen.failure is not None:
                return Refusal.by_pod(pod.name, version=self.version, failure=seen.failure)
            if seen is not None and seen.state is VersionState.READY and not _may_be(seen.digest, pinned):
                return Refusal(
                    version=self.version,
                    reason=FailureReason.DIGEST_CHANGED,
                    message=f"the pod holds {seen.digest}, but {pinned} was proven under this name",
                    pod=pod.name,
                )
        return None

    def find_delay(self, *, now: datetime) -> Refusal | None:
        """Refuse what takes too long, once every pod with traffic has had the time to say how far it is."""
        if now - self.started < self.deadline or any(pod.unheard for pod in self.pods):
            return None
        return Refusal(
            version=self.version,
            reason="DeadlineExceeded",
            message=f"not proven within {_spell(self.deadline)}: {self._who_is_missing()}",
        )

    def is_proven(self) -> bool:
        """Whether every pod that gets traffic has the version Ready under the flag store in force.

        Where no pod is ready, all that report must have it, and one must. Without pods nothing is proven.
        """
        if self.flags.first or not self.is_asked_for:
            return False
        witnesses = [pod for pod in self.pods if pod.ready] or [pod for pod in self.pods if pod.report]
        proofs = [pod.version(self.version, revision=self.flags.revision) for pod in witnesses]
        proven = all(seen is not None and seen.state is VersionState.READY for seen in proofs)
        bytes_proven = {seen.digest for seen in proofs if seen is not None and seen.digest}
        return bool(witnesses) and proven and len(bytes_proven) <= 1

    @property
    def is_asked_for(self) -> bool:
        """Whether pods have been told to hold it."""
        return self.version in self.flags.resident

    @property
    def must_wait(self) -> bool:
        """Whether pods that are about to go would be the ones to prove it.

        What the old pods' image makes of the version says nothing about the new one's.
        """
        return not self.is_asked_for and self.rolling and any(pod.ready for pod in self.pods)

    def ask(self, asked: FlagStore, *, now: datetime) -> FlagStore:
        """Let one pod prove it first, and when that one has it, all; ``asked`` has it among the residents.

        A version at hand everywhere skips this.
        """
        if not self.is_asked_for:
            # The same versions as in an attempt before would be the same revision: what pods said then
            # would pass for what they say now.
            return replace(asked, first=_scout(self.pods), attempt=name_attempt(self.version, now=now))
        if not self.flags.first:
            return replace(asked, first="")
        scout = next((pod for pod in self.pods if pod.name == self.flags.first), None)
        if scout is None:
            return replace(asked, first=_scout(self.pods))
        done = scout.holds(self.version, revision=self.flags.revision)
        return replace(asked, first="" if done else self.flags.first)

    @property
    def _pods_by_name(self) -> list[PodView]:
        return sorted(self.pods, key=lambda pod: pod.name)

    def _who_is_missing(self) -> str:
        if not self.pods:
            return "there is no pod to prove it"
        if not self.is_asked_for:
            return "pods are still being replaced"
        for pod in self._pods_by_name:
            seen = pod.version(self.version, revision=self.flags.revision)
            if seen is None:
                return f"pod {pod.name} does not report on it"
            if seen.state is not VersionState.READY:
                return f"pod {pod.name} is {seen.state}{': ' + seen.message if seen.message else ''}"
        return "the other pods have not begun"


def name_attempt(version: str, *, now: datetime) -> str:
    """Name an attempt so that the same version asked for again is another one."""
    return f"{version}@{now:%Y%m%dT%H%M%S.%f}"


def list_residents(*versions: str) -> tuple[str, ...]:
    """Return the versions that pods should hold, in order, those that are empty left out."""
    return tuple(sorted({version for version in versions if version}))


def pin_digests(flags: FlagStore, pods: Sequence[PodView], *, observed: FlagStore) -> FlagStore:
    """Pin the bytes of each resident version as the first pod that proved them saw them."""
    digests = {version: flags.digests[version] for version in flags.resident if version in flags.digests}
    for pod in sorted(pods, key=lambda pod: pod.name):
        for version in flags.resident:
            seen = pod.version(version, revision=observed.revision)
            if seen is not None and seen.state is VersionState.READY and seen.digest:
                digests.setdefault(version, seen.digest)
    return replace(flags, digests=MappingProxyType(digests))


def _scout(pods: Sequence[PodView]) -> str:
    """Choose the pod that prepares alone; nobody goes alone where there is only one."""
    candidates = sorted(pod.name for pod in pods if pod.ready and pod.report is not None)
    return candidates[0] if len(pods) > 1 and candidates else ""


def _may_be(digest: str, pinned: str) -> bool:
    """Tell whether bytes are the pinned ones, as far as is known of either."""
    return not digest or not pinned or digest == pinned


def _spell(duration: timedelta) -> str:
    minutes, seconds = divmod(int(duration.total_seconds()), 60)
    return f"{minutes}m{seconds}s" if seconds else f"{minutes}m"
