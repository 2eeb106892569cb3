"""Tensors and requests of the Open Inference Protocol, from bytes to rows and back."""

import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom_runtime.api.errors import ProblemError
from greenroom_runtime.api.open_inference.compression import ENCODINGS, inflate
from greenroom_runtime.api.open_inference.layout import Layout, layout_of
from greenroom_runtime.api.open_inference.request import (
    InferenceRequest,
    _plain_row,
    _Reader,
    read_request,
)
from greenroom_runtime.api.open_inference.tensors import DATATYPES, columns, elements_of_bytes, to_bytes
from greenroom_runtime.contract.bundle import Feature, Outputs, Signature, Tensor
from tests.support.bundles import CLASSIFIER_ROWS, CLASSIFIER_SIGNATURE, REGRESSOR_SIGNATURE

MAX_ROWS = 100
CLASSIFIER = layout_of(
    CLASSIFIER_SIGNATURE, output_types={"label": "tensor(string)", "probabilities": "tensor(float)"}
)
REGRESSOR = layout_of(REGRESSOR_SIGNATURE, output_types={"value": "tensor(double)"})
DATATYPE = {"age": "FP64", "income": "FP64", "visits": "INT64", "country": "BYTES"}
STRUCT = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}

texts = st.text(max_size=8)
classifier_rows = st.lists(
    st.fixed_dictionaries(
        {
            "age": st.floats(allow_nan=False, allow_infinity=False),
            "income": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "visits": st.integers(-(2**63), 2**63 - 1),
            "country": texts,
        }
    ),
    min_size=1,
    max_size=5,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats(allow_nan=False) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=6,
)


def _read(
    document: Mapping[str, Any] | bytes, tail: bytes = b"", *, layout: Layout = CLASSIFIER, header: str = ""
) -> InferenceRequest:
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    length = header.encode() or (str(len(head)).encode() if tail else None)
    known = {feature.name for feature in layout.features}
    return read_request(head + tail, header_length=length, layout=layout, known=known, max_rows=MAX_ROWS)


def _pack(values: Sequence[Any], datatype: str) -> bytes:
    """Write elements as the extension has them, without the code under test; None is NaN."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in values)
    numbers = [math.nan if value is None else value for value in values]
    return struct.pack(f"<{len(values)}{STRUCT[datatype]}", *numbers)


def _tensor(name: str, datatype: str, shape: Sequence[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), **more}


def _features(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    tensors = [
        _tensor(name, datatype, [len(rows)], data=[row[name] for row in rows])
        for name, datatype in DATATYPE.items()
    ]
    return {"inputs": tensors}


@given(rows=classifier_rows, nested=st.booleans(), order=st.permutations(list(DATATYPE)))
def test_json_gives_the_rows_that_were_written(
    rows: list[dict[str, Any]], order: list[str], *, nested: bool
) -> None:
    """One tensor a feature, in any order, flat or nested: the values arrive as they are, null as None."""
    tensors = []
    for name in order:
        values = [row[name] for row in rows]
        shape = [len(rows), 1] if nested else [len(rows)]
        data = [[value] for value in values] if nested else values
        tensors.append(_tensor(name, DATATYPE[name], shape, data=data))
    assert list(_read({"inputs": tensors}).rows) == rows


@given(rows=classifier_rows, in_json=st.sets(st.sampled_from(list(DATATYPE))))
def test_bytes_give_the_rows_that_were_written(rows: list[dict[str, Any]], in_json: set[str]) -> None:
    """Bytes after the JSON, mixed with data in it, arrive as they are; NaN is null where null is allowed."""
    tensors, tail = [], b""
    for name, datatype in DATATYPE.items():
        values = [row[name] for row in rows]
        if name in in_json:
            tensors.append(_tensor(name, datatype, [len(rows)], data=values))
            continue
        packed = _pack(values, datatype)
        parameters = {"binary_data_size": len(packed)}
        tensors.append(_tensor(name, datatype, [len(rows)], parameters=parameters))
        tail += packed
    assert list(_read({"inputs": tensors}, tail).rows) == rows


matrix_rows = st.lists(
    st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False), st.booleans()),
    min_size=1,
    max_size=5,
)


@given(rows=matrix_rows, binary=st.booleans(), datatype=st.sampled_from(["FP32", "FP64"]))
def test_the_graphs_matrix_is_its_features_columns(
    rows: list[tuple[float, bool]], datatype: str, *, binary: bool
) -> None:
    """A column of 0 and 1 is a boolean feature's, and every other number arrives as it is."""
    flat = [value for number, flag in rows for value in (number, 2.0, float(flag))]
    shape = [len(rows), 3]
    if binary:
        packed = _pack(flat, datatype)
        read = _read(
            {"inputs": [_tensor("x", datatype, shape, parameters={"binary_data_size": len(packed)})]},
            packed,
            layout=REGRESSOR,
        )
    else:
        read = _read({"inputs": [_tensor("x", datatype, shape, data=flat)]}, layout=REGRESSOR)
    assert list(read.rows) == [{"x1": number, "x2": 2.0, "member": flag} for number, flag in rows]


