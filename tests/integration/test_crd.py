"""The CRD on a real API server, by the tools that people use on it."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from greenroom_operator.api import podschemas
from greenroom_operator.api.features import FeaturesStatus, SourceState
from greenroom_operator.api.fields import Condition, ConditionStatus
from greenroom_operator.api.modeldeployment import (
    API_VERSION,
    GoldenResult,
    HistoryEntry,
    LastFailure,
    ModelDeployment,
    ModelDeploymentStatus,
    PredictionLogStatus,
    Promotion,
    PromotionState,
    VersionStatus,
)
from greenroom_operator.api.rollout import RolloutState, RolloutStatus
from greenroom_operator.api.shadow import SegmentStatus, ShadowState, ShadowStatus
from greenroom_operator.api.times import format_timestamp
from tests.support.kstatus import KStatus, compute_kstatus
from tests.support.kubectl import Kubectl
from tests.support.manifests import model_deployment

pytestmark = pytest.mark.usefixtures("crd")

NOW = format_timestamp(datetime(2026, 11, 3, 9, 30, tzinfo=UTC))
SERVING = ModelDeploymentStatus(
    observed_generation=1,
    conditions=(
        Condition(
            type="Ready",
            status=ConditionStatus.TRUE,
            observed_generation=1,
            last_transition_time=NOW,
            reason="Serving",
            message="v2 is served by 3 pods",
        ),
    ),
    version="v2",
    previous_version="v1",
    versions=(
        VersionStatus(
            name="v2",
            digest=f"sha256:{'0' * 64}",
            pods_ready=3,
            golden=GoldenResult.PASSED,
            memory="118Mi",
        ),
    ),
    promotion=Promotion(
        version="v2", state=PromotionState.COMPLETE, start_time=NOW, pods_ready=3, pods_total=3
    ),
    rollout=RolloutStatus(
        version="v3",
        digest=f"sha256:{'1' * 64}",
        state=RolloutState.HOLDING,
        summary="v3 (10%)",
        percent="10",
        step=2,
        steps=3,
        start_time=NOW,
        begin_time=NOW,
        held_seconds=90,
        observed_time=NOW,
        requests=1200,
        user_buckets=812,
        user_buckets_with_errors=3,
        verdict="Inconclusive",
        message="held for 2h",
        evidence="{}",
        last_crash_time=NOW,
    ),
    shadow=ShadowStatus(
        version="v4",
        digest=f"sha256:{'2' * 64}",
        state=ShadowState.COMPARING,
        summary="0.4%",
        requests=90122,
        disagreements=361,
        disagreement_percent="0.4",
        errors=0,
        not_comparable=0,
        dropped=12,
        latency_ratio="1.1",
        differences="p50 <=1e-06, p99 <=0.02, max <=0.1",
        segments=(SegmentStatus(name="country=NO", requests=7, disagreements=1),),
        verdict="Inconclusive",
        message="errors: not proven yet",
        error="why it was broken",
        epoch="v4@20261103T093000.000000#0a1b2c3d",
        attempt="0a1b2c3d",
        evidence="{}",
        counted="eJyrrgUAAXUA+Q==",
        observed_time="2026-11-03T09:30:00Z",
    ),
    replicas=3,
    ready_replicas=3,
    replica_summary="3/3",
    selector="greenroom.dev/deployment=churn",
    url="http://churn.default.svc",
    last_failure=LastFailure(
        version="v3", pod="churn-1", reason="GoldenMismatch", message="sample 4 differs", sample=4, time=NOW
    ),
    prediction_log=PredictionLogStatus(
        pods_failing=1, dropped=2**63 - 1, pod="churn-1", error="no space left on device", time=NOW
    ),
    features=FeaturesStatus(
        summary="memory 92%, redis 6%, compute 1%, default 1%",
        memory_percent=92,
        redis_percent=6,
        compute_percent=1,
        default_percent=1,
        redis=SourceState.LEFT_ALONE,
        compute=SourceState.ASKED,
        pods_failing=1,
        pod="churn-1",
        error="Redis cannot be reached",
        time=NOW,
    ),
    history=(HistoryEntry(version="v2", time=NOW, event="Promoted"),),
)

Deploy = Callable[..., dict[str, Any]]


@pytest.fixture
def deploy(kubectl: Kubectl, request: pytest.FixtureRequest) -> Deploy:
    """Return a function that applies a ModelDeployment, to be deleted after the test, and returns it."""

    def apply(name: str, *, status: ModelDeploymentStatus | None = None, **spec: Any) -> dict[str, Any]:
        kubectl("apply", "--filename=-", document=model_deployment(name, **spec))
        request.addfinalizer(lambda: kubectl("delete", "md", name))
        if status is not None:
            write_status(name, status=status, kubectl=kubectl)
        found: dict[str, Any] = kubectl.get("md", name)
        return found

    return apply


def write_status(name: str, *, status: ModelDeploymentStatus, kubectl: Kubectl) -> None:
    """Write a status by server-side apply, as the operator does."""
    document = {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "status": status.model_dump(by_alias=True, exclude_none=True, mode="json"),
    }
    arguments = ("--server-side", "--subresource=status", "--field-manager=greenroom", "--force-conflicts")
    kubectl("apply", *arguments, "--filename=-", document=document)


def test_the_api_server_serves_it(crd: str, kubectl: Kubectl) -> None:
    """The CRD is established and its schema is structural, without a complaint."""
    conditions = {item["type"]: item for item in kubectl.get("crd", crd)["status"]["conditions"]}
    assert conditions["Established"]["status"] == "True"
    assert conditions["NamesAccepted"]["status"] == "True"
    assert "NonStructuralSchema" not in conditions


def test_only_replicas_is_defaulted(deploy: Deploy) -> None:
    """A live object shows what its file says, and `replicas: 1` for the scale subresource."""
    assert deploy("plain")["spec"] == model_deployment()["spec"] | {"replicas": 1}


def test_a_new_object_is_not_yet_observed(deploy: Deploy) -> None:
    """Before the operator has looked, no generation is observed: kstatus would take no status for done."""
    found = deploy("unseen")
    assert found["status"] == {"observedGeneration": -1}
    assert compute_kstatus(found) is KStatus.IN_PROGRESS


def test_the_models_read_what_the_server_sends(deploy: Deploy) -> None:
    """A live object parses, its defaults filled in by Python."""
    found = ModelDeployment.model_validate(deploy("parsed", version="v2"))
    assert (found.metadata.name, found.metadata.namespace, found.metadata.generation) == (
        "parsed",
        "default",
        1,
    )
    assert found.metadata.uid
    assert found.metadata.resource_version
    assert (found.spec.version, found.spec.drain, found.spec.limits.concurrency) == ("v2", "5s", 256)


def test_a_status_survives_the_round_trip(deploy: Deploy) -> None:
    """What the models dump is accepted by server-side apply and parses to the same status again."""
    found = deploy("round", status=SERVING)
    assert ModelDeployment.model_validate(found).status == SERVING


def test_the_same_status_twice_is_no_write(deploy: Deploy, kubectl: Kubectl) -> None:
    """An identical apply leaves the resourceVersion, so a quiet operator makes no events for watchers."""
    before = deploy("quiet", status=SERVING)["metadata"]["resourceVersion"]
    write_status("quiet", status=SERVING, kubectl=kubectl)
    assert kubectl.get("md", "quiet")["metadata"]["resourceVersion"] == before


def test_another_controllers_condition_stays(deploy: Deploy, kubectl: Kubectl) -> None:
    """Conditions merge by type: what somebody else wrote is not ours to remove."""
    deploy("shared", status=SERVING)
    foreign = {
        "type": "Audited",
        "status": "True",
        "lastTransitionTime": NOW,
        "reason": "Weekly",
        "message": "",
    }
    document = model_deployment("shared") | {"status": {"conditions": [foreign]}}
    del document["spec"]
    arguments = ("--server-side", "--subresource=status", "--field-manager=auditor")
    kubectl("apply", *arguments, "--filename=-", document=document)
    write_status("shared", status=SERVING, kubectl=kubectl)
    types = [item["type"] for item in kubectl.get("md", "shared")["status"]["conditions"]]
    assert sorted(types) == ["Audited", "Ready"]


def test_a_status_time_in_another_spelling_is_refused(deploy: Deploy, kubectl: Kubectl) -> None:
    """A moment without a zone never gets into a status."""
    deploy("timeless")
    entry = {"version": "v1", "time": "2026-11-03T09:30:00", "event": "Promoted"}
    patch = json.dumps({"status": {"history": [entry]}})
    refused = kubectl.run(
        "patch", "md", "timeless", "--subresource=status", "--type=merge", f"--patch={patch}"
    )
    assert refused.returncode == 1
    assert "must be of type date-time" in refused.stderr


def test_columns_say_what_serves(deploy: Deploy, kubectl: Kubectl) -> None:
    """`kubectl get md` answers the first questions, `-o wide` the second ones."""
    deploy("columns", status=SERVING)
    header, row = kubectl("get", "md", "columns").splitlines()
    assert header.split() == [
        "NAME",
        "VERSION",
        "ROLLOUT",
        "SHADOW",
        "DISAGREE",
        "READY",
        "REPLICAS",
        "AGE",
    ]
    assert row.split()[:8] == ["columns", "v2", "v3", "(10%)", "v4", "0.4%", "True", "3/3"]
    header, row = kubectl("get", "md", "columns", "--output=wide").splitlines()
    assert header.split() == [
        "NAME",
        "VERSION",
        "ROLLOUT",
        "SHADOW",
        "DISAGREE",
        "READY",
        "REPLICAS",
        "REASON",
        "PROMOTION",
        "URL",
        "AGE",
    ]
    assert row.split()[8:11] == ["Serving", "Complete", "http://churn.default.svc"]


def test_the_category_finds_it(deploy: Deploy, kubectl: Kubectl) -> None:
    """`kubectl get greenroom` lists everything that belongs to Greenroom."""
    deploy("category")
    assert "modeldeployment.greenroom.dev/category" in kubectl("get", "greenroom", "--output=name").split()


@pytest.fixture(scope="module")
def published(crd: str, kubectl: Kubectl) -> None:
    """Wait until the API server describes the resource, which it does a moment after it serves it."""
    deadline = time.monotonic() + 60
    while kubectl.run("explain", "md").returncode:
        assert time.monotonic() < deadline, f"{crd} was not described within 60 s"
        time.sleep(0.1)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("md.spec.source", "s3://BUCKET/PREFIX is an S3-compatible object store"),
        ("md.spec.predictionLog", "Nothing that goes wrong with them delays or changes an answer"),
        ("md.spec.predictionLog.secretRef", "becomes the variable GREENROOM_PREDICTIONS_NAME"),
        ("md.spec.version", "The version that the alias production points at"),
        ("md.spec.affinity.nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"),
        ("md.spec.rollout", "Another version for some users, while production stays spec.version"),
        ("md.spec.rollout.rules.in", "or one item of it where it is a list, is one of these"),
        ("md.spec.rollout.steps.hold", "Only time for which pods report evidence counts"),
        ("md.spec.rollout.gate.minRequests", "At 1 % of users 1000 requests are 100,000 of all"),
        ("md.status.rollout", "Aborted and Refused route nobody"),
        ("md.spec.shadow", "sees production's traffic and is never served"),
        ("md.spec.shadow.tolerance", "labels must be the same"),
        ("md.spec.shadow.resources", "enough for a model of 128Mi"),
        ("md.status.shadow", "Over once it is production"),
        ("md.status.promotion", "Preparing until every pod has proven it"),
    ],
)
def test_kubectl_explains_each_field(path: str, text: str, kubectl: Kubectl) -> None:
    """The models' docstrings are what `kubectl explain` prints."""
    assert text in " ".join(kubectl("explain", path).split())


