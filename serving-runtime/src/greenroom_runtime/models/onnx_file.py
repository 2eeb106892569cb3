"""Find external data in an ONNX file without loading it.

A tensor may name a file, or even an address in memory, to take its values from. Nothing that a
bundle's digests do not cover is ever read, so any such tensor is refused. Only the skeleton of the
protobuf is walked (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); weights are skipped.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

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


class _MalformedError(ValueError):
    """The file is no protobuf."""


def refuse_external_data(path: Path) -> None:
    """Raise VersionError when a tensor of the model lies outside of the file, or the file is no ONNX."""
    try:
        outside = _has_external_data(path)
    except _MalformedError as error:
        message = f"{path.name} is no ONNX: {error}"
        raise VersionError(FailureReason.NOT_LOADABLE, message, file=path.name) from error
    if outside:
        message = f"{path.name} takes tensors from outside of the file; export it with its weights inside"
        raise VersionError(FailureReason.INVALID_BUNDLE, message, file=path.name)


def _has_external_data(path: Path) -> bool:
    if path.stat().st_size == 0:
        message = "the file is empty"
        raise _MalformedError(message)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
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
