"""Segments as objects, for whoever reads the log of all pods together."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from greenroom_runtime.predictions.segments import SEALED
from greenroom_runtime.predictions.shipping import Parcel, UndeliveredError

_CONNECT_SECONDS = 5
_PUT_SECONDS = 60
_SCHEMES = ("s3", "gs", "az")


def open_store(uri: str, *, environment: Mapping[str, str]) -> ObjectStore:
    """Return the store of a URI, with credentials from the environment variables of its provider."""
    parts = urlsplit(uri)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        message = (
            f"{uri!r} is no object store: use s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
        )
        raise ValueError(message)
    endpoint = ""
    if parts.scheme == "s3":
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    return from_url(
        uri.rstrip("/"),
        config={"endpoint": endpoint} if endpoint else None,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
            "timeout": timedelta(seconds=_PUT_SECONDS),
        },
        # Longer waits are the shipper's, which says meanwhile what it waits for.
        retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=_PUT_SECONDS)},
    )


class ObjectStoreReceiver:
    """``<uri>/<namespace>/<model>/date=<day>/<segment>.jsonl``: a repeated put writes the same object."""

    def __init__(self, uri: str, *, model: str, namespace: str, environment: Mapping[str, str]) -> None:
        """ValueError for a URI that is no object store's."""
        self._store = open_store(uri, environment=environment)
        self._prefix = f"{namespace}/{model}"

    async def __aenter__(self) -> Self:
        """Do nothing: the store connects by itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing, likewise."""

    async def deliver(self, parcel: Parcel, *, hurry: asyncio.Event) -> None:  # noqa: ARG002 it is quick anyway
        """Put the segment as one object."""
        begun = datetime.fromtimestamp(int(parcel.name[:20]) / 1e9, UTC)
        key = f"{self._prefix}/date={begun:%Y-%m-%d}/{parcel.name}{SEALED}"
        try:
            await obstore.put_async(self._store, key, parcel.content, use_multipart=False)
        except (BaseError, OSError, ValueError) as error:
            told = " ".join(str(error).partition("Debug source:")[0].split())
            raise UndeliveredError(f"{key} cannot be put: {told[:300]}") from error
