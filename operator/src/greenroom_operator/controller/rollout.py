"""A rollout: some users are served another version, a share that rises step by step and falls to 0 at once.

Pure decisions. What has been decided stands in status, and is written there before anything is done about it;
the flag store follows from status and spec. So an operator that dies between the two writes loses nothing,
and an abort is never taken back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from greenroom_operator.api.rollout import Rollout as RolloutSpec
from greenroom_operator.api.rollout import RolloutGate, RolloutState, RolloutStep
from greenroom_operator.api.times import parse_duration
from greenroom_operator.controller.actions import Action, Verb
from greenroom_operator.controller.gate import Evidence, GatePolicy, GateVerdict, Outcome, judge
from greenroom_operator.controller.preparation import (
    PodView,
    Preparation,
    Refusal,
    list_residents,
    name_attempt,
    pin_digests,
)
from greenroom_operator.controller.promotion import PromotionInput, PromotionPlan
from greenroom_runtime.contract.canonical import content_hash
from greenroom_runtime.contract.flags import WHOLE, FlagStore, Rollout, Rule
from greenroom_runtime.contract.report import VersionState

FRESH: Final = timedelta(seconds=90)
"""A longer time between two looks is one in which nobody watched: it is not held time."""
GATE_FAILED: Final = "GateFailed"
BY_PERSON: Final = "Requested"
ENDED: Final = (RolloutState.PROMOTED, RolloutState.ABORTED, RolloutState.REFUSED)
_PATIENCE_FACTOR: Final = 3
_PATIENCE: Final = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the rollout of one version is: what status remembers."""

    version: str
    state: RolloutState
    started: datetime
    """When it was asked for; while it waits for its turn, now."""
    digest: str = ""
    begun: datetime | None = None
    """When users were first routed; None before."""
    hundredths: int = 0
    """The share in hundredths of a percent."""
    held: timedelta = timedelta(0)
    """How long this share has been held under evidence."""
    observed: datetime | None = None
    """Until when that is counted."""
    paused: bool = False
    """A person paused it by an action."""
    evidence: Evidence | None = None
    """None where no gate watches."""
    verdict: GateVerdict | None = None
    """The gate's, of this very pass."""
    crashed: datetime | None = None
    """The newest crash that is counted."""
    reason: str = ""
    """Why it was aborted or refused, in one word."""
    message: str = ""
    refusal: Refusal | None = None
    """Set when it was refused or failed its gate in this very pass."""

    @property
    def decision(self) -> tuple[object, ...]:
        """What is written to status before anything is done about it."""
        epoch = self.evidence.epoch if self.evidence else ""
        return (self.version, self.state, self.hundredths, self.begun, self.paused, self.reason, epoch)

    @property
    def is_over(self) -> bool:
        """Whether it routes nobody, and does not begin again by itself."""
        return self.state in ENDED


@dataclass(frozen=True, kw_only=True)
class RolloutInput:
    """What is asked for, and what is remembered."""

    spec: RolloutSpec | None
    progress: Progress | None
    salt: str
    """``namespace/name`` of the ModelDeployment."""
    action: Action | None = None
    """What a person asks for the first time, provided that it means something."""
    held: str = ""
    """Why it may not begin yet; empty where no shadow holds it."""


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """What the flag store and the rollout in status should be."""

    flags: FlagStore
    progress: Progress | None


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """One pass's ground: what both inputs say, for a rollout that is asked for."""

    world: PromotionInput
    promoted: PromotionPlan
    spec: RolloutSpec
    salt: str
    action: Action | None
    held: str
    now: datetime

    @property
    def second(self) -> datetime:
        """Now, as exactly as status remembers it."""
        return self.now.replace(microsecond=0)

    @property
    def base(self) -> FlagStore:
        """What the flag store would be without a rollout."""
        return self.promoted.flags

    @property
    def observed(self) -> FlagStore:
        """The flag store in force."""
        return self.world.flags or self.base

    @property
    def asks_step(self) -> bool:
        """Whether a person asks for the next step now, whatever holds it."""
        return self.spec.steps is not None and self.asks(Verb.PROMOTE_STEP)

    def asks(self, verb: Verb) -> bool:
        return self.action is not None and self.action.asks(verb, self.spec.version)


