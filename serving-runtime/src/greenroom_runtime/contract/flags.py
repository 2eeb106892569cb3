"""The flag store: which version answers whom, as one valid flagd document.

The format is flagd's (https://flagd.dev/schema/v0/flags.json). The flag ``version`` has the routable
versions as variants and the production alias as ``defaultVariant``; a rollout is its ``targeting``, in
JSONLogic with flagd's ``fractional`` (https://flagd.dev/reference/custom-operations/fractional-operation).
flagd allows only scalars in metadata, hence the lists written as text.

There is one way to write a flag store, and every other one is refused: a rule that is understood only in
part would send users to a version that nobody chose for them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as short
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from greenroom_runtime.contract import names
from greenroom_runtime.contract.canonical import canonical_json, content_hash
from greenroom_runtime.contract.flag_forms import (
    BUCKET_END,
    DEFAULT_KEY,
    EPOCH,
    EPOCH_FORM,
    FIELD,
    FIELD_FORM,
    FIELD_PATTERN,
    KEY_OF_TARGETING,
    MAX_VALUE_LENGTH,
    SALT,
    SALT_FORM,
    TARGETING_KEY,
    VALUE,
    VALUE_FORM,
    VERSION,
    WHOLE,
    FlagDocumentError,
    demand_match,
    demand_ratio,
    demand_share,
    demand_unique,
)
from greenroom_runtime.contract.shadow_flag import Shadow, parse_shadow, write_shadow, write_shadow_metadata

__all__ = [
    "BUCKET_END",
    "DEFAULT_KEY",
    "DEFAULT_LATENCY_RATIO",
    "FIELD_PATTERN",
    "MAX_RULES",
    "MAX_VALUES",
    "MAX_VALUE_LENGTH",
    "RULE_NAME_PATTERN",
    "SCHEMA_URI",
    "TARGETING_KEY",
    "WHOLE",
    "FlagDocumentError",
    "FlagStore",
    "Rollout",
    "Rule",
    "Shadow",
    "dump_flags",
    "parse_flags",
]

SCHEMA_URI = "https://flagd.dev/schema/v0/flags.json"
DEFAULT_LATENCY_RATIO = 1.3
MAX_RULES = 32
MAX_VALUES = 100
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
RULE_NAME_PATTERN = "^[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$"
"""It is a header's value, and stands in a list with commas."""
_RULE_NAME = re.compile(RULE_NAME_PATTERN)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Users who get the rollout's version whatever its percentage is."""

    name: str
    """Told in ``X-Version-Reason``: letters, digits, ``-``, ``_`` and ``.``, at most 63."""
    attribute: str
    """The member of the request's context that is looked at; the sticky key's own name is the key itself."""
    values: tuple[str, ...]
    """The rule matches where the attribute, or one item of it if it is a list, is one of these."""

    def __post_init__(self) -> None:
        """Refuse what could not be told, written or matched."""
        demand_match(_RULE_NAME, self.name, what="a rule's name", form="letters, digits and -_. between them")
        demand_match(FIELD, self.attribute, what=f"the attribute of rule {self.name!r}", form=FIELD_FORM)
        if not 0 < len(self.values) <= MAX_VALUES:
            message = f"rule {self.name!r} has {len(self.values)} values, not 1 to {MAX_VALUES}"
            raise FlagDocumentError(message)
        for value in self.values:
            demand_match(VALUE, value, what=f"a value of rule {self.name!r}", form=VALUE_FORM)
        demand_unique(self.values, what=f"rule {self.name!r}: value")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A second version, and the users who are served it: those of the rules, and a share of all others.

    A user's place between 0 and 100 % is a hash of the salt, the version and the user's key: the same in
    every replica and offline, and another one for another version, so that it is not always the same
    people who go first. Whoever has the version keeps it when the percentage is raised.
    """

    version: str
    hundredths: int
    """The share of users in hundredths of a percent: 1,050 is 10.5 %."""
    salt: str
    """``namespace/name`` of the ModelDeployment."""
    key: str = DEFAULT_KEY
    """The field of the request that is sticky. A request without it gets production."""
    rules: tuple[Rule, ...] = ()
    """Looked at before the percentage; the first one that matches is the reason."""
    epoch: str = ""
    """Names what pods are counting now; another epoch starts all counts anew; empty: nothing is counted."""
    latency_ratio: float = DEFAULT_LATENCY_RATIO
    """How much slower than production the rollout's version may answer: what pods call slow depends on it."""

    def __post_init__(self) -> None:
        """Refuse what no router could follow."""
        demand_match(SALT, self.salt, what="the rollout's salt", form=SALT_FORM)
        demand_match(FIELD, self.key, what="the sticky key's name", form=FIELD_FORM)
        demand_share(self.hundredths, what="rollout")
        if len(self.rules) > MAX_RULES:
            message = f"the rollout has {len(self.rules)} rules, more than {MAX_RULES}"
            raise FlagDocumentError(message)
        demand_unique([rule.name for rule in self.rules], what="rule")
        demand_match(EPOCH, self.epoch, what="the rollout's epoch", form=EPOCH_FORM)
        object.__setattr__(self, "latency_ratio", float(self.latency_ratio))  # 2 and 2.0 are written alike
        demand_ratio(self.latency_ratio, what="rollout")

    @property
    def bucket_start(self) -> str:
        """What stands before the sticky key in the text that is hashed."""
        return f"{self.salt}:{self.version}:"


