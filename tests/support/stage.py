"""A ModelDeployment on a small stage: pods that obey at once, and the operator's decisions, pass by pass.

Status goes through its YAML form between passes, as it does through the API server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from greenroom_operator.api.modeldeployment import ModelDeployment, ModelDeploymentStatus
from greenroom_operator.api.times import parse_duration
from greenroom_operator.controller.actions import Verb, find_action, find_objection
from greenroom_operator.controller.conditions import ConditionType, find_condition
from greenroom_operator.controller.context import Observed
from greenroom_operator.controller.preparation import PodView
from greenroom_operator.controller.promotion import PromotionInput
from greenroom_operator.controller.release import ReleasePlan, plan_release
from greenroom_operator.controller.rollout import RolloutInput
from greenroom_operator.controller.rollout_status import read_progress
from greenroom_operator.controller.status import build_status, find_transitions, judge, read_promotion
from greenroom_operator.controller.texts import Transition
from greenroom_runtime.contract.evidence import ArmEvidence, Bitmap, RolloutEvidence
from greenroom_runtime.contract.flags import FlagStore, Rollout, dump_flags
from tests.support.builders import (
    NAME,
    NAMESPACE,
    NOW,
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


@dataclass
class Stage:
    """One ModelDeployment, its pods and its operator."""

    spec: dict[str, Any] = field(default_factory=dict)
    version: str = "v2"
    pods: dict[str, set[str]] = field(default_factory=lambda: {"churn-a": set(), "churn-b": set()})
    """By name, the versions that fail there."""
    now: datetime = NOW
    status: ModelDeploymentStatus = field(default_factory=ModelDeploymentStatus)
    flags: FlagStore | None = None
    obeyed: FlagStore | None = None
    """What pods have read; None while they lag behind, see `lagging`."""
    lagging: bool = False
    traffic: tuple[ArmEvidence, ArmEvidence] | None = None
    """What the rollout's and production's users meet, once there is something to count."""
    crashed: Mapping[str, datetime] = field(default_factory=dict)
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
        known = read_progress(self.status, now=self.now)
        remembers = (known.decision if known else None) != (plan.rollout.decision if plan.rollout else None)
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
        return Observed(deployment=self.deployment, children=children, pods=[], views=self._views())

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
        return plan_release(world, rollout, now=self.now)

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
            failed(version) if version in fails else version_report(version)
            for version in (flags.resident if flags else ())
            if flags and flags.prepares(version, pod=name)
        ]
        report = pod_report(*versions, pod=name, flags=flags)
        report = report.model_copy(update={"evidence": self._count(flags)})
        return PodView(name=name, ready=True, report=report, crashed=self.crashed.get(name))

    def _count(self, flags: FlagStore | None) -> RolloutEvidence | None:
        rollout = flags.rollout if flags else None
        if rollout is None or not rollout.epoch or self.traffic is None:
            return None
        ours, production = self.traffic
        return RolloutEvidence(
            epoch=rollout.epoch, version=rollout.version, rollout=ours, production=production
        )