def plan_rollout(
    world: PromotionInput, wanted: RolloutInput, promoted: PromotionPlan, *, now: datetime
) -> RolloutPlan:
    """Decide who is routed where, beside a production that is decided already.

    FlagDocumentError where the spec asks for something that no flag store can say.
    """
    if wanted.spec is None:
        return RolloutPlan(flags=promoted.flags, progress=None)
    scene = _Scene(
        world=world,
        promoted=promoted,
        spec=wanted.spec,
        salt=wanted.salt,
        action=wanted.action,
        held=wanted.held,
        now=now,
    )
    progress = _current(scene, wanted.progress)
    if progress is None:
        return RolloutPlan(flags=scene.base, progress=None)
    progress = _heed_person(scene, progress)
    if scene.observed.production == progress.version:
        progress = _end(progress, RolloutState.PROMOTED)
    if progress.is_over:
        return RolloutPlan(flags=scene.base, progress=progress)
    if _waits_for_shadow(scene, progress):
        return RolloutPlan(flags=scene.base, progress=replace(progress, message=scene.held))
    if progress.state is RolloutState.WAITING_FOR_SHADOW:
        progress = replace(progress, state=RolloutState.PREPARING, started=scene.second)
    routes = progress.begun is not None
    plan = _route(scene, _proceed(scene, progress)) if routes else _prepare(scene, progress)
    pinned = pin_digests(plan.flags, world.pods, observed=scene.observed)
    return replace(plan, flags=pinned)


def _current(scene: _Scene, known: Progress | None) -> Progress | None:
    """Return the rollout under way, or begin one; None where its version is only being promoted."""
    version, routed = scene.spec.version, scene.observed.rollout
    if known is not None and known.version == version and not (known.is_over and scene.asks(Verb.RETRY)):
        return known
    state = RolloutState.WAITING_FOR_SHADOW if scene.held else RolloutState.PREPARING
    fresh = Progress(version=version, state=state, started=scene.second)
    if known is None and routed is not None and routed.version == version:
        # Status was lost, and users are routed: what they have is kept.
        state = RolloutState.COMPLETE if routed.hundredths == WHOLE else RolloutState.RUNNING
        return replace(fresh, state=state, begun=scene.second, hundredths=routed.hundredths)
    being_promoted = version == scene.world.target != scene.observed.production
    return None if being_promoted else fresh


def _waits_for_shadow(scene: _Scene, progress: Progress) -> bool:
    """Whether it must not even be proven yet. Once it has begun, no shadow holds it any more."""
    waits = progress.state is RolloutState.WAITING_FOR_SHADOW and bool(scene.held)
    return waits and not scene.asks(Verb.PROMOTE_STEP)


def _heed_person(scene: _Scene, progress: Progress) -> Progress:
    if progress.is_over:
        return progress
    if scene.asks(Verb.ABORT):
        return _end(progress, RolloutState.ABORTED, reason=BY_PERSON, message="aborted by an action")
    if scene.asks(Verb.PAUSE):
        return replace(progress, paused=True)
    if scene.asks(Verb.RESUME):
        return replace(progress, paused=False)
    return progress


def _end(progress: Progress, state: RolloutState, *, reason: str = "", message: str = "") -> Progress:
    if progress.state is state:
        return progress
    return replace(
        progress, state=state, hundredths=0, evidence=None, paused=False, reason=reason, message=message
    )


# Before anybody is routed


def _prepare(scene: _Scene, progress: Progress) -> RolloutPlan:
    """Have every pod prove the version beside production; production's own changes go first."""
    world = scene.world
    if scene.promoted.active or world.flags is None or not world.pods:
        waiting = replace(
            progress, state=RolloutState.PREPARING, started=scene.second, message=_tell_wait(scene)
        )
        return RolloutPlan(flags=scene.base, progress=waiting)
    preparation = Preparation(
        version=progress.version,
        flags=world.flags,
        pods=world.pods,
        rolling=world.rolling,
        started=progress.started,
        deadline=world.deadline,
    )
    failure = preparation.find_failure()
    if failure is None and preparation.is_proven():
        return _begin(scene, progress)
    if refusal := failure or preparation.find_delay(now=scene.now):
        refused = _end(progress, RolloutState.REFUSED, reason=refusal.reason, message=refusal.message)
        return RolloutPlan(flags=scene.base, progress=replace(refused, refusal=refusal))
    preparing = replace(progress, state=RolloutState.PREPARING, message=f"pods prove {progress.version}")
    if preparation.must_wait:
        waiting = replace(preparing, message="it is proven once pods have been replaced")
        return RolloutPlan(flags=scene.base, progress=waiting)
    return RolloutPlan(
        flags=preparation.ask(_with_resident(scene, progress.version), now=scene.now), progress=preparing
    )


