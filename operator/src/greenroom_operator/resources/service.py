"""Where the cluster reaches a model."""

from typing import Any

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.resources.ownership import build_metadata, build_selector


def build_service(deployment: ModelDeployment) -> dict[str, Any]:
    """Return the Service of the public port; the admin port is for kubelet, Prometheus and the operator."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(deployment, name=deployment.metadata.name),
        "spec": {
            "type": "ClusterIP",
            "selector": build_selector(deployment),
            "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "appProtocol": "http"}
            ],
        },
    }


def service_url(deployment: ModelDeployment) -> str:
    """Return the model's address inside the cluster."""
    return f"http://{deployment.metadata.name}.{deployment.metadata.namespace}.svc"
