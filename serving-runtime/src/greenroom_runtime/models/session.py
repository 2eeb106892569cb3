"""One loaded model: named features in, predictions out."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from greenroom_runtime.contract.bundle import MODEL_FILE, Bundle, Dtype, Feature, Signature, Tensor, Value
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.door import Door, describe, in_order
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.in_place import proven_after
from greenroom_runtime.models.onnx_file import load_failure

Row = Mapping[str, Value]
Array = NDArray[np.generic]

_WARMUP_SECONDS = 1.0
_WARMUP_RUNS = 64
_NUMPY: dict[Dtype, type] = {
    "float32": np.float32,
    "float64": np.float64,
    "int64": np.int64,
    "string": np.object_,
    "bool": np.bool_,
}
_ONNX: dict[Dtype, str] = {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "int64": "tensor(int64)",
    "string": "tensor(string)",
    "bool": "tensor(bool)",
}
_TAKES: dict[Dtype, frozenset[Dtype]] = {
    "float32": frozenset({"float32", "float64", "int64", "bool"}),
    "float64": frozenset({"float32", "float64", "int64", "bool"}),
    "int64": frozenset({"int64", "bool"}),
    "string": frozenset({"string"}),
    "bool": frozenset({"bool"}),
}
"""Which features a tensor of a type can carry without changing what they say."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one row."""

    prediction: Value
    probabilities: list[float] | None
    """In the order of the signature's classes; None for regressors."""


