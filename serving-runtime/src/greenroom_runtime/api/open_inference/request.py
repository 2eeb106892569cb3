"""An inference request of the Open Inference Protocol: from its bytes to rows of named features.

A tensor is one feature, or one input of the graph, whose columns are features. What their values may be is
not decided here: these rows go through the same door as those of ``/predict``.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Any

import orjson

from greenroom_runtime.api.errors import ProblemError
from greenroom_runtime.api.open_inference.layout import Layout, Matrix
from greenroom_runtime.api.open_inference.tensors import (
    DATATYPES,
    Datatype,
    Elements,
    TensorError,
    columns,
    elements_of_bytes,
    elements_of_json,
)
from greenroom_runtime.api.predict import malformed, parse_json, refuse_too_many_rows, user_key

_MEMBERS = frozenset({"id", "model_name", "parameters", "inputs", "outputs"})
"""``model_name`` is the kserve client's own: the path says which model it is."""
_PLAIN_MEMBERS = frozenset({"name", "shape", "datatype", "data"})
_PLAIN_SHAPES = ([1], [1, 1])
_INPUT_MEMBERS = _PLAIN_MEMBERS | {"parameters"}
_OUTPUT_MEMBERS = frozenset({"name", "parameters"})
_MAX_ERRORS = 1000
_SHOWN_ERRORS = 8
_SHOWN_CHARACTERS = 256
_SPARE_INPUTS = 1000
"""So many tensors that nobody knows are told one by one."""
_LENGTH_DIGITS = 12
"""More would be beyond any body."""
_NO_PARAMETERS: Mapping[str, Any] = {}
_REFUSED = {
    "classification": "ask for the output `probabilities`, whose parameter `classes` has the labels",
    "shared_memory_region": "send and receive tensors in the bodies",
}
"""Parameters of other extensions, which would change what is answered."""


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the client wants."""

    name: str
    binary: bool
    """Whether as bytes."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What a client asks for."""

    id: str
    """The client's own, to be told back; empty where it gave none."""
    user_id: str
    context: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    unknown: Sequence[str]
    """Inputs that are no feature of any resident version and no input of the graph; not in the rows."""
    outputs: Sequence[RequestedOutput]
    """In this order; empty for all there are."""
    binary: bool
    """Whether those that are not named are wanted as bytes."""
    size: int
    """Bytes of the body, as it is read."""


def read_request(
    body: bytes, *, header_length: bytes | None, layout: Layout, known: Collection[str], max_rows: int
) -> InferenceRequest:
    """Read a request.

    ``header_length`` is the header ``Inference-Header-Content-Length``: how much of the body is JSON.
    ``known`` are the features of every resident version. ProblemError where it breaks the protocol.
    """
    document, tail = _parse(body, header_length, layout)
    parameters = _parameters(document, "the request")
    inputs = document.get("inputs")
    if type(inputs) is not list or not inputs:
        raise malformed("`inputs` must be a list with at least one tensor")
    rows, unknown = _rows(inputs, tail, layout=layout, known=known, max_rows=max_rows)
    binary = _flag(parameters, "binary_data_output", "the request")
    given = document.get("id", "")
    if type(given) is not str:
        raise malformed("`id` must be a text")
    return InferenceRequest(
        id=given,
        user_id=user_key(parameters.get("user_id", ""), member="parameters.user_id"),
        context=_context(parameters),
        rows=rows,
        unknown=unknown,
        outputs=_outputs(document.get("outputs"), layout, binary=binary),
        binary=binary,
        size=len(body),
    )


