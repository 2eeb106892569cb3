"""Small real bundles for tests: a classifier and a regressor, and broken variants of them.

The graphs are written with onnx's helper; what the "training pipeline" answers is computed here in
float64, without onnxruntime, so that a golden replay compares two independent computations.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from greenroom_runtime.contract.bundle import (
    BUNDLE_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    Bundle,
    BundleFile,
    Feature,
    GoldenSample,
    Outputs,
    Parity,
    Signature,
    Tensor,
    Value,
)

Row = dict[str, Value]

CLASSES = ("no", "yes")
COUNTRIES = {"NO": 1.0, "SE": 0.5, "": -0.5}
"""What each country is worth to the classifier; any other is worth nothing."""
CLASSIFIER_ROWS: tuple[Row, ...] = (
    {"age": 41.0, "income": 52000.5, "visits": 3, "country": "NO"},
    {"age": 19, "income": None, "visits": 0, "country": "SE"},
    {"age": 77.25, "income": 0.0, "visits": 250, "country": None},
    {"age": 33.0, "income": 1e6, "visits": 12, "country": "XX"},
)
REGRESSOR_ROWS: tuple[Row, ...] = (
    {"x1": 1.0, "x2": 2.0, "member": True},
    {"x1": -3.5, "x2": 0.25, "member": False},
    {"x1": 1e3, "x2": 1e-3, "member": True},
)

CLASSIFIER_SIGNATURE = Signature(
    features=(
        Feature(name="age", dtype="float64", minimum=18, maximum=95),
        Feature(name="income", dtype="float64", nullable=True),
        Feature(name="visits", dtype="int64"),
        Feature(name="country", dtype="string", nullable=True, categories=("NO", "SE")),
    ),
    tensors=(
        Tensor(name="numbers", dtype="float32", features=("visits", "age", "income")),
        Tensor(name="words", dtype="string", features=("country",)),
    ),
    outputs=Outputs(prediction="label", probabilities="probabilities", classes=CLASSES),
)
REGRESSOR_SIGNATURE = Signature(
    features=(
        Feature(name="x1", dtype="float64"),
        Feature(name="x2", dtype="float64"),
        Feature(name="member", dtype="bool"),
    ),
    tensors=(Tensor(name="x", dtype="float64", features=("x1", "x2", "member")),),
    outputs=Outputs(prediction="value"),
)


def write_classifier(source: Path, version: str, *, bias: float = 0.0, **changes: Any) -> Path:
    """Write ``source/version`` with a classifier; another ``bias`` gives other answers."""
    return write_bundle(
        source,
        version,
        model=classifier_graph(bias),
        signature=changes.pop("signature", CLASSIFIER_SIGNATURE),
        golden=changes.pop("golden", [_classified(row, bias) for row in CLASSIFIER_ROWS]),
        warmup=changes.pop("warmup", CLASSIFIER_ROWS[:2]),
        **changes,
    )


def write_regressor(source: Path, version: str, *, bias: float = 0.0, **changes: Any) -> Path:
    """Write ``source/version`` with a regressor; another ``model`` must answer its golden samples alike."""
    golden = [GoldenSample(features=row, prediction=regress(row, bias)) for row in REGRESSOR_ROWS]
    return write_bundle(
        source,
        version,
        model=changes.pop("model", regressor_graph(bias)),
        signature=changes.pop("signature", REGRESSOR_SIGNATURE),
        golden=changes.pop("golden", golden),
        **changes,
    )


def write_bundle(
    source: Path,
    version: str,
    *,
    model: bytes,
    signature: Signature,
    golden: Sequence[GoldenSample] | None = None,
    warmup: Sequence[Row] = (),
    tolerance: float = 1e-5,
    extra_files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a whole bundle and return its directory; ``golden=None`` leaves the samples out."""
    directory = source / version
    files = {MODEL_FILE: model, **(extra_files or {})}
    if golden is not None:
        files[GOLDEN_FILE] = "".join(sample.model_dump_json() + "\n" for sample in golden).encode()
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    bundle = Bundle(
        name="churn",
        version=version,
        created="2026-11-01T00:00:00Z",
        framework="onnx.helper",
        signature=signature,
        files=tuple(
            BundleFile(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
            for path, content in files.items()
        ),
        parity=Parity(rows=4, label_flips=0, max_abs_error=tolerance / 10, tolerance=tolerance),
        warmup=tuple(warmup),
    )
    (directory / BUNDLE_FILE).write_text(bundle.model_dump_json(indent=1))
    return directory


def bundle_digest(directory: Path) -> str:
    """Return ``sha256:…`` of a bundle's ``bundle.json``, as flags pin it."""
    return f"sha256:{hashlib.sha256((directory / BUNDLE_FILE).read_bytes()).hexdigest()}"


def edit_manifest(directory: Path, **changes: Any) -> None:
    """Change top-level members of a bundle's ``bundle.json``, whatever that makes of it."""
    document = json.loads((directory / BUNDLE_FILE).read_text())
    (directory / BUNDLE_FILE).write_text(json.dumps(document | changes))


def classify(row: Mapping[str, Value], bias: float) -> tuple[str, tuple[float, float]]:
    """Return the label and the probabilities that the training pipeline gives."""
    age, income, visits = (float(row[name] or 0) for name in ("age", "income", "visits"))
    country = COUNTRIES.get(str(row["country"] or ""), 0.0)
    logit = 0.02 * age + 1e-6 * income - 0.05 * visits + country + bias
    yes = 1 / (1 + math.exp(-logit))
    return CLASSES[yes > 0.5], (1 - yes, yes)


def regress(row: Mapping[str, Value], bias: float) -> float:
    """Return the value that the training pipeline gives."""
    return 2.0 * float(row["x1"] or 0) - 3.0 * float(row["x2"] or 0) + 10.0 * bool(row["member"]) + bias


def _classified(row: Row, bias: float) -> GoldenSample:
    label, probabilities = classify(row, bias)
    return GoldenSample(features=row, prediction=label, probabilities=probabilities)


def classifier_graph(bias: float) -> bytes:
    """Return an ONNX file: numbers [n, 3] and words [n, 1] to a string label and probabilities [n, 2]."""
    nodes = [
        helper.make_node("IsNaN", ["numbers"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "numbers"], ["filled"]),
        helper.make_node(
            "LabelEncoder",
            ["words"],
            ["country"],
            domain="ai.onnx.ml",
            keys_strings=list(COUNTRIES),
            values_floats=list(COUNTRIES.values()),
            default_float=0.0,
        ),
        helper.make_node("Concat", ["filled", "country"], ["columns"], axis=1),
        helper.make_node("Gemm", ["columns", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["index"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder",
            ["index"],
            ["label"],
            domain="ai.onnx.ml",
            keys_int64s=[0, 1],
            values_strings=list(CLASSES),
        ),
    ]
    weights = np.array([[0, -0.05], [0, 0.02], [0, 1e-6], [0, 1.0]], dtype=np.float32)
    graph = helper.make_graph(
        nodes,
        "classifier",
        [
            helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [None, 3]),
            helper.make_tensor_value_info("words", TensorProto.STRING, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        [
            numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zero"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([0, bias], dtype=np.float32), "bias"),
        ],
    )
    return serialized(graph)


def regressor_graph(bias: float) -> bytes:
    """Return an ONNX file: x [n, 3] in float64 to value [n, 1]."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weights"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["value"]),
        ],
        "regressor",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 3])],
        [helper.make_tensor_value_info("value", TensorProto.DOUBLE, [None, 1])],
        [
            numpy_helper.from_array(np.array([[2.0], [-3.0], [10.0]]), "weights"),
            numpy_helper.from_array(np.array([bias]), "bias"),
        ],
    )
    return serialized(graph)


def fragile_graph(bias: float = 0.0) -> bytes:
    """Return an ONNX file with the regressor's signature and answers, that fails where x2 is 100 or more."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "second"], ["column"], axis=1),
            helper.make_node("Cast", ["column"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["nothing"]),
            helper.make_node("MatMul", ["x", "weights"], ["product"]),
            helper.make_node("Sum", ["product", "bias", "nothing"], ["value"]),
        ],
        "fragile",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 3])],
        [helper.make_tensor_value_info("value", TensorProto.DOUBLE, [None, 1])],
        [
            numpy_helper.from_array(np.array([1], dtype=np.int64), "second"),
            numpy_helper.from_array(np.zeros(100), "table"),
            numpy_helper.from_array(np.array([[2.0], [-3.0], [10.0]]), "weights"),
            numpy_helper.from_array(np.array([bias]), "bias"),
        ],
    )
    return serialized(graph)


