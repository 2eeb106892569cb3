"""What verifying a bundle found: one check a thing that must hold, each passed, failed or not made."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from greenroom_runtime.contract.bundle import Value


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not made, since an earlier one has failed or there is nothing to compare."""


class Part(StrEnum):
    """What a check is about."""

    FILES = "files"
    """Every file is there, with the digest that ``bundle.json`` says."""
    PROOF = "proof"
    """What a pod does before the version may answer, in a process of its own."""
    GOLDEN = "golden samples"
    """The graph answers each golden sample as the training pipeline did."""
    PIPELINE = "pipeline"
    """So does the code that it was verified against."""
    HOSTILE = "hostile rows"
    """Graph and code agree on rows that seek trouble."""
    PREPROCESSING = "preprocessing"
    """A function gives the preprocessed features that the golden samples hold."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One value that is not what it should be."""

    where: str
    """``prediction``, ``probability of 'Gentoo'`` or ``preprocessed[3]``."""
    expected: Value
    found: Value
    error: float | None = None
    """How far apart two numbers are; None where that means nothing."""

    def __str__(self) -> str:
        apart = "" if self.error is None else f", {self.error:.3g} apart"
        return f"{self.where}: expected {self.expected!r}, found {self.found!r}{apart}"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that must hold."""

    part: Part
    name: str
    outcome: Outcome = Outcome.PASSED
    message: str = ""
    """What is wrong and what to do, or why the check was not made."""
    features: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    """The row that it is about, sensitive values left out."""
    findings: tuple[Finding, ...] = ()
    """The first of the values that differ."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found of one bundle."""

    model: str
    version: str
    checks: tuple[Check, ...]
    causes: tuple[str, ...] = ()
    """What the differences look like the work of; an educated guess each."""

    @property
    def ok(self) -> bool:
        """Tell whether nothing has failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.outcome is Outcome.FAILED)

    def count(self, part: Part) -> Counter[Outcome]:
        """Return how many checks of a part ended how."""
        return Counter(check.outcome for check in self.checks if check.part is part)

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON carries it: failed checks in full, of the others their number."""
        return {
            "model": self.model,
            "version": self.version,
            "verified": self.ok,
            "causes": list(self.causes),
            "checks": {
                str(part): {str(outcome): count for outcome, count in sorted(counts.items())}
                for part in Part
                if (counts := self.count(part))
            },
            "failures": [_failure(check) for check in self.failed],
        }


def _failure(check: Check) -> dict[str, Any]:
    return {
        "part": str(check.part),
        "name": check.name,
        "message": check.message,
        "features": dict(check.features),
        "findings": [
            {
                "where": finding.where,
                "expected": finding.expected,
                "found": finding.found,
                "error": finding.error,
            }
            for finding in check.findings
        ],
    }
