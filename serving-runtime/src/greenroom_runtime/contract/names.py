"""Ports, paths, headers, labels and environment variables that both sides spell alike."""

from typing import Final

GROUP: Final = "greenroom.dev"

HTTP_PORT: Final = 8080
ADMIN_PORT: Final = 8081
"""Cluster-internal: health, metrics and the report. Never behind the public Service."""
SHADOW_PORT: Final = 8082
"""Of the shadow's supervisor, cluster-internal: its report and its metrics."""
SHADOW_FRAMES_PORT: Final = 8083
"""Where a shadow with pods of its own takes frames, cluster-internal."""

CONFIG_DIR: Final = "/etc/greenroom/config"
CONFIG_FILE: Final = "config.json"
FLAGS_DIR: Final = "/etc/greenroom/flags"
"""A directory mount, never a ``subPath``: kubelet does not refresh those."""
FLAGS_FILE: Final = "flags.json"
MODELS_DIR: Final = "/var/lib/greenroom/models"
"""The pod's own bundle store: one directory a version, and the alias symlinks."""
PREDICTIONS_DIR: Final = "/var/lib/greenroom/predictions"
"""The prediction log's segments, on a volume that outlives a container's crash."""
SHADOW_PREDICTIONS_DIR: Final = "/var/lib/greenroom/shadow-predictions"
"""The segments of the shadow's records, on a volume of their own."""
SHADOW_DIR: Final = "/run/greenroom/shadow"
"""Of the pod's containers in common, in memory: the socket that frames go through."""
SHADOW_SOCKET: Final = f"{SHADOW_DIR}/frames.sock"
SOURCE_DIR: Final = "/mnt/greenroom/source"
"""Where the volume of a ``pvc://`` source is mounted, read-only."""

STARTUP_PATH: Final = "/health/startup"
LIVE_PATH: Final = "/health/live"
READY_PATH: Final = "/health/ready"
REPORT_PATH: Final = "/report"
METRICS_PATH: Final = "/metrics"

HEADER_REQUEST_ID: Final = "X-Request-Id"
HEADER_VERSION: Final = "X-Model-Version"
HEADER_REASON: Final = "X-Version-Reason"
HEADER_FEATURE_SOURCE: Final = "X-Feature-Source"

LABEL_DEPLOYMENT: Final = f"{GROUP}/deployment"
"""On every child and pod: the name of the ModelDeployment that it belongs to."""
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
"""``shadow`` on a shadow's own pods and what belongs to them; serving pods have none."""
COMPONENT_SHADOW: Final = "shadow"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "greenroom"

ANNOTATION_FLAGS_REVISION: Final = f"{GROUP}/flags-revision"
"""On pods: the flag store's revision, and which write of it. A new value has kubelet refresh the volume."""
ANNOTATION_RECONCILE: Final = f"{GROUP}/reconcile"
ANNOTATION_ACTION: Final = f"{GROUP}/action"

ENV_POD_NAME: Final = "GREENROOM_POD_NAME"
ENV_LOG_KEY: Final = "GREENROOM_PREDICTIONS_KEY"
"""Keys the hashes of sensitive features in the prediction log; best from a Secret."""
ENV_LOG_PREFIX: Final = "GREENROOM_PREDICTIONS_"
"""``GREENROOM_PREDICTIONS_NAME`` is NAME for the prediction log alone, and wins over NAME there: so the
credentials of its receiver and of the source never mix."""
ENV_FEATURES_REDIS_PREFIX: Final = "GREENROOM_FEATURES_REDIS_"
"""``…PASSWORD``, ``…USERNAME``, ``…SENTINEL_PASSWORD``, ``…CA_CERT``: for the feature cache's Redis alone."""
ENV_FEATURES_COMPUTE_PREFIX: Final = "GREENROOM_FEATURES_COMPUTE_"
"""``…AUTHORIZATION``, ``…CA_CERT``: for where features are computed alone."""
ENV_MEMORY_LIMIT: Final = "GREENROOM_MEMORY_LIMIT"
"""The shadow container's memory limit in bytes, from the downward API."""
SERVING_CONTAINER: Final = "serving"
SHADOW_CONTAINER: Final = "shadow"

ALIAS_PRODUCTION: Final = "production"
ALIAS_PREVIOUS: Final = "previous"

VERSION_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$"
"""A DNS label, or several joined by dots: ``v2``, ``2026.11.3``. At most 63 characters."""
VERSION_MAX_LENGTH: Final = 63
MODEL_MAX_LENGTH: Final = 63
"""Of a model's name, as a label has it."""
