"""The model's request as JSON Schema, and the OpenAPI document that carries it."""

from typing import Any

from greenroom_runtime.api.errors import CONTENT_TYPE
from greenroom_runtime.contract.bundle import Dtype, Feature, Signature

_TYPES: dict[Dtype, str] = {
    "float32": "number",
    "float64": "number",
    "int64": "integer",
    "string": "string",
    "bool": "boolean",
}


def request_schema(signature: Signature) -> dict[str, Any]:
    """Return the JSON Schema of a ``/predict`` body for one version."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "features": {
                "type": "object",
                "properties": {feature.name: _property(feature) for feature in signature.features},
                "required": [feature.name for feature in signature.features],
                "additionalProperties": False,
            },
            "user_id": {"type": ["string", "integer"], "description": "Who asks; of no effect yet."},
            "context": {"type": "object", "description": "Attributes of who asks; of no effect yet."},
        },
        "required": ["features"],
        "additionalProperties": False,
    }


def _property(feature: Feature) -> dict[str, Any]:
    kind = _TYPES[feature.dtype]
    schema: dict[str, Any] = {"type": [kind, "null"] if feature.nullable else kind}
    if feature.dtype == "int64":
        schema |= {"minimum": -(2**63), "maximum": 2**63 - 1}
    if feature.categories:
        schema["examples"] = list(feature.categories[:8])
    if feature.minimum is not None and feature.maximum is not None:
        schema["description"] = f"In training from {feature.minimum:g} to {feature.maximum:g}."
    return schema


def predict_operation(signature: Signature | None) -> dict[str, Any]:
    """Return the OpenAPI path item of ``/predict``."""
    body = request_schema(signature) if signature else {"type": "object"}
    body.pop("$schema", None)
    problem = {"content": {CONTENT_TYPE: {"schema": {"type": "object"}}}}
    answer = {
        "type": "object",
        "properties": {
            "prediction": {},
            "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
            "model": {"type": "string"},
            "version": {"type": "string"},
            "request_id": {"type": "string"},
        },
        "required": ["prediction", "model", "version", "request_id"],
    }
    described = {
        "400": "The body is no JSON.",
        "413": "The body is too large.",
        "415": "The body is compressed.",
        "422": "Features are missing, unexpected or mistyped; the problem names each.",
        "429": "Too many requests at once; see Retry-After.",
        "500": "The model failed.",
        "503": "No version serves yet; the problem says why.",
    }
    return {
        "post": {
            "tags": ["model"],
            "summary": "Predict from named features",
            "operationId": "predict",
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}},
                **{code: {"description": text, **problem} for code, text in described.items()},
            },
        }
    }
