"""The operator as a process, against an API server that fails."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import ApiServer
from greenroom_operator.__main__ import parse_settings
from greenroom_operator.app import Operator
from greenroom_operator.controller.elector import Elector
from greenroom_operator.kube import Kube
from greenroom_operator.metrics import Metrics
from tests.support import crd
from tests.support.kubectl import Kubectl
from tests.support.manifests import model_deployment
from tests.support.operator_process import OperatorProcess

CHILDREN = "deployment,service,serviceaccount,configmap"
_NAMES = (f"operator-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def own_api_server() -> Iterator[ApiServer]:
    """Yield an API server of this module's own: it is killed and restarted here."""
    with ApiServer() as server:
        yield server


@pytest.fixture(scope="module")
def own_kubectl(own_api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Return a kubectl for it, with the CRD applied."""
    kubectl = Kubectl(
        own_api_server.bin / "kubectl", own_api_server.kubeconfig, tmp_path_factory.mktemp("kubectl-cache")
    )
    crd.install(kubectl)
    return kubectl


@pytest.fixture
def namespace(own_kubectl: Kubectl) -> str:
    """Return a new namespace."""
    name = next(_NAMES)
    own_kubectl("create", "namespace", name)
    return name


@pytest.fixture
def operate(own_api_server: ApiServer, namespace: str) -> Iterator[Callable[..., OperatorProcess]]:
    """Return a function that starts an operator for the namespace, with its lease there."""
    started: list[OperatorProcess] = []

    def operate(*flags: str, kubeconfig: Path = own_api_server.kubeconfig) -> OperatorProcess:
        started.append(
            OperatorProcess(kubeconfig, f"--namespaces={namespace}", f"--lease-namespace={namespace}", *flags)
        )
        return started[-1]

    yield operate
    for process in started:
        process.__exit__(None, None, None)


def until(condition: Callable[[], Any], what: str, *, seconds: float = 60) -> Any:
    """Return the first true answer; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds:g} s in vain: {what}")


def children(kubectl: Kubectl, namespace: str) -> set[str]:
    """Return the kinds and names of what belongs to a ModelDeployment."""
    found = kubectl.get(CHILDREN, "-n", namespace, "-l", "greenroom.dev/deployment=churn")["items"]
    return {f"{child['kind']}/{child['metadata']['name']}" for child in found}


def lease_holder(kubectl: Kubectl, namespace: str) -> str:
    """Return who has the lease; empty where it has been given up."""
    holder: str = kubectl.get("lease", "greenroom-operator", "-n", namespace)["spec"]["holderIdentity"]
    return holder


def apply(kubectl: Kubectl, namespace: str) -> None:
    """Apply a ModelDeployment as a user does, and wait until it is reconciled."""
    kubectl("apply", "-n", namespace, "--filename=-", document=model_deployment())
    kubectl(
        "wait", "-n", namespace, "md/churn", "--for=jsonpath={.status.observedGeneration}=1", "--timeout=60s"
    )


def test_it_works_comes_to_rest_and_ends_in_order(
    operate: Callable[..., OperatorProcess], own_kubectl: Kubectl, namespace: str
) -> None:
    """Children come to be, then nothing is written; SIGTERM ends it with 0 and gives the lease up."""
    process = operate()
    process.wait_for("working")
    assert process.get("/livez") == (200, "ok")
    assert process.get("/readyz") == (200, "ok")
    apply(own_kubectl, namespace)
    before = process.writes()
    own_kubectl("annotate", "-n", namespace, "md/churn", "touched=1")
    passes = process.metric('reconcile_total{result="success"}')
    until(lambda: process.metric('reconcile_total{result="success"}') > passes, "a second pass")
    assert process.writes() == before
    assert process.metric("leader") == 1
    metadata = own_kubectl.get("md", "churn", "-n", namespace)["metadata"]
    assert "finalizers" not in metadata
    assert not [name for name in metadata["annotations"] if "kopf" in name]
    process.terminate()
    assert process.ended() == 0
    assert lease_holder(own_kubectl, namespace) == ""


def test_what_is_deleted_or_disowned_comes_back(
    operate: Callable[..., OperatorProcess], own_kubectl: Kubectl, namespace: str
) -> None:
    """A child that is deleted, edited, or whose label is taken away is as it was, soon."""
    operate().wait_for("working")
    apply(own_kubectl, namespace)
    whole = children(own_kubectl, namespace)
    assert {name.partition("/")[0] for name in whole} == {
        "ConfigMap",
        "Deployment",
        "Service",
        "ServiceAccount",
    }
    own_kubectl("delete", "-n", namespace, "service/churn")
    own_kubectl("label", "-n", namespace, "deployment/churn", "greenroom.dev/deployment-")
    until(lambda: children(own_kubectl, namespace) == whole, "all children again")
    own_kubectl("set", "image", "-n", namespace, "deployment/churn", "serving=evil:1")

    def image() -> str:
        found = own_kubectl.get("deployment", "churn", "-n", namespace)
        name: str = found["spec"]["template"]["spec"]["containers"][0]["image"]
        return name

    until(lambda: image() != "evil:1", "our image again")


