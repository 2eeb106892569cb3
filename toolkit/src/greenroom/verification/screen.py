"""A verification as a person reads it: what holds in a word, what does not in full."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from greenroom.verification.report import Check, Outcome, Part, Verification

SHOWN = 3
_STYLES = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.SKIPPED: "yellow"}


def draw(verification: Verification, *, every: bool) -> RenderableType:
    """Return the report; of the failures of a part the first few, or ``every`` one."""
    return Group(*_lines(verification, every=every))


def _lines(verification: Verification, *, every: bool) -> Iterator[Text]:
    verdict = ("verified", "bold green") if verification.ok else ("differs", "bold red")
    yield Text.assemble((f"{verification.model} {verification.version} ", "bold"), verdict)
    for part in Part:
        checks = [check for check in verification.checks if check.part is part]
        if checks:
            yield from _part(part, checks, every=every)
    for cause in verification.causes:
        yield Text.assemble(("  possible cause  ", "bold"), cause)


def _part(part: Part, checks: list[Check], *, every: bool) -> Iterator[Text]:
    bad = [check for check in checks if check.outcome is not Outcome.PASSED]
    outcome = next((check.outcome for check in bad), Outcome.PASSED)
    count = f"{len(bad)} of {len(checks)}" if bad else str(len(checks))
    yield Text.assemble("  ", (f"{outcome:8}", _STYLES[outcome]), f"{part}: {count}")
    for check in bad if every else bad[:SHOWN]:
        yield from _check(check)
    if not every and len(bad) > SHOWN:
        yield Text(f"            … {len(bad) - SHOWN} more, shown by --all", style="dim")


def _check(check: Check) -> Iterator[Text]:
    yield Text.assemble("            ", (check.name, "bold"), f"  {check.message}" if check.message else "")
    if check.features:
        told = "  ".join(f"{name}={value!r}" for name, value in check.features.items())
        yield Text(f"              {told}", style="dim")
    for finding in check.findings:
        apart = "" if finding.error is None else f"   ({finding.error:.3g} apart)"
        yield Text.assemble(
            f"              {finding.where}: ",
            "expected ",
            (repr(finding.expected), "green"),
            ", found ",
            (repr(finding.found), "red"),
            (apart, "dim"),
        )