def _loop_body(operation: str) -> onnx.GraphProto:
    """Return what a Loop does in each round: an operation on its one state, of a number for each row."""
    return helper.make_graph(
        [
            helper.make_node("Identity", ["condition_in"], ["condition_out"]),
            helper.make_node(operation, ["state_in"], ["state_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("iteration", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.DOUBLE, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("condition_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.DOUBLE, [None, 1]),
        ],
    )


def brooding_graph() -> bytes:
    """Return an ONNX file with the regressor's signature and answers, that never ends where x2 is over 99."""
    body = _loop_body("Identity")
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "second"], ["column"], axis=1),
            helper.make_node("ReduceMax", ["column"], ["highest"], keepdims=0),
            helper.make_node("Greater", ["highest", "bound"], ["condition"]),
            helper.make_node("MatMul", ["x", "weights"], ["product"]),
            helper.make_node("Loop", ["trips", "condition", "product"], ["value"], body=body),
        ],
        "brooding",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 3])],
        [helper.make_tensor_value_info("value", TensorProto.DOUBLE, [None, 1])],
        [
            numpy_helper.from_array(np.array([1], dtype=np.int64), "second"),
            numpy_helper.from_array(np.array(99.0), "bound"),
            numpy_helper.from_array(np.array([[2.0], [-3.0], [10.0]]), "weights"),
            numpy_helper.from_array(np.array(2**62, dtype=np.int64), "trips"),
        ],
    )
    return serialized(graph)


