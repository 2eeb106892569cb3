"""What users read when they get a ModelDeployment wrong: real kubectl, real API server."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kubectl import Kubectl
from tests.support.manifests import model_deployment, patched

pytestmark = pytest.mark.usefixtures("crd")

GOLDEN = Path(__file__).parents[1] / "golden" / "crd"
MISTAKES: list[dict[str, Any]] = yaml.safe_load((GOLDEN / "mistakes.yaml").read_text(encoding="utf-8"))
ACCEPTED: list[dict[str, Any]] = yaml.safe_load((GOLDEN / "accepted.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", MISTAKES, ids=[case["mistake"] for case in MISTAKES])
def test_a_mistake_is_refused_with_its_remedy(case: dict[str, Any], kubectl: Kubectl) -> None:
    """`kubectl apply` refuses the manifest, and its text names the field and what to write instead."""
    document = patched(model_deployment(), case["patch"])
    refused = kubectl.run("apply", "--dry-run=server", "--filename=-", document=document)
    assert refused.returncode == 1, refused.stdout
    assert case["text"] in refused.stderr


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        ({"replica": 3}, ".spec.replica: field not declared in schema"),
        ({"version": "production"}, '"production": this is an alias that Greenroom moves'),
        ({"env": [{"name": "A", "value": "1"}] * 2}, "duplicate entries for key"),
    ],
)
def test_server_side_apply_refuses_as_well(patch: dict[str, Any], text: str, kubectl: Kubectl) -> None:
    """What GitOps tools send is held to the same rules."""
    document = model_deployment(**patch)
    refused = kubectl.run("apply", "--server-side", "--dry-run=server", "--filename=-", document=document)
    assert refused.returncode == 1, refused.stdout
    assert text in refused.stderr


@pytest.mark.parametrize("patch", ACCEPTED, ids=str)
def test_what_is_right_is_accepted(patch: dict[str, Any], kubectl: Kubectl) -> None:
    """No rule is stricter than its message says."""
    kubectl("apply", "--dry-run=server", "--filename=-", document=patched(model_deployment(), patch))


def test_every_rule_has_been_seen_to_refuse() -> None:
    """Each rule's message appears in the golden table of mistakes."""
    crd = yaml.safe_load((GOLDEN.parents[2] / "crds" / "greenroom.dev_modeldeployments.yaml").read_text())
    texts = [case["text"] for case in MISTAKES]
    beginnings = {message[:20] for message in messages(crd)}
    assert {start for start in beginnings if not any(start in text for text in texts)} == set()


def messages(node: Any) -> list[str]:
    """Return the message of every CEL rule below a node of a CRD."""
    if isinstance(node, list):
        return [message for item in node for message in messages(item)]
    if not isinstance(node, dict):
        return []
    found = [rule["message"] for rule in node.get("x-kubernetes-validations", ())]
    return found + [message for value in node.values() for message in messages(value)]
