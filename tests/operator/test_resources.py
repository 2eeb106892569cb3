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
    """Return the one child of a kind; of what serves, where a shadow has one too."""
    (found,) = [manifest for manifest in of_kind(manifests, kind) if not is_shadow(manifest)]
    return found


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Return the children of a kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def is_shadow(manifest: Manifest) -> bool:
    """Tell whether a child is there for the shadow's own pods."""
    return bool(manifest["metadata"]["name"].endswith("-shadow"))


def template(manifest: Manifest) -> Manifest:
    """Return the pods' part of a Deployment."""
    pod: Manifest = manifest["spec"]["template"]
    return pod


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
    for pod in (template(manifest)["spec"] for manifest in of_kind(manifests, "Deployment")):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        allowed = {"name", "configMap", "emptyDir", "persistentVolumeClaim"}
        assert {kind for volume in pod["volumes"] for kind in volume} <= allowed
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container["ports"])


def test_children_say_whose_they_are(case: str, manifests: list[Manifest]) -> None:
    """Each has our labels and no other, and the ModelDeployment as its only owner and controller."""
    deployment = read_case(case)
    for manifest in manifests:
        metadata = manifest["metadata"]
        assert metadata["namespace"] == deployment.metadata.namespace
        component = {"app.kubernetes.io/component": "shadow"} if is_shadow(manifest) else {}
        assert metadata["labels"] == {
            "app.kubernetes.io/name": "greenroom-shadow" if is_shadow(manifest) else "greenroom-serving",
            "app.kubernetes.io/managed-by": "greenroom",
            "greenroom.dev/deployment": deployment.metadata.name,
            **component,
        }
        assert len(metadata["ownerReferences"]) == 1
        assert controller_uid(manifest) == deployment.metadata.uid
        assert controller_kind(manifest) == "ModelDeployment"


def test_selectors_find_the_pods(manifests: list[Manifest]) -> None:
    """Deployment and Service select the same pods, by labels that never change, and nobody else's."""
    pods = {
        m["metadata"]["name"]: template(m)["metadata"]["labels"] for m in of_kind(manifests, "Deployment")
    }
    for manifest in of_kind(manifests, "Deployment"):
        name, selector = manifest["metadata"]["name"], manifest["spec"]["selector"]["matchLabels"]
        (service,) = [m for m in of_kind(manifests, "Service") if m["metadata"]["name"] == name]
        assert service["spec"]["selector"] == selector
        assert [pod for pod, labels in pods.items() if selector.items() <= labels.items()] == [name]


def test_mounts_and_volumes_agree(manifests: list[Manifest]) -> None:
    """Configuration and flags come from the very ConfigMaps that are built, each as a whole directory."""
    config_maps = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
    for pod in (template(manifest)["spec"] for manifest in of_kind(manifests, "Deployment")):
        used = set()
        for container in pod["containers"]:
            mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
            files = {
                mounts[volume["name"]]["mountPath"]: set(config_maps[volume["configMap"]["name"]])
                for volume in pod["volumes"]
                if "configMap" in volume
            }
            assert files == {names.CONFIG_DIR: {names.CONFIG_FILE}, names.FLAGS_DIR: {names.FLAGS_FILE}}
            assert not any("subPath" in mount for mount in mounts.values())
            used |= set(mounts)
        assert used == {volume["name"] for volume in pod["volumes"]}


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


# The shadow


SIDECAR = {"shadow": {"version": "v2"}}


def containers(**parts: Any) -> dict[str, Manifest]:
    """Return the containers of a serving pod by name, in their order."""
    return {container["name"]: container for container in template(workload(**parts))["spec"]["containers"]}


def test_the_sidecar_is_last_and_cannot_make_a_pod_unready() -> None:
    """Kubernetes counts every container for a pod's readiness: so it has no probe, and is listed last."""
    found = containers(**SIDECAR)

    assert list(found) == ["serving", "shadow"]
    shadow = found["shadow"]
    assert not {"startupProbe", "livenessProbe", "readinessProbe", "lifecycle"} & set(shadow)
    assert [port["containerPort"] for port in shadow["ports"]] == [names.SHADOW_PORT]
    assert shadow["image"] == found["serving"]["image"]
    assert list(containers()) == ["serving"]


def test_a_shadow_always_has_a_memory_limit_and_knows_it() -> None:
    """What it takes beyond is to end its process: the container reads its own limit from the downward API."""
    for resources in ({}, {"resources": {"limits": {"memory": "1Gi"}}}):
        shadow = containers(shadow={"version": "v2", **resources})["shadow"]
        (limit,) = [one for one in shadow["env"] if one["name"] == names.ENV_MEMORY_LIMIT]
        assert limit["valueFrom"] == {
            "resourceFieldRef": {"containerName": "shadow", "resource": "limits.memory"}
        }
        assert parse_quantity(shadow["resources"]["limits"]["memory"]) >= 512 * 2**20


