"""How the Open Inference Protocol shows a model: which tensors go in, and which come out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from greenroom_runtime.contract.bundle import Dtype, Feature, Signature, Tensor

PREDICTION = "prediction"
PROBABILITIES = "probabilities"

OF_DTYPE: dict[Dtype, str] = {
    "float32": "FP32",
    "float64": "FP64",
    "int64": "INT64",
    "string": "BYTES",
    "bool": "BOOL",
}
"""The datatype that says what a signature's does."""
_OF_GRAPH = {
    "tensor(bool)": "BOOL",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
    **{
        f"tensor({kind}{bits})": f"{kind.upper()}{bits}"
        for kind in ("int", "uint")
        for bits in (8, 16, 32, 64)
    },
}
"""The datatypes of a graph's outputs, by onnxruntime's names."""
_INTEGERS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
_NUMBERS = _INTEGERS | {"FP16", "BF16", "FP32", "FP64"}
_TAKES: dict[Dtype, frozenset[str]] = {
    "float32": _NUMBERS,
    "float64": _NUMBERS,
    "int64": _INTEGERS,
    "string": frozenset({"BYTES"}),
    "bool": frozenset({"BOOL"}),
}


def _whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


def _truth(value: Any) -> Any:
    return bool(value) if value in (0, 1) else value


@dataclass(frozen=True, slots=True)
class Matrix:
    """One input of the graph, for clients that think in those."""

    features: tuple[str, ...]
    """Its columns."""
    datatype: str
    takes: frozenset[str]
    """The datatypes that may be sent for it."""
    nan_is_null: tuple[bool, ...]
    """Of each column, whether NaN means null."""
    spellings: Mapping[str, Callable[[Any], Any]]
    """By feature: how the matrix's number becomes the feature's value, where they are of different types."""

    def spelled(self, feature: str, values: list[Any]) -> list[Any]:
        """Return a column as its feature has it: 1.0 is 1 for an int64, and true for a bool."""
        spell = self.spellings.get(feature)
        return values if spell is None else [spell(value) for value in values]


@dataclass(frozen=True, slots=True)
class Layout:
    """One version's tensors."""

    features: tuple[Feature, ...]
    matrices: Mapping[str, Matrix]
    """The graph's inputs by name, without those that are named as a feature is."""
    raw: tuple[str, Matrix] | None
    """What a request without JSON brings: the graph's only input, where that holds numbers."""
    never_null: frozenset[str]
    """Features that cannot be null: NaN is NaN there."""
    outputs: Mapping[str, str]
    """What comes out: by name the datatype."""
    classes: str
    """The labels of the probabilities' columns, as a JSON list; empty where they are not known."""
    width: int
    """How many columns the probabilities have; 0 where that is not known."""


def layout_of(signature: Signature, *, output_types: Mapping[str, str]) -> Layout:
    """Return a version's tensors, given the types of the graph's outputs in onnxruntime's names."""
    features = {feature.name: feature for feature in signature.features}
    matrices = {tensor.name: _matrix(tensor, features) for tensor in signature.tensors}
    raw = None
    if len(matrices) == 1 and signature.tensors[0].dtype != "string":
        ((name, matrix),) = matrices.items()
        raw = (name, matrix)
    answer = signature.outputs
    outputs = {PREDICTION: _OF_GRAPH[output_types[answer.prediction]]}
    if answer.probabilities is not None:
        outputs[PROBABILITIES] = _OF_GRAPH[output_types[answer.probabilities]]
    return Layout(
        features=signature.features,
        matrices={name: matrix for name, matrix in matrices.items() if name not in features},
        raw=raw,
        never_null=frozenset(feature.name for feature in signature.features if not feature.nullable),
        outputs=outputs,
        classes=orjson.dumps(answer.classes).decode() if answer.classes else "",
        width=len(answer.classes or ()),
    )


def _matrix(tensor: Tensor, features: Mapping[str, Feature]) -> Matrix:
    spellings: dict[str, Callable[[Any], Any]] = {}
    for name in tensor.features:
        dtype = features[name].dtype
        if dtype == "bool" and tensor.dtype != "bool":
            spellings[name] = _truth
        elif dtype == "int64" and tensor.dtype != "int64":
            spellings[name] = _whole
    return Matrix(
        features=tensor.features,
        datatype=OF_DTYPE[tensor.dtype],
        takes=_TAKES[tensor.dtype],
        nan_is_null=tuple(features[name].nullable for name in tensor.features),
        spellings=spellings,
    )