def test_a_matrix_and_features_may_be_mixed() -> None:
    """One of the graph's inputs as a matrix, the other's columns by name; whole numbers become integers."""
    tensors = [
        _tensor("numbers", "FP32", [2, 3], data=[[3.0, 41.0, None], [0, 19, 1.5]]),
        _tensor("country", "BYTES", [2, 1], data=["NO", None]),
    ]
    assert list(_read({"inputs": tensors}).rows) == [
        {"visits": 3, "age": 41.0, "income": None, "country": "NO"},
        {"visits": 0, "age": 19, "income": 1.5, "country": None},
    ]


def test_a_raw_request_is_the_graphs_only_input() -> None:
    """Header 0: the whole body is the matrix, and its size says how many rows there are."""
    read = _read(b"", _pack([1.0, 2.0, 1.0, 3.0, 4.0, 0.0], "FP64"), layout=REGRESSOR, header="0")
    assert list(read.rows) == [
        {"x1": 1.0, "x2": 2.0, "member": True},
        {"x1": 3.0, "x2": 4.0, "member": False},
    ]


@pytest.mark.parametrize(("layout", "size"), [(CLASSIFIER, 24), (REGRESSOR, 25), (REGRESSOR, 0)])
def test_a_raw_request_that_cannot_be_one_is_refused(layout: Layout, size: int) -> None:
    """Two inputs, half a row, or none."""
    with pytest.raises(ProblemError) as refused:
        _read(b"", b"x" * size, layout=layout, header="0")
    assert refused.value.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)


def test_what_nan_means_is_up_to_the_signature() -> None:
    """NaN is null where null is allowed; where it is not, it stays NaN, for the door to judge."""
    features = (
        Feature(name="nullable", dtype="float64", nullable=True, not_finite=True),
        Feature(name="strict", dtype="float64"),
    )
    signature = Signature(
        features=features,
        tensors=(Tensor(name="x", dtype="float64", features=("nullable", "strict")),),
        outputs=Outputs(prediction="y"),
    )
    layout = layout_of(signature, output_types={"y": "tensor(float)"})
    tail = _pack([math.nan, math.nan, math.inf, -math.inf], "FP64")
    tensor = _tensor("x", "FP64", [2, 2], parameters={"binary_data_size": len(tail)})
    (first, second) = _read({"inputs": [tensor]}, tail, layout=layout).rows
    assert first["nullable"] is None
    assert math.isnan(first["strict"])
    assert second == {"nullable": math.inf, "strict": -math.inf}


@given(data=st.data(), datatype=st.sampled_from(sorted(STRUCT)))
def test_bytes_of_numbers_there_and_back(data: st.DataObject, datatype: str) -> None:
    """What is packed little-endian is read exactly, and written as the same bytes."""
    raw = data.draw(st.binary(max_size=8).map(lambda unit: unit * struct.calcsize(STRUCT[datatype])))
    if datatype == "BOOL":
        raw = bytes(byte & 1 for byte in raw)
    count = len(raw) // struct.calcsize(STRUCT[datatype])
    elements = elements_of_bytes(memoryview(raw), datatype=DATATYPES[datatype], count=count)
    (values,) = columns(elements, nan_is_null=(False,))
    expected = list(struct.unpack(f"<{count}{STRUCT[datatype]}", raw))
    assert str(values) == str(expected)
    if not any(map(math.isnan, values)):
        assert to_bytes(values, datatype=DATATYPES[datatype]) == raw


