"""kopf is an informer that never gives up and leaves no trace on people's objects."""

import asyncio
import itertools
from collections.abc import Iterable, Sized
from typing import Any

import kopf
import pytest

from greenroom_operator.controller.store import Store
from greenroom_operator.controller.workqueue import WorkQueue
from greenroom_operator.handlers import Forever, build_registry, build_settings
from greenroom_operator.kinds import WATCHED, Key, Kind
from greenroom_operator.kube import Credentials
from greenroom_operator.metrics import Metrics


class World:
    """Handlers with what they fill."""

    def __init__(self) -> None:
        self.store = Store()
        self.queue: WorkQueue[Key] = WorkQueue(random=lambda: 0)
        self.relists = 0
        self.metrics = Metrics()
        self.registry = build_registry(
            store=self.store,
            queue=self.queue,
            metrics=self.metrics,
            on_relist=self._relist,
            credentials=_credentials,
        )

    def _relist(self) -> None:
        self.relists += 1

    async def tell(self, kind: str, change: str | None, body: dict[str, Any]) -> None:
        """Let kopf's handler of a kind see an event."""
        plural = next(each.plural for each in WATCHED if each.name == kind)
        handlers = self.registry._watching.get_all_handlers()
        observe: Any = next(each.fn for each in handlers if each.id == f"observe-{plural}")
        await observe(event={"type": change, "object": body})


async def _credentials() -> Credentials:
    return Credentials(
        "https://127.0.0.1:1",
        "",
        insecure=True,
        token="t",
        certificate_path="",
        private_key_path="",
        proxy_url="",
    )


def service(version: int) -> dict[str, Any]:
    """Return a child of ml/churn."""
    metadata = {"namespace": "ml", "name": "churn", "labels": {"greenroom.dev/deployment": "churn"}}
    return {"kind": "Service", "metadata": {**metadata, "resourceVersion": str(version), "uid": "u"}}


def test_nothing_but_event_handlers_is_registered() -> None:
    """All else makes kopf write annotations or finalizers."""
    registry = World().registry
    assert len(registry._watching.get_all_handlers()) == len(WATCHED)
    for others in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert list(others.get_all_handlers()) == []


async def test_news_is_stored_and_its_key_queued_and_old_news_is_not() -> None:
    """An event makes one pass over the key that it concerns; its echo makes none."""
    world = World()
    await world.tell("Service", "ADDED", service(1))
    assert await world.queue.get() == Key("ml", "churn")
    world.queue.done(Key("ml", "churn"))
    await world.tell("Service", "MODIFIED", service(1))
    assert world.queue.depth == 0
    await world.tell("Service", "DELETED", service(2))
    assert world.queue.depth == 1
    assert world.store.children(Key("ml", "churn")) == []
    assert world.relists == 0


async def test_what_kopf_has_listed_anew_asks_for_a_list_of_our_own() -> None:
    """A cut watch tells nobody of deletions."""
    world = World()
    await world.tell("Service", None, service(1))
    assert world.relists == 1
    assert world.queue.depth == 1


@pytest.mark.parametrize("kind", WATCHED, ids=lambda kind: kind.name)
def test_each_childs_selector_is_spelled_so_that_kopf_finds_it(kind: Kind) -> None:
    """A selector under a name that matches nothing would stream every object of the cluster, silently."""
    resource = kopf.Resource(
        group=kind.group,
        version=kind.version,
        plural=kind.plural,
        kind=kind.name,
        namespaced=True,
        preferred=True,
        verbs=frozenset({"list", "watch", "patch"}),
    )
    found = build_settings().watching.label_selectors.collect(resource)
    assert list(found) == ([kind.label_selector] if kind.label_selector else [])


def test_backoffs_never_end_and_have_no_length() -> None:
    """What has a length has a last retry, after which kopf gives up."""
    backoffs = Forever()
    assert isinstance(backoffs, Iterable)
    assert not isinstance(backoffs, Sized)
    assert list(itertools.islice(backoffs, 1000))[-1] == 3
    assert next(iter(backoffs)) == 0.5


def test_kopf_copies_and_writes_nothing() -> None:
    """Its storages are empty, its events and its peering off."""
    settings = build_settings()
    body: Any = {"spec": {"a": 1}}
    essence = settings.persistence.diffbase_storage.build(body=body)
    assert essence == {}
    assert settings.persistence.progress_storage.clear(essence=body) is body
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert settings.queueing.worker_limit is None


async def test_kopf_signs_in_as_we_do() -> None:
    """One source of credentials: a rotated token reaches both."""
    login: Any = next(iter(World().registry._activities.get_all_handlers())).fn
    info = await asyncio.wait_for(login(), 60)
    assert (info.server, info.token, info.scheme, info.insecure) == (
        "https://127.0.0.1:1",
        "t",
        "Bearer",
        True,
    )
