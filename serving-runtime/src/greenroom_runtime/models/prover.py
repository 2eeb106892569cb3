"""Start a trial, bound it, and say what its end means."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from greenroom_runtime.contract.config import Proof
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.store import StoredBundle
from greenroom_runtime.models.trial import TrialResult

_OUTPUT_BYTES = 64 * 1024
_SMALLEST_TRIAL_BYTES = 96 * 1024 * 1024
"""Interpreter, numpy and onnxruntime alone need 80 MB of data."""
_MEMORY_SHARE = 0.9
"""Of the container's limit; the rest is for page tables, sockets and tmpfs."""
_STARVED = ("MemoryError", "bad_alloc", "ImportError", "SystemError")
"""How libraries die of a data limit."""
_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR")
"""The trial gets no credentials."""


async def prove(bundle: StoredBundle, *, proof: Proof) -> TrialResult:
    """Prove the bundle in a process of its own; VersionError says why it may not be served."""
    memory = _memory_for_trial(proof, version=bundle.version)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "greenroom_runtime.models.trial"),
        *("--bundle", str(bundle.path)),
        *("--golden", proof.golden),
        *("--parent", str(os.getpid())),
        *(("--memory-bytes", str(memory)) if memory is not None else ()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C is for the serving process
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    )
    try:
        async with asyncio.timeout(proof.trial_seconds):
            output, errors = await asyncio.gather(_bounded(process.stdout), _bounded(process.stderr))
            code = await process.wait()
    except TimeoutError:
        message = f"the trial did not end within {proof.trial_seconds:g} s: the model loops or is slow"
        raise VersionError(FailureReason.TRIAL_TIMEOUT, message) from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())
    return _judge(code, output, errors.decode(errors="replace").strip(), limited=memory is not None)


def _judge(code: int, output: bytes, errors: str, *, limited: bool) -> TrialResult:
    if code == 0:
        try:
            result = TrialResult.model_validate_json(output)
        except ValidationError:
            message = f"the trial ended without a result; its last words: {errors[-500:] or 'none'}"
            raise VersionError(FailureReason.CRASHED, message) from None
        if result.failure is not None:
            raise VersionError.of(result.failure)
        return result
    ended = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    last_words = errors[-500:] or "none"
    starved = limited and any(word in errors for word in _STARVED)
    if code == -signal.SIGKILL or starved:
        message = (
            f"the trial was ended {ended}, most likely for want of memory: raise resources.limits.memory "
            f"or use a smaller model; its last words: {last_words}"
        )
        raise VersionError(FailureReason.OUT_OF_MEMORY, message)
    message = f"the trial process was ended {ended} by the model; its last words: {last_words}"
    raise VersionError(FailureReason.CRASHED, message, found=ended)


async def _bounded(stream: asyncio.StreamReader | None) -> bytes:
    """Read to the end and keep the last part, so that a chatty trial never blocks nor fills memory."""
    kept = b""
    while stream is not None and (chunk := await stream.read(_OUTPUT_BYTES)):
        kept = (kept + chunk)[-_OUTPUT_BYTES:]
    return kept


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