def _tell_wait(scene: _Scene) -> str:
    if scene.promoted.active and scene.promoted.promotion is not None:
        return f"the promotion of {scene.promoted.promotion.version} goes first"
    return "there is no pod to prove it"


def _begin(scene: _Scene, progress: Progress) -> RolloutPlan:
    """Every pod has it: route the first users, unless it is paused and nobody asks for a step."""
    digest = scene.observed.digests.get(progress.version, "") or _find_digest(scene, progress.version)
    progress = replace(progress, digest=digest)
    if _is_paused(scene, progress) and not scene.asks_step:
        waiting = replace(
            progress, state=RolloutState.PAUSED, message="every pod has it; it begins once it is resumed"
        )
        return RolloutPlan(flags=_with_resident(scene, progress.version), progress=waiting)
    return _route(scene, _proceed(scene, replace(progress, begun=scene.second)))


def _find_digest(scene: _Scene, version: str) -> str:
    seen = [pod.version(version, revision=scene.observed.revision) for pod in scene.world.pods]
    return next((report.digest for report in seen if report is not None and report.digest), "")


# While users are routed


def _proceed(scene: _Scene, progress: Progress) -> Progress:
    """Take the next decision: stay, go on, or abort."""
    watched = _watch(scene, progress)
    if watched.verdict is not None and watched.verdict.outcome is Outcome.FAIL:
        return _fail(watched, watched.verdict)
    watched = _watch_anew(scene, replace(watched, hundredths=_choose_share(scene, watched)))
    return replace(watched, state=_name_state(scene, watched), message=_tell(scene, watched))


def _watch(scene: _Scene, progress: Progress) -> Progress:
    """Take in what pods have counted and how long the share was held since the last look."""
    gate = _gate(scene.spec)
    if progress.evidence is None or gate is None:
        return replace(progress, verdict=None)
    elapsed = scene.second - progress.observed if progress.observed else timedelta(0)
    counts = _has_converged(scene, progress) and timedelta(0) < elapsed <= FRESH
    held = progress.held + elapsed if counts else progress.held
    reports = [pod.report.evidence for pod in scene.world.pods if pod.report and pod.report.evidence]
    evidence = progress.evidence.observe(reports)
    crashes = _find_crashes(scene.world.pods, after=progress.crashed)
    if crashes:
        evidence = evidence.crash(len(crashes))
    verdict = judge(evidence, _policy(gate))
    return replace(
        progress,
        held=held,
        observed=scene.second,
        evidence=evidence,
        verdict=verdict,
        crashed=max(crashes, default=progress.crashed),
    )


def _watch_anew(scene: _Scene, progress: Progress) -> Progress:
    """Count anew where other users are compared, or with another version, than those counted so far."""
    gate = _gate(scene.spec)
    if gate is None or not 0 < progress.hundredths < WHOLE:
        return replace(progress, evidence=None, verdict=None, held=timedelta(0), observed=None)
    spec, production = scene.spec, scene.base.production
    compared = content_hash(
        {
            "share": progress.hundredths,
            "production": production,
            "key": spec.key,
            "errors": gate.max_error_ratio,
            "latency": gate.max_latency_ratio,
            "rules": [[rule.name, rule.attribute, *rule.values] for rule in spec.rules],
        },
        length=8,
    )
    before = progress.evidence
    if before is not None and before.epoch.endswith(f"#{compared}"):
        return progress
    epoch = f"{name_attempt(progress.version, now=scene.now)}#{compared}"
    evidence = Evidence.begin(epoch, version=progress.version, policy=_policy(gate), before=before)
    return replace(
        progress,
        evidence=evidence,
        verdict=judge(evidence, _policy(gate)),
        held=timedelta(0),
        observed=scene.second,
        crashed=progress.crashed or scene.second,
    )


