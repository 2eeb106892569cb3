"""The immutable configuration of a model's pods: other content is another name, and other pods."""

import math
from typing import Any, Final

from greenroom_operator.api.features import FeatureCompute, FeatureRedis
from greenroom_operator.api.modeldeployment import ModelDeployment, ModelDeploymentSpec
from greenroom_operator.api.predictions import PredictionSink
from greenroom_operator.api.quantities import parse_quantity
from greenroom_operator.api.shadow import ShadowPlacement
from greenroom_operator.api.times import parse_duration
from greenroom_operator.resources.ownership import build_metadata
from greenroom_operator.resources.service import shadow_host
from greenroom_operator.resources.volumes import readable_uri
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import (
    Compute,
    Feast,
    FeatureCache,
    Limits,
    PredictionLog,
    Proof,
    RedisCache,
    RuntimeConfig,
    ShadowConfig,
)

_DEFAULT_LENGTH: Final = 1024


def build_runtime_config(deployment: ModelDeployment) -> RuntimeConfig:
    """Return what the serving process is started with; ValueError for what only Python can see is wrong."""
    spec = deployment.spec
    return RuntimeConfig(
        name=deployment.metadata.name,
        namespace=deployment.metadata.namespace,
        source_uri=readable_uri(spec.source.uri),
        drain_seconds=parse_duration(spec.drain).total_seconds(),
        limits=Limits(
            body_bytes=spec.limits.body_bytes,
            concurrency=spec.limits.concurrency,
            batch_rows=spec.limits.batch_rows,
        ),
        proof=Proof(
            golden=spec.verification.golden.value,
            trial_seconds=parse_duration(spec.progress_deadline).total_seconds(),
            memory_limit_bytes=_read_limit(spec, "memory"),
        ),
        prediction_log=_build_prediction_log(spec),
        features=_build_features(spec),
        shadow=_build_shadow(deployment),
    )


def _build_prediction_log(spec: ModelDeploymentSpec) -> PredictionLog | None:
    log = spec.prediction_log
    if log.sink is PredictionSink.NONE:
        return None
    disk, ephemeral = math.ceil(parse_quantity(log.max_disk)), _read_limit(spec, "ephemeral-storage")
    return PredictionLog(
        sink=log.sink.value,
        percent=log.percent,
        uri=log.uri or "",
        # Kubelet evicts a pod that exceeds its limit; model files and the container's output count too.
        max_disk_bytes=disk if ephemeral is None else min(disk, max(1, ephemeral // 2)),
        sensitive=log.sensitive.value,
    )


def _build_features(spec: ModelDeploymentSpec) -> FeatureCache | None:
    features = spec.features
    if features is None:
        return None
    for name, value in features.defaults.items():
        if not isinstance(value, bool | int | float | str | None) or len(str(value)) > _DEFAULT_LENGTH:
            message = (
                f"features.defaults.{name[:64]} must be a number, a text of at most {_DEFAULT_LENGTH} "
                "characters, a boolean or null"
            )
            raise ValueError(message)
    return FeatureCache(
        entity_key=features.entity_key,
        ttl_seconds=_seconds(features.ttl),
        stale_seconds=_seconds(features.stale_for),
        max_entries=features.max_entries,
        max_bytes=math.ceil(parse_quantity(features.max_memory)),
        redis=features.redis and _build_redis(features.redis),
        compute=features.compute and _build_compute(features.compute, entity_key=features.entity_key),
        defaults=features.defaults,
    )


def _build_redis(redis: FeatureRedis) -> RedisCache:
    return RedisCache(url=redis.url, timeout_seconds=_seconds(redis.timeout), ttl_seconds=_seconds(redis.ttl))


def _build_compute(compute: FeatureCompute, *, entity_key: str) -> Compute:
    feast = compute.feast
    return Compute(
        url=compute.url,
        timeout_seconds=_seconds(compute.timeout),
        max_attempts=compute.max_attempts,
        rate_limit=compute.rate_limit,
        feast=feast
        and Feast(
            service=feast.service or "", features=feast.features or (), join_key=feast.join_key or entity_key
        ),
    )


def _build_shadow(deployment: ModelDeployment) -> ShadowConfig | None:
    """Return what rolls pods when it changes; version, share and gate are the flag store's."""
    shadow = deployment.spec.shadow
    if shadow is None:
        return None
    tolerance = float(shadow.tolerance)
    if shadow.placement is ShadowPlacement.SIDECAR:
        return ShadowConfig(tolerance=tolerance)
    return ShadowConfig(
        address=f"tcp:{shadow_host(deployment)}:{names.SHADOW_FRAMES_PORT}", tolerance=tolerance
    )


def _seconds(duration: str) -> float:
    return parse_duration(duration).total_seconds()


def _read_limit(spec: ModelDeploymentSpec, resource: str) -> int | None:
    """Return a limit in bytes. Kubernetes takes 0 for none, and rounds up to whole bytes."""
    limit = ((spec.resources or {}).get("limits") or {}).get(resource)
    return None if limit is None else math.ceil(parse_quantity(str(limit))) or None


def build_config(deployment: ModelDeployment) -> dict[str, Any]:
    """Return the ConfigMap that carries the runtime's configuration, named by its hash."""
    config = build_runtime_config(deployment)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": build_metadata(deployment, name=config_name(deployment)),
        "immutable": True,
        "data": {names.CONFIG_FILE: config.to_json()},
    }


def config_name(deployment: ModelDeployment) -> str:
    """Return the name of the ConfigMap that this spec wants its pods to have."""
    return f"{deployment.metadata.name}-config-{build_runtime_config(deployment).content_hash()}"