def _rows(
    inputs: list[Any], tail: memoryview, *, layout: Layout, known: Collection[str], max_rows: int
) -> tuple[Sequence[Mapping[str, Any]], Sequence[str]]:
    """Return the rows, and the inputs that nobody knows."""
    takes = len(known) + len(layout.matrices)
    if len(inputs) > takes + _SPARE_INPUTS:
        raise malformed(
            f"`inputs` has {len(inputs)} tensors, far more than the {takes} that the model could take"
        )
    row = None if tail else _plain_row(inputs, layout=layout, known=known)
    if row is not None:
        return (row,), ()
    reader = _Reader(layout, known, max_rows, tail)
    for number, entry in enumerate(inputs):
        reader.read(entry, number=number)
    reader.end()
    return reader.rows(), reader.unknown


def _plain_row(inputs: list[Any], *, layout: Layout, known: Collection[str]) -> Mapping[str, Any] | None:
    """Return the row that most requests are: in JSON, each feature a tensor of one value; about 1 µs each.

    None for any other request, and for one with anything wrong: that is read with care.
    """
    row: dict[str, Any] = {}
    try:
        for entry in inputs:
            name, shape, data = entry["name"], entry["shape"], entry["data"]
            datatype = DATATYPES[entry["datatype"]]
            if len(entry) != len(_PLAIN_MEMBERS) or name not in known or name in layout.matrices:
                return None
            if shape not in _PLAIN_SHAPES or type(shape[0]) is not int or type(shape[-1]) is not int:
                return None
            if type(data) is not list or len(data) != 1:
                return None
            value = data[0]
            if value is not None and not datatype.holds(value):
                return None
            row[name] = value
    except (KeyError, TypeError):
        return None
    return row if len(row) == len(inputs) else None


