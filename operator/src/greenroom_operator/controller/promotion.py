"""The alias flip: prepared everywhere, then switched.

Pure decisions. Production is the last ``spec.version`` that passed its proof; nothing here ever names
another one. The whole state is the flag store, which pods obey, and the promotion in status; either
may be a write ahead of the other after a crash, and the next pass goes on from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from greenroom_operator.api.modeldeployment import PromotionState
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

    @property
    def unheard(self) -> bool:
        """Whether it gets traffic and has not had the time to say anything, as when the operator starts."""
        return self.ready and self.report is None and not self.silent

    def version(self, version: str, *, revision: str) -> VersionReport | None:
        """Return what it says of a version, provided that it obeys this revision of the flag store."""
        if self.report is None or self.report.revision != revision:
            return None
        return self.report.version(version)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a version did not become production."""

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
class Promotion:
    """One attempt to make a version production."""

    version: str
    state: PromotionState
    started: datetime
    refusal: Refusal | None = None
    """Set when it was refused in this very pass."""


@dataclass(frozen=True, kw_only=True)
class PromotionInput:
    """Everything that the decision rests on."""

    target: str
    """``spec.version``."""
    flags: FlagStore | None
    """The flag store as it lies in the cluster; None where there is none."""
    promotion: Promotion | None
    """The promotion in status."""
    proven: str = ""
    """``status.version``: what to fall back to when the flag store is gone."""
    pods: Sequence[PodView] = ()
    wanted: int = 1
    """``spec.replicas``: how many pods there should be."""
    rolling: bool = False
    """Whether pods are being, or are about to be, replaced by such of another template."""
    deadline: timedelta = timedelta(minutes=10)
    retry: bool = False
    """A person asked to try a refused version again."""
    pins: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Digests pinned in status, for a flag store that has to be made anew."""


@dataclass(frozen=True, kw_only=True)
class PromotionPlan:
    """What the flag store and the promotion in status should be."""

    flags: FlagStore
    promotion: Promotion | None

    @property
    def active(self) -> bool:
        """Whether pods are expected to change what they hold or serve."""
        return self.promotion is not None and self.promotion.state in (
            PromotionState.PREPARING,
            PromotionState.COMMITTING,
        )


def plan_promotion(world: PromotionInput, *, now: datetime) -> PromotionPlan:
    """Decide the next flag store and promotion; the same world gives the same plan."""
    if world.flags is None:
        return _begin(world)
    if world.flags.production == world.target:
        plan = _settle(world, _try_again(world, world.flags, now=now) if world.retry else world.flags)
    else:
        plan = _advance(world, world.flags, _current(world, now=now), now=now)
    return replace(plan, flags=_pin_digests(plan.flags, world.pods, observed=world.flags))


def _begin(world: PromotionInput) -> PromotionPlan:
    """Make the first flag store: what was proven before it was lost, or what Git says."""
    production = world.proven or world.target
    digests = {version: digest for version, digest in world.pins.items() if version == production}
    flags = FlagStore(production=production, resident=(production,), digests=MappingProxyType(digests))
    return PromotionPlan(flags=flags, promotion=world.promotion)


def _current(world: PromotionInput, *, now: datetime) -> Promotion:
    """Return the attempt under way, or begin one where the target changed or a person asks again."""
    promotion = world.promotion
    fresh_start = (
        promotion is None
        or promotion.version != world.target
        or promotion.state is PromotionState.COMPLETE
        or (promotion.state is PromotionState.REFUSED and world.retry)
    )
    if fresh_start or promotion is None:
        return Promotion(version=world.target, state=PromotionState.PREPARING, started=now)
    return promotion


def _settle(world: PromotionInput, flags: FlagStore) -> PromotionPlan:
    """Production is what Git says: keep the previous version at hand and see every pod switch."""
    promotion = world.promotion
    if promotion is not None and promotion.version != world.target:
        promotion = None  # Git took the attempt back
    if promotion is not None and promotion.state is PromotionState.REFUSED:
        promotion = None  # it was committed by an earlier pass, whose status was lost
    if promotion is not None and promotion.state is not PromotionState.COMPLETE:
        serving = [_serves(pod, flags) for pod in world.pods if pod.ready]
        switched = all(serving) if serving else not world.pods
        state = PromotionState.COMPLETE if switched else PromotionState.COMMITTING
        promotion = replace(promotion, state=state)
    settled = replace(flags, resident=_resident(flags.production, flags.previous), first="")
    return PromotionPlan(flags=settled, promotion=promotion)


def _advance(
    world: PromotionInput, flags: FlagStore, promotion: Promotion, *, now: datetime
) -> PromotionPlan:
    """Git asks for another production than the pods have."""
    if promotion.state is PromotionState.REFUSED:
        return PromotionPlan(flags=_without(flags, world.target), promotion=promotion)
    failure = _find_failure(world, flags)
    if failure is None and _proven_everywhere(world, flags):
        return PromotionPlan(
            flags=_commit(world, flags), promotion=replace(promotion, state=PromotionState.COMMITTING)
        )
    # What is proven late is proven: it may have been the operator that was away.
    if refusal := failure or _find_delay(world, flags, promotion, now=now):
        refused = replace(promotion, state=PromotionState.REFUSED, refusal=refusal)
        return PromotionPlan(flags=_without(flags, world.target), promotion=refused)
    preparing = replace(promotion, state=PromotionState.PREPARING)
    return PromotionPlan(flags=_prepare(world, flags, now=now), promotion=preparing)


def _find_failure(world: PromotionInput, flags: FlagStore) -> Refusal | None:
    """Return why a pod cannot hold the target, as it says under the flag store in force."""
    pinned = flags.digests.get(world.target, "")
    for pod in sorted(world.pods, key=lambda pod: pod.name):
        seen = pod.version(world.target, revision=flags.revision)
        if seen is not None and seen.state is VersionState.FAILED and seen.failure is not None:
            return Refusal.by_pod(pod.name, version=world.target, failure=seen.failure)
        if seen is not None and seen.state is VersionState.READY and not _may_be(seen.digest, pinned):
            return Refusal(
                version=world.target,
                reason=FailureReason.DIGEST_CHANGED,
                message=f"the pod holds {seen.digest}, but {pinned} was proven under this name",
                pod=pod.name,
            )
    return None


def _find_delay(
    world: PromotionInput, flags: FlagStore, promotion: Promotion, *, now: datetime
) -> Refusal | None:
    """Refuse what takes too long, once every pod that gets traffic has had the time to say how far it is."""
    if now - promotion.started < world.deadline or any(pod.unheard for pod in world.pods):
        return None
    return Refusal(
        version=world.target,
        reason="DeadlineExceeded",
        message=f"not proven within {_spell(world.deadline)}: {_who_is_missing(world, flags)}",
    )


def _who_is_missing(world: PromotionInput, flags: FlagStore) -> str:
    if not world.pods:
        return "there is no pod to prove it"
    if world.target not in flags.resident:
        return "pods are still being replaced"
    for pod in sorted(world.pods, key=lambda pod: pod.name):
        seen = pod.version(world.target, revision=flags.revision)
        if seen is None:
            return f"pod {pod.name} does not report on it"
        if seen.state is not VersionState.READY:
            return f"pod {pod.name} is {seen.state}{': ' + seen.message if seen.message else ''}"
    return "the other pods have not begun"


def _proven_everywhere(world: PromotionInput, flags: FlagStore) -> bool:
    """Whether every pod that gets traffic has the target Ready under the flag store in force.

    Where no pod is ready, all that report must have it, and one must. Where no pods are wanted, or none has
    ever served, it is taken unproven, and proven when the next pod starts. Pods that are only just gone
    come back in a moment, and must find what is proven.
    """
    if not world.pods:
        return world.wanted == 0 or not world.proven
    if flags.first or world.target not in flags.resident:
        return False
    witnesses = [pod for pod in world.pods if pod.ready] or [pod for pod in world.pods if pod.report]
    proofs = [pod.version(world.target, revision=flags.revision) for pod in witnesses]
    proven = all(seen is not None and seen.state is VersionState.READY for seen in proofs)
    bytes_proven = {seen.digest for seen in proofs if seen is not None and seen.digest}
    return bool(witnesses) and proven and len(bytes_proven) <= 1


def _commit(world: PromotionInput, flags: FlagStore) -> FlagStore:
    """Flip the alias; the old production stays at hand unless no pod could ever serve it."""
    old = flags.production
    worth_keeping = not world.pods or any(_is_ready(pod, old, flags) for pod in world.pods)
    previous = old if worth_keeping else ""
    return replace(
        flags,
        production=world.target,
        previous=previous,
        resident=_resident(world.target, previous),
        first="",
    )


def _prepare(world: PromotionInput, flags: FlagStore, *, now: datetime) -> FlagStore:
    """One pod proves it first; when that one has it, all do. A version at hand everywhere skips this."""
    resident = _resident(flags.production, world.target)
    previous = flags.previous if flags.previous in resident else ""
    asked = replace(flags, resident=resident, previous=previous)
    if world.target not in flags.resident and world.rolling and any(pod.ready for pod in world.pods):
        return flags  # what the old pods' image makes of the version says nothing about the new one's
    if world.target not in flags.resident:
        # The same versions as in an attempt before would be the same revision: what pods said then
        # would pass for what they say now.
        return replace(asked, first=_scout(world.pods), attempt=_name_attempt(world.target, now=now))
    if not flags.first:
        return asked
    scout = next((pod for pod in world.pods if pod.name == flags.first), None)
    if scout is None:
        return replace(asked, first=_scout(world.pods))
    return replace(asked, first="" if _is_ready(scout, world.target, flags) else flags.first)


def _try_again(world: PromotionInput, flags: FlagStore, *, now: datetime) -> FlagStore:
    """Give production another chance on pods where it failed, and other bytes where it serves nobody."""
    attempt = _name_attempt(world.target, now=now)
    if any(pod.ready for pod in world.pods):
        return replace(flags, attempt=attempt)
    digests = {version: pin for version, pin in flags.digests.items() if version != world.target}
    return replace(flags, attempt=attempt, digests=MappingProxyType(digests))


def _name_attempt(version: str, *, now: datetime) -> str:
    return f"{version}@{now:%Y%m%dT%H%M%S.%f}"


def _scout(pods: Sequence[PodView]) -> str:
    """Choose the pod that prepares alone; nobody goes alone where there is only one."""
    candidates = sorted(pod.name for pod in pods if pod.ready and pod.report is not None)
    return candidates[0] if len(pods) > 1 and candidates else ""


def _without(flags: FlagStore, version: str) -> FlagStore:
    previous = flags.previous if flags.previous != version else ""
    return replace(flags, resident=_resident(flags.production, previous), previous=previous, first="")


def _pin_digests(flags: FlagStore, pods: Sequence[PodView], *, observed: FlagStore) -> FlagStore:
    """Pin the bytes of each resident version as the first pod that proved them saw them."""
    digests = {version: flags.digests[version] for version in flags.resident if version in flags.digests}
    for pod in sorted(pods, key=lambda pod: pod.name):
        for version in flags.resident:
            seen = pod.version(version, revision=observed.revision)
            if seen is not None and seen.state is VersionState.READY and seen.digest:
                digests.setdefault(version, seen.digest)
    return replace(flags, digests=MappingProxyType(digests))


def _resident(*versions: str) -> tuple[str, ...]:
    return tuple(sorted({version for version in versions if version}))


def _is_ready(pod: PodView, version: str, flags: FlagStore) -> bool:
    seen = pod.version(version, revision=flags.revision)
    return seen is not None and seen.state is VersionState.READY


def _may_be(digest: str, pinned: str) -> bool:
    """Tell whether bytes are the pinned ones, as far as is known of either."""
    return not digest or not pinned or digest == pinned


def _serves(pod: PodView, flags: FlagStore) -> bool:
    report = pod.report
    return report is not None and report.revision == flags.revision and report.production == flags.production


def _spell(duration: timedelta) -> str:
    minutes, seconds = divmod(int(duration.total_seconds()), 60)
    return f"{minutes}m{seconds}s" if seconds else f"{minutes}m"
