"""What the Open Inference Protocol tells of a model, and its part of the OpenAPI document."""

from collections.abc import Sequence
from typing import Any

from greenroom_runtime.api.open_inference.layout import OF_DTYPE, PREDICTION, Layout
from greenroom_runtime.api.open_inference.tensors import DATATYPES
from greenroom_runtime.contract.bundle import Feature

_PLATFORM = "onnxruntime_onnx"
"""``<project>_<format>``, for people."""
_ANY_SIZE = -1
_EXAMPLES: dict[str, Any] = {"FP32": 0.5, "FP64": 0.5, "INT64": 1, "BYTES": "text", "BOOL": True}
_NAME = {"type": "string"}
_OBJECT = {"type": "object"}
_PARAMETERS = {"type": ["object", "null"], "additionalProperties": True}


def model_metadata(model: str, layout: Layout, *, versions: Sequence[str]) -> dict[str, Any]:
    """Return a model's metadata: a tensor for each feature, which says where in the graph's it goes."""
    columns = {
        feature: {"graph_tensor": name, "column": index}
        for name, matrix in layout.matrices.items()
        for index, feature in enumerate(matrix.features)
    }
    return {
        "name": model,
        "versions": versions,
        "platform": _PLATFORM,
        "inputs": [
            {
                "name": feature.name,
                "datatype": OF_DTYPE[feature.dtype],
                "shape": [_ANY_SIZE],
                "parameters": {"nullable": feature.nullable, **columns.get(feature.name, {})},
            }
            for feature in layout.features
        ],
        "outputs": [_output(layout, name) for name in layout.outputs],
    }


def _output(layout: Layout, name: str) -> dict[str, Any]:
    tensor = {"name": name, "datatype": layout.outputs[name]}
    if name == PREDICTION:
        return {**tensor, "shape": [_ANY_SIZE]}
    shown = {"parameters": {"classes": layout.classes}} if layout.classes else {}
    return {**tensor, "shape": [_ANY_SIZE, layout.width or _ANY_SIZE], **shown}


def describe_operations(model: str, layout: Layout | None) -> dict[str, Any]:
    """Return the OpenAPI path items; without a layout, while nothing serves, requests are not described."""
    base = f"/v2/models/{model}"
    named = f"{base}/versions/{{version}}"
    metadata = _answer("The model's tensors.", "name", "versions", "platform", "inputs", "outputs")
    ready = _answer("It is.", "ready")
    paths = {
        "/v2": _get(
            "server_metadata",
            "Server metadata",
            _answer("Name, version and extensions.", "name", "version", "extensions"),
        ),
        "/v2/health/live": _get("server_live", "Whether the server is alive", _answer("It is.", "live")),
        "/v2/health/ready": _get("server_ready", "Whether a version serves", ready, "503"),
        base: _get("model_metadata", "The model's tensors", metadata, "503"),
        f"{base}/ready": _get("model_ready", "Whether the model serves", ready, "503"),
        f"{base}/infer": {"post": _infer("infer", layout)},
        named: _get("version_metadata", "A version's tensors", metadata, "404", "503"),
        f"{named}/ready": _get("version_ready", "Whether a version serves", ready, "404", "503"),
        f"{named}/infer": {"post": _infer("version_infer", layout, "404")},
    }
    version = {"name": "version", "in": "path", "required": True, "schema": _NAME}
    return {
        path: {**item, "parameters": [version]} if "{version}" in path else item
        for path, item in paths.items()
    }


_STATUSES = {
    "400": "The body is no JSON, or its sizes do not fit together.",
    "404": "There is no such routable version.",
    "413": "The body is too large, or has too many rows.",
    "415": "The body is compressed otherwise than by gzip or deflate.",
    "422": "Tensors are not what they say, or features are missing, unexpected or mistyped.",
    "429": "Too many requests at once; see Retry-After.",
    "500": "The model failed.",
    "503": "It does not serve yet; the problem says why.",
}


def _get(identifier: str, summary: str, answer: dict[str, Any], *refusals: str) -> dict[str, Any]:
    return {"get": _operation(identifier, summary, answer, refusals)}


def _operation(
    identifier: str, summary: str, answer: dict[str, Any], refusals: Sequence[str]
) -> dict[str, Any]:
    problem = {
        "type": "object",
        "properties": {"error": _NAME, "type": _NAME, "status": {"type": "integer"}, "detail": _NAME},
        "required": ["error"],
    }
    told = {
        code: {"description": _STATUSES[code], "content": {"application/json": {"schema": problem}}}
        for code in refusals
    }
    return {
        "tags": ["open inference protocol"],
        "summary": summary,
        "operationId": f"v2_{identifier}",
        "responses": {"200": answer, **told},
    }


def _answer(description: str, *members: str) -> dict[str, Any]:
    schema = {"type": "object", "required": list(members)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _infer(identifier: str, layout: Layout | None, *refusals: str) -> dict[str, Any]:
    answer = _answer("The answers.", "model_name", "model_version", "id", "outputs")
    answer["content"]["application/octet-stream"] = {}
    codes = sorted({"400", "413", "415", "422", "429", "500", "503", *refusals})
    operation = _operation(identifier, "Predict from tensors", answer, codes)
    return {
        **operation,
        "requestBody": {
            "required": True,
            "content": {"application/json": _described(layout), "application/octet-stream": {}},
        },
    }


def _described(layout: Layout | None) -> dict[str, Any]:
    if layout is None:
        return {"schema": _OBJECT}
    names = [*(feature.name for feature in layout.features), *layout.matrices]
    tensor = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "enum": names},
            "shape": {
                "type": "array",
                "items": {"type": "integer", "minimum": 1},
                "minItems": 1,
                "maxItems": 2,
            },
            "datatype": {"type": "string", "enum": list(DATATYPES)},
            "parameters": _PARAMETERS,
            "data": {"type": "array"},
        },
        "required": ["name", "shape", "datatype"],
        "additionalProperties": False,
    }
    output = {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": list(layout.outputs)}, "parameters": _PARAMETERS},
        "required": ["name"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {
            "id": _NAME,
            "model_name": {"description": "Ignored: the path names the model."},
            "parameters": _PARAMETERS,
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
            "outputs": {"type": ["array", "null"], "items": output},
        },
        "required": ["inputs"],
        "additionalProperties": False,
    }
    return {"schema": schema, "example": {"inputs": [_example(feature) for feature in layout.features]}}


def _example(feature: Feature) -> dict[str, Any]:
    datatype = OF_DTYPE[feature.dtype]
    value = _EXAMPLES[datatype]
    if feature.categories:
        value = feature.categories[0]
    elif feature.minimum is not None:
        value = int(feature.minimum) if feature.dtype == "int64" else feature.minimum
    return {"name": feature.name, "shape": [1], "datatype": datatype, "data": [value]}
