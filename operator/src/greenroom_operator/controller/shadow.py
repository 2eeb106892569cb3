"""A shadow: a version that is asked what production is asked, and whose answers nobody gets.

Pure decisions. Which bytes are compared, under which epoch, and a verdict of the gate stand in status, and
are written there before anything is done about them; the flag store follows from status and spec.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from greenroom_operator.api.rollout import Rollout as RolloutSpec
from greenroom_operator.api.shadow import Shadow as ShadowSpec
from greenroom_operator.api.shadow import ShadowGate, ShadowSuccess
from greenroom_operator.api.times import format_timestamp, parse_duration
from greenroom_operator.controller.actions import Action, Verb
from greenroom_operator.controller.gate import Outcome
from greenroom_operator.controller.preparation import name_attempt
from greenroom_operator.controller.promotion import PromotionInput
from greenroom_operator.controller.rollout import to_hundredths
from greenroom_operator.controller.shadow_counts import Counted, ShadowView
from greenroom_operator.controller.shadow_gate import ShadowEvidence, ShadowPolicy, gather, judge
from greenroom_runtime.contract.canonical import content_hash
from greenroom_runtime.contract.flags import FlagStore
from greenroom_runtime.contract.report import VersionState
from greenroom_runtime.contract.shadow import ProcessReport, ShadowTrials
from greenroom_runtime.contract.shadow_flag import MAX_SEGMENTS, Shadow

LATCHED: Final = (Outcome.PASS, Outcome.FAIL)
"""What stays the verdict for as long as the same is compared."""


@dataclass(frozen=True, kw_only=True)
class ShadowProgress:
    """How far the shadow of one version is: what status remembers."""

    version: str
    over: bool = False
    """It is production, so that there is nothing to compare."""
    digest: str = ""
    """The pinned ``sha256:…`` of its ``bundle.json``; empty until a shadow has proven it."""
    epoch: str = ""
    """Names what is compared; empty before anything is."""
    begun: datetime | None = None
    """When that began; None before, and where it is not known any more."""
    attempt: str = ""
    """Names the newest action retry that it was begun anew for."""
    counted: Counted = field(default_factory=Counted)
    evidence: ShadowEvidence | None = None
    verdict: Outcome = Outcome.INCONCLUSIVE
    message: str = ""
    """Why the verdict is what it is."""
    halted: bool = False
    """Nothing is compared before pods have been replaced, or shadows have let go of the version."""

    @property
    def decision(self) -> tuple[object, ...]:
        """What is written to status before anything is done about it."""
        latched = self.verdict if self.verdict in LATCHED else None
        return (self.version, self.over, self.digest, self.epoch, self.attempt, latched)

    @property
    def compares(self) -> bool:
        """Whether requests are mirrored for it."""
        return bool(self.epoch) and not self.over and not self.halted

    @property
    def is_judged(self) -> bool:
        """Whether the gate is done with it."""
        return self.over or self.verdict in LATCHED


@dataclass(frozen=True, kw_only=True)
class ShadowInput:
    """What is asked for, what is remembered, and what shadows tell."""

    spec: ShadowSpec
    progress: ShadowProgress | None
    salt: str
    """``namespace/name`` of the ModelDeployment."""
    views: Sequence[ShadowView] = ()
    segments: Sequence[tuple[str, str]] = ()
    """Attributes and values whose requests are counted apart."""
    rolling: bool = False
    """Whether pods that a shadow is in are being replaced, or are about to be."""
    action: Action | None = None
    """What a person asks for the first time."""


def list_segments(rollout: RolloutSpec | None) -> tuple[tuple[str, str], ...]:
    """Return what the rules of a rollout name, in their order and each once, as far as they are counted."""
    rules = rollout.rules if rollout is not None else ()
    named = dict.fromkeys((rule.attribute, value) for rule in rules for value in rule.values)
    return tuple(named)[:MAX_SEGMENTS]


def plan_shadow(
    world: PromotionInput, wanted: ShadowInput, base: FlagStore, *, now: datetime
) -> ShadowProgress:
    """Decide what is compared, and what it has come to; ``base`` has the production that is decided."""
    version = wanted.spec.version
    if base.production == version:
        return ShadowProgress(version=version, over=True)
    flags = world.flags or base
    progress = _pin(_current(wanted, flags), wanted.views, flags)
    compared = _name_compared(wanted, progress, flags, production=base.production)
    counted = progress.counted.observe(wanted.views, epoch=progress.epoch, mirrors=_hear_mirrors(world))
    if progress.epoch.endswith(f"#{compared}"):
        return _judge(replace(progress, counted=counted), wanted, now=now)
    tried_again = bool(progress.attempt) and not progress.epoch
    # With another tolerance, say, old pods would count what new ones do not. What is tried again must have
    # been let go of: a shadow loads no version that it has, and none that has failed.
    if wanted.rolling or (tried_again and _is_held(version, wanted.views)):
        return replace(progress, counted=counted, halted=True)
    epoch = f"{name_attempt(version, now=now)}#{compared}"
    fresh = ShadowProgress(
        version=version,
        digest=progress.digest,
        epoch=epoch,
        begun=now.replace(microsecond=0),  # as exactly as status remembers it
        attempt=progress.attempt,
        counted=counted.begin(),
    )
    return _judge(fresh, wanted, now=now)


def _current(wanted: ShadowInput, flags: FlagStore) -> ShadowProgress:
    """Return the shadow under way, or begin one: for another version, or where a person asks again."""
    version, known, told = wanted.spec.version, wanted.progress, flags.shadow
    if known is None or known.over or known.version != version:
        counted = known.counted.begin() if known is not None else Counted()
        if known is None and told is not None and told.version == version:
            # Status was lost: what shadows count is kept.
            known = ShadowProgress(
                version=version, digest=flags.digests.get(version, ""), epoch=told.epoch, counted=counted
            )
        else:
            known = ShadowProgress(version=version, counted=counted)
    action = wanted.action
    if action is None or not action.asks(Verb.RETRY, version):
        return known
    attempt = content_hash(action.text, length=8)
    if known.attempt == attempt:
        return known
    return ShadowProgress(version=version, attempt=attempt, counted=known.counted.begin())


def _is_held(version: str, views: Sequence[ShadowView]) -> bool:
    """Whether a shadow that lives has not let go of the version yet, or has not been heard."""
    present = [view for view in views if not view.gone]
    reports = [view.report for view in present if view.report and view.report.running]
    held = [report.process.version for report in reports if report.process]
    unheard = any(view.unheard for view in present)
    return unheard or any(one is not None and one.name == version for one in held)


def _pin(progress: ShadowProgress, views: Sequence[ShadowView], flags: FlagStore) -> ShadowProgress:
    """Pin the bytes: those that pods hold for users under this name, or what the first shadow has proven."""
    version = progress.version
    held = flags.digests.get(version, "") if version in flags.resident else ""
    if held or progress.digest:
        return replace(progress, digest=held or progress.digest)
    for view in sorted(views, key=lambda view: view.pod):
        process = view.report.process if view.report else None
        if process is not None and holds(process, version=version, epoch=progress.epoch) and process.version:
            return replace(progress, digest=process.version.digest)
    return progress


def holds(process: ProcessReport, *, version: str, epoch: str) -> bool:
    """Tell whether a shadow process has proven the version, as it says under this epoch."""
    seen = process.version
    ready = seen is not None and seen.name == version and seen.state is VersionState.READY
    return ready and bool(epoch) and process.epoch == epoch


def _name_compared(
    wanted: ShadowInput, progress: ShadowProgress, flags: FlagStore, *, production: str
) -> str:
    spec = wanted.spec
    return content_hash(
        {
            "digest": progress.digest,
            "production": production,
            "production_digest": flags.digests.get(production, ""),
            "tolerance": float(spec.tolerance),
            "latency": float(spec.gate.max_latency_ratio),
            "segments": [list(segment) for segment in wanted.segments],
            "attempt": progress.attempt,
            "version": progress.version,
        },
        length=8,
    )


def _hear_mirrors(world: PromotionInput) -> dict[str, int | None]:
    told = {pod.name: pod.report.mirror if pod.report else None for pod in world.pods}
    return {pod: mirror.dropped if mirror else None for pod, mirror in told.items()}


def _judge(progress: ShadowProgress, wanted: ShadowInput, *, now: datetime) -> ShadowProgress:
    """Ask the gate, until it has decided; what it says before its time is no verdict yet."""
    begun = progress.begun or now.replace(microsecond=0)
    progress = replace(progress, halted=False, begun=begun)
    if progress.verdict in LATCHED:
        return progress
    evidence = gather(
        progress.evidence,
        epoch=progress.epoch,
        trials=_list_trials(progress, wanted.views),
        crashes=progress.counted.crashes,
        requests=progress.counted.total.compared,
    )
    verdict = judge(evidence, to_policy(wanted.spec.gate))
    outcome, message = verdict.outcome, verdict.message
    decides = begun + parse_duration(wanted.spec.gate.min_duration)
    if outcome in LATCHED and now < decides:
        outcome = Outcome.INCONCLUSIVE
        message = f"no verdict before {format_timestamp(decides)}, by gate.minDuration; {message}"
    return replace(progress, evidence=evidence, verdict=outcome, message=message)


def _list_trials(progress: ShadowProgress, views: Sequence[ShadowView]) -> list[ShadowTrials]:
    """Return what shadows tell, always in the same order: a bucket counts by the first that has it."""
    processes = [view.report.process for view in sorted(views, key=lambda view: view.uid) if view.report]
    return [process.trials for process in processes if process and process.epoch == progress.epoch]


def to_policy(gate: ShadowGate) -> ShadowPolicy:
    """Return what the gate in spec asks for."""
    return ShadowPolicy(
        min_requests=gate.min_requests,
        max_disagreement_percent=float(gate.max_disagreement_percent),
        max_error_percent=float(gate.max_error_percent),
        max_latency_ratio=float(gate.max_latency_ratio),
    )


def tell_hold(
    wanted: ShadowInput | None,
    planned: ShadowProgress | None,
    rollout: RolloutSpec | None,
    *,
    promoting: bool,
) -> str:
    """Return why a rollout may not begin yet, empty where no shadow holds it.

    A verdict counts once it is in status, and no more where something else is compared since, or is about to
    be, as while production changes.
    """
    if wanted is None or planned is None or rollout is None or planned.over:
        return ""
    if wanted.spec.on_success is not ShadowSuccess.ROLLOUT or wanted.spec.version != rollout.version:
        return ""
    known = wanted.progress
    decided = known is not None and known.epoch == planned.epoch and planned.compares
    if known is not None and decided and known.verdict is Outcome.PASS and not promoting:
        return ""
    if known is not None and decided and known.verdict is Outcome.FAIL:
        return f"its shadow has failed: {known.message}"
    return "it begins once its shadow has passed"


def mirror_requests(
    flags: FlagStore,
    planned: ShadowProgress | None,
    wanted: ShadowInput | None,
    *,
    observed: FlagStore | None,
) -> FlagStore:
    """Return the flag store with the shadow in it, and its pin.

    FlagDocumentError where the spec asks for something that no flag store can say.
    """
    if wanted is None or planned is None or planned.over:
        return replace(flags, shadow=None)
    if not planned.compares:
        return replace(_pin_shadow(flags, planned, observed=observed), shadow=None)
    shadow = Shadow(
        version=planned.version,
        hundredths=to_hundredths(wanted.spec.percent),
        salt=wanted.salt,
        epoch=planned.epoch,
        latency_ratio=float(wanted.spec.gate.max_latency_ratio),
        segments=tuple(wanted.segments),
    )
    return replace(_pin_shadow(flags, planned, observed=observed), shadow=shadow)


def _pin_shadow(flags: FlagStore, planned: ShadowProgress, *, observed: FlagStore | None) -> FlagStore:
    """Pin the shadow's bytes, unless pods hold the version for users: then theirs are the ones."""
    version = planned.version
    digests = dict(flags.digests)
    if observed is None or version not in observed.resident:
        digests.pop(version, None)
    if planned.digest:
        digests.setdefault(version, planned.digest)
    return replace(flags, digests=MappingProxyType(digests))
