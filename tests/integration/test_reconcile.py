"""The recipe against a real API server: what it writes, what it leaves alone, and when it writes nothing."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from e2e.cluster import ApiServer
from greenroom_operator.controller.reconcile import Reconciler
from greenroom_operator.controller.store import Store
from greenroom_operator.controller.writer import Writer
from greenroom_operator.errors import Conflict, Forbidden
from greenroom_operator.kinds import WATCHED, Key
from greenroom_operator.kube import Kube
from greenroom_operator.metrics import Metrics
from greenroom_operator.pods import PodReports, ShadowReports
from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import parse_flags
from greenroom_runtime.contract.report import BreakerState, FeatureReport, PodReport, UpstreamReport
from tests.support.kubectl import Kubectl
from tests.support.manifests import model_deployment

_NAMES = (f"reconcile-{number}" for number in itertools.count())


class Operator:
    """One operator's memory and its one recipe, without informers: `observe` lists what they would tell."""

    def __init__(self, kube: Kube, namespace: str, *, report_port: int | None = None) -> None:
        self.kube, self.namespace, self.report_port = kube, namespace, report_port
        self.forget()

    def forget(self) -> None:
        """Be a new process."""
        metrics = Metrics()
        self.store = Store()
        self.reports = PodReports(port=self.report_port)
        self.reconciler = Reconciler(
            store=self.store,
            writer=Writer(self.kube, store=self.store, metrics=metrics, may_write=lambda: True),
            reports=self.reports,
            shadow_reports=ShadowReports(),
            default_image="greenroom-runtime:test",
            instance="test",
            now=lambda: datetime.now(UTC),
            monotonic=asyncio.get_running_loop().time,
        )

    async def observe(self) -> None:
        """Learn the namespace as it is."""
        for kind in WATCHED:
            items, version = await self.kube.list(
                kind.name, namespace=self.namespace, label_selector=kind.label_selector
            )
            self.store.relist(kind.name, items, version, namespace=self.namespace)

    async def pass_over(self, name: str = "churn") -> int:
        """Observe, reconcile once, and return how many writes were sent."""
        await self.observe()
        before = self.kube.writes
        await self.reconciler.reconcile(Key(self.namespace, name))
        return self.kube.writes - before


@pytest.fixture
def namespace(kubectl: Kubectl, crd: str) -> str:
    """Return a new namespace of an API server that knows ModelDeployments."""
    assert crd
    name = next(_NAMES)
    kubectl("create", "namespace", name)
    return name


@pytest.fixture
async def operator(
    api_server: ApiServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Operator]:
    """Return an operator that has seen nothing yet."""
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig))
    kube = await Kube.connect(metrics=Metrics())
    yield Operator(kube, namespace)
    await kube.close()


class Pod:
    """What a pod would serve: one report, which may be changed."""

    def __init__(self) -> None:
        self.port = 0
        self.features = FeatureReport()

    async def report(self, _: web.Request) -> web.Response:
        """Answer as the runtime does."""
        report = PodReport(pod="churn-1-a", model="churn", features=self.features)
        return web.json_response(text=report.model_dump_json())


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    """Serve a pod's report on this machine."""
    pod, application = Pod(), web.Application()
    application.router.add_get("/report", pod.report)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pod.port = runner.addresses[0][1]
    yield pod
    await runner.cleanup()


@pytest.fixture
def apply(kubectl: Kubectl, namespace: str) -> Any:
    """Return a function that applies a ModelDeployment as a user does."""

    def apply(**spec: Any) -> None:
        kubectl("apply", "--namespace", namespace, "--filename=-", document=model_deployment(**spec))

    return apply


def flags_of(kubectl: Kubectl, namespace: str) -> Any:
    """Return the flag store that pods would read."""
    config_map = kubectl.get("configmap", "churn-flags", "--namespace", namespace)
    return parse_flags(config_map["data"][names.FLAGS_FILE])


def conditions_of(kubectl: Kubectl, namespace: str) -> dict[str, Any]:
    """Return the conditions by their type."""
    found = kubectl.get("modeldeployment", "churn", "--namespace", namespace)
    return {condition["type"]: condition for condition in found["status"]["conditions"]}


def report_rollout(kubectl: Kubectl, namespace: str, *, updated: int) -> None:
    """Say what the Deployment controller would: of the one pod there is, so many have the newest template."""
    generation = kubectl.get("deployment", "churn", "--namespace", namespace)["metadata"]["generation"]
    status = {"observedGeneration": generation, "replicas": 1, "readyReplicas": 1, "updatedReplicas": updated}
    patch = ("--subresource=status", "--type=merge", "--patch", json.dumps({"status": status}))
    kubectl("patch", "deployment", "churn", "--namespace", namespace, *patch)


