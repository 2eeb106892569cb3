"""Start a trial, bound it, and say what its end means."""

import signal
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from greenroom_runtime.contract.config import Proof
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models import trial
from greenroom_runtime.models.apart import Ended, run_apart
from greenroom_runtime.models.child import Policy
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.store import StoredBundle
from greenroom_runtime.models.trial import TrialResult

_OUTPUT_BYTES = 64 * 1024
_GENTLE_SECONDS = 20.0
"""How long a trial may take on what production leaves of the processor, before it is begun again."""
_SMALLEST_TRIAL_BYTES = 96 * 1024 * 1024
"""Interpreter, numpy and onnxruntime alone need 80 MB of data."""
_MEMORY_SHARE = 0.9
"""Of the container's limit; the rest is for page tables, sockets and tmpfs."""
_STARVED = ("MemoryError", "bad_alloc", "ImportError", "SystemError")
"""How libraries die of a data limit."""


async def prove(bundle: StoredBundle, *, proof: Proof, beside_production: bool = True) -> TrialResult:
    """Prove the bundle in a process of its own; VersionError says why it may not be served.

    ``beside_production`` leaves the processor to whoever else wants it, at first.
    """
    memory = _memory_for_trial(proof, version=bundle.version)
    arguments = (
        *("--bundle", str(bundle.path), "--golden", proof.golden),
        *(("--memory-bytes", str(memory)) if memory is not None else ()),
    )
    run = partial(run_apart, trial.__name__, arguments, output_bytes=_OUTPUT_BYTES)
    try:
        if not beside_production:
            return _judge(
                await run(seconds=proof.trial_seconds, policy=Policy.NICE), limited=memory is not None
            )
        try:
            gentle = min(proof.trial_seconds, _GENTLE_SECONDS)
            ended = await run(seconds=gentle, policy=Policy.IDLE)
        except TimeoutError:
            # It is slow, or production leaves no processor idle: now it gets a share that is its own.
            ended = await run(seconds=proof.trial_seconds, policy=Policy.NICE)
    except TimeoutError:
        message = f"the trial did not end within {proof.trial_seconds:g} s: the model loops or is slow"
        raise VersionError(FailureReason.TRIAL_TIMEOUT, message) from None
    return _judge(ended, limited=memory is not None)


def _judge(ended: Ended, *, limited: bool) -> TrialResult:
    code, errors = ended.code, ended.errors
    if code == 0:
        try:
            result = TrialResult.model_validate_json(ended.output)
        except ValidationError:
            message = f"the trial ended without a result; its last words: {errors[-500:] or 'none'}"
            raise VersionError(FailureReason.CRASHED, message) from None
        if result.failure is not None:
            raise VersionError.of(result.failure)
        return result
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    last_words = errors[-500:] or "none"
    starved = limited and any(word in errors for word in _STARVED)
    if code == -signal.SIGKILL or starved:
        message = (
            f"the trial was ended {how}, most likely for want of memory: raise resources.limits.memory "
            f"or use a smaller model; its last words: {last_words}"
        )
        raise VersionError(FailureReason.OUT_OF_MEMORY, message)
    message = f"the trial process was ended {how} by the model; its last words: {last_words}"
    raise VersionError(FailureReason.CRASHED, message, found=how)


def _memory_for_trial(proof: Proof, *, version: str) -> int | None:
    """Return the data limit in bytes: what the container's limit leaves beside this process."""
    if proof.memory_limit_bytes is None:
        return None
    left = int(proof.memory_limit_bytes * _MEMORY_SHARE) - _anonymous_bytes()
    if left < _SMALLEST_TRIAL_BYTES:
        message = (
            f"the memory limit of {proof.memory_limit_bytes} bytes leaves {max(0, left)} for the trial of "
            f"{version}, which needs {_SMALLEST_TRIAL_BYTES} without the model: raise resources.limits.memory"
        )
        raise VersionError(FailureReason.OUT_OF_MEMORY, message)
    return left


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
