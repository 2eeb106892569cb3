"""The chart on a real API server, with the commands of its README."""

from collections.abc import Iterator

import pytest

from e2e.cluster import ApiServer
from tests.chart.rendering import CHART, run_helm
from tests.support.kubectl import Kubectl
from tests.support.manifests import model_deployment

OPERATOR = "--as=system:serviceaccount:ml:gr-greenroom"
CRD = "crd/modeldeployments.greenroom.dev"


@pytest.fixture(scope="module")
def api_server() -> Iterator[ApiServer]:
    """Start an API server without nodes: what is installed is accepted, and nothing runs."""
    with ApiServer() as server:
        yield server


@pytest.fixture(scope="module")
def kubectl(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Return the administrator's kubectl, with the namespaces that the tests speak of."""
    cache = tmp_path_factory.mktemp("kubectl-cache")
    kubectl = Kubectl(api_server.bin / "kubectl", api_server.kubeconfig, cache)
    for namespace in ("ml", "other"):
        kubectl("create", "namespace", namespace)
    return kubectl


def helm(api_server: ApiServer, *arguments: str) -> str:
    """Run Helm on the API server and return what it says; AssertionError when it fails."""
    done = run_helm(*arguments, "--kubeconfig", api_server.kubeconfig, "--namespace", "ml")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def notes(api_server: ApiServer, kubectl: Kubectl) -> str:
    """Install the chart with no value given; return what the user reads then."""
    said = helm(api_server, "install", "gr", str(CHART))
    kubectl("wait", "--for=condition=Established", CRD, "--timeout=30s")
    return said


def test_notes_say_what_to_do_next(notes: str) -> None:
    """After an installation the user reads commands that fit this release."""
    assert "kubectl --namespace ml rollout status deployment/gr-greenroom" in notes
    assert "Apply a ModelDeployment in namespace ml" in notes


@pytest.mark.usefixtures("notes")
@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "answer"),
    [
        ("list", "modeldeployments.greenroom.dev", "ml", "yes"),
        ("patch", "modeldeployments.greenroom.dev --subresource=status", "ml", "yes"),
        ("patch", "modeldeployments.greenroom.dev", "ml", "no"),
        ("create", "deployments.apps", "ml", "yes"),
        ("patch", "pods", "ml", "yes"),
        ("create", "pods --subresource=exec", "ml", "no"),
        ("get", "secrets", "ml", "no"),
        ("update", "leases.coordination.k8s.io/gr-greenroom", "ml", "yes"),
        ("update", "leases.coordination.k8s.io/another", "ml", "no"),
        ("list", "modeldeployments.greenroom.dev", "other", "no"),
        ("create", "configmaps", "other", "no"),
    ],
)
def test_the_api_server_grants_no_more(
    kubectl: Kubectl, verb: str, resource: str, namespace: str, answer: str
) -> None:
    """The operator's account may do its work in its namespace, and nothing beside it or elsewhere."""
    asked = kubectl.run("auth", "can-i", verb, *resource.split(), "--namespace", namespace, OPERATOR)

    assert asked.stdout.strip() == answer, asked.stderr


@pytest.mark.usefixtures("notes")
def test_upgrade_and_uninstall_leave_the_models_alone(api_server: ApiServer, kubectl: Kubectl) -> None:
    """An uninstall keeps the CRD and its objects, and another installation takes them over."""
    kubectl("--namespace", "ml", "apply", "--filename=-", document=model_deployment("churn"))

    helm(api_server, "upgrade", "gr", str(CHART), "--set", "replicas=2")
    assert kubectl.get("--namespace", "ml", "deployment", "gr-greenroom")["spec"]["replicas"] == 2
    helm(api_server, "uninstall", "gr")

    assert kubectl.get("--namespace", "ml", "md", "churn")["spec"]["version"] == "v1"
    assert "not found" in kubectl.run("--namespace", "ml", "get", "deployment", "gr-greenroom").stderr
    helm(api_server, "install", "gr", str(CHART))