@given(values=st.lists(texts, max_size=5))
def test_bytes_of_texts_there_and_back(values: list[str]) -> None:
    """Texts of any script survive."""
    packed = to_bytes(values, datatype=DATATYPES["BYTES"])
    assert packed == _pack(values, "BYTES")
    assert elements_of_bytes(memoryview(packed), datatype=DATATYPES["BYTES"], count=len(values)) == values


def test_bfloat16_is_the_upper_half_of_a_float32() -> None:
    """BF16 has no numpy type, and is read all the same."""
    raw = b"".join(struct.pack("<f", value)[2:] for value in (1.0, -2.5, 3.0e38))
    elements = elements_of_bytes(memoryview(raw), datatype=DATATYPES["BF16"], count=3)
    (values,) = columns(elements, nan_is_null=(False,))
    assert values == pytest.approx([1.0, -2.5, 3.0e38], rel=2**-7)


ONE = _features(CLASSIFIER_ROWS[:1])


def _with(**change: Any) -> dict[str, Any]:
    """Return a request whose first tensor is changed; `...` removes a member."""
    first = {name: value for name, value in {**ONE["inputs"][0], **change}.items() if value is not ...}
    return {"inputs": [first, *ONE["inputs"][1:]]}


BINARY = {"binary_data_size": 8}


