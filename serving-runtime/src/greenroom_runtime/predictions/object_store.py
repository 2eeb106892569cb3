"""Segments as objects, for whoever reads the log of all pods together."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from greenroom_runtime.contract import names
from greenroom_runtime.predictions.segments import SEALED
from greenroom_runtime.predictions.shipping import Parcel, UndeliveredError

_CONNECT_SECONDS = 5
_PUT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class _Cloud:
    prefix: str
    """Of the environment variables that its store's client understands."""
    endpoint: str
    """The client's own word for it."""
    endpoint_variables: tuple[str, ...]


_CLOUDS = {
    "s3": _Cloud(
        prefix="AWS_",
        endpoint="endpoint",
        endpoint_variables=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    ),
    "gs": _Cloud(
        prefix="GOOGLE_",
        endpoint="base_url",
        endpoint_variables=("GOOGLE_BASE_URL",),
    ),
    "az": _Cloud(
        prefix="AZURE_",
        endpoint="endpoint",
        endpoint_variables=("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    ),
}


def open_store(uri: str, *, environment: Mapping[str, str]) -> ObjectStore:
    """Return the store of a URI; ValueError where it is none, or its settings are not understood.

    Credentials and endpoint are the environment's; a variable with the log's own prefix wins over the one
    without, so that the log may write where the source only reads.
    """
    parts = urlsplit(uri)
    cloud = _CLOUDS.get(parts.scheme)
    if cloud is None or not parts.netloc or parts.username is not None or parts.query or parts.fragment:
        message = (
            "the log's uri is no object store's: use s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or "
            "az://CONTAINER/PREFIX, with credentials in the environment"
        )
        raise ValueError(message)
    own = {
        name.removeprefix(names.ENV_LOG_PREFIX): value
        for name, value in environment.items()
        if name.startswith(f"{names.ENV_LOG_PREFIX}{cloud.prefix}")
    }
    endpoints = [place.get(name, "") for place in (own, environment) for name in cloud.endpoint_variables]
    endpoint = next(filter(None, endpoints), "")
    config: Any = {name: value for name, value in own.items() if name not in cloud.endpoint_variables}
    if endpoint:
        config[cloud.endpoint] = endpoint
    try:
        return from_url(
            uri.rstrip("/"),
            config=config,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                "timeout": timedelta(seconds=_PUT_SECONDS),
            },
            # Longer waits are the shipper's, which says meanwhile what it waits for.
            retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=_PUT_SECONDS)},
        )
    except BaseError as error:
        message = f"the log's object store cannot be used: {_told(error)}"
        raise ValueError(message) from error


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
            raise UndeliveredError(f"{key} cannot be put: {_told(error)}") from error


def _told(error: Exception) -> str:
    return " ".join(str(error).partition("Debug source:")[0].split())[:300]