async def test_what_was_deleted_while_it_could_not_see_comes_back(
    own_api_server: ApiServer, own_kubectl: Kubectl, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server crashes; of what is deleted before it is heard again no watch tells."""
    monkeypatch.setenv("KUBECONFIG", str(own_api_server.kubeconfig))
    # On a slow machine a restart outlasts the lease, which is not what this is about.
    monkeypatch.setattr(Elector, "valid", lambda _: True)
    metrics = Metrics()
    settings = parse_settings([f"--namespaces={namespace}"], environment={})
    async with await Kube.connect(metrics=metrics) as kube:
        operator = Operator(settings, kube=kube, metrics=metrics, stop=asyncio.Event())
        working = asyncio.create_task(operator.look_after())
        own_kubectl("apply", "-n", namespace, "--filename=-", document=model_deployment())
        whole = await _children_of_a_kind_each(own_kubectl, namespace)
        # None of this lets the event loop turn: the operator sees nothing until it is over.
        own_api_server.kill()
        own_api_server.restart()
        own_kubectl("delete", "-n", namespace, "service/churn", "serviceaccount/churn-serving")
        assert children(own_kubectl, namespace) < whole
        assert await _children_of_a_kind_each(own_kubectl, namespace) == whole
        working.cancel()
        await asyncio.wait({working})


async def _children_of_a_kind_each(kubectl: Kubectl, namespace: str) -> set[str]:
    """Wait, with the event loop turning, for at least one child of each kind."""
    async with asyncio.timeout(120):
        while True:
            found = await asyncio.to_thread(children, kubectl, namespace)
            if len({name.partition("/")[0] for name in found}) == len(CHILDREN.split(",")):
                return found
            await asyncio.sleep(0.2)


def test_it_waits_for_an_api_server_that_is_not_there_yet(
    operate: Callable[..., OperatorProcess], own_api_server: ApiServer, own_kubectl: Kubectl, namespace: str
) -> None:
    """The order in which things start does not matter; until then it is alive, and not ready."""
    own_api_server.kill()
    process = operate()
    process.wait_for("the API server does not answer; trying again")
    assert process.get("/livez")[0] == 200
    assert process.get("/readyz")[0] == 503
    own_api_server.restart()
    process.wait_for("working")
    apply(own_kubectl, namespace)


def test_a_second_operator_stands_by_and_takes_over(
    operate: Callable[..., OperatorProcess], own_kubectl: Kubectl, namespace: str
) -> None:
    """Of two one works; when it ends in order the other does so at once, and writes nothing that is there."""
    first = operate()
    first.wait_for("working")
    second = operate()
    second.wait_for("waiting for the lease")
    apply(own_kubectl, namespace)
    assert second.get("/readyz")[0] == 200
    assert second.metric("leader") == 0
    assert second.writes() == 0
    held = lease_holder(own_kubectl, namespace)
    first.terminate()
    assert first.ended() == 0
    assert lease_holder(own_kubectl, namespace) != held
    second.wait_for("working")
    until(lambda: second.metric('reconcile_total{result="success"}') >= 1, "a pass of the second")
    assert second.writes() == 0


def test_a_frozen_operator_ends_when_it_wakes(
    operate: Callable[..., OperatorProcess], own_kubectl: Kubectl, namespace: str
) -> None:
    """A leader that was stopped for longer than its lease is succeeded, and ends without a write."""
    first = operate()
    first.wait_for("working")
    apply(own_kubectl, namespace)
    second = operate()
    second.wait_for("waiting for the lease")
    first.pause()
    own_kubectl("delete", "-n", namespace, "service/churn")
    second.wait_for("working")
    until(lambda: "Service/churn" in children(own_kubectl, namespace), "the service again")
    made = own_kubectl.get("service", "churn", "-n", namespace)["metadata"]["uid"]
    first.resume()
    assert first.ended() == 1
    assert first.lines[-1]["event"] == "lost the lease"
    assert own_kubectl.get("service", "churn", "-n", namespace)["metadata"]["uid"] == made
    assert second.metric("leader") == 1


def test_a_killed_operator_is_succeeded_by_a_new_one(
    operate: Callable[..., OperatorProcess], own_kubectl: Kubectl, namespace: str
) -> None:
    """After kill -9 the next process waits for the lease to run out, and finds everything done."""
    first = operate()
    first.wait_for("working")
    apply(own_kubectl, namespace)
    first.kill()
    first.ended()
    second = operate()
    second.wait_for("working")
    until(lambda: second.metric('reconcile_total{result="success"}') >= 1, "a pass of the second")
    assert second.writes() == 0


def _restricted(
    kubectl: Kubectl, server: ApiServer, namespace: str, directory: Path, rules: list[Any]
) -> Path:
    """Return the kubeconfig of a service account with these rights in the namespace."""
    kubectl("create", "serviceaccount", "operator", "-n", namespace)
    metadata = {"name": "operator", "namespace": namespace}
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata}
    kubectl("apply", "--filename=-", document={**rbac, "kind": "Role", "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}
    kubectl(
        "apply",
        "--filename=-",
        document={**rbac, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]},
    )
    document = yaml.safe_load(server.kubeconfig.read_text(encoding="utf-8"))
    token = kubectl("create", "token", "operator", "-n", namespace).strip()
    document["users"][0]["user"] = {"token": token}
    path = directory / "restricted"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def _rule(group: str, resources: list[str], verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs.split(",")}


READ = "get,list,watch"
WRITE = "get,list,watch,create,patch,delete"
RULES = [
    _rule("greenroom.dev", ["modeldeployments"], READ),
    _rule("greenroom.dev", ["modeldeployments/status"], "patch"),
    _rule("greenroom.dev", ["modeldeployments/finalizers"], "update"),
    _rule("apps", ["deployments"], WRITE),
    _rule("policy", ["poddisruptionbudgets"], WRITE),
    _rule("", ["services", "serviceaccounts", "configmaps"], WRITE),
    _rule("", ["pods"], "get,list,watch,patch"),
    _rule("", ["events"], "get,create,patch"),
    _rule("coordination.k8s.io", ["leases"], "get,create,update"),
]


def test_it_works_with_rights_in_its_namespace_alone(
    operate: Callable[..., OperatorProcess],
    own_api_server: ApiServer,
    own_kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
) -> None:
    """A Role is enough: no list of CRDs, of namespaces or of anything in the whole cluster."""
    kubeconfig = _restricted(own_kubectl, own_api_server, namespace, tmp_path, RULES)
    process = operate(kubeconfig=kubeconfig)
    process.wait_for("working")
    apply(own_kubectl, namespace)
    own_kubectl("delete", "-n", namespace, "service/churn")
    until(lambda: "Service/churn" in children(own_kubectl, namespace), "the service again")
    refused = [line for line in process.lines if "forbidden" in json.dumps(line)]
    assert refused == []


@pytest.mark.parametrize(
    ("resource", "wrong", "remedy"),
    [
        ("deployments", "not allowed to list deployments.apps in namespace", "grant get, list and watch"),
        ("leases", "not allowed to read the lease in namespace", "grant get, create and update"),
    ],
)
def test_a_right_that_is_missing_ends_it_with_the_remedy(  # noqa: PLR0917 - fixtures
    resource: str,
    wrong: str,
    remedy: str,
    operate: Callable[..., OperatorProcess],
    own_api_server: ApiServer,
    own_kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
) -> None:
    """It neither runs deaf for one kind nor waits for ever: it says what to grant, and ends with 1."""
    rules = [rule for rule in RULES if rule["resources"] != [resource]]
    process = operate(kubeconfig=_restricted(own_kubectl, own_api_server, namespace, tmp_path, rules))
    error = process.wait_for("cannot start")["error"]
    assert f"{wrong} {namespace}" in error
    assert remedy in error
    assert process.ended() == 1


def test_a_cluster_without_the_crd_ends_it_with_the_remedy(
    operate: Callable[..., OperatorProcess], own_kubectl: Kubectl
) -> None:
    """It would never notice a CRD that comes later; it says what to install, and ends with 1."""
    own_kubectl("delete", "crd", crd.NAME)
    try:
        process = operate()
        assert (
            "apply crds/, or install the chart with crds.enabled=true"
            in process.wait_for("cannot start")["error"]
        )
        assert process.ended() == 1
    finally:
        crd.install(own_kubectl)


def test_a_port_that_is_taken_ends_it(operate: Callable[..., OperatorProcess]) -> None:
    """Two on one port is a mistake that is told at once."""
    first = operate()
    port = first.wait_for("health and metrics")["address"].rpartition(":")[2]
    second = operate(f"--port={port}")
    error = second.wait_for("cannot start")["error"]
    assert "address already in use" in error
    assert "give another --listen or --port" in error
    assert second.ended() == 1