@pytest.mark.parametrize(
    ("document", "tail", "status", "told"),
    [
        (b"", b"", 400, "not JSON"),
        (b"\xff", b"", 400, "not JSON"),
        (b"[" * 5000, b"", 400, "not JSON"),
        (b'{"inputs": [NaN]}', b"", 400, "not JSON"),
        ([], b"", 422, "must be an object"),
        ({}, b"", 422, "`inputs` must be a list"),
        ({"inputs": []}, b"", 422, "at least one tensor"),
        ({"inputs": {}}, b"", 422, "must be a list"),
        ({"inputs": [7]}, b"", 422, "`inputs[0]` must be an object with a `name`"),
        ({"inputs": [{"name": 7}]}, b"", 422, "`inputs[0]` must be an object with a `name`"),
        ({**ONE, "input": []}, b"", 422, "unknown members ['input']"),
        ({**ONE, "id": 7}, b"", 422, "`id` must be a text"),
        ({**ONE, "parameters": []}, b"", 422, "must be an object"),
        ({**ONE, "parameters": {"user_id": 1.5}}, b"", 422, "parameters.user_id"),
        ({**ONE, "parameters": {"context": "{"}}, b"", 422, "not JSON"),
        ({**ONE, "parameters": {"context": "7"}}, b"", 422, "the JSON of one"),
        ({**ONE, "parameters": {"context": 7}}, b"", 422, "the JSON of one"),
        ({**ONE, "parameters": {"binary_data_output": 1}}, b"", 422, "true or false"),
        ({**ONE, "outputs": {}}, b"", 422, "`outputs` must be a list"),
        ({**ONE, "outputs": ["prediction"]}, b"", 422, "`outputs[0]` must be an object"),
        ({**ONE, "outputs": [{"name": "label"}]}, b"", 422, "it gives prediction, probabilities"),
        ({**ONE, "outputs": [{"name": "prediction"}] * 2}, b"", 422, "twice"),
        (
            {**ONE, "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}]},
            b"",
            422,
            "`classification`, which is not supported",
        ),
        (
            {**ONE, "outputs": [{"name": "prediction", "parameters": {"binary_data": "yes"}}]},
            b"",
            422,
            "must be true or false",
        ),
        (_with(datatype="FP99"), b"", 422, "'age': its `datatype` must be one of"),
        (_with(datatype=["FP64"]), b"", 422, "'age': its `datatype` must be one of"),
        (_with(datatype="BOOL"), b"", 422, "'age': BOOL cannot hold what its `data` has: number"),
        (_with(datatype="INT8", data=[128]), b"", 422, "too large for INT8"),
        (_with(datatype="UINT8", data=[-1]), b"", 422, "too large for UINT8"),
        (_with(datatype="INT64", data=[41.0]), b"", 422, "INT64 holds whole numbers"),
        (_with(datatype="FP32", data=[1e39]), b"", 422, "too large for FP32"),
        (_with(data=[True]), b"", 422, "FP64 cannot hold what its `data` has: boolean"),
        (_with(data=[[41.0]]), b"", 422, "nested `data` has not the shape [1]"),
        (_with(shape=[1, 1], data=[[41.0, 1.0]]), b"", 422, "nested `data` has not the shape [1, 1]"),
        (_with(shape=[1, 1], data=[[[41.0]]]), b"", 422, "array"),
        (_with(data={}), b"", 422, "must be an array"),
        (_with(data=...), b"", 422, "must be an array"),
        (_with(data=[]), b"", 422, "has 0 elements, its shape [1] says 1"),
        (_with(data=[1.0, 2.0]), b"", 422, "has 2 elements, its shape [1] says 1"),
        (_with(shape=...), b"", 422, "`shape` must be a list"),
        (_with(shape=[]), b"", 422, "must be [rows] or [rows, 1], not []"),
        (_with(shape=[True]), b"", 422, "whole numbers"),
        (_with(shape=[1.0]), b"", 422, "whole numbers"),
        (_with(shape=[-1]), b"", 422, "it has -1 rows"),
        (_with(shape=[0], data=[]), b"", 422, "it has 0 rows"),
        (_with(shape=[1, 2]), b"", 422, "must be [rows] or [rows, 1], not [1, 2]"),
        (_with(shape=[1, 1, 1]), b"", 422, "must be [rows] or [rows, 1], not [1, 1, 1]"),
        (_with(shape=[2**62]), b"", 413, "rows are more than 100"),
        (_with(shape=[2**70]), b"", 422, "whole numbers"),
        (_with(shape=[1] * 10_000), b"", 422, "not [1, 1, 1, 1, 1, 1, 1, 1]"),
        (_with(shape=[101], data=[1.0] * 101), b"", 413, "101 rows are more than 100"),
        (_with(shape=[2], data=[1.0, 2.0]), b"", 422, "it has 1 rows, the first tensor has 2"),
        (_with(colour="blue"), b"", 422, "unknown members ['colour']"),
        (_with(parameters=[]), b"", 422, "must be an object"),
        (_with(parameters=BINARY), b"x" * 8, 422, "both `data` and `binary_data_size`"),
        (_with(data=..., parameters=BINARY), b"", 400, "the body has 0 left"),
        (_with(data=..., parameters=BINARY), b"x" * 7, 400, "the body has 7 left"),
        (_with(data=..., parameters=BINARY), b"x" * 9, 400, "1 bytes are left behind"),
        (_with(data=..., parameters={"binary_data_size": 2**62}), b"x" * 8, 400, "the body has 8 left"),
        (_with(data=..., parameters={"binary_data_size": -8}), b"x" * 8, 400, "the body has 8 left"),
        (_with(data=..., parameters={"binary_data_size": True}), b"x" * 8, 400, "a number of bytes"),
        (_with(data=..., parameters={"binary_data_size": "8"}), b"x" * 8, 400, "a number of bytes"),
        (
            _with(data=..., datatype="FP32", parameters=BINARY),
            b"x" * 8,
            422,
            "its binary data has 8 bytes, its shape and FP32 say 4",
        ),
        (
            _with(data=..., datatype="BOOL", parameters={"binary_data_size": 1}),
            b"\x02",
            422,
            "neither 0 nor 1",
        ),
        (
            _with(data=..., parameters={"shared_memory_region": "r"}),
            b"",
            422,
            "shared memory is not supported",
        ),
        (ONE, b"x", 400, "1 bytes are left behind"),
        ({"inputs": ONE["inputs"] * 2}, b"", 422, "'age': it is given twice"),
        (
            {"inputs": [*ONE["inputs"], _tensor("numbers", "FP32", [1, 3], data=[1, 2, 3])]},
            b"",
            422,
            "the feature 'visits' is given by another tensor, too",
        ),
        (
            {"inputs": [_tensor("words", "FP32", [1, 1], data=[1])]},
            b"",
            422,
            "the graph's input takes BYTES, not FP32",
        ),
        (
            {"inputs": [_tensor("numbers", "FP32", [3], data=[1, 2, 3])]},
            b"",
            422,
            "must be [rows, 3], not [3]",
        ),
        ({"inputs": [_tensor("numbers", "FP32", [1, 2], data=[1, 2])]}, b"", 422, "must be [rows, 3]"),
    ],
)
def test_what_is_malformed_is_told(document: Any, tail: bytes, status: int, told: str) -> None:
    """Each lie of a request about itself is a problem that says where it is."""
    with pytest.raises(ProblemError) as refused:
        _read(document, tail)
    assert (refused.value.status, told in refused.value.detail) == (status, True), refused.value.detail
    assert len(refused.value.body()) < 4096


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "0 bytes is not 1 texts"),
        (b"\x01\x00\x00", "3 bytes is not 1 texts"),
        (b"\x02\x00\x00\x00a", "5 bytes is not 1 texts"),
        (b"\xff\xff\xff\xffa", "5 bytes is not 1 texts"),
        (b"\x01\x00\x00\x00ab", "6 bytes is not 1 texts"),
        (b"\x01\x00\x00\x00\xff", "element 0 is not UTF-8"),
    ],
)
def test_texts_that_are_none_are_told(raw: bytes, told: str) -> None:
    """Lengths that lie, bytes that are left, and what is not UTF-8."""
    tensor = _tensor("country", "BYTES", [1], parameters={"binary_data_size": len(raw)})
    with pytest.raises(ProblemError) as refused:
        _read({"inputs": [tensor]}, raw, header=str(len(json.dumps({"inputs": [tensor]}))))
    assert told in refused.value.detail


