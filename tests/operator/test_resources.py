"""The children of a ModelDeployment: what they say, and what changes them."""

from decimal import Decimal
from typing import Any

import kubernetes_validate
import pytest
import yaml

from greenroom_operator.api.modeldeployment import ModelDeployment, ModelDeploymentSpec
from greenroom_operator.api.quantities import parse_quantity
from greenroom_operator.resources import build_children
from greenroom_operator.resources.config import build_config, build_runtime_config
from greenroom_operator.resources.deployment import build_deployment
from greenroom_operator.resources.flags import build_flags, read_flags
from greenroom_operator.resources.ownership import build_metadata, controller_kind, controller_uid
from greenroom_operator.resources.service import service_url
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import PredictionLog, parse_config
from tests.support.builders import UID, flag_store, model_deployment
from tests.support.rendering import CASES, GOLDEN, IMAGE, Manifest, file_name, read_case, render

KUBERNETES_SCHEMAS = "1.34"


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """Return the name of each case in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def manifests(case: str) -> list[Manifest]:
    """Return the children of the case's ModelDeployment."""
    return render(read_case(case))


def only(manifests: list[Manifest], kind: str) -> Manifest:
    """Return the one child of a kind."""
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def workload(**parts: Any) -> Manifest:
    """Return the serving Deployment of a small ModelDeployment."""
    return build_deployment(model_deployment(**parts), default_image=IMAGE)


# Golden manifests


def test_children_are_the_reviewed_ones(case: str, manifests: list[Manifest]) -> None:
    """A change shows in the golden manifests; ``python -m tests.support.rendering`` accepts it."""
    files = (GOLDEN / case / "expected").glob("*.yaml")
    expected = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}

    assert {file_name(manifest): manifest for manifest in manifests} == expected


def test_children_are_valid_kubernetes(manifests: list[Manifest]) -> None:
    """Each child fits Kubernetes' own schema to the letter: no unknown field, no wrong type."""
    for manifest in manifests:
        kubernetes_validate.validate(manifest, KUBERNETES_SCHEMAS, strict=True)


def test_the_full_case_is_full() -> None:
    """Whatever spec may say is said in the full case: no field is left without an effect to review."""
    written = yaml.safe_load((GOLDEN / "full" / "modeldeployment.yaml").read_text(encoding="utf-8"))
    fields = {field.alias or name for name, field in ModelDeploymentSpec.model_fields.items()}

    assert set(written["spec"]) == fields


def test_pods_meet_the_restricted_standard(manifests: list[Manifest]) -> None:
    """A namespace that enforces ``restricted`` admits the pods, and they cannot write to their own image."""
    pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    allowed = {"name", "configMap", "emptyDir", "persistentVolumeClaim"}
    assert {kind for volume in pod["volumes"] for kind in volume} <= allowed
    assert not any("hostPort" in port for port in container["ports"])
    assert pod["automountServiceAccountToken"] is False


def test_children_say_whose_they_are(case: str, manifests: list[Manifest]) -> None:
    """Each has our labels and no other, and the ModelDeployment as its only owner and controller."""
    deployment = read_case(case)
    for manifest in manifests:
        metadata = manifest["metadata"]
        assert metadata["namespace"] == deployment.metadata.namespace
        assert metadata["labels"] == {
            "app.kubernetes.io/name": "greenroom-serving",
            "app.kubernetes.io/managed-by": "greenroom",
            "greenroom.dev/deployment": deployment.metadata.name,
        }
        assert len(metadata["ownerReferences"]) == 1
        assert controller_uid(manifest) == deployment.metadata.uid
        assert controller_kind(manifest) == "ModelDeployment"


def test_selectors_find_the_pods(manifests: list[Manifest]) -> None:
    """Deployment and Service select the pods by labels that never change."""
    deployment = only(manifests, "Deployment")["spec"]
    selector = deployment["selector"]["matchLabels"]

    assert selector.items() <= deployment["template"]["metadata"]["labels"].items()
    assert only(manifests, "Service")["spec"]["selector"] == selector


def test_mounts_and_volumes_agree(manifests: list[Manifest]) -> None:
    """Configuration and flags come from the very ConfigMaps that are built, each as a whole directory."""
    pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
    config_maps = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    files = {
        mounts[volume["name"]]["mountPath"]: set(config_maps[volume["configMap"]["name"]])
        for volume in pod["volumes"]
        if "configMap" in volume
    }

    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert files == {names.CONFIG_DIR: {names.CONFIG_FILE}, names.FLAGS_DIR: {names.FLAGS_FILE}}
    assert not any("subPath" in mount for mount in mounts.values())