def _parse(body: bytes, header_length: bytes | None, layout: Layout) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON part as an object, and what follows it."""
    if header_length is None:
        document, tail = parse_json(body), memoryview(b"")
    elif header_length == b"0":
        document, tail = _raw_request(layout, size=len(body)), memoryview(body)
    else:
        told = int(header_length) if header_length.isdigit() and len(header_length) <= _LENGTH_DIGITS else -1
        if not 0 < told <= len(body):
            raise _binary_problem(
                "the header Inference-Header-Content-Length must be the size of the JSON part, "
                f"and the body has {len(body)} bytes"
            )
        document, tail = parse_json(body[:told]), memoryview(body)[told:]
    if type(document) is not dict:
        raise malformed('the request must be an object like {"inputs": [{"name": …}]}')
    if unknown := document.keys() - _MEMBERS:
        raise malformed(
            f"unknown members {_shown_names(unknown)}: a request has {', '.join(sorted(_MEMBERS))}"
        )
    return document, tail


def _raw_request(layout: Layout, *, size: int) -> dict[str, Any]:
    """Return the JSON that a raw binary request stands for: the bytes of the graph's one input."""
    if layout.raw is None:
        raise _binary_problem(
            "a request without JSON "
            "(Inference-Header-Content-Length: 0) is for graphs with one input, of numbers"
        )
    name, matrix = layout.raw
    row = len(matrix.features) * DATATYPES[matrix.datatype].wire.itemsize
    tensor = {
        "name": name,
        "datatype": matrix.datatype,
        "shape": [size // row, len(matrix.features)],
        "parameters": {"binary_data_size": size},
    }
    return {"inputs": [tensor]}


def _parameters(owner: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    parameters = owner.get("parameters")
    if parameters is None:
        return _NO_PARAMETERS
    if type(parameters) is not dict:
        raise malformed(f"`parameters` of {what} must be an object")
    return parameters


def _context(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the attributes of who asks: an object, or the JSON of one, for clients that send texts only."""
    context = parameters.get("context", _NO_PARAMETERS)
    if type(context) is str:
        try:
            context = orjson.loads(context)
        except orjson.JSONDecodeError as error:
            raise malformed(f"`parameters.context` is a text, but not JSON: {error}") from error
    if type(context) is not dict and context is not _NO_PARAMETERS:
        raise malformed("`parameters.context` must be an object, or a text with the JSON of one")
    checked: Mapping[str, Any] = context
    return checked


def _outputs(entries: object, layout: Layout, *, binary: bool) -> Sequence[RequestedOutput]:
    if entries is None:
        return ()
    if type(entries) is not list:
        raise malformed("`outputs` must be a list")
    wanted: dict[str, RequestedOutput] = {}
    for number, entry in enumerate(entries):
        output = _output(entry, layout, number=number, binary=binary)
        if output.name in wanted:
            raise malformed(f"`outputs` names {output.name!r} twice")
        wanted[output.name] = output
    return tuple(wanted.values())


def _output(entry: object, layout: Layout, *, number: int, binary: bool) -> RequestedOutput:
    what = f"outputs[{number}]"
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(name, str) or entry.keys() - _OUTPUT_MEMBERS:
        raise malformed(f"`{what}` must be an object with `name`, and at most `parameters` beside it")
    if name not in layout.outputs:
        raise malformed(
            f"`{what}` is {name[:_SHOWN_CHARACTERS]!r}, which the model does not give: "
            f"it gives {', '.join(layout.outputs)}"
        )
    parameters = _parameters(entry, what)
    for parameter, remedy in _REFUSED.items():
        if parameter in parameters:
            raise malformed(f"`{what}` asks for `{parameter}`, which is not supported: {remedy}")
    return RequestedOutput(name, _flag(parameters, "binary_data", what, default=binary))


def _flag(parameters: Mapping[str, Any], name: str, what: str, *, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise malformed(f"the parameter `{name}` of {what} must be true or false")
    return value


@dataclass(slots=True)
class _Reader:
    """Reads one input after the other; what is wrong with each is told at the end, all at once."""

    layout: Layout
    known: Collection[str]
    max_rows: int
    tail: memoryview
    """What is left of the bytes behind the JSON."""
    unknown: list[str] = field(default_factory=list)
    _count: int = 0
    """Rows; 0 before the first tensor."""
    _names: set[str] = field(default_factory=set)
    _columns: dict[str, list[Any]] = field(default_factory=dict)
    """By feature."""
    _errors: list[dict[str, str]] = field(default_factory=list)

    def read(self, entry: object, *, number: int) -> None:
        """Take one tensor."""
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(name, str):
            raise malformed(f"`inputs[{number}]` must be an object with a `name`")
        try:
            self._read(entry, name, self._bytes_of(entry, name))
        except TensorError as error:
            self._errors.append({"tensor": name[:_SHOWN_CHARACTERS], "problem": str(error)})

    def end(self) -> None:
        """Refuse the request where any tensor is not what it says."""
        if self.tail:
            raise _binary_problem(f"{len(self.tail)} bytes are left behind the last tensor's")
        if not self._errors:
            return
        shown = [f"{error['tensor']!r}: {error['problem']}" for error in self._errors[:_SHOWN_ERRORS]]
        more = len(self._errors) - len(shown)
        raise ProblemError(
            status=HTTPStatus.UNPROCESSABLE_ENTITY,
            kind="tensors",
            detail=f"tensors are not what they say: {'; '.join(shown)}{f'; and {more} more' if more else ''}",
            extra={"errors": self._errors[:_MAX_ERRORS], "errors_total": len(self._errors)},
        )

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Return what was read, by row."""
        names = tuple(self._columns)
        return [dict(zip(names, values, strict=True)) for values in zip(*self._columns.values(), strict=True)]

    def _bytes_of(self, entry: Mapping[str, Any], name: str) -> memoryview | None:
        """Take the tensor's bytes; None where its data is in the JSON."""
        what = f"the input {name[:_SHOWN_CHARACTERS]!r}"
        parameters = _parameters(entry, what)
        if "shared_memory_region" in parameters:
            message = f"shared memory is not supported: {_REFUSED['shared_memory_region']}"
            raise TensorError(message)
        size = parameters.get("binary_data_size")
        if size is None:
            return None
        if type(size) is not int or not 0 <= size <= len(self.tail):
            raise _binary_problem(
                f"`binary_data_size` of {what} must be a number of bytes, "
                f"and the body has {len(self.tail)} left"
            )
        raw, self.tail = self.tail[:size], self.tail[size:]
        return raw

    def _read(self, entry: Mapping[str, Any], name: str, raw: memoryview | None) -> None:
        if name in self._names:
            message = "it is given twice"
            raise TensorError(message)
        self._names.add(name)
        if unknown := entry.keys() - _INPUT_MEMBERS:
            message = f"it has unknown members {_shown_names(unknown)}"
            raise TensorError(message)
        matrix = self.layout.matrices.get(name)
        datatype = _datatype(entry, matrix)
        shape = self._shape(entry, width=len(matrix.features) if matrix else 1)
        if matrix is None and name not in self.known:
            self.unknown.append(name)  # never decoded: the features that are known bound what is kept
            return
        elements = _elements(entry, raw, datatype=datatype, shape=shape)
        if matrix is None:
            (values,) = columns(elements, nan_is_null=(name not in self.layout.never_null,))
            self._add(name, values)
            return
        for feature, values in zip(
            matrix.features, columns(elements, nan_is_null=matrix.nan_is_null), strict=True
        ):
            self._add(feature, matrix.spelled(feature, values))

    def _shape(self, entry: Mapping[str, Any], *, width: int) -> list[int]:
        shape = entry.get("shape")
        if type(shape) is not list or not all(type(size) is int for size in shape):
            message = "its `shape` must be a list of whole numbers"
            raise TensorError(message)
        if shape[1:] != [width] and (width != 1 or len(shape) != 1):
            wanted = f"[rows, {width}]" if width > 1 else "[rows] or [rows, 1]"
            message = f"its shape must be {wanted}, not {str(shape[:8])[:_SHOWN_CHARACTERS]}"
            raise TensorError(message)
        rows: int = shape[0]
        refuse_too_many_rows(rows, limit=self.max_rows)
        if rows < 1:
            message = f"it has {rows} rows, and there must be one at least"
            raise TensorError(message)
        if self._count not in (0, rows):
            message = f"it has {rows} rows, the first tensor has {self._count}"
            raise TensorError(message)
        self._count = rows
        return shape

    def _add(self, feature: str, values: list[Any]) -> None:
        if feature in self._columns:
            message = f"the feature {feature[:_SHOWN_CHARACTERS]!r} is given by another tensor, too"
            raise TensorError(message)
        self._columns[feature] = values


def _datatype(entry: Mapping[str, Any], matrix: Matrix | None) -> Datatype:
    name = entry.get("datatype")
    datatype = DATATYPES.get(name) if type(name) is str else None
    if datatype is None:
        message = f"its `datatype` must be one of {', '.join(DATATYPES)}"
        raise TensorError(message)
    if matrix is not None and datatype.name not in matrix.takes:
        message = f"the graph's input takes {', '.join(sorted(matrix.takes))}, not {datatype.name}"
        raise TensorError(message)
    return datatype


def _elements(
    entry: Mapping[str, Any], raw: memoryview | None, *, datatype: Datatype, shape: Sequence[int]
) -> Elements:
    data = entry.get("data")
    if raw is None:
        return elements_of_json(data, datatype=datatype, shape=shape)
    if data is not None:
        message = "it has both `data` and `binary_data_size`"
        raise TensorError(message)
    count = shape[0] if len(shape) == 1 else shape[0] * shape[1]
    return elements_of_bytes(raw, datatype=datatype, count=count)


def _shown_names(names: Collection[object]) -> list[str]:
    return sorted(str(name)[:64] for name in islice(names, 16))


def _binary_problem(detail: str) -> ProblemError:
    return ProblemError(status=HTTPStatus.BAD_REQUEST, kind="binary", detail=detail)
