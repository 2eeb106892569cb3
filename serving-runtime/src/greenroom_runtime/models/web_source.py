"""Bundles from an ordinary web server.

Not through obstore, whose client follows a redirect to any host: where a source may send a pod is decided
by who wrote its URI, so here a redirect leads within the same scheme, host and port or nowhere.
"""

import ipaddress
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from greenroom_runtime.models.clouds import CONNECT_SECONDS, SILENCE_SECONDS
from greenroom_runtime.models.failures import (
    ChangedInSourceError,
    NotInSourceError,
    SourceUnreachableError,
)
from greenroom_runtime.models.source import FileStat, UnsupportedSourceError

_CHUNK_BYTES = 1024 * 1024
_REDIRECTS = 5
_GONE = (404, 410)


class WebSource:
    """``https://host/path``; plain ``http://`` from this pod itself only, since nothing proves its bytes."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        url = URL(self.uri)
        if url.scheme == "http" and not _is_this_pod(url.host or ""):
            message = f"{uri!r} would be read by anybody and altered by anybody on the way: use https://"
            raise UnsupportedSourceError(message)
        self._tls = ssl.create_default_context()  # SSL_CERT_FILE names another authority

    async def stat(self, version: str, path: str) -> FileStat:
        """Describe a file."""
        async with self._answer("HEAD", version, path) as answer:
            return _file_stat(answer, size=answer.content_length)

    async def stream(
        self, version: str, path: str, *, start: int, begun: FileStat
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from ``start``, also from a server that only sends whole files."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with self._answer("GET", version, path, headers=headers) as answer:
            skipped = 0 if answer.status == 206 else start  # noqa: PLR2004 Partial Content
            length = answer.content_length
            size = None if length is None else length + start - skipped
            if _file_stat(answer, size=size) != begun:
                raise ChangedInSourceError(path)
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                yield chunk[skipped:]
                skipped = max(0, skipped - len(chunk))

    @asynccontextmanager
    async def _answer(
        self, method: str, version: str, path: str, *, headers: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        connector = aiohttp.TCPConnector(ssl=self._tls)
        url = URL(f"{self.uri}/{version}/{path}")
        try:
            async with aiohttp.ClientSession(
                connector=connector, timeout=timeout, trust_env=True, auto_decompress=False
            ) as session:
                for _ in range(_REDIRECTS):
                    async with session.request(
                        method,
                        url,
                        headers={"Accept-Encoding": "identity", **(headers or {})},
                        allow_redirects=False,
                    ) as answer:
                        if 300 <= answer.status < 400:  # noqa: PLR2004 Redirection
                            url = _followed(url, answer.headers.get("Location", ""))
                            continue
                        _refuse_error(answer)
                        yield answer
                        return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"{self.uri}: {error or type(error).__name__}"
            raise SourceUnreachableError(message[:500]) from error
        message = f"{self.uri} redirects in circles"
        raise SourceUnreachableError(message)


def _is_this_pod(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _followed(url: URL, location: str) -> URL:
    try:
        target = url.join(URL(location))
        elsewhere = target.origin() != url.origin()
    except ValueError as error:
        message = f"{url.origin()} redirects to nowhere: {error}"
        raise SourceUnreachableError(message) from error
    if elsewhere:
        message = (
            f"{url.origin()} redirects to {target.origin()}, which is not followed: if that is where the "
            f"versions are, name it in the source's URI"
        )
        raise SourceUnreachableError(message)
    return target


def _refuse_error(answer: aiohttp.ClientResponse) -> None:
    if answer.status in _GONE:
        message = f"{answer.url.with_query(None)}: {answer.status} {answer.reason}"
        raise NotInSourceError(message)
    if answer.status not in (200, 206):
        message = f"{answer.url.with_query(None)}: {answer.status} {answer.reason}"
        raise SourceUnreachableError(message)


def _file_stat(answer: aiohttp.ClientResponse, *, size: int | None) -> FileStat:
    if size is None:
        message = f"{answer.url.with_query(None)}: the server does not say how long it is; serve plain files"
        raise SourceUnreachableError(message)
    headers = answer.headers
    return FileStat(size=size, identity=headers.get("ETag") or headers.get("Last-Modified") or "")
