"""A process of its own for what must not happen in the serving process."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from greenroom_runtime.models import child
from greenroom_runtime.models.child import Policy

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


async def run_apart(
    module: str,
    arguments: Sequence[str],
    *,
    seconds: float,
    output_bytes: int,
    policy: Policy = Policy.NICE,
) -> Ended:
    """Run ``python -m module`` to its end; TimeoutError after so many seconds. It never outlives this call.

    Of what it says the last ``output_bytes`` are kept, so that a chatty one never fills memory.
    """
    command = [sys.executable, "-m", child.__name__, str(os.getpid()), policy, module, *arguments]
    process = await _start(command)
    try:
        async with asyncio.timeout(seconds):
            output, errors = await asyncio.gather(
                _bounded(process.stdout, output_bytes), _bounded(process.stderr, _OUTPUT_BYTES)
            )
            code = await asyncio.to_thread(process.wait)
    finally:
        process.kill()
        await asyncio.shield(asyncio.to_thread(process.wait))
    return Ended(code=code, output=output, errors=errors.decode(errors="replace").strip())


async def _start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a process without copying this one's page tables, which would stop requests for milliseconds.

    So not by uvloop, which forks: the standard library uses vfork(2) where it can.
    """

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C is for the serving process
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        )

    starting = asyncio.ensure_future(asyncio.to_thread(start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_end)
        raise


def _end(starting: "asyncio.Future[subprocess.Popen[bytes]]") -> None:
    if not starting.cancelled() and starting.exception() is None:
        with starting.result() as process:
            process.kill()


async def _bounded(pipe: IO[bytes] | None, most: int) -> bytes:
    """Read to the end and keep the last part."""
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), pipe
    )
    kept = bytearray()
    try:
        while chunk := await stream.read(_OUTPUT_BYTES):
            kept += chunk
            del kept[:-most]  # copied anew for each piece, megabytes would hold up the event loop
    finally:
        transport.close()
    return bytes(kept)
