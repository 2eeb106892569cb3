"""What the API server really does with our calls, and what we make of its answers."""

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from e2e.cluster import ApiServer
from greenroom_operator import kube as kube_module
from greenroom_operator.controller.containment import already_applied, stamped
from greenroom_operator.controller.events import build_event
from greenroom_operator.errors import (
    Conflict,
    Forbidden,
    KubeError,
    NotConfigured,
    NotFound,
    Rejected,
    Unavailable,
)
from greenroom_operator.kube import Kube
from greenroom_operator.metrics import Metrics
from tests.support.kubectl import Kubectl
from tests.support.manifests import model_deployment

_NAMES = (f"kube-{number}" for number in itertools.count())

Connect = Callable[[Path], Awaitable[Kube]]


@pytest.fixture
def namespace(kubectl: Kubectl) -> str:
    """Return a new namespace."""
    name = next(_NAMES)
    kubectl("create", "namespace", name)
    return name


@pytest.fixture
async def connect(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    """Return a function that connects as a kubeconfig says."""
    opened: list[Kube] = []

    async def connect(kubeconfig: Path) -> Kube:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        opened.append(await Kube.connect(metrics=Metrics()))
        return opened[-1]

    yield connect
    for kube in opened:
        await kube.close()


@pytest.fixture
async def kube(api_server: ApiServer, connect: Connect) -> Kube:
    """Return the API server, as administrator."""
    return await connect(api_server.kubeconfig)


def child(kind: str, namespace: str, api_version: str = "v1", **more: Any) -> dict[str, Any]:
    """Return a manifest of the shape that our builders make."""
    labels = {"greenroom.dev/deployment": "churn"}
    metadata = {"namespace": namespace, "name": "churn", "labels": labels}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def deployment(namespace: str) -> dict[str, Any]:
    """Return a Deployment with the traps: quantities in another spelling, zero and empty values."""
    container = {
        "name": "serving",
        "image": "runtime:1",
        "env": [{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": "0.5"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/scratch"}],
    }
    pod = {"containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}], "nodeSelector": {}}
    labels = {"greenroom.dev/deployment": "churn"}
    spec = {
        "replicas": 0,
        "paused": False,
        "minReadySeconds": 0,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels, "annotations": {}}, "spec": pod},
    }
    return child("Deployment", namespace, "apps/v1", spec=spec)


def children(namespace: str) -> list[dict[str, Any]]:
    """Return one of each kind of child."""
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    budget = {"maxUnavailable": "25%", "selector": {"matchLabels": {"greenroom.dev/deployment": "churn"}}}
    return [
        child("ConfigMap", namespace, data={"config.json": "{}"}, immutable=True),
        child("ServiceAccount", namespace, automountServiceAccountToken=False),
        child("Service", namespace, spec={"ports": ports, "selector": {"a": "b"}, "type": "ClusterIP"}),
        child("PodDisruptionBudget", namespace, "policy/v1", spec=budget),
        deployment(namespace),
    ]


def pod(namespace: str) -> dict[str, Any]:
    """Return a pod that nobody runs."""
    return child("Pod", namespace, spec={"containers": [{"name": "serving", "image": "runtime:1"}]})


