"""The pod's report stays within its bound, and the retries within theirs."""

import random

from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.api.admin import encode_report
from greenroom_runtime.contract import report
from greenroom_runtime.contract.evidence import BUCKETS, ArmEvidence, Bitmap, RolloutEvidence
from greenroom_runtime.contract.report import Failure, FailureReason, PodReport, VersionReport, VersionState
from greenroom_runtime.models.residents import Backoff

HALF = Bitmap(int.from_bytes(random.Random(1).randbytes(BUCKETS // 8), "little"))  # noqa: S311 no secret
FULLEST = ArmEvidence(seen=HALF, failed=HALF, timed=HALF, slow=HALF, requests=2**63 - 1, errors=2**63 - 1)
"""What no compressor makes shorter."""


@given(count=st.integers(0, 64), text=st.sampled_from(["", "x", "ü", "\U0001f600", '"', "\n"]))
def test_report_is_bounded_and_keeps_every_state(count: int, text: str) -> None:
    """However long the messages are, the report fits and tells each version's state and reason."""
    failure = Failure(
        reason=FailureReason.CRASHED,
        message=text * 2048,
        file=text * 256,
        expected=text * 512,
        found=text * 512,
    )
    versions = tuple(
        VersionReport(
            name=f"v{number}".ljust(63, "x"),
            state=VersionState.FAILED,
            message=text * 2048,
            digest="sha256:" + "0" * 64,
            failure=failure,
        )
        for number in range(count)
    )
    pod = PodReport(
        pod="p" * 253,
        model="m" * 63,
        flags_error=text * 2048,
        versions=versions,
        evidence=RolloutEvidence(epoch="e" * 200, version="v" * 63, rollout=FULLEST, production=FULLEST),
    )
    encoded = encode_report(pod)
    assert len(encoded) <= report.MAX_BYTES
    told = PodReport.model_validate_json(encoded)
    assert told.evidence == pod.evidence
    assert [(one.name, one.state) for one in told.versions] == [(one.name, one.state) for one in versions]
    assert all(one.failure and one.failure.reason is FailureReason.CRASHED for one in told.versions)


@given(attempt=st.integers(0, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_backoff_is_capped_and_jittered(attempt: int, chance: float) -> None:
    """The wait is a share of the exponential bound, which never exceeds the cap."""
    backoff = Backoff(first=1.0, cap=30.0)
    seconds = backoff.seconds(attempt, chance=chance)
    assert 0 <= seconds <= 30
    assert seconds <= chance * 2.0 ** min(attempt, 60)
