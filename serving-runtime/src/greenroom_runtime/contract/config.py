"""What a serving pod is started with: immutable, mounted from a hash-named ConfigMap."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from greenroom_runtime.contract import names
from greenroom_runtime.contract.bundle import Value
from greenroom_runtime.contract.canonical import canonical_json, content_hash

SCHEMA_VERSION = 1


class ConfigModel(BaseModel):
    """Base of the configuration's parts: frozen, and tolerant of fields of a newer operator."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Limits(ConfigModel):
    """Bounds on what one request may ask for."""

    body_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    """Largest request body in bytes; a larger one is a 413."""
    concurrency: int = Field(default=256, gt=0)
    """Requests worked on at once; more is a 429."""
    batch_rows: int = Field(default=10_000, gt=0)
    """Most rows in one request to ``/predict/batch`` or ``/v2/…/infer``; more is a 413."""


class Proof(ConfigModel):
    """How a version is proven before it may answer."""

    golden: Literal["Optional", "Required"] = "Optional"
    """``Required`` refuses a bundle without golden samples."""
    trial_seconds: float = Field(default=300.0, gt=0)
    """How long the trial process may take before it is killed and the version is Failed."""
    memory_limit_bytes: int | None = Field(default=None, gt=0)
    """The container's memory limit; None where there is none, and then no version is refused for its size."""


class PredictionLog(ConfigModel):
    """Where the records of predictions go."""

    sink: Literal["Files", "Stdout", "Http", "ObjectStore"] = "Files"
    percent: float = Field(default=100.0, ge=0, le=100)
    """Share of the predictions that are recorded, chosen by request id; errors are recorded all the same."""
    uri: str = ""
    """Where an ``Http`` sink posts (``https://…``), or where an ``ObjectStore`` puts segments (``s3://…``)."""
    directory: str = names.PREDICTIONS_DIR
    """Holds the segments: the log itself for ``Files``, else what waits to be sent."""
    max_disk_bytes: int = Field(default=1024**3, gt=0)
    """What the segments may take of the disk."""
    sensitive: Literal["Hash", "Omit"] = "Hash"
    """What becomes of the features that the signature marks as sensitive."""


class RedisCache(ConfigModel):
    """The feature cache's second layer, which the pods share."""

    url: str
    """``redis://HOST:PORT/DB``, ``rediss://`` with TLS, ``redis+cluster://HOST:PORT`` or
    ``redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB``; each with ``rediss`` for TLS."""
    timeout_seconds: float = Field(default=0.02, gt=0)
    """How long a request waits for it."""
    ttl_seconds: float = Field(default=300.0, gt=0)
    """How old a value may be."""


class Feast(ConfigModel):
    """How a Feast feature server is asked."""

    service: str = ""
    """The feature service; where it is empty ``features`` are asked for."""
    features: tuple[str, ...] = ()
    """Feature references: ``view:feature``."""
    join_key: str
    """The entity's join key in Feast."""


class Compute(ConfigModel):
    """Where features are computed: an HTTP service, or a Feast feature server."""

    url: str
    """With ``{entity}`` in its path or query it is asked for one entity by GET; without, for a list of them
    by POST. Of a Feast server the address."""
    timeout_seconds: float = Field(default=0.2, gt=0)
    """For all attempts together, waits included."""
    max_attempts: int = Field(default=2, ge=1)
    rate_limit: float | None = Field(default=None, gt=0)
    """Most calls a second and pod; None for no limit."""
    feast: Feast | None = None


class FeatureCache(ConfigModel):
    """Where features are from that a request leaves out."""

    entity_key: str = "user_id"
    """The member ``user_id`` of the request, or the attribute of its context that names the entity."""
    ttl_seconds: float = Field(default=60.0, gt=0)
    """How long memory gives what it was given."""
    stale_seconds: float = Field(default=300.0, ge=0)
    """How long after that it may still be used where no source answers."""
    max_entries: int = Field(default=10_000, gt=0)
    max_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """Of memory, estimated, keys included."""
    redis: RedisCache | None = None
    compute: Compute | None = None
    defaults: dict[str, Value] = Field(default_factory=dict)
    """Used for features that no source gives."""


class ShadowConfig(ConfigModel):
    """How requests are mirrored, and how the shadow's answers are compared."""

    address: str = f"unix:{names.SHADOW_SOCKET}"
    """Where frames go: ``unix:PATH``, or ``tcp:HOST:PORT`` of the shadow's own pods."""
    tolerance: float = Field(default=0.1, ge=0)
    """Numbers further apart than this disagree."""
    queue_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    """What requests that wait to be mirrored may keep alive in the serving process, estimated from the sizes
    of their bodies and the numbers of their features."""
    predictions_dir: str = names.SHADOW_PREDICTIONS_DIR
    """Holds the segments of the shadow's own records."""


class RuntimeConfig(ConfigModel):
    """The whole configuration of one serving process."""

    schema_version: int = SCHEMA_VERSION
    """Raised when an older runtime must refuse the document."""
    name: str = Field(max_length=names.MODEL_MAX_LENGTH)
    """The model's name, as in ``/v2/models/{name}``; the ModelDeployment's own."""
    namespace: str = "default"
    source_uri: str
    """Holds one directory a version: ``s3://bucket/prefix``, ``file:///path``."""
    models_dir: str = names.MODELS_DIR
    flags_path: str = f"{names.FLAGS_DIR}/{names.FLAGS_FILE}"
    host: str = "0.0.0.0"  # noqa: S104 a pod serves its cluster; `greenroom serve` sets 127.0.0.1
    http_port: int = Field(default=names.HTTP_PORT, ge=0, le=65535)
    admin_port: int = Field(default=names.ADMIN_PORT, ge=0, le=65535)
    drain_seconds: float = Field(default=5.0, ge=0)
    """How long after SIGTERM the process goes on answering, with ``Connection: close``."""
    limits: Limits = Limits()
    proof: Proof = Proof()
    prediction_log: PredictionLog | None = None
    """None keeps no log."""
    features: FeatureCache | None = None
    """None fetches nothing: requests bring all features."""
    shadow: ShadowConfig | None = None
    """None mirrors nothing."""

    def to_json(self) -> str:
        """Return the canonical text that goes into the ConfigMap."""
        return canonical_json(self.model_dump(mode="json"))

    def content_hash(self) -> str:
        """Return the ten hexadecimal digits that name this configuration's ConfigMap."""
        return content_hash(self.model_dump(mode="json"))


class UnsupportedConfigError(ValueError):
    """The configuration was written for a newer runtime."""


def parse_config(text: str) -> RuntimeConfig:
    """Read a configuration; UnsupportedConfigError for a newer schema, ValueError for a malformed one."""
    config = RuntimeConfig.model_validate_json(text)
    if config.schema_version > SCHEMA_VERSION:
        message = (
            f"the configuration has schema version {config.schema_version}, this runtime reads up to "
            f"{SCHEMA_VERSION}: use a runtime image of the operator's release"
        )
        raise UnsupportedConfigError(message)
    return config