@pytest.mark.parametrize("index", range(5))
async def test_an_identical_apply_changes_nothing_and_is_seen_to_be_needless(
    kube: Kube, namespace: str, index: int
) -> None:
    """For each kind of child the next applies leave its version, and the first answer covers them."""
    manifest = stamped(children(namespace)[index])
    first = await kube.apply(manifest)
    assert already_applied(first, manifest)
    for _ in range(2):
        again = await kube.apply(copy.deepcopy(manifest))
        assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_an_apply_takes_back_what_others_changed_and_keeps_what_they_added(
    kube: Kube, kubectl: Kubectl, namespace: str
) -> None:
    """Our fields are ours, the rest is theirs, and what we no longer send goes."""
    manifest = deployment(namespace)
    await kube.apply(manifest)
    kubectl("set", "image", "-n", namespace, "deployment/churn", "serving=evil:1")
    kubectl("set", "env", "-n", namespace, "deployment/churn", "EXTRA=1")
    env = manifest["spec"]["template"]["spec"]["containers"][0]["env"]
    del env[0]
    live = await kube.apply(manifest)
    container = live["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "runtime:1"
    assert {variable["name"] for variable in container["env"]} == {"EMPTY", "EXTRA"}


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"replica": 3}, Rejected),
        ({"replicas": "three"}, Rejected),
        ({"replicas": -1}, Rejected),
        ({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}, Rejected),
        ({"strategy": {"type": "Magic"}}, Rejected),
        ({"selector": {"matchLabels": {"other": "label"}}}, Rejected),
    ],
)
async def test_a_manifest_that_can_never_work_is_told_apart_from_a_bad_day(
    kube: Kube, namespace: str, spec: dict[str, Any], error: type[KubeError]
) -> None:
    """An unknown field, a wrong type, a duplicate: some are a 500, all are terminal, told in one line."""
    manifest = deployment(namespace)
    manifest["spec"] |= spec
    with pytest.raises(error) as raised:
        await kube.apply(manifest)
    assert "\n" not in str(raised.value)
    assert raised.value.summary
    assert (raised.value.kind, raised.value.namespace, raised.value.name) == (
        "Deployment",
        namespace,
        "churn",
    )


async def test_too_large_a_config_map_is_terminal(kube: Kube, namespace: str) -> None:
    """More than a mebibyte will not be less on the next try."""
    with pytest.raises(Rejected):
        await kube.apply(child("ConfigMap", namespace, data={"a": "x" * (1024 * 1024 + 1)}))


async def test_a_write_that_was_decided_from_an_older_version_is_a_conflict(
    kube: Kube, namespace: str
) -> None:
    """Forced or not: with a resource version the server checks what a clock cannot."""
    stale = await kube.apply(child("ConfigMap", namespace, data={"a": "1"}))
    await kube.apply(child("ConfigMap", namespace, data={"a": "2"}))
    with pytest.raises(Conflict):
        await kube.apply(
            child("ConfigMap", namespace, data={"a": "3"}),
            resource_version=stale["metadata"]["resourceVersion"],
        )
    live = await kube.get("ConfigMap", namespace, "churn")
    assert live is not None
    assert live["data"] == {"a": "2"}


async def test_a_status_is_fenced_likewise_and_other_peoples_conditions_stay(
    kube: Kube, kubectl: Kubectl, namespace: str, crd: str
) -> None:
    """A stale status is a Conflict, a fresh one is written, and an auditor's condition survives it."""
    assert crd
    kubectl("apply", "-n", namespace, "--filename=-", document=model_deployment())
    before = await kube.get("ModelDeployment", namespace, "churn")
    assert before is not None
    manifest = {
        "apiVersion": before["apiVersion"],
        "kind": before["kind"],
        "metadata": {"namespace": namespace, "name": "churn"},
        "status": {"conditions": [_condition("Ready")]},
    }
    auditors = {**manifest, "status": {"conditions": [_condition("Audited")]}}
    kubectl(
        "apply",
        "-n",
        namespace,
        "--server-side",
        "--subresource=status",
        "--field-manager=auditor",
        "--filename=-",
        document=auditors,
    )
    with pytest.raises(Conflict):
        await kube.apply_status(manifest, resource_version=before["metadata"]["resourceVersion"])
    live = await kube.apply_status(manifest)
    assert {condition["type"] for condition in live["status"]["conditions"]} == {"Audited", "Ready"}
    again = await kube.apply_status(manifest)
    assert again["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
    assert again["spec"] == before["spec"]


def _condition(kind: str) -> dict[str, str]:
    at = "2026-01-01T00:00:00Z"
    return {"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": at}


async def test_what_is_missing_is_not_found(kube: Kube, namespace: str) -> None:
    """An object that is not there reads as None; a namespace that is not there cannot be written to."""
    assert await kube.get("ConfigMap", namespace, "absent") is None
    with pytest.raises(NotFound):
        await kube.apply(child("ConfigMap", "no-such-namespace"))


async def test_a_pods_annotation_is_set_and_nothing_else(kube: Kube, namespace: str) -> None:
    """Touching makes kubelet look again; the pod's spec, labels and other annotations stay."""
    account = child("ServiceAccount", namespace)
    account["metadata"]["name"] = "default"
    await kube.create(account)
    manifest = pod(namespace)
    manifest["metadata"]["annotations"] = {"theirs": "1"}
    before = await kube.create(manifest)
    after = await kube.annotate("Pod", namespace, "churn", {"greenroom.dev/flags-revision": "r1"})
    assert after["metadata"]["annotations"] == {"theirs": "1", "greenroom.dev/flags-revision": "r1"}
    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]


