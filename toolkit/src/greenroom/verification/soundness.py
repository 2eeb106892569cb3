"""Whether a bundle is whole, and whether a pod would take it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from greenroom.verification.errors import UnverifiableError
from greenroom.verification.report import Check, Finding, Outcome, Part
from greenroom.verification.running import run_async
from greenroom_runtime.contract.bundle import BUNDLE_FILE, Bundle
from greenroom_runtime.contract.config import Proof
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.manifest import digest_of, parse_manifest
from greenroom_runtime.models.prover import prove
from greenroom_runtime.models.store import StoredBundle

_CHUNK_BYTES = 1 << 20


def read_bundle(place: Path) -> tuple[Bundle, bytes]:
    """Return what ``bundle.json`` says, and its bytes; UnverifiableError where there is none to go by."""
    try:
        raw = (place / BUNDLE_FILE).read_bytes()
    except OSError as error:
        raise UnverifiableError(
            f"{place} holds no {BUNDLE_FILE} ({error.strerror}): name a bundle's directory, "
            "such as models/churn/v3"
        ) from error
    try:
        version = str(Bundle.model_validate_json(raw).version)
        return parse_manifest(raw, version=version), raw
    except (VersionError, ValueError) as error:
        told = error.failure.message if isinstance(error, VersionError) else f"{BUNDLE_FILE} is no bundle's"
        raise UnverifiableError(f"{place}: {told}: package the model again") from error


def check_files(place: Path, bundle: Bundle) -> Iterator[Check]:
    """Yield a check for each file that the bundle lists."""
    for file in bundle.files:
        try:
            size, digest = _digest(place / file.path)
        except OSError as error:
            message = f"{file.path}: {error.strerror}: copy the bundle as a whole"
            yield Check(part=Part.FILES, name=file.path, outcome=Outcome.FAILED, message=message)
            continue
        findings = tuple(
            Finding(where=where, expected=expected, found=found)
            for where, expected, found in (("size", file.size, size), ("sha256", file.sha256, digest))
            if expected != found
        )
        told = f"{file.path} is not what was packaged: copy the bundle again, or package the model anew"
        yield Check(
            part=Part.FILES,
            name=file.path,
            outcome=Outcome.FAILED if findings else Outcome.PASSED,
            message=told if findings else "",
            findings=findings,
        )


def _digest(path: Path) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()


def prove_apart(place: Path, bundle: Bundle, raw: bytes) -> tuple[Check, FailureReason | None]:
    """Prove it in a process of its own, which alone dies of a crash; return why it is refused."""
    stored = StoredBundle(version=bundle.version, path=place.resolve(), digest=digest_of(raw), bundle=bundle)
    try:
        run_async(prove(stored, proof=Proof(), beside_production=False))
    except VersionError as error:
        failure = error.failure
        shown = (
            () if failure.reason is FailureReason.GOLDEN_MISMATCH else _told(failure.expected, failure.found)
        )
        message = f"{failure.reason}: {failure.message}"
        failed = Check(
            part=Part.PROOF, name="as in a pod", outcome=Outcome.FAILED, message=message, findings=shown
        )
        return failed, failure.reason
    return Check(part=Part.PROOF, name="as in a pod"), None


def _told(expected: str, found: str) -> tuple[Finding, ...]:
    return (Finding(where="graph", expected=expected, found=found),) if expected or found else ()
