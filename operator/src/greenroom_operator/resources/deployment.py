"""The pods that serve a model."""

from typing import Any, Final

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.times import parse_duration
from greenroom_operator.resources.config import build_runtime_config, config_name
from greenroom_operator.resources.flags import flags_name
from greenroom_operator.resources.ownership import build_metadata, build_selector
from greenroom_operator.resources.serviceaccount import service_account_name
from greenroom_operator.resources.volumes import build_mounts, build_volumes
from greenroom_runtime.contract import names

USER_ID: Final = 65532
LONGEST_REQUEST_SECONDS: Final = 30
"""What a request may still take after the drain, before kubelet kills the process."""
FLUSH_SECONDS: Final = 15
"""What it may then take to hand over the last records of predictions, and the last traces."""
DEFAULT_RESOURCES: Final[dict[str, Any]] = {"requests": {"cpu": "100m", "memory": "256Mi"}}
"""No limits by default: a limit that is guessed kills a model that is larger than the guess."""


def build_deployment(deployment: ModelDeployment, *, default_image: str) -> dict[str, Any]:
    """Return the Deployment: one serving container, rolled without ever lacking a pod."""
    spec = deployment.spec
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": build_metadata(deployment, name=deployment.metadata.name),
        "spec": {
            "replicas": spec.replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": max(2, int(parse_duration(spec.progress_deadline).total_seconds())),
            "selector": {"matchLabels": build_selector(deployment)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": _build_pod_metadata(deployment),
                "spec": _build_pod_spec(deployment, default_image=default_image),
            },
        },
    }


def _build_pod_metadata(deployment: ModelDeployment) -> dict[str, Any]:
    labels = {
        **deployment.spec.pod_labels,
        **build_selector(deployment),
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
    }
    annotations = dict(deployment.spec.pod_annotations)
    return {"labels": labels, **({"annotations": annotations} if annotations else {})}


def _build_pod_spec(deployment: ModelDeployment, *, default_image: str) -> dict[str, Any]:
    spec = deployment.spec
    drain = parse_duration(spec.drain).total_seconds()
    pod: dict[str, Any] = {
        "serviceAccountName": service_account_name(deployment),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": int(drain) + LONGEST_REQUEST_SECONDS + FLUSH_SECONDS + 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_build_serving_container(deployment, default_image=default_image)],
        "volumes": build_volumes(
            deployment,
            config=build_runtime_config(deployment),
            config_name=config_name(deployment),
            flags_name=flags_name(deployment),
        ),
        "topologySpreadConstraints": _build_spread(deployment),
    }
    optional = {
        "nodeSelector": dict(spec.node_selector),
        "tolerations": list(spec.tolerations),
        "affinity": spec.affinity,
        "priorityClassName": spec.priority_class_name,
        "imagePullSecrets": [{"name": secret.name} for secret in spec.image_pull_secrets],
    }
    return pod | {field: value for field, value in optional.items() if value}


def _build_spread(deployment: ModelDeployment) -> list[dict[str, Any]]:
    """Spread softly over zones and nodes unless the user says how."""
    if deployment.spec.topology_spread_constraints:
        return list(deployment.spec.topology_spread_constraints)
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": build_selector(deployment)},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def _build_serving_container(deployment: ModelDeployment, *, default_image: str) -> dict[str, Any]:
    spec = deployment.spec
    container: dict[str, Any] = {
        "name": names.SERVING_CONTAINER,
        "image": spec.image or default_image,
        "args": ["--config", f"{names.CONFIG_DIR}/{names.CONFIG_FILE}"],
        "ports": [
            {"name": "http", "containerPort": names.HTTP_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": names.ADMIN_PORT, "protocol": "TCP"},
        ],
        "env": [
            {"name": names.ENV_POD_NAME, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *(variable.model_dump(by_alias=True, exclude_none=True) for variable in spec.env),
        ],
        "resources": spec.resources or DEFAULT_RESOURCES,
        # Kubelet asks each second until the process answers; five minutes are for a large image's imports.
        "startupProbe": _build_probe(names.STARTUP_PATH, period=1, failures=300),
        "livenessProbe": _build_probe(names.LIVE_PATH, period=10, failures=6),
        "readinessProbe": _build_probe(names.READY_PATH, period=5, failures=3),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": build_mounts(deployment, config=build_runtime_config(deployment)),
    }
    if secrets := _build_env_from(deployment):
        container["envFrom"] = secrets
    if spec.image_pull_policy:
        container["imagePullPolicy"] = spec.image_pull_policy.value
    return container


def _build_env_from(deployment: ModelDeployment) -> list[dict[str, Any]]:
    """Return the Secrets whose keys become variables: with prefixes, so that they never mix."""
    spec = deployment.spec
    source, features = spec.source.secret_ref, spec.features
    prefixed = {
        names.ENV_LOG_PREFIX: spec.prediction_log.secret_ref,
        names.ENV_FEATURES_REDIS_PREFIX: features and features.redis and features.redis.secret_ref,
        names.ENV_FEATURES_COMPUTE_PREFIX: features and features.compute and features.compute.secret_ref,
    }
    return [
        *([{"secretRef": {"name": source.name}}] if source else []),
        *(
            {"prefix": prefix, "secretRef": {"name": secret.name}}
            for prefix, secret in prefixed.items()
            if secret
        ),
    ]


def _build_probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "admin"},
        "periodSeconds": period,
        "timeoutSeconds": 5 if path == names.LIVE_PATH else 2,
        "failureThreshold": failures,
    }
