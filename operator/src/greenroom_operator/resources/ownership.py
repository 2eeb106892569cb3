"""Whose a child is: names, labels and the one controller reference."""

from collections.abc import Mapping
from typing import Any, Final

from greenroom_operator.api.modeldeployment import API_VERSION, KIND, ModelDeployment
from greenroom_runtime.contract import names

APP_NAME: Final = "greenroom-serving"
SHADOW_APP_NAME: Final = "greenroom-shadow"


def build_selector(deployment: ModelDeployment) -> dict[str, str]:
    """Return the labels that select this model's pods; they never change, selectors are immutable."""
    return {"app.kubernetes.io/name": APP_NAME, names.LABEL_DEPLOYMENT: deployment.metadata.name}


def build_shadow_selector(deployment: ModelDeployment) -> dict[str, str]:
    """Return the labels that select the pods of a shadow that has some of its own.

    No serving pod has them, and none of these pods those of `build_selector`: the Service would send users
    there.
    """
    return {
        "app.kubernetes.io/name": SHADOW_APP_NAME,
        names.LABEL_COMPONENT: names.COMPONENT_SHADOW,
        names.LABEL_DEPLOYMENT: deployment.metadata.name,
    }


def build_metadata(
    deployment: ModelDeployment, *, name: str, selector: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a child's metadata: our labels, and the ModelDeployment as its only controller.

    ``selector`` are the labels of the pods that it is about, where these are not the serving ones.
    No label of the parent is copied: Argo CD's tracking labels on a child would make it "require pruning".
    """
    return {
        "name": name,
        "namespace": deployment.metadata.namespace,
        "labels": {**(selector or build_selector(deployment)), names.LABEL_MANAGED_BY: names.MANAGED_BY},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": deployment.metadata.name,
                "uid": deployment.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def controller_uid(child: Mapping[str, Any]) -> str:
    """Return the uid of the object that controls this child; empty where nothing does."""
    for reference in child.get("metadata", {}).get("ownerReferences", ()):
        if reference.get("controller"):
            return str(reference.get("uid", ""))
    return ""


def controller_kind(child: Mapping[str, Any]) -> str:
    """Return the kind of the object that controls this child; empty where nothing does."""
    for reference in child.get("metadata", {}).get("ownerReferences", ()):
        if reference.get("controller"):
            return str(reference.get("kind", ""))
    return ""
