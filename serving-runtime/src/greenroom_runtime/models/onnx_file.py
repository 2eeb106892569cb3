"""What an ONNX file says of itself, without loading it: inputs, outputs, and whether it reaches outside.

A tensor may name a file, or even an address in memory, to take its values from. Nothing that a
bundle's digests do not cover is ever read, so any such tensor is refused. Only the skeleton of the
protobuf is walked (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); weights are skipped.

A large file takes its time, and one that shrinks meanwhile ends the process: not for the serving process.
"""

import mmap
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.failures import VersionError

_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
_TENSOR_EXTERNAL_DATA = 13
_TENSOR_DATA_LOCATION = 14
_TEXT_BYTES = 1024
_TENSOR_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
_PASSING_ON = frozenset({"Cast", "Identity", "Reshape", "Squeeze"})
"""Operators whose first output says the same as their first input."""
_OTHER_TYPES = {4: "sequence", 5: "map", 8: "sparse tensor", 9: "optional"}

_OPSET = re.compile(r"Opset (\d+) is under development.*for domain (\S+) is till opset (\d+)", re.DOTALL)
_IR_VERSION = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_OPERATOR = re.compile(
    r"No Op registered for (?P<op>\S+)|Fatal error: (?P<own>\S+?)\(-?\d+\) is not a registered"
    r"|No opset import for domain '(?P<domain>[^']*)'"
)


class _MalformedError(ValueError):
    """The file is no protobuf."""


@dataclass(frozen=True, kw_only=True)
class GraphValue:
    """One input or output of a graph."""

    name: str
    dtype: str
    """``float32`` and so on of a tensor's elements; what it is instead where it is no tensor."""
    is_tensor: bool
    shape: tuple[int | None, ...] | None
    """None for a dimension that is not fixed, and for a shape that is not told at all."""


@dataclass(frozen=True, kw_only=True)
class GraphOutline:
    """What can be told of a model without running it."""

    name: str
    producer: str
    inputs: tuple[GraphValue, ...]
    """Those that a caller must give."""
    outputs: tuple[GraphValue, ...]
    class_labels: Mapping[str, tuple[str | int, ...]]
    """Of outputs that are a classifier's label as it is: what that classifier calls its classes."""


def refuse_external_data(path: Path) -> None:
    """Raise VersionError when a tensor of the model lies outside of the file, or the file is no ONNX."""
    with _reading(path) as data:
        outside = _has_external_data(data)
    if outside:
        message = (
            f"{path.name} takes tensors from outside of the file: export it with its weights inside "
            f"(onnx.save_model and mlflow.onnx.log_model: save_as_external_data=False)"
        )
        raise VersionError(FailureReason.INVALID_BUNDLE, message, file=path.name)


def read_outline(path: Path) -> GraphOutline:
    """Return the model's outline; VersionError where the file is no ONNX."""
    with _reading(path) as data:
        return _Outliner(data).outline()


def load_failure(error: Exception, *, runtime: str, file: str) -> VersionError:
    """Say what onnxruntime has against a model, with both numbers and the remedy where it is about age."""
    text = str(error)
    message, expected, found = f"onnxruntime {runtime} cannot load {file}: {text}", "", ""
    if told := _OPSET.search(text):
        found, domain, expected = f"opset {told[1]}", told[2], f"at most opset {told[3]}"
        message = (
            f"{file} is written for {found} of {domain}, onnxruntime {runtime} knows {expected}: export it "
            f"with target_opset={told[3]}, or use a newer runtime image"
        )
    elif told := _IR_VERSION.search(text):
        found, expected = f"IR version {told[1]}", f"at most IR version {told[2]}"
        message = (
            f"{file} has ONNX {found}, onnxruntime {runtime} knows {expected}: export it with an older onnx "
            f"package, or use a newer runtime image"
        )
    elif told := _OPERATOR.search(text):
        found = next(name for name in told.groups() if name is not None)
        expected = f"operators of onnxruntime {runtime}"
        message = (
            f"{file} uses {found!r}, which onnxruntime {runtime} does not know: export it without operators "
            f"of one's own, for the opset that it declares; {text[-300:]}"
        )
    return VersionError(FailureReason.NOT_LOADABLE, message, file=file, expected=expected, found=found)


@contextmanager
def _reading(path: Path) -> Iterator[mmap.mmap]:
    if path.stat().st_size == 0:
        message = f"{path.name} is no ONNX: the file is empty"
        raise VersionError(FailureReason.NOT_LOADABLE, message, file=path.name)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except _MalformedError as error:
        message = f"{path.name} is no ONNX: {error}"
        raise VersionError(FailureReason.NOT_LOADABLE, message, file=path.name) from error


def _has_external_data(data: mmap.mmap) -> bool:
    pending = [("Model", 0, len(data))]
    while pending:
        kind, start, end = pending.pop()
        for number, value, content in _fields(data, start, end):
            if kind == "Tensor":
                if number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value):
                    return True
            elif content is not None and (child := _CHILDREN[kind].get(number)):
                pending.append((child, *content))
    return False


