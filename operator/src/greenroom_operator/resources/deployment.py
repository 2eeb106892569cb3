"""The pods that serve a model, and those of a shadow that has some of its own."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.times import parse_duration
from greenroom_operator.resources.config import build_runtime_config, config_name
from greenroom_operator.resources.containers import build_serving_container, build_shadow_container
from greenroom_operator.resources.flags import flags_name
from greenroom_operator.resources.ownership import build_metadata, build_selector, build_shadow_selector
from greenroom_operator.resources.service import shadow_name
from greenroom_operator.resources.serviceaccount import service_account_name
from greenroom_operator.resources.volumes import build_shadow_volumes, build_volumes, has_sidecar
from greenroom_runtime.contract import names

USER_ID: Final = 65532
LONGEST_REQUEST_SECONDS: Final = 30
"""What a request may still take after the drain, before kubelet kills the process."""
FLUSH_SECONDS: Final = 15
"""What it may then take to hand over the last records of predictions, and the last traces."""


def build_deployment(deployment: ModelDeployment, *, default_image: str) -> dict[str, Any]:
    """Return the Deployment: one serving container, rolled without ever lacking a pod, and its shadow."""
    selector, drain = build_selector(deployment), parse_duration(deployment.spec.drain).total_seconds()
    containers = [build_serving_container(deployment, default_image=default_image)]
    if has_sidecar(deployment):
        containers.append(build_shadow_container(deployment, default_image=default_image))  # listed last
    pod = build_pod_spec(
        deployment,
        containers=containers,
        volumes=build_volumes(
            deployment,
            config=build_runtime_config(deployment),
            config_name=config_name(deployment),
            flags_name=flags_name(deployment),
        ),
        grace_seconds=int(drain) + LONGEST_REQUEST_SECONDS + FLUSH_SECONDS + 5,
    )
    spread = deployment.spec.topology_spread_constraints
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": build_metadata(deployment, name=deployment.metadata.name),
        "spec": {
            "replicas": deployment.spec.replicas,
            **build_pace(deployment),
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": build_pod_metadata(deployment, selector=selector),
                "spec": pod | {"topologySpreadConstraints": list(spread) or build_spread(selector)},
            },
        },
    }


def build_shadow_deployment(deployment: ModelDeployment, *, default_image: str) -> dict[str, Any]:
    """Return the Deployment of a shadow that has pods of its own."""
    shadow, selector = deployment.spec.shadow, build_shadow_selector(deployment)
    pod = build_pod_spec(
        deployment,
        containers=[build_shadow_container(deployment, default_image=default_image)],
        volumes=build_shadow_volumes(
            deployment,
            config=build_runtime_config(deployment),
            config_name=config_name(deployment),
            flags_name=flags_name(deployment),
        ),
        grace_seconds=FLUSH_SECONDS + 5,
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": build_metadata(deployment, name=shadow_name(deployment), selector=selector),
        "spec": {
            "replicas": 1 if shadow is None or shadow.replicas is None else shadow.replicas,
            **build_pace(deployment),
            "selector": {"matchLabels": selector},
            # Nobody waits for a shadow: its old pod makes room for the new one.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {
                "metadata": build_pod_metadata(deployment, selector=selector),
                "spec": pod | {"topologySpreadConstraints": build_spread(selector)},
            },
        },
    }


def build_pace(deployment: ModelDeployment) -> dict[str, Any]:
    """Return how long pods may take, and how many templates are remembered."""
    deadline = int(parse_duration(deployment.spec.progress_deadline).total_seconds())
    return {"revisionHistoryLimit": 2, "progressDeadlineSeconds": max(2, deadline)}


def build_pod_metadata(deployment: ModelDeployment, *, selector: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata of pods that these labels select."""
    labels = {**deployment.spec.pod_labels, **selector, names.LABEL_MANAGED_BY: names.MANAGED_BY}
    annotations = dict(deployment.spec.pod_annotations)
    return {"labels": labels, **({"annotations": annotations} if annotations else {})}


def build_pod_spec(
    deployment: ModelDeployment,
    *,
    containers: Sequence[dict[str, Any]],
    volumes: Sequence[dict[str, Any]],
    grace_seconds: int,
) -> dict[str, Any]:
    """Return a pod without rights; how it spreads is its owner's to say."""
    spec = deployment.spec
    pod: dict[str, Any] = {
        "serviceAccountName": service_account_name(deployment),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": list(containers),
        "volumes": list(volumes),
    }
    optional = {
        "nodeSelector": dict(spec.node_selector),
        "tolerations": list(spec.tolerations),
        "affinity": spec.affinity,
        "priorityClassName": spec.priority_class_name,
        "imagePullSecrets": [{"name": secret.name} for secret in spec.image_pull_secrets],
    }
    return pod | {field: value for field, value in optional.items() if value}


def build_spread(selector: Mapping[str, str]) -> list[dict[str, Any]]:
    """Spread softly over zones and nodes."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(selector)},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
