"""What an installation puts into a cluster."""

import json
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from greenroom_operator.__main__ import parse_settings
from greenroom_operator.api import crdgen
from greenroom_runtime.contract import names
from tests.chart.rendering import (
    CHART,
    GOLDEN,
    ROOT,
    Manifest,
    golden_cases,
    golden_text,
    only,
    render,
    run_helm,
)

KUBERNETES_SCHEMAS = "1.34"
CRDS = CHART / "files" / "crds"


@pytest.fixture(scope="module", params=golden_cases())
def case(request: pytest.FixtureRequest) -> str:
    """Return the name of each kept set of values in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def manifests(case: str) -> list[Manifest]:
    """Return the objects that the value set renders to."""
    return render("--values", GOLDEN / case / "values.yaml")


def test_lint_has_nothing_to_say(case: str) -> None:
    """Helm's own linter, which also checks the schema and the rendered YAML, finds no fault."""
    done = run_helm("lint", "--strict", CHART, "--values", GOLDEN / case / "values.yaml")

    assert done.returncode == 0, done.stdout + done.stderr


def test_rendering_is_the_reviewed_one(case: str) -> None:
    """A change of the chart shows in its manifests; ``python -m tests.chart.rendering`` accepts it."""
    expected = (GOLDEN / case / "expected.yaml").read_text(encoding="utf-8")

    assert list(yaml.safe_load_all(golden_text(case))) == list(yaml.safe_load_all(expected))


def test_every_object_is_valid_kubernetes(manifests: list[Manifest]) -> None:
    """Each object fits Kubernetes' own schema to the letter: no unknown field, no wrong type."""
    for manifest in manifests:
        kubernetes_validate.validate(manifest, KUBERNETES_SCHEMAS, strict=True)


def test_every_object_says_whose_it_is(manifests: list[Manifest]) -> None:
    """Each object has the recommended labels, and a namespace unless its kind has none."""
    unnamespaced = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "gr"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert {"app.kubernetes.io/name", "app.kubernetes.io/version", "app.kubernetes.io/part-of"} <= set(
            labels
        )
        assert ("namespace" in manifest["metadata"]) == (manifest["kind"] not in unnamespaced)


def test_operator_pod_meets_the_restricted_standard(manifests: list[Manifest]) -> None:
    """A namespace that enforces `restricted` admits the pod, and it cannot write to its own image."""
    pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    assert all(set(volume) <= {"name", "emptyDir"} for volume in pod["volumes"])
    assert all(volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"])
    assert container["resources"]["limits"].keys() == {"memory"}
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize(
    ("values", "namespaces"),
    [
        ("replicas=1", ("ml",)),
        ("watchNamespaces={churn,fraud}", ("churn", "fraud")),
        ("clusterWide=true", ()),
    ],
)
def test_the_operator_understands_what_it_is_told(values: str, namespaces: tuple[str, ...]) -> None:
    """The arguments and the environment of the pod are the settings that the values ask for."""
    (container,) = only(render("--set", values), "Deployment")["spec"]["template"]["spec"]["containers"]
    environment = {variable["name"]: "gr-greenroom-0" for variable in container["env"]}
    settings = parse_settings(container["args"], environment=environment)

    assert settings.namespaces == namespaces
    assert (settings.lease_namespace, settings.lease_name) == ("ml", "gr-greenroom")
    assert settings.identity.startswith("gr-greenroom-0_")


def test_only_the_operator_gets_a_token(manifests: list[Manifest]) -> None:
    """The account hands out no token by itself; the operator's pod asks for one."""
    assert only(manifests, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    for account in (manifest for manifest in manifests if manifest["kind"] == "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_selectors_find_the_pods(manifests: list[Manifest]) -> None:
    """Deployment, metrics Service and NetworkPolicy select the operator's pods by lasting labels."""
    deployment = only(manifests, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [deployment["selector"]["matchLabels"], only(manifests, "Service")["spec"]["selector"]]
    selectors += [m["spec"]["podSelector"]["matchLabels"] for m in manifests if m["kind"] == "NetworkPolicy"]

    for selector in selectors:
        assert selector.items() <= labels.items()
        assert "app.kubernetes.io/version" not in selector


def test_network_policy_lets_reports_through() -> None:
    """The operator may ask each serving pod for its report, on the port and by the label of the contract."""
    policy = only(render("--set", "networkPolicy.enabled=true"), "NetworkPolicy")["spec"]
    reports = [
        rule for rule in policy["egress"] if {"port": names.ADMIN_PORT, "protocol": "TCP"} in rule["ports"]
    ]

    assert len(reports) == 1
    assert reports[0]["to"][0]["podSelector"]["matchLabels"] == {names.LABEL_MANAGED_BY: names.MANAGED_BY}


def test_crd_copies_are_the_committed_crds() -> None:
    """The chart's copies and ``crds/`` hold the same files with the same bytes; ``make crds`` writes both."""

    def contents(directory: Path) -> dict[str, str]:
        return {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.yaml")}

    assert contents(CRDS) == contents(ROOT / "crds")
    assert contents(CRDS) == crdgen.build_files()


def test_crds_are_installed_unchanged_and_kept() -> None:
    """The rendered CRD's spec is the generated one, to the number, and an uninstall leaves it."""
    crd = only(render(), "CustomResourceDefinition")
    source = yaml.safe_load((CRDS / f"{names.GROUP}_modeldeployments.yaml").read_text(encoding="utf-8"))

    assert crd["spec"] == source["spec"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_crds_can_be_let_go() -> None:
    """``crds.keep=false`` takes the protection away, ``crds.enabled=false`` the CRDs and user roles."""
    unkept = only(render("--set", "crds.keep=false"), "CustomResourceDefinition")
    without = {manifest["kind"] for manifest in render("--set", "crds.enabled=false")}

    assert not unkept["metadata"].get("annotations")
    assert not {"CustomResourceDefinition", "ClusterRole"} & without


def test_two_releases_share_nothing() -> None:
    """Two releases in one cluster, one of them without the CRDs, have no object in common."""

    def identities(manifests: list[Manifest]) -> set[tuple[str, str, str]]:
        return {(m["kind"], m["metadata"].get("namespace", ""), m["metadata"]["name"]) for m in manifests}

    first = render("--set", "clusterWide=true")
    second = render("--set", "clusterWide=true,crds.enabled=false", namespace="other")

    assert not identities(first) & identities(second)


def test_versions_agree() -> None:
    """Chart, operator and distribution carry one version, so that one number names a tested set."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert f'version = "{chart["version"]}"' in pyproject
    assert chart["appVersion"] == chart["version"]


def test_every_value_is_documented_and_checked() -> None:
    """Each key of values.yaml is in the schema, and the schema knows no value that values.yaml hides."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    assert set(values) == set(schema["properties"]) - {"global"}
    for name, value in values.items():
        properties = schema["properties"][name].get("properties")
        if properties and name != "resources":
            assert set(value) == set(properties), name
