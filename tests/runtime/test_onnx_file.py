"""ONNX files that reach outside of themselves are refused before onnxruntime sees them."""

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.onnx_file import read_outline, refuse_external_data
from tests.support.bundles import classifier_graph, endless_graph, regressor_graph, with_external_data


def _external() -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.ones(1), "hidden")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="*/_ORT_MEM_ADDR_/*")
    return tensor


def _in_attribute(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Constant", [], ["hidden"], value=_external()))


def _in_subgraph(proto: onnx.ModelProto) -> None:
    body = proto.graph.node[1].attribute[0].g
    body.initializer.append(_external())


def _in_function(proto: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["hidden"], value=_external())
    proto.functions.append(
        helper.make_function("own", "F", [], ["hidden"], [node], [helper.make_opsetid("", 18)])
    )


def _in_sparse(proto: onnx.ModelProto) -> None:
    sparse = onnx.SparseTensorProto(values=_external(), dims=[1])
    proto.graph.sparse_initializer.append(sparse)


@pytest.mark.parametrize("hide", [_in_attribute, _in_subgraph, _in_function, _in_sparse])
def test_external_data_is_found_wherever_it_hides(hide: object, tmp_path: Path) -> None:
    """In attributes, subgraphs, functions and sparse tensors as in plain weights."""
    proto = onnx.load_from_string(endless_graph())
    hide(proto)  # type: ignore[operator]
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(VersionError) as caught:
        refuse_external_data(path)
    assert caught.value.failure.reason is FailureReason.INVALID_BUNDLE


def test_plain_weights_outside_are_refused(tmp_path: Path) -> None:
    """A weight in another file is refused, wherever that file lies."""
    path = tmp_path / "model.onnx"
    path.write_bytes(with_external_data(regressor_graph(0.0), "weights.bin"))
    with pytest.raises(VersionError, match="outside of the file"):
        refuse_external_data(path)


@pytest.mark.parametrize("model", [classifier_graph(0.0), regressor_graph(0.0), endless_graph()])
def test_self_contained_models_pass(model: bytes, tmp_path: Path) -> None:
    """Ordinary graphs are not suspected."""
    path = tmp_path / "model.onnx"
    path.write_bytes(model)
    refuse_external_data(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04pickle", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 64, b"\x0b"]
)
def test_garbage_is_not_loadable(content: bytes, tmp_path: Path) -> None:
    """No bytes whatever make the check itself fail."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(VersionError) as caught:
        refuse_external_data(path)
    assert caught.value.failure.reason is FailureReason.NOT_LOADABLE


def test_the_outline_is_what_onnx_itself_reads(tmp_path: Path) -> None:
    """Names, types and shapes of inputs and outputs are those of the onnx package."""
    for model in (classifier_graph(0.0), regressor_graph(0.0), endless_graph()):
        path = tmp_path / "model.onnx"
        path.write_bytes(model)
        outline, graph = read_outline(path), onnx.load_from_string(model).graph
        assert outline.name == graph.name
        for ours, theirs in zip(
            [*outline.inputs, *outline.outputs], [*graph.input, *graph.output], strict=True
        ):
            tensor = theirs.type.tensor_type
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            assert (ours.name, ours.is_tensor) == (theirs.name, True)
            assert ours.dtype == ("string" if dtype == np.object_ else dtype.name)
            assert ours.shape == tuple(one.dim_value or None for one in tensor.shape.dim)


def test_weights_are_no_inputs(tmp_path: Path) -> None:
    """Before IR version 4 a graph listed its weights among its inputs; nobody has to give those."""
    proto = onnx.load_from_string(regressor_graph(0.0))
    for weights in proto.graph.initializer:
        told = helper.make_tensor_value_info(weights.name, weights.data_type, list(weights.dims))
        proto.graph.input.append(told)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert [value.name for value in read_outline(path).inputs] == ["x"]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_damage_makes_the_reader_fail_otherwise(data: st.DataObject) -> None:
    """A model with bytes flipped, cut or put in is read, or refused as a version; nothing else happens."""
    model = bytearray(data.draw(st.sampled_from([classifier_graph(0.0), endless_graph()])))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(model) - 1))
        model[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        path.write_bytes(model[: data.draw(st.integers(1, len(model)))])
        for read in (read_outline, refuse_external_data):
            with suppress(VersionError):
                read(path)