def hungry_graph() -> bytes:
    """Return an ONNX file with the regressor's signature and answers, that fills x2 MiB for each row."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "second"], ["column"], axis=1),
            helper.make_node("ReduceMax", ["column"], ["highest"], keepdims=0),
            helper.make_node("Mul", ["highest", "numbers"], ["count"]),
            helper.make_node("Cast", ["count"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Max", ["whole", "none"], ["shape"]),
            helper.make_node(
                "ConstantOfShape",
                ["shape"],
                ["huge"],
                value=helper.make_tensor("value", TensorProto.DOUBLE, [1], [0.0]),
            ),
            helper.make_node("ReduceSum", ["huge"], ["nothing"], keepdims=0),
            helper.make_node("MatMul", ["x", "weights"], ["product"]),
            helper.make_node("Add", ["product", "nothing"], ["value"]),
        ],
        "hungry",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 3])],
        [helper.make_tensor_value_info("value", TensorProto.DOUBLE, [None, 1])],
        [
            numpy_helper.from_array(np.array([1], dtype=np.int64), "second"),
            numpy_helper.from_array(np.array(2.0**20 / 8), "numbers"),
            numpy_helper.from_array(np.array([0], dtype=np.int64), "none"),
            numpy_helper.from_array(np.array([[2.0], [-3.0], [10.0]]), "weights"),
        ],
    )
    return serialized(graph)


def endless_graph() -> bytes:
    """Return an ONNX file with the regressor's signature that computes for ever on any row."""
    body = _loop_body("Sin")
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=1),
            helper.make_node("Loop", ["trips", "condition", "sum"], ["value"], body=body),
        ],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 3])],
        [helper.make_tensor_value_info("value", TensorProto.DOUBLE, [None, 1])],
        [
            numpy_helper.from_array(np.array(2**62, dtype=np.int64), "trips"),
            numpy_helper.from_array(np.array(True), "condition"),
        ],
    )
    return serialized(graph)


def greedy_graph(gigabytes: float) -> bytes:
    """Return an ONNX file with the regressor's signature that fills so much memory for any row."""
    count = int(gigabytes * 2**30 / 8)
    graph = helper.make_graph(
        [
            helper.make_node(
                "ConstantOfShape",
                ["shape"],
                ["huge"],
                value=helper.make_tensor("value", TensorProto.DOUBLE, [1], [1.0]),
            ),
            helper.make_node("ReduceMean", ["huge"], ["one"], keepdims=1),
            helper.make_node("MatMul", ["x", "weights"], ["product"]),
            helper.make_node("Add", ["product", "one"], ["value"]),
        ],
        "greedy",
        [
            helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 3]),
        ],
        [helper.make_tensor_value_info("value", TensorProto.DOUBLE, [None, 1])],
        [
            numpy_helper.from_array(np.array([count], dtype=np.int64), "shape"),
            numpy_helper.from_array(np.array([[2.0], [-3.0], [10.0]]), "weights"),
        ],
    )
    return serialized(graph)


def with_external_data(model: bytes, location: str) -> bytes:
    """Return the model with its first weights taken from another file."""
    proto = onnx.load_from_string(model)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    serialized_model: bytes = proto.SerializeToString()
    return serialized_model


def serialized(graph: onnx.GraphProto) -> bytes:
    """Return the graph as the bytes of a checked ONNX file."""
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