async def test_annotating_what_is_gone_does_not_make_it_anew(kube: Kube, namespace: str) -> None:
    """A pod that ended just now is a NotFound, not an empty pod."""
    for kind in ("Pod", "ConfigMap"):
        with pytest.raises(NotFound):
            await kube.annotate(kind, namespace, "gone", {"a": "b"})
        assert await kube.get(kind, namespace, "gone") is None


async def test_a_deletion_hits_the_object_that_was_meant(kube: Kube, namespace: str) -> None:
    """Its successor of the same name is left alone; what is gone already is fine."""
    first = await kube.apply(child("ConfigMap", namespace))
    await kube.delete(first)
    await kube.delete(first)
    second = await kube.apply(child("ConfigMap", namespace))
    with pytest.raises(Conflict):
        await kube.delete(first)
    live = await kube.get("ConfigMap", namespace, "churn")
    assert live is not None
    assert live["metadata"]["uid"] == second["metadata"]["uid"]


async def test_a_name_that_is_taken_is_a_conflict_and_so_is_replacing_what_has_changed(
    kube: Kube, namespace: str
) -> None:
    """Create and replace never overwrite: the lease is built on it."""
    stale = await kube.create(child("ConfigMap", namespace))
    with pytest.raises(Conflict):
        await kube.create(child("ConfigMap", namespace))
    await kube.replace({**stale, "data": {"a": "1"}})
    with pytest.raises(Conflict):
        await kube.replace({**stale, "data": {"a": "2"}})


