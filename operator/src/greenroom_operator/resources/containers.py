"""The containers of a pod: the one that answers, and the shadow, which never does."""

from collections.abc import Mapping
from typing import Any, Final

from greenroom_operator.api.fields import SecretRef
from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.shadow import DEFAULT_RESOURCES as SHADOW_RESOURCES
from greenroom_operator.api.shadow import ShadowPlacement
from greenroom_operator.resources.config import build_runtime_config
from greenroom_operator.resources.volumes import build_mounts, build_shadow_mounts
from greenroom_runtime.contract import names

DEFAULT_RESOURCES: Final[dict[str, Any]] = {"requests": {"cpu": "100m", "memory": "256Mi"}}
"""No limits by default: a limit that is guessed kills a model that is larger than the guess."""
_CONFIG_PATH: Final = f"{names.CONFIG_DIR}/{names.CONFIG_FILE}"


def build_serving_container(deployment: ModelDeployment, *, default_image: str) -> dict[str, Any]:
    """Return the container that answers."""
    spec, features = deployment.spec, deployment.spec.features
    redis, compute = (features.redis, features.compute) if features else (None, None)
    return {
        "name": names.SERVING_CONTAINER,
        **_build_image(deployment, default_image=default_image),
        "args": ["--config", _CONFIG_PATH],
        "ports": [
            {"name": "http", "containerPort": names.HTTP_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": names.ADMIN_PORT, "protocol": "TCP"},
        ],
        "env": _build_env(deployment),
        "resources": spec.resources or DEFAULT_RESOURCES,
        # Kubelet asks each second until the process answers; five minutes are for a large image's imports.
        "startupProbe": _build_probe(names.STARTUP_PATH, period=1, failures=300),
        "livenessProbe": _build_probe(names.LIVE_PATH, period=10, failures=6),
        "readinessProbe": _build_probe(names.READY_PATH, period=5, failures=3),
        "volumeMounts": build_mounts(deployment, config=build_runtime_config(deployment)),
        **_build_env_from(
            deployment,
            {
                names.ENV_FEATURES_REDIS_PREFIX: redis.secret_ref if redis else None,
                names.ENV_FEATURES_COMPUTE_PREFIX: compute.secret_ref if compute else None,
            },
        ),
    }


def build_shadow_container(deployment: ModelDeployment, *, default_image: str) -> dict[str, Any]:
    """Return the container that compares: a supervisor, and under it the process that holds the version.

    As a sidecar it has no probe: Kubernetes takes a pod out of the Service for any of its containers.
    It fetches no features, and has no credentials for them.
    """
    shadow = deployment.spec.shadow
    own_pod = shadow is not None and shadow.placement is ShadowPlacement.DEPLOYMENT
    ports = {"shadow": names.SHADOW_PORT} | ({"frames": names.SHADOW_FRAMES_PORT} if own_pod else {})
    limit = {"containerName": names.SHADOW_CONTAINER, "resource": "limits.memory"}
    return {
        "name": names.SHADOW_CONTAINER,
        **_build_image(deployment, default_image=default_image),
        "command": ["python", "-m", "greenroom_runtime.shadow", "--config", _CONFIG_PATH],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "env": [
            {"name": names.ENV_MEMORY_LIMIT, "valueFrom": {"resourceFieldRef": limit}},
            *_build_env(deployment),
        ],
        "resources": (shadow and shadow.resources) or SHADOW_RESOURCES,
        "volumeMounts": build_shadow_mounts(deployment, config=build_runtime_config(deployment)),
        **_build_env_from(deployment, {}),
    }


def _build_image(deployment: ModelDeployment, *, default_image: str) -> dict[str, Any]:
    spec = deployment.spec
    return {
        "image": spec.image or default_image,
        **({"imagePullPolicy": spec.image_pull_policy.value} if spec.image_pull_policy else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _build_env(deployment: ModelDeployment) -> list[dict[str, Any]]:
    return [
        {"name": names.ENV_POD_NAME, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        *(variable.model_dump(by_alias=True, exclude_none=True) for variable in deployment.spec.env),
    ]


def _build_env_from(
    deployment: ModelDeployment, more: Mapping[str, SecretRef | None]
) -> dict[str, list[dict[str, Any]]]:
    """Return the Secrets whose keys become variables: with prefixes, so that they never mix."""
    source = deployment.spec.source.secret_ref
    prefixed = {names.ENV_LOG_PREFIX: deployment.spec.prediction_log.secret_ref, **more}
    secrets: list[dict[str, Any]] = [
        *([{"secretRef": {"name": source.name}}] if source else []),
        *(
            {"prefix": prefix, "secretRef": {"name": secret.name}}
            for prefix, secret in prefixed.items()
            if secret
        ),
    ]
    return {"envFrom": secrets} if secrets else {}


def _build_probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "admin"},
        "periodSeconds": period,
        "timeoutSeconds": 5 if path == names.LIVE_PATH else 2,
        "failureThreshold": failures,
    }
