"""Every kopf decorator. Handlers only observe and enqueue: no decision, no I/O, nothing that can fail."""

import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import kopf

from greenroom_operator.controller.store import Store
from greenroom_operator.controller.workqueue import WorkQueue
from greenroom_operator.kinds import WATCHED, Key, Kind
from greenroom_operator.kube import Credentials
from greenroom_operator.metrics import Metrics


def build_registry(
    *,
    store: Store,
    queue: WorkQueue[Key],
    metrics: Metrics,
    on_relist: Callable[[], None],
    credentials: Callable[[], Awaitable[Credentials]],
) -> kopf.OperatorRegistry:
    """Return handlers that keep the store up to date and queue the keys that are concerned.

    ``on_relist`` is called for each object that kopf tells of because it has listed a kind anew; what was
    deleted meanwhile it tells nobody. Nothing but ``on.event`` may be registered: all else makes kopf write
    annotations and finalizers onto people's objects.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        found = await credentials()
        return kopf.ConnectionInfo(
            server=found.server,
            ca_path=found.ca_path or None,
            insecure=found.insecure,
            scheme="Bearer" if found.token else None,
            token=found.token or None,
            certificate_path=found.certificate_path or None,
            private_key_path=found.private_key_path or None,
            proxy_url=found.proxy_url or None,
        )

    for kind in WATCHED:
        _observe(kind, registry=registry, store=store, queue=queue, metrics=metrics, on_relist=on_relist)
    return registry


def _observe(
    kind: Kind,
    *,
    registry: kopf.OperatorRegistry,
    store: Store,
    queue: WorkQueue[Key],
    metrics: Metrics,
    on_relist: Callable[[], None],
) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"observe-{kind.plural}")
    async def observe(event: kopf.RawEvent, **_: Any) -> None:
        metrics.last_event.labels(kind=kind.name).set(time.time())
        body: Any = event["object"]
        observed = store.remove if event["type"] == "DELETED" else store.put
        for key in observed(kind.name, body):
            queue.add(key)
        if event["type"] is None:
            on_relist()


def build_settings() -> kopf.OperatorSettings:
    """Return kopf's settings as an informer that never gives up, writes nothing and asks for little."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # the kinds are fixed, and scanning wants rights on CRDs and namespaces
    settings.peering.standalone = True  # leadership is our Lease
    settings.posting.enabled = False
    settings.networking.error_backoffs = Forever()
    settings.networking.connect_timeout = settings.watching.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.watching.server_timeout = 20  # streams end regularly, and resume at the last version
    settings.watching.inactivity_timeout = 30
    settings.watching.reconnect_backoff = 0.5
    settings.watching.chunk_size = 500
    settings.queueing.worker_limit = None  # a limit also limits how many objects are known; ours is the queue
    settings.queueing.idle_timeout = 1.0
    settings.queueing.exit_timeout = 1.0
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    for kind in WATCHED:
        if kind.label_selector is not None:
            settings.watching.label_selectors[kind.resource] = kind.label_selector
    return settings


class Forever(Iterable[float]):
    """Backoffs in seconds that never end, hence without a length.

    With a finite list one forbidden kind ends the whole operator.
    """

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1, 1, 2, 2), itertools.repeat(3))


class NoDiffBase(kopf.DiffBaseStorage):
    """Remembers nothing: kopf would copy each object several times for handlers that do not exist."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Find nothing worth comparing."""
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        """Know nothing of before."""

    def store(self, **_: Any) -> None:
        """Write nothing."""


class NoProgress(kopf.ProgressStorage):
    """Writes nothing onto people's objects: event handlers have no progress."""

    def fetch(self, **_: Any) -> None:
        """Know of no progress."""

    def store(self, **_: Any) -> None:
        """Write nothing."""

    def purge(self, **_: Any) -> None:
        """Have nothing to purge."""

    def touch(self, **_: Any) -> None:
        """Touch nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Leave the object as it is, uncopied."""
        return essence