@pytest.mark.parametrize("header", ["-1", "1e3", "x", "", " 5", "99999999999", "9" * 5000, "\u00b2"])
def test_a_header_length_that_lies_is_told(header: str) -> None:
    """Neither a length beyond the body nor what is no number is believed."""
    with pytest.raises(ProblemError) as refused:
        read_request(
            json.dumps(ONE).encode(),
            header_length=header.encode("latin-1"),
            layout=CLASSIFIER,
            known=DATATYPE,
            max_rows=MAX_ROWS,
        )
    assert refused.value.status == HTTPStatus.BAD_REQUEST


def test_every_tensors_problem_is_told_at_once() -> None:
    """A client learns of all that is wrong in one answer; what it names is bounded."""
    tensors = [_tensor(f"t{number}", "FP99", [1], data=[1]) for number in range(1002)]
    with pytest.raises(ProblemError) as refused:
        _read({"inputs": tensors})
    assert len(refused.value.extra["errors"]) == 1000
    assert refused.value.extra["errors_total"] == 1002
    assert "and 994 more" in refused.value.detail


def test_no_end_of_tensors_is_no_end_of_work() -> None:
    """More tensors than any version could take are refused before they are looked at."""
    with pytest.raises(ProblemError) as refused:
        _read({"inputs": [{"name": ""}] * 100_000})
    assert "far more than the 6" in refused.value.detail


def test_inputs_that_nobody_knows_are_set_apart() -> None:
    """They are named, and their data is not kept."""
    tensors = [*ONE["inputs"], _tensor("colour", "UINT8", [1], data=["whatever"])]
    read = _read({"inputs": tensors})
    assert (list(read.rows), list(read.unknown)) == ([dict(CLASSIFIER_ROWS[0])], ["colour"])


def test_who_asks_travels_in_the_parameters() -> None:
    """The sticky key as text or number; the context as an object or as its JSON."""
    plain = _read({**ONE, "parameters": {"user_id": 17, "context": {"country": "NO"}, "priority": 3}})
    text = _read({**ONE, "parameters": {"user_id": "17", "context": '{"country": "NO"}'}})
    assert (plain.user_id, plain.context) == (text.user_id, text.context) == ("17", {"country": "NO"})


inputs = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from([*DATATYPE, "numbers", "words", "colour"]) | json_values,
            "datatype": st.sampled_from([*DATATYPES, "FP99"]) | json_values,
            "shape": st.lists(st.integers(-2, 4) | st.just(2**62), max_size=3) | json_values,
            "data": st.lists(json_values, max_size=4) | json_values,
            "parameters": st.fixed_dictionaries(
                {}, optional={"binary_data_size": st.integers(-1, 20) | json_values}
            )
            | json_values,
        },
    )
    | json_values,
    max_size=4,
)
documents = st.fixed_dictionaries(
    {"inputs": inputs},
    optional={"id": json_values, "parameters": json_values, "outputs": json_values, "other": json_values},
)


