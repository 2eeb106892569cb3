"""The pod's own copy of its bundles: fetched, checked against their digests, then renamed into place.

``<directory>/<version>/`` is a whole, verified bundle or does not exist. The aliases ``production``
and ``previous`` are symbolic links beside them, replaced in one step; whoever reads through one
resolves it once.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from greenroom_runtime.contract import names
from greenroom_runtime.contract.bundle import (
    BUNDLE_FILE,
    MODEL_FILE,
    SCHEMA_VERSION,
    Bundle,
    BundleFile,
)
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.durable import sync_directory, write_synced
from greenroom_runtime.models.failures import NotARegularFileError, NotInSourceError, VersionError
from greenroom_runtime.models.source import DirectorySource, Source

_CHUNK_BYTES = 8 * 1024 * 1024
_MANIFEST_BYTES = 16 * 1024 * 1024
"""Largest ``bundle.json``."""
_SPARE_BYTES = 16 * 1024 * 1024
"""Left free on the disk when a bundle is stored."""
_STAGE = ".stage-"
_LOADING = ".loading-"


class StoreError(Exception):
    """The store's directory cannot be used; the process cannot start."""


@dataclass(frozen=True, kw_only=True)
class StoredBundle:
    """A version whose every file is here and has the digest that its ``bundle.json`` says."""

    version: str
    path: Path
    digest: str
    """``sha256:…`` of ``bundle.json``."""
    bundle: Bundle