def run_pod(kubectl: Kubectl, namespace: str, *, ip: str = "") -> None:
    """Say what controllers and kubelet would: there is a pod, and it runs."""
    kubectl("create", "serviceaccount", "default", "--namespace", namespace)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "churn-1", "uid": "1", "controller": True}
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "churn-1-a",
            "labels": {names.LABEL_DEPLOYMENT: "churn", names.LABEL_MANAGED_BY: names.MANAGED_BY},
            "ownerReferences": [owner],
        },
        "spec": {"containers": [{"name": "serving", "image": "greenroom-runtime:test"}]},
    }
    kubectl("apply", "--namespace", namespace, "--filename=-", document=document)
    status = {"phase": "Running", **({"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {})}
    patch = ("--subresource=status", "--type=merge", "--patch", json.dumps({"status": status}))
    kubectl("patch", "pod", "churn-1-a", "--namespace", namespace, *patch)


def touched_with(kubectl: Kubectl, namespace: str) -> str:
    """Return the value by which the pod was touched last."""
    metadata = kubectl.get("pod", "churn-1-a", "--namespace", namespace)["metadata"]
    return str(metadata["annotations"][names.ANNOTATION_FLAGS_REVISION])


def started_with(kubectl: Kubectl, namespace: str) -> set[str]:
    """Return the names of our configurations and accounts, which pods cannot start without."""
    found = kubectl.get("configmap,serviceaccount", "--namespace", namespace, "-l", names.LABEL_DEPLOYMENT)
    return {item["metadata"]["name"] for item in found["items"]} - {"churn-flags"}


async def test_a_first_pass_makes_every_child_and_a_second_writes_nothing(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """A ModelDeployment gets its children in one pass; the next sends no write, nor a new process."""
    apply()
    assert await operator.pass_over() > 0
    found = kubectl.get(
        "deployment,service,serviceaccount,configmap", "--namespace", namespace, "-l", names.LABEL_DEPLOYMENT
    )
    kinds = sorted(child["kind"] for child in found["items"])
    assert kinds == ["ConfigMap", "ConfigMap", "Deployment", "Service", "ServiceAccount"]
    assert await operator.pass_over() == 0
    operator.forget()
    assert await operator.pass_over() == 0


async def test_children_that_are_deleted_or_edited_come_back(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """What somebody deletes is made anew, what somebody edits is set right."""
    apply()
    await operator.pass_over()
    kubectl("delete", "service", "churn", "--namespace", namespace)
    kubectl("delete", "configmap", "churn-flags", "--namespace", namespace)
    kubectl("set", "image", "deployment/churn", "serving=evil:1", "--namespace", namespace)
    await operator.pass_over()
    assert kubectl.get("service", "churn", "--namespace", namespace)["spec"]["ports"][0]["port"] == 80
    assert flags_of(kubectl, namespace).production == "v1"
    template = kubectl.get("deployment", "churn", "--namespace", namespace)["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "greenroom-runtime:test"
    assert await operator.pass_over() == 0


async def test_a_spoilt_flag_store_is_written_anew(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """A flag document that no pod would obey is replaced by the one that Git asks for."""
    apply()
    await operator.pass_over()
    patch = '{"data": {"flags.json": "{}"}}'
    kubectl("patch", "configmap", "churn-flags", "--namespace", namespace, "--type=merge", "--patch", patch)
    await operator.pass_over()
    assert flags_of(kubectl, namespace).production == "v1"


async def test_a_flag_store_that_comes_back_is_told_to_pods_again(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """A pod is touched once for each write, under another value: kubelet does not look up at a known one."""
    apply()
    await operator.pass_over()
    run_pod(kubectl, namespace)
    await operator.pass_over()
    first = touched_with(kubectl, namespace)
    assert await operator.pass_over() == 0
    patch = '{"data": {"flags.json": "{}"}}'
    kubectl("patch", "configmap", "churn-flags", "--namespace", namespace, "--type=merge", "--patch", patch)
    await operator.pass_over()
    second = touched_with(kubectl, namespace)
    revision = flags_of(kubectl, namespace).revision
    assert first.startswith(f"{revision}.")
    assert second.startswith(f"{revision}.")
    assert first != second
    assert await operator.pass_over() == 0


async def test_a_name_that_is_taken_is_a_conflict_and_left_alone(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """A Service of somebody else under our name is not touched; status says so until it is gone."""
    kubectl("create", "service", "clusterip", "churn", "--tcp=5:5", "--namespace", namespace)
    apply()
    await operator.pass_over()
    conditions = conditions_of(kubectl, namespace)
    assert conditions["Degraded"]["reason"] == "NameConflict"
    assert "Service churn" in conditions["Degraded"]["message"]
    assert kubectl.get("service", "churn", "--namespace", namespace)["spec"]["ports"][0]["port"] == 5
    kubectl("delete", "service", "churn", "--namespace", namespace)
    await operator.pass_over()
    assert conditions_of(kubectl, namespace)["Degraded"]["status"] == "False"


async def test_a_new_version_changes_the_flag_store_and_no_pod(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """With no pods the alias follows the spec at once; the pods' template is not touched."""
    apply()
    await operator.pass_over()
    before = kubectl.get("deployment", "churn", "--namespace", namespace)["metadata"]["generation"]
    apply(version="v2")
    await operator.pass_over()
    assert flags_of(kubectl, namespace).production == "v2"
    assert kubectl.get("deployment", "churn", "--namespace", namespace)["metadata"]["generation"] == before


async def test_what_old_pods_start_with_goes_when_the_last_of_them_is_replaced(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """An older configuration and account stay while a pod that names them may have to be started again."""
    apply()
    await operator.pass_over()
    report_rollout(kubectl, namespace, updated=1)
    before = started_with(kubectl, namespace)
    apply(source={"uri": "s3://models/other"}, serviceAccountName="team")
    await operator.pass_over()
    report_rollout(kubectl, namespace, updated=0)
    await operator.pass_over()
    meanwhile = started_with(kubectl, namespace)
    report_rollout(kubectl, namespace, updated=1)
    await operator.pass_over()
    template = kubectl.get("deployment", "churn", "--namespace", namespace)["spec"]["template"]
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    wanted = volumes["config"]["configMap"]["name"]
    assert "churn-serving" in before
    assert meanwhile == before | {wanted}
    assert started_with(kubectl, namespace) == {wanted}


async def test_a_leader_that_slept_cannot_overwrite_the_flag_store(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """The flag store is written with the resourceVersion that was observed: a later write of others wins."""
    apply()
    await operator.pass_over()
    apply(version="v2")
    await operator.observe()
    annotate = ("annotate", "configmap", "churn-flags", "--namespace", namespace, "somebody=else")
    kubectl(*annotate)
    with pytest.raises(Conflict):
        await operator.reconciler.reconcile(Key(namespace, "churn"))
    assert flags_of(kubectl, namespace).production == "v1"
    await operator.pass_over()
    assert flags_of(kubectl, namespace).production == "v2"


async def test_a_rollout_is_remembered_before_anything_is_done(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """What is decided about a rollout is one write of status; what follows is the next pass."""
    apply()
    await operator.pass_over()
    apply(rollout={"version": "v2", "steps": [{"percent": 10}], "gate": {"minRequests": 5}})
    assert await operator.pass_over() == 2  # status, and the event that tells it
    found = kubectl.get("modeldeployment", "churn", "--namespace", namespace)
    assert found["status"]["rollout"]["state"] == "Preparing"
    assert found["status"]["rollout"]["summary"] == "v2 (preparing)"
    await operator.pass_over()
    assert await operator.pass_over() == 0
    operator.forget()
    assert await operator.pass_over() == 0
    apply(rollout=None)
    await operator.pass_over()
    await operator.pass_over()
    assert "rollout" not in kubectl.get("modeldeployment", "churn", "--namespace", namespace)["status"]


async def test_a_leader_that_slept_cannot_decide_about_a_rollout(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """Status is written with the resourceVersion that was observed; and without it the flag store is not."""
    apply()
    await operator.pass_over()
    before = flags_of(kubectl, namespace)
    apply(rollout={"version": "v2", "percent": 10})
    await operator.observe()
    kubectl("annotate", "modeldeployment", "churn", "--namespace", namespace, "somebody=else")
    with pytest.raises(Conflict):
        await operator.reconciler.reconcile(Key(namespace, "churn"))
    found = kubectl.get("modeldeployment", "churn", "--namespace", namespace)
    assert "rollout" not in found["status"]
    assert flags_of(kubectl, namespace) == before


def names_of(kubectl: Kubectl, namespace: str, kind: str) -> set[str]:
    """Return the names of our children of a kind."""
    found = kubectl.get(kind, "--namespace", namespace, "-l", names.LABEL_DEPLOYMENT)
    return {item["metadata"]["name"] for item in found["items"]}


def report_shadow_pods(kubectl: Kubectl, namespace: str, *, updated: int) -> None:
    """Say of the shadow's own Deployment what its controller would."""
    generation = kubectl.get("deployment", "churn-shadow", "--namespace", namespace)["metadata"]["generation"]
    status = {"observedGeneration": generation, "replicas": 1, "readyReplicas": 1, "updatedReplicas": updated}
    patch = ("--subresource=status", "--type=merge", "--patch", json.dumps({"status": status}))
    kubectl("patch", "deployment", "churn-shadow", "--namespace", namespace, *patch)


async def test_a_shadow_is_told_to_pods_once_they_are_replaced(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """The sidecar comes with new pods; then what is compared is written to status, and to the flag store."""
    apply()
    await operator.pass_over()
    report_rollout(kubectl, namespace, updated=1)
    await operator.pass_over()
    apply(shadow={"version": "v2", "percent": 50})
    for _ in range(3):
        await operator.pass_over()
    template = kubectl.get("deployment", "churn", "--namespace", namespace)["spec"]["template"]
    assert [one["name"] for one in template["spec"]["containers"]] == ["serving", "shadow"]
    assert flags_of(kubectl, namespace).shadow is None
    report_rollout(kubectl, namespace, updated=1)
    await operator.pass_over()
    found = kubectl.get("modeldeployment", "churn", "--namespace", namespace)
    assert found["status"]["shadow"]["epoch"].startswith("v2@")
    assert flags_of(kubectl, namespace).shadow is None
    await operator.pass_over()
    told = flags_of(kubectl, namespace).shadow
    assert told is not None
    assert (told.version, told.hundredths, told.epoch) == ("v2", 5000, found["status"]["shadow"]["epoch"])
    assert conditions_of(kubectl, namespace)["ShadowHealthy"]["reason"] == "ShadowPreparing"
    await operator.pass_over()
    assert await operator.pass_over() == 0
    operator.forget()
    assert await operator.pass_over() == 0


async def test_a_source_of_features_that_fails_is_told_until_it_does_not(
    operator: Operator, pod: Pod, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """By status, condition and events, which go when features do; Ready does not depend on it."""
    operator = Operator(operator.kube, namespace, report_port=pod.port)
    apply(features={"redis": {"url": "redis://cache"}})
    await operator.pass_over()
    assert conditions_of(kubectl, namespace)["FeaturesHealthy"]["reason"] == "NotObserved"
    run_pod(kubectl, namespace, ip="127.0.0.1")
    await operator.pass_over()
    asking = asyncio.create_task(operator.reports.run(lambda _: None))
    uid = kubectl.get("pod", "churn-1-a", "--namespace", namespace)["metadata"]["uid"]
    for redis, state, reason in (
        (
            UpstreamReport(state=BreakerState.OPEN, error="Redis cannot be reached"),
            "LeftAlone",
            "FeatureSourceFailing",
        ),
        (UpstreamReport(), "Asked", "FeaturesFetched"),
    ):
        pod.features = FeatureReport(memory=3, default=1, redis_state=redis)
        await heard(operator, uid, pod)
        await operator.pass_over()
        found = kubectl.get("modeldeployment", "churn", "--namespace", namespace)["status"]
        assert (found["features"]["redis"], found["features"]["summary"]) == (
            state,
            "memory 75%, default 25%",
        )
        conditions = conditions_of(kubectl, namespace)
        assert conditions["FeaturesHealthy"]["reason"] == reason
        assert conditions["Ready"]["reason"] == "PodsStarting"
        assert await operator.pass_over() == 0
    events = kubectl.get("events", "--namespace", namespace)["items"]
    assert {"FeatureSourceFailing", "FeatureSourceRecovered"} <= {event["reason"] for event in events}
    apply()
    await operator.pass_over()
    assert "features" not in kubectl.get("modeldeployment", "churn", "--namespace", namespace)["status"]
    assert "FeaturesHealthy" not in conditions_of(kubectl, namespace)
    asking.cancel()


async def heard(operator: Operator, uid: str, pod: Pod) -> None:
    """Wait until the operator knows what the pod says now."""
    async with asyncio.timeout(60):
        while True:
            known = operator.reports.observation(uid)
            if known is not None and known.report is not None and known.report.features == pod.features:
                return
            await asyncio.sleep(0.02)


async def test_a_version_or_a_share_changes_no_pod(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """What is compared changes in the flag store alone."""
    apply(shadow={"version": "v2"})
    await operator.pass_over()  # it is remembered before anything is done
    await operator.pass_over()
    report_rollout(kubectl, namespace, updated=1)
    for _ in range(3):
        await operator.pass_over()
    before = kubectl.get("deployment", "churn", "--namespace", namespace)["metadata"]["generation"]
    apply(shadow={"version": "v3", "percent": 1, "gate": {"minRequests": 5}, "onSuccess": "Rollout"})
    for _ in range(4):
        await operator.pass_over()
    told = flags_of(kubectl, namespace).shadow
    assert told is not None
    assert (told.version, told.hundredths) == ("v3", 100)
    assert kubectl.get("deployment", "churn", "--namespace", namespace)["metadata"]["generation"] == before


async def test_a_shadow_of_its_own_comes_and_goes(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """Deployment and Service are applied, are quiet afterwards, and are removed with the shadow."""
    shadow = {"version": "v2", "placement": "Deployment", "replicas": 2}
    apply(shadow=shadow)
    await operator.pass_over()
    await operator.pass_over()
    assert names_of(kubectl, namespace, "deployment") == {"churn", "churn-shadow"}
    assert names_of(kubectl, namespace, "service") == {"churn", "churn-shadow"}
    own = kubectl.get("deployment", "churn-shadow", "--namespace", namespace)
    assert own["spec"]["replicas"] == 2
    shown = kubectl.get("deployment", "churn-shadow", "--namespace", namespace, "--show-managed-fields")[
        "metadata"
    ]["managedFields"]
    assert {(entry["manager"], entry["operation"]) for entry in shown} == {("greenroom", "Apply")}
    report_rollout(kubectl, namespace, updated=1)
    report_shadow_pods(kubectl, namespace, updated=1)
    for _ in range(3):
        await operator.pass_over()
    assert await operator.pass_over() == 0
    apply(shadow=None)
    for _ in range(3):
        await operator.pass_over()
        report_rollout(kubectl, namespace, updated=1)
    assert names_of(kubectl, namespace, "deployment") == {"churn"}
    assert names_of(kubectl, namespace, "service") == {"churn"}
    assert "shadow" not in kubectl.get("modeldeployment", "churn", "--namespace", namespace)["status"]
    assert await operator.pass_over() == 0


async def test_a_leader_that_slept_cannot_decide_about_a_shadow(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """What is compared is written with the resourceVersion that was observed; else nothing follows."""
    apply()
    await operator.pass_over()
    report_rollout(kubectl, namespace, updated=1)
    await operator.pass_over()
    apply(shadow={"version": "v2", "placement": "Deployment"})
    await operator.observe()
    kubectl("annotate", "modeldeployment", "churn", "--namespace", namespace, "somebody=else")
    with pytest.raises(Conflict):
        await operator.reconciler.reconcile(Key(namespace, "churn"))
    assert flags_of(kubectl, namespace).shadow is None
    assert "shadow" not in kubectl.get("modeldeployment", "churn", "--namespace", namespace)["status"]


async def test_an_action_without_effect_is_acknowledged_and_answered(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """What cannot be done is told once, by an event, and acknowledged in status."""
    apply()
    await operator.pass_over()
    action = "abort/v2/now"
    annotate = ("annotate", "modeldeployment", "churn", "--namespace", namespace)
    kubectl(*annotate, f"{names.ANNOTATION_ACTION}={action}")
    await operator.pass_over()
    assert await operator.pass_over() == 0
    found = kubectl.get("modeldeployment", "churn", "--namespace", namespace)
    assert found["status"]["lastHandledAction"] == action
    events = kubectl.get("events", "--namespace", namespace)["items"]
    told = [event["message"] for event in events if event["reason"] == "ActionIgnored"]
    assert told == ["abort of v2 has no effect: there is no spec.rollout"]


async def test_hands_off_when_told(operator: Operator, apply: Any, kubectl: Kubectl, namespace: str) -> None:
    """The annotation reconcile: disabled stops all but status, which says so, until it is removed."""
    apply()
    await operator.pass_over()
    annotate = ("annotate", "modeldeployment", "churn", "--namespace", namespace)
    kubectl(*annotate, f"{names.ANNOTATION_RECONCILE}=disabled")
    apply(version="v2")
    await operator.pass_over()
    assert conditions_of(kubectl, namespace)["Progressing"]["reason"] == "ReconcileDisabled"
    assert flags_of(kubectl, namespace).production == "v1"
    assert await operator.pass_over() == 0
    kubectl(*annotate, f"{names.ANNOTATION_RECONCILE}-")
    await operator.pass_over()
    assert flags_of(kubectl, namespace).production == "v2"


async def test_what_the_schema_cannot_see_is_an_invalid_spec(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """What only the pods' own validation refuses is told in status, and not tried again before it changes."""
    spread = {"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    apply(topologySpreadConstraints=[spread])
    await operator.pass_over()
    degraded = conditions_of(kubectl, namespace)["Degraded"]
    assert degraded["reason"] == "InvalidSpec"
    assert "maxSkew" in degraded["message"]
    await operator.pass_over()
    assert conditions_of(kubectl, namespace)["Degraded"] == degraded
    apply(topologySpreadConstraints=[spread | {"maxSkew": 1}])
    await operator.pass_over()
    assert conditions_of(kubectl, namespace)["Degraded"]["status"] == "False"


async def test_what_a_quota_forbids_is_told_and_tried_again(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """A child that the namespace may not have more of is in status, by name and cause, until it may."""
    in_namespace = ("--namespace", namespace)
    kubectl("create", "quota", "none", "--hard=services=0", *in_namespace)
    status = '{"status": {"hard": {"services": "0"}, "used": {"services": "0"}}}'  # its controller's part
    kubectl("patch", "quota", "none", *in_namespace, "--subresource=status", "--type=merge", "-p", status)
    apply()
    with pytest.raises(Forbidden):
        await operator.pass_over()
    degraded = conditions_of(kubectl, namespace)["Degraded"]
    assert (degraded["status"], degraded["reason"]) == ("True", "Forbidden")
    assert "cannot apply Service" in degraded["message"]
    assert "exceeded quota: none" in degraded["message"]
    kubectl("delete", "quota", "none", *in_namespace)
    probe = ("create", "service", "clusterip", "probe", "--tcp=5:5", *in_namespace)
    while kubectl.run(*probe).returncode:  # noqa: ASYNC110 - until the API server has heard of it
        await asyncio.sleep(0.1)
    await operator.pass_over()
    assert conditions_of(kubectl, namespace)["Degraded"]["status"] == "False"


async def test_what_a_namesake_left_is_waited_for(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """A ModelDeployment made anew waits until the children of the deleted one are gone."""
    apply()
    await operator.pass_over()
    kubectl("delete", "modeldeployment", "churn", "--namespace", namespace)
    apply()
    await operator.pass_over()
    ready = conditions_of(kubectl, namespace)["Ready"]
    assert (ready["status"], ready["reason"]) == ("Unknown", "NotObserved")
    for kind in ("deployment", "service", "serviceaccount", "configmap"):  # what the garbage collector does
        kubectl("delete", kind, "--namespace", namespace, "-l", names.LABEL_DEPLOYMENT)
    await operator.pass_over()
    assert conditions_of(kubectl, namespace)["Ready"]["reason"] == "PodsStarting"


async def test_columns_that_people_read(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """`kubectl get` shows whether it serves and how many pods do, before the first one is there."""
    apply(replicas=3)
    await operator.pass_over()
    header, row = kubectl("get", "md", "--namespace", namespace).splitlines()
    columns = dict(zip(header.split(), row.split(), strict=False))
    assert "0/3" in row
    assert "False" in row
    assert columns["NAME"] == "churn"


async def test_conditions_of_others_survive(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """A condition that another controller has set stays, and makes us write nothing."""
    apply()
    await operator.pass_over()
    condition = {
        "type": "Approved",
        "status": "True",
        "reason": "Human",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    patch = {
        "apiVersion": "greenroom.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "churn"},
        "status": {"conditions": [condition]},
    }
    done = await asyncio.to_thread(
        kubectl.run,
        *("apply", "--server-side", "--subresource=status", "--field-manager=approver"),
        *("--namespace", namespace, "--filename=-"),
        document=patch,
    )
    assert done.returncode == 0, done.stderr
    assert await operator.pass_over() == 0
    assert "Approved" in conditions_of(kubectl, namespace)


async def test_a_deleted_one_is_forgotten(
    operator: Operator, apply: Any, kubectl: Kubectl, namespace: str
) -> None:
    """Nothing is written for a ModelDeployment that is gone: owner references do the rest."""
    apply()
    await operator.pass_over()
    kubectl("delete", "modeldeployment", "churn", "--namespace", namespace)
    assert await operator.pass_over() == 0
