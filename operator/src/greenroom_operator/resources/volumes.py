"""What a serving pod mounts: configuration, flags, disk of its own, and the claim of a ``pvc://`` source."""

import math
import re
from typing import Any, Final

from greenroom_operator.api.fields import DNS_SUBDOMAIN
from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.predictions import PredictionSink
from greenroom_operator.api.source import CLAIM_SCHEME, SOURCE_SCHEMES
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import PredictionLog, RuntimeConfig

_CLAIM: Final = re.compile(f"(?P<claim>{DNS_SUBDOMAIN})(?P<path>/[^?#%\\s]*)?")
_CLAIM_MAX_LENGTH: Final = 253
_MEBIBYTE: Final = 2**20
_MARGIN_BYTES: Final = 64 * _MEBIBYTE


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
    """Return the volumes of a pod whose process is started with ``config``."""
    volumes: list[dict[str, Any]] = [
        {"name": "config", "configMap": {"name": config_name}},
        {"name": "flags", "configMap": {"name": flags_name}},
        {"name": "models", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if (log := _log_on_disk(config)) is not None:
        limit = _size_limit(log.max_disk_bytes)
        volumes.append({"name": "predictions", "emptyDir": {"sizeLimit": limit}})
    if deployment.spec.source.uri.startswith(CLAIM_SCHEME):
        claim, _ = _split_claim(deployment.spec.source.uri)
        # Read-only here too and not only in the mount: so kubelet does not change the owner of its files.
        volumes.append({"name": "source", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
    return volumes


def build_mounts(deployment: ModelDeployment, *, config: RuntimeConfig) -> list[dict[str, Any]]:
    """Return where the serving container finds the pod's volumes."""
    mounts: list[dict[str, Any]] = [
        {"name": "config", "mountPath": names.CONFIG_DIR, "readOnly": True},
        {"name": "flags", "mountPath": names.FLAGS_DIR, "readOnly": True},
        {"name": "models", "mountPath": names.MODELS_DIR},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 the container's own, on a volume of its own
    ]
    if _log_on_disk(config) is not None:
        mounts.append({"name": "predictions", "mountPath": names.PREDICTIONS_DIR})
    if deployment.spec.source.uri.startswith(CLAIM_SCHEME):
        mounts.append({"name": "source", "mountPath": names.SOURCE_DIR, "readOnly": True})
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
