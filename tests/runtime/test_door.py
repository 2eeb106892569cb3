"""The schema at the door, for every value that JSON and tensors can carry."""

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract.bundle import Dtype, Feature, Outputs, Signature, Tensor
from greenroom_runtime.models.door import Door, Finding, describe, in_order
from greenroom_runtime.models.session import neutral_row

NUMPY: dict[Dtype, type] = {"float32": np.float32, "float64": np.float64, "int64": np.int64, "bool": np.bool_}
DTYPES: tuple[Dtype, ...] = ("float32", "float64", "int64", "string", "bool")
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["red", "green", 0, 1, 10, 10.5]),
    lambda children: (
        st.lists(children, max_size=2) | st.dictionaries(st.text(max_size=3), children, max_size=2)
    ),
    max_leaves=4,
)
features = st.builds(
    Feature,
    name=st.just("f"),
    dtype=st.sampled_from(DTYPES),
    nullable=st.booleans(),
    categories=st.none() | st.just(("red", "green")),
    unseen=st.sampled_from(["Accept", "Refuse"]),
    minimum=st.none() | st.just(1.0),
    maximum=st.none() | st.just(10.0),
    outside=st.sampled_from(["Accept", "Refuse"]),
    not_finite=st.booleans(),
    sensitive=st.booleans(),
)


def _door_of(*declared: Feature) -> Door:
    return Door(
        Signature(
            features=declared,
            tensors=tuple(Tensor(name=f.name, dtype=f.dtype, features=(f.name,)) for f in declared),
            outputs=Outputs(prediction="y"),
        )
    )


def _door(dtype: Dtype, **changes: Any) -> Door:
    return _door_of(Feature(name="f", dtype=dtype, **changes))


def _problem(door: Door, value: object) -> str:
    """Return what is wrong with the one feature, empty where nothing is."""
    return "".join(finding.problem for finding in door.findings({"f": value}))


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


@given(
    feature=features,
    row=st.dictionaries(st.sampled_from(["f", "g", "h"]), json_values, max_size=3),
    known=st.frozensets(st.sampled_from(["f", "g", "h"])),
)
def test_the_quick_pass_and_the_thorough_one_agree(
    feature: Feature, row: dict[str, object], known: frozenset[str]
) -> None:
    """A row fits exactly where there is nothing to tell, whatever the policies and the row."""
    door = _door_of(feature)
    assert door.fits(row, known=known) == (door.findings(row, known=known) == [])


@pytest.mark.parametrize(
    ("row", "known", "wrong"),
    [
        ({"f": 1.0}, (), []),
        ({"f": 1.0, "other": "x"}, ("other",), []),
        ({"f": 1.0, "other": [1]}, ("f", "other"), []),
        ({"f": 1.0, "other": 1, "nobody's": 2}, ("f", "other"), ["nobody's"]),
        ({"other": 1}, ("f", "other"), ["f"]),
        ({}, ("f",), ["f"]),
    ],
    ids=[
        "its own",
        "another's",
        "another's of any type",
        "nobody's beside another's",
        "only another's",
        "nothing",
    ],
)
def test_features_of_other_versions_are_let_through(
    row: dict[str, object], known: Collection[str], wrong: list[str]
) -> None:
    """What only another version takes is not looked at; what this one lacks is missing all the same."""
    door = _door("float64")
    assert [finding.feature for finding in door.findings(row, known=known)] == wrong
    assert door.fits(row, known=frozenset(known)) == (not wrong)


def test_an_unseen_category_is_refused_where_the_signature_says_so() -> None:
    """A text that is no category is a finding that names them; letter case and blanks count."""
    door = _door("string", categories=("NO", "SE"), unseen="Refuse")
    assert _problem(door, "NO") == ""
    for text in ("XX", "no", "NO ", ""):
        assert _problem(door, text) == "unseen"
    (finding,) = door.findings({"f": "XX"})
    assert finding == Finding(feature="f", problem="unseen", expected='one of "NO", "SE"', found='"XX"')
    assert describe([finding]) == ('\'f\' is not a known category, expected one of "NO", "SE", found "XX"')


def test_an_unseen_category_is_accepted_unless_the_signature_says_otherwise() -> None:
    """By default the model answers it as its training pipeline would."""
    assert _problem(_door("string", categories=("NO", "SE")), "XX") == ""


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_a_number_out_of_range_is_refused_where_the_signature_says_so(dtype: Dtype) -> None:
    """The ends belong to the range; what is beyond is a finding that tells the range."""
    door = _door(dtype, minimum=18, maximum=95, outside="Refuse")
    for value in (18, 40, 95):
        assert _problem(door, value) == ""
    for value in (17, 96, -(2**62), 2**62):
        assert _problem(door, value) == "outside"
    (finding,) = door.findings({"f": 17})
    assert (finding.expected, finding.found) == ("18 to 95", "number 17")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"minimum": 0}, "at least 0"),
        ({"maximum": 0}, "at most 0"),
        ({"minimum": 0, "nullable": True}, "at least 0 or null"),
    ],
)
def test_a_range_may_have_one_end(changes: dict[str, Any], expected: str) -> None:
    """An end that the signature leaves out refuses nothing."""
    door = _door("float64", outside="Refuse", **changes)
    found = [finding for value in (-1, 1) for finding in door.findings({"f": value})]
    assert [(finding.problem, finding.expected) for finding in found] == [("outside", expected)]