def _fail(progress: Progress, verdict: GateVerdict) -> Progress:
    refusal = Refusal(version=progress.version, reason=GATE_FAILED, message=verdict.message)
    aborted = _end(progress, RolloutState.ABORTED, reason=GATE_FAILED, message=verdict.message)
    return replace(aborted, verdict=verdict, refusal=refusal)


def _choose_share(scene: _Scene, progress: Progress) -> int:
    """Return the share in hundredths of a percent that users should have now."""
    spec = scene.spec
    promoted = spec.version == scene.world.target
    if promoted and scene.promoted.active:
        return progress.hundredths  # which changes nothing for its users
    if spec.steps is not None:
        share, may_rise = _climb(scene, progress, spec.steps), not promoted
    else:
        share, may_rise = to_hundredths(spec.percent or 0), not (promoted or _is_paused(scene, progress))
    # What was refused as production is given to nobody more, and a person may take it from those who have it.
    return share if may_rise else min(share, progress.hundredths)


def _climb(scene: _Scene, progress: Progress, steps: Sequence[RolloutStep]) -> int:
    """Stay at the present step, or take the next; all users follow the last."""
    if progress.state is RolloutState.COMPLETE:
        return WHOLE
    shares = [to_hundredths(step.percent) for step in steps]
    at = find_step(scene.spec, progress.hundredths)
    if at is None:
        held = _is_paused(scene, progress) and not scene.asks_step
        return progress.hundredths if held else shares[0]
    edited = shares[at] != progress.hundredths
    if edited or not (scene.asks_step or _may_go_on(scene, progress, hold=steps[at].hold)):
        return shares[at]
    return [*shares, WHOLE][at + 1]


def find_step(spec: RolloutSpec, hundredths: int) -> int | None:
    """Return the zero-based step that a share is at: the last one not above it; None before the first.

    So a step that is inserted or edited never raises a share that has not been earned.
    """
    steps = spec.steps or ()
    return max(
        (at for at, step in enumerate(steps) if to_hundredths(step.percent) <= hundredths), default=None
    )


def _may_go_on(scene: _Scene, progress: Progress, *, hold: str) -> bool:
    return (
        not _is_paused(scene, progress)
        and not scene.promoted.active
        and _has_converged(scene, progress)
        and progress.held >= parse_duration(hold)
        and progress.verdict is not None
        and progress.verdict.outcome is Outcome.PASS
    )


def _is_paused(scene: _Scene, progress: Progress) -> bool:
    return scene.spec.paused or progress.paused


def _has_converged(scene: _Scene, progress: Progress) -> bool:
    """Whether every pod that gets traffic obeys this very share and has the version."""
    flags = scene.world.flags
    if flags is None or flags.rollout != _build_rollout(scene, progress) or not flags.rollout:
        return False
    serving = [pod for pod in scene.world.pods if pod.ready]
    return bool(serving) and all(pod.holds(progress.version, revision=flags.revision) for pod in serving)


def _name_state(scene: _Scene, progress: Progress) -> RolloutState:
    if progress.hundredths == WHOLE:
        return RolloutState.COMPLETE
    if _is_paused(scene, progress) or _waits_for_person(scene, progress):
        return RolloutState.PAUSED
    held = scene.spec.steps is not None and _has_converged(scene, progress)
    return RolloutState.HOLDING if held else RolloutState.RUNNING


def _waits_for_person(scene: _Scene, progress: Progress) -> bool:
    """Whether the gate could not decide long after the hold."""
    at = find_step(scene.spec, progress.hundredths)
    if scene.spec.steps is None or at is None or progress.verdict is None:
        return False
    hold = parse_duration(scene.spec.steps[at].hold)
    undecided = progress.verdict.outcome is Outcome.INCONCLUSIVE
    return undecided and progress.held >= hold * _PATIENCE_FACTOR + _PATIENCE


