"""Versions that were not packaged for us: plain ONNX directories and MLflow's, as others write them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression, LogisticRegression

from tests.support.bundles import serialized

Array = NDArray[np.float32]

MATRIX: Array = np.random.default_rng(7).normal(size=(80, 3)).astype(np.float32)
NAMES = np.array(["high", "low"])[(MATRIX.sum(axis=1) < 0).astype(int)]
VALUES = MATRIX @ np.array([1.0, -2.0, 0.5], dtype=np.float32)
COLUMNS = [
    {"type": "double", "name": "age", "required": True},
    {"type": "float", "name": "income", "required": False},
    {"type": "long", "name": "visits", "required": True},
]


def trained_classifier() -> LogisticRegression:
    """Return a classifier of texts."""
    return LogisticRegression().fit(MATRIX, NAMES)


def classifier_onnx(**options: Any) -> bytes:
    """Return the classifier as skl2onnx exports it; ZipMap is left out unless asked for."""
    model = trained_classifier()
    exported = to_onnx(model, MATRIX[:1], options={id(model): {"zipmap": False, **options}})
    content: bytes = exported.SerializeToString()
    return content


def regressor_onnx() -> bytes:
    """Return a regressor as skl2onnx exports it."""
    content: bytes = to_onnx(LinearRegression().fit(MATRIX, VALUES), MATRIX[:1]).SerializeToString()
    return content


def summing_onnx(
    inputs: Mapping[str, Sequence[int | str | None]], *, dtype: int = TensorProto.FLOAT, outputs: int = 1
) -> bytes:
    """Return a graph with inputs of these shapes and one output, or more of the same."""
    names = list(inputs)
    values = [helper.make_tensor_value_info(name, dtype, list(shape)) for name, shape in inputs.items()]
    nodes = [helper.make_node("Identity", [names[0]], [f"output_{number}"]) for number in range(outputs)]
    told = [
        helper.make_tensor_value_info(f"output_{number}", dtype, list(inputs[names[0]]))
        for number in range(outputs)
    ]
    return serialized(helper.make_graph(nodes, "summing", values, told))


def scoring_onnx(shape: Sequence[int | str | None]) -> bytes:
    """Return a graph from ``x`` of this shape to one value a row."""
    rows = shape[0]
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axis"], ["value"], keepdims=1)],
        "scoring",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [rows, 1])],
        [numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")],
    )
    return serialized(graph)


def large_onnx(mebibytes: int) -> bytes:
    """Return a graph like ``scoring_onnx([None, 3])`` whose weights take this much."""
    weights = np.random.default_rng(3).normal(size=(3, mebibytes * 2**18 // 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weights"], ["product"]),
            helper.make_node("ReduceSum", ["product", "axis"], ["value"], keepdims=1),
        ],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
        ],
    )
    return serialized(graph)


def several_inputs_onnx() -> bytes:
    """Return a graph that adds three inputs of one column each: what skl2onnx makes of a frame."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["visits"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Sum", ["age", "income", "number"], ["value"]),
        ],
        "several",
        [
            helper.make_tensor_value_info("age", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("income", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("visits", TensorProto.INT64, [None, 1]),
        ],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])],
    )
    return serialized(graph)


def with_opset(model: bytes, version: int, *, domain: str = "") -> bytes:
    """Return the model stamped with another opset."""
    proto = onnx.load_from_string(model)
    for opset in proto.opset_import:
        if opset.domain == domain:
            opset.version = version
    content: bytes = proto.SerializeToString()
    return content


def with_operator(model: bytes, operator: str, *, domain: str = "") -> bytes:
    """Return the model with its first node made another one."""
    proto = onnx.load_from_string(model)
    proto.graph.node[0].op_type = operator
    proto.graph.node[0].domain = domain
    if domain and domain not in {opset.domain for opset in proto.opset_import}:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    content: bytes = proto.SerializeToString()
    return content


def write_plain(source: Path, version: str, model: bytes) -> Path:
    """Write ``source/version`` with ``model.onnx`` alone."""
    directory = source / version
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(model)
    return directory


def write_mlflow(
    source: Path,
    version: str,
    model: bytes,
    *,
    inputs: Sequence[Mapping[str, Any]] | str | None = None,
    **changes: Any,
) -> Path:
    """Write ``source/version`` as ``mlflow.onnx.save_model`` does; ``changes`` replace members of MLmodel."""
    directory = write_plain(source, version, model)
    told = inputs if isinstance(inputs, str) else json.dumps(list(inputs or ()))
    document: dict[str, Any] = {
        "flavors": {
            "onnx": {
                "code": None,
                "data": "model.onnx",
                "onnx_session_options": None,
                "onnx_version": "1.19.0",
                "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"],
            },
            "python_function": {
                "data": "model.onnx",
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.onnx",
                "python_version": "3.11.7",
            },
        },
        "mlflow_version": "3.17.2",
        "model_id": None,
        "model_uuid": "0e4a1e1a8a6c4a4ebc6f4f0a8b1f6a10",
        "utc_time_created": "2026-11-01 12:30:00.123456",
    }
    if inputs is not None:
        document["signature"] = {"inputs": told, "outputs": None, "params": None}
    (directory / "MLmodel").write_text(yaml.safe_dump({**document, **changes}, default_flow_style=False))
    (directory / "requirements.txt").write_text("onnx==1.19.0\n")
    return directory