@dataclass(frozen=True, kw_only=True)
class FlagStore:
    """The decisions that travel to running pods without a restart."""

    production: str
    """The version that the alias ``production`` points at."""
    resident: tuple[str, ...]
    """The versions that a pod should hold; production is always among them. Order has no meaning."""
    previous: str = ""
    """What ``production`` was before the last promotion, for an instant way back; empty for none."""
    digests: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The pinned ``sha256:…`` of a version's ``bundle.json``; a version without one is not pinned yet."""
    attempt: str = ""
    """Names the newest preparation, so that a version that is asked for again is another revision."""
    first: str = ""
    """The one pod that prepares versions which are not production; empty means every pod does."""
    rollout: Rollout | None = None
    """None where everybody gets production."""
    shadow: Shadow | None = None
    """None where no requests are mirrored."""
    revision: str = field(init=False, compare=False)
    """The hash that names the document that it was read from, or would be written as; it has no order."""

    def __post_init__(self) -> None:
        """Refuse what no pod could obey."""
        if self.production not in self.resident:
            message = f"production {self.production!r} is not among the resident versions {self.resident!r}"
            raise FlagDocumentError(message)
        for version in self.resident:
            if len(version) > names.VERSION_MAX_LENGTH or not VERSION.fullmatch(version):
                message = f"{version!r} is not a version's name"
                raise FlagDocumentError(message)
        for version, digest in self.digests.items():
            if not _DIGEST.fullmatch(digest):
                message = f"the pinned digest of {version!r} is {digest!r}, not sha256: and 64 digits"
                raise FlagDocumentError(message)
        self._check_rollout()
        if self.shadow is not None and self.shadow.version == self.production:
            message = f"{self.production!r} is production, so there is nothing to shadow"
            raise FlagDocumentError(message)
        object.__setattr__(self, "revision", _revision(_document(self)))

    @property
    def routable(self) -> frozenset[str]:
        """The versions that may answer users."""
        return frozenset({self.production, self.rollout.version} if self.rollout else {self.production})

    def prepares(self, version: str, *, pod: str) -> bool:
        """Tell whether this pod should hold the version now."""
        return version == self.production or (version in self.resident and self.first in ("", pod))

    def _check_rollout(self) -> None:
        if self.rollout is None:
            return
        if self.rollout.version not in self.resident:
            message = (
                f"the rollout's {self.rollout.version!r} is not among the resident versions {self.resident!r}"
            )
            raise FlagDocumentError(message)
        if self.rollout.version == self.production:
            message = f"{self.production!r} is production, so there is nothing to roll out"
            raise FlagDocumentError(message)


def _document(store: FlagStore) -> dict[str, Any]:
    metadata: dict[str, str | float] = {
        "resident": ",".join(sorted(set(store.resident))),
        "digests": ",".join(f"{version}={digest}" for version, digest in sorted(store.digests.items())),
        "first": store.first,
        "previous": store.previous,
        "attempt": store.attempt,
    }
    if store.rollout is not None:
        metadata |= _rollout_metadata(store.rollout)
    if store.shadow is not None:
        metadata |= write_shadow_metadata(store.shadow)
    return {"$schema": SCHEMA_URI, "flags": _flags(store), "metadata": metadata}


