"""Where the cluster reaches a model, and where its pods reach a shadow that has pods of its own."""

from typing import Any

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.resources.ownership import build_metadata, build_selector, build_shadow_selector
from greenroom_runtime.contract import names


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


def build_shadow_service(deployment: ModelDeployment) -> dict[str, Any]:
    """Return the Service by which serving pods send frames to the shadow's own pods."""
    selector = build_shadow_selector(deployment)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(deployment, name=shadow_name(deployment), selector=selector),
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "ports": [
                {
                    "name": "frames",
                    "port": names.SHADOW_FRAMES_PORT,
                    "protocol": "TCP",
                    "targetPort": "frames",
                    "appProtocol": "greenroom.dev/frames",
                }
            ],
        },
    }


def shadow_name(deployment: ModelDeployment) -> str:
    """Return the name of the shadow's own Deployment and Service."""
    return f"{deployment.metadata.name}-shadow"


def shadow_host(deployment: ModelDeployment) -> str:
    """Return the host name of the shadow's Service inside the cluster."""
    return f"{shadow_name(deployment)}.{deployment.metadata.namespace}.svc"
