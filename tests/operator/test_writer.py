"""The writer sends what is needed, observes each answer, and stops when the lease may be lost."""

from collections.abc import Mapping
from typing import Any

import pytest

from greenroom_operator.controller.store import Store
from greenroom_operator.controller.writer import Writer
from greenroom_operator.errors import Conflict, KubeError, NotFound, NotLeading, Unavailable
from greenroom_operator.kinds import Key
from greenroom_operator.metrics import Metrics

CHURN = Key("ml", "churn")


def config_map(text: str = "1") -> dict[str, Any]:
    """Return a child's manifest."""
    metadata = {"namespace": "ml", "name": "churn", "labels": {"greenroom.dev/deployment": "churn"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": text}}


class FaultyApi:
    """Answers each call with the manifest and a new version, or with the fault that is set."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fault: type[KubeError] | None = None

    async def apply(self, manifest: Mapping[str, Any], **_: str | None) -> Any:
        """Store it."""
        return self._answer("apply", manifest)

    async def apply_status(self, manifest: Mapping[str, Any], **_: str | None) -> Any:
        """Store it."""
        return self._answer("apply_status", manifest)

    async def annotate(self, kind: str, *place_and_annotations: Any) -> Any:
        """Store an object with these."""
        manifest = config_map()
        manifest["metadata"]["annotations"] = dict(place_and_annotations[-1])
        return self._answer("annotate", {**manifest, "kind": kind})

    async def delete(self, body: Mapping[str, Any]) -> None:
        """Accept it."""
        self._answer("delete", body)

    async def get(self, *_: str) -> Any:
        """Find nothing."""
        return self._answer("get", None)

    async def list(self, *_: str, **_options: Any) -> Any:
        """Find nothing at all."""
        self._answer("list", None)
        return [], "1000"

    async def emit(self, event: Mapping[str, Any]) -> None:
        """Accept it."""
        self._answer("emit", event)

    def _answer(self, verb: str, body: Mapping[str, Any] | None) -> Any:
        self.calls.append(verb)
        if self.fault is not None:
            raise self.fault(verb=verb, kind="ConfigMap", summary="fault")
        if body is None:
            return None
        metadata = {**body["metadata"], "uid": "u", "resourceVersion": str(len(self.calls))}
        return {**body, "metadata": metadata}


class World:
    """A writer with what it writes to."""

    def __init__(self) -> None:
        self.api, self.store, self.leading, self.metrics = FaultyApi(), Store(), True, Metrics()
        self.writer = Writer(self.api, store=self.store, metrics=self.metrics, may_write=lambda: self.leading)


async def test_our_own_write_is_known_at_once_and_not_repeated() -> None:
    """Whatever the watch's lag, the second pass sees what the first has written."""
    world = World()
    await world.writer.apply(config_map())
    assert [child["data"] for child in world.store.children(CHURN)] == [{"a": "1"}]
    await world.writer.apply(config_map())
    assert world.api.calls == ["apply"]
    await world.writer.apply(config_map("2"))
    assert world.api.calls == ["apply", "apply"]


async def test_an_annotation_that_is_there_is_not_set_again() -> None:
    """A pod is touched once per revision."""
    world = World()
    for revision in ("r1", "r1", "r2"):
        await world.writer.annotate("ConfigMap", "ml", "churn", {"greenroom.dev/flags-revision": revision})
    assert world.api.calls == ["annotate", "annotate"]


async def test_nothing_is_sent_by_one_that_may_not_lead() -> None:
    """Every kind of write stops; reading goes on; an event is dropped without noise."""
    world = World()
    world.leading = False
    body = config_map()
    for write in (
        world.writer.apply(body),
        world.writer.apply_status({**body, "status": {}}, condition_types=frozenset()),
        world.writer.annotate("ConfigMap", "ml", "churn", {"a": "b"}),
        world.writer.delete(body),
    ):
        with pytest.raises(NotLeading, match="ml/churn"):
            await write
    await world.writer.emit(body)
    assert world.api.calls == []
    await world.writer.get("ConfigMap", "ml", "churn")
    assert world.api.calls == ["get"]


async def test_a_failed_write_is_not_observed_but_counted() -> None:
    """What was refused is not what there is."""
    world = World()
    world.api.fault = Conflict
    with pytest.raises(Conflict):
        await world.writer.apply(config_map())
    assert world.store.children(CHURN) == []
    assert 'apply_total{kind="ConfigMap",result="failed"} 1.0' in world.metrics.exposition().decode()


async def test_what_is_found_gone_is_forgotten() -> None:
    """A 404 for an annotation, a read that finds nothing, a list without it: each is an observation."""
    world = World()
    await world.writer.apply(config_map())
    await world.writer.get("ConfigMap", "ml", "churn")
    assert world.store.children(CHURN) == []
    world = World()
    await world.writer.apply(config_map())
    world.api.fault = NotFound
    with pytest.raises(NotFound):
        await world.writer.annotate("ConfigMap", "ml", "churn", {"a": "b"})
    assert world.store.children(CHURN) == []
    world = World()
    await world.writer.apply(config_map())
    await world.writer.observe_all("ConfigMap", "ml")
    assert world.store.children(CHURN) == []


async def test_an_event_that_cannot_be_posted_does_not_fail_the_pass() -> None:
    """News is not state."""
    world = World()
    world.api.fault = Unavailable
    await world.writer.emit(config_map())
    assert world.api.calls == ["emit"]
