"""The pod's own bundles: fetched or linked, checked against their digests, then renamed into place.

``<directory>/<version>/`` is a whole, verified bundle or does not exist. The aliases ``production``
and ``previous`` are symbolic links beside them, replaced in one step; whoever reads through one
resolves it once.

A version comes in three kinds, told apart by what is published: ``bundle.json``; an MLflow ``MLmodel``; or
``model.onnx`` alone. The last two get a ``bundle.json`` here, made of what their files say.

Of a mounted source, small files are copied, because nothing can change a copy, and large ones linked, because
a disk holds them once: :mod:`greenroom_runtime.models.in_place` makes sure of these when they are loaded.
"""

import asyncio
import errno
import fcntl
import hashlib
import shutil
from collections.abc import Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

from greenroom_runtime.contract import names
from greenroom_runtime.contract.bundle import BUNDLE_FILE, GOLDEN_FILE, MODEL_FILE, Bundle, BundleFile
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.durable import write_synced
from greenroom_runtime.models.failures import (
    ChangedInSourceError,
    NotARegularFileError,
    NotInSourceError,
    SourceUnreachableError,
    VersionError,
)
from greenroom_runtime.models.foreign import MLMODEL_BYTES, MLMODEL_FILE, describe
from greenroom_runtime.models.in_place import open_regular
from greenroom_runtime.models.manifest import digest_of, digest_of_files, parse_manifest
from greenroom_runtime.models.session import neutral_row
from greenroom_runtime.models.source import DirectorySource, FileStat, Source
from greenroom_runtime.models.stage import Part, Stage

COPIED_BYTES = 64 * 1024 * 1024
"""Largest file of a mounted source that is copied rather than linked."""
_MANIFEST_BYTES = 16 * 1024 * 1024
"""Largest ``bundle.json``."""
_SPARE_BYTES = 16 * 1024 * 1024
"""Left free on the disk when a bundle is stored."""
_LOCK = ".lock"
_STAGE = ".stage-"
_LOADING = ".loading-"
_MADE_HERE = ".made-here"
"""Beside a ``bundle.json`` that was not published but made. No file of a bundle may begin with a dot."""


class StoreError(Exception):
    """The store's directory cannot be used; the process cannot start."""


@dataclass(frozen=True, kw_only=True)
class StoredBundle:
    """A version whose every file is here and has the digest that its ``bundle.json`` says."""

    version: str
    path: Path
    digest: str
    """``sha256:…`` of ``bundle.json``; without a published one, of the files' own digests."""
    bundle: Bundle