def _flags(store: FlagStore) -> dict[str, Any]:
    flags = {"version": _flag(store)}
    return flags if store.shadow is None else {**flags, "shadow": write_shadow(store.shadow)}


def _rollout_metadata(rollout: Rollout) -> dict[str, str | float]:
    metadata: dict[str, str | float] = {
        "key": rollout.key,
        "rules": ",".join(rule.name for rule in rollout.rules),
    }
    if rollout.epoch:
        metadata |= {"epoch": rollout.epoch, "latencyRatio": rollout.latency_ratio}
    return metadata


def _flag(store: FlagStore) -> dict[str, Any]:
    flag: dict[str, Any] = {
        "state": "ENABLED",
        "variants": {version: version for version in store.routable},
        "defaultVariant": store.production,
    }
    if store.rollout is not None:
        flag["targeting"] = _targeting(store.rollout, production=store.production)
    return flag


def _targeting(rollout: Rollout, *, production: str) -> dict[str, Any]:
    branches: list[Any] = []
    for rule in rollout.rules:
        branches += [_condition(rule, key=rollout.key), rollout.version]
    bucket = {"cat": [rollout.bucket_start, KEY_OF_TARGETING, BUCKET_END]}
    # The rollout's version is first, so that its range grows from zero and never leaves anyone behind.
    weights = [[rollout.version, rollout.hundredths], [production, WHOLE - rollout.hundredths]]
    # Asked for a share without a key, flagd logs an error for each request: hence the guard.
    return {"if": [*branches, {"!!": [KEY_OF_TARGETING]}, {"fractional": [bucket, *weights]}, production]}


def _condition(rule: Rule, *, key: str) -> dict[str, Any]:
    """Ask of one value as of a list: ``in`` alone would look for a part of a text."""
    attribute = KEY_OF_TARGETING if rule.attribute == key else {"var": rule.attribute}
    return {"some": [{"merge": [attribute]}, {"in": [{"var": ""}, list(rule.values)]}]}


def _revision(document: dict[str, Any]) -> str:
    """Hash all but the revision itself, parts that only another release knows included."""
    metadata = {name: value for name, value in document["metadata"].items() if name != "revision"}
    return content_hash({**document, "metadata": metadata}, length=16)


def dump_flags(store: FlagStore) -> str:
    """Return the flagd document as canonical text, with its own revision in the metadata."""
    document = _document(store)
    document["metadata"]["revision"] = _revision(document)
    return canonical_json(document)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Flag(_Part):
    model_config = ConfigDict(extra="forbid")  # a rule that is not understood must not be ignored

    state: str = Field(pattern="^ENABLED$")
    variants: dict[str, str]
    default_variant: str = Field(alias="defaultVariant")
    targeting: JsonValue = None


class _Flags(_Part):
    version: _Flag
    shadow: _Flag | None = None


class _Metadata(_Part):
    revision: str = ""
    resident: str
    digests: str = ""
    first: str = ""
    previous: str = ""
    attempt: str = ""
    key: str = ""
    rules: str = ""
    epoch: str = ""
    latency_ratio: float = Field(default=DEFAULT_LATENCY_RATIO, alias="latencyRatio")
    shadow_epoch: str = Field(default="", alias="shadowEpoch")
    shadow_latency_ratio: float = Field(default=DEFAULT_LATENCY_RATIO, alias="shadowLatencyRatio")
    shadow_segments: str = Field(default="", alias="shadowSegments")


class _Document(_Part):
    flags: _Flags
    metadata: _Metadata


def parse_flags(text: str | bytes) -> FlagStore:
    """Read and validate a whole flagd document; FlagDocumentError says what is wrong with it."""
    try:
        document = _Document.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "document"
        message = f"{place}: {first['msg']}"
        raise FlagDocumentError(message) from error
    store = _read(document)
    try:
        raw = json.loads(text, object_pairs_hook=_members)
        revision = _revision(raw)
    except ValueError as error:  # NaN, or a number beyond all floats, in a part that is not ours
        message = f"document: {error}"
        raise FlagDocumentError(message) from error
    for name, flag in _flags(store).items():
        _demand_equal(raw["flags"][name], flag, place=f"flags.{name}")
    if document.metadata.revision not in ("", revision):
        message = f"metadata.revision is {document.metadata.revision!r}, but the content's is {revision!r}"
        raise FlagDocumentError(message)
    object.__setattr__(store, "revision", revision)
    return store


