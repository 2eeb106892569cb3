"""What one pass over one ModelDeployment has seen: the ground of every decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.times import parse_timestamp
from greenroom_operator.controller.preparation import PodView
from greenroom_operator.controller.shadow_counts import ShadowView
from greenroom_operator.resources.flags import flags_name, read_flags
from greenroom_operator.resources.ownership import controller_kind, controller_uid
from greenroom_operator.resources.service import shadow_name
from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import FlagStore

Child = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The Deployment's own account of its pods."""

    replicas: int = 0
    """Pods that there are, those on their way out not counted."""
    ready: int = 0
    updated: int = 0
    """Pods of the newest template."""
    current: bool = False
    """Whether this is about the newest spec."""
    deadline_exceeded: bool = False
    """Whether the newest template did not come up in time."""

    @property
    def rolling(self) -> bool:
        """Whether pods of an older template may still be there."""
        return not self.current or self.updated < self.replicas

    @classmethod
    def observe(cls, child: Child | None) -> "Workload":
        """Read a Deployment; one that is not there has no pods."""
        if child is None:
            return cls()
        status = child.get("status", {})
        return cls(
            replicas=status.get("replicas", 0),
            ready=status.get("readyReplicas", 0),
            updated=status.get("updatedReplicas", 0),
            current=status.get("observedGeneration", 0) >= child["metadata"].get("generation", 0),
            deadline_exceeded=any(
                condition.get("type") == "Progressing"
                and condition.get("reason") == "ProgressDeadlineExceeded"
                for condition in status.get("conditions", ())
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The world as far as it concerns one ModelDeployment."""

    deployment: ModelDeployment
    children: Sequence[Child]
    pods: Sequence[Child]
    """Its pods that are not on their way out."""
    views: Sequence[PodView]
    """The same pods in the same order, with their reports."""
    shadow_pods: Sequence[Child] = ()
    """The pods that a shadow has for itself, likewise not on their way out."""
    shadows: Sequence[ShadowView] = ()
    """What all shadows say, wherever they are."""

    @cached_property
    def flags(self) -> FlagStore | None:
        """The flag store as it lies in the cluster; None where there is none or it has been spoilt."""
        return read_flags(self.child("ConfigMap", flags_name(self.deployment)))

    @property
    def flags_written(self) -> str:
        """What names the newest write of the flag store: unlike its revision it never comes back."""
        child = self.child("ConfigMap", flags_name(self.deployment))
        return str(child["metadata"]["resourceVersion"]) if child is not None else ""

    @cached_property
    def workload(self) -> Workload:
        """The Deployment's own account of its pods."""
        return Workload.observe(self.child("Deployment", self.deployment.metadata.name))

    @cached_property
    def shadow_workload(self) -> Workload:
        """The same of the shadow's own pods; one without pods where there is no such Deployment."""
        return Workload.observe(self.child("Deployment", shadow_name(self.deployment)))

    @property
    def shadow_rolling(self) -> bool:
        """Whether pods that a shadow is in are being replaced."""
        own = self.child("Deployment", shadow_name(self.deployment)) is not None
        return self.rolling or (own and self.shadow_workload.rolling)

    def child(self, kind: str, name: str) -> Child | None:
        """Return a child that we control, None where there is none."""
        return next(
            (child for child in self.ours if child["kind"] == kind and child["metadata"]["name"] == name),
            None,
        )

    @property
    def rolling(self) -> bool:
        """Whether pods are being replaced, or may have to be for a spec that has not been applied yet."""
        metadata, status = self.deployment.metadata, self.deployment.status
        return status.observed_generation != metadata.generation or self.workload.rolling

    @cached_property
    def ours(self) -> list[Child]:
        """The children that this very ModelDeployment controls."""
        uid = self.deployment.metadata.uid
        return [child for child in self.children if controller_uid(child) == uid]

    @property
    def orphans(self) -> list[Child]:
        """Children of a ModelDeployment of the same name that is no more, not yet collected."""
        uid = self.deployment.metadata.uid
        return [
            child
            for child in self.children
            if controller_kind(child) == "ModelDeployment" and controller_uid(child) not in ("", uid)
        ]

    @property
    def disabled(self) -> bool:
        """Whether a person has told the operator to keep its hands off."""
        return self.deployment.metadata.annotations.get(names.ANNOTATION_RECONCILE) == "disabled"


def is_leaving(pod: Child) -> bool:
    """Tell whether a pod has been told to end, or has ended for good."""
    return "deletionTimestamp" in pod["metadata"] or pod.get("status", {}).get("phase") in (
        "Succeeded",
        "Failed",
    )


def is_ready(pod: Child) -> bool:
    """Tell whether a pod gets traffic."""
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in pod.get("status", {}).get("conditions", ())
    )


def is_shadow(pod: Child) -> bool:
    """Tell whether a pod is the shadow's own, and so gets no user's traffic."""
    labels: Mapping[str, str] = pod["metadata"].get("labels") or {}
    return labels.get(names.LABEL_COMPONENT) == names.COMPONENT_SHADOW


def has_shadow(pod: Child) -> bool:
    """Tell whether a shadow runs in a pod, or is about to."""
    containers = pod.get("spec", {}).get("containers", ())
    return any(container.get("name") == names.SHADOW_CONTAINER for container in containers)


def find_crash(pod: Child) -> datetime | None:
    """Return when a pod's serving process last ended by itself with an error; None where it never has."""
    for container in pod.get("status", {}).get("containerStatuses", ()):
        if container.get("name") != names.SERVING_CONTAINER:
            continue
        for state in ("state", "lastState"):
            ended = container.get(state, {}).get("terminated") or {}
            if ended.get("exitCode") and ended.get("finishedAt"):
                return parse_timestamp(ended["finishedAt"])
    return None
