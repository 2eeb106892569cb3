"""What a serving pod mounts: configuration, flags, disk of its own, and the claim of a ``pvc://`` source."""

import math
import re
from typing import Any, Final

from greenroom_operator.api.fields import DNS_SUBDOMAIN
from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.predictions import PredictionSink
from greenroom_operator.api.shadow import ShadowPlacement
from greenroom_operator.api.source import CLAIM_SCHEME, SOURCE_SCHEMES
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import PredictionLog, RuntimeConfig

_CLAIM: Final = re.compile(f"(?P<claim>{DNS_SUBDOMAIN})(?P<path>/[^?#%\\s]*)?")
_CLAIM_MAX_LENGTH: Final = 253
_MEBIBYTE: Final = 2**20
_MARGIN_BYTES: Final = 64 * _MEBIBYTE
_SOCKET: Final = "shadow-socket"


def readable_uri(uri: str) -> str:
    """Return where the runtime finds a source: the URI itself, or the mount of its claim.

    ValueError for a claim that cannot be, or a path that leaves it.
    """
    if not uri.startswith(CLAIM_SCHEME):
        return uri.rstrip("/")
    _, path = _split_claim(uri)
    return f"file://{names.SOURCE_DIR}{path}"


def _split_claim(uri: str) -> tuple[str, str]:
    """Return the claim and the path in it, which is empty or begins with a slash."""
    found = _CLAIM.fullmatch(uri.removeprefix(CLAIM_SCHEME))
    path = (found["path"] or "").rstrip("/") if found else ""
    if found is None or len(found["claim"]) > _CLAIM_MAX_LENGTH or ".." in path.split("/"):
        scheme = SOURCE_SCHEMES[CLAIM_SCHEME]
        message = f"spec.source.uri must be {scheme.form}, {scheme.remedy}, and '..' is not followed"
        raise ValueError(message)
    return found["claim"], path


def build_volumes(
    deployment: ModelDeployment, *, config: RuntimeConfig, config_name: str, flags_name: str
) -> list[dict[str, Any]]:
    """Return the volumes of a pod whose process is started with ``config``, its sidecar's included."""
    return [
        *_build_documents(config_name=config_name, flags_name=flags_name),
        *_build_disks(config),
        *_build_source(deployment),
        *(_build_sidecar_volumes(config) if has_sidecar(deployment) else []),
    ]


def build_shadow_volumes(
    deployment: ModelDeployment, *, config: RuntimeConfig, config_name: str, flags_name: str
) -> list[dict[str, Any]]:
    """Return the volumes of a shadow's own pod."""
    return [
        *_build_documents(config_name=config_name, flags_name=flags_name),
        *_build_disks(config, owner="shadow-"),
        *_build_source(deployment),
    ]


def _build_sidecar_volumes(config: RuntimeConfig) -> list[dict[str, Any]]:
    # Without a limit a volume in memory may take all of the node's.
    socket = {"name": _SOCKET, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}
    return [socket, *_build_disks(config, owner="shadow-")]


def has_sidecar(deployment: ModelDeployment) -> bool:
    """Tell whether each serving pod has a shadow beside it."""
    shadow = deployment.spec.shadow
    return shadow is not None and shadow.placement is ShadowPlacement.SIDECAR


def _build_documents(*, config_name: str, flags_name: str) -> list[dict[str, Any]]:
    return [
        {"name": "config", "configMap": {"name": config_name}},
        {"name": "flags", "configMap": {"name": flags_name}},
    ]


def _build_disks(config: RuntimeConfig, *, owner: str = "") -> list[dict[str, Any]]:
    """Return the disks of one container, so that neither takes the other's."""
    disks: list[dict[str, Any]] = [
        {"name": f"{owner}models", "emptyDir": {}},
        {"name": f"{owner}tmp", "emptyDir": {}},
    ]
    if (log := _log_on_disk(config)) is not None:
        limit = _size_limit(log.max_disk_bytes)
        disks.append({"name": f"{owner}predictions", "emptyDir": {"sizeLimit": limit}})
    return disks


def _build_source(deployment: ModelDeployment) -> list[dict[str, Any]]:
    if not deployment.spec.source.uri.startswith(CLAIM_SCHEME):
        return []
    claim, _ = _split_claim(deployment.spec.source.uri)
    # Read-only here too and not only in the mount: so kubelet does not change the owner of its files.
    return [{"name": "source", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}]


def build_mounts(deployment: ModelDeployment, *, config: RuntimeConfig) -> list[dict[str, Any]]:
    """Return where the serving container finds the pod's volumes."""
    return _build_mounts(deployment, config=config, predictions=names.PREDICTIONS_DIR)


def build_shadow_mounts(deployment: ModelDeployment, *, config: RuntimeConfig) -> list[dict[str, Any]]:
    """Return where the shadow container finds its volumes: disk of its own, and the socket in a sidecar."""
    predictions = names.SHADOW_PREDICTIONS_DIR
    return _build_mounts(deployment, config=config, predictions=predictions, owner="shadow-")


def _build_mounts(
    deployment: ModelDeployment, *, config: RuntimeConfig, predictions: str, owner: str = ""
) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": "config", "mountPath": names.CONFIG_DIR, "readOnly": True},
        {"name": "flags", "mountPath": names.FLAGS_DIR, "readOnly": True},
        {"name": f"{owner}models", "mountPath": names.MODELS_DIR},
        {"name": f"{owner}tmp", "mountPath": "/tmp"},  # noqa: S108 the container's own, on a volume of its own
    ]
    if _log_on_disk(config) is not None:
        mounts.append({"name": f"{owner}predictions", "mountPath": predictions})
    if deployment.spec.source.uri.startswith(CLAIM_SCHEME):
        mounts.append({"name": "source", "mountPath": names.SOURCE_DIR, "readOnly": True})
    if has_sidecar(deployment):
        mounts.append({"name": _SOCKET, "mountPath": names.SHADOW_DIR})
    return mounts


def _log_on_disk(config: RuntimeConfig) -> PredictionLog | None:
    """Return the prediction log where it needs disk: for good, or until its records are sent."""
    log = config.prediction_log
    return None if log is None or log.sink == PredictionSink.STDOUT.value else log


def _size_limit(log_bytes: int) -> str:
    """Return the volume's limit for a log that takes so many bytes: an eighth and 64Mi more.

    Kubelet evicts a pod whose volume exceeds its limit, so the log, which bounds itself, must never get
    there: the margin is for the segment that is being written, and for what a file system adds.
    """
    return f"{math.ceil((log_bytes * 9 / 8 + _MARGIN_BYTES) / _MEBIBYTE)}Mi"
