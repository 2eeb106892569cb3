"""A real API server for the whole session: etcd and kube-apiserver, no nodes."""

from collections.abc import Iterator

import pytest

from e2e.cluster import ApiServer
from tests.support.crd import install
from tests.support.kubectl import Kubectl


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """Yield Kubernetes' API: `kubeconfig`, `url`, `token`, `ca`; nothing acts on what is written to it."""
    with ApiServer() as server:
        yield server


@pytest.fixture(scope="session")
def kubectl(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Return the kubectl of the API server's own release, as administrator."""
    return Kubectl(
        api_server.bin / "kubectl", api_server.kubeconfig, tmp_path_factory.mktemp("kubectl-cache")
    )


@pytest.fixture(scope="session")
def crd(kubectl: Kubectl) -> str:
    """Apply `crds/` as a user does and return the name of the ModelDeployment's CRD, once Established."""
    return install(kubectl)
