"""The schema at the door: features by name, of their declared types, or findings that say why not.

Two passes: ``fits`` is quick and says yes or no, ``findings`` tells everything that is wrong. A request
that is well pays for the first alone.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

from greenroom_runtime.contract.bundle import Dtype, Feature, Signature, Value

_INT64 = (-(2**63), 2**63 - 1)
_FLOAT32_MAX = 3.4028234663852886e38
_FLOAT64_MAX = 1.7976931348623157e308
_TYPES: dict[Dtype, frozenset[type]] = {
    "float32": frozenset((float, int)),
    "float64": frozenset((float, int)),
    "int64": frozenset((int,)),
    "string": frozenset((str,)),
    "bool": frozenset((bool,)),
}
"""Compared with type(), not isinstance(): in Python a bool is an int."""
_SHOWN_CATEGORIES = 8
_SHOWN_CHARACTERS = 64

Problem = Literal["missing", "unexpected", "mistyped", "unseen", "outside", "notFinite"]
_SPOKEN: dict[Problem, str] = {
    "unseen": "not a known category",
    "outside": "outside of its range",
    "notFinite": "not finite",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One feature that is not as the signature wants it."""

    feature: str
    problem: Problem
    """``unseen`` is a text that is no known category, ``outside`` a number out of its range, ``notFinite``
    NaN or an infinity; each only where the signature refuses it."""
    expected: str = ""
    """The declared type, ``float64 or null``, the categories or the range; empty for an unexpected one."""
    found: str = ""
    """What was given instead, of a sensitive feature its JSON type alone; empty for what is missing or
    unexpected."""


class Door:
    """Checks rows of named features against one signature."""

    def __init__(self, signature: Signature) -> None:
        narrow = {
            name for tensor in signature.tensors if tensor.dtype == "float32" for name in tensor.features
        }
        self._rules = [_Rule.of(feature, narrow=feature.name in narrow) for feature in signature.features]
        self.names = frozenset(feature.name for feature in signature.features)
        self.sensitive = frozenset(feature.name for feature in signature.features if feature.sensitive)
        self._numbers, self._texts, self._others = _split(self._rules)
        self.demands = tuple(map(frozenset, (self._numbers, self._texts, self._others)))
        """Doors that demand the same let the same rows in."""

    def fits(self, features: Mapping[str, Any], *, known: frozenset[str] = frozenset()) -> bool:
        """Tell whether there would be no finding; about 0.1 µs a feature."""
        try:
            for name, types, low, high, nullable in self._numbers:
                value = features[name]
                if (type(value) not in types or not low <= value <= high) and not (
                    value is None and nullable
                ):
                    return False
            for name, categories, nullable in self._texts:
                value = features[name]
                if (type(value) is not str or (categories is not None and value not in categories)) and not (
                    value is None and nullable
                ):
                    return False
            for rule in self._others:
                if rule.problem(features[rule.name]) is not None:
                    return False
        except KeyError:
            return False
        # All of ours are there: as many as ours are ours alone.
        return (
            len(features) == len(self.names)
            or known.issuperset(features)
            or (
                len(features) <= len(self.names) + len(known)
                and known.issuperset(features.keys() - self.names)
            )
        )

    def findings(self, features: Mapping[str, object], *, known: Collection[str] = ()) -> list[Finding]:
        """Return everything that is wrong, in the signature's order, then what nobody knows.

        ``known`` are names that another resident version takes; they are let through.
        """
        findings = []
        for rule in self._rules:
            if rule.name not in features:
                findings.append(Finding(feature=rule.name, problem="missing", expected=rule.type))
                continue
            value = features[rule.name]
            problem = rule.problem(value)
            if problem is not None:
                findings.append(
                    Finding(
                        feature=rule.name,
                        problem=problem,
                        expected=rule.expected(problem),
                        found=_json_type(value) if rule.sensitive else _spelled(value, problem=problem),
                    )
                )
        findings += [
            Finding(feature=name, problem="unexpected")
            for name in features
            if name not in self.names and name not in known
        ]
        return findings

    def complaint(self, features: Mapping[str, object]) -> str:
        """Return what is wrong with the values that are there, empty for nothing; others may be missing.

        It names a feature and shows no value.
        """
        for rule in self._rules:
            if rule.name in features and (problem := rule.problem(features[rule.name])) is not None:
                wrong = _SPOKEN.get(problem, problem)
                found = _json_type(features[rule.name])
                return f"{rule.name!r} is {wrong}, expected {rule.expected(problem)}, found {found}"
        return ""


