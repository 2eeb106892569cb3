"""Manifests as a user writes them, and changes to them."""

from typing import Any


def model_deployment(name: str = "churn", **spec: Any) -> dict[str, Any]:
    """Return the smallest valid ModelDeployment, with these members of its spec added."""
    return {
        "apiVersion": "greenroom.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"source": {"uri": "s3://models/churn"}, "version": "v1"} | spec,
    }


def patched(document: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return the document with a JSON merge patch applied; null removes a member."""
    result = dict(document)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = patched(result[key], value)
        else:
            result[key] = value
    return result
