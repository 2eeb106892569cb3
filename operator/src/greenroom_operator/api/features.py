"""Where features are from that a request leaves out."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from greenroom_operator.api.base import ApiModel, Extension, Rule, atomic_list, rules
from greenroom_operator.api.fields import Duration, SecretRef, Timestamp, Word, between
from greenroom_operator.api.source import HOST_PATTERN, URI_MAX_LENGTH

REDIS_PATTERN: Final = (
    f"rediss?://{HOST_PATTERN}(/[0-9]{{1,5}})?|rediss?[+]cluster://{HOST_PATTERN}/?|"
    f"rediss?[+]sentinel://{HOST_PATTERN}(,{HOST_PATTERN})*/[^/?#@\\s]+(/[0-9]{{1,5}})?"
)
REDIS_REMEDY: Final = (
    "must be redis://HOST:PORT/DB, redis+cluster://HOST:PORT or "
    "redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB, or the same with rediss for TLS; credentials belong "
    "into redis.secretRef"
)
COMPUTE_PATTERN: Final = f"https?://{HOST_PATTERN}(/[^#\\s]*)?"
COMPUTE_REMEDY: Final = (
    "must be http:// or https:// with a host, such as http://features.ml/{entity}, without blanks, '#' and "
    "credentials; credentials belong into compute.secretRef"
)
ONE_SOURCE: Final = (
    "features come from somewhere: give redis, compute or both, or remove spec.features and let requests "
    "bring them"
)
ONE_WISH: Final = "give exactly one of service and features: what the Feast server is asked for"
FEAST_ADDRESS: Final = (
    "of a Feast server url is the address alone, such as http://feast.ml:6566: remove {entity}, or feast"
)
MIN_MEMORY: Final = "1Mi"
MAX_MEMORY: Final = "64Gi"
MEMORY_REMEDY: Final = f"must be a quantity between {MIN_MEMORY} and {MAX_MEMORY}, such as 64Mi"

ENTITY_KEY_PATTERN: Final = "[A-Za-z_][A-Za-z0-9_.-]*"
ENTITY_KEY_REMEDY: Final = (
    "must be user_id, or the name of an attribute of the request's context, such as account"
)
BOUNDS: Final = {
    "ttl": ("1s", "24h"),
    "staleFor": ("0s", "168h"),
    "redis.timeout": ("1ms", "5s"),
    "redis.ttl": ("1s", "168h"),
    "compute.timeout": ("1ms", "30s"),
}
"""Of each duration, by its place in ``spec.features``."""

Scalar = Annotated[Any, Extension((("nullable", True), ("x-kubernetes-preserve-unknown-fields", True)))]
"""A number, a text, a boolean or null: no schema of a CRD can say so."""


class FeatureRedis(ApiModel):
    """The layer that the pods share."""

    url: Annotated[
        str,
        Field(max_length=URI_MAX_LENGTH),
        # Without the value: it may hold a password.
        Rule(f"self.matches(r'^({REDIS_PATTERN})$')", REDIS_REMEDY),
    ]
    """redis://HOST:PORT/DB is one server, redis+cluster://HOST:PORT a cluster, found by any of its nodes, and
    redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB the master that sentinels name; rediss is the same over
    TLS."""
    secret_ref: SecretRef | None = None
    """A Secret for this Redis alone: its keys USERNAME and PASSWORD, SENTINEL_PASSWORD, and CA_CERT, the
    certificate of a private authority in PEM. The pod reads it, the operator never does."""
    timeout: Annotated[Duration, between(*BOUNDS["redis.timeout"])] = "20ms"
    """How long a request waits for Redis before it goes on without. Default 20ms."""
    ttl: Annotated[Duration, between(*BOUNDS["redis.ttl"])] = "5m"
    """How old a value in Redis may be. Default 5m."""


class FeastLookup(ApiModel):
    """How a Feast feature server is asked."""

    model_config = ConfigDict(
        json_schema_extra=rules(Rule("has(self.service) != has(self.features)", ONE_WISH))
    )

    service: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The feature service to ask for."""
    features: (
        Annotated[
            tuple[Annotated[str, Field(min_length=3, max_length=512)], ...],
            Field(min_length=1, max_length=1000),
            atomic_list(),
        ]
        | None
    ) = None
    """The features to ask for instead, each as VIEW:FEATURE."""
    join_key: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The entity's join key in Feast. Default: entityKey."""