class BundleStore:
    """The directory of one serving process; a second process on it is refused."""

    def __init__(self, directory: Path, *, source: Source) -> None:
        self._directory = directory
        self._source = source
        self._in_use: set[str] = set()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = (directory / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"{directory} is in use by another serving process: give each its own models_dir"
            raise StoreError(message) from error
        except OSError as error:
            message = f"{directory} cannot hold bundles: {error}; mount a writable volume there"
            raise StoreError(message) from error
        if isinstance(source, DirectorySource):
            _refuse_overlap(directory.resolve(), source.root.resolve())
        for leftover in directory.glob(f"{_STAGE}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def close(self) -> None:
        """Let another process have the directory."""
        self._lock.close()

    async def obtain(self, version: str, *, pinned: str | None) -> StoredBundle:
        """Return the verified bundle, from the directory where it has it and else from the source.

        VersionError says what is wrong with the version; SourceUnreachableError that the source
        does not answer. A bundle whose digest is not the ``pinned`` one is never fetched.
        """
        if version in (names.ALIAS_PRODUCTION, names.ALIAS_PREVIOUS):
            message = f"{version!r} is an alias and cannot be a version's name"
            raise VersionError(FailureReason.INVALID_BUNDLE, message)
        stored = await self._stored(version, pinned=pinned)
        if stored is not None:
            return stored
        try:
            return await self._fetch(version, pinned=pinned)
        except NotARegularFileError as error:
            raise VersionError(FailureReason.INVALID_BUNDLE, str(error)) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise _no_space(version, self._directory, str(error)) from error
            raise

    async def _stored(self, version: str, *, pinned: str | None) -> StoredBundle | None:
        path = self._directory / version
        if not path.is_dir():
            return None
        try:
            raw = await asyncio.to_thread((path / BUNDLE_FILE).read_bytes)
            digest = _digest(raw)
            if pinned and digest != pinned:
                return None
            bundle = _parse_bundle(raw, version=version)
            for file in bundle.files:
                await asyncio.to_thread(_check_file, path / file.path, file)
        except (OSError, VersionError):  # what is stored is damaged: the source is asked again
            return None
        return StoredBundle(version=version, path=path, digest=digest, bundle=bundle)

    async def _fetch(self, version: str, *, pinned: str | None) -> StoredBundle:
        raw = await self._fetch_manifest(version)
        digest = _digest(raw)
        if pinned and digest != pinned:
            message = (
                f"{BUNDLE_FILE} of {version} is not the one that was proven under this name: publish changed "
                f"bytes under a new version, or accept them by the action retry/{version}/NOW"
            )
            raise VersionError(
                FailureReason.DIGEST_CHANGED, message, file=BUNDLE_FILE, expected=pinned, found=digest
            )
        bundle = _parse_bundle(raw, version=version)
        self._refuse_when_full(bundle)
        stage = self._directory / f"{_STAGE}{version}"
        await asyncio.to_thread(shutil.rmtree, stage, ignore_errors=True)
        try:
            stage.mkdir()
            await asyncio.to_thread(write_synced, stage / BUNDLE_FILE, raw)
            for file in bundle.files:
                await self._fetch_file(version, file, target=stage / file.path)
            path = await asyncio.to_thread(self._publish, stage, version)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        return StoredBundle(version=version, path=path, digest=digest, bundle=bundle)

    async def _fetch_manifest(self, version: str) -> bytes:
        try:
            size = await self._source.size(version, BUNDLE_FILE)
            if size > _MANIFEST_BYTES:
                message = f"{BUNDLE_FILE} has {size} bytes, more than {_MANIFEST_BYTES}"
                raise VersionError(FailureReason.INVALID_BUNDLE, message, file=BUNDLE_FILE)
            return await self._source.read(version, BUNDLE_FILE, start=0, length=size) if size else b""
        except NotInSourceError as error:
            message = (
                f"{self._source.uri}/{version} has no {BUNDLE_FILE}: publish the version, or correct its name"
            )
            raise VersionError(FailureReason.NO_SUCH_VERSION, message, file=BUNDLE_FILE) from error

    async def _fetch_file(self, version: str, file: BundleFile, *, target: Path) -> None:
        try:
            size = await self._source.size(version, file.path)
            if size != file.size:
                raise _mismatch(file, f"has {size} bytes", expected=str(file.size), found=str(size))
            target.parent.mkdir(parents=True, exist_ok=True)
            sha256 = hashlib.sha256()
            with target.open("xb") as output:
                for start in range(0, size, _CHUNK_BYTES):
                    length = min(_CHUNK_BYTES, size - start)
                    chunk = await self._source.read(version, file.path, start=start, length=length)
                    await asyncio.to_thread(_append, chunk, output=output.write, sha256=sha256.update)
                await asyncio.to_thread(_sync, output.fileno(), output.flush)
        except NotInSourceError as error:
            raise _mismatch(file, "is missing", expected=file.sha256, found="no such file") from error
        if sha256.hexdigest() != file.sha256:
            raise _mismatch(file, "has other content", expected=file.sha256, found=sha256.hexdigest())

    def _publish(self, stage: Path, version: str) -> Path:
        for directory, _, _ in os.walk(stage, topdown=False):
            sync_directory(Path(directory))
        path = self._directory / version
        if path.exists():  # damaged, or other bytes than the pinned ones
            shutil.rmtree(path)
        stage.rename(path)
        sync_directory(self._directory)
        return path

    def _refuse_when_full(self, bundle: Bundle) -> None:
        needed = sum(file.size for file in bundle.files) + _SPARE_BYTES
        free = shutil.disk_usage(self._directory).free
        if needed > free:
            raise _no_space(bundle.version, self._directory, f"it needs {needed} bytes and {free} are free")

    def point_alias(self, alias: str, version: str) -> None:
        """Make ``production`` or ``previous`` a link to the version, in one step; empty removes it."""
        link = self._directory / alias
        if not version:
            link.unlink(missing_ok=True)
            return
        if link.is_symlink() and str(link.readlink()) == version:
            return
        temporary = self._directory / f".{alias}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(version)
        temporary.replace(link)

    def has(self, version: str) -> bool:
        """Tell whether the version is stored."""
        return (self._directory / version / BUNDLE_FILE).is_file()

    def collect(self, keep: Collection[str]) -> list[str]:
        """Remove every stored version that is not to be kept, and its marker; return their names."""
        removed = []
        for entry in self._directory.iterdir():
            if entry.name.startswith(_LOADING) and entry.name.removeprefix(_LOADING) not in keep:
                entry.unlink(missing_ok=True)
            ours = entry.is_dir() and not entry.is_symlink() and (entry / BUNDLE_FILE).is_file()
            if ours and not entry.name.startswith(".") and entry.name not in keep:
                shutil.rmtree(entry, ignore_errors=True)
                removed.append(entry.name)
        return removed

    def begin_loading(self, version: str) -> None:
        """Leave a marker that outlives a crash of this process; count how often it was left."""
        attempts = self.crashes(version) + 1
        write_synced(self._directory / f"{_LOADING}{version}", str(attempts).encode())

    def end_loading(self, version: str) -> None:
        """Remove the marker: this process has survived the version."""
        (self._directory / f"{_LOADING}{version}").unlink(missing_ok=True)

    def crashes(self, version: str) -> int:
        """Return how often this store's process died while it was loading the version."""
        with suppress(OSError, ValueError):
            return int((self._directory / f"{_LOADING}{version}").read_text())
        return 1 if (self._directory / f"{_LOADING}{version}").exists() else 0


def _refuse_overlap(directory: Path, root: Path) -> None:
    # The store deletes what is not resident: it must never be somebody's source.
    if directory == root or directory.is_relative_to(root) or root.is_relative_to(directory):
        message = (
            f"models_dir {directory} and the source {root} overlap: give the store a directory of its own"
        )
        raise StoreError(message)


def _parse_bundle(raw: bytes, *, version: str) -> Bundle:
    invalid = partial(VersionError, FailureReason.INVALID_BUNDLE, file=BUNDLE_FILE)
    try:
        bundle = Bundle.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "document"
        raise invalid(f"{BUNDLE_FILE}: {place}: {first['msg']}") from error
    if bundle.schema_version > SCHEMA_VERSION:
        message = (
            f"{BUNDLE_FILE} has schema version {bundle.schema_version}, this runtime reads up to "
            f"{SCHEMA_VERSION}: use a newer runtime image"
        )
        raise invalid(message)
    if bundle.version != version:
        message = (
            f"{BUNDLE_FILE} says that it is version {bundle.version!r}, not {version!r}: "
            f"package it under the name that it is published as"
        )
        raise invalid(message, expected=version, found=bundle.version)
    paths = [file.path for file in bundle.files]
    if MODEL_FILE not in paths or len(set(paths)) != len(paths) or BUNDLE_FILE in paths:
        message = f"{BUNDLE_FILE} must list {MODEL_FILE}, each file once, and not itself"
        raise invalid(message, found=", ".join(paths))
    return bundle


def _digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def _mismatch(file: BundleFile, what: str, *, expected: str, found: str) -> VersionError:
    message = f"{file.path} {what}: publish the version again, whole"
    return VersionError(
        FailureReason.DIGEST_MISMATCH, message, file=file.path, expected=expected, found=found
    )


def _no_space(version: str, directory: Path, detail: str) -> VersionError:
    message = f"no room for {version} in {directory}: {detail}; give the volume more space"
    return VersionError(FailureReason.NO_SPACE, message)


def _check_file(path: Path, file: BundleFile) -> None:
    with path.open("rb") as stored:
        found = hashlib.file_digest(stored, "sha256").hexdigest()
    if found != file.sha256:
        raise _mismatch(file, "has other content", expected=file.sha256, found=found)


def _append(chunk: bytes, *, output: Callable[[bytes], object], sha256: Callable[[bytes], None]) -> None:
    sha256(chunk)
    output(chunk)


def _sync(descriptor: int, flush: Callable[[], None]) -> None:
    flush()
    os.fsync(descriptor)