def test_it_scales(deploy: Deploy, kubectl: Kubectl) -> None:
    """`kubectl scale` changes spec.replicas; autoscalers read pods and selector from the same place."""
    deploy("scaled", status=SERVING)
    kubectl("scale", "md/scaled", "--replicas=5")
    assert kubectl.get("md", "scaled")["spec"]["replicas"] == 5
    path = "/apis/greenroom.dev/v1alpha1/namespaces/default/modeldeployments/scaled/scale"
    scale = json.loads(kubectl("get", f"--raw={path}"))
    assert scale["status"] == {"replicas": 3, "selector": "greenroom.dev/deployment=churn"}


ROLLOUT: dict[str, Any] = {
    "version": "v3",
    "rules": [{"name": "beta", "attribute": "cohorts", "in": ["staff", "beta"]}],
    "steps": [{"percent": 1, "hold": "30m"}, {"percent": 12.5, "hold": "2h"}],
    "gate": {"maxErrorRatio": "2", "toleratedErrorPercent": 1},
    "paused": False,
}
"""Shares as people write them: some whole, some not."""
SHADOW: dict[str, Any] = {
    "version": "v4",
    "percent": 12.5,
    "placement": "Deployment",
    "replicas": 2,
    "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}},
    "gate": {"maxErrorPercent": "0.5"},
}


