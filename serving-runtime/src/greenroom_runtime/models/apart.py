"""A process of its own for what must not happen in the serving process."""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

_OUTPUT_BYTES = 64 * 1024
_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR")
"""It gets no credentials."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How such a process ended."""

    code: int
    """Negative: the signal that ended it."""
    output: bytes
    errors: str


async def run_apart(module: str, arguments: Sequence[str], *, seconds: float, output_bytes: int) -> Ended:
    """Run ``python -m module`` to its end; TimeoutError after so many seconds. It never outlives this call.

    Of what it says the last ``output_bytes`` are kept, so that a chatty one never fills memory.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        *("--parent", str(os.getpid())),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C is for the serving process
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await asyncio.gather(
                _bounded(process.stdout, output_bytes), _bounded(process.stderr, _OUTPUT_BYTES)
            )
            code = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())
    return Ended(code=code, output=output, errors=errors.decode(errors="replace").strip())


async def _bounded(stream: asyncio.StreamReader | None, most: int) -> bytes:
    kept = b""
    while stream is not None and (chunk := await stream.read(_OUTPUT_BYTES)):
        kept = (kept + chunk)[-most:]
    return kept
