"""Everything that reconcile writes goes through here, and what it reads past the watches."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from greenroom_operator.controller.containment import already_applied, stamped, status_already_applied
from greenroom_operator.controller.store import Store
from greenroom_operator.errors import KubeError, NotFound, NotLeading
from greenroom_operator.kinds import KINDS
from greenroom_operator.metrics import Metrics

Body = dict[str, Any]

log = structlog.get_logger(__name__)


class Api(Protocol):
    """What the writer needs of the API server."""

    async def apply(self, manifest: Mapping[str, Any], *, resource_version: str | None = None) -> Body:
        """Server-side apply; return the stored object."""

    async def apply_status(self, manifest: Mapping[str, Any], *, resource_version: str | None = None) -> Body:
        """Server-side apply of the status; return the stored object."""

    async def annotate(self, kind: str, namespace: str, name: str, annotations: Mapping[str, str]) -> Body:
        """Set these annotations only; return the stored object."""

    async def delete(self, body: Mapping[str, Any]) -> None:
        """Delete exactly this object, by its uid."""

    async def get(self, kind: str, namespace: str, name: str) -> Body | None:
        """Read one object."""

    async def list(
        self, kind: str, *, namespace: str | None = None, label_selector: str | None = None
    ) -> tuple[Sequence[Body], str]:
        """Read all objects of a kind, and the resource version of the list."""

    async def emit(self, event: Mapping[str, Any]) -> None:
        """Post an Event or count it up."""


class Writer:
    """The API server with three promises added.

    A write that would change nothing is not sent. The answer to each call is observed at once, so that the
    next decision is made from it rather than from a watch that lags behind. Nothing is sent unless
    ``may_write``: a process that has lost its lease must not go on.
    """

    def __init__(
        self,
        api: Api,
        *,
        store: Store,
        metrics: Metrics,
        may_write: Callable[[], bool],
    ) -> None:
        self._api = api
        self._store = store
        self._metrics = metrics
        self._may_write = may_write

    async def apply(self, manifest: Mapping[str, Any], *, resource_version: str | None = None) -> None:
        """Make an object be as the manifest says.

        With ``resource_version`` only if the object still has it, otherwise Conflict.
        """
        desired = stamped(manifest)
        kind, metadata = desired["kind"], desired["metadata"]
        live = self._store.object(kind, metadata["namespace"], metadata["name"])
        if live is not None and already_applied(live, desired):
            self._count(kind, "unchanged")
            return
        self._fence("apply", desired)
        await self._observed(kind, self._api.apply(desired, resource_version=resource_version))

    async def apply_status(
        self,
        manifest: Mapping[str, Any],
        *,
        condition_types: frozenset[str],
        resource_version: str | None = None,
    ) -> None:
        """Make a status be as the manifest says, likewise; ``condition_types`` are all that are ours."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        live = self._store.object(kind, metadata["namespace"], metadata["name"])
        if live is not None and status_already_applied(live, manifest, condition_types=condition_types):
            self._count(f"{kind}/status", "unchanged")
            return
        self._fence("apply_status", manifest)
        call = self._api.apply_status(manifest, resource_version=resource_version)
        await self._observed(kind, call, part="/status")

    async def annotate(self, kind: str, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        """Set annotations on an object that is not ours to apply; NotFound when it is gone."""
        live = self._store.object(kind, namespace, name)
        if live is not None and annotations.items() <= (live["metadata"].get("annotations") or {}).items():
            return
        self._fence("annotate", {"kind": kind, "metadata": {"namespace": namespace, "name": name}})
        try:
            answer = await self._api.annotate(kind, namespace, name, annotations)
        except NotFound:
            self._store.absent(kind, namespace, name)
            raise
        self._store.put(kind, answer)

    async def delete(self, body: Mapping[str, Any]) -> None:
        """Delete exactly this object; gone already is fine. The watch tells when it is."""
        self._fence("delete", body)
        await self._api.delete(body)

    async def get(self, kind: str, namespace: str, name: str) -> Body | None:
        """Read one object past the watch; None where there is none."""
        answer = await self._api.get(kind, namespace, name)
        if answer is None:
            self._store.absent(kind, namespace, name)
        else:
            self._store.put(kind, answer)
        return answer

    async def observe_all(self, kind: str, namespace: str) -> None:
        """Read all objects of a kind in a namespace past the watch, those that are gone included."""
        selector = KINDS[kind].label_selector
        items, version = await self._api.list(kind, namespace=namespace, label_selector=selector)
        self._store.relist(kind, items, version, namespace=namespace)

    async def emit(self, event: Mapping[str, Any]) -> None:
        """Post an Event; a failure to is logged and forgotten: an event is news, not state."""
        try:
            self._fence("emit", event)
            await self._api.emit(event)
        except KubeError as error:
            log.warning("event not posted", reason=event.get("reason"), error=str(error))

    async def _observed(self, kind: str, call: Awaitable[Body], *, part: str = "") -> None:
        try:
            answer = await call
        except KubeError:
            self._count(f"{kind}{part}", "failed")
            raise
        self._count(f"{kind}{part}", "applied")
        self._store.put(kind, answer)

    def _count(self, kind: str, result: str) -> None:
        self._metrics.applies.labels(kind=kind, result=result).inc()

    def _fence(self, verb: str, body: Mapping[str, Any]) -> None:
        if self._may_write():
            return
        metadata = body["metadata"]
        raise NotLeading(
            verb=verb,
            kind=body["kind"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            summary="not sent: this process may not hold the lease any more",
        )
