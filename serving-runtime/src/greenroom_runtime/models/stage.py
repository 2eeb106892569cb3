"""A version on its way to the disk: files that may be half there, to be gone on with later.

``.stage-<version>/files`` becomes the version's directory in one rename. Beside it lies a record of which
bytes were begun: a file is gone on with only while the source says that it is still the same one, and only
since the last boot, because what a crashed machine has left of an unsynced file is anybody's guess.
"""

import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from greenroom_runtime.models.durable import sync_directory, write_synced
from greenroom_runtime.models.source import FileStat

_FILES = "files"
_RECORD = "record.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CHUNK_BYTES = 1024 * 1024


class _Begun(BaseModel):
    """Which bytes a stage holds parts of."""

    model_config = ConfigDict(frozen=True)

    boot: str
    origin: str
    """The digest of the manifest that lists the files; where there is none, their names."""
    parts: dict[str, str] = {}
    """Of each file that was begun, the source's identity."""


@cache
def _boot_id() -> str:
    """Return what this boot is called; where the kernel does not say, this process is all that is trusted."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return secrets.token_hex()


class Stage:
    """One version's unfinished files."""

    def __init__(self, directory: Path, *, origin: str) -> None:
        """Take up what is there if it is of the same origin, else begin anew."""
        self._directory = directory
        self.files = directory / _FILES
        fresh = _Begun(boot=_boot_id(), origin=origin)
        found = self._read_record()
        self._begun = found or fresh
        if (self._begun.boot, self._begun.origin) != (fresh.boot, fresh.origin) or found is None:
            self.discard()
            self._begun = fresh
        self.files.mkdir(parents=True, exist_ok=True)

    def held_bytes(self) -> int:
        """Return what the parts take of the disk."""
        return sum(
            (Path(place) / name).lstat().st_size for place, _, names in os.walk(self.files) for name in names
        )

    def begin(self, path: str, *, found: FileStat) -> Path:
        """Return where the file goes; what is there of other bytes, or of unknown ones, is removed."""
        target = self.files / path
        target.parent.mkdir(parents=True, exist_ok=True)
        same = found.identity and self._begun.parts.get(path) == found.identity
        if not same or target.is_symlink() or (target.exists() and target.stat().st_size > found.size):
            target.unlink(missing_ok=True)
        parts = {**self._begun.parts, path: found.identity}
        self._begun = self._begun.model_copy(update={"parts": parts})
        write_synced(self._directory / _RECORD, self._begun.model_dump_json().encode())
        return target

    def publish(self, path: Path) -> None:
        """Make the files the version's directory, whatever was there before."""
        for directory, _, _ in os.walk(self.files, topdown=False):
            sync_directory(Path(directory))
        if path.exists():  # damaged, or other bytes than the pinned ones
            shutil.rmtree(path)
        self.files.rename(path)
        sync_directory(path.parent)
        self.discard()

    def discard(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _read_record(self) -> _Begun | None:
        with suppress(OSError, ValidationError):
            return _Begun.model_validate_json((self._directory / _RECORD).read_bytes())
        return None


class Part:
    """One file being written; counts and hashes what it holds, what was there before included."""

    def __init__(self, target: Path) -> None:
        self._file = target.open("ab")
        self._sha256 = hashlib.sha256()
        self.held = 0
        """Bytes."""
        with target.open("rb") as before:
            while chunk := before.read(_CHUNK_BYTES):
                self._sha256.update(chunk)
                self.held += len(chunk)

    def append(self, chunk: bytes) -> None:
        """Write and hash more."""
        self._file.write(chunk)
        self._sha256.update(chunk)
        self.held += len(chunk)

    def finish(self) -> str:
        """Wait for the disk and return the SHA-256 in hexadecimal digits."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