def _read(document: _Document) -> FlagStore:
    flag, metadata = document.flags.version, document.metadata
    production = flag.variants.get(flag.default_variant)
    if production is None:
        message = f"flags.version.defaultVariant {flag.default_variant!r} is none of its variants"
        raise FlagDocumentError(message)
    return FlagStore(
        production=production,
        resident=tuple(filter(None, metadata.resident.split(","))),
        digests=MappingProxyType(_parse_digests(metadata.digests)),
        first=metadata.first,
        previous=metadata.previous,
        attempt=metadata.attempt,
        rollout=_parse_rollout(flag.targeting, metadata),
        shadow=_parse_shadow(document.flags.shadow, metadata),
    )


def _parse_rollout(targeting: JsonValue, metadata: _Metadata) -> Rollout | None:
    """Read what `_targeting` writes. Whether nothing else is there, writing it again will show."""
    match targeting:
        case None if not metadata.key and not metadata.rules and not metadata.epoch:
            return None
        case {
            "if": [
                *branches,
                _,
                {"fractional": [{"cat": [str(start), *_]}, [str(version), int(hundredths)], *_]},
                _,
            ]
        }:
            return Rollout(
                version=version,
                hundredths=int(hundredths),  # `true` is 1 to Python, and another document
                salt=start.removesuffix(f":{version}:"),
                key=metadata.key,
                rules=_parse_rules(branches[::2], metadata),
                epoch=metadata.epoch,
                latency_ratio=metadata.latency_ratio if metadata.epoch else DEFAULT_LATENCY_RATIO,
            )
    message = f"flags.version.targeting {short(targeting)} is no rollout that this release understands"
    raise FlagDocumentError(message)


def _parse_shadow(flag: _Flag | None, metadata: _Metadata) -> Shadow | None:
    if flag is None:
        if metadata.shadow_epoch or metadata.shadow_segments:
            raise FlagDocumentError("metadata tells of a shadow, and there is no flag of this name")
        return None
    return parse_shadow(
        flag.targeting,
        epoch=metadata.shadow_epoch,
        latency_ratio=metadata.shadow_latency_ratio,
        segments=metadata.shadow_segments,
    )


def _parse_rules(conditions: Sequence[JsonValue], metadata: _Metadata) -> tuple[Rule, ...]:
    rule_names = metadata.rules.split(",") if metadata.rules else []
    if len(rule_names) != len(conditions):
        message = (
            f"metadata.rules names {len(rule_names)} rules, flags.version.targeting has {len(conditions)}"
        )
        raise FlagDocumentError(message)
    return tuple(
        _parse_rule(condition, name=name, key=metadata.key)
        for name, condition in zip(rule_names, conditions, strict=True)
    )


def _parse_rule(condition: JsonValue, *, name: str, key: str) -> Rule:
    match condition:
        case {"some": [{"merge": [{"var": str(attribute)}]}, {"in": [_, [*values]]}]}:
            texts = tuple(value for value in values if isinstance(value, str))
            return Rule(name=name, attribute=key if attribute == TARGETING_KEY else attribute, values=texts)
    message = f"flags.version.targeting: rule {short(name)} is {short(condition)}, which is not understood"
    raise FlagDocumentError(message)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that is there twice: which of the two counts is every reader's own choice."""
    demand_unique([name for name, _ in pairs], what="the member")
    return dict(pairs)


def _demand_equal(found: Any, expected: Any, *, place: str) -> None:
    """Name the innermost place where a document differs from the one way to write it."""
    match found, expected:
        case dict(), dict() if found.keys() == expected.keys():
            for name, value in found.items():
                _demand_equal(value, expected[name], place=f"{place}.{name}")
        case list(), list() if len(found) == len(expected):
            for index, value in enumerate(found):
                _demand_equal(value, expected[index], place=f"{place}[{index}]")
        case _ if type(found) is not type(expected) or found != expected:
            message = f"{place} is {short(found)}, where this release understands only {short(expected)}"
            raise FlagDocumentError(message)


def _parse_digests(text: str) -> dict[str, str]:
    digests: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        version, separator, digest = item.partition("=")
        if not separator or version in digests:
            message = f"metadata.digests: {item!r} is not one version=sha256:digest"
            raise FlagDocumentError(message)
        digests[version] = digest
    return digests