@pytest.mark.parametrize("arguments", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_applying_again_changes_nothing(arguments: tuple[str, ...], deploy: Deploy, kubectl: Kubectl) -> None:
    """The same file applied twice writes once."""
    spec = {
        "resources": {"limits": {"cpu": 2, "memory": "1024Mi"}},
        "env": [{"name": "A", "value": ""}],
        "podLabels": {},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "rollout": ROLLOUT,
        "shadow": SHADOW,
    }
    deploy("again", **spec)
    document = model_deployment("again", **spec)
    kubectl("apply", *arguments, "--filename=-", document=document)
    before = kubectl.get("md", "again")["metadata"]["resourceVersion"]
    kubectl("apply", *arguments, "--filename=-", document=document)
    assert kubectl.get("md", "again")["metadata"]["resourceVersion"] == before


def test_diff_shows_a_change_and_nothing_else(deploy: Deploy, kubectl: Kubectl) -> None:
    """`kubectl diff` is silent for what was applied, and shows what was not."""
    deploy("diffed", status=SERVING, progressDeadline="90s", rollout=ROLLOUT, shadow=SHADOW)
    applied = model_deployment("diffed", progressDeadline="90s", rollout=ROLLOUT, shadow=SHADOW)
    same = kubectl.run("diff", "--filename=-", document=applied)
    assert (same.returncode, same.stdout) == (0, "")
    changed = kubectl.run(
        "diff", "--filename=-", document=applied | {"spec": applied["spec"] | {"progressDeadline": "2m"}}
    )
    assert changed.returncode == 1
    assert "+  progressDeadline: 2m" in changed.stdout


def test_kubectl_waits_for_ready(deploy: Deploy, kubectl: Kubectl) -> None:
    """`kubectl wait --for=condition=Ready` returns once it serves, and fails while it does not."""
    deploy("waited")
    early = kubectl.run("wait", "--for=condition=Ready", "md/waited", "--timeout=1s")
    assert early.returncode == 1
    write_status("waited", status=SERVING, kubectl=kubectl)
    kubectl("wait", "--for=condition=Ready", "md/waited", "--timeout=30s")
    kubectl("wait", "--for=jsonpath={.status.version}=v2", "md/waited", "--timeout=30s")


def test_spec_and_status_are_written_apart(deploy: Deploy, kubectl: Kubectl) -> None:
    """A user's file cannot set the status, and a status write cannot touch the spec or the generation."""
    before = deploy("apart")
    document = model_deployment("apart") | {"status": {"version": "v9"}}
    kubectl("apply", "--filename=-", document=document)
    assert kubectl.get("md", "apart")["status"] == {"observedGeneration": -1}
    write_status("apart", status=SERVING, kubectl=kubectl)
    after = kubectl.get("md", "apart")
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"] == 1


def test_the_pod_schemas_are_this_api_servers_own(kubectl: Kubectl) -> None:
    """`podschemas.json` is what the API server publishes about these types, trimmed."""
    published = json.loads(kubectl("get", "--raw=/openapi/v3/api/v1"))
    assert json.loads(podschemas.SCHEMAS_PATH.read_text(encoding="utf-8")) == podschemas.trim(published)