def _tell(scene: _Scene, progress: Progress) -> str:
    """Say what it waits for."""
    if progress.hundredths == WHOLE:
        return f"all users have it; to make it production set spec.version: {progress.version}"
    if failing := _find_failing(scene, progress):
        return failing
    told = []
    if scene.spec.paused:
        told.append("paused: spec.rollout.paused")
    elif progress.paused:
        told.append("paused by an action, until the action resume")
    at = find_step(scene.spec, progress.hundredths)
    if scene.spec.steps is not None and at is not None:
        hold = scene.spec.steps[at].hold
        over = progress.held >= parse_duration(hold)
        told.append(f"held for {hold}" + (", which is over" if over else ""))
    if progress.verdict is not None:
        told.append(f"gate: {progress.verdict.outcome}: {progress.verdict.message}")
    if _waits_for_person(scene, progress):
        told.append("it waits for a person: the actions promote-step or abort, or more users to compare")
    return "; ".join(told)


def _find_failing(scene: _Scene, progress: Progress) -> str:
    """Say which pod cannot serve the version: its users get production there."""
    for pod in sorted(scene.world.pods, key=lambda pod: pod.name):
        seen = pod.version(progress.version, revision=scene.observed.revision)
        if seen is not None and seen.state is VersionState.FAILED and seen.failure is not None:
            return (
                f"pod {pod.name} cannot serve {progress.version}, and answers its users with "
                f"{scene.observed.production}: {seen.failure.reason}: {seen.failure.message}"
            )
    return ""


def _find_crashes(pods: Sequence[PodView], *, after: datetime | None) -> list[datetime]:
    crashes = [pod.crashed for pod in pods if pod.crashed is not None]
    return [crash for crash in crashes if after is None or crash > after]


# The flag store


def _route(scene: _Scene, progress: Progress) -> RolloutPlan:
    """Write what has been decided into the flag store; without users the version is only kept at hand."""
    if progress.is_over:
        return RolloutPlan(flags=scene.base, progress=progress)
    if scene.base.production == progress.version:  # committed in this very pass
        return RolloutPlan(flags=scene.base, progress=progress)
    flags = replace(_with_resident(scene, progress.version), rollout=_build_rollout(scene, progress))
    return RolloutPlan(flags=flags, progress=progress)


def _with_resident(scene: _Scene, version: str) -> FlagStore:
    base, pinned = scene.base, scene.observed.digests.get(version)
    digests = {**base.digests, **({version: pinned} if pinned else {})}
    return replace(base, resident=list_residents(*base.resident, version), digests=MappingProxyType(digests))


def _build_rollout(scene: _Scene, progress: Progress) -> Rollout | None:
    spec, gate = scene.spec, _gate(scene.spec)
    if progress.hundredths == 0 and not spec.rules:
        return None
    rollout = route_users(spec, hundredths=progress.hundredths, salt=scene.salt)
    if progress.evidence is None or gate is None:
        return rollout
    return replace(rollout, epoch=progress.evidence.epoch, latency_ratio=float(gate.max_latency_ratio))


def route_users(spec: RolloutSpec, *, hundredths: int, salt: str) -> Rollout:
    """Return who gets the version at a share in hundredths of a percent.

    FlagDocumentError where the spec asks for something that no flag store can say.
    """
    return Rollout(
        version=spec.version,
        hundredths=hundredths,
        salt=salt,
        key=spec.key,
        rules=tuple(
            Rule(name=rule.name, attribute=rule.attribute, values=rule.values) for rule in spec.rules
        ),
    )


def _gate(spec: RolloutSpec) -> RolloutGate | None:
    """Return what watches: steps always have a gate."""
    return spec.gate or (RolloutGate() if spec.steps is not None else None)


def _policy(gate: RolloutGate) -> GatePolicy:
    return GatePolicy(
        min_requests=gate.min_requests,
        max_error_ratio=float(gate.max_error_ratio),
        max_latency_ratio=float(gate.max_latency_ratio),
        tolerated_error_percent=gate.tolerated_error_percent,
    )


def to_hundredths(percent: float) -> int:
    """Return a share in hundredths of a percent, exactly."""
    return int((Decimal(str(percent)) * 100).to_integral_value())