def in_order(names: Sequence[str]) -> Callable[[Mapping[str, Value]], tuple[Value, ...]]:
    """Return what takes these features' values from a row that fits, in this order."""
    if len(names) > 1:
        return itemgetter(*names)
    (name,) = names
    return lambda row: (row[name],)  # of one name itemgetter makes no tuple


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """What one feature's value may be."""

    name: str
    types: frozenset[type]
    bounds: tuple[float, float]
    """What its tensor can carry without changing what it says."""
    low: float
    high: float
    categories: frozenset[str] | None
    nullable: bool
    not_finite: bool
    sensitive: bool
    type: str
    """Its type, for people."""
    wanted: str
    """Its categories or its range, for people."""

    @classmethod
    def of(cls, feature: Feature, *, narrow: bool) -> "_Rule":
        bounds = _bounds(feature, narrow=narrow)
        low, high = _range(feature)
        refuses_unseen = feature.unseen == "Refuse" and feature.categories is not None
        return cls(
            name=feature.name,
            types=_TYPES[feature.dtype],
            bounds=bounds,
            low=low,
            high=high,
            categories=frozenset(feature.categories or ()) if refuses_unseen else None,
            nullable=feature.nullable,
            not_finite=feature.not_finite and feature.dtype in ("float32", "float64"),
            sensitive=feature.sensitive,
            type=f"{feature.dtype} or null" if feature.nullable else feature.dtype,
            wanted=_wanted(feature),
        )

    def problem(self, value: object) -> Problem | None:
        """Return what is wrong with a value, None where nothing is."""
        if value is None:
            return None if self.nullable else "mistyped"
        if type(value) not in self.types:
            return "mistyped"
        if isinstance(value, str):
            return None if self.categories is None or value in self.categories else "unseen"
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number_problem(value)
        return None

    def _number_problem(self, value: float) -> Problem | None:
        finite = isinstance(value, int) or math.isfinite(value)
        if not finite and not self.not_finite:
            return "notFinite"
        if finite and not self.bounds[0] <= value <= self.bounds[1]:
            return "mistyped"
        return "outside" if value < self.low or value > self.high else None

    def expected(self, problem: Problem) -> str:
        """Say what would be right instead."""
        if problem == "notFinite":
            return f"a finite {self.type}"
        return self.wanted if problem in ("unseen", "outside") else self.type


_Number = tuple[str, frozenset[type], float, float, bool]
_Text = tuple[str, frozenset[str] | None, bool]


def _split(rules: Iterable[_Rule]) -> tuple[tuple[_Number, ...], tuple[_Text, ...], tuple[_Rule, ...]]:
    """Spread the rules out for the quick pass: numbers, texts, and what is seldom and may be slow."""
    numbers: list[_Number] = []
    texts: list[_Text] = []
    others: list[_Rule] = []
    for rule in rules:
        if str in rule.types:
            texts.append((rule.name, rule.categories, rule.nullable))
        elif bool in rule.types or rule.not_finite:
            others.append(rule)
        else:
            low, high = max(rule.low, rule.bounds[0]), min(rule.high, rule.bounds[1])
            numbers.append((rule.name, rule.types, low, high, rule.nullable))
    return tuple(numbers), tuple(texts), tuple(others)


def _bounds(feature: Feature, *, narrow: bool) -> tuple[float, float]:
    if feature.dtype == "int64":
        return _INT64
    bound = _FLOAT32_MAX if narrow or feature.dtype == "float32" else _FLOAT64_MAX
    return -bound, bound


def _range(feature: Feature) -> tuple[float, float]:
    if feature.outside == "Accept":
        return -math.inf, math.inf
    low = -math.inf if feature.minimum is None else feature.minimum
    high = math.inf if feature.maximum is None else feature.maximum
    if feature.dtype != "float32":
        return low, high
    # Training saw rounded numbers: 0.3 in a request is below the float32 that it made of 0.3.
    slack = 2.0**-24
    return (
        low - abs(low) * slack if low > -math.inf else low,
        high + abs(high) * slack if high < math.inf else high,
    )


def _wanted(feature: Feature) -> str:
    null = " or null" if feature.nullable else ""
    if feature.categories is not None:
        if feature.sensitive:
            return f"one of {len(feature.categories)} known categories{null}"
        shown = [json.dumps(text, ensure_ascii=False) for text in feature.categories[:_SHOWN_CATEGORIES]]
        more = len(feature.categories) - len(shown)
        return f"one of {', '.join(shown)}{f' and {more} more' if more else ''}{null}"
    if feature.sensitive:
        return f"a value within its range{null}"
    low = None if feature.minimum is None else f"{feature.minimum:g}"
    high = None if feature.maximum is None else f"{feature.maximum:g}"
    told = f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}"
    return f"{told}{null}"


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {"str": "string", "list": "array", "dict": "object"}.get(type(value).__name__, "unknown")


def _spelled(value: object, *, problem: Problem) -> str:
    """Name the JSON type, with the value where it is short enough to help."""
    if isinstance(value, bool):
        return json.dumps(value)
    if problem == "unseen":
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    kind = _json_type(value)
    return f"number {value!r}"[:_SHOWN_CHARACTERS] if kind == "number" else kind


def describe(findings: Iterable[Finding]) -> str:
    """Return the findings as one line for a person."""
    return "; ".join(
        f"{finding.feature!r} is {_SPOKEN.get(finding.problem, finding.problem)}"
        + (f", expected {finding.expected}" if finding.expected else "")
        + (f", found {finding.found}" if finding.found else "")
        for finding in findings
    )