def test_runtime_reads_what_is_built(case: str, manifests: list[Manifest]) -> None:
    """The configuration is what the runtime's own parser makes of it."""
    texts = [m["data"].get(names.CONFIG_FILE) for m in manifests if m["kind"] == "ConfigMap"]
    (text,) = filter(None, texts)

    assert parse_config(text) == build_runtime_config(read_case(case))


def test_the_longest_name_still_fits() -> None:
    """Forty characters leave room for every suffix within 63."""
    body = {"name": "c" * 40, "namespace": "ml", "uid": UID}
    deployment = ModelDeployment.model_validate(
        {"metadata": body, "spec": {"source": {"uri": "s3://models/churn"}, "version": "v1"}}
    )

    for manifest in render(deployment):
        assert len(manifest["metadata"]["name"]) <= 63
        kubernetes_validate.validate(manifest, KUBERNETES_SCHEMAS, strict=True)


# What users may say


@pytest.mark.parametrize(
    "label",
    ["app.kubernetes.io/name", "app.kubernetes.io/managed-by", "greenroom.dev/deployment"],
)
def test_pod_labels_never_move_a_pod(label: str) -> None:
    """A label that selects pods is ours, even where the schema's rule against it was not in force."""
    spec = workload(podLabels={label: "theirs", "example.com/team": "growth"})["spec"]
    labels = spec["template"]["metadata"]["labels"]

    assert labels == spec["selector"]["matchLabels"] | {
        "app.kubernetes.io/managed-by": "greenroom",
        "example.com/team": "growth",
    }


def test_own_service_account_is_not_made() -> None:
    """An account that the user names is the user's: it is used, not built."""
    theirs = model_deployment(serviceAccountName="churn-reader")
    kinds = [child["kind"] for child in build_children(theirs, flags=flag_store("v1"), default_image=IMAGE)]

    assert "ServiceAccount" not in kinds
    pod = build_deployment(theirs, default_image=IMAGE)["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "churn-reader"


def test_default_image_is_the_operators() -> None:
    """Without an image in spec the pods run the operator's own release."""
    (container,) = workload()["spec"]["template"]["spec"]["containers"]

    assert container["image"] == IMAGE


@pytest.mark.parametrize(("drain", "grace"), [("0s", 50), ("5s", 55), ("10m", 650)])
def test_kubelet_waits_for_the_drain(drain: str, grace: int) -> None:
    """A pod is killed only after its drain, a longest request, the log's last records and a bit."""
    pod = workload(drain=drain)["spec"]["template"]["spec"]

    assert pod["terminationGracePeriodSeconds"] == grace


@pytest.mark.parametrize(("deadline", "seconds"), [("1s", 2), ("10m", 600), ("1h30m", 5400)])
def test_deployment_gives_up_with_the_model(deadline: str, seconds: int) -> None:
    """The Deployment's own deadline is the ModelDeployment's."""
    assert workload(progressDeadline=deadline)["spec"]["progressDeadlineSeconds"] == seconds


def test_url_is_the_services() -> None:
    """Where the cluster reaches the model."""
    assert service_url(model_deployment()) == "http://churn.ml.svc"


# Sources that are mounted, and disk for the prediction log


def volumes_of(manifest: Manifest) -> dict[str, Any]:
    """Return the pod's volumes by their name."""
    pod = manifest["spec"]["template"]["spec"]
    return {volume["name"]: volume for volume in pod["volumes"]}


@pytest.mark.parametrize(
    ("uri", "claim", "read"),
    [
        ("pvc://models", "models", "file:///mnt/greenroom/source"),
        ("pvc://models/", "models", "file:///mnt/greenroom/source"),
        ("pvc://team.models-1/a/b/", "team.models-1", "file:///mnt/greenroom/source/a/b"),
        ("pvc://models/a..b/.c", "models", "file:///mnt/greenroom/source/a..b/.c"),
        (f"pvc://{'c' * 253}/a", "c" * 253, "file:///mnt/greenroom/source/a"),
    ],
)
def test_a_claim_is_mounted_read_only(uri: str, claim: str, read: str) -> None:
    """The pod mounts the claim, and the runtime is told where; nothing there can be written by the pod."""
    manifest = workload(source={"uri": uri})
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "source")

    assert volumes_of(manifest)["source"]["persistentVolumeClaim"] == {"claimName": claim, "readOnly": True}
    assert mount == {"name": "source", "mountPath": names.SOURCE_DIR, "readOnly": True}
    assert build_runtime_config(model_deployment(source={"uri": uri})).source_uri == read


