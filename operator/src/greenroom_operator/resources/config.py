"""The immutable configuration of a model's pods: other content is another name, and other pods."""

import math
import re
from decimal import Decimal
from typing import Any, Final

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.times import parse_duration
from greenroom_operator.resources.ownership import build_metadata
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import Limits, Proof, RuntimeConfig

_QUANTITY: Final = re.compile(
    r"\+?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3})?"
)
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


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
            batch_rows=spec.limits.batch_rows,
            concurrency=spec.limits.concurrency,
        ),
        proof=Proof(
            golden=spec.verification.golden.value,
            trial_seconds=parse_duration(spec.progress_deadline).total_seconds(),
            # Kubernetes takes 0 for no limit.
            memory_limit_bytes=None if memory is None else parse_quantity(str(memory)) or None,
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


def parse_quantity(text: str) -> int:
    """Return a Kubernetes quantity such as ``256Mi`` in whole units, rounded up as Kubernetes does.

    ValueError for what is none, or is negative.
    """
    found = _QUANTITY.fullmatch(text)
    if not found:
        message = f"{text!r} is no quantity such as 256Mi or 1G"
        raise ValueError(message)
    number, suffix = Decimal(found[1]), found[2] or ""
    if suffix in _BINARY:
        return math.ceil(number * Decimal(1024) ** _BINARY[suffix])
    return math.ceil(number.scaleb(_DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])))