class ModelSession:
    """An onnxruntime session that speaks in features. Safe to use from several threads."""

    def __init__(self, directory: Path, *, bundle: Bundle, threads: int = 1) -> None:
        """Load the model; VersionError where it does not load or is not what the signature says."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = next(file for file in bundle.files if file.path == MODEL_FILE)
        try:
            with proven_after(directory / MODEL_FILE, file=model) as path:
                self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (MemoryError, VersionError):
            raise
        except Exception as error:  # onnxruntime's own errors have no common base
            raise load_failure(error, runtime=ort.__version__, file=MODEL_FILE) from error
        signature = bundle.signature
        _check_graph(self._session, signature)
        self.output_types = {output.name: output.type for output in self._session.get_outputs()}
        """onnxruntime's name for the type of each of the graph's outputs: ``tensor(float)``."""
        self.bundle = bundle
        self.door = Door(signature)
        self._encoders = [(tensor.name, _encoder(tensor, signature)) for tensor in signature.tensors]
        outputs = signature.outputs
        self._outputs = [outputs.prediction, *([outputs.probabilities] if outputs.probabilities else [])]

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """Answer the rows, each of which has passed the door. Raises whatever onnxruntime raises."""
        feed = {name: encode(rows) for name, encode in self._encoders}
        prediction, *probabilities = self._session.run(self._outputs, feed)
        labels = prediction.reshape(len(rows)).tolist()
        if not probabilities:
            return [Prediction(label, None) for label in labels]
        return [Prediction(*pair) for pair in zip(labels, probabilities[0].tolist(), strict=True)]

    def preprocess(self, rows: Sequence[Row]) -> Array:
        """Return what the model itself is given, [rows, columns]; where ``outputs.preprocessed`` is set."""
        feed = {name: encode(rows) for name, encode in self._encoders}
        (found,) = self._session.run([self.bundle.signature.outputs.preprocessed], feed)
        return np.asarray(found)

    def warm_up(self) -> float:
        """Run the warm-up rows until latency settles; return the seconds that one row takes.

        VersionError where a warm-up row does not fit the signature or the model fails on it.
        """
        rows = self.bundle.warmup or (neutral_row(self.bundle.signature),)
        for number, row in enumerate(rows):
            if findings := self.door.findings(row):
                message = f"warm-up row {number}: {describe(findings)}"
                raise VersionError(FailureReason.INVALID_BUNDLE, message[:2048], sample=number)
        seconds: list[float] = []
        begin = time.perf_counter()
        while len(seconds) < _WARMUP_RUNS and time.perf_counter() - begin < _WARMUP_SECONDS:
            started = time.perf_counter()
            self._run_warmup(rows[len(seconds) % len(rows)])
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds[len(seconds) // 2 :])

    def _run_warmup(self, row: Row) -> None:
        try:
            answers = self.predict([row])
        except MemoryError:
            raise
        except Exception as error:
            message = f"the model fails on a warm-up row: {error}"
            raise VersionError(FailureReason.NOT_LOADABLE, message, file=MODEL_FILE) from error
        classes = self.bundle.signature.outputs.classes
        probabilities = answers[0].probabilities
        if probabilities is not None and classes is not None and len(probabilities) != len(classes):
            message = "the graph gives another number of probabilities than the signature has classes"
            raise VersionError(
                FailureReason.INVALID_BUNDLE,
                message,
                file=MODEL_FILE,
                expected=str(len(classes)),
                found=str(len(probabilities)),
            )


def neutral_row(signature: Signature) -> Row:
    """Return a row that the door lets in, for a bundle that brings no warm-up rows."""
    return {feature.name: _neutral(feature) for feature in signature.features}


def _neutral(feature: Feature) -> Value:
    if feature.dtype == "string":
        return feature.categories[0] if feature.categories else ""
    if feature.dtype == "bool":
        return False
    number = 0.0
    if feature.outside == "Refuse":
        number = max(number, number if feature.minimum is None else feature.minimum)
        number = min(number, number if feature.maximum is None else feature.maximum)
    return int(number) if feature.dtype == "int64" else number


def _encoder(tensor: Tensor, signature: Signature) -> Callable[[Sequence[Row]], Array]:
    take = in_order(tensor.features)
    dtype = _NUMPY[tensor.dtype]
    if tensor.dtype != "string":  # numpy turns None into NaN
        return lambda rows: np.array([take(row) for row in rows], dtype=dtype)
    features = {feature.name: feature for feature in signature.features}
    null_as = [features[name].null_as for name in tensor.features]
    if not any(features[name].nullable for name in tensor.features):
        return lambda rows: np.array([take(row) for row in rows], dtype=dtype)

    def encode(rows: Sequence[Row]) -> Array:
        table = [
            [null if value is None else value for value, null in zip(take(row), null_as, strict=True)]
            for row in rows
        ]
        return np.array(table, dtype=dtype)

    return encode


def _check_graph(session: ort.InferenceSession, signature: Signature) -> None:
    inputs = {item.name: item for item in session.get_inputs()}
    wanted = {tensor.name: tensor for tensor in signature.tensors}
    if inputs.keys() != wanted.keys():
        raise _misfit("inputs", expected=", ".join(sorted(wanted)), found=", ".join(sorted(inputs)))
    dtypes = {feature.name: feature for feature in signature.features}
    for tensor in signature.tensors:
        graph = inputs[tensor.name]
        if graph.type != _ONNX[tensor.dtype]:
            raise _misfit(f"type of input {tensor.name!r}", expected=_ONNX[tensor.dtype], found=graph.type)
        width = graph.shape[1] if len(graph.shape) == 2 else -1  # noqa: PLR2004 rows and features
        if isinstance(width, int) and width != len(tensor.features):
            expected, found = f"[rows, {len(tensor.features)}]", str(graph.shape)
            raise _misfit(f"shape of input {tensor.name!r}", expected=expected, found=found)
        for feature in (dtypes[name] for name in tensor.features):
            nullable_number = feature.nullable and tensor.dtype in ("int64", "bool")
            if feature.dtype not in _TAKES[tensor.dtype] or nullable_number:
                expected = f"a feature that a {tensor.dtype} tensor can carry"
                found = f"{feature.dtype}{' or null' if feature.nullable else ''}"
                raise _misfit(f"type of feature {feature.name!r}", expected=expected, found=found)
    outputs = {item.name: item.type for item in session.get_outputs()}
    wanted_outputs = signature.outputs
    for name in (wanted_outputs.prediction, wanted_outputs.probabilities, wanted_outputs.preprocessed):
        if name is not None and not outputs.get(name, "").startswith("tensor("):
            expected, found = f"a tensor {name!r}", ", ".join(f"{n}: {t}" for n, t in outputs.items())
            raise _misfit("outputs", expected=expected, found=found)


def _misfit(what: str, *, expected: str, found: str) -> VersionError:
    message = f"{what}: the signature and the graph differ; package the model again"
    return VersionError(
        FailureReason.INVALID_BUNDLE, message, file=MODEL_FILE, expected=expected, found=found
    )
