"""The schema at the door: features by name, of their declared types, or findings that say why not."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from greenroom_runtime.contract.bundle import Feature, Signature

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_FLOAT32_MAX = 3.4028234663852886e38
_FLOAT64_MAX = 1.7976931348623157e308


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One feature that is not as the signature wants it."""

    feature: str
    problem: Literal["missing", "unexpected", "mistyped"]
    expected: str = ""
    """The declared type, ``float64 or null``; empty for an unexpected feature."""
    found: str = ""
    """What was given instead; only for a mistyped feature."""


class Door:
    """Checks rows of named features against one signature."""

    def __init__(self, signature: Signature) -> None:
        narrow = {
            name for tensor in signature.tensors if tensor.dtype == "float32" for name in tensor.features
        }
        self._features = [
            (feature.name, _accepts(feature, narrow=feature.name in narrow), _expected(feature))
            for feature in signature.features
        ]
        self.names = frozenset(feature.name for feature in signature.features)

    def findings(self, features: Mapping[str, object], *, known: Collection[str] = ()) -> list[Finding]:
        """Return everything that is wrong, in the signature's order, then what nobody knows.

        ``known`` are names that another resident version takes; they are let through.
        """
        findings = []
        for name, accepts, expected in self._features:
            if name not in features:
                findings.append(Finding(feature=name, problem="missing", expected=expected))
            elif not accepts(value := features[name]):
                findings.append(
                    Finding(feature=name, problem="mistyped", expected=expected, found=_spelled(value))
                )
        findings += [
            Finding(feature=name, problem="unexpected")
            for name in features
            if name not in self.names and name not in known
        ]
        return findings


def _expected(feature: Feature) -> str:
    return f"{feature.dtype} or null" if feature.nullable else feature.dtype


def _accepts(feature: Feature, *, narrow: bool) -> Callable[[object], bool]:
    bound = _FLOAT32_MAX if narrow or feature.dtype == "float32" else _FLOAT64_MAX
    checks: dict[str, Callable[[Any], bool]] = {
        # type() rather than isinstance(): in Python a bool is an int.
        "float32": lambda value: type(value) in (float, int) and -bound <= value <= bound,
        "float64": lambda value: type(value) in (float, int) and -bound <= value <= bound,
        "int64": lambda value: type(value) is int and _INT64_MIN <= value <= _INT64_MAX,
        "string": lambda value: type(value) is str,
        "bool": lambda value: type(value) is bool,
    }
    check = checks[feature.dtype]
    if feature.nullable:
        return lambda value: value is None or check(value)
    return check


def _spelled(value: object) -> str:
    """Name the JSON type, with the value where it is short enough to help."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"number {value!r}"[:64]
    return {"str": "string", "list": "array", "dict": "object"}.get(type(value).__name__, "unknown")


def describe(findings: Iterable[Finding]) -> str:
    """Return the findings as one line for a person."""
    return "; ".join(
        f"{finding.feature!r} is {finding.problem}"
        + (f", expected {finding.expected}" if finding.expected else "")
        + (f", found {finding.found}" if finding.found else "")
        for finding in findings
    )
