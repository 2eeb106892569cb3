"""Small worlds for the operator's decisions: what a test does not name does not matter to it."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.controller.preparation import PodView
from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import FlagStore
from greenroom_runtime.contract.report import (
    Failure,
    FailureReason,
    PodReport,
    VersionReport,
    VersionState,
)

NAME = "churn"
NAMESPACE = "ml"
UID = "0f9d2a7e-churn"
NOW = datetime(2026, 11, 3, 9, 30, tzinfo=UTC)
NOW_AS_ATTEMPT = "20261103T093000.000000"


def digest(version: str, *, edition: str = "") -> str:
    """Return the digest of a version's ``bundle.json``; another edition is other bytes under the name."""
    return f"sha256:{hashlib.sha256(f'{version}{edition}'.encode()).hexdigest()}"


def stored_deployment(
    *,
    version: str = "v1",
    generation: int = 1,
    annotations: Mapping[str, str] | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """Return a ModelDeployment as the API server keeps it; ``spec`` in the spelling of YAML."""
    return {
        "apiVersion": "greenroom.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "uid": UID,
            "generation": generation,
            "resourceVersion": "1",
            "annotations": dict(annotations or {}),
        },
        "spec": {"source": {"uri": "s3://models/churn"}, "version": version, "replicas": 1} | spec,
        **({"status": dict(status)} if status else {}),
    }


def model_deployment(**parts: Any) -> ModelDeployment:
    """Return what the operator reads of :func:`stored_deployment`."""
    return ModelDeployment.model_validate(stored_deployment(**parts))


def flag_store(
    production: str,
    *others: str,
    previous: str = "",
    pinned: Sequence[str] = (),
    first: str = "",
    attempt: str = "",
) -> FlagStore:
    """Return a flag store with these versions resident; the pinned ones with their true digest."""
    return FlagStore(
        production=production,
        resident=tuple(sorted({production, *others} | ({previous} if previous else set()))),
        previous=previous,
        digests={version: digest(version) for version in pinned},
        first=first,
        attempt=attempt,
    )


def version_report(
    name: str,
    state: VersionState = VersionState.READY,
    *,
    message: str = "",
    edition: str = "",
    memory_bytes: int = 0,
    golden: str = "Passed",
) -> VersionReport:
    """Return what a pod says of a version that it has, or is about to have."""
    known = state is VersionState.READY
    return VersionReport(
        name=name,
        state=state,
        message=message,
        digest=digest(name, edition=edition) if known else "",
        golden=golden if known else "",
        memory_bytes=memory_bytes if known else 0,
    )


def failed(
    name: str,
    reason: FailureReason = FailureReason.GOLDEN_MISMATCH,
    *,
    message: str = "sample 3: expected 1, found 0",
    **details: Any,
) -> VersionReport:
    """Return what a pod says of a version that it cannot serve."""
    failure = Failure(reason=reason, message=message, **details)
    return VersionReport(name=name, state=VersionState.FAILED, failure=failure)


def pod_report(
    *versions: VersionReport | str,
    pod: str = "churn-a",
    flags: FlagStore | None = None,
    production: str | None = None,
    ready: bool = True,
    requests: int = 0,
) -> PodReport:
    """Return a report under a flag store; a version that is given by its name alone is Ready."""
    told = [version_report(version) if isinstance(version, str) else version for version in versions]
    return PodReport(
        pod=pod,
        model=NAME,
        revision=flags.revision if flags else "",
        production=production if production is not None else (flags.production if flags else ""),
        ready=ready,
        versions=tuple(told),
        requests=requests,
    )


def pod_view(
    *versions: VersionReport | str,
    name: str = "churn-a",
    flags: FlagStore | None = None,
    production: str | None = None,
    ready: bool = True,
    requests: int = 0,
) -> PodView:
    """Return a pod that reports under a flag store."""
    report = pod_report(
        *versions, pod=name, flags=flags, production=production, ready=ready, requests=requests
    )
    return PodView(name=name, ready=ready, report=report)


def mute_pod(*, name: str = "churn-a", ready: bool = True, silent: bool = False) -> PodView:
    """Return a pod without a report: not asked for long, or ``silent`` all the while."""
    return PodView(name=name, ready=ready, silent=silent)


def stored_pod(*, name: str = "churn-a", ready: bool = True, leaving: bool = False) -> dict[str, Any]:
    """Return a pod as the API server keeps it."""
    leaves = {"deletionTimestamp": "2026-11-03T09:29:00Z"} if leaving else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{name}",
            "labels": {names.LABEL_DEPLOYMENT: NAME, names.LABEL_MANAGED_BY: names.MANAGED_BY},
            "ownerReferences": [{"kind": "ReplicaSet", "name": NAME, "uid": "uid-rs", "controller": True}],
            **leaves,
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def stored_child(kind: str, name: str, *, owner: str = UID, **content: Any) -> dict[str, Any]:
    """Return a child as the API server keeps it; ``owner`` is the uid of its controller."""
    reference = {"kind": "ModelDeployment", "name": NAME, "uid": owner, "controller": True}
    return {
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "generation": 1,
            "labels": {names.LABEL_DEPLOYMENT: NAME},
            "ownerReferences": [reference],
        },
        **content,
    }


def stored_workload(
    *,
    ready: int = 1,
    replicas: int | None = None,
    updated: int | None = None,
    current: bool = True,
    deadline_exceeded: bool = False,
) -> dict[str, Any]:
    """Return the serving Deployment with its own account of its pods: all ready and updated unless told."""
    total = ready if replicas is None else replicas
    reason = "ProgressDeadlineExceeded" if deadline_exceeded else "NewReplicaSetAvailable"
    status = {
        "observedGeneration": 1 if current else 0,
        "replicas": total,
        "readyReplicas": ready,
        "updatedReplicas": total if updated is None else updated,
        "conditions": [
            {"type": "Progressing", "status": str(not deadline_exceeded), "reason": reason},
        ],
    }
    return stored_child("Deployment", NAME, status=status)