@pytest.mark.parametrize(
    "uri",
    [
        "pvc://",
        "pvc:///models",
        "pvc://../models",
        "pvc://Models/a",
        "pvc://-models/a",
        "pvc://mo_dels",
        "pvc://models/..",
        "pvc://models/../a",
        "pvc://models/a/../../etc",
        "pvc://models/%2e%2e/a",
        "pvc://models/a b",
        "pvc://models/a?b",
        f"pvc://{'c' * 254}/a",
    ],
)
def test_a_claim_that_cannot_be_is_refused(uri: str) -> None:
    """No path leaves the claim, whatever rules were in force when the object was written."""
    with pytest.raises(ValueError, match=r"spec\.source\.uri must be pvc://CLAIM/PATH"):
        workload(source={"uri": uri})


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "https"])
def test_other_sources_are_the_runtimes_to_read(scheme: str) -> None:
    """Object stores and web servers are named to the runtime as they are, and nothing is mounted."""
    uri = f"{scheme}://models/churn"

    assert build_runtime_config(model_deployment(source={"uri": f"{uri}/"})).source_uri == uri
    assert "source" not in volumes_of(workload(source={"uri": uri}))


def test_predictions_are_logged_by_default() -> None:
    """Without a word about it every prediction is kept on the pod's own disk, sensitive features hashed."""
    log = build_runtime_config(model_deployment()).prediction_log

    assert log == PredictionLog(sink="Files", percent=100, max_disk_bytes=2**30, sensitive="Hash")
    assert "predictions" in volumes_of(workload())


def test_no_log_is_none() -> None:
    """A team that may keep nothing keeps nothing: no log, and no disk for one."""
    unlogged = {"sink": "None"}

    assert build_runtime_config(model_deployment(predictionLog=unlogged)).prediction_log is None
    assert "predictions" not in volumes_of(workload(predictionLog=unlogged))


@pytest.mark.parametrize(
    ("log", "mounted"),
    [
        ({"sink": "Files"}, True),
        ({"sink": "Http", "uri": "http://collector"}, True),
        ({"sink": "ObjectStore", "uri": "s3://predictions"}, True),
        ({"sink": "Stdout"}, False),
    ],
)
def test_the_log_has_a_volume_where_it_needs_one(log: dict[str, Any], *, mounted: bool) -> None:
    """Records on disk outlive a container's crash; those that are printed need no disk."""
    manifest = workload(predictionLog=log)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}

    assert ("predictions" in volumes_of(manifest)) == mounted
    assert paths.get("predictions") == (names.PREDICTIONS_DIR if mounted else None)


@pytest.mark.parametrize("disk", ["64Mi", "100M", "1Gi", "1.5Gi", "16Ti"])
def test_the_volume_is_larger_than_the_log(disk: str) -> None:
    """Kubelet evicts a pod whose volume is too full: the log stops well before, by an eighth and 64Mi."""
    log = {"maxDisk": disk}
    config = build_runtime_config(model_deployment(predictionLog=log)).prediction_log
    limit = parse_quantity(volumes_of(workload(predictionLog=log))["predictions"]["emptyDir"]["sizeLimit"])

    assert config is not None
    assert 0 <= limit - (config.max_disk_bytes * 9 / Decimal(8) + 64 * 2**20) < 2**20


@pytest.mark.parametrize(
    ("limit", "expected"), [("4Gi", 2**30), ("1Gi", 2**29), ("0", 2**30), (1000, 500), ("1", 1)]
)
def test_the_log_leaves_half_of_the_pods_disk(limit: object, expected: int) -> None:
    """Where the container's disk is limited the log takes half at most: beyond the limit a pod is evicted."""
    resources = {"limits": {"ephemeral-storage": limit}}
    log = build_runtime_config(model_deployment(resources=resources)).prediction_log

    assert log is not None
    assert log.max_disk_bytes == expected


