"""A verification as JUnit XML, which every CI shows beside the tests."""

import re
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from greenroom.verification.errors import UnverifiableError
from greenroom.verification.report import Check, Outcome, Verification

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(verification: Verification) -> bytes:
    """Return one test suite, one test case a check."""
    name = f"greenroom.{verification.model}.{verification.version}"
    counts = {outcome: sum(check.outcome is outcome for check in verification.checks) for outcome in Outcome}
    suites = Element("testsuites")
    suite = SubElement(
        suites,
        "testsuite",
        name=_text(name),
        tests=str(len(verification.checks)),
        failures=str(counts[Outcome.FAILED]),
        errors="0",
        skipped=str(counts[Outcome.SKIPPED]),
    )
    for check in verification.checks:
        case = SubElement(suite, "testcase", classname=_text(f"{name}.{check.part}"), name=_text(check.name))
        if check.outcome is Outcome.FAILED:
            failure = SubElement(case, "failure", message=_text(check.message), type=str(check.part))
            failure.text = _text("\n".join(_lines(check, verification)))
        elif check.outcome is Outcome.SKIPPED:
            SubElement(case, "skipped", message=_text(check.message))
    indent(suites)
    document: bytes = tostring(suites, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def write_junit(path: Path, document: bytes) -> None:
    """Write the document, and the directories above it; UnverifiableError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(document)
    except OSError as error:
        raise UnverifiableError(
            f"{path} cannot be written: {error.strerror}: name another with --junit"
        ) from error


def _lines(check: Check, verification: Verification) -> list[str]:
    row = [f"features: {dict(check.features)}"] if check.features else []
    causes = [f"possible cause: {cause}" for cause in verification.causes]
    return [check.message, *map(str, check.findings), *row, *causes]


def _text(text: str) -> str:
    """Return the text without what XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
