"""Where bundles come from: a directory, an object store, or a web server."""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError

from greenroom_runtime.contract import names
from greenroom_runtime.models.clouds import CLOUD_SCHEMES, open_store, told
from greenroom_runtime.models.failures import (
    ChangedInSourceError,
    NotARegularFileError,
    NotInSourceError,
    SourceUnreachableError,
)
from greenroom_runtime.models.in_place import open_regular

if TYPE_CHECKING:
    from obstore import GetOptions

_WHOLE_FILE = timedelta(days=1)
_CHUNK_BYTES = 1024 * 1024
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")


@dataclass(frozen=True, kw_only=True)
class FileStat:
    """One file as the source has it now."""

    size: int
    """Bytes."""
    identity: str
    """Tells these bytes from others under the same name (an ETag); empty where the source cannot."""


class Source(Protocol):
    """One directory a version, whose files are read as streams so that none is ever held in memory."""

    @property
    def uri(self) -> str:
        """What a person calls it."""

    async def stat(self, version: str, path: str) -> FileStat:
        """Describe a file; NotInSourceError without such a file, else SourceUnreachableError."""

    def stream(self, version: str, path: str, *, start: int, begun: FileStat) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from ``start``, which is less than the size.

        Errors as for ``stat``, and ChangedInSourceError where it is no longer the file that was ``begun``.
        """


class UnsupportedSourceError(ValueError):
    """The URI names no source that this release reads."""


class DirectorySource:
    """``file:///path``: one directory a version."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = root.as_uri()

    async def stat(self, version: str, path: str) -> FileStat:
        """Describe a file."""
        found = await asyncio.to_thread(lambda: self.locate(version, path).stat())
        return _file_stat(found)

    async def stream(
        self, version: str, path: str, *, start: int, begun: FileStat
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from ``start``."""
        file, found = await asyncio.to_thread(self._open, version, path)
        with file:
            if found != begun:
                raise ChangedInSourceError(path)
            file.seek(start)
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield chunk
            if _file_stat(await asyncio.to_thread(os.fstat, file.fileno())) != begun:
                raise ChangedInSourceError(path)

    def _open(self, version: str, path: str) -> tuple[BufferedReader, FileStat]:
        file = open_regular(self.locate(version, path))
        return file, _file_stat(os.fstat(file.fileno()))

    def locate(self, version: str, path: str) -> Path:
        """Return where the file really lies; NotARegularFileError outside of the version's directory."""
        if not self.root.is_dir():
            message = f"the directory {self.root} does not exist"
            raise SourceUnreachableError(message)
        bundle = (self.root / version).resolve()
        try:
            file = (bundle / path).resolve(strict=True)
            mode = file.stat().st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotInSourceError(str(error)) from error
        except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
            raise SourceUnreachableError(str(error)) from error
        if not file.is_relative_to(bundle) or not stat.S_ISREG(mode):
            message = f"{version}/{path} leads to {file}, which is no regular file inside the bundle"
            raise NotARegularFileError(message)
        if not os.access(file, os.R_OK):
            message = f"{file} may not be read by user {os.geteuid()}"
            raise SourceUnreachableError(message)
        return file


def _file_stat(found: os.stat_result) -> FileStat:
    identity = f"{found.st_ino}-{found.st_mtime_ns}-{found.st_ctime_ns}"
    return FileStat(size=found.st_size, identity=identity)


class ObjectStoreSource:
    """``s3://``, ``gs://`` or ``az://``, with bucket and prefix."""

    def __init__(self, uri: str, *, environment: Mapping[str, str]) -> None:
        """ValueError for a store that cannot be opened."""
        self.uri = uri.rstrip("/")
        self._store = open_store(uri, environment=environment, longest=_WHOLE_FILE)

    async def stat(self, version: str, path: str) -> FileStat:
        """Describe an object."""
        name = f"{version}/{path}"
        try:
            return _object_stat(await self._store.head_async(name))
        except FileNotFoundError:
            pass
        except (BaseError, OSError, ValueError) as error:
            raise _translated(error) from error
        try:  # an answer to HEAD has no body: only a GET tells a missing bucket from a missing object
            await self._store.get_range_async(name, start=0, length=1)
        except (BaseError, OSError, ValueError) as error:
            raise _translated(error) from error
        message = f"{path} has only just appeared"
        raise SourceUnreachableError(message)

    async def stream(
        self, version: str, path: str, *, start: int, begun: FileStat
    ) -> AsyncGenerator[bytes, None]:
        """Yield the object's bytes; a cut connection is taken up again while few retries suffice."""
        try:
            rest: GetOptions = {"range": {"offset": start}} if start else {}
            found = await self._store.get_async(f"{version}/{path}", options=rest)
            if _object_stat(found.meta) != begun:
                raise ChangedInSourceError(path)
            async for chunk in found.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)
        except (BaseError, OSError, ValueError) as error:
            raise _translated(error) from error


def _object_stat(meta: Mapping[str, Any]) -> FileStat:
    modified: datetime = meta["last_modified"]
    dated = modified.isoformat() if modified > datetime.fromtimestamp(0, UTC) else ""
    return FileStat(size=int(meta["size"]), identity=meta["e_tag"] or dated)


def _translated(error: Exception) -> Exception:
    text = told(error)
    if isinstance(error, FileNotFoundError) and not any(words in text for words in _NO_BUCKET):
        return NotInSourceError(text)
    return SourceUnreachableError(text)


def open_source(uri: str, *, environment: Mapping[str, str]) -> Source:
    """Return the source of a URI; UnsupportedSourceError for one that this release does not read."""
    parts = urlsplit(uri)
    if parts.scheme == "pvc":
        message = (
            f"{uri!r} names a PersistentVolumeClaim, which only the operator can mount: it gives its pods "
            f"file://{names.SOURCE_DIR} instead; elsewhere use file:///PATH"
        )
        raise UnsupportedSourceError(message)
    if parts.username is not None or parts.query or parts.fragment:
        # Without the URI, here and below: this is told in the pod's log, and it may hold a password.
        message = "the source's URI has credentials, '?' or '#': credentials come from the environment"
        raise UnsupportedSourceError(message)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return DirectorySource(Path(unquote(parts.path)))
    if parts.scheme in CLOUD_SCHEMES and parts.netloc:
        try:
            return ObjectStoreSource(uri, environment=environment)
        except ValueError as error:
            message = f"{uri!r} cannot be opened: {error}"
            raise UnsupportedSourceError(message) from error
    if parts.scheme in ("https", "http") and parts.hostname:
        # Imported by those who need it: an HTTP client and its TLS cost a tenth of a second.
        from greenroom_runtime.models.web_source import WebSource  # noqa: PLC0415

        return WebSource(uri)
    message = (
        "the source's URI names no source: use s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, "
        "az://CONTAINER/PREFIX, https://HOST/PATH or file:///PATH"
    )
    raise UnsupportedSourceError(message)