def test_a_shadow_has_the_credentials_of_the_source_and_of_the_log_and_no_others() -> None:
    """It fetches versions and keeps records; features it is given."""
    shadow = containers(
        source={"uri": "s3://models/churn", "secretRef": {"name": "store"}},
        predictionLog={"sink": "ObjectStore", "uri": "s3://log/churn", "secretRef": {"name": "log"}},
        features={
            "redis": {"url": "redis://redis.ml:6379/0", "secretRef": {"name": "redis"}},
            "compute": {"url": "http://features.ml/{entity}", "secretRef": {"name": "compute"}},
        },
        env=[{"name": "AWS_REGION", "value": "eu-north-1"}],
        **SIDECAR,
    )["shadow"]

    assert shadow["envFrom"] == [
        {"secretRef": {"name": "store"}},
        {"prefix": names.ENV_LOG_PREFIX, "secretRef": {"name": "log"}},
    ]
    assert {"name": "AWS_REGION", "value": "eu-north-1"} in shadow["env"]


def test_a_shadow_shares_nothing_but_a_small_socket_in_memory() -> None:
    """Models, records and temporary files of either container are on volumes of their own."""
    pod = template(workload(**SIDECAR))["spec"]
    mounts = {
        container["name"]: {mount["name"]: mount for mount in container["volumeMounts"]}
        for container in pod["containers"]
    }
    shared = mounts["serving"].keys() & mounts["shadow"].keys()
    written = {name for name in shared if not mounts["shadow"][name].get("readOnly")}

    assert written == {"shadow-socket"}
    (socket,) = [volume for volume in pod["volumes"] if volume["name"] == "shadow-socket"]
    assert socket["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Mi"}
    assert {mounts[name]["shadow-socket"]["mountPath"] for name in mounts} == {names.SHADOW_DIR}


@pytest.mark.parametrize(
    "change",
    [
        {"version": "v3"},
        {"percent": 1},
        {"gate": {"minRequests": 1}},
        {"gate": {"maxLatencyRatio": "3"}},
        {"onSuccess": "Rollout"},
    ],
    ids=str,
)
@pytest.mark.parametrize("placement", ["Sidecar", "Deployment"])
def test_what_the_flag_store_says_of_a_shadow_replaces_no_pod(change: dict[str, Any], placement: str) -> None:
    """Version, share and gate travel without a restart: no pod template depends on them."""
    before = {"version": "v2", "placement": placement}

    def templates(shadow: dict[str, Any]) -> list[Manifest]:
        deployment = model_deployment(shadow=shadow)
        children = build_children(deployment, flags=flag_store("v1"), default_image=IMAGE)
        return [template(child) for child in of_kind(children, "Deployment")]

    assert templates(before | change) == templates(before)


@pytest.mark.parametrize(
    "change", [{"tolerance": "0.2"}, {"resources": {"limits": {"memory": "2Gi"}}}], ids=str
)
def test_what_the_configuration_says_of_a_shadow_replaces_pods(change: dict[str, Any]) -> None:
    """Tolerance and resources are those of a process."""
    before = {"version": "v2"}

    assert containers(shadow=before | change) != containers(shadow=before) or (
        template(workload(shadow=before | change)) != template(workload(shadow=before))
    )


def test_frames_go_to_the_sidecar_or_to_the_shadow_s_own_pods() -> None:
    """A socket in the pod, or the Service that is built, at the port that its pods listen on."""
    own = model_deployment(shadow={"version": "v2", "placement": "Deployment"})
    children = build_children(own, flags=flag_store("v1"), default_image=IMAGE)
    (service,) = [child for child in of_kind(children, "Service") if is_shadow(child)]
    (pods,) = [child for child in of_kind(children, "Deployment") if is_shadow(child)]
    (container,) = template(pods)["spec"]["containers"]
    (port,) = service["spec"]["ports"]

    sidecar = build_runtime_config(model_deployment(**SIDECAR)).shadow
    assert sidecar is not None
    assert sidecar.address == f"unix:{names.SHADOW_SOCKET}"
    config = build_runtime_config(own).shadow
    assert config is not None
    assert config.address == f"tcp:{service['metadata']['name']}.ml.svc:{port['port']}"
    named = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert named == {"shadow": names.SHADOW_PORT, "frames": port["port"]}
    assert port["targetPort"] in named
    assert list(containers(shadow={"version": "v2", "placement": "Deployment"})) == ["serving"]


def test_a_shadow_s_own_pods_are_as_many_as_are_asked_for() -> None:
    """One by default, whatever the number of serving pods; none where none are wanted."""
    for replicas, expected in ((None, 1), (0, 0), (3, 3)):
        shadow = {"version": "v2", "placement": "Deployment"} | (
            {} if replicas is None else {"replicas": replicas}
        )
        deployment = model_deployment(shadow=shadow, replicas=5)
        children = build_children(deployment, flags=flag_store("v1"), default_image=IMAGE)
        (found,) = [child for child in of_kind(children, "Deployment") if is_shadow(child)]
        assert found["spec"]["replicas"] == expected


def test_the_tolerance_is_the_number_that_is_written() -> None:
    """The text in spec is the runtime's number, zero included."""
    for text, number in (("0", 0.0), ("0.1", 0.1), ("25", 25.0)):
        config = build_runtime_config(model_deployment(shadow={"version": "v2", "tolerance": text}))
        assert config.shadow is not None
        assert config.shadow.tolerance == number
