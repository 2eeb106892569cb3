"""MLflow's ``MLmodel``: which flavours a model has, and its signature.

The format is MLflow's own (https://mlflow.org/docs/latest/ml/model/): YAML, whose member ``signature`` holds
the inputs as JSON in a text. Only nodes of the YAML are looked at: nothing is constructed from tags, no alias
is unfolded, no keys are merged.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from greenroom_runtime.contract.bundle import MODEL_FILE, Dtype
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.failures import VersionError

_ONNX = "onnx"
_COLUMN_TYPES: Mapping[str, Dtype] = {
    "boolean": "bool",
    "integer": "int64",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the training frame."""

    name: str
    """Empty for a column without a name."""
    dtype: Dtype
    required: bool


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One array."""

    name: str
    """Empty where there is only one."""
    dtype: str
    """numpy's name."""
    shape: tuple[int, ...]
    """-1 for a dimension that is not fixed."""


Inputs = tuple[Column, ...] | tuple[TensorSpec, ...]


@dataclass(frozen=True, kw_only=True)
class MLmodel:
    """What of the file matters here."""

    inputs: Inputs | None
    """None without a signature."""
    created: str
    """RFC 3339; empty where the file does not say."""
    writer: str
    """``MLflow 3.1.0``."""


def read_mlmodel(path: Path) -> MLmodel:
    """Return what the file says; VersionError where it is garbage, or a model that is not ONNX."""
    try:
        root = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise _invalid(f"is no YAML: {' '.join(str(error).split())[:500]}") from error
    if not isinstance(root, yaml.MappingNode):
        raise _invalid("is no mapping; MLflow writes one with flavors and signature")
    _refuse_other_flavors(_member(root, "flavors"))
    signature = _member(root, "signature")
    inputs = _text(_member(signature, "inputs"))
    return MLmodel(
        inputs=_parse_inputs(inputs) if inputs else None,
        created=_rfc3339(_text(_member(root, "utc_time_created"))),
        writer=f"MLflow {_text(_member(root, 'mlflow_version'))}".strip(),
    )


def _refuse_other_flavors(flavors: yaml.Node | None) -> None:
    names = [_text(key) for key, _ in flavors.value] if isinstance(flavors, yaml.MappingNode) else []
    if _ONNX not in names:
        message = (
            "the MLflow model has no flavor 'onnx', and pickles and Python code are never loaded: convert it "
            "and log it with mlflow.onnx.log_model, or package it with greenroom.package"
        )
        raise _invalid(message, expected=_ONNX, found=", ".join(names) or "no flavors")
    data = _text(_member(_member(flavors, _ONNX), "data"))
    if data != MODEL_FILE:
        message = f"flavors.onnx.data must be {MODEL_FILE}, as MLflow writes it"
        raise _invalid(message, expected=MODEL_FILE, found=data)


def _parse_inputs(text: str) -> Inputs:
    try:
        specs = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"signature.inputs is no JSON: {error}") from error
    if not isinstance(specs, list) or not specs or not all(isinstance(spec, dict) for spec in specs):
        raise _invalid("signature.inputs is no list of columns or tensors", found=text)
    if all(spec.get("type") == "tensor" for spec in specs):
        return tuple(_tensor(spec) for spec in specs)
    return tuple(_column(spec) for spec in specs)


def _column(spec: Mapping[str, Any]) -> Column:
    name, kind = spec.get("name") or "", spec.get("type")
    if not isinstance(name, str) or not isinstance(kind, str) or kind not in _COLUMN_TYPES:
        message = f"column {name!r} of the MLflow signature is of a type that cannot be served"
        raise _invalid(message, expected=", ".join(_COLUMN_TYPES), found=json.dumps(kind))
    # Written as "optional" before MLflow 2.10, as "required" since.
    required = spec.get("required", not spec.get("optional", False))
    return Column(name=name, dtype=_COLUMN_TYPES[kind], required=required is not False)


def _tensor(spec: Mapping[str, Any]) -> TensorSpec:
    name, detail = spec.get("name") or "", spec.get("tensor-spec")
    dtype = detail.get("dtype") if isinstance(detail, dict) else None
    shape = detail.get("shape") if isinstance(detail, dict) else None
    sizes = shape if isinstance(shape, list) and all(type(size) is int for size in shape) else None
    if not isinstance(name, str) or not isinstance(dtype, str) or sizes is None:
        raise _invalid("a tensor of the MLflow signature has no dtype and shape", found=json.dumps(spec))
    return TensorSpec(name=name, dtype=dtype, shape=tuple(sizes))


def _member(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    found: yaml.Node | None = None
    for name, value in node.value:
        if _text(name) == key:
            found = value
    return found


def _text(node: yaml.Node | None) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
        return ""
    return str(node.value)


def _rfc3339(text: str) -> str:
    """Return MLflow's ``2026-11-01 12:00:00.123456``, which is UTC, as the standard writes it."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return ""


def _invalid(message: str, *, expected: str = "", found: str = "") -> VersionError:
    return VersionError(
        FailureReason.INVALID_BUNDLE, f"MLmodel: {message}", file="MLmodel", expected=expected, found=found
    )
