"""A ModelDeployment on a small stage: pods that obey at once, and the operator's decisions, pass by pass.

Status goes through its YAML form between passes, as it does through the API server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from greenroom_operator.api.modeldeployment import ModelDeployment, ModelDeploymentStatus
from greenroom_operator.api.shadow import ShadowStatus
from greenroom_operator.api.times import parse_duration
from greenroom_operator.controller.actions import Action, Verb, find_action, find_objection
from greenroom_operator.controller.conditions import ConditionType, find_condition
from greenroom_operator.controller.context import Observed
from greenroom_operator.controller.preparation import PodView
from greenroom_operator.controller.promotion import PromotionInput
from greenroom_operator.controller.release import ReleasePlan, plan_release
from greenroom_operator.controller.rollout import RolloutInput
from greenroom_operator.controller.rollout_status import read_progress
from greenroom_operator.controller.shadow import ShadowInput, list_segments
from greenroom_operator.controller.shadow_counts import ShadowView
from greenroom_operator.controller.shadow_status import read_shadow
from greenroom_operator.controller.status import build_status, find_transitions, judge, read_promotion
from greenroom_operator.controller.texts import Transition
from greenroom_runtime.contract.evidence import ArmEvidence, Bitmap, RolloutEvidence, WideBitmap
from greenroom_runtime.contract.flags import FlagStore, Rollout, Shadow, dump_flags
from greenroom_runtime.contract.report import FailureReason, MirrorReport, VersionReport, VersionState
from greenroom_runtime.contract.shadow import (
    ProcessEnd,
    ProcessReport,
    ShadowCounts,
    ShadowReport,
    ShadowTrials,
)
from tests.support.builders import (
    NAME,
    NAMESPACE,
    NOW,
    digest,
    failed,
    model_deployment,
    pod_report,
    stored_child,
    stored_workload,
    version_report,
)


def arm(*, users: int = 3000, failed: int = 0, slow: int = 750, requests: int = 5000) -> ArmEvidence:
    """Return what was counted of one arm: so many buckets of users, failed and slow ones among them."""
    seen = Bitmap.of(range(users))
    return ArmEvidence(
        seen=seen,
        timed=seen,
        slow=Bitmap.of(range(slow)),
        failed=Bitmap.of(range(failed)),
        requests=requests,
        errors=failed,
    )


CLEAN = (arm(slow=100), arm())
"""Both arms without an error, the rollout's as quick as production."""
HARMFUL = (arm(failed=600, slow=100), arm(failed=10))
"""A fifth of the rollout's users meets errors."""


@dataclass(frozen=True, kw_only=True)
class ShadowLife:
    """How one shadow fares."""

    instance: str = "1"
    counts: ShadowCounts = field(default_factory=ShadowCounts)
    trials: ShadowTrials = field(default_factory=ShadowTrials)
    ends: int = 0
    end: ProcessEnd | None = None
    running: bool = True
    fails: bool = False
    """It cannot hold the version."""
    silent: bool = False
    edition: str = ""
    """Other bytes under the version's name."""
    mirror: MirrorReport = field(default_factory=lambda: MirrorReport(offered=1, sent=1))
    """What its pod says of the way to it."""


def agreeing(users: int = 8000, *, requests: int = 20_000, **counted: int) -> ShadowLife:
    """Return a shadow that has answered these users as production did, and as quickly."""
    return ShadowLife(
        counts=ShadowCounts(received=requests, compared=requests, **counted),
        trials=ShadowTrials(seen=WideBitmap.of(range(users))),
    )


