"""Watch the flag store's file and hand on each valid document."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from greenroom_runtime.contract.flags import FlagDocumentError, FlagStore, parse_flags

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
_MAX_BYTES = 1024 * 1024
"""A ConfigMap holds no more."""


@dataclass(kw_only=True)
class FlagFile:
    """The newest content of the file, and what is wrong with it; the last good document stays in force.

    The content itself is compared: a mount swapped back to an older file is a change too, whatever
    its times say.
    """

    path: Path
    on_document: Callable[[FlagStore], None]
    error: str = ""
    """Why the newest content is refused; empty when it is obeyed."""
    was_read: bool = False
    """Whether the first attempt has been made."""
    refusals: int = 0
    _content: bytes | None = field(default=None)

    async def watch(self) -> None:
        """Poll for ever."""
        while True:
            self.poll()
            await asyncio.sleep(POLL_SECONDS)

    def poll(self) -> None:
        """Read once, and hand on what is new and valid."""
        try:
            content = self._read()
        except FlagDocumentError as error:
            self._content = None
            self._refuse(str(error))
        except OSError as error:
            self._content = None
            self._refuse(f"{self.path}: {error.strerror or error}")
        else:
            if content != self._content:
                self._content = content
                self._take(content)
        self.was_read = True

    def _take(self, content: bytes) -> None:
        try:
            flags = parse_flags(content)
        except FlagDocumentError as error:
            self._refuse(str(error))
            return
        self.error = ""
        log.info("flags", revision=flags.revision, production=flags.production, resident=flags.resident)
        self.on_document(flags)

    def _read(self) -> bytes:
        # kubelet swaps the link `..data` in this directory: resolved once, the file read is whole.
        for _ in range(3):
            try:
                with open(os.path.realpath(self.path), "rb") as file:  # noqa: PTH123 Path.resolve stats each part twice
                    content = file.read(_MAX_BYTES + 1)
            except FileNotFoundError:
                continue
            if len(content) > _MAX_BYTES:
                message = f"{self.path} has more than {_MAX_BYTES} bytes"
                raise FlagDocumentError(message)
            return content
        message = "no such file"
        raise FileNotFoundError(2, message)

    def _refuse(self, error: str) -> None:
        if error != self.error:
            self.error = error
            self.refusals += 1
            log.warning("flags refused, the last good ones stay in force", error=error)
