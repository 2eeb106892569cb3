"""Fields and small parts that custom resources share, each with its bounds and its rules."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from greenroom_operator.api.base import ApiModel, Rule, atomic_list, kubernetes_type, list_map, rules
from greenroom_operator.api.times import DURATION_PATTERN
from greenroom_runtime.contract import names

RESERVED_POD_PREFIXES: Final = (f"{names.GROUP}/", "argocd.argoproj.io/")
"""Keys that the operator, or a tool that watches it, gives a meaning to."""
RESERVED_POD_KEYS: Final = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "pod-template-hash",
)
RESERVED_ENV_PREFIX: Final = "GREENROOM_"

DNS_SUBDOMAIN: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL_KEY = f"^({DNS_SUBDOMAIN}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"
_LABEL_VALUE = "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"


def _matches(pattern: str, *, of: str = "self") -> str:
    return f"{of}.matches(r'{pattern}')"


def _reserved(key: str) -> str:
    prefixes = " || ".join(f"{key}.startsWith('{prefix}')" for prefix in RESERVED_POD_PREFIXES)
    return f"{prefixes} || {key} in {list(RESERVED_POD_KEYS)}"


_KEYS_WELL_FORMED = Rule(
    f"self.all(k, {_matches(_LABEL_KEY, of='k')})",
    "a key is letters, digits, '-', '_' and '.', at most 63 characters, optionally after a DNS prefix and "
    "'/', such as team or example.com/team",
)
_VALUES_WELL_FORMED = Rule(
    f"self.all(k, {_matches(_LABEL_VALUE, of='self[k]')})",
    "a label's value is at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or "
    "digit; longer texts belong into podAnnotations",
)
_KEYS_NOT_RESERVED = Rule(
    f"!self.exists(k, {_reserved('k')})",
    f"keys under {', '.join(RESERVED_POD_PREFIXES)} and {', '.join(RESERVED_POD_KEYS)} are set by Greenroom "
    "and by Argo CD: use your own prefix, such as example.com/team",
)

LabelValue = Annotated[str, Field(max_length=63)]
NodeLabels = Annotated[dict[str, LabelValue], Field(max_length=32), _KEYS_WELL_FORMED, _VALUES_WELL_FORMED]
PodLabels = Annotated[
    dict[str, LabelValue],
    Field(max_length=32),
    _KEYS_WELL_FORMED,
    _VALUES_WELL_FORMED,
    _KEYS_NOT_RESERVED,
]
PodAnnotations = Annotated[
    dict[str, Annotated[str, Field(max_length=4096)]],
    Field(max_length=32),
    _KEYS_WELL_FORMED,
    _KEYS_NOT_RESERVED,
]

ObjectName = Annotated[
    str,
    Field(max_length=253),
    Rule(
        _matches(f"^{DNS_SUBDOMAIN}$"),
        "must be the name of an object in this namespace: lower-case letters, digits, '-' and '.', beginning "
        "and ending with a letter or digit",
        subject="self",
    ),
]
"""The name of a Kubernetes object in the same namespace."""

_ALIASES = [names.ALIAS_PRODUCTION, names.ALIAS_PREVIOUS]

ModelVersion = Annotated[
    str,
    Field(max_length=names.VERSION_MAX_LENGTH),
    Rule(
        f"!(self in {_ALIASES})",
        "this is an alias that Greenroom moves: name the version itself, such as v2",
        subject="self",
    ),
    Rule(
        f"self.matches(r'{names.VERSION_PATTERN}')",
        "a version is the name of its directory under source.uri: lower-case letters, digits, '-' and '.', "
        "such as v2 or 2026.11.3",
        subject="self",
    ),
]
"""The name of a version: of its directory under ``source.uri``."""

Timestamp = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
"""``2026-11-03T09:30:00Z``; a string, so that an unchanged moment is an unchanged text."""

Message = Annotated[str, Field(max_length=2048)]
Word = Annotated[str, Field(max_length=128)]
"""One word for programs, such as a reason."""


_IS_DURATION = f"self != '' && {_matches(DURATION_PATTERN)}"

Duration = Annotated[
    str,
    Field(max_length=32),
    Rule(
        _IS_DURATION,
        "a duration is whole numbers with h, m, s or ms, the largest first, such as 30s, 5m or 1h30m",
        subject="self",
    ),
]
"""What :func:`greenroom_operator.api.times.parse_duration` reads."""


def between(at_least: str, at_most: str, /) -> Rule:
    """Bound a Duration by two others; silent where the text is no duration, which has its own message."""
    return Rule(
        f"!({_IS_DURATION}) || (duration(self) >= duration('{at_least}') "
        f"&& duration(self) <= duration('{at_most}'))",
        f"must be between {at_least} and {at_most}",
        subject="self",
    )


Tolerations = Annotated[
    tuple[Annotated[dict[str, Any], kubernetes_type("Toleration")], ...],
    Field(max_length=32),
    atomic_list(),
]
TopologySpreadConstraints = Annotated[
    tuple[Annotated[dict[str, Any], kubernetes_type("TopologySpreadConstraint")], ...],
    Field(max_length=16),
    list_map("topologyKey", "whenUnsatisfiable"),
]
Affinity = Annotated[dict[str, Any], kubernetes_type("Affinity")]

_RESOURCE_KNOWN = (
    "k in ['cpu', 'memory', 'ephemeral-storage'] || k.startsWith('hugepages-') || k.contains('/')"
)

ResourceRequirements = Annotated[
    dict[str, Any],
    kubernetes_type("ResourceRequirements"),
    Rule(
        f"(!has(self.limits) || self.limits.all(k, {_RESOURCE_KNOWN})) && "
        f"(!has(self.requests) || self.requests.all(k, {_RESOURCE_KNOWN}))",
        "a resource is cpu, memory, ephemeral-storage, hugepages-SIZE or a vendor's with its prefix, such as "
        "nvidia.com/gpu",
    ),
    Rule(
        "!has(self.limits) || !has(self.requests) || self.requests.all(k, !(k in self.limits) || "
        "!isQuantity(string(self.requests[k])) || !isQuantity(string(self.limits[k])) || "
        "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
        "a request must not be larger than the limit of the same resource",
    ),
]


class ObjectMeta(ApiModel):
    """What Kubernetes keeps about every object, as far as the operator reads it."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    """Raised by the API server with each change of ``spec``."""
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    """Set once the object is being deleted."""


class SecretRef(ApiModel):
    """A Secret of the same namespace."""

    name: ObjectName
    """The Secret's name, in the same namespace."""