@settings(max_examples=300)
@given(document=documents | json_values, tail=st.binary(max_size=24), shift=st.integers(-2, 2))
def test_garbage_is_a_problem_or_a_request(document: Any, tail: bytes, shift: int) -> None:
    """Whatever is sent, nothing but a problem is raised, and rows are whole."""
    head = orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS) if _fits_json(document) else b"{"
    try:
        read = _read(head, tail, header=str(len(head) + shift))
    except ProblemError as problem:
        orjson.loads(problem.body())
        return
    assert all(row.keys() == read.rows[0].keys() for row in read.rows)
    assert len(read.rows) <= MAX_ROWS


plain_inputs = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from([*DATATYPE, "numbers", "colour"]),
            "datatype": st.sampled_from([*DATATYPES, "FP99"]),
            "shape": st.sampled_from([[1], [1, 1], [True], [1.0], [1, True], [2], []]),
            "data": st.lists(json_values, min_size=1, max_size=1) | json_values,
        },
        optional={"parameters": st.just({}), "other": st.none()},
    )
    | json_values,
    min_size=1,
    max_size=4,
)


@given(inputs=plain_inputs)
def test_the_quick_reading_is_the_careful_one(inputs: list[Any]) -> None:
    """Whatever the way for plain requests understands, the other one understands alike."""
    row = _plain_row(inputs, layout=CLASSIFIER, known=DATATYPE)
    if row is None:
        return
    reader = _Reader(CLASSIFIER, DATATYPE, MAX_ROWS, memoryview(b""))
    for number, entry in enumerate(inputs):
        reader.read(entry, number=number)
    reader.end()
    assert (list(reader.rows()), reader.unknown) == ([row], [])


def test_most_requests_take_the_quick_way() -> None:
    """A value for each feature, null included, is read without detours."""
    for row in CLASSIFIER_ROWS:
        assert _plain_row(_features([row])["inputs"], layout=CLASSIFIER, known=DATATYPE) == row


def _fits_json(document: Any) -> bool:
    try:
        orjson.dumps(document)
    except TypeError:  # integers beyond 64 bits
        return False
    return True


@given(body=st.binary(max_size=200), encoding=st.sampled_from(sorted(ENCODINGS)))
def test_what_is_no_compressed_body_is_a_problem(body: bytes, encoding: bytes) -> None:
    """Garbage never raises anything else, and plain bodies are left alone."""
    try:
        inflated = inflate(body, encoding=encoding, limit=1000)
    except ProblemError as problem:
        refused = problem.status
    else:
        assert (inflated, encoding) == (body, b"identity")
        return
    assert refused == HTTPStatus.BAD_REQUEST


def test_a_compressed_body_is_inflated_up_to_the_limit() -> None:
    """What would become larger, was cut, or goes on behind its end is refused."""
    packed = zlib.compress(b"a" * 1000)
    assert inflate(packed, encoding=b"deflate", limit=1000) == b"a" * 1000
    for body, limit, status in (
        (packed, 999, 413),
        (zlib.compress(bytes(10**8)), 1000, 413),
        (packed[:-1], 1000, 400),
        (packed + b"x", 1000, 400),
    ):
        with pytest.raises(ProblemError) as refused:
            inflate(body, encoding=b"deflate", limit=limit)
        assert refused.value.status == status


def test_a_graphs_own_types_have_datatypes() -> None:
    """Every type of numpy's that a graph's output can have is named as the protocol names it."""
    for name, datatype in DATATYPES.items():
        if name not in ("BF16", "BYTES"):
            graph = {"FP16": "float16", "FP32": "float", "FP64": "double"}.get(name, str(datatype.wire))
            layout = layout_of(REGRESSOR_SIGNATURE, output_types={"value": f"tensor({graph})"})
            assert layout.outputs == {"prediction": name}
            assert np.dtype(datatype.wire).newbyteorder("<") == datatype.wire
