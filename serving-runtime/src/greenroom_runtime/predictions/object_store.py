"""Segments as objects, for whoever reads the log of all pods together."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Self

import obstore
from obstore.exceptions import BaseError

from greenroom_runtime.contract import names
from greenroom_runtime.models.clouds import open_store, told
from greenroom_runtime.predictions.segments import SEALED
from greenroom_runtime.predictions.shipping import Parcel, UndeliveredError

_LONGEST_PUT: Final = timedelta(seconds=60)


class ObjectStoreReceiver:
    """``<uri>/<namespace>/<model>/date=<day>/<segment>.jsonl``: a repeated put writes the same object."""

    def __init__(self, uri: str, *, model: str, namespace: str, environment: Mapping[str, str]) -> None:
        """ValueError for a URI that is no object store's, or variables that are not understood.

        A variable with the log's own prefix wins over the one without, so that the log may write where the
        source only reads.
        """
        own = {
            name.removeprefix(names.ENV_LOG_PREFIX): value
            for name, value in environment.items()
            if name.startswith(names.ENV_LOG_PREFIX)
        }
        try:
            self._store = open_store(uri, environment=environment, own=own, longest=_LONGEST_PUT)
        except ValueError as error:
            message = f"the log's uri cannot be used: {error}"
            raise ValueError(message) from error
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
            raise UndeliveredError(f"{key} cannot be put: {told(error)}") from error
