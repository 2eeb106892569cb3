"""Tensors of the Open Inference Protocol: from JSON or from bytes to values, and back.

Bytes are as the binary tensor data extension has them: little-endian, row-major, without padding; each
text preceded by its length as an unsigned 32-bit number.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greenroom_runtime.contract.bundle import Value

Elements = NDArray[Any] | list[Any]
"""A tensor's elements, row by row."""

_FLOAT = frozenset((float, int))
_INTEGER = frozenset((int,))
_LENGTH = struct.Struct("<I")
_NULL = type(None)
_JSON_TYPES = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}


class TensorError(ValueError):
    """A tensor is not what it says it is. The message holds none of its values."""


@dataclass(frozen=True, slots=True)
class Datatype:
    """What an element is, in JSON and in bytes."""

    name: str
    types: frozenset[type]
    """What JSON may hold, besides null. Compared with type(): in Python a bool is an int."""
    wire: np.dtype[Any]
    """Little-endian; of BYTES without meaning."""
    low: float = -np.inf
    high: float = np.inf

    def holds(self, value: Any) -> bool:
        """Tell whether a value of JSON, other than null, is one of these."""
        kind = type(value)
        return kind in self.types and (kind is str or self.low <= value <= self.high)


def _integer(name: str, wire: str) -> Datatype:
    bounds = np.iinfo(wire)
    return Datatype(name, _INTEGER, np.dtype(wire), int(bounds.min), int(bounds.max))


def _float(name: str, wire: str) -> Datatype:
    high = float(np.finfo(wire).max)
    return Datatype(name, _FLOAT, np.dtype(wire), -high, high)


_TEXT = Datatype("BYTES", frozenset((str,)), np.dtype(np.object_))
_BFLOAT16 = Datatype("BF16", _FLOAT, np.dtype("<u2"), -3.3895313892515355e38, 3.3895313892515355e38)
_BOOL = Datatype("BOOL", frozenset((bool,)), np.dtype(np.bool_))
DATATYPES = {
    datatype.name: datatype
    for datatype in (
        _BOOL,
        *(
            _integer(f"{kind}{bits}", f"<{kind[0].lower()}{bits // 8}")
            for kind in ("INT", "UINT")
            for bits in (8, 16, 32, 64)
        ),
        _float("FP16", "<f2"),
        _BFLOAT16,
        _float("FP32", "<f4"),
        Datatype("FP64", _FLOAT, np.dtype("<f8")),
        _TEXT,
    )
}


def elements_of_json(data: object, *, datatype: Datatype, shape: Sequence[int]) -> list[Any]:
    """Return the elements of ``data``, flat or nested as ``shape`` says; null stays None.

    TensorError where they are more or fewer, of another type, or too large for it. The shape has one or
    two dimensions and is not negative.
    """
    if type(data) is not list:
        message = "its `data` must be an array"
        raise TensorError(message)
    elements: list[Any] = data
    if data and type(data[0]) is list:
        width = shape[-1]
        if len(shape) == 1 or any(type(row) is not list or len(row) != width for row in data):
            message = f"its nested `data` has not the shape {list(shape)}"
            raise TensorError(message)
        elements = list(chain.from_iterable(data))
    count = shape[0] if len(shape) == 1 else shape[0] * shape[1]
    if len(elements) != count:
        message = f"its `data` has {len(elements)} elements, its shape {list(shape)} says {count}"
        raise TensorError(message)
    _check_types(elements, datatype)
    return elements


def _check_types(elements: list[Any], datatype: Datatype) -> None:
    found = set(map(type, elements))
    if not found <= datatype.types and (wrong := found - datatype.types - {_NULL}):
        kinds = sorted({_JSON_TYPES[kind] for kind in wrong})
        message = f"{datatype.name} cannot hold what its `data` has: {', '.join(kinds)}"
        if wrong == {float} and datatype.types is _INTEGER:
            message = f"{datatype.name} holds whole numbers, and its `data` has one with a point"
        raise TensorError(message)
    if datatype.high < np.inf and elements:
        numbers = [value for value in elements if value is not None] if _NULL in found else elements
        if numbers and not (datatype.low <= min(numbers) and max(numbers) <= datatype.high):
            message = f"its `data` has a number that is too large for {datatype.name}"
            raise TensorError(message)


def elements_of_bytes(raw: memoryview, *, datatype: Datatype, count: int) -> Elements:
    """Return ``count`` elements; TensorError where the bytes are not exactly as many."""
    if datatype is _TEXT:
        return _texts(raw, count)
    if len(raw) != count * datatype.wire.itemsize:
        expected = count * datatype.wire.itemsize
        message = f"its binary data has {len(raw)} bytes, its shape and {datatype.name} say {expected}"
        raise TensorError(message)
    if datatype is _BOOL:
        flags = np.frombuffer(raw, np.uint8)
        if flags.size and flags.max() > 1:
            message = "its binary data has a byte that is neither 0 nor 1, and it is BOOL"
            raise TensorError(message)
        return flags.view(np.bool_)
    array = np.frombuffer(raw, datatype.wire)
    if datatype is _BFLOAT16:  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _texts(raw: memoryview, count: int) -> list[str]:
    texts: list[str] = []
    offset = 0
    try:
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(raw, offset)
            offset += 4 + length
            if offset > len(raw):
                break
            texts.append(str(raw[offset - length : offset], "utf-8"))
    except struct.error:
        pass  # not even a length is left
    except UnicodeDecodeError:
        message = f"its element {len(texts)} is not UTF-8"
        raise TensorError(message) from None
    if len(texts) != count or offset != len(raw):
        message = f"its binary data of {len(raw)} bytes is not {count} texts, each after its length"
        raise TensorError(message)
    return texts


def columns(elements: Elements, *, nan_is_null: Sequence[bool]) -> list[list[Any]]:
    """Return the columns as Python values; NaN becomes None in those where it means null."""
    width = len(nan_is_null)
    if isinstance(elements, list):
        return [elements] if width == 1 else [elements[index::width] for index in range(width)]
    if elements.size == width:  # of one row numpy would cost more than it saves
        return [
            [None if null and value != value else value]  # noqa: PLR0124 only NaN is not itself
            for value, null in zip(elements.tolist(), nan_is_null, strict=True)
        ]
    matrix = elements.reshape(-1, width)
    if matrix.dtype.kind == "f":
        absent = np.isnan(matrix)
        if absent.any():
            matrix = matrix.astype(np.object_)
            matrix[absent & np.array(nan_is_null)] = None
    values: list[list[Any]] = matrix.T.tolist()
    return values


def to_bytes(values: Sequence[Value] | Sequence[Sequence[float]], *, datatype: Datatype) -> bytes:
    """Return the elements as the extension wants them; nested ones row by row."""
    if datatype is _TEXT:
        texts = [str(value).encode() for value in values]
        return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in texts))
    return np.array(values, dtype=datatype.wire).tobytes()
