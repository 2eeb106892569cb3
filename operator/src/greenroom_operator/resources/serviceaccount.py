"""The identity of serving pods: one without any right."""

from typing import Any

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.resources.ownership import build_metadata


def build_service_account(deployment: ModelDeployment) -> dict[str, Any]:
    """Return the pods' own ServiceAccount, which carries no token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": build_metadata(deployment, name=service_account_name(deployment)),
        "automountServiceAccountToken": False,
    }


def service_account_name(deployment: ModelDeployment) -> str:
    """Return the ServiceAccount that the pods run as."""
    return deployment.spec.service_account_name or f"{deployment.metadata.name}-serving"
