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
from greenroom_operator.controller.preparation import (
    PodView,
    Preparation,
    Refusal,
    list_residents,
    name_attempt,
    pin_digests,
)
from greenroom_runtime.contract.flags import FlagStore


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One attempt to make a version production."""

    version: str
    state: PromotionState
    started: datetime
    refusal: Refusal | None = None
    """Set when it was refused in this very pass."""

    @property
    def active(self) -> bool:
        """Whether pods are expected to change what they hold or serve for it."""
        return self.state in (PromotionState.PREPARING, PromotionState.COMMITTING)


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
        return self.promotion is not None and self.promotion.active


def plan_promotion(world: PromotionInput, *, now: datetime) -> PromotionPlan:
    """Decide the next flag store and promotion; the same world gives the same plan."""
    if world.flags is None:
        return _begin(world)
    if world.flags.production == world.target:
        plan = _settle(world, _try_again(world, world.flags, now=now) if world.retry else world.flags)
    else:
        plan = _advance(world, world.flags, _current(world, now=now), now=now)
    return replace(plan, flags=pin_digests(plan.flags, world.pods, observed=world.flags))


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
    resident = list_residents(flags.production, flags.previous)
    settled = replace(flags, resident=resident, first="", rollout=None, shadow=None)
    return PromotionPlan(flags=settled, promotion=promotion)


def _advance(
    world: PromotionInput, flags: FlagStore, promotion: Promotion, *, now: datetime
) -> PromotionPlan:
    """Git asks for another production than the pods have."""
    if promotion.state is PromotionState.REFUSED:
        return PromotionPlan(flags=_without(flags, world.target), promotion=promotion)
    preparation = Preparation(
        version=world.target,
        flags=flags,
        pods=world.pods,
        rolling=world.rolling,
        started=promotion.started,
        deadline=world.deadline,
    )
    failure = preparation.find_failure()
    if failure is None and _may_commit(world, preparation):
        return PromotionPlan(
            flags=_commit(world, flags), promotion=replace(promotion, state=PromotionState.COMMITTING)
        )
    # What is proven late is proven: it may have been the operator that was away.
    if refusal := failure or preparation.find_delay(now=now):
        refused = replace(promotion, state=PromotionState.REFUSED, refusal=refusal)
        return PromotionPlan(flags=_without(flags, world.target), promotion=refused)
    preparing = replace(promotion, state=PromotionState.PREPARING)
    return PromotionPlan(flags=_prepare(preparation, now=now), promotion=preparing)


def _may_commit(world: PromotionInput, preparation: Preparation) -> bool:
    """Whether the target may become production: it is proven, or there is nobody to prove it.

    Where no pods are wanted, or none has ever served, it is taken unproven, and proven when the next pod
    starts. Pods that are only just gone come back in a moment, and must find what is proven.
    """
    if not world.pods:
        return world.wanted == 0 or not world.proven
    return preparation.is_proven()


def _commit(world: PromotionInput, flags: FlagStore) -> FlagStore:
    """Flip the alias; the old production stays at hand unless no pod could ever serve it."""
    old = flags.production
    worth_keeping = not world.pods or any(pod.holds(old, revision=flags.revision) for pod in world.pods)
    previous = old if worth_keeping else ""
    return replace(
        flags,
        production=world.target,
        previous=previous,
        resident=list_residents(world.target, previous),
        first="",
        rollout=None,
        shadow=None,
    )


def _prepare(preparation: Preparation, *, now: datetime) -> FlagStore:
    """Ask for the target beside production; the version before makes room for it."""
    flags = preparation.flags
    if preparation.must_wait:
        return replace(flags, rollout=None, shadow=None)
    resident = list_residents(flags.production, preparation.version)
    previous = flags.previous if flags.previous in resident else ""
    asked = replace(flags, resident=resident, previous=previous, rollout=None, shadow=None)
    return preparation.ask(asked, now=now)


def _try_again(world: PromotionInput, flags: FlagStore, *, now: datetime) -> FlagStore:
    """Give production another chance on pods where it failed, and other bytes where it serves nobody."""
    attempt = name_attempt(world.target, now=now)
    if any(pod.ready for pod in world.pods):
        return replace(flags, attempt=attempt)
    digests = {version: pin for version, pin in flags.digests.items() if version != world.target}
    return replace(flags, attempt=attempt, digests=MappingProxyType(digests))


def _without(flags: FlagStore, version: str) -> FlagStore:
    previous = flags.previous if flags.previous != version else ""
    resident = list_residents(flags.production, previous)
    return replace(flags, resident=resident, previous=previous, first="", rollout=None, shadow=None)


def _serves(pod: PodView, flags: FlagStore) -> bool:
    report = pod.report
    return report is not None and report.revision == flags.revision and report.production == flags.production