def differing(users: int = 8000) -> ShadowLife:
    """Return a shadow that has answered every fourth of these users otherwise."""
    counts = ShadowCounts(received=users, compared=users, disagreed=users // 4)
    seen, disagreed = WideBitmap.of(range(users)), WideBitmap.of(range(0, users, 4))
    return ShadowLife(counts=counts, trials=ShadowTrials(seen=seen, disagreed=disagreed))


@dataclass
class Stage:
    """One ModelDeployment, its pods and its operator."""

    spec: dict[str, Any] = field(default_factory=dict)
    version: str = "v2"
    pods: dict[str, set[str]] = field(default_factory=lambda: {"churn-a": set(), "churn-b": set()})
    """By name, the versions that fail there."""
    slow: set[str] = field(default_factory=set)
    """Versions that pods are still at, and do not get on with."""
    now: datetime = NOW
    status: ModelDeploymentStatus = field(default_factory=ModelDeploymentStatus)
    flags: FlagStore | None = None
    obeyed: FlagStore | None = None
    """What pods have read; None while they lag behind, see `lagging`."""
    lagging: bool = False
    traffic: tuple[ArmEvidence, ArmEvidence] | None = None
    """What the rollout's and production's users meet, once there is something to count."""
    crashed: Mapping[str, datetime] = field(default_factory=dict)
    shadows: dict[str, ShadowLife] = field(default_factory=dict)
    """By pod, how its shadow fares; the others hold whatever they are asked to, and count nothing."""
    gone: dict[str, ShadowLife] = field(default_factory=dict)
    """Shadows whose pods are no more, as they were heard last."""
    deaf: bool = False
    """Nobody has asked the shadows yet, as when the operator has just started."""
    rolling: bool = False
    """Pods are being replaced."""
    annotations: dict[str, str] = field(default_factory=dict)
    generation: int = 1
    written: list[FlagStore] = field(default_factory=list)
    """Every flag store that was written."""
    events: list[Transition] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)

    # What people do

    def edit(self, **spec: Any) -> "Stage":
        """Change spec, as Git does: ``version`` and members in YAML's spelling; None takes one out."""
        self.version = spec.pop("version", self.version)
        self.spec = {name: value for name, value in {**self.spec, **spec}.items() if value is not None}
        self.generation += 1
        return self.settle()

    def act(self, verb: Verb | str, version: str, *, text: str = "") -> "Stage":
        """Annotate with an action that was not asked for before."""
        self.annotations["greenroom.dev/action"] = f"{verb}/{version}/{text or self.now.isoformat()}"
        return self.settle()

    def wait(self, seconds: float, *, every: float = 5) -> "Stage":
        """Let time pass, while the operator looks every so often."""
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            self.now = min(end, self.now + timedelta(seconds=every))
            self.settle()
        return self

    # What the operator does

    def settle(self) -> "Stage":
        """Make passes until nothing changes."""
        for _ in range(12):
            if not self.make_pass():
                return self
        raise AssertionError(f"it does not come to rest: {self.status.rollout}")

    def make_pass(self, *, dies_before: str = "") -> bool:
        """Make one pass, which may die before it writes ``flags`` or ``status``; tell if it did anything."""
        observed = self._observe()
        plan = self._decide(observed)
        known = (read_progress(self.status, now=self.now), read_shadow(self.status))
        remembers = tuple(part.decision if part else None for part in known) != plan.decision
        changed = False
        if not remembers and plan.flags != self.flags:
            if dies_before == "flags":
                return True
            self.flags, changed = plan.flags, True
            self.written.append(plan.flags)
        if not self.lagging:
            changed |= self.obeyed != self.flags
            self.obeyed = self.flags
        if dies_before == "status":
            return True
        return self._write_status(plan, remembers=remembers) or changed or remembers

    @property
    def routed(self) -> Rollout | None:
        """What the flag store says of the rollout."""
        return self.flags.rollout if self.flags else None

    @property
    def share(self) -> float:
        """The percentage of users in the flag store."""
        return self.routed.hundredths / 100 if self.routed else 0.0

    @property
    def mirrored(self) -> Shadow | None:
        """What the flag store says of the shadow."""
        return self.flags.shadow if self.flags else None

    @property
    def shadow(self) -> ShadowStatus:
        """The shadow in status."""
        assert self.status.shadow is not None
        return self.status.shadow

    @property
    def state(self) -> str | None:
        """The rollout's state in status."""
        return self.status.rollout.state.value if self.status.rollout else None

    def condition(self, name: ConditionType) -> tuple[str, str]:
        """Return a condition's status and reason."""
        found = find_condition(self.status.conditions, name)
        return (found.status.value, found.reason) if found else ("", "")

    @property
    def reasons(self) -> list[str]:
        """The reasons of all events so far."""
        return [event.reason for event in self.events]

    @property
    def deployment(self) -> ModelDeployment:
        """The ModelDeployment as the operator reads it."""
        return model_deployment(
            version=self.version,
            generation=self.generation,
            annotations=self.annotations,
            status=self.status.model_dump(mode="json", by_alias=True, exclude_none=True),
            **{"replicas": len(self.pods)} | self.spec,
        )

    def _observe(self) -> Observed:
        children = [stored_workload(ready=len(self.pods), replicas=len(self.pods))]
        if self.flags is not None:
            flags = {"flags.json": dump_flags(self.flags)}
            children.append(stored_child("ConfigMap", f"{NAME}-flags", data=flags))
        return Observed(
            deployment=self.deployment,
            children=children,
            pods=[],
            views=self._views(),
            shadows=self._view_shadows(),
        )

    def _decide(self, observed: Observed) -> ReleasePlan:
        deployment = observed.deployment
        action = find_action(deployment)
        world = PromotionInput(
            target=deployment.spec.version,
            flags=observed.flags,
            promotion=read_promotion(deployment.status, now=self.now),
            proven=deployment.status.version or "",
            pods=observed.views,
            wanted=deployment.spec.replicas,
            rolling=self.rolling,
            deadline=parse_duration(deployment.spec.progress_deadline),
            retry=action is not None and action.asks(Verb.RETRY, deployment.spec.version),
        )
        heeded = action if action is not None and not find_objection(action, deployment) else None
        rollout = RolloutInput(
            spec=deployment.spec.rollout,
            progress=read_progress(deployment.status, now=self.now),
            salt=f"{NAMESPACE}/{NAME}",
            action=heeded,
        )
        return plan_release(world, rollout, now=self.now, shadow=self._want_shadow(observed, action))

    def _want_shadow(self, observed: Observed, action: Action | None) -> ShadowInput | None:
        spec = observed.deployment.spec
        if spec.shadow is None:
            return None
        return ShadowInput(
            spec=spec.shadow,
            progress=read_shadow(observed.deployment.status),
            salt=f"{NAMESPACE}/{NAME}",
            views=observed.shadows,
            segments=list_segments(spec.rollout),
            rolling=self.rolling,
            action=action,
        )

    def _write_status(self, plan: ReleasePlan, *, remembers: bool) -> bool:
        observed = self._observe()
        action = find_action(observed.deployment)
        if action is not None and (objection := find_objection(action, observed.deployment)):
            self.objections.append(objection)
        if remembers and action is not None and action.asks(Verb.RETRY, self.version):
            action = None
        verdict = judge(observed, plan, now=self.now)
        text = action.text if action else None
        status = build_status(observed, plan, verdict, now=self.now, action=text)
        self.events += find_transitions(self.status, status)
        written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        before, self.status = self.status, ModelDeploymentStatus.model_validate(written)
        return before != self.status

    def _views(self) -> list[PodView]:
        return [self._view(name, fails) for name, fails in sorted(self.pods.items())]

    def _view(self, name: str, fails: set[str]) -> PodView:
        flags = self.obeyed
        versions = [
            failed(version)
            if version in fails
            else version_report(version, VersionState.PROVING if version in self.slow else VersionState.READY)
            for version in (flags.resident if flags else ())
            if flags and flags.prepares(version, pod=name)
        ]
        report = pod_report(*versions, pod=name, flags=flags)
        life = self.shadows.get(name, ShadowLife())
        mirror = life.mirror if flags and flags.shadow else None
        report = report.model_copy(update={"evidence": self._count(flags), "mirror": mirror})
        return PodView(name=name, ready=True, report=report, crashed=self.crashed.get(name))

    def _view_shadows(self) -> list[ShadowView]:
        if "shadow" not in self.spec:
            return []
        lives = {pod: self.shadows.get(pod, ShadowLife()) for pod in sorted(self.pods)}
        return [
            *(self._view_shadow(pod, life) for pod, life in lives.items()),
            *(self._view_shadow(pod, life, gone=True) for pod, life in sorted(self.gone.items())),
        ]

    def _view_shadow(self, pod: str, life: ShadowLife, *, gone: bool = False) -> ShadowView:
        if self.deaf or life.silent:
            return ShadowView(pod=pod, uid=f"uid-{pod}", silent=life.silent and not self.deaf, gone=gone)
        asked = self.obeyed.shadow if self.obeyed else None
        process = ProcessReport(
            revision=self.obeyed.revision if self.obeyed else "",
            production=self.obeyed.production if self.obeyed else "",
            version=self._hold(asked.version, life) if asked else None,
            epoch=asked.epoch if asked else "",
            counts=life.counts if asked else ShadowCounts(),
            trials=life.trials if asked else ShadowTrials(),
        )
        report = ShadowReport(
            pod=pod,
            instance=life.instance,
            running=life.running,
            ends=life.ends,
            end=life.end,
            process=process,
        )
        return ShadowView(pod=pod, uid=f"uid-{pod}", report=report, gone=gone)

    def _hold(self, version: str, life: ShadowLife) -> VersionReport:
        pinned = self.obeyed.digests.get(version, "") if self.obeyed else ""
        if life.fails:
            return failed(version)
        if pinned and pinned != digest(version, edition=life.edition):
            return failed(version, FailureReason.DIGEST_CHANGED, message="other bytes")
        return version_report(version, edition=life.edition)

    def _count(self, flags: FlagStore | None) -> RolloutEvidence | None:
        rollout = flags.rollout if flags else None
        if rollout is None or not rollout.epoch or self.traffic is None:
            return None
        ours, production = self.traffic
        return RolloutEvidence(
            epoch=rollout.epoch, version=rollout.version, rollout=ours, production=production
        )