def test_the_ends_of_a_float32_range_are_reached_by_their_decimals() -> None:
    """Training saw 0.1 and 0.3 as float32; a request that says 0.1 or 0.3 is not out of that range."""
    door = _door("float32", minimum=float(np.float32(0.3)), maximum=float(np.float32(0.7)), outside="Refuse")
    assert float(np.float32(0.3)) > 0.3
    assert float(np.float32(0.7)) < 0.7
    assert (_problem(door, 0.3), _problem(door, 0.7)) == ("", "")
    assert (_problem(door, 0.29999), _problem(door, 0.70001)) == ("outside", "outside")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("nullable", [False, True])
def test_what_is_not_finite_needs_leave(value: float, *, nullable: bool) -> None:
    """NaN and infinities are refused unless the signature has them; null is null, and NaN is not."""
    assert _problem(_door("float64", nullable=nullable), value) == "notFinite"
    assert _problem(_door("float64", nullable=nullable, not_finite=True), value) == ""
    assert _problem(_door("int64", nullable=nullable, not_finite=True), value) == "mistyped"


def test_what_is_not_finite_obeys_the_range() -> None:
    """With leave for both, infinity is out of a range that has an end on its side, and NaN is nowhere."""
    door = _door("float64", not_finite=True, minimum=0, outside="Refuse")
    assert [_problem(door, value) for value in (math.nan, math.inf, -math.inf)] == ["", "", "outside"]


@given(feature=features, value=json_values)
def test_a_sensitive_value_is_never_shown(feature: Feature, value: object) -> None:
    """Of a sensitive feature a finding tells the JSON type that was given, and no value of training."""
    door = _door_of(feature.model_copy(update={"sensitive": True}))
    assert door.sensitive == {"f"}
    for finding in door.findings({"f": value}):
        assert finding.found in ("null", "boolean", "number", "string", "array", "object")
        assert not {"red", "green", "1", "10"} & set(finding.expected.replace('"', "").split())


@given(feature=features, minimum=st.integers(-50, 50), size=st.integers(0, 50))
def test_a_neutral_row_is_let_in(feature: Feature, minimum: int, size: int) -> None:
    """What warms up a model without rows of its own passes its door, whatever that refuses."""
    changes: dict[str, Any] = {"minimum": minimum, "maximum": minimum + size}
    if feature.dtype != "string":
        changes["categories"] = None
    bounded = Feature.model_validate(feature.model_dump() | changes)
    signature = Signature(
        features=(bounded,),
        tensors=(Tensor(name="x", dtype=bounded.dtype, features=("f",)),),
        outputs=Outputs(prediction="y"),
    )
    assert Door(signature).findings(neutral_row(signature)) == []


def test_everything_that_is_wrong_is_told_at_once() -> None:
    """Findings come in the signature's order, then what nobody knows."""
    door = _door_of(
        Feature(name="age", dtype="int64", minimum=18, maximum=95, outside="Refuse"),
        Feature(name="plan", dtype="string", categories=("basic",), unseen="Refuse"),
        Feature(name="income", dtype="float64"),
        Feature(name="member", dtype="bool"),
        Feature(name="visits", dtype="int64"),
    )
    row = {"planet": 1, "member": 1, "income": math.nan, "plan": "gold", "age": 7}
    assert [(finding.feature, finding.problem) for finding in door.findings(row)] == [
        ("age", "outside"),
        ("plan", "unseen"),
        ("income", "notFinite"),
        ("member", "mistyped"),
        ("visits", "missing"),
        ("planet", "unexpected"),
    ]


def test_many_long_categories_are_told_briefly() -> None:
    """A finding stays short whatever the signature and the request hold."""
    categories = tuple(f"{number:03}" for number in range(100))
    (finding,) = _door("string", categories=categories, unseen="Refuse").findings({"f": "x" * 10_000})
    assert finding.expected.endswith("and 92 more")
    assert len(finding.found) < 100


@pytest.mark.parametrize("names", [("a",), ("b", "a"), ("c", "a", "b")])
def test_values_come_in_the_order_that_is_asked_for(names: tuple[str, ...]) -> None:
    """One name gives a tuple, too."""
    assert in_order(names)({"a": 1, "b": 2, "c": None}) == tuple(
        {"a": 1, "b": 2, "c": None}[n] for n in names
    )
