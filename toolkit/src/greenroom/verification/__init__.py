"""Whether a bundle answers as its training pipeline did, and whether today's code does."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from greenroom.verification.errors import SubjectError, UnverifiableError
from greenroom.verification.fetching import fetched
from greenroom.verification.report import Check, Finding, Outcome, Part, Verification
from greenroom.verification.soundness import check_files, prove_apart, read_bundle
from greenroom.verification.verifier import Verifier
from greenroom_runtime.contract.report import FailureReason

__all__ = [
    "Check",
    "Finding",
    "Outcome",
    "Part",
    "SubjectError",
    "UnverifiableError",
    "Verification",
    "verify",
]


def verify(
    bundle: str | Path,
    *,
    against: Any = None,
    preprocessing: Callable[..., Any] | None = None,
    rows: int = 1000,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Verify a bundle: files, the proof that a pod makes, and each golden sample.

    ``bundle`` is its directory, or its URI (``s3://``, ``gs://``, ``az://``, ``https://``), which is read as
    pods read it, with credentials from the environment.

    ``against`` is a fitted pipeline, or a function that takes a DataFrame and returns predictions,
    probabilities or a tuple of both: it must answer the golden samples as they were recorded, and agree with
    the graph on as many hostile ``rows``, made of the samples and ``seed``. ``preprocessing`` takes a
    DataFrame, too, and must give the preprocessed features that the samples hold, exactly. ``say`` is told
    what is under way.

    Raises UnverifiableError where there is no bundle, it cannot be read, or there is nothing in it to compare
    with, and SubjectError where the code to verify against raises. What differs is no error: it is in the
    Verification.
    """
    with fetched(bundle, environment=os.environ, say=say) as place:
        return _verify(place, against, preprocessing, rows=rows, seed=seed, say=say)


def _verify(
    place: Path,
    against: Any,
    preprocessing: Callable[..., Any] | None,
    *,
    rows: int,
    seed: int,
    say: Callable[[str], None],
) -> Verification:
    described, raw = read_bundle(place)
    say("files")
    checks = list(check_files(place, described))
    verification = Verification(model=described.name, version=described.version, checks=tuple(checks))
    if not verification.ok:
        skipped = Check(part=Part.PROOF, name="as in a pod", outcome=Outcome.SKIPPED, message="files differ")
        return Verification(model=described.name, version=described.version, checks=(*checks, skipped))
    say("proof, as in a pod")
    proof, reason = prove_apart(place, described, raw)
    if reason not in (None, FailureReason.GOLDEN_MISMATCH):
        return Verification(model=described.name, version=described.version, checks=(*checks, proof))
    verifier = Verifier.open(place, described, say=say)
    compared, causes = verifier.compare(against, preprocessing, rows=rows, seed=seed)
    return Verification(
        model=described.name,
        version=described.version,
        checks=(*checks, proof, *compared),
        causes=tuple(dict.fromkeys(causes)),
    )
