"""The seam between the CRD and the pods: what is accepted here must be accepted there."""

from pathlib import Path

import yaml

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.resources.deployment import build_deployment
from tests.support.kubectl import Kubectl
from tests.support.manifests import model_deployment, patched

ACCEPTED = Path(__file__).parents[1] / "golden" / "crd" / "accepted.yaml"


def test_what_the_crd_accepts_makes_pods_that_kubernetes_accepts(kubectl: Kubectl) -> None:
    """A user hears of a mistake from `kubectl apply`, not from a Deployment that cannot be written."""
    patches = yaml.safe_load(ACCEPTED.read_text(encoding="utf-8"))
    accepted = [patched(model_deployment(f"case-{index}"), patch) for index, patch in enumerate(patches)]
    deployments = [
        build_deployment(ModelDeployment.model_validate(document), default_image="greenroom-runtime:test")
        for document in accepted
    ]
    for deployment in deployments:
        del deployment["metadata"]["ownerReferences"]  # no such owner in a dry run
    documents = {"apiVersion": "v1", "kind": "List", "items": deployments}
    written = kubectl("apply", "--server-side", "--dry-run=server", "--filename=-", document=documents)
    assert written.count("serverside-applied") == len(patches)
