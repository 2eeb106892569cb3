"""The signature that a graph shows by itself: inputs become features, outputs label and probabilities."""

from collections.abc import Sequence

from pydantic import ValidationError

from greenroom_runtime.contract.bundle import (
    MODEL_FILE,
    Batching,
    Dtype,
    Feature,
    Outputs,
    Signature,
    Tensor,
    Value,
)
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.mlmodel import Column, Inputs, TensorSpec
from greenroom_runtime.models.onnx_file import GraphOutline, GraphValue

_DTYPES: dict[str, Dtype] = {
    "float32": "float32",
    "float64": "float64",
    "int64": "int64",
    "string": "string",
    "bool": "bool",
}
_CARRIES_NULL = frozenset({"float32", "float64", "string"})
_LABELS = ("label", "output_label")
_PROBABILITIES = ("probabilities", "output_probability")
"""What skl2onnx calls them, without and with ZipMap."""
_MATRIX = 2
_ONE_OUTPUT = 1
_LABEL_AND_PROBABILITIES = 2


def signature_of(graph: GraphOutline, *, given: Inputs | None) -> tuple[Signature, Batching]:
    """Return the model's signature and how rows may share a run; VersionError where it cannot be served.

    ``given`` are the inputs as MLflow has recorded them, which name the columns of a matrix.
    """
    if not graph.inputs or not graph.outputs:
        raise _unfit("the graph has no inputs or no outputs")
    try:
        return _signature(graph, given=given), _batching(graph.inputs)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = f"no signature can be made of the graph: {place + ': ' if place else ''}{first['msg']}"
        raise _unfit(message, found=str(first["input"])[:200] if place else "") from error


def _signature(graph: GraphOutline, *, given: Inputs | None) -> Signature:
    named = _columns_by_input(graph, given)
    tensors: list[Tensor] = []
    features: list[Feature] = []
    for value in graph.inputs:
        dtype = _dtype_of(value)
        columns = named.get(value.name)
        width = _width_of(value, known=len(columns) if columns else None)
        ours = _features(value.name, dtype=dtype, columns=columns, width=width)
        features.extend(ours)
        tensors.append(Tensor(name=value.name, dtype=dtype, features=tuple(one.name for one in ours)))
    return Signature(features=tuple(features), tensors=tuple(tensors), outputs=_outputs(graph))


def _columns_by_input(graph: GraphOutline, given: Inputs | None) -> dict[str, tuple[Column, ...]]:
    """Tell which columns are whose, the way MLflow itself feeds a frame to a graph."""
    columns = tuple(one for one in given or () if isinstance(one, Column))
    names = [value.name for value in graph.inputs]
    if not columns:
        _compare_tensors(graph, tuple(one for one in given or () if isinstance(one, TensorSpec)))
        return {}
    if len(names) == 1:
        return {names[0]: columns}
    if sorted(names) != sorted(column.name for column in columns):
        message = "the columns of the MLflow signature are not the inputs of the graph"
        found = ", ".join(column.name or "a column without a name" for column in columns)
        raise _unfit(message, expected=", ".join(sorted(names)), found=found)
    return {column.name: (column,) for column in columns}


def _compare_tensors(graph: GraphOutline, specs: Sequence[TensorSpec]) -> None:
    by_name = {spec.name: spec for spec in specs}
    for value in graph.inputs if specs else ():
        spec = by_name.get(value.name) or (by_name.get("") if len(graph.inputs) == 1 else None)
        if spec is None:
            message = "the tensors of the MLflow signature are not the inputs of the graph"
            expected = ", ".join(one.name for one in graph.inputs)
            raise _unfit(message, expected=expected, found=", ".join(by_name) or "none")
        fits = value.shape is None or (
            len(spec.shape) == len(value.shape)
            and all(
                one in (-1, None) or other in (-1, one)
                for one, other in zip(value.shape, spec.shape, strict=True)
            )
        )
        dtype = "string" if spec.dtype in ("str", "object", "string") else spec.dtype
        if dtype != value.dtype or not fits:
            message = f"the MLflow signature's tensor for input {value.name!r} is not the graph's"
            raise _unfit(message, expected=_spelled(value), found=f"{spec.dtype} {list(spec.shape)}")


def _dtype_of(value: GraphValue) -> Dtype:
    dtype = _DTYPES.get(value.dtype) if value.is_tensor else None
    if dtype is None:
        message = f"input {value.name!r} is of a type that no feature has: let the graph cast it"
        raise _unfit(message, expected=f"a tensor of {', '.join(_DTYPES)}", found=_spelled(value))
    return dtype