def test_secrets_do_not_mix() -> None:
    """The same variable in both Secrets is two variables: neither takes the other's credentials."""
    manifest = workload(
        source={"uri": "s3://models", "secretRef": {"name": "store"}},
        predictionLog={"secretRef": {"name": "log"}},
    )
    (container,) = manifest["spec"]["template"]["spec"]["containers"]

    assert container["envFrom"] == [
        {"secretRef": {"name": "store"}},
        {"prefix": "GREENROOM_PREDICTIONS_", "secretRef": {"name": "log"}},
    ]
    assert f"{names.ENV_LOG_PREFIX}KEY" == names.ENV_LOG_KEY


# What changes what


def test_another_version_changes_the_flag_store_only() -> None:
    """The alias flip needs no new pod: spec.version is in no manifest but the flag store's."""
    old, new = model_deployment(version="v1"), model_deployment(version="v2")

    assert build_children(old, flags=flag_store("v1"), default_image=IMAGE) == build_children(
        new, flags=flag_store("v1"), default_image=IMAGE
    )
    flags = (flag_store("v1"), flag_store("v2", previous="v1", pinned=["v1"]))
    before, after = (build_children(new, flags=store, default_image=IMAGE) for store in flags)
    changed = [one["metadata"]["name"] for one, other in zip(before, after, strict=True) if one != other]
    assert changed == ["churn-flags"]


def test_more_replicas_are_the_same_pods() -> None:
    """Scaling changes the Deployment's replicas and nothing else at all."""
    one, three = (
        build_children(model_deployment(replicas=count), flags=flag_store("v1"), default_image=IMAGE)
        for count in (1, 3)
    )
    only(one, "Deployment")["spec"]["replicas"] = 3

    assert one == three


@pytest.mark.parametrize("value", [{"a": 1}, [1], "x" * 1025])
def test_a_default_is_a_scalar(value: object) -> None:
    """No schema can say so: it is an InvalidSpec that names the feature."""
    features = {"compute": {"url": "http://a"}, "defaults": {"score": value}}
    with pytest.raises(ValueError, match=r"features\.defaults\.score must be a number"):
        build_config(model_deployment(features=features))


def test_defaults_reach_the_pod_as_they_are_written() -> None:
    """A whole number stays one, and no text becomes a number."""
    defaults = {"a": 0, "b": 0.5, "c": "1", "d": True, "e": None}
    features = {"compute": {"url": "http://a"}, "defaults": defaults}
    config = parse_config(build_config(model_deployment(features=features))["data"]["config.json"])
    assert config.features is not None
    found = config.features.defaults
    assert (found, [type(value) for value in found.values()]) == (
        defaults,
        [int, float, str, bool, type(None)],
    )


CONFIG_CHANGES: list[dict[str, Any]] = [
    {"source": {"uri": "s3://models/other"}},
    {"drain": "6s"},
    {"limits": {"bodyBytes": 2048}},
    {"limits": {"concurrency": 5}},
    {"limits": {"batchRows": 5}},
    {"verification": {"golden": "Required"}},
    {"predictionLog": {"sink": "Stdout"}},
    {"predictionLog": {"sink": "None"}},
    {"predictionLog": {"percent": 12.5}},
    {"predictionLog": {"maxDisk": "2Gi"}},
    {"predictionLog": {"sensitive": "Omit"}},
    {"predictionLog": {"sink": "Http", "uri": "https://collector.ml/events"}},
    {"predictionLog": {"sink": "ObjectStore", "uri": "s3://predictions/churn"}},
    {"features": {"redis": {"url": "redis://cache"}}},
    {"features": {"compute": {"url": "http://features.ml/{entity}"}, "defaults": {"score": 0}}},
    {"source": {"uri": "pvc://models/churn"}},
    {"resources": {"limits": {"ephemeral-storage": "1Gi"}}},
    {"progressDeadline": "11m"},
    {"resources": {"limits": {"memory": "1Gi"}}},
]
OTHER_CHANGES: list[dict[str, Any]] = [
    {"version": "v2"},
    {"replicas": 5},
    {"image": "registry.example.com/other:1"},
    {"env": [{"name": "A", "value": "1"}]},
    {"podLabels": {"example.com/team": "growth"}},
    {"nodeSelector": {"disk": "ssd"}},
    {"resources": {"requests": {"memory": "1Gi"}, "limits": {"cpu": "2"}}},
    {"source": {"uri": "s3://models/churn", "secretRef": {"name": "store"}}},
    {"source": {"uri": "s3://models/churn/"}},
    {"predictionLog": {}},
    {"predictionLog": {"sink": "Files", "percent": 100, "maxDisk": "1024Mi", "sensitive": "Hash"}},
    {"predictionLog": {"secretRef": {"name": "log"}}},
    {"resources": {"limits": {"ephemeral-storage": "2Gi"}}},
    {"drain": "5000ms"},
    {"progressDeadline": "600s"},
]


