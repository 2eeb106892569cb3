"""The schema at the door, for every value that JSON can carry."""

import math

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract.bundle import Dtype, Feature, Outputs, Signature, Tensor
from greenroom_runtime.models.door import Door

NUMPY: dict[Dtype, type] = {"float32": np.float32, "float64": np.float64, "int64": np.int64, "bool": np.bool_}
DTYPES: tuple[Dtype, ...] = ("float32", "float64", "int64", "string", "bool")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=2) | st.dictionaries(st.text(max_size=3), children, max_size=2)
    ),
    max_leaves=4,
)


def _door(dtype: Dtype, *, nullable: bool = False) -> Door:
    return Door(
        Signature(
            features=(Feature(name="f", dtype=dtype, nullable=nullable),),
            tensors=(Tensor(name="x", dtype=dtype, features=("f",)),),
            outputs=Outputs(prediction="y"),
        )
    )


@given(value=json_values, dtype=st.sampled_from(DTYPES), nullable=st.booleans())
def test_what_is_let_in_fits_its_tensor(value: object, dtype: Dtype, *, nullable: bool) -> None:
    """Whatever passes the door becomes a finite element of its tensor, of its own JSON type."""
    if _door(dtype, nullable=nullable).findings({"f": value}):
        return
    if value is None:
        assert nullable
    elif dtype == "string":
        assert isinstance(value, str)
    elif dtype == "bool":
        assert isinstance(value, bool)
    else:
        assert not isinstance(value, bool)
        with np.errstate(over="raise"):
            element = np.array([value], dtype=NUMPY[dtype])[0]
        assert math.isfinite(element)


@given(features=st.dictionaries(st.text(max_size=3), json_values, max_size=4))
def test_each_feature_is_found_at_most_once(features: dict[str, object]) -> None:
    """The one declared feature and each unknown one give one finding each, and all can be written as JSON."""
    told = _door("float32").findings(features)
    named = [finding.feature for finding in told]
    assert len(named) == len(set(named))
    assert set(features) - {"f"} <= set(named) <= set(features) | {"f"}
    assert len(orjson.loads(orjson.dumps(told))) == len(told)


@given(value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_every_finite_number_is_a_float64(value: float) -> None:
    """No finite number is refused where a float64 is asked for."""
    assert _door("float64").findings({"f": value}) == []