class BundleStore:
    """The directory of one serving process; a second process on it is refused."""

    def __init__(self, directory: Path, *, source: Source, copied_bytes: int = COPIED_BYTES) -> None:
        self._directory = directory
        self._source = source
        self._copied_bytes = copied_bytes
        self._loading: set[str] = set()
        try:
            if isinstance(source, DirectorySource):
                _refuse_overlap(directory.resolve(), source.root.resolve())
            directory.mkdir(parents=True, exist_ok=True)
            _refuse_others_bundles(directory)
            self._lock = (directory / _LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"{directory} is in use by another serving process: give each its own models_dir"
            raise StoreError(message) from error
        except OSError as error:
            message = f"{directory} cannot hold bundles: {error}; mount a writable volume there"
            raise StoreError(message) from error

    def close(self) -> None:
        """Let another process have the directory."""
        self._lock.close()

    async def obtain(self, version: str, *, pinned: str | None) -> StoredBundle:
        """Return the verified bundle, from the directory where it has it and else from the source.

        VersionError says what is wrong with the version; SourceUnreachableError that the source
        does not answer. A published bundle whose digest is not the ``pinned`` one is never fetched. What was
        fetched before a source fell silent, or this process died, is kept and gone on with.
        """
        if version in (names.ALIAS_PRODUCTION, names.ALIAS_PREVIOUS):
            message = f"{version!r} is an alias and cannot be a version's name"
            raise VersionError(FailureReason.INVALID_BUNDLE, message)
        stored = await self._stored(version, pinned=pinned)
        if stored is not None:
            return stored
        try:
            return await self._fetch(version, pinned=pinned)
        except VersionError:
            await self._discard(version)
            raise
        except NotARegularFileError as error:
            await self._discard(version)
            raise VersionError(FailureReason.INVALID_BUNDLE, str(error)) from error
        except (ChangedInSourceError, NotInSourceError) as error:
            message = f"{version} was changed in {self._source.uri} while it was read: {error}"
            raise SourceUnreachableError(message) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                await self._discard(version)
                raise _no_space(version, self._directory, str(error)) from error
            raise

    async def _stored(self, version: str, *, pinned: str | None) -> StoredBundle | None:
        path = self._directory / version
        if not path.is_dir():
            return None
        try:
            raw = await asyncio.to_thread((path / BUNDLE_FILE).read_bytes)
            bundle = parse_manifest(raw, version=version)
            made_here = (path / _MADE_HERE).exists()
            digest = digest_of_files(bundle.files) if made_here else digest_of(raw)
            if pinned and digest != pinned:
                return None
            for file in bundle.files:
                await asyncio.to_thread(_check_file, path / file.path, file)
        except (OSError, VersionError, NotARegularFileError):
            return None  # what is stored is damaged: the source is asked again
        return StoredBundle(version=version, path=path, digest=digest, bundle=bundle)

    async def _fetch(self, version: str, *, pinned: str | None) -> StoredBundle:
        try:
            raw = await self._read_small(version, BUNDLE_FILE, most=_MANIFEST_BYTES)
        except NotInSourceError:
            return await self._fetch_foreign(version, pinned=pinned)
        digest = digest_of(raw)
        _refuse_other_than(pinned, digest, version=version, file=BUNDLE_FILE)
        bundle = parse_manifest(raw, version=version)
        stage = await self._stage(version, origin=digest)
        await self._refuse_when_full(version, {file.path: file.size for file in bundle.files}, stage=stage)
        await asyncio.to_thread(write_synced, stage.files / BUNDLE_FILE, raw)
        for file in bundle.files:
            await self._place_listed(version, file, stage=stage)
        return await self._publish(stage, version=version, digest=digest, bundle=bundle)

    async def _fetch_foreign(self, version: str, *, pinned: str | None) -> StoredBundle:
        """Fetch a version that nobody packaged for us, and write down what it says of itself."""
        found = await self._foreign_files(version)
        stage = await self._stage(version, origin=", ".join(found))
        await self._refuse_when_full(version, {path: one.size for path, one in found.items()}, stage=stage)
        files = []
        for path, stat in found.items():
            sha256, _ = await self._place(version, path, found=stat, stage=stage)
            files.append(BundleFile(path=path, sha256=sha256, size=stat.size))
        for path, stat in found.items():  # no digest ties them together
            if await self._source.stat(version, path) != stat:
                raise ChangedInSourceError(path)
        digest = digest_of_files(files)
        _refuse_other_than(pinned, digest, version=version, file=MODEL_FILE)
        description = await describe(stage.files)
        bundle = Bundle(
            version=version,
            files=tuple(files),
            warmup=(neutral_row(description.signature),),
            **dict(description),
        )
        raw = bundle.model_dump_json(indent=1).encode()
        await asyncio.to_thread(write_synced, stage.files / BUNDLE_FILE, raw)
        await asyncio.to_thread(write_synced, stage.files / _MADE_HERE, b"")
        return await self._publish(stage, version=version, digest=digest, bundle=bundle)

    async def _foreign_files(self, version: str) -> dict[str, FileStat]:
        found: dict[str, FileStat] = {}
        for path in (MLMODEL_FILE, MODEL_FILE):
            with suppress(NotInSourceError):
                found[path] = await self._source.stat(version, path)
        if not found:
            message = (
                f"{self._source.uri}/{version} has no {BUNDLE_FILE}, and neither {MODEL_FILE} nor "
                f"{MLMODEL_FILE}: publish the version, or correct its name"
            )
            raise VersionError(FailureReason.NO_SUCH_VERSION, message, file=BUNDLE_FILE)
        with suppress(NotInSourceError):
            await self._source.stat(version, GOLDEN_FILE)
            message = (
                f"{self._source.uri}/{version} has {GOLDEN_FILE} and no {BUNDLE_FILE}: it is a bundle whose "
                f"publication is not complete; {BUNDLE_FILE} comes last"
            )
            raise VersionError(FailureReason.NO_SUCH_VERSION, message, file=BUNDLE_FILE)
        if MLMODEL_FILE in found and found[MLMODEL_FILE].size > MLMODEL_BYTES:
            raise _too_large(MLMODEL_FILE, found[MLMODEL_FILE].size, most=MLMODEL_BYTES)
        return found

    async def _read_small(self, version: str, path: str, *, most: int) -> bytes:
        begun = await self._source.stat(version, path)
        if begun.size > most:
            raise _too_large(path, begun.size, most=most)
        if not begun.size:
            return b""
        content = b""
        async with aclosing(self._source.stream(version, path, start=0, begun=begun)) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > begun.size:
                    raise ChangedInSourceError(path)
        if len(content) != begun.size:
            raise _cut_off(path, expected=begun.size, found=len(content))
        return content

    async def _place_listed(self, version: str, file: BundleFile, *, stage: Stage) -> None:
        """Put one file that the bundle lists into the stage; VersionError where it is another one."""
        try:
            found = await self._source.stat(version, file.path)
            if found.size != file.size:
                raise _mismatch(
                    file, f"has {found.size} bytes", expected=str(file.size), found=str(found.size)
                )
            sha256, resumed = await self._place(version, file.path, found=found, stage=stage)
            if sha256 != file.sha256 and resumed:  # the fault may lie in what was there
                await asyncio.to_thread((stage.files / file.path).unlink)
                sha256, _ = await self._place(version, file.path, found=found, stage=stage)
        except NotInSourceError as error:
            raise _mismatch(file, "is missing", expected=file.sha256, found="no such file") from error
        if sha256 != file.sha256:
            raise _mismatch(file, "has other content", expected=file.sha256, found=sha256)

    async def _place(self, version: str, path: str, *, found: FileStat, stage: Stage) -> tuple[str, bool]:
        """Copy or link a file into the stage; return its SHA-256, and whether some of it was there before."""
        target = await asyncio.to_thread(stage.begin, path, found=found)
        if isinstance(self._source, DirectorySource) and self._is_linked(path, found.size):
            return await asyncio.to_thread(_link, target, self._source, version, path), False
        part = await asyncio.to_thread(Part, target)
        resumed = bool(part.held)
        try:
            if part.held < found.size:
                stream = self._source.stream(version, path, start=part.held, begun=found)
                async with aclosing(stream) as chunks:
                    async for chunk in chunks:
                        if part.held + len(chunk) > found.size:
                            raise ChangedInSourceError(path)
                        await asyncio.to_thread(part.append, chunk)
            if part.held < found.size:
                raise _cut_off(path, expected=found.size, found=part.held)
            return await asyncio.to_thread(part.finish), resumed
        finally:
            await asyncio.to_thread(part.close)

    def _is_linked(self, path: str, size: int) -> bool:
        mounted = isinstance(self._source, DirectorySource)
        return mounted and size > self._copied_bytes and path != GOLDEN_FILE

    async def _stage(self, version: str, *, origin: str) -> Stage:
        return await asyncio.to_thread(Stage, self._directory / f"{_STAGE}{version}", origin=origin)

    async def _discard(self, version: str) -> None:
        stage = self._directory / f"{_STAGE}{version}"
        await asyncio.to_thread(shutil.rmtree, stage, ignore_errors=True)

    async def _publish(self, stage: Stage, *, version: str, digest: str, bundle: Bundle) -> StoredBundle:
        path = self._directory / version
        await asyncio.to_thread(stage.publish, path)
        return StoredBundle(version=version, path=path, digest=digest, bundle=bundle)

    async def _refuse_when_full(self, version: str, sizes: Mapping[str, int], *, stage: Stage) -> None:
        copied = sum(size for path, size in sizes.items() if not self._is_linked(path, size))
        needed = copied + _SPARE_BYTES - await asyncio.to_thread(stage.held_bytes)
        free = (await asyncio.to_thread(shutil.disk_usage, self._directory)).free
        if needed > free:
            raise _no_space(version, self._directory, f"it needs {needed} bytes and {free} are free")

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

    def forget(self, version: str) -> None:
        """Remove what is stored of a version, so that it is fetched anew."""
        shutil.rmtree(self._directory / version, ignore_errors=True)

    def collect(self, keep: Collection[str]) -> list[str]:
        """Remove each version that is not to be kept, its stage and marker; return the names of those stored.

        Of a linked file only the link goes: the source is never touched.
        """
        removed = []
        for entry in self._directory.iterdir():
            if entry.name.startswith(_STAGE) and entry.name.removeprefix(_STAGE) not in keep:
                shutil.rmtree(entry, ignore_errors=True)
            if entry.name.startswith(_LOADING) and entry.name.removeprefix(_LOADING) not in keep:
                entry.unlink(missing_ok=True)
            if _is_bundle(entry) and entry.name not in keep:
                shutil.rmtree(entry, ignore_errors=True)
                removed.append(entry.name)
        return removed

    def begin_loading(self, version: str) -> None:
        """Leave a marker that outlives a crash of this process; count how often it was left."""
        attempts = self.crashes(version) + 1
        self._loading.add(version)
        write_synced(self._directory / f"{_LOADING}{version}", str(attempts).encode())

    def end_loading(self, version: str) -> None:
        """Remove the marker: this process has survived the version."""
        (self._directory / f"{_LOADING}{version}").unlink(missing_ok=True)
        self._loading.discard(version)

    def crashes(self, version: str) -> int:
        """Return how often this store's process died while it was loading the version."""
        under_way = version in self._loading  # by this process, which lives
        with suppress(OSError, ValueError):
            return int((self._directory / f"{_LOADING}{version}").read_text()) - under_way
        return int((self._directory / f"{_LOADING}{version}").exists() and not under_way)


def _refuse_overlap(directory: Path, root: Path) -> None:
    # The store deletes what is not resident: it must never be somebody's source.
    if directory == root or directory.is_relative_to(root) or root.is_relative_to(directory):
        message = (
            f"models_dir {directory} and the source {root} overlap: give the store a directory of its own"
        )
        raise StoreError(message)


def _refuse_others_bundles(directory: Path) -> None:
    found = sorted(entry.name for entry in directory.iterdir() if _is_bundle(entry))
    if found and not (directory / _LOCK).exists():
        message = (
            f"models_dir {directory} holds {', '.join(found)[:200]}, which no store has put there and this "
            f"one would delete: give the store a directory of its own, or name it as the source"
        )
        raise StoreError(message)


def _is_bundle(entry: Path) -> bool:
    """Tell whether this is something that a store keeps, and deletes when it is not resident."""
    hidden = entry.name.startswith(".")
    return not hidden and entry.is_dir() and not entry.is_symlink() and (entry / BUNDLE_FILE).is_file()


def _refuse_other_than(pinned: str | None, digest: str, *, version: str, file: str) -> None:
    if pinned and digest != pinned:
        message = (
            f"{file} of {version} is not the one that was proven under this name: publish changed "
            f"bytes under a new version, or accept them by the action retry/{version}/NOW"
        )
        raise VersionError(FailureReason.DIGEST_CHANGED, message, file=file, expected=pinned, found=digest)


def _mismatch(file: BundleFile, what: str, *, expected: str, found: str) -> VersionError:
    message = f"{file.path} {what}: publish the version again, whole"
    return VersionError(
        FailureReason.DIGEST_MISMATCH, message, file=file.path, expected=expected, found=found
    )


def _no_space(version: str, directory: Path, detail: str) -> VersionError:
    message = f"no room for {version} in {directory}: {detail}; give the volume more space"
    return VersionError(FailureReason.NO_SPACE, message)


def _too_large(path: str, size: int, *, most: int) -> VersionError:
    message = f"{path} has {size} bytes, more than {most}"
    return VersionError(
        FailureReason.INVALID_BUNDLE, message, file=path, expected=f"at most {most}", found=str(size)
    )


def _cut_off(path: str, *, expected: int, found: int) -> SourceUnreachableError:
    return SourceUnreachableError(f"{path} ended after {found} of {expected} bytes")


def _link(target: Path, source: DirectorySource, version: str, path: str) -> str:
    """Link a file of a mounted source and return its SHA-256."""
    target.unlink(missing_ok=True)
    target.symlink_to(source.locate(version, path))
    return _sha256_of(target)


def _check_file(path: Path, file: BundleFile) -> None:
    found = _sha256_of(path)
    if found != file.sha256:
        raise _mismatch(file, "has other content", expected=file.sha256, found=found)


def _sha256_of(path: Path) -> str:
    with open_regular(path) as stored:
        return hashlib.file_digest(stored, "sha256").hexdigest()
