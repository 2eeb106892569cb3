"""The flag store: which version answers whom, as one valid flagd document.

The format is flagd's (https://flagd.dev/schema/v0/flags.json). The flag ``version`` has the routable
versions as variants and the production alias as ``defaultVariant``. flagd allows only scalars in
metadata, hence the lists written as text.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from greenroom_runtime.contract import names
from greenroom_runtime.contract.canonical import canonical_json, content_hash

SCHEMA_URI = "https://flagd.dev/schema/v0/flags.json"
_VERSION = re.compile(names.VERSION_PATTERN)
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")


class FlagDocumentError(ValueError):
    """The document is no flag store that this release understands; the last good one stays in force."""


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
    revision: str = field(init=False, compare=False)
    """The hash that names the document that it was read from, or would be written as; it has no order."""

    def __post_init__(self) -> None:
        """Refuse what no pod could obey."""
        if self.production not in self.resident:
            message = f"production {self.production!r} is not among the resident versions {self.resident!r}"
            raise FlagDocumentError(message)
        for version in self.resident:
            if len(version) > names.VERSION_MAX_LENGTH or not _VERSION.match(version):
                message = f"{version!r} is not a version's name"
                raise FlagDocumentError(message)
        for version, digest in self.digests.items():
            if not _DIGEST.match(digest):
                message = f"the pinned digest of {version!r} is {digest!r}, not sha256: and 64 digits"
                raise FlagDocumentError(message)
        object.__setattr__(self, "revision", _revision(_document(self)))

    def prepares(self, version: str, *, pod: str) -> bool:
        """Tell whether this pod should hold the version now."""
        return version == self.production or (version in self.resident and self.first in ("", pod))


def _document(store: FlagStore) -> dict[str, Any]:
    return {
        "$schema": SCHEMA_URI,
        "flags": {
            "version": {
                "state": "ENABLED",
                "variants": {store.production: store.production},
                "defaultVariant": store.production,
            }
        },
        "metadata": {
            "resident": ",".join(sorted(set(store.resident))),
            "digests": ",".join(f"{version}={digest}" for version, digest in sorted(store.digests.items())),
            "first": store.first,
            "previous": store.previous,
            "attempt": store.attempt,
        },
    }


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


class _Flags(_Part):
    version: _Flag


class _Metadata(_Part):
    revision: str = ""
    resident: str
    digests: str = ""
    first: str = ""
    previous: str = ""
    attempt: str = ""


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
    flag, metadata = document.flags.version, document.metadata
    production = flag.variants.get(flag.default_variant)
    if production is None:
        message = f"flags.version.defaultVariant {flag.default_variant!r} is none of its variants"
        raise FlagDocumentError(message)
    store = FlagStore(
        production=production,
        resident=tuple(filter(None, metadata.resident.split(","))),
        digests=MappingProxyType(_parse_digests(metadata.digests)),
        first=metadata.first,
        previous=metadata.previous,
        attempt=metadata.attempt,
    )
    try:
        revision = _revision(json.loads(text))
    except ValueError as error:  # NaN, or a number beyond all floats, in a part that is not ours
        message = f"document: {error}"
        raise FlagDocumentError(message) from error
    if metadata.revision not in ("", revision):
        message = f"metadata.revision is {metadata.revision!r}, but the content's is {revision!r}"
        raise FlagDocumentError(message)
    object.__setattr__(store, "revision", revision)
    return store


def _parse_digests(text: str) -> dict[str, str]:
    digests: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        version, separator, digest = item.partition("=")
        if not separator or version in digests:
            message = f"metadata.digests: {item!r} is not one version=sha256:digest"
            raise FlagDocumentError(message)
        digests[version] = digest
    return digests