async def test_a_long_list_is_read_in_pages_and_its_items_say_what_they_are(
    kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every object once, of the one selection, with kind and version of their list."""
    monkeypatch.setattr(kube_module, "_PAGE", 3)
    for number in range(8):
        manifest = child("ConfigMap", namespace)
        manifest["metadata"]["name"] = f"c{number}"
        await kube.create(manifest)
    items, version = await kube.list(
        "ConfigMap", namespace=namespace, label_selector="greenroom.dev/deployment"
    )
    assert [item["metadata"]["name"] for item in items] == [f"c{number}" for number in range(8)]
    assert {(item["kind"], item["apiVersion"]) for item in items} == {("ConfigMap", "v1")}
    assert int(version) >= max(int(item["metadata"]["resourceVersion"]) for item in items)
    everywhere, _ = await kube.list("ConfigMap", label_selector="greenroom.dev/deployment")
    assert len(everywhere) >= 8


async def test_an_event_is_posted_once_and_then_counted(kube: Kube, kubectl: Kubectl, namespace: str) -> None:
    """The same news again shows as a count, other news as another event."""
    regarding = await kube.apply(child("ConfigMap", namespace))
    for seconds, message in enumerate(("v2 refused", "v2 refused", "v3 refused")):
        now = datetime(2026, 1, 1, 0, 0, seconds, tzinfo=UTC)
        event = build_event(
            regarding, type="Warning", reason="VerificationFailed", message=message, now=now, instance="op"
        )
        await kube.emit(event)
    events = kubectl.get("events", "-n", namespace)["items"]
    found = {event["message"]: (event["count"], event["lastTimestamp"]) for event in events}
    assert found == {"v2 refused": (2, "2026-01-01T00:00:01Z"), "v3 refused": (1, "2026-01-01T00:00:02Z")}


async def test_a_right_that_is_missing_is_forbidden(
    api_server: ApiServer, connect: Connect, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    """The server's own words say which right."""
    kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    token = kubectl("create", "token", "nobody", "-n", namespace).strip()
    stranger = await connect(_kubeconfig(tmp_path, api_server.url, token=token, ca=api_server.ca))
    with pytest.raises(Forbidden) as raised:
        await stranger.check("Deployment", namespace=namespace)
    assert "deployments.apps is forbidden" in raised.value.summary
    unknown = await connect(_kubeconfig(tmp_path, api_server.url, token="wrong", ca=api_server.ca))
    with pytest.raises(Forbidden):
        await unknown.check("Deployment", namespace=namespace)


def _kubeconfig(directory: Path, url: str, *, token: str, ca: Path | None = None) -> Path:
    cluster = {"server": url} | ({"certificate-authority": str(ca)} if ca else {})
    path = directory / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


async def _overloaded(_: web.Request) -> web.StreamResponse:
    return web.json_response({"message": "slow down"}, status=429, headers={"Retry-After": "1"})


async def _broken(_: web.Request) -> web.StreamResponse:
    return web.Response(status=502, body=b"<html>\xff bad\ngateway")


async def _lying(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"{", content_type="application/json")


async def _chatty(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>please sign in</html>", content_type="text/html")


async def _hanging(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("handler", [_overloaded, _broken, _lying, _chatty, _hanging])
async def test_a_server_that_does_not_do_its_work_is_unavailable(
    handler: Any, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too busy, a broken proxy, garbage, a sign-in page, silence: the call may succeed later."""
    monkeypatch.setattr(kube_module, "_TIMEOUT", 0.5)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        kube = await connect(_kubeconfig(tmp_path, f"http://127.0.0.1:{runner.addresses[0][1]}", token="t"))
        with pytest.raises(Unavailable) as raised:
            await kube.get("ConfigMap", "ml", "churn")
    finally:
        await runner.cleanup()
    assert "\n" not in str(raised.value)


async def test_a_server_that_is_not_there_is_unavailable(connect: Connect, tmp_path: Path) -> None:
    """Nobody listens; the error says so, and the call is counted without a code."""
    kube = await connect(_kubeconfig(tmp_path, "http://127.0.0.1:9", token="t"))
    with pytest.raises(Unavailable) as raised:
        await kube.get("ConfigMap", "ml", "churn")
    assert "no answer" in str(raised.value)


async def test_calls_are_counted_by_verb_kind_and_code(kube: Kube, namespace: str) -> None:
    """What the operator asks of the API server can be seen, and reads are no writes."""
    before = kube.writes
    await kube.get("ConfigMap", namespace, "absent")
    await kube.list("ConfigMap", namespace=namespace)
    assert kube.writes == before
    await kube.apply(child("ConfigMap", namespace))
    assert kube.writes == before + 1
    exposition = kube._metrics.exposition().decode()
    assert 'api_calls_total{code="404",kind="ConfigMap",verb="get"} 1.0' in exposition
    assert 'api_calls_total{code="201",kind="ConfigMap",verb="apply"} 1.0' in exposition


@pytest.mark.parametrize("content", [None, "", "{", "apiVersion: v1\nkind: Config\n"])
async def test_a_kubeconfig_that_is_absent_or_garbage_is_said_to_be(
    content: str | None, connect: Connect, tmp_path: Path
) -> None:
    """A person reads which file is not usable, not a trace."""
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(NotConfigured, match="kubeconfig is not usable"):
        await connect(path)
