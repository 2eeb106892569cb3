"""The immutable configuration of a model's pods: other content is another name, and other pods."""

import math
from typing import Any

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.quantities import parse_quantity
from greenroom_operator.api.times import parse_duration
from greenroom_operator.resources.ownership import build_metadata
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import Limits, Proof, RuntimeConfig


def build_runtime_config(deployment: ModelDeployment) -> RuntimeConfig:
    """Return what the serving process is started with."""
    spec = deployment.spec
    memory = ((spec.resources or {}).get("limits") or {}).get("memory")
    return RuntimeConfig(
        name=deployment.metadata.name,
        namespace=deployment.metadata.namespace,
        source_uri=spec.source.uri.rstrip("/"),
        drain_seconds=parse_duration(spec.drain).total_seconds(),
        limits=Limits(
            body_bytes=spec.limits.body_bytes,
            concurrency=spec.limits.concurrency,
            batch_rows=spec.limits.batch_rows,
        ),
        proof=Proof(
            golden=spec.verification.golden.value,
            trial_seconds=parse_duration(spec.progress_deadline).total_seconds(),
            # Kubernetes takes 0 for no limit, and rounds up to whole bytes.
            memory_limit_bytes=None if memory is None else math.ceil(parse_quantity(str(memory))) or None,
        ),
    )


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