def _width_of(value: GraphValue, *, known: int | None) -> int:
    """Return how many columns the input has."""
    if value.shape is None or len(value.shape) != _MATRIX:
        message = (
            f"input {value.name!r} is no matrix of rows and features: flatten it before the graph, "
            f"[rows, features]"
        )
        raise _unfit(message, expected="[rows, features]", found=_spelled(value))
    rows, columns = value.shape
    if rows not in (None, 1):
        message = (
            f"input {value.name!r} takes exactly {rows} rows at a time: export it with a first dimension "
            f"that is not fixed (dynamic_axes, dynamic_shapes)"
        )
        raise _unfit(message, expected="[rows, features]", found=_spelled(value))
    if columns is None and known is None:
        message = (
            f"input {value.name!r} does not say how many features it takes: export it with a fixed second "
            f"dimension, or with an MLflow signature"
        )
        raise _unfit(message, expected="[rows, features]", found=_spelled(value))
    if columns is not None and known is not None and columns != known:
        message = f"input {value.name!r} has another number of columns than the MLflow signature"
        raise _unfit(message, expected=str(known), found=str(columns))
    return columns or known or 0


def _features(
    name: str, *, dtype: Dtype, columns: Sequence[Column] | None, width: int
) -> tuple[Feature, ...]:
    generic = [name] if width == 1 else [f"{name}_{number}" for number in range(width)]
    if not columns:
        return tuple(Feature(name=one, dtype=dtype) for one in generic)
    return tuple(
        Feature(
            name=column.name or other,
            dtype=column.dtype,
            nullable=not column.required and dtype in _CARRIES_NULL,
        )
        for column, other in zip(columns, generic, strict=True)
    )


def _batching(inputs: Sequence[GraphValue]) -> Batching:
    alone = any(value.shape and value.shape[0] == 1 for value in inputs)
    return Batching(max_rows=1) if alone else Batching()


def _outputs(graph: GraphOutline) -> Outputs:
    for value in graph.outputs:
        if not value.is_tensor:
            message = (
                f"output {value.name!r} is a {value.dtype}, not a tensor: export a classifier without "
                f"ZipMap, to_onnx(model, X, options={{'zipmap': False}})"
            )
            raise _unfit(message, expected="a tensor", found=_spelled(value))
    if len(graph.outputs) == _ONE_OUTPUT:
        return Outputs(prediction=_column_named(graph.outputs[0]).name)
    label, probabilities = _classifier_outputs(graph.outputs)
    return Outputs(
        prediction=_column_named(label).name,
        probabilities=probabilities.name,
        classes=_classes(graph, label=label, probabilities=probabilities),
    )


def _classifier_outputs(outputs: Sequence[GraphValue]) -> tuple[GraphValue, GraphValue]:
    by_name = {value.name: value for value in outputs}
    labels = [by_name[name] for name in _LABELS if name in by_name]
    scores = [by_name[name] for name in _PROBABILITIES if name in by_name]
    if len(outputs) == _LABEL_AND_PROBABILITIES and not (labels and scores):
        labels = [value for value in outputs if value.dtype in ("int64", "string", "bool")]
        scores = [value for value in outputs if value.dtype in ("float32", "float64")]
    if len(labels) != 1 or len(scores) != 1:
        message = (
            "it cannot be told which outputs are the answer: let the graph have one value, or a label and a "
            "matrix of probabilities, named 'label' and 'probabilities'"
        )
        raise _unfit(message, found="; ".join(f"{one.name}: {_spelled(one)}" for one in outputs))
    matrix = scores[0].shape is None or len(scores[0].shape) == _MATRIX
    if scores[0].dtype not in ("float32", "float64") or not matrix:
        message = f"output {scores[0].name!r} is no matrix of probabilities"
        raise _unfit(message, expected="float32 [rows, classes]", found=_spelled(scores[0]))
    return labels[0], scores[0]


def _column_named(value: GraphValue) -> GraphValue:
    """Return an output that has one answer a row."""
    shape = value.shape
    one_each = shape is None or len(shape) == 1 or (len(shape) == _MATRIX and shape[1] in (None, 1))
    if not one_each or value.dtype not in _DTYPES:
        message = (
            f"output {value.name!r} is not one answer a row: let the graph end in a label (ArgMax) and its "
            f"probabilities, or in one value"
        )
        raise _unfit(message, expected="[rows] or [rows, 1]", found=_spelled(value))
    return value


def _classes(
    graph: GraphOutline, *, label: GraphValue, probabilities: GraphValue
) -> tuple[Value, ...] | None:
    """Return the labels in the order of the probabilities, where the classifier itself tells them."""
    labels = graph.class_labels.get(label.name, ())
    wanted = str if label.dtype == "string" else int
    width = probabilities.shape[1] if probabilities.shape else None
    fits = width in (None, len(labels)) and all(type(one) is wanted for one in labels)
    return labels if labels and fits else None


def _spelled(value: GraphValue) -> str:
    if value.shape is None:
        return value.dtype
    return f"{value.dtype} [{', '.join('?' if size is None else str(size) for size in value.shape)}]"


def _unfit(message: str, *, expected: str = "", found: str = "") -> VersionError:
    return VersionError(
        FailureReason.INVALID_BUNDLE,
        f"{MODEL_FILE}: {message}",
        file=MODEL_FILE,
        expected=expected,
        found=found,
    )