class _Extent(NamedTuple):
    """Where a message lies."""

    start: int
    end: int


class _Outliner:
    """Reads a model's outline, message by message; numbers are fields of onnx.proto."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data

    def outline(self) -> GraphOutline:
        model = _Extent(0, len(self._data))
        graphs = self._children(model, 7)
        if len(graphs) != 1:
            message = f"it has {len(graphs)} graphs"
            raise _MalformedError(message)
        graph = graphs[0]
        constants = {self._text(tensor, 8) for tensor in self._children(graph, 5)}
        inputs = [self._value(extent) for extent in self._children(graph, 11)]
        outputs = tuple(self._value(extent) for extent in self._children(graph, 12))
        labels = self._class_labels(graph)
        return GraphOutline(
            name=self._text(graph, 2),
            producer=f"{self._text(model, 2)} {self._text(model, 3)}".strip(),
            inputs=tuple(value for value in inputs if value.name not in constants),
            outputs=outputs,
            class_labels={one.name: labels[one.name] for one in outputs if one.name in labels},
        )

    def _value(self, extent: _Extent) -> GraphValue:
        kinds = self._children(extent, 2)
        name = self._text(extent, 1)
        for number, _, content in _fields(self._data, *kinds[0]) if kinds else ():
            if number == 1 and content is not None:
                return self._tensor(name, _Extent(*content))
            if number in _OTHER_TYPES:
                return GraphValue(name=name, dtype=_OTHER_TYPES[number], is_tensor=False, shape=None)
        return GraphValue(name=name, dtype="unknown type", is_tensor=False, shape=None)

    def _tensor(self, name: str, tensor: _Extent) -> GraphValue:
        number = self._number(tensor, 1)
        shapes = self._children(tensor, 2)
        dimensions = (
            [self._number(dimension, 1) for dimension in self._children(shapes[0], 1)] if shapes else []
        )
        return GraphValue(
            name=name,
            dtype=_TENSOR_TYPES.get(number, f"type {number}"),
            is_tensor=True,
            shape=tuple(size if size > 0 else None for size in dimensions) if shapes else None,
        )

    def _class_labels(self, graph: _Extent) -> dict[str, tuple[str | int, ...]]:
        """Return the labels of each value that is a label; nodes are in the order in which they run.

        Of a stack of classifiers the inner ones count numbers of their own, so only what reaches an output
        unchanged says something about it.
        """
        known: dict[str, tuple[str | int, ...]] = {}
        for node in self._children(graph, 1):
            passing = self._text(node, 4) in _PASSING_ON
            labels = known.get(self._first(node, 1), ()) if passing else self._own_labels(node)
            if labels:
                known[self._first(node, 2)] = labels
        return known

    def _own_labels(self, node: _Extent) -> tuple[str | int, ...]:
        for attribute in self._children(node, 5):
            if self._text(attribute, 1).startswith("classlabels_"):
                texts = tuple(self._read(extent) for extent in self._children(attribute, 9))
                return texts or tuple(self._numbers(attribute, 8))
        return ()

    def _children(self, extent: _Extent, wanted: int) -> list[_Extent]:
        return [
            _Extent(*content)
            for number, _, content in _fields(self._data, *extent)
            if number == wanted and content is not None
        ]

    def _first(self, extent: _Extent, wanted: int) -> str:
        found = self._children(extent, wanted)
        return self._read(found[0]) if found else ""

    def _text(self, extent: _Extent, wanted: int) -> str:
        found = self._children(extent, wanted)
        return self._read(found[-1]) if found else ""

    def _read(self, extent: _Extent) -> str:
        return self._data[extent.start : min(extent.end, extent.start + _TEXT_BYTES)].decode(errors="replace")

    def _number(self, extent: _Extent, wanted: int) -> int:
        return next(self._numbers(extent, wanted), 0)

    def _numbers(self, extent: _Extent, wanted: int) -> Iterator[int]:
        """Yield a field's numbers, which are one by one or packed."""
        for number, value, content in _fields(self._data, *extent):
            if number != wanted:
                continue
            if content is None:
                yield _signed(value)
                continue
            at, end = content
            while at < end:
                packed, at = _varint(self._data, at, end)
                yield _signed(packed)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, tuple[int, int] | None]]:
    """Yield (field number, its varint, the extent of its bytes) for one message."""
    while at < end:
        key, at = _varint(data, at, end)
        value, content = 0, None
        match key & 7:
            case 0:
                value, at = _varint(data, at, end)
            case 1:
                at += 8
            case 2:
                length, at = _varint(data, at, end)
                content = (at, at + length)
                at += length
            case 5:
                at += 4
            case wire_type:
                message = f"byte {at}: wire type {wire_type} is not of protobuf 3"
                raise _MalformedError(message)
        if at > end:
            message = f"the file ends inside a field, {at - end} bytes short"
            raise _MalformedError(message)
        yield key >> 3, value, content


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 the continuation bit
            return value, at
    message = f"byte {at}: a number does not end"
    raise _MalformedError(message)