@pytest.mark.parametrize("change", CONFIG_CHANGES, ids=str)
def test_other_configuration_is_another_name_and_other_pods(change: dict[str, Any]) -> None:
    """What the runtime is started with is immutable: other content has another name, and rolls the pods."""
    before, after = build_config(model_deployment()), build_config(model_deployment(**change))

    assert before["metadata"]["name"] != after["metadata"]["name"]
    assert before["data"] != after["data"]
    assert after["immutable"] is True
    assert workload()["spec"]["template"] != workload(**change)["spec"]["template"]


@pytest.mark.parametrize("change", OTHER_CHANGES, ids=str)
def test_the_same_configuration_is_the_same_name(change: dict[str, Any]) -> None:
    """What the runtime is not started with, or what is only spelled otherwise, leaves its configuration."""
    assert build_config(model_deployment(**change)) == build_config(model_deployment())


def test_building_twice_is_the_same(manifests: list[Manifest], case: str) -> None:
    """The same spec makes the same manifests, to the letter."""
    assert render(read_case(case)) == manifests


# The flag store


def test_flags_come_back_as_they_went() -> None:
    """What was written is what is read."""
    flags = flag_store("v2", "v3", previous="v2", pinned=["v2", "v3"], first="churn-a")

    assert read_flags(build_flags(model_deployment(), flags=flags)) == flags


@pytest.mark.parametrize(
    "config_map",
    [
        None,
        {},
        {"data": None},
        {"data": {}},
        {"data": {"other.json": "{}"}},
        *({"data": {"flags.json": text}} for text in ("", "{", "[]", "{}", '{"flags": {}}', "null", "\x00")),
    ],
    ids=str,
)
def test_spoilt_flags_are_none(config_map: dict[str, Any] | None) -> None:
    """Whatever somebody made of it: what is no flag store is made anew, and nothing raises."""
    assert read_flags(config_map) is None


def test_orphans_and_strangers_are_told_apart() -> None:
    """Only a controller reference makes a child somebody's."""
    metadata = build_metadata(model_deployment(), name="churn")
    stranger = {"metadata": {"ownerReferences": [{"kind": "ReplicaSet", "uid": "x"}]}}

    assert controller_uid({"metadata": metadata}) == UID
    assert (controller_uid(stranger), controller_kind(stranger)) == ("", "")
    assert (controller_uid({}), controller_kind({})) == ("", "")


# Quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("+1", 1),
        ("256Mi", 256 * 2**20),
        ("1Gi", 2**30),
        ("1.5Gi", 3 * 2**29),
        (".5Gi", 2**29),
        ("1.", 1),
        ("1G", 10**9),
        ("1E", 10**18),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e+3", 1000),
        ("1000e-3", 1),
        ("128974848000m", 128974848),
        ("500m", Decimal("0.5")),
        ("1u", Decimal("1e-6")),
        ("1n", Decimal("1e-9")),
        ("-1", -1),
        ("0.1Gi", Decimal("107374182.4")),
        ("9007199254740993", 9007199254740993),
        ("1Ei", 2**60),
    ],
)
def test_quantities(text: str, expected: int | Decimal) -> None:
    """Every spelling that Kubernetes takes, exactly."""
    assert parse_quantity(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1 Gi",
        "1gi",
        "1KB",
        "Gi",
        "1e",
        "1e3Mi",
        "0x10",
        "1,5Gi",
        "∞",
        "nan",
        "1Gi\n",
        "٣",
        ".",
    ],
)
def test_no_quantities(text: str) -> None:
    """What is none is refused with the text itself and an example."""
    with pytest.raises(ValueError, match="256Mi"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("memory", "expected"), [(None, None), ("0", None), ("1Gi", 2**30), (1073741824, 2**30)]
)
def test_memory_limit_bounds_the_trial(memory: object, expected: int | None) -> None:
    """The container's memory limit is the trial's; none, and Kubernetes' 0 for none, bound nothing."""
    resources = {"limits": {"memory": memory}} if memory is not None else {"limits": {"cpu": "1"}}

    config = build_runtime_config(model_deployment(resources=resources))
    assert config.proof.memory_limit_bytes == expected