class SecretKeyRef(ApiModel):
    """One key of a Secret of the same namespace."""

    name: ObjectName
    """The Secret's name, in the same namespace."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """The key inside the Secret."""
    optional: bool | None = None
    """Start the pods even where the Secret or the key does not exist."""


class EnvVarSource(ApiModel):
    """Where an environment variable's value comes from."""

    secret_key_ref: SecretKeyRef
    """A key of a Secret in the same namespace; the pod reads it, the operator never does."""


class EnvVar(ApiModel):
    """One environment variable of the serving container."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.value) != has(self.valueFrom)",
                "give exactly one of value and valueFrom.secretKeyRef",
                subject="self.name",
            )
        )
    )

    name: Annotated[
        str,
        Field(max_length=128),
        Rule(
            _matches("^[A-Za-z_][A-Za-z0-9_]*$"),
            "an environment variable's name is letters, digits and '_', not beginning with a digit",
            subject="self",
        ),
        Rule(
            f"!self.startsWith('{RESERVED_ENV_PREFIX}')",
            f"names beginning with {RESERVED_ENV_PREFIX} are Greenroom's own: choose another",
            subject="self",
        ),
    ]
    """The variable's name. Names beginning with GREENROOM_ are Greenroom's own."""
    value: Annotated[str, Field(max_length=4096)] | None = None
    """The value itself; put numbers in quotes."""
    value_from: EnvVarSource | None = None
    """Take the value from a Secret instead."""


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One observation about the object, in the form that Kubernetes' own tools read."""

    type: Annotated[str, Field(max_length=316)]
    """What is observed: Ready, Progressing, Degraded, Reconciling, Stalled."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: int | None = None
    """The metadata.generation that this was observed for."""
    last_transition_time: Timestamp
    """When the status last changed; a new message alone does not move it."""
    reason: Annotated[str, Field(max_length=128)]
    """Why, in one word for programs."""
    message: Annotated[str, Field(max_length=4096)]
    """Why, in a sentence for people, with the remedy where there is one."""