class FeatureCompute(ApiModel):
    """Where features are computed."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule("!has(self.feast) || !self.url.contains('{entity}')", FEAST_ADDRESS, subject="self.url")
        )
    )

    url: Annotated[
        str,
        Field(max_length=URI_MAX_LENGTH),
        Rule(f"self.matches(r'^{COMPUTE_PATTERN}$')", COMPUTE_REMEDY),
    ]
    """With {entity} in its path or query it is asked for one entity by GET, and answers with an object of its
    features; without, for a list of them by POST. Redirects are not followed."""
    secret_ref: SecretRef | None = None
    """A Secret for this service alone: its key AUTHORIZATION is the header of that name, CA_CERT the
    certificate of a private authority in PEM. The pod reads it, the operator never does."""
    timeout: Annotated[Duration, between(*BOUNDS["compute.timeout"])] = "200ms"
    """How long a request waits for it, all attempts together. Default 200ms."""
    max_attempts: Annotated[int, Field(ge=1, le=5)] = 2
    """How often it is asked for one request, where that may help. Default 2."""
    rate_limit: Annotated[float, Field(ge=1, le=1_000_000)] | None = None
    """Most calls a second that one pod makes. Default: no limit."""
    feast: FeastLookup | None = None
    """Set where url is that of a Feast feature server."""


class Features(ApiModel):
    """Where features are from that a request leaves out."""

    model_config = ConfigDict(
        json_schema_extra=rules(Rule("has(self.redis) || has(self.compute)", ONE_SOURCE))
    )

    entity_key: Annotated[
        str,
        Field(max_length=64),
        Rule(
            f"self.matches(r'^{ENTITY_KEY_PATTERN}$')",
            ENTITY_KEY_REMEDY,
            subject="self",
        ),
    ] = "user_id"
    """What of a request names the entity whose features are fetched: its member user_id, or an attribute of
    its context. Default user_id."""
    ttl: Annotated[Duration, between(*BOUNDS["ttl"])] = "60s"
    """How long a pod keeps features in memory before it asks for them anew. Default 60s."""
    stale_for: Annotated[Duration, between(*BOUNDS["staleFor"])] = "5m"
    """How long after that they may still be used where no source answers. Default 5m."""
    max_entries: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Most entities in one pod's memory. Default 10000."""
    max_memory: Annotated[
        str,
        Field(max_length=32),
        Rule(
            f"isQuantity(self) && !quantity(self).isLessThan(quantity('{MIN_MEMORY}')) && "
            f"!quantity(self).isGreaterThan(quantity('{MAX_MEMORY}'))",
            MEMORY_REMEDY,
            subject="self",
        ),
    ] = "64Mi"
    """What they may take of one pod's memory, such as 64Mi; those that were wanted longest ago make room.
    Default 64Mi."""
    redis: FeatureRedis | None = None
    """The layer that the pods share: asked where memory has nothing."""
    compute: FeatureCompute | None = None
    """Where features are computed: asked where Redis has nothing."""
    defaults: Annotated[dict[str, Scalar], Field(max_length=256)] = Field(default_factory=dict)
    """Values by feature, used for what no source gives: numbers, texts, booleans or null. Without one a
    request that lacks the feature is answered with an error."""


class SourceState(StrEnum):
    """Whether pods ask a source of features."""

    ASKED = "Asked"
    LEFT_ALONE = "LeftAlone"


class FeaturesStatus(ApiModel):
    """Where fetched features come from, of all pods that there are, since each of them started."""

    summary: Word
    """The shares of rows in whole percent, such as memory 92%, redis 6%, compute 2%."""
    memory_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Rows whose features memory had."""
    redis_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Rows whose features Redis had."""
    compute_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Rows whose features were computed for them."""
    stale_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Rows that were given features beyond their time."""
    default_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Rows that needed a default."""
    failed_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Rows that could not be answered, since no source could."""
    redis: SourceState | None = None
    """Asked while every pod asks Redis; LeftAlone while one does not, since it fails."""
    compute: SourceState | None = None
    """The same of where features are computed."""
    pods_failing: Annotated[int, Field(ge=0)] = 0
    """Pods that leave a source alone now."""
    pod: Annotated[str, Field(max_length=253)] | None = None
    """The first of them."""
    error: Annotated[str, Field(max_length=512)] | None = None
    """What it complains of."""
    time: Timestamp
    """When this was last counted: every 30 seconds at most, and when a failure begins or ends."""
