"""The flag ``shadow``: which version sees traffic that it never answers, and which share of it.

A request's place is a hash of the salt, the version and the request's id, by flagd's ``fractional`` as for a
rollout: so who asks twice with the same id is mirrored twice or not at all, by every pod.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

from pydantic import JsonValue

from greenroom_runtime.contract import names
from greenroom_runtime.contract.flag_forms import (
    BUCKET_END,
    EPOCH,
    EPOCH_FORM,
    FIELD,
    FIELD_FORM,
    KEY_OF_TARGETING,
    SALT,
    SALT_FORM,
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

MAX_SEGMENTS = 32
OFF = "OFF"
"""The variant of requests that are not mirrored; no version has a name with capitals."""


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """A version that sees production's traffic and is never served."""

    version: str
    hundredths: int
    """The share of requests that are mirrored, in hundredths of a percent."""
    salt: str
    """``namespace/name`` of the ModelDeployment."""
    epoch: str
    """Names what is counted now; another epoch starts all counts anew."""
    latency_ratio: float
    """How many times as long as production it may take for a request before it is called slow."""
    segments: tuple[tuple[str, str], ...] = ()
    """Attributes and values whose requests are counted apart; an attribute may be the sticky key's name."""

    def __post_init__(self) -> None:
        """Refuse what no pod could obey."""
        if len(self.version) > names.VERSION_MAX_LENGTH:
            message = f"{short(self.version)} is not a version's name"
            raise FlagDocumentError(message)
        demand_match(VERSION, self.version, what="the shadow's version", form="a version's name")
        demand_match(SALT, self.salt, what="the shadow's salt", form=SALT_FORM)
        demand_share(self.hundredths, what="shadow")
        demand_match(EPOCH, self.epoch, what="the shadow's epoch", form=EPOCH_FORM)
        if not self.epoch:
            raise FlagDocumentError("the shadow has no epoch")
        object.__setattr__(self, "latency_ratio", float(self.latency_ratio))  # 2 and 2.0 are written alike
        demand_ratio(self.latency_ratio, what="shadow")
        if len(self.segments) > MAX_SEGMENTS:
            message = f"the shadow has {len(self.segments)} segments, more than {MAX_SEGMENTS}"
            raise FlagDocumentError(message)
        for attribute, value in self.segments:
            demand_match(FIELD, attribute, what="a segment's attribute", form=FIELD_FORM)
            demand_match(VALUE, value, what=f"a segment's value of {attribute!r}", form=VALUE_FORM)
        demand_unique(_spell_segments(self).split("\n"), what="segment")

    @property
    def bucket_start(self) -> str:
        """What stands before the request's id in the text that is hashed."""
        return f"{self.salt}:shadow:{self.version}:"


def _spell_segments(shadow: Shadow) -> str:
    return "\n".join(f"{attribute}={value}" for attribute, value in shadow.segments)


def write_shadow(shadow: Shadow) -> dict[str, Any]:
    """Return the flag as flagd knows it; who asks for it gives the request's id as targeting key."""
    bucket = {"cat": [shadow.bucket_start, KEY_OF_TARGETING, BUCKET_END]}
    weights = [[shadow.version, shadow.hundredths], [OFF, WHOLE - shadow.hundredths]]
    return {
        "state": "ENABLED",
        "variants": {shadow.version: shadow.version, OFF: ""},
        "defaultVariant": OFF,
        "targeting": {"if": [{"!!": [KEY_OF_TARGETING]}, {"fractional": [bucket, *weights]}, OFF]},
    }


def write_shadow_metadata(shadow: Shadow) -> Mapping[str, str | float]:
    """Return what a document's metadata say of it."""
    told: dict[str, str | float] = {
        "shadowEpoch": shadow.epoch,
        "shadowLatencyRatio": shadow.latency_ratio,
    }
    return told | ({"shadowSegments": _spell_segments(shadow)} if shadow.segments else {})


def parse_shadow(targeting: JsonValue, *, epoch: str, latency_ratio: float, segments: str) -> Shadow:
    """Read what `write_shadow` writes. Whether nothing else is there, writing it again will show."""
    match targeting:
        case {"if": [_, {"fractional": [{"cat": [str(start), *_]}, [str(version), int(hundredths)], *_]}, _]}:
            return Shadow(
                version=version,
                hundredths=int(hundredths),  # `true` is 1 to Python, and another document
                salt=start.removesuffix(f":shadow:{version}:"),
                epoch=epoch,
                latency_ratio=latency_ratio,
                segments=_parse_segments(segments),
            )
    message = f"flags.shadow.targeting {short(targeting)} is no shadow that this release understands"
    raise FlagDocumentError(message)


def _parse_segments(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [line.partition("=") for line in text.split("\n")] if text else []
    return tuple((attribute, value) for attribute, _, value in pairs)
