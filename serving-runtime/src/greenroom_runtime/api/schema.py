"""The model's request as JSON Schema, and the OpenAPI document that carries it."""

from typing import Any

from greenroom_runtime.api.errors import CONTENT_TYPE
from greenroom_runtime.api.predict import BATCH_PATH, PATH
from greenroom_runtime.contract.bundle import Dtype, Feature, Signature

_TYPES: dict[Dtype, str] = {
    "float32": "number",
    "float64": "number",
    "int64": "integer",
    "string": "string",
    "bool": "boolean",
}
_SHOWN_CATEGORIES = 8
_USER = {"type": ["string", "integer"], "description": "Who asks; chooses the version in a rollout."}
_CONTEXT = {"type": "object", "description": "Attributes of who asks, for a rollout's rules."}
_ROWS = "Features as /predict takes them; a row that does not fit is told so at its place in the answer."
_PROBLEMS = {
    "400": "The body is no JSON.",
    "405": "Another method than POST.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "422": "Features are missing, unexpected or do not fit; the problem names each.",
    "429": "Too many requests at once; see Retry-After.",
    "500": "The model failed.",
    "502": "Features that were fetched are not what the model takes.",
    "503": "No version serves yet, or features cannot be fetched; the problem says which.",
}


def request_schema(signature: Signature, *, fetched: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of a ``/predict`` body for one version.

    Where features are ``fetched`` by entity a request may leave any out.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "features": _features(signature, fetched=fetched),
            "user_id": _USER,
            "context": _CONTEXT,
        },
        "required": ["features"],
        "additionalProperties": False,
    }


def describe_operations(signature: Signature | None, *, fetched: bool = False) -> dict[str, Any]:
    """Return the OpenAPI path items of ``/predict`` and ``/predict/batch``; without a version no features."""
    features: dict[str, Any] = _features(signature, fetched=fetched) if signature else {"type": "object"}
    request = {"type": "object", "additionalProperties": False}
    one = {
        **request,
        "properties": {"features": features, "user_id": _USER, "context": _CONTEXT},
        "required": ["features"],
    }
    many = {
        **request,
        "properties": {
            "rows": {"type": "array", "items": {"type": "object"}, "description": _ROWS},
            "columns": {
                "type": "object",
                "additionalProperties": {"type": "array"},
                "description": "The same rows by column; all of one length.",
            },
            "user_id": _USER,
            "user_ids": {"type": "array", "items": {"type": ["string", "integer", "null"]}},
            "context": _CONTEXT,
        },
        "oneOf": [{"required": ["rows"]}, {"required": ["columns"]}],
    }
    row = {
        "type": "object",
        "properties": {
            **_ANSWER,
            "version": {"type": "string"},
            "reason": {"type": "string"},
            "feature_source": {"type": "string", "description": "Only where features were fetched."},
            "error": {"type": "object", "description": "The problem of this row, instead of its answer."},
        },
    }
    answered = {"model": {"type": "string"}, "request_id": {"type": "string"}}
    return {
        PATH: _operation(
            "predict",
            "Predict from named features",
            body=one,
            answer={
                "type": "object",
                "properties": {**_ANSWER, "version": {"type": "string"}, **answered},
                "required": ["prediction", "model", "version", "request_id"],
            },
        ),
        BATCH_PATH: _operation(
            "predict_batch",
            "Predict many rows, each answered for itself",
            body=many,
            answer={
                "type": "object",
                "properties": {
                    "predictions": {"type": "array", "items": row},
                    "errors_total": {"type": "integer"},
                    **answered,
                },
                "required": ["predictions", "errors_total", "model", "request_id"],
            },
        ),
    }


_ANSWER: dict[str, Any] = {
    "prediction": {},
    "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
}


def _features(signature: Signature, *, fetched: bool) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {feature.name: _property(feature) for feature in signature.features},
        "required": [] if fetched else [feature.name for feature in signature.features],
        "additionalProperties": False,
    }


def _property(feature: Feature) -> dict[str, Any]:
    kind = _TYPES[feature.dtype]
    schema: dict[str, Any] = {"type": [kind, "null"] if feature.nullable else kind}
    if feature.dtype == "int64":
        schema |= {"minimum": -(2**63), "maximum": 2**63 - 1}
    if feature.sensitive:  # neither categories nor a range of people's secrets
        return schema
    if feature.categories and feature.unseen == "Refuse":
        schema["enum"] = [*feature.categories, *([None] if feature.nullable else [])]
    elif feature.categories:
        schema["examples"] = list(feature.categories[:_SHOWN_CATEGORIES])
    if feature.minimum is not None and feature.maximum is not None:
        if feature.outside == "Refuse":
            schema |= {"minimum": feature.minimum, "maximum": feature.maximum}
        else:
            schema["description"] = f"In training from {feature.minimum:g} to {feature.maximum:g}."
    return schema


def _operation(
    identifier: str, summary: str, *, body: dict[str, Any], answer: dict[str, Any]
) -> dict[str, Any]:
    problem = {"content": {CONTENT_TYPE: {"schema": {"type": "object"}}}}
    return {
        "post": {
            "tags": ["model"],
            "summary": summary,
            "operationId": identifier,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}},
                **{code: {"description": text, **problem} for code, text in _PROBLEMS.items()},
            },
        }
    }
