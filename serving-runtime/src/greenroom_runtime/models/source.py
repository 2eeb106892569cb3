"""Where bundles come from: a directory, or an S3 bucket."""

import asyncio
import os
import re
import stat
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import S3Store

from greenroom_runtime.models.failures import (
    NotARegularFileError,
    NotInSourceError,
    SourceUnreachableError,
)

_CONNECT_SECONDS = 5
_READ_SECONDS = 60
"""For one range of a file; the longest that a silent peer holds up a version."""

_OF_THIS_ATTEMPT = re.compile(
    r" in [0-9.]+[nµm]?s(, after [^-]*retry_timeout: \w+)?(?=\s+- )|<(RequestId|HostId)>[^<]*</\2>"
)
_CAUSE = re.compile(r'\b(?:message|error): "([^"]+)"')
"""The system's own words, as in ``message: "Connection refused"``."""


class Source(Protocol):
    """One directory a version, read in ranges so that no file is ever held in memory."""

    @property
    def uri(self) -> str:
        """What a person calls it."""

    async def size(self, version: str, path: str) -> int:
        """Return the file's bytes; NotInSourceError without such a file, else SourceUnreachableError."""

    async def read(self, version: str, path: str, *, start: int, length: int) -> bytes:
        """Return at most ``length`` bytes from ``start``; errors as for ``size``."""


class UnsupportedSourceError(ValueError):
    """The URI names no source that this release reads."""


class DirectorySource:
    """``file:///path``: one directory a version."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = root.as_uri()

    async def size(self, version: str, path: str) -> int:
        """Return the file's size in bytes."""
        return await asyncio.to_thread(lambda: self._regular_file(version, path).stat().st_size)

    async def read(self, version: str, path: str, *, start: int, length: int) -> bytes:
        """Return one range of the file."""

        def read() -> bytes:
            with self._regular_file(version, path).open("rb") as file:
                file.seek(start)
                return file.read(length)

        return await asyncio.to_thread(read)

    def _regular_file(self, version: str, path: str) -> Path:
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


class S3Source:
    """``s3://bucket/prefix``, with credentials and endpoint from the usual AWS environment variables."""

    def __init__(self, uri: str, *, environment: Mapping[str, str]) -> None:
        self.uri = uri.rstrip("/")
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
        self._store = S3Store.from_url(
            self.uri,
            config={"endpoint": endpoint} if endpoint else {},
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                "timeout": timedelta(seconds=_READ_SECONDS),
            },
            # Longer waits are the caller's: it says meanwhile, in the report, what it waits for.
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=_READ_SECONDS)},
        )

    async def size(self, version: str, path: str) -> int:
        """Return the object's size in bytes."""
        try:
            meta = await self._store.head_async(f"{version}/{path}")
        except FileNotFoundError as error:
            # An answer to HEAD has no body: only a GET tells a missing bucket from a missing object.
            await self.read(version, path, start=0, length=1)
            message = f"{path} has only just appeared"
            raise SourceUnreachableError(message) from error
        except (BaseError, OSError, ValueError) as error:
            raise _translated(error) from error
        return int(meta["size"])

    async def read(self, version: str, path: str, *, start: int, length: int) -> bytes:
        """Return one range of the object."""
        try:
            return bytes(await self._store.get_range_async(f"{version}/{path}", start=start, length=length))
        except (BaseError, OSError, ValueError) as error:
            raise _translated(error) from error


def _translated(error: Exception) -> Exception:
    text = _told(str(error))[:500]
    if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
        return NotInSourceError(text)
    return SourceUnreachableError(text)


def _told(text: str) -> str:
    """Return what a person needs of obstore's text, in words that the next attempt would say again."""
    told, _, details = text.partition("Debug source:")
    causes = _CAUSE.findall(details)
    line = " ".join(_OF_THIS_ATTEMPT.sub("", told).split()).rstrip(":")
    return f"{line}: {causes[-1]}" if causes else line


def open_source(uri: str, *, environment: Mapping[str, str]) -> Source:
    """Return the source of a URI; UnsupportedSourceError for a scheme that this release does not read."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return DirectorySource(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return S3Source(uri, environment=environment)
    message = f"{uri!r} is no source: use s3://BUCKET/PREFIX or file:///PATH"
    raise UnsupportedSourceError(message)
